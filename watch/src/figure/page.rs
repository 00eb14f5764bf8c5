//! The interactive page: one HTML file that needs nothing else.

mod packed;

use super::data::{Figure, Page, Slowdown};
use crate::words::{self, escaped};
use packed::packed;

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// In the order of reading: what a page knows, how it looks, what it does.
const SCRIPT: &[&str] = &[
    include_str!("page/data.js"),
    include_str!("page/time.js"),
    include_str!("page/lay.js"),
    include_str!("page/draw.js"),
    include_str!("page/tell.js"),
    include_str!("page/view.js"),
    include_str!("page/panel.js"),
    include_str!("page/page.js"),
    include_str!("page/keys.js"),
    include_str!("page/pointer.js"),
    include_str!("page/begin.js"),
];

/// The page as text; the same one gives the same text, to the byte.
pub fn html(page: &Page) -> String {
    filled(FRAME, |name| match name {
        "style" => STYLE.to_owned(),
        "title" => escaped(&page.title),
        "scene" => escaped(&page.scene),
        "machine" => escaped(&page.machine),
        "date" => escaped(&page.date),
        "count" => count(page.figures.len()),
        "watching" => watching(page),
        "switches" => each(page, switch),
        "models" => each(page, model),
        "data" => harmless(&packed(page)),
        "script" => SCRIPT.join("\n"),
        name => unreachable!("page.html asks for {name}"),
    })
}

/// `frame` with every `{{name}}` replaced.
fn filled(frame: &str, text_of: impl Fn(&str) -> String) -> String {
    let mut parts = frame.split("{{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").expect("page.html: {{name}}");
        out += &text_of(name);
        out += rest;
    }
    out
}

fn each(page: &Page, write: fn((usize, &Figure)) -> String) -> String {
    page.figures.iter().enumerate().map(write).collect()
}

fn count(models: usize) -> String {
    match models {
        1 => "One server".to_owned(),
        many => format!("{many} servers"),
    }
}

/// What watching costs, over all models.
fn watching(page: &Page) -> String {
    let costs = page.figures.iter().filter_map(|it| it.slowdown);
    let ratios: Vec<f64> = costs.map(|it| it.ratio()).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let [least, most] = [least, most].map(factor);
    let how_much = match ratios.len() {
        0 => String::new(),
        _ if least == most => format!(", a busy one by a factor of {least}"),
        _ => format!(", a busy one by factors from {least} to {most}"),
    };
    format!(
        "Watching slows a server{how_much}: it tells of every call while its \
         clients wait."
    )
}

/// Two digits: more of them are noise.
fn factor(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 9.95 => format!("{ratio:.1}"),
        ratio => format!("{ratio:.0}"),
    }
}

fn switch((number, figure): (usize, &Figure)) -> String {
    format!(
        "<label><input type=\"checkbox\" checked data-switch=\"{number}\">\
         {}</label>\n",
        escaped(&figure.model)
    )
}

fn model((number, figure): (usize, &Figure)) -> String {
    let cost = figure.slowdown.map_or(String::new(), cost);
    format!(
        "<section class=\"model\" data-model=\"{number}\" \
         aria-labelledby=\"model-{number}\">\n<h2 id=\"model-{number}\">{}\
         </h2>\n<p class=\"summary\">{}</p>\n{cost}<p class=\"look\">{}</p>\n\
         <div class=\"plot\"></div>\n</section>\n",
        escaped(&figure.model),
        escaped(&figure.summary),
        escaped(&figure.look),
    )
}

fn cost(slowdown: Slowdown) -> String {
    format!(
        "<p class=\"cost\">{} messages/s watched, {} not: <b>{}×</b></p>\n",
        rounded(slowdown.watched),
        rounded(slowdown.unwatched),
        factor(slowdown.ratio())
    )
}

/// Three digits of a number, and its thousands apart.
fn rounded(number: f64) -> String {
    let step = 10f64.powf((number.max(1.0).log10().floor() - 2.0).max(0.0));
    words::count(((number / step).round() * step) as u64)
}

/// JSON in which nothing ends the element around it, or begins a comment.
fn harmless(json: &str) -> String {
    json.replace('<', "\\u003c")
}

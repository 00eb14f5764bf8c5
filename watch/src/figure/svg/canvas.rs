//! What is drawn, as text.

use std::fmt::Write as _;

use super::paint::{self, Paint};
use super::text::fitting;
use crate::figure::data::What;
use crate::words::escaped;

/// An SVG that grows.
#[derive(Default)]
pub struct Canvas(String);

/// Rectangles of one look, drawn as one path.
#[derive(Default)]
pub struct Rects(String);

impl Rects {
    pub fn add(&mut self, x: f64, y: f64, width: f64, height: f64) {
        let (x, y) = (number(x), number(y));
        let (width, height) = (number(width), number(height));
        let _ = write!(self.0, "M{x} {y}h{width}v{height}h-{width}z");
    }
}

/// Where a piece of text is held.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Canvas {
    pub fn text(&mut self, class: &str, at: (f64, f64), size: f64, text: &str) {
        self.anchored(class, at, (size, Anchor::Start), text);
    }

    pub fn anchored(
        &mut self,
        class: &str,
        (x, y): (f64, f64),
        (size, anchor): (f64, Anchor),
        text: &str,
    ) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let (x, y, text) = (number(x), number(y), escaped(text));
        let size = number(size);
        let _ = writeln!(
            self.0,
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" \
             font-size=\"{size}\"{anchor}>{text}</text>"
        );
    }

    /// A word, and softly what it means.
    pub fn pair(
        &mut self,
        (x, y): (f64, f64),
        size: f64,
        (word, means): (&str, &str),
    ) {
        let (x, y, size) = (number(x), number(y), number(size));
        let (word, means) = (escaped(word), escaped(means));
        let _ = writeln!(
            self.0,
            "<text class=\"ink\" x=\"{x}\" y=\"{y}\" font-size=\"{size}\">\
             {word}<tspan class=\"soft\">{means}</tspan></text>"
        );
    }

    /// As `text`, cut to this width.
    pub fn short(
        &mut self,
        class: &str,
        at: (f64, f64),
        (size, most): (f64, f64),
        text: &str,
    ) {
        self.text(class, at, size, &fitting(text, size, most));
    }

    pub fn path(&mut self, class: &str, path: &str) {
        if !path.is_empty() {
            let _ = writeln!(self.0, "<path class=\"{class}\" d=\"{path}\"/>");
        }
    }

    pub fn rects(&mut self, class: &str, rects: &Rects) {
        self.path(class, &rects.0);
    }

    pub fn rect(
        &mut self,
        class: &str,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
    ) {
        let mut rects = Rects::default();
        rects.add(x, y, width, height);
        self.rects(class, &rects);
    }

    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
        self.path(class, &format!("M{x1} {y1}L{x2} {y2}"));
    }

    /// A mark with its foot at this place.
    pub fn mark(&mut self, what: What, (x, y): (f64, f64)) {
        let (shape, _) = paint::shape(what);
        let _ = writeln!(
            self.0,
            "<path class=\"mark\" transform=\"translate({} {})\" \
             d=\"{shape}\"/>",
            number(x),
            number(y)
        );
    }

    /// A bar of the legend.
    pub fn swatch(&mut self, paint: &Paint, (x, y): (f64, f64)) {
        let height = 12.0 * paint.height;
        self.rect(paint.class, (x, y - height), (24.0, height));
    }

    /// Something that belongs together and has a name for who cannot see it.
    pub fn group(&mut self, data: &str, title: &str, inside: &Canvas) {
        let title = escaped(title);
        let _ = writeln!(
            self.0,
            "<g {data}><title>{title}</title>\n{}</g>",
            inside.0
        );
    }

    pub fn add(&mut self, inside: &Canvas) {
        self.0.push_str(&inside.0);
    }

    /// The whole file.
    pub fn file(
        &self,
        (width, height): (f64, f64),
        title: &str,
        described: &str,
    ) -> String {
        let (width, height) = (number(width), number(height.ceil()));
        let (title, described) = (escaped(title), escaped(described));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" \
             viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" \
             aria-labelledby=\"title description\">\n\
             <title id=\"title\">{title}</title>\n\
             <desc id=\"description\">{described}</desc>\n\
             {}<rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n\
             {}</svg>\n",
            paint::DEFS,
            self.0
        )
    }
}

/// With at most two decimals, and none that says nothing.
pub fn number(number: f64) -> String {
    let text = format!("{number:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

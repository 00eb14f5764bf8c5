//! One HTML page that needs nothing else: charts, their numbers, and the
//! comparison itself. It is well-formed XML too, so that it can be tested.

use anyhow::{Context as _, Result, ensure};

use super::answers::{Passage, Piece};
use super::charts::{
    self, Cell, Chart, Numbers, Part, Section, Shown, Source, Unit,
};
use super::plural;
use super::series::{self, Series};
use super::svg;
use crate::results::Comparison;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A comparison as a page; the same one gives the same page, to the byte.
pub fn page(comparison: &Comparison) -> Result<String> {
    let json = serde_json::to_string(comparison)?;
    // JSON has no word for a number that is none, and would lose it.
    let again = serde_json::from_str::<Comparison>(&json);
    let same = again.context("the comparison has a number that is none")?;
    ensure!(same == *comparison, "JSON does not keep the comparison as it is");
    let series = series::of(comparison);
    let source = Source::new(comparison, &series);
    let sections = source.sections();
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n");
    out += "<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" \
            content=\"width=device-width, initial-scale=1\"/>\n";
    let title = match source.is_uring_only() {
        true => "io_uring or epoll?",
        false => "I/O models compared",
    };
    out += &format!("<title>{title}</title>\n");
    out += &format!("<style>\n{STYLE}</style>\n</head>\n<body>\n");
    out += &head(comparison, title);
    out += "<div class=\"plan\">\n";
    out += &legend(&series);
    out += "<main>\n";
    let mut number = 0;
    for section in &sections {
        out += &drawn(section, &series, &mut number);
    }
    out += &whole(comparison, &source);
    out += "</main>\n</div>\n";
    out += &format!(
        "<script type=\"application/json\" id=\"comparison\">{}</script>\n",
        harmless(&json)
    );
    out += &format!("<script>\n//<![CDATA[\n{SCRIPT}//]]>\n</script>\n");
    out += "</body>\n</html>\n";
    Ok(out)
}

/// Text within an element or an attribute.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no place for them, not even escaped.
            '\u{0}'..' ' | '\u{7f}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            other => out.push(other),
        }
    }
    out
}

/// JSON in which nothing can end the element around it.
fn harmless(json: &str) -> String {
    let json = json.replace('<', "\\u003c").replace('>', "\\u003e");
    let json = json.replace('&', "\\u0026");
    json.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
}

fn shown(at: &str, number: f64, unit: Unit) -> String {
    format!(
        "<span data-at=\"{}\" data-unit=\"{}\">{}</span>",
        escaped(at),
        unit.name(),
        unit.write(number)
    )
}

fn head(comparison: &Comparison, title: &str) -> String {
    let (machine, method) = (&comparison.machine, &comparison.method);
    let mut out = format!("<header>\n<h1>{title}</h1>\n");
    out += &format!("<p class=\"date\">{}", escaped(&machine.date));
    if method.quick {
        out += " · a quick run: few and short rounds, for a first look";
    }
    out +=
        "</p>\n<div class=\"lead\">\n<section>\n<h2>What was measured</h2>\n";
    let models = series::of(comparison);
    let peers = models.iter().filter(|it| it.peer).count();
    out += &format!(
        "<p>TCP echo servers, one for each way to wait for clients: {}, and \
         {} to measure against. A load generator sends messages, holds every \
         byte that comes back against what it sent, and takes the time. ",
        plural(models.len() - peers, "server", "servers"),
        plural(peers, "peer", "peers"),
    );
    out += &format!(
        "At each point there were {} rounds; in each round every server had \
         its turn once, for {} s, one after the other, so that a machine that \
         becomes faster or slower does so for all. All had buffers of {}. ",
        shown("/method/rounds", method.rounds as f64, Unit::Count),
        shown("/method/turn_seconds", method.turn_seconds, Unit::Plain),
        shown("/method/buffer", method.buffer as f64, Unit::Bytes),
    );
    let (pinning, calls) = (escaped(&method.pinning), escaped(&method.calls));
    out += &format!("{pinning} {calls}</p>\n</section>\n");
    out += "<section>\n<h2>How to read it</h2>\n<p>\
            <strong>CPU time a message</strong> is what compares servers: what \
            the server and its children take of a core for each message. \
            <strong>Messages a second</strong> measure the pair of server and \
            generator wherever the generator takes more than 90 % of its core; \
            such numbers bear a dagger (†). A <strong>ratio</strong> is taken \
            within each round, against the baseline’s turn in the same round, \
            and so does not depend on how fast the machine was just then. \
            Numbers are medians over the rounds; the <strong>interval</strong> \
            beside each holds the true median with 95 % probability, or with \
            as much as so few rounds allow. Where the intervals of two servers \
            overlap, nothing says that they differ.</p>\n</section>\n";
    out += &format!(
        "<section class=\"machine\">\n<h2>The machine</h2>\n{}</section>\n",
        manifest(comparison)
    );
    out + "</div>\n</header>\n"
}

fn manifest(comparison: &Comparison) -> String {
    let machine = &comparison.machine;
    let mut out = String::from("<dl>\n");
    let mut say = |term: &str, what: String| {
        let term = escaped(term);
        out += &format!("<div><dt>{term}</dt><dd>{what}</dd></div>\n");
    };
    let pairs = |pairs: &[(String, String)]| {
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(name, what)| format!("{} {}", escaped(name), escaped(what)))
            .collect();
        match pairs.is_empty() {
            true => "none".to_string(),
            false => pairs.join("; "),
        }
    };
    let commit = machine.commit.as_deref().unwrap_or("no repository");
    say("Commit", format!("<code>{}</code>", escaped(commit)));
    say("Kernel", escaped(&machine.kernel));
    say("Processor", escaped(&machine.cpu));
    let cores = machine.cores as f64;
    say("Cores", shown("/machine/cores", cores, Unit::Count));
    let memory = machine.memory as f64;
    say("Memory", shown("/machine/memory", memory, Unit::Bytes));
    let load = machine.load_average;
    say("Load before", shown("/machine/load_average", load, Unit::Plain));
    say("Limits", pairs(&machine.limits));
    say("Mitigations", pairs(&machine.mitigations));
    say("Versions", pairs(&machine.versions));
    out + "</dl>\n"
}

fn legend(series: &[Series]) -> String {
    let mut out = String::from(
        "<nav class=\"legend\" aria-label=\"Servers in the charts\">\n\
         <p class=\"all\"><button type=\"button\" data-all=\"on\">all</button> \
         <button type=\"button\" data-all=\"off\">none</button></p>\n",
    );
    let mut families: Vec<usize> = series.iter().map(|it| it.family).collect();
    families.sort_unstable();
    families.dedup();
    for family in families {
        let those = || {
            let all = series.iter().enumerate();
            all.filter(|(_, it)| it.family == family)
        };
        let name = those().next().map_or("", |(_, it)| it.family_name());
        out += &format!("<fieldset>\n<legend>{name}</legend>\n");
        for (number, it) in those() {
            out += &format!(
                "<label data-series=\"{number}\" title=\"{}\"><input \
                 type=\"checkbox\" checked=\"checked\" \
                 data-switch=\"{number}\"/>{}<span>{}</span></label>\n",
                it.summary,
                svg::key(it),
                escaped(&it.name)
            );
        }
        out += "</fieldset>\n";
    }
    out + "</nav>\n"
}

fn drawn(section: &Section, series: &[Series], number: &mut usize) -> String {
    let mut out = format!("<section>\n<h2>{}</h2>\n", section.title);
    for part in &section.before {
        out += &match part {
            Part::Heading(text) => format!("<h3>{}</h3>\n", escaped(text)),
            Part::Passage(it) => format!("<p>{}</p>\n", passage(it)),
            Part::List(all) => {
                let item = |it| format!("<li>{}</li>\n", passage(it));
                let items: String = all.iter().map(item).collect();
                format!("<ul>\n{items}</ul>\n")
            }
            Part::Table(what, numbers) => format!(
                "<p class=\"note\">{}</p>\n{}",
                escaped(what),
                table(numbers, series)
            ),
        };
    }
    if !section.charts.is_empty() {
        out += "<div class=\"charts\">\n";
        for chart in &section.charts {
            *number += 1;
            out += &figure(chart, series, &format!("chart-{number}"));
        }
        out += "</div>\n";
    }
    for why in &section.missing {
        out += &format!("<p class=\"missing\">{}</p>\n", escaped(why));
    }
    out + "</section>\n"
}

fn figure(chart: &Chart, series: &[Series], id: &str) -> String {
    let mut out = format!(
        "<figure>\n<figcaption><h3 id=\"{id}\">{}</h3>\n<p>{}</p>\
         </figcaption>\n",
        escaped(&chart.title),
        escaped(&chart.caption)
    );
    out += "<div>\n";
    out += &chart.drawing.svg(id, series);
    if !chart.parts.is_empty() {
        out += "<ul class=\"parts\">\n";
        for (part, name) in chart.parts.iter().enumerate() {
            out += &format!(
                "<li><svg class=\"swatch\" viewBox=\"0 0 12 12\" \
                 aria-hidden=\"true\"><rect class=\"c{part}\" width=\"12\" \
                 height=\"12\"/></svg>{}</li>\n",
                escaped(name)
            );
        }
        out += "</ul>\n";
    }
    if chart.drawing.is_cut() {
        out += "<p class=\"note\">› is further to the right than there is \
                room.</p>\n";
    }
    out += "</div>\n";
    out += &format!(
        "<details>\n<summary>Numbers<span class=\"unseen\"> of “{}”</span>\
         </summary>\n",
        escaped(&chart.title)
    );
    for numbers in &chart.tables {
        out += &table(numbers, series);
    }
    if chart.daggers {
        out += DAGGER;
    }
    out += &left_out(&chart.absent);
    out + "</details>\n</figure>\n"
}

const DAGGER: &str = "<p class=\"note\">† The generator took more than 90 % of \
                      its core: this measures the pair.</p>\n";

fn left_out(absent: &[String]) -> String {
    if absent.is_empty() {
        return String::new();
    }
    let mut out = String::from("<p class=\"note\">Left out:</p>\n<ul>\n");
    for sentence in absent {
        out += &format!("<li>{}</li>\n", escaped(sentence));
    }
    out + "</ul>\n"
}

fn table(numbers: &Numbers, series: &[Series]) -> String {
    let mut out = String::from(
        "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>\
         <th scope=\"col\">server</th>",
    );
    for head in &numbers.heads {
        out += &format!("<th scope=\"col\">{}</th>", escaped(head));
    }
    out += "</tr></thead>\n<tbody>\n";
    for (number, cells) in &numbers.rows {
        let it = &series[*number];
        let peer = if it.peer { " <small>peer</small>" } else { "" };
        out += &format!(
            "<tr class=\"s\" data-series=\"{number}\"><th scope=\"row\">{}{peer}\
             </th>",
            escaped(&it.name)
        );
        for cell in cells {
            out += &format!("<td>{}</td>", cell_text(cell));
        }
        out += "</tr>\n";
    }
    out + "</tbody>\n</table></div>\n"
}

fn cell_text(cell: &Cell) -> String {
    let write = |it: &Shown| shown(&it.at, it.number, it.unit);
    match cell {
        Cell::Nothing => "–".to_string(),
        Cell::Number(it) => write(it),
        Cell::Estimate([median, low, high], busy) => format!(
            "{}{} <small>{}–{}</small>",
            write(median),
            if *busy { "†" } else { "" },
            write(low),
            write(high)
        ),
        Cell::Verdict([median, low, high], verdict) => format!(
            "<span class=\"verdict {}\">{}</span>{} <small>{}–{}</small>",
            verdict.class(),
            verdict.word(),
            write(median),
            write(low),
            write(high)
        ),
    }
}

fn passage(passage: &Passage) -> String {
    let piece = |it: &Piece| match it {
        Piece::Words(words) => escaped(words),
        Piece::Number(it) => shown(&it.at, it.number, it.unit),
    };
    passage.iter().map(piece).collect()
}

/// Everything, point by point.
fn whole(comparison: &Comparison, source: &Source) -> String {
    let mut out = String::from(
        "<section class=\"whole\">\n<h2>All numbers</h2>\n<p>Each load, with \
         everything that was measured. The saved form holds every round as \
         well. <button type=\"button\" data-save=\"comparison.json\" \
         hidden=\"hidden\">Save it as JSON</button></p>\n",
    );
    for (at, point) in comparison.points.iter().enumerate() {
        let busy: Vec<&str> = point
            .rows
            .iter()
            .filter(|row| row.generator_core_share > charts::BUSY)
            .map(|row| row.model.as_str())
            .collect();
        out += &format!(
            "<details data-point=\"{at}\">\n<summary>{}</summary>\n<p \
             class=\"note\">{}</p>\n",
            escaped(&charts::named(point)),
            load(comparison, at)
        );
        if !point.rows.is_empty() {
            out += &table(&source.whole(at), source.series());
        }
        if !busy.is_empty() {
            out += DAGGER;
        }
        let absent = point.absent.iter();
        let absent: Vec<String> =
            absent.map(|it| format!("{}: {}", it.model, it.why)).collect();
        out += &left_out(&absent);
        out += "</details>\n";
    }
    out + "</section>\n"
}

/// The load of a point as a sentence.
fn load(comparison: &Comparison, at: usize) -> String {
    let load = &comparison.points[at].load;
    let place = |name: &str| format!("/points/{at}/load/{name}");
    let count = |name: &str, number: usize| {
        shown(&place(name), number as f64, Unit::Count)
    };
    let mut parts = vec![
        format!(
            "active connections: {}",
            count("connections", load.connections)
        ),
        format!("idle: {}", count("idle", load.idle)),
        format!(
            "message: {}",
            shown(&place("size"), load.size as f64, Unit::Bytes)
        ),
    ];
    if load.loud > 0 {
        let loud = count("loud", load.loud);
        parts.push(format!("of the active ones begin with “!”: {loud}"));
    }
    parts.push(match load.rate {
        Some(rate) => format!(
            "messages a second, whatever comes back: {}",
            shown(&place("rate"), rate, Unit::Count)
        ),
        None => format!("outstanding on each: {}", count("depth", load.depth)),
    });
    if let Some(each) = load.messages_per_connection {
        let at = place("messages_per_connection");
        let each = shown(&at, each as f64, Unit::Count);
        parts.push(format!("messages until a connection is closed: {each}"));
    }
    let point = &comparison.points[at];
    if !point.args.is_empty() {
        let args = escaped(&point.args.join(" "));
        parts.push(format!("each server with <code>{args}</code>"));
    }
    if let Some(baseline) = &point.baseline {
        parts.push(format!("baseline: {}", escaped(baseline)));
    }
    let pinning = point.pinning.iter().map(|it| format!(". {}", escaped(it)));
    parts.join("; ") + &pinning.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_its_element() {
        let hostile = "</script><script>alert('&')</script>\u{1}\"";
        let text = escaped(hostile);
        assert!(!text.contains(['<', '>', '"', '\'', '\u{1}']), "{text}");
        let json = harmless(&serde_json::json!(hostile).to_string());
        assert!(!json.contains(['<', '>', '&']), "{json}");
        let back: String = serde_json::from_str(&json).unwrap_or_default();
        assert_eq!(back, hostile);
    }

    #[test]
    fn shown_numbers_are_of_the_unit() {
        let text = shown("/a", 5123.0, Unit::Micros);
        assert_eq!(text, "<span data-at=\"/a\" data-unit=\"us\">5.12</span>");
    }
}

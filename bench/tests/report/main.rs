//! What a comparison's table, page and diff promise, on one that nobody has
//! measured. `KEEP=DIR` leaves its JSON and its page there, to be looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use anyhow::{Context, Result, bail, ensure};
use bench::report::{self, Quantity};
use bench::results::{Absent, Comparison, Estimate, Load, Point, Row};
use libtest_mimic::{Arguments, Trial};
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

mod fixture;

type Test = fn() -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("page_needs_nothing_else", page_needs_nothing_else),
    ("page_holds_the_comparison", page_holds_the_comparison),
    ("ids_are_unique", ids_are_unique),
    ("numbers_are_those_of_the_json", numbers_are_those_of_the_json),
    ("numbers_stand_where_they_belong", numbers_stand_where_they_belong),
    ("every_row_is_told", every_row_is_told),
    ("absent_rows_are_told", absent_rows_are_told),
    ("every_chart_is_there", every_chart_is_there),
    ("uring_or_epoll_is_drawn", uring_or_epoll_is_drawn),
    ("uring_or_epoll_has_a_page_of_its_own", uring_or_epoll_alone),
    ("answers_are_those_of_the_intervals", answers_are_of_the_intervals),
    ("answers_change_with_the_run", answers_change_with_the_run),
    ("marks_are_in_the_order_of_numbers", marks_are_in_order),
    ("lines_are_as_steep_as_fitted", lines_are_as_steep_as_fitted),
    ("every_series_has_a_switch", every_series_has_a_switch),
    ("no_two_series_look_alike", no_two_series_look_alike),
    ("hostile_names_are_harmless", hostile_names_are_harmless),
    ("odd_numbers_are_drawn", odd_numbers_are_drawn),
    ("nothing_measured_is_said", nothing_measured_is_said),
    ("no_number_is_refused", no_number_is_refused),
    ("plot_draws_the_same_page", plot_draws_the_same_page),
    ("plot_prints_the_table", plot_prints_the_table),
    ("files_that_are_none_are_named", files_that_are_none_are_named),
    ("a_file_of_the_first_form_is_read", a_file_of_the_first_form_is_read),
    ("what_was_said_to_servers_is_told", what_was_said_to_servers_is_told),
    ("table_fits", table_fits),
    ("diff_of_the_same_is_nothing", diff_of_the_same_is_nothing),
    ("diff_finds_the_one_change", diff_finds_the_one_change),
    ("diff_is_sorted", diff_is_sorted),
    ("diff_says_what_is_absolute", diff_says_what_is_absolute),
    ("diff_tells_memory_and_calls", diff_tells_memory_and_calls),
    ("diff_tells_who_came_and_went", diff_tells_who_came_and_went),
    ("diff_of_two_machines_claims_nothing", diff_of_two_machines),
    ("diff_on_the_command_line", diff_on_the_command_line),
];

fn main() -> ExitCode {
    bench::serve_if_asked();
    let args = Arguments::from_args();
    if let Some(folder) = std::env::var_os("KEEP")
        && let Err(error) = keep(Path::new(&folder))
    {
        eprintln!("KEEP: {error:#}");
        return ExitCode::FAILURE;
    }
    let trials = TESTS.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            test().map_err(|error| format!("{error:#}").into())
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}

fn keep(folder: &Path) -> Result<()> {
    let comparison = fixture::comparison();
    let json = serde_json::to_string(&comparison)?;
    fs::write(folder.join("report.json"), json)?;
    fs::write(folder.join("report.html"), report::page(&comparison)?)?;
    Ok(())
}

fn parsed(page: &str) -> Result<Document<'_>> {
    let allow = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, allow).context("not well-formed")
}

/// Looks at the fixture's page.
fn with_page(look: fn(&Comparison, &Document) -> Result<()>) -> Result<()> {
    let comparison = fixture::comparison();
    let page = report::page(&comparison)?;
    look(&comparison, &parsed(&page)?)
}

fn named<'a>(
    of: Node<'a, 'a>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'a>> {
    of.descendants().filter(move |node| node.has_tag_name(name))
}

fn has_class(node: Node, class: &str) -> bool {
    let classes = node.attribute("class").unwrap_or_default();
    classes.split_whitespace().any(|it| it == class)
}

/// All text in it.
fn text(node: Node) -> String {
    let texts = node.descendants().filter(|it| it.is_text());
    texts.filter_map(|it| it.text()).collect()
}

fn page_needs_nothing_else() -> Result<()> {
    let page = report::page(&fixture::comparison())?;
    for word in ["http://", "https://", "src=", "@import", "fetch(", "import("]
    {
        ensure!(!page.contains(word), "the page says {word}");
    }
    let document = parsed(&page)?;
    let nodes = || document.descendants().filter(|node| node.is_element());
    for node in nodes() {
        let name = node.tag_name().name();
        ensure!(
            !["link", "img", "iframe", "object", "embed", "base"]
                .contains(&name),
            "the page has an element {name}"
        );
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            let outside = match name {
                "href" | "src" | "srcset" | "action" | "data" | "poster" => {
                    !value.starts_with('#')
                }
                _ => value.to_lowercase().contains("url("),
            };
            ensure!(!outside, "the page refers to {name}={value}");
        }
    }
    for style in nodes().filter(|node| node.has_tag_name("style")) {
        let text = text(style).to_lowercase();
        ensure!(!text.is_empty() && !text.contains("url("), "style: url(");
    }
    Ok(())
}

fn embedded(document: &Document) -> Result<Value> {
    let mut scripts = named(document.root(), "script");
    let json =
        scripts.find(|it| it.attribute("type") == Some("application/json"));
    let json = json.context("no JSON in the page")?;
    Ok(serde_json::from_str(&text(json))?)
}

fn page_holds_the_comparison() -> Result<()> {
    with_page(|comparison, document| {
        let held: Comparison = serde_json::from_value(embedded(document)?)?;
        ensure!(held == *comparison, "the page holds another comparison");
        Ok(())
    })
}

fn ids_are_unique() -> Result<()> {
    with_page(|_, document| {
        let ids = document.descendants().filter_map(|it| it.attribute("id"));
        let ids: Vec<&str> = ids.collect();
        let unique: BTreeSet<&str> = ids.iter().copied().collect();
        ensure!(unique.len() == ids.len() && ids.len() > 10, "{ids:?}");
        for node in document.descendants() {
            if let Some(id) = node.attribute("aria-labelledby") {
                ensure!(unique.contains(id), "nothing has the id {id}");
            }
        }
        Ok(())
    })
}

/// What a shown number may have been before it was rounded.
fn range(shown: &str, unit: &str) -> Result<(f64, f64)> {
    let mut words = shown.split_whitespace();
    let number = words.next().context("no number")?.replace(',', "");
    let scale = match (unit, words.next()) {
        ("us", None) => 1e3,
        ("three" | "count" | "plain", None) => 1.0,
        ("percent", Some("%")) => 0.01,
        ("bytes", Some("B")) => 1.0,
        ("bytes", Some("KiB")) => 1024.0,
        ("bytes", Some("MiB")) => 1024.0 * 1024.0,
        ("bytes", Some("GiB")) => 1024.0 * 1024.0 * 1024.0,
        other => bail!("a number with {other:?}"),
    };
    let digits = number.split_once('.').map_or(0, |(_, it)| it.len() as i32);
    let value: f64 = number.parse().context(number)?;
    let half = 0.500_001 * 10f64.powi(-digits);
    Ok(((value - half) * scale, (value + half) * scale))
}

fn numbers_are_those_of_the_json() -> Result<()> {
    with_page(|_, document| {
        let json = embedded(document)?;
        let mut seen = 0;
        for node in document.descendants() {
            let Some(at) = node.attribute("data-at") else { continue };
            let value = json.pointer(at).and_then(Value::as_f64);
            let value = value.with_context(|| format!("no number at {at}"))?;
            let unit = node.attribute("data-unit").context("no unit")?;
            let shown = text(node);
            let (low, high) = range(&shown, unit).context(at.to_string())?;
            ensure!(
                (low..=high).contains(&value),
                "{at} is {value}, and the page says {shown} ({unit})"
            );
            // Three digits say something, unless they would be too many.
            let digits = shown.chars().filter(char::is_ascii_digit).count();
            let rounded = unit == "us" || unit == "three";
            ensure!(
                !rounded || digits >= 3 || value == value.round(),
                "{at} is {value}, and the page says but {shown}"
            );
            seen += 1;
        }
        ensure!(seen > 10_000, "only {seen} numbers in the page");
        // None stands in a table without saying where it comes from.
        for cell in named(document.root(), "td") {
            let marked = |node: Node| {
                node.ancestors().any(|it| it.has_attribute("data-at"))
            };
            for node in cell.descendants().filter(|it| it.is_text()) {
                let text = node.text().unwrap_or_default();
                ensure!(
                    marked(node) || !text.contains(|c: char| c.is_numeric()),
                    "'{text}' comes from nowhere"
                );
            }
        }
        Ok(())
    })
}

/// What stands in the columns of a whole point, by the form's names.
const COLUMNS: &[(&str, &str)] = &[
    ("messages a second", "messages_per_second"),
    ("bytes a second", "bytes_per_second"),
    ("CPU a message, µs", "cpu_ns_per_message"),
    ("of it user", "user_share"),
    ("times the baseline", "ratio"),
    ("p50, µs", "latency/p50"),
    ("p90, µs", "latency/p90"),
    ("p99, µs", "latency/p99"),
    ("p99.9, µs", "latency/p99.9"),
    ("max, µs", "latency/max"),
    ("connect p50, µs", "connect/p50"),
    ("calls a message", "calls/total"),
    ("sleeps a message", "switches/voluntary"),
    ("preempted a message", "switches/involuntary"),
    ("memory", "memory"),
    ("memory of an idle one", "memory_per_idle"),
    ("times none idle", "against_none_idle"),
    ("threads", "threads"),
    ("processes", "processes"),
    ("generator a message, µs", "generator_ns_per_message"),
    ("generator of its core", "generator_core_share"),
    // In charts.
    ("CPU time a message, µs", "cpu_ns_per_message"),
    ("times floor", "ratio"),
    ("memory of each", "memory_per_idle"),
    ("base, µs", "base_ns"),
    ("slope, ns a descriptor", "ns_per_descriptor"),
    ("from", "low"),
    ("to", "high"),
    ("bytes a CPU second", "bytes_per_cpu_second"),
    ("times epoll_et", "ratio"),
    ("messages a wait", "calls/messages_per_wait"),
    ("R²", "r_squared"),
    ("points", "points"),
    ("all", "calls/total"),
];

/// Numbers below a head are what the head says, and of the server that the
/// row names.
fn numbers_stand_where_they_belong() -> Result<()> {
    with_page(|comparison, document| {
        let json = embedded(document)?;
        let mut by_point = 0;
        for table in named(document.root(), "table") {
            let head = named(table, "thead").next().context("no head")?;
            let heads: Vec<String> = named(head, "th").map(text).collect();
            let body = named(table, "tbody").next().context("no body")?;
            for line in named(body, "tr") {
                let name = named(line, "th").next().map(text);
                let name = name.context("a row without a name")?;
                let name = name.trim_end_matches(" peer");
                let cells: Vec<Node> = named(line, "td").collect();
                ensure!(cells.len() + 1 == heads.len(), "{name}: {heads:?}");
                for (cell, head) in cells.iter().zip(&heads[1..]) {
                    let places = cell.descendants();
                    let places =
                        places.filter_map(|it| it.attribute("data-at"));
                    let places: Vec<&str> = places.collect();
                    for (part, place) in places.iter().enumerate() {
                        let path: Vec<&str> = place.split('/').collect();
                        by_point += usize::from(belongs(
                            comparison, &json, name, head, &path,
                        )?);
                        let end = ["median", "low", "high"][part];
                        ensure!(
                            places.len() == 1 || path.ends_with(&[end]),
                            "{place} stands as the {end}"
                        );
                    }
                }
            }
        }
        ensure!(by_point > 500, "{by_point} numbers below a point's name");
        Ok(())
    })
}

/// `true` for a number below the name of its point.
fn belongs(
    comparison: &Comparison,
    json: &Value,
    name: &str,
    head: &str,
    path: &[&str],
) -> Result<bool> {
    let place = path.join("/");
    let below = |path: &[&str]| path.join("/");
    let column = COLUMNS.iter().find(|it| it.0 == head).map(|it| it.1);
    match *path {
        [_, "fits", fit, what] => {
            let model = &comparison.fits[fit.parse::<usize>()?].model;
            ensure!(model == name, "{place} stands at {name}");
            ensure!(column == Some(what), "{place} stands below {head}");
        }
        [_, "points", _, "load", "idle"] => {
            ensure!(head == "idle connections", "{place} below {head}");
        }
        [_, "points", point, "rows", row, "calls", "by_name", call, "1"] => {
            let (point, row) = (point.parse::<usize>()?, row.parse::<usize>()?);
            let row = &comparison.points[point].rows[row];
            let calls = row.calls.as_ref().context("no calls")?;
            ensure!(row.model == name, "{place} stands at {name}");
            ensure!(calls.by_name[call.parse::<usize>()?].0 == head, "{head}");
        }
        [_, "points", point, "rows", row, ref rest @ ..] => {
            let (point, row) = (point.parse::<usize>()?, row.parse::<usize>()?);
            let point = &comparison.points[point];
            ensure!(point.rows[row].model == name, "{place} stands at {name}");
            let what = below(rest);
            let is = |column: &str| {
                what == column
                    || ["median", "low", "high"]
                        .iter()
                        .any(|end| what == format!("{column}/{end}"))
            };
            let by_point = point.name == head;
            ensure!(
                by_point || column.is_some_and(is),
                "{place} stands below {head}"
            );
            return Ok(by_point);
        }
        _ => bail!("{place} is in a table: {:?}", json.pointer(&place)),
    }
    Ok(false)
}

fn every_row_is_told() -> Result<()> {
    with_page(|comparison, document| {
        let places = document.descendants();
        let places: BTreeSet<&str> =
            places.filter_map(|it| it.attribute("data-at")).collect();
        for (at, point) in comparison.points.iter().enumerate() {
            for (row, it) in point.rows.iter().enumerate() {
                let place = format!("/points/{at}/rows/{row}");
                for what in ["/cpu_ns_per_message/median", "/latency/p99.9"] {
                    let place = format!("{place}{what}");
                    let name = (&point.name, &it.model);
                    ensure!(places.contains(&*place), "{name:?} {place}");
                }
            }
        }
        Ok(())
    })
}

fn absent_rows_are_told() -> Result<()> {
    with_page(|comparison, document| {
        let table = report::table(comparison, false, 1000);
        let mut blocks: BTreeMap<String, &str> = BTreeMap::new();
        for block in table.split("\n\n") {
            let title = block.lines().next().unwrap_or_default();
            blocks.insert(title.to_string(), block);
        }
        let mut absent = 0;
        for (at, point) in comparison.points.iter().enumerate() {
            let at = at.to_string();
            let mut wholes = named(document.root(), "details");
            let whole =
                wholes.find(|it| it.attribute("data-point") == Some(&at));
            let whole = text(whole.context("a point is lacking")?);
            let title = format!("{}, {}", point.scenario, point.name);
            let block = blocks.get(&title).context("no table of it")?;
            for Absent { model, why } in &point.absent {
                let told = format!("{model}: {why}");
                ensure!(whole.contains(&told), "{title} lacks '{told}'");
                let line = block.lines().find(|line| line.ends_with(why));
                let line = line.context("not in the terminal's table")?;
                ensure!(line.contains(model), "{title} lacks '{told}'");
                absent += 1;
            }
        }
        ensure!(absent > 30, "only {absent} rows are absent");
        Ok(())
    })
}

/// Servers with a row at one of these points.
fn servers(
    comparison: &Comparison,
    counts: impl Fn(&Point, &Row) -> bool,
) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for point in &comparison.points {
        for row in point.rows.iter().filter(|row| counts(point, row)) {
            found.insert(row.model.as_str());
        }
    }
    found
}

fn figure<'a>(document: &'a Document, title: &str) -> Result<Node<'a, 'a>> {
    let mut figures = named(document.root(), "figure");
    let found = figures.find(|figure| {
        named(*figure, "h3").next().is_some_and(|it| text(it) == title)
    });
    found.with_context(|| format!("no chart is called '{title}'"))
}

type Counts = fn(&Point, &Row) -> bool;

/// Every chart of the fixture, with its axes and who is in it.
const CHARTS: &[(&str, [&str; 2], Counts)] = &[
    (
        "CPU time a message, against active connections",
        ["CPU time a message, µs", "active connections"],
        |point, _| point.scenario == "busy",
    ),
    (
        "Messages a second, against active connections",
        ["messages a second", "active connections"],
        |point, _| point.scenario == "busy",
    ),
    (
        "CPU time a message against floor, 1 connection",
        ["server", "times floor"],
        |point, _| point.scenario == "busy" && point.load.connections == 1,
    ),
    (
        "CPU time a message against floor, 50 connections",
        ["server", "times floor"],
        |point, _| point.scenario == "busy" && point.load.connections == 50,
    ),
    (
        "CPU time a message against floor, 1,000 connections",
        ["server", "times floor"],
        |point, _| point.scenario == "busy" && point.load.connections == 1000,
    ),
    (
        "CPU time a message, against idle connections",
        ["CPU time a message, µs", "idle connections, beside 100 active ones"],
        |point, _| point.scenario == "idle",
    ),
    (
        "CPU time a message among 10,000 idle connections, against none",
        ["server", "times none idle"],
        |point, row| {
            point.load.idle == 10_000
                && point.scenario == "idle"
                && row.against_none_idle.is_some()
        },
    ),
    (
        "Cost of a wait, against descriptors",
        ["CPU time a wait with its message, µs", "descriptors in the set"],
        |point, _| point.scenario == "scan",
    ),
    (
        "Memory of an idle connection",
        ["server", "memory of each"],
        |point, row| point.scenario == "idle" && row.memory_per_idle.is_some(),
    ),
    (
        "Round trip of one client, by size",
        ["median round trip, µs", "bytes in a message"],
        |point, _| point.scenario == "round_trip",
    ),
    (
        "Latency, 20,000 messages a second",
        ["came back within, µs", "share of the messages"],
        |point, _| point.scenario == "latency",
    ),
    (
        "Latency beside a slow handler, sleep 0 ms",
        ["came back within, µs", "share of the messages"],
        |point, _| point.name == "sleep 0 ms",
    ),
    (
        "Latency beside a slow handler, sleep 10 ms",
        ["came back within, µs", "share of the messages"],
        |point, _| point.name == "sleep 10 ms",
    ),
    (
        "Messages a second, against cores",
        ["messages a second", "cores of the server"],
        |point, _| point.scenario == "forms" && point.args.is_empty(),
    ),
    (
        "Messages a second, against cores, --work 20us",
        ["messages a second", "cores of the server"],
        |point, _| point.scenario == "forms" && !point.args.is_empty(),
    ),
    (
        "System calls a message, busy, 50 connections",
        ["server", "system calls a message"],
        |point, row| point.name == "50 connections" && row.calls.is_some(),
    ),
    (
        "CPU time a message, pipelined, depth 16",
        ["server", "CPU time a message, µs"],
        |point, _| point.scenario == "pipelined",
    ),
    (
        "CPU time a message, large, 16 KiB",
        ["server", "CPU time a message, µs"],
        |point, _| point.scenario == "large",
    ),
    (
        "CPU time a message, churn, one message each",
        ["server", "CPU time a message, µs"],
        |point, _| point.scenario == "churn",
    ),
    (
        "CPU time a message, bulk, 1 MiB",
        ["server", "CPU time a message, µs"],
        |point, _| point.scenario == "bulk",
    ),
];

fn every_chart_is_there() -> Result<()> {
    with_page(|comparison, document| {
        let figures = named(document.root(), "figure").count();
        let all = CHARTS.len() + uring_charts().len();
        ensure!(figures == all, "{figures} charts of {all}");
        for (title, axes, counts) in CHARTS {
            let expected = servers(comparison, counts);
            chart_is_there(document, title, axes, &expected)?;
        }
        Ok(())
    })
}

fn chart_is_there(
    document: &Document,
    title: &str,
    axes: &[&str; 2],
    expected: &BTreeSet<&str>,
) -> Result<()> {
    let figure = figure(document, title)?;
    let svg = named(figure, "svg").next().context("no drawing")?;
    let heading = named(figure, "h3").next().context("no title")?;
    ensure!(
        svg.attribute("aria-labelledby") == heading.attribute("id"),
        "{title}: the drawing has another's title"
    );
    let labels: Vec<String> = named(svg, "text")
        .filter(|it| has_class(*it, "axis"))
        .map(text)
        .collect();
    for axis in axes {
        ensure!(labels.iter().any(|it| it == axis), "{title}: {labels:?}");
    }
    let ticks = named(svg, "text").filter(|it| has_class(*it, "tick"));
    ensure!(ticks.count() >= 3, "{title}: too few ticks");
    let drawn: Vec<&str> =
        named(svg, "g").filter_map(|it| it.attribute("data-model")).collect();
    let shown: BTreeSet<&str> = drawn.iter().copied().collect();
    ensure!(shown == *expected, "{title}: {shown:?} {expected:?}");
    ensure!(shown.len() == drawn.len(), "{title}: one is there twice");
    let table = named(figure, "tbody").next().context("no numbers")?;
    let rows = named(table, "tr").count();
    ensure!(rows == expected.len(), "{title}: {rows} rows");
    Ok(())
}

type Has = fn(&Load) -> bool;

/// The sweeps of the scenario: what each is called, its horizontal axis, and
/// which loads are its own.
const SWEEPS: [(&str, &str, Has); 3] = [
    ("by connections", "active connections", |it| {
        (it.size, it.depth) == (64, 1)
    }),
    ("by size", "bytes in a message", |it| {
        (it.connections, it.depth) == (50, 1)
    }),
    ("by depth", "messages outstanding on a connection", |it| {
        (it.connections, it.size) == (50, 64)
    }),
];

type Counted = fn(&Row) -> bool;

/// What is drawn over each of them, and of which rows.
const OVER: [(&str, &str, Counted); 8] = [
    ("CPU time a message against the baseline", "times epoll_et", |row| {
        row.ratio.is_some()
    }),
    ("CPU time a message", "CPU time a message, µs", |_| true),
    ("Median latency", "half came back within, µs", |_| true),
    ("99 % latency", "99 % came back within, µs", |_| true),
    ("System calls a message", "system calls a message", |row| {
        row.calls.is_some()
    }),
    ("Messages a wait", "messages a wait", |row| {
        row.calls.as_ref().is_some_and(|it| it.messages_per_wait.is_some())
    }),
    ("Submissions for each io_uring_enter", "submissions a call", has_ring),
    ("Completions for each io_uring_enter", "completions a call", has_ring),
];

fn has_ring(row: &Row) -> bool {
    row.calls.as_ref().is_some_and(|it| it.ring.is_some())
}

/// A point that is a stream, or has one beside it.
const STREAMS: [(&str, usize, usize); 4] = [
    ("1 connection, one at a time", 1, 1),
    ("1 stream", 1, 64),
    ("10 connections, one at a time", 10, 1),
    ("10 streams", 10, 64),
];

/// Where calls are shown by name.
const BY_NAME: [&str; 5] = [
    "50 connections, 64 B",
    "10,000 connections",
    "64 KiB",
    "depth 32",
    "10 streams",
];

/// A title, its axes, and which rows are drawn.
type Drawn = (String, [&'static str; 2], Box<dyn Fn(&Point, &Row) -> bool>);

fn uring_charts() -> Vec<Drawn> {
    let mut all: Vec<Drawn> = Vec::new();
    for (name, across, has) in SWEEPS {
        for (title, up, counts) in OVER {
            all.push((
                format!("{title}, {name}"),
                [up, across],
                Box::new(move |point, row| has(&point.load) && counts(row)),
            ));
        }
    }
    for (name, connections, depth) in STREAMS {
        all.push((
            format!("Bytes a CPU second, {name}"),
            ["server", "bytes a CPU second"],
            Box::new(move |point, _| {
                let Load { connections: many, size, depth: deep, .. } =
                    point.load;
                (many, size, deep) == (connections, 64 * 1024, depth)
            }),
        ));
    }
    for name in BY_NAME {
        all.push((
            format!("System calls a message, uring-or-epoll, {name}"),
            ["server", "system calls a message"],
            Box::new(move |point, _| point.name == name),
        ));
    }
    all
}

fn is_uring_or_epoll(point: &Point) -> bool {
    point.scenario == "uring-or-epoll"
}

fn uring_or_epoll_is_drawn() -> Result<()> {
    with_page(|comparison, document| {
        for (title, axes, counts) in uring_charts() {
            let expected = servers(comparison, |point, row| {
                is_uring_or_epoll(point) && counts(point, row)
            });
            ensure!(expected.len() > 1, "{title}: {expected:?}");
            chart_is_there(document, &title, &axes, &expected)?;
        }
        // What is below one is below the line that says so, and above above.
        let title = format!("{}, by connections", OVER[0].0);
        let figure = figure(document, &title)?;
        let lines = named(figure, "path");
        let mut lines = lines.filter(|it| has_class(*it, "reference"));
        let line = lines.next().and_then(|it| it.attribute("d"));
        let line = line.and_then(|it| it.split_once(',')?.1.split_once('H'));
        let line: f64 = line.context("no line at 1")?.0.parse()?;
        let mut compared = 0;
        for group in groups(figure) {
            let model = group.attribute("data-model").unwrap_or_default();
            let (has, mut marks) = (SWEEPS[0].2, marks(group).into_iter());
            for point in &comparison.points {
                if !is_uring_or_epoll(point) || !has(&point.load) {
                    continue;
                }
                let mut rows = point.rows.iter();
                let row = rows.find(|row| row.model == model);
                let Some(ratio) = row.and_then(|it| it.ratio) else { continue };
                let (_, y) = marks.next().context("a mark is lacking")?;
                let far = (ratio.median - 1.0).abs() > 0.02;
                let below = y > line;
                ensure!(!far || below == (ratio.median < 1.0), "{ratio:?}");
                compared += 1;
            }
        }
        ensure!(compared > 20, "only {compared} marks");
        Ok(())
    })
}

/// With nothing else measured, the page is about nothing else.
fn uring_or_epoll_alone() -> Result<()> {
    let mut comparison = fixture::comparison();
    comparison.points.retain(is_uring_or_epoll);
    comparison.fits.clear();
    let page = report::page(&comparison)?;
    let document = parsed(&page)?;
    let all = text(document.root());
    ensure!(!all.contains("is not drawn"), "it misses what nobody asked for");
    let first = named(document.root(), "h1").next().map(text);
    ensure!(first.as_deref() == Some("io_uring or epoll?"), "{first:?}");
    let figures = named(document.root(), "figure").count();
    ensure!(figures == uring_charts().len(), "{figures} charts");
    let heads: Vec<String> = named(document.root(), "h2").map(text).collect();
    let summary = heads.iter().position(|it| it == "io_uring or epoll?");
    let answers = heads.iter().position(|it| it.starts_with("When io_uring"));
    let (summary, answers) = (summary.context("none")?, answers.context("2")?);
    ensure!(heads[answers..].len() == 2, "{heads:?}");
    ensure!(heads[..summary].len() == 3, "{heads:?}");
    Ok(())
}

/// What an interval says, and how the page says it.
fn verdict(ratio: &Estimate) -> &'static str {
    match (ratio.low < 1.0, ratio.high > 1.0) {
        (true, false) => "wins",
        (false, true) => "loses",
        _ => "not shown",
    }
}

fn answers_are_of_the_intervals() -> Result<()> {
    with_page(|comparison, document| {
        let json = embedded(document)?;
        let mut seen = BTreeMap::new();
        for cell in named(document.root(), "td") {
            let mut spans = named(cell, "span");
            let Some(word) = spans.find(|it| has_class(*it, "verdict")) else {
                continue;
            };
            let places = cell.descendants();
            let mut places = places.filter_map(|it| it.attribute("data-at"));
            let place = places.next().context("a verdict on nothing")?;
            let place = place.trim_end_matches("/median");
            let ratio = json.pointer(place).context(place.to_string())?;
            let ratio: Estimate = serde_json::from_value(ratio.clone())?;
            ensure!(text(word) == verdict(&ratio), "{ratio:?}: {}", text(word));
            *seen.entry(text(word)).or_insert(0) += 1;
        }
        ensure!(seen.len() == 3, "not each verdict is there: {seen:?}");

        // In words, too: for each server and sweep, as many as there are.
        let table = report::table(comparison, false, 10_000);
        let mut told = 0;
        for (name, _, has) in SWEEPS {
            for model in ["proactor", "proactor-multishot"] {
                let mut wins = 0;
                for point in &comparison.points {
                    let rows = point.rows.iter();
                    let mut rows = rows.filter(|it| it.model == model);
                    let ratio = rows.next().and_then(|it| it.ratio);
                    if is_uring_or_epoll(point)
                        && has(&point.load)
                        && let Some(ratio) = ratio
                    {
                        wins += usize::from(verdict(&ratio) == "wins");
                    }
                }
                let start = format!("  {name}, {model}. By CPU time a message");
                let mut lines = table.lines();
                let line = lines.find(|it| it.starts_with(&start));
                let line = line.context(start)?;
                let said =
                    line.split_once("wins at ").map_or(0, |(_, rest)| {
                        let rest = rest.split("; ").next().unwrap_or_default();
                        rest.matches(" (").count()
                    });
                ensure!(said == wins, "{wins} times: {line}");
                told += wins;
            }
        }
        ensure!(told > 3, "nobody wins: nothing is shown by it");
        // And the page says the same.
        let lists = named(document.root(), "li").map(text);
        let lists: Vec<String> = lists.collect();
        let line = table.lines().find(|it| it.starts_with("  by size, "));
        let line = line.context("no line")?.replace("  by size, ", "");
        let same = lists.iter().find(|it| it.starts_with(&line));
        let same = same.with_context(|| format!("the page lacks: {line}"))?;
        let latency = [" By median latency: ", " By 99 % latency: "];
        ensure!(latency.iter().all(|it| same.contains(it)), "{same}");
        Ok(())
    })
}

/// Nothing of it is typed: where io_uring takes ten times as much, it loses.
fn answers_change_with_the_run() -> Result<()> {
    let summary = |comparison: &Comparison| -> Result<String> {
        let page = report::page(comparison)?;
        let document = parsed(&page)?;
        let sections = named(document.root(), "section");
        let mut sections = sections.filter(|it| {
            named(*it, "h2").next().map(text).as_deref()
                == Some("io_uring or epoll?")
        });
        let section = sections.next().context("no summary")?;
        let own = section.children().filter(|it| it.has_tag_name("p"));
        Ok(own.map(text).collect::<Vec<_>>().join("\n"))
    };
    let before = fixture::comparison();
    let said = summary(&before)?;
    ensure!(said.contains("the best of them wins at"), "{said}");
    let scaled = |factor: f64| {
        let mut comparison = before.clone();
        for point in &mut comparison.points {
            for row in &mut point.rows {
                if row.model.starts_with("proactor")
                    && let Some(ratio) = &mut row.ratio
                {
                    scale(ratio, factor);
                }
            }
        }
        comparison
    };
    let said = summary(&scaled(10.0))?;
    ensure!(said.contains("they win 0, lose "), "{said}");
    ensure!(!said.contains("wins at"), "{said}");
    let said = summary(&scaled(0.01))?;
    ensure!(said.contains("lose 0, and nowhere no difference"), "{said}");
    ensure!(!said.contains("loses even so"), "{said}");

    // One takes less by its median but may take more; the other wins.
    let mut two = before.clone();
    for point in two.points.iter_mut().filter(|it| is_uring_or_epoll(it)) {
        for row in &mut point.rows {
            let of = |median, low, high| Some(Estimate { median, low, high });
            match row.model.as_str() {
                "proactor" => row.ratio = of(0.8, 0.5, 1.5),
                "proactor-multishot" => row.ratio = of(0.9, 0.85, 0.95),
                _ => {}
            }
        }
    }
    let said = summary(&two)?;
    ensure!(said.contains("(proactor-multishot, 0.9"), "{said}");
    ensure!(!said.contains("is not shown to differ"), "{said}");

    // Few rounds, and none.
    let mut few = before.clone();
    few.method.rounds = 3;
    let said = summary(&few)?;
    ensure!(said.contains("25 % at most"), "{said}");
    ensure!(said.contains("3 rounds are too few"), "{said}");
    for point in &mut few.points {
        point.rows.retain(|it| !it.model.starts_with("proactor"));
    }
    let why = "io_uring is not allowed here".to_string();
    let model = "proactor".to_string();
    for point in few.points.iter_mut().filter(|it| is_uring_or_epoll(it)) {
        let (model, why) = (model.clone(), why.clone());
        point.absent.push(Absent { model, why });
    }
    let said = summary(&few)?;
    ensure!(said.starts_with("There is no answer: "), "{said}");
    ensure!(said.contains("proactor: io_uring is not allowed here."), "{said}");
    Ok(())
}

/// Where the marks of a server stand.
fn marks(group: Node) -> Vec<(f64, f64)> {
    let paths = named(group, "path").filter(|it| has_class(*it, "mark"));
    let place = |path: Node| {
        let place = path.attribute("transform")?.strip_prefix("translate(")?;
        let (x, y) = place.split_once(')')?.0.split_once(',')?;
        Some((x.parse().ok()?, y.parse().ok()?))
    };
    paths.filter_map(place).collect()
}

fn groups<'a>(figure: Node<'a, 'a>) -> impl Iterator<Item = Node<'a, 'a>> {
    let svg = named(figure, "svg").next();
    let groups = svg.into_iter().flat_map(|svg| named(svg, "g"));
    groups.filter(|it| it.has_attribute("data-model"))
}

/// Fails unless the one ascends with the other.
fn ascends(title: &str, mut pairs: Vec<(f64, f64)>) -> Result<()> {
    ensure!(pairs.len() > 5, "{title}: {pairs:?}");
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let places: Vec<f64> = pairs.iter().map(|it| it.1).collect();
    ensure!(places.is_sorted(), "{title}: {pairs:?}");
    ensure!(places.first() < places.last(), "{title}: all in one place");
    Ok(())
}

fn marks_are_in_order() -> Result<()> {
    with_page(|comparison, document| {
        let row = |counts: Counts, model: &str| {
            let mut points = comparison.points.iter();
            points.find_map(|point| {
                let mut rows = point.rows.iter();
                rows.find(|row| row.model == model && counts(point, row))
            })
        };
        for (title, axes, counts) in CHARTS {
            let figure = figure(document, title)?;
            let mut pairs = Vec::new();
            let mut arrows = Vec::new();
            for group in groups(figure) {
                let model = group.attribute("data-model").unwrap_or_default();
                let row = row(*counts, model).context("no such row")?;
                let value = match axes[1] {
                    "times floor" => row.ratio.map_or(0.0, |it| it.median),
                    "times none idle" => {
                        row.against_none_idle.map_or(0.0, |it| it.median)
                    }
                    _ => row.cpu_ns_per_message.median,
                };
                let arrow =
                    named(group, "path").any(|it| has_class(it, "beyond"));
                match marks(group).first() {
                    Some((x, _)) => pairs.push((value, *x)),
                    None if arrow => arrows.push(value),
                    None => ensure!(
                        title.starts_with("System calls"),
                        "{title}: {model} has no mark"
                    ),
                }
            }
            if axes[0] == "server"
                && axes[1] != "memory of each"
                && axes[1] != "system calls a message"
            {
                let most = pairs.iter().map(|it| it.0).fold(0.0, f64::max);
                ascends(title, pairs)?;
                ensure!(arrows.iter().all(|it| *it > most), "{title}: arrows");
            }
        }
        // Upwards is more: at the last point of each line.
        let figure = figure(document, CHARTS[0].0)?;
        let last = comparison.points.iter().rfind(|it| it.scenario == "busy");
        let last = last.context("nothing busy")?;
        let pairs = groups(figure).filter_map(|group| {
            let model = group.attribute("data-model")?;
            let row = last.rows.iter().find(|row| row.model == model)?;
            let (_, y) = *marks(group).last()?;
            Some((row.cpu_ns_per_message.median, -y))
        });
        ascends("busy", pairs.collect())
    })
}

/// The fixture's points lie on the line through the first and the last one.
fn lines_are_as_steep_as_fitted() -> Result<()> {
    with_page(|_, document| {
        let title = "Cost of a wait, against descriptors";
        let figure = figure(document, title)?;
        let group = groups(figure)
            .find(|it| it.attribute("data-model") == Some("poll_server"));
        let group = group.context("no poll_server")?;
        let line = named(group, "polyline").next().context("no line")?;
        let points = line.attribute("points").unwrap_or_default();
        let places: Vec<(f64, f64)> = points
            .split(' ')
            .filter_map(|it| it.split_once(','))
            .filter_map(|(x, y)| Some((x.parse().ok()?, y.parse().ok()?)))
            .collect();
        ensure!(places.len() == 33, "a curve of {} points", places.len());
        for (x, y) in marks(group) {
            let near = |it: &&(f64, f64)| it.0 >= x - 0.2;
            let (_, line) = *places.iter().find(near).context("ends before")?;
            ensure!((line - y).abs() < 6.0, "{line} at {x}, measured {y}");
        }
        let marks = marks(group);
        ensure!(marks.len() == 6, "{marks:?}");
        Ok(())
    })
}

fn every_series_has_a_switch() -> Result<()> {
    let mut comparison = fixture::comparison();
    // Two that the table of models does not know.
    for (name, peer) in [("newcomer", false), ("stranger", true)] {
        for point in &mut comparison.points {
            let mut row = point.rows[0].clone();
            (row.model, row.peer) = (name.to_string(), peer);
            point.rows.push(row);
        }
    }
    let page = report::page(&comparison)?;
    let document = parsed(&page)?;
    let labels: Vec<Node> = named(document.root(), "label").collect();
    let mut switches: BTreeMap<&str, String> = BTreeMap::new();
    for label in &labels {
        let series = label.attribute("data-series").context("of whom?")?;
        let mut inputs = named(*label, "input");
        let switch = inputs.next().and_then(|it| it.attribute("data-switch"));
        ensure!(switch == Some(series), "{series} switches {switch:?}");
        switches.insert(series, text(*label).trim().to_string());
    }
    let all = servers(&comparison, |_, _| true);
    let names: BTreeSet<&str> = switches.values().map(|it| &**it).collect();
    ensure!(names == all, "{names:?} {all:?}");
    ensure!(labels.len() == all.len(), "{} switches", labels.len());
    for node in document.descendants() {
        if let (Some(number), Some(model)) =
            (node.attribute("data-series"), node.attribute("data-model"))
        {
            let switch = switches.get(number).map(|it| &**it);
            ensure!(switch == Some(model), "{number}: {model}, {switch:?}");
        }
    }
    Ok(())
}

/// Not by colour alone: the mark with its dash and filling tells them apart.
fn no_two_series_look_alike() -> Result<()> {
    // In a comparison of few as in one of all.
    let mut few = fixture::comparison();
    for point in &mut few.points {
        point.rows.retain(|row| row.model == "floor");
    }
    let page = report::page(&few)?;
    let floor = "class=\"s f8 d3 hollow\"";
    ensure!(page.contains(floor), "floor looks another");
    ensure!(report::page(&fixture::comparison())?.contains(floor), "here too");
    with_page(|_, document| {
        let figure = figure(document, CHARTS[0].0)?;
        let mut looks = BTreeMap::new();
        for group in groups(figure) {
            let model = group.attribute("data-model").unwrap_or_default();
            let classes = group.attribute("class").unwrap_or_default();
            let classes: Vec<&str> = classes
                .split_whitespace()
                .filter(|it| !it.starts_with('f'))
                .collect();
            let mark = named(group, "path").find(|it| has_class(*it, "mark"));
            let mark = mark.and_then(|it| it.attribute("d"));
            let other = looks.insert((classes, mark), model);
            ensure!(other.is_none(), "{model} looks like {other:?}");
        }
        ensure!(looks.len() > 15, "only {}", looks.len());
        Ok(())
    })
}

const HOSTILE: &str =
    "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;";

fn hostile_names_are_harmless() -> Result<()> {
    let mut comparison = fixture::comparison();
    let hostile = || HOSTILE.to_string();
    comparison.machine.cpu = hostile();
    comparison.machine.commit = Some(hostile());
    comparison.machine.date = hostile();
    comparison.machine.limits.push((hostile(), hostile()));
    comparison.method.pinning = hostile();
    comparison.method.calls = hostile();
    for point in &mut comparison.points {
        point.name = format!("{HOSTILE} {}", point.name);
        point.baseline = Some(hostile());
        point.rows[0].model = hostile();
        point.absent.push(Absent { model: hostile(), why: hostile() });
        if let Some(calls) = &mut point.rows[1].calls {
            calls.by_name[0].0 = hostile();
        }
    }
    comparison.fits[0].model = hostile();
    comparison.points[0].scenario = hostile();
    let page = report::page(&comparison)?;
    let document = parsed(&page)?;
    let scripts = named(document.root(), "script").count();
    ensure!(scripts == 2, "{scripts} scripts");
    // As a browser sees it: a script ends at the first end tag, whatever is
    // around it.
    ensure!(page.matches("</script").count() == 2, "a script ends early");
    ensure!(page.matches("<script").count() == 2, "one more script");
    ensure!(page.matches("<img").count() == 0, "an image");
    for node in document.descendants().filter(|it| it.is_element()) {
        let mut names = node.attributes().map(|it| it.name());
        ensure!(!names.any(|it| it.starts_with("on")), "{node:?}");
    }
    let mut rows = named(document.root(), "th").map(text);
    ensure!(rows.any(|it| it == HOSTILE), "the name is not shown as it is");
    let held: Comparison = serde_json::from_value(embedded(&document)?)?;
    ensure!(held == comparison, "the page holds another comparison");
    Ok(())
}

/// Nothing, less than nothing, and next to nothing have no logarithm, or one
/// that is far away.
fn odd_numbers_are_drawn() -> Result<()> {
    for odd in [0.0, -1.0, 1e-300, 1e300] {
        let mut comparison = fixture::comparison();
        let same = Estimate { median: odd, low: odd, high: odd };
        for (at, point) in comparison.points.iter_mut().enumerate() {
            // One row of each point, or all of them.
            let rows = if at % 2 == 0 { 1 } else { point.rows.len() };
            for row in &mut point.rows[..rows] {
                row.cpu_ns_per_message = same;
                row.messages_per_second = same;
                row.ratio = Some(same);
                row.memory_per_idle = Some(odd);
                row.latency = Default::default();
                row.latency_curve = vec![(0.0, 0), (1.0, 0)];
                row.calls = Some(Default::default());
            }
        }
        let page = report::page(&comparison)?;
        let document = parsed(&page)?;
        for svg in named(document.root(), "svg") {
            for node in svg.descendants().flat_map(|it| it.attributes()) {
                let (name, value) = (node.name(), node.value());
                ensure!(
                    !["NaN", "inf"].iter().any(|word| value.contains(word))
                        || name.starts_with("data"),
                    "{odd}: {name}={value}"
                );
            }
        }
        ensure!(!report::table(&comparison, false, 100).is_empty(), "no table");
    }
    Ok(())
}

fn nothing_measured_is_said() -> Result<()> {
    let mut comparison = fixture::comparison();
    comparison.points.clear();
    comparison.fits.clear();
    let page = report::page(&comparison)?;
    let document = parsed(&page)?;
    ensure!(
        named(document.root(), "figure").count() == 0,
        "a chart of nothing"
    );
    let all = text(document.root());
    for chart in [
        "CPU time a message, against active connections",
        "Messages a second, against active connections",
        "CPU time against the baseline",
        "CPU time a message, against idle connections",
        "Cost of a wait, against descriptors",
        "Memory of an idle connection",
        "Round trip of one client, by size",
        "Latency",
        "System calls a message",
        "CPU time a message, pipelined",
        "CPU time a message, large",
        "CPU time a message, churn",
        "CPU time a message, bulk",
        "Latency beside a slow handler",
        "Messages a second, against cores",
        "io_uring or epoll?",
    ] {
        let sentence = format!("“{chart}” is not drawn: ");
        ensure!(all.contains(&sentence), "not said: {sentence}");
    }
    Ok(())
}

fn no_number_is_refused() -> Result<()> {
    let mut comparison = fixture::comparison();
    comparison.points[0].rows[0].generator_core_share = f64::NAN;
    ensure!(report::page(&comparison).is_err(), "JSON has no such number");
    Ok(())
}

fn bench(args: &[&str]) -> Result<Output> {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    Ok(bench.args(args).env("NO_COLOR", "1").output()?)
}

/// A file in a folder that vanishes with the first of the two.
fn saved(text: &str) -> Result<(tempfile::TempDir, String)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("saved.json");
    fs::write(&path, text)?;
    let path = path.to_str().context("not UTF-8")?.to_string();
    Ok((folder, path))
}

fn plot_draws_the_same_page() -> Result<()> {
    let mut comparison = fixture::comparison();
    // Numbers that are easily read as their neighbours.
    let rows = &mut comparison.points[0].rows;
    for (row, odd) in rows.iter_mut().zip([
        0.1 + 0.2,
        51.248178375505404,
        11.31627567434067,
        1e21 / 3.0,
        122.416_294_033_786_58,
    ]) {
        row.cpu_ns_per_message.median = odd;
    }
    let (folder, path) = saved(&serde_json::to_string(&comparison)?)?;
    let page = folder.path().join("page.html");
    let page = page.to_str().context("not UTF-8")?;
    let output = bench(&["plot", &path, "--html", page])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(output.stdout.is_empty(), "it wrote to stdout as well");
    let same = fs::read_to_string(page)? == report::page(&comparison)?;
    ensure!(same, "another page than the one that is written at once");
    let again = report::page(&report::read(Path::new(&path))?)?;
    ensure!(again == report::page(&comparison)?, "read() changes something");
    Ok(())
}

fn plot_prints_the_table() -> Result<()> {
    let comparison = fixture::comparison();
    let (_folder, path) = saved(&serde_json::to_string(&comparison)?)?;
    let output = bench(&["plot", &path])?;
    ensure!(output.status.success(), "{output:?}");
    let table = report::table(&comparison, false, 100);
    ensure!(String::from_utf8(output.stdout)? == table, "another table");
    Ok(())
}

fn files_that_are_none_are_named() -> Result<()> {
    let comparison = fixture::comparison();
    let json = serde_json::to_string(&comparison)?;
    let later = json.replacen("\"format\":2", "\"format\":3", 1);
    ensure!(later != json, "the fixture's format is not 2");
    let half = &json[..json.len() / 2];
    let (_whole, good) = saved(&json)?;
    for (text, says) in [
        (&*later, "version 3"),
        (half, "not a comparison"),
        ("{\"format\":1}", "not a comparison"),
        ("[1, 2]", "not a comparison"),
        ("", "not a comparison"),
    ] {
        let (_folder, path) = saved(text)?;
        for args in [
            vec!["plot", &path],
            vec!["diff", &path, &good],
            vec!["diff", &good, &path],
        ] {
            let output = bench(&args)?;
            let said = String::from_utf8(output.stderr)?;
            ensure!(output.status.code() == Some(2), "{:?}", output.status);
            ensure!(said.contains(&path) && said.contains(says), "{said}");
            ensure!(said.lines().count() == 1, "{said}");
        }
    }
    let output = bench(&["plot", "/nowhere/at.json"])?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(2), "{:?}", output.status);
    ensure!(said.contains("/nowhere/at.json: No such file"), "{said}");
    let output = bench(&["plot", &good, "--html", "/nowhere/at.html"])?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(2), "{:?}", output.status);
    ensure!(said.contains("/nowhere/at.html: No such file"), "{said}");
    Ok(())
}

/// It had no loud connections, and points without arguments and cores.
fn a_file_of_the_first_form_is_read() -> Result<()> {
    let mut comparison = fixture::comparison();
    comparison.points.retain(|it| it.args.is_empty() && it.cores.is_none());
    let mut first = serde_json::to_value(&comparison)?;
    first["format"] = 1.into();
    for point in first["points"].as_array_mut().context("no points")? {
        let point = point.as_object_mut().context("no point")?;
        for name in ["args", "cores", "pinning"] {
            ensure!(point.remove(name).is_some(), "no {name} to be missed");
        }
        let load = point.get_mut("load").and_then(Value::as_object_mut);
        let loud = load.context("no load")?.remove("loud");
        ensure!(loud == Some(0.into()), "{loud:?} connections are loud");
    }
    let (folder, path) = saved(&first.to_string())?;
    let read = report::read(Path::new(&path))?;
    ensure!(read == comparison, "it is read as something else");
    let page = folder.path().join("page.html").display().to_string();
    let output = bench(&["plot", &path, "--html", &page])?;
    ensure!(output.status.success(), "{output:?}");
    // What is drawn is of this form, and held by it.
    ensure!(fs::read_to_string(page)? == report::page(&comparison)?);
    // The book's was measured before there was another.
    let book =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/numbers/compare.json");
    let book = report::read(Path::new(book))?;
    ensure!(book.points.len() > 15, "{} points", book.points.len());
    Ok(())
}

fn what_was_said_to_servers_is_told() -> Result<()> {
    let comparison = fixture::comparison();
    let table = report::table(&comparison, false, 1000);
    let block = |title: &str| {
        let mut blocks = table.split("\n\n");
        let found = blocks.find(|it| it.lines().next() == Some(title));
        found.with_context(|| format!("no {title} in {table}"))
    };
    let slow = block("slow_handler, sleep 10 ms")?;
    let loud = "1 client begins messages with “!”; p50 and p99 are those of \
                the other 19";
    for words in [loud, "each server with --sleep 10ms", "has no slow handler"]
    {
        ensure!(slow.contains(words), "no '{words}' in {slow}");
    }
    let forms = block("forms, 2 of the cores--work 20us")?;
    let all = "64 clients begin messages with “!”\n";
    for words in [all, "with --work 20us", "The server had cores 0-1, the"] {
        ensure!(forms.contains(words), "no '{words}' in {forms}");
    }
    ensure!(!block("busy, 50 connections")?.contains("each server with"));

    let page = report::page(&comparison)?;
    let document = parsed(&page)?;
    let told = text(document.root());
    for words in [
        "of the active ones begin with “!”: 1;",
        "each server with --sleep 10ms;",
        "The server had cores 0-1, the generator core 1.",
    ] {
        ensure!(told.contains(words), "no '{words}' in the page");
    }

    // Servers that were started in another way are not compared.
    let mut new = comparison.clone();
    let point = new.points.iter_mut().find(|it| it.name == "sleep 10 ms");
    point.context("no point")?.args[1] = "20ms".to_string();
    let diff = report::diff(&comparison, &new);
    let [only] = &*diff.differences else { bail!("{diff}") };
    ensure!(only.what == "servers of slow_handler, sleep 10 ms", "{only:?}");
    ensure!(only.new == "--sleep 20ms", "{only:?}");
    Ok(())
}

fn table_fits() -> Result<()> {
    let comparison = fixture::comparison();
    for width in [60, 72, 80, 100, 200] {
        let table = report::table(&comparison, false, width);
        let widest = table.lines().max_by_key(|line| line.chars().count());
        let widest = widest.context("an empty table")?;
        ensure!(widest.chars().count() <= width, "{width}:\n{widest}");
        // Each interval in one piece.
        let whole = |word: &str| match word.split_once('–') {
            Some(("", "")) | None => true,
            Some((low, high)) => [low, high].iter().all(|it| {
                it.trim_end_matches(['k', 'M']).parse::<f64>().is_ok()
            }),
        };
        let broken = table.split_whitespace().find(|word| !whole(word));
        ensure!(broken.is_none(), "{width}: {broken:?}");
        ensure!(!table.contains('\u{1b}'), "colour that nobody asked for");
        for point in &comparison.points {
            let title = format!("{}, {}", point.scenario, point.name);
            let block = table.split("\n\n").find(|it| it.starts_with(&title));
            let block = block.with_context(|| format!("no {title}"))?;
            for row in &point.rows {
                let peer = if row.peer { " *" } else { "" };
                let start = format!("{}{peer} ", row.model);
                let line = block.lines().find(|it| it.starts_with(&start));
                let line = line.with_context(|| format!("{title}: {start}"))?;
                let median = row.cpu_ns_per_message.median / 1e3;
                let shown = line.split_whitespace().filter_map(|word| {
                    word.trim_end_matches('k').parse::<f64>().ok()
                });
                let near = |it: f64| (it / median - 1.0).abs() < 0.006;
                let (thousand, found) =
                    (|it: f64| near(it * 1e3), shown.collect::<Vec<f64>>());
                ensure!(
                    found.iter().any(|it| near(*it) || thousand(*it)),
                    "{median} is not in {line}"
                );
            }
        }
    }
    let plain = report::table(&comparison, false, 100);
    let colour = report::table(&comparison, true, 100);
    ensure!(colour.contains('\u{1b}'), "no colour though it was asked for");
    let stripped = console::strip_ansi_codes(&colour);
    let words = |text: &str| -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    };
    ensure!(words(&stripped) == words(&plain), "colour changes the words");
    ensure!(plain.contains("a line through it"), "no fits");
    ensure!(plain.contains("measure the pair"), "no word on the generator");
    Ok(())
}

fn diff_of_the_same_is_nothing() -> Result<()> {
    let comparison = fixture::comparison();
    let diff = report::diff(&comparison, &comparison);
    let rows: usize = comparison.points.iter().map(|it| it.rows.len()).sum();
    ensure!(diff.beyond.is_empty(), "{:?}", diff.beyond);
    ensure!(diff.appeared.is_empty() && diff.vanished.is_empty(), "{diff}");
    ensure!(diff.differences.is_empty(), "{diff}");
    ensure!(diff.compared == rows && rows > 300, "{} of {rows}", diff.compared);
    ensure!(diff.to_string().contains("Nothing is beyond noise."), "{diff}");
    let share = diff.by_chance / diff.compared as f64;
    ensure!((0.0001..0.01).contains(&share), "by chance: {share}");
    Ok(())
}

fn row_of<'a>(
    comparison: &'a mut Comparison,
    scenario: &str,
    name: &str,
    model: &str,
) -> Result<&'a mut Row> {
    let mut points = comparison.points.iter_mut();
    let point = points.find(|it| it.scenario == scenario && it.name == name);
    let rows = &mut point.context("no such point")?.rows;
    rows.iter_mut().find(|it| it.model == model).context("no such row")
}

fn scale(estimate: &mut Estimate, factor: f64) {
    estimate.median *= factor;
    estimate.low *= factor;
    estimate.high *= factor;
}

/// Makes a server dearer, or cheaper.
fn change(row: &mut Row, factor: f64) {
    scale(&mut row.cpu_ns_per_message, factor);
    if let Some(ratio) = &mut row.ratio {
        scale(ratio, factor);
    }
}

fn diff_finds_the_one_change() -> Result<()> {
    let old = fixture::comparison();
    let mut new = old.clone();
    change(row_of(&mut new, "busy", "50 connections", "epoll_lt")?, 1.2);
    // The machine was faster on that day, and that is no change.
    for point in &mut new.points {
        for row in &mut point.rows {
            if row.ratio.is_some()
                && point.baseline.as_ref() != Some(&row.model)
            {
                scale(&mut row.cpu_ns_per_message, 0.73);
            }
        }
    }
    let diff = report::diff(&old, &new);
    let [only] = &*diff.beyond else { bail!("{diff}") };
    ensure!(only.model == "epoll_lt" && only.scenario == "busy", "{only:?}");
    ensure!(only.point == "50 connections", "{only:?}");
    ensure!(only.quantity == Quantity::CpuRatio, "{only:?}");
    ensure!((only.factor.unwrap_or(0.0) - 1.2).abs() < 1e-9, "{only:?}");
    let told = diff.to_string();
    ensure!(told.contains("20.0 % more"), "{told}");
    ensure!(told.contains("CPU against floor"), "{told}");
    Ok(())
}

fn diff_is_sorted() -> Result<()> {
    let old = fixture::comparison();
    let mut new = old.clone();
    for (model, factor) in
        [("epoll_lt", 1.2), ("epoll_et", 0.5), ("poll_server", 1.5)]
    {
        change(row_of(&mut new, "busy", "100 connections", model)?, factor);
    }
    let diff = report::diff(&old, &new);
    let models: Vec<&str> =
        diff.beyond.iter().map(|it| it.model.as_str()).collect();
    ensure!(models == ["epoll_et", "poll_server", "epoll_lt"], "{diff}");
    ensure!(diff.to_string().contains("50.0 % less"), "{diff}");
    Ok(())
}

fn diff_says_what_is_absolute() -> Result<()> {
    let old = fixture::comparison();
    let mut new = old.clone();
    let row = row_of(&mut new, "large", "16 KiB", "epoll_et")?;
    row.ratio = None;
    scale(&mut row.cpu_ns_per_message, 1.3);
    let diff = report::diff(&old, &new);
    let [only] = &*diff.beyond else { bail!("{diff}") };
    ensure!(only.quantity == Quantity::CpuAbsolute, "{only:?}");
    ensure!(diff.to_string().contains("CPU, absolute"), "{diff}");
    // The baseline's ratio is always one; it is looked at itself.
    let mut new = old.clone();
    let row = row_of(&mut new, "large", "16 KiB", "floor")?;
    scale(&mut row.cpu_ns_per_message, 1.3);
    let diff = report::diff(&old, &new);
    let [only] = &*diff.beyond else { bail!("{diff}") };
    ensure!(only.model == "floor", "{only:?}");
    ensure!(only.quantity == Quantity::CpuAbsolute, "{only:?}");
    Ok(())
}

fn diff_tells_memory_and_calls() -> Result<()> {
    let mut old = fixture::comparison();
    let row = row_of(&mut old, "busy", "10 connections", "select_server")?;
    row.memory = 100_000;
    row.calls.as_mut().context("no calls")?.total = 0.1;
    let mut new = old.clone();
    // A large share, and yet little.
    let row = row_of(&mut new, "busy", "10 connections", "select_server")?;
    row.memory += 40_000;
    row.calls.as_mut().context("no calls")?.total += 0.04;
    let row = row_of(&mut new, "busy", "10 connections", "epoll_et")?;
    row.memory *= 2;
    let row = row_of(&mut new, "busy", "10 connections", "peer-mio")?;
    row.calls.as_mut().context("no calls")?.total += 1.0;
    // A small share.
    let row = row_of(&mut new, "busy", "10 connections", "poll_server")?;
    row.memory += 4096;
    row.calls.as_mut().context("no calls")?.total += 0.01;
    let diff = report::diff(&old, &new);
    let [memory, calls] = &*diff.beyond else { bail!("{diff}") };
    ensure!(memory.quantity == Quantity::Memory, "{memory:?}");
    ensure!(memory.model == "epoll_et", "{memory:?}");
    ensure!(calls.quantity == Quantity::Calls, "{calls:?}");
    ensure!(calls.model == "peer-mio", "{calls:?}");
    Ok(())
}

fn diff_tells_who_came_and_went() -> Result<()> {
    let old = fixture::comparison();
    let mut new = old.clone();
    let churn = new.points.iter_mut().find(|it| it.scenario == "churn");
    let churn = churn.context("no churn")?;
    churn.rows.retain(|row| row.model != "epoll_lt");
    let why = "it did not start".to_string();
    churn.absent.push(Absent { model: "epoll_lt".to_string(), why });
    new.points.retain(|it| it.scenario != "bulk");
    let diff = report::diff(&old, &new);
    let bulk = old.points.iter().find(|it| it.scenario == "bulk");
    let bulk = bulk.context("no bulk")?.rows.len();
    ensure!(diff.vanished.len() == bulk + 1, "{:?}", diff.vanished);
    ensure!(diff.appeared.is_empty() && diff.beyond.is_empty(), "{diff}");
    let told = diff.to_string();
    ensure!(told.contains("(the other: it did not start)"), "{told}");
    let back = report::diff(&new, &old);
    ensure!(back.appeared.len() == bulk + 1, "{:?}", back.appeared);
    ensure!(back.vanished.is_empty(), "{back}");
    Ok(())
}

fn diff_of_two_machines() -> Result<()> {
    let old = fixture::comparison();
    type Edit = fn(&mut Comparison);
    let edits: [(&str, Edit); 5] = [
        ("kernel", |it| it.machine.kernel = "Linux 7.0".to_string()),
        ("processor", |it| it.machine.cpu = "another".to_string()),
        ("cores", |it| it.machine.cores = 64),
        ("buffer", |it| it.method.buffer = 65_536),
        ("pinning", |it| it.method.pinning = "Not at all.".to_string()),
    ];
    for (what, edit) in edits {
        let mut new = old.clone();
        edit(&mut new);
        change(row_of(&mut new, "busy", "50 connections", "epoll_lt")?, 1.2);
        let diff = report::diff(&old, &new);
        let [only] = &*diff.differences else { bail!("{what}: {diff}") };
        ensure!(only.what == what, "{only:?}");
        let told = diff.to_string();
        ensure!(
            told.contains("nothing below says that a server has changed"),
            "{told}"
        );
        ensure!(told.contains(&only.new), "{told}");
    }
    // Another load by the same name is not compared.
    let mut new = old.clone();
    new.points[0].load.size = 777;
    let diff = report::diff(&old, &new);
    ensure!(diff.differences.len() == 1, "{diff}");
    let all = report::diff(&old, &old).compared;
    ensure!(diff.compared + old.points[0].rows.len() == all, "{diff}");
    // A new compiler may be why, but is no other machine.
    let mut new = old.clone();
    new.machine.versions[1].1 = "1.99.0".to_string();
    let diff = report::diff(&old, &new);
    ensure!(diff.differences.is_empty(), "{diff}");
    ensure!(diff.to_string().contains("rustc: 1.95.0 -> 1.99.0"), "{diff}");
    Ok(())
}

fn diff_on_the_command_line() -> Result<()> {
    let old = fixture::comparison();
    let mut new = old.clone();
    change(row_of(&mut new, "busy", "50 connections", "epoll_lt")?, 1.2);
    let (_old, before) = saved(&serde_json::to_string(&old)?)?;
    let (_new, after) = saved(&serde_json::to_string(&new)?)?;
    let diff = report::diff(&old, &new);
    let output = bench(&["diff", &before, &after])?;
    ensure!(output.status.code() == Some(0), "{output:?}");
    ensure!(String::from_utf8(output.stdout)? == diff.to_string(), "text");
    let output = bench(&["diff", &before, &after, "--json"])?;
    ensure!(output.status.code() == Some(0), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(json == serde_json::to_value(&diff)?, "{json}");
    ensure!(json["beyond"][0]["model"] == "epoll_lt", "{json}");
    ensure!(json["beyond"][0]["quantity"] == "cpu_ratio", "{json}");
    Ok(())
}

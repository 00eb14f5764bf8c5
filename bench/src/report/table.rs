//! A comparison for a terminal: one table for each point.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table};
use console::{Style, measure_text_width};

use super::answers::{self, Measure, Passage, Piece, Sweep};
use super::charts::{BUSY, named};
use super::number;
use super::{listed, plural};
use crate::compare::URING_OR_EPOLL;
use crate::results::{Comparison, Estimate, Fit, Point, Row};

/// Columns side by side, and whether an interval stands beside its median or
/// below it. The first that fits is taken: no number is ever broken.
const LAYOUTS: [(&[&[usize]], &str); 4] = [
    (&[&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]], " "),
    (&[&[0, 1, 2, 3, 4, 5], &[0, 6, 7, 8, 9]], " "),
    (&[&[0, 1, 2, 3, 4, 5], &[0, 6, 7, 8, 9]], "\n"),
    (&[&[0, 1, 2, 3], &[0, 4, 5, 6, 7], &[0, 8, 9]], "\n"),
];

/// All points of a comparison as tables, in at most so many columns where
/// names and numbers allow it.
pub fn table(comparison: &Comparison, colour: bool, width: usize) -> String {
    let style = Style::new().force_styling(colour);
    let mut out = String::new();
    for (at, point) in comparison.points.iter().enumerate() {
        out += &format!("{}\n", style.clone().bold().apply_to(named(point)));
        if !point.rows.is_empty() {
            out += &rows(point, colour, width);
        }
        for line in notes(point) {
            let line = wrapped(&line, width);
            out += &format!("{}\n", style.clone().dim().apply_to(line));
        }
        let next = comparison.points.get(at + 1);
        if next.is_none_or(|next| next.scenario != point.scenario) {
            let of = |fit: &&Fit| fit.scenario == point.scenario;
            let fits: Vec<_> = comparison.fits.iter().filter(of).collect();
            out += &fitted(&fits, colour, width);
            let of = |it: &&Point| it.scenario == point.scenario;
            let points: Vec<_> = comparison.points.iter().filter(of).collect();
            out += &among_idle(&points, colour);
            if point.scenario == URING_OR_EPOLL {
                out += &answered(comparison, width);
            }
        }
        out.push('\n');
    }
    let rows = comparison.points.iter().flat_map(|point| &point.rows);
    let busy = rows.filter(|row| row.generator_core_share > BUSY).count();
    if busy > 0 {
        out += &wrapped(
            &format!(
                "† {} the generator took more than 90 % of its core: messages \
                 a second measure the pair. Compare servers by their CPU.",
                match busy {
                    1 => "Once".to_string(),
                    _ => format!("{} times", number::count(busy as f64)),
                }
            ),
            width,
        );
        out.push('\n');
    }
    let method = &comparison.method;
    let rounds = plural(method.rounds, "round", "rounds");
    out += &wrapped(
        &format!(
            "Medians over {rounds}, each with its interval; ratios within the \
             round. * is a peer, no model of this workspace.{}",
            match method.quick {
                true => " A quick run: for a first look only.",
                false => "",
            }
        ),
        width,
    );
    out.push('\n');
    out
}

/// When io_uring wins and when it does not.
fn answered(comparison: &Comparison, width: usize) -> String {
    let mut out = String::new();
    let mut say = |indent: &str, passage: &Passage| {
        let line = format!("{indent}{}", answers::plain(passage));
        out += &format!("{}\n", wrapped(&line, width));
    };
    for passage in answers::summary(comparison) {
        say("", &passage);
    }
    for sweep in Sweep::ALL {
        // Latency is for the page, which has room.
        let cpu = [Measure::Cpu];
        for passage in answers::of_sweep(comparison, sweep, &cpu) {
            let name = Piece::Words(format!("{}, ", sweep.name()));
            let passage = [name].into_iter().chain(passage).collect();
            say("  ", &passage);
        }
    }
    out
}

fn rows(point: &Point, colour: bool, width: usize) -> String {
    let all = |(tables, gap): (&[&[usize]], &str), colour| -> String {
        let draw = |columns: &&[usize]| columns_of(point, columns, gap, colour);
        tables.iter().map(draw).collect()
    };
    let fits = |layout: &&(&[&[usize]], &str)| {
        let text = all(**layout, false);
        text.lines().all(|line| measure_text_width(line) <= width)
    };
    let layout = LAYOUTS.iter().find(fits).unwrap_or(&LAYOUTS[3]);
    all(*layout, colour)
}

fn columns_of(
    point: &Point,
    columns: &[usize],
    gap: &str,
    colour: bool,
) -> String {
    let mut table = plain(colour);
    let baseline = point.baseline.as_deref().unwrap_or("baseline");
    let against = format!("against\n{baseline}");
    let heads = [
        "server",
        "messages\n/s",
        "CPU, µs\na message",
        &against,
        "p50\nµs",
        "p99\nµs",
        "calls\neach",
        "sleeps\neach",
        "mem-\nory",
        "threads\n/proc.",
    ];
    let head = |at: &usize| Cell::new(heads[*at]).add_attribute(Attribute::Dim);
    table.set_header(columns.iter().map(head));
    for row in &point.rows {
        let is_baseline = point.baseline.as_ref() == Some(&row.model);
        let texts = line(row, gap);
        let cell = |at: &usize| {
            let cell = Cell::new(&texts[*at]);
            match (is_baseline, row.peer) {
                (true, _) => cell.add_attribute(Attribute::Bold),
                (false, true) => cell.add_attribute(Attribute::Italic),
                (false, false) => cell,
            }
        };
        table.add_row(columns.iter().map(cell));
    }
    finished(table, &[0])
}

fn line(row: &Row, gap: &str) -> [String; 10] {
    let with = |it: &Estimate, write: fn(f64) -> String| {
        let (low, high) = (write(it.low), write(it.high));
        format!("{}{gap}{low}–{high}", write(it.median))
    };
    let times = |ratio: f64| match ratio.abs() {
        ..1.0 => format!("{ratio:.2}"),
        _ => number::brief(ratio),
    };
    let or_none = |number: Option<f64>, write: fn(f64) -> String| {
        number.map_or("–".to_string(), write)
    };
    let dagger = if row.generator_core_share > BUSY { "†" } else { "" };
    let sleeps = row.switches.map(|it| it.voluntary);
    [
        format!("{}{}", row.model, if row.peer { " *" } else { "" }),
        number::brief(row.messages_per_second.median) + dagger,
        with(&row.cpu_ns_per_message, number::brief_micros),
        row.ratio.map_or("–".to_string(), |it| with(&it, times)),
        number::brief_micros(row.latency.p50 as f64),
        number::brief_micros(row.latency.p99 as f64),
        or_none(row.calls.as_ref().map(|it| it.total), number::brief),
        or_none(sleeps, number::brief),
        number::brief_bytes(row.memory as f64),
        format!("{}/{}", row.threads, row.processes),
    ]
}

/// What stands below a table.
fn notes(point: &Point) -> Vec<String> {
    let mut whys: Vec<(&str, Vec<&str>)> = Vec::new();
    for it in &point.absent {
        match whys.iter_mut().find(|(why, _)| *why == it.why) {
            Some((_, models)) => models.push(&it.model),
            None => whys.push((&it.why, vec![&it.model])),
        }
    }
    let mut notes = started(point);
    notes.extend(
        whys.iter().map(|(why, models)| {
            format!("  without {}: {why}", listed(models))
        }),
    );
    notes
}

/// What was special about these servers, and about their clients.
fn started(point: &Point) -> Vec<String> {
    let mut notes = Vec::new();
    let load = &point.load;
    if load.loud > 0 {
        let loud = plural(load.loud, "client begins", "clients begin");
        let mut note = format!("  {loud} messages with “!”");
        if load.some_are_loud() {
            let others = number::count((load.connections - load.loud) as f64);
            note += &format!("; p50 and p99 are those of the other {others}");
        }
        notes.push(note);
    }
    if !point.args.is_empty() {
        notes.push(format!("  each server with {}", point.args.join(" ")));
    }
    notes.extend(point.pinning.iter().map(|it| format!("  {it}")));
    notes
}

fn fitted(fits: &[&Fit], colour: bool, width: usize) -> String {
    let gap = if width < 72 { "\n" } else { " " };
    if fits.is_empty() {
        return String::new();
    }
    let mut table = plain(colour);
    table.set_header(
        ["a line through it", "base, µs", "ns a descriptor", "R²", "points"]
            .map(|head| Cell::new(head).add_attribute(Attribute::Dim)),
    );
    for fit in fits {
        let slope = number::three(fit.ns_per_descriptor);
        let (low, high) = (number::three(fit.low), number::three(fit.high));
        table.add_row([
            fit.model.clone(),
            number::micros(fit.base_ns),
            format!("{slope}{gap}{low}–{high}"),
            number::three(fit.r_squared),
            fit.points.to_string(),
        ]);
    }
    finished(table, &[0])
}

/// What idle connections change in the cost of a message.
fn among_idle(points: &[&Point], colour: bool) -> String {
    let points = points.iter().filter(|point| point.load.idle > 0);
    let Some(most) = points.max_by_key(|point| point.load.idle) else {
        return String::new();
    };
    let mut table = plain(colour);
    let idle = number::count(most.load.idle as f64);
    table.set_header(
        [&format!("with {idle} idle"), "CPU against none idle"]
            .map(|head| Cell::new(head).add_attribute(Attribute::Dim)),
    );
    for row in &most.rows {
        let Some(it) = &row.against_none_idle else { continue };
        let [median, low, high] =
            [it.median, it.low, it.high].map(number::three);
        table.add_row([row.model.clone(), format!("{median} {low}–{high}")]);
    }
    match table.is_empty() {
        true => String::new(),
        false => finished(table, &[0]),
    }
}

/// A table without lines, as wide as it needs to be.
pub fn plain(colour: bool) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    match colour {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    table
}

/// The table as text; these columns stand to the left.
pub fn finished(mut table: Table, left: &[usize]) -> String {
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding(if at == 0 { (0, 0) } else { (1, 0) });
        if !left.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> =
        table.lines().map(|line| line.trim_end().to_string() + "\n").collect();
    lines.concat()
}

/// Broken between words, with the same indent in front of each line.
fn wrapped(text: &str, width: usize) -> String {
    let indent: String = text.chars().take_while(|it| *it == ' ').collect();
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let long = word.chars().count() + indent.len() + 1;
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + long > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { &indent } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n")
}

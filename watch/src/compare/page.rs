//! The comparison as a page of text, 100 columns wide, and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint,
    ContentArrangement, ContentLineStyle, LineStyle, Row as Line, Table,
    TableStyle, Width,
};
use console::style;
use serde_json::{Value, json};

use super::lesson::lesson;
use super::measure::Row;
use super::{ECHOED, MESSAGES, SIZE, the_scene};
use crate::words::count;

/// The page is never wider, and narrower only on a narrower terminal.
const WIDTH: u16 = 100;

/// With one digit after the point while that says something.
pub fn decimal(number: f64) -> String {
    match number < 99.95 {
        true => format!("{number:.1}"),
        false => count(number.round() as u64),
    }
}

/// With one digit after the point unless that is a zero.
pub fn short(number: f64) -> String {
    let text = decimal(number);
    text.strip_suffix(".0").map(ToOwned::to_owned).unwrap_or(text)
}

/// So many of these.
pub fn plural(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// A span in milliseconds, without the unit: three digits of it.
pub fn millis(span: Duration) -> String {
    let millis = span.as_secs_f64() * 1000.0;
    match millis {
        ..9.995 => format!("{millis:.2}"),
        ..99.95 => format!("{millis:.1}"),
        _ => format!("{millis:.0}"),
    }
}

/// The whole comparison as text.
pub fn text(rows: &[Row]) -> String {
    let sections = [intro(rows.len()), figures(rows), lessons(rows), notes()];
    sections.join("\n\n") + "\n"
}

/// Texts beside their names, which stand in a column of this width.
fn named(width: usize, texts: impl Iterator<Item = [Cell; 2]>) -> String {
    const GAP: u16 = 2;
    let mut table = base();
    let names = Width::Fixed(width as u16 + GAP);
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width_of_page())
        .add_rows(texts)
        .set_constraints([ColumnConstraint::Absolute(names)]);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at == 0 { GAP } else { 0 }));
    }
    lines_of(&table)
}

/// How many columns there are for text.
pub fn width_of_page() -> u16 {
    let columns = console::Term::stdout().size_checked();
    columns.map_or(WIDTH, |(_, columns)| columns.min(WIDTH))
}

/// A table that is coloured when and only when the rest of the page is.
fn base() -> Table {
    let mut table = Table::new();
    match console::colors_enabled() {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    table
}

/// A table's text without blanks at the ends of its lines.
pub fn lines_of(table: &Table) -> String {
    let lines: Vec<String> =
        table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

fn intro(servers: usize) -> String {
    let servers = match servers {
        1 => "one server".to_owned(),
        n => format!("{n} servers, each in its turn"),
    };
    let heading = format!("Three clients, the same for {servers}");
    format!("{}\n\n{}", style(heading).bold(), timeline())
}

/// Who does what when, drawn from the scene's own times.
fn timeline() -> String {
    const STEP: u128 = 8;
    let column = |at: Duration| (at.as_millis() / STEP) as usize;
    let put = |line: &mut Vec<char>, from: usize, text: &str| {
        let to = from + text.chars().count();
        line.resize(line.len().max(to), ' ');
        line.splice(from..to, text.chars());
    };
    let mut page = String::new();
    let mut ruler = Vec::new();
    let scene = the_scene();
    let hundreds = scene.lasts().as_millis() / 100;
    for ms in (0..=hundreds).map(|n| Duration::from_millis(n as u64 * 100)) {
        let label = match ms.is_zero() {
            true => "0 ms".to_owned(),
            false => ms.as_millis().to_string(),
        };
        put(&mut ruler, column(ms), &label);
    }
    let talk = format!(" {MESSAGES} messages, 2 to 3 ms apart ");
    let clients = [
        ("client 2 pauses", "pauser", " half a message ", " the other half"),
        ("client 3 is silent", "silent", "", ""),
        ("client 1 talks", "talker", &talk, ""),
    ];
    let ruler: String = ruler.into_iter().collect();
    let _ = writeln!(page, "{:20}{}", "", style(ruler).dim());
    for (name, role, first, last) in clients {
        let (comes, leaves) = scene.stay(role);
        let mut line = Vec::new();
        let (from, to) = (column(comes), column(leaves));
        put(&mut line, from, &"─".repeat(to - from));
        put(&mut line, from, &format!("├{first}"));
        put(&mut line, to, &format!("┤{last}"));
        let line: String = line.into_iter().collect();
        let _ = writeln!(page, "{name:20}{line}");
    }
    page.trim_end().to_owned()
}

const RULED: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .content_lines(ContentLineStyle::none())
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// A table with a rule above, below, and under its header.
pub fn ruled() -> Table {
    let mut table = base();
    table.load_style(RULED);
    table
}

/// The numbers, a row for each server.
fn figures(rows: &[Row]) -> String {
    let mut table = ruled();
    table.set_header([
        "\n\nmodel",
        "\ncalls/\nmessage",
        "\nwasted\ncalls",
        "\nwake-\nups",
        "context\nswitches\nvol/inv",
        "\nCPU\nms",
        "\n\nthreads",
        "\npro-\ncesses",
        "first\necho 1\nms",
        "\necho 2\nms",
        "\necho 3\nms",
    ]);
    for row in rows {
        table.add_row(figures_of(row));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        // One blank stands between columns anyhow, in the place of a frame;
        // one more begins a group.
        column.set_padding((u16::from([4, 6, 8].contains(&at)), 0));
        if at > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    lines_of(&table)
}

/// What is far beyond the other rows is shown in colour.
fn figures_of(row: &Row) -> Line {
    let loud = |text: String, much: bool| {
        let cell = Cell::new(text);
        if much { cell.fg(Color::Yellow) } else { cell }
    };
    let (calls, cost) = (&row.calls, &row.cost);
    let (usage, answers) = (&cost.usage, &cost.answers);
    let per_message = calls.all_per_message();
    let cpu = usage.cpu.as_secs_f64() * 1000.0;
    let slow = Duration::from_millis(50);
    let switches =
        format!("{}/{}", count(usage.voluntary), count(usage.involuntary));
    Line::from(vec![
        Cell::new(row.model.name).add_attribute(Attribute::Bold),
        loud(decimal(per_message), per_message > 20.0),
        loud(count(calls.wasted), calls.wasted > 200),
        loud(count(calls.wake_ups), calls.wake_ups > 200),
        loud(switches, usage.voluntary > 200),
        loud(decimal(cpu), cpu > 100.0),
        loud(count(cost.crowd.threads as u64), false),
        loud(count(cost.crowd.processes as u64), cost.crowd.processes > 1),
        loud(millis(answers.talker_first), answers.talker_first > slow),
        loud(millis(answers.pauser_first), answers.pauser_first > slow),
        Cell::new("silent").add_attribute(Attribute::Dim),
    ])
}

/// The sentences; those that this run does not bear out are red.
fn lessons(rows: &[Row]) -> String {
    let longest = rows.iter().map(|row| row.model.name.len()).max();
    let texts = rows.iter().map(|row| {
        let lesson = lesson(row);
        let name = Cell::new(row.model.name).add_attribute(Attribute::Bold);
        let text = Cell::new(lesson.text);
        [name, if lesson.holds { text } else { text.fg(Color::Red) }]
    });
    let texts = named(longest.unwrap_or_default(), texts);
    format!("{}\n\n{texts}", style("What to see").bold())
}

/// What each column means, and which run it is from.
fn notes() -> String {
    let notes = [
        (
            "calls/message",
            "W  calls from client 1's second message to its last, for \
             each message",
        ),
        (
            "wasted calls",
            "W  calls that found nothing (EAGAIN), from the first client's \
             coming until shortly after the last one's leaving",
        ),
        ("wake-ups", "W  calls of that time that slept before they returned"),
        (
            "context switches",
            "A  of all threads and child processes, from the first client's \
             coming to the server's end; voluntary: it slept, involuntary: \
             another had its turn",
        ),
        ("CPU", "A  of the same threads and processes, in the same time"),
        ("threads, processes", "A  while all three clients were connected"),
        (
            "first echo",
            "A  from the connect of client 1, 2 or 3 to the first byte that \
             came back",
        ),
    ];
    let longest = notes.iter().map(|(name, _)| name.len()).max();
    let dim = |text: &str| Cell::new(text).add_attribute(Attribute::Dim);
    let texts = notes.iter().map(|(name, text)| [dim(name), dim(text)]);
    let texts = named(longest.unwrap_or_default(), texts);
    let heading = style("Two runs of each server").bold();
    format!(
        "{heading}: A, left alone, for what it costs; W, watched (slower), \
         for its calls\n\n{texts}"
    )
}

/// The whole comparison for machines.
pub fn json(rows: &[Row]) -> Value {
    let ms = |span: Duration| span.as_secs_f64() * 1000.0;
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let (calls, cost, lesson) = (&row.calls, &row.cost, lesson(row));
            let (usage, answers) = (&cost.usage, &cost.answers);
            json!({
                "model": row.model.name,
                "calls_per_message": calls.all_per_message(),
                "calls_per_message_by_name": calls.per_message,
                "calls": calls.made,
                "wasted_calls": calls.wasted,
                "wake_ups": calls.wake_ups,
                "voluntary_switches": usage.voluntary,
                "involuntary_switches": usage.involuntary,
                "cpu_ms": ms(usage.cpu),
                "quiet_cpu_share": cost.quiet_share,
                "threads_at_rest": cost.at_rest.threads,
                "threads": cost.crowd.threads,
                "processes": cost.crowd.processes,
                "first_echo_ms": {
                    "client_1": ms(answers.talker_first),
                    "client_2": ms(answers.pauser_first),
                    "client_3": null,
                },
                "echo_ms": ms(answers.talker_echo),
                "answered_at_ms": ms(answers.talker_answered),
                "silent_left_at_ms": ms(answers.silent_left),
                "sentence": lesson.text,
                "as_expected": lesson.holds,
            })
        })
        .collect();
    let scene = the_scene();
    let stay = |role| {
        let (comes, leaves) = scene.stay(role);
        json!({"comes_ms": ms(comes), "leaves_ms": ms(leaves)})
    };
    json!({
        "scene": {
            "name": scene.name,
            "messages": ECHOED,
            "message_bytes": SIZE,
            "client_1": stay("talker"),
            "client_2": stay("pauser"),
            "client_3": stay("silent"),
        },
        "rows": rows,
    })
}

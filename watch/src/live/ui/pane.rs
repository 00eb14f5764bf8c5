//! One server: its threads, counters, calls and descriptors.

use std::collections::BTreeMap;
use std::ptr;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::column::{self, Piece, put, rule};
use super::{split_top, theme, waits, words};
use crate::clock::now;
use crate::figure::data::Phase;
use crate::live::app::{App, Part};
use crate::live::pane::Pane;
use crate::live::seen::{Descriptor, Doing, Thread, Told, Wants};
use crate::record::Call;

/// From this width on a pane has two columns.
const WIDE: u16 = 90;
/// From this height on everything stands in one.
const HIGH: u16 = 34;
/// From this height on the newest call is explained below the others.
const EXPLAINS: u16 = 19;

/// Draws one server; says so if there is another that has no room.
pub fn draw(
    buffer: &mut Buffer,
    area: Rect,
    app: &App,
    (which, hides): (usize, bool),
) {
    let pane = &app.panes[which];
    let (top, rest) = split_top(area, 1);
    let other = app.panes.iter().rev().find(|it| !ptr::eq(*it, pane));
    let other = other.filter(|_| hides);
    put(buffer, top, vec![title(app, pane, other, area.width)]);
    if let Some(trouble) = &pane.trouble {
        let text = format!("{trouble}\nR starts new servers.");
        let lines = styled(words::wrap(&text, area.width), theme::wrong());
        let calls = Piece::titled("its last calls", stream(pane, area.width));
        let pieces = vec![Piece::plain(lines), calls.growing()];
        return column::draw(buffer, rest, pieces);
    }
    if area.width >= WIDE {
        return two_columns(buffer, rest, app, pane);
    }
    let mut pieces = head(app, pane, rest);
    pieces.extend(match rest.height >= HIGH {
        true => everything(app, pane, rest),
        false => one_part(app, pane, rest),
    });
    column::draw(buffer, rest, pieces);
}

fn title(
    app: &App,
    pane: &Pane,
    other: Option<&Pane>,
    width: u16,
) -> Line<'static> {
    let mut words = vec![Span::styled(pane.model.name, theme::strong())];
    if let Some(other) = other {
        words.push(Span::raw(format!("  Tab: {}", other.model.name)));
    }
    if app.frozen {
        words.push(Span::styled("  stopped (SIGSTOP)", theme::wrong()));
    }
    if pane.is_behind() {
        words.push(Span::styled("  watched: slower", theme::wrong()));
    }
    rule(words, width)
}

fn two_columns(buffer: &mut Buffer, area: Rect, app: &App, pane: &Pane) {
    let half = (area.width - 2) / 2;
    let left = Rect { width: half, ..area };
    let x = area.x + half + 2;
    let right = Rect { x, width: area.right() - x, ..area };
    let mut pieces = head(app, pane, left);
    pieces.push(calls(pane, half));
    column::draw(buffer, left, pieces);
    let third = right.height / 3;
    let table = Piece::titled("descriptors", descriptors(pane, right.width));
    let waits = Piece::titled(waits::TITLE, waits::lines(pane, right.width));
    let mut pieces = vec![table.at_most(third), waits.at_most(third)];
    pieces.extend(texts(app, pane, right.width));
    column::draw(buffer, right, pieces);
}

/// What stands above everything else.
fn head(app: &App, pane: &Pane, area: Rect) -> Vec<Piece> {
    let most = (area.height / 6).max(3);
    let mut pieces = vec![
        threads(app, pane, (area.width, most)),
        Piece::plain(counters(pane, area.width)),
    ];
    if area.height >= EXPLAINS || app.part == Part::Why {
        let summary = words::wrap(pane.model.summary, area.width);
        pieces.insert(0, Piece::plain(styled(summary, theme::faint())));
    }
    pieces
}

fn everything(app: &App, pane: &Pane, area: Rect) -> Vec<Piece> {
    let (width, some) = (area.width, area.height / 5);
    let table = Piece::titled("descriptors", descriptors(pane, width));
    let waits = Piece::titled(waits::TITLE, waits::lines(pane, width));
    let mut pieces = vec![table.at_most(some), waits.at_most(some)];
    pieces.extend(texts(app, pane, width));
    pieces.push(calls(pane, width));
    pieces
}

fn one_part(app: &App, pane: &Pane, area: Rect) -> Vec<Piece> {
    let width = area.width;
    let names = Part::ALL.iter().map(|part| match *part == app.part {
        true => Span::styled(format!(" {} ", part.name()), theme::chosen()),
        false => Span::styled(format!(" {} ", part.name()), theme::faint()),
    });
    let tabs = Piece::plain(vec![Line::from_iter(names)]);
    let mut pieces = vec![tabs];
    match app.part {
        Part::Calls => {
            if area.height >= EXPLAINS {
                pieces.extend(explained(pane, width));
            }
            let lines = stream(pane, width);
            pieces.push(Piece::plain(lines).growing());
        }
        Part::Descriptors => {
            pieces.push(Piece::plain(descriptors(pane, width)));
        }
        Part::Waits => pieces.push(Piece::plain(waits::lines(pane, width))),
        Part::Why => pieces.extend(texts(app, pane, width)),
    }
    pieces
}

fn calls(pane: &Pane, width: u16) -> Piece {
    Piece::titled("calls", stream(pane, width)).growing()
}

/// What is said in sentences.
fn texts(app: &App, pane: &Pane, width: u16) -> Vec<Piece> {
    let look = app.stage.as_ref().map(|stage| {
        let text = stage.scene.look(pane.model.name);
        let lines = styled(words::wrap(text, width), Style::new());
        Piece::titled("look for", lines)
    });
    look.into_iter().chain(explained(pane, width)).collect()
}

/// The sentence that explains a call.
fn explained(pane: &Pane, width: u16) -> Option<Piece> {
    let told = pane.lessons.now()?;
    let title = words::cut(&format!("explained: {}", told.text), width);
    let lines = words::wrap(told.why, width);
    Some(Piece::titled(&title, styled(lines, theme::style(told.phase))))
}

/// What each thread is in right now; of many, what most of them are in.
fn threads(app: &App, pane: &Pane, (width, most): (u16, u16)) -> Piece {
    let now = now();
    let all = pane.seen.threads();
    let line = |thread: &Thread| {
        let (phase, text, since) = doing(app, pane, thread);
        let took = words::time(now.saturating_sub(since));
        let room = width.saturating_sub(3 + took.chars().count() as u16);
        let text = words::cut(&format!("{} {text}", thread.name), room);
        told(phase, &text, &took, width).remove(0)
    };
    let shown = match all.len() > usize::from(most) {
        true => usize::from(most) - 1,
        false => all.len(),
    };
    let mut lines: Vec<Line<'static>> = all[..shown].iter().map(line).collect();
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for thread in &all[shown..] {
        *calls.entry(in_call(thread)).or_default() += 1;
    }
    if !calls.is_empty() {
        let calls = calls.iter().map(|(call, n)| format!("{n} {call}"));
        let text = format!("  and {}", calls.collect::<Vec<_>>().join(", "));
        lines.push(Line::styled(words::cut(&text, width), theme::faint()));
    }
    Piece::plain(lines)
}

fn in_call(thread: &Thread) -> &str {
    match &thread.doing {
        Doing::In { call, .. } => &call.name,
        Doing::Running { .. } => "running",
    }
}

fn doing(app: &App, pane: &Pane, thread: &Thread) -> (Phase, String, u64) {
    match &thread.doing {
        Doing::In { call, since } if app.frozen => {
            let text = format!("is stopped in {}", in_words(pane, call));
            (Phase::SetAside, text, *since)
        }
        Doing::In { call, since } => {
            (Phase::Waiting, format!("in {}", in_words(pane, call)), *since)
        }
        Doing::Running { since } if app.frozen => {
            (Phase::SetAside, "is stopped".to_owned(), *since)
        }
        Doing::Running { since } => {
            (Phase::Running, runs(pane).to_owned(), *since)
        }
    }
}

/// What is not asleep does, as far as can be said.
fn runs(pane: &Pane) -> &'static str {
    let limits = &pane.model.limits;
    match (limits.burns_core, limits.idle_wakes) {
        (true, _) => "asks all, round after round",
        (_, true) => "asks all, pauses, asks all",
        _ => "runs",
    }
}

fn in_words(pane: &Pane, call: &Call) -> String {
    let who = pane.who(call.peer.as_ref());
    let fd = call.fd.map(|fd| fd.to_string()).unwrap_or_default();
    format!("{}({})", call.name, format!("{fd} {who}").trim())
}

fn counters(pane: &Pane, width: u16) -> Vec<Line<'static>> {
    let (seen, kernel) = (pane.seen.counters(), &pane.kernel);
    let count = |what: &str, n: u64| format!("{what} {}", words::count(n));
    let mut items = vec![
        count("calls", seen.calls),
        count("wasted", seen.wasted),
        count("wake-ups", seen.wake_ups),
    ];
    if seen.signals > 0 {
        items.push(count("signals", seen.signals));
    }
    items.push(match kernel.switches {
        Some((own, forced)) => {
            let (own, forced) = (words::count(own), words::count(forced));
            format!("switches {own}, forced {forced}")
        }
        None => "switches ?".to_owned(),
    });
    items.push(format!("CPU {}", words::span(kernel.cpu)));
    let threads = kernel.processes.iter().map(|it| it.threads.len() as u64);
    items.push(count("processes", kernel.processes.len() as u64));
    items.push(count("threads", threads.sum()));
    if let Some(queue) = kernel.accept_queue {
        let (waiting, room) = (queue.waiting, words::count(queue.room.into()));
        items.push(format!("accept queue {waiting} of {room}"));
    }
    styled(words::flow(items, "  ", width), Style::new())
}

/// The calls that returned, the last one last.
fn stream(pane: &Pane, width: u16) -> Vec<Line<'static>> {
    let all = pane.seen.stream();
    let several = pane.seen.threads().len() > 1
        || all.iter().any(|told| told.thread != 0);
    // No window is higher.
    let skipped = all.len().saturating_sub(100);
    let lines = all.iter().skip(skipped).flat_map(|it| {
        let took = match it.repeat {
            // A signal takes no time.
            0 | 1 if it.took == 0 => String::new(),
            0 | 1 => words::time(it.took),
            n => format!("×{} {}", words::count(n), words::time(it.took)),
        };
        let text = match several {
            true => format!("{} {}", tag(it), it.text),
            false => it.text.clone(),
        };
        told(it.phase, &text, &took, width)
    });
    lines.collect()
}

/// A thread in two or three letters: `t2`, `c1`, `m`.
fn tag(told: &Told) -> String {
    let (kind, number) = told.who.split_once(' ').unwrap_or((&told.who, ""));
    format!("{:<3}", format!("{}{number}", &kind[..kind.len().min(1)]))
}

/// A text in the colour of a phase, with a time at the end of its last line.
fn told(
    phase: Phase,
    text: &str,
    took: &str,
    width: u16,
) -> Vec<Line<'static>> {
    let style = theme::style(phase);
    let indent = |at| if at == 0 { theme::sign(phase) } else { ' ' };
    let texts = words::wrap(text, width.saturating_sub(2));
    let last = texts.len().saturating_sub(1);
    let line = |(at, text): (usize, String)| {
        let text = format!("{} {text}", indent(at));
        let used = text.chars().count() + 1 + took.chars().count();
        let gap = usize::from(width).checked_sub(used);
        let mut line = Line::from(Span::styled(text, style));
        if let Some(gap) = gap.filter(|_| at == last) {
            let took = format!("{}{took}", " ".repeat(gap + 1));
            line.push_span(Span::styled(took, theme::faint()));
        }
        line
    };
    texts.into_iter().enumerate().map(line).collect()
}

/// The table of descriptors, with what the kernel holds for each.
fn descriptors(pane: &Pane, width: u16) -> Vec<Line<'static>> {
    let who = usize::from(width.saturating_sub(30));
    let row = |cells: [&str; 6]| {
        let [fd, name, waits, owed, unread, unsent] = cells;
        let name = words::cut(name, who as u16);
        format!(
            "{fd:>3} {name:<who$} {waits:<5} {owed:>5} {unread:>6} {unsent:>6}"
        )
    };
    let heads = ["fd", "who", "waits", "owed", "unread", "unsent"];
    let mut lines = vec![Line::styled(row(heads), theme::faint())];
    for it in &pane.descriptors {
        let connection = pane.kernel.connection(it.pid, it.fd);
        let queue = |of: Option<u32>| {
            of.map_or_else(String::new, |n| words::bytes(n.into()))
        };
        let unread = queue(connection.map(|it| it.unread));
        let unsent = queue(connection.map(|it| it.unsent));
        let owed = words::bytes(it.owed);
        let owed = if connection.is_some() { &owed } else { "" };
        let fd = it.fd.to_string();
        let name = whose(pane, it);
        let cells = [&fd, &*name, wants(it.waits_for), owed, &unread, &unsent];
        lines.push(Line::raw(row(cells)));
    }
    let unread = |n: u32| words::bytes(n.into());
    for (name, bytes) in queued(pane) {
        let cells = ["-", &name, "queue", "", &unread(bytes), ""];
        lines.push(Line::styled(row(cells), theme::style(Phase::WakingUp)));
    }
    lines
}

/// Whose it is; of which process, if there are several.
fn whose(pane: &Pane, it: &Descriptor) -> String {
    let who = pane.who(it.peer.as_ref());
    if pane.kernel.processes.len() < 2 {
        return who;
    }
    let threads = pane.seen.threads().iter();
    let mut own = threads.filter(|thread| thread.pid == it.pid);
    let name = own.next().map_or("?", |thread| &thread.name);
    format!("{name}: {who}")
}

fn wants(wants: Wants) -> &'static str {
    match wants {
        Wants::Nothing => "",
        Wants::In => "in",
        Wants::Out => "out",
        Wants::Both => "both",
    }
}

/// Clients that are connected and that nobody has accepted, and what they
/// have sent already.
fn queued(pane: &Pane) -> Vec<(String, u32)> {
    let clients = pane.crowd.clients().iter().filter(|it| it.is_open());
    let found = clients.filter_map(|client| {
        let mut known = pane.kernel.connections.iter();
        let it = known.find(|it| it.port == client.port && !it.open)?;
        Some((client.name.clone(), it.unread))
    });
    found.collect()
}

fn styled(texts: Vec<String>, style: Style) -> Vec<Line<'static>> {
    texts.into_iter().map(|text| Line::styled(text, style)).collect()
}

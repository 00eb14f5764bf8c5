use std::collections::HashSet;
use std::io::Write;

use comfy_table::{CellAlignment, Table, TableStyle};

use super::assembly::Sleep;
use super::call::{Call, Carried, Found, Operation, Peer, What};
use super::explain::{self, explain_call};
use super::form::{Form, Rounds, Start};
use super::totals::{Row, Totals};
use crate::Fd;
use crate::event::Verb;

/// What a watched server did, for a person: a line for each call in aligned
/// columns, and the first time that something appears, what it means.
pub(crate) struct Text {
    look: Look,
    started: u64,
    pid: i32,
    /// What the threads are called, by their number.
    threads: Vec<Option<String>>,
    named: usize,
    explained: HashSet<&'static str>,
}

/// How text looks where it is read.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    /// The columns that a line may have.
    pub width: usize,
    pub colour: bool,
}

impl Look {
    /// The look for standard error.
    pub fn of_stderr(terminal: bool) -> Self {
        let width = match terminal {
            true => Table::new().use_stderr().width(),
            false => None,
        };
        let plain = std::env::var_os("NO_COLOR");
        let colour = terminal && plain.is_none_or(|word| word.is_empty());
        // A terminal that does not know its width says 0.
        let width = width.filter(|width| *width > 0);
        let width = width.map_or(WIDEST, usize::from);
        Look { width, colour }
    }
}

/// No line is longer where there is room for it.
const WIDEST: usize = 100;
/// Below this the columns stay as they are, and the terminal breaks lines.
const NARROWEST: usize = 80;
/// Where the verb begins, and what is said of a call.
const VERB: usize = 18;
const CALL: usize = VERB + 10;
const DETAIL: usize = CALL + 13;
/// How wide the last column is.
const TOOK: usize = 9;

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

impl Text {
    pub fn new(look: Look) -> Self {
        Text {
            look,
            started: 0,
            pid: 0,
            threads: Vec::new(),
            named: 0,
            explained: HashSet::new(),
        }
    }

    /// What a thread is called, from when it is first heard of.
    fn name(&mut self, number: usize, pid: i32, tid: i32) -> &str {
        if self.threads.len() <= number {
            self.threads.resize(number + 1, None);
        }
        self.threads[number].get_or_insert_with(|| {
            self.named += 1;
            match (pid == self.pid, tid == pid) {
                (true, true) => "main".to_owned(),
                (false, true) => format!("p{}", self.named),
                (_, false) => format!("t{}", self.named),
            }
        })
    }

    /// The line's beginning: when, and who.
    fn begin(&mut self, at: u64, thread: (usize, i32, i32)) -> String {
        let seconds = at.saturating_sub(self.started) as f64 / 1e9;
        let name = self.name(thread.0, thread.1, thread.2);
        format!("{seconds:11.6}  {name:<5}")
    }

    /// The line's width, its last column with it.
    fn width(&self) -> usize {
        self.look.width.clamp(NARROWEST, WIDEST)
    }

    /// Adds the last column and writes the line.
    fn line(&self, text: &str, hidden: usize, took: &str, out: &mut Vec<u8>) {
        let width = self.width() - TOOK + hidden;
        let line = match took {
            "" => text.to_owned(),
            took => format!("{text:<width$}{took:>TOOK$}"),
        };
        let _ = writeln!(out, "{line}");
    }

    fn paint(&self, style: &str, text: &str) -> String {
        match self.look.colour {
            true => format!("{style}{text}{PLAIN}"),
            false => text.to_owned(),
        }
    }

    /// Explains under a line, once.
    fn explain(&mut self, text: Option<&'static str>, out: &mut Vec<u8>) {
        let Some(text) = text.filter(|text| self.explained.insert(text)) else {
            return;
        };
        let width = self.look.width.min(WIDEST);
        let indent = match width < NARROWEST {
            true => 2,
            false => CALL,
        };
        for line in wrap(text, width.saturating_sub(indent + 1)) {
            let line = self.paint(DIM, &line);
            let _ = writeln!(out, "{:indent$}{line}", "");
        }
    }

    /// The descriptor that a call is about, and what came of it.
    fn detail(call: &Call) -> String {
        let what = &*call.what;
        let about = match what.fd {
            ..0 => String::new(),
            fd => descriptor(fd, what.peer),
        };
        if let Some(signal) = what.signal {
            let (code, band) = (signal.code_name(), signal.band_names());
            return match band.is_empty() {
                true => format!("{about:<13} {code}"),
                false => format!("{about:<13} {code}: {}", band.join(" ")),
            };
        }
        if let Some(operation) = &what.operation {
            let done = match operation.queued {
                false => done(what, operation),
                true => queued(call, operation),
            };
            return format!("{about:<13} {done}");
        }
        let result = match (what.errno_name(), what.taken) {
            (Some(errno), _) => errno,
            (None, Some(client)) => {
                format!("-> {}", descriptor(what.ret as Fd, Some(client)))
            }
            (None, None) => returned(what, call.short),
        };
        format!("{about:<13} {result}")
    }
}

impl Form for Text {
    fn start(&mut self, start: &Start, out: &mut Vec<u8>) {
        (self.started, self.pid) = (start.at, start.pid);
        let name = self.paint(BOLD, &start.name);
        let (pid, listener, stop) = (start.pid, start.listener, start.stop);
        let stop = match stop {
            ..0 => String::new(),
            fd => format!(", {fd} tells it to stop"),
        };
        let _ = writeln!(
            out,
            "{name}: process {pid}; descriptor {listener} listens{stop}"
        );
        let detail = DETAIL - CALL;
        let text = format!(
            "{:>11}  {:<5}{:<10}{:<detail$}{:<14}{}",
            "seconds", "who", "verb", "call", "descriptor", "result"
        );
        let width = self.width() - TOOK;
        let text = format!("{text:<width$}{:>TOOK$}", "took");
        let _ = writeln!(out, "{}", self.paint(DIM, &text));
    }

    fn call(&mut self, call: &Call, out: &mut Vec<u8>) {
        let what = &*call.what;
        let thread = (call.thread, call.pid, call.tid);
        let mut text = self.begin(call.t1, thread);
        let visible = format!("{:<9} {:<12}", what.verb.name(), what.name());
        let painted = self.paint(style(what.verb), &visible);
        let hidden = painted.len() - visible.len();
        text = format!("{text:<VERB$}{painted} ");
        let room = self.width() - TOOK - 1;
        let mut below = None;
        match &what.found {
            Some(found) => {
                text += &wait_result(what, found);
                let used = text.chars().count() - hidden;
                let beside = names(found, room.saturating_sub(used + 2));
                let beneath = names(found, room - DETAIL);
                let (names, beside) = match (beside, beneath) {
                    (Some(names), _) if names.all => (Some(names), true),
                    (_, Some(names)) if names.all => (Some(names), false),
                    (Some(names), _) => (Some(names), true),
                    (None, names) => (names, false),
                };
                match names {
                    Some(names) if beside => {
                        text += &format!(": {}", names.text)
                    }
                    names => below = names,
                }
            }
            None if what.enters() => {
                let used = text.chars().count() - hidden;
                text += &entered(what, room.saturating_sub(used));
            }
            None if what.verb == Verb::Wait => {
                text += &wait_without(what);
            }
            None => text += &Self::detail(call),
        }
        let took = match what.verb {
            Verb::Signal => String::new(),
            _ if what.is_queued() => String::new(),
            _ => duration(call.took()),
        };
        self.line(text.trim_end(), hidden, &took, out);
        if let Some(names) = below {
            let _ = writeln!(out, "{:DETAIL$}{}", "", names.text);
        }
        self.explain(explain_call(what.verb.name(), what.name()), out);
        self.explain(explain::result(what, call.short), out);
    }

    fn rounds(&mut self, rounds: &Rounds, out: &mut Vec<u8>) {
        let first = &rounds.round[0];
        let thread = (first.thread, first.pid, first.tid);
        let begin = self.begin(rounds.t1, thread);
        let length = rounds.round.len();
        let calls = if length == 1 { "call" } else { "calls" };
        let times = grouped(rounds.count);
        let visible = format!("round of {length} {calls} x {times}");
        let painted = self.paint(BOLD, &visible);
        let hidden = painted.len() - visible.len();
        let wasted = match rounds.wasted() {
            0 => String::new(),
            n => format!(", {} calls wasted", grouped(n)),
        };
        let text = format!("{begin:<VERB$}{painted}{wasted}");
        self.line(&text, hidden, &duration(rounds.took), out);
    }

    fn shows_sleep(&self) -> bool {
        true
    }

    fn asleep(&mut self, sleep: &Sleep, out: &mut Vec<u8>) {
        let thread = (sleep.thread, sleep.pid, sleep.tid);
        let begin = self.begin(sleep.since, thread);
        let about = match sleep.fd {
            ..0 => String::new(),
            fd => format!(", {}", descriptor(fd, sleep.peer)),
        };
        let visible = format!("… sleeping in {}{about}", sleep.name);
        let painted = self.paint(style(sleep.verb), &visible);
        let _ = writeln!(out, "{begin:<VERB$}{painted}");
        self.explain(explain_call(sleep.verb.name(), &sleep.name), out);
    }

    fn note(&mut self, note: &str, out: &mut Vec<u8>) {
        let _ = writeln!(out, "{note}");
    }

    fn end(&mut self, totals: &Totals, out: &mut Vec<u8>) {
        let mut table = Table::new();
        table.force_no_tty().load_style(TableStyle::new());
        table.set_header([
            "verb", "call", "calls", "wasted", "bytes", "slept", "copying",
            "other",
        ]);
        let mut add = |verb: &str, call: &str, row: &Row, mark: &str| {
            let number = |n: u64| match n {
                0 => "-".to_owned(),
                n => grouped(n),
            };
            let time = |took: u64| match took {
                0 => "-".to_owned(),
                took => duration(took),
            };
            let mut slept = time(row.slept);
            slept += mark;
            table.add_row([
                verb.to_owned(),
                call.to_owned(),
                grouped(row.calls),
                number(row.wasted),
                number(row.bytes),
                slept,
                time(row.copying),
                time(row.other),
            ]);
        };
        let mut marked = false;
        for (verb, call, row) in totals.rows() {
            let blocking = verb != Verb::Wait && row.slept > 0;
            marked |= blocking;
            let mark = if blocking { " *" } else { "  " };
            add(verb.name(), call, &row, mark);
        }
        add("total", "", &totals.total(), "  ");
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let _ = writeln!(out);
        for line in table.lines() {
            let _ = writeln!(out, "{}", line.trim_end());
        }
        if marked {
            let _ = writeln!(
                out,
                " * the whole time of a blocking call: asleep, then at work"
            );
        }
    }
}

fn style(verb: Verb) -> &'static str {
    match verb {
        Verb::Wait => "\x1b[33m",
        Verb::Copy => "\x1b[32m",
        Verb::WaitAndCopy => "\x1b[36m",
        Verb::Take => "\x1b[35m",
        Verb::Ask => "\x1b[34m",
        Verb::Signal => "\x1b[31m",
        Verb::Submit | Verb::Complete => "\x1b[32m",
    }
}

fn descriptor(fd: Fd, peer: Option<Peer>) -> String {
    match peer {
        Some(peer) => format!("{fd} {peer}"),
        None => fd.to_string(),
    }
}

fn wait_result(what: &What, found: &Found) -> String {
    let (asked, count, scanned) = (what.asked, found.count, found.scanned);
    if let Some(errno) = what.errno_name() {
        return match count {
            0 if asked == 0 => errno,
            0 => format!("{asked} asked: {errno}"),
            // A queue of signals ends like this.
            _ => format!("{errno}; {count} ready, {scanned} scanned"),
        };
    }
    if asked == 0 {
        return format!("no signal; {count} ready, {scanned} scanned");
    }
    let over = if what.timed_out() { ": timed out" } else { "" };
    format!("{asked} asked, {count} ready, {scanned} scanned{over}")
}

fn wait_without(what: &What) -> String {
    match what.errno_name() {
        None if what.takes_from_queue() && what.ret < 0 => "closed".to_owned(),
        None if what.takes_from_queue() => {
            format!("-> {}", descriptor(what.ret as Fd, what.taken))
        }
        Some(errno) => errno,
        None if what.name() == "sigtimedwait" => format!("signal {}", what.ret),
        None if what.name().contains("sleep") => "time over".to_owned(),
        None if what.ret == 0 => "woken".to_owned(),
        None => format!("{} of {} ready", what.ret, what.asked),
    }
}

fn returned(what: &What, short: bool) -> String {
    let ret = what.ret;
    match what.verb {
        _ if what.end_of_stream() => "end of stream".to_owned(),
        Verb::Copy | Verb::WaitAndCopy => {
            let short = if short { ", short" } else { "" };
            bytes(ret as u64) + short
        }
        _ if what.name() == "io_uring_setup" => match what.by[..] {
            [] => format!("-> {ret}"),
            _ => format!("-> {ret}, taken care of{}", by(&what.by)),
        },
        _ if what.name() == "fork" && ret == 0 => "in the child".to_owned(),
        _ if what.name() == "fork" => format!("child {ret}"),
        _ if what.name() == "waitpid" && ret == 0 => "none ended".to_owned(),
        _ if what.name() == "waitpid" => format!("child {ret} ended"),
        _ if ret == 0 => "ok".to_owned(),
        _ => ret.to_string(),
    }
}

/// An operation as it is submitted, or what became of it.
fn done(what: &What, operation: &Operation) -> String {
    let length = u64::from(operation.length);
    let at = operation.offset.map(grouped);
    let at = at.map_or_else(String::new, |at| format!(" at {at}"));
    let result = match what.errno_name() {
        Some(errno) if at.is_empty() => errno,
        Some(errno) => format!("{errno},{at}"),
        None if what.verb == Verb::Submit => {
            return format!("{}{at}", bytes(length));
        }
        None if what.end_of_stream() => "end of stream".to_owned(),
        None => format!("{}{at}", bytes(what.ret as u64)),
    };
    result + &by(&what.by)
}

/// An operation as it goes into a queue, or as it comes out of one.
fn queued(call: &Call, operation: &Operation) -> String {
    let what = &*call.what;
    let (name, length) = (what.name(), u64::from(operation.length));
    if what.verb == Verb::Submit {
        return match (name, length) {
            ("recv", 0) => "all that comes".to_owned(),
            (_, 0) => String::new(),
            ("send", length) => bytes(length),
            (_, length) => format!("up to {}", bytes(length)),
        };
    }
    let mut result = match (what.errno_name(), what.taken) {
        (Some(errno), _) => errno,
        (None, Some(client)) => {
            format!("-> {}", descriptor(what.ret as Fd, Some(client)))
        }
        (None, None) if what.end_of_stream() => "end of stream".to_owned(),
        (None, None) if name == "cancel" => format!("{} told to end", what.ret),
        (None, None) if name == "send" && what.ret == 0 => {
            "its memory is free".to_owned()
        }
        (None, None) => bytes(what.ret as u64),
    };
    result += if call.short { ", short" } else { "" };
    if operation.at_once {
        return result + ", done at once";
    }
    if let Some(time) = call.in_flight {
        result += &format!(", in flight {}", duration(time));
    }
    result += if operation.goes_on { ", goes on" } else { "" };
    result += if operation.called { ", by its calls" } else { "" };
    result + &by(&what.by)
}

/// Other threads of which one did it.
fn by(tids: &[i32]) -> String {
    match tids {
        [] => String::new(),
        [tid] => format!(", by thread {tid}"),
        _ => {
            let by: Vec<String> = tids.iter().map(i32::to_string).collect();
            format!(", by one of {}", by.join(", "))
        }
    }
}

/// What went into the kernel with this call, as far as there is room to say.
fn entered(what: &What, room: usize) -> String {
    let errno = what.errno_name().map(|errno| match &*errno {
        "ETIME" => "time over".to_owned(),
        _ => errno,
    });
    let Some(carried) = &what.carried else {
        let asked = grouped(u64::from(what.asked));
        let by: Vec<String> = what.by.iter().map(i32::to_string).collect();
        let left = format!("{asked} left to thread {}", by.join(", "));
        return errno.map_or(left.clone(), |errno| format!("{left}; {errno}"));
    };
    let text = match carried.len() {
        0 => "nothing submitted".to_owned(),
        n => format!("{} submitted: ", grouped(n as u64)),
    };
    let errno = errno.map_or_else(String::new, |errno| format!("; {errno}"));
    let room = room.saturating_sub(text.len() + errno.len());
    text + &all_carried(carried, room) + &errno
}

/// As many as there is room for; at least how many there are more.
fn all_carried(carried: &[Carried], room: usize) -> String {
    let mut text = String::new();
    for (at, it) in carried.iter().enumerate() {
        let whom = match it.peer {
            Some(peer) => peer.to_string(),
            None => it.fd.to_string(),
        };
        let comma = if at == 0 { "" } else { ", " };
        let next = format!("{text}{comma}{} {whom}", it.name());
        let left = carried.len() - at - 1;
        let more =
            if left == 0 { 0 } else { format!(" and {left} more").len() };
        if next.len() + more > room {
            return match at {
                0 => format!("{} and {left} more", it.name()),
                _ => format!("{text} and {} more", left + 1),
            };
        }
        text = next;
    }
    text
}

fn bytes(n: u64) -> String {
    format!("{} {}", grouped(n), if n == 1 { "byte" } else { "bytes" })
}

/// Who is ready, and whether that is everybody.
struct Names {
    text: String,
    all: bool,
}

/// Who is ready, as many as there is room for; `None` if it is for nobody.
fn names(found: &Found, room: usize) -> Option<Names> {
    let count = found.count as usize;
    let mut text = String::new();
    let mut fits = None;
    let mut after_client = false;
    for (i, (fd, peer)) in found.ready.iter().enumerate() {
        text += if i == 0 { "" } else { ", " };
        let next = found.ready.get(i + 1).and_then(|(_, peer)| *peer);
        let before_client = matches!(next, Some(Peer::Client(_)));
        text += &match peer {
            Some(Peer::Client(n)) if after_client => n.to_string(),
            Some(Peer::Client(n)) if before_client => format!("clients {n}"),
            Some(peer) => peer.to_string(),
            None => format!("descriptor {fd}"),
        };
        after_client = matches!(peer, Some(Peer::Client(_)));
        let others = count - i - 1;
        let shown = match others {
            0 => text.clone(),
            _ => format!("{text} and {others} more"),
        };
        if shown.len() <= room {
            let (text, all) = (shown, others == 0);
            fits = Some(Names { text, all });
        } else if text.len() > room {
            break;
        }
    }
    fits
}

/// Three digits and a unit.
fn duration(nanos: u64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    let nanos = nanos as f64;
    // What would be rounded to 1000 belongs to the next unit.
    let unit = units.iter().find(|(unit, _)| nanos >= 0.9995 * unit);
    let Some((unit, name)) = unit else {
        return format!("{nanos} ns");
    };
    match nanos / unit {
        n if n < 9.995 => format!("{n:.2} {name}"),
        n if n < 99.95 => format!("{n:.1} {name}"),
        n => format!("{n:.0} {name}"),
    }
}

/// A number with a comma after each three digits.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let mut groups: Vec<&str> = Vec::new();
    if !head.is_empty() {
        groups.push(head);
    }
    for at in (0..tail.len()).step_by(3) {
        groups.push(&tail[at..at + 3]);
    }
    groups.join(",")
}

/// Breaks a text between its words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

//! Reads what a server recorded with `--watch json`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A wait that took this long has slept: in the scene nobody is answered
/// sooner and nobody thinks so short, while a call that does not sleep is done
/// after a tenth of it.
const SLEPT_NS: u64 = 100_000;

/// What the calls of one scene come to.
#[derive(Default)]
pub struct Calls {
    /// How many calls returned.
    pub made: u64,
    /// How many of them were made for nothing.
    pub wasted: u64,
    /// How many of them slept before they returned.
    pub wake_ups: u64,
    /// While one client talks, the calls for each of its messages, by name.
    pub per_message: BTreeMap<String, f64>,
    /// As many of these as met EAGAIN.
    pub wasted_per_message: f64,
    /// What the waits of that time were about, on average.
    pub wait: Option<Wait>,
}

impl Calls {
    /// All calls for one message.
    pub fn all_per_message(&self) -> f64 {
        self.per_message.values().sum()
    }
}

/// What a wait was asked about, and what its server had to look through.
#[derive(Clone, Copy)]
pub struct Wait {
    pub asked: f64,
    pub ready: f64,
    pub scanned: f64,
}

/// A line of the record. `echo`'s JSON renderer documents the fields; one
/// that does not apply is absent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    t0_ns: u64,
    t1_ns: u64,
    took_ns: u64,
    repeat: u64,
    round: Vec<Call>,
    #[serde(flatten)]
    call: Call,
    note: Option<String>,
    summary: Option<Summary>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Call {
    verb: String,
    // In a folded line `calls` is a number, and this name is absent.
    #[serde(rename = "call")]
    name: String,
    peer: Option<String>,
    ret: Option<i64>,
    errno: Option<String>,
    asked: Option<u64>,
    ready_count: Option<u64>,
    scanned: Option<u64>,
}

#[derive(Deserialize)]
struct Summary {
    total: Total,
}

#[derive(Deserialize)]
struct Total {
    calls: u64,
}

impl Call {
    /// By the rule of the renderer's own final table.
    fn wasted(&self) -> bool {
        match self.errno.as_deref() {
            Some("EAGAIN") => true,
            Some("EINTR") => self.asked.is_some_and(|asked| asked > 0),
            Some(_) => false,
            None => {
                self.ready_count == Some(0) && self.ret.is_some_and(|n| n > 0)
            }
        }
    }

    fn brings_bytes_of(&self, peer: &str) -> bool {
        self.name == "read"
            && self.peer.as_deref() == Some(peer)
            && self.ret.is_some_and(|n| n > 0)
    }
}

impl Line {
    /// How many times each of its calls was made.
    fn times(&self) -> u64 {
        if self.round.is_empty() { 1 } else { self.repeat }
    }

    fn calls(&self) -> &[Call] {
        match self.round.is_empty() {
            true => std::slice::from_ref(&self.call),
            false => &self.round,
        }
    }

    /// How many times each of its calls returned in this time. Of rounds that
    /// were only partly within it, that part.
    fn times_in(&self, span: &RangeInclusive<u64>) -> f64 {
        if self.round.is_empty() {
            return f64::from(u8::from(span.contains(&self.t1_ns)));
        }
        let from = self.t0_ns.max(*span.start());
        let to = self.t1_ns.min(*span.end());
        let part = to.saturating_sub(from) as f64
            / self.t1_ns.saturating_sub(self.t0_ns).max(1) as f64;
        self.repeat as f64 * part
    }

    /// Whether its calls slept, if they are of those that may.
    fn slept(&self, may_sleep: impl Fn(&Call) -> bool) -> bool {
        let sleepers = self.calls().iter().filter(|it| may_sleep(it)).count();
        let each = match self.round.is_empty() {
            true => self.t1_ns.saturating_sub(self.t0_ns),
            false => self.took_ns / (self.repeat * sleepers as u64).max(1),
        };
        each >= SLEPT_NS
    }
}

/// Counts the calls of a record that returned in `scene` (CLOCK_MONOTONIC,
/// nanoseconds); `talker` is the client whose messages are looked at closely.
pub fn read(
    text: &str,
    scene: &RangeInclusive<u64>,
    talker: &str,
) -> Result<Calls> {
    let lines = text
        .lines()
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("in '{line}'"))
        })
        .collect::<Result<Vec<Line>>>()?;
    let whole = lines.last().and_then(|line| line.summary.as_ref());
    let whole = whole.context("the record has no summary: it is cut short")?;
    let counted = whole.total.calls;
    if let Some(note) = lines.iter().find_map(|line| line.note.as_ref()) {
        anyhow::bail!("the record is not complete: {note}");
    }
    let lines: Vec<Line> = lines
        .into_iter()
        .filter(|line| !line.calls()[0].verb.is_empty())
        .collect();
    let sum: u64 =
        lines.iter().map(|line| line.times() * line.calls().len() as u64).sum();
    ensure!(
        sum == counted,
        "the record has {sum} calls, its summary says {counted}"
    );
    // As in the renderer: a copy that cannot sleep, or a take that met
    // EAGAIN, shows that the sockets do not block.
    let takes_sleep = !lines.iter().flat_map(Line::calls).any(|call| {
        call.verb == "copy" || (call.verb == "take" && call.wasted())
    });
    let may_sleep = |call: &Call| match call.verb.as_str() {
        "wait" | "wait+copy" => true,
        "take" => takes_sleep,
        _ => false,
    };
    let mut found = Calls::default();
    let (mut made, mut wasted, mut wake_ups) = (0.0, 0.0, 0.0);
    for line in &lines {
        let times = line.times_in(scene);
        let slept = line.slept(may_sleep);
        for call in line.calls() {
            made += times;
            wasted += if call.wasted() { times } else { 0.0 };
            wake_ups += if slept && may_sleep(call) { times } else { 0.0 };
        }
    }
    // Rounded once, because a part of many rounds need not be whole.
    found.made = made.round() as u64;
    found.wasted = wasted.round() as u64;
    found.wake_ups = wake_ups.round() as u64;
    look_closely(&lines, talker, &mut found);
    Ok(found)
}

/// Looks at the calls after the read that brought `talker`'s second message,
/// up to the read that brought its last: whole messages, and no longer any
/// call that was needed to accept it.
fn look_closely(lines: &[Line], talker: &str, found: &mut Calls) {
    let reads: Vec<(u64, u64)> = lines
        .iter()
        .filter(|it| it.calls().iter().any(|it| it.brings_bytes_of(talker)))
        .map(|line| (line.t1_ns, line.times()))
        .collect();
    let [_, second, rest @ ..] = reads.as_slice() else { return };
    let Some(last) = rest.last() else { return };
    let span = second.0 + 1..=last.0;
    let messages: u64 = rest.iter().map(|(_, times)| times).sum();
    let (mut waits, mut asked, mut ready, mut scanned) = (0.0, 0.0, 0.0, 0.0);
    for line in lines {
        let times = line.times_in(&span);
        if times == 0.0 {
            continue;
        }
        for call in line.calls() {
            let share = times / messages as f64;
            *found.per_message.entry(call.name.clone()).or_default() += share;
            if call.wasted() {
                found.wasted_per_message += share;
            }
            if let (Some(a), Some(r), Some(s)) =
                (call.asked, call.ready_count, call.scanned)
            {
                waits += times;
                asked += times * a as f64;
                ready += times * r as f64;
                scanned += times * s as f64;
            }
        }
    }
    found.wait = (waits > 0.0).then(|| Wait {
        asked: asked / waits,
        ready: ready / waits,
        scanned: scanned / waits,
    });
}

//! Which message a closer look tells most about.

use crate::figure::data::{Bar, Lane, Phase, Who};

/// How many microseconds a look is long: the first that holds its message, so
/// that most models have the same.
const LENGTHS: &[u64] = &[200, 500, 1_000, 2_000, 5_000, 10_000, 20_000];

/// The part of it before the message.
const LEAD: f64 = 0.12;

/// How much of it a message may take.
const MOST: f64 = 0.78;

/// Of what has to wait longer than this nothing but the end is looked at.
const LONG: u64 = 5_000_000;

/// Around a message of the first client that talks, one whose answer took as
/// long as usual.
pub fn around_a_message(lanes: &[Lane], span: u64) -> (u64, u64) {
    let clients = lanes.iter().filter(|lane| lane.who == Who::Client);
    let mut best: Vec<(u64, u64)> = Vec::new();
    for lane in clients {
        let messages = messages(lane);
        if messages.len() > best.len() {
            best = messages;
        }
    }
    // The first message may have had to wait for a thread or a process.
    if best.len() > 2 {
        best.remove(0);
    }
    best.sort_by_key(|(from, to)| to - from);
    let Some(&(mut from, to)) = best.get(best.len() / 2) else {
        return (0, span);
    };
    if to - from > LONG {
        from = taken_up(lanes, from, to);
    }
    let fits = |length: &u64| (to - from) as f64 <= MOST * *length as f64;
    let length = LENGTHS.iter().map(|micros| micros * 1000).find(fits);
    let length = length.unwrap_or(2 * (to - from));
    let begin = from.saturating_sub((LEAD * length as f64) as u64);
    let begin = begin.min(span.saturating_sub(length));
    (begin, (begin + length).min(span))
}

/// When somebody begins to copy what was sent at `from`.
fn taken_up(lanes: &[Lane], from: u64, to: u64) -> u64 {
    let others = lanes.iter().filter(|lane| lane.who != Who::Client);
    let copies = others.flat_map(|lane| &lane.bars).filter(|bar| {
        bar.phase == Phase::Copying && (from..to).contains(&bar.from)
    });
    copies.map(|bar| bar.from).min().unwrap_or(from)
}

/// From each send to the end of what answers it, if that is one receive.
fn messages(lane: &Lane) -> Vec<(u64, u64)> {
    let mut messages = Vec::new();
    let mut sent: Option<&Bar> = None;
    for bar in &lane.bars {
        match bar.phase {
            Phase::Sending => sent = Some(bar),
            Phase::Receiving => {
                messages.extend(sent.take().map(|it| (it.from, bar.to)));
            }
            _ => {}
        }
    }
    messages
}

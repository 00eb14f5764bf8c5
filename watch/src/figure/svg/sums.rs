//! What a lane comes to.

use super::text::time;
use crate::figure::data::{Figure, Lane, Phase, Who};
use crate::words::count;

/// How long each phase was in all, in nanoseconds.
pub fn phases(lane: &Lane) -> Vec<(Phase, f64)> {
    let mut sums: Vec<(Phase, f64)> = Vec::new();
    let mut add = |phase: Phase, ns: f64| match sums
        .iter_mut()
        .find(|sum| sum.0 == phase)
    {
        Some(sum) => sum.1 += ns,
        None => sums.push((phase, ns)),
    };
    for bar in &lane.bars {
        let length = (bar.to - bar.from) as f64;
        match &bar.dense {
            None => add(bar.phase, length),
            Some(dense) => {
                let shares = dense.shares.iter();
                shares.for_each(|(phase, share)| add(*phase, length * share));
            }
        }
    }
    sums
}

/// Two short lines on a lane.
pub fn notes(figure: &Figure, lane: &Lane) -> [String; 2] {
    match lane.who {
        Who::Client => client(lane),
        Who::Thread | Who::Process => server(figure, lane),
        Who::HelperThread | Who::Kernel => {
            let done = lane.bars.len() as u64;
            let what = match lane.bars.first().map(|bar| bar.phase) {
                Some(Phase::InFlight) => "operations",
                _ => "notices",
            };
            [format!("{} {what}", count(done)), String::new()]
        }
    }
}

fn client(lane: &Lane) -> [String; 2] {
    let mut answers = answers(lane);
    let Some(&first) = answers.first() else {
        let sends = lane.bars.iter().any(|bar| bar.phase == Phase::Sending);
        let text = if sends { "no answer" } else { "says nothing" };
        return [text.to_owned(), String::new()];
    };
    let second = answers.last().copied().unwrap_or(first);
    answers.sort_unstable();
    let median = answers[answers.len() / 2];
    [
        format!("first answer {}", time(first as f64)),
        match answers.len() {
            1 => String::new(),
            2 => format!("second {}", time(second as f64)),
            more => format!("median of {more}: {}", time(median as f64)),
        },
    ]
}

/// How soon the client was answered who talked most.
pub fn most_answers(figure: &Figure) -> Option<String> {
    let clients = figure.lanes.iter().filter(|it| it.who == Who::Client);
    let answers = clients.map(answers).max_by_key(Vec::len)?;
    let (first, later) = answers.split_first()?;
    let mut later = later.to_vec();
    later.sort_unstable();
    let first = time(*first as f64);
    Some(match later.get(later.len() / 2) {
        Some(median) => {
            format!("first answer {first}, then {}", time(*median as f64))
        }
        None => format!("one answer, after {first}"),
    })
}

/// From each send to the receive that follows.
pub fn answers(lane: &Lane) -> Vec<u64> {
    let mut answers = Vec::new();
    let mut sent = None;
    for bar in &lane.bars {
        match bar.phase {
            Phase::Sending => sent = sent.or(Some(bar.from)),
            Phase::Receiving => {
                answers.extend(sent.take().map(|from| bar.to - from));
            }
            _ => {}
        }
    }
    answers
}

fn server(figure: &Figure, lane: &Lane) -> [String; 2] {
    let (calls, wasted) = calls(figure, lane);
    let life = (lane.to - lane.from).max(1) as f64;
    let waits = phases(lane).into_iter().find(|it| it.0 == Phase::Waiting);
    let asleep = 100.0 * waits.map_or(0.0, |it| it.1) / life;
    let calls = match (calls, wasted) {
        (1, 0) => "1 call".to_owned(),
        (_, 0) => format!("{} calls", count(calls)),
        _ => format!("{} calls, {} wasted", count(calls), count(wasted)),
    };
    let asleep = match asleep {
        99.95.. => "asleep all the time".to_owned(),
        0.05.. => format!("asleep {asleep:.1} %"),
        _ => "never asleep".to_owned(),
    };
    [calls, asleep]
}

/// How many calls were made, and how many of them for nothing.
pub fn calls(figure: &Figure, lane: &Lane) -> (u64, u64) {
    let (mut calls, mut wasted, mut last) = (0, 0, None);
    for bar in &lane.bars {
        if let Some(dense) = &bar.dense {
            calls += dense.calls;
            wasted += dense.wasted;
        } else if bar.call.is_some() && bar.call != last {
            calls += 1;
            wasted += u64::from(bar.phase == Phase::Wasted);
            last = bar.call;
        }
    }
    debug_assert!(figure.calls.len() >= last.map_or(0, |it| it + 1));
    (calls, wasted)
}

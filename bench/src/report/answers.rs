//! When io_uring wins and when it does not, in words: all of them are made of
//! what was measured, and a run that shows something else says so.

use super::charts::{Shown, Unit};
use super::number;
use super::{capital, listed, plural};
use crate::compare::{BETWEEN, STREAM, URING_OR_EPOLL};
use crate::models;
use crate::results::{Comparison, Estimate, Load, Point, Row};

/// Points that differ in one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// How many clients there are.
    Connections,
    /// How long messages are.
    Sizes,
    /// How many of them are outstanding on each connection.
    Depths,
    /// Streams, and beside each the same messages one at a time.
    Streams,
}

/// What servers are held against each other by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// CPU time a message.
    Cpu,
    /// Half of the messages took at most so long.
    P50,
    /// 99 % of them.
    P99,
}

/// What an interval of a ratio says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is below one.
    Wins,
    /// All of it is above one.
    Loses,
    /// One is in it.
    NotShown,
}

/// A part of a sentence.
pub enum Piece {
    /// Words.
    Words(String),
    /// A number of the saved form.
    Number(Shown),
}

/// A sentence or a few.
pub type Passage = Vec<Piece>;

impl Sweep {
    /// In the order of the page.
    pub const ALL: [Sweep; 4] =
        [Sweep::Connections, Sweep::Sizes, Sweep::Depths, Sweep::Streams];

    /// By what it goes.
    pub fn name(self) -> &'static str {
        match self {
            Sweep::Connections => "by connections",
            Sweep::Sizes => "by size",
            Sweep::Depths => "by depth",
            Sweep::Streams => "streams beside requests",
        }
    }

    /// What all its points have in common, and what changes.
    pub fn about(self) -> String {
        let Load { connections, size, depth, .. } = BETWEEN;
        let connections = plural(connections, "connection", "connections");
        let size = number::bytes(size as f64);
        let depth = plural(depth, "message", "messages");
        match self {
            Sweep::Connections => {
                format!("Messages of {size}, {depth} outstanding on each.")
            }
            Sweep::Sizes => {
                format!("{connections}, {depth} outstanding on each.")
            }
            Sweep::Depths => format!("{connections}, messages of {size}."),
            Sweep::Streams => format!(
                "A stream has {} outstanding on its connection, so that its \
                 windows are full both ways; beside it the same messages, \
                 each sent when the one before has come back.",
                number::bytes(STREAM as f64)
            ),
        }
    }

    /// Its points with their places, in its order.
    pub fn points(self, comparison: &Comparison) -> Vec<(usize, &Point)> {
        let all = || {
            let all = comparison.points.iter().enumerate();
            all.filter(|(_, it)| it.scenario == URING_OR_EPOLL)
        };
        let is_beside = |load: &Load| {
            let same =
                |it: &Load| is_stream(it) && Load { depth: 1, ..*it } == *load;
            all().any(|(_, it)| same(&it.load))
        };
        let (one, has) = (BETWEEN, |load: &Load| match self {
            Sweep::Connections => {
                Load { connections: BETWEEN.connections, ..*load } == BETWEEN
            }
            Sweep::Sizes => Load { size: BETWEEN.size, ..*load } == BETWEEN,
            Sweep::Depths => Load { depth: BETWEEN.depth, ..*load } == BETWEEN,
            Sweep::Streams => is_stream(load) || is_beside(load),
        });
        let mut points: Vec<_> =
            all().filter(|(_, it)| has(&it.load)).collect();
        points.sort_by_key(|(_, it)| {
            let Load { connections, size, depth, .. } = it.load;
            (connections, size, depth)
        });
        // Where every sweep passes, and no other point is, is no sweep.
        let only = matches!(&points[..], [(_, it)] if it.load == one);
        match only && self != Sweep::Connections {
            true => Vec::new(),
            false => points,
        }
    }

    /// Where a point stands in it.
    pub fn across(self, load: &Load) -> f64 {
        let at = match self {
            Sweep::Connections | Sweep::Streams => load.connections,
            Sweep::Sizes => load.size,
            Sweep::Depths => load.depth,
        };
        at as f64
    }

    /// The same in words.
    pub fn label(self, load: &Load) -> String {
        let connections =
            || plural(load.connections, "connection", "connections");
        match self {
            Sweep::Connections => connections(),
            Sweep::Sizes => number::bytes(load.size as f64),
            Sweep::Depths => format!("depth {}", load.depth),
            Sweep::Streams => match is_stream(load) {
                true => plural(load.connections, "stream", "streams"),
                false => format!("{}, one at a time", connections()),
            },
        }
    }
}

fn is_stream(load: &Load) -> bool {
    load.size.saturating_mul(load.depth) >= STREAM
}

impl Measure {
    /// In the order of the page.
    pub const ALL: [Measure; 3] = [Measure::Cpu, Measure::P50, Measure::P99];

    /// What it is.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Cpu => "CPU time a message",
            Measure::P50 => "median latency",
            Measure::P99 => "99 % latency",
        }
    }

    /// Its ratio to the baseline's.
    pub fn of(self, row: &Row) -> Option<&Estimate> {
        match self {
            Measure::Cpu => row.ratio.as_ref(),
            Measure::P50 => row.p50_ratio.as_ref(),
            Measure::P99 => row.p99_ratio.as_ref(),
        }
    }

    /// The ratio's name in the saved form.
    pub fn field(self) -> &'static str {
        match self {
            Measure::Cpu => "ratio",
            Measure::P50 => "p50_ratio",
            Measure::P99 => "p99_ratio",
        }
    }
}

impl Verdict {
    /// Of a ratio.
    pub fn of(ratio: &Estimate) -> Verdict {
        match (ratio.low, ratio.high) {
            (_, high) if high < 1.0 => Verdict::Wins,
            (low, _) if low > 1.0 => Verdict::Loses,
            _ => Verdict::NotShown,
        }
    }

    /// In a word or two.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Wins => "wins",
            Verdict::Loses => "loses",
            Verdict::NotShown => "not shown",
        }
    }

    /// Its class in the page.
    pub fn class(self) -> &'static str {
        match self {
            Verdict::Wins => "wins",
            Verdict::Loses => "loses",
            Verdict::NotShown => "even",
        }
    }
}

/// Whether the server waits for an io_uring.
pub fn is_uring(row: &Row) -> bool {
    const ENTER: &str = "io_uring_enter";
    match models::find_with_peers(&row.model) {
        Some(model) => model.sleeps_in == ENTER,
        // A table that does not name it: what it called tells.
        None => row.calls.as_ref().is_some_and(|calls| {
            calls.by_name.iter().any(|(name, _)| name == ENTER)
        }),
    }
}

/// A server at a point, and what was shown there.
struct Found<'a> {
    model: &'a str,
    baseline: &'a str,
    label: String,
    at: usize,
    row: usize,
    ratio: Estimate,
}

impl Found<'_> {
    fn verdict(&self) -> Verdict {
        Verdict::of(&self.ratio)
    }
}

/// Servers with an io_uring at the points of a sweep, if their ratio is known.
fn found(
    comparison: &Comparison,
    sweep: Sweep,
    measure: Measure,
) -> Vec<Found<'_>> {
    let mut all = Vec::new();
    for (at, point) in sweep.points(comparison) {
        let Some(baseline) = &point.baseline else { continue };
        for (number, row) in point.rows.iter().enumerate() {
            if let Some(ratio) = measure.of(row)
                && is_uring(row)
                && row.model != *baseline
            {
                all.push(Found {
                    model: &row.model,
                    baseline,
                    label: sweep.label(&point.load),
                    at,
                    row: number,
                    ratio: *ratio,
                });
            }
        }
    }
    all
}

/// All points of all sweeps, each once.
fn found_once(comparison: &Comparison, measure: Measure) -> Vec<Found<'_>> {
    let mut all: Vec<Found> = Vec::new();
    for sweep in Sweep::ALL {
        for it in found(comparison, sweep, measure) {
            if !all.iter().any(|had| (had.at, had.row) == (it.at, it.row)) {
                all.push(it);
            }
        }
    }
    all
}

fn words(text: impl Into<String>) -> Piece {
    Piece::Words(text.into())
}

fn ratio(found: &Found, measure: Measure) -> Piece {
    let (at, row) = (found.at, found.row);
    Piece::Number(Shown {
        at: format!("/points/{at}/rows/{row}/{}/median", measure.field()),
        number: found.ratio.median,
        unit: Unit::Three,
    })
}

/// `50 connections (0.712) and 1,000 connections (0.633)`; `more` may say
/// something before the number.
fn places(
    found: &[&Found],
    measure: Measure,
    more: impl Fn(&Found) -> String,
) -> Passage {
    let mut out = Vec::new();
    for (number, it) in found.iter().enumerate() {
        let between = match found.len() - number {
            _ if number == 0 => "",
            1 => " and ",
            _ => ", ",
        };
        out.push(words(format!("{between}{} ({}", it.label, more(it))));
        out.push(ratio(it, measure));
        out.push(words(")"));
    }
    out
}

/// `wins at …; loses at …; no difference is shown at …`
fn told(found: &[&Found], measure: Measure) -> Passage {
    let mut out = Vec::new();
    for (verdict, phrase) in [
        (Verdict::Wins, "wins at "),
        (Verdict::Loses, "loses at "),
        (Verdict::NotShown, "no difference is shown at "),
    ] {
        let those: Vec<&Found> = found
            .iter()
            .copied()
            .filter(|it| it.verdict() == verdict)
            .collect();
        if !those.is_empty() {
            let between = if out.is_empty() { "" } else { "; " };
            out.push(words(format!("{between}{phrase}")));
            out.extend(places(&those, measure, |_| String::new()));
        }
    }
    out
}

/// For each server with an io_uring, where it wins and where it does not.
pub fn of_sweep(
    comparison: &Comparison,
    sweep: Sweep,
    measures: &[Measure],
) -> Vec<Passage> {
    let by = measures.iter().map(|it| (it, found(comparison, sweep, *it)));
    let by: Vec<_> = by.collect();
    let mut models: Vec<&str> = Vec::new();
    for it in by.iter().flat_map(|it| &it.1) {
        if !models.contains(&it.model) {
            models.push(it.model);
        }
    }
    let passage = |model: &&str| {
        let mut out = vec![words(*model)];
        for (measure, all) in &by {
            let of: Vec<&Found> =
                all.iter().filter(|it| it.model == *model).collect();
            if of.is_empty() {
                continue;
            }
            let between = match out.len() {
                1 => ". By",
                _ => " By",
            };
            out.push(words(format!("{between} {}: ", measure.name())));
            out.extend(told(&of, **measure));
            out.push(words("."));
        }
        out
    };
    models.iter().map(passage).collect()
}

/// The whole in a few passages.
pub fn summary(comparison: &Comparison) -> Vec<Passage> {
    let all = found_once(comparison, Measure::Cpu);
    let Some(first) = all.first() else {
        return vec![vec![words(nothing(comparison))]];
    };
    let mut out = vec![overall(comparison, first, &all)];
    for sweep in Sweep::ALL {
        out.extend(best_of(comparison, sweep));
    }
    out.extend(calls_at_best(comparison, &all));
    out.extend(latency(comparison));
    out.push(vec![words(sure(comparison, all.len()))]);
    out
}

/// That there is nothing to say, and why.
fn nothing(comparison: &Comparison) -> String {
    let mut out = "There is no answer: no server with an io_uring was held \
                   against a baseline here."
        .to_string();
    let points = comparison.points.iter();
    let points = points.filter(|it| it.scenario == URING_OR_EPOLL);
    let mut whys: Vec<String> = points
        .flat_map(|it| &it.absent)
        .filter(|it| {
            let model = models::find_with_peers(&it.model);
            model.is_some_and(|model| model.sleeps_in == "io_uring_enter")
        })
        .map(|it| format!(" {}: {}.", it.model, it.why))
        .collect();
    whys.sort();
    whys.dedup();
    out += &whys.concat();
    out
}

fn count_of(all: &[Found], verdict: Verdict) -> usize {
    all.iter().filter(|it| it.verdict() == verdict).count()
}

fn overall(comparison: &Comparison, first: &Found, all: &[Found]) -> Passage {
    let mut models: Vec<&str> = Vec::new();
    for it in all {
        if !models.contains(&it.model) {
            models.push(it.model);
        }
    }
    let count = |verdict| count_of(all, verdict);
    let machine = &comparison.machine;
    vec![words(format!(
        "By CPU time a message, {} against {}, on {}, {}: of {} they win {}, \
         lose {}, and {} no difference is shown.",
        listed(&models),
        first.baseline,
        machine.kernel,
        plural(machine.cores, "core", "cores"),
        plural(all.len(), "comparison", "comparisons"),
        number::count(count(Verdict::Wins) as f64),
        number::count(count(Verdict::Loses) as f64),
        match count(Verdict::NotShown) {
            0 => "nowhere".to_string(),
            many => format!("in {}", number::count(many as f64)),
        },
    ))]
}

/// Of all servers with an io_uring, the one that takes least at each point: by
/// the end of its interval, so that it wins there if one of them does.
fn best_of(comparison: &Comparison, sweep: Sweep) -> Option<Passage> {
    let all = found(comparison, sweep, Measure::Cpu);
    let mut best: Vec<&Found> = Vec::new();
    for it in &all {
        match best.iter_mut().find(|had| had.at == it.at) {
            Some(had) if it.ratio.high < had.ratio.high => *had = it,
            Some(_) => {}
            None => best.push(it),
        }
    }
    if best.is_empty() {
        return None;
    }
    let mut out =
        vec![words(format!("{}, the best of them", capital(sweep.name())))];
    for (verdict, phrase) in [
        (Verdict::Wins, "wins at "),
        (Verdict::Loses, "loses even so at "),
        (Verdict::NotShown, "is not shown to differ at "),
    ] {
        let those: Vec<&Found> =
            best.iter().copied().filter(|it| it.verdict() == verdict).collect();
        if !those.is_empty() {
            let between = if out.len() == 1 { " " } else { "; it " };
            out.push(words(format!("{between}{phrase}")));
            let more = |it: &Found| format!("{}, ", it.model);
            out.extend(places(&those, Measure::Cpu, more));
        }
    }
    out.push(words("."));
    Some(out)
}

/// How many calls it makes where it takes least, and how many the baseline.
fn calls_at_best(comparison: &Comparison, all: &[Found]) -> Option<Passage> {
    let mut best: Vec<&Found> = all.iter().collect();
    best.sort_by(|a, b| a.ratio.high.total_cmp(&b.ratio.high));
    let best = best.first()?;
    let point = &comparison.points[best.at];
    let calls = |model: &str| {
        let number = point.rows.iter().position(|it| it.model == model)?;
        let calls = point.rows[number].calls.as_ref()?;
        let at = format!("/points/{}/rows/{number}/calls", best.at);
        let of = |name: &str, number, unit| {
            Piece::Number(Shown { at: format!("{at}/{name}"), number, unit })
        };
        let each = of("total", calls.total, Unit::Three);
        let wait = calls.messages_per_wait;
        let wait = wait.map(|it| of("messages_per_wait", it, Unit::Three));
        Some((each, wait))
    };
    let (own, base) = (calls(best.model)?, calls(best.baseline)?);
    let mut out = vec![words(format!(
        "Where it takes least ({}, {}): ",
        best.model, point.name
    ))];
    for (model, (each, wait), between) in
        [(best.model, own, "; "), (best.baseline, base, ".")]
    {
        out.push(words(format!("{model} makes ")));
        out.push(each);
        out.push(words(" system calls a message"));
        if let Some(wait) = wait {
            out.push(words(", and a wait of it brings "));
            out.push(wait);
            out.push(words(" messages"));
        }
        out.push(words(between));
    }
    Some(out)
}

fn latency(comparison: &Comparison) -> Option<Passage> {
    let of = |measure: Measure| {
        let all = found_once(comparison, measure);
        let count = |verdict| number::count(count_of(&all, verdict) as f64);
        (!all.is_empty()).then(|| {
            format!(
                "by {} they win {}, lose {}, and {} show no difference",
                measure.name(),
                count(Verdict::Wins),
                count(Verdict::Loses),
                count(Verdict::NotShown)
            )
        })
    };
    let both = [Measure::P50, Measure::P99].map(of);
    let both: Vec<String> = both.into_iter().flatten().collect();
    (!both.is_empty())
        .then(|| vec![words(capital(&format!("{}.", both.join("; "))))])
}

/// How much of it may be chance.
fn sure(comparison: &Comparison, count: usize) -> String {
    let rounds = comparison.method.rounds;
    // All that so few rounds span holds the median unless they are all on one
    // side of it.
    let most = 1.0 - 2f64.powi(1 - i32::try_from(rounds).unwrap_or(i32::MAX));
    let confidence = most.clamp(0.0, 0.95);
    let missed = (count as f64 * (1.0 - confidence)).round();
    let mut out = format!(
        "“Wins” means that the whole interval of the ratio is below 1, \
         “loses” that it is above. An interval misses the true ratio with a \
         probability of {} % at most: of {} as many as {} may do so by \
         chance.",
        number::plain(((1.0 - confidence) * 1000.0).round() / 10.0),
        plural(count, "interval", "intervals"),
        number::count(missed)
    );
    if most < 0.95 {
        out += &format!(
            " {} are too few to say more: a first look.",
            plural(rounds, "round", "rounds")
        );
    }
    out
}

/// Without marks for where its numbers come from.
pub fn plain(passage: &Passage) -> String {
    let text = |piece: &Piece| match piece {
        Piece::Words(words) => words.clone(),
        Piece::Number(it) => it.unit.write(it.number),
    };
    passage.iter().map(text).collect()
}

//! Two comparisons against each other: what is beyond noise, and whether it
//! may be said at all.

use std::fmt;

use serde::Serialize;

use super::charts::named;
use super::number;
use super::plural;
use super::table;
use crate::results::{Comparison, Estimate, Point, Row};

/// Memory and calls have no interval: less than this is not told of.
const TOLERANCE: f64 = 0.05;
/// Nor is less memory than this: the allocator takes it in such steps.
const MEMORY_STEP: f64 = 65_536.0;
/// Nor so few calls a message: they are counted on a run of some seconds.
const CALLS_STEP: f64 = 0.05;

/// What two comparisons say about each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// When the old one began, and of which commit it was.
    pub old: String,
    /// The same of the new one.
    pub new: String,
    /// What differs besides the servers; where there is anything, no change
    /// can be laid to a server.
    pub differences: Vec<Difference>,
    /// Versions that differ: they may be why a server has changed.
    pub versions: Vec<Difference>,
    /// Comparisons of two intervals.
    pub compared: usize,
    /// How many of these would be found apart by chance if nothing had
    /// changed and all rounds were independent.
    pub by_chance: f64,
    /// Comparisons of two numbers that have no interval.
    pub compared_without_interval: usize,
    /// What is beyond noise, the greatest change first.
    pub beyond: Vec<Change>,
    /// Rows of the new one that the old one lacks.
    pub appeared: Vec<Place>,
    /// Rows of the old one that the new one lacks.
    pub vanished: Vec<Place>,
}

/// Something that two comparisons do not have in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What it is.
    pub what: String,
    /// In the old one.
    pub old: String,
    /// In the new one.
    pub new: String,
}

/// A row of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place {
    /// The scenario.
    pub scenario: String,
    /// The point of it.
    pub point: String,
    /// The server.
    pub model: String,
    /// Why it is lacking on the other side, where that is known.
    pub why: Option<String>,
}

/// What of a row has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// CPU time a message, relative to the baseline of the same run.
    CpuRatio,
    /// CPU time a message in nanoseconds, where there is no such ratio: the
    /// speed of the machine is in it.
    CpuAbsolute,
    /// Resident memory in bytes.
    Memory,
    /// System calls a message.
    Calls,
}

/// One change beyond noise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The scenario.
    pub scenario: String,
    /// The point of it.
    pub point: String,
    /// The server.
    pub model: String,
    /// What of it.
    pub quantity: Quantity,
    /// What a ratio is against.
    pub baseline: Option<String>,
    /// As it was.
    pub old: f64,
    /// As it is.
    pub new: f64,
    /// New divided by old, if old is not nothing.
    pub factor: Option<f64>,
    /// The old interval, lower and upper end.
    pub old_interval: Option<[f64; 2]>,
    /// The new one.
    pub new_interval: Option<[f64; 2]>,
}

/// Holds a new comparison against an old one.
pub fn diff(old: &Comparison, new: &Comparison) -> Diff {
    let mut diff = Diff {
        old: run(old),
        new: run(new),
        differences: differences(old, new),
        versions: versions(old, new),
        compared: 0,
        by_chance: 0.0,
        compared_without_interval: 0,
        beyond: Vec::new(),
        appeared: missing(new, old),
        vanished: missing(old, new),
    };
    for before in &old.points {
        let Some(after) = same_point(new, before) else { continue };
        if before.load != after.load {
            diff.differences.push(Difference {
                what: format!("load of {}", named(before)),
                old: format!("{:?}", before.load),
                new: format!("{:?}", after.load),
            });
            continue;
        }
        let how = |it: &Point| {
            let (args, cores) = (it.args.join(" "), it.pinning.iter());
            cores.fold(args, |args, it| format!("{args} {it}"))
        };
        if how(before) != how(after) {
            diff.differences.push(Difference {
                what: format!("servers of {}", named(before)),
                old: how(before),
                new: how(after),
            });
            continue;
        }
        for row in &before.rows {
            if let Some(now) = same_row(after, &row.model) {
                let rounds = (old.method.rounds, new.method.rounds);
                diff.row((before, row), (after, now), rounds);
            }
        }
    }
    let much = |it: &Change| it.factor.map_or(f64::INFINITY, |f| f.ln().abs());
    diff.beyond.sort_by(|a, b| much(b).total_cmp(&much(a)));
    diff
}

fn run(comparison: &Comparison) -> String {
    let machine = &comparison.machine;
    let commit = machine.commit.as_deref().unwrap_or("no commit");
    format!("{}, {commit}", machine.date)
}

fn same_point<'a>(of: &'a Comparison, point: &Point) -> Option<&'a Point> {
    of.points
        .iter()
        .find(|it| it.scenario == point.scenario && it.name == point.name)
}

fn same_row<'a>(of: &'a Point, model: &str) -> Option<&'a Row> {
    of.rows.iter().find(|row| row.model == model)
}

/// What of the machine and of the method is not the same.
fn differences(old: &Comparison, new: &Comparison) -> Vec<Difference> {
    let what = |it: &Comparison| {
        let (machine, method) = (&it.machine, &it.method);
        let mitigations = machine.mitigations.iter();
        let mitigations: Vec<String> = mitigations
            .map(|(name, state)| format!("{name} {state}"))
            .collect();
        [
            ("kernel", machine.kernel.clone()),
            ("processor", machine.cpu.clone()),
            ("cores", machine.cores.to_string()),
            ("mitigations", mitigations.join("; ")),
            ("buffer", number::bytes(method.buffer as f64)),
            ("pinning", method.pinning.clone()),
            ("seconds of a turn", number::three(method.turn_seconds)),
        ]
    };
    let pairs = what(old).into_iter().zip(what(new));
    pairs
        .filter(|((_, old), (_, new))| old != new)
        .map(|((what, old), (_, new))| Difference {
            what: what.to_string(),
            old,
            new,
        })
        .collect()
}

fn versions(old: &Comparison, new: &Comparison) -> Vec<Difference> {
    let (old, new) = (&old.machine.versions, &new.machine.versions);
    let find = |all: &[(String, String)], name: &str| {
        let found = all.iter().find(|it| it.0 == name);
        found.map_or("none".to_string(), |it| it.1.clone())
    };
    let mut names: Vec<&str> =
        old.iter().chain(new).map(|it| it.0.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let all = names.into_iter().map(|name| Difference {
        what: name.to_string(),
        old: find(old, name),
        new: find(new, name),
    });
    all.filter(|it| it.old != it.new).collect()
}

/// Rows of one that the other lacks.
fn missing(of: &Comparison, other: &Comparison) -> Vec<Place> {
    let mut places = Vec::new();
    for point in &of.points {
        let there = same_point(other, point);
        for row in &point.rows {
            if there.and_then(|it| same_row(it, &row.model)).is_some() {
                continue;
            }
            let absent = there.iter().flat_map(|it| &it.absent);
            let absent = absent.clone().find(|it| it.model == row.model);
            places.push(Place {
                scenario: point.scenario.clone(),
                point: point.name.clone(),
                model: row.model.clone(),
                why: absent.map(|it| it.why.clone()),
            });
        }
    }
    places
}

impl Diff {
    fn row(
        &mut self,
        (before, old): (&Point, &Row),
        (after, new): (&Point, &Row),
        rounds: (usize, usize),
    ) {
        let change = |quantity, was: f64, is: f64| Change {
            scenario: after.scenario.clone(),
            point: after.name.clone(),
            model: new.model.clone(),
            quantity,
            baseline: None,
            old: was,
            new: is,
            factor: (was != 0.0).then_some(is / was),
            old_interval: None,
            new_interval: None,
        };
        // The baseline's own ratio is always one.
        let is_baseline = after.baseline.as_ref() == Some(&new.model);
        let alike = before.baseline == after.baseline && !is_baseline;
        let (quantity, was, is) = match (&old.ratio, &new.ratio) {
            (Some(was), Some(is)) if alike => (Quantity::CpuRatio, was, is),
            _ => (
                Quantity::CpuAbsolute,
                &old.cpu_ns_per_message,
                &new.cpu_ns_per_message,
            ),
        };
        let count = |row: &Row, all: usize| match row.rounds.len() {
            0 => all,
            some => some,
        };
        self.compared += 1;
        self.by_chance += chance(count(old, rounds.0), count(new, rounds.1));
        if apart(was, is) {
            self.beyond.push(Change {
                baseline: match quantity {
                    Quantity::CpuRatio => after.baseline.clone(),
                    _ => None,
                },
                old_interval: Some([was.low, was.high]),
                new_interval: Some([is.low, is.high]),
                ..change(quantity, was.median, is.median)
            });
        }
        let (was, is) = (old.memory as f64, new.memory as f64);
        self.compared_without_interval += 1;
        if differ(was, is, MEMORY_STEP) {
            self.beyond.push(change(Quantity::Memory, was, is));
        }
        if let (Some(was), Some(is)) = (&old.calls, &new.calls) {
            self.compared_without_interval += 1;
            if differ(was.total, is.total, CALLS_STEP) {
                self.beyond.push(change(Quantity::Calls, was.total, is.total));
            }
        }
    }
}

fn apart(old: &Estimate, new: &Estimate) -> bool {
    old.high < new.low || new.high < old.low
}

fn differ(old: f64, new: f64, step: f64) -> bool {
    let by = (new - old).abs();
    by > step && by > old.abs() * TOLERANCE
}

/// How probable it is that the intervals of two medians do not overlap though
/// all rounds, so many of each, come from the same source.
///
/// The interval goes from the k-th lowest round to the k-th highest. That the
/// highest end of one stays below the lowest end of the other depends on the
/// order of the rounds alone, and all orders are equally probable: whatever
/// the distribution.
fn chance(old: usize, new: usize) -> f64 {
    let below = |n: usize, m: usize| {
        // The upper end has the rank `a` among n; fewer than k of the m other
        // ones are below it.
        let a = n + 1 - rank(n);
        let orders = |j: usize| {
            ln_choose(a - 1 + j, j) + ln_choose(n - a + m - j, m - j)
        };
        let all = ln_choose(n + m, n);
        (0..rank(m)).map(|j| (orders(j) - all).exp()).sum::<f64>()
    };
    let (old, new) = (old.max(1), new.max(1));
    below(old, new) + below(new, old)
}

/// The rank k of the interval's lower end among so many rounds: the greatest
/// one with which the interval still holds the median with 95 %.
fn rank(rounds: usize) -> usize {
    let mut outside = 0.0;
    let mut rank = 0;
    while rank < rounds.div_ceil(2) {
        let ln_half = 0.5f64.ln() * rounds as f64;
        outside += 2.0 * (ln_choose(rounds, rank) + ln_half).exp();
        if outside > 0.05 {
            break;
        }
        rank += 1;
    }
    rank.max(1)
}

fn ln_choose(n: usize, k: usize) -> f64 {
    (0..k.min(n - k)).map(|i| ((n - i) as f64 / (i + 1) as f64).ln()).sum()
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old: {}", self.old)?;
        writeln!(f, "new: {}", self.new)?;
        let list = |f: &mut fmt::Formatter<'_>, all: &[Difference]| {
            all.iter().try_for_each(|it| {
                writeln!(f, "  {}: {} -> {}", it.what, it.old, it.new)
            })
        };
        if !self.differences.is_empty() {
            writeln!(f, "\nThese runs differ in more than the servers:")?;
            list(f, &self.differences)?;
            writeln!(
                f,
                "So nothing below says that a server has changed; it may all \
                 come from that."
            )?;
        }
        if !self.versions.is_empty() {
            writeln!(f, "\nVersions that differ, and may be why:")?;
            list(f, &self.versions)?;
        }
        writeln!(
            f,
            "\n{} of CPU time; if nothing had changed, about {:.1} of them \
             would be beyond noise by chance.",
            plural(self.compared, "comparison", "comparisons"),
            self.by_chance
        )?;
        writeln!(
            f,
            "{} of memory and calls, which have no interval: told from 5 % on.",
            plural(self.compared_without_interval, "comparison", "comparisons")
        )?;
        self.changes(f)?;
        let mut places = |title: &str, all: &[Place]| {
            if all.is_empty() {
                return Ok(());
            }
            writeln!(f, "\n{title}:")?;
            all.iter().try_for_each(|it| writeln!(f, "  {it}"))
        };
        places("Only in the old one", &self.vanished)?;
        places("Only in the new one", &self.appeared)
    }
}

impl Diff {
    fn changes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.beyond.is_empty() {
            return writeln!(f, "\nNothing is beyond noise.");
        }
        let word = match self.beyond.len() {
            1 => "One is".to_string(),
            more => format!("{} are", number::count(more as f64)),
        };
        writeln!(f, "\n{word} beyond noise, the greatest first:")?;
        let mut table = table::plain(false);
        for it in &self.beyond {
            let at = match it.point.is_empty() {
                true => it.scenario.clone(),
                false => format!("{}, {}", it.scenario, it.point),
            };
            table.add_row([
                format!("  {}", it.by()),
                it.model.clone(),
                at,
                it.what(),
                format!("{} -> {}", it.side(false), it.side(true)),
            ]);
        }
        f.write_str(&table::finished(table, &[0, 1, 2, 3, 4]))?;
        let absolute = |it: &Change| it.quantity == Quantity::CpuAbsolute;
        if self.beyond.iter().any(absolute) {
            writeln!(
                f,
                "Absolute: the baseline itself, or there is none in common. \
                 How fast the machine was is in it."
            )?;
        }
        Ok(())
    }
}

impl Change {
    fn by(&self) -> String {
        let Some(factor) = self.factor else { return "new".to_string() };
        match factor {
            2.0.. => format!("{} times", number::three(factor)),
            1.0.. => format!("{:.1} % more", (factor - 1.0) * 100.0),
            _ => format!("{:.1} % less", (1.0 - factor) * 100.0),
        }
    }

    fn what(&self) -> String {
        match (self.quantity, &self.baseline) {
            (Quantity::CpuRatio, Some(of)) => format!("CPU against {of}"),
            (Quantity::CpuRatio, None) => "CPU against the baseline".into(),
            (Quantity::CpuAbsolute, _) => "CPU, absolute, µs".into(),
            (Quantity::Memory, _) => "memory".into(),
            (Quantity::Calls, _) => "calls a message".into(),
        }
    }

    fn side(&self, new: bool) -> String {
        let (number, interval) = match new {
            true => (self.new, self.new_interval),
            false => (self.old, self.old_interval),
        };
        let write = match self.quantity {
            Quantity::CpuAbsolute => number::micros,
            Quantity::Memory => number::bytes,
            Quantity::CpuRatio | Quantity::Calls => number::three,
        };
        match interval {
            Some([low, high]) => {
                format!("{} ({}–{})", write(number), write(low), write(high))
            }
            None => write(number),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { scenario, point, model, why } = self;
        write!(f, "{model}, {scenario}, {point}")?;
        match why {
            Some(why) => write!(f, " (the other: {why})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tables of order statistics.
    #[test]
    fn the_interval_has_its_rank() {
        for (rounds, expected) in
            [(1, 1), (3, 1), (5, 1), (6, 1), (9, 2), (20, 6), (30, 10)]
        {
            assert_eq!(rank(rounds), expected, "of {rounds}");
        }
    }

    /// Where all rounds are in the interval: two orders of all.
    #[test]
    fn chance_is_that_of_the_orders() {
        assert!((chance(3, 3) - 2.0 / 20.0).abs() < 1e-12);
        assert!((chance(5, 5) - 2.0 / 252.0).abs() < 1e-12);
        assert!((chance(1, 1) - 1.0).abs() < 1e-12);
    }

    /// Against medians that are drawn: twice 20 rounds of the same source.
    #[test]
    fn chance_is_what_happens() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut draw = || {
            let mut rounds: Vec<f64> = (0..20).map(|_| random.f64()).collect();
            rounds.sort_by(f64::total_cmp);
            let (low, high) = (rounds[5], rounds[14]);
            Estimate { median: 0.0, low, high }
        };
        let found = (0..200_000).filter(|_| apart(&draw(), &draw())).count();
        let expected = chance(20, 20) * 200_000.0;
        let off = (found as f64 - expected) / expected.sqrt();
        assert!(off.abs() < 5.0, "{found} found, {expected} expected");
    }
}

//! The price list: what calls, switches, threads and processes cost on one
//! machine, in nanoseconds and as multiples of a system call.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use bench::harness::raise_descriptor_limit;
use bench::measure::this_machine;
use bench::report::number::three;
use bench::results::{Estimate, Machine};
use items::{Item, Props};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

mod items;
mod sys;

/// The item that others are given as multiples of.
const UNIT: &str = "a system call";

const ROUNDS: usize = 21;

/// How long an item has in each round, if it can be had in so little time.
const TURN: Duration = Duration::from_millis(2);

/// The price list, and whose it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Basics {
    /// Where it was measured.
    pub machine: Machine,
    /// One item after the other.
    pub rows: Vec<Price>,
}

/// What one thing costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// Its name.
    pub name: String,
    /// What exactly was done.
    pub what: String,
    /// Nanoseconds, each time.
    pub ns: Estimate,
}

/// Measures all of them, in a few seconds. All items have a short turn in each
/// round, so that a machine that changes its speed meanwhile changes it for
/// all; the rounds go forwards and backwards by turns.
pub fn measure() -> Result<Basics> {
    let machine = this_machine();
    raise_descriptor_limit();
    thread::scope(|scope| match scope.spawn(prices).join() {
        Ok(rows) => Ok(Basics { machine, rows: rows? }),
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// In a thread of its own, which is pinned and blocks a signal.
fn prices() -> Result<Vec<Price>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let allowed = |core: &usize| set.is_set(*core).unwrap_or(false);
    let cores: Vec<usize> = (0..CpuSet::count()).filter(allowed).collect();
    pin(cores[0])?;
    let props = Props::new(&cores)?;
    let mut items = props.items();
    let counts = items.iter_mut().map(count).collect::<Result<Vec<u32>>>()?;
    let mut rounds = vec![Vec::new(); items.len()];
    let mut order: Vec<usize> = (0..items.len()).collect();
    for _ in 0..ROUNDS {
        for &at in &order {
            let took = (items[at].2)(counts[at])?.as_nanos() as f64;
            rounds[at].push(took / f64::from(counts[at]));
        }
        order.reverse();
    }
    let rows = items.iter().zip(rounds).map(|((name, what, _), rounds)| {
        let (name, what) = (name.to_string(), what.to_string());
        Price { name, what, ns: Estimate::of(rounds) }
    });
    Ok(rows.collect())
}

/// How often it can be done in a turn. Not only the first try may take longer
/// than it will, so the better of two counts.
fn count((_, _, run): &mut Item) -> Result<u32> {
    for count in (0..10).map(|power| 4u32.pow(power)) {
        run(1)?;
        let best = run(count)?.min(run(count)?);
        if best * 8 > TURN {
            let turns = TURN.as_secs_f64() / best.as_secs_f64();
            return Ok((turns * f64::from(count)).max(1.0) as u32);
        }
    }
    bail!("it takes no time")
}

/// Keeps the calling thread on this core.
fn pin(core: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// The price list for readers, in Markdown.
pub fn table(basics: &Basics) -> String {
    let unit = basics.rows.iter().find(|it| it.name == UNIT);
    let unit = unit.map_or(f64::NAN, |it| it.ns.median);
    let mut text = String::from(
        "| What | Price | Interval | In system calls |\n|---|--:|--:|--:|\n",
    );
    for Price { name, what, ns } in &basics.rows {
        let Estimate { median, low, high } = *ns;
        let (low, high) = (price(low), price(high));
        text += &format!(
            "| {name}: {what} | {} | {low} to {high} | {} |\n",
            price(median),
            three(median / unit)
        );
    }
    text
}

/// Three digits and a unit.
fn price(ns: f64) -> String {
    match ns {
        ..999.5 => format!("{} ns", three(ns)),
        ..999_500.0 => format!("{} µs", three(ns / 1e3)),
        _ => format!("{} ms", three(ns / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_have_units_and_multiples() {
        let row = |name: &str, median| {
            let ns = Estimate { median, low: median, high: 2.0 * median };
            Price { name: name.to_owned(), what: "x".to_owned(), ns }
        };
        let rows = vec![row(UNIT, 200.0), row("b", 1.5e6)];
        let text = table(&Basics { machine: Machine::default(), rows });
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let unit = "| a system call: x | 200 ns | 200 ns to 400 ns | 1.00 |";
        assert_eq!(lines[0], unit);
        assert_eq!(lines[1], "| b: x | 1.50 ms | 1.50 ms to 3.00 ms | 7,500 |");
    }

    #[test]
    fn a_turn_has_as_many_as_fit() {
        let each = Duration::from_micros(5);
        let mut item: Item = ("x", "x", Box::new(|n| Ok(each * n)));
        assert_eq!(count(&mut item).ok(), Some(400));
        item.2 = Box::new(|n| Ok(TURN * 3 * n));
        assert_eq!(count(&mut item).ok(), Some(1));
    }
}

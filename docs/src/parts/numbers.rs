//! Tables of what was measured, from the numbers that stand beside the book;
//! nothing is measured here.

use anyhow::{Context, Result, bail, ensure};
use bench::models;
use bench::report::number::{bytes, count, interval, micros, three};
use bench::results::{Comparison, Estimate, Machine, Point, Row};

use crate::basics::{self, Basics};
use crate::source;

/// What `bench compare --json` has saved.
pub const COMPARISON: &str = "docs/numbers/compare.json";
/// What `docs measure` has saved.
pub const BASICS: &str = "docs/numbers/basics.json";

/// Reads one of the files of numbers.
fn read<T: serde::de::DeserializeOwned>(path: &str) -> Result<T> {
    let text = source::text(path)?;
    serde_json::from_str(&text).with_context(|| path.to_owned())
}

/// `KIND MODEL…`: a table, and where its numbers come from.
pub fn table(words: &str, up: &str) -> Result<String> {
    let mut words = words.split_whitespace();
    let kind = words.next().context("say: numbers KIND MODEL…")?;
    if kind == "basics" {
        let basics: Basics = read(BASICS)?;
        let source = origin(&basics.machine, BASICS, up);
        let table = basics::table(&basics);
        return Ok(format!("{}\n\n{source}", table.trim_end()));
    }
    let names: Vec<&str> = words.collect();
    for name in &names {
        let known = models::find_with_peers(name);
        known.with_context(|| format!("no model is called '{name}'"))?;
    }
    ensure!(!names.is_empty(), "it names no model");
    let shown = Shown { comparison: read(COMPARISON)?, names };
    let (table, told) = match kind {
        "costs" => shown.costs(),
        "scan" => shown.scan(),
        "churn" => shown.churn(),
        "idle" => shown.idle(),
        "large" => shown.one("large", "16 KiB"),
        "pipelined" => shown.one("pipelined", "depth 16"),
        other => bail!("there are no numbers called '{other}'"),
    }?;
    let source = origin(&shown.comparison.machine, COMPARISON, up);
    Ok(format!("{table}\n\n<sub>{told}</sub> {source}"))
}

/// Where numbers come from, for whoever doubts them.
fn origin(machine: &Machine, path: &str, up: &str) -> String {
    let date = machine.date.split('T').next().unwrap_or_default();
    let commit = machine.commit.as_deref().unwrap_or("unknown");
    format!(
        "<sub>{}, {} cores, {}; commit {commit}, {date}; all of it: \
         [{path}]({up}{path}).</sub>",
        machine.cpu, machine.cores, machine.kernel
    )
}

const TOLD: &str = "CPU time of the server and its children for each message: \
    the median over rounds; × is the ratio within the round";

struct Shown<'a> {
    comparison: Comparison,
    names: Vec<&'a str>,
}

/// A table, and a sentence on what it shows.
type Told = Result<(String, String)>;

impl Shown<'_> {
    fn point(&self, scenario: &str, name: &str) -> Result<&Point> {
        let points = &self.comparison.points;
        let found = |it: &&Point| it.scenario == scenario && it.name == name;
        points.iter().find(found).with_context(|| {
            format!("the comparison has no point {scenario}, {name}")
        })
    }

    /// A row's cells, one from each column: a server that was left out there
    /// has none.
    fn rows(
        &self,
        head: &[&str],
        cells: impl Fn(&str) -> Result<Vec<String>>,
    ) -> Result<String> {
        let mut lines = vec![
            format!("| Row | {} |", head.join(" | ")),
            format!("|---{}|", "|--:".repeat(head.len())),
        ];
        for name in &self.names {
            let cells = cells(name)?;
            ensure!(cells.len() == head.len(), "{name}: {cells:?}");
            lines.push(format!("| `{name}` | {} |", cells.join(" | ")));
        }
        Ok(lines.join("\n"))
    }

    fn costs(&self) -> Told {
        let loads = ["1 connection", "50 connections", "1,000 connections"];
        let points = loads.map(|name| self.point("busy", name));
        let points = points.into_iter().collect::<Result<Vec<_>>>()?;
        let mut head = loads.to_vec();
        head.extend(["calls a message at 50", "switches a message at 50"]);
        let table = self.rows(&head, |name| {
            let mut cells: Vec<String> =
                points.iter().map(|point| cost(point, name)).collect();
            let row = row(points[1], name);
            let calls = row.and_then(|row| row.calls.as_ref());
            cells.push(calls.map_or(dash(), |calls| three(calls.total)));
            let switches = row.and_then(|row| row.switches);
            cells.push(switches.map_or(dash(), |switches| {
                three(switches.voluntary + switches.involuntary)
            }));
            Ok(cells)
        })?;
        let told = format!(
            "{TOLD} to the floor, with its interval. Messages of 64 bytes, one \
             outstanding on each connection."
        );
        Ok((table, told))
    }

    fn scan(&self) -> Told {
        let loads = [
            "none idle",
            "100 idle",
            "300 idle",
            "900 idle",
            "3,000 idle",
            "10,000 idle",
        ];
        let points = loads.map(|name| self.point("scan", name));
        let points = points.into_iter().collect::<Result<Vec<_>>>()?;
        let mut head = loads.to_vec();
        head.push("each descriptor adds");
        let table = self.rows(&head, |name| {
            let cell = |point: &&Point| {
                let cpu = row(point, name).map(|it| it.cpu_ns_per_message);
                cpu.map_or(dash(), |cpu| format!("{} µs", micros(cpu.median)))
            };
            let mut cells: Vec<String> = points.iter().map(cell).collect();
            let fits = &self.comparison.fits;
            let fit = fits
                .iter()
                .find(|fit| fit.scenario == "scan" && fit.model == *name);
            cells.push(fit.map_or(dash(), |fit| {
                let (low, high) = (three(fit.low), three(fit.high));
                format!("{} ns ({low} to {high})", three(fit.ns_per_descriptor))
            }));
            Ok(cells)
        })?;
        let told = "CPU time of the server for each message of the one busy \
                    client; the last column is the slope of a line through \
                    them, with its interval.";
        Ok((table, told.to_owned()))
    }

    fn churn(&self) -> Told {
        let point = self.point("churn", "1 message each")?;
        let head = ["a client costs", "against `epoll_lt`", "calls a client"];
        let table = self.rows(&head, |name| {
            let Some(row) = row(point, name) else {
                return Ok(vec![dash(); 3]);
            };
            let calls = row.calls.as_ref().map(|calls| three(calls.total));
            Ok(vec![
                format!("{} µs", micros(row.cpu_ns_per_message.median)),
                row.ratio.map_or(dash(), |ratio| times(&ratio)),
                calls.unwrap_or_else(dash),
            ])
        })?;
        let told = "CPU time of the server and its children for a client that \
                    connects, has one message of 64 bytes echoed, and closes; \
                    10 of them at a time.";
        Ok((table, told.to_owned()))
    }

    fn idle(&self) -> Told {
        let loads = ["none idle", "1,000 idle", "10,000 idle"];
        let points = loads.map(|name| self.point("idle", name));
        let points = points.into_iter().collect::<Result<Vec<_>>>()?;
        let head = [
            "an idle connection takes",
            "100 busy, none idle",
            "and 1,000 idle",
            "and 10,000 idle",
        ];
        let table = self.rows(&head, |name| {
            let many = points.iter().rev().filter_map(|it| row(it, name));
            let memory = many.filter_map(|row| row.memory_per_idle).next();
            let none = row(points[0], name).map(|it| it.cpu_ns_per_message);
            let mut cells = vec![
                memory.map_or(dash(), bytes),
                none.map_or(dash(), |cpu| format!("{} µs", micros(cpu.median))),
            ];
            for point in &points[1..] {
                let ratio =
                    row(point, name).and_then(|it| it.against_none_idle);
                cells.push(ratio.map_or(dash(), |ratio| times(&ratio)));
            }
            Ok(cells)
        })?;
        let told = "Resident memory of the server that an idle connection \
                    adds, without the kernel's; CPU time for each message of \
                    100 busy clients, and what idle ones make of it (× is the \
                    ratio within the round, with its interval).";
        Ok((table, told.to_owned()))
    }

    fn one(&self, scenario: &str, name: &str) -> Told {
        let point = self.point(scenario, name)?;
        let head = ["a message costs", "messages a second"];
        let table = self.rows(&head, |name| {
            let speed = row(point, name).map(|it| it.messages_per_second);
            let speed = speed.map_or(dash(), |it| count(it.median));
            Ok(vec![cost(point, name), speed])
        })?;
        let load = &point.load;
        let told = format!(
            "{TOLD} to the floor, with its interval. {} connections, messages \
             of {}, {} outstanding on each.",
            load.connections,
            bytes(load.size as f64),
            load.depth
        );
        Ok((table, told))
    }
}

fn row<'a>(point: &'a Point, name: &str) -> Option<&'a Row> {
    point.rows.iter().find(|row| row.model == name)
}

fn cost(point: &Point, name: &str) -> String {
    let Some(row) = row(point, name) else { return dash() };
    let cpu = micros(row.cpu_ns_per_message.median);
    match &row.ratio {
        Some(ratio) => format!("{cpu} µs, {}", times(ratio)),
        None => format!("{cpu} µs"),
    }
}

fn times(ratio: &Estimate) -> String {
    format!("×{} ({})", three(ratio.median), interval(ratio, three))
}

fn dash() -> String {
    "–".to_owned()
}

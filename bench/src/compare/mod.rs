//! Compares servers: all have their turns in each round, so that a machine
//! that drifts hits all alike, and ratios are taken within the round.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, ensure};

mod contender;
mod scenario;
mod stats;

pub use contender::{Contender, Setting};
pub use scenario::{
    BETWEEN, Entrant, Field, Only, Room, SCENARIOS, STREAM, Scenario, Servers,
    Spot, URING_OR_EPOLL, absence, usual_baseline,
};

use crate::harness;
use crate::load::{Span, Turn};
use crate::measure::{self, Cores, Counted, Counting, Ready, Taken};
use crate::models::{Model, is_peer};
use crate::results::{
    Absent, Calls, Comparison, Estimate, FORMAT, Fit, Load, Method, Point,
    Ring, Round, Row, Switches,
};

/// What is to be compared, and how long.
pub struct Task {
    /// In the order of the report.
    pub scenarios: Vec<&'static Scenario>,
    /// In the order of the report.
    pub models: Vec<&'static Model>,
    /// They were not named: a scenario may choose among them.
    pub unnamed: bool,
    /// What ratios are against; [`usual_baseline`] if nothing is said.
    pub baseline: Option<&'static Model>,
    /// Rounds that count; one more goes before them.
    pub rounds: usize,
    /// How long one turn takes.
    pub turn: Duration,
    /// `--buffer` of every server, in bytes.
    pub buffer: usize,
    /// Only the points of a first look.
    pub quick: bool,
    /// Also count system calls, in a turn of its own for each server.
    pub calls: bool,
}

impl Task {
    fn points(&self) -> impl Iterator<Item = (&'static Scenario, &Spot)> {
        let of = |scenario: &&'static Scenario| {
            let scenario = *scenario;
            scenario.points.iter().map(move |spot| (scenario, spot))
        };
        let wanted = |spot: &Spot| !self.quick || spot.quick;
        self.scenarios.iter().flat_map(of).filter(move |it| wanted(it.1))
    }

    /// How long it will take, roughly; as much is told of as done.
    pub fn estimate(&self) -> Duration {
        let room = Room::here();
        let present = |scenario: &Scenario, spot: &Spot| {
            let fits = |it: &&(_, Option<String>)| it.1.is_none();
            self.field(scenario, spot, room).iter().filter(fits).count()
        };
        let each = |(scenario, spot): (&Scenario, &Spot)| {
            let turns = self.rounds + 1 + usize::from(self.calls);
            let turns = self.length(scenario) * whole(turns);
            (turns + setup(&spot.load)) * whole(present(scenario, spot))
        };
        self.points().map(each).sum()
    }

    /// How many servers are asked something.
    pub fn servers(&self) -> usize {
        let room = Room::here();
        let fields = self.points();
        let all = fields.flat_map(|(scenario, spot)| {
            let field = self.field(scenario, spot, room).into_iter();
            field.filter(|it| it.1.is_none()).map(|it| it.0.name)
        });
        all.collect::<BTreeSet<_>>().len()
    }

    /// Who is to be asked this, and why some of them are not after all.
    fn field(
        &self,
        scenario: &Scenario,
        spot: &Spot,
        room: Room,
    ) -> Vec<(&'static Model, Option<String>)> {
        let entry = |model| match self.unnamed {
            true => scenario.entry(model, &spot.load),
            false => Some(Ok(())),
        };
        let of = |&model: &&'static Model| {
            let why = entry(model)?.err().map(str::to_owned);
            Some((model, absence(model, spot, room).or(why)))
        };
        self.models.iter().filter_map(of).collect()
    }

    /// How long a turn takes.
    fn length(&self, scenario: &Scenario) -> Duration {
        self.turn * scenario.stretch
    }
}

fn whole(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// About how long it takes to start a server and its clients, and to end them.
fn setup(load: &Load) -> Duration {
    let clients = whole(load.connections + load.idle);
    Duration::from_millis(200) + Duration::from_micros(100) * clients
}

/// What is told while it runs.
pub trait Progress {
    /// So much of the estimate is done.
    fn done(&self, part: Duration);
    /// This comes next.
    fn next(&self, what: &str);
    /// Something that a reader should know, though it goes on.
    fn note(&self, what: &str);
}

/// Carries the task out.
///
/// # Errors
///
/// What keeps a comparison from being made at all. A server that fails is
/// left out of the points at which it did, with what it did wrong.
pub fn run(task: &Task, progress: &dyn Progress) -> Result<Comparison> {
    ensure!(task.rounds > 0, "no rounds, nothing to compare");
    harness::raise_descriptor_limit();
    let setting = Setting { buffer: task.buffer, cores: Cores::choose()? };
    let machine = measure::this_machine();
    let method = Method {
        rounds: task.rounds,
        turn_seconds: task.turn.as_secs_f64(),
        buffer: task.buffer,
        pinning: setting.cores.to_string(),
        calls: match task.calls {
            true => measure::counting_by().to_string(),
            false => "System calls were not counted: nobody asked.".to_owned(),
        },
        quick: task.quick,
    };
    let (mut points, mut fits) = (Vec::new(), Vec::new());
    let mut closing = Closing(None);
    for scenario in &task.scenarios {
        let spots = task.points().filter(|it| it.0.name == scenario.name);
        let spots: Vec<&Spot> = spots.map(|it| it.1).collect();
        let found =
            compare(task, scenario, &spots, &setting, &mut closing, progress);
        fits.extend(fits_of(scenario, &found));
        points.extend(found);
    }
    Ok(Comparison { format: FORMAT, machine, method, points, fits })
}

/// Tracepoints take a second or two to be closed, and every call is slower
/// until then: time enough to start the servers of the next scenario.
struct Closing(Option<JoinHandle<()>>);

impl Closing {
    fn begin(&mut self, open: Ready) {
        self.0 = Some(thread::spawn(|| drop(open)));
    }

    fn wait(&mut self) {
        // It only drops.
        let _done = self.0.take().map(JoinHandle::join);
    }
}

/// One server at one point, over its rounds.
struct Entry {
    contender: Contender,
    /// One for each round, until it failed.
    turns: Vec<(Turn, Taken)>,
    failed: Option<String>,
}

/// All servers at all points of a scenario, interleaved.
fn compare(
    task: &Task,
    scenario: &'static Scenario,
    spots: &[&Spot],
    setting: &Setting,
    closing: &mut Closing,
    progress: &dyn Progress,
) -> Vec<Point> {
    let length = task.length(scenario);
    let span = Span::Time(length);
    let mut points: Vec<Point> =
        spots.iter().map(|spot| empty(task, scenario, spot, setting)).collect();
    // Which point, and who.
    let mut entries: Vec<(usize, Entry)> = Vec::new();
    let room = Room::here();
    for (at, spot) in spots.iter().enumerate() {
        for (model, why) in task.field(scenario, spot, room) {
            let mut absent = |why| {
                let model = model.name.to_owned();
                points[at].absent.push(Absent { model, why });
            };
            if let Some(why) = why {
                absent(why);
                continue;
            }
            progress.next(&format!("{}, {}", scenario.name, spot.name));
            match Contender::start(model, spot, setting) {
                Ok(contender) => {
                    let turns = Vec::with_capacity(task.rounds);
                    let entry = Entry { contender, turns, failed: None };
                    entries.push((at, entry));
                }
                Err(error) => {
                    progress.note(&format!("{}: {error:#}", spot.name));
                    absent(format!("{error:#}"));
                }
            }
            progress.done(setup(&spot.load));
        }
    }
    if scenario.with_itself {
        let of = |model: &Model| {
            task.models.iter().position(|it| it.name == model.name)
        };
        entries.sort_by_key(|(at, it)| (of(it.contender.model), *at));
    }
    closing.wait();
    for round in 0..=task.rounds {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        if round % 2 == 1 {
            // What drifts one way within a round drifts back in the next.
            order.reverse();
        }
        for at in order {
            let (point, entry) = &mut entries[at];
            let spot = spots[*point];
            if entry.failed.is_none() {
                progress.next(&format!(
                    "{}, {}, round {round} of {}: {}",
                    scenario.name,
                    spot.name,
                    task.rounds,
                    entry.contender.model.name
                ));
                if let Err(error) = entry.turn(span, round == 0) {
                    progress.note(&format!("{}: {error:#}", spot.name));
                    entry.failed = Some(format!("{error:#}"));
                }
            }
            progress.done(length);
        }
    }
    let open = task.calls.then(Counting::make_ready);
    for (at, mut entry) in entries {
        let (spot, point) = (spots[at], &mut points[at]);
        progress.next(&format!(
            "{}, {}, counting calls: {}",
            scenario.name, spot.name, entry.contender.model.name
        ));
        let count = task.calls.then_some(span);
        match entry.row(count, &spot.load, progress) {
            Ok(row) => point.rows.push(row),
            Err(error) => {
                progress.note(&format!("{}: {error:#}", spot.name));
                let why = format!("{error:#}");
                let model = entry.contender.model.name.to_owned();
                point.absent.push(Absent { model, why });
            }
        }
        if task.calls {
            progress.done(length);
        }
    }
    if let Some(open) = open {
        closing.begin(open);
    }
    for point in &mut points {
        compare_with_baseline(point);
    }
    compare_with_none_idle(&mut points);
    points
}

impl Entry {
    fn turn(&mut self, span: Span, warm_up: bool) -> Result<()> {
        let turn = self.contender.turn(span)?;
        match warm_up {
            true => self.contender.generator().forget()?,
            false => self.turns.push(turn),
        }
        Ok(())
    }

    /// What all its rounds come to; one more turn, of this span, is for
    /// counting calls.
    fn row(
        &mut self,
        count: Option<Span>,
        load: &Load,
        progress: &dyn Progress,
    ) -> Result<Row> {
        if let Some(failed) = self.failed.take() {
            anyhow::bail!(failed);
        }
        let whole = self.contender.generator().whole()?;
        let standing = self.contender.standing();
        let mut calls = None;
        if let Some(span) = count {
            // A server that fails here has failed; to count may fail.
            let (turn, counted) = self.contender.count_calls(span)?;
            match counted {
                Ok(counted) => calls = Some(calls_of(&turn, counted)),
                Err(error) => progress.note(&format!("{error:#}")),
            }
        }
        let rounds: Vec<Round> = self.turns.iter().map(round).collect();
        let of = |what: &dyn Fn(&(Turn, Taken)) -> f64| {
            Estimate::of(self.turns.iter().map(what))
        };
        let model = self.contender.model;
        let messages: u64 = self.turns.iter().map(|it| it.0.messages).sum();
        let taken: Taken = self.turns.iter().map(|it| it.1).sum();
        Ok(Row {
            model: model.name.to_owned(),
            peer: is_peer(model),
            messages_per_second: of(&|it| round(it).messages_per_second),
            bytes_per_second: of(&|it| it.0.bytes as f64 / it.0.seconds),
            cpu_ns_per_message: of(&|it| round(it).cpu_ns_per_message),
            user_share: taken.user_share(),
            bytes_per_cpu_second: {
                // What took no time that the kernel counts tells nothing.
                let all = self.turns.iter().all(|it| !it.1.cpu.is_zero());
                all.then(|| {
                    of(&|it| it.0.bytes as f64 / it.1.cpu.as_secs_f64())
                })
            },
            ratio: None,
            p50_ratio: None,
            p99_ratio: None,
            latency: whole.latency,
            // It is for the loads at which latency is the question.
            latency_curve: match load.rate.is_some() || load.some_are_loud() {
                true => whole.curve,
                false => Vec::new(),
            },
            connect: whole.connect,
            generator_ns_per_message: of(&|it| {
                round(it).generator_ns_per_message
            }),
            generator_core_share: of(&|it| it.0.own_core_share).median,
            switches: taken.switches.map(|(voluntary, involuntary)| {
                let each = |count: u64| count as f64 / messages.max(1) as f64;
                Switches {
                    voluntary: each(voluntary),
                    involuntary: each(involuntary),
                }
            }),
            calls,
            memory: standing.memory,
            memory_per_idle: None,
            against_none_idle: None,
            threads: standing.threads,
            processes: standing.processes,
            rounds,
        })
    }
}

fn round((turn, taken): &(Turn, Taken)) -> Round {
    let messages = turn.messages.max(1) as f64;
    Round {
        messages_per_second: turn.messages as f64 / turn.seconds,
        cpu_ns_per_message: taken.cpu.as_nanos() as f64 / messages,
        generator_ns_per_message: turn.own_cpu_ns_per_message(),
        p50: turn.latency.p50,
        p99: turn.latency.p99,
    }
}

fn calls_of(turn: &Turn, counted: Counted) -> Calls {
    let each = |count: u64| count as f64 / turn.messages.max(1) as f64;
    let name = |(name, count): (String, u64)| (name, each(count));
    let of_names = |names: &[&str]| {
        let counts = names.iter().filter_map(|name| counted.of(name));
        match counts.sum::<u64>() {
            0 => None,
            count => Some(count as f64),
        }
    };
    let enters = of_names(&["io_uring_enter"]);
    Calls {
        total: each(counted.total),
        messages_per_wait: of_names(WAITS).map(|it| turn.messages as f64 / it),
        ring: counted.ring.map(|(submitted, completed)| Ring {
            submitted: each(submitted),
            completed: each(completed),
            submitted_per_enter: enters.map(|it| submitted as f64 / it),
            completed_per_enter: enters.map(|it| completed as f64 / it),
        }),
        by_name: counted.by_name.into_iter().map(name).collect(),
    }
}

/// Calls that wait for all clients at once.
const WAITS: &[&str] = &[
    "epoll_pwait",
    "epoll_wait",
    "io_uring_enter",
    "poll",
    "ppoll",
    "pselect6",
    "select",
];

fn empty(
    task: &Task,
    scenario: &Scenario,
    spot: &Spot,
    setting: &Setting,
) -> Point {
    let usual = || match scenario.field {
        Some(field) => field.baseline,
        None => usual_baseline(spot),
    };
    let cores = spot.servers.cores;
    let cores = cores.and_then(|it| setting.cores.with_server_on(it));
    let baseline = task.baseline.map_or_else(usual, |model| model.name);
    Point {
        scenario: scenario.name.to_owned(),
        name: spot.name.to_owned(),
        load: spot.load,
        args: spot.servers.args.iter().map(|it| (*it).to_owned()).collect(),
        cores: spot.servers.cores,
        pinning: cores.map(|it| it.to_string()),
        baseline: Some(baseline.to_owned()),
        rows: Vec::new(),
        absent: Vec::new(),
    }
}

/// CPU time for each message, round by round, as a ratio to that of `base`.
fn ratio(rounds: &[Round], base: &[f64]) -> Estimate {
    let cost = rounds.iter().map(cost);
    Estimate::of(cost.zip(base).map(|(own, base)| own / base))
}

fn costs(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(cost).collect()
}

fn cost(round: &Round) -> f64 {
    round.cpu_ns_per_message
}

/// The same of something that may have been nothing in a round: then there is
/// no ratio.
fn ratio_of(
    rounds: &[Round],
    base: &[Round],
    what: fn(&Round) -> f64,
) -> Option<Estimate> {
    let ratios = rounds.iter().zip(base).map(|(a, b)| what(a) / what(b));
    let ratios: Vec<f64> = ratios.collect();
    let all = ratios.iter().all(|it| it.is_finite());
    (all && !ratios.is_empty()).then(|| Estimate::of(ratios))
}

/// What ratios are against may have been left out, or have failed.
fn compare_with_baseline(point: &mut Point) {
    let is_baseline = |row: &&Row| Some(&row.model) == point.baseline.as_ref();
    let Some(baseline) = point.rows.iter().find(is_baseline) else {
        point.baseline = None;
        return;
    };
    let base = baseline.rounds.clone();
    for row in &mut point.rows {
        row.ratio = Some(ratio(&row.rounds, &costs(&base)));
        row.p50_ratio = ratio_of(&row.rounds, &base, |it| it.p50 as f64);
        row.p99_ratio = ratio_of(&row.rounds, &base, |it| it.p99 as f64);
    }
}

/// What idle connections added to each server's memory and to its cost.
fn compare_with_none_idle(points: &mut [Point]) {
    let without: BTreeMap<String, (u64, Vec<f64>)> = points
        .iter()
        .filter(|point| point.load.idle == 0)
        .flat_map(|point| &point.rows)
        .map(|row| (row.model.clone(), (row.memory, costs(&row.rounds))))
        .collect();
    for point in points.iter_mut().filter(|point| point.load.idle > 0) {
        let idle = point.load.idle as f64;
        for row in &mut point.rows {
            if let Some((memory, base)) = without.get(&row.model) {
                let more = row.memory as f64 - *memory as f64;
                row.memory_per_idle = Some(more / idle);
                row.against_none_idle = Some(ratio(&row.rounds, base));
            }
        }
    }
}

/// Where only the number of idle connections changes, and each message is a
/// wait of its own, a line tells what a wait costs by the descriptor.
fn fits_of(scenario: &Scenario, points: &[Point]) -> Vec<Fit> {
    if scenario.name != "scan" {
        return Vec::new();
    }
    let mut of_model: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for point in points {
        let descriptors = point.load.connections + point.load.idle;
        for row in &point.rows {
            let points = of_model.entry(&row.model).or_default();
            points.push((descriptors, costs(&row.rounds)));
        }
    }
    let fit = |(model, points): (&&str, &Vec<(usize, Vec<f64>)>)| {
        stats::fit(scenario.name, model, points)
    };
    let mut fits: Vec<Fit> = of_model.iter().filter_map(fit).collect();
    let order: Vec<&str> = crate::models::names().collect();
    fits.sort_by_key(|fit| order.iter().position(|name| *name == fit.model));
    fits
}

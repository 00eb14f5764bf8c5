//! Plays the scene with a server twice: once left alone, for what it costs,
//! and once watched, for its calls.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench::harness::{PATIENCE, Server, Start, Target};
use bench::models::Model;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;

use super::{TALKER, the_scene};
use crate::clock::now;
use crate::compare::answers::Answers;
use crate::player::play;
use crate::record::RecordFile;
use crate::record::calls::{self, Calls};

/// One server in the scene.
pub struct Row {
    pub model: &'static Model,
    /// Left alone.
    pub cost: Cost,
    /// Watched.
    pub calls: Calls,
}

/// What a server that nobody watches costs.
pub struct Cost {
    pub answers: Answers,
    pub usage: Usage,
    /// Before the first client came.
    pub at_rest: Crowd,
    /// While all clients were there.
    pub crowd: Crowd,
    /// The share of a core it took while nobody spoke.
    pub quiet_share: f64,
    /// The calls that it counted itself as wasted, if it does.
    pub said_wasted: Option<u64>,
}

/// How many there are.
#[derive(Clone, Copy)]
pub struct Crowd {
    pub threads: usize,
    pub processes: usize,
}

/// What a server with its threads and children has used so far.
#[derive(Clone, Copy)]
pub struct Usage {
    pub cpu: Duration,
    pub voluntary: u64,
    pub involuntary: u64,
}

/// Time to settle: to be asleep after the start, to have closed what has left.
const SETTLES: Duration = Duration::from_millis(20);

/// When all clients are there and nobody speaks for 100 ms.
const QUIET: Duration = Duration::from_millis(200);
/// How long of it is looked at.
const LOOKS: Duration = Duration::from_millis(75);

/// The two runs of one row; `step` is called before each.
pub fn measure(
    model: &'static Model,
    mut step: impl FnMut(&str),
) -> Result<Row> {
    step("left alone");
    let cost = left_alone(model)?;
    step("watched");
    let calls = watched(model).context("watched")?;
    Ok(Row { model, cost, calls })
}

fn left_alone(model: &'static Model) -> Result<Cost> {
    let buried = Usage::of_the_buried()?;
    let start = Start::with_args(&["--watch", "off"]);
    let mut server = Server::start(&Target::Model(model), &start)?;
    thread::sleep(SETTLES);
    let at_rest = Crowd::of(&server);
    let started = Usage::of(&server);
    let mut quiet = (at_rest, 0.0);
    let played = play(
        &the_scene(),
        &server,
        (QUIET, || {
            let crowd = Crowd::of(&server);
            let (begin, cpu) = (Instant::now(), server.cpu());
            thread::sleep(LOOKS);
            let cpu = server.cpu().saturating_sub(cpu);
            quiet = (crowd, cpu.as_secs_f64() / begin.elapsed().as_secs_f64());
        }),
    )?;
    // A child that is not yet buried by its parent would take its figures
    // with it.
    let deadline = Instant::now() + PATIENCE;
    while server.tree().len() > at_rest.processes {
        ensure!(Instant::now() < deadline, "its children do not end");
        thread::sleep(Duration::from_millis(1));
    }
    end(&mut server)?;
    let said = server.stderr();
    drop(server);
    Ok(Cost {
        answers: Answers::of(&played)?,
        // Exact to the end of the last thread and child, which /proc forgets.
        usage: Usage::of_the_buried()?.since(buried).since(started),
        at_rest,
        crowd: quiet.0,
        quiet_share: quiet.1,
        said_wasted: said_wasted(&said),
    })
}

fn watched(model: &'static Model) -> Result<Calls> {
    let file = RecordFile::new()?;
    let mut start =
        Start { args: file.args("json").to_vec(), ..Start::default() };
    if !model.limits.burns_core {
        // How long a call slept stands only in a line of its own. Calls that
        // never sleep are too many for that, and need not be asked.
        start.args.push("--watch-every".to_owned());
    }
    let mut server = Server::start(&Target::Model(model), &start)?;
    thread::sleep(SETTLES);
    let begin = now();
    play(&the_scene(), &server, (Duration::ZERO, || ()))?;
    thread::sleep(SETTLES);
    let scene = begin..=now();
    end(&mut server)?;
    drop(server);
    calls::read(&file.text()?, &scene, TALKER)
}

/// Tells the server to stop, which must succeed.
fn end(server: &mut Server) -> Result<()> {
    server.signal(Signal::SIGTERM)?;
    let status = server.wait_exit(PATIENCE).context("after SIGTERM")?;
    let said = server.stderr();
    ensure!(status.success(), "it ended with {status}: {}", said.trim_end());
    Ok(())
}

/// The number in `…, 123 calls wasted`.
fn said_wasted(said: &str) -> Option<u64> {
    let (before, _) = said.split_once(" calls wasted")?;
    before.rsplit(' ').next()?.parse().ok()
}

impl Crowd {
    fn of(server: &Server) -> Crowd {
        let seen = server.observe();
        Crowd { threads: seen.threads, processes: seen.processes }
    }
}

impl Usage {
    /// Of a server that runs, all its threads together.
    fn of(server: &Server) -> Usage {
        let (mut voluntary, mut involuntary) = (0, 0);
        for pid in server.tree() {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                let status = fs::read_to_string(task.path().join("status"));
                let status = status.unwrap_or_default();
                voluntary += number(&status, "voluntary_ctxt_switches:");
                involuntary += number(&status, "nonvoluntary_ctxt_switches:");
            }
        }
        Usage { cpu: server.cpu(), voluntary, involuntary }
    }

    /// Of every server that has ended, with the children that it waited for.
    fn of_the_buried() -> Result<Usage> {
        let usage =
            getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
        let micros = |time: nix::sys::time::TimeVal| {
            Duration::from_secs(time.tv_sec().unsigned_abs())
                + Duration::from_micros(time.tv_usec().unsigned_abs())
        };
        Ok(Usage {
            cpu: micros(usage.user_time()) + micros(usage.system_time()),
            voluntary: usage.voluntary_context_switches().unsigned_abs(),
            involuntary: usage.involuntary_context_switches().unsigned_abs(),
        })
    }

    fn since(self, before: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
        }
    }
}

/// The number behind the line's name.
fn number(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().parse().ok())
        .unwrap_or(0)
}

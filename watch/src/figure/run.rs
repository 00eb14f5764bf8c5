//! Plays a scene with a server whose calls are recorded, and asks the kernel
//! meanwhile how long each of its threads was on a CPU.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use bench::harness::{Server, Start, Target};
use bench::models::Model;

use crate::clients::Deed;
use crate::clock::now;
use crate::player::play;
use crate::record::{self, Entry, Line, RecordFile};
use crate::scene::Scene;

/// What a run left behind. Times are nanoseconds of CLOCK_MONOTONIC.
pub struct Run {
    /// The row of the table.
    pub model: &'static Model,
    /// When the scene began.
    pub begin: u64,
    /// When all was over.
    pub end: u64,
    /// The clients' names, by the number in their deeds.
    pub names: Vec<String>,
    /// All that they did.
    pub deeds: Vec<Deed>,
    /// The server as it started.
    pub start: record::Start,
    /// All that it did, each thread's calls in their order.
    pub lines: Vec<Line>,
    /// What the kernel says of its threads, by process and thread.
    pub clocks: HashMap<(i32, i32), Clock>,
}

/// A thread's time on a CPU, by the kernel's count, when it was first and last
/// looked at.
#[derive(Clone, Copy)]
pub struct Clock {
    /// When the scene began, or soon after the thread did.
    pub first: Reading,
    /// When all was over, or shortly before the thread ended.
    pub last: Reading,
}

/// One look.
#[derive(Clone, Copy)]
pub struct Reading {
    /// When, in nanoseconds of CLOCK_MONOTONIC.
    pub at: u64,
    /// How long the thread had been on a CPU until then.
    pub cpu: u64,
}

/// After the start until the server sleeps, and after the scene until it has
/// seen the last client go.
const SETTLES: Duration = Duration::from_millis(15);

/// Threads that end cannot be asked afterwards, so all are asked as often as
/// this, but for at most a twentieth of the time.
const LOOKS: Duration = Duration::from_millis(5);

/// So many clients make a line for each call too much, of a server that calls
/// again and again whatever they do.
const CROWD: usize = 10;

/// Plays `scene` with a server of this model.
pub fn record(model: &'static Model, scene: &Scene) -> Result<Run> {
    let file = RecordFile::new()?;
    let mut start =
        Start { args: file.args("json").to_vec(), ..Start::default() };
    let restless = model.limits.idle_wakes && scene.crowd() > CROWD;
    if !model.limits.burns_core && !restless {
        start.args.push("--watch-every".to_owned());
    }
    let server = Server::start(&Target::Model(model), &start)?;
    thread::sleep(SETTLES);
    let mut clocks = HashMap::new();
    look(&server, &mut clocks);
    let (over, ends) = channel::<()>();
    let played = thread::scope(|scope| {
        let (server, clocks) = (&server, &mut clocks);
        scope.spawn(move || look_until(server, clocks, &ends));
        let played = play(scene, server, (Duration::ZERO, || ()));
        thread::sleep(SETTLES);
        drop(over);
        played
    })?;
    look(&server, &mut clocks);
    let end = now();
    server.stop()?;
    let (start, lines) = read(&file.text()?)?;
    let (begin, names, deeds) = (played.begin, played.names, played.deeds);
    Ok(Run { model, begin, end, names, deeds, start, lines, clocks })
}

/// The record, which must be whole.
fn read(text: &str) -> Result<(record::Start, Vec<Line>)> {
    let (mut start, mut lines, mut whole) = (None, Vec::new(), false);
    for line in text.lines() {
        match Entry::read(line)? {
            Entry::Start(entry) => start = Some(entry),
            Entry::Calls(line) => lines.push(line),
            Entry::Note(note) => bail!("the record is not complete: {note}"),
            Entry::Summary(_) => whole = true,
            Entry::Asleep(_) => {}
        }
    }
    ensure!(whole, "the record has no summary: it is cut short");
    let start = start.ok_or_else(|| anyhow!("the record has no beginning"))?;
    Ok((start, lines))
}

/// Looks at all threads until the other end of `over` is gone.
fn look_until(
    server: &Server,
    clocks: &mut HashMap<(i32, i32), Clock>,
    over: &Receiver<()>,
) {
    let mut pause = LOOKS;
    while over.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let begin = Instant::now();
        look(server, clocks);
        pause = LOOKS.max(20 * begin.elapsed());
    }
}

/// Looks at all threads of the server and its children once.
fn look(server: &Server, clocks: &mut HashMap<(i32, i32), Clock>) {
    for pid in server.tree() {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        let names = tasks.into_iter().flatten().flatten();
        let names =
            names.filter_map(|task| task.file_name().into_string().ok());
        for tid in names.filter_map(|name| name.parse().ok()) {
            if let Some(cpu) = on_cpu(pid, tid) {
                let seen = Reading { at: now(), cpu };
                let new = Clock { first: seen, last: seen };
                clocks.entry((pid, tid)).or_insert(new).last = seen;
            }
        }
    }
}

/// Nanoseconds; `None` if the thread has ended.
fn on_cpu(pid: i32, tid: i32) -> Option<u64> {
    let mut text = String::new();
    let mut file = File::open(format!("/proc/{pid}/task/{tid}/schedstat"));
    file.as_mut().ok()?.read_to_string(&mut text).ok()?;
    text.split(' ').next()?.parse().ok()
}

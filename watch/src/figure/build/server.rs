//! The lanes of the server's threads and processes.

use super::cast::Cast;
use super::items::Thread;
use super::pen::Pen;
use super::tell::Streams;
use super::{Sheet, workers};
use crate::figure::data::{Lane, Mark, What, Who};
use crate::figure::run::Run;
use crate::scene::{self, Action, Scene};

/// What the thread is called that was there first.
const MAIN: &str = "main";

/// One for each thread and process, in the order of appearing.
pub fn lanes(
    run: &Run,
    scene: &Scene,
    threads: &[Thread],
    cast: &Cast,
    sheet: &mut Sheet,
) -> Vec<Lane> {
    let mut streams = Streams::default();
    let blocks = takes_block(threads);
    let mut names = Names { main: run.start.pid, threads: 1, children: 0 };
    let main = run.start.pid;
    let mut lanes = Vec::new();
    for thread in threads.iter().filter(|it| !workers::is_notice(it, main)) {
        let (who, name) = names.next(thread);
        let mut pen = Pen {
            thread,
            cast,
            sheet: &mut *sheet,
            streams: &mut streams,
            blocks,
            bars: Vec::new(),
            marks: Vec::new(),
            last: None,
        };
        pen.draw();
        let (bars, mut marks) = (pen.bars, pen.marks);
        let (Some(first), Some(last)) = (bars.first(), bars.last()) else {
            continue;
        };
        let (from, to) = (first.from, last.to);
        if thread.tid == main {
            marks.extend(stops(scene, sheet));
            marks.sort_by_key(|mark| mark.at);
        }
        let off_cpu = off_cpu(run, thread, sheet, from);
        lanes.push(Lane { who, name, from, to, bars, marks, off_cpu });
    }
    // It may be one of its threads that calls something first.
    lanes.sort_by_key(|lane| lane.name != MAIN);
    lanes
}

/// As in the renderer: a copy that cannot sleep, or a take that met EAGAIN,
/// shows that the sockets do not block.
fn takes_block(threads: &[Thread]) -> bool {
    let mut calls = threads.iter().flat_map(Thread::calls);
    !calls.any(|made| {
        let call = &made.call;
        call.verb == "copy" || (call.verb == "take" && call.wasted())
    })
}

/// What threads and processes are called.
struct Names {
    main: i32,
    threads: usize,
    children: usize,
}

impl Names {
    fn next(&mut self, thread: &Thread) -> (Who, String) {
        if thread.tid == self.main {
            (Who::Thread, MAIN.to_owned())
        } else if thread.pid == self.main {
            self.threads += 1;
            (Who::Thread, format!("thread {}", self.threads))
        } else {
            self.children += 1;
            (Who::Process, format!("child {}", self.children))
        }
    }
}

/// When the scene stops the server, and lets it go on.
fn stops(scene: &Scene, sheet: &Sheet) -> Vec<Mark> {
    let steps = scene.steps.iter();
    let steps = steps.filter(|step| step.who == scene::Who::Server);
    let marks = steps.map(|step| {
        let at = sheet.begin + step.at.as_nanos() as u64;
        let (what, text) = match step.action {
            Action::Stop => (What::Stop, "SIGSTOP: the server is stopped"),
            _ => (What::Continue, "SIGCONT: the server goes on"),
        };
        let (at, text) = (sheet.time(at), text.to_owned());
        Mark { what, at, text, call: None }
    });
    marks.collect()
}

/// How long the kernel says that it was off the CPU. Of one that ended it was
/// last asked a little before that; for the rest of its life its own record
/// counts.
fn off_cpu(
    run: &Run,
    thread: &Thread,
    sheet: &Sheet,
    begins: u64,
) -> Option<u64> {
    let clock = run.clocks.get(&(thread.pid, thread.tid))?;
    let last = thread.items.last()?;
    let (mut from, mut to) = (clock.first, clock.last);
    if begins > 0 {
        (from.at, from.cpu) = (sheet.begin + begins, 0);
    }
    if last.t1() < sheet.end && last.t1() > to.at {
        (to.at, to.cpu) = (last.t1(), last.cpu().max(to.cpu));
    }
    let life = to.at.checked_sub(from.at)?;
    Some(life.saturating_sub(to.cpu.saturating_sub(from.cpu)))
}

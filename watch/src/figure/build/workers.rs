//! The lanes of those who work for the server: glibc's threads, which do its
//! operations on files (aio(7)).

use std::collections::HashMap;

use super::Sheet;
use super::cast::Cast;
use super::items::{Made, Thread};
use super::queues::in_layers;
use super::tell::{Streams, told};
use crate::figure::data::{Bar, Lane, Phase, Who};
use crate::figure::run::Run;

/// Whether a thread is there for no more than to say that an operation is
/// over: glibc starts one for each (SIGEV_THREAD).
pub fn is_notice(thread: &Thread, main: i32) -> bool {
    let mut calls = thread.calls().map(|made| &made.call);
    thread.pid == main
        && thread.tid != main
        && calls.all(|call| call.verb == "copy" && call.name == "write")
}

/// Those who do operations, and then those who say that they are over.
pub fn lanes(
    run: &Run,
    threads: &[Thread],
    cast: &Cast,
    sheet: &mut Sheet,
) -> Vec<Lane> {
    let mut lanes = operations(threads, cast, sheet);
    let main = run.start.pid;
    let notices = threads.iter().filter(|it| is_notice(it, main));
    let mut calls: Vec<&Made> = notices.flat_map(Thread::calls).collect();
    calls.sort_by_key(|made| made.t0);
    let mut bars = Vec::new();
    for made in calls {
        if sheet.shows(made.t0, made.t1) {
            let told = told(made, None, &[], cast, sheet);
            let call = Some(sheet.tell(told));
            sheet.draw(&mut bars, Phase::Copying, (made.t0, made.t1), call);
        }
    }
    lanes.extend(lane("glibc notices".to_owned(), bars));
    lanes
}

/// From each submit to the complete of the same region, in the lane of who may
/// have done it.
fn operations(threads: &[Thread], cast: &Cast, sheet: &mut Sheet) -> Vec<Lane> {
    let mut begun = HashMap::new();
    let mut streams = Streams::default();
    // By the number of the thread, in the order of appearing.
    let mut workers: Vec<(i32, Vec<Bar>)> = Vec::new();
    for made in threads.iter().flat_map(Thread::calls) {
        let call = &made.call;
        if call.is_queued() {
            continue;
        }
        let region = (call.name.clone(), call.offset, call.fd);
        if call.verb == "submit" {
            begun.insert(region, made.t0);
        } else if call.verb == "complete" {
            let time = (begun.remove(&region).unwrap_or(made.t0), made.t0);
            let bytes = streams.moved(made);
            if !sheet.shows(time.0, time.1) || call.by.is_empty() {
                continue;
            }
            let mut told = told(made, bytes, &[], cast, sheet);
            if bytes.is_some() {
                told.from = sheet.time(time.0);
            }
            let place = Some(sheet.tell(told));
            for tid in &call.by {
                let known = workers.iter().position(|(it, _)| it == tid);
                let at = known.unwrap_or_else(|| {
                    workers.push((*tid, Vec::new()));
                    workers.len() - 1
                });
                let bars = &mut workers[at].1;
                sheet.draw(bars, Phase::InFlight, time, place);
            }
        }
    }
    let lanes = (1..).zip(workers).filter_map(|(number, (_, bars))| {
        lane(format!("glibc thread {number}"), bars)
    });
    lanes.collect()
}

/// None without anything in it. Who may have done an operation may also have
/// done another meanwhile.
fn lane(name: String, bars: Vec<Bar>) -> Option<Lane> {
    let bars = in_layers(bars);
    Some(Lane {
        who: Who::HelperThread,
        name,
        from: bars.first()?.from,
        to: bars.last()?.to,
        bars,
        marks: Vec::new(),
        off_cpu: None,
    })
}

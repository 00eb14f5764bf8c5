use serde::Serialize;

use super::assembly::Sleep;
use super::call::{Call, Carried, Peer, What};
use super::form::{Form, Pace, Rounds, Start};
use super::totals::{Row, Totals};
use crate::Fd;
use crate::event::Verb;

/// What a watched server did, as JSON: one object a line. This is the
/// reference of the format. Times are nanoseconds of CLOCK_MONOTONIC; a field
/// that does not apply is absent, never null.
///
/// The first object says who is watched:
/// ```json
/// {"start":"epoll_lt","pid":7,"listener":4,"stop":6,"t0_ns":10}
/// ```
/// `stop` is the descriptor by which the server learns that it must stop, if
/// it has one.
///
/// A call:
/// ```json
/// {"t0_ns":12,"t1_ns":15,"pid":7,"tid":7,"verb":"copy","call":"recv",
///  "fd":8,"peer":"client 1","ret":64,"cpu_ns":9}
/// ```
/// - `t0_ns`, `t1_ns`: before the call, and after it returned.
/// - `pid`, `tid`: process and thread; a forked child's are its own.
/// - `verb`: `wait`, `copy`, `wait+copy`, `take`, `ask`, `submit`, `complete`
///   or `signal`.
/// - `call`: the function that was called.
/// - `fd`: the descriptor that it is about; absent if there is none.
/// - `peer`: whom `fd` stands for: `listener`, `stop`, `client N` in the order
///   of accepting, or what the server itself calls it; absent if nobody said.
/// - `ret` or `errno`: what was returned, or the error's name: `"EAGAIN"`.
/// - `taken`: of an accept, whom it brought: `"client 1"`; `ret` is the new
///   descriptor. So it is with `Condvar::wait`, in which a pool's thread sleeps
///   until there is a client in the queue; -1 says that there will be none.
/// - `asked`: of a wait, how many descriptors it was asked about; of
///   `io_uring_enter`, how many submissions there were to hand over.
/// - `carried`: of `io_uring_enter`, the operations that went into the kernel
///   with this call, in their order: `call`, `fd` and `peer` of each. It is
///   absent where a thread of the kernel's takes them when it likes.
/// - `ready`, `ready_count`, `scanned`: of a wait for descriptors, the first
///   64 that were ready, how many there were, and how many entries the server
///   looked through to find them.
/// - `cpu_ns`: for how long this thread had been on a CPU since it began, read
///   right after `t1_ns`. What has passed between the ends of two of a
///   thread's calls by the clock, but not by this, is time that it was off the
///   CPU: asleep, or set aside for others. The record's own work counts.
/// - `offset`, `length`: of an operation that is submitted or complete, the
///   region of the file; `fd` is the client for whom it is done. `by`: of one
///   that is complete, the threads of this process that have read or written
///   anything since it was submitted, or ended; one of them did it.
///
/// `offset` is absent if it is about a socket, which has no places.
///
/// An operation that is `queued` goes by queues in memory. No call is made for
/// it, and it is in no count of calls: it stands here at the time at which
/// it was put into the one queue, or taken out of the other. `length` is how
/// many bytes it is to move, and `taken` whom an accept brought:
/// ```json
/// {"t0_ns":12,"t1_ns":12,"pid":7,"tid":7,"verb":"complete","call":"recv",
///  "fd":8,"peer":"client 1","ret":64,"length":16384,"queued":true,
///  "in_flight_ns":5,"cpu_ns":9}
/// ```
/// - `in_flight_ns`: the time since it was submitted.
/// - `at_once`: true if it never waits and says nothing where it succeeds, so
///   that it was over within the call that handed it over; `in_flight_ns` is
///   the time until that call began, and `t1_ns` when the server came to it.
/// - `goes_on`: true if the operation is still under way, and more will come of
///   it.
/// - `by`: the thread of the kernel's that took it, which did it or gave it to
///   another of the kernel's. So `io_uring_setup` names the one that the new
///   ring has (`iou-sqp-…` in /proc/PID/task). Where there is none, the thread
///   that submitted did it itself, within a call.
/// - `called`: true if calls of this thread did it, which stand before, and in
///   which its bytes are counted.
///
/// A signal is no call, but stands here at its time; `call` is its name and
/// `fd` its `si_fd`, `code` and `band` are `si_code` and what `si_band` says:
/// ```json
/// {"t0_ns":12,"t1_ns":12,"pid":7,"tid":7,"verb":"signal","call":"SIGRTMIN",
///  "fd":8,"peer":"client 1","code":"POLL_IN","band":["POLLIN","POLLRDNORM"],
///  "cpu_ns":9}
/// ```
///
/// One thread's calls stand in their order. A thread's calls that repeat are
/// folded, unless `--watch-every` is given: a round is the shortest sequence
/// that repeats, in everything but its times. It stands twice in full; then
/// ```json
/// {"t0_ns":20,"t1_ns":90,"pid":7,"tid":7,"repeat":2,"calls":3,"wasted":0,
///  "took_ns":60,"cpu0_ns":8,"cpu_ns":70,
///  "round":[{"verb":"wait","call":"epoll_wait", …}, …]}
/// ```
/// stands for `repeat` rounds more, each of `calls` calls, which are those of
/// `round`: objects as above without times, process and thread. `wasted` is
/// how many of the `repeat` times `calls` calls were made for nothing,
/// `took_ns` the time within all of them. `cpu_ns` is that of the last of
/// these calls, `cpu0_ns` that of the thread's call before the first of them,
/// so that the difference is what the whole stretch took on a CPU, from the
/// return of that call on. Whoever writes out the rounds in place of such an
/// object has every call that was made.
///
/// With `--watch-live` a long round is told of in several such objects, one
/// each 100 ms, and a call that has not returned for 20 ms says so:
/// ```json
/// {"asleep":{"t0_ns":12,"pid":7,"tid":7,"verb":"wait","call":"epoll_wait"}}
/// ```
/// All earlier calls of this thread stand before it. The fields are those of a
/// call, `fd` and `peer` too where there are any. The call's own object
/// follows when it has returned; but for signals it is the next of this thread,
/// and its `t0_ns` is a little later: to tell of the beginning took time. Where
/// more threads want to run than there are CPUs, a call that never sleeps may
/// stand here too: its thread was set aside.
///
/// A remark of the recorder, which comes at most once:
/// ```json
/// {"note":"recording stopped after 64 MiB (--watch-limit); the server goes
///  on"}
/// ```
///
/// The last object counts every call, those after the limit too; what goes by
/// queues has rows of its own, and only its bytes are in the total:
/// ```json
/// {"summary":{"calls":[{"verb":"copy","call":"recv","calls":4,"wasted":1,
///   "bytes":64,"slept_ns":0,"copying_ns":900,"other_ns":0}],
///   "total":{"calls":4,"wasted":1,"bytes":64,"slept_ns":0,
///   "copying_ns":900,"other_ns":0}}}
/// ```
/// `bytes` were moved by the call, so an echoed byte counts at its recv and at
/// its send. `slept_ns` is the time within waits and within blocking calls,
/// which sleep and then work; `copying_ns` within calls that copy and cannot
/// sleep; `other_ns` within all others.
pub(crate) struct Json {
    /// Somebody looks on (`--watch-live`).
    pub live: bool,
}

#[derive(Serialize)]
struct StartObject<'a> {
    start: &'a str,
    pid: i32,
    #[serde(skip_serializing_if = "is_none")]
    listener: Fd,
    #[serde(skip_serializing_if = "is_none")]
    stop: Fd,
    t0_ns: u64,
}

#[derive(Serialize)]
struct CallObject<'a> {
    t0_ns: u64,
    t1_ns: u64,
    pid: i32,
    tid: i32,
    #[serde(flatten)]
    what: WhatObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight_ns: Option<u64>,
    cpu_ns: u64,
}

#[derive(Serialize)]
struct WhatObject<'a> {
    verb: &'static str,
    call: &'a str,
    #[serde(skip_serializing_if = "is_none")]
    fd: Fd,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ret: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    taken: Option<Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<Vec<Fd>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scanned: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    queued: bool,
    #[serde(skip_serializing_if = "is_false")]
    goes_on: bool,
    #[serde(skip_serializing_if = "is_false")]
    called: bool,
    #[serde(skip_serializing_if = "is_false")]
    at_once: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    carried: Option<Vec<CarriedObject<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a [i32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    band: Option<Vec<&'static str>>,
}

#[derive(Serialize)]
struct CarriedObject<'a> {
    call: &'a str,
    #[serde(skip_serializing_if = "is_none")]
    fd: Fd,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
}

#[derive(Serialize)]
struct RoundsObject<'a> {
    t0_ns: u64,
    t1_ns: u64,
    pid: i32,
    tid: i32,
    repeat: u64,
    calls: usize,
    wasted: u64,
    took_ns: u64,
    cpu0_ns: u64,
    cpu_ns: u64,
    round: Vec<WhatObject<'a>>,
}

#[derive(Serialize)]
struct AsleepObject<'a> {
    asleep: SleepObject<'a>,
}

#[derive(Serialize)]
struct SleepObject<'a> {
    t0_ns: u64,
    pid: i32,
    tid: i32,
    verb: &'static str,
    call: &'a str,
    #[serde(skip_serializing_if = "is_none")]
    fd: Fd,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
}

#[derive(Serialize)]
struct NoteObject<'a> {
    note: &'a str,
}

#[derive(Serialize)]
struct SummaryObject<'a> {
    summary: Summary<'a>,
}

#[derive(Serialize)]
struct Summary<'a> {
    calls: Vec<RowObject<'a>>,
    total: Row,
}

#[derive(Serialize)]
struct RowObject<'a> {
    verb: &'static str,
    call: &'a str,
    #[serde(flatten)]
    row: Row,
}

impl Form for Json {
    fn start(&mut self, start: &Start, out: &mut Vec<u8>) {
        let object = StartObject {
            start: &start.name,
            pid: start.pid,
            listener: start.listener,
            stop: start.stop,
            t0_ns: start.at,
        };
        line(&object, out);
    }

    fn call(&mut self, call: &Call, out: &mut Vec<u8>) {
        let object = CallObject {
            t0_ns: call.t0,
            t1_ns: call.t1,
            pid: call.pid,
            tid: call.tid,
            what: WhatObject::of(&call.what),
            in_flight_ns: call.in_flight,
            cpu_ns: call.cpu,
        };
        line(&object, out);
    }

    fn rounds(&mut self, rounds: &Rounds, out: &mut Vec<u8>) {
        let Some(first) = rounds.round.first() else {
            return;
        };
        let round = rounds.round.iter().map(|call| WhatObject::of(&call.what));
        let object = RoundsObject {
            t0_ns: rounds.t0,
            t1_ns: rounds.t1,
            pid: first.pid,
            tid: first.tid,
            repeat: rounds.count,
            calls: rounds.round.len(),
            wasted: rounds.wasted(),
            took_ns: rounds.took,
            cpu0_ns: rounds.cpu0,
            cpu_ns: rounds.cpu,
            round: round.collect(),
        };
        line(&object, out);
    }

    fn shows_sleep(&self) -> bool {
        self.live
    }

    fn pace(&self) -> Pace {
        match self.live {
            true => Pace::FOR_A_PROGRAM,
            false => Pace::FOR_A_PERSON,
        }
    }

    fn asleep(&mut self, sleep: &Sleep, out: &mut Vec<u8>) {
        let asleep = SleepObject {
            t0_ns: sleep.since,
            pid: sleep.pid,
            tid: sleep.tid,
            verb: sleep.verb.name(),
            call: &sleep.name,
            fd: sleep.fd,
            peer: sleep.peer,
        };
        line(&AsleepObject { asleep }, out);
    }

    fn note(&mut self, note: &str, out: &mut Vec<u8>) {
        line(&NoteObject { note }, out);
    }

    fn end(&mut self, totals: &Totals, out: &mut Vec<u8>) {
        let rows = totals.rows();
        let calls = rows.iter().map(|(verb, call, row)| RowObject {
            verb: verb.name(),
            call,
            row: *row,
        });
        let summary = Summary { calls: calls.collect(), total: totals.total() };
        line(&SummaryObject { summary }, out);
    }
}

impl<'a> WhatObject<'a> {
    fn of(what: &'a What) -> Self {
        let found = what.found.as_ref();
        let wait = what.verb == Verb::Wait;
        let operation = what.operation.as_ref();
        let queued = what.is_queued();
        let begins = queued && what.verb == Verb::Submit;
        let returned = what.errno().is_none() && what.signal.is_none();
        let done = what.verb == Verb::Complete && !queued;
        WhatObject {
            verb: what.verb.name(),
            call: what.name(),
            fd: what.fd,
            peer: what.peer,
            ret: (returned && !begins).then_some(what.ret),
            errno: what.errno_name(),
            taken: what.taken,
            asked: wait.then_some(what.asked),
            ready: found
                .map(|found| found.ready.iter().map(|(fd, _)| *fd).collect()),
            ready_count: found.map(|found| found.count),
            scanned: found.map(|found| found.scanned),
            offset: operation.and_then(|it| it.offset),
            length: operation.map(|it| it.length),
            queued,
            goes_on: operation.is_some_and(|it| it.goes_on),
            called: operation.is_some_and(|it| it.called),
            at_once: operation.is_some_and(|it| it.at_once),
            carried: what
                .carried
                .as_ref()
                .map(|all| all.iter().map(CarriedObject::of).collect()),
            by: (done || !what.by.is_empty()).then_some(&*what.by),
            code: what.signal.map(|it| it.code_name()),
            band: what.signal.map(|it| it.band_names()),
        }
    }
}

impl<'a> CarriedObject<'a> {
    fn of(carried: &'a Carried) -> Self {
        let (call, fd, peer) = (carried.name(), carried.fd, carried.peer);
        CarriedObject { call, fd, peer }
    }
}

fn is_none(fd: &Fd) -> bool {
    *fd < 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn line(object: &impl Serialize, out: &mut Vec<u8>) {
    // Nothing here has a key that is no string, and memory does not fail.
    if serde_json::to_writer(&mut *out, object).is_ok() {
        out.push(b'\n');
    }
}

//! The stream of narrated calls: each in one line.

use std::collections::{HashMap, VecDeque};

use echo::explain::{self, explain_call, explain_result};

use super::seen::{Descriptor, Thread, Told};
use crate::figure::data::Phase;
use crate::record::{Call, Line, Peer};

/// How many calls are remembered.
const REMEMBERED: usize = 500;

/// How many of those that a wait found ready are named.
const NAMED: usize = 8;

/// What clients are called.
#[derive(Default)]
pub struct Names(HashMap<usize, String>);

/// The last calls that returned.
#[derive(Default)]
pub struct Stream {
    told: VecDeque<Told>,
    /// How many there have been before the first of them.
    forgotten: u64,
    /// Of each thread whose last line were rounds: these, and how many calls
    /// had been told before them.
    rounds: HashMap<usize, (Vec<Call>, u64)>,
}

impl Names {
    /// Gives `client N` a name.
    pub fn client(&mut self, number: usize, name: &str) {
        self.0.insert(number, name.to_owned());
    }

    /// What somebody is called.
    pub fn of(&self, peer: &Peer) -> String {
        let own = match peer {
            Peer::Client(number) => self.0.get(number),
            _ => None,
        };
        own.map_or_else(|| peer.to_string(), Clone::clone)
    }

    fn descriptor(&self, fd: i32, peer: Option<&Peer>) -> String {
        match peer {
            Some(peer) => format!("{fd} {}", self.of(peer)),
            None => fd.to_string(),
        }
    }
}

impl Stream {
    /// The last ones, oldest first.
    pub fn told(&self) -> &VecDeque<Told> {
        &self.told
    }

    /// Tells of a line's calls; `known` gives the descriptors of its process
    /// as they are after it.
    pub fn add<'a>(
        &mut self,
        line: &'a Line,
        thread: &Thread,
        names: &Names,
        known: impl Fn(i32) -> Option<&'a Descriptor>,
    ) {
        if line.are_rounds() && self.goes_on(line, thread) {
            return;
        }
        let calls = line.calls();
        let each = line.repeat * calls.len() as u64;
        let took = match line.are_rounds() {
            true => line.took_ns / each.max(1),
            false => line.t1_ns.saturating_sub(line.t0_ns),
        };
        let skipped = calls.len().saturating_sub(REMEMBERED);
        let first = self.forgotten + self.told.len() as u64;
        for call in &calls[skipped..] {
            let came = Outcome::of(call, &known);
            self.push(Told {
                at: line.t1_ns,
                thread: thread.number,
                who: thread.name.clone(),
                phase: phase(call),
                text: came.text(names),
                took,
                why: came.explained().unwrap_or_default(),
                repeat: line.times(),
            });
        }
        if line.are_rounds() {
            self.rounds.retain(|_, (_, first)| *first >= self.forgotten);
            self.rounds.insert(thread.number, (calls.to_vec(), first));
        } else {
            self.rounds.remove(&thread.number);
        }
    }

    fn push(&mut self, told: Told) {
        if self.told.len() == REMEMBERED {
            self.told.pop_front();
            self.forgotten += 1;
        }
        self.told.push_back(told);
    }

    /// Whether these are the rounds that its thread was last seen in: then
    /// they are only counted.
    fn goes_on(&mut self, line: &Line, thread: &Thread) -> bool {
        let Some((calls, first)) = self.rounds.get(&thread.number) else {
            return false;
        };
        if calls != line.calls() || *first < self.forgotten {
            return false;
        }
        let first = (first - self.forgotten) as usize;
        let each = line.repeat * calls.len() as u64;
        for told in self.told.iter_mut().skip(first).take(calls.len()) {
            told.at = line.t1_ns;
            told.took = line.took_ns / each.max(1);
            told.repeat += line.repeat;
        }
        true
    }
}

/// By what colour a call is told from others.
pub fn phase(call: &Call) -> Phase {
    match &*call.verb {
        _ if call.wasted() => Phase::Wasted,
        "wait" => Phase::Waiting,
        "copy" | "wait+copy" => Phase::Copying,
        "submit" | "complete" => Phase::InFlight,
        "signal" => Phase::WakingUp,
        _ => Phase::Asking,
    }
}

/// What a call came to.
struct Outcome<'a> {
    call: &'a Call,
    /// The first of those that were ready.
    ready: Vec<(i32, Option<&'a Peer>)>,
    /// It sent less than its client was owed.
    short: bool,
}

impl<'a> Outcome<'a> {
    fn of(
        call: &'a Call,
        known: impl Fn(i32) -> Option<&'a Descriptor>,
    ) -> Outcome<'a> {
        let peer = |fd: &i32| (*fd, known(*fd).and_then(|it| it.peer.as_ref()));
        let ready = call.ready.iter().map(peer).collect();
        let still_owed = call.fd.and_then(known).is_some_and(|it| it.owed > 0);
        Outcome { call, ready, short: call.took_out() > 0 && still_owed }
    }

    /// The sentence on its result if that needs one, or else on the call.
    fn explained(&self) -> Option<&'static str> {
        let (verb, name) = (&*self.call.verb, &*self.call.name);
        let stops = |it: &(_, Option<&Peer>)| it.1 == Some(&Peer::Stop);
        let none_ready = self.call.ready_count == Some(0);
        let result = match self.call.errno.as_deref() {
            Some(errno) => errno,
            None if self.call.ends_stream() => explain::END_OF_STREAM,
            None if self.short => explain::SHORT_SEND,
            None if self.call.goes_on => explain::GOES_ON,
            None if none_ready && self.call.asked > Some(0) => {
                explain::TIMED_OUT
            }
            None if self.ready.iter().any(stops) => explain::STOP,
            None => "",
        };
        explain_result(verb, name, result).or_else(|| explain_call(verb, name))
    }

    fn text(&self, names: &Names) -> String {
        let call = self.call;
        let (name, about) = (&call.name, about(call, names));
        if call.is_signal() {
            let code = call.code.as_deref().unwrap_or_default();
            let said = [&[code.to_owned()], &*call.band].concat().join(" ");
            return format!("{name}({about}): {said}").trim_end().to_owned();
        }
        let result = match call.ready_count {
            Some(count) => self.found(count, names),
            None => result(call, names),
        };
        let short = if self.short { ", short" } else { "" };
        format!("{name}({about}) = {result}{short}")
    }

    /// Who was ready.
    fn found(&self, count: u64, names: &Names) -> String {
        let errno = self.call.errno.as_deref();
        if count == 0 {
            return errno.unwrap_or("nothing ready").to_owned();
        }
        let name = |(fd, peer): &(i32, Option<&Peer>)| match peer {
            Some(peer) => names.of(peer),
            None => fd.to_string(),
        };
        let ready: Vec<String> =
            self.ready.iter().take(NAMED).map(name).collect();
        let more = if count > ready.len() as u64 { ", …" } else { "" };
        let errno = errno.map_or_else(String::new, |it| format!("{it}, "));
        format!("{errno}{count} ready: {}{more}", ready.join(", "))
    }
}

fn about(call: &Call, names: &Names) -> String {
    let whom = match (call.fd, call.asked) {
        (_, Some(asked)) if call.enters() => format!("{asked} submitted"),
        (Some(fd), _) => names.descriptor(fd, call.peer.as_ref()),
        (None, Some(asked)) if asked > 0 => format!("{asked} asked"),
        (None, _) => String::new(),
    };
    match (call.length, call.offset) {
        (Some(length), Some(at)) => {
            format!("{whom}, {} at {at}", bytes(length as i64))
        }
        (Some(length @ 1..), None) if call.verb == "submit" => {
            format!("{whom}, {}", bytes(length as i64))
        }
        _ => whom,
    }
}

fn result(call: &Call, names: &Names) -> String {
    let ret = call.ret.unwrap_or_default();
    if let Some(errno) = &call.errno {
        return errno.clone();
    } else if let Some(taken) = &call.taken {
        return names.descriptor(ret as i32, Some(taken));
    }
    match (&*call.verb, &*call.name) {
        (_, "Condvar::wait") => "no more clients".to_owned(),
        ("submit", _) => "submitted".to_owned(),
        ("complete", _) if call.ends_stream() => {
            explain::END_OF_STREAM.to_owned()
        }
        ("complete", "cancel") => format!("{ret} told to end"),
        ("complete", _) => bytes(ret) + on(call) + &by(&call.by),
        (_, "io_uring_enter") => took(call, names),
        _ if call.ends_stream() => explain::END_OF_STREAM.to_owned(),
        ("copy" | "wait+copy", _) => bytes(ret),
        (_, "fork") if ret == 0 => "in the child".to_owned(),
        (_, "fork") => format!("child process {ret}"),
        (_, "waitpid") if ret == 0 => "none has ended".to_owned(),
        (_, "waitpid") => format!("process {ret} has ended"),
        (_, "sigtimedwait") => format!("signal {ret}"),
        (_, "nanosleep" | "clock_nanosleep") => "time over".to_owned(),
        (_, "aio_suspend") if ret == 0 => "woken".to_owned(),
        _ if ret == 0 => "ok".to_owned(),
        _ => ret.to_string(),
    }
}

/// Which operations went into the kernel with a call.
fn took(call: &Call, names: &Names) -> String {
    let each = call.carried.iter().take(NAMED).map(|it| {
        let whom = it.peer.as_ref().map(|peer| names.of(peer));
        format!("{} {}", it.call, whom.unwrap_or_default()).trim().to_owned()
    });
    let each: Vec<String> = each.collect();
    let more = if call.carried.len() > NAMED { ", …" } else { "" };
    match (each.is_empty(), call.by.is_empty()) {
        (true, true) => "woken".to_owned(),
        (true, false) => format!("woken{}", by(&call.by)),
        _ => format!("took {}{more}", each.join(", ")),
    }
}

fn on(call: &Call) -> &'static str {
    if call.goes_on { ", goes on" } else { "" }
}

fn bytes(count: i64) -> String {
    format!("{count} {}", if count == 1 { "byte" } else { "bytes" })
}

/// The threads of which one did it.
fn by(tids: &[i32]) -> String {
    let all: Vec<String> = tids.iter().map(i32::to_string).collect();
    match tids.len() {
        0 => String::new(),
        1 => format!(", by thread {}", all[0]),
        _ => format!(", by one of {}", all.join(", ")),
    }
}

//! What a server recorded with `--watch json`, line by line. `echo`'s JSON
//! renderer documents the format.

pub(crate) mod calls;
mod file;

use std::fmt;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use file::RecordFile;

/// One line of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Who is watched.
    Start(Start),
    /// A call that has returned, or rounds of calls that repeat.
    Calls(Line),
    /// A call that has not returned for a while.
    Asleep(Asleep),
    /// A remark of the recorder: the record is not whole.
    Note(String),
    /// All calls, counted.
    Summary(Total),
}

/// The server as it starts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Its name.
    pub start: String,
    /// Its process.
    pub pid: i32,
    /// Its listening socket.
    pub listener: Option<i32>,
    /// The descriptor by which it learns that it must stop.
    pub stop: Option<i32>,
    /// Nanoseconds of CLOCK_MONOTONIC, as all times here.
    pub t0_ns: u64,
}

/// One call, or rounds of calls that repeat in everything but their times.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Before the first call.
    pub t0_ns: u64,
    /// After the last one.
    pub t1_ns: u64,
    /// The process.
    pub pid: i32,
    /// The thread.
    pub tid: i32,
    /// How long the thread has been on a CPU in its life, after the last call.
    pub cpu_ns: u64,
    /// Of rounds: the same before them.
    pub cpu0_ns: Option<u64>,
    /// Of an operation that came out of a queue: how long it was under way.
    pub in_flight_ns: Option<u64>,
    /// Of rounds: how many; 0 of a single call.
    pub repeat: u64,
    /// Of rounds: the time within their calls.
    pub took_ns: u64,
    round: Vec<Call>,
    #[serde(flatten)]
    call: Call,
}

/// What a call did, its times aside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    /// How a reader should see it: `wait`, `copy`, …
    pub verb: String,
    /// The function. In rounds' own line `call` is absent.
    #[serde(rename = "call")]
    pub name: String,
    /// The descriptor that it is about.
    pub fd: Option<i32>,
    /// Whom that stands for.
    pub peer: Option<Peer>,
    /// What it returned.
    pub ret: Option<i64>,
    /// Or the error's name.
    pub errno: Option<String>,
    /// Whom it brought.
    pub taken: Option<Peer>,
    /// How many descriptors a wait was asked about; of io_uring_enter, how
    /// many submissions there were.
    pub asked: Option<u64>,
    /// The operations that io_uring_enter handed over.
    pub carried: Vec<Carried>,
    /// The first of those that were ready.
    pub ready: Vec<i32>,
    /// How many were ready.
    pub ready_count: Option<u64>,
    /// How many entries the server looked through to find them.
    pub scanned: Option<u64>,
    /// Of an operation: where in the file.
    pub offset: Option<u64>,
    /// Of an operation: how many bytes it is to move.
    pub length: Option<u64>,
    /// Of a complete operation: the threads that may have done it.
    pub by: Vec<i32>,
    /// It goes into a queue, or comes out of one.
    pub queued: bool,
    /// Of an operation that came out of a queue: more will come of it.
    pub goes_on: bool,
    /// Of such a one: calls of the server itself did it, which stand before.
    pub called: bool,
    /// Of such a one: it was over within the call that handed it over.
    pub at_once: bool,
    /// Of a signal: why it came.
    pub code: Option<String>,
    /// Of a signal: what is ready.
    pub band: Vec<String>,
}

/// An operation that was handed over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    /// What it is.
    pub call: String,
    /// The descriptor that it is about.
    pub fd: i32,
    /// Whom that stands for.
    pub peer: Option<Peer>,
}

/// A call that has not returned for a while.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Asleep {
    /// When it began.
    pub t0_ns: u64,
    /// The process.
    pub pid: i32,
    /// The thread.
    pub tid: i32,
    /// The call.
    #[serde(flatten)]
    pub call: Call,
}

/// All calls, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Total {
    /// All of them; a signal is none.
    pub calls: u64,
    /// Those that were made for nothing.
    pub wasted: u64,
}

/// Whom a descriptor stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Peer {
    /// The listening socket.
    Listener,
    /// The descriptor that becomes readable at a stop signal.
    Stop,
    /// A client, by its number in the order of accepting, from 1.
    Client(usize),
    /// What the server itself calls it.
    Named(String),
}

impl From<String> for Peer {
    fn from(text: String) -> Peer {
        let number = text.strip_prefix("client ").map(str::parse);
        match (&*text, number) {
            ("listener", _) => Peer::Listener,
            ("stop", _) => Peer::Stop,
            (_, Some(Ok(number))) => Peer::Client(number),
            _ => Peer::Named(text),
        }
    }
}

impl From<Peer> for String {
    fn from(peer: Peer) -> String {
        peer.to_string()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Listener => f.write_str("listener"),
            Peer::Stop => f.write_str("stop"),
            Peer::Client(number) => write!(f, "client {number}"),
            Peer::Named(name) => f.write_str(name),
        }
    }
}

impl Entry {
    /// Reads one line.
    pub fn read(line: &str) -> Result<Entry> {
        Entry::of(line).with_context(|| format!("in the line '{line}'"))
    }

    fn of(line: &str) -> Result<Entry> {
        #[derive(Deserialize)]
        struct Note {
            note: String,
        }
        #[derive(Deserialize)]
        struct Sleeper {
            asleep: Asleep,
        }
        #[derive(Deserialize)]
        struct End {
            summary: Sum,
        }
        #[derive(Deserialize)]
        struct Sum {
            total: Total,
        }
        // What a line is, its first field tells.
        let first = line.split('"').nth(1).unwrap_or_default();
        Ok(match first {
            "start" => Entry::Start(serde_json::from_str(line)?),
            "t0_ns" => Entry::Calls(serde_json::from_str(line)?),
            "asleep" => {
                Entry::Asleep(serde_json::from_str::<Sleeper>(line)?.asleep)
            }
            "note" => Entry::Note(serde_json::from_str::<Note>(line)?.note),
            "summary" => {
                Entry::Summary(serde_json::from_str::<End>(line)?.summary.total)
            }
            _ => bail!("this is no line of a record"),
        })
    }
}

impl Line {
    /// Whether they are rounds that repeat.
    pub fn are_rounds(&self) -> bool {
        !self.round.is_empty()
    }

    /// How many times each of its calls was made.
    pub fn times(&self) -> u64 {
        if self.are_rounds() { self.repeat } else { 1 }
    }

    /// The calls: one, or those of one round.
    pub fn calls(&self) -> &[Call] {
        match self.are_rounds() {
            true => &self.round,
            false => std::slice::from_ref(&self.call),
        }
    }
}

impl Call {
    /// A signal stands in the record, but the server did not call anything.
    pub fn is_signal(&self) -> bool {
        self.verb == "signal"
    }

    /// An operation that goes into a queue, or comes out of one, is no call
    /// either.
    pub fn is_queued(&self) -> bool {
        self.queued
    }

    /// Whether the server has called something.
    pub fn is_call(&self) -> bool {
        !self.is_signal() && !self.is_queued()
    }

    /// Whether it hands operations over.
    pub fn enters(&self) -> bool {
        self.name == "io_uring_enter"
    }

    /// By the rule of the renderer's own final table.
    pub fn wasted(&self) -> bool {
        if self.is_queued() {
            return false;
        }
        match self.errno.as_deref() {
            Some("EAGAIN") => true,
            Some("EINTR") => {
                self.enters() || self.asked.is_some_and(|asked| asked > 0)
            }
            Some(_) => false,
            None if self.name == "ppoll" && self.asked == Some(0) => true,
            None => {
                self.ready_count == Some(0) && self.ret.is_some_and(|n| n > 0)
            }
        }
    }

    /// Whether a client was accepted by it, if it has succeeded.
    pub fn brings(&self) -> bool {
        let accepted = self.name == "accept" && !self.called;
        self.verb == "take" || (self.verb == "complete" && accepted)
    }

    /// How many bytes it brought in from its client.
    pub fn brought(&self) -> u64 {
        match self.is_copy() && matches!(&*self.name, "recv" | "aio_read") {
            true => self.ret.unwrap_or(0).max(0) as u64,
            false => 0,
        }
    }

    /// How many bytes it took out to its client.
    pub fn took_out(&self) -> u64 {
        match self.is_copy() && matches!(&*self.name, "send" | "aio_write") {
            true => self.ret.unwrap_or(0).max(0) as u64,
            false => 0,
        }
    }

    /// Whether it met the client's FIN.
    pub fn ends_stream(&self) -> bool {
        let reads = matches!(&*self.name, "recv" | "read" | "aio_read");
        self.is_copy() && reads && self.ret == Some(0)
    }

    fn is_copy(&self) -> bool {
        match &*self.verb {
            "copy" | "wait+copy" => true,
            // Of a socket, which has no places.
            "complete" => self.offset.is_none() && !self.called,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_is_known() {
        let start = r#"{"start":"epoll_lt","pid":7,"listener":4,"t0_ns":10}"#;
        let Entry::Start(start) = Entry::read(start).unwrap() else {
            panic!("{start}")
        };
        assert_eq!((start.pid, start.listener, start.stop), (7, Some(4), None));
        let recv = r#"{"t0_ns":12,"t1_ns":15,"pid":7,"tid":8,"cpu_ns":99,
            "verb":"copy","call":"recv","fd":8,"peer":"client 12","ret":64}"#;
        let Entry::Calls(recv) = Entry::read(recv).unwrap() else {
            panic!("{recv}")
        };
        assert!(!recv.are_rounds() && recv.times() == 1);
        assert_eq!(recv.calls()[0].brought(), 64);
        assert_eq!(recv.calls()[0].peer, Some(Peer::Client(12)));
        let rounds = r#"{"t0_ns":20,"t1_ns":90,"pid":7,"tid":7,"repeat":5,
            "calls":1,"wasted":5,"took_ns":60,"cpu0_ns":3,"cpu_ns":63,
            "round":[{"verb":"take","call":"accept4","errno":"EAGAIN"}]}"#;
        let Entry::Calls(rounds) = Entry::read(rounds).unwrap() else {
            panic!("{rounds}")
        };
        assert!(rounds.are_rounds() && rounds.calls()[0].wasted());
        assert_eq!((rounds.times(), rounds.cpu0_ns), (5, Some(3)));
        let asleep = r#"{"asleep":{"t0_ns":5,"pid":7,"tid":7,"verb":"wait",
            "call":"select"}}"#;
        assert!(matches!(Entry::read(asleep).unwrap(),
            Entry::Asleep(asleep) if asleep.call.name == "select"));
        assert!(Entry::read(r#"{"what":1}"#).is_err());
    }
}

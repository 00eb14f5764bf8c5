use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use nix::errno::Errno;
use serde::{Serialize, Serializer};

use crate::Fd;
use crate::event::CALL_LENGTH;
use crate::event::{Event, Kind, Verb, text_of};

/// The wait of a pool's threads.
pub(crate) const QUEUE: &str = "Condvar::wait";

/// The call that hands submissions over, and waits for completions.
pub(crate) const ENTER: &str = "io_uring_enter";

/// Whom a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// The listening socket.
    Listener,
    /// The descriptor that becomes readable at a stop signal.
    Stop,
    /// A descriptor that the server has for itself, by its name.
    Named([u8; CALL_LENGTH]),
    /// The clients are numbered in the order in which they were accepted.
    Client(u64),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Listener => f.write_str("listener"),
            Peer::Stop => f.write_str("stop"),
            Peer::Named(name) => f.write_str(text_of(name)),
            Peer::Client(n) => write!(f, "client {n}"),
        }
    }
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// One call of one thread, put together from its events.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Threads are numbered in the order in which they appeared, from 0.
    pub thread: usize,
    pub pid: i32,
    pub tid: i32,
    pub t0: u64,
    pub t1: u64,
    /// Nanoseconds that its thread had been on a CPU by `t1`.
    pub cpu: u64,
    /// A write that took less than its connection was owed.
    pub short: bool,
    /// Of an operation that came out of a queue: for how long it had been
    /// under way.
    pub in_flight: Option<u64>,
    /// Shared, because a call that repeats is kept many times.
    pub what: Rc<What>,
    key: u64,
}

/// What a call did, its times aside: two calls with the same are repetitions
/// of each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct What {
    pub verb: Verb,
    name: [u8; CALL_LENGTH],
    pub fd: Fd,
    pub peer: Option<Peer>,
    /// What the kernel returned, or the errno's negative.
    pub ret: i64,
    /// Whom a take brought in, or a thread of a pool was woken for.
    pub taken: Option<Peer>,
    /// How many descriptors a wait asked about; of `ENTER`, how many
    /// submissions there were.
    pub asked: u32,
    /// What a wait found, if its server said so.
    pub found: Option<Found>,
    /// What a signal said.
    pub signal: Option<Signal>,
    /// The operation that is submitted or complete.
    pub operation: Option<Operation>,
    /// The operations that `ENTER` has handed over.
    pub carried: Option<Vec<Carried>>,
    /// Other threads: those that may have done an operation, or the kernel's
    /// one that takes what is submitted to a ring.
    pub by: Vec<i32>,
}

/// What a signal said (sigaction(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Signal {
    /// `si_code`: why it came.
    pub code: i32,
    /// `si_band`: what is ready, as poll says it.
    pub band: u32,
}

/// An operation that somebody else does meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Operation {
    /// Where in the file, if it is one.
    pub offset: Option<u64>,
    /// It goes by queues, and no call is made for it.
    pub queued: bool,
    /// How many bytes it is to move.
    pub length: u32,
    /// Of one that came out of a queue: there will be more of it.
    pub goes_on: bool,
    /// Of one that came out of a queue: calls of the server itself did it,
    /// which stand before.
    pub called: bool,
    /// It was over within the call that handed it over, and said nothing.
    pub at_once: bool,
}

/// An operation that was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Carried {
    name: [u8; CALL_LENGTH],
    pub fd: Fd,
    pub peer: Option<Peer>,
}

/// What is known of a call beside its own event.
#[derive(Default)]
pub(crate) struct Known {
    pub peer: Option<Peer>,
    pub taken: Option<Peer>,
    pub found: Option<Found>,
    pub carried: Option<Vec<Carried>>,
    /// The thread of the kernel's that takes what this one submits.
    pub taker: Option<i32>,
    /// Of an operation that comes out of a queue: how it went in.
    pub flight: Option<Flight>,
}

/// An operation that is under way.
#[derive(Clone)]
pub(crate) struct Flight {
    pub since: u64,
    /// When the call began that handed it over.
    pub entered: Option<u64>,
    pub peer: Option<Peer>,
    pub length: u32,
    /// Calls of the server itself did something of it.
    pub called: bool,
}

/// What a wait found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Found {
    /// The first of the ready descriptors.
    pub ready: Vec<(Fd, Option<Peer>)>,
    /// How many were ready.
    pub count: u32,
    /// How many entries the server had to look through to know.
    pub scanned: u32,
}

impl Call {
    pub fn new(thread: usize, event: &Event, known: Known) -> Self {
        let flight = known.flight.as_ref();
        let operation = Operation::of(event, flight);
        let in_flight = flight.map(|it| {
            let entered =
                it.entered.filter(|_| event.scanned == Event::AT_ONCE);
            entered.unwrap_or(event.t1).saturating_sub(it.since)
        });
        let short = operation.as_ref().is_some_and(|it| {
            let sent = event.call().starts_with("send") && !it.called;
            sent && 0 < event.ret && event.ret < i64::from(it.length)
        });
        let count = match event.kind {
            Kind::After if event.verb != Verb::Wait => event.ready_count,
            _ => 0,
        };
        let own = event.ready.iter().take(count as usize);
        let mut by: Vec<i32> = own.copied().collect();
        if event.takes_part(operation.as_ref()) {
            by.extend(known.taker);
        }
        let what = What {
            verb: event.verb,
            name: event.call,
            fd: event.fd,
            peer: known.peer,
            ret: event.ret,
            taken: known.taken,
            asked: event.asked,
            found: known.found,
            signal: (event.verb == Verb::Signal).then_some(Signal {
                code: event.asked as i32,
                band: event.scanned,
            }),
            operation,
            carried: known.carried,
            by,
        };
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Call {
            thread,
            pid: event.pid,
            tid: event.tid,
            t0: event.t0,
            t1: event.t1,
            cpu: event.cpu,
            short,
            in_flight,
            what: Rc::new(what),
            key: hasher.finish(),
        }
    }

    /// How long it took.
    pub fn took(&self) -> u64 {
        self.t1.saturating_sub(self.t0)
    }

    /// A number that is the same for repetitions of this call.
    pub fn key(&self) -> u64 {
        self.key
    }
}

impl Operation {
    fn of(event: &Event, flight: Option<&Flight>) -> Option<Self> {
        if !matches!(event.verb, Verb::Submit | Verb::Complete) {
            return None;
        }
        let offset = Some(event.offset).filter(|at| *at < Event::NOWHERE);
        let queued = event.offset == Event::QUEUED;
        Some(Operation {
            offset,
            queued,
            length: flight.map_or(event.asked, |it| it.length),
            goes_on: queued && event.scanned == Event::GOES_ON,
            at_once: queued && event.scanned == Event::AT_ONCE,
            called: flight.is_some_and(|it| it.called),
        })
    }
}

impl Event {
    /// Whether the thread that takes submissions has to do with it.
    fn takes_part(&self, operation: Option<&Operation>) -> bool {
        let completes = self.verb == Verb::Complete;
        let done = operation.filter(|it| completes && it.queued);
        done.is_some_and(|it| !it.called) || self.call() == ENTER
    }
}

impl Carried {
    pub fn of(event: &Event, peer: Option<Peer>) -> Self {
        Carried { name: event.call, fd: event.fd, peer }
    }

    /// What it is.
    pub fn name(&self) -> &str {
        text_of(&self.name)
    }
}

impl Signal {
    /// Why it came, by its name (sigaction(2)).
    pub fn code_name(self) -> String {
        let names = ["POLL_IN", "POLL_OUT", "POLL_MSG", "POLL_ERR", "POLL_PRI"];
        match self.code {
            libc::SI_KERNEL => "SI_KERNEL".to_owned(),
            libc::SI_ASYNCIO => "SI_ASYNCIO".to_owned(),
            libc::SI_USER => "SI_USER".to_owned(),
            libc::SI_TKILL => "SI_TKILL".to_owned(),
            libc::SI_QUEUE => "SI_QUEUE".to_owned(),
            code @ 1..=5 => names[code as usize - 1].to_owned(),
            6 => "POLL_HUP".to_owned(),
            code => code.to_string(),
        }
    }

    /// What is ready, by poll's names for it (poll(2)).
    pub fn band_names(self) -> Vec<&'static str> {
        let bits = [
            (libc::POLLIN, "POLLIN"),
            (libc::POLLPRI, "POLLPRI"),
            (libc::POLLOUT, "POLLOUT"),
            (libc::POLLERR, "POLLERR"),
            (libc::POLLHUP, "POLLHUP"),
            (libc::POLLRDNORM, "POLLRDNORM"),
            (libc::POLLRDBAND, "POLLRDBAND"),
            (libc::POLLWRNORM, "POLLWRNORM"),
            (libc::POLLWRBAND, "POLLWRBAND"),
            (libc::POLLRDHUP, "POLLRDHUP"),
        ];
        let set = bits.iter().filter(|(bit, _)| self.band & *bit as u32 != 0);
        set.map(|(_, name)| *name).collect()
    }
}

impl What {
    /// The call's name.
    pub fn name(&self) -> &str {
        text_of(&self.name)
    }

    /// Whether a thread of a pool sleeps in it until there is a client in the
    /// queue. It gives the client's descriptor, or -1 when there will be none.
    pub fn takes_from_queue(&self) -> bool {
        self.name() == QUEUE
    }

    /// The error, if it failed.
    pub fn errno(&self) -> Option<Errno> {
        (self.ret < 0 && !self.takes_from_queue())
            .then(|| Errno::from_raw(-self.ret as i32))
    }

    /// The error's name, such as `EAGAIN`.
    pub fn errno_name(&self) -> Option<String> {
        self.errno().map(|errno| match errno {
            Errno::UnknownErrno => format!("errno {}", -self.ret),
            known => format!("{known:?}"),
        })
    }

    /// Whether it was made for nothing: it met EAGAIN, or it is a wait that
    /// neither found anything nor slept for as long as it was meant to. A
    /// ppoll about no descriptor looks for signals, and ends well with EINTR.
    pub fn wasted(&self) -> bool {
        if self.is_queued() {
            return false;
        }
        let none = self.found.as_ref().is_some_and(|found| found.count == 0);
        match self.errno() {
            Some(Errno::EAGAIN) => true,
            Some(Errno::EINTR) => self.asked > 0 || self.enters(),
            Some(_) => false,
            None if self.name() == "ppoll" && self.asked == 0 => true,
            None => self.verb == Verb::Wait && none && self.ret > 0,
        }
    }

    /// Whether it is an operation that goes by queues, which is no call.
    pub fn is_queued(&self) -> bool {
        self.operation.as_ref().is_some_and(|it| it.queued)
    }

    /// Whether it hands operations over.
    pub fn enters(&self) -> bool {
        self.name() == ENTER
    }

    /// How many bytes it moved.
    pub fn bytes(&self) -> u64 {
        let called = self.operation.as_ref().is_some_and(|it| it.called);
        match self.verb {
            Verb::Complete if called => 0,
            Verb::Complete if matches!(self.name(), "accept" | "cancel") => 0,
            Verb::Copy | Verb::WaitAndCopy | Verb::Complete => {
                self.ret.max(0) as u64
            }
            _ => 0,
        }
    }

    /// Whether it is a call that met the peer's FIN.
    pub fn end_of_stream(&self) -> bool {
        self.ret == 0 && self.reads()
    }

    /// Whether it brings bytes in.
    pub fn reads(&self) -> bool {
        let copies = matches!(self.verb, Verb::Copy | Verb::WaitAndCopy);
        let placeless =
            self.operation.as_ref().is_some_and(|it| it.offset.is_none());
        let copies = copies || (self.verb == Verb::Complete && placeless);
        let name = self.name();
        copies && (name.contains("read") || name.starts_with("recv"))
    }

    /// Whether it is a wait for descriptors whose time was over.
    pub fn timed_out(&self) -> bool {
        let none = self.found.as_ref().is_some_and(|found| found.count == 0);
        self.ret == 0 && none
    }
}

#[cfg(test)]
impl Call {
    /// A call that only its number tells apart from others, of a thread that
    /// is always on a CPU.
    pub fn numbered(number: i64, t0: u64, t1: u64) -> Self {
        let event = Event {
            kind: crate::event::Kind::After,
            verb: Verb::Ask,
            pid: 1,
            tid: 1,
            fd: -1,
            t0,
            t1,
            cpu: t1,
            ret: number,
            asked: 0,
            ready_count: 0,
            scanned: 0,
            offset: 0,
            call: [0; CALL_LENGTH],
            ready: [0; crate::event::READY_SHOWN],
        };
        Call::new(0, &event, Known::default())
    }
}

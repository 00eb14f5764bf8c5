use std::collections::{HashMap, VecDeque};

use super::call::{Call, Carried, ENTER, Flight, Found, Known, Peer, QUEUE};
use crate::Fd;
use crate::event::READY_SHOWN;
use crate::event::{Event, Kind, Verb};

/// Puts calls together from the events of many threads, and knows whom each
/// descriptor stands for.
///
/// A process that appears inherits its parent's descriptors. It appears in the
/// parent's event of the fork or in the child's own first event, whichever
/// stands first in the pipe, and both are right: whatever the parent took or
/// closed before the fork, it wrote before the fork, and whatever it does
/// afterwards it writes after its event of the fork, so that at either event
/// the parent's descriptors are known as they were at the fork. A child's
/// number is not given away again before its parent has reaped it, hence never
/// between these two events; so a number whose two events are both over can
/// only belong to a new child.
#[derive(Default)]
pub(crate) struct Assembly {
    threads: Vec<Thread>,
    /// By process and thread: a number may return in another process.
    numbers: HashMap<(i32, i32), usize>,
    processes: HashMap<i32, Process>,
    /// The process whose children have no event that names their parent yet.
    root: i32,
    clients: u64,
    /// Calls that began, in this order; those that have returned since stay
    /// until their time comes.
    begun: VecDeque<Begun>,
    /// Threads that will not call again.
    ended: Vec<usize>,
}

/// A thread that was seen.
struct Thread {
    pid: i32,
    tid: i32,
    /// When the call began in which it may sleep now.
    since: Option<u64>,
    /// A wait whose `Ready` may still come.
    held: Option<Box<Event>>,
    /// What it has submitted and not yet handed over.
    queued: VecDeque<Carried>,
    /// By name and descriptor: what it has submitted, the oldest first, and
    /// nobody has found complete.
    flights: HashMap<(String, Fd), VecDeque<Flight>>,
    /// The thread of the kernel's that takes what this one submits.
    taker: Option<i32>,
}

#[derive(Clone, Default)]
struct Process {
    owners: HashMap<Fd, Owner>,
    /// The one event of its fork that was seen, while the other is to come.
    seen: Option<Fork>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fork {
    ByParent,
    ByChild,
}

/// Whom a descriptor stands for since when.
#[derive(Clone)]
struct Owner {
    peer: Peer,
    since: u64,
    /// Bytes that were read from it and not yet written to it.
    owed: u64,
    /// Whom it stood for before, if that one's close was not yet seen.
    former: Option<Peer>,
}

/// A call that may sleep has begun.
struct Begun {
    thread: usize,
    at: u64,
    verb: Verb,
    name: String,
    fd: Fd,
}

/// A call that has not returned for a while.
pub(crate) struct Sleep {
    pub thread: usize,
    pub pid: i32,
    pub tid: i32,
    pub since: u64,
    pub verb: Verb,
    pub name: String,
    pub fd: Fd,
    pub peer: Option<Peer>,
}

impl Assembly {
    /// The server's process, its listener and its stop.
    pub fn start(&mut self, event: &Event) {
        self.root = event.pid;
        let process = self.processes.entry(event.pid).or_default();
        let stop = event.asked as Fd;
        for (fd, peer) in [(event.fd, Peer::Listener), (stop, Peer::Stop)] {
            if fd >= 0 {
                process.owners.insert(fd, Owner::new(peer, 0));
            }
        }
        self.thread(event.pid, event.tid);
    }

    /// Takes the next event, and gives the calls that it completes.
    pub fn add(&mut self, event: &Event, calls: &mut Vec<Call>) {
        self.inherit(event);
        let thread = self.thread(event.pid, event.tid);
        let held = self.threads[thread].held.take();
        match (event.kind, held) {
            (Kind::Ready, Some(wait)) => {
                let count = event.ready_count;
                let shown = READY_SHOWN.min(count as usize);
                let ready = event.ready[..shown].iter();
                let whose = |fd| self.whose(event.pid, fd, wait.t1);
                let ready = ready.map(|fd| (*fd, whose(*fd))).collect();
                let scanned = event.scanned;
                let found = Some(Found { ready, count, scanned });
                let known = Known { found, ..Known::default() };
                calls.push(Call::new(thread, &wait, known));
                return;
            }
            (_, Some(wait)) => calls.push(self.returned(thread, &wait)),
            (_, None) => {}
        }
        match event.kind {
            Kind::Before => {
                // Mostly the call before has returned by now.
                while self.begun.front().is_some_and(|begun| {
                    self.threads[begun.thread].since != Some(begun.at)
                }) {
                    self.begun.pop_front();
                }
                self.threads[thread].since = Some(event.t0);
                self.begun.push_back(Begun {
                    thread,
                    at: event.t0,
                    verb: event.verb,
                    name: event.call().to_owned(),
                    fd: event.fd,
                });
            }
            Kind::After => {
                self.threads[thread].since = None;
                if event.verb == Verb::Wait {
                    self.threads[thread].held = Some(Box::new(event.clone()));
                } else if event.offset == Event::QUEUED {
                    calls.push(self.operation(thread, event));
                } else {
                    calls.push(self.call(thread, event));
                }
            }
            Kind::Name => {
                let peer = match event.offset {
                    0 => Peer::Named(event.call),
                    number => Peer::Client(number),
                };
                let process = self.processes.entry(event.pid).or_default();
                process.owners.insert(event.fd, Owner::new(peer, 0));
            }
            // The server started, or says what no wait found.
            Kind::Start | Kind::Ready => {}
        }
    }

    /// The calls that have returned and need no further event any more.
    pub fn finish(&mut self, calls: &mut Vec<Call>) {
        for number in 0..self.threads.len() {
            if let Some(wait) = self.threads[number].held.take() {
                calls.push(self.returned(number, &wait));
            }
        }
    }

    /// A wait whose server does not say what it found.
    fn returned(&mut self, thread: usize, wait: &Event) -> Call {
        let queue = wait.call() == QUEUE;
        let client = if queue { wait.ret as Fd } else { -1 };
        let taken = self.whose(wait.pid, client, wait.t1);
        let known = Known { taken, ..self.threads[thread].carried(wait) };
        Call::new(thread, wait, known)
    }

    /// Threads whose process has ended since this was last asked.
    pub fn ended(&mut self) -> std::vec::Drain<'_, usize> {
        self.ended.drain(..)
    }

    /// The next call that has not returned since `until`, each once. For the
    /// truth of it every event of that time must have been added.
    pub fn asleep(&mut self, until: u64) -> Option<Sleep> {
        while self.begun.front().is_some_and(|begun| begun.at <= until) {
            let begun = self.begun.pop_front()?;
            let thread = &self.threads[begun.thread];
            if thread.since == Some(begun.at) {
                return Some(Sleep {
                    thread: begun.thread,
                    pid: thread.pid,
                    tid: thread.tid,
                    since: begun.at,
                    verb: begun.verb,
                    name: begun.name,
                    fd: begun.fd,
                    peer: self.whose(thread.pid, begun.fd, begun.at),
                });
            }
        }
        None
    }

    /// Whether this call has still not returned.
    pub fn sleeps(&self, sleep: &Sleep) -> bool {
        self.threads[sleep.thread].since == Some(sleep.since)
    }

    /// When the first call began that `asleep` may give.
    pub fn first_begun(&self) -> Option<u64> {
        self.begun.front().map(|begun| begun.at)
    }

    fn thread(&mut self, pid: i32, tid: i32) -> usize {
        *self.numbers.entry((pid, tid)).or_insert_with(|| {
            self.threads.push(Thread::new(pid, tid));
            self.threads.len() - 1
        })
    }

    /// Makes a new process known, at the first event that speaks of it.
    fn inherit(&mut self, event: &Event) {
        let forked = event.kind == Kind::After && event.call() == "fork";
        if forked && event.ret > 0 {
            self.forked(event.pid, event.ret as i32, Fork::ByParent);
        } else if (forked && event.ret == 0)
            || !self.processes.contains_key(&event.pid)
        {
            self.forked(self.root, event.pid, Fork::ByChild);
        }
    }

    fn forked(&mut self, parent: i32, child: i32, by: Fork) {
        if let Some(known) = self.processes.get_mut(&child)
            && known.seen.is_some_and(|seen| seen != by)
        {
            known.seen = None;
            return;
        }
        let parent = self.processes.get(&parent).cloned();
        let mut process = parent.unwrap_or_default();
        process.seen = Some(by);
        self.forget(child);
        self.processes.insert(child, process);
    }

    /// A process has ended, and its number is free.
    fn forget(&mut self, pid: i32) {
        self.processes.remove(&pid);
        let ended = self.numbers.extract_if(|(of, _), _| *of == pid);
        self.ended.extend(ended.map(|(_, number)| number));
    }

    fn call(&mut self, thread: usize, event: &Event) -> Call {
        let peer = self.whose(event.pid, event.fd, event.t0);
        let mut taken = None;
        if event.verb == Verb::Take && event.ret >= 0 {
            self.clients += 1;
            taken = Some(Peer::Client(self.clients));
        }
        let this = &mut self.threads[thread];
        let known = Known { peer, taken, ..this.carried(event) };
        if event.call() == SETUP {
            this.taker =
                event.ready[..event.ready_count as usize].first().copied();
        }
        this.calls(event);
        let mut call = Call::new(thread, event, known);
        if event.call() == "waitpid" && event.ret > 0 {
            self.forget(event.ret as i32);
        }
        let Some(process) = self.processes.get_mut(&event.pid) else {
            return call;
        };
        if let Some(client) = taken {
            process.took(event, client);
        }
        let closed = event.call() == "close" && event.ret == 0;
        let Some(owner) = process.owners.get_mut(&event.fd) else {
            return call;
        };
        // Another thread's accept may be given the number before this thread
        // has written that it closed it. This close began before that accept
        // returned, so it cannot be meant for whom that accept brought.
        if event.t0 < owner.since {
            owner.former = owner.former.filter(|_| !closed);
        } else if closed {
            process.owners.remove(&event.fd);
        } else if call.what.reads() {
            owner.owed += call.what.bytes();
        } else if call.what.bytes() > 0 {
            let bytes = call.what.bytes();
            call.short = bytes < owner.owed;
            owner.owed = owner.owed.saturating_sub(bytes);
        }
        call
    }

    /// An operation that goes into a queue, or comes out of one.
    fn operation(&mut self, thread: usize, event: &Event) -> Call {
        let peer = self.whose(event.pid, event.fd, event.t0);
        let this = &mut self.threads[thread];
        let taker = this.taker;
        if event.verb == Verb::Submit {
            this.submits(event, peer);
            let known = Known { peer, ..Known::default() };
            return Call::new(thread, event, known);
        }
        let flight = this.completes(event);
        // Its descriptor may stand for somebody else by now.
        let peer = flight.as_ref().map_or(peer, |flight| flight.peer);
        let called = flight.as_ref().is_some_and(|flight| flight.called);
        let mut taken = None;
        if event.call() == "accept" && event.ret >= 0 {
            taken = match called {
                true => self.whose(event.pid, event.ret as Fd, event.t1),
                false => {
                    self.clients += 1;
                    Some(Peer::Client(self.clients))
                }
            };
        }
        let process = self.processes.get_mut(&event.pid);
        if let (Some(process), Some(client), false) = (process, taken, called) {
            process.took(event, client);
        }
        let known = Known { peer, taken, taker, flight, ..Known::default() };
        Call::new(thread, event, known)
    }

    /// Whom `fd` stood for at that time.
    fn whose(&self, pid: i32, fd: Fd, at: u64) -> Option<Peer> {
        let owner = self.processes.get(&pid)?.owners.get(&fd)?;
        match owner.since <= at {
            true => Some(owner.peer),
            false => owner.former,
        }
    }
}

/// The call that makes a ring.
const SETUP: &str = "io_uring_setup";

impl Thread {
    fn new(pid: i32, tid: i32) -> Self {
        Thread {
            pid,
            tid,
            since: None,
            held: None,
            queued: VecDeque::new(),
            flights: HashMap::new(),
            taker: None,
        }
    }

    fn submits(&mut self, event: &Event, peer: Option<Peer>) {
        self.queued.push_back(Carried::of(event, peer));
        let key = (event.call().to_owned(), event.fd);
        self.flights.entry(key).or_default().push_back(Flight {
            since: event.t0,
            entered: None,
            peer,
            length: event.asked,
            called: false,
        });
    }

    /// What was submitted of which this is a result.
    fn completes(&mut self, event: &Event) -> Option<Flight> {
        let key = (event.call().to_owned(), event.fd);
        let flights = self.flights.get_mut(&key)?;
        if event.scanned == Event::GOES_ON {
            return flights.front().cloned();
        }
        let flight = flights.pop_front();
        if flights.is_empty() {
            self.flights.remove(&key);
        }
        flight
    }

    /// What this call has handed over, if it is one that does. Where a thread
    /// of the kernel's takes what is submitted, nobody knows when it does.
    fn carried(&mut self, event: &Event) -> Known {
        if event.call() != ENTER {
            return Known::default();
        }
        let taker = self.taker;
        let count = match taker {
            Some(_) => self.queued.len(),
            None => self.queued.len().min(event.ret.max(0) as usize),
        };
        let carried: Vec<Carried> = self.queued.drain(..count).collect();
        for it in &carried {
            let key = (it.name().to_owned(), it.fd);
            let flights = self.flights.get_mut(&key).into_iter().flatten();
            for flight in flights.filter(|it| it.entered.is_none()) {
                flight.entered = Some(event.t0);
            }
        }
        let carried = taker.is_none().then_some(carried);
        Known { carried, taker, ..Known::default() }
    }

    /// Whether it makes a call itself for what is under way.
    fn calls(&mut self, event: &Event) {
        let name = match event.verb {
            Verb::Take => "accept",
            Verb::Copy | Verb::WaitAndCopy => event.call(),
            _ => return,
        };
        let flights = self.flights.get_mut(&(name.to_owned(), event.fd));
        if let Some(flight) = flights.and_then(VecDeque::front_mut) {
            flight.called = true;
        }
    }
}

impl Process {
    /// A client has been accepted.
    fn took(&mut self, event: &Event, client: Peer) {
        let fd = event.ret as Fd;
        let former = self.owners.insert(fd, Owner::new(client, event.t1));
        if let Some(owner) = self.owners.get_mut(&fd) {
            owner.former = former.map(|former| former.peer);
        }
    }
}

impl Owner {
    fn new(peer: Peer, since: u64) -> Self {
        Owner { peer, since, owed: 0, former: None }
    }
}

//! What a server was seen to do so far, from its record.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::told::{Names, Stream};
use crate::figure::data::Phase;
use crate::record::{Asleep, Call, Entry, Line, Peer, Start};

/// What a server was seen to do so far.
#[derive(Default)]
pub struct Seen {
    server: i32,
    threads: Vec<Thread>,
    /// Those that were forgotten last: the record may still tell of them.
    former: VecDeque<Thread>,
    /// How many threads there have been, and how many child processes.
    appeared: usize,
    children: usize,
    descriptors: BTreeMap<(i32, i32), Descriptor>,
    /// Those that are only read to their end: they are owed nothing any more.
    left: HashSet<(i32, i32)>,
    /// How each process learns who is ready.
    ways: HashMap<i32, Way>,
    stream: Stream,
    counters: Counters,
    /// A copy that cannot sleep shows that the sockets do not block, and so
    /// that a take cannot sleep either.
    nonblocking: bool,
    last_wait: Option<Wait>,
    /// What has gone into queues and not come out: by thread, operation and
    /// descriptor, the oldest first.
    under_way: Vec<UnderWay>,
    names: Names,
}

/// An operation that somebody else does meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Who asked for it.
    tid: i32,
    pid: i32,
    /// What it is.
    pub operation: String,
    /// On which descriptor.
    pub fd: i32,
    /// Whom that stands for.
    pub peer: Option<Peer>,
}

/// How a process learns who is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It waits for descriptors, and says what for.
    Waits,
    /// The kernel sends it a signal for whatever happens.
    Signals,
    /// It is told what is done, and never who is ready.
    Completes,
}

/// A thread that has made a call.
#[derive(Clone, Debug)]
pub struct Thread {
    /// `main`, `thread 2`, `child 1`.
    pub name: String,
    /// By this it is told of in `Told::thread`, also when others are
    /// forgotten: its place in the order of appearing, from 0.
    pub number: usize,
    /// Its process.
    pub pid: i32,
    /// The thread.
    pub tid: i32,
    /// What it does.
    pub doing: Doing,
}

/// What a thread does; times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq)]
pub enum Doing {
    /// It is in this call.
    In {
        /// The call; it has no result yet.
        call: Box<Call>,
        /// When it began.
        since: u64,
    },
    /// It runs its own code, or is in a call that has only just begun.
    Running {
        /// When its last call returned.
        since: u64,
    },
}

/// A descriptor of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The process that has it.
    pub pid: i32,
    /// Its number there.
    pub fd: i32,
    /// Whom it stands for.
    pub peer: Option<Peer>,
    /// What the server wants to hear of it.
    pub waits_for: Wants,
    /// Bytes that were read from it and are not yet written to it.
    pub owed: u64,
    /// Bytes that were read from it.
    pub brought: u64,
    /// Bytes that were written to it.
    pub took_out: u64,
}

/// What a server wants to hear of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wants {
    /// Nothing.
    #[default]
    Nothing,
    /// That something has come in.
    In,
    /// That there is room to write.
    Out,
    /// Either.
    Both,
}

/// A call that returned, or a call of rounds that repeat.
#[derive(Clone, Debug)]
pub struct Told {
    /// When it returned; of rounds, when the last one did.
    pub at: u64,
    /// Who made it: `Thread::number`.
    pub thread: usize,
    /// What that thread is called, which may have been forgotten.
    pub who: String,
    /// By what colour it is to be told from others.
    pub phase: Phase,
    /// `recv(8 client 1) = 64 bytes`.
    pub text: String,
    /// How long it took, in nanoseconds; in rounds, a call on average.
    pub took: u64,
    /// The sentence that explains its result, or else the call; may be empty.
    pub why: &'static str,
    /// How many times it was made: more than once in rounds that repeat.
    pub repeat: u64,
}

/// What has been counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls that returned.
    pub calls: u64,
    /// Calls that were made for nothing.
    pub wasted: u64,
    /// Calls that slept before they returned.
    pub wake_ups: u64,
    /// Signals, which are no calls.
    pub signals: u64,
    /// Bytes that came in from clients.
    pub bytes_in: u64,
    /// Bytes that went out to clients.
    pub bytes_out: u64,
}

/// What a wait was asked about, and what came out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The call's name.
    pub call: String,
    /// How many descriptors it was asked about.
    pub asked: u64,
    /// The first of those that were ready, and whom they stand for.
    pub ready: Vec<(i32, Option<Peer>)>,
    /// How many were ready.
    pub ready_count: u64,
    /// How many entries the server looked through to find them.
    pub scanned: u64,
    /// When it returned.
    pub returned: u64,
}

/// So many threads are remembered that are gone. Far fewer than the numbers
/// that the kernel gives before one comes again.
const FORMER: usize = 512;

impl Seen {
    /// Nothing yet.
    pub fn new() -> Seen {
        Seen::default()
    }

    /// What `client N` of the record, N from 1, is to be called.
    pub fn name_client(&mut self, number: usize, name: &str) {
        self.names.client(number, name);
    }

    /// What somebody is called.
    pub fn name_of(&self, peer: &Peer) -> String {
        self.names.of(peer)
    }

    /// Takes the next line of its record.
    pub fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Start(start) => self.start(&start),
            Entry::Calls(line) => self.line(&line),
            Entry::Asleep(asleep) => self.asleep(asleep),
            Entry::Note(_) | Entry::Summary(_) => {}
        }
    }

    /// Its threads, `main` first, then in the order in which they appeared.
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// Its descriptors, by process and number, as the record tells of them;
    /// `Kernel::correct` knows more.
    pub fn descriptors(&self) -> Vec<Descriptor> {
        let all = self.descriptors.values().map(|known| Descriptor {
            waits_for: self.wants(known),
            ..known.clone()
        });
        all.collect()
    }

    /// The last 500 calls, oldest first.
    pub fn stream(&self) -> &VecDeque<Told> {
        self.stream.told()
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The last wait for descriptors that returned.
    pub fn last_wait(&self) -> Option<&Wait> {
        self.last_wait.as_ref()
    }

    /// The operations that are under way, the oldest first.
    pub fn under_way(&self) -> &[UnderWay] {
        &self.under_way
    }

    /// Drops the processes and threads with these numbers, which are gone
    /// (`Kernel::gone`).
    pub fn forget(&mut self, gone: &[i32]) {
        let stays = |pid: &i32| !gone.contains(pid);
        let threads = &mut self.threads;
        let goes = |it: &mut Thread| !(stays(&it.pid) && stays(&it.tid));
        self.former.extend(threads.extract_if(.., goes));
        let surplus = self.former.len().saturating_sub(FORMER);
        self.former.drain(..surplus);
        self.descriptors.retain(|(pid, _), _| stays(pid));
        self.left.retain(|(pid, _)| stays(pid));
        self.ways.retain(|pid, _| stays(pid));
        self.under_way.retain(|it| stays(&it.pid) && stays(&it.tid));
    }

    fn start(&mut self, start: &Start) {
        self.server = start.pid;
        self.thread(start.pid, start.pid, start.t0_ns);
        for (fd, peer) in
            [(start.listener, Peer::Listener), (start.stop, Peer::Stop)]
        {
            if let Some(fd) = fd {
                self.open(start.pid, fd, Some(peer));
            }
        }
    }

    fn asleep(&mut self, asleep: Asleep) {
        let Asleep { t0_ns: since, pid, tid, call } = asleep;
        self.way(pid, &call);
        let call = Box::new(call);
        self.thread(pid, tid, since).doing = Doing::In { call, since };
    }

    fn line(&mut self, line: &Line) {
        let since = line.t1_ns;
        let thread = self.thread(line.pid, line.tid, since);
        // A signal that is caught may come in the midst of a call.
        if line.calls().iter().any(Call::is_call) {
            thread.doing = Doing::Running { since };
        }
        let thread = thread.clone();
        self.nonblocking |= line.calls().iter().any(Call::cannot_sleep);
        let takes_sleep = !self.nonblocking;
        let slept = line.slept(|call| call.may_sleep(takes_sleep));
        for call in line.calls() {
            let woke = slept && call.may_sleep(takes_sleep);
            self.counters.add(call, line.times(), woke);
            self.way(line.pid, call);
            self.note_wait(line, call);
            self.note_operation(line, call);
            self.change(line, call);
        }
        let known = |fd| self.descriptors.get(&(line.pid, fd));
        self.stream.add(line, &thread, &self.names, known);
    }

    /// The thread that is told of; a new one has run its own code since then.
    fn thread(&mut self, pid: i32, tid: i32, since: u64) -> &mut Thread {
        let is_it = |it: &Thread| it.tid == tid;
        if let Some(at) = self.threads.iter().position(is_it) {
            return &mut self.threads[at];
        } else if let Some(at) = self.former.iter().position(is_it) {
            return &mut self.former[at];
        }
        self.inherit(self.server, pid);
        let (name, number) = (self.new_name(pid, tid), self.appeared);
        self.appeared += 1;
        let doing = Doing::Running { since };
        let at = self.threads.len();
        self.threads.push(Thread { name, number, pid, tid, doing });
        &mut self.threads[at]
    }

    fn new_name(&mut self, pid: i32, tid: i32) -> String {
        if tid != pid {
            return format!("thread {}", self.appeared - self.children + 1);
        } else if pid == self.server {
            return "main".to_owned();
        }
        self.children += 1;
        format!("child {}", self.children)
    }

    /// A child has its parent's descriptors, fork(2): as they are when the
    /// first of the two is heard of, since neither has changed any by then.
    fn inherit(&mut self, parent: i32, child: i32) {
        let known = self.descriptors.keys().any(|(pid, _)| *pid == child);
        let former = self.former.iter().any(|it| it.pid == child);
        if parent == child || known || former {
            return;
        }
        let all = self.descriptors.range((parent, 0)..=(parent, i32::MAX));
        let copies: Vec<_> = all.map(|(_, it)| it.clone()).collect();
        for it in copies {
            let fd = it.fd;
            self.descriptors
                .insert((child, fd), Descriptor { pid: child, ..it });
        }
    }

    fn open(&mut self, pid: i32, fd: i32, peer: Option<Peer>) {
        let new = Descriptor {
            pid,
            fd,
            peer,
            waits_for: Wants::Nothing,
            owed: 0,
            brought: 0,
            took_out: 0,
        };
        self.left.remove(&(pid, fd));
        self.descriptors.insert((pid, fd), new);
    }

    /// What a call changes about the descriptors.
    fn change(&mut self, line: &Line, call: &Call) {
        let (pid, done) = (line.pid, call.ret.unwrap_or(-1));
        let key = (pid, call.fd.unwrap_or(-1));
        match &*call.name {
            _ if done < 0 => {}
            _ if call.brings() => {
                self.open(pid, done as i32, call.taken.clone());
            }
            "fork" if done > 0 => self.inherit(pid, done as i32),
            "close" => {
                self.descriptors.remove(&key);
            }
            "shutdown" => {
                self.left.insert(key);
                self.moved(key, line, call);
            }
            _ => self.moved(key, line, call),
        }
    }

    fn moved(&mut self, key: (i32, i32), line: &Line, call: &Call) {
        // What a server has for itself is heard of when it is used.
        if let Some(Peer::Named(_)) = call.peer
            && !self.descriptors.contains_key(&key)
        {
            self.open(key.0, key.1, call.peer.clone());
        }
        let Some(it) = self.descriptors.get_mut(&key) else { return };
        it.brought += line.times() * call.brought();
        it.took_out += line.times() * call.took_out();
        // What comes in after the server's FIN is dropped.
        it.owed = match self.left.contains(&key) {
            true => 0,
            false => it.brought.saturating_sub(it.took_out),
        };
    }

    fn way(&mut self, pid: i32, call: &Call) {
        let way = match &*call.name {
            "sigtimedwait" | "ppoll" => Way::Signals,
            "epoll_wait" | "epoll_ctl" | "poll" | "select" => Way::Waits,
            "io_uring_enter" => Way::Completes,
            _ => return,
        };
        // A poll that looks at all after an overflow is no way of its own.
        self.ways.entry(pid).or_insert(way);
    }

    /// What is wanted of a descriptor, as far as the record tells.
    fn wants(&self, of: &Descriptor) -> Wants {
        match self.ways.get(&of.pid) {
            Some(Way::Waits) if of.owed > 0 => Wants::Out,
            Some(Way::Waits) => Wants::In,
            Some(Way::Signals) => Wants::Both,
            Some(Way::Completes) => Wants::Nothing,
            None => {
                let mut own = self.threads.iter().filter(|it| it.pid == of.pid);
                let call = own.find_map(|it| it.doing.call_about(of.fd));
                // One that cannot sleep was only set aside in it.
                let call = call.filter(|it| it.may_sleep(!self.nonblocking));
                match call.map(|call| &*call.name) {
                    Some("send") => Wants::Out,
                    Some(_) => Wants::In,
                    None => Wants::Nothing,
                }
            }
        }
    }

    /// Rounds that repeat leave as much under way as there was.
    fn note_operation(&mut self, line: &Line, call: &Call) {
        if !call.is_queued() || line.are_rounds() {
            return;
        }
        let it = UnderWay {
            tid: line.tid,
            pid: line.pid,
            operation: call.name.clone(),
            fd: call.fd.unwrap_or(-1),
            peer: call.peer.clone(),
        };
        if call.verb == "submit" {
            self.under_way.push(it);
        } else if !call.goes_on {
            let place = self.under_way.iter().position(|begun| *begun == it);
            place.map(|place| self.under_way.remove(place));
        }
    }

    fn note_wait(&mut self, line: &Line, call: &Call) {
        let (Some(asked), Some(ready_count), Some(scanned)) =
            (call.asked, call.ready_count, call.scanned)
        else {
            return;
        };
        let peer = |fd: i32| {
            let known = self.descriptors.get(&(line.pid, fd));
            known.and_then(|it| it.peer.clone())
        };
        self.last_wait = Some(Wait {
            call: call.name.clone(),
            asked,
            ready: call.ready.iter().map(|fd| (*fd, peer(*fd))).collect(),
            ready_count,
            scanned,
            returned: line.t1_ns,
        });
    }
}

impl Counters {
    fn add(&mut self, call: &Call, times: u64, woke: bool) {
        if call.is_signal() {
            self.signals += times;
            return;
        }
        self.bytes_in += times * call.brought();
        self.bytes_out += times * call.took_out();
        if call.is_queued() {
            return;
        }
        self.calls += times;
        self.wasted += if call.wasted() { times } else { 0 };
        self.wake_ups += if woke { times } else { 0 };
    }
}

impl Wants {
    /// From what is said of each direction.
    pub fn of(comes_in: bool, goes_out: bool) -> Wants {
        match (comes_in, goes_out) {
            (false, false) => Wants::Nothing,
            (true, false) => Wants::In,
            (false, true) => Wants::Out,
            (true, true) => Wants::Both,
        }
    }

    /// Both together.
    pub fn and(self, other: Wants) -> Wants {
        let either = |one| {
            [self, other].iter().any(|it| [one, Wants::Both].contains(it))
        };
        Wants::of(either(Wants::In), either(Wants::Out))
    }
}

impl Doing {
    /// The call that it is in, if that is about this descriptor.
    fn call_about(&self, fd: i32) -> Option<&Call> {
        match self {
            Doing::In { call, .. } => (call.fd == Some(fd)).then_some(call),
            Doing::Running { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;

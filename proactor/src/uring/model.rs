//! A kernel in memory, which may do all that a real one may, in any order: the
//! loop and its processors run on it step by step, and nothing is left behind.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use echo::{Fd, Listener, Stop, StopFd, Timeout, Unwatched};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::buffers::{Accounts, Buffer};
use super::multishot::{AT_ONCE, Multishot};
use super::single::Single;
use super::{Completion, Queues};
use crate::EventLoop;
use crate::bytes::{Bytes, Memory};
use crate::processor::Processor;

/// What a peer, or the world, does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Connect,
    Say(usize, usize),
    Read(usize, usize),
    Finish(usize),
    Reset(usize),
    /// The next accept fails so.
    Fail(Errno),
    Stop,
}

/// What is drawn for a run. What the kernel chooses comes from `choices`.
#[derive(Clone, Debug)]
struct Plan {
    buffers: u16,
    most: usize,
    /// What a peer's side takes before it is full.
    room: usize,
    /// Whether the kernel knows of a recv that ends after so much.
    limits: bool,
    steps: Vec<Step>,
    choices: Vec<u8>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let who = 0..6_usize;
    let step = prop_oneof![
        20 => Just(Step::Connect),
        50 => (who.clone(), 1..40_usize).prop_map(|(c, n)| Step::Say(c, n)),
        50 => (who.clone(), 1..40_usize).prop_map(|(c, n)| Step::Read(c, n)),
        6 => who.clone().prop_map(Step::Finish),
        6 => who.prop_map(Step::Reset),
        2 => Just(Step::Fail(Errno::ECONNABORTED)),
        1 => Just(Step::Fail(Errno::EMFILE)),
        2 => Just(Step::Stop),
    ];
    let buffers = prop_oneof![Just(1_u16), Just(2), Just(4), Just(8)];
    let (steps, choices) = (vec(step, 1..80), vec(any::<u8>(), 1..200));
    (buffers, 1..6_usize, 1..30_usize, any::<bool>(), steps, choices).prop_map(
        |(buffers, most, room, limits, steps, choices)| Plan {
            buffers,
            most,
            room,
            limits,
            steps,
            choices,
        },
    )
}

/// Both ends of a connection.
struct Client {
    fd: Fd,
    /// What tells whether the server's end was finished, or closed.
    far: OwnedFd,
    /// How much the peer has said, how much of it the server has taken, how
    /// much of that is back, and how much of that the peer has read.
    said: usize,
    taken: usize,
    echoed: usize,
    read: usize,
    finished: bool,
    reset: bool,
    adopted: bool,
    released: bool,
}

impl Client {
    /// Its peer sends FIN, or RST, which the server has not been told of.
    fn ends(&self) -> bool {
        self.finished || self.reset
    }

    /// Whether the server has sent its FIN, or closed.
    fn far_end(&self) -> bool {
        let far = self.far.as_raw_fd();
        recv(far, &mut [0], MsgFlags::MSG_DONTWAIT) == Ok(0)
    }
}

/// What a client says, byte by byte: no two places nearby look alike.
fn byte(client: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 3) ^ client.wrapping_mul(101)) as u8
}

enum Operation {
    Accept { all: bool },
    Recv(Vec<u8>),
    RecvAll { left: Option<usize> },
    Send(Bytes),
    SendNow(Bytes),
    Read(usize),
    Cancel,
    CancelRecv,
    CancelAccept,
}

/// What lies in the completion queue.
enum Entry {
    Accepted(nix::Result<OwnedFd>, bool),
    Received(Fd, nix::Result<()>, Bytes),
    Arrived(Fd, nix::Result<usize>, Option<u16>, bool),
    Sent(Fd, nix::Result<usize>, Bytes),
    Signal(Fd, Bytes),
    Cancelled,
}

impl Entry {
    fn is_of(&self, client: Fd) -> bool {
        match self {
            Entry::Received(fd, ..)
            | Entry::Arrived(fd, ..)
            | Entry::Sent(fd, ..) => *fd == client,
            _ => false,
        }
    }
}

struct Kernel {
    plan: Plan,
    steps: VecDeque<Step>,
    choice: usize,
    clients: Vec<Client>,
    /// Those who have connected, and were not accepted.
    backlog: VecDeque<OwnedFd>,
    fails: Option<Errno>,
    /// Nobody is accepted any more.
    closed: bool,
    signalled: bool,
    stopped: bool,
    submitted: VecDeque<(Fd, Operation)>,
    pending: Vec<(Fd, Operation)>,
    done: VecDeque<Entry>,
    /// Sends that are over and have said nothing.
    silent: VecDeque<(Fd, Bytes)>,
    memory: Vec<Vec<u8>>,
    free: VecDeque<u16>,
    accounts: Accounts,
    /// How far the end of the run has come.
    ending: u8,
    /// The most buffers of bytes that a client may be owed.
    owed: usize,
    interrupted: bool,
}

/// Whoever has been given back is no longer what it was.
const NOBODYS: u8 = 0xEE;

impl Kernel {
    fn new(plan: Plan, owed: usize) -> Self {
        let count = usize::from(plan.buffers);
        Kernel {
            steps: plan.steps.iter().copied().collect(),
            choice: 0,
            clients: Vec::new(),
            backlog: VecDeque::new(),
            fails: None,
            closed: false,
            signalled: false,
            stopped: false,
            submitted: VecDeque::new(),
            pending: Vec::new(),
            done: VecDeque::new(),
            silent: VecDeque::new(),
            memory: vec![vec![NOBODYS; plan.most]; count],
            free: (0..plan.buffers).collect(),
            accounts: Accounts::new(plan.buffers),
            ending: 0,
            owed,
            interrupted: false,
            plan,
        }
    }

    /// One of so many, as the plan has it.
    fn choose(&mut self, of: usize) -> usize {
        let (choices, at) = (&self.plan.choices, self.choice);
        self.choice += 1;
        let drawn = usize::from(choices[at % choices.len()]);
        (drawn + at / choices.len() * 37) % of
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.choose(one_in) == one_in - 1
    }

    /// The client whose descriptor this is now.
    fn of(&self, fd: Fd) -> usize {
        let is = |it: &Client| it.fd == fd && !it.released;
        self.clients.iter().position(is).expect("it is a client's")
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Connect if self.closed || self.clients.len() >= 6 => {}
            Step::Connect => {
                let (near, far) = socketpair(
                    AddressFamily::Unix,
                    SockType::Stream,
                    None,
                    SockFlag::SOCK_CLOEXEC,
                )
                .expect("there are descriptors");
                self.clients.push(Client {
                    fd: near.as_raw_fd(),
                    far,
                    said: 0,
                    taken: 0,
                    echoed: 0,
                    read: 0,
                    finished: false,
                    reset: false,
                    adopted: false,
                    released: false,
                });
                self.backlog.push_back(near);
            }
            Step::Say(client, bytes) => {
                let client = self.clients.get_mut(client);
                if let Some(it) = client.filter(|it| !it.ends()) {
                    it.said += bytes;
                }
            }
            Step::Read(client, bytes) => {
                if let Some(it) = self.clients.get_mut(client) {
                    it.read = it.echoed.min(it.read + bytes);
                }
            }
            Step::Finish(client) => {
                if let Some(it) = self.clients.get_mut(client) {
                    it.finished = true;
                }
            }
            Step::Reset(client) => {
                if let Some(it) = self.clients.get_mut(client) {
                    it.reset = true;
                }
            }
            Step::Fail(errno) => self.fails = Some(errno),
            Step::Stop => {
                self.signalled |= !self.stopped;
                self.stopped = true;
            }
        }
    }

    /// Begins what was submitted: it is tried at once.
    fn begin(&mut self, fd: Fd, operation: Operation) {
        match operation {
            Operation::SendNow(bytes) => {
                let length = bytes.len();
                match self.write(fd, &bytes, length) {
                    Ok(n) if n == length => self.silent.push_back((fd, bytes)),
                    other => {
                        self.done.push_back(Entry::Sent(fd, other, bytes));
                    }
                }
            }
            Operation::RecvAll { left } => {
                if left.is_some() && !self.plan.limits {
                    let why = Err(Errno::EINVAL);
                    self.done.push_back(Entry::Arrived(fd, why, None, false));
                } else if self.free.is_empty() {
                    let why = Err(Errno::ENOBUFS);
                    self.done.push_back(Entry::Arrived(fd, why, None, false));
                } else {
                    self.pending.push((fd, Operation::RecvAll { left }));
                }
            }
            Operation::Cancel
            | Operation::CancelRecv
            | Operation::CancelAccept => {
                let ends = |of: Fd, it: &Operation| match operation {
                    Operation::Cancel => of == fd,
                    Operation::CancelRecv => {
                        of == fd && matches!(it, Operation::RecvAll { .. })
                    }
                    _ => matches!(it, Operation::Accept { .. }),
                };
                let pending = std::mem::take(&mut self.pending);
                for (of, it) in pending {
                    match ends(of, &it) {
                        true => self.end(of, it, Errno::ECANCELED),
                        false => self.pending.push((of, it)),
                    }
                }
                self.done.push_back(Entry::Cancelled);
            }
            other => {
                self.pending.push((fd, other));
                if self.chance(2) {
                    self.go_on(self.pending.len() - 1);
                }
            }
        }
    }

    /// An operation ends badly.
    fn end(&mut self, fd: Fd, operation: Operation, why: Errno) {
        self.done.push_back(match operation {
            Operation::Accept { .. } => Entry::Accepted(Err(why), false),
            Operation::Recv(memory) => {
                let bytes = Bytes::new(Memory::Own(memory), 0);
                Entry::Received(fd, Err(why), bytes)
            }
            Operation::RecvAll { .. } => {
                Entry::Arrived(fd, Err(why), None, false)
            }
            Operation::Send(bytes) | Operation::SendNow(bytes) => {
                Entry::Sent(fd, Err(why), bytes)
            }
            _ => unreachable!("nobody ends it"),
        });
    }

    /// What is under way in this place goes on, if it can.
    fn go_on(&mut self, place: usize) {
        let (fd, operation) = self.pending.swap_remove(place);
        match operation {
            Operation::Accept { all } => {
                if let Some(why) = self.fails.take() {
                    return self.end(fd, Operation::Accept { all }, why);
                }
                let more = all && !self.chance(8);
                match self.backlog.pop_front() {
                    Some(socket) => {
                        let entry = Entry::Accepted(Ok(socket), more);
                        self.done.push_back(entry);
                        if more {
                            self.pending.push((fd, Operation::Accept { all }));
                        }
                    }
                    None => self.pending.push((fd, Operation::Accept { all })),
                }
            }
            Operation::Read(length) => {
                if !std::mem::take(&mut self.signalled) {
                    return self.pending.push((fd, Operation::Read(length)));
                }
                let memory = Memory::Own(vec![0; length]);
                let bytes = Bytes::new(memory, length);
                self.done.push_back(Entry::Signal(fd, bytes));
            }
            Operation::Recv(memory) => self.receive_into(fd, memory),
            Operation::RecvAll { left } => self.receive_all(fd, left),
            Operation::Send(bytes) => {
                if self.chance(20) {
                    let operation = Operation::Send(bytes);
                    return self.end(fd, operation, Errno::EINTR);
                }
                let some = 1 + self.choose(bytes.len());
                match self.write(fd, &bytes, some) {
                    Err(Errno::EAGAIN) => {
                        self.pending.push((fd, Operation::Send(bytes)));
                    }
                    result => {
                        self.done.push_back(Entry::Sent(fd, result, bytes));
                    }
                }
            }
            _ => unreachable!("it never waits"),
        }
    }

    fn receive_into(&mut self, fd: Fd, mut memory: Vec<u8>) {
        if self.chance(20) {
            let operation = Operation::Recv(memory);
            return self.end(fd, operation, Errno::EINTR);
        }
        let it = &self.clients[self.of(fd)];
        if it.reset {
            let operation = Operation::Recv(memory);
            return self.end(fd, operation, Errno::ECONNRESET);
        }
        if it.taken == it.said && !it.finished {
            return self.pending.push((fd, Operation::Recv(memory)));
        }
        memory.resize(self.plan.most, 0);
        let taken = self.take(fd, self.plan.most);
        memory[..taken.len()].copy_from_slice(&taken);
        let bytes = Bytes::new(Memory::Own(memory), taken.len());
        self.done.push_back(Entry::Received(fd, Ok(()), bytes));
    }

    fn receive_all(&mut self, fd: Fd, mut left: Option<usize>) {
        let operation = Operation::RecvAll { left };
        if self.chance(20) {
            return self.end(fd, operation, Errno::EINTR);
        }
        let it = &self.clients[self.of(fd)];
        let (ended, empty) = (it.finished, it.taken == it.said);
        if it.reset {
            return self.end(fd, operation, Errno::ECONNRESET);
        }
        if empty && !ended {
            return self.pending.push((fd, operation));
        }
        let Some(id) = self.free.pop_front() else {
            return self.end(fd, operation, Errno::ENOBUFS);
        };
        let most = self.plan.most.min(left.unwrap_or(usize::MAX));
        let taken = self.take(fd, most);
        let n = taken.len();
        self.memory[usize::from(id)][..n].copy_from_slice(&taken);
        let all_came = left.as_mut().is_some_and(|left| {
            *left -= n;
            *left == 0
        });
        let more = n > 0 && !all_came && !self.chance(20);
        self.done.push_back(Entry::Arrived(fd, Ok(n), Some(id), more));
        if more {
            self.pending.push((fd, Operation::RecvAll { left }));
        }
    }

    /// Some of what a client has said and is not taken; nothing at its end.
    fn take(&mut self, fd: Fd, most: usize) -> Vec<u8> {
        let client = self.of(fd);
        let it = &self.clients[client];
        let (from, there) = (it.taken, (it.said - it.taken).min(most));
        let some = match there {
            0 => 0,
            _ if self.chance(4) => 1 + self.choose(there),
            _ => there,
        };
        let it = &mut self.clients[client];
        it.taken += some;
        let owed = it.taken - it.echoed;
        let most = self.owed * self.plan.most;
        assert!(owed <= most || self.stopped, "{owed} bytes are owed");
        (from..from + some).map(|at| byte(client, at)).collect()
    }

    /// Sends at most so many of these bytes: they must be those that follow.
    fn write(
        &mut self,
        fd: Fd,
        bytes: &Bytes,
        most: usize,
    ) -> nix::Result<usize> {
        let client = self.of(fd);
        let text = self.bytes(bytes).to_vec();
        let it = &mut self.clients[client];
        if it.reset {
            return Err(Errno::EPIPE);
        }
        let room = self.plan.room.saturating_sub(it.echoed - it.read);
        if room == 0 && self.ending == 0 {
            return Err(Errno::EAGAIN);
        }
        let room = if self.ending > 0 { usize::MAX } else { room };
        let n = most.min(text.len()).min(room);
        for (at, sent) in text[..n].iter().enumerate() {
            let expected = byte(client, it.echoed + at);
            assert_eq!(*sent, expected, "of client {client}, {}", it.echoed);
        }
        it.echoed += n;
        assert!(it.echoed <= it.taken, "it has more than it has said");
        Ok(n)
    }

    /// All that is under way goes on, in any order; some of it later.
    fn task_work(&mut self, lazy: bool) {
        for _ in 0..self.pending.len() {
            if self.pending.is_empty() || lazy && self.chance(3) {
                return;
            }
            let place = self.choose(self.pending.len());
            self.go_on(place);
        }
    }

    /// All of it, until something is done or nothing can go on.
    fn all_task_work(&mut self) {
        for place in (0..self.pending.len()).rev() {
            self.go_on(place);
        }
    }

    /// Nothing is done, and nothing will be unless a peer does something: so
    /// whoever can be served has been.
    fn check_asleep(&self, timeout: Timeout) {
        let (in_flight, silent) = (&self.pending, &self.silent);
        assert!(self.submitted.is_empty(), "not everything is submitted");
        assert!(
            !self.anybody_waits() || timeout != Timeout::NEVER,
            "somebody is not accepted"
        );
        for (number, it) in self.clients.iter().enumerate() {
            if !it.adopted || it.released {
                continue;
            }
            let of_it = |(fd, operation): &(Fd, Operation)| {
                *fd == it.fd && matches!(operation, Operation::Send(_))
            };
            if in_flight.iter().any(of_it) {
                continue;
            }
            assert!(!it.ends(), "client {number} was not closed");
            assert_eq!(
                it.taken, it.said,
                "client {number} is not received from"
            );
            let owed = it.taken - it.echoed;
            assert!(owed == 0 || self.stopped, "{owed} are owed to {number}");
            assert!(!self.stopped || it.far_end(), "no FIN for {number}");
        }
        let provided = |it: &Bytes| matches!(it.memory, Memory::Provided(_));
        let busy = silent.iter().filter(|it| provided(&it.1)).count();
        let free = self.accounts.free();
        let count = usize::from(self.plan.buffers);
        assert_eq!(free + busy, count, "a buffer is nowhere");
    }

    /// Nobody else does anything: the peers read all, and then they go.
    fn go_towards_the_end(&mut self) {
        self.ending += 1;
        if self.ending == 2 {
            self.clients.iter_mut().for_each(|it| it.finished = true);
        }
    }

    /// Whether somebody has connected who may yet be accepted.
    fn anybody_waits(&self) -> bool {
        !self.closed && !self.backlog.is_empty()
    }

    fn ended(&self) -> bool {
        self.ending > 2
    }

    /// All is over: nothing of anybody is left.
    fn check_end(&self, clients: usize) {
        assert_eq!(clients, 0, "not everybody was closed");
        for (number, it) in self.clients.iter().enumerate() {
            assert!(it.released || !it.adopted, "client {number} is left");
            assert!(!it.adopted || it.far_end(), "{number} is not closed");
            let all = it.reset || self.stopped || !it.adopted;
            assert!(all || it.echoed == it.said, "{number} did not get all");
        }
    }
}

impl Queues for Kernel {
    fn adopt(&mut self, client: Fd) {
        let client = self.of(client);
        let it = &mut self.clients[client];
        assert!(!it.adopted, "twice");
        it.adopted = true;
    }

    fn release(&mut self, client: Fd) {
        let of = |(fd, it): &(Fd, Operation)| {
            *fd == client
                && !matches!(it, Operation::Cancel | Operation::CancelRecv)
        };
        assert!(!self.submitted.iter().any(of), "it is about to begin");
        assert!(!self.pending.iter().any(of), "it is under way");
        assert!(!self.done.iter().any(|it| it.is_of(client)), "it is done");
        assert!(!self.silent.iter().any(|it| it.0 == client), "it is done");
        let client = self.of(client);
        self.clients[client].released = true;
    }

    fn accept(&mut self, listener: Fd, all: bool) {
        let accepts =
            |it: &(Fd, Operation)| matches!(it.1, Operation::Accept { .. });
        assert!(!self.pending.iter().any(accepts), "one at a time");
        self.submitted.push_back((listener, Operation::Accept { all }));
    }

    fn recv(&mut self, client: Fd, memory: Vec<u8>) {
        self.only_recv(client);
        self.submitted.push_back((client, Operation::Recv(memory)));
    }

    fn recv_all(&mut self, client: Fd, limit: usize) {
        self.only_recv(client);
        let left = Some(limit).filter(|it| *it > 0);
        self.submitted.push_back((client, Operation::RecvAll { left }));
    }

    fn send(&mut self, client: Fd, bytes: Bytes) {
        self.only_send(client, &bytes);
        self.submitted.push_back((client, Operation::Send(bytes)));
    }

    fn send_now(&mut self, client: Fd, bytes: Bytes) {
        self.only_send(client, &bytes);
        self.submitted.push_back((client, Operation::SendNow(bytes)));
    }

    fn read(&mut self, fd: Fd, length: usize) {
        self.submitted.push_back((fd, Operation::Read(length)));
    }

    fn cancel(&mut self, client: Fd) {
        self.submitted.push_back((client, Operation::Cancel));
    }

    fn cancel_recv(&mut self, client: Fd) {
        self.submitted.push_back((client, Operation::CancelRecv));
    }

    fn cancel_accept(&mut self, listener: Fd) {
        self.submitted.push_back((listener, Operation::CancelAccept));
    }

    fn enter(&mut self, timeout: Timeout) -> nix::Result<bool> {
        // EINTR: nothing is taken. Never for ever.
        self.interrupted = !self.interrupted && self.chance(12);
        if self.interrupted {
            return Ok(false);
        }
        let queued = self.submitted.len();
        let some = match self.chance(12) {
            true => self.choose(queued + 1),
            false => queued,
        };
        for _ in 0..some {
            let (fd, operation) = self.submitted.pop_front().expect("counted");
            self.begin(fd, operation);
        }
        for _ in 0..self.choose(3) {
            if let Some(step) = self.steps.pop_front() {
                self.step(step);
            }
        }
        self.task_work(true);
        if some < queued {
            return Ok(false);
        }
        // As a ring does it: not while buffers would come back.
        let scarce = self.silent.len() > self.accounts.free();
        if timeout == Timeout::ZERO || scarce {
            return Ok(true);
        }
        while self.done.is_empty() {
            self.all_task_work();
            if !self.done.is_empty() {
                break;
            }
            self.check_asleep(timeout);
            match self.steps.pop_front() {
                Some(step) => self.step(step),
                None if self.ending == 2 && self.anybody_waits() => {
                    // Accepting rests for a while, and nobody is left.
                    std::thread::sleep(Duration::from_millis(100));
                    break;
                }
                None => self.go_towards_the_end(),
            }
            if self.ended() {
                break;
            }
        }
        Ok(true)
    }

    fn next(&mut self) -> Option<Completion> {
        if let Some((fd, bytes)) = self.silent.pop_front() {
            return Some(Completion::Sent(fd, Ok(bytes.len()), bytes));
        }
        Some(match self.done.pop_front()? {
            Entry::Accepted(result, more) => Completion::Accepted(result, more),
            Entry::Received(fd, result, bytes) => {
                Completion::Received(fd, result, bytes)
            }
            Entry::Arrived(fd, result, id, more) => {
                let buffer = id.map(|id| self.accounts.take(id));
                Completion::Arrived { fd, result, buffer, more }
            }
            Entry::Sent(fd, result, bytes) => {
                Completion::Sent(fd, result, bytes)
            }
            Entry::Signal(fd, bytes) => {
                self.closed = true;
                Completion::Received(fd, Ok(()), bytes)
            }
            Entry::Cancelled => return self.next(),
        })
    }

    fn bytes<'a>(&'a self, bytes: &'a Bytes) -> &'a [u8] {
        let range = bytes.start as usize..bytes.end as usize;
        match &bytes.memory {
            Memory::Own(memory) => &memory[range],
            Memory::Provided(it) => &self.memory[usize::from(it.id())][range],
        }
    }

    fn free(&self) -> usize {
        self.accounts.free()
    }

    fn give_back(&mut self, buffer: Buffer) {
        let id = self.accounts.give_back(buffer);
        self.memory[usize::from(id)].fill(NOBODYS);
        assert!(!self.free.contains(&id), "it is there already");
        self.free.push_back(id);
    }
}

impl Kernel {
    fn any_operation(&self, is: impl Fn(Fd, &Operation) -> bool) -> bool {
        let submitted = self.submitted.iter();
        submitted.chain(&self.pending).any(|(fd, it)| is(*fd, it))
    }

    fn only_recv(&self, client: Fd) {
        assert!(self.clients[self.of(client)].adopted);
        let another = self.any_operation(|fd, it| {
            let recv =
                matches!(it, Operation::Recv(_) | Operation::RecvAll { .. });
            fd == client && recv
        });
        assert!(!another, "a second recv");
    }

    fn only_send(&self, client: Fd, bytes: &Bytes) {
        assert!(self.clients[self.of(client)].adopted);
        assert!(!bytes.is_empty(), "nothing to send");
        let another = self.any_operation(|fd, it| {
            let send = matches!(it, Operation::Send(_) | Operation::SendNow(_));
            fd == client && send
        });
        let silent = self.silent.iter().any(|it| it.0 == client);
        assert!(!another && !silent, "a second send");
    }
}

/// Runs a loop on a kernel until all is over.
fn run<P: Processor>(
    plan: Plan,
    owed: usize,
    processor: impl FnOnce(Kernel, Fd, usize) -> P,
    kernel: impl Fn(&mut P) -> &mut Kernel,
) {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let stop = StopFd::install(Duration::from_secs(3600)).unwrap();
    let most = plan.most;
    let processor = processor(Kernel::new(plan, owed), stop.fd(), most);
    let mut it = EventLoop::new(listener, stop, processor);
    let mut rounds = 0;
    while !it.stop.finished(it.processor.clients())
        && !kernel(&mut it.processor).ended()
    {
        it.wait_completed().unwrap();
        while let Some(done) = it.processor.next() {
            it.on_complete(done).unwrap();
        }
        rounds += 1;
        assert!(rounds < 100_000, "it never sleeps");
    }
    let clients = it.processor.clients();
    kernel(&mut it.processor).check_end(clients);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_the_kernel_does_all_who_speak_to_multishot_are_served(
        plan in plans()
    ) {
        let new = |kernel, stop, most| {
            Multishot::new(kernel, stop, most, Unwatched)
        };
        // So much one recv brings, and the next one begins behind it. Without
        // limits it goes on until a cancel has come to it.
        let owed = if plan.limits { AT_ONCE } else { usize::MAX / 8 };
        run(plan, owed, new, |it| &mut it.ring);
    }

    #[test]
    fn whatever_the_kernel_does_all_who_speak_to_single_are_served(
        plan in plans()
    ) {
        let new = |kernel, stop, _| Single::new(kernel, stop, Unwatched);
        run(plan, 1, new, |it| &mut it.ring);
    }

    /// Each buffer is where it was put last, and nowhere else.
    #[test]
    fn a_buffer_is_with_the_kernel_or_out(
        count in 1..20_u16, turns in vec((any::<bool>(), any::<u16>()), 0..200)
    ) {
        let mut accounts = Accounts::new(count);
        let mut with_kernel: Vec<u16> = (0..count).collect();
        let mut out: Vec<Buffer> = Vec::new();
        for (take, which) in turns {
            if take && !with_kernel.is_empty() {
                let at = usize::from(which) % with_kernel.len();
                let buffer = accounts.take(with_kernel.swap_remove(at));
                prop_assert!(out.iter().all(|it| it.id() != buffer.id()));
                out.push(buffer);
            } else if !take && !out.is_empty() {
                let at = usize::from(which) % out.len();
                let id = accounts.give_back(out.swap_remove(at));
                prop_assert!(!with_kernel.contains(&id));
                with_kernel.push(id);
            }
            prop_assert_eq!(accounts.free(), with_kernel.len());
            prop_assert_eq!(out.len() + with_kernel.len(), usize::from(count));
        }
    }
}

#[test]
#[should_panic(expected = "is out already")]
fn a_buffer_that_is_out_is_not_filled_again() {
    let mut accounts = Accounts::new(2);
    let _first = accounts.take(1);
    accounts.take(1);
}

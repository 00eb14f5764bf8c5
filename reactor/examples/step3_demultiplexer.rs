//! Step 3: a second trait, `Demultiplexer`, has the wait behind it. The reactor
//! no longer knows in which call it sleeps; handlers never knew.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{ExitCode, exit};
use std::{env, mem};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{self, Backlog, MsgFlags, recv, send};

const NAME: &str = env!("CARGO_CRATE_NAME");
const USAGE: &str = "[PORT [epoll|poll]]";
/// How long accepting rests for lack of descriptors, in milliseconds.
const REST: u8 = 100;

/// What a descriptor is waited for.
#[derive(Clone, Copy, PartialEq)]
enum Interest {
    Read,
    Write,
    Nothing,
}
const READ: Interest = Interest::Read;
const WRITE: Interest = Interest::Write;
const NOTHING: Interest = Interest::Nothing;

/// Whom an event is for. No two ever have the same one.
type Token = u64;

/// MSG_DONTWAIT is O_NONBLOCK for one call: recv(2), send(2).
const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

/// What a handler waits for after its turn.
type Next = Result<Interest, Gone>;

/// Nothing more can come of it.
struct Gone;

fn main() -> ExitCode {
    let port = argument(1, "7007", |it| it.parse().ok());
    let demultiplexer = argument(2, "epoll", demultiplexer);
    match demultiplexer.and_then(|it| serve(port, it)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{NAME}: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// A word of the command line, or what stands for it.
fn argument<T>(at: usize, default: &str, parse: fn(&str) -> Option<T>) -> T {
    let word = env::args_os().nth(at).unwrap_or(default.into());
    let word = word.to_string_lossy();
    parse(&word).unwrap_or_else(|| {
        eprintln!("{NAME}: '{word}' does not fit; usage: {NAME} {USAGE}");
        exit(2)
    })
}

fn serve(port: u16, demultiplexer: Box<dyn Demultiplexer>) -> Result<()> {
    let mut reactor = Reactor::new(demultiplexer);
    let listener = listen("listening on", port)?;
    reactor.register(Acceptor { listener })?;
    reactor.run()
}

fn listen(what: &str, port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen at port {port}"))?;
    // The client may be gone again when accept looks: accept(2).
    listener.set_nonblocking(true)?;
    // std's own queue is short: listen(2).
    socket::listen(&listener, Backlog::MAXCONN)?;
    let addr = listener.local_addr()?;
    // A reader may go away; the server goes on.
    let _lost = writeln!(io::stdout(), "{what} {addr}");
    Ok(listener)
}

/// What is done when a descriptor is ready, and its owner.
trait Handler {
    fn fd(&self) -> BorrowedFd<'_>;

    /// Does what can be done without sleeping; returns what it waits for next.
    fn ready(&mut self, reactor: &mut Reactor) -> Next;
}

struct Reactor {
    demultiplexer: Box<dyn Demultiplexer>,
    slots: Slots,
    last: Token,
    /// Who wants nothing, and is called again after the next wait.
    resting: Vec<Token>,
}

type Slots = HashMap<Token, Slot>;

struct Slot {
    owner: Box<dyn Handler>,
    interest: Interest,
}

impl Reactor {
    fn new(demultiplexer: Box<dyn Demultiplexer>) -> Self {
        let (slots, last, resting) = (HashMap::new(), 0, Vec::new());
        Reactor { demultiplexer, slots, last, resting }
    }

    fn register(&mut self, owner: impl Handler + 'static) -> nix::Result<()> {
        self.last += 1;
        let slot = Slot { owner: Box::new(owner), interest: READ };
        self.demultiplexer.want(&slot, self.last, true)?;
        self.slots.insert(self.last, slot);
        Ok(())
    }

    fn run(mut self) -> Result<()> {
        let mut ready = Vec::new();
        loop {
            let timeout = match self.resting.is_empty() {
                true => PollTimeout::NONE,
                false => REST.into(),
            };
            match self.demultiplexer.wait(&self.slots, timeout, &mut ready) {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(err) => return Err(err).context("cannot wait"),
            }
            for token in mem::take(&mut self.resting) {
                self.call(token);
            }
            for token in ready.drain(..) {
                self.call(token);
            }
        }
    }

    /// A turn of one handler, not in the table meanwhile. What does not
    /// come back is closed, which also ends the interest in it: epoll(7).
    fn call(&mut self, token: Token) {
        let Some(mut slot) = self.slots.remove(&token) else { return };
        let Ok(wanted) = slot.owner.ready(self) else { return };
        if mem::replace(&mut slot.interest, wanted) != wanted {
            let changed = self.demultiplexer.want(&slot, token, false);
            let Ok(()) = changed else { return };
        }
        if wanted == NOTHING {
            self.resting.push(token);
        }
        self.slots.insert(token, slot);
    }
}

/// Sleeps for all handlers at once.
trait Demultiplexer {
    /// A handler waits for something else, or for the first time.
    fn want(&mut self, _: &Slot, _: Token, _first: bool) -> nix::Result<()> {
        Ok(())
    }

    /// Says who is ready, after so long at most.
    fn wait(
        &mut self,
        all: &Slots,
        timeout: PollTimeout,
        ready: &mut Vec<Token>,
    ) -> nix::Result<()>;
}

fn demultiplexer(name: &str) -> Option<Result<Box<dyn Demultiplexer>>> {
    match name {
        "epoll" => Some(Epoll::new().map(|it| Box::new(it) as _)),
        "poll" => Some(Ok(Box::new(Poll))),
        _ => None,
    }
}

/// The list is in the kernel, and is told of each change: epoll(7).
struct Epoll {
    list: epoll::Epoll,
    events: [EpollEvent; 256],
}

impl Epoll {
    fn new() -> Result<Self> {
        let list = epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Epoll { list, events: [EpollEvent::empty(); 256] })
    }
}

impl Demultiplexer for Epoll {
    fn want(&mut self, it: &Slot, of: Token, first: bool) -> nix::Result<()> {
        let flags = match it.interest {
            Interest::Read => EpollFlags::EPOLLIN,
            Interest::Write => EpollFlags::EPOLLOUT,
            Interest::Nothing => EpollFlags::empty(),
        };
        let mut event = EpollEvent::new(flags, of);
        match first {
            true => self.list.add(it.owner.fd(), event),
            false => self.list.modify(it.owner.fd(), &mut event),
        }
    }

    fn wait(
        &mut self,
        _: &Slots,
        timeout: PollTimeout,
        ready: &mut Vec<Token>,
    ) -> nix::Result<()> {
        let n = self.list.wait(&mut self.events, timeout)?;
        ready.extend(self.events[..n].iter().map(EpollEvent::data));
        Ok(())
    }
}

/// The list is ours, and is given to the kernel with each call: poll(2).
struct Poll;

impl Demultiplexer for Poll {
    fn wait(
        &mut self,
        all: &Slots,
        timeout: PollTimeout,
        ready: &mut Vec<Token>,
    ) -> nix::Result<()> {
        let list = all.values().map(|it| {
            let flags = match it.interest {
                Interest::Read => PollFlags::POLLIN,
                Interest::Write => PollFlags::POLLOUT,
                Interest::Nothing => PollFlags::empty(),
            };
            PollFd::new(it.owner.fd(), flags)
        });
        let mut list: Vec<PollFd> = list.collect();
        poll(&mut list, timeout)?;
        // The answers are in the order of the questions.
        let is_ready = |it: &PollFd| it.any().unwrap_or(true);
        let asked = all.keys().zip(&list);
        ready.extend(asked.filter(|it| is_ready(it.1)).map(|it| it.0));
        Ok(())
    }
}

/// The handler of the listener: it makes the others.
struct Acceptor {
    listener: TcpListener,
}

impl Handler for Acceptor {
    fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes one client; the next wait tells of the others.
    fn ready(&mut self, reactor: &mut Reactor) -> Next {
        match self.listener.accept() {
            // Whoever cannot be waited for is closed: epoll_ctl(2), ENOSPC.
            Ok((socket, _)) => drop(reactor.register(Echo::new(socket))),
            // It stays in the queue, and would end every wait at once.
            Err(err) if is_lack(&err) => return Ok(NOTHING),
            // It is gone already: accept(2), "Error handling".
            Err(_) => {}
        }
        Ok(READ)
    }
}

fn is_lack(err: &io::Error) -> bool {
    use libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let lacks = [EMFILE, ENFILE, ENOBUFS, ENOMEM];
    err.raw_os_error().is_some_and(|it| lacks.contains(&it))
}

/// The handler of a client, and what it is owed.
struct Echo {
    socket: TcpStream,
    buffer: Vec<u8>,
    owed: Range<usize>,
}

impl Echo {
    fn new(socket: TcpStream) -> Self {
        Echo { socket, buffer: vec![0; 16_384], owed: 0..0 }
    }

    /// There is nearly always room: whoever owes nothing and asks for it never
    /// sleeps.
    fn wanted(&self) -> Interest {
        if self.owed.is_empty() { READ } else { WRITE }
    }
}

impl Handler for Echo {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Receives once and sends once. Whoever is owed something is not read
    /// from, so that one buffer is enough.
    fn ready(&mut self, _: &mut Reactor) -> Next {
        let fd = self.socket.as_raw_fd();
        if self.owed.is_empty() {
            match recv(fd, &mut self.buffer, FLAGS) {
                Ok(0) => return Err(Gone),
                Ok(n) => self.owed = 0..n,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(READ),
                Err(_) => return Err(Gone),
            }
        }
        match send(fd, &self.buffer[self.owed.clone()], FLAGS) {
            Ok(n) => self.owed.start += n,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return Err(Gone),
        }
        Ok(self.wanted())
    }
}

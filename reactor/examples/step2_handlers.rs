//! Step 2: a trait, `Handler`. The loop no longer knows listener and clients
//! apart: it calls whoever is ready, and is a reactor by that.
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
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::socket::{self, Backlog, MsgFlags, recv, send};

const NAME: &str = env!("CARGO_CRATE_NAME");
const USAGE: &str = "[PORT]";
/// How long accepting rests for lack of descriptors, in milliseconds.
const REST: u8 = 100;

/// What a descriptor is waited for.
type Interest = EpollFlags;
const READ: Interest = Interest::EPOLLIN;
const WRITE: Interest = Interest::EPOLLOUT;
const NOTHING: Interest = Interest::empty();

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
    match serve(port) {
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

fn serve(port: u16) -> Result<()> {
    let mut reactor = Reactor::new()?;
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
    list: Epoll,
    slots: HashMap<Token, Slot>,
    last: Token,
    /// Who wants nothing, and is called again after the next wait.
    resting: Vec<Token>,
}

struct Slot {
    owner: Box<dyn Handler>,
    interest: Interest,
}

impl Reactor {
    fn new() -> Result<Self> {
        let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let (slots, last, resting) = (HashMap::new(), 0, Vec::new());
        Ok(Reactor { list, slots, last, resting })
    }

    fn register(&mut self, owner: impl Handler + 'static) -> nix::Result<()> {
        self.last += 1;
        let event = EpollEvent::new(READ, self.last);
        self.list.add(owner.fd(), event)?;
        let owner = Box::new(owner);
        self.slots.insert(self.last, Slot { owner, interest: READ });
        Ok(())
    }

    fn run(mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let timeout = match self.resting.is_empty() {
                true => EpollTimeout::NONE,
                false => REST.into(),
            };
            let n = match self.list.wait(&mut events, timeout) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                Err(err) => return Err(err).context("cannot wait"),
            };
            for token in mem::take(&mut self.resting) {
                self.call(token);
            }
            for event in &events[..n] {
                self.call(event.data());
            }
        }
    }

    /// A turn of one handler, not in the table meanwhile. What does not
    /// come back is closed, which also ends the interest in it: epoll(7).
    fn call(&mut self, token: Token) {
        let Some(mut slot) = self.slots.remove(&token) else { return };
        let Ok(wanted) = slot.owner.ready(self) else { return };
        if mem::replace(&mut slot.interest, wanted) != wanted {
            let mut event = EpollEvent::new(wanted, token);
            let changed = self.list.modify(slot.owner.fd(), &mut event);
            let Ok(()) = changed else { return };
        }
        if wanted == NOTHING {
            self.resting.push(token);
        }
        self.slots.insert(token, slot);
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

//! A reactor in seven steps, each of them a server. Step 1 is the bare loop: it
//! waits for its listener and its clients in one call, and knows them apart.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
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
const LISTENER: Token = 0;

/// MSG_DONTWAIT is O_NONBLOCK for one call: recv(2), send(2).
const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

/// What a client waits for after its turn.
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
    EventLoop::new(listen("listening on", port)?)?.run()
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

struct EventLoop {
    list: Epoll,
    listener: TcpListener,
    /// What the listener is waited for.
    interest: Interest,
    slots: HashMap<Token, Slot>,
    last: Token,
}

struct Slot {
    owner: Echo,
    interest: Interest,
}

impl EventLoop {
    fn new(listener: TcpListener) -> Result<Self> {
        let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        list.add(&listener, EpollEvent::new(READ, LISTENER))?;
        let (interest, slots, last) = (READ, HashMap::new(), LISTENER);
        Ok(EventLoop { list, listener, interest, slots, last })
    }

    fn register(&mut self, owner: Echo) -> nix::Result<()> {
        self.last += 1;
        let event = EpollEvent::new(READ, self.last);
        self.list.add(&owner.socket, event)?;
        self.slots.insert(self.last, Slot { owner, interest: READ });
        Ok(())
    }

    fn run(mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let timeout = match self.interest == NOTHING {
                true => REST.into(),
                false => EpollTimeout::NONE,
            };
            let n = match self.list.wait(&mut events, timeout) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                Err(err) => return Err(err).context("cannot wait"),
            };
            if self.interest == NOTHING {
                self.accept()?;
            }
            for event in &events[..n] {
                match event.data() {
                    LISTENER => self.accept()?,
                    token => self.call(token),
                }
            }
        }
    }

    /// A turn of one client, who is not in the table meanwhile. Who does not
    /// come back is closed, which also ends the interest in it: epoll(7).
    fn call(&mut self, token: Token) {
        let Some(mut slot) = self.slots.remove(&token) else { return };
        let Ok(wanted) = slot.owner.ready() else { return };
        if mem::replace(&mut slot.interest, wanted) != wanted {
            let mut event = EpollEvent::new(wanted, token);
            let changed = self.list.modify(&slot.owner.socket, &mut event);
            let Ok(()) = changed else { return };
        }
        self.slots.insert(token, slot);
    }

    /// Takes one client; the next wait tells of the others.
    fn accept(&mut self) -> Result<()> {
        let mut wanted = READ;
        match self.listener.accept() {
            // Whoever cannot be waited for is closed: epoll_ctl(2), ENOSPC.
            Ok((socket, _)) => drop(self.register(Echo::new(socket))),
            // It stays in the queue, and would end every wait at once.
            Err(err) if is_lack(&err) => wanted = NOTHING,
            // It is gone already: accept(2), "Error handling".
            Err(_) => {}
        }
        if mem::replace(&mut self.interest, wanted) != wanted {
            let mut event = EpollEvent::new(wanted, LISTENER);
            self.list.modify(&self.listener, &mut event)?;
        }
        Ok(())
    }
}

fn is_lack(err: &io::Error) -> bool {
    use libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let lacks = [EMFILE, ENFILE, ENOBUFS, ENOMEM];
    err.raw_os_error().is_some_and(|it| lacks.contains(&it))
}

/// A client, and what it is owed.
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

    /// Receives once and sends once. Whoever is owed something is not read
    /// from, so that one buffer is enough.
    fn ready(&mut self) -> Next {
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

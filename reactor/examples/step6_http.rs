//! Step 6: a second service, HTTP, on the same reactor. It is one more handler,
//! and an acceptor that is told what to make: the reactor knows no protocol.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{ExitCode, exit};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};
use std::{env, mem, thread};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{self, Backlog, MsgFlags, recv, send};

const NAME: &str = env!("CARGO_CRATE_NAME");
const USAGE: &str = "[PORT [SECONDS [epoll|poll [HTTP_PORT]]]]";
/// How long the worker takes for a job.
const LONG: Duration = Duration::from_millis(100);
/// How long accepting rests for lack of descriptors.
const REST: Duration = Duration::from_millis(100);

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

/// The longest head of a request, in bytes.
const MOST: usize = 8_192;
/// MSG_DONTWAIT is O_NONBLOCK for one call: recv(2), send(2).
const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

/// What a handler waits for after its turn.
type Next = Result<Interest, Gone>;

/// Nothing more can come of it.
struct Gone;

fn main() -> ExitCode {
    let port = argument(1, "7007", |it| it.parse().ok());
    let seconds: NonZeroU32 = argument(2, "60", |it| it.parse().ok());
    let limit = Duration::from_secs(seconds.get().into());
    let demultiplexer = argument(3, "epoll", demultiplexer);
    let http = argument(4, "7008", |it| it.parse().ok());
    match demultiplexer.and_then(|it| serve(port, http, limit, it)) {
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

fn serve(
    port: u16,
    http: u16,
    limit: Duration,
    demultiplexer: Box<dyn Demultiplexer>,
) -> Result<()> {
    let mut reactor = Reactor::new(demultiplexer);
    reactor.register(Signals::new()?)?;
    let (jobs, inbox) = start_worker()?;
    reactor.register(inbox)?;
    let listener = listen("listening on", port)?;
    let echo = move |socket| Echo::new(socket, limit, jobs.clone());
    reactor.register(Acceptor { listener, limit, make: echo })?;
    let listener = listen("HTTP on", http)?;
    let http = move |socket| Http::new(socket, limit);
    reactor.register(Acceptor { listener, limit, make: http })?;
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

    /// The same, when its timer is due.
    fn timer(&mut self, _: &mut Reactor) -> Next {
        Ok(READ)
    }

    /// The same, when the worker is done with its job.
    fn answered(&mut self, _: Vec<u8>, _: &mut Reactor) -> Next {
        Ok(READ)
    }

    /// The same, when the reactor is to stop.
    fn stopping(&mut self, _: &mut Reactor) -> Next {
        Err(Gone)
    }
}

struct Reactor {
    demultiplexer: Box<dyn Demultiplexer>,
    slots: Slots,
    last: Token,
    /// Whose turn it is.
    current: Token,
    timers: BTreeSet<(Instant, Token)>,
    is_stopping: bool,
}

type Slots = HashMap<Token, Slot>;

struct Slot {
    owner: Box<dyn Handler>,
    interest: Interest,
}

impl Reactor {
    fn new(demultiplexer: Box<dyn Demultiplexer>) -> Self {
        let timers = BTreeSet::new();
        let (slots, last, current) = (HashMap::new(), 0, 0);
        let is_stopping = false;
        Reactor { demultiplexer, slots, last, current, timers, is_stopping }
    }

    fn register(
        &mut self,
        owner: impl Handler + 'static,
    ) -> nix::Result<Token> {
        self.last += 1;
        let slot = Slot { owner: Box::new(owner), interest: READ };
        self.demultiplexer.want(&slot, self.last, true)?;
        self.slots.insert(self.last, slot);
        Ok(self.last)
    }

    /// A handler's `timer` is called after so long, if it is still there.
    fn after(&mut self, delay: Duration, token: Token) {
        self.timers.insert((Instant::now() + delay, token));
    }

    /// Whoever has something to bring to an end is left until then.
    fn stop(&mut self) {
        self.is_stopping = true;
        let everyone: Vec<Token> = self.slots.keys().copied().collect();
        for token in everyone {
            self.call(token, |it, reactor| it.stopping(reactor));
        }
    }

    fn run(mut self) -> Result<()> {
        let mut ready = Vec::new();
        while !self.slots.is_empty() {
            let timeout = self.timeout();
            match self.demultiplexer.wait(&self.slots, timeout, &mut ready) {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(err) => return Err(err).context("cannot wait"),
            }
            for token in ready.drain(..) {
                self.call(token, |it, reactor| it.ready(reactor));
            }
            let now = Instant::now();
            while let Some(&(due, token)) = self.timers.first()
                && due <= now
            {
                self.timers.pop_first();
                self.call(token, |it, reactor| it.timer(reactor));
            }
        }
        Ok(())
    }

    /// Rounded up: a wait that ends too early would be repeated in vain.
    fn timeout(&self) -> PollTimeout {
        let Some((due, _)) = self.timers.first() else {
            return PollTimeout::NONE;
        };
        let left = due.saturating_duration_since(Instant::now());
        let millis = left.as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    }

    /// A turn of one handler, not in the table meanwhile. What does not
    /// come back is closed, which also ends the interest in it: epoll(7).
    fn call(
        &mut self,
        token: Token,
        turn: impl FnOnce(&mut dyn Handler, &mut Self) -> Next,
    ) {
        let Some(mut slot) = self.slots.remove(&token) else { return };
        let outer = mem::replace(&mut self.current, token);
        let next = turn(&mut *slot.owner, self);
        self.current = outer;
        let Ok(wanted) = next else { return };
        if mem::replace(&mut slot.interest, wanted) != wanted {
            let changed = self.demultiplexer.want(&slot, token, false);
            let Ok(()) = changed else { return };
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
            // An end is told in any case; once, then: epoll_ctl(2).
            Interest::Nothing => EpollFlags::EPOLLET,
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
        // An end is told in any case, and each time: poll(2).
        let asked = all.iter().filter(|it| it.1.interest != NOTHING);
        let list = asked.clone().map(|(_, it)| {
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
        let asked = asked.map(|(token, _)| token).zip(&list);
        ready.extend(asked.filter(|it| is_ready(it.1)).map(|it| it.0));
        Ok(())
    }
}

/// The handler of a listener: it makes those of its clients.
struct Acceptor<F> {
    listener: TcpListener,
    limit: Duration,
    make: F,
}

impl<F, H> Handler for Acceptor<F>
where
    F: Fn(TcpStream) -> H,
    H: Handler + 'static,
{
    fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes one client; the next wait tells of the others.
    fn ready(&mut self, reactor: &mut Reactor) -> Next {
        match self.listener.accept() {
            Ok((socket, _)) => {
                let client = (self.make)(socket);
                // Whoever cannot be waited for is closed: epoll_ctl(2), ENOSPC.
                if let Ok(token) = reactor.register(client) {
                    reactor.after(self.limit, token);
                }
            }
            // It stays in the queue, and would end every wait at once.
            Err(err) if is_lack(&err) => {
                reactor.after(REST, reactor.current);
                return Ok(NOTHING);
            }
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

/// The handler of SIGTERM and SIGINT: it stops the reactor.
struct Signals {
    mask: SigSet,
    signals: SignalFd,
}

impl Signals {
    /// Blocked here and in threads that are started later, they become
    /// readable instead: signalfd(2).
    fn new() -> Result<Self> {
        let mask: SigSet =
            [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        mask.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Signals { signals: SignalFd::with_flags(&mask, flags)?, mask })
    }
}

impl Handler for Signals {
    fn fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    fn ready(&mut self, reactor: &mut Reactor) -> Next {
        let Ok(Some(_)) = self.signals.read_signal() else { return Ok(READ) };
        reactor.stop();
        // A second one ends us at once.
        self.mask.thread_unblock().ok();
        Err(Gone)
    }
}

/// Whose bytes the worker gets, and gives back.
type Job = (Token, Vec<u8>);

/// A thread for what takes long, here a sleep. It does not touch sockets.
fn start_worker() -> Result<(Sender<Job>, Inbox)> {
    let (jobs, to_do) = mpsc::channel();
    let (done, answers) = mpsc::channel();
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let wake = Arc::new(EventFd::from_flags(flags)?);
    let inbox = Inbox { wake: Arc::clone(&wake), answers };
    thread::Builder::new().spawn(move || {
        for job in to_do {
            thread::sleep(LONG);
            done.send(job).ok();
            ring(&wake);
        }
        // Nobody is left who has jobs: the inbox shall know.
        drop(done);
        ring(&wake);
    })?;
    Ok((jobs, inbox))
}

/// Else it fails only with a full counter, which is readable as well.
fn ring(wake: &EventFd) {
    while wake.write(1) == Err(Errno::EINTR) {}
}

/// The handler of what the worker has done.
struct Inbox {
    wake: Arc<EventFd>,
    answers: Receiver<Job>,
}

impl Handler for Inbox {
    fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// First the counter, then the queue: what comes later wakes again.
    fn ready(&mut self, reactor: &mut Reactor) -> Next {
        self.wake.read().ok();
        loop {
            match self.answers.try_recv() {
                Ok((token, answer)) => reactor
                    .call(token, |it, reactor| it.answered(answer, reactor)),
                Err(TryRecvError::Empty) => return Ok(READ),
                Err(TryRecvError::Disconnected) => return Err(Gone),
            }
        }
    }

    fn stopping(&mut self, _: &mut Reactor) -> Next {
        Ok(READ)
    }
}

/// The handler of a client, and what it is owed.
struct Echo {
    socket: TcpStream,
    buffer: Vec<u8>,
    owed: Range<usize>,
    limit: Duration,
    /// When it was last seen to be there.
    seen: Instant,
    jobs: Sender<Job>,
    /// The worker has the buffer.
    away: bool,
}

impl Echo {
    fn new(socket: TcpStream, limit: Duration, jobs: Sender<Job>) -> Self {
        let (buffer, owed) = (vec![0; 16_384], 0..0);
        let (seen, away) = (Instant::now(), false);
        Echo { socket, buffer, owed, limit, seen, jobs, away }
    }

    /// There is nearly always room: whoever owes nothing and asks for it never
    /// sleeps.
    fn wanted(&self) -> Interest {
        if self.away {
            return NOTHING;
        }
        if self.owed.is_empty() { READ } else { WRITE }
    }

    fn send(&mut self, reactor: &mut Reactor) -> Next {
        let fd = self.socket.as_raw_fd();
        match send(fd, &self.buffer[self.owed.clone()], FLAGS) {
            Ok(n) => self.owed.start += n,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return Err(Gone),
        }
        self.finish(reactor)
    }

    /// When the reactor stops and nothing is owed: our FIN. To close with bytes
    /// unread would reset the client, so what still comes until its own FIN is
    /// dropped.
    fn finish(&self, reactor: &Reactor) -> Next {
        if reactor.is_stopping && self.wanted() == READ {
            self.socket.shutdown(Shutdown::Write).map_err(|_| Gone)?;
        }
        Ok(self.wanted())
    }
}

impl Handler for Echo {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Receives once and sends once. Whoever is owed something is not read
    /// from, so that one buffer is enough.
    fn ready(&mut self, reactor: &mut Reactor) -> Next {
        if self.away {
            return Ok(self.wanted());
        }
        if !reactor.is_stopping {
            self.seen = Instant::now();
        }
        if self.owed.is_empty() {
            let fd = self.socket.as_raw_fd();
            match recv(fd, &mut self.buffer, FLAGS) {
                Ok(0) => return Err(Gone),
                Ok(_) if reactor.is_stopping => return Ok(READ),
                Ok(n) => self.owed = 0..n,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(READ),
                Err(_) => return Err(Gone),
            }
            if self.buffer[0] == b'!' {
                let job = (reactor.current, mem::take(&mut self.buffer));
                self.jobs.send(job).map_err(|_| Gone)?;
                self.away = true;
                return Ok(NOTHING);
            }
        }
        self.send(reactor)
    }

    fn answered(&mut self, answer: Vec<u8>, reactor: &mut Reactor) -> Next {
        (self.buffer, self.away) = (answer, false);
        self.seen = Instant::now();
        self.send(reactor)
    }

    fn stopping(&mut self, reactor: &mut Reactor) -> Next {
        self.finish(reactor)
    }

    /// It may have been ready since the timer was started. Whoever waits for
    /// the worker is not silent.
    fn timer(&mut self, reactor: &mut Reactor) -> Next {
        let left = self.limit.saturating_sub(self.seen.elapsed());
        if left.is_zero() && !self.away {
            return Err(Gone);
        }
        reactor.after(left.max(LONG), reactor.current);
        Ok(self.wanted())
    }
}

/// The handler of a client that speaks HTTP/1.1, and what it is owed. All that
/// there is to get is one text.
struct Http {
    socket: TcpStream,
    asked: Vec<u8>,
    owed: Vec<u8>,
    /// This is the last answer; or was, and our FIN is sent.
    is_last: bool,
    is_over: bool,
    limit: Duration,
    seen: Instant,
}

impl Http {
    fn new(socket: TcpStream, limit: Duration) -> Self {
        let (asked, owed) = (Vec::new(), Vec::new());
        let (is_last, is_over, seen) = (false, false, Instant::now());
        Http { socket, asked, owed, is_last, is_over, limit, seen }
    }

    /// Answers one request after the other, as long as they are complete and
    /// there is room.
    fn answer(&mut self, is_stopping: bool) -> Next {
        while !self.is_over {
            if self.owed.is_empty() && !self.is_last {
                self.next_request();
                self.is_last |= is_stopping;
            }
            if !self.owed.is_empty() {
                match send(self.socket.as_raw_fd(), &self.owed, FLAGS) {
                    Ok(n) => drop(self.owed.drain(..n)),
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => return Ok(WRITE),
                    Err(_) => return Err(Gone),
                }
            } else if self.is_last {
                self.socket.shutdown(Shutdown::Write).map_err(|_| Gone)?;
                self.is_over = true;
            } else {
                break;
            }
        }
        Ok(READ)
    }

    fn next_request(&mut self) {
        let end = self.asked.windows(4).position(|it| it == b"\r\n\r\n");
        let stays = match end {
            Some(end) if end <= MOST => stays(&self.asked[..end]),
            None if self.asked.len() <= MOST => return,
            _ => None,
        };
        self.is_last = stays != Some(true);
        let (status, text) = match stays {
            Some(_) => ("200 OK", "A reactor knows no protocol.\n"),
            None => ("400 Bad Request", "GET, HTTP/1.1, Host; no body.\n"),
        };
        let close = if self.is_last { "Connection: close\r\n" } else { "" };
        let (length, kind) = (text.len(), "Content-Type: text/plain");
        self.owed = format!(
            "HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {length}\r\n\
             {close}\r\n{text}"
        )
        .into_bytes();
        self.asked.drain(..end.map_or(self.asked.len(), |end| end + 4));
    }
}

/// Whether the client stays after this request; `None` if it is not one that
/// we know how to answer: RFC 9112.
fn stays(head: &[u8]) -> Option<bool> {
    let mut lines = str::from_utf8(head).ok()?.split("\r\n");
    let rest = lines.next()?.strip_prefix("GET /")?;
    let (path, version) = rest.split_once(' ')?;
    let is_old = version == "HTTP/1.0";
    if path.contains(char::is_control) || !is_old && version != "HTTP/1.1" {
        return None;
    }
    let (mut stays, mut hosts) = (!is_old, 0);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let is_odd = |c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c);
        if name.is_empty()
            || name.contains(is_odd)
            || value.contains(['\r', '\n', '\0'])
        {
            return None;
        }
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "connection" => {
                let mut words = value.split(',').map(str::trim);
                stays &= !words.any(|it| it.eq_ignore_ascii_case("close"));
            }
            // A body would be taken for the next request.
            "transfer-encoding" => return None,
            "content-length" if value.trim() != "0" => return None,
            _ => {}
        }
    }
    (hosts == 1 || hosts == 0 && is_old).then_some(stays)
}

impl Handler for Http {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn ready(&mut self, reactor: &mut Reactor) -> Next {
        if !self.is_over {
            self.seen = Instant::now();
        }
        if self.owed.is_empty() {
            let mut bytes = [0; 4_096];
            match recv(self.socket.as_raw_fd(), &mut bytes, FLAGS) {
                Ok(0) => return Err(Gone),
                // Dropped, until the client's FIN.
                Ok(_) if self.is_over => return Ok(READ),
                Ok(n) => self.asked.extend(&bytes[..n]),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(READ),
                Err(_) => return Err(Gone),
            }
        }
        self.answer(reactor.is_stopping)
    }

    fn stopping(&mut self, _: &mut Reactor) -> Next {
        self.answer(true)
    }

    fn timer(&mut self, reactor: &mut Reactor) -> Next {
        let left = self.limit.saturating_sub(self.seen.elapsed());
        if left.is_zero() {
            return Err(Gone);
        }
        reactor.after(left, reactor.current);
        Ok(if self.owed.is_empty() { READ } else { WRITE })
    }
}

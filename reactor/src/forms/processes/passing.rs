//! The master accepts, and passes each client on to a worker: a message of its
//! number takes a descriptor along, through a pair of sockets.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use anyhow::Context;
use echo::{Gone, Watch};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, close};

use super::sys;
use crate::board::Seat;
use crate::demultiplexer::Interest;
use crate::flags::Deal;
use crate::reactor::{Handler, Next, Reactor};
use crate::timers::Timer;

/// A socket that is no client's of this process, whose close is watched too.
pub struct Socket<W: Watch> {
    /// There until it is closed.
    fd: Option<OwnedFd>,
    watch: W,
}

impl<W: Watch> Socket<W> {
    fn new(fd: OwnedFd, watch: W) -> Self {
        Socket { fd: Some(fd), watch }
    }
}

impl<W: Watch> AsFd for Socket<W> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("only a drop closes it").as_fd()
    }
}

impl<W: Watch> Drop for Socket<W> {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            self.watch.ask("close", fd.as_raw_fd(), || close(fd)).ok();
        }
    }
}

/// The two ends of a way from the master to a worker.
pub fn way<W: Watch>(watch: W) -> anyhow::Result<(Socket<W>, Socket<W>)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (unix, stream) = (AddressFamily::Unix, SockType::Stream);
    let mut pair = None;
    let make = || {
        pair = Some(socketpair(unix, stream, None, flags)?);
        Ok(())
    };
    watch.ask("socketpair", -1, make).context("socketpair")?;
    let (master, worker) = pair.context("socketpair")?;
    watch.name(master.as_raw_fd(), "worker");
    watch.name(worker.as_raw_fd(), "master");
    Ok((Socket::new(master, watch), Socket::new(worker, watch)))
}

/// Gives each client to a worker.
pub struct Dealer<W: Watch> {
    ways: Vec<Way<W>>,
    how: Deal,
    turn: usize,
    /// How many clients have been accepted: the number of the last.
    given: u64,
    /// No worker has room for this client yet.
    waiting: Option<Socket<W>>,
    watch: W,
}

/// The way to a worker.
struct Way<W: Watch> {
    end: Socket<W>,
    pid: Pid,
    seat: Seat,
    /// It has no room, or is about to be missed.
    closed: bool,
}

impl<W: Watch> Dealer<W> {
    pub fn new(how: Deal, watch: W) -> Self {
        let ways = Vec::new();
        Dealer { ways, how, turn: 0, given: 0, waiting: None, watch }
    }

    /// There is one more worker.
    pub fn add(&mut self, end: Socket<W>, pid: Pid, seat: Seat) {
        self.ways.push(Way { end, pid, seat, closed: false });
    }

    /// That worker gets nobody any more. What it has been sent it can still
    /// receive.
    pub fn remove(&mut self, pid: Pid) {
        self.ways.retain(|way| way.pid != pid);
    }

    /// A client has been accepted.
    pub fn give(&mut self, client: OwnedFd) {
        self.given += 1;
        self.waiting = Some(Socket::new(client, self.watch));
        self.has_room();
    }

    /// Whether no client waits for room, after another try.
    pub fn has_room(&mut self) -> bool {
        let Some(client) = self.waiting.take() else { return true };
        self.ways.iter_mut().for_each(|way| way.closed = false);
        while let Some(at) = self.next() {
            let way = &mut self.ways[at];
            // Before it can leave.
            way.seat.come();
            let (end, fd) = (&way.end, client.as_fd());
            if send(end, fd, self.given, self.watch).is_ok() {
                return true;
            }
            // Its queue is full (EAGAIN), too many descriptors are under way
            // (ETOOMANYREFS), or it has just died (EPIPE): the next may do.
            way.seat.leave();
            way.closed = true;
        }
        self.waiting = Some(client);
        false
    }

    /// The next in turn, or whoever has the fewest; among equals the next in
    /// turn.
    fn next(&mut self) -> Option<usize> {
        let count = self.ways.len();
        let order = (1..=count).map(|n| (self.turn + n) % count);
        let mut open = order.filter(|at| !self.ways[*at].closed);
        let next = match self.how {
            Deal::RoundRobin => open.next(),
            Deal::LeastLoaded => {
                open.min_by_key(|at| self.ways[*at].seat.clients())
            }
        };
        self.turn = next.unwrap_or(self.turn);
        next
    }
}

/// The kernel keeps the descriptor alive on its way: ours can be closed.
fn send<W: Watch>(
    to: &Socket<W>,
    client: BorrowedFd<'_>,
    number: u64,
    watch: W,
) -> nix::Result<usize> {
    let copy = || sys::send(to.as_fd(), number.to_ne_bytes(), client);
    watch.copy("sendmsg", to, copy)
}

/// A worker's end of the way: clients come in here.
pub struct Door<F, W: Watch> {
    end: Socket<W>,
    entered: F,
    seat: Seat,
    /// The last number that a descriptor of this process may have.
    last: RawFd,
    /// That number has been given out once, and may be in use.
    reached: bool,
    watch: W,
}

/// How long one rests that could not take a descriptor.
const REST: Duration = Duration::from_millis(100);

impl<F, W: Watch> Door<F, W> {
    /// Each client that comes in is given to `entered`.
    pub fn new(end: Socket<W>, seat: Seat, entered: F, watch: W) -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE);
        let limit = limit.map_or(u64::MAX, |(soft, _)| soft);
        let last = RawFd::try_from(limit.saturating_sub(1));
        let last = last.unwrap_or(RawFd::MAX);
        let reached = crate::sys::is_open(last);
        Door { end, entered, seat, last, reached, watch }
    }

    /// Whether the next message would lose its descriptor, for there is no
    /// number left for it. The kernel gives out the lowest free one, so that
    /// is no question before the last one has been given out.
    fn is_full(&self) -> bool {
        let fd = self.end.as_fd();
        let mut another = None;
        let copy = || {
            another = Some(fd.try_clone_to_owned().map_err(|err| {
                Errno::from_raw(err.raw_os_error().unwrap_or(0))
            })?);
            Ok(())
        };
        let full = || self.watch.ask("fcntl", fd.as_raw_fd(), copy).is_err();
        let full = self.reached && full();
        drop(another.map(|fd| Socket::new(fd, self.watch)));
        full
    }
}

impl<C, F, W> Handler<C> for Door<F, W>
where
    C: Handler,
    F: FnMut(OwnedFd, &mut Reactor<C>),
    W: Watch,
{
    fn fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// Takes one client, and leaves the others for the next round.
    fn readable(&mut self, reactor: &mut Reactor<C>) -> Result<Next, Gone> {
        let (mut came, mut number) = (None, sys::Note::default());
        let end = self.end.as_fd();
        let copy = || {
            let (bytes, client) = sys::receive(end, &mut number)?;
            came = client;
            Ok(bytes)
        };
        match self.watch.copy("recvmsg", end, copy) {
            Ok(0) => return Err(Gone),
            Ok(_) => {}
            Err(Errno::EAGAIN) => return Ok(Next::Wait(Interest::Read)),
            Err(Errno::EINTR) => return Ok(Next::Again(Interest::Read)),
            Err(err) => {
                reactor.fail(anyhow::Error::from(err).context("recvmsg"));
                return Err(Gone);
            }
        }
        let Some(client) = came else {
            // MSG_CTRUNC: the message is read, and its descriptor lost.
            self.seat.leave();
            echo::dropped("no descriptor left for it (recvmsg); see ulimit -n");
            reactor.after(reactor.current(), REST);
            return Ok(Next::Room);
        };
        self.reached |= client.as_raw_fd() >= self.last;
        let number = u64::from_ne_bytes(number);
        self.watch.client(client.as_raw_fd(), number);
        (self.entered)(client, reactor);
        // The others stay where they are, until a client has left.
        Ok(match self.is_full() {
            true => Next::Room,
            false => Next::Again(Interest::Read),
        })
    }

    fn timer(&mut self, _: Timer, _: &mut Reactor<C>) -> Result<Next, Gone> {
        Ok(Next::Again(Interest::Read))
    }
}

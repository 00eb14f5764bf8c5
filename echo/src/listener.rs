use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage,
    bind, getsockname, listen, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};

use crate::{Fd, Stop, tally};

/// The socket that clients connect to, and the policy of accepting: how many
/// at once, and when to leave them waiting. Memory only: `accept` itself
/// stands in each server.
pub struct Listener {
    socket: Option<OwnedFd>,
    backlog: i32,
    buffer: usize,
    max_connections: usize,
    pause: Option<Pause>,
    armed: bool,
}

/// Accepting rests until then, or until a connection has closed.
#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    connections: usize,
}

/// How long accepting rests when the system is short of something. Long enough
/// that a server which cannot accept does not spin, short enough for a client.
const PAUSE: Duration = Duration::from_millis(100);

/// What an error of accept means for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// That client is gone; the next one may be there already.
    Retry,
    /// The system is short of descriptors or memory: trying again at once
    /// would fail at once, and burn a core.
    Pause,
    /// The listener itself is of no use.
    Fatal,
}

impl From<Errno> for AcceptError {
    fn from(errno: Errno) -> Self {
        use Errno::*;
        match errno {
            // accept(2): "already-pending network errors on the new socket"
            // are handed over too, and are to be treated like EAGAIN.
            EAGAIN | EINTR | ECONNABORTED | ENETDOWN | EPROTO | ENOPROTOOPT
            | EHOSTDOWN | ENONET | EHOSTUNREACH | EOPNOTSUPP | ENETUNREACH
            | EPERM | ETIMEDOUT => AcceptError::Retry,
            EMFILE | ENFILE | ENOBUFS | ENOMEM => AcceptError::Pause,
            _ => AcceptError::Fatal,
        }
    }
}

impl Listener {
    /// A socket that listens for TCP clients, as a server without flags has it.
    ///
    /// # Errors
    ///
    /// That nobody can listen there, and what to do.
    pub fn tcp(addr: SocketAddr) -> Result<Self> {
        let (backlog, buffer) = (4096, 16 << 10);
        Self::bind(SockType::Stream, addr, backlog, usize::MAX, buffer)
    }

    /// A socket of this kind at `addr`: one that listens, or, for datagrams,
    /// one that gets them all.
    pub(crate) fn bind(
        kind: SockType,
        addr: SocketAddr,
        backlog: i32,
        max_connections: usize,
        buffer: usize,
    ) -> Result<Self> {
        let family = match addr {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, kind, flags, None)
            .context("cannot make a socket")?;
        let listens = kind == SockType::Stream;
        if listens {
            // A connection that this side closed first stays in TIME_WAIT and
            // would keep a new server from its port (tcp(7), socket(7)).
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            // Linux hands both options on to the accepted sockets: one call
            // here instead of one for each client.
            setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
            setsockopt(&socket, sockopt::KeepAlive, &true)?;
        }
        let asked = SockaddrStorage::from(addr);
        bind(socket.as_raw_fd(), &asked).map_err(|errno| {
            let errno = io::Error::from(errno);
            anyhow!("cannot listen on {addr}: {errno}; choose another --addr")
        })?;
        if listens {
            listen(&socket, Backlog::new(backlog)?)
                .with_context(|| format!("cannot listen on {addr}"))?;
        }
        Ok(Listener {
            socket: Some(socket),
            backlog,
            buffer,
            max_connections,
            pause: None,
            armed: true,
        })
    }

    /// The same policy for another socket that listens.
    pub fn beside(&self, socket: OwnedFd) -> Self {
        Listener {
            socket: Some(socket),
            backlog: self.backlog,
            buffer: self.buffer,
            max_connections: self.max_connections,
            pause: None,
            armed: true,
        }
    }

    /// How many clients may wait in the accept queue.
    pub fn backlog(&self) -> i32 {
        self.backlog
    }

    /// Where clients find this server; port 0 has become a real one.
    pub fn addr(&self) -> Result<SocketAddr> {
        let addr: SockaddrStorage = getsockname(self.fd())?;
        let v4 =
            addr.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into()));
        let v6 =
            addr.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into()));
        v4.or(v6).with_context(|| format!("family {:?}", addr.family()))
    }

    /// Whether there is a most of clients that may be accepted.
    pub fn is_limited(&self) -> bool {
        self.max_connections < usize::MAX
    }

    /// Whether it still listens.
    pub fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// The most that a server reads at once.
    pub fn buffer(&self) -> usize {
        self.buffer
    }

    /// The listening descriptor; -1 once it is closed.
    #[inline]
    pub fn fd(&self) -> Fd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Whether a client may be accepted now, while there are so many.
    pub fn wanted(&mut self, connections: usize) -> bool {
        self.room(connections) > 0
    }

    /// How many clients may be accepted now, while there are so many.
    pub fn room(&mut self, connections: usize) -> usize {
        if let Some(pause) = self.pause {
            let freed = connections < pause.connections;
            if freed || Instant::now() >= pause.until {
                self.pause = None;
            }
        }
        match self.is_open() && self.pause.is_none() {
            true => self.max_connections.saturating_sub(connections),
            false => 0,
        }
    }

    /// Whether clients are wanted now, if that has changed since the last
    /// time: for servers whose interest outlives a wait.
    pub fn change(&mut self, connections: usize) -> Option<bool> {
        let wanted = self.wanted(connections);
        let changed = wanted != self.armed && self.is_open();
        self.armed = wanted;
        changed.then_some(wanted)
    }

    /// Unless accept says EAGAIN, the accept queue is left before it is empty,
    /// and `change` will say when to go back to it.
    pub fn disarm(&mut self) {
        self.armed = false;
    }

    /// Decides what an error of accept means, while there are so many
    /// connections. Only what makes the listener useless is an error here.
    pub fn on_error(&mut self, errno: Errno, connections: usize) -> Result<()> {
        match AcceptError::from(errno) {
            AcceptError::Retry => {
                // An empty queue is a change away from the next client.
                self.armed |= errno == Errno::EAGAIN;
                Ok(())
            }
            AcceptError::Pause => {
                self.pause_accepting(connections);
                Ok(())
            }
            AcceptError::Fatal => Err(errno).context("accept4"),
        }
    }

    /// For how long accepting still rests at most, if it does.
    pub fn pause(&self) -> Option<Duration> {
        let until = self.pause.filter(|_| self.is_open())?.until;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Rests until a connection has closed, or for a short time.
    pub fn pause_accepting(&mut self, connections: usize) {
        let until = Instant::now() + PAUSE;
        self.pause = Some(Pause { until, connections });
    }

    /// Says that a client was turned away, and why: the first one at once,
    /// the others in the summary, lest a crowd of them floods stderr.
    pub fn refused(&self, why: &str) {
        refused(why);
    }

    /// Says that a client was dropped that did nothing wrong, and why, as
    /// `refused` does.
    pub fn dropped(&self, why: &str) {
        dropped(why);
    }

    /// How long a wait may sleep before accepting or stopping needs the loop.
    /// Not at all while a descriptor is known to be ready.
    pub fn timeout(&self, stop: &impl Stop, ready: &[Fd]) -> Timeout {
        if !ready.is_empty() {
            return Timeout::ZERO;
        }
        let pause = self.pause.map(|pause| pause.until);
        Timeout::until(pause.into_iter().chain(stop.deadline()).min())
    }

    /// New clients are refused from now on.
    pub fn close(&mut self) {
        self.socket = None;
    }
}

/// Says that a client was turned away, as `Listener::refused` does.
pub fn refused(why: &str) {
    if tally().add_refused() == 1 {
        crate::server::say(&format!("a client was refused: {why}"));
    }
}

/// Says that a client was dropped, as `Listener::dropped` does.
pub fn dropped(why: &str) {
    if tally().add_dropped() == 1 {
        crate::server::say(&format!("a client was dropped: {why}"));
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Only an open listener is accepted from: `wanted` says so.
        self.socket.as_ref().expect("the listener is open").as_fd()
    }
}

/// How long a wait may sleep; for ever if nothing is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(Option<Duration>);

impl Timeout {
    /// The timeout in the form of poll and epoll_wait. Rounded up, because a
    /// wait that ends too early would spin for the rest of the millisecond.
    pub fn millis(self) -> i32 {
        self.0.map_or(-1, |left| left.as_micros().div_ceil(1000) as i32)
    }

    /// The timeout in the form of sigtimedwait and ppoll.
    pub fn timespec(self) -> Option<TimeSpec> {
        Some(TimeSpec::from_duration(self.0?))
    }

    /// A wait may sleep until then.
    pub fn until(due: Option<Instant>) -> Self {
        Timeout(due.map(|at| at.saturating_duration_since(Instant::now())))
    }

    /// No sleep at all.
    pub const ZERO: Timeout = Timeout(Some(Duration::ZERO));

    /// Nothing is due.
    pub const NEVER: Timeout = Timeout(None);

    /// The timeout in the form of select.
    pub fn timeval(self) -> Option<TimeVal> {
        Some(TimeVal::microseconds(self.0?.as_micros() as i64))
    }
}

impl From<Timeout> for PollTimeout {
    fn from(timeout: Timeout) -> Self {
        let millis = timeout.millis();
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Listener {
        let addr = "127.0.0.1:0".parse().unwrap();
        Listener::bind(SockType::Stream, addr, 16, 2, 1024).unwrap()
    }

    #[test]
    fn accepting_stops_at_the_limit_and_goes_on_below_it() {
        let mut listener = listener();
        assert!(listener.wanted(1));
        assert!(!listener.wanted(2));
        assert!(listener.wanted(1));
        listener.close();
        assert!(!listener.wanted(0));
    }

    #[test]
    fn out_of_descriptors_pauses_until_one_is_free() {
        let mut listener = listener();
        listener.on_error(Errno::EMFILE, 1).unwrap();
        assert!(!listener.wanted(1));
        assert!(listener.wanted(0), "a connection closed");
        listener.on_error(Errno::ENFILE, 1).unwrap();
        std::thread::sleep(PAUSE);
        assert!(listener.wanted(1), "the pause is over");
    }

    #[test]
    fn an_aborted_client_is_no_reason_to_stop() {
        let mut listener = listener();
        listener.on_error(Errno::ECONNABORTED, 0).unwrap();
        assert!(listener.wanted(0));
        assert!(listener.on_error(Errno::EBADF, 0).is_err());
    }

    #[test]
    fn a_timeout_is_rounded_up() {
        let nearly = Timeout(Some(Duration::from_micros(1)));
        assert_eq!((nearly.millis(), Timeout(None).millis()), (1, -1));
    }
}

//! Signal-driven echo: the kernel queues a signal for each event, and the
//! queue is the list of those who are ready.
mod flags;
mod signals;
mod sys;
mod udp;

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use echo::{
    Connections, Fd, Gone, Listener, Pending, Scratch, Stop, StopSignal,
    Timeout, Watch, accept4, tally,
};
use flags::Flags;
use libc::{POLLIN, POLLOUT, pollfd};
use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown,
};
use nix::unistd::close;
use signals::{Signal, Signals};

/// Copies of one descriptor, or clients taken, before the others' turn.
const BUDGET: usize = 16;

/// Signals taken before those who are ready have their turn.
const QUEUE: usize = 1 << 16;

/// The server that `main` starts.
pub enum Server {}

impl echo::Server for Server {
    const NAME: &str = env!("CARGO_PKG_NAME");
    const ABOUT: &str = env!("CARGO_PKG_DESCRIPTION");
    const HELP: &str = include_str!("help.txt");
    type Flags = Flags;
    type Stop = StopSignal;

    fn transport(flags: &Flags, addr: SocketAddr) -> Result<SockType, String> {
        udp::transport(flags, addr)
    }

    fn serve<W: Watch>(
        listener: Listener,
        stop: StopSignal,
        flags: Flags,
        watch: W,
    ) -> Result<()> {
        match flags.udp {
            false => EventLoop::new(listener, stop, flags, watch)?.run(),
            true => udp::EventLoop::new(listener, stop, flags, watch)?.run(),
        }
    }
}

struct EventLoop<W> {
    listener: Listener,
    stop: StopSignal,
    connections: Connections<Connection>,
    scratch: Scratch,
    ready: Vec<Fd>,
    signals: Signals,
    list: Vec<pollfd>,
    watch: W,
}

struct Connection {
    socket: OwnedFd,
    pending: Pending,
}

impl<W: Watch> EventLoop<W> {
    fn new(
        listener: Listener,
        stop: StopSignal,
        flags: Flags,
        watch: W,
    ) -> Result<Self> {
        let signals = Signals::new(&flags)?;
        let fd = listener.fd();
        signals.ask(watch, fd, &listener).context("fcntl")?;
        let mut ready = Vec::with_capacity(256);
        // Whoever came before the signals were asked for was not told.
        ready.push(fd);
        Ok(EventLoop {
            scratch: Scratch::new(listener.buffer()),
            listener,
            stop,
            connections: Connections::default(),
            ready,
            signals,
            list: Vec::new(),
            watch,
        })
    }

    fn run(mut self) -> Result<()> {
        while !self.stop.finished(self.connections.len()) {
            self.wait_ready()?;
            let count = self.ready.len();
            for i in 0..count {
                let fd = self.ready[i];
                if fd == self.listener.fd() {
                    self.on_acceptable()?;
                } else if self.on_ready(fd) == Err(Gone) {
                    self.on_gone(fd);
                }
            }
            self.ready.drain(..count);
        }
        Ok(())
    }

    /// Wait phase: a signal says who is ready. All that are queued are taken
    /// before anyone is served: else a client that never pauses would have the
    /// others' signals wait behind each of its own.
    fn wait_ready(&mut self) -> Result<()> {
        // Clients that came while none was wanted will not be told again.
        if let Some(true) = self.listener.change(self.connections.len()) {
            self.ready.push(self.listener.fd());
        }
        let mut timeout = self.listener.timeout(&self.stop, &self.ready);
        let (mut taken, mut unknown) = (0, false);
        while taken < QUEUE
            && let Some(signal) = self.signals.next(self.watch, timeout)?
        {
            match signal {
                Signal::Ready(fd) => self.ready.push(fd),
                Signal::Somebody(overflow) => {
                    if overflow {
                        tally().add_overflow();
                    }
                    unknown = true;
                }
                Signal::Stop => self.on_stop(),
                Signal::Stray => {}
            }
            timeout = Timeout::ZERO;
            taken += 1;
        }
        if unknown {
            taken += self.look_at_all()?;
        }
        // Whoever was left on the list, or sent much, may stand there twice.
        self.ready.sort_unstable();
        self.ready.dedup();
        self.watch.ready(&self.ready, taken);
        Ok(())
    }

    /// Nobody knows whose signals were lost, so everyone is asked: one poll
    /// finds all that they would have told, and costs what poll costs.
    fn look_at_all(&mut self) -> Result<usize> {
        self.list.clear();
        let entry = |fd, events| pollfd { fd, events, revents: 0 };
        self.list.push(entry(self.listener.fd(), POLLIN));
        self.list.extend(self.connections.iter().map(|(fd, it)| {
            let events = if it.pending.is_empty() { POLLIN } else { POLLOUT };
            entry(fd, events)
        }));
        let length = self.list.len();
        loop {
            let look = || sys::poll_now(&mut self.list);
            match self.watch.wait("poll", length, look) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(err) => return Err(err).context("poll"),
            }
        }
        let ready = self.list.iter().filter(|entry| entry.revents != 0);
        self.ready.extend(ready.map(|entry| entry.fd));
        Ok(length)
    }

    /// Takes clients until there is none: no signal will tell of the others.
    fn on_acceptable(&mut self) -> Result<()> {
        self.listener.disarm();
        for _ in 0..BUDGET.min(self.listener.room(self.connections.len())) {
            let listener = self.listener.as_fd();
            let take = || accept4(listener, SockFlag::SOCK_NONBLOCK);
            match self.watch.take("accept4", listener, take) {
                Ok(socket) => self.on_accepted(socket),
                Err(err) => {
                    return self.listener.on_error(err, self.connections.len());
                }
            }
        }
        Ok(())
    }

    fn on_accepted(&mut self, socket: OwnedFd) {
        let fd = socket.as_raw_fd();
        let asked = self.signals.ask(self.watch, fd, &socket);
        // fcntl(2): ENOMEM. Nothing would ever be heard of it.
        let Ok(()) = asked else { return };
        let pending = Pending::default();
        self.connections.insert(fd, Connection { socket, pending });
        // What came before the signals were asked for was not told.
        self.ready.push(fd);
    }

    /// Copy phase: receive and send to EAGAIN. What is left is not told again.
    fn on_ready(&mut self, fd: Fd) -> Result<(), Gone> {
        let watch = self.watch;
        let Some(connection) = self.connections.get_mut(fd) else {
            return Ok(());
        };
        let socket = connection.socket.as_fd();
        let mut pending = connection.pending.turn(&mut self.scratch);
        for _ in 0..BUDGET {
            if pending.is_empty() {
                let copy = || recv(fd, pending.room(), MsgFlags::empty());
                match watch.copy("recv", socket, copy) {
                    Ok(0) => return Err(Gone),
                    Ok(_) if self.stop.asked() => continue,
                    Ok(n) => pending.filled(n),
                    Err(Errno::EAGAIN) => return Ok(()),
                    Err(Errno::EINTR) => continue,
                    Err(err) => return Err(err.into()),
                }
            }
            // A peer that has gone is EPIPE, and no deadly SIGPIPE: send(2).
            let copy = || send(fd, pending.owed(), MsgFlags::MSG_NOSIGNAL);
            match watch.copy("send", socket, copy) {
                Ok(n) => pending.sent(n),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(err) => return Err(err.into()),
            }
            if pending.is_empty() && self.stop.asked() {
                watch.ask("shutdown", fd, || shutdown(fd, Shutdown::Write))?;
            }
        }
        self.ready.push(fd);
        Ok(())
    }

    /// One peer is done for. Its number may come back with a new client, and
    /// signals of the old one may still be queued then: they name a number and
    /// nothing else (fcntl(2), F_SETSIG). That is harmless: the new one's recv
    /// finds nothing (EAGAIN), or what it would find anyway.
    fn on_gone(&mut self, fd: Fd) {
        let Some(connection) = self.connections.remove(fd) else { return };
        self.watch.ask("close", fd, || close(connection.socket)).ok();
    }

    /// Accepts nobody from now on. Peers that are owed nothing are sent our
    /// FIN now, the others after their last byte. What comes in until their
    /// own FIN is dropped: closing with bytes unread would reset them.
    fn on_stop(&mut self) {
        self.stop.take();
        self.listener.close();
        let connections = self.connections.iter();
        for (fd, _) in connections.filter(|(_, it)| it.pending.is_empty()) {
            let finish = || shutdown(fd, Shutdown::Write);
            self.watch.ask("shutdown", fd, finish).ok();
        }
    }
}

//! Echo with edge-triggered epoll: each *change* to ready is reported once.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use echo::{
    Connections, Fd, Gone, Listener, NoFlags, Pending, Scratch, Stop, StopFd,
    Watch, accept4,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, Shutdown, SockFlag, recv, send, shutdown};
use nix::unistd::close;

type Wanted = EpollFlags;
const READ: Wanted = Wanted::EPOLLIN.union(Wanted::EPOLLET);
const BOTH: Wanted = READ.union(Wanted::EPOLLOUT);
/// Copies of one descriptor, or clients taken, before the others' turn.
const BUDGET: usize = 16;

/// The server that `main` starts.
pub enum Server {}

impl echo::Server for Server {
    const NAME: &str = env!("CARGO_PKG_NAME");
    const ABOUT: &str = env!("CARGO_PKG_DESCRIPTION");
    const HELP: &str = include_str!("help.txt");
    type Flags = NoFlags;
    type Stop = StopFd;

    fn serve<W: Watch>(
        listener: Listener,
        stop: StopFd,
        _: NoFlags,
        watch: W,
    ) -> Result<()> {
        EventLoop::new(listener, stop, watch)?.run()
    }
}

struct EventLoop<W> {
    listener: Listener,
    stop: StopFd,
    connections: Connections<Connection>,
    scratch: Scratch,
    ready: Vec<Fd>,
    list: Epoll,
    events: Vec<EpollEvent>,
    watch: W,
}

struct Connection {
    socket: OwnedFd,
    pending: Pending,
}

impl<W: Watch> EventLoop<W> {
    fn new(listener: Listener, stop: StopFd, watch: W) -> Result<Self> {
        let nonblocking = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        watch.ask("fcntl", listener.fd(), || fcntl(&listener, nonblocking))?;
        let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for socket in [listener.as_fd(), stop.as_fd()] {
            let fd = socket.as_raw_fd();
            let event = EpollEvent::new(READ, fd as u64);
            watch.ask("epoll_ctl", fd, || list.add(socket, event))?;
        }
        Ok(EventLoop {
            scratch: Scratch::new(listener.buffer()),
            listener,
            stop,
            connections: Connections::default(),
            ready: Vec::with_capacity(256),
            list,
            events: vec![EpollEvent::empty(); 256],
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
                } else if fd == self.stop.fd() {
                    self.on_stop();
                } else if self.on_ready(fd) == Err(Gone) {
                    self.on_gone(fd);
                }
            }
            self.ready.drain(..count);
        }
        Ok(())
    }

    /// Wait phase: one call sleeps for every descriptor at once.
    fn wait_ready(&mut self) -> Result<()> {
        // Clients that came while none was wanted will not be reported again.
        if let Some(true) = self.listener.change(self.connections.len()) {
            self.ready.push(self.listener.fd());
        }
        let timeout = self.listener.timeout(&self.stop, &self.ready);
        let asked = self.connections.len() + 2;
        let wait = || self.list.wait(&mut self.events, timeout);
        let n = match self.watch.wait("epoll_wait", asked, wait) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(err) => return Err(err).context("cannot wait"),
        };
        self.ready.extend(self.events[..n].iter().map(|it| it.data() as Fd));
        // Whoever was left on the list may have been reported again.
        self.ready.sort_unstable();
        self.ready.dedup();
        self.watch.ready(&self.ready, n);
        Ok(())
    }

    /// Takes clients until there is none: no edge will tell of the others.
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
        let add = || self.list.add(&socket, EpollEvent::new(BOTH, fd as u64));
        // epoll_ctl(2): ENOMEM, ENOSPC. Nothing would ever be heard of it.
        let Ok(()) = self.watch.ask("epoll_ctl", fd, add) else { return };
        let pending = Pending::default();
        self.connections.insert(fd, Connection { socket, pending });
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

    /// One peer is done for. Its number may come back with a new client in
    /// this very batch. A turn meant for the old one is harmless then: the
    /// new one's recv finds nothing (EAGAIN), or what it would find anyway.
    fn on_gone(&mut self, fd: Fd) {
        let Some(connection) = self.connections.remove(fd) else { return };
        // epoll(7): closing the last descriptor also ends the interest in it.
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

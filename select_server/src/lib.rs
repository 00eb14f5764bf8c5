//! Echo with select: one call sleeps for all clients. It overwrites the sets of
//! wanted descriptors with the ready ones, so each wait needs fresh ones.
mod interests;
mod sys;

use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use echo::{
    Connections, Fd, Gone, Listener, NoFlags, Pending, Scratch, Stop, StopFd,
    Watch, accept4,
};
use interests::{Interests, Wanted};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, Shutdown, SockFlag, recv, send, shutdown};
use nix::unistd::close;

const READ: Wanted = Wanted::Read;
const WRITE: Wanted = Wanted::Write;

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
    list: Interests,
    watch: W,
}

struct Connection {
    socket: OwnedFd,
    pending: Pending,
    wanted: Wanted,
}

impl<W: Watch> EventLoop<W> {
    fn new(listener: Listener, stop: StopFd, watch: W) -> Result<Self> {
        let nonblocking = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        watch.ask("fcntl", listener.fd(), || fcntl(&listener, nonblocking))?;
        let mut list = Interests::default();
        for socket in [listener.as_fd(), stop.as_fd()] {
            let fd = socket.as_raw_fd();
            ensure!(sys::fits(fd), "descriptor {fd}: FD_SETSIZE is 1024");
            list.set(fd, READ);
        }
        Ok(EventLoop {
            scratch: Scratch::new(listener.buffer()),
            listener,
            stop,
            connections: Connections::default(),
            ready: Vec::with_capacity(256),
            list,
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
        // A client that may not be accepted would end every wait at once.
        if let Some(wanted) = self.listener.change(self.connections.len()) {
            let wanted = if wanted { READ } else { Wanted::Nothing };
            self.list.set(self.listener.fd(), wanted);
        }
        let timeout = self.listener.timeout(&self.stop, &self.ready);
        let asked = self.connections.len() + 2;
        let (mut sets, end) = (self.list.copies(), self.list.end());
        let wait = || sys::select(end, &mut sets, timeout.timeval());
        let n = match self.watch.wait("select", asked, wait) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(err) => return Err(err).context("cannot wait"),
        };
        self.ready.extend(interests::ready(&sets, end).take(n));
        self.watch.ready(&self.ready, end as usize);
        Ok(())
    }

    /// Takes one client; the next wait reports the others.
    fn on_acceptable(&mut self) -> Result<()> {
        let listener = self.listener.as_fd();
        let take = || accept4(listener, SockFlag::SOCK_NONBLOCK);
        match self.watch.take("accept4", listener, take) {
            Ok(socket) => self.on_accepted(socket),
            Err(err) => {
                return self.listener.on_error(err, self.connections.len());
            }
        }
        Ok(())
    }

    fn on_accepted(&mut self, socket: OwnedFd) {
        let fd = socket.as_raw_fd();
        // There is no bit for it in a set: FD_SET would write past the end.
        if !sys::fits(fd) {
            self.watch.ask("close", fd, || close(socket)).ok();
            self.listener.refused("its descriptor is beyond FD_SETSIZE, 1024");
            return;
        }
        self.list.set(fd, READ);
        let pending = Pending::default();
        let connection = Connection { socket, pending, wanted: READ };
        self.connections.insert(fd, connection);
    }

    /// Copy phase: receive once, send once. What is left ends the next wait.
    fn on_ready(&mut self, fd: Fd) -> Result<(), Gone> {
        let watch = self.watch;
        let Some(connection) = self.connections.get_mut(fd) else {
            return Ok(());
        };
        let socket = connection.socket.as_fd();
        let mut pending = connection.pending.turn(&mut self.scratch);
        if pending.is_empty() {
            let copy = || recv(fd, pending.room(), MsgFlags::empty());
            match watch.copy("recv", socket, copy) {
                Ok(0) => return Err(Gone),
                Ok(_) if self.stop.asked() => return Ok(()),
                Ok(n) => pending.filled(n),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
                Err(err) => return Err(err.into()),
            }
        }
        // A peer that has gone is EPIPE, and no deadly SIGPIPE: send(2).
        let copy = || send(fd, pending.owed(), MsgFlags::MSG_NOSIGNAL);
        match watch.copy("send", socket, copy) {
            Ok(n) => pending.sent(n),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(err) => return Err(err.into()),
        }
        if pending.is_empty() && self.stop.asked() {
            watch.ask("shutdown", fd, || shutdown(fd, Shutdown::Write))?;
        }
        // To ask for room while nothing is owed would end every wait at once.
        let wanted = if pending.is_empty() { READ } else { WRITE };
        if mem::replace(&mut connection.wanted, wanted) == wanted {
            return Ok(());
        }
        self.list.set(fd, wanted);
        Ok(())
    }

    /// One peer is done for. Its number may come back with a new client in
    /// this very batch. A turn meant for the old one is harmless then: the
    /// new one's recv finds nothing (EAGAIN), or what it would find anyway.
    fn on_gone(&mut self, fd: Fd) {
        let Some(connection) = self.connections.remove(fd) else { return };
        self.list.remove(fd);
        self.watch.ask("close", fd, || close(connection.socket)).ok();
    }

    /// Accepts nobody from now on. Peers that are owed nothing are sent our
    /// FIN now, the others after their last byte. What comes in until their
    /// own FIN is dropped: closing with bytes unread would reset them.
    fn on_stop(&mut self) {
        self.stop.take();
        self.list.remove(self.listener.fd());
        self.listener.close();
        let connections = self.connections.iter();
        for (fd, _) in connections.filter(|(_, it)| it.pending.is_empty()) {
            let finish = || shutdown(fd, Shutdown::Write);
            self.watch.ask("shutdown", fd, finish).ok();
        }
    }
}

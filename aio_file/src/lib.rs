//! Echo through a file: poll waits for the sockets, and every message goes to
//! a spool and back by POSIX AIO. Threads of glibc's do that meanwhile.
mod flags;
mod interests;
mod notices;
mod operations;
mod spool;
mod sys;

use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use echo::{
    Connections, Fd, Gone, Listener, Pending, Scratch, Stop, StopFd, Watch,
    accept4, tally,
};
use flags::Flags;
use interests::Interests;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, SockFlag, recv, send, shutdown};
use nix::unistd::close;
use notices::Notices;
use operations::Operations;
use spool::Spool;

type Wanted = PollFlags;
const READ: Wanted = Wanted::POLLIN;
const WRITE: Wanted = Wanted::POLLOUT;

/// The server that `main` starts.
pub enum Server {}

impl echo::Server for Server {
    const NAME: &str = env!("CARGO_PKG_NAME");
    const ABOUT: &str = env!("CARGO_PKG_DESCRIPTION");
    const HELP: &str = include_str!("help.txt");
    type Flags = Flags;
    type Stop = StopFd;

    fn serve<W: Watch>(
        listener: Listener,
        stop: StopFd,
        flags: Flags,
        watch: W,
    ) -> Result<()> {
        EventLoop::new(listener, stop, flags, watch)?.run()
    }
}

struct EventLoop<W> {
    listener: Listener,
    stop: StopFd,
    connections: Connections<Connection>,
    scratch: Scratch,
    ready: Vec<Fd>,
    list: Interests,
    operations: Operations,
    notices: Notices,
    watch: W,
}

struct Connection {
    socket: OwnedFd,
    pending: Pending,
    /// Nothing, while its bytes are in the spool.
    wanted: Wanted,
}

impl<W: Watch> EventLoop<W> {
    fn new(
        listener: Listener,
        stop: StopFd,
        flags: Flags,
        watch: W,
    ) -> Result<Self> {
        let (count, buffer) = (flags.operations, listener.buffer());
        let spool = Spool::open(flags.spool.as_deref())?;
        let notices = Notices::new(flags.notify, watch)?;
        let operations = Operations::new(spool, count, buffer, flags.notify);
        let nonblocking = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        watch.ask("fcntl", listener.fd(), || fcntl(&listener, nonblocking))?;
        let mut list = Interests::default();
        for socket in [listener.as_fd(), stop.as_fd()] {
            let fd = socket.as_raw_fd();
            list.set(fd, READ);
        }
        if notices.fd() >= 0 {
            list.set(notices.fd(), READ);
        }
        Ok(EventLoop {
            scratch: Scratch::of(buffer, count),
            listener,
            stop,
            connections: Connections::default(),
            ready: Vec::with_capacity(256),
            list,
            operations,
            notices,
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
                } else if fd == self.notices.fd() {
                    self.notices.read(self.watch, &mut self.operations);
                } else if self.on_ready(fd) == Err(Gone) {
                    self.on_gone(fd);
                }
            }
            self.ready.drain(..count);
            self.on_ended();
        }
        Ok(())
    }

    /// Wait phase: one call sleeps for every socket at once. A file is always
    /// ready, as poll(2) has it, so what is done in it needs its own notice.
    fn wait_ready(&mut self) -> Result<()> {
        // A client that may not be accepted would end every wait at once.
        if let Some(wanted) = self.listener.change(self.connections.len()) {
            let wanted = if wanted { READ } else { Wanted::empty() };
            self.list.set(self.listener.fd(), wanted);
        }
        let timeout = self.listener.timeout(&self.stop, &self.ready);
        let timeout = self.operations.timeout(timeout.millis());
        let asked = self.connections.len() - self.operations.clients();
        let asked = asked + 2 + usize::from(self.notices.fd() >= 0);
        let wait = || sys::poll(self.list.entries(), timeout);
        let n = match self.watch.wait("poll", asked, wait) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(err) => return Err(err).context("cannot wait"),
        };
        self.ready.extend(self.list.ready(n));
        self.watch.ready(&self.ready, self.list.len());
        // One call cannot wait for both: while aio_suspend sleeps, no socket
        // is looked at.
        let quiet = self.operations.quiet();
        if quiet > 0 && self.ready.is_empty() {
            let wait = || self.operations.suspend();
            self.watch.wait("aio_suspend", quiet, wait).ok();
        }
        self.operations.ask();
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
        self.list.set(fd, READ);
        let pending = Pending::default();
        let connection = Connection { socket, pending, wanted: READ };
        self.connections.insert(fd, connection);
    }

    /// Copy phase: receive once, and what came goes through the spool; or,
    /// when it is back, send once. What is left ends the next wait.
    fn on_ready(&mut self, fd: Fd) -> Result<(), Gone> {
        let watch = self.watch;
        let Some(connection) = self.connections.get_mut(fd) else {
            return Ok(());
        };
        let full = self.operations.all_busy() && !self.stop.asked();
        if full && connection.pending.is_empty() {
            self.list.remove(fd);
            self.operations.queue(fd);
            return Ok(());
        }
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
            drop(pending);
            // One operation at a time keeps the order. Until it is back the
            // client is not in the list: if it went away, POLLHUP, which need
            // not be wanted, would end every wait at once.
            connection.wanted = Wanted::empty();
            self.list.remove(fd);
            let bytes = mem::take(&mut connection.pending);
            let slot = self.operations.begin(fd, bytes);
            self.submit(slot);
            return Ok(());
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

    /// Gives an operation away, to be done by a thread of glibc's.
    fn submit(&mut self, slot: usize) {
        let Some(it) = self.operations.get_mut(slot) else { return };
        let (call, client, region) = (it.call, it.client, it.region());
        match self.watch.submit(call, client, region, || it.submit()) {
            // Short of memory or threads: it is tried again later.
            Ok(()) | Err(Errno::EAGAIN) => {}
            Err(err) => self.on_failed(slot, err),
        }
    }

    /// Operations may have ended, and so there may be slots for who waits.
    fn on_ended(&mut self) {
        while let Some(slot) = self.operations.next_ended() {
            self.on_completed(slot);
        }
        while let Some(fd) = self.operations.next_client() {
            self.list.set(fd, READ);
            if self.on_ready(fd) == Err(Gone) {
                self.on_gone(fd);
            }
        }
    }

    /// An operation has ended, unless its notice came late or is not true:
    /// then nothing has, or what has is due anyway. After the way there comes
    /// the way back, and after that the client.
    fn on_completed(&mut self, slot: usize) {
        let Some(it) = self.operations.get_mut(slot) else { return };
        if it.waits() {
            return self.submit(slot);
        } else if !it.has_ended() {
            return;
        }
        let (call, client, region) = (it.call, it.client, it.region());
        match self.watch.complete(call, client, region, || it.result()) {
            // Somebody has made the spool shorter.
            Ok(0) => self.on_failed(slot, Errno::ENODATA),
            Ok(n) if it.moved(n) => self.submit(slot),
            Ok(_) => self.on_copied(slot),
            // Done or not: glibc says so when it could not send the notice.
            Err(Errno::EAGAIN) if self.operations.repeat(slot) => {
                tally().add_repeated();
                self.submit(slot);
            }
            Err(err) => self.on_failed(slot, err),
        }
    }

    /// A message is back from the spool; its slot is free, however long its
    /// client takes to read.
    fn on_copied(&mut self, slot: usize) {
        let (fd, bytes) = self.operations.end(slot);
        let Some(connection) = self.connections.get_mut(fd) else { return };
        connection.pending = bytes;
        if self.on_ready(fd) == Err(Gone) {
            self.on_gone(fd);
        }
    }

    /// A message is lost, and so is its client.
    fn on_failed(&mut self, slot: usize, err: Errno) {
        let Some(it) = self.operations.get_mut(slot) else { return };
        let (call, why) = (it.call, err.desc());
        let why = format!("{call}: {why} ({err:?}); choose another --spool");
        self.listener.dropped(&why);
        let (fd, _) = self.operations.fail(slot);
        self.on_gone(fd);
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
        // It may have gone to a thread of glibc's, which sends it here.
        if !self.stop.asked() {
            return;
        }
        for fd in self.operations.all_waiting() {
            self.list.set(fd, READ);
        }
        self.list.remove(self.listener.fd());
        self.listener.close();
        let connections = self.connections.iter();
        for (fd, _) in connections.filter(|(_, it)| it.wanted == READ) {
            let finish = || shutdown(fd, Shutdown::Write);
            self.watch.ask("shutdown", fd, finish).ok();
        }
    }
}

//! Echo with blocking calls: `accept` sleeps until a client comes, `recv` until
//! it has sent something. One client at a time; the others wait in the kernel.
mod flags;
mod per_process;
mod per_thread;
mod pool;
mod sys;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use echo::{Gone, Listener, Pending, Scratch, Stop, StopFlag, Watch, accept4};
use flags::{Flags, Per};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, SockFlag, recv, send, shutdown};
use nix::unistd::close;

/// The server that `main` starts.
pub enum Server {}

impl echo::Server for Server {
    const NAME: &str = env!("CARGO_PKG_NAME");
    const ABOUT: &str = env!("CARGO_PKG_DESCRIPTION");
    const HELP: &str = include_str!("help.txt");
    type Flags = Flags;
    type Stop = StopFlag;

    fn serve<W: Watch>(
        listener: Listener,
        stop: StopFlag,
        flags: Flags,
        watch: W,
    ) -> Result<()> {
        stop.shuts(&listener);
        match (flags.per, flags.pool) {
            (Some(Per::Process), _) => {
                per_process::EventLoop::new(listener, stop, watch).run()
            }
            (Some(Per::Thread), _) => {
                per_thread::EventLoop::new(listener, stop, watch).run()
            }
            (None, Some(n)) => {
                pool::EventLoop::new(listener, stop, watch).run(n)
            }
            (None, None) => EventLoop::new(listener, stop, watch).run(),
        }
    }
}

struct EventLoop<W> {
    listener: Listener,
    stop: StopFlag,
    scratch: Scratch,
    watch: W,
}

struct Connection<'a, W> {
    socket: OwnedFd,
    pending: Pending,
    scratch: &'a mut Scratch,
    stop: StopFlag,
    watch: W,
}

impl<W: Watch> EventLoop<W> {
    fn new(listener: Listener, stop: StopFlag, watch: W) -> Self {
        let scratch = Scratch::new(listener.buffer());
        EventLoop { listener, stop, scratch, watch }
    }

    fn run(mut self) -> Result<()> {
        while !self.stop.asked() {
            self.on_acceptable()?;
        }
        Ok(())
    }

    /// Takes one client, and serves it to its end before the next.
    fn on_acceptable(&mut self) -> Result<()> {
        rest(&mut self.listener, self.stop, || 0);
        let listener = self.listener.as_fd();
        let take = || accept4(listener, SockFlag::empty());
        match self.watch.take("accept4", listener, take) {
            Ok(socket) => self.on_accepted(socket),
            // A stop has shut the listener down.
            Err(Errno::EINVAL) if self.stop.asked() => {}
            Err(err) => self.listener.on_error(err, 0)?,
        }
        Ok(())
    }

    fn on_accepted(&mut self, socket: OwnedFd) {
        Connection::new(socket, &mut self.scratch, self.stop, self.watch).run();
    }
}

impl<'a, W: Watch> Connection<'a, W> {
    fn new(
        socket: OwnedFd,
        scratch: &'a mut Scratch,
        stop: StopFlag,
        watch: W,
    ) -> Self {
        let pending = Pending::default();
        Connection { socket, pending, scratch, stop, watch }
    }

    /// Serves one client to its end.
    fn run(mut self) {
        let interrupted = self.stop.interrupts(&self.socket);
        while self.on_ready() != Err(Gone) {
            if self.stop.asked() && self.pending.is_empty() {
                self.on_stop();
                break;
            }
        }
        drop(interrupted);
        let fd = self.socket.as_raw_fd();
        self.watch.ask("close", fd, || close(self.socket)).ok();
    }

    /// Both phases at once: `recv` sleeps until there are bytes and copies
    /// them, `send` sleeps until there is room for them.
    fn on_ready(&mut self) -> Result<(), Gone> {
        let watch = self.watch;
        let socket = self.socket.as_fd();
        let fd = socket.as_raw_fd();
        let mut pending = self.pending.turn(self.scratch);
        if pending.is_empty() {
            let copy = || recv(fd, pending.room(), MsgFlags::empty());
            match watch.wait_and_copy("recv", socket, copy) {
                Ok(0) => return Err(Gone),
                Ok(n) => pending.filled(n),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
                Err(err) => return Err(err.into()),
            }
        }
        // A peer that has gone is EPIPE, and no deadly SIGPIPE: send(2).
        let copy = || send(fd, pending.owed(), MsgFlags::MSG_NOSIGNAL);
        match watch.wait_and_copy("send", socket, copy) {
            Ok(n) => pending.sent(n),
            Err(Errno::EAGAIN | Errno::EINTR) if !self.stop.overdue() => {}
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }

    /// The peer is owed nothing and is sent our FIN. What comes in until its
    /// own FIN is dropped: closing with bytes unread would reset it.
    fn on_stop(&mut self) {
        let socket = self.socket.as_fd();
        let fd = socket.as_raw_fd();
        let finish = || shutdown(fd, Shutdown::Write);
        self.watch.ask("shutdown", fd, finish).ok();
        let mut pending = self.pending.turn(self.scratch);
        while !self.stop.overdue() {
            let drop = || recv(fd, pending.room(), MsgFlags::empty());
            match self.watch.wait_and_copy("recv", socket, drop) {
                Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}

/// Sleeps while no client may be accepted: a blocking server has nothing else
/// to do meanwhile.
fn rest(
    listener: &mut Listener,
    stop: StopFlag,
    connections: impl Fn() -> usize,
) {
    while !listener.wanted(connections()) && !stop.asked() {
        sleep(Duration::from_millis(5));
    }
}

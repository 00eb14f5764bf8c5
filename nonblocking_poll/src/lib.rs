//! Echo by busy polling: with O_NONBLOCK a call returns at once instead of
//! sleeping, so one thread can go round all clients, asking and asking.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use echo::{
    Connections, Fd, Gone, Listener, Pending, Scratch, Stop, StopFlag, Watch,
    accept4, tally,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, Shutdown, SockFlag, recv, send, shutdown};
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
use nix::unistd::close;

/// Clients taken in one round, before the others' turn.
const BUDGET: usize = 64;

/// What this model adds to the common command line.
#[derive(Args)]
pub struct Flags {
    /// Sleep so long between two rounds: less CPU, more latency
    #[arg(long, value_name = "DURATION",
          value_parser = echo::duration)]
    pause: Option<Duration>,
}

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
        EventLoop::new(listener, stop, flags, watch)?.run()
    }
}

struct EventLoop<W> {
    listener: Listener,
    stop: StopFlag,
    pause: Option<Duration>,
    connections: Connections<Connection>,
    scratch: Scratch,
    ready: Vec<Fd>,
    wasted: u64,
    watch: W,
}

struct Connection {
    socket: OwnedFd,
    pending: Pending,
}

impl<W: Watch> EventLoop<W> {
    fn new(
        listener: Listener,
        stop: StopFlag,
        flags: Flags,
        watch: W,
    ) -> Result<Self> {
        let nonblocking = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        watch.ask("fcntl", listener.fd(), || fcntl(&listener, nonblocking))?;
        Ok(EventLoop {
            scratch: Scratch::new(listener.buffer()),
            listener,
            stop,
            pause: flags.pause,
            connections: Connections::default(),
            ready: Vec::with_capacity(256),
            wasted: 0,
            watch,
        })
    }

    fn run(mut self) -> Result<()> {
        while !self.stop.finished(self.connections.len()) {
            self.wait_ready();
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
        tally().add_wasted(self.wasted);
        Ok(())
    }

    /// No wait phase: nobody says who is ready, so everyone might be. A pause
    /// makes it sleep after all, but not for anything: it may oversleep.
    fn wait_ready(&mut self) {
        if let Some(pause) = self.pause {
            let sleep = || sleep(pause);
            self.watch.wait("clock_nanosleep", 0, sleep).ok();
        }
        if self.stop.asked() && self.listener.is_open() {
            self.on_stop();
        }
        if self.listener.wanted(self.connections.len()) {
            self.ready.push(self.listener.fd());
        }
        self.ready.extend(self.connections.iter().map(|(fd, _)| fd));
    }

    /// Takes the clients that are there. To take one in each round would make
    /// a crowd wait, for every one that is taken makes the round longer.
    fn on_acceptable(&mut self) -> Result<()> {
        for _ in 0..BUDGET.min(self.listener.room(self.connections.len())) {
            let listener = self.listener.as_fd();
            let take = || accept4(listener, SockFlag::SOCK_NONBLOCK);
            match self.watch.take("accept4", listener, take) {
                Ok(socket) => self.on_accepted(socket),
                Err(err) => {
                    self.wasted += u64::from(err == Errno::EAGAIN);
                    return self.listener.on_error(err, self.connections.len());
                }
            }
        }
        Ok(())
    }

    fn on_accepted(&mut self, socket: OwnedFd) {
        let fd = socket.as_raw_fd();
        let pending = Pending::default();
        self.connections.insert(fd, Connection { socket, pending });
    }

    /// Copy phase: receive once, send once. Mostly there is nothing to copy,
    /// and the call was wasted.
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
                Err(err @ (Errno::EAGAIN | Errno::EINTR)) => {
                    self.wasted += u64::from(err == Errno::EAGAIN);
                    return Ok(());
                }
                Err(err) => return Err(err.into()),
            }
        }
        // A peer that has gone is EPIPE, and no deadly SIGPIPE: send(2).
        let copy = || send(fd, pending.owed(), MsgFlags::MSG_NOSIGNAL);
        match watch.copy("send", socket, copy) {
            Ok(n) => pending.sent(n),
            Err(Errno::EAGAIN) => self.wasted += 1,
            Err(Errno::EINTR) => {}
            Err(err) => return Err(err.into()),
        }
        if pending.is_empty() && self.stop.asked() {
            watch.ask("shutdown", fd, || shutdown(fd, Shutdown::Write))?;
        }
        Ok(())
    }

    /// One peer is done for. Its number may come back with a new client in
    /// this very batch. A turn meant for the old one is harmless then: the
    /// new one's recv finds nothing (EAGAIN), or what it would find anyway.
    fn on_gone(&mut self, fd: Fd) {
        let Some(connection) = self.connections.remove(fd) else { return };
        self.watch.ask("close", fd, || close(connection.socket)).ok();
    }

    /// Accepts nobody from now on. Peers that are owed nothing are sent our
    /// FIN now, the others after their last byte. What comes in until their
    /// own FIN is dropped: closing with bytes unread would reset them.
    fn on_stop(&mut self) {
        self.listener.close();
        let connections = self.connections.iter();
        for (fd, _) in connections.filter(|(_, it)| it.pending.is_empty()) {
            let finish = || shutdown(fd, Shutdown::Write);
            self.watch.ask("shutdown", fd, finish).ok();
        }
    }
}

fn sleep(pause: Duration) -> nix::Result<()> {
    let flags = ClockNanosleepFlags::empty();
    clock_nanosleep(ClockId::CLOCK_MONOTONIC, flags, &pause.into()).map(drop)
}

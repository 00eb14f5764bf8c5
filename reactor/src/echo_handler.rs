//! The handler of a client, in every form but one: what it received it sends
//! back, in order, until the client has closed its side.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use echo::{Gone, Pending, Watch};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use nix::unistd::close;

use crate::board::Seat;
use crate::business::Slow;
use crate::demultiplexer::Interest;
use crate::forms::pool::{Job, Jobs};
use crate::reactor::{Handler, Next, Reactor};
use crate::timers::Timer;

const READ: Interest = Interest::Read;
const WRITE: Interest = Interest::Write;

/// What holds for all connections of a reactor.
pub struct Rules<W> {
    /// What happens to a message before it is sent back.
    pub slow: Slow,
    /// Who does that; nobody: the reactor's own thread.
    pub jobs: Option<Jobs<W>>,
    /// Whoever says nothing, and takes nothing, for so long is closed.
    pub idle_timeout: Option<Duration>,
    /// Where it is counted that one has gone, if others are to know.
    pub seat: Option<Seat>,
}

/// One client.
pub struct Echo<W> {
    socket: OwnedFd,
    pending: Pending,
    /// Its message is with a worker.
    away: bool,
    /// When it last said or took something, if that matters.
    active: Option<Instant>,
    rules: Rc<Rules<W>>,
    watch: W,
}

impl<W: Watch> Echo<W> {
    /// A client that has just been accepted.
    pub fn new(socket: OwnedFd, rules: &Rc<Rules<W>>, watch: W) -> Self {
        let (pending, rules) = (Pending::default(), Rc::clone(rules));
        Echo { socket, pending, away: false, active: None, rules, watch }
    }

    /// The worker is done with the message.
    pub fn answered(
        &mut self,
        pending: Pending,
        reactor: &mut Reactor<Self>,
    ) -> Result<Next, Gone> {
        (self.pending, self.away) = (pending, false);
        self.send(false, reactor)
    }

    /// Sends what is owed; `drained`: there was nothing more to receive.
    fn send(
        &mut self,
        drained: bool,
        reactor: &mut Reactor<Self>,
    ) -> Result<Next, Gone> {
        let watch = self.watch;
        let fd = self.socket.as_raw_fd();
        let stopping = reactor.is_stopping();
        let mut pending = self.pending.turn(reactor.scratch());
        // A peer that has gone is EPIPE, and no deadly SIGPIPE: send(2).
        let copy = || send(fd, pending.owed(), MsgFlags::MSG_NOSIGNAL);
        match watch.copy("send", &self.socket, copy) {
            Ok(n) => pending.sent(n),
            Err(Errno::EAGAIN) => return Ok(Next::Wait(WRITE)),
            Err(Errno::EINTR) => {}
            Err(err) => return Err(err.into()),
        }
        let is_owed = !pending.is_empty();
        drop(pending);
        self.is_active(reactor);
        if is_owed {
            return Ok(Next::Again(WRITE));
        }
        if stopping {
            watch.ask("shutdown", fd, || shutdown(fd, Shutdown::Write))?;
        }
        Ok(if drained { Next::Wait(READ) } else { Next::Again(READ) })
    }

    /// It has said or taken something. Nobody asks for the time who has no use
    /// for it.
    fn is_active(&mut self, reactor: &mut Reactor<Self>) {
        if self.active.is_some() {
            self.active = Some(reactor.now());
        }
    }
}

impl<W: Watch> Handler for Echo<W> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn opened(&mut self, reactor: &mut Reactor<Self>) {
        if let Some(limit) = self.rules.idle_timeout {
            self.active = Some(reactor.now());
            reactor.after(reactor.current(), limit);
        }
    }

    /// Copy phase: receive once, send once; between them stands what a real
    /// service does with a message.
    fn readable(&mut self, reactor: &mut Reactor<Self>) -> Result<Next, Gone> {
        if self.away {
            // What comes meanwhile stays in the socket.
            return Ok(Next::Wait(Interest::Nothing));
        }
        self.is_active(reactor);
        let (watch, stopping) = (self.watch, reactor.is_stopping());
        let fd = self.socket.as_raw_fd();
        let mut pending = self.pending.turn(reactor.scratch());
        let asked = pending.room().len();
        let copy = || recv(fd, pending.room(), MsgFlags::empty());
        let got = match watch.copy("recv", &self.socket, copy) {
            Ok(0) => return Err(Gone),
            Ok(_) if stopping => return Ok(Next::Again(READ)),
            Ok(n) => n,
            Err(Errno::EAGAIN) => return Ok(Next::Wait(READ)),
            Err(Errno::EINTR) => return Ok(Next::Again(READ)),
            Err(err) => return Err(err.into()),
        };
        pending.filled(got);
        drop(pending);
        if let Some(jobs) = &self.rules.jobs {
            let pending = mem::take(&mut self.pending);
            jobs.put(Job { whose: reactor.current(), pending });
            self.away = true;
            return Ok(Next::Again(READ));
        }
        self.rules.slow.answer(self.pending.owed_mut(), watch);
        let drained = got < asked && !reactor.may_hold_more();
        self.send(drained, reactor)
    }

    fn writable(&mut self, reactor: &mut Reactor<Self>) -> Result<Next, Gone> {
        self.send(false, reactor)
    }

    /// It may have spoken since the timer was started.
    fn timer(
        &mut self,
        _: Timer,
        reactor: &mut Reactor<Self>,
    ) -> Result<Next, Gone> {
        let limit = self.rules.idle_timeout.zip(self.active);
        let Some((limit, active)) = limit else { return Ok(Next::Same) };
        let idle = reactor.now().saturating_duration_since(active);
        if idle >= limit && !self.away {
            return Err(Gone);
        }
        let left = limit.saturating_sub(idle);
        reactor.after(reactor.current(), left.max(Duration::from_millis(1)));
        Ok(Next::Same)
    }

    /// Whoever is owed nothing is sent our FIN now, the others after their
    /// last byte. What comes in until their own FIN is dropped: closing with
    /// bytes unread would reset them.
    fn stopping(&mut self, _: &mut Reactor<Self>) -> Result<Next, Gone> {
        let fd = self.socket.as_raw_fd();
        if self.pending.is_empty() && !self.away {
            let finish = || shutdown(fd, Shutdown::Write);
            self.watch.ask("shutdown", fd, finish).ok();
        }
        Ok(Next::Same)
    }

    fn closed(self, _: &mut Reactor<Self>) {
        if let Some(seat) = self.rules.seat {
            seat.leave();
            seat.has_room();
        }
        let fd = self.socket.as_raw_fd();
        self.watch.ask("close", fd, || close(self.socket)).ok();
    }
}

//! The acceptor: the handler of the listener, which makes the connections.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use echo::{Gone, Listener, Unwatched, Watch, accept4, tally};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::SockFlag;

use crate::board::{AcceptMutex, Seat};
use crate::demultiplexer::Interest;
use crate::reactor::{Handler, Next, Reactor};
use crate::timers::Timer;

/// Takes clients from the accept queue, and gives each to `accepted`.
pub struct Acceptor<F, W: Watch> {
    listener: Listener,
    accepted: F,
    /// How many clients other reactors have.
    elsewhere: Option<Box<dyn Fn() -> usize>>,
    /// Where its clients are counted, beside those of others who accept too.
    seat: Option<Seat>,
    /// Without it nobody accepts.
    mutex: Option<AcceptMutex>,
    /// Nobody else is woken for the client that it is woken for.
    alone: bool,
    /// Its listener is one of the model's own making.
    own: bool,
    /// When it looks again whether it may accept.
    timer: Option<Timer>,
    watch: W,
}

/// Tells a process to look at its listener. Whoever does not expect it ignores
/// it: signal(7).
pub const LOOK_AT_LISTENER: Signal = Signal::SIGURG;

/// How often one looks for room that another thread or process has made.
const LOOK: Duration = Duration::from_millis(10);

/// How often one tries again to get the accept mutex. So long may a client
/// wait behind a turn that takes long, in the process that had the mutex last:
/// not as long as a person would notice (nginx: 500 ms).
const RETRY: Duration = Duration::from_millis(100);

impl<F, W: Watch> Acceptor<F, W> {
    /// For clients of this listener.
    ///
    /// # Errors
    ///
    /// Those of fcntl(2).
    pub fn new(listener: Listener, accepted: F, watch: W) -> Result<Self> {
        let nonblocking = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        watch.ask("fcntl", listener.fd(), || fcntl(&listener, nonblocking))?;
        Ok(Acceptor {
            listener,
            accepted,
            elsewhere: None,
            seat: None,
            mutex: None,
            alone: false,
            own: false,
            timer: None,
            watch,
        })
    }

    /// So many clients of other reactors count as well.
    pub fn counting(mut self, count: impl Fn() -> usize + 'static) -> Self {
        self.elsewhere = Some(Box::new(count));
        self
    }

    /// Others accept from the same board's clients: whoever comes is counted
    /// here.
    pub fn seated(mut self, seat: Seat) -> Self {
        self.seat = Some(seat);
        self
    }

    /// It accepts only while it has this mutex, which it tries to get before
    /// each wait: [`Reactor::ask_before_waits`].
    pub fn taking(mut self, mutex: AcceptMutex) -> Self {
        self.mutex = Some(mutex);
        self
    }

    /// The model has made this listener, so its close is watched like others.
    pub fn of_own_making(mut self) -> Self {
        self.own = true;
        self
    }

    /// Of all at the board, one is woken for each client (EPOLLEXCLUSIVE): if
    /// it cannot accept, it tells another.
    pub fn woken_alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Another is told to look at the listener, for a client that this one has
    /// no descriptor for, and nobody else has been woken for.
    fn pass_on(&self) {
        let Some(seat) = self.seat.filter(|_| self.alone) else { return };
        seat.rests();
        if let Some(other) = seat.another_awake() {
            let tell = || kill(other, LOOK_AT_LISTENER);
            self.watch.ask("kill", -1, tell).ok();
        }
    }

    /// It may be told by others again.
    fn has_room(&self) {
        if let Some(seat) = self.seat.filter(|_| self.alone) {
            seat.has_room();
        }
    }

    fn clients<C: Handler>(&self, reactor: &Reactor<C>) -> usize {
        if let Some(seat) = self.seat {
            return seat.all();
        }
        let elsewhere = self.elsewhere.as_ref().map_or(0, |count| count());
        reactor.connections() + elsewhere
    }

    /// Whether one more may come, who is counted then. Others may come at the
    /// same time: each counts its own before it looks, so whoever looks last
    /// sees all of them, and there are never too many.
    fn enter(&mut self, clients: usize) -> bool {
        let Some(seat) = self.seat else {
            return self.listener.wanted(clients);
        };
        seat.come();
        let wanted = self.listener.wanted(seat.all() - 1);
        if !wanted {
            seat.leave();
        }
        wanted
    }

    /// Whoever was to come did not.
    fn nobody_came(&self, why: Errno) {
        if let Some(seat) = self.seat {
            seat.leave();
            if why == Errno::EAGAIN {
                tally().add_wasted(1);
            }
        }
    }

    /// Waits for the next client, unless none may be accepted: such a one
    /// would end every wait at once.
    fn next<C: Handler>(&mut self, reactor: &mut Reactor<C>) -> Next {
        if self.listener.wanted(self.clients(reactor)) {
            return Next::Again(Interest::Read);
        }
        let id = reactor.current();
        if let Some(timer) = self.timer.take() {
            reactor.cancel(id, timer);
        }
        let others = self.elsewhere.is_some() || self.seat.is_some();
        let look = others.then_some(LOOK);
        if let Some(after) = self.listener.pause().or(look) {
            self.timer = reactor.after(id, after);
        }
        Next::Room
    }
}

impl<F, W: Watch> Drop for Acceptor<F, W> {
    fn drop(&mut self) {
        if self.own {
            close(&mut self.listener, self.watch);
        }
    }
}

/// Closes a listener that the model has made.
pub fn close<W: Watch>(listener: &mut Listener, watch: W) {
    let fd = listener.fd();
    let close = || {
        listener.close();
        Ok(())
    };
    watch.ask("close", fd, close).ok();
}

impl<C, F, W> Handler<C> for Acceptor<F, W>
where
    C: Handler,
    F: FnMut(OwnedFd, &mut Reactor<C>),
    W: Watch,
{
    fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes one client, and leaves the others for the next round.
    fn readable(&mut self, reactor: &mut Reactor<C>) -> Result<Next, Gone> {
        if self.mutex.as_ref().is_some_and(|mutex| !mutex.is_mine()) {
            return Ok(Next::Same);
        }
        if self.seat.is_some_and(Seat::is_closed) {
            return Err(Gone);
        }
        let clients = self.clients(reactor);
        if self.enter(clients) {
            let listener = self.listener.as_fd();
            let take = || accept4(listener, SockFlag::SOCK_NONBLOCK);
            match self.watch.take("accept4", listener, take) {
                Ok(socket) => {
                    self.has_room();
                    (self.accepted)(socket, reactor);
                }
                Err(Errno::EAGAIN) => {
                    self.nobody_came(Errno::EAGAIN);
                    return Ok(Next::Wait(Interest::Read));
                }
                Err(err) => {
                    self.nobody_came(err);
                    if let Err(err) = self.listener.on_error(err, clients) {
                        reactor.fail(err);
                        return Err(Gone);
                    }
                    if self.listener.pause().is_some() {
                        self.pass_on();
                    }
                }
            }
        }
        Ok(self.next(reactor))
    }

    fn timer(
        &mut self,
        timer: Timer,
        reactor: &mut Reactor<C>,
    ) -> Result<Next, Gone> {
        self.timer.take_if(|own| *own == timer);
        self.has_room();
        // With a mutex, the wake-up is all: it is asked before the next wait.
        Ok(match self.mutex {
            None => self.next(reactor),
            Some(_) => Next::Same,
        })
    }

    /// The mutex is tried for, and whoever has it waits for clients; the others
    /// try again before their next wait, or after a while.
    fn before_wait(&mut self, reactor: &mut Reactor<C>) -> Next {
        let clients = self.clients(reactor);
        let Some(mutex) = &mut self.mutex else { return Next::Same };
        if self.listener.wanted(clients) && mutex.take() {
            return Next::Wait(Interest::Read);
        }
        reactor.awake_within(RETRY);
        Next::Wait(Interest::Nothing)
    }

    /// The client that has been waited for is accepted, so that others may
    /// accept the next one while this process serves.
    fn after_wait(&mut self, _: &mut Reactor<C>) -> Next {
        if let Some(mutex) = &mut self.mutex {
            mutex.release();
        }
        Next::Same
    }
}

impl<C: Handler> Reactor<C> {
    /// Listens at `addr`, and serves each client with a connection that
    /// `factory` makes of its socket, which does not block. Returns where it
    /// listens: port 0 has become a real one.
    ///
    /// # Errors
    ///
    /// That nobody can listen there, or nothing can be waited for.
    pub fn listen_tcp(
        &mut self,
        addr: SocketAddr,
        mut factory: impl FnMut(OwnedFd) -> C + 'static,
    ) -> Result<SocketAddr> {
        let listener = Listener::tcp(addr)?;
        let addr = listener.addr()?;
        let accepted = move |socket: OwnedFd, reactor: &mut Reactor<C>| {
            // What cannot be waited for is closed.
            reactor.register(factory(socket), Interest::Read).ok();
        };
        self.attach(Acceptor::new(listener, accepted, Unwatched)?)?;
        Ok(addr)
    }
}

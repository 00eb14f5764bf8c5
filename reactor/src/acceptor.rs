//! The acceptor: the handler of the listener, which makes the connections.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use echo::{Gone, Listener, Unwatched, Watch, accept4};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::SockFlag;

use crate::demultiplexer::Interest;
use crate::reactor::{Handler, Next, Reactor};
use crate::timers::Timer;

/// Takes clients from the accept queue, and gives each to `accepted`.
pub struct Acceptor<F, W> {
    listener: Listener,
    accepted: F,
    /// How many clients other reactors have.
    elsewhere: Option<Box<dyn Fn() -> usize>>,
    /// When it looks again whether there is room.
    timer: Option<Timer>,
    watch: W,
}

/// How often one looks for room that another thread or process has made.
const LOOK: Duration = Duration::from_millis(10);

impl<F, W: Watch> Acceptor<F, W> {
    /// For clients of this listener.
    ///
    /// # Errors
    ///
    /// Those of fcntl(2).
    pub fn new(listener: Listener, accepted: F, watch: W) -> Result<Self> {
        let nonblocking = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        watch.ask("fcntl", listener.fd(), || fcntl(&listener, nonblocking))?;
        let (elsewhere, timer) = (None, None);
        Ok(Acceptor { listener, accepted, elsewhere, timer, watch })
    }

    /// So many clients of other reactors count as well.
    pub fn counting(mut self, count: impl Fn() -> usize + 'static) -> Self {
        self.elsewhere = Some(Box::new(count));
        self
    }

    fn clients<C: Handler>(&self, reactor: &Reactor<C>) -> usize {
        let elsewhere = self.elsewhere.as_ref().map_or(0, |count| count());
        reactor.connections() + elsewhere
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
        let look = self.elsewhere.as_ref().map(|_| LOOK);
        if let Some(after) = self.listener.pause().or(look) {
            self.timer = reactor.after(id, after);
        }
        Next::Room
    }
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
        let clients = self.clients(reactor);
        if self.listener.wanted(clients) {
            let listener = self.listener.as_fd();
            let take = || accept4(listener, SockFlag::SOCK_NONBLOCK);
            match self.watch.take("accept4", listener, take) {
                Ok(socket) => (self.accepted)(socket, reactor),
                Err(Errno::EAGAIN) => return Ok(Next::Wait(Interest::Read)),
                Err(err) => {
                    if let Err(err) = self.listener.on_error(err, clients) {
                        reactor.fail(err);
                        return Err(Gone);
                    }
                }
            }
        }
        Ok(self.next(reactor))
    }

    fn timer(
        &mut self,
        _: Timer,
        reactor: &mut Reactor<C>,
    ) -> Result<Next, Gone> {
        self.timer = None;
        Ok(self.next(reactor))
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

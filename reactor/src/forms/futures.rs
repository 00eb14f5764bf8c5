//! Echo as an `async fn`: it reads like the blocking server, and wherever that
//! would sleep it is left, to be gone on with when the reactor says so.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::Result;
use echo::{Gone, Listener, Pending, StopFd, Watch};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use nix::unistd::close;

use crate::acceptor::Acceptor;
use crate::business::Slow;
use crate::demultiplexer::Interest;
use crate::executor::{Executor, Spawner, yield_now};
use crate::flags::Flags;
use crate::reactor::{Handler, Id, Next, Reactor};
use crate::signals::Stopper;
use crate::timers::Timer;

/// Messages of one client before the others' turn.
const BUDGET: usize = 16;

type Shared<W> = Rc<RefCell<Reactor<Parked<W>>>>;

pub fn serve<W: Watch>(
    listener: Listener,
    stop: StopFd,
    flags: &Flags,
    watch: W,
) -> Result<()> {
    let demultiplexer = flags.demultiplexer(watch)?;
    let reactor = Reactor::new(demultiplexer, listener.buffer());
    let reactor: Shared<W> = Rc::new(RefCell::new(reactor));
    let mut executor = Executor::default();
    let start = Start {
        tasks: executor.spawner(),
        reactor: Rc::clone(&reactor),
        slow: flags.slow(),
        idle_timeout: flags.idle_timeout,
        watch,
    };
    let accepted = move |socket, reactor: &mut _| start.task(socket, reactor);
    let acceptor = Acceptor::new(listener, accepted, watch)?;
    reactor.borrow_mut().attach(acceptor)?;
    reactor.borrow_mut().attach(Stopper(stop))?;
    executor.run(&reactor)
}

/// The whole service, for one client.
async fn echo<W: Watch>(client: &Client<W>, slow: Slow) -> Result<(), Gone> {
    let mut pending = Pending::default();
    loop {
        for _ in 0..BUDGET {
            client.receive(&mut pending).await?;
            slow.answer(pending.owed_mut(), client.watch);
            while !pending.is_empty() {
                client.send(&mut pending).await?;
            }
        }
        yield_now().await;
    }
}

/// What a task for a client needs.
struct Start<W: Watch> {
    tasks: Spawner,
    reactor: Shared<W>,
    slow: Slow,
    idle_timeout: Option<Duration>,
    watch: W,
}

impl<W: Watch> Start<W> {
    /// A client has come: a task is started for it.
    fn task(&self, socket: OwnedFd, reactor: &mut Reactor<Parked<W>>) {
        let now = self.idle_timeout.map(|limit| (limit, reactor.now()));
        let socket = Rc::new(Socket {
            socket,
            reads: Cell::new(true),
            writes: Cell::new(true),
            more: Cell::new(true),
            gone: Cell::new(false),
            stopping: Cell::new(false),
            waker: RefCell::new(None),
            active: Cell::new(now),
        });
        let parked = Parked { socket: Rc::clone(&socket), watch: self.watch };
        let id = match reactor.register(parked, Interest::Read) {
            Ok(id) => id,
            Err(err) => return echo::refused(&err.to_string()),
        };
        let client = Client {
            socket,
            id,
            reactor: Rc::clone(&self.reactor),
            watch: self.watch,
        };
        let slow = self.slow;
        self.tasks.spawn(async move {
            echo(&client, slow).await.ok();
            client.close();
        });
    }
}

/// What the task and the reactor both know of a client.
struct Socket {
    socket: OwnedFd,
    /// Whether it is worth trying, as far as is known.
    reads: Cell<bool>,
    writes: Cell<bool>,
    /// It may hold more than plain bytes.
    more: Cell<bool>,
    /// The reactor has given it up.
    gone: Cell<bool>,
    stopping: Cell<bool>,
    /// Whom to call when one of these changes, while a task waits.
    waker: RefCell<Option<Waker>>,
    /// For how long it may say and take nothing, and when it last did.
    active: Cell<Option<(Duration, Instant)>>,
}

impl Socket {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn is_active<C: Handler>(&self, reactor: &mut Reactor<C>) {
        if let Some((limit, _)) = self.active.get() {
            self.active.set(Some((limit, reactor.now())));
        }
    }
}

/// The handler of a client whose task sleeps: all it does is to wake it.
struct Parked<W> {
    socket: Rc<Socket>,
    watch: W,
}

impl<W: Watch> Parked<W> {
    /// A task that waits for something else is left alone: what is told now
    /// would be told again at once.
    fn woken(&self) -> Result<Next, Gone> {
        if self.socket.waker.borrow().is_none() {
            return Ok(Next::Wait(Interest::Nothing));
        }
        self.socket.wake();
        Ok(Next::Same)
    }
}

impl<W: Watch> Handler for Parked<W> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.socket.as_fd()
    }

    fn opened(&mut self, reactor: &mut Reactor<Self>) {
        if let Some((limit, _)) = self.socket.active.get() {
            reactor.after(reactor.current(), limit);
        }
    }

    fn readable(&mut self, reactor: &mut Reactor<Self>) -> Result<Next, Gone> {
        self.socket.reads.set(true);
        self.socket.more.set(reactor.may_hold_more());
        self.woken()
    }

    fn writable(&mut self, _: &mut Reactor<Self>) -> Result<Next, Gone> {
        self.socket.writes.set(true);
        self.woken()
    }

    fn timer(
        &mut self,
        _: Timer,
        reactor: &mut Reactor<Self>,
    ) -> Result<Next, Gone> {
        let Some((limit, since)) = self.socket.active.get() else {
            return Ok(Next::Same);
        };
        let idle = reactor.now().saturating_duration_since(since);
        if idle >= limit {
            return Err(Gone);
        }
        reactor.after(reactor.current(), limit - idle);
        Ok(Next::Same)
    }

    fn stopping(&mut self, _: &mut Reactor<Self>) -> Result<Next, Gone> {
        self.socket.stopping.set(true);
        self.socket.wake();
        Ok(Next::Same)
    }

    fn closed(self, _: &mut Reactor<Self>) {
        let Parked { socket, watch } = self;
        socket.gone.set(true);
        socket.wake();
        // The last owner closes it.
        shut(socket, watch);
    }
}

fn shut<W: Watch>(socket: Rc<Socket>, watch: W) {
    if let Some(Socket { socket, .. }) = Rc::into_inner(socket) {
        let fd = socket.as_raw_fd();
        watch.ask("close", fd, || close(socket)).ok();
    }
}

/// A client, as its task sees it: what would sleep is a future.
struct Client<W: Watch> {
    socket: Rc<Socket>,
    id: Id,
    reactor: Shared<W>,
    watch: W,
}

impl<W: Watch> Client<W> {
    /// Receives what there is; ends with the peer's FIN.
    async fn receive(&self, pending: &mut Pending) -> Result<(), Gone> {
        let socket = &*self.socket;
        let fd = socket.socket.as_raw_fd();
        let mut finished = false;
        loop {
            if socket.stopping.get() && !finished {
                let finish = || shutdown(fd, Shutdown::Write);
                self.watch.ask("shutdown", fd, finish)?;
                finished = true;
            }
            if !socket.reads.get() {
                self.until(Interest::Read).await?;
                continue;
            }
            if finished {
                yield_now().await;
            }
            let mut reactor = self.reactor.borrow_mut();
            let mut pending = pending.turn(reactor.scratch());
            let asked = pending.room().len();
            let copy = || recv(fd, pending.room(), MsgFlags::empty());
            match self.watch.copy("recv", &socket.socket, copy) {
                Ok(0) => return Err(Gone),
                Ok(n) => {
                    socket.reads.set(n == asked || socket.more.get());
                    if finished {
                        continue;
                    }
                    pending.filled(n);
                    drop(pending);
                    socket.is_active(&mut reactor);
                    return Ok(());
                }
                Err(Errno::EAGAIN) => socket.reads.set(false),
                Err(Errno::EINTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }

    /// Sends what there is room for.
    async fn send(&self, pending: &mut Pending) -> Result<(), Gone> {
        let socket = &*self.socket;
        let fd = socket.socket.as_raw_fd();
        while !socket.writes.get() {
            self.until(Interest::Write).await?;
        }
        let mut reactor = self.reactor.borrow_mut();
        let mut pending = pending.turn(reactor.scratch());
        // A peer that has gone is EPIPE, and no deadly SIGPIPE: send(2).
        let copy = || send(fd, pending.owed(), MsgFlags::MSG_NOSIGNAL);
        match self.watch.copy("send", &socket.socket, copy) {
            Ok(n) => {
                pending.sent(n);
                drop(pending);
                socket.is_active(&mut reactor);
            }
            Err(Errno::EAGAIN) => socket.writes.set(false),
            Err(Errno::EINTR) => {}
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }

    /// Leaves the task until there may be what is wanted, or the client or the
    /// server is to end. Whoever calls it looks what it was.
    async fn until(&self, wanted: Interest) -> Result<(), Gone> {
        let mut asked = false;
        poll_fn(|context| {
            if self.socket.gone.get() {
                return Poll::Ready(Err(Gone));
            }
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(Ok(()));
            }
            *self.socket.waker.borrow_mut() = Some(context.waker().clone());
            let wait = |_: &mut _, _: &mut _| Ok(Next::Wait(wanted));
            self.reactor.borrow_mut().visit(self.id, wait);
            Poll::Pending
        })
        .await
    }

    /// The end: the reactor forgets it, and then it is closed.
    fn close(self) {
        let Client { socket, id, reactor, watch } = self;
        reactor.borrow_mut().visit(id, |_, _| Err(Gone));
        shut(socket, watch);
    }
}

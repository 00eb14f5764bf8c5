//! Completions out of readiness, as Boost.Asio has them on Linux: an operation
//! is tried at once; if it would have to wait, it is left with its buffer
//! until epoll says that it need not, and done then. Its end goes into a queue.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use echo::{Connections, Fd, Listener, Stop, StopFd, Timeout, Watch};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, Shutdown, SockFlag, recv, send, shutdown};
use nix::unistd::close;

use crate::EventLoop;
use crate::bytes::{Bytes, Memory, Spare};
use crate::processor::{Done, Processor, SIGNAL};
use crate::readiness::{Accept, number, read_stop};

type Wanted = EpollFlags;
const READ: Wanted = Wanted::EPOLLIN.union(Wanted::EPOLLET);
const BOTH: Wanted = READ.union(Wanted::EPOLLOUT);
const ENDED: Wanted = Wanted::EPOLLERR.union(Wanted::EPOLLHUP);

/// So many completions are told before epoll is asked again. An operation that
/// need not wait is done at once, so a client that never pauses would keep the
/// queue filled for ever. It is behind all others there, and once in so many
/// those who have waited in epoll come into it too.
const ROUND: usize = 16;

pub fn serve<W: Watch>(
    listener: Listener,
    stop: StopFd,
    watch: W,
) -> Result<()> {
    let nonblocking = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
    watch.ask("fcntl", listener.fd(), || fcntl(&listener, nonblocking))?;
    let processor = Emulated::new(&listener, &stop, watch)?;
    EventLoop::new(listener, stop, processor).run()
}

struct Emulated<W> {
    list: Epoll,
    events: Vec<EpollEvent>,
    ready: Vec<Fd>,
    connections: Connections<Connection>,
    accept: Accept<W>,
    stop: Fd,
    /// Operations that are done, in the order in which they were.
    done: VecDeque<Done>,
    /// How many were told since epoll was asked.
    told: usize,
    buffer: usize,
    spare: Spare,
    watch: W,
}

struct Connection {
    socket: OwnedFd,
    /// The recv that waits for bytes, with the memory for them.
    receiving: Option<Vec<u8>>,
    /// The send that waits for room, with what it sends.
    sending: Option<Bytes>,
    /// A send is under way: it waits, or its end was not told yet.
    owed: bool,
}

impl<W: Watch> Emulated<W> {
    fn new(listener: &Listener, stop: &StopFd, watch: W) -> Result<Self> {
        let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for socket in [listener.as_fd(), stop.as_fd()] {
            let fd = socket.as_raw_fd();
            let event = EpollEvent::new(READ, fd as u64);
            watch.ask("epoll_ctl", fd, || list.add(socket, event))?;
        }
        watch.submitted("read", stop.fd(), SIGNAL);
        Ok(Emulated {
            list,
            events: vec![EpollEvent::empty(); 256],
            ready: Vec::with_capacity(256),
            connections: Connections::default(),
            accept: Accept::new(SockFlag::SOCK_NONBLOCK, watch),
            stop: stop.fd(),
            done: VecDeque::with_capacity(256),
            told: 0,
            buffer: listener.buffer(),
            spare: Spare::default(),
            watch,
        })
    }

    /// Something has changed for this descriptor: what waits for it is tried.
    /// No completion is told meanwhile, so nobody closes a descriptor whose
    /// event is still to come, and no other client has its number.
    fn on_ready(&mut self, fd: Fd, ready: Wanted) {
        if fd == self.accept.waits_for() {
            self.accept.again();
        } else if fd == self.stop {
            read_stop(fd, &mut self.done, self.watch);
        } else {
            if ready.intersects(Wanted::EPOLLIN | ENDED) {
                self.try_recv(fd);
            }
            if ready.intersects(Wanted::EPOLLOUT | ENDED) {
                self.try_send(fd);
            }
        }
    }

    fn try_recv(&mut self, fd: Fd) {
        let Some(it) = self.connections.get_mut(fd) else { return };
        let Some(mut memory) = it.receiving.take() else { return };
        let copy = || recv(fd, &mut memory, MsgFlags::empty());
        let result = self.watch.copy("recv", &it.socket, copy);
        if result == Err(Errno::EAGAIN) {
            // Any change from now on will be told.
            it.receiving = Some(memory);
            return;
        }
        self.watch.completed("recv", fd, number(result));
        let length = result.unwrap_or(0);
        let bytes = Bytes::new(Memory::Own(memory), length);
        let result = match result {
            Ok(_) => Ok(bytes),
            Err(err) => {
                self.spare.keep(bytes);
                Err(err)
            }
        };
        self.done.push_back(Done::Received(fd, result));
    }

    fn try_send(&mut self, fd: Fd) {
        let Some(it) = self.connections.get_mut(fd) else { return };
        let Some(bytes) = it.sending.take() else { return };
        // A peer that has gone is EPIPE, and no deadly SIGPIPE: send(2).
        let copy = || send(fd, bytes.own(), MsgFlags::MSG_NOSIGNAL);
        let result = self.watch.copy("send", &it.socket, copy);
        if result == Err(Errno::EAGAIN) {
            it.sending = Some(bytes);
            return;
        }
        self.watch.completed("send", fd, number(result));
        self.done.push_back(Done::Sent(fd, result, bytes));
    }
}

impl<W: Watch> Processor for Emulated<W> {
    fn accept(&mut self, listener: &Listener) {
        self.done.extend(self.accept.attempt(listener));
    }

    fn accepting(&self) -> bool {
        self.accept.waits_for() >= 0
    }

    fn stop_accepting(&mut self) {
        self.accept.cancel();
    }

    fn adopt(&mut self, socket: OwnedFd) {
        let fd = socket.as_raw_fd();
        let add = || self.list.add(&socket, EpollEvent::new(BOTH, fd as u64));
        // epoll_ctl(2): ENOMEM, ENOSPC. Nothing would ever be heard of it.
        let Ok(()) = self.watch.ask("epoll_ctl", fd, add) else { return };
        let connection =
            Connection { socket, receiving: None, sending: None, owed: false };
        self.connections.insert(fd, connection);
    }

    fn receive(&mut self, client: Fd) {
        let Some(it) = self.connections.get_mut(client) else { return };
        let mut memory = self.spare.take();
        memory.resize(self.buffer, 0);
        it.receiving = Some(memory);
        self.watch.submitted("recv", client, self.buffer);
        self.try_recv(client);
    }

    fn send(&mut self, client: Fd, bytes: Bytes) {
        let Some(it) = self.connections.get_mut(client) else { return };
        self.watch.submitted("send", client, bytes.len());
        it.sending = Some(bytes);
        it.owed = true;
        self.try_send(client);
    }

    fn give_back(&mut self, bytes: Bytes) {
        self.spare.keep(bytes);
    }

    fn finish(&mut self, client: Fd) {
        let finish = || shutdown(client, Shutdown::Write);
        self.watch.ask("shutdown", client, finish).ok();
    }

    fn owed_nothing(&mut self) -> Vec<Fd> {
        let connections = self.connections.iter();
        connections.filter(|(_, it)| !it.owed).map(|(fd, _)| fd).collect()
    }

    /// Nothing is under way: what was is what has just come back. epoll(7):
    /// closing the last descriptor also ends the interest in it.
    fn close(&mut self, client: Fd) {
        let Some(connection) = self.connections.remove(client) else { return };
        self.watch.ask("close", client, || close(connection.socket)).ok();
    }

    fn clients(&self) -> usize {
        self.connections.len()
    }

    /// Wait phase: one call sleeps for every descriptor at once, if nothing is
    /// done. The copy phase follows, before any completion is told.
    fn wait(&mut self, timeout: Timeout) -> Result<()> {
        let idle = self.done.is_empty();
        if !idle && self.told < ROUND {
            return Ok(());
        }
        self.told = 0;
        let timeout = if idle { timeout } else { Timeout::ZERO };
        let asked = self.connections.len() + 2;
        let wait = || self.list.wait(&mut self.events, timeout);
        let n = match self.watch.wait("epoll_wait", asked, wait) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(err) => return Err(err).context("epoll_wait"),
        };
        self.ready.clear();
        self.ready.extend(self.events[..n].iter().map(|it| it.data() as Fd));
        self.watch.ready(&self.ready, n);
        for i in 0..n {
            self.on_ready(self.ready[i], self.events[i].events());
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Done> {
        if self.told == ROUND {
            return None;
        }
        let done = self.done.pop_front()?;
        self.told += 1;
        if let Done::Sent(fd, ..) = &done
            && let Some(it) = self.connections.get_mut(*fd)
        {
            it.owed = false;
        }
        Some(done)
    }
}

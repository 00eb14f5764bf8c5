//! One accept for all clients, and one recv for all that a client says. Memory
//! is not lent to each: whoever speaks gets one of the buffers that all share.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use echo::{Connections, Fd, Listener, Timeout, Watch};
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::close;

use super::buffers::Buffer;
use super::{Completion, Queues};
use crate::bytes::{Bytes, Memory};
use crate::processor::{Done, Processor, SIGNAL};

pub struct Multishot<Q, W> {
    pub(super) ring: Q,
    connections: Connections<Connection>,
    accepting: Fd,
    stop: Fd,
    /// The most that a client is owed, and one recv for all brings.
    most: usize,
    /// Whether the kernel itself ends a recv after so much.
    limits: bool,
    /// Nothing is kept from now on.
    stopping: bool,
    /// A send that is over as soon as it is submitted has work behind it.
    urgent: bool,
    /// Clients for whom something may be done without a completion.
    due: VecDeque<Fd>,
    /// Clients for whom there was no buffer.
    starved: VecDeque<Fd>,
    spare: Vec<Vec<u8>>,
    watch: W,
}

struct Connection {
    socket: OwnedFd,
    /// What came while something else was being sent, in memory of its own.
    backlog: Vec<u8>,
    /// How its receiving has ended: by FIN, or by an errno.
    ended: Option<Ended>,
    /// A recv is under way.
    receiving: bool,
    /// Its recv was to end after so many bytes.
    limited: bool,
    /// A send is under way.
    sending: bool,
    /// What it says next was asked for.
    wanted: bool,
    /// It did not take all that it was owed at once.
    slow: bool,
    /// There was no buffer for it.
    starved: bool,
    /// It is to be closed.
    closing: bool,
}

/// How receiving has ended.
#[derive(Clone, Copy)]
enum Ended {
    Fin,
    Failed(Errno),
}

/// How many buffers one recv may fill. The more, the less often a client that
/// says much is received from anew; and the more is owed to one that does not
/// read.
pub(super) const AT_ONCE: usize = 4;

/// How much memory is kept for the next backlogs.
const SPARE: usize = 64;

impl<Q: Queues, W: Watch> Multishot<Q, W> {
    pub fn new(mut ring: Q, stop: Fd, most: usize, watch: W) -> Self {
        ring.read(stop, SIGNAL);
        Multishot {
            ring,
            connections: Connections::default(),
            accepting: -1,
            stop,
            most,
            limits: true,
            stopping: false,
            urgent: false,
            due: VecDeque::with_capacity(256),
            starved: VecDeque::with_capacity(256),
            spare: Vec::with_capacity(SPARE),
            watch,
        }
    }

    /// A recv for all that comes has brought something, or ended.
    #[inline]
    fn on_arrived(
        &mut self,
        fd: Fd,
        result: nix::Result<usize>,
        buffer: Option<Buffer>,
        more: bool,
    ) -> Option<Done> {
        let it = self.connections.get_mut(fd)?;
        it.receiving = more;
        let n = result.unwrap_or(0);
        let bytes = buffer.map(|it| Bytes::new(Memory::Provided(it), n));
        match (result, bytes) {
            (Ok(1..), Some(bytes)) if it.wanted && it.backlog.is_empty() => {
                it.wanted = false;
                return Some(Done::Received(fd, Ok(bytes)));
            }
            (Ok(1..), Some(bytes)) if !it.closing => {
                self.keep(fd, &bytes);
                self.give_back(bytes);
            }
            (result, bytes) => {
                match result {
                    Ok(0) => it.ended = Some(Ended::Fin),
                    Ok(_) => {}
                    // No buffer was left: once there is one.
                    Err(Errno::ENOBUFS) => {
                        it.starved = true;
                        self.starved.push_back(fd);
                    }
                    // This kernel knows no limit.
                    Err(Errno::EINVAL) if it.limited => self.limits = false,
                    // It was asked to.
                    Err(Errno::ECANCELED | Errno::EINTR) => {}
                    Err(err) => it.ended = Some(Ended::Failed(err)),
                }
                bytes.into_iter().for_each(|it| self.give_back(it));
            }
        }
        self.settle(fd)
    }

    /// Copies what came too early, so that the buffer is free for others. A
    /// client that is owed enough is not received from.
    fn keep(&mut self, fd: Fd, bytes: &Bytes) {
        let Some(it) = self.connections.get_mut(fd) else { return };
        if self.stopping {
            return;
        }
        if it.backlog.capacity() == 0 {
            it.backlog = self.spare.pop().unwrap_or_default();
            it.backlog.clear();
        }
        it.backlog.extend_from_slice(self.ring.bytes(bytes));
        if it.backlog.len() >= self.most && it.receiving && !self.limits {
            self.ring.cancel_recv(fd);
        }
    }

    /// What can be done for a client now.
    fn settle(&mut self, fd: Fd) -> Option<Done> {
        let it = self.connections.get_mut(fd)?;
        if it.closing {
            if !it.receiving && !it.sending {
                let it = self.connections.remove(fd)?;
                self.ring.release(fd);
                self.watch.ask("close", fd, || close(it.socket)).ok();
            }
            return None;
        }
        if !it.wanted {
            // It was busy with what came before; so it is not long until it is.
            self.urgent |= it.sending;
            return None;
        }
        if !it.backlog.is_empty() {
            it.wanted = false;
            let backlog = mem::take(&mut it.backlog);
            let length = backlog.len();
            let bytes = Bytes::new(Memory::Own(backlog), length);
            if self.stopping {
                // It came before the stop, and would be dropped now.
                self.send(fd, bytes);
                return None;
            }
            return Some(Done::Received(fd, Ok(bytes)));
        }
        if let Some(end) = it.ended {
            it.wanted = false;
            let result = match end {
                Ended::Fin => Ok(Bytes::new(Memory::Own(Vec::new()), 0)),
                Ended::Failed(err) => Err(err),
            };
            return Some(Done::Received(fd, result));
        }
        self.arm(fd);
        None
    }

    /// Begins to receive from a client that is owed nothing.
    #[inline]
    fn arm(&mut self, fd: Fd) {
        let Some(it) = self.connections.get_mut(fd) else { return };
        let busy = it.receiving || it.starved;
        if !busy && it.ended.is_none() && it.backlog.is_empty() {
            it.receiving = true;
            it.limited = self.limits;
            let limit = if self.limits { AT_ONCE * self.most } else { 0 };
            self.ring.recv_all(fd, limit);
        }
    }

    /// Bytes in memory of their own: their buffer is free for others.
    fn own(&mut self, bytes: Bytes) -> Bytes {
        let Memory::Provided(_) = bytes.memory else { return bytes };
        let mut memory = self.spare.pop().unwrap_or_default();
        memory.clear();
        memory.extend_from_slice(self.ring.bytes(&bytes));
        let length = memory.len();
        self.give_back(bytes);
        Bytes::new(Memory::Own(memory), length)
    }

    #[inline]
    fn on_sent(
        &mut self,
        fd: Fd,
        result: nix::Result<usize>,
        bytes: Bytes,
    ) -> Option<Done> {
        let Some(it) = self.connections.get_mut(fd) else {
            self.give_back(bytes);
            return None;
        };
        it.sending = false;
        if it.closing {
            self.give_back(bytes);
            return self.settle(fd);
        }
        it.slow = result != Ok(bytes.len());
        if result == Err(Errno::EAGAIN) {
            self.send(fd, bytes);
            return None;
        }
        Some(Done::Sent(fd, result, bytes))
    }
}

impl<Q: Queues, W: Watch> Processor for Multishot<Q, W> {
    fn accept(&mut self, listener: &Listener) {
        self.accepting = listener.fd();
        self.ring.accept(self.accepting, !listener.is_limited());
    }

    fn accepting(&self) -> bool {
        self.accepting >= 0
    }

    fn stop_accepting(&mut self) {
        if self.accepting() {
            self.ring.cancel_accept(self.accepting);
        }
    }

    fn adopt(&mut self, socket: OwnedFd) {
        let fd = socket.as_raw_fd();
        self.ring.adopt(fd);
        let connection = Connection {
            socket,
            backlog: Vec::new(),
            ended: None,
            receiving: false,
            limited: false,
            sending: false,
            wanted: false,
            slow: false,
            starved: false,
            closing: false,
        };
        self.connections.insert(fd, connection);
    }

    #[inline]
    fn receive(&mut self, client: Fd) {
        let Some(it) = self.connections.get_mut(client) else { return };
        it.wanted = true;
        if !it.receiving || !it.backlog.is_empty() || it.ended.is_some() {
            self.due.push_back(client);
        }
    }

    /// First a send that does not wait, from the buffer itself: so the ring
    /// has it back at once. A client that does not take all gets what is left
    /// from memory of its own, which is lent for as long as that takes.
    fn send(&mut self, client: Fd, bytes: Bytes) {
        let Some(it) = self.connections.get_mut(client) else { return };
        it.sending = true;
        self.urgent |= self.stopping || !it.receiving || !it.backlog.is_empty();
        if it.slow {
            let bytes = self.own(bytes);
            self.ring.send(client, bytes);
        } else {
            self.ring.send_now(client, bytes);
        }
    }

    #[inline]
    fn give_back(&mut self, bytes: Bytes) {
        match bytes.memory {
            Memory::Provided(buffer) => self.ring.give_back(buffer),
            Memory::Own(memory) => {
                if self.spare.len() < SPARE {
                    self.spare.push(memory);
                }
            }
        }
    }

    fn finish(&mut self, client: Fd) {
        let Some(it) = self.connections.get_mut(client) else { return };
        if !it.backlog.is_empty() {
            // That is sent first, and then this is asked for again.
            return;
        }
        let finish = || shutdown(client, Shutdown::Write);
        self.watch.ask("shutdown", client, finish).ok();
    }

    fn owed_nothing(&mut self) -> Vec<Fd> {
        self.stopping = true;
        // Behind a send there is a FIN from now on.
        self.urgent = true;
        let connections = self.connections.iter();
        let idle = connections.filter(|(_, it)| !it.sending);
        idle.map(|(fd, _)| fd).collect()
    }

    fn close(&mut self, client: Fd) {
        let Some(it) = self.connections.get_mut(client) else { return };
        it.closing = true;
        if it.receiving || it.sending {
            self.ring.cancel(client);
        }
        self.due.push_back(client);
    }

    fn clients(&self) -> usize {
        self.connections.len()
    }

    fn wait(&mut self, timeout: Timeout) -> Result<()> {
        // As many as there are buffers for: the others would starve again.
        let mut free = self.ring.free();
        while free > 0
            && let Some(fd) = self.starved.pop_front()
        {
            let Some(it) = self.connections.get_mut(fd) else { continue };
            it.starved = false;
            // Whoever is still being sent to takes none now.
            if it.wanted {
                self.arm(fd);
                free -= 1;
            }
        }
        // Some of those may have nothing to say and need no buffer.
        self.urgent |= !self.starved.is_empty() && self.ring.free() > 0;
        let timeout = if self.urgent { Timeout::ZERO } else { timeout };
        let entered = self.ring.enter(timeout).context("io_uring_enter")?;
        self.urgent &= !entered;
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Option<Done> {
        loop {
            if let Some(fd) = self.due.pop_front() {
                match self.settle(fd) {
                    None => continue,
                    done => return done,
                }
            }
            let done = match self.ring.next()? {
                Completion::Accepted(result, more) => {
                    if !more {
                        self.accepting = -1;
                    }
                    Some(Done::Accepted(result))
                }
                Completion::Received(..) => {
                    self.ring.read(self.stop, SIGNAL);
                    Some(Done::Stop)
                }
                Completion::Arrived { fd, result, buffer, more } => {
                    self.on_arrived(fd, result, buffer, more)
                }
                Completion::Sent(fd, result, bytes) => {
                    self.on_sent(fd, result, bytes)
                }
            };
            if done.is_some() {
                return done;
            }
        }
    }
}

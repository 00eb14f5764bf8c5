//! One accept, one recv, one send at a time, each begun by hand. A recv is
//! given its memory before there is anything to receive.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use echo::{Connections, Fd, Listener, Timeout, Watch};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::close;

use super::{Completion, Queues};
use crate::bytes::{Bytes, Spare};
use crate::processor::{Done, Processor, SIGNAL};

pub struct Single<Q, W> {
    pub(super) ring: Q,
    connections: Connections<Connection>,
    /// The accept that is under way: of this listener; or -1.
    accepting: Fd,
    stop: Fd,
    spare: Spare,
    watch: W,
}

struct Connection {
    socket: OwnedFd,
    /// It is owed bytes: a send is under way, and no recv.
    owed: bool,
}

impl<Q: Queues, W: Watch> Single<Q, W> {
    pub fn new(mut ring: Q, stop: Fd, watch: W) -> Self {
        ring.read(stop, SIGNAL);
        Single {
            ring,
            connections: Connections::default(),
            accepting: -1,
            stop,
            spare: Spare::default(),
            watch,
        }
    }
}

impl<Q: Queues, W: Watch> Processor for Single<Q, W> {
    fn accept(&mut self, listener: &Listener) {
        self.accepting = listener.fd();
        self.ring.accept(self.accepting, false);
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
        self.connections.insert(fd, Connection { socket, owed: false });
    }

    fn receive(&mut self, client: Fd) {
        self.ring.recv(client, self.spare.take());
    }

    fn send(&mut self, client: Fd, bytes: Bytes) {
        if let Some(it) = self.connections.get_mut(client) {
            it.owed = true;
        }
        self.ring.send(client, bytes);
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

    /// Nothing is under way: what was is what has just come back.
    fn close(&mut self, client: Fd) {
        let Some(connection) = self.connections.remove(client) else { return };
        self.ring.release(client);
        self.watch.ask("close", client, || close(connection.socket)).ok();
    }

    fn clients(&self) -> usize {
        self.connections.len()
    }

    fn wait(&mut self, timeout: Timeout) -> Result<()> {
        self.ring.enter(timeout).context("io_uring_enter")?;
        Ok(())
    }

    fn next(&mut self) -> Option<Done> {
        Some(match self.ring.next()? {
            Completion::Accepted(result, _) => {
                self.accepting = -1;
                Done::Accepted(result)
            }
            Completion::Received(fd, _, bytes) if fd == self.stop => {
                drop(bytes);
                self.ring.read(self.stop, SIGNAL);
                Done::Stop
            }
            Completion::Received(fd, Ok(()), bytes) => {
                Done::Received(fd, Ok(bytes))
            }
            Completion::Received(fd, Err(err), bytes) => {
                self.give_back(bytes);
                Done::Received(fd, Err(err))
            }
            Completion::Sent(fd, result, bytes) => {
                if let Some(it) = self.connections.get_mut(fd) {
                    it.owed = false;
                }
                Done::Sent(fd, result, bytes)
            }
            Completion::Arrived { .. } => return self.next(),
        })
    }
}

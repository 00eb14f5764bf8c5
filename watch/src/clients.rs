//! Clients on one thread, none of which ever waits for its server: a scene or
//! a reader says what they do, and all that happens to them is noted.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::harness::{Connect, Payload, connect, reset};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde::Serialize;

use crate::clock::now;

/// One thing that a client did, or that happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deed {
    /// The client, by its number in the order of connecting, from 0. The
    /// accept queue is first in, first out: the server's record calls it
    /// `client N`, N from 1.
    pub client: usize,
    /// Nanoseconds of CLOCK_MONOTONIC, before and after.
    pub t0: u64,
    /// See `t0`.
    pub t1: u64,
    /// What it was.
    pub what: Did,
}

/// What a client did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// Connected.
    Connect,
    /// Sent a part of its stream.
    Send {
        /// The position of its first byte.
        from: u64,
        /// And of the first that does not belong to it.
        to: u64,
    },
    /// Received a part of the same stream, every byte of it right.
    Receive {
        /// As of `Send`.
        from: u64,
        /// As of `Send`.
        to: u64,
    },
    /// Stopped reading.
    StopReading,
    /// Began to read again.
    Read,
    /// Sent FIN.
    HalfClose,
    /// Received the server's FIN.
    EndOfStream,
    /// Closed.
    Close,
    /// Broke the connection off.
    Reset,
    /// Found that the connection had failed, with this error.
    Failed(String),
}

/// Many clients of one server.
pub struct Crowd {
    addr: SocketAddr,
    clients: Vec<Client>,
    deeds: Vec<Deed>,
    scratch: Vec<u8>,
}

/// One client.
pub struct Client {
    /// What it is called.
    pub name: String,
    /// Its own port, by which the kernel tells it from others.
    pub port: u16,
    /// What has been sent of its stream.
    pub sent: u64,
    /// What has come back.
    pub received: u64,
    /// What it has still to send.
    pub to_send: u64,
    /// Whether it reads.
    pub reads: bool,
    /// FIN has been sent, or follows what it has still to send.
    pub half_closed: bool,
    /// Gone when the connection is over.
    socket: Option<TcpStream>,
    fin_sent: bool,
    ended: bool,
    payload: Payload,
}

/// How much one call moves at most.
const CHUNK: usize = 64 * 1024;

impl Client {
    /// Whether its connection is still there.
    pub fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Whether everything that it is to send has come back.
    pub fn is_answered(&self) -> bool {
        self.to_send == 0 && self.received == self.sent
    }

    /// Whether the server has said that nothing more will come.
    pub fn has_ended(&self) -> bool {
        self.ended || self.socket.is_none()
    }

    /// What is asked for; `None` where there is nothing to be learned.
    fn wanted(&self) -> Option<PollFlags> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, self.reads && !self.ended);
        wanted.set(PollFlags::POLLOUT, self.to_send > 0);
        // poll(2): POLLHUP need not be asked for, and comes without end once
        // both sides have sent FIN.
        let hangs_up = wanted.is_empty() && (self.ended || self.fin_sent);
        (!hangs_up).then_some(wanted)
    }
}

impl Crowd {
    /// Nobody yet, of the server at `addr`.
    pub fn new(addr: SocketAddr) -> Crowd {
        Crowd {
            addr,
            clients: Vec::new(),
            deeds: Vec::new(),
            scratch: vec![0; CHUNK],
        }
    }

    /// All clients that there have been.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// What has happened since this was last asked.
    pub fn take_deeds(&mut self) -> Vec<Deed> {
        std::mem::take(&mut self.deeds)
    }

    /// A new client connects; its number.
    pub fn connect(&mut self, name: &str) -> Result<usize> {
        let t0 = now();
        let socket = connect(self.addr, &Connect::default())
            .with_context(|| format!("{name} connects"))?;
        socket.set_nonblocking(true)?;
        let number = self.clients.len();
        self.clients.push(Client {
            name: name.to_owned(),
            port: socket.local_addr()?.port(),
            sent: 0,
            received: 0,
            to_send: 0,
            reads: true,
            half_closed: false,
            socket: Some(socket),
            fin_sent: false,
            ended: false,
            payload: Payload::new(u32::try_from(number)? & 0xffff),
        });
        self.note(number, t0, Did::Connect);
        Ok(number)
    }

    /// So many bytes more are to be sent; what fits is sent at once.
    pub fn send(&mut self, who: usize, bytes: u64) {
        let client = &mut self.clients[who];
        if client.is_open() && !client.half_closed {
            client.to_send += bytes;
            self.push(who);
        }
    }

    /// Whether a client reads from now on.
    pub fn set_reading(&mut self, who: usize, reads: bool) {
        let client = &mut self.clients[who];
        if client.is_open() && client.reads != reads {
            client.reads = reads;
            let did = if reads { Did::Read } else { Did::StopReading };
            self.note(who, now(), did);
        }
    }

    /// FIN follows all that is still to be sent.
    pub fn half_close(&mut self, who: usize) {
        let client = &mut self.clients[who];
        if client.is_open() && !client.half_closed {
            client.half_closed = true;
            self.send_fin(who);
        }
    }

    /// Closes, whatever is still to come.
    pub fn close(&mut self, who: usize) {
        let t0 = now();
        if self.clients[who].socket.take().is_some() {
            self.note(who, t0, Did::Close);
        }
    }

    /// Breaks the connection off.
    pub fn reset(&mut self, who: usize) {
        let t0 = now();
        if let Some(socket) = self.clients[who].socket.take() {
            // If it cannot be said how it closes, it closes in the usual way.
            let _polite = reset(socket);
            self.note(who, t0, Did::Reset);
        }
    }

    /// What tells when there is something to move.
    pub fn wanted(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.asked().map(|(_, asked)| asked)
    }

    fn asked(&self) -> impl Iterator<Item = (usize, PollFd<'_>)> {
        let clients = self.clients.iter().enumerate();
        clients.filter_map(|(who, client)| {
            let socket = client.socket.as_ref()?;
            Some((who, PollFd::new(socket.as_fd(), client.wanted()?)))
        })
    }

    /// Moves what can be moved, after waiting at most so long until something
    /// can; fails if a byte comes back wrong.
    pub fn pump(&mut self, patience: Duration) -> Result<()> {
        let (whose, mut asked): (Vec<_>, Vec<_>) = self.asked().unzip();
        let patience = TimeSpec::from_duration(patience);
        match ppoll(&mut asked, Some(patience), None) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno).context("ppoll"),
        }
        let came: Vec<PollFlags> = asked
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
            .collect();
        for (who, came) in whose.into_iter().zip(came) {
            if came.contains(PollFlags::POLLOUT) {
                self.push(who);
            }
            let ends = PollFlags::POLLERR | PollFlags::POLLHUP;
            if came.intersects(PollFlags::POLLIN | ends) {
                self.pull(who)?;
            }
        }
        Ok(())
    }

    /// Sends what the socket has room for.
    fn push(&mut self, who: usize) {
        loop {
            let client = &mut self.clients[who];
            let Some(mut socket) = client.socket.as_ref() else {
                return;
            };
            if client.to_send == 0 {
                return self.send_fin(who);
            }
            let count = CHUNK.min(client.to_send as usize);
            client.payload.fill(client.sent, &mut self.scratch[..count]);
            let t0 = now();
            match socket.write(&self.scratch[..count]) {
                Ok(count) => {
                    let from = client.sent;
                    client.sent += count as u64;
                    client.to_send -= count as u64;
                    let to = client.sent;
                    self.note(who, t0, Did::Send { from, to });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.fail(who, t0, &error),
            }
        }
    }

    /// Receives what has come, once.
    fn pull(&mut self, who: usize) -> Result<()> {
        let client = &mut self.clients[who];
        let Some(mut socket) = client.socket.as_ref() else {
            return Ok(());
        };
        let t0 = now();
        // One that does not read wants to know of a failed connection only.
        if !client.reads || client.ended {
            if let Ok(Some(error)) = socket.take_error() {
                self.fail(who, t0, &error);
            }
            return Ok(());
        }
        match socket.read(&mut self.scratch) {
            Ok(0) => {
                client.ended = true;
                self.note(who, t0, Did::EndOfStream);
            }
            Ok(count) => {
                let from = client.received;
                client
                    .payload
                    .check(from, &self.scratch[..count])
                    .with_context(|| client.name.clone())?;
                client.received += count as u64;
                let to = client.received;
                self.note(who, t0, Did::Receive { from, to });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => self.fail(who, t0, &error),
        }
        Ok(())
    }

    fn send_fin(&mut self, who: usize) {
        let client = &mut self.clients[who];
        if !client.half_closed || client.fin_sent || client.to_send > 0 {
            return;
        }
        let Some(socket) = &client.socket else {
            return;
        };
        client.fin_sent = true;
        let t0 = now();
        match socket.shutdown(Shutdown::Write) {
            Ok(()) => self.note(who, t0, Did::HalfClose),
            Err(error) => self.fail(who, t0, &error),
        }
    }

    /// The connection is over, and not by this client's will.
    fn fail(&mut self, who: usize, t0: u64, error: &io::Error) {
        self.clients[who].socket = None;
        let errno = error.raw_os_error().map(Errno::from_raw);
        let name = errno
            .map_or_else(|| error.to_string(), |errno| format!("{errno:?}"));
        self.note(who, t0, Did::Failed(name));
    }

    fn note(&mut self, client: usize, t0: u64, what: Did) {
        self.deeds.push(Deed { client, t0, t1: now(), what });
    }
}

//! Echo as a user of mio writes it: one thread, interest given once, each event
//! followed until the socket would block. What could not be sent is kept, and
//! nothing more is read until it has gone.

use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::net;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::{PAUSE, is_of_one_client};

const LISTENER: Token = Token(usize::MAX);

/// How many messages one client may have echoed before the others have their
/// turn.
const TURN: usize = 16;

pub fn serve(listener: net::TcpListener, buffer: usize) -> Result<()> {
    Server::new(listener, buffer)?.run()
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    clients: Slab<Client>,
    /// One for all: it is empty again after each turn.
    bytes: Vec<u8>,
    /// Those whose turn was over before their socket would block: no event
    /// will tell of them.
    unfinished: Vec<Token>,
    /// When to accept again, if it failed for lack of something.
    accept_at: Option<Instant>,
}

struct Client {
    stream: TcpStream,
    /// Read and not sent yet. Mostly empty, and then without memory.
    owed: Vec<u8>,
}

/// How a client's turn ended.
enum Turn {
    /// Its socket would block; an event will tell.
    Blocked,
    /// There may be more to do.
    Unfinished,
    /// It closed, or its connection failed.
    Gone,
}

impl Server {
    fn new(listener: net::TcpListener, buffer: usize) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        let mut listener = TcpListener::from_std(listener);
        let readable = Interest::READABLE;
        poll.registry().register(&mut listener, LISTENER, readable)?;
        Ok(Server {
            poll,
            listener,
            clients: Slab::new(),
            bytes: vec![0; buffer],
            unfinished: Vec::new(),
            accept_at: None,
        })
    }

    fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(err) if err.kind() == ErrorKind::Interrupted => continue,
                result => result.context("poll")?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    token => self.turn(token),
                }
            }
            for token in mem::take(&mut self.unfinished) {
                self.turn(token);
            }
            if self.accept_at.is_some_and(|at| at <= Instant::now()) {
                self.accept();
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        self.accept_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn accept(&mut self) {
        self.accept_at = None;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.on_accepted(stream),
                Err(err) if err.kind() == ErrorKind::WouldBlock => return,
                Err(err) if is_of_one_client(&err) => {}
                // Clients still wait, but no event will tell of them again.
                Err(_) => {
                    self.accept_at = Some(Instant::now() + PAUSE);
                    return;
                }
            }
        }
    }

    fn on_accepted(&mut self, mut stream: TcpStream) {
        let entry = self.clients.vacant_entry();
        let both = Interest::READABLE | Interest::WRITABLE;
        let token = Token(entry.key());
        // A client of which nothing would ever be heard is closed.
        if self.poll.registry().register(&mut stream, token, both).is_ok() {
            entry.insert(Client { stream, owed: Vec::new() });
        }
    }

    /// An event may be about one who has gone in this very batch, and whose
    /// token is already another's: that one's socket then just would block.
    fn turn(&mut self, token: Token) {
        let Some(client) = self.clients.get_mut(token.0) else { return };
        match client.turn(&mut self.bytes) {
            Turn::Blocked => {}
            Turn::Unfinished => self.unfinished.push(token),
            Turn::Gone => drop(self.clients.remove(token.0)),
        }
    }
}

impl Client {
    fn turn(&mut self, bytes: &mut [u8]) -> Turn {
        for _ in 0..TURN {
            if let Err(turn) = self.send_owed() {
                return turn;
            }
            let n = match self.stream.read(bytes) {
                Ok(0) => return Turn::Gone,
                Ok(n) => n,
                Err(err) if err.kind() == ErrorKind::Interrupted => continue,
                Err(err) => return blocked_or_gone(err.kind()),
            };
            // Most often the socket takes all of it, and nothing is kept.
            match self.stream.write(&bytes[..n]) {
                Ok(sent) => self.owed.extend_from_slice(&bytes[sent..n]),
                Err(err) if is_passing(err.kind()) => {
                    self.owed.extend_from_slice(&bytes[..n]);
                }
                Err(_) => return Turn::Gone,
            }
        }
        Turn::Unfinished
    }

    /// Sends what is owed; an error says how the turn ends if some is left.
    fn send_owed(&mut self) -> Result<(), Turn> {
        while !self.owed.is_empty() {
            match self.stream.write(&self.owed) {
                Ok(sent) => drop(self.owed.drain(..sent)),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(blocked_or_gone(err.kind())),
            }
        }
        self.owed = Vec::new();
        Ok(())
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn blocked_or_gone(kind: ErrorKind) -> Turn {
    match kind {
        ErrorKind::WouldBlock => Turn::Blocked,
        _ => Turn::Gone,
    }
}

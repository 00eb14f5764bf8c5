//! A long list of clients is waited for in chunks, one after another.
//!
//! Symptom: a client has spoken and is not answered: the server sleeps in a
//! wait for others, who have nothing to say.
//!
//! Cause: select(2) sleeps for the descriptors in its sets and knows nothing
//! of the next chunk. A shorter timeout brings the answer earlier and keeps the
//! server busier. Nor do chunks get around FD_SETSIZE: a bit stands for a
//! descriptor's number, and 1,024 has no place in any of the sets.
//!
//! Fix: one wait for everybody. poll(2) takes a list of any length:
//! EventLoop::wait_ready in poll_server/src/lib.rs. epoll_wait(2) need not even
//! look at those who are silent.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::select::{FdSet, select};
use nix::sys::time::{TimeVal, TimeValLike};
use pitfall::{Shown, pitfall, say};

const CLIENTS: usize = 6;
const CHUNK: usize = 2;
const TIMEOUT: i64 = 100;

/// Waits once, in this turn of so many, and says who is ready.
type Wait = fn(&[TcpStream], usize) -> Result<Option<usize>>;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    answer_the_last(for_a_chunk)
}

fn mended() -> Result<Shown> {
    answer_the_last(for_all)
}

fn for_a_chunk(clients: &[TcpStream], turn: usize) -> Result<Option<usize>> {
    let start = turn * CHUNK % clients.len();
    let chunk = &clients[start..start + CHUNK];
    let mut set = FdSet::new();
    chunk.iter().for_each(|client| set.insert(client.as_fd()));
    let mut timeout = TimeVal::milliseconds(TIMEOUT);
    let n = select(None, &mut set, None, None, &mut timeout)?;
    say!("select for {CHUNK} clients from {} on: {n} ready", start + 1);
    let ready = chunk.iter().position(|it| set.contains(it.as_fd()));
    Ok(ready.map(|at| start + at))
}

fn for_all(clients: &[TcpStream], _: usize) -> Result<Option<usize>> {
    let entry = |it| PollFd::new(TcpStream::as_fd(it), PollFlags::POLLIN);
    let mut list: Vec<PollFd> = clients.iter().map(entry).collect();
    let n = poll(&mut list, PollTimeout::NONE)?;
    say!("poll for all {} clients: {n} ready", list.len());
    Ok(list.iter().position(|entry| entry.any() == Some(true)))
}

fn answer_the_last(wait: Wait) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut clients = Vec::new();
    let mut sockets = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(TcpStream::connect(listener.local_addr()?)?);
        sockets.push(listener.accept()?.0);
    }
    say!("{CLIENTS} clients; the last one says hello");
    let begin = Instant::now();
    clients[CLIENTS - 1].write_all(b"hello")?;

    let mut in_vain = 0;
    let who = loop {
        match wait(&sockets, in_vain)? {
            Some(who) => break who,
            None => in_vain += 1,
        }
    };
    let mut bytes = [0; 5];
    sockets[who].read_exact(&mut bytes)?;
    sockets[who].write_all(&bytes)?;
    clients[who].read_exact(&mut bytes)?;
    let took = begin.elapsed();
    say!("its answer came after {took:.1?} and {in_vain} waits in vain");
    Ok(Shown::symptom_if(in_vain > 0))
}

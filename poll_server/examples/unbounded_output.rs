//! A server reads on while its peer does not take the answers.
//!
//! Symptom: the server's memory grows with what the peer sends.
//!
//! Cause: poll(2) says that there is something to read, whatever is owed to
//! the same peer. What has been read and cannot be sent has to be kept; TCP
//! sees a receiver who takes everything, and does not slow the sender down.
//!
//! Fix: while something is owed, want only to write. The receive buffer fills,
//! its window closes, and the peer waits in its own send(2). So one buffer is
//! all that a client ever costs: the end of EventLoop::on_ready in
//! poll_server/src/lib.rs.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{setsockopt, sockopt};
use pitfall::{Shown, pitfall, say};

const MIB: usize = 1024 * 1024;
const TO_SEND: usize = 16 * MIB;
const BUFFER: usize = 64 * 1024;
const PATIENCE_MS: u16 = 200;

/// What the server wants of a client to whom it owes so many bytes.
type Wanted = fn(usize) -> PollFlags;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    peer_who_never_reads(|owed| match owed {
        0 => PollFlags::POLLIN,
        _ => PollFlags::POLLIN | PollFlags::POLLOUT,
    })
}

fn mended() -> Result<Shown> {
    peer_who_never_reads(|owed| match owed {
        0 => PollFlags::POLLIN,
        _ => PollFlags::POLLOUT,
    })
}

/// Is both, the server and its peer, until neither can go on.
fn peer_who_never_reads(wanted: Wanted) -> Result<Shown> {
    let (mut peer, mut socket) = pair()?;
    let mut buffer = vec![0; BUFFER];
    let mut owed = Vec::new();
    let (mut sent, mut told, mut most) = (0, 0, 0);
    loop {
        let left = BUFFER.min(TO_SEND - sent);
        let send = PollFlags::POLLOUT;
        let send = if left > 0 { send } else { PollFlags::empty() };
        let mut list = [
            PollFd::new(peer.as_fd(), send),
            PollFd::new(socket.as_fd(), wanted(owed.len())),
        ];
        if poll(&mut list, PATIENCE_MS)? == 0 {
            break;
        }
        let [sends, serves] = list.map(|entry| entry.revents());
        if sends.is_some_and(|it| it.contains(PollFlags::POLLOUT)) {
            sent += at_most(peer.write(&buffer[..left]))?;
        }
        let serves = serves.unwrap_or(PollFlags::empty());
        if serves.contains(PollFlags::POLLIN) {
            let n = at_most(socket.read(&mut buffer))?;
            owed.extend_from_slice(&buffer[..n]);
        }
        most = most.max(owed.len());
        let n = at_most(socket.write(&owed))?;
        owed.drain(..n);
        if sent >= told + 4 * MIB {
            told = sent;
            let held = owed.len();
            say!("the peer has sent {sent:9}, the server holds {held:9}");
        }
    }
    say!("nobody can go on: the peer has sent {sent} of {TO_SEND} bytes");
    say!("the most that the server held: {most} bytes");
    Ok(Shown::symptom_if(most > BUFFER))
}

/// A peer, and the server's socket for it; neither ever blocks.
fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let peer = TcpStream::connect(listener.local_addr()?)?;
    let (socket, _) = listener.accept()?;
    // Lest the kernel keeps megabytes of what the server owes: tcp(7).
    setsockopt(&socket, sockopt::SndBuf, &BUFFER)?;
    peer.set_nonblocking(true)?;
    socket.set_nonblocking(true)?;
    Ok((peer, socket))
}

/// EAGAIN is no byte now.
fn at_most(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

//! An edge-triggered server takes one bufferful from each event.
//!
//! Symptom: of 20,000 bytes that a client sends, 2,048 come back. Then the
//! server sleeps, and so does the client.
//!
//! Cause: with EPOLLET epoll_wait tells of a change to ready, and tells once.
//! What recv leaves in the socket is no change; more bytes would be one, but
//! the client sends none before it has its answer: epoll(7).
//!
//! Fix: recv until EAGAIN. epoll_et does so in EventLoop::on_ready
//! (epoll_et/src/lib.rs); whoever is not through when the turn is over
//! goes on a list of its own, lest one flood starve the others.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, recv, send};
use pitfall::{Shown, pitfall, say};

const SENT: usize = 20_000;
const BUFFER: usize = 2_048;
/// Milliseconds in which nothing comes: nothing will.
const QUIET: u8 = 200;
const READ: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    talk(|socket| {
        copy(socket)?;
        Ok(1)
    })
}

fn mended() -> Result<Shown> {
    talk(|socket| {
        let mut recvs = 1;
        while copy(socket)? {
            recvs += 1;
        }
        Ok(recvs)
    })
}

/// What the server does when it is told of a client; counts its recvs.
type OnReady = fn(&TcpStream) -> Result<usize>;

fn talk(on_ready: OnReady) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (socket, _) = listener.accept()?;

    let sent: Vec<u8> = (0..SENT).map(|n| n as u8).collect();
    client.write_all(&sent)?;
    say!("client: sends {SENT} bytes");
    // Sleeps until all of them are there: they are one change, and not two.
    let all = MsgFlags::MSG_PEEK | MsgFlags::MSG_WAITALL;
    recv(socket.as_raw_fd(), &mut vec![0; SENT], all)?;

    socket.set_nonblocking(true)?;
    let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    list.add(&socket, EpollEvent::new(READ, 0))?;
    while list.wait(&mut [EpollEvent::empty()], QUIET)? > 0 {
        let recvs = on_ready(&socket)?;
        say!("server: is told of the client; calls of recv: {recvs}");
    }
    say!("server: is told of nothing within {QUIET} ms");

    // To close it with bytes unread would take back what has been sent.
    socket.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    client.read_to_end(&mut back)?;
    say!("client: has got {} bytes back", back.len());
    ensure!(sent.starts_with(&back), "they are not the bytes that were sent");
    Ok(Shown::symptom_if(back.len() < SENT))
}

/// Echoes a bufferful; false if there was nothing: EAGAIN.
fn copy(socket: &TcpStream) -> Result<bool> {
    let fd = socket.as_raw_fd();
    let mut bytes = [0; BUFFER];
    match recv(fd, &mut bytes, MsgFlags::empty()) {
        // There is room for all that the client sends: no send is short.
        Ok(n) => ensure!(n == send(fd, &bytes[..n], MsgFlags::MSG_NOSIGNAL)?),
        Err(Errno::EAGAIN) => return Ok(false),
        Err(err) => return Err(err.into()),
    }
    Ok(true)
}

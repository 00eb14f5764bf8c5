//! An edge-triggered listener takes one client per event.
//!
//! Symptom: several clients come at once, and one of them is served. The
//! others are connected, and nobody ever speaks to them.
//!
//! Cause: with EPOLLET epoll_wait tells of a change to ready, and tells once,
//! however many clients have come: epoll(7), "they will be combined". Those
//! who are left in the accept queue are no change.
//!
//! Fix: accept until EAGAIN. epoll_et does so in EventLoop::on_acceptable
//! (epoll_et/src/lib.rs), and comes back by itself if it stopped before, as it
//! does at a limit or for lack of descriptors.
#![forbid(unsafe_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use pitfall::{Shown, pitfall, say};

const CLIENTS: usize = 5;
/// Milliseconds in which nothing comes: nothing will.
const QUIET: u8 = 200;
const READ: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    crowd(|listener, taken| {
        take(listener, taken)?;
        Ok(())
    })
}

fn mended() -> Result<Shown> {
    crowd(|listener, taken| {
        while take(listener, taken)? {}
        Ok(())
    })
}

/// What the server does when it is told of its listener.
type OnAcceptable = fn(&TcpListener, &mut Vec<TcpStream>) -> Result<()>;

fn crowd(on_acceptable: OnAcceptable) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(TcpStream::connect(listener.local_addr()?)?);
    }
    say!("{CLIENTS} clients are connected; the server begins to wait");

    let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    list.add(&listener, EpollEvent::new(READ, 0))?;
    let mut taken = Vec::new();
    while list.wait(&mut [EpollEvent::empty()], QUIET)? > 0 {
        let before = taken.len();
        on_acceptable(&listener, &mut taken)?;
        say!("server: is told of clients, and takes {}", taken.len() - before);
    }
    say!("server: is told of nothing within {QUIET} ms");

    // The server goes. Whoever it took has a greeting to read, and the others
    // find that they are reset.
    drop((listener, taken));
    let greeted = clients.iter_mut().filter_map(|client| {
        let greeting = client.read(&mut [0]);
        greeting.ok().filter(|&bytes| bytes == 1)
    });
    let greeted = greeted.count();
    say!("clients greeted: {greeted} of {CLIENTS}");
    Ok(Shown::symptom_if(greeted < CLIENTS))
}

/// Takes and greets a client; false if nobody waits: EAGAIN.
fn take(listener: &TcpListener, taken: &mut Vec<TcpStream>) -> Result<bool> {
    match listener.accept() {
        Ok((mut socket, _)) => {
            socket.write_all(b"!")?;
            taken.push(socket);
            Ok(true)
        }
        Err(err) if err.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(err) => Err(err.into()),
    }
}

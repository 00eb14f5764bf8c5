//! A loop that drains a socket meets one that still blocks.
//!
//! Symptom: the first client gets its answer, and from then on nobody gets
//! any, until that client speaks again or leaves.
//!
//! Cause: to drain is to call recv until it finds nothing: epoll(7). A
//! blocking socket then does what it is for, and puts the server to sleep in
//! the recv of one client: recv(2). On Linux accept hands out blocking sockets
//! even if the listener is non-blocking: accept(2).
//!
//! Fix: O_NONBLOCK on every socket of the list. epoll_et gets them so from
//! accept4 with SOCK_NONBLOCK, in EventLoop::on_acceptable
//! (epoll_et/src/lib.rs).
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::socket::{MsgFlags, recv, send};
use pitfall::{Shown, pitfall, say};

const READ: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);
const PATIENCE: Duration = Duration::from_millis(500);

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    talk(|_| Ok(()))
}

fn mended() -> Result<Shown> {
    talk(|socket| socket.set_nonblocking(true))
}

/// What the server does to a socket that it has accepted.
type OnAccepted = fn(&TcpStream) -> io::Result<()>;

fn talk(on_accepted: OnAccepted) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sockets = HashMap::new();
    let mut connect = || {
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (socket, _) = listener.accept()?;
        on_accepted(&socket)?;
        sockets.insert(socket.as_raw_fd(), socket);
        Ok::<_, io::Error>(client)
    };
    let (mut first, mut second) = (connect()?, connect()?);
    let server = thread::spawn(|| serve(sockets));

    let mut answer = [0; 6];
    first.write_all(b"hello\n")?;
    first.read_exact(&mut answer)?;
    say!("first: says hello, and is answered");
    second.set_read_timeout(Some(PATIENCE))?;
    second.write_all(b"hello\n")?;
    let frozen = match second.read_exact(&mut answer) {
        Ok(()) => false,
        Err(err) if err.kind() == ErrorKind::WouldBlock => true,
        Err(err) => return Err(err.into()),
    };
    match frozen {
        true => say!("second: says hello; no answer within {PATIENCE:?}"),
        false => say!("second: says hello, and is answered"),
    }
    drop(first);
    say!("first: leaves");
    if frozen {
        second.set_read_timeout(None)?;
        second.read_exact(&mut answer)?;
        say!("second: is answered now");
    }
    drop(second);
    let Ok(served) = server.join() else { bail!("the server panicked") };
    served?;
    Ok(Shown::symptom_if(frozen))
}

/// The server, until the last client has left.
fn serve(mut sockets: HashMap<RawFd, TcpStream>) -> Result<()> {
    let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (&fd, socket) in &sockets {
        list.add(socket, EpollEvent::new(READ, fd as u64))?;
    }
    let mut events = [EpollEvent::empty(); 2];
    while !sockets.is_empty() {
        let n = list.wait(&mut events, EpollTimeout::NONE)?;
        for fd in events[..n].iter().map(|event| event.data() as RawFd) {
            if !drain(fd)? {
                sockets.remove(&fd);
            }
        }
    }
    Ok(())
}

/// Echoes until there is nothing more; false if nothing will come again.
fn drain(fd: RawFd) -> Result<bool> {
    let mut bytes = [0; 2_048];
    loop {
        match recv(fd, &mut bytes, MsgFlags::empty()) {
            Ok(0) => return Ok(false),
            Ok(n) => send(fd, &bytes[..n], MsgFlags::MSG_NOSIGNAL)?,
            Err(Errno::EAGAIN) => return Ok(true),
            Err(err) => return Err(err.into()),
        };
    }
}

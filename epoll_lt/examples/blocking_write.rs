//! An event loop writes with a call that blocks.
//!
//! Symptom: a client sends much and reads nothing of what comes back. Soon the
//! other client, who does read, gets no answer until the first one leaves.
//!
//! Cause: send sleeps until the socket's buffer has room for every byte:
//! send(2). Room comes when the peer reads, and nothing makes it read. So one
//! client decides when the loop goes on for all.
//!
//! Fix: send what there is room for and no more, keep the rest with the
//! connection, and ask for EPOLLOUT until it has gone. While something is owed
//! nothing is read, so that one buffer is enough. epoll_lt does so in
//! EventLoop::on_ready (epoll_lt/src/lib.rs).
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use pitfall::{Shown, pitfall, say};

const READ: EpollFlags = EpollFlags::EPOLLIN;
const WRITE: EpollFlags = EpollFlags::EPOLLOUT;
const PATIENCE: Duration = Duration::from_millis(500);
/// More than the server needs to take all that the greedy client sends.
const WORDS: usize = 100;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    talk(|connection, _| {
        connection.receive()?;
        connection.socket.write_all(&connection.pending)?;
        connection.pending.clear();
        Ok(())
    })
}

fn mended() -> Result<Shown> {
    talk(|connection, list| {
        if connection.pending.is_empty() {
            connection.receive()?;
        }
        let fd = connection.socket.as_raw_fd();
        // MSG_DONTWAIT is O_NONBLOCK for one call: send(2).
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(fd, &connection.pending, flags) {
            Ok(n) => drop(connection.pending.drain(..n)),
            Err(Errno::EAGAIN) => {}
            Err(err) => return Err(err.into()),
        }
        let wanted = if connection.pending.is_empty() { READ } else { WRITE };
        if mem::replace(&mut connection.wanted, wanted) != wanted {
            let mut event = EpollEvent::new(wanted, fd as u64);
            list.modify(&connection.socket, &mut event)?;
        }
        Ok(())
    })
}

struct Connection {
    socket: TcpStream,
    pending: Vec<u8>,
    wanted: EpollFlags,
}

impl Connection {
    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16_384];
        let n = self.socket.read(&mut bytes)?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.pending.extend(&bytes[..n]);
        Ok(())
    }
}

/// A client's turn; the client is gone if it fails.
type OnReady = fn(&mut Connection, &Epoll) -> io::Result<()>;

fn talk(on_ready: OnReady) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut connections = HashMap::new();
    let mut connect = || {
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (socket, _) = listener.accept()?;
        // Else the kernel would let it grow to megabytes: tcp(7).
        setsockopt(&socket, sockopt::SndBuf, &65_536)?;
        let (pending, wanted) = (Vec::new(), READ);
        let connection = Connection { socket, pending, wanted };
        connections.insert(connection.socket.as_raw_fd(), connection);
        Ok::<_, anyhow::Error>(client)
    };
    let (mut greedy, mut other) = (connect()?, connect()?);
    let server = thread::spawn(move || serve(connections, on_ready));

    let mut answer = [0; 6];
    other.write_all(b"hello\n")?;
    other.read_exact(&mut answer)?;
    greedy.set_nonblocking(true)?;
    let sent = greedy.write(&vec![b'x'; 1 << 20])?;
    say!("other: is answered; greedy: sends {} KiB, reads nothing", sent >> 10);
    let mut answers = 0;
    other.set_read_timeout(Some(PATIENCE))?;
    while answers < WORDS {
        other.write_all(b"hello\n")?;
        match other.read_exact(&mut answer) {
            Ok(()) => answers += 1,
            Err(err) if err.kind() == ErrorKind::WouldBlock => break,
            Err(err) => return Err(err.into()),
        }
    }
    let frozen = answers < WORDS;
    match frozen {
        true => say!("other: asks on; no answer within {PATIENCE:?}"),
        false => say!("other: asks on, and gets {answers} answers"),
    }
    drop(greedy);
    say!("greedy: leaves");
    if frozen {
        other.set_read_timeout(None)?;
        other.read_exact(&mut answer)?;
        say!("other: is answered now");
    }
    drop(other);
    let Ok(served) = server.join() else { bail!("the server panicked") };
    served?;
    Ok(Shown::symptom_if(frozen))
}

/// The server, until the last client has left.
fn serve(
    mut connections: HashMap<RawFd, Connection>,
    on_ready: OnReady,
) -> Result<()> {
    let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (&fd, connection) in &connections {
        list.add(&connection.socket, EpollEvent::new(READ, fd as u64))?;
    }
    let mut events = [EpollEvent::empty(); 2];
    while !connections.is_empty() {
        let n = list.wait(&mut events, EpollTimeout::NONE)?;
        for fd in events[..n].iter().map(|event| event.data() as RawFd) {
            let Some(connection) = connections.get_mut(&fd) else { continue };
            if on_ready(connection, &list).is_err() {
                connections.remove(&fd);
            }
        }
    }
    Ok(())
}

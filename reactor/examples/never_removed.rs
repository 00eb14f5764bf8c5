//! Of a client's many ends, a handler knows only one.
//!
//! Symptom: clients that go away in the middle of an answer are gone for
//! good, and the server keeps their descriptors. It serves everyone, until it
//! has none left.
//!
//! Cause: only a client that is read from ends with 0 bytes. One that is owed
//! something is written to, and ends with an error: EPIPE or ECONNRESET,
//! send(2). This handler stops waiting for it then, and leaves it where it is.
//!
//! Fix: one way out, which every end takes: reactor's handlers return `Gone`,
//! and Reactor::close forgets them (reactor/src/reactor.rs).
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, recv, send};
use pitfall::{Shown, pitfall, say};

const READ: EpollFlags = EpollFlags::EPOLLIN;
const WRITE: EpollFlags = EpollFlags::EPOLLOUT;
const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);
const CLIENTS: usize = 20;
/// More than the kernel takes for a client that does not read.
const ANSWER: usize = 16 << 20;
/// Milliseconds in which nothing comes: nothing will.
const QUIET: u8 = 200;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    crowd(|server, fd, end| match end {
        End::Fin => server.remove(fd),
        // Else the wait would tell of it again and again.
        End::Error => server.list.delete(&server.clients[&fd].socket).is_ok(),
    })
}

fn mended() -> Result<Shown> {
    crowd(|server, fd, _| server.remove(fd))
}

/// Why nothing more comes of a client.
enum End {
    /// recv returned 0.
    Fin,
    /// recv or send failed.
    Error,
}

/// What the server does about it.
type OnEnd = fn(&mut Server, RawFd, End) -> bool;

struct Server {
    listener: TcpListener,
    list: Epoll,
    clients: HashMap<RawFd, Client>,
    /// How many of them have come to an error.
    errors: usize,
    on_end: OnEnd,
}

struct Client {
    socket: TcpStream,
    /// How much of its answer it is owed.
    owed: usize,
}

fn crowd(on_end: OnEnd) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let (clients, errors) = (HashMap::new(), 0);
    let mut server = Server { listener, list, clients, errors, on_end };
    let before = descriptors()?;

    let mut begins = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(addr)?;
        server.accept()?;
        client.write_all(b"?")?;
        begins.push(client);
    }
    server.serve()?;
    for client in &mut begins {
        client.read_exact(&mut [0; 1_000])?;
    }
    // Who closes with bytes unread resets the connection.
    drop(begins);
    say!("{CLIENTS} clients go away in the middle of their answer");
    server.serve()?;
    ensure!(server.errors == CLIENTS, "{} are reset", server.errors);

    let mut polite = TcpStream::connect(addr)?;
    server.accept()?;
    polite.write_all(b"?")?;
    let mut answer = vec![0; ANSWER];
    let mut got = 0;
    polite.set_nonblocking(true)?;
    while got < ANSWER {
        server.round(0)?;
        got += polite.read(&mut answer[got..]).unwrap_or(0);
    }
    say!("another one gets its whole answer, and leaves");
    drop(polite);
    server.serve()?;
    let kept = descriptors()? - before;
    say!("nobody is connected; the server has {kept} of their descriptors");
    ensure!(kept == server.clients.len(), "somebody else's descriptors");
    Ok(Shown::symptom_if(kept >= CLIENTS))
}

impl Server {
    fn accept(&mut self) -> Result<()> {
        let (socket, _) = self.listener.accept()?;
        let fd = socket.as_raw_fd();
        self.list.add(&socket, EpollEvent::new(READ, fd as u64))?;
        self.clients.insert(fd, Client { socket, owed: 0 });
        Ok(())
    }

    fn remove(&mut self, fd: RawFd) -> bool {
        self.clients.remove(&fd).is_some()
    }

    /// Until there is nothing more to do.
    fn serve(&mut self) -> Result<()> {
        while self.round(QUIET)? {}
        Ok(())
    }

    fn round(&mut self, patience: u8) -> Result<bool> {
        let mut events = [EpollEvent::empty(); 32];
        let n = self.list.wait(&mut events, patience)?;
        for fd in events[..n].iter().map(|event| event.data() as RawFd) {
            if let Err(end) = self.on_ready(fd)? {
                self.errors += usize::from(matches!(end, End::Error));
                (self.on_end)(self, fd, end);
            }
        }
        Ok(n > 0)
    }

    fn on_ready(&mut self, fd: RawFd) -> Result<Result<(), End>> {
        let Some(client) = self.clients.get_mut(&fd) else {
            return Ok(Ok(()));
        };
        if client.owed == 0 {
            match recv(fd, &mut [0; 16], FLAGS) {
                Ok(0) => return Ok(Err(End::Fin)),
                Ok(_) => client.owed = ANSWER,
                Err(Errno::EAGAIN) => return Ok(Ok(())),
                Err(_) => return Ok(Err(End::Error)),
            }
        }
        let answer = [b'x'; 65_536];
        match send(fd, &answer[..client.owed.min(answer.len())], FLAGS) {
            Ok(n) => client.owed -= n,
            Err(Errno::EAGAIN) => {}
            Err(_) => return Ok(Err(End::Error)),
        }
        let wanted = if client.owed == 0 { READ } else { WRITE };
        let mut event = EpollEvent::new(wanted, fd as u64);
        self.list.modify(&client.socket, &mut event)?;
        Ok(Ok(()))
    }
}

fn descriptors() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

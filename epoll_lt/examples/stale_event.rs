//! An event is believed after its descriptor has changed hands.
//!
//! Symptom: a client that has just come, and done nothing, is thrown out.
//!
//! Cause: an event may be past when its turn comes. A turn before it closes
//! that descriptor, and accept gives the number, the lowest free, to the next
//! client, who is taken for the old one: epoll(7), "If using an event cache".
//!
//! Fix: an event is a hint to look; a non-blocking call sees who is there now.
//! epoll_lt says so at EventLoop::on_gone (epoll_lt/src/lib.rs). Who must
//! believe events puts a generation into the token.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, recv, send};
use pitfall::{Shown, pitfall, say};

const HUNG_UP: EpollFlags = EpollFlags::EPOLLRDHUP;
const READ: EpollFlags = EpollFlags::EPOLLIN.union(HUNG_UP);
/// Milliseconds in which nothing comes: nothing will.
const QUIET: u8 = 100;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    talk(|_, event| event.contains(HUNG_UP))
}

fn mended() -> Result<Shown> {
    talk(|socket, _| matches!(socket.peek(&mut [0]), Ok(0)))
}

/// Whether a client has gone.
type HasGone = fn(&TcpStream, EpollFlags) -> bool;

fn talk(has_gone: HasGone) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let mut server = Server::new(listener, has_gone)?;
    let mut first = TcpStream::connect(addr)?;
    until_ready(&server.listener)?;
    let a = server.on_acceptable()?;
    let second = TcpStream::connect(addr)?;
    until_ready(&server.listener)?;
    let b = server.on_acceptable()?;
    // A listener that was ready stays on the ready list until a wait has found
    // it quiet.
    ensure!(server.round()?.is_empty(), "someone is ready");

    // In the order in which they become ready the next wait tells of them.
    first.write_all(b"kick\n")?;
    until_ready(&server.clients[&a])?;
    let mut third = TcpStream::connect(addr)?;
    until_ready(&server.listener)?;
    second.shutdown(Shutdown::Write)?;
    until_ready(&server.clients[&b])?;
    say!("first ({a}) kicks the others; third connects; second ({b}) leaves");
    let batch = server.round()?;
    let listens = server.listener.as_raw_fd();
    ensure!(batch == [a, listens, b], "the batch is {batch:?}");

    third.write_all(b"hello\n")?;
    server.round()?;
    third.set_read_timeout(Some(Duration::from_millis(QUIET.into())))?;
    let thrown_out = !matches!(third.read(&mut [0; 16]), Ok(6));
    match thrown_out {
        true => say!("third: says hello, and finds that it is disconnected"),
        false => say!("third: says hello, and is answered"),
    }
    Ok(Shown::symptom_if(thrown_out))
}

fn until_ready(fd: &impl AsFd) -> Result<()> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE)?;
    Ok(())
}

struct Server {
    listener: TcpListener,
    list: Epoll,
    clients: HashMap<RawFd, TcpStream>,
    has_gone: HasGone,
}

impl Server {
    fn new(listener: TcpListener, has_gone: HasGone) -> Result<Server> {
        listener.set_nonblocking(true)?;
        let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let fd = listener.as_raw_fd();
        list.add(&listener, EpollEvent::new(READ, fd as u64))?;
        Ok(Server { listener, list, clients: HashMap::new(), has_gone })
    }

    /// One wait, and a turn for each descriptor that it tells of.
    fn round(&mut self) -> Result<Vec<RawFd>> {
        let mut events = [EpollEvent::empty(); 8];
        let n = self.list.wait(&mut events, QUIET)?;
        let mut batch = Vec::new();
        for event in &events[..n] {
            let fd = event.data() as RawFd;
            batch.push(fd);
            if fd == self.listener.as_raw_fd() {
                let fd = self.on_acceptable()?;
                say!("server: accepts third, who is {fd}");
            } else {
                self.on_ready(fd, event.events())?;
            }
        }
        Ok(batch)
    }

    fn on_acceptable(&mut self) -> Result<RawFd> {
        let (socket, _) = self.listener.accept()?;
        socket.set_nonblocking(true)?;
        let fd = socket.as_raw_fd();
        self.list.add(&socket, EpollEvent::new(READ, fd as u64))?;
        self.clients.insert(fd, socket);
        Ok(fd)
    }

    fn on_ready(&mut self, fd: RawFd, event: EpollFlags) -> Result<()> {
        let Some(socket) = self.clients.get(&fd) else { return Ok(()) };
        if (self.has_gone)(socket, event) {
            say!("server: takes {fd} for gone, and closes it");
            self.clients.remove(&fd);
            return Ok(());
        }
        let mut bytes = [0; 16];
        match recv(fd, &mut bytes, MsgFlags::empty()) {
            Ok(n) if bytes[..n] == *b"kick\n" => {
                let others = self.clients.extract_if(|&it, _| it != fd);
                others.for_each(|(it, _)| say!("server: kicks {it} out"));
            }
            Ok(n) => drop(send(fd, &bytes[..n], MsgFlags::MSG_NOSIGNAL)?),
            Err(Errno::EAGAIN) => {}
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }
}

//! A server asks for room to write while it owes nothing.
//!
//! Symptom: one idle client keeps a whole core busy: every wait returns at
//! once, and there is nothing to do. All answers are right, so nobody sees it.
//!
//! Cause: a socket with room in its send buffer is ready for EPOLLOUT, and
//! that is so nearly always. A level-triggered wait tells of it for as long
//! as it is so: epoll(7).
//!
//! Fix: ask for EPOLLOUT while bytes are owed, and only then. epoll_lt does
//! so at the end of EventLoop::on_ready (epoll_lt/src/lib.rs).
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::time::{ClockId, clock_gettime};
use pitfall::{Shown, pitfall, say};

const READ: EpollFlags = EpollFlags::EPOLLIN;
const WRITE: EpollFlags = EpollFlags::EPOLLOUT;
/// How long the client is idle, in milliseconds.
const IDLE: u8 = 200;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    talk(|_| READ | WRITE)
}

fn mended() -> Result<Shown> {
    talk(|pending| if pending.is_empty() { READ } else { WRITE })
}

/// What the server asks for while it owes so much.
type Wanted = fn(pending: &[u8]) -> EpollFlags;

fn talk(wanted_for: Wanted) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (socket, _) = listener.accept()?;
    socket.set_nonblocking(true)?;
    let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut pending = Vec::new();
    let mut wanted = wanted_for(&pending);
    list.add(&socket, EpollEvent::new(wanted, 0))?;

    client.write_all(b"hello\n")?;
    say!("client: says hello, and nothing more for {IDLE} ms");
    let (mut waits, mut useful) = (0, 0);
    let (begin, cpu) = (Instant::now(), cpu_time()?);
    while begin.elapsed() < Duration::from_millis(IDLE.into())
        && list.wait(&mut [EpollEvent::empty()], IDLE)? > 0
    {
        waits += 1;
        useful += usize::from(on_ready(&socket, &mut pending)?);
        let wants = wanted_for(&pending);
        if mem::replace(&mut wanted, wants) != wants {
            list.modify(&socket, &mut EpollEvent::new(wants, 0))?;
        }
    }
    let cpu = cpu_time()? - cpu;
    say!("server: waits that ended: {waits}, with work to do: {useful}");
    say!("server: took {} ms of CPU time", cpu.as_millis());

    let mut answer = [0; 6];
    client.read_exact(&mut answer)?;
    ensure!(&answer == b"hello\n", "the answer is wrong");
    say!("client: has its answer");
    Ok(Shown::symptom_if(waits - useful > 100))
}

/// Receives once and sends once; false if there was nothing to do.
fn on_ready(socket: &TcpStream, pending: &mut Vec<u8>) -> Result<bool> {
    let fd = socket.as_raw_fd();
    if pending.is_empty() {
        let mut bytes = [0; 2_048];
        match recv(fd, &mut bytes, MsgFlags::empty()) {
            Ok(n) => pending.extend(&bytes[..n]),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(err) => return Err(err.into()),
        }
    }
    match send(fd, pending, MsgFlags::MSG_NOSIGNAL) {
        Ok(n) => drop(pending.drain(..n)),
        Err(Errno::EAGAIN) => return Ok(false),
        Err(err) => return Err(err.into()),
    }
    Ok(true)
}

fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

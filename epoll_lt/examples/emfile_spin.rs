//! Out of descriptors, an accept loop tries again at once.
//!
//! Symptom: a client that cannot be accepted keeps a whole core busy:
//! thousands of accepts fail with EMFILE, and each is a line in the log where
//! somebody logs them.
//!
//! Cause: accept that fails for lack of a descriptor leaves the client in the
//! queue: accept(2), EMFILE. So the listener is still ready, and a
//! level-triggered wait says so at once: epoll(7).
//!
//! Fix: want nothing of the listener for a while, or until a descriptor has
//! become free. echo's Listener decides when (echo/src/listener.rs), and
//! epoll_lt tells the kernel in EventLoop::wait_ready (epoll_lt/src/lib.rs).
#![forbid(unsafe_code)]

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pitfall::{Shown, pitfall, say};

const READ: EpollFlags = EpollFlags::EPOLLIN;
/// How long descriptors are lacking.
const LACK: Duration = Duration::from_millis(200);
/// How long the listener rests, in milliseconds.
const PAUSE: u8 = 100;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    crowd(|_, _| Ok(()))
}

fn mended() -> Result<Shown> {
    crowd(|list, listener| want(list, listener, EpollFlags::empty()))
}

/// What the server does when it is out of descriptors.
type OnLack = fn(&Epoll, &TcpListener) -> Result<()>;

fn crowd(on_lack: OnLack) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    list.add(&listener, EpollEvent::new(READ, 0))?;
    let _client = TcpStream::connect(listener.local_addr()?)?;

    // The kernel gives out the lowest number that is free. From there on
    // there shall be none.
    let next = listener.try_clone()?.as_raw_fd();
    let (limit, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, next as u64, most)?;
    say!("a client waits; for {} ms no descriptor is free", LACK.as_millis());

    let begin = Instant::now();
    let mut failed = 0;
    loop {
        if begin.elapsed() >= LACK {
            setrlimit(Resource::RLIMIT_NOFILE, limit, most)?;
        }
        if list.wait(&mut [EpollEvent::empty()], PAUSE)? == 0 {
            want(&list, &listener, READ)?;
            continue;
        }
        match listener.accept() {
            Ok(_) => break,
            Err(err) => {
                ensure!(Errno::try_from(err)? == Errno::EMFILE, "accept");
                failed += 1;
                on_lack(&list, &listener)?;
            }
        }
    }
    say!("accepts that failed with EMFILE meanwhile: {failed}");
    say!("one is free again: the client is accepted");
    Ok(Shown::symptom_if(failed > 100))
}

/// Tells the kernel what is wanted of the listener.
fn want(list: &Epoll, listener: &TcpListener, what: EpollFlags) -> Result<()> {
    Ok(list.modify(listener, &mut EpollEvent::new(what, 0))?)
}

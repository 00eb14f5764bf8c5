//! Signals find their queue full, and the SIGIO for it is ignored.
//!
//! Symptom: after a burst some clients are answered and the others never are,
//! though their bytes have come and nothing has failed.
//!
//! Cause: only so many signals may be queued (RLIMIT_SIGPENDING in
//! getrlimit(2)), by all processes of a user together. One for which there is
//! no room is lost, and with it the descriptor that it would have named. In
//! its place the kernel sends SIGIO, which is not queued and names nobody:
//! fcntl(2), F_SETSIG. Nobody tells a second time.
//!
//! Fix: on SIGIO ask everyone, by one poll. signal_driven does so in
//! EventLoop::look_at_all (signal_driven/src/lib.rs), and counts it.
#![allow(unsafe_code)]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use anyhow::Result;
use echo::signal_set;
use libc::c_int;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::gettid;
use pitfall::{Shown, pitfall, say};

const CLIENTS: usize = 20;
const ROOM: u64 = 4;
const QUIET: Duration = Duration::from_millis(100);

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    burst(|_| Ok(Vec::new()))
}

fn mended() -> Result<Shown> {
    burst(|sockets| {
        let mut ready = Vec::new();
        for socket in sockets {
            if readable(socket, Duration::ZERO)? {
                ready.push(socket.as_raw_fd());
            }
        }
        say!("someone is ready: a look at all finds {}", ready.len());
        Ok(ready)
    })
}

/// Who is to be served after a SIGIO.
type OnSigio = fn(&[TcpStream]) -> Result<Vec<RawFd>>;

fn burst(on_sigio: OnSigio) -> Result<Shown> {
    let all = signal_set(&[libc::SIGIO, libc::SIGRTMIN()]);
    all.thread_block()?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&all, flags)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut clients, mut sockets) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        clients.push(TcpStream::connect(listener.local_addr()?)?);
        sockets.push(listener.accept()?.0);
    }
    sockets.iter().try_for_each(ask_for_signals)?;

    let (room, most) = getrlimit(Resource::RLIMIT_SIGPENDING)?;
    setrlimit(Resource::RLIMIT_SIGPENDING, ROOM, most)?;
    for client in &mut clients {
        client.write_all(b"x")?;
    }
    say!("{CLIENTS} clients have spoken; the queue has room for {ROOM}");
    let (mut named, mut unnamed) = (0, 0);
    while readable(&signals, QUIET)?
        && let Some(signal) = signals.read_signal()?
    {
        if signal.ssi_signo == libc::SIGIO as u32 {
            unnamed += 1;
            on_sigio(&sockets)?.into_iter().try_for_each(serve)?;
        } else {
            named += 1;
            serve(signal.ssi_fd)?;
        }
    }
    setrlimit(Resource::RLIMIT_SIGPENDING, room, most)?;
    say!("signals that name a descriptor: {named}; SIGIO: {unnamed}");

    let mut answered = 0;
    for client in &clients {
        answered += usize::from(readable(client, Duration::ZERO)?);
    }
    say!("clients answered: {answered} of {CLIENTS}");
    Ok(Shown::symptom_if(answered < CLIENTS))
}

/// Echoes what is there, as everyone does who was told of a descriptor.
fn serve(fd: RawFd) -> Result<()> {
    let mut bytes = [0; 16];
    match recv(fd, &mut bytes, MsgFlags::empty()) {
        Ok(n) => send(fd, &bytes[..n], MsgFlags::MSG_NOSIGNAL)?,
        // Someone has been told of twice.
        Err(Errno::EAGAIN) => 0,
        Err(err) => return Err(err.into()),
    };
    Ok(())
}

/// Whether there is something to read within so much time.
fn readable(fd: &impl AsFd, limit: Duration) -> Result<bool> {
    let mut list = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut list, PollTimeout::try_from(limit)?)? == 1)
}

/// From <linux/fcntl.h>; libc has them for other systems only.
const F_SETSIG: c_int = 10;
const F_SETOWN_EX: c_int = 15;

/// From now on this thread gets a real-time signal for each event of it.
fn ask_for_signals(socket: &TcpStream) -> Result<()> {
    let fd = socket.as_raw_fd();
    // A `struct f_owner_ex`: F_OWNER_TID, and the thread.
    let owner: [c_int; 2] = [0, gettid().as_raw()];
    // SAFETY: `owner` has the layout of the struct, is only read, and outlives
    // the call.
    Errno::result(unsafe { libc::fcntl(fd, F_SETOWN_EX, owner.as_ptr()) })?;
    // SAFETY: three numbers; a wrong one is refused.
    Errno::result(unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGRTMIN()) })?;
    let flags = OFlag::O_NONBLOCK | OFlag::O_ASYNC;
    fcntl(socket, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

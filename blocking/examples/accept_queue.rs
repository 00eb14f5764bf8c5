//! A listener's backlog is shorter than a burst of clients.
//!
//! Symptom: a few clients connect at once, the others after a second or more,
//! though the server takes everyone who waits.
//!
//! Cause: the kernel completes connections and keeps them for accept: as many
//! as listen(2) was told, and one more. While that queue is full it drops the
//! SYN of the next client and says nothing; the client sends it again after
//! 1 s, and then after pauses that grow: tcp(7), tcp_syn_retries.
//!
//! Fix: a backlog for the largest burst; the kernel caps it at somaxconn. See
//! `ss -lnt` for how many wait and may wait (Recv-Q, Send-Q), and `nstat -az
//! TcpExtListenOverflows`. All servers here ask for 4,096, or --backlog:
//! echo/src/listener.rs.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, connect, listen,
    socket,
};
use pitfall::{Shown, pitfall, say};

const CLIENTS: usize = 6;
const PATIENCE: Duration = Duration::from_millis(300);

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    burst(1)
}

fn mended() -> Result<Shown> {
    burst(4096)
}

fn burst(backlog: i32) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // std has asked for a backlog of its own; the last word counts.
    listen(&listener, Backlog::new(backlog)?)?;
    let overflows = listen_overflows();
    let clients = (0..CLIENTS).map(|_| begin_connect(&listener));
    let clients: Vec<OwnedFd> = clients.collect::<Result<_>>()?;
    say!("backlog {backlog}: {CLIENTS} clients connect, none is taken yet");

    let begin = Instant::now();
    let left = || PATIENCE.saturating_sub(begin.elapsed());
    let mut taken = Vec::new();
    while taken.len() < CLIENTS && ready(&listener, PollFlags::POLLIN, left())?
    {
        taken.push(listener.accept()?.0);
    }
    let connected = clients.iter().filter(|client| {
        ready(client, PollFlags::POLLOUT, Duration::ZERO).unwrap_or(false)
    });
    let connected = connected.count();
    let (taken, trying) = (taken.len(), CLIENTS - connected);
    say!(
        "{taken} are taken within {PATIENCE:?}; {trying} still try to connect"
    );
    if let (Some(before), Some(now)) = (overflows, listen_overflows()) {
        say!("TcpExtListenOverflows has grown by {}", now - before);
    }
    Ok(Shown::symptom_if(taken < CLIENTS))
}

/// A client that does not wait until it is connected.
fn begin_connect(to: &TcpListener) -> Result<OwnedFd> {
    let kind = SockType::Stream;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Inet, kind, flags, None)?;
    let SocketAddr::V4(addr) = to.local_addr()? else {
        bail!("it is not IPv4");
    };
    match connect(client.as_raw_fd(), &SockaddrIn::from(addr)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(client),
        Err(err) => Err(err.into()),
    }
}

/// Whether it becomes ready for this within so much time.
fn ready(fd: &impl AsFd, what: PollFlags, limit: Duration) -> Result<bool> {
    let mut list = [PollFd::new(fd.as_fd(), what)];
    poll(&mut list, PollTimeout::try_from(limit)?)?;
    Ok(list[0].revents() == Some(what))
}

/// The kernel's count of connections that found a queue full, this one's or
/// another's: proc(5), /proc/net/netstat.
fn listen_overflows() -> Option<u64> {
    let text = fs::read_to_string("/proc/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut both = names.split(' ').zip(values.split(' '));
    both.find(|(name, _)| *name == "ListenOverflows")?.1.parse().ok()
}

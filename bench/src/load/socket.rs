//! Connections as the load generator opens them: from source addresses that
//! have ports left.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind,
    connect, getsockopt, setsockopt, socket, sockopt,
};

/// After how many connections the source address changes. It has some 28,000
/// ports, and each rests for a minute after it was closed (TIME_WAIT). With
/// few taken, the kernel finds a free one at once; and a source's turn comes
/// again after a million connections.
const PER_SOURCE: u64 = 4_000;
/// How many addresses of the loopback network are sources.
const SOURCES: u64 = 250;

/// Opens connections to one server.
pub(super) struct Opener {
    addr: SocketAddr,
    /// How many connections were opened, or passed over.
    number: u64,
}

impl Opener {
    pub(super) fn new(addr: SocketAddr) -> Opener {
        Opener { addr, number: 0 }
    }

    /// A socket that is connecting.
    pub(super) fn begin(&mut self) -> Result<OwnedFd> {
        for _ in 0..SOURCES {
            let source = source_of(self.addr, self.number);
            match begin_connect(self.addr, source)? {
                Ok(socket) => {
                    self.number += 1;
                    return Ok(socket);
                }
                // Others, or earlier loads, have taken its ports.
                Err(Errno::EADDRNOTAVAIL) if has_sources(self.addr) => {
                    self.number += PER_SOURCE - self.number % PER_SOURCE;
                }
                Err(errno) => return Err(errno).context("connect"),
            }
        }
        Err(Errno::EADDRNOTAVAIL).context("connect: no source has a port left")
    }
}

/// The inner error is that of connect.
fn begin_connect(
    addr: SocketAddr,
    source: Option<Ipv4Addr>,
) -> Result<Result<OwnedFd, Errno>> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)
        .context("socket (is it the limit of descriptors, ulimit -n?)")?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true).context("TCP_NODELAY")?;
    if let Some(source) = source {
        // ip(7): connect then chooses the port, for this destination only.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)
            .context("IP_BIND_ADDRESS_NO_PORT")?;
        let from = SockaddrIn::from(SocketAddrV4::new(source, 0));
        bind(socket.as_raw_fd(), &from).context("bind")?;
    }
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(Ok(socket)),
        Err(errno) => Ok(Err(errno)),
    }
}

/// The loopback network has more addresses than one.
fn has_sources(addr: SocketAddr) -> bool {
    matches!(addr.ip(), IpAddr::V4(ip) if ip.is_loopback())
}

fn source_of(addr: SocketAddr, number: u64) -> Option<Ipv4Addr> {
    let last = number / PER_SOURCE % SOURCES + 1;
    (has_sources(addr) && last > 1)
        .then(|| Ipv4Addr::new(127, 0, 0, last as u8))
}

pub(super) fn is_connected(socket: &OwnedFd) -> Result<()> {
    match getsockopt(socket, sockopt::SocketError)? {
        0 => Ok(()),
        code => Err(Errno::from_raw(code).into()),
    }
}

/// Whether it stands, or has failed, by now: to this machine it mostly does
/// when connect returns.
pub(super) fn is_decided(socket: &OwnedFd) -> Result<bool> {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno).context("poll"),
    }
}

/// How a connection ended: by the other side's FIN, or with an error.
pub(super) fn end_of(errno: Option<Errno>) -> String {
    match errno {
        None => "was closed by the server".to_string(),
        Some(Errno::ECONNRESET | Errno::EPIPE) => "was reset".to_string(),
        Some(errno) => format!("failed ({errno})"),
    }
}

pub(super) fn wait_for(
    socket: &OwnedFd,
    what: PollFlags,
    limit: Duration,
) -> Result<()> {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(socket.as_fd(), what)];
    loop {
        match poll(&mut fds, timeout) {
            Ok(0) => bail!("no answer for {limit:?}"),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_change_before_their_ports_run_out() {
        let here = SocketAddr::from(([127, 0, 0, 1], 7));
        let source = |number| source_of(here, number).map(|it| it.octets());
        assert_eq!(source(0), None);
        assert_eq!(source(PER_SOURCE - 1), None);
        assert_eq!(source(PER_SOURCE), Some([127, 0, 0, 2]));
        assert_eq!(source(PER_SOURCE * 249), Some([127, 0, 0, 250]));
        assert_eq!(source(PER_SOURCE * 250), None);
        let other = SocketAddr::from(([192, 0, 2, 1], 7));
        assert_eq!(source_of(other, PER_SOURCE), None);
    }

    /// At 100,000 connections a second, a minute of TIME_WAIT long.
    #[test]
    fn sources_have_ports_for_a_minute_of_haste() {
        let ports = 60_999 - 32_768 + 1;
        assert!(100_000 * 60 / SOURCES < ports);
    }
}

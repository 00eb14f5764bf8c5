//! A listener, or one for each worker: with SO_REUSEPORT several listen at one
//! address, and the kernel spreads the clients over their queues.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage,
    bind, getsockname, listen, setsockopt, socket, sockopt,
};

use crate::{Listener, Watch};

/// So many listeners, of which this is the first. Who has them keeps all of
/// them open, whatever becomes of those who accept: to close one is to reset
/// the clients in its queue.
///
/// The first was bound without the option, so another server at the same
/// address has been refused; and so it is from now on, for the kernel asks
/// for the option on both sides: socket(7).
///
/// # Errors
///
/// The call that failed, and at which address.
pub fn listeners<W: Watch>(
    first: Listener,
    count: usize,
    watch: W,
) -> Result<Vec<Listener>> {
    let fd = first.fd();
    let share = || setsockopt(&first, sockopt::ReusePort, &true);
    watch.ask("setsockopt", fd, share).context("SO_REUSEPORT")?;
    let mut all = vec![first];
    while all.len() < count {
        all.push(beside(&all[0], watch)?);
    }
    Ok(all)
}

fn beside<W: Watch>(first: &Listener, watch: W) -> Result<Listener> {
    let mut addr = None;
    let ask = || {
        addr = Some(getsockname::<SockaddrStorage>(first.fd())?);
        Ok(())
    };
    watch.ask("getsockname", first.fd(), ask).context("getsockname")?;
    let addr = addr.context("no address")?;
    let family = addr.family().unwrap_or(AddressFamily::Inet);
    let flags = SockFlag::SOCK_CLOEXEC;
    let new = || socket(family, SockType::Stream, flags, None);
    let socket =
        watch.ask("socket", -1, new).context("cannot make a socket")?;
    let fd = socket.as_raw_fd();
    // As the first one has them, and the one that lets them share.
    watch.ask("setsockopt", fd, || {
        setsockopt(&socket, sockopt::ReuseAddr, &true)
    })?;
    watch.ask("setsockopt", fd, || {
        setsockopt(&socket, sockopt::TcpNoDelay, &true)
    })?;
    watch.ask("setsockopt", fd, || {
        setsockopt(&socket, sockopt::KeepAlive, &true)
    })?;
    watch.ask("setsockopt", fd, || {
        setsockopt(&socket, sockopt::ReusePort, &true)
    })?;
    let wrong = || format!("cannot listen beside the first at {addr}");
    watch.ask("bind", fd, || bind(fd, &addr)).with_context(wrong)?;
    let backlog = Backlog::new(first.backlog())?;
    watch.ask("listen", fd, || listen(&socket, backlog)).with_context(wrong)?;
    Ok(first.beside(socket))
}

//! RFC 862 over UDP: no connections, so that one socket is all there is to
//! wait for. Signal-driven I/O was once used for this: UNIX Network
//! Programming, chapter 25, has an echo server and NTP.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use echo::{Listener, Stop, StopSignal, Timeout, Watch, tally};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, SockaddrStorage, recvfrom, sendto};

use crate::flags::Flags;
use crate::signals::{Signal, Signals};

/// Datagrams answered before the signals' turn.
const BUDGET: usize = 64;

/// No datagram has more bytes (RFC 768), so none is ever cut.
const LARGEST: usize = 65_535;

/// Which socket the command line asks for, if it may.
pub fn transport(flags: &Flags, addr: SocketAddr) -> Result<SockType, String> {
    match flags.udp {
        false => Ok(SockType::Stream),
        true if addr.ip().is_loopback() || flags.allow_remote => {
            Ok(SockType::Datagram)
        }
        true => Err(format!(
            "--addr {addr} is open to other machines, and whoever forges a \
             sender's address has a datagram sent to it; --allow-remote \
             allows that"
        )),
    }
}

pub struct EventLoop<W> {
    socket: Listener,
    own: SocketAddr,
    stop: StopSignal,
    signals: Signals,
    buffer: Vec<u8>,
    ready: bool,
    watch: W,
}

impl<W: Watch> EventLoop<W> {
    pub fn new(
        socket: Listener,
        stop: StopSignal,
        flags: Flags,
        watch: W,
    ) -> Result<Self> {
        let signals = Signals::new(&flags)?;
        signals.ask(watch, socket.fd(), &socket).context("fcntl")?;
        Ok(EventLoop {
            own: socket.addr()?,
            socket,
            stop,
            signals,
            buffer: vec![0; LARGEST],
            // What came before the signals were asked for was not told.
            ready: true,
            watch,
        })
    }

    pub fn run(mut self) -> Result<()> {
        while !self.stop.asked() {
            self.wait_ready()?;
            if self.ready {
                self.ready = !self.on_ready();
            }
        }
        Ok(())
    }

    /// Wait phase: with one socket, any signal can only mean this one. So a
    /// queue that overflowed needs no more than a look at it.
    fn wait_ready(&mut self) -> Result<()> {
        let none = match self.ready {
            true => Timeout::ZERO,
            false => Timeout::NEVER,
        };
        match self.signals.next(self.watch, none)? {
            Some(Signal::Ready(_)) => self.ready = true,
            Some(Signal::Somebody(overflow)) => {
                if overflow {
                    tally().add_overflow();
                }
                self.ready = true;
            }
            Some(Signal::Stop) => self.stop.take(),
            Some(Signal::Stray) | None => {}
        }
        let fd = [self.socket.fd()];
        let ready = if self.ready { &fd[..] } else { &[] };
        self.watch.ready(ready, 1);
        Ok(())
    }

    /// Copy phase: answers until there is nothing more; whether that is so.
    /// What cannot be sent at once is lost, as any datagram may be (RFC 768).
    fn on_ready(&mut self) -> bool {
        let (fd, none) = (self.socket.fd(), MsgFlags::empty());
        for _ in 0..BUDGET {
            let mut from = None;
            let take = || {
                let (n, sender) =
                    recvfrom::<SockaddrStorage>(fd, &mut self.buffer)?;
                from = sender;
                Ok(n)
            };
            let n = match self.watch.copy("recvfrom", &self.socket, take) {
                Ok(n) => n,
                Err(Errno::EAGAIN) => return true,
                // Also what went wrong with a datagram sent earlier.
                Err(_) => continue,
            };
            let sender = from.as_ref().and_then(address);
            if !sender.is_some_and(|sender| may_answer(sender, self.own)) {
                tally().add_unanswered();
                continue;
            }
            let Some(to) = from else { continue };
            let send = || sendto(fd, &self.buffer[..n], &to, none);
            match self.watch.copy("sendto", &self.socket, send) {
                Ok(_) => tally().add_datagram(n),
                Err(_) => tally().add_unanswered(),
            }
        }
        false
    }
}

/// An echo can be answered by an echo, for ever (CERT CA-1996-01): so nothing
/// goes to our own address, whose sender is forged, nor to the ports of system
/// services, echo and chargen among them.
fn may_answer(sender: SocketAddr, own: SocketAddr) -> bool {
    let same = sender.ip() == own.ip() || own.ip().is_unspecified();
    sender.port() >= 1024 && !(same && sender.port() == own.port())
}

fn address(sender: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = sender.as_sockaddr_in().map(|it| (*it).into());
    let v4 = v4.map(SocketAddr::V4);
    let v6 = sender.as_sockaddr_in6().map(|it| SocketAddr::V6((*it).into()));
    let mut addr = v4.or(v6)?;
    // To a socket of both families an IPv4 sender looks like ::ffff:a.b.c.d.
    if let IpAddr::V6(ip) = addr.ip() {
        addr.set_ip(ip.to_canonical());
    }
    Some(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_never_answered_by_an_echo() {
        let own: SocketAddr = "127.0.0.1:7007".parse().unwrap();
        let any: SocketAddr = "0.0.0.0:7007".parse().unwrap();
        let asks = |from: &str, own| may_answer(from.parse().unwrap(), own);
        assert!(asks("127.0.0.1:40000", own));
        assert!(asks("127.0.0.2:7007", own), "another machine, same port");
        assert!(!asks("127.0.0.1:7007", own), "its own address");
        assert!(!asks("192.0.2.1:7007", any), "may be its own address");
        assert!(!asks("127.0.0.1:7", own), "echo");
        assert!(!asks("127.0.0.1:1023", own));
        assert!(asks("127.0.0.1:1024", own));
    }
}

//! A client whose every byte tells where it belongs.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind,
    connect as connect_socket, setsockopt, socket, sockopt,
};

use super::PATIENCE;

/// How a client connects.
#[derive(Clone, Default)]
pub struct Connect {
    /// From which address: 28,000 ports belong to each.
    pub source: Option<Ipv4Addr>,
    /// SO_RCVBUF.
    pub receive_buffer: Option<usize>,
    /// SO_SNDBUF.
    pub send_buffer: Option<usize>,
    /// How long to wait for this connect and for each later read and write,
    /// if not `PATIENCE`.
    pub patience: Option<Duration>,
}

/// Connects to `addr`; every later read and write has a time limit.
pub fn connect(addr: SocketAddr, how: &Connect) -> Result<TcpStream> {
    let patience = how.patience.unwrap_or(PATIENCE);
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None).context("socket")?;
    // Before connect: the window's scale is settled in the handshake.
    if let Some(bytes) = how.receive_buffer {
        setsockopt(&fd, sockopt::RcvBuf, &bytes).context("SO_RCVBUF")?;
    }
    if let Some(bytes) = how.send_buffer {
        setsockopt(&fd, sockopt::SndBuf, &bytes).context("SO_SNDBUF")?;
    }
    if let Some(source) = how.source {
        // The port is then chosen by connect, for this destination only.
        setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)
            .context("IP_BIND_ADDRESS_NO_PORT")?;
        let from = SockaddrIn::from(std::net::SocketAddrV4::new(source, 0));
        bind(fd.as_raw_fd(), &from)
            .with_context(|| format!("bind to {source}"))?;
    }
    match connect_socket(fd.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno).context(format!("connect to {addr}")),
    }
    let stream = TcpStream::from(fd);
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    let ready = poll(&mut fds, timeout_of(patience)).context("poll")?;
    ensure!(ready == 1, "waited {patience:?} for connect to {addr}");
    if let Some(error) = stream.take_error()? {
        return Err(error).context(format!("connect to {addr}"));
    }
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

fn timeout_of(span: Duration) -> PollTimeout {
    PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX)
}

/// Ends a connection with a reset, dropping what is unsent.
pub fn reset(socket: TcpStream) -> Result<()> {
    let abort = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&socket, sockopt::Linger, &abort).context("SO_LINGER")
}

/// The endless bytes of one client, of which each knows whose and which it is:
/// every eight of them are a client's number and their position, encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    client: u32,
}

/// In the upper 16 bits of each word before it is mixed, to know it again.
const MARK: u64 = 0xec40;
const ODD: u64 = 0xbf58_476d_1ce4_e5b9;

impl Payload {
    /// The bytes of client `client`.
    pub fn new(client: u32) -> Payload {
        assert!(client < 1 << 16, "client {client}: at most 65,535");
        Payload { client }
    }

    /// The bytes from `position` on.
    pub fn fill(&self, position: u64, bytes: &mut [u8]) {
        let mut at = position;
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = self.word(at / 8).to_le_bytes();
            let from = (at % 8) as usize;
            let count = rest.len().min(8 - from);
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&word[from..from + count]);
            at += count as u64;
            rest = later;
        }
    }

    fn word(&self, block: u64) -> u64 {
        mix(MARK << 48 | u64::from(self.client) << 32 | block & 0xffff_ffff)
    }

    /// Fails unless `got` is what stands from `position` on, and says what it
    /// is instead.
    pub fn check(&self, position: u64, got: &[u8]) -> Result<()> {
        let mut expected = vec![0; got.len()];
        self.fill(position, &mut expected);
        if expected == got {
            return Ok(());
        }
        let mut pairs = expected.iter().zip(got);
        let at = pairs.position(|(want, got)| want != got).unwrap_or(0);
        let here = position + at as u64;
        let client = self.client;
        let what = match whose(&got[at..]) {
            Some((other, there)) if other != client => {
                format!("which is client {other}'s byte {there}")
            }
            Some((_, there)) if there > here => format!(
                "which is its own byte {there}: {} bytes are missing",
                there - here
            ),
            Some((_, there)) if there < here => format!(
                "which is its own byte {there}, echoed before: the stream \
                 went back by {} bytes",
                here - there
            ),
            _ => "which no client sent there".to_string(),
        };
        bail!(
            "byte {here} of client {client}: expected {:#04x}, got {:#04x}, \
             {what}",
            expected[at],
            got[at]
        )
    }
}

fn mix(mut word: u64) -> u64 {
    word ^= word >> 32;
    word = word.wrapping_mul(ODD);
    word ^= word >> 32;
    word = word.wrapping_mul(ODD);
    word ^ word >> 32
}

fn unmix(mut word: u64) -> u64 {
    // Newton: each step doubles the number of right bits, from three on.
    let mut inverse = ODD;
    for _ in 0..5 {
        let miss = 2u64.wrapping_sub(ODD.wrapping_mul(inverse));
        inverse = inverse.wrapping_mul(miss);
    }
    word ^= word >> 32;
    word = word.wrapping_mul(inverse);
    word ^= word >> 32;
    word = word.wrapping_mul(inverse);
    word ^ word >> 32
}

/// Whose bytes these are, and which is the first, if they are anyone's.
fn whose(bytes: &[u8]) -> Option<(u32, u64)> {
    (0..8).find_map(|skip| {
        let (word, _) = bytes.get(skip..)?.split_first_chunk()?;
        let plain = unmix(u64::from_le_bytes(*word));
        let client = (plain >> 32 & 0xffff) as u32;
        let first = ((plain & 0xffff_ffff) * 8).checked_sub(skip as u64)?;
        (plain >> 48 == MARK).then_some((client, first))
    })
}

/// A client that knows what it has sent, and holds every byte that comes back
/// against it.
pub struct Client {
    /// Its number, in its bytes and in messages.
    pub id: u32,
    /// Its connection.
    pub socket: TcpStream,
    /// What it sends.
    pub payload: Payload,
    /// How many bytes it has sent.
    pub sent: u64,
    /// How many have come back, all of them right.
    pub received: u64,
    patience: Duration,
    scratch: Vec<u8>,
}

/// How much one read or write of a client moves at most.
const CHUNK: usize = 64 * 1024;

impl Client {
    /// On a connection that exists.
    pub fn new(id: u32, socket: TcpStream) -> Client {
        let patience = socket.read_timeout().ok().flatten();
        Client {
            id,
            patience: patience.unwrap_or(PATIENCE),
            socket,
            payload: Payload::new(id),
            sent: 0,
            received: 0,
            scratch: Vec::new(),
        }
    }

    /// Sends the next `count` bytes; fails when the server does not take them
    /// in time.
    pub fn send(&mut self, count: usize) -> Result<()> {
        let goal = self.sent + count as u64;
        while self.sent < goal {
            match self.write_some((goal - self.sent) as usize) {
                Ok(_) => {}
                Err(error) => bail!(self.explain(&error, "send")),
            }
        }
        Ok(())
    }

    /// One write of at most `count` of the next bytes.
    pub fn write_some(&mut self, count: usize) -> io::Result<usize> {
        self.scratch.resize(count.min(CHUNK), 0);
        self.payload.fill(self.sent, &mut self.scratch);
        let written = retried(|| (&self.socket).write(&self.scratch))?;
        self.sent += written as u64;
        Ok(written)
    }

    /// Receives `count` bytes more, and holds them against what was sent.
    pub fn receive(&mut self, count: usize) -> Result<()> {
        let goal = self.received + count as u64;
        while self.received < goal {
            match self.read_some((goal - self.received) as usize)? {
                Some(0) => bail!(
                    "client {}: the server closed after {} of {} bytes",
                    self.id,
                    self.received,
                    self.sent
                ),
                Some(_) => {}
                None => bail!(self.out_of_time()),
            }
        }
        Ok(())
    }

    /// One read of at most `count` bytes, checked; 0 at the end of the stream
    /// and `None` when there was nothing within the time limit.
    pub fn read_some(&mut self, count: usize) -> Result<Option<usize>> {
        self.scratch.resize(count.min(CHUNK), 0);
        let read = match retried(|| (&self.socket).read(&mut self.scratch)) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(None);
            }
            Err(error) => bail!(self.explain(&error, "receive")),
        };
        self.payload.check(self.received, &self.scratch[..read])?;
        self.received += read as u64;
        ensure!(
            self.received <= self.sent,
            "client {}: {} bytes came back, but only {} were sent",
            self.id,
            self.received,
            self.sent
        );
        Ok(Some(read))
    }

    /// Sends `count` bytes and receives them; how long that took.
    pub fn round_trip(&mut self, count: usize) -> Result<Duration> {
        let begin = Instant::now();
        self.send(count)?;
        self.receive(count)?;
        Ok(begin.elapsed())
    }

    /// Sends FIN: no byte will follow.
    pub fn finish_sending(&mut self) -> Result<()> {
        self.socket
            .shutdown(Shutdown::Write)
            .with_context(|| format!("client {}: shutdown", self.id))
    }

    /// Receives all that is still to come back, and then the end.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            match self.read_some(CHUNK)? {
                Some(0) if self.received == self.sent => return Ok(()),
                Some(0) => bail!(
                    "client {}: truncated: the server closed after {} of {} \
                     bytes",
                    self.id,
                    self.received,
                    self.sent
                ),
                Some(_) => {}
                None => bail!(self.out_of_time()),
            }
        }
    }

    /// FIN, the rest, the end.
    pub fn finish(mut self) -> Result<()> {
        self.finish_sending()?;
        self.drain()
    }

    /// Ends the connection with a reset.
    pub fn reset(self) -> Result<()> {
        reset(self.socket)
    }

    fn out_of_time(&self) -> String {
        let what = if self.received < self.sent {
            format!("byte {} of {}", self.received, self.sent)
        } else {
            format!("the end after its {} bytes", self.sent)
        };
        format!("client {} waited {:?} for {what}", self.id, self.patience)
    }

    fn explain(&self, error: &io::Error, verb: &str) -> String {
        let (sent, received) = (self.sent, self.received);
        let so_far = format!("{sent} bytes sent, {received} received");
        let what = match error.kind() {
            io::ErrorKind::WouldBlock => {
                format!("waited {:?} to {verb}", self.patience)
            }
            io::ErrorKind::ConnectionReset => "was reset".to_string(),
            _ => format!("cannot {verb}: {error}"),
        };
        format!("client {} {what} ({so_far})", self.id)
    }
}

/// Repeats a call that a signal interrupted.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Lets every client send until `sent` is `goal` and receive all of it, all of
/// them interleaved on one thread, with reads and writes of 1 to `largest`
/// bytes; fails when nothing moves for `PATIENCE`.
pub fn pump(
    clients: &mut [Client],
    goal: u64,
    largest: usize,
    random: &mut fastrand::Rng,
) -> Result<()> {
    for client in clients.iter() {
        client.socket.set_nonblocking(true)?;
    }
    loop {
        let mut busy = Vec::new();
        let mut fds = Vec::new();
        for (at, client) in clients.iter().enumerate() {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLOUT, client.sent < goal);
            wanted.set(PollFlags::POLLIN, client.received < goal);
            if !wanted.is_empty() {
                busy.push(at);
                fds.push(PollFd::new(client.socket.as_fd(), wanted));
            }
        }
        if busy.is_empty() {
            break;
        }
        let ready = poll(&mut fds, timeout_of(PATIENCE)).context("poll")?;
        if ready == 0 {
            let stuck = &clients[busy[0]];
            bail!(
                "nothing moved for {PATIENCE:?}; {} of {} clients are not \
                 done; client {} has sent {} of {goal} bytes and received {}",
                busy.len(),
                clients.len(),
                stuck.id,
                stuck.sent,
                stuck.received
            );
        }
        let events: Vec<PollFlags> = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
            .collect();
        for (&at, events) in busy.iter().zip(events) {
            let client = &mut clients[at];
            let count = random.usize(1..=largest);
            let left = usize::try_from(goal - client.sent)?;
            if events.contains(PollFlags::POLLOUT) && left > 0 {
                match client.write_some(count.min(left)) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                        bail!(client.explain(&error, "send"));
                    }
                    _ => {}
                }
            }
            if events.intersects(!PollFlags::POLLOUT)
                && client.read_some(count)? == Some(0)
            {
                bail!(
                    "client {}: the server closed after {} of {} bytes",
                    client.id,
                    client.received,
                    client.sent
                );
            }
        }
    }
    for client in clients.iter() {
        client.socket.set_nonblocking(false)?;
    }
    Ok(())
}

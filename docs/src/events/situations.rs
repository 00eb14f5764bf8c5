//! What may have happened to a descriptor: a function brings each about.

use std::fs::File;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn,
    SockaddrStorage, bind, connect, getsockname, listen, recv, send,
    setsockopt, socket, sockopt,
};
use nix::unistd::pipe2;

use super::Stage;

/// Returns the descriptor that it has happened to. It calls [`Stage::watch`]
/// before the last step, whose signals are those of the table.
type Situation = fn(&mut Stage) -> Result<OwnedFd>;

pub(super) const ALL: [(&str, Situation); 20] = [
    ("a new connection, nothing sent", connection),
    ("bytes have come", bytes),
    ("an urgent byte has come (MSG_OOB)", urgent_byte),
    ("the peer has sent FIN", fin),
    ("bytes have come, and then FIN", bytes_and_fin),
    ("we have sent FIN, the peer has not", our_fin),
    ("we have sent FIN, and then the peer", both_fins),
    ("the peer has reset the connection (SO_LINGER 0)", reset),
    ("the peer has closed with our bytes unread (RST)", closed_unread),
    ("the send buffer is full", full),
    ("the send buffer was full, and the peer has read", room_again),
    ("a listener, nobody waits", listener),
    ("a listener, a client waits", client_waits),
    ("a connect in progress", connecting),
    ("a connect that has succeeded", connected),
    ("a connect that was refused", refused),
    ("a TCP socket that was never connected", fresh),
    ("a pipe whose writer has gone", writer_gone),
    ("a pipe whose reader has gone", reader_gone),
    ("a regular file", file),
];

fn connection(stage: &mut Stage) -> Result<OwnedFd> {
    let (ours, peer) = pair()?;
    stage.watch(&ours)?;
    stage.keep(peer);
    Ok(ours.into())
}

fn bytes(stage: &mut Stage) -> Result<OwnedFd> {
    let (ours, mut peer) = pair()?;
    stage.watch(&ours)?;
    peer.write_all(b"hello")?;
    stage.keep(peer);
    Ok(ours.into())
}

fn urgent_byte(stage: &mut Stage) -> Result<OwnedFd> {
    let (ours, peer) = pair()?;
    stage.watch(&ours)?;
    send(peer.as_raw_fd(), b"!", MsgFlags::MSG_OOB)?;
    stage.keep(peer);
    Ok(ours.into())
}

fn fin(stage: &mut Stage) -> Result<OwnedFd> {
    let (ours, peer) = pair()?;
    stage.watch(&ours)?;
    peer.shutdown(Shutdown::Write)?;
    stage.keep(peer);
    Ok(ours.into())
}

fn bytes_and_fin(stage: &mut Stage) -> Result<OwnedFd> {
    let (ours, mut peer) = pair()?;
    stage.watch(&ours)?;
    peer.write_all(b"hello")?;
    peer.shutdown(Shutdown::Write)?;
    stage.keep(peer);
    Ok(ours.into())
}

fn our_fin(stage: &mut Stage) -> Result<OwnedFd> {
    let (ours, peer) = pair()?;
    stage.watch(&ours)?;
    ours.shutdown(Shutdown::Write)?;
    stage.keep(peer);
    Ok(ours.into())
}

fn both_fins(stage: &mut Stage) -> Result<OwnedFd> {
    let (ours, peer) = pair()?;
    ours.shutdown(Shutdown::Write)?;
    stage.settle()?;
    stage.watch(&ours)?;
    peer.shutdown(Shutdown::Write)?;
    stage.keep(peer);
    Ok(ours.into())
}

fn reset(stage: &mut Stage) -> Result<OwnedFd> {
    let (ours, peer) = pair()?;
    stage.watch(&ours)?;
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&peer, sockopt::Linger, &at_once)?;
    drop(peer);
    Ok(ours.into())
}

fn closed_unread(stage: &mut Stage) -> Result<OwnedFd> {
    let (mut ours, peer) = pair()?;
    ours.write_all(b"hello")?;
    stage.settle()?;
    stage.watch(&ours)?;
    drop(peer);
    Ok(ours.into())
}

fn full(stage: &mut Stage) -> Result<OwnedFd> {
    let (ours, peer) = pair()?;
    fill(stage, &ours, &peer)?;
    stage.watch(&ours)?;
    stage.keep(peer);
    Ok(ours.into())
}

fn room_again(stage: &mut Stage) -> Result<OwnedFd> {
    let (ours, peer) = pair()?;
    let mut owed = fill(stage, &ours, &peer)?;
    stage.watch(&ours)?;
    // It is told only who has met EAGAIN since the signals were asked for.
    let more = send(ours.as_raw_fd(), b"!", MsgFlags::MSG_DONTWAIT);
    ensure!(more == Err(Errno::EAGAIN), "it is not full: {more:?}");
    let begin = Instant::now();
    while owed > 0 {
        let room = &mut [0; 4096];
        match recv(peer.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT) {
            Ok(n) => owed -= n,
            Err(Errno::EAGAIN) => stage.settle()?,
            Err(err) => return Err(err.into()),
        }
        let waited = begin.elapsed();
        ensure!(waited < Duration::from_secs(10), "{owed} bytes do not come");
    }
    stage.keep(peer);
    Ok(ours.into())
}

fn listener(stage: &mut Stage) -> Result<OwnedFd> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    stage.watch(&listener)?;
    Ok(listener.into())
}

fn client_waits(stage: &mut Stage) -> Result<OwnedFd> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    stage.watch(&listener)?;
    stage.keep(TcpStream::connect(listener.local_addr()?)?);
    Ok(listener.into())
}

/// While the accept queue is full, a SYN is not answered: listen(2).
fn connecting(stage: &mut Stage) -> Result<OwnedFd> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listen(&listener, Backlog::new(0)?)?;
    stage.keep(TcpStream::connect(listener.local_addr()?)?);
    stage.settle()?;
    let ours = begin_connect(stage, listener.local_addr()?)?;
    stage.keep(listener);
    Ok(ours)
}

fn connected(stage: &mut Stage) -> Result<OwnedFd> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = begin_connect(stage, listener.local_addr()?)?;
    stage.keep(listener);
    Ok(ours)
}

/// A port that somebody has taken, and nobody listens at.
fn refused(stage: &mut Stage) -> Result<OwnedFd> {
    let deaf = tcp_socket()?;
    bind(deaf.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
    let addr: SockaddrIn = getsockname(deaf.as_raw_fd())?;
    let ours = begin_connect(stage, SocketAddr::V4(addr.into()))?;
    stage.keep(deaf);
    Ok(ours)
}

fn fresh(stage: &mut Stage) -> Result<OwnedFd> {
    let socket = tcp_socket()?;
    stage.watch(&socket)?;
    Ok(socket)
}

fn writer_gone(stage: &mut Stage) -> Result<OwnedFd> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    stage.watch(&reader)?;
    drop(writer);
    Ok(reader)
}

fn reader_gone(stage: &mut Stage) -> Result<OwnedFd> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    stage.watch(&writer)?;
    drop(reader);
    Ok(writer)
}

fn file(stage: &mut Stage) -> Result<OwnedFd> {
    let file = File::open("/proc/self/exe")?;
    stage.watch(&file)?;
    Ok(file.into())
}

/// The accepted socket, and its peer.
pub(super) fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let peer = TcpStream::connect(listener.local_addr()?)?;
    Ok((listener.accept()?.0, peer))
}

fn tcp_socket() -> Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Inet, SockType::Stream);
    Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?)
}

fn begin_connect(stage: &mut Stage, addr: SocketAddr) -> Result<OwnedFd> {
    let ours = tcp_socket()?;
    stage.watch(&ours)?;
    match connect(ours.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Err(Errno::EINPROGRESS) => Ok(ours),
        other => bail!("a non-blocking connect: {other:?}"),
    }
}

/// Sends until nothing more goes, and says how much went.
fn fill(
    stage: &mut Stage,
    ours: &TcpStream,
    peer: &TcpStream,
) -> Result<usize> {
    setsockopt(ours, sockopt::SndBuf, &4096)?;
    setsockopt(peer, sockopt::RcvBuf, &4096)?;
    let (mut sent, mut before) = (0, None);
    while before != Some(sent) {
        before = Some(sent);
        loop {
            match send(ours.as_raw_fd(), &[0; 512], MsgFlags::MSG_DONTWAIT) {
                Ok(n) => sent += n,
                Err(Errno::EAGAIN) => break,
                Err(err) => return Err(err.into()),
            }
        }
        stage.settle()?;
    }
    Ok(sent)
}

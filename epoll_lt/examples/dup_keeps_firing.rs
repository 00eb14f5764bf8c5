//! A descriptor is closed while a copy of it is still open.
//!
//! Symptom: events keep coming for a number that is closed. recv says EBADF,
//! and so does EPOLL_CTL_DEL: each wait returns at once, and nothing ends it.
//!
//! Cause: the list watches the open file description, for which the number
//! stood. It lives, and stays on the list, until its last copy is closed, one
//! made by dup or by fork: epoll(7), "Questions and answers".
//!
//! Fix: EPOLL_CTL_DEL before close wherever a copy may live. epoll_lt has no
//! copies, and none passes an exec (SOCK_CLOEXEC). So in EventLoop::on_gone
//! (epoll_lt/src/lib.rs) the close is enough.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollOp,
};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::close;
use pitfall::{Shown, pitfall, say};

/// Milliseconds in which nothing comes: nothing will.
const QUIET: u8 = 200;
/// After so many useless events it is clear that they do not end.
const ENOUGH: usize = 1_000;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    part(|_, socket| {
        close(socket)?;
        Ok(())
    })
}

fn mended() -> Result<Shown> {
    part(|list, socket| {
        list.delete(&socket)?;
        close(socket)?;
        Ok(())
    })
}

/// How the server parts with a client.
type Part = fn(&Epoll, TcpStream) -> Result<()>;

fn part(close_client: Part) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (socket, _) = listener.accept()?;
    let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let fd = socket.as_raw_fd();
    list.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, fd as u64))?;

    let copy = socket.try_clone()?;
    close_client(&list, socket)?;
    say!("server: closes {fd}; its copy {} is open", copy.as_raw_fd());
    client.write_all(b"hello\n")?;
    say!("client: is still connected, and says hello");
    let mut fired = 0;
    let mut events = [EpollEvent::empty()];
    while fired < ENOUGH && list.wait(&mut events, QUIET)? > 0 {
        fired += 1;
        let closed = events[0].data() as RawFd;
        let received = recv(closed, &mut [0; 16], MsgFlags::empty());
        ensure!(received == Err(Errno::EBADF), "recv: {received:?}");
        let deleted = delete(&list, closed);
        ensure!(deleted == Err(Errno::EBADF), "epoll_ctl: {deleted:?}");
    }
    match fired {
        0 => say!("server: is told of nothing within {QUIET} ms"),
        _ => say!("server: {fired} events of {fd}; recv, epoll_ctl: EBADF"),
    }
    close(copy)?;
    let quiet = list.wait(&mut events, QUIET)? == 0;
    ensure!(quiet, "an event, though the last copy is closed");
    say!("server: closes the copy, and is told of nothing any more");
    Ok(Shown::symptom_if(fired == ENOUGH))
}

/// EPOLL_CTL_DEL by number: `Epoll::delete` takes open descriptors only.
#[expect(deprecated)]
fn delete(list: &Epoll, fd: RawFd) -> nix::Result<()> {
    let del = EpollOp::EpollCtlDel;
    nix::sys::epoll::epoll_ctl(list.0.as_raw_fd(), del, fd, None)
}

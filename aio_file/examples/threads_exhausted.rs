//! POSIX AIO reads from sockets, whose clients may never speak.
//!
//! Symptom: with twenty silent clients every other operation waits for ever:
//! a client that has spoken is not heard, and not even a file is read.
//!
//! Cause: glibc's AIO is threads of the program that call read(2): aio(7).
//! There are 20 of them at most, and a read from a silent socket keeps one
//! until its client speaks. aio_cancel(3) cannot take it back.
//!
//! Fix: give AIO only what ends by itself, such as reads of files. Wait for
//! sockets by poll(2), and read from those that are ready. aio_file does both:
//! EventLoop::on_ready in aio_file/src/lib.rs.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::mem;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::Result;
use libc::{aiocb, timespec};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pitfall::{Shown, pitfall, say};

const CLIENTS: usize = 40;
const PATIENCE: Duration = Duration::from_millis(300);

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    let (mut clients, sockets) = connected()?;
    let reads = sockets.iter().map(Operation::read);
    let reads: Vec<Operation> = reads.collect::<Result<_>>()?;
    say!("aio_read from {CLIENTS} sockets; then one client speaks");
    let (client, read) = (&mut clients[CLIENTS - 1], &reads[CLIENTS - 1]);
    client.write_all(b"hello")?;
    let heard = read.ends_within(PATIENCE)?;
    let shown = file_is_read_as_well(heard)?;
    // A read from a socket that is shut down ends. Until then its number must
    // not come to mean another file.
    for socket in &sockets {
        socket.shutdown(Shutdown::Both)?;
    }
    for read in reads {
        while !read.ends_within(PATIENCE)? {}
    }
    Ok(shown)
}

fn mended() -> Result<Shown> {
    let (mut clients, mut sockets) = connected()?;
    say!("poll for {CLIENTS} sockets; then one client speaks");
    clients[CLIENTS - 1].write_all(b"hello")?;
    let entry = |it| PollFd::new(it, PollFlags::POLLIN);
    let list = sockets.iter().map(|it| entry(it.as_fd()));
    let mut list: Vec<PollFd> = list.collect();
    poll(&mut list, PollTimeout::try_from(PATIENCE)?)?;
    let ready = list.iter().position(|it| it.any() == Some(true));
    let heard = match ready {
        Some(at) => sockets[at].read(&mut [0; 16])? > 0,
        None => false,
    };
    file_is_read_as_well(heard)
}

/// The client has been heard or not; is a file read?
fn file_is_read_as_well(heard: bool) -> Result<Shown> {
    say!("its bytes are read within {PATIENCE:?}: {heard}");
    // A file that is there, and in memory.
    let file = File::open("/proc/self/exe")?;
    let read = Operation::read(&file)?.ends_within(PATIENCE)?;
    say!("aio_read of a file ends within {PATIENCE:?}: {read}");
    if !read {
        // In the queue it is known by its number.
        mem::forget(file);
    }
    Ok(Shown::symptom_if(!heard || !read))
}

/// Clients that say nothing, and the sockets of their server.
fn connected() -> Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let pair = |_| {
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((client, listener.accept()?.0))
    };
    (0..CLIENTS).map(pair).collect()
}

/// An operation in flight. Its control block and its bytes are leaked: glibc's
/// threads may use them for as long as the program runs.
struct Operation(*mut aiocb);

impl Operation {
    fn read(from: &impl AsFd) -> Result<Operation> {
        let bytes: &'static mut [u8] = Box::leak(Box::new([0; 16]));
        // SAFETY: a block of zeros is one: numbers, and pointers that may be
        // null.
        let mut block: aiocb = unsafe { mem::zeroed() };
        block.aio_fildes = from.as_fd().as_raw_fd();
        block.aio_buf = bytes.as_mut_ptr().cast();
        block.aio_nbytes = bytes.len();
        block.aio_sigevent.sigev_notify = libc::SIGEV_NONE;
        let block = Box::into_raw(Box::new(block));
        // SAFETY: block and bytes are leaked, and nobody else uses them.
        Errno::result(unsafe { libc::aio_read(block) })?;
        Ok(Operation(block))
    }

    fn ends_within(&self, limit: Duration) -> Result<bool> {
        let nanos = limit.subsec_nanos().into();
        let limit = timespec { tv_sec: 0, tv_nsec: nanos };
        let list = [self.0.cast_const()];
        // SAFETY: a list of one block, which lives for ever.
        let ended = unsafe { libc::aio_suspend(list.as_ptr(), 1, &limit) };
        match Errno::result(ended) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(err) => Err(err.into()),
        }
    }
}

//! A connection is closed and its buffer given away while a recv is in flight.
//!
//! Symptom: the buffer belongs to another client by now, and what the first
//! one says is written into it. The second client is sent the first one's
//! words. And the first one does not even learn that it has been left.
//!
//! Cause: an operation has the socket and the memory until its own completion.
//! close(2) takes away the number, and the operation keeps the socket open.
//! Where memory was given back to the system, its next owner is hit.
//!
//! Fix: cancel the operation, wait for its own completion, which says
//! ECANCELED or what it has done before, and only then let go of the memory:
//! io_uring_prep_cancel(3). In proactor bytes belong to their operation until
//! then: Multishot::close and settle in proactor/src/uring/multishot.rs.
#![allow(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use pitfall::{Shown, child, or_skipped, pitfall, say};

const SIZE: usize = 16;
const OWN: &[u8; SIZE] = b"the second's own";
const WORDS: &[u8; SIZE] = b"a PIN: it's 1234";
/// Milliseconds in which nothing comes: nothing will.
const QUIET: u8 = 200;
const RECV: u64 = 1;
const CANCEL: u64 = 2;

pitfall!(broken, mended, child: serve);

fn broken() -> Result<Shown> {
    two_clients("closes")
}

fn mended() -> Result<Shown> {
    two_clients("cancels, waits and closes")
}

fn two_clients(how: &str) -> Result<Shown> {
    drop(IoUring::new(8).map_err(or_skipped("io_uring"))?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let mut first = TcpStream::connect(addr)?;
    let mut second = TcpStream::connect(addr)?;
    // The command holds a copy of the listener, and ends here.
    let server = child(how).stdin(OwnedFd::from(listener)).spawn();
    let mut answer = [0; SIZE];
    let talk = second.read_exact(&mut answer[..1]).and_then(|()| {
        // The first has been left, and nobody will send it anything else.
        let end = PollFd::new(first.as_fd(), PollFlags::POLLIN);
        let knows = poll(&mut [end], QUIET)? > 0;
        first.write_all(WORDS)?;
        second.write_all(b"?")?;
        second.read_exact(&mut answer)?;
        Ok(knows)
    });
    drop((first, second));
    ensure!(server?.wait()?.success(), "the server has failed");
    let knows = talk.context("the clients")?;
    let words = answer == *WORDS;
    say!("the first client knows that it has been left: {knows}");
    say!("the second client is sent: {}", String::from_utf8_lossy(&answer));
    ensure!(words || answer == *OWN, "these are nobody's words");
    ensure!(words != knows, "one symptom without the other");
    Ok(Shown::symptom_if(words))
}

/// The server, in a process of its own, in which the kernel writes to memory
/// that is somebody else's. Its stdin listens.
fn serve(how: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut ring = IoUring::new(8)?;
    let mut pool = Pool::default();

    let (first, _) = listener.accept()?;
    let bytes = pool.take();
    let (fd, at) = (Fd(first.as_raw_fd()), bytes.as_mut_ptr());
    let recv = opcode::Recv::new(fd, at, SIZE as u32).build();
    push(&mut ring, recv.user_data(RECV))?;
    ring.submit()?;
    say!("server: a recv is in flight; it {how}");
    if how.starts_with("cancels") {
        let cancel = opcode::AsyncCancel::new(RECV).build();
        push(&mut ring, cancel.user_data(CANCEL))?;
        ring.submit_and_wait(2)?;
        tell(&mut ring);
    }
    drop(first);
    pool.give(bytes);

    let (mut second, _) = listener.accept()?;
    let bytes = pool.take();
    bytes.copy_from_slice(OWN);
    second.write_all(b"!")?;
    second.read_exact(&mut [0])?;
    // Here a server would wait for its other clients.
    let limit = Timespec::from(Duration::from_millis(QUIET.into()));
    match ring
        .submitter()
        .submit_with_args(1, &SubmitArgs::new().timespec(&limit))
    {
        Ok(_) => tell(&mut ring),
        Err(err) if err.raw_os_error() == Some(libc::ETIME) => {}
        Err(err) => return Err(err.into()),
    }
    second.write_all(bytes)?;
    Ok(())
}

fn push(ring: &mut IoUring, operation: squeue::Entry) -> Result<()> {
    // SAFETY: CONTRACT BROKEN, in the broken twin: the buffer has another
    // owner before the recv has completed. It lives as long as the program.
    unsafe { ring.submission().push(&operation) }?;
    Ok(())
}

/// Tells what has completed.
fn tell(ring: &mut IoUring) {
    for it in ring.completion() {
        let name = if it.user_data() == RECV { "recv" } else { "cancel" };
        match it.result() {
            n @ 0.. => say!("server: the {name} has completed with {n}"),
            n => say!("server: the {name}: {}", Errno::from_raw(-n)),
        }
    }
}

/// Buffers that are never given back to the system. The one that was given
/// back last is taken first, as malloc does it too.
#[derive(Default)]
struct Pool(Vec<&'static mut [u8; SIZE]>);

impl Pool {
    fn take(&mut self) -> &'static mut [u8; SIZE] {
        self.0.pop().unwrap_or_else(|| Box::leak(Box::new([0; SIZE])))
    }

    fn give(&mut self, bytes: &'static mut [u8; SIZE]) {
        self.0.push(bytes);
    }
}

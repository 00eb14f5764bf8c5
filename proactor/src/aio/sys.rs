//! POSIX AIO on a socket: an operation owns what a thread of glibc's reads and
//! writes meanwhile. And `poll` over a list of three.
#![allow(unsafe_code)]

use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use libc::{aiocb, c_int, pollfd, sigval};
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use crate::bytes::Bytes;

/// `poll(2)`: sleeps until an entry is ready or `timeout` milliseconds have
/// passed (-1: for ever), and marks the ready ones in their `revents`.
pub fn poll(list: &mut [pollfd], timeout: i32) -> nix::Result<usize> {
    let length = list.len() as libc::nfds_t;
    // SAFETY: `list` is `length` entries that we may write, for the whole
    // call. A closed or negative descriptor is reported, not followed.
    let ready = unsafe { libc::poll(list.as_mut_ptr(), length, timeout) };
    Errno::result(ready).map(|ready| ready as usize)
}

/// A client's socket, and its operation. From its submission until its result
/// is taken it is in flight: a thread of glibc's reads and writes the control
/// block and the bytes whenever it likes. So all of them are owned here, at
/// addresses that do not change, and nothing gives out a reference to block or
/// bytes meanwhile. To drop it ends the connection, and waits.
pub struct Operation {
    /// A box of its own, as a pointer: a reference would claim that nobody
    /// else writes to it.
    block: NonNull<aiocb>,
    /// A Vec keeps them where they are, wherever it moves itself.
    bytes: Option<Bytes>,
    socket: OwnedFd,
    in_flight: bool,
}

impl Operation {
    /// An operation that is not in flight. Its end sends this signal, with the
    /// client's number.
    pub fn new(socket: OwnedFd, signal: c_int) -> Self {
        let fd = socket.as_raw_fd();
        // SAFETY: a block of zeros is one: numbers, and pointers that may be
        // null.
        let mut block: aiocb = unsafe { mem::zeroed() };
        block.aio_fildes = fd;
        block.aio_sigevent.sigev_notify = libc::SIGEV_SIGNAL;
        block.aio_sigevent.sigev_signo = signal;
        let number = ptr::without_provenance_mut(fd as usize);
        block.aio_sigevent.sigev_value = sigval { sival_ptr: number };
        let block = NonNull::from(Box::leak(Box::new(block)));
        Operation { block, bytes: None, socket, in_flight: false }
    }

    /// Lends it bytes: to read over from the beginning, or those to write.
    pub fn lend(&mut self, bytes: Bytes) {
        assert!(!self.in_flight, "its bytes are in use");
        let bytes = self.bytes.insert(bytes).own_mut();
        // SAFETY: the box that `new` made; not in flight, nobody else uses it.
        let block = unsafe { self.block.as_mut() };
        block.aio_buf = bytes.as_mut_ptr().cast();
        block.aio_nbytes = bytes.len();
    }

    /// Gives the bytes back.
    pub fn take(&mut self) -> Bytes {
        assert!(!self.in_flight, "its bytes are in use");
        self.bytes.take().expect("they were lent")
    }

    /// `aio_read(3)` into the bytes lent.
    pub fn read(&mut self) -> nix::Result<()> {
        assert!(!self.in_flight && self.bytes.is_some(), "nothing is lent");
        // SAFETY: `lend` filled the block in, and block, bytes and descriptor
        // stay in place until the result is taken: nothing takes them from an
        // operation in flight, and its drop waits. The bytes are ours to
        // overwrite: `lend` had them by a unique reference. If the call fails,
        // glibc has forgotten the block.
        let begun = unsafe { libc::aio_read(self.block.as_ptr()) };
        self.in_flight = begun == 0;
        Errno::result(begun).map(drop)
    }

    /// `aio_write(3)` of the bytes lent.
    pub fn write(&mut self) -> nix::Result<()> {
        assert!(!self.in_flight && self.bytes.is_some(), "nothing is lent");
        // SAFETY: as in `read`.
        let begun = unsafe { libc::aio_write(self.block.as_ptr()) };
        self.in_flight = begun == 0;
        Errno::result(begun).map(drop)
    }

    /// Whether it was in flight and has ended.
    pub fn has_ended(&self) -> bool {
        self.in_flight && self.error() != libc::EINPROGRESS
    }

    /// `aio_error(3)`. glibc answers under the lock under which a thread ends
    /// an operation, its notice included. So with any answer but EINPROGRESS
    /// that thread has let go of block and bytes, and the answer is the last.
    fn error(&self) -> c_int {
        // SAFETY: the block was submitted, as the callers know, and is alive.
        unsafe { libc::aio_error(self.block.as_ptr()) }
    }

    /// Its result, after which it is in flight no more; EINPROGRESS if it has
    /// not ended.
    pub fn result(&mut self) -> nix::Result<usize> {
        assert!(self.in_flight, "it was not submitted");
        let error = self.error();
        if error == libc::EINPROGRESS {
            return Err(Errno::EINPROGRESS);
        }
        // SAFETY: it has ended, and its result was not yet taken.
        let moved = unsafe { libc::aio_return(self.block.as_ptr()) };
        self.in_flight = false;
        match error {
            0 => Ok(moved as usize),
            error => Err(Errno::from_raw(error)),
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let (block, fd) = (self.block.as_ptr(), self.socket.as_raw_fd());
        if self.in_flight {
            // aio_cancel(3) takes it out of the queue. One that a thread has
            // begun stays, and sleeps perhaps in a read or write of a client
            // who does nothing: that returns when the connection is shut.
            // SAFETY: the block was submitted on this descriptor, still open.
            unsafe { libc::aio_cancel(fd, block) };
            shutdown(fd, Shutdown::Both).ok();
            while self.result() == Err(Errno::EINPROGRESS) {
                let list = [block.cast_const()];
                // SAFETY: a list of one block, alive; no time limit.
                unsafe { libc::aio_suspend(list.as_ptr(), 1, ptr::null()) };
            }
        }
        // SAFETY: the box that `new` leaked, and nobody uses it any more: it
        // was never submitted, or its result is taken.
        drop(unsafe { Box::from_raw(block) });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::bytes::Memory;

    fn bytes(length: usize) -> Bytes {
        Bytes::new(Memory::Own(vec![b'.'; length]), length)
    }

    /// An operation on one side of a connection, and the other side. Its
    /// signal is one that nobody minds.
    fn connection() -> (Operation, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a connection");
        (Operation::new(ours.into(), libc::SIGURG), theirs)
    }

    fn result(it: &mut Operation) -> nix::Result<usize> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !it.has_ended() {
            assert!(Instant::now() < deadline, "it does not end");
            sleep(Duration::from_millis(1));
        }
        it.result()
    }

    #[test]
    fn what_was_read_is_written_back() {
        let (mut it, mut theirs) = connection();
        it.lend(bytes(16));
        it.read().expect("begins");
        theirs.write_all(b"hello").expect("room");
        assert_eq!(result(&mut it), Ok(5));
        let mut bytes = it.take();
        bytes.end = 5;
        bytes.sent(1);
        it.lend(bytes);
        it.write().expect("begins");
        assert_eq!(result(&mut it), Ok(4));
        let mut back = [0; 4];
        theirs.read_exact(&mut back).expect("bytes");
        assert_eq!(&back, b"ello");
    }

    #[test]
    fn a_read_that_sleeps_is_ended_by_its_drop() {
        let (mut it, mut theirs) = connection();
        it.lend(bytes(16));
        it.read().expect("begins");
        sleep(Duration::from_millis(20));
        assert!(!it.has_ended());
        drop(it);
        assert_eq!(theirs.read(&mut [0; 1]).expect("an end"), 0);
    }
}

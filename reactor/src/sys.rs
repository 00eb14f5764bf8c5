//! What neither std nor nix wraps safely: one operation a block.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use echo::{Fd, Timeout};
use libc::{FD_SETSIZE, fd_set, pollfd};
use nix::errno::Errno;

/// A set of descriptors below FD_SETSIZE: a bit for each of them. nix's sets
/// borrow the sockets in them, and so cannot outlive a call.
#[derive(Clone, Copy)]
pub struct FdSet(fd_set);

impl Default for FdSet {
    fn default() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: FD_ZERO writes the whole set, which is ours.
        unsafe { libc::FD_ZERO(set.as_mut_ptr()) };
        // SAFETY: FD_ZERO has just initialised it.
        FdSet(unsafe { set.assume_init() })
    }
}

impl FdSet {
    pub fn insert(&mut self, fd: Fd) {
        assert!(fits(fd));
        // SAFETY: the bit of a descriptor that fits lies within the set.
        unsafe { libc::FD_SET(fd, &mut self.0) }
    }

    pub fn remove(&mut self, fd: Fd) {
        assert!(fits(fd));
        // SAFETY: the bit of a descriptor that fits lies within the set.
        unsafe { libc::FD_CLR(fd, &mut self.0) }
    }

    pub fn set(&mut self, fd: Fd, member: bool) {
        match member {
            true => self.insert(fd),
            false => self.remove(fd),
        }
    }

    pub fn contains(&self, fd: Fd) -> bool {
        assert!(fits(fd));
        // SAFETY: the bit of a descriptor that fits lies within the set.
        unsafe { libc::FD_ISSET(fd, &self.0) }
    }
}

/// Whether a set has a bit for this descriptor.
pub fn fits(fd: Fd) -> bool {
    (0..FD_SETSIZE as Fd).contains(&fd)
}

/// `select(2)`: sleeps until a descriptor below `end` is ready, and leaves the
/// ready ones in the sets.
pub fn select(
    end: Fd,
    reads: &mut FdSet,
    writes: &mut FdSet,
    timeout: Timeout,
) -> nix::Result<usize> {
    assert!(end <= FD_SETSIZE as Fd);
    let mut timeout = timeout.timeval().map(|timeout| *timeout.as_ref());
    let timeout = timeout.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    let (reads, writes, errors) =
        (&mut reads.0, &mut writes.0, ptr::null_mut());
    // SAFETY: the sets are ours to write, have `end` bits at least, and outlive
    // the call; `timeout` is null or points to a local that does, too.
    let n = unsafe { libc::select(end, reads, writes, errors, timeout) };
    Errno::result(n).map(|n| n as usize)
}

/// `poll(2)`: sleeps until an entry is ready, and marks the ready ones. nix's
/// borrows every socket for as long as the list lives.
pub fn poll(list: &mut [pollfd], timeout: Timeout) -> nix::Result<usize> {
    let (length, timeout) = (list.len() as libc::nfds_t, timeout.millis());
    // SAFETY: `list` is `length` entries that we may write, for the whole
    // call. A closed or negative descriptor is reported, not followed.
    let ready = unsafe { libc::poll(list.as_mut_ptr(), length, timeout) };
    Errno::result(ready).map(|ready| ready as usize)
}

/// Whether a descriptor of this number is open.
pub fn is_open(fd: Fd) -> bool {
    // SAFETY: F_GETFD takes no pointer; on a closed one it fails (EBADF).
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

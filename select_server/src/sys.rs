//! `select` and its sets. nix's sets borrow the sockets in them, and so cannot
//! outlive a call.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use echo::Fd;
use libc::{FD_SETSIZE, fd_set};
use nix::errno::Errno;
use nix::sys::time::TimeVal;

/// A set of descriptors below FD_SETSIZE: a bit for each of them.
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

    pub fn contains(&self, fd: Fd) -> bool {
        assert!(fits(fd));
        // SAFETY: the bit of a descriptor that fits lies within the set.
        unsafe { libc::FD_ISSET(fd, &self.0) }
    }
}

/// Whether a set has a bit for this descriptor. select(2): to ask for the bit
/// of one that does not fit "will result in undefined behavior".
pub fn fits(fd: Fd) -> bool {
    (0..FD_SETSIZE as Fd).contains(&fd)
}

/// `select(2)`: sleeps until a descriptor below `end` is ready or `timeout` has
/// passed (`None`: for ever), and leaves the ready ones in the sets.
pub fn select(
    end: Fd,
    (reads, writes): &mut (FdSet, FdSet),
    timeout: Option<TimeVal>,
) -> nix::Result<usize> {
    assert!(end <= FD_SETSIZE as Fd);
    let mut timeout = timeout.map(|timeout| *timeout.as_ref());
    let timeout = timeout.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    let (reads, writes) = (&mut reads.0, &mut writes.0);
    let errors = ptr::null_mut();
    // SAFETY: the sets are ours to write, have `end` bits at least, and outlive
    // the call; `timeout` is null or points to a local that does, too.
    let n = unsafe { libc::select(end, reads, writes, errors, timeout) };
    Errno::result(n).map(|n| n as usize)
}

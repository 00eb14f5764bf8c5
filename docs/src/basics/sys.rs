//! System calls that nix wraps too well, or not at all.
#![allow(unsafe_code)]

use libc::{c_int, pollfd};
use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid, fork};

/// The cheapest system call, and nothing around it.
pub(super) fn null_call() -> i64 {
    // SAFETY: getppid(2) takes no arguments and cannot fail.
    unsafe { libc::syscall(libc::SYS_getppid) }
}

/// `poll(2)`, without waiting.
pub(super) fn poll_now(list: &mut [pollfd]) -> nix::Result<c_int> {
    let length = list.len() as libc::nfds_t;
    // SAFETY: `list` is `length` entries that we may write, for the whole
    // call. A closed descriptor is reported, not followed.
    Errno::result(unsafe { libc::poll(list.as_mut_ptr(), length, 0) })
}

/// A child that does this and ends. It is a copy of one thread of several, so
/// it may only make system calls: a lock that another thread held, the
/// allocator's say, is held for ever in it.
pub(super) fn child(does: impl FnOnce()) -> nix::Result<Pid> {
    // SAFETY: all that this module's callers do in a child is close, read and
    // write (signal-safety(7)).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            does();
            // SAFETY: it ends the child, and runs nothing of the parent's.
            unsafe { libc::_exit(0) }
        }
    }
}

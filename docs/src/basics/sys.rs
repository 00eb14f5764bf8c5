//! The cheapest system call, and fork.
#![allow(unsafe_code)]

use nix::unistd::{ForkResult, Pid, fork};

/// getppid, and nothing around it.
pub(super) fn null_call() -> i64 {
    // SAFETY: getppid(2) takes no arguments and cannot fail.
    unsafe { libc::syscall(libc::SYS_getppid) }
}

/// A child that does this and ends. It is a copy of one thread of several, so
/// it may only make system calls: a lock that another thread held, such as the
/// allocator's, is held in it for ever.
pub(super) fn child(does: impl FnOnce()) -> nix::Result<Pid> {
    // SAFETY: this module's children close, read and write, and end: each is
    // async-signal-safe (signal-safety(7)).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            does();
            // SAFETY: it ends the child, and runs nothing of the parent's.
            unsafe { libc::_exit(0) }
        }
    }
}

//! What only `unsafe` can ask of the operating system.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction,
};
use nix::{errno::Errno, unistd::getpid};

/// Runs `prepare` in the child, between fork and exec.
///
/// `prepare` may only make system calls: the child is a copy of one thread of
/// a program that may have many, so a lock (the allocator's, say) may be held
/// for ever by a thread that is not there.
pub(crate) fn in_child(
    command: &mut Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the closures given by this crate (`harness::spawn`,
    // `load::Generator`) copy plain numbers and make system calls; they neither allocate nor take a lock.
    unsafe { command.pre_exec(prepare) };
}

/// Gives SIGPIPE its default again, which is death; only for showing that the
/// suite notices it.
pub(crate) fn restore_sigpipe() -> io::Result<()> {
    let action =
        SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours, and nothing in this
    // program relies on SIGPIPE being ignored but std, which the caller wants
    // to see fail.
    unsafe { sigaction(Signal::SIGPIPE, &action) }?;
    Ok(())
}

/// The real-time signal that tells the broken server of a client's change.
fn change() -> libc::c_int {
    libc::SIGRTMIN() + 3
}

/// fcntl(2); the libc crate leaves it out.
const F_SETSIG: libc::c_int = 10;

/// Real-time signals of changes; with `overflow` also SIGIO, which the kernel
/// sends when no more of them fit into the queue.
pub(crate) fn change_signals(overflow: bool) -> SigSet {
    match overflow {
        true => echo::signal_set(&[change(), libc::SIGIO]),
        false => echo::signal_set(&[change()]),
    }
}

/// Lets `socket` tell this process of its changes by that signal, as soon as
/// O_ASYNC is set.
pub(crate) fn signals_of(socket: BorrowedFd) -> nix::Result<()> {
    let (fd, own) = (socket.as_raw_fd(), getpid().as_raw());
    // SAFETY: both commands take a number and change only the open file,
    // which lives as long as it is borrowed.
    let done = unsafe { libc::fcntl(fd, libc::F_SETOWN, own) };
    Errno::result(done)?;
    // SAFETY: as above.
    let done = unsafe { libc::fcntl(fd, F_SETSIG, change()) };
    Errno::result(done).map(drop)
}

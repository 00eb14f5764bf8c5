//! What only `unsafe` can ask of the operating system.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction,
};

/// Runs `prepare` in the child, between fork and exec.
///
/// `prepare` may only make system calls: the child is a copy of one thread of
/// a program that may have many, so a lock (the allocator's, say) may be held
/// for ever by a thread that is not there.
pub(crate) fn in_child(
    command: &mut Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the closures given by this crate (`harness::spawn`) copy plain
    // numbers and make system calls; they neither allocate nor take a lock.
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

//! What neither std nor nix wraps safely: one operation a block.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction,
};
use nix::sys::socket::SockFlag;

use crate::Fd;

/// `accept4(2)`, whose descriptor is owned from the first moment. It is always
/// close-on-exec: no server means to hand a client to another program.
#[inline]
pub fn accept4(listener: impl AsFd, flags: SockFlag) -> nix::Result<OwnedFd> {
    let listener = listener.as_fd().as_raw_fd();
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let fd = nix::sys::socket::accept4(listener, flags)?;
    crate::tally().add_connection();
    // SAFETY: the kernel has just made this descriptor for us, so it is open
    // and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A set of signals, real-time ones too, which nix's `Signal` does not know.
/// nix's `SigSet::iter` and `SigSet::wait` panic on such a set.
pub fn signal_set(numbers: &[libc::c_int]) -> SigSet {
    let mut set = *SigSet::empty().as_ref();
    for number in numbers {
        // SAFETY: `set` is initialised, and a wrong number is refused.
        unsafe { libc::sigaddset(&mut set, *number) };
    }
    // SAFETY: it was emptied and added to, and nothing else.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

/// From now on this process takes no core from another when it is woken:
/// sched(7), SCHED_BATCH. Its share of the time stays the same.
pub fn wake_politely() {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads `priority`, which outlives it. A refusal changes
    // nothing.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &priority) };
}

thread_local! {
    /// The connection whose calls a stop interrupts in this thread, or -1. It
    /// has a constant initial value and no destructor, so that a signal
    /// handler may read it.
    pub static CONNECTION: Cell<Fd> = const { Cell::new(-1) };
}

/// Puts a short time limit on this thread's connection. A call that begins
/// from now on returns EAGAIN soon; one that sleeps already is interrupted by
/// the signal whose handler this runs in.
pub fn hurry() {
    let fd = CONNECTION.get();
    if fd < 0 {
        return;
    }
    let limit = libc::timeval { tv_sec: 0, tv_usec: 10_000 };
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        // SAFETY: setsockopt is async-signal-safe (signal-safety(7)); it reads
        // `limit`, which outlives the call, at its true size. `fd` is this
        // thread's own connection, which it unregisters before closing.
        unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                option,
                ptr::from_ref(&limit).cast(),
                size_of_val(&limit) as libc::socklen_t,
            )
        };
    }
}

/// Shuts a listener down: every `accept` on it fails from now on.
pub fn shut(listener: Fd) {
    // SAFETY: shutdown takes no pointer and is async-signal-safe; on -1 it
    // fails with EBADF.
    unsafe { libc::shutdown(listener, libc::SHUT_RDWR) };
}

/// Runs `f` in a signal handler and leaves errno to the code it interrupted.
pub fn keeping_errno(f: impl FnOnce()) {
    let errno = Errno::last_raw();
    f();
    Errno::set_raw(errno);
}

/// Ends the process in a signal handler, without a destructor.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit is async-signal-safe and runs no code of this process.
    unsafe { libc::_exit(code) }
}

/// Installs a handler that interrupts sleeping calls (no SA_RESTART).
pub fn on_signal(
    signal: Signal,
    handler: extern "C" fn(libc::c_int),
) -> Result<()> {
    let handler = SigHandler::Handler(handler);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handlers of this crate call async-signal-safe functions only:
    // clock_gettime, setsockopt, shutdown and _exit, and they keep errno.
    unsafe { sigaction(signal, &action) }
        .with_context(|| format!("sigaction {signal}"))?;
    Ok(())
}

/// Makes SIGINT and SIGTERM pass this process by.
pub fn ignore(signal: Signal) {
    let ignored = SigHandler::SigIgn;
    let action = SigAction::new(ignored, SaFlags::empty(), SigSet::empty());
    // SAFETY: to ignore a signal runs no handler.
    let _ = unsafe { sigaction(signal, &action) };
}

/// Interrupts the blocking call of one thread of this process.
pub fn interrupt(tid: i32) {
    let pid = nix::unistd::getpid().as_raw();
    // SAFETY: tgkill(2) takes three numbers; with a thread that has ended it
    // fails with ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGUSR1) };
}

/// A zeroed value in memory that forked children share with this process, and
/// that lives as long as the process.
pub fn shared<T: Default>() -> &'static T {
    let length = size_of::<T>();
    // SAFETY: an anonymous mapping at an address of the kernel's choice
    // touches no memory of ours.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Box::leak(Box::default());
    }
    let place = memory.cast::<T>();
    // SAFETY: the mapping is `length` writable bytes, aligned to a page.
    unsafe { place.write(T::default()) };
    // SAFETY: initialised above, never unmapped, and never written but
    // through `T`'s own interior mutability.
    unsafe { &*place }
}

/// Closes a descriptor that was meant to stay open as long as the process,
/// because the process is about to end.
pub fn close_for_good(fd: std::os::fd::BorrowedFd<'static>) {
    // SAFETY: a number; writers that still try get EBADF, and no descriptor
    // is opened after this.
    unsafe { libc::close(fd.as_raw_fd()) };
}

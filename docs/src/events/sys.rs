//! What nix has no words for: signals for descriptors, and a poll that knows
//! POLLRDHUP.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::{c_int, pollfd};
use nix::errno::Errno;
use nix::unistd::gettid;

/// From <linux/fcntl.h>; libc has them for other systems only.
const F_SETSIG: c_int = 10;
const F_SETOWN_EX: c_int = 15;
const F_OWNER_TID: c_int = 0;

#[repr(C)]
struct FOwnerEx {
    kind: c_int,
    pid: libc::pid_t,
}

/// F_SETOWN_EX and F_SETSIG: this thread gets the signals of `fd`, and they
/// have this number.
pub(super) fn send_signals_here(
    fd: impl AsFd,
    number: c_int,
) -> nix::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    let owner = FOwnerEx { kind: F_OWNER_TID, pid: gettid().as_raw() };
    // SAFETY: `owner` has the layout of `struct f_owner_ex`, is only read, and
    // outlives the call.
    let done = unsafe { libc::fcntl(fd, F_SETOWN_EX, ptr::from_ref(&owner)) };
    Errno::result(done)?;
    // SAFETY: three numbers; a wrong one is refused.
    let done = unsafe { libc::fcntl(fd, F_SETSIG, number) };
    Errno::result(done).map(drop)
}

/// What poll(2) says of `fd` now, asked for these events.
pub(super) fn poll_now(fd: impl AsFd, events: i32) -> nix::Result<i32> {
    let fd = fd.as_fd().as_raw_fd();
    let mut entry = pollfd { fd, events: events as i16, revents: 0 };
    // SAFETY: a list of one entry, which the call may write.
    let ready = unsafe { libc::poll(&mut entry, 1, 0) };
    Errno::result(ready)?;
    Ok(entry.revents.into())
}

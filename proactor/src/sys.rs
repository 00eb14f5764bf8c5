//! What nix wraps only for whoever owns the descriptor.
#![allow(unsafe_code)]

use echo::Fd;
use nix::errno::Errno;

/// `read(2)` of a descriptor that somebody else owns.
pub fn read(fd: Fd, room: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: `room` is memory that we may write, as long as it says. A number
    // that is no open descriptor is refused.
    let n = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
    Errno::result(n).map(|n| n as usize)
}

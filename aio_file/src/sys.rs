//! `poll` over a list that lives as long as the server. nix's borrows every
//! socket for as long as the list lives, and so wants a new one for each call.
#![allow(unsafe_code)]

use libc::pollfd;
use nix::errno::Errno;

/// `poll(2)`: sleeps until an entry is ready or `timeout` milliseconds have
/// passed (-1: for ever), and marks the ready ones in their `revents`.
pub fn poll(list: &mut [pollfd], timeout: i32) -> nix::Result<usize> {
    let length = list.len() as libc::nfds_t;
    // SAFETY: `list` is `length` entries that we may write, for the whole
    // call. A closed or negative descriptor is reported, not followed.
    let ready = unsafe { libc::poll(list.as_mut_ptr(), length, timeout) };
    Errno::result(ready).map(|ready| ready as usize)
}

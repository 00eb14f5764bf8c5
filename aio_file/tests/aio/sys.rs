//! Limits of another process.
#![allow(unsafe_code)]

use std::process::Child;
use std::ptr;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

/// Sets the soft limit of a child, at any time: the kernel looks at it each
/// time that something is to be limited.
pub fn limit(child: &Child, resource: Resource, soft: u64) {
    let (_, hard) = getrlimit(resource).expect("a limit");
    let limit = libc::rlimit { rlim_cur: soft.min(hard), rlim_max: hard };
    let (pid, resource) = (child.id() as libc::pid_t, resource as u32);
    // SAFETY: prlimit(2) reads `limit`, which outlives the call, and returns
    // nothing through the null pointer.
    let done = unsafe { libc::prlimit(pid, resource, &limit, ptr::null_mut()) };
    Errno::result(done).expect("a child may be limited");
}

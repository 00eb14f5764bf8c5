//! What only `unsafe` can ask of glibc.
#![allow(unsafe_code)]

use std::ffi::CStr;

/// The version of glibc that runs.
pub(super) fn glibc_version() -> String {
    // SAFETY: it takes nothing and has no state
    // (gnu_get_libc_version(3)).
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: it is a constant string of glibc, which ends with a zero and is
    // there as long as this program.
    let version = unsafe { CStr::from_ptr(version) };
    version.to_string_lossy().into_owned()
}

//! What neither nix nor libc has: signals for descriptors, and real-time ones.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering::Relaxed};

use echo::{Fd, signal_set};
use libc::{c_int, siginfo_t, timespec};
use nix::errno::Errno;
use nix::sys::signal::SigSet;
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

/// What a signal says.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    pub number: c_int,
    pub code: c_int,
    /// The descriptor that it is about, or -1: only the kernel's own POLL_*
    /// codes bring one, and whoever else sends this signal brings none.
    pub fd: Fd,
    pub band: i64,
}

/// F_SETOWN_EX: this thread gets the signals of `fd`.
pub fn set_owner(fd: Fd) -> nix::Result<c_int> {
    let owner = FOwnerEx { kind: F_OWNER_TID, pid: gettid().as_raw() };
    // SAFETY: `owner` has the layout of `struct f_owner_ex`, is only read, and
    // outlives the call.
    let done = unsafe { libc::fcntl(fd, F_SETOWN_EX, ptr::from_ref(&owner)) };
    Errno::result(done)
}

/// F_SETSIG: the signals of `fd` have this number, and are queued one by one.
pub fn set_signal(fd: Fd, number: c_int) -> nix::Result<c_int> {
    // SAFETY: three numbers; a wrong one is refused (EBADF, EINVAL).
    let done = unsafe { libc::fcntl(fd, F_SETSIG, number) };
    Errno::result(done)
}

/// `sigtimedwait(2)`: takes the next of these signals from the queue. Until it
/// comes it sleeps, for `timeout` at most, or for ever.
pub fn sigtimedwait(
    set: &SigSet,
    info: &mut Info,
    timeout: Option<timespec>,
) -> nix::Result<c_int> {
    let mut place = MaybeUninit::<siginfo_t>::uninit();
    let limit = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let room = place.as_mut_ptr();
    // SAFETY: `set` and `limit` are read during the call only; `room` is there
    // for what is written.
    let number = unsafe { libc::sigtimedwait(set.as_ref(), room, limit) };
    Errno::result(number)?;
    // SAFETY: a call that succeeds has filled it in.
    *info = info_of(unsafe { place.assume_init_ref() });
    Ok(number)
}

/// What the handler was told last. Only one thread gets these signals, and it
/// reads what its own handler has written, so that no order between memory of
/// two threads is at stake.
static HANDED: Handed = Handed {
    number: AtomicI32::new(0),
    code: AtomicI32::new(0),
    fd: AtomicI32::new(-1),
    band: AtomicI64::new(0),
};

struct Handed {
    number: AtomicI32,
    code: AtomicI32,
    fd: AtomicI32,
    band: AtomicI64,
}

/// Installs the handler for these signals. While it runs, and whenever a wait
/// does not let them in, all of them are blocked: it interrupts nothing but
/// the wait, and never itself.
pub fn on_signals(numbers: &[c_int]) -> nix::Result<()> {
    for number in numbers {
        let handler: extern "C" fn(c_int, *const siginfo_t, *const ()) =
            on_signal;
        let action = libc::sigaction {
            sa_sigaction: handler as usize,
            sa_mask: *signal_set(numbers).as_ref(),
            sa_flags: libc::SA_SIGINFO,
            sa_restorer: None,
        };
        let old = ptr::null_mut();
        // SAFETY: `on_signal` has the signature that SA_SIGINFO asks for, and
        // does nothing but store into atomics (signal-safety(7)).
        let done = unsafe { libc::sigaction(*number, &action, old) };
        Errno::result(done)?;
    }
    Ok(())
}

/// The handler: hands what it was told to the loop.
extern "C" fn on_signal(_: c_int, info: *const siginfo_t, _: *const ()) {
    // SAFETY: the kernel calls it with a siginfo_t that outlives it
    // (SA_SIGINFO).
    let info = info_of(unsafe { &*info });
    HANDED.code.store(info.code, Relaxed);
    HANDED.fd.store(info.fd, Relaxed);
    HANDED.band.store(info.band, Relaxed);
    HANDED.number.store(info.number, Relaxed);
}

/// What the handler handed over since this was last asked.
pub fn handed() -> Option<Info> {
    let number = HANDED.number.swap(0, Relaxed);
    (number != 0).then(|| Info {
        number,
        code: HANDED.code.load(Relaxed),
        fd: HANDED.fd.load(Relaxed),
        band: HANDED.band.load(Relaxed),
    })
}

fn info_of(info: &siginfo_t) -> Info {
    let (number, code) = (info.si_signo, info.si_code);
    let none = Info { number, code, fd: -1, band: 0 };
    // POLL_IN to POLL_HUP.
    if !(1..=6).contains(&code) {
        return none;
    }
    // SAFETY: with a code of SIGPOLL's the kernel has filled these fields in.
    let fd = unsafe { info.si_fd() };
    // SAFETY: as above.
    let band = unsafe { info.si_band() };
    Info { fd, band, ..none }
}

/// `poll(2)`: looks at every entry of the list once, and sleeps for none.
pub fn poll_now(list: &mut [libc::pollfd]) -> nix::Result<usize> {
    let length = list.len() as libc::nfds_t;
    // SAFETY: `list` is `length` entries that we may write, for the whole
    // call. A closed descriptor is reported, not followed.
    let ready = unsafe { libc::poll(list.as_mut_ptr(), length, 0) };
    Errno::result(ready).map(|ready| ready as usize)
}

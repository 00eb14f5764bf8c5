//! fork, and descriptors that come by message: one operation a block.
#![allow(unsafe_code)]

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_SPACE, MSG_CMSG_CLOEXEC,
    MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET, cmsghdr, iovec, msghdr, recvmsg,
    sendmsg,
};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, raise};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, setpgid};

/// Returns twice: `None` in the new child, its number in this process, the
/// master. The child is told to stop when the master dies.
pub fn fork_worker() -> nix::Result<Option<Pid>> {
    let master = getpid();
    // SAFETY: the master has one thread, so that no lock can be held by a
    // thread that the child does not have.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // If the master has died already, nobody will send that signal.
            let asked = set_pdeathsig(Signal::SIGTERM);
            if asked.is_err() || getppid() != master {
                raise(Signal::SIGTERM).ok();
            }
            // A Ctrl-C goes to the master's process group alone, which passes
            // it on: setpgid(2).
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).ok();
            Ok(None)
        }
        ForkResult::Parent { child } => {
            // Both do it, so that it is done when either goes on.
            setpgid(child, child).ok();
            Ok(Some(child))
        }
    }
}

/// Ends a worker without running what its master meant to run at its own end.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit runs no code of this process.
    unsafe { libc::_exit(code) }
}

/// Room for a control message with one descriptor, as the kernel wants it
/// aligned. nix's would be allocated anew for each client.
#[derive(Default)]
struct Space([u64; 4]);

/// What goes with a descriptor.
pub type Note = [u8; 8];

/// The header of a message with a note, and with room for a descriptor. It
/// points to both of them.
fn header(vector: &mut iovec, space: &mut Space) -> msghdr {
    // SAFETY: msghdr is numbers and pointers, which may all be zero.
    let mut header: msghdr = unsafe { mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (vector, 1);
    header.msg_control = space.0.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&space.0) as _;
    header
}

/// Sends a note, and a descriptor with it: unix(7), SCM_RIGHTS.
pub fn send(
    to: BorrowedFd<'_>,
    mut note: Note,
    client: BorrowedFd<'_>,
) -> nix::Result<usize> {
    let mut space = Space::default();
    let mut vector =
        iovec { iov_base: note.as_mut_ptr().cast(), iov_len: note.len() };
    let mut header = header(&mut vector, &mut space);
    // SAFETY: the macro computes from a number.
    header.msg_controllen = unsafe { CMSG_SPACE(FD) } as _;
    // SAFETY: `header` has room for a control message, and points to it.
    let part = unsafe { CMSG_FIRSTHDR(&header) };
    let rights = cmsghdr {
        // SAFETY: the macro computes from a number.
        cmsg_len: unsafe { CMSG_LEN(FD) } as _,
        cmsg_level: SOL_SOCKET,
        cmsg_type: SCM_RIGHTS,
    };
    // SAFETY: `part` is the beginning of `space`, which is aligned for it.
    unsafe { part.write(rights) };
    // SAFETY: behind the header there is room for a number, in `space`.
    let data = unsafe { CMSG_DATA(part) };
    // SAFETY: the same place; the number need not be aligned there.
    unsafe { data.cast::<RawFd>().write_unaligned(client.as_raw_fd()) };
    // SAFETY: all that `header` points to lives until the call has returned,
    // which only reads it.
    let n = unsafe { sendmsg(to.as_raw_fd(), &header, MSG_NOSIGNAL) };
    Errno::result(n).map(|n| n as usize)
}

/// Receives a note, and the descriptor that came with it, if this process could
/// take it (else the kernel says MSG_CTRUNC).
pub fn receive(
    from: BorrowedFd<'_>,
    note: &mut Note,
) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut space = Space::default();
    let mut vector =
        iovec { iov_base: note.as_mut_ptr().cast(), iov_len: note.len() };
    let mut header = header(&mut vector, &mut space);
    let flags = MSG_CMSG_CLOEXEC;
    // SAFETY: all that `header` points to is ours to write, and lives until
    // the call has returned.
    let n = unsafe { recvmsg(from.as_raw_fd(), &mut header, flags) };
    let n = Errno::result(n)? as usize;
    // SAFETY: the kernel has left in `header` how much of `space` it wrote.
    let part = unsafe { CMSG_FIRSTHDR(&header) };
    // SAFETY: null, or the control message at the beginning of `space`.
    let Some(rights) = (unsafe { part.as_ref() }) else {
        return Ok((n, None));
    };
    // SAFETY: the macro computes from a number.
    let whole = unsafe { CMSG_LEN(FD) } as usize;
    if rights.cmsg_type != SCM_RIGHTS || rights.cmsg_len < whole as _ {
        return Ok((n, None));
    }
    // SAFETY: a whole number follows, as its length says.
    let data = unsafe { CMSG_DATA(part) };
    // SAFETY: the same place; the number need not be aligned there.
    let fd = unsafe { data.cast::<RawFd>().read_unaligned() };
    // SAFETY: the kernel has just made this descriptor for us, so it is open
    // and nobody else owns it.
    Ok((n, Some(unsafe { OwnedFd::from_raw_fd(fd) })))
}

/// The size of a descriptor's number.
const FD: u32 = size_of::<RawFd>() as u32;

//! fork, and descriptors that come by message: one operation a block.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
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

/// Receives a message of one byte, and the descriptor that came with it, if
/// this process could take it: unix(7), SCM_RIGHTS.
pub fn receive(
    from: BorrowedFd<'_>,
    space: &mut [u8],
) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let fd = from.as_raw_fd();
    let message = recvmsg::<()>(fd, &mut bytes, Some(space), flags)?;
    let mut came = None;
    // An error means MSG_CTRUNC: there was no descriptor left for it.
    for part in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(fds) = part {
            came = fds.first().copied().map(own);
        }
    }
    Ok((message.bytes, came))
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, so it is open
    // and nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

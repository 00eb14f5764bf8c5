//! fork, and the children that come of it.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI32, AtomicIsize, Ordering::Relaxed};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, raise, sigaction,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, setpgid};

/// The children of this process: none of them becomes a zombie, and all of
/// them end with it.
pub struct Children(());

/// How many children there are.
static COUNT: AtomicIsize = AtomicIsize::new(0);

/// The process group of the children; 0 before the first. Their group is not
/// the server's: a Ctrl-C reaches the server alone, which passes it on.
static GROUP: AtomicI32 = AtomicI32::new(0);

impl Children {
    /// From now on a child that ends is waited for at once, whatever this
    /// process is doing: the signal's handler does it. To wait for it in the
    /// accept loop instead would leave a zombie until the next client comes.
    pub fn reaped_at_once() -> Result<Self> {
        let handler = SigHandler::Handler(on_child);
        let action =
            SigAction::new(handler, SaFlags::SA_NOCLDSTOP, SigSet::empty());
        // SAFETY: the handler calls async-signal-safe functions only: waitpid,
        // and operations on atomics; it keeps errno.
        unsafe { sigaction(Signal::SIGCHLD, &action) }.context("sigaction")?;
        Ok(Children(()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        COUNT.load(Relaxed).max(0) as usize
    }

    /// Returns twice: `None` in the new child, its number in this process.
    pub fn fork(&self) -> nix::Result<Option<Pid>> {
        let parent = getpid();
        // Before the child can end, lest its end is counted before its start.
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: this process has one thread, so that no lock can be held by
        // a thread that the child does not have.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                // A server that dies must not leave its children behind. If it
                // has died already, nobody will send that signal.
                let asked = set_pdeathsig(Signal::SIGTERM);
                if asked.is_err() || getppid() != parent {
                    raise(Signal::SIGTERM).ok();
                }
                join_group(Pid::from_raw(0));
                Ok(None)
            }
            Ok(ForkResult::Parent { child }) => {
                join_group(child);
                Ok(Some(child))
            }
            Err(errno) => {
                COUNT.fetch_sub(1, Relaxed);
                Err(errno)
            }
        }
    }

    /// Sends a signal to all of them.
    pub fn signal(&self, signal: Signal) {
        let group = GROUP.load(Relaxed);
        if group != 0 && self.len() > 0 {
            killpg(Pid::from_raw(group), signal).ok();
        }
    }
}

/// Puts a child into the group of the children, or at the head of a new one if
/// all the others have ended. Parent and child both do it, so that it is done
/// when either goes on (setpgid(2)).
fn join_group(child: Pid) {
    let group = Pid::from_raw(GROUP.load(Relaxed));
    if group.as_raw() != 0 && setpgid(child, group).is_ok() {
        return;
    }
    if setpgid(child, child).is_ok() {
        GROUP.store(child.as_raw(), Relaxed);
    }
}

/// The handler of SIGCHLD. One signal may stand for many children (signals of
/// one number do not queue), hence the loop.
extern "C" fn on_child(_: libc::c_int) {
    let errno = Errno::last_raw();
    let any = Pid::from_raw(-1);
    while let Ok(status) = waitpid(any, Some(WaitPidFlag::WNOHANG)) {
        match status {
            WaitStatus::StillAlive => break,
            _ if echo::is_renderer(status.pid()) => {}
            _ => {
                COUNT.fetch_sub(1, Relaxed);
            }
        }
    }
    Errno::set_raw(errno);
}

/// Ends a child without running what its parent meant to run at its own end.
pub fn exit() -> ! {
    // SAFETY: _exit runs no code of this process.
    unsafe { libc::_exit(0) }
}

//! What tells the server that operations have ended. A notice names a slot and
//! is a hint: it may be lost, or come late; aio_error knows the truth.
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use echo::{Came, Fd, Watch, signal_set};
use libc::{c_int, signalfd_siginfo, sigval};
use nix::fcntl::OFlag;
use nix::sys::signal::{SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{pipe2, read, write};

use crate::flags::Notify;
use crate::operations::Operations;
use crate::sys::{self, Notice};

/// How many notices one read takes.
const BATCH: usize = 64;

/// Where notices come from.
pub enum Notices {
    Signals(SignalFd, Box<[signalfd_siginfo; BATCH]>),
    Pipe(OwnedFd, Box<[[u8; 4]; BATCH]>),
    None,
}

/// Runs in a thread that glibc starts for it, at the end of an operation.
static TELL: OnceLock<Box<dyn Fn(usize) + Send + Sync>> = OnceLock::new();

extern "C" fn tell(slot: sigval) {
    if let Some(tell) = TELL.get() {
        tell(slot.sival_ptr.addr());
    }
}

/// The signal; nobody else uses the second of the real-time ones.
fn signal() -> c_int {
    libc::SIGRTMIN() + 1
}

impl Notify {
    /// How the operation of this slot tells of its end.
    pub fn notice(self, slot: usize) -> Notice {
        match self {
            Notify::Signal => Notice::by_signal(signal(), slot),
            Notify::Thread => Notice::by_thread(tell, slot),
            Notify::Suspend => Notice::none(),
        }
    }
}

impl Notices {
    pub fn new<W: Watch>(notify: Notify, watch: W) -> Result<Self> {
        let notices = match notify {
            Notify::Signal => Self::signals()?,
            Notify::Thread => Self::pipe(watch)?,
            Notify::Suspend => return Ok(Notices::None),
        };
        watch.name(notices.fd(), "completions");
        Ok(notices)
    }

    fn signals() -> Result<Self> {
        let mask = signal_set(&[signal()]);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)
            .context("sigprocmask")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags).context("signalfd")?;
        Ok(Notices::Signals(signals, Box::new([sys::no_signal(); BATCH])))
    }

    fn pipe<W: Watch>(watch: W) -> Result<Self> {
        sys::keep_stop_signals_here().context("sigaction")?;
        let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let (from, to) = pipe2(flags).context("pipe2")?;
        watch.name(to.as_raw_fd(), "completions");
        // A thread may be on its way when the server ends: what it needs is
        // never dropped.
        let tell = move |slot: usize| {
            let slot = (slot as u32).to_ne_bytes();
            let tell = || write(&to, &slot);
            watch.copy("write", &to, tell).ok();
        };
        TELL.set(Box::new(tell)).ok().context("a second server")?;
        Ok(Notices::Pipe(from, Box::new([[0; 4]; BATCH])))
    }

    /// The descriptor that is readable while there are notices; -1: none.
    pub fn fd(&self) -> Fd {
        match self {
            Notices::Signals(signals, _) => signals.as_fd().as_raw_fd(),
            Notices::Pipe(from, _) => from.as_raw_fd(),
            Notices::None => -1,
        }
    }

    /// Reads as many as one call takes; the next wait reports the others.
    pub fn read<W: Watch>(&mut self, watch: W, operations: &mut Operations) {
        match self {
            Notices::Signals(signals, room) => {
                let all = || sys::read_signals(&*signals, &mut room[..]);
                let bytes = watch.copy("read", &*signals, all).unwrap_or(0);
                let count = bytes / size_of::<signalfd_siginfo>();
                for info in &room[..count] {
                    let (slot, code) = (info.ssi_ptr as usize, info.ssi_code);
                    let fd = operations.client(slot);
                    let name = "SIGRTMIN+1";
                    watch.signal(&Came { name, fd, code, band: 0 });
                    operations.told(slot);
                }
            }
            Notices::Pipe(from, room) => {
                let all = || read(&*from, room.as_flattened_mut());
                let bytes = watch.copy("read", &*from, all).unwrap_or(0);
                for slot in &room[..bytes / 4] {
                    operations.told(u32::from_ne_bytes(*slot) as usize);
                }
            }
            Notices::None => {}
        }
    }
}

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libc::signalfd_siginfo;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{gettid, read, write};

use crate::{Fd, Listener, sys, watch::now};

/// How a server learns that it must stop: SIGTERM or SIGINT once, and then it
/// has a time of grace; a second one ends it at once.
pub trait Stop: Sized {
    /// Takes the signals over. From here on none of them is lost or kills.
    fn install(grace: Duration) -> Result<Self>;

    /// Whether the server has been told to stop.
    fn asked(&self) -> bool;

    /// When the grace is over; `None` while nobody has asked.
    fn deadline(&self) -> Option<Instant>;

    /// The descriptor that becomes readable; -1 for a stop that has none.
    fn fd(&self) -> Fd {
        -1
    }

    /// Whether the server has been told to stop and its grace is over.
    fn overdue(&self) -> bool {
        self.deadline().is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether the server is done: it was told to stop, and nobody is left or
    /// the grace is over.
    fn finished(&self, connections: usize) -> bool {
        self.asked() && (connections == 0 || self.overdue())
    }
}

/// A stop that is one more descriptor in the readiness set (signalfd(2)):
/// nothing can slip in between a check and the wait, for the wait is the check.
pub struct StopFd {
    signals: OwnedFd,
    grace: Duration,
    deadline: Option<Instant>,
}

impl Stop for StopFd {
    fn install(grace: Duration) -> Result<Self> {
        let mask = stop_signals();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)
            .context("sigprocmask")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags).context("signalfd")?;
        Ok(StopFd { signals: signals.into(), grace, deadline: None })
    }

    fn asked(&self) -> bool {
        self.deadline.is_some()
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn fd(&self) -> Fd {
        self.signals.as_raw_fd()
    }
}

impl StopFd {
    /// The same stop for a child that is still to be forked: signalfd(2) gives
    /// a process its own signals.
    pub fn for_child(&self) -> Result<Self> {
        Self::install(self.grace)
    }

    /// The same stop for a thread that is still to be started, which learns of
    /// it by its own descriptor; and the end into which [`relay`](Self::relay)
    /// tells it.
    pub fn for_thread(&self) -> Result<(Self, OwnedFd)> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC);
        let event = event.context("eventfd")?;
        let teller = event.as_fd().try_clone_to_owned()?;
        let (signals, grace) = (event.into(), self.grace);
        Ok((StopFd { signals, grace, deadline: None }, teller))
    }

    /// Tells a thread that a signal has come.
    pub fn relay(teller: &OwnedFd) {
        // eventfd(2): it adds up, so that it fails never, and says it all.
        while write(teller, &1_u64.to_ne_bytes()) == Err(Errno::EINTR) {}
    }

    /// Takes the signal that made the descriptor readable. The first begins
    /// the grace; the second ends the process.
    pub fn take(&mut self) {
        let mut signal = [0; size_of::<signalfd_siginfo>()];
        loop {
            match read(&self.signals, &mut signal) {
                Ok(0) => return,
                Ok(_) => self.told(),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// A signal was read from the descriptor by somebody else.
    pub fn told(&mut self) {
        if self.asked() {
            std::process::exit(1);
        }
        self.deadline = Some(Instant::now() + self.grace);
    }
}

impl AsFd for StopFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

/// A stop for servers that take all their signals one by one: SIGTERM and
/// SIGINT stay blocked, and the wait for signals brings them too (sigwait(3)).
pub struct StopSignal {
    grace: Duration,
    deadline: Option<Instant>,
}

impl Stop for StopSignal {
    fn install(grace: Duration) -> Result<Self> {
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop_signals()), None)
            .context("sigprocmask")?;
        Ok(StopSignal { grace, deadline: None })
    }

    fn asked(&self) -> bool {
        self.deadline.is_some()
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl StopSignal {
    /// One of the two signals came. The first begins the grace; the second
    /// ends the process.
    pub fn take(&mut self) {
        if self.asked() {
            std::process::exit(1);
        }
        self.deadline = Some(Instant::now() + self.grace);
    }
}

/// A stop for servers that sleep in blocking calls or do not sleep at all: a
/// signal handler sets a flag and sees to it that no call sleeps on.
///
/// A handler alone loses the race in which the signal comes after the flag was
/// checked and before the call sleeps. So it also shuts the listener down,
/// after which `accept` gives EINVAL for good, and puts a short time limit on
/// the connection of its thread: a call that has begun is interrupted (EINTR),
/// a call that begins later gives up soon (EAGAIN).
#[derive(Clone, Copy)]
pub struct StopFlag {
    grace: Duration,
}

/// When the first signal came, in nanoseconds of CLOCK_MONOTONIC; 0: not yet.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// The listener that a stop shuts down, or -1.
static LISTENER: AtomicI32 = AtomicI32::new(-1);

/// The threads that serve a connection right now.
static SERVING: Mutex<Vec<i32>> = Mutex::new(Vec::new());

impl Stop for StopFlag {
    fn install(grace: Duration) -> Result<Self> {
        sys::on_signal(Signal::SIGTERM, on_stop)?;
        sys::on_signal(Signal::SIGINT, on_stop)?;
        sys::on_signal(Signal::SIGUSR1, on_hurry)?;
        Ok(StopFlag { grace })
    }

    fn asked(&self) -> bool {
        ASKED.load(Relaxed) != 0
    }

    fn deadline(&self) -> Option<Instant> {
        let asked = Some(ASKED.load(Relaxed)).filter(|asked| *asked != 0)?;
        let since = Duration::from_nanos(now().saturating_sub(asked));
        Some(Instant::now() + self.grace.saturating_sub(since))
    }

    fn overdue(&self) -> bool {
        let asked = ASKED.load(Relaxed);
        asked != 0 && now() - asked >= self.grace.as_nanos() as u64
    }
}

impl StopFlag {
    /// A stop ends `accept` on this listener.
    pub fn shuts(&self, listener: &Listener) {
        LISTENER.store(listener.fd(), Relaxed);
        if self.asked() {
            sys::shut(listener.fd());
        }
    }

    /// A stop ends this thread's blocking calls on `socket`, as long as the
    /// returned guard lives.
    pub fn interrupts(&self, socket: &impl AsFd) -> Interrupted {
        sys::CONNECTION.set(socket.as_fd().as_raw_fd());
        let mut serving = SERVING.lock().expect("nobody panics with it");
        serving.push(gettid().as_raw());
        drop(serving);
        if self.asked() {
            sys::hurry();
        }
        Interrupted
    }

    /// Interrupts every thread that serves a connection.
    pub fn interrupt_all(&self) {
        for tid in SERVING.lock().expect("nobody panics with it").iter() {
            // The thread is alive: it leaves the list before it ends.
            sys::interrupt(*tid);
        }
    }
}

/// A thread that a stop interrupts; ends with the connection.
pub struct Interrupted;

impl Drop for Interrupted {
    fn drop(&mut self) {
        sys::CONNECTION.set(-1);
        let tid = gettid().as_raw();
        let mut serving = SERVING.lock().expect("nobody panics with it");
        serving.retain(|serving| *serving != tid);
    }
}

/// The handler of SIGTERM and SIGINT.
extern "C" fn on_stop(_: libc::c_int) {
    if ASKED.compare_exchange(0, now(), Relaxed, Relaxed).is_err() {
        sys::exit_now(1);
    }
    sys::keeping_errno(|| {
        sys::shut(LISTENER.load(Relaxed));
        sys::hurry();
    });
}

/// The handler of SIGUSR1, which the accepting thread sends to the others.
extern "C" fn on_hurry(_: libc::c_int) {
    sys::keeping_errno(sys::hurry);
}

/// The signals that stop a server.
fn stop_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT])
}

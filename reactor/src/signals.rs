//! Signals as events: signalfd(2) makes of a signal one more descriptor that
//! becomes readable, so that no handler interrupts anything.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use echo::{Gone, Stop, StopFd};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::demultiplexer::Interest;
use crate::reactor::{Handler, Next, Reactor};

/// Gives each signal of a set to `told`. A signal that comes again before it
/// was taken is one signal: signal(7).
pub struct Signals<F> {
    signals: SignalFd,
    told: F,
}

impl<F> Signals<F> {
    /// Blocks these signals in this thread, and those it starts; from now on
    /// they are events.
    ///
    /// # Errors
    ///
    /// Those of sigprocmask(2) and signalfd(2).
    pub fn new(wanted: &[Signal], told: F) -> Result<Self> {
        let mask = wanted.iter().copied().collect::<SigSet>();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)
            .context("sigprocmask")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags).context("signalfd")?;
        Ok(Signals { signals, told })
    }
}

impl<C, F> Handler<C> for Signals<F>
where
    C: Handler,
    F: FnMut(Signal, &mut Reactor<C>),
{
    fn fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    fn readable(&mut self, reactor: &mut Reactor<C>) -> Result<Next, Gone> {
        let taken = self.signals.read_signal();
        let Ok(Some(info)) = taken else {
            return Ok(Next::Wait(Interest::Read));
        };
        if let Ok(signal) = Signal::try_from(info.ssi_signo as i32) {
            (self.told)(signal, reactor);
        }
        Ok(Next::Again(Interest::Read))
    }

    /// A second one may be meant to end a stop that takes long.
    fn stopping(&mut self, _: &mut Reactor<C>) -> Result<Next, Gone> {
        Ok(Next::Same)
    }
}

/// Stops the reactor at SIGTERM or SIGINT, and the process at the second.
pub struct Stopper(pub StopFd);

impl<C: Handler> Handler<C> for Stopper {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn readable(&mut self, reactor: &mut Reactor<C>) -> Result<Next, Gone> {
        self.0.take();
        if let Some(deadline) = self.0.deadline()
            && !reactor.is_stopping()
        {
            let now = reactor.now();
            reactor.stop(deadline.saturating_duration_since(now));
        }
        Ok(Next::Wait(Interest::Read))
    }

    fn stopping(&mut self, _: &mut Reactor<C>) -> Result<Next, Gone> {
        Ok(Next::Same)
    }
}

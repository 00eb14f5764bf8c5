//! A handler sets a flag; the loop looks at the flag, and then sleeps.
//!
//! Symptom: now and then nobody answers until the next signal comes: the flag
//! is set, and the program sleeps.
//!
//! Cause: there is a moment between the look at the flag and the sleep. A
//! signal that comes then has run its handler before the call begins, and
//! interrupts nothing any more: pause(2), signal(7).
//!
//! Fix: keep the signal blocked, and let it in by the call that sleeps, which
//! is ppoll(2), pselect(2) or epoll_pwait(2) with a mask; or take it without a
//! handler, by sigtimedwait(2) or signalfd(2). signal_driven does both, by
//! --delivery (Signals::next in signal_driven/src/signals.rs).
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use libc::c_int;
use nix::poll::ppoll;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, raise,
    sigaction,
};
use nix::sys::time::TimeSpec;
use pitfall::{Shown, pitfall, say};

static SPOKEN: AtomicBool = AtomicBool::new(false);

/// So that this program ends: a server would sleep without any limit.
const LIMIT: Duration = Duration::from_millis(500);

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    look_and_sleep(None)
}

fn mended() -> Result<Shown> {
    let blocked = SigSet::from(Signal::SIGIO);
    let usual = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    look_and_sleep(Some(usual))
}

/// Sleeps if nobody has spoken, with this mask of signals if there is one.
fn look_and_sleep(mask: Option<SigSet>) -> Result<Shown> {
    let handler = SigHandler::Handler(on_signal);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing but store into an atomic, which is
    // async-signal-safe: signal-safety(7).
    unsafe { sigaction(Signal::SIGIO, &action) }?;

    SPOKEN.store(false, Relaxed);
    let mut slept = Ok(1);
    if !SPOKEN.load(Relaxed) {
        say!("nobody has spoken: it is about to sleep");
        // What may take years to come at this very moment, on purpose. By
        // raise(3) it comes to this thread, and before the call returns.
        raise(Signal::SIGIO)?;
        say!("a signal; the flag is {}", SPOKEN.load(Relaxed));
        let begin = Instant::now();
        slept = ppoll(&mut [], Some(TimeSpec::from_duration(LIMIT)), mask);
        let (took, flag) = (begin.elapsed(), SPOKEN.load(Relaxed));
        say!("ppoll: {slept:?} after {took:.0?}; the flag is {flag}");
    }
    Ok(Shown::symptom_if(slept == Ok(0) && SPOKEN.load(Relaxed)))
}

extern "C" fn on_signal(_: c_int) {
    SPOKEN.store(true, Relaxed);
}

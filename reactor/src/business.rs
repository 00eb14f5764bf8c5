//! What a real service does with a message besides moving it, played: some
//! messages take long.

use std::time::Duration;

use echo::Watch;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// What happens for messages that begin with `!`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slow {
    /// It takes so much of a core.
    pub work: Duration,
    /// It sleeps so long, as for a database or a disk.
    pub sleep: Duration,
}

impl Slow {
    /// Answers a message, whose bytes stay what they are.
    pub fn answer<W: Watch>(&self, message: &[u8], watch: W) {
        if message.first() != Some(&b'!') {
            return;
        }
        if self.sleep > Duration::ZERO {
            let clock = ClockId::CLOCK_MONOTONIC;
            let flags = ClockNanosleepFlags::empty();
            let time = TimeSpec::from_duration(self.sleep);
            let sleep = || clock_nanosleep(clock, flags, &time).map(drop);
            watch.wait("clock_nanosleep", 0, sleep).ok();
        }
        if self.work > Duration::ZERO {
            let until = on_cpu() + self.work;
            while on_cpu() < until {}
        }
    }
}

/// How long this thread has been on a CPU.
fn on_cpu() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.expect("every Linux has this clock").into()
}

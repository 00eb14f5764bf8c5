//! The clock of the record: CLOCK_MONOTONIC, which all processes share.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of it.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| Duration::from(now).as_nanos() as u64)
}

//! The CPU time of each thread: it may not outrun the clock, nor go back, and
//! a sleep takes none.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// By thread, the clock and its CPU time at the end of its last call.
#[derive(Default)]
pub struct Cpu {
    last: BTreeMap<i64, (u64, u64)>,
    /// Some call took long, and some of it, but less than half, on a CPU.
    slept: bool,
}

/// Both are not read at once: a virtual core may rest in between.
const BETWEEN: u64 = 20_000_000;

/// What a call takes at least that is looked at for a sleep.
const LONG: u64 = 500_000;

impl Cpu {
    /// Looks at the next call of the record.
    pub fn add(&mut self, object: &Value) -> Result<()> {
        let field = |name: &str| {
            object[name].as_u64().with_context(|| format!("no {name}"))
        };
        let tid = object["tid"].as_i64().context("no tid")?;
        let (begin, end, cpu) =
            (field("t0_ns")?, field("t1_ns")?, field("cpu_ns")?);
        let Some((before, had)) = self.last.insert(tid, (end, cpu)) else {
            return Ok(());
        };
        let took = cpu.checked_sub(had).context("its CPU time goes back")?;
        ensure!(
            took <= end - before + BETWEEN,
            "it was on a CPU for {took} ns of {} ns",
            end - before
        );
        let asleep = 0 < took && took < (end - begin) / 2;
        self.slept |= end - begin > LONG && asleep;
        Ok(())
    }

    /// Whether a sleep was seen to take no CPU time.
    pub fn slept(&self) -> bool {
        self.slept
    }
}

//! What a server takes of its machine: time, switches, calls, memory; and
//! what machine that is.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::AddAssign;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::harness::{Entry, Server, cpu_of, entry_of, proc_text, tasks_of};

mod calls;
mod cores;
mod machine;
mod sys;

pub use crate::harness::Standing;
pub use calls::{Counted, Counting, CountingBy, Ready, counting_by};
pub use cores::Cores;
pub use machine::this_machine;

impl Standing {
    /// Of the server and its children now.
    pub fn of(server: &Server) -> Standing {
        server.standing()
    }
}

/// What a server and all its children, those that were waited for included,
/// have taken since they were started.
#[derive(Clone, Debug)]
pub struct Snapshot {
    cpu: Duration,
    ticks: (u64, u64),
    tasks: Tasks,
}

/// Who lives, and how often each was switched away from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tasks {
    /// Voluntary and involuntary switches by the number of the thread; `None`
    /// if one ended while they were read.
    switches: Option<BTreeMap<i32, (u64, u64)>>,
    /// Page faults of children that were waited for: they tell of a child
    /// that came and went between two snapshots.
    buried_faults: u64,
}

/// What a server has taken between two snapshots, or in many such spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// CPU time: exact for processes that live, in ticks of 10 ms for those
    /// that have been waited for.
    pub cpu: Duration,
    /// The part of it in user space, in ticks of 10 ms: it means something
    /// only when many spans have been added up.
    pub user_ticks: u64,
    /// The same for the kernel.
    pub system_ticks: u64,
    /// Context switches, voluntary and involuntary; `None` if a thread or a
    /// child began or ended meanwhile. A thread that did both is missed.
    pub switches: Option<(u64, u64)>,
}

impl Snapshot {
    /// Looks at each thread of the server, and at no other process.
    pub fn of(server: &Server) -> Result<Snapshot> {
        let mut last = Snapshot::once(server)?;
        // A child that is waited for meanwhile is in neither sum: again.
        for _ in 0..4 {
            let (before, snapshot) = last;
            let now = entry_of(server.pid).map(|root| root.buried_cpu);
            if now == Some(before) {
                return Ok(snapshot);
            }
            last = Snapshot::once(server)?;
        }
        Ok(last.1)
    }

    /// With the time of children that the server had waited for before.
    fn once(server: &Server) -> Result<(Duration, Snapshot)> {
        let entries = server.entries();
        let Some(root) = entries.first() else {
            bail!("the server {} is gone", server.pid);
        };
        let sum = |of: fn(&Entry) -> u64| entries.iter().map(of).sum();
        let snapshot = Snapshot {
            cpu: entries
                .iter()
                .map(|entry| entry.buried_cpu + cpu_of(entry.pid))
                .sum(),
            ticks: (sum(|it| it.ticks.0), sum(|it| it.ticks.1)),
            tasks: Tasks {
                switches: switches_of(&entries),
                buried_faults: sum(|it| it.buried_faults),
            },
        };
        Ok((root.buried_cpu, snapshot))
    }

    /// CPU time since the start.
    pub fn cpu(&self) -> Duration {
        self.cpu
    }

    /// Voluntary and involuntary context switches of the threads that live;
    /// `None` if one ended while they were counted.
    pub fn switches(&self) -> Option<(u64, u64)> {
        let all = self.tasks.switches.as_ref()?.values();
        Some(all.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1)))
    }

    /// What was taken since `earlier`, a snapshot of the same server.
    pub fn since(&self, earlier: &Snapshot) -> Taken {
        Taken {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            user_ticks: self.ticks.0.saturating_sub(earlier.ticks.0),
            system_ticks: self.ticks.1.saturating_sub(earlier.ticks.1),
            switches: self.tasks.switches_since(&earlier.tasks),
        }
    }
}

impl Tasks {
    fn switches_since(&self, earlier: &Tasks) -> Option<(u64, u64)> {
        let now = self.switches.as_ref()?;
        let before = earlier.switches.as_ref()?;
        if now.len() != before.len()
            || self.buried_faults != earlier.buried_faults
        {
            return None;
        }
        let mut sum = (0, 0);
        for (tid, (voluntary, involuntary)) in now {
            let before = before.get(tid)?;
            // A number that was given to another thread counts from zero.
            sum.0 += voluntary.checked_sub(before.0)?;
            sum.1 += involuntary.checked_sub(before.1)?;
        }
        Some(sum)
    }
}

fn switches_of(entries: &[Entry]) -> Option<BTreeMap<i32, (u64, u64)>> {
    let mut switches = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.zombie) {
        for tid in tasks_of(entry) {
            // Of the first thread, a shorter way leads to it.
            let text = match tid == entry.pid {
                true => proc_text(&format!("/proc/{tid}/status")),
                false => {
                    let pid = entry.pid;
                    proc_text(&format!("/proc/{pid}/task/{tid}/status"))
                }
            }
            .ok()?;
            // They are the last two of some sixty lines.
            let count = |name: &str| {
                let mut lines = text.rsplit('\n');
                lines.find_map(|line| {
                    line.strip_prefix(name)?.trim().parse().ok()
                })
            };
            let both = (
                count("voluntary_ctxt_switches:")?,
                count("nonvoluntary_ctxt_switches:")?,
            );
            switches.insert(tid, both);
        }
    }
    Some(switches)
}

impl Taken {
    /// Nothing yet, to add to.
    pub const NOTHING: Taken = Taken {
        cpu: Duration::ZERO,
        user_ticks: 0,
        system_ticks: 0,
        switches: Some((0, 0)),
    };

    /// The share of the CPU time spent in user space; `None` before the first
    /// tick.
    pub fn user_share(&self) -> Option<f64> {
        let all = self.user_ticks + self.system_ticks;
        (all > 0).then(|| self.user_ticks as f64 / all as f64)
    }
}

impl Default for Taken {
    fn default() -> Taken {
        Taken::NOTHING
    }
}

impl AddAssign for Taken {
    fn add_assign(&mut self, more: Taken) {
        self.cpu += more.cpu;
        self.user_ticks += more.user_ticks;
        self.system_ticks += more.system_ticks;
        self.switches = match (self.switches, more.switches) {
            (Some(one), Some(two)) => Some((one.0 + two.0, one.1 + two.1)),
            _ => None,
        };
    }
}

impl Sum for Taken {
    fn sum<I: Iterator<Item = Taken>>(spans: I) -> Taken {
        let mut sum = Taken::NOTHING;
        for span in spans {
            sum += span;
        }
        sum
    }
}

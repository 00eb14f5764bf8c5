use super::assembly::Sleep;
use super::call::Call;
use super::totals::Totals;
use crate::Fd;

/// A way of writing down what a watched server did. Each method adds whole
/// lines to `out`.
pub(crate) trait Form {
    /// Who is watched.
    fn start(&mut self, start: &Start, out: &mut Vec<u8>);

    /// A call that has returned.
    fn call(&mut self, call: &Call, out: &mut Vec<u8>);

    /// Rounds that repeat what was written down before them.
    fn rounds(&mut self, rounds: &Rounds, out: &mut Vec<u8>);

    /// Whether it says that a call sleeps.
    fn shows_sleep(&self) -> bool {
        false
    }

    /// How soon its reader wants to know of what goes on.
    fn pace(&self) -> Pace {
        Pace::FOR_A_PERSON
    }

    /// A call that does not return for a while.
    fn asleep(&mut self, _: &Sleep, _: &mut Vec<u8>) {}

    /// What the recorder itself has to say.
    fn note(&mut self, note: &str, out: &mut Vec<u8>);

    /// What all calls come to.
    fn end(&mut self, totals: &Totals, out: &mut Vec<u8>);
}

/// A call that takes longer sleeps; a shorter sleep is nothing to see.
pub(crate) const SLEEP: u64 = 20_000_000;

/// Nanoseconds until somebody who looks on is told.
pub(crate) struct Pace {
    /// That a call sleeps within a round that repeats.
    pub nap: u64,
    /// How far a long round is.
    pub round: u64,
}

impl Pace {
    pub const FOR_A_PERSON: Pace =
        Pace { nap: 1_000_000_000, round: 1_000_000_000 };
    pub const FOR_A_PROGRAM: Pace = Pace { nap: SLEEP, round: 100_000_000 };
}

/// The server as it starts.
pub(crate) struct Start {
    pub name: String,
    pub pid: i32,
    pub listener: Fd,
    pub stop: Fd,
    pub at: u64,
}

/// Rounds of one thread that were only counted.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// The calls of the first of them.
    pub round: Vec<Call>,
    /// How many rounds.
    pub count: u64,
    pub t0: u64,
    pub t1: u64,
    /// The time within their calls.
    pub took: u64,
    /// Nanoseconds that their thread had been on a CPU when the call before
    /// the first of them returned, and when the last returned.
    pub cpu0: u64,
    pub cpu: u64,
}

impl Rounds {
    /// How many of their calls were made for nothing.
    pub fn wasted(&self) -> u64 {
        let wasted = self.round.iter().filter(|call| call.what.wasted());
        wasted.count() as u64 * self.count
    }
}

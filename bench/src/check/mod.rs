//! The conformance suite: each case is one promise of an echo server, and says
//! what it means and what was seen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::harness::{CoreShare, Server, Start, Target};
use crate::models::Limits;

mod blocked;
mod crowd;
mod files;
mod saboteur;
mod scarcity;
mod signals;
mod stop;
mod transfer;

/// One promise, and how it is tested.
pub struct Case {
    /// Its name on the command line and in tests.
    pub name: &'static str,
    /// One sentence: what it checks and why that matters.
    pub means: &'static str,
    /// Whether nothing else may run beside it: it measures latency, or memory
    /// that depends on how soon a server comes to run.
    pub alone: bool,
    /// The test: an error says what was seen instead.
    pub run: fn(&Context) -> Result<Outcome>,
}

/// How a case ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The promise held; what was seen.
    Passed(String),
    /// A tool or a privilege is missing here; which.
    Skipped(String),
    /// The target does not make this promise; the limit that says so.
    Excluded(String),
}

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A size that fits into `cargo test`.
    Quick,
    /// `check --full`.
    Full,
}

/// What a case is given.
pub struct Context {
    /// What is tested.
    pub target: Target,
    /// What it cannot do by its nature.
    pub limits: &'static Limits,
    /// How much is tried.
    pub tier: Tier,
    /// Where random numbers begin; printed, so that a run can be repeated.
    pub seed: u64,
    last_words: Arc<Mutex<Vec<String>>>,
}

impl Context {
    /// For one case on one target.
    pub fn new(target: Target, tier: Tier, seed: u64) -> Context {
        let limits = target.limits();
        let last_words = Arc::default();
        Context { target, limits, tier, seed, last_words }
    }

    /// The same with other limits than the target's own.
    pub fn with_limits(self, limits: &'static Limits) -> Context {
        Context { limits, ..self }
    }

    /// The first in the quick tier, the second in the full one.
    pub fn size<T>(&self, quick: T, full: T) -> T {
        match self.tier {
            Tier::Quick => quick,
            Tier::Full => full,
        }
    }

    /// Starts the target as usual.
    pub fn start(&self) -> Result<Server> {
        self.start_with(&Start::default())
    }

    /// Starts the target in a special way.
    pub fn start_with(&self, start: &Start) -> Result<Server> {
        let mut server = Server::start(&self.target, start)?;
        server.last_words_to(&self.last_words);
        Ok(server)
    }

    /// As many of `wanted` clients as the target serves at once.
    pub fn at_once(&self, wanted: usize) -> usize {
        self.limits.clients.map_or(wanted, |most| most.min(wanted))
    }

    /// Random numbers that the seed repeats.
    pub fn random(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }

    /// `Some(excluded)` when the case is about a command line of ours.
    pub fn excluded_unless_ours(&self) -> Option<Outcome> {
        (!self.target.is_ours()).then(|| {
            let why = "an external command has a command line of its own";
            Outcome::Excluded(why.to_string())
        })
    }
}

/// What was seen, as the outcome.
pub fn passed(seen: String) -> Result<Outcome> {
    Ok(Outcome::Passed(seen))
}

/// Measures that the server sleeps while `what`, or burns and wakes as its
/// row says; what was seen.
pub fn ensure_idle(
    context: &Context,
    server: &Server,
    what: &str,
) -> Result<String> {
    if context.limits.burns_core {
        return Ok("CPU time not looked at: busy by nature".to_string());
    }
    // A server that sleeps takes nothing, one that spins a core; one that
    // wakes now and then asks each of its sockets in every round.
    let most = if context.limits.idle_wakes { 0.7 } else { 0.1 };
    // What led here may still be under way, so the first look only counts
    // when it is good already.
    let span = context.size(Duration::from_millis(100), Duration::from_secs(1));
    // Beside others one that spins may get less than it wants.
    let spins = |it: &CoreShare| {
        it.used > most || (!context.limits.idle_wakes && it.wanted > 0.5)
    };
    let mut share = server.core_share(span);
    if spins(&share) {
        share = server.core_share(span * 3);
    }
    let share_text = format!("{:.1} % of a core", share.used * 100.0);
    ensure!(
        !spins(&share),
        "the server spins: {share_text} while {what}; at most {:.0} % is idle",
        most * 100.0
    );
    Ok(format!("{share_text} while {what}"))
}

/// Every case of the suite.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    CASES.iter().copied().flatten()
}

/// The table of tables.
pub static CASES: &[&[Case]] = &[
    transfer::CASES,
    blocked::CASES,
    crowd::CASES,
    scarcity::CASES,
    signals::CASES,
    files::CASES,
    stop::CASES,
];

/// Runs one case, alone if it has to be; a panic or the unexpected end of a
/// server is a failure that says so.
pub fn run(case: &Case, context: &Context) -> (Result<Outcome>, Duration) {
    static TOGETHER: RwLock<()> = RwLock::new(());
    let (_alone, _beside);
    if case.alone {
        _alone = TOGETHER.write().unwrap_or_else(PoisonError::into_inner);
    } else {
        _beside = TOGETHER.read().unwrap_or_else(PoisonError::into_inner);
    }
    let begin = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (case.run)(context)))
        .unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Err(anyhow!("panicked: {}", text.unwrap_or("without a message")))
        });
    let mut words =
        context.last_words.lock().unwrap_or_else(PoisonError::into_inner);
    let result = match (result, words.pop()) {
        (result, None) => result,
        (Ok(_), Some(word)) => Err(anyhow!(word)),
        (Err(error), Some(word)) => {
            Err(anyhow!("{word}; its client saw: {error:#}"))
        }
    };
    (result, begin.elapsed())
}

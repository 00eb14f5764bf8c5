//! A load generator that is no part of what it measures: it holds every byte
//! against what was sent, counts from when a message was due, and tells how
//! busy it was itself.

mod engine;
mod generator;
mod payload;
mod plan;
mod report;
mod sizes;
mod slow;
mod socket;
mod watched;

use anyhow::{Result, ensure};

pub use generator::{Generator, generate_if_asked};
pub use plan::{Plan, Span};
pub use report::{Latency, Measured, OpenLoop, Turn, Whole};
pub use sizes::Sizes;
pub use slow::SlowReaders;

use engine::Engine;

/// Loads the server as planned, on this thread.
///
/// # Errors
///
/// A server that does not echo, and a plan that cannot be carried out; one
/// line says which connection saw what.
pub fn run(plan: &Plan) -> Result<Measured> {
    run_telling(plan, |_, _| {})
}

/// The same; `tell` learns how many of how many connections stand, one after
/// the other.
///
/// # Errors
///
/// As above.
pub fn run_telling(
    plan: &Plan,
    mut tell: impl FnMut(usize, usize),
) -> Result<Measured> {
    connect(plan, &mut tell)?.run()
}

/// Start barrier: everybody is connected, and nothing has been sent.
fn connect<'a>(
    plan: &'a Plan,
    tell: &mut dyn FnMut(usize, usize),
) -> Result<Engine<'a>> {
    plan.check()?;
    if !plan.watched
        && let Some(pid) = watched::watched_server(plan.addr)
    {
        ensure!(
            false,
            "the server at {} (process {pid}) is being watched, which is what \
             would be measured: start it without watching, or say --watched",
            plan.addr
        );
    }
    crate::harness::raise_descriptor_limit();
    Engine::connect(plan, tell)
}

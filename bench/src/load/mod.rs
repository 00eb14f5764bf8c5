//! A load generator that is no part of what it measures: it holds every byte
//! against what was sent, counts from when a message was due, and tells how
//! busy it was itself.

mod engine;
mod payload;
mod plan;
mod report;
mod watched;

use anyhow::{Result, ensure};

pub use plan::Plan;
pub use report::{Latency, Measured, OpenLoop};

/// Loads the server as planned, on this thread.
///
/// # Errors
///
/// A server that does not echo, and a plan that cannot be carried out; one
/// line says which connection saw what.
pub fn run(plan: &Plan) -> Result<Measured> {
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
    engine::Engine::connect(plan)?.run()
}

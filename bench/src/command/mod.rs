//! What the program can be asked to do; each verb has a file.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, Result};
use bench::harness;
use nix::sys::signal::{SigSet, Signal};

pub mod check;
pub mod compare;
pub mod diff;
pub mod load;
pub mod plot;

/// Ctrl-C and SIGTERM end this program and every server it has started.
fn end_on_signal() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGHUP);
    // Before any other thread exists, so that all inherit it.
    signals.thread_block().context("sigmask")?;
    thread::Builder::new().spawn(move || {
        let signal = signals.wait().unwrap_or(Signal::SIGINT);
        harness::kill_all_and_exit(128 + signal as i32)
    })?;
    Ok(())
}

/// One line on what went wrong, and the exit code that goes with it.
fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    // Nothing is left to tell when this cannot be written either.
    let _lost = writeln!(io::stderr(), "bench: {error:#}");
    ExitCode::from(code)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

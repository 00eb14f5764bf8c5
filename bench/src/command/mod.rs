//! What the program can be asked to do; each verb has a file.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use crate::harness;
use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};

mod check;
mod compare;
mod diff;
mod load;
mod plot;

/// Checks, loads and compares echo servers.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs the conformance suite against a server.
    #[command(after_help = check::TEACHING)]
    Check(check::Check),
    /// Loads an echo server, holds every byte against what was sent, and
    /// measures.
    #[command(after_help = load::TEACHING)]
    Load(load::Load),
    /// Compares servers: the same loads, in turns, and what each took.
    #[command(after_help = compare::TEACHING)]
    Compare(compare::Compare),
    /// Shows a comparison that was saved, as tables or as a page.
    #[command(after_help = plot::TEACHING)]
    Plot(plot::Plot),
    /// Says what has changed beyond noise between two comparisons.
    #[command(after_help = diff::TEACHING)]
    Diff(diff::Diff),
}

/// Reads the command line and does what it asks.
pub fn main() -> ExitCode {
    let cli: Cli = echo::parse_or_end("bench");
    match cli.verb {
        Verb::Check(verb) => check::run(&verb),
        Verb::Load(verb) => load::run(&verb),
        Verb::Compare(verb) => compare::run(&verb),
        Verb::Plot(verb) => plot::run(&verb),
        Verb::Diff(verb) => diff::run(&verb),
    }
}

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

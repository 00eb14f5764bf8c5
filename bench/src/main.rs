//! What `bench --help` tells of: holds servers against the conformance suite,
//! loads them, and compares them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod command;

use command::{check, compare, diff, load, plot};

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

fn main() -> ExitCode {
    bench::serve_if_asked();
    match Cli::parse().verb {
        Verb::Check(verb) => check::run(&verb),
        Verb::Load(verb) => load::run(&verb),
        Verb::Compare(verb) => compare::run(&verb),
        Verb::Plot(verb) => plot::run(&verb),
        Verb::Diff(verb) => diff::run(&verb),
    }
}

//! What `bench --help` tells of: holds servers against the conformance suite,
//! loads them, and compares them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod command;

use command::{check, load};

/// Holds echo servers against what RFC 862 and good manners ask of them.
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
}

fn main() -> ExitCode {
    bench::serve_if_asked();
    match Cli::parse().verb {
        Verb::Check(verb) => check::run(&verb),
        Verb::Load(verb) => load::run(&verb),
    }
}

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What this model adds to the common command line.
#[derive(Args)]
pub struct Flags {
    /// How the server learns that an operation has ended
    #[arg(long, value_name = "HOW", default_value = "signal")]
    pub notify: Notify,
    /// Operations that may be in flight; further clients wait
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = operations)]
    pub operations: usize,
    /// Keep the spool in this file
    /// [default: an unlinked temporary file]
    #[arg(long, value_name = "PATH")]
    pub spool: Option<PathBuf>,
}

/// How the server learns that an operation has ended.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Notify {
    /// A real-time signal is queued, and read from a descriptor
    Signal,
    /// A thread is started, and writes to a pipe
    Thread,
    /// Not at all: the server waits for all of them in aio_suspend
    Suspend,
}

fn operations(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=4096) => Ok(n),
        _ => Err("expected a number of operations, 1 to 4096".to_owned()),
    }
}

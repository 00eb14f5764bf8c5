//! `bench diff`: two comparisons that were saved, against each other.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::report;
use anyhow::Result;
use clap::Args;

use super::{failed, is_broken_pipe};

pub const TEACHING: &str = "\
CPU time a message is compared relative to the baseline of the same run, so \
that a machine which was faster that day does not matter; where there is no \
baseline, as it is, and the line says so. A change is beyond noise when the \
intervals of the two runs do not overlap. Among many comparisons some are so \
by chance: it says how many were made, and about how many of them that is. \
Memory and system calls have no interval; they are told of from 5 % on.

Where the machines or the methods differ, it says in what, and that nothing \
can then be laid to a server.

Try:
  bench compare busy --json old.json      measure
  ...                                     change a server
  bench compare busy --json new.json      measure again
  bench diff old.json new.json            what is beyond noise
  bench diff old.json new.json --json     for a program

Exit code: 0 whatever has changed, 2 for a file that cannot be read, or a \
usage error.";

#[derive(Args)]
pub struct Diff {
    /// What `bench compare --json` has saved before.
    #[arg(value_name = "OLD.json")]
    old: PathBuf,
    /// What it has saved since.
    #[arg(value_name = "NEW.json")]
    new: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub fn run(diff: &Diff) -> ExitCode {
    match try_run(diff) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 2),
    }
}

fn try_run(diff: &Diff) -> Result<()> {
    let (old, new) = (report::read(&diff.old)?, report::read(&diff.new)?);
    let found = report::diff(&old, &new);
    let text = match diff.json {
        true => serde_json::to_string(&found)? + "\n",
        false => found.to_string(),
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

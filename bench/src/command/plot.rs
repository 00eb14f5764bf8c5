//! `bench plot`: a comparison that was saved, shown again.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::report;
use anyhow::{Context as _, Result};
use clap::Args;
use console::Term;

use super::{failed, is_broken_pipe};

pub const TEACHING: &str = "\
The page is one file that needs no network: charts, the numbers below each, \
the machine, and the comparison itself. It is the same, byte for byte, as what \
`bench compare --html` wrote when it measured.

Try:
  bench compare busy --quick --json busy.json    measure, and save
  bench plot busy.json                           the tables, in the terminal
  bench plot busy.json --html busy.html          the page, for a browser
  NO_COLOR=1 bench plot busy.json                without colours

Exit code: 0 when it was shown, 2 for a file that cannot be read or written, \
or a usage error.";

#[derive(Args)]
pub struct Plot {
    /// What `bench compare --json` has saved.
    #[arg(value_name = "FILE.json")]
    file: PathBuf,
    /// Write a page for a browser instead of tables.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub fn run(plot: &Plot) -> ExitCode {
    match try_run(plot) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 2),
    }
}

fn try_run(plot: &Plot) -> Result<()> {
    let comparison = report::read(&plot.file)?;
    if let Some(path) = &plot.html {
        let page = report::page(&comparison)?;
        let name = || path.display().to_string();
        return fs::write(path, page).with_context(name);
    }
    let term = Term::stdout().size_checked();
    let width = term.map_or(100, |(_, columns)| usize::from(columns));
    let colour = console::colors_enabled();
    let table = report::table(&comparison, colour, width);
    Ok(io::stdout().write_all(table.as_bytes())?)
}

//! The command line.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench::models;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::parts::{Runs, numbers};
use crate::serve::Site;
use crate::{basics, book, parts, source};

/// The book of this workspace: how Linux servers wait for their clients.
#[derive(Parser)]
#[command(name = "docs", version, max_term_width = 80)]
#[command(after_help = TEACHING)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Where to build it [default: target/book]
    #[arg(long, value_name = "FOLDER", global = true)]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the book and open it in the browser; Ctrl-C ends it
    Serve {
        /// Where to listen; port 0 takes any free port
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
        addr: SocketAddr,
        /// Only say where it is, and open no browser
        #[arg(long)]
        no_open: bool,
    },
    /// Write anew what is generated in README and book where it is stale:
    /// excerpts, diffs, tables, and runs that now show something else
    Refresh {
        /// Only these files, such as docs/book/poll_server.md
        #[arg(value_name = "FILE")]
        files: Vec<String>,
        /// Also runs that only differ in their times
        #[arg(long)]
        all: bool,
    },
    /// Measure the prices of system calls, switches and threads on this
    /// machine, and save them beside the book; best with nothing else running
    Measure,
}

const TEACHING: &str = "\
Without a command it builds the book and says where it is.

  cargo run -p docs                 build it
  cargo run -p docs -- serve        read it
  cargo run -p docs -- refresh      after a server or a table has changed

Exit code: 0, or 1 for a failure, 2 for a usage error.";

/// Becomes what this program is started as by itself; otherwise returns.
/// `serve` alone opens the book, and with a model's name is that server.
pub fn serve_if_asked() {
    let mut args = std::env::args().skip(1);
    let opens_the_book = args.next().is_some_and(|verb| verb == "serve")
        && args.next().is_none_or(|name| models::find(&name).is_none());
    if !opens_the_book {
        bench::serve_if_asked();
    }
}

/// Reads the command line and does what it asks.
pub fn main() -> ExitCode {
    let cli: Cli = echo::parse_or_end("docs");
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell when this cannot be written either.
            let _lost = writeln!(io::stderr(), "docs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let out = cli.out.as_deref();
    match &cli.verb {
        None => say(&format!("the book: {}", book::build(out)?.display())),
        Some(Verb::Serve { addr, no_open }) => serve(out, *addr, !no_open),
        Some(Verb::Refresh { files, all }) => refresh(files, *all),
        Some(Verb::Measure) => measure(),
    }
}

fn serve(out: Option<&Path>, addr: SocketAddr, open: bool) -> Result<()> {
    let index = book::build(out)?;
    let site = Site::listen(addr, index.parent().context("its folder")?)?;
    say(&format!("the book: {}  (Ctrl-C ends this)", site.url()?))?;
    if open && let Err(error) = opener::open_browser(site.url()?) {
        say(&format!("open it in a browser yourself: {error}"))?;
    }
    site.run();
    Ok(())
}

fn refresh(files: &[String], all: bool) -> Result<()> {
    let files = match files {
        [] => parts::files()?,
        files => files.to_vec(),
    };
    let runs = if all { Runs::All } else { Runs::Stale };
    let style = "{bar:20} {pos} of {len}: {msg}";
    let bar = ProgressBar::new(files.len() as u64);
    bar.set_style(ProgressStyle::with_template(style)?);
    let changed = parts::refresh(&files, runs, |path| {
        bar.set_message(path.to_owned());
        bar.inc(1);
    });
    bar.finish_and_clear();
    for path in changed? {
        say(&format!("refreshed {path}"))?;
    }
    Ok(())
}

fn measure() -> Result<()> {
    let basics = basics::measure()?;
    let path = source::root().join(numbers::BASICS);
    fs::write(&path, serde_json::to_string_pretty(&basics)? + "\n")?;
    say(&basics::table(&basics))
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

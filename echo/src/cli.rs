use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::Server;

/// The command line that all servers share; a server adds `Flags` of its own.
#[derive(Parser)]
pub(crate) struct CommandLine<F: Args> {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten, next_help_heading = "This model")]
    pub flags: F,
}

#[derive(Args)]
pub(crate) struct Common {
    /// Where to listen; port 0 takes any free port
    #[arg(long, default_value = "127.0.0.1:7007", value_parser = address)]
    pub addr: SocketAddr,

    /// Show every system call of the model; auto: if stderr is a terminal
    #[arg(long, default_value = "auto", value_name = "HOW")]
    pub watch: How,

    /// Write what is watched to this file instead of stderr
    #[arg(long, value_name = "PATH")]
    pub watch_file: Option<PathBuf>,

    /// Stop recording after so many bytes; the server goes on
    #[arg(long, value_name = "BYTES", default_value = "64MiB",
          value_parser = size)]
    pub watch_limit: u64,

    /// Show every round, even one that repeats the last
    #[arg(long)]
    pub watch_every: bool,

    /// Say also who sleeps, and how far a round is, as on a terminal
    #[arg(long)]
    pub watch_live: bool,

    /// Clients that may wait in the accept queue; the kernel caps it
    #[arg(long, value_name = "N", default_value_t = 4096,
          value_parser = clap::value_parser!(i32).range(0..))]
    pub backlog: i32,

    /// Leave further clients in the accept queue while there are so many
    /// [default: no limit]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_connections: Option<usize>,

    /// The most that one read takes, and a connection may be owed
    #[arg(long, value_name = "BYTES", default_value = "16KiB",
          value_parser = buffer)]
    pub buffer: usize,

    /// How long a stop waits for clients to take what they are owed
    #[arg(long, value_name = "DURATION", default_value = "1s",
          value_parser = duration)]
    pub grace: Duration,
}

/// What `--watch` may be.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    Auto,
    Off,
    Text,
    Json,
}

/// A server has no flags of its own.
#[derive(Args)]
pub struct NoFlags {}

/// Reads the command line, or ends the process as its user expects: `--help`
/// with 0, an error with one line and 2.
pub(crate) fn parse<S: Server>(
    args: impl Iterator<Item = std::ffi::OsString>,
) -> CommandLine<S::Flags> {
    let command = CommandLine::<S::Flags>::command()
        .name(S::NAME)
        .about(S::ABOUT)
        .after_help(S::HELP)
        .max_term_width(80);
    let parsed = command
        .try_get_matches_from(args)
        .and_then(|found| CommandLine::<S::Flags>::from_arg_matches(&found));
    parsed.unwrap_or_else(|err| {
        if !err.use_stderr() {
            err.exit();
        }
        usage(S::NAME, &in_one_line(&err))
    })
}

/// What is wrong with which argument: clap explains over several lines, of
/// which the first paragraph says it.
fn in_one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    let line = words.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// Reads a command line that has no server's flags, or ends the process as its
/// user expects: `--help` with 0, an error with one line and 2.
pub fn parse_or_end<P: Parser>(name: &str) -> P {
    P::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        usage(name, &in_one_line(&error))
    })
}

/// Ends the process because its command line is wrong.
pub(crate) fn usage(name: &str, why: &str) -> ! {
    eprint_line(&format!("{name}: {why}; see --help"));
    std::process::exit(2)
}

/// Reads a duration such as `1s` or `250us`, of a day at most.
pub fn duration(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 60 * 60);
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= day => Ok(duration),
        Ok(_) => Err("expected a day at most".to_owned()),
        Err(err) => Err(format!("{err}; expected such as 1s or 250us")),
    }
}

/// Prints to stderr; a closed one is no reason to end.
pub(crate) fn eprint_line(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Reads an address such as `127.0.0.1:7007`; a name is looked up.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|err| {
        format!("{err}; expected HOST:PORT, such as 127.0.0.1:7007 or [::1]:0")
    })?;
    found.into_iter().next().ok_or_else(|| "no such host".to_owned())
}

/// Reads a number of bytes such as `64MiB`.
pub fn size(text: &str) -> Result<u64, String> {
    let size: Result<ByteSize, _> = text.parse();
    Ok(size.map_err(|err| format!("{err}; expected such as 64MiB"))?.as_u64())
}

fn buffer(text: &str) -> Result<usize, String> {
    match size(text)? {
        bytes @ 1..=0x4000_0000 => Ok(bytes as usize),
        _ => Err("expected 1 byte to 1 GiB".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(err) => Err(err.to_string()),
    }
}

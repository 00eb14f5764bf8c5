//! A real service on the library of the reactor: HTTP/1.1, which serves the
//! files of a folder and a few resources of its own. `connection.rs` is the
//! handler; what it does not do with descriptors stands in the other files.
#![forbid(unsafe_code)]

mod answer;
mod connection;
mod files;
mod request;
mod routes;
mod service;

use std::fmt::Display;
use std::io::{Write, stderr, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use echo::{Stop, StopFd, Unwatched};
use reactor::{Reactor, Stopper, best};

use connection::Connection;
use service::{Limits, Service};

const NAME: &str = "http_service";

/// Serves a folder over HTTP/1.1 from one reactor: every client in one thread
#[derive(Parser)]
#[command(name = NAME, max_term_width = 80, after_help = HELP)]
struct CommandLine {
    /// Where to listen; port 0 takes any free port
    #[arg(long, default_value = "127.0.0.1:8080", value_parser = echo::address)]
    addr: SocketAddr,

    /// The folder whose files are served, and nothing outside of it
    #[arg(long, value_name = "DIR")]
    root: PathBuf,

    /// Close clients that ask nothing, or take nothing, for so long
    #[arg(long, default_value = "60s", value_name = "DURATION",
          value_parser = echo::duration)]
    idle_timeout: Duration,

    /// A request must have come as a whole so long after its first byte
    #[arg(long, default_value = "20s", value_name = "DURATION",
          value_parser = echo::duration)]
    request_timeout: Duration,

    /// The longest body of a request; memory holds it until it is answered
    #[arg(long, default_value = "1MiB", value_name = "BYTES",
          value_parser = echo::size)]
    max_body: u64,

    /// The longest head of a request; its first line may have half of it
    #[arg(long, default_value = "16KiB", value_name = "BYTES",
          value_parser = head)]
    max_head: usize,

    /// How long a stop waits for answers that are under way
    #[arg(long, default_value = "5s", value_name = "DURATION",
          value_parser = echo::duration)]
    grace: Duration,
}

const HELP: &str = "\
Besides the files:
  POST /echo         answers with the body of the request
  GET /sleep?ms=250  answers after a while, and nobody else waits for it
  GET /stats         what the reactor has done so far, as JSON

Try:
  http_service --root docs
  curl -i http://127.0.0.1:8080/stats";

/// The whole life of the service, by its command line.
pub fn main() -> ExitCode {
    match run(echo::parse_or_end(NAME)) {
        Ok(summary) => {
            say(summary);
            ExitCode::SUCCESS
        }
        Err(err) => {
            say(format!("{err:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(line: CommandLine) -> Result<String> {
    let root = files::open_root(&line.root)?;
    let limits = Limits {
        idle: line.idle_timeout,
        request: line.request_timeout,
        max_body: line.max_body,
        max_head: line.max_head,
    };
    let service = Rc::new(Service::new(root, limits));
    let stop = StopFd::install(line.grace)?;
    let mut reactor = Reactor::new(best(Unwatched), 0);
    let make = {
        let service = Rc::clone(&service);
        move |socket| Connection::new(socket, Rc::clone(&service))
    };
    let addr = reactor.listen_tcp(line.addr, make)?;
    reactor.attach(Stopper(stop))?;
    if !addr.ip().is_loopback() {
        say(format!(
            "warning: {addr} is open to other machines, and so is {}",
            line.root.display()
        ));
    }
    // A closed stdout does not end a server: whoever started it may have read
    // all it wanted.
    let _ = writeln!(stdout(), "listening on {addr}");
    let _ = stdout().flush();
    reactor.run()?;
    let (clients, requests) = (reactor.counters().opened, service.requests());
    Ok(format!("stopped: {clients} connections, {requests} requests"))
}

/// Tells the person who started it, in one line; a closed stderr is no reason
/// to end.
fn say(line: impl Display) {
    let _ = writeln!(stderr(), "{NAME}: {line}");
}

fn head(text: &str) -> Result<usize, String> {
    match echo::size(text)? {
        bytes @ 1024..=0x10_0000 => Ok(bytes as usize),
        _ => Err("expected 1KiB to 1MiB".to_owned()),
    }
}

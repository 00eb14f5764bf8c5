//! `bench load`: any echo server under load, and what it took.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bench::load::{self, Plan};
use bytesize::ByteSize;
use clap::Args;

use super::failed;

pub const TEACHING: &str = "\
Without --rate each connection has --depth messages outstanding (closed loop): \
that shows what the server can do. With --rate messages are due by the clock, \
and their latency counts from then, also when they could not be sent in time \
(open loop): that shows what clients see at that load.

Try:
  bench load 127.0.0.1:7000                      50 connections, 64 B
  bench load 127.0.0.1:7000 --depth 16 --size 1KiB
  bench load 127.0.0.1:7000 --rate 20000         latency that clients see
  bench load 127.0.0.1:7000 --idle 10000         what idle ones cost
  bench load 127.0.0.1:7000 --churn 500          clients that come and go

Exit code: 0 when every byte was right, 1 when the server was not, 2 for a \
usage error.";

#[derive(Args)]
pub struct Load {
    /// Where the server listens.
    #[arg(value_name = "ADDR")]
    addr: SocketAddr,
    /// How many connections send messages.
    #[arg(long, value_name = "N", default_value = "50")]
    connections: NonZeroUsize,
    /// How many more only stay open.
    #[arg(long, value_name = "N", default_value = "0")]
    idle: usize,
    /// Bytes in a message (64, 1KiB, ...).
    #[arg(long, default_value = "64", value_parser = parse_size)]
    size: NonZeroUsize,
    /// Closed loop: messages outstanding on each connection.
    #[arg(long, value_name = "N", default_value = "1")]
    depth: NonZeroUsize,
    /// Open loop: messages a second, over all connections.
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "depth")]
    rate: Option<f64>,
    /// How long it is measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long it runs before that.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Connections a second that are closed and opened anew.
    #[arg(long, value_name = "PER_SECOND")]
    churn: Option<f64>,
    /// How long a connection may stay without a byte that it is owed.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Also load a server that is being watched.
    #[arg(long)]
    watched: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn parse_size(text: &str) -> Result<NonZeroUsize, String> {
    let size: ByteSize = text.parse()?;
    let size = usize::try_from(size.as_u64()).map_err(|it| it.to_string())?;
    NonZeroUsize::new(size).ok_or("a message has a byte at least".to_string())
}

impl Load {
    fn plan(&self) -> Plan {
        Plan {
            addr: self.addr,
            connections: self.connections,
            idle: self.idle,
            size: self.size,
            depth: self.depth,
            rate: self.rate,
            duration: self.duration,
            warm_up: self.warm_up,
            churn: self.churn,
            patience: self.patience,
            watched: self.watched,
        }
    }
}

pub fn run(load: &Load) -> ExitCode {
    let plan = load.plan();
    if let Err(error) = plan.check() {
        return failed(&error, 2);
    }
    let report = load::run(&plan).and_then(|measured| {
        let text = match load.json {
            true => serde_json::to_string(&measured)?,
            false => measured.to_string(),
        };
        Ok(writeln!(io::stdout(), "{text}")?)
    });
    match report {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 1),
    }
}

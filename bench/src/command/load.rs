//! `bench load`: any echo server under load, and what it took.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::load::{self, Measured, Plan, Sizes};
use anyhow::Result;
use bytesize::ByteSize;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::failed;

pub const TEACHING: &str = "\
Without --rate each connection has --depth messages outstanding (closed loop): \
that shows what the server can do. With --rate messages are due by the clock, \
and their latency counts from then, also when they could not be sent in time \
(open loop): that shows what clients see at that load.

Try:
  bench load 127.0.0.1:7000                      50 connections, 64 B
  bench load 127.0.0.1:7000 --depth 16 --size 1KiB
  bench load 127.0.0.1:7000 --size 64:90,4KiB:9,64KiB:1
                                                 90 in 100 of 64 B, 9 of 4 KiB
  bench load 127.0.0.1:7000 --rate 20000         latency that clients see
  bench load 127.0.0.1:7000 --idle 10000         what idle ones cost
  bench load 127.0.0.1:7000 --churn 500          clients that come and go
  bench load 127.0.0.1:7000 --messages-per-connection 1
                                                 connect, one echo, close
  bench load 127.0.0.1:7000 --slow-readers 10    what those cost who send on
                                                 and read 1 KiB a second
  bench load 127.0.0.1:7000 --slow-readers 10 --slow-rate 1MiB

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
    /// How many of the connections send messages that begin with `!`, as the
    /// others' never do; latency is that of the others.
    #[arg(long, value_name = "N", default_value = "0")]
    loud: usize,
    /// Bytes in a message (64, 1KiB, ...), or several sizes, each with how
    /// often it comes (64:90,4KiB:9,64KiB:1).
    #[arg(long, default_value = "64")]
    size: Sizes,
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
    /// Close each connection after so many messages, and open it anew at once.
    #[arg(long, value_name = "N", conflicts_with = "churn")]
    messages_per_connection: Option<NonZeroU64>,
    /// How many connections more send as much as the kernel takes, and read
    /// slowly.
    #[arg(long, value_name = "N", default_value = "0")]
    slow_readers: usize,
    /// Bytes a second that each of these reads.
    #[arg(long, value_name = "BYTES_PER_S", default_value = "1KiB", value_parser = parse_rate)]
    slow_rate: NonZeroU64,
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

fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    let rate: ByteSize = text.parse()?;
    let none = "who reads nothing is not slow: a byte a second at least";
    NonZeroU64::new(rate.as_u64()).ok_or(none.to_string())
}

impl Load {
    fn plan(&self) -> Plan {
        Plan {
            addr: self.addr,
            connections: self.connections,
            idle: self.idle,
            loud: self.loud,
            size: self.size.clone(),
            depth: self.depth,
            rate: self.rate,
            duration: self.duration,
            warm_up: self.warm_up,
            churn: self.churn,
            messages_per_connection: self.messages_per_connection,
            slow_readers: self.slow_readers,
            slow_rate: self.slow_rate,
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
    let report = measure(&plan).and_then(|measured| {
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

/// With a bar while connecting, where that takes long and somebody looks.
fn measure(plan: &Plan) -> Result<Measured> {
    let (begin, mut shown) = (Instant::now(), false);
    let style = ProgressStyle::with_template("connecting {bar:40} {pos}/{len}");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        .with_style(style?);
    let measured = load::run_telling(plan, |connected, all| {
        if !shown && begin.elapsed() > Duration::from_secs(1) {
            shown = true;
            // It stays hidden where there is no terminal.
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.set_length(all as u64);
        bar.set_position(connected as u64);
        if connected == all {
            bar.finish_and_clear();
        }
    });
    // It may have stopped half-way.
    bar.finish_and_clear();
    measured
}

//! What the ways to accept cost, and how evenly they spread clients over
//! workers: `cargo run --release --bin accept_modes`.

mod common;

use std::io::{Read, Write, stdout};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use common::{PATIENCE, Server, field, progress, sockets};

/// Wake-ups and spread of each way to accept, for several numbers of workers.
#[derive(Parser)]
struct Args {
    /// How many connections each server gets
    #[arg(long, value_name = "N", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(64..=8_000))]
    connections: u32,

    /// Fewer connections, and two workers only
    #[arg(long)]
    quick: bool,

    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

const MODES: [&str; 5] =
    ["shared", "exclusive", "mutex", "reuseport", "passed"];

/// How clients come: so many at the same moment.
const ARRIVALS: [(&str, usize); 2] = [("one by one", 1), ("64 at once", 64)];

/// How long an idle server is looked at.
const IDLE: Duration = Duration::from_millis(300);

/// What was seen of one server.
struct Row {
    workers: usize,
    mode: &'static str,
    arrivals: &'static str,
    /// For each connection: how often a worker, or the master, woke up.
    wakes: f64,
    /// For each connection: how many accepts found nobody.
    useless: f64,
    /// Of all connections: the parts of the workers, in ascending order.
    shares: Vec<f64>,
}

fn main() -> ExitCode {
    if let Some(code) = common::serve_if_asked() {
        return code;
    }
    let args = echo::parse_or_end::<Args>("accept_modes");
    common::end("accept_modes", measure(&args))
}

fn measure(args: &Args) -> Result<()> {
    let (workers, connections): (&[usize], _) = match args.quick {
        true => (&[2], 256),
        false => (&[2, 4, 8], args.connections as usize),
    };
    let all = workers.len() * MODES.len() * ARRIVALS.len();
    let mut rows = Vec::new();
    for &workers in workers {
        for mode in MODES {
            for (arrivals, at_once) in ARRIVALS {
                let done = rows.len();
                progress(&format!(
                    "{done} of {all}: {mode}, {workers} workers"
                ));
                let row = one(workers, mode, arrivals, at_once, connections);
                rows.push(row.with_context(|| {
                    format!("{mode}, {workers} workers, {arrivals}")
                })?);
            }
        }
    }
    progress("");
    let text = match args.json {
        true => json(connections, &rows),
        false => table(connections, &rows),
    };
    // A reader may have seen enough.
    let _ = stdout().write_all(text.as_bytes());
    Ok(())
}

fn one(
    workers: usize,
    mode: &'static str,
    arrivals: &'static str,
    at_once: usize,
    connections: usize,
) -> Result<Row> {
    let server = Server::start(mode, workers)?;
    let mut pids = server.workers()?;
    let own: Vec<usize> =
        pids.iter().map(|it| sockets(*it)).collect::<Result<_>>()?;
    let crew = pids.clone();
    pids.push(server.child.id() as i32);
    // Timers wake some of them although nobody comes.
    sleep(Duration::from_millis(50));
    let (before, begin) = (wakes(&pids)?, Instant::now());
    sleep(IDLE);
    let idle = (wakes(&pids)? - before) as f64 / begin.elapsed().as_secs_f64();

    let (before, begin) = (wakes(&pids)?, Instant::now());
    let mut clients = Vec::with_capacity(connections);
    while clients.len() < connections {
        let count = at_once.min(connections - clients.len());
        let group = (0..count).map(|_| client(server.addr));
        let group: Vec<TcpStream> = group.collect::<Result<_>>()?;
        group.iter().try_for_each(round_trip)?;
        clients.extend(group);
    }
    let took = begin.elapsed().as_secs_f64();
    let woken = (wakes(&pids)? - before) as f64 - idle * took;
    let mut shares = Vec::new();
    for (pid, own) in crew.iter().zip(own) {
        // The reactor may have closed its copies of others' sockets since.
        let clients = sockets(*pid)?.saturating_sub(own);
        shares.push(clients as f64 / connections as f64);
    }
    shares.sort_by(f64::total_cmp);
    drop(clients);
    let said = server.stop()?;
    let served = format!("stopped; {connections} connections");
    ensure!(said.contains(&served), "it said: {said}");
    let useless = said.split(", ").find_map(|part| {
        part.split_once(" call").and_then(|(n, _)| n.parse::<f64>().ok())
    });
    Ok(Row {
        workers,
        mode,
        arrivals,
        wakes: (woken / connections as f64).max(0.0),
        useless: useless.unwrap_or(0.0) / connections as f64,
        shares,
    })
}

/// How often these have slept, all together.
fn wakes(pids: &[i32]) -> Result<u64> {
    let of = |pid: &i32| {
        let path = format!("/proc/{pid}/status");
        field(&path, "voluntary_ctxt_switches:")
    };
    pids.iter().map(of).sum()
}

fn client(addr: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&addr, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Who has been answered has been accepted.
fn round_trip(mut socket: &TcpStream) -> Result<()> {
    socket.write_all(b"?")?;
    let mut echoed = [0];
    socket.read_exact(&mut echoed).context("no answer")?;
    ensure!(echoed == *b"?", "another answer: {echoed:?}");
    Ok(())
}

fn table(connections: usize, rows: &[Row]) -> String {
    let mut text = format!(
        "{connections} connections, each held, and one message on each. Two \
         wake-ups are enough\nfor each, to accept and to echo; or one for \
         both, or for several. Useless: accepts\nthat found nobody (EAGAIN); \
         most who wake up in vain go back to sleep within\nepoll_wait, which \
         looks once more itself.\n\n\
         workers  accept     arrivals    wake-ups  useless  \
         least  median   most\n"
    );
    for row in rows {
        let (least, median, most) = row.spread();
        text.push_str(&format!(
            "{:>7}  {:<9}  {:<10}  {:>8.2}  {:>7.2}  {:>4.0} %  {:>4.0} %  \
             {:>3.0} %\n",
            row.workers,
            row.mode,
            row.arrivals,
            row.wakes,
            row.useless,
            least * 100.0,
            median * 100.0,
            most * 100.0
        ));
    }
    text
}

/// All names are plain words, so that none needs an escape.
fn json(connections: usize, rows: &[Row]) -> String {
    let rows = rows.iter().map(|row| {
        let (least, median, most) = row.spread();
        format!(
            "    {{\"workers\": {}, \"accept\": \"{}\", \"arrivals\": \"{}\", \
             \"wakes_per_connection\": {:.4}, \
             \"useless_accepts_per_connection\": {:.4}, \
             \"least_share\": {least:.4}, \"median_share\": {median:.4}, \
             \"most_share\": {most:.4}}}",
            row.workers, row.mode, row.arrivals, row.wakes, row.useless
        )
    });
    let rows: Vec<String> = rows.collect();
    format!(
        "{{\n  \"connections\": {connections},\n  \"rows\": [\n{}\n  ]\n}}\n",
        rows.join(",\n")
    )
}

impl Row {
    /// The least, the median and the most of all connections that a worker
    /// has.
    fn spread(&self) -> (f64, f64, f64) {
        let (count, at) = (self.shares.len(), |at: usize| self.shares[at]);
        let median = (at((count - 1) / 2) + at(count / 2)) / 2.0;
        (at(0), median, at(count - 1))
    }
}

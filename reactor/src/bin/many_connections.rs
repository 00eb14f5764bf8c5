//! 100,000 connections that say nothing, and what they cost:
//! `cargo run --release --bin many_connections`.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use common::{Server, field, itself, progress, sockets};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect,
    recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Holds many idle connections, sends something on a few of them, and reports
/// the memory of both.
#[derive(Parser)]
struct Args {
    /// How many connections
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    connections: u32,

    /// Workers of the server
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,

    /// How the server accepts
    #[arg(long, value_name = "HOW", default_value = "exclusive",
          value_parser = ["shared", "exclusive", "mutex", "reuseport",
                          "passed"])]
    accept: String,

    /// 2,000 connections only
    #[arg(long)]
    quick: bool,

    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Connections from one source address: beyond, the kernel is slow to find a
/// free port among the 28,232 that it gives out (ip(7)).
const PER_SOURCE: usize = 5_000;

/// Connections on which something is sent.
const SAMPLE: usize = 1_000;

/// What a connection may take of memory, both of its ends, in bytes.
const COST: u64 = 12 << 10;

/// Descriptors that a process needs for itself.
const OWN: u64 = 64;

fn main() -> ExitCode {
    if let Some(code) = common::serve_if_asked() {
        return code;
    }
    let words: Vec<String> = std::env::args().collect();
    let result = match words.get(1).map(String::as_str) {
        Some("hold") => hold(&words[2..]),
        _ => measure(&echo::parse_or_end::<Args>("many_connections")),
    };
    common::end("many_connections", result)
}

/// What was seen.
struct Seen {
    connections: usize,
    opened_in: Duration,
    echoed_in: Duration,
    /// Bytes of user memory of all workers: their own, and their part of what
    /// they share.
    private: u64,
    pss: u64,
    /// What the kernel's tables, and its buffers of TCP, grew by.
    slab: u64,
    buffers: u64,
    shares: Vec<usize>,
}

fn measure(args: &Args) -> Result<()> {
    let connections = match args.quick {
        true => 2_000,
        false => args.connections as usize,
    };
    let descriptors = raise_descriptor_limit()?;
    let workers = args.workers as usize;
    ensure_there_is_room(connections, workers, descriptors)?;
    let server = Server::start(&args.accept, workers)?;
    let pids = server.workers()?;
    let own: Vec<usize> =
        pids.iter().map(|it| sockets(*it)).collect::<Result<_>>()?;
    let sum = |name: &str| -> Result<u64> {
        let of = |it: &i32| field(&format!("/proc/{it}/smaps_rollup"), name);
        Ok(pids.iter().map(of).sum::<Result<u64>>()? << 10)
    };
    let private = || -> Result<u64> {
        Ok(sum("Private_Clean:")? + sum("Private_Dirty:")?)
    };
    let before = (private()?, sum("Pss:")?, Kernel::now()?);

    let each = (descriptors - OWN).min(2 * PER_SOURCE as u64) as usize;
    let begin = Instant::now();
    let mut holders = Vec::new();
    let mut left = connections;
    let mut source = 0;
    while left > 0 {
        let count = each.min(left);
        holders.push(Holder::start(&server, source, count)?);
        source += count.div_ceil(PER_SOURCE);
        left -= count;
    }
    let mut held = 0;
    for holder in &mut holders {
        progress(&format!("{held} of {connections} connections"));
        held += holder.answers("connected")?;
    }
    ensure!(held == connections, "{held} of {connections} are connected");
    // The last may still be in an accept queue.
    let mut shares = Vec::new();
    while shares.iter().sum::<usize>() < connections {
        ensure!(begin.elapsed() < PATIENCE, "only {shares:?} were accepted");
        shares.clear();
        for (pid, own) in pids.iter().zip(&own) {
            shares.push(sockets(*pid)?.saturating_sub(*own));
        }
    }
    let opened_in = begin.elapsed();
    let after = (private()?, sum("Pss:")?, Kernel::now()?);

    progress("an echo on a sample of them");
    let begin = Instant::now();
    let mut echoed = 0;
    for holder in &mut holders {
        let part = (SAMPLE * holder.count).div_ceil(connections);
        holder.tell(&part.to_string())?;
        echoed += holder.answers("echoed")?;
    }
    let echoed_in = begin.elapsed();
    let expected = SAMPLE.min(connections);
    ensure!(echoed >= expected, "{echoed} of {expected} were echoed");
    progress("");
    drop(holders);
    server.stop()?;

    shares.sort_unstable();
    let grown = |after: u64, before: u64| after.saturating_sub(before);
    let (kernel, was) = (after.2, before.2);
    report(
        args.json,
        &Seen {
            connections,
            opened_in,
            echoed_in,
            private: grown(after.0, before.0),
            pss: grown(after.1, before.1),
            slab: grown(kernel.slab, was.slab),
            buffers: grown(kernel.buffers, was.buffers),
            shares,
        },
    );
    Ok(())
}

/// How long the opening of all may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// As many descriptors as this process may have, and those it starts.
fn raise_descriptor_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

fn ensure_there_is_room(
    connections: usize,
    workers: usize,
    descriptors: u64,
) -> Result<()> {
    let needed = connections as u64 * COST;
    let available = field("/proc/meminfo", "MemAvailable:")? << 10;
    ensure!(
        available > needed + needed / 4,
        "{connections} connections take about {} MiB, and {} MiB are \
         available; choose fewer --connections",
        needed >> 20,
        available >> 20
    );
    // Not all workers get the same.
    let room = descriptors.saturating_sub(OWN) * workers as u64;
    ensure!(
        room >= connections as u64 + connections as u64 / 8,
        "{workers} workers of {descriptors} descriptors have no room for \
         {connections} connections; choose more --workers"
    );
    let allowed = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let ports: Vec<usize> =
        allowed.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    ensure!(
        ports.len() == 2 && ports[1] - ports[0] > PER_SOURCE,
        "net.ipv4.ip_local_port_range has not {PER_SOURCE} ports"
    );
    Ok(())
}

/// What the kernel says of its own memory, in bytes.
struct Kernel {
    slab: u64,
    buffers: u64,
}

impl Kernel {
    fn now() -> Result<Self> {
        let slab = field("/proc/meminfo", "Slab:")? << 10;
        // TCP: inuse 5 orphan 0 tw 0 alloc 6 mem 1
        let text = fs::read_to_string("/proc/net/sockstat")?;
        let tcp = text.lines().find(|line| line.starts_with("TCP:"));
        let pages = tcp.and_then(|line| line.rsplit(' ').next());
        let pages: u64 = pages.context("no TCP memory")?.parse()?;
        Ok(Kernel { slab, buffers: pages * 4096 })
    }
}

/// A process that holds connections.
struct Holder {
    child: Child,
    count: usize,
    tells: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Holder {
    fn start(server: &Server, source: usize, count: usize) -> Result<Self> {
        let mut child = itself()
            .args(["hold", &server.addr.to_string()])
            .args([source.to_string(), count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a client process")?;
        let tells = child.stdin.take();
        let answers = child.stdout.take().context("it has a stdout")?;
        Ok(Holder { child, count, tells, answers: BufReader::new(answers) })
    }

    fn tell(&mut self, word: &str) -> Result<()> {
        let tells = self.tells.as_mut().context("it has a stdin")?;
        writeln!(tells, "{word}").context("a client process has ended")
    }

    /// Waits until it says that so many are done.
    fn answers(&mut self, word: &str) -> Result<usize> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let count = line.trim().strip_prefix(word);
        let count = count.and_then(|it| it.trim().parse().ok());
        count.context("a client process has ended; its error is above")
    }
}

impl Drop for Holder {
    /// It ends with its stdin.
    fn drop(&mut self) {
        self.tells = None;
        self.child.wait().ok();
    }
}

/// The client process: connects, says so, and sends on as many as it is told
/// to.
fn hold(words: &[String]) -> Result<()> {
    let [addr, source, count] = words else {
        bail!("hold ADDR SOURCE COUNT is for this program itself")
    };
    let addr: SocketAddrV4 = addr.parse()?;
    let (source, count): (usize, usize) = (source.parse()?, count.parse()?);
    let mut held = Vec::with_capacity(count);
    for n in 0..count {
        let (high, low) =
            ((source + n / PER_SOURCE) / 200, source + n / PER_SOURCE);
        let from = Ipv4Addr::new(127, 0, high as u8, 2 + (low % 200) as u8);
        let socket = connected(addr, from);
        held.push(
            socket.with_context(|| format!("connection {n} from {from}"))?,
        );
    }
    say("connected", count);
    for line in stdin().lines() {
        let part: usize = line?.trim().parse()?;
        let sample = held.iter().step_by((count / part.max(1)).max(1));
        let mut echoed = 0;
        for socket in sample.take(part) {
            round_trip(socket).with_context(|| format!("echo {echoed}"))?;
            echoed += 1;
        }
        say("echoed", echoed);
    }
    Ok(())
}

fn say(word: &str, count: usize) {
    // Whoever asked may be gone; then stdin ends as well.
    let _ = writeln!(stdout(), "{word} {count}");
    let _ = stdout().flush();
}

fn connected(addr: SocketAddrV4, from: Ipv4Addr) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    let limit = TimeVal::seconds(30);
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    let fd = socket.as_raw_fd();
    bind(fd, &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    connect(fd, &SockaddrIn::from(addr))?;
    Ok(socket)
}

fn round_trip(socket: &OwnedFd) -> Result<()> {
    let (fd, mut echoed) = (socket.as_raw_fd(), [0; 8]);
    let message = b"are you?";
    send(fd, message, MsgFlags::MSG_NOSIGNAL)?;
    let got = recv(fd, &mut echoed, MsgFlags::MSG_WAITALL)?;
    ensure!(got == message.len() && &echoed == message, "{got} bytes came");
    Ok(())
}

fn report(json: bool, seen: &Seen) {
    let per = |bytes: u64| bytes as f64 / seen.connections as f64;
    let kernel = seen.slab + seen.buffers;
    let (least, most) = (seen.shares[0], seen.shares[seen.shares.len() - 1]);
    let Seen { connections, opened_in, echoed_in, .. } = seen;
    let text = match json {
        true => format!(
            "{{\n  \"connections\": {connections},\n  \
             \"opened_in_s\": {:.3},\n  \"sample\": {SAMPLE},\n  \
             \"sample_echoed_in_s\": {:.3},\n  \
             \"user_private_bytes_per_connection\": {:.1},\n  \
             \"user_pss_bytes_per_connection\": {:.1},\n  \
             \"kernel_bytes_per_connection\": {:.1},\n  \
             \"kernel_slab_bytes\": {},\n  \"tcp_buffer_bytes\": {},\n  \
             \"least_of_a_worker\": {least},\n  \
             \"most_of_a_worker\": {most}\n}}\n",
            opened_in.as_secs_f64(),
            echoed_in.as_secs_f64(),
            per(seen.private),
            per(seen.pss),
            per(kernel),
            seen.slab,
            seen.buffers,
        ),
        false => format!(
            "{connections} idle connections, opened in {opened_in:.1?}, \
             {least} to {most} for each of {} workers\n\
             an echo on {SAMPLE} of them took {echoed_in:.1?}\n\
             user memory of the workers: {:.0} bytes a connection \
             (private; Pss {:.0})\n\
             kernel memory, both ends: {:.0} bytes a connection \
             ({} MiB of slab, {} MiB of buffers)\n",
            seen.shares.len(),
            per(seen.private),
            per(seen.pss),
            per(kernel),
            seen.slab >> 20,
            seen.buffers >> 20,
        ),
    };
    let _ = stdout().write_all(text.as_bytes());
}

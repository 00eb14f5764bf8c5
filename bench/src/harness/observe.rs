//! What /proc tells of a server, its children and its sockets.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fmt, fs};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// What /proc says of a server and its children at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation {
    /// CPU time of all, children that were waited for included.
    pub cpu: Duration,
    /// Anonymous resident bytes; a page shared by forks counts once in all.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Processes that live.
    pub processes: usize,
    /// Children that ended and were not waited for.
    pub zombies: usize,
    /// Connections whose client has closed and the server has not.
    pub close_wait: usize,
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptors, {} threads, {} processes, {} zombies, {} \
             sockets in CLOSE_WAIT, {} KiB",
            self.descriptors,
            self.threads,
            self.processes,
            self.zombies,
            self.close_wait,
            self.memory / 1024
        )
    }
}

/// One line of /proc/PID/stat.
pub(super) struct Entry {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) zombie: bool,
    pub(super) threads: usize,
    pub(super) buried_cpu: Duration,
}

pub(super) fn entry_of(pid: i32) -> Option<Entry> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
    let ticks = u64::try_from(number(13)? + number(14)?).ok()?;
    Some(Entry {
        pid,
        parent: i32::try_from(number(1)?).ok()?,
        group: i32::try_from(number(2)?).ok()?,
        zombie: matches!(fields[0], "Z" | "X"),
        threads: usize::try_from(number(17)?).ok()?,
        // USER_HZ is 100 on every architecture Linux still runs on.
        buried_cpu: Duration::from_millis(ticks * 10),
    })
}

/// `root` and all its descendants.
pub(super) fn tree_of(root: i32) -> Vec<Entry> {
    let mut children: BTreeMap<i32, Vec<Entry>> = BTreeMap::new();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in names
        .filter_map(|name| name.file_name().to_str()?.parse().ok())
        .filter_map(entry_of)
    {
        children.entry(entry.parent).or_default().push(entry);
    }
    let mut tree: Vec<Entry> = entry_of(root).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = tree.get(next).map(|entry| entry.pid) {
        tree.extend(children.remove(&parent).unwrap_or_default());
        next += 1;
    }
    tree
}

/// Whether `pid` lives and belongs to the group: the number alone may have
/// been given to a stranger.
pub(super) fn is_in_group(pid: i32, group: i32) -> bool {
    entry_of(pid).is_some_and(|entry| !entry.zombie && entry.group == group)
}

/// All threads' time, those that have ended included; zero when it is gone.
pub(super) fn cpu_of(pid: i32) -> Duration {
    ClockId::pid_cpu_clock_id(Pid::from_raw(pid))
        .and_then(clock_gettime)
        .map_or(Duration::ZERO, Duration::from)
}

pub(super) fn memory_of(pid: i32) -> u64 {
    // status's RssAnon is counted in batches per core, and may be hundreds of
    // KiB behind; smaps_rollup looks at the pages themselves.
    field_of(&format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:")
        .or_else(|| field_of(&format!("/proc/{pid}/status"), "RssAnon:"))
        .unwrap_or(0)
}

/// A line such as `RssAnon:  132 kB`, in bytes.
fn field_of(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let number = line.split_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(number * 1024)
}

/// The kernel's number of a TCP state (include/net/tcp_states.h).
pub const ESTABLISHED: u8 = 1;
/// The server closed first, and waits for stray segments.
pub const TIME_WAIT: u8 = 6;
/// The client closed, and the server has not.
pub const CLOSE_WAIT: u8 = 8;
/// A listener.
pub const LISTEN: u8 = 10;

/// How many sockets have this local port and are in this state.
pub fn sockets_of(port: u16, state: u8) -> usize {
    sockets(port).filter(|socket| socket.state == state).count()
}

/// How many bytes the server has not read of what the client at port `peer`
/// has sent and the kernel has taken for it.
pub fn unread_by_server(port: u16, peer: u16) -> u64 {
    sockets(port)
        .filter(|socket| socket.peer == peer)
        .map(|socket| socket.unread)
        .sum()
}

/// One line of /proc/net/tcp.
struct Socket {
    port: u16,
    peer: u16,
    state: u8,
    unread: u64,
}

fn sockets(port: u16) -> impl Iterator<Item = Socket> {
    fn parse(line: &str) -> Option<Socket> {
        // sl, local address, remote address, state, tx_queue:rx_queue, …
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut port = || {
            let (_, port) = fields.next()?.rsplit_once(':')?;
            u16::from_str_radix(port, 16).ok()
        };
        let (port, peer) = (port()?, port()?);
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let (_, unread) = fields.next()?.split_once(':')?;
        let unread = u64::from_str_radix(unread, 16).ok()?;
        Some(Socket { port, peer, state, unread })
    }
    // There may be tens of thousands of other lines (TIME_WAIT): most are
    // passed over by one search.
    let mark = format!(":{port:04X} ");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(move |text| {
            text.lines()
                .filter(|line| line.contains(&mark))
                .filter_map(parse)
                .collect::<Vec<_>>()
        })
        .filter(move |socket| socket.port == port)
}

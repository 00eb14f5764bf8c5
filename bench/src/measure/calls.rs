//! The system calls of a server that runs: counted at the kernel's tracepoints
//! where those are open, by strace else. Neither while time is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, fs, io};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use tempfile::NamedTempFile;

use crate::harness::{Entry, PATIENCE, Server, entry_of, proc_text, tasks_of};

/// What echo servers call, by the kernel's names; everything else is counted
/// as [`OTHERS`]. Each of them costs some 30 ms to close.
const NAMES: &[&str] = &[
    "accept4",
    "clock_nanosleep",
    "clone",
    "clone3",
    "close",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_wait",
    "exit",
    "exit_group",
    "fcntl",
    "futex",
    "getpid",
    "gettid",
    "io_uring_enter",
    "ioctl",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "pselect6",
    "pwrite64",
    "read",
    "recvfrom",
    "restart_syscall",
    "rseq",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigtimedwait",
    "sched_yield",
    "select",
    "sendto",
    "set_robust_list",
    "setsockopt",
    "shutdown",
    "tgkill",
    "wait4",
    "write",
    "writev",
];

/// The name of all that is not in the list.
pub const OTHERS: &str = "others";

/// What goes through an io_uring: what is submitted, and what completes. They
/// are no system calls, and only a server that has one is asked for them.
const RING: [&str; 2] = ["io_uring_submit_req", "io_uring_complete"];

/// Where the kernel shows its tracepoints.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// How system calls are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CountingBy {
    /// perf_event_open(2), about 0.2 us a call.
    Tracepoints,
    /// ptrace(2), which makes a call many times as slow.
    Strace {
        /// Why not the other way.
        because: String,
    },
    /// Not at all.
    Nothing {
        /// Why neither way.
        because: String,
    },
}

impl fmt::Display for CountingBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CountingBy::Tracepoints => {
                write!(
                    f,
                    "System calls were counted at the kernel's tracepoints."
                )
            }
            CountingBy::Strace { because } => {
                write!(
                    f,
                    "System calls were counted by strace, since {because}."
                )
            }
            CountingBy::Nothing { because } => {
                write!(f, "System calls were not counted: {because}.")
            }
        }
    }
}

/// How it is done here; found out by doing it.
pub fn counting_by() -> CountingBy {
    let Err(first) = Events::find().and_then(|events| {
        let own = Pid::this().as_raw();
        let opened = Task::open(own, &events, false);
        opened.map(drop).context("perf_event_open")
    }) else {
        return CountingBy::Tracepoints;
    };
    let first = closed(&first);
    match strace_attaches() {
        Ok(()) => CountingBy::Strace { because: first },
        Err(second) => {
            let because = format!("{first}, and {second:#}");
            CountingBy::Nothing { because }
        }
    }
}

/// One sentence on why there are no tracepoints.
fn closed(error: &anyhow::Error) -> String {
    format!(
        "the kernel's tracepoints cannot be counted ({error:#}; it takes root, \
         and tracefs at {})",
        TRACEFS[0]
    )
}

/// The system calls that a server makes from now on.
pub struct Counting(How);

enum How {
    Tracepoints(Tracepoints),
    Strace(Strace),
}

/// Tracepoints that stay open, so that to end a count takes no time: a
/// tracepoint that nobody counts any more is closed, and the kernel waits for
/// every core each time, in all for a second or two.
///
/// As long as it lives, every call of every program is 0.1 us slower.
pub struct Ready(#[expect(dead_code, reason = "only kept")] Vec<Counter>);

/// System calls by the kernel's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// All of them.
    pub total: u64,
    /// Each that was made, the most frequent first; together they are the
    /// total. Empty if there were so many threads that only the total could be
    /// counted.
    pub by_name: Vec<(String, u64)>,
    /// Operations that were submitted to its io_uring, and completions that
    /// came; `None` without one, or where no tracepoint tells of them.
    pub ring: Option<(u64, u64)>,
}

impl Counted {
    /// How often it was made, if names were counted.
    pub fn of(&self, name: &str) -> Option<u64> {
        let mut names = self.by_name.iter();
        let found = names.find(|(it, _)| it == name).map(|&(_, count)| count);
        found.or((!self.by_name.is_empty()).then_some(0))
    }

    fn new(total: u64, mut by_name: Vec<(String, u64)>) -> Counted {
        by_name.retain(|&(_, count)| count > 0);
        by_name.sort_by(|one, two| two.1.cmp(&one.1).then(one.0.cmp(&two.0)));
        Counted { total, by_name, ring: None }
    }
}

impl Counting {
    /// Counts what all threads and children call, also those that begin later.
    /// A call in which one sleeps by now is none of them.
    pub fn begin(server: &Server) -> Result<Counting> {
        let first = match Counting::at_tracepoints(server) {
            Ok(counting) => return Ok(counting),
            Err(error) => error,
        };
        ensure!(entry_of(server.pid).is_some(), "the server is gone");
        let first = closed(&first);
        Counting::by_strace(server).map_err(|second| {
            anyhow!("system calls cannot be counted: {first}, and {second:#}")
        })
    }

    /// For many counts in a row; does nothing where there are no tracepoints.
    pub fn make_ready() -> Ready {
        let own = Pid::this().as_raw();
        let Ok(Events { total, named, ring }) = Events::find() else {
            return Ready(Vec::new());
        };
        let ids = named.into_iter().map(|(_, id)| id).chain([total]);
        let ids = ids.chain(ring.into_iter().flatten());
        Ready(ids.filter_map(|id| counter_on(own, id).build().ok()).collect())
    }

    /// In the first way alone.
    pub fn at_tracepoints(server: &Server) -> Result<Counting> {
        Ok(Counting(How::Tracepoints(Tracepoints::begin(server)?)))
    }

    /// In the second way alone, which counts a call when it returns.
    pub fn by_strace(server: &Server) -> Result<Counting> {
        let strace = Strace::begin(|| server.tree())?;
        Ok(Counting(How::Strace(strace)))
    }

    /// What it has called.
    pub fn end(self) -> Result<Counted> {
        match self.0 {
            How::Tracepoints(tracepoints) => tracepoints.end(),
            How::Strace(strace) => strace.end(),
        }
    }
}

/// The numbers of the tracepoints.
struct Events {
    total: u64,
    named: Vec<(&'static str, u64)>,
    /// Those of [`RING`], if the kernel has them.
    ring: Option<[u64; 2]>,
}

impl Events {
    fn find() -> Result<Events> {
        let mut why = None;
        for folder in TRACEFS {
            let id = |name: &str| number_of(folder, name);
            match id("raw_syscalls/sys_enter") {
                Ok(total) => {
                    // A kernel of another architecture lacks some.
                    let named = NAMES.iter().filter_map(|&name| {
                        let event = format!("syscalls/sys_enter_{name}");
                        Some((name, id(&event).ok()?))
                    });
                    let named = named.collect();
                    let ring = RING.map(|name| id(&format!("io_uring/{name}")));
                    let ring = match ring {
                        [Ok(submitted), Ok(completed)] => {
                            Some([submitted, completed])
                        }
                        _ => None,
                    };
                    return Ok(Events { total, named, ring });
                }
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.context("no folder")?)
    }
}

fn number_of(folder: &str, event: &str) -> Result<u64> {
    let path = Path::new(folder).join("events").join(event).join("id");
    let text = fs::read_to_string(&path)
        .with_context(|| path.display().to_string())?;
    Ok(text.trim().parse()?)
}

/// Counts a tracepoint for one thread.
fn counter_on(tid: i32, id: u64) -> Builder<'static> {
    let mut counter = Builder::new(Tracepoint::with_id(id));
    // The tracepoint itself stands in the kernel.
    counter.observe_pid(tid).any_cpu().include_kernel();
    counter
}

/// The counters of one thread, and of all that it starts.
struct Task {
    total: Counter,
    named: Vec<Counter>,
    ring: Vec<Counter>,
}

impl Task {
    /// They begin to count when the first of them, which leads the group, is
    /// enabled: so all of them at once.
    fn open(tid: i32, events: &Events, names: bool) -> io::Result<Task> {
        let counter = |id: u64, enabled: bool| {
            let mut counter = counter_on(tid, id);
            counter.inherit(true).enabled(enabled);
            counter
        };
        let mut total = counter(events.total, false).build()?;
        let mut named = Vec::new();
        for &(_, id) in events.named.iter().filter(|_| names) {
            named.push(counter(id, true).build_with_group(&mut total)?);
        }
        let mut ring = Vec::new();
        for &id in events.ring.iter().flatten().filter(|_| names) {
            ring.push(counter(id, true).build_with_group(&mut total)?);
        }
        Ok(Task { total, named, ring })
    }
}

struct Tracepoints {
    events: Events,
    tasks: Vec<Task>,
    names: bool,
}

impl Tracepoints {
    fn begin(server: &Server) -> Result<Tracepoints> {
        let mut events = Events::find()?;
        events.ring = events.ring.filter(|_| has_ring(server));
        let mut tries = 0;
        let (mut tasks, names) = loop {
            tries += 1;
            match Tracepoints::open(server, &events)? {
                Opened { tasks, names, missed: Missed::Nobody } => {
                    break (tasks, names);
                }
                // Those that the server itself started after its counters
                // were opened have inherited them, and only it starts many.
                Opened { tasks, names, missed: Missed::Perhaps }
                    if tries > 5 =>
                {
                    break (tasks, names);
                }
                Opened { .. } => ensure!(
                    tries < 100,
                    "threads and children come and go too fast"
                ),
            }
        };
        for task in &mut tasks {
            task.total.enable().context("PERF_EVENT_IOC_ENABLE")?;
        }
        Ok(Tracepoints { events, tasks, names })
    }

    /// On every thread there is; a thread that begins meanwhile inherits the
    /// counters if the one that starts it has them by then.
    fn open(server: &Server, events: &Events) -> Result<Opened> {
        let before = tids_of(server);
        let ring = events.ring.map_or(0, |ring| ring.len());
        let each = events.named.len() + ring + 1;
        let names = before.len() * each <= descriptors();
        let mut tasks = Vec::new();
        let mut add = |tid: i32| match Task::open(tid, events, names) {
            Ok(task) => {
                tasks.push(task);
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            Err(error) => {
                let of = before.len();
                Err(error).context(format!("perf_event_open, {of} threads"))
            }
        };
        add(server.pid)?;
        if !tids_of(server).is_subset(&before) {
            return Ok(Opened { tasks, names, missed: Missed::Some });
        }
        for &tid in before.iter().filter(|&&tid| tid != server.pid) {
            add(tid)?;
        }
        let missed = match tids_of(server).is_subset(&before) {
            true => Missed::Nobody,
            false => Missed::Perhaps,
        };
        Ok(Opened { tasks, names, missed })
    }

    fn end(mut self) -> Result<Counted> {
        for task in &mut self.tasks {
            task.total.disable().context("PERF_EVENT_IOC_DISABLE")?;
        }
        let mut total = 0;
        let mut counts = vec![0; self.events.named.len()];
        let mut ring = self.events.ring.map(|_| (0, 0));
        for task in &mut self.tasks {
            total += task.total.read().context("read of a counter")?;
            for (count, counter) in counts.iter_mut().zip(&mut task.named) {
                *count += counter.read().context("read of a counter")?;
            }
            if let (Some(ring), [submitted, completed]) =
                (&mut ring, &mut task.ring[..])
            {
                ring.0 += submitted.read().context("read of a counter")?;
                ring.1 += completed.read().context("read of a counter")?;
            }
        }
        if !self.names {
            return Ok(Counted::new(total, Vec::new()));
        }
        let named: u64 = counts.iter().sum();
        // The counters of a thread stop one after the other: a call in that
        // instant may have been counted by its name alone.
        ensure!(
            named <= total + self.tasks.len() as u64,
            "{total} calls were counted, but {named} by their names"
        );
        let total = total.max(named);
        let others = total - named;
        let names = self.events.named.iter().map(|(name, _)| *name);
        let by_name = names.zip(counts).chain([(OTHERS, others)]);
        let by_name = by_name.map(|(name, count)| (name.to_owned(), count));
        Ok(Counted { ring, ..Counted::new(total, by_name.collect()) })
    }
}

struct Opened {
    tasks: Vec<Task>,
    names: bool,
    missed: Missed,
}

/// Threads that may have begun without counters.
enum Missed {
    Nobody,
    /// Only if another thread than the server's first has started them.
    Perhaps,
    Some,
}

/// Whether one of its processes has an io_uring.
fn has_ring(server: &Server) -> bool {
    let of = |entry: &Entry| {
        let open = fs::read_dir(format!("/proc/{}/fd", entry.pid));
        let open = open.into_iter().flatten().filter_map(Result::ok);
        let mut names = open.filter_map(|it| fs::read_link(it.path()).ok());
        names.any(|name| name == Path::new("anon_inode:[io_uring]"))
    };
    server.entries().iter().any(of)
}

/// Every thread of the server and its children.
fn tids_of(server: &Server) -> BTreeSet<i32> {
    let entries = server.entries();
    let alive = entries.iter().filter(|entry| !entry.zombie);
    alive.flat_map(tasks_of).collect()
}

/// How many descriptors more this program may open, less some for the rest of
/// it.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(open + 64)
}

/// A running `strace -c`; dropped, it lets go of the server.
struct Strace {
    child: Child,
    table: NamedTempFile,
}

impl Strace {
    /// Returns once every thread of the processes is traced.
    fn begin(pids: impl Fn() -> Vec<i32>) -> Result<Strace> {
        let table = NamedTempFile::new().context("a file for strace")?;
        let said = NamedTempFile::new().context("a file for strace")?;
        let list = pids().iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-p", &list.join(",")]);
        strace.arg("-o").arg(table.path());
        strace.stdin(Stdio::null()).stdout(Stdio::null());
        strace.stderr(said.reopen()?);
        let child = match strace.spawn() {
            Ok(child) => child,
            Err(error) => bail!("strace is not installed ({error})"),
        };
        let mut strace = Strace { child, table };
        let tracer = i32::try_from(strace.child.id())?;
        let deadline = Instant::now() + PATIENCE;
        while !pids().into_iter().all(|pid| is_traced(pid, tracer)) {
            if strace.child.try_wait()?.is_some() {
                let said = fs::read_to_string(said.path())?;
                let why = said.lines().find(|line| !line.contains("detached"));
                bail!("strace cannot attach: {}", why.unwrap_or("it ended"));
            }
            ensure!(
                Instant::now() < deadline,
                "strace has not attached to all within {PATIENCE:?}"
            );
            thread::sleep(Duration::from_millis(1));
        }
        // Traced does not mean that its calls are seen yet: it is to stop
        // once first. A server that never sleeps is not waited for: there, the
        // first calls are few among many.
        for _ in 0..50 {
            let sleeps = |pid| tasks_are(pid, |status| status.contains(SLEEPS));
            if sleeps(tracer) && pids().into_iter().all(sleeps) {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(strace)
    }

    /// SIGINT lets it detach and write its table.
    fn end(mut self) -> Result<Counted> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT)
            .context("SIGINT to strace")?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "strace does not end");
            thread::sleep(Duration::from_millis(1));
        }
        let text = fs::read_to_string(self.table.path())?;
        counted_in(&text).with_context(|| {
            format!("strace's table is not understood: {text}")
        })
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A line of /proc/PID/status.
const SLEEPS: &str = "\nState:\tS";

fn is_traced(pid: i32, tracer: i32) -> bool {
    let wanted = format!("\nTracerPid:\t{tracer}\n");
    tasks_are(pid, |status| status.contains(&wanted))
}

/// Whether it holds of the status of all threads; of one that is gone it does.
fn tasks_are(pid: i32, holds: impl Fn(&str) -> bool) -> bool {
    let Some(entry) = entry_of(pid).filter(|entry| !entry.zombie) else {
        return true;
    };
    tasks_of(&entry).iter().all(|tid| {
        proc_text(&format!("/proc/{pid}/task/{tid}/status"))
            .map_or(true, |status| holds(&status))
    })
}

/// The columns of `strace -c`: % time, seconds, usecs/call, calls, errors if
/// there were any, syscall.
fn counted_in(table: &str) -> Option<Counted> {
    let mut calls = BTreeMap::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(name), Some(count)) = (words.last(), words.get(3)) else {
            continue;
        };
        if words[0].parse::<f64>().is_ok() && *name != "total" {
            calls.insert(name.to_string(), count.parse::<u64>().ok()?);
        }
    }
    // No call at all leaves no table.
    let total = calls.values().sum();
    Some(Counted::new(total, calls.into_iter().collect()))
}

/// Tries on a child that waits for its input to end.
fn strace_attaches() -> Result<()> {
    let mut cat = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("cat cannot be started")?;
    let pid = i32::try_from(cat.id())?;
    let tried = Strace::begin(|| vec![pid]).and_then(Strace::end);
    drop(cat.stdin.take());
    cat.wait()?;
    tried.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_strace_is_read() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000300           3       100           sendto
 40.00    0.000200           1       200        99 recvfrom
  0.00    0.000000           0        99           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.000500           1       399        99 total
";
        let counted = counted_in(table).unwrap();
        assert_eq!(counted.total, 399);
        let wanted = [("recvfrom", 200), ("sendto", 100), ("epoll_wait", 99)];
        let wanted = wanted.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(counted.by_name, wanted);
        assert_eq!(counted.of("poll"), Some(0));
        assert_eq!(counted_in("").unwrap().total, 0);
        assert!(counted_in("1.0 0.1 3 x y").is_none());
    }
}

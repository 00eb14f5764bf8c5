//! What /proc tells of a server and its children.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;
use std::{fmt, io};

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
pub(crate) struct Entry {
    pub(crate) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(crate) zombie: bool,
    /// It has executed nothing since its parent forked it, of which it is a
    /// copy.
    pub(super) copy: bool,
    pub(crate) threads: usize,
    /// CPU time of children that were waited for.
    pub(crate) buried_cpu: Duration,
    /// Page faults of the same: they grow with every child that is waited
    /// for, however short its life was.
    pub(crate) buried_faults: u64,
    /// In user space and in the kernel, of its own and of the same children,
    /// in ticks of 10 ms.
    pub(crate) ticks: (u64, u64),
}

/// include/linux/sched.h; proc(5) has it in the field `flags`.
const PF_FORKNOEXEC: u64 = 0x40;

/// Such a file has no size: to ask for it, and to feel one's way to the end,
/// would take as long as to read it.
pub(crate) fn proc_text(path: &str) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(4096);
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn entry_of(pid: i32) -> Option<Entry> {
    let text = proc_text(&format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
    let count = |at: usize| u64::try_from(number(at)?).ok();
    let (user, system) = (count(13)?, count(14)?);
    Some(Entry {
        pid,
        parent: i32::try_from(number(1)?).ok()?,
        group: i32::try_from(number(2)?).ok()?,
        zombie: matches!(fields[0], "Z" | "X"),
        copy: count(6)? & PF_FORKNOEXEC != 0,
        threads: usize::try_from(number(17)?).ok()?,
        // USER_HZ is 100 on every architecture Linux still runs on.
        buried_cpu: Duration::from_millis((user + system) * 10),
        buried_faults: count(8)?,
        ticks: (count(11)? + user, count(12)? + system),
    })
}

/// `root` and all its descendants; one whose parent has died belongs to init,
/// and is no descendant any more.
pub(super) fn tree_of(root: i32) -> Vec<Entry> {
    tree_by_children(root).unwrap_or_else(|| tree_by_parents(root))
}

/// From parent to child, which costs nothing for all that is not of the tree;
/// `None` where the kernel does not tell it, or not reliably.
pub(super) fn tree_by_children(root: i32) -> Option<Vec<Entry>> {
    let mut tree: Vec<Entry> = entry_of(root).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = tree.get(next) {
        let pid = parent.pid;
        let children = children_of(parent)?.into_iter().filter_map(entry_of);
        // The number may have been given to a stranger meanwhile.
        tree.extend(children.filter(|child| child.parent == pid));
        next += 1;
    }
    Some(tree)
}

/// The children of all threads of `parent`.
///
/// A child that ends while the list is read may hide another one that lives
/// (proc(5)): only a list that is read twice alike is believed.
fn children_of(parent: &Entry) -> Option<Vec<i32>> {
    let mut before = children_once(parent)?;
    if before.is_empty() {
        return Some(before);
    }
    for _ in 0..4 {
        let now = children_once(parent)?;
        if now == before {
            return Some(now);
        }
        before = now;
    }
    None
}

fn children_once(parent: &Entry) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    for tid in tasks_of(parent) {
        let task = format!("/proc/{}/task/{tid}", parent.pid);
        match proc_text(&format!("{task}/children")) {
            Ok(text) => children.extend(
                text.split_whitespace().filter_map(|it| it.parse::<i32>().ok()),
            ),
            // The kernel was built without CONFIG_PROC_CHILDREN.
            Err(_) if fs::exists(&task).is_ok_and(|there| there) => {
                return None;
            }
            // The task has ended.
            Err(_) => {}
        }
    }
    Some(children)
}

/// The numbers of all threads of `of`.
pub(crate) fn tasks_of(of: &Entry) -> Vec<i32> {
    if of.threads == 1 {
        return vec![of.pid];
    }
    fs::read_dir(format!("/proc/{}/task", of.pid))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|name| name.file_name().to_str()?.parse().ok())
        .collect()
}

/// From child to parent, which needs a look at every process there is.
pub(super) fn tree_by_parents(root: i32) -> Vec<Entry> {
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

/// How many threads it has, without those with which the kernel carries out
/// operations of its rings: the kernel starts and keeps them as it likes.
fn own_threads_of(of: &Entry) -> usize {
    let kernels = |tid: &i32| {
        let comm = proc_text(&format!("/proc/{}/task/{tid}/comm", of.pid));
        comm.is_ok_and(|name| name.starts_with("iou-wrk-"))
    };
    match of.threads {
        1 => 1,
        all => all - tasks_of(of).iter().filter(|tid| kernels(tid)).count(),
    }
}

/// What a server and its children hold at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Anonymous resident bytes; a page shared by forks counts once in all.
    pub memory: u64,
    /// Threads.
    pub threads: usize,
    /// Processes that live.
    pub processes: usize,
}

impl Standing {
    pub(super) fn of_all(entries: &[Entry]) -> Standing {
        let mut seen = Standing::default();
        for entry in entries.iter().filter(|entry| !entry.zombie) {
            seen.memory += memory_of(entry.pid);
            seen.threads += own_threads_of(entry);
            seen.processes += 1;
        }
        seen
    }
}

/// Whether `pid` lives and belongs to the group: the number alone may have
/// been given to a stranger.
pub(super) fn is_in_group(pid: i32, group: i32) -> bool {
    entry_of(pid).is_some_and(|entry| !entry.zombie && entry.group == group)
}

/// All threads' time, those that have ended included; zero when it is gone.
pub(crate) fn cpu_of(pid: i32) -> Duration {
    ClockId::pid_cpu_clock_id(Pid::from_raw(pid))
        .and_then(clock_gettime)
        .map_or(Duration::ZERO, Duration::from)
}

/// How long each of its threads has run or waited for a core, ready to run:
/// the first two numbers of schedstat (Documentation/scheduler/sched-stats).
/// None where the kernel keeps no such numbers.
pub(crate) fn wants_of(of: &Entry) -> Vec<(i32, Duration)> {
    let wants = |tid: i32| -> Option<(i32, Duration)> {
        let path = format!("/proc/{}/task/{tid}/schedstat", of.pid);
        let text = proc_text(&path).ok()?;
        let numbers = text.split_whitespace().take(2);
        let numbers: Vec<u64> = numbers.flat_map(str::parse).collect();
        Some((tid, Duration::from_nanos(numbers.iter().sum())))
    };
    tasks_of(of).into_iter().filter_map(wants).collect()
}

/// Whether a thread runs, or would if it had a core.
pub(crate) fn is_runnable(tid: i32) -> bool {
    let text = proc_text(&format!("/proc/{tid}/stat")).unwrap_or_default();
    let state = text.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|rest| rest.starts_with('R'))
}

fn memory_of(pid: i32) -> u64 {
    // status's RssAnon is counted in batches per core, and may be hundreds of
    // KiB behind; smaps_rollup looks at the pages themselves.
    field_of(&format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:")
        .or_else(|| field_of(&format!("/proc/{pid}/status"), "RssAnon:"))
        .unwrap_or(0)
}

/// A line such as `RssAnon:  132 kB`, in bytes.
fn field_of(path: &str, name: &str) -> Option<u64> {
    let text = proc_text(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let number = line.split_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, id};
    use std::thread;

    use super::*;

    /// Each way finds the children of every thread, and theirs.
    #[test]
    fn both_ways_to_the_tree_find_the_same() {
        fn shell() -> Child {
            let mut shell = Command::new("sh");
            // The shell says so when its own child is there.
            shell.args(["-c", "sleep 60 & echo $!; wait"]);
            shell.stdout(std::process::Stdio::piped()).spawn().unwrap()
        }
        let (from, asked) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let other = thread::spawn(move || {
            from.send(shell()).unwrap();
            // A thread that has ended leaves its children to the others.
            let _ended = wait.recv();
        });
        let mut shells = [asked.recv().unwrap(), shell()];
        let mut wanted: Vec<i32> = Vec::new();
        for shell in &mut shells {
            let mut line = [0; 16];
            let count = shell.stdout.as_mut().unwrap().read(&mut line).unwrap();
            let text = str::from_utf8(&line[..count]).unwrap();
            wanted.push(text.trim().parse().unwrap());
            wanted.push(shell.id().try_into().unwrap());
        }
        let own = i32::try_from(id()).unwrap();
        let pids = |tree: &[Entry]| -> Vec<i32> {
            tree.iter().map(|entry| entry.pid).collect()
        };
        let parents = pids(&tree_by_parents(own));
        // `None` where the kernel does not tell it.
        let children = tree_by_children(own).map(|tree| pids(&tree));
        for &pid in &wanted {
            nix::sys::signal::kill(
                Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            )
            .unwrap();
        }
        drop(end);
        other.join().unwrap();
        for shell in &mut shells {
            shell.wait().unwrap();
        }
        for tree in [Some(parents), children].into_iter().flatten() {
            assert_eq!(tree[0], own);
            for pid in &wanted {
                assert!(tree.contains(pid), "{pid} is not in {tree:?}");
            }
        }
    }
}

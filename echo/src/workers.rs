//! Which thread did an operation that this one only asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};

use crate::Fd;
use crate::watch::now;

/// What is known of the other threads and of operations under way.
static KNOWN: Mutex<Known> =
    Mutex::new(Known { threads: BTreeMap::new(), submitted: BTreeMap::new() });

struct Known {
    threads: BTreeMap<i32, Thread>,
    /// When the operation for this client, on the region that begins here, was
    /// submitted.
    submitted: BTreeMap<(Fd, u64), u64>,
}

/// What a thread had read and written, and when that was seen to have grown.
struct Thread {
    counted: String,
    grown: u64,
    /// It was seen to have ended, before which it may have done anything.
    ended: bool,
}

/// The last threads that told of themselves, in a ring.
static TELLERS: [AtomicI32; 256] = [const { AtomicI32::new(0) }; 256];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// This thread tells what it does itself, so it does nothing in secret. Safe
/// in a signal handler.
pub fn tells(tid: i32) {
    let at = NEXT.load(Relaxed);
    if TELLERS[at.wrapping_sub(1) % TELLERS.len()].load(Relaxed) != tid {
        TELLERS[NEXT.fetch_add(1, Relaxed) % TELLERS.len()].store(tid, Relaxed);
    }
}

/// An operation for the client of `fd`, on the region that begins at `offset`,
/// is about to begin.
pub fn submits(fd: Fd, offset: u64) {
    let mut known = KNOWN.lock().expect("nobody panics with it");
    known.submitted.insert((fd, offset), now());
}

/// It has begun, perhaps in a thread that was started for it and may end
/// before anyone looks.
pub fn has_begun() {
    let mut known = KNOWN.lock().expect("nobody panics with it");
    for tid in listed() {
        known.threads.entry(tid).or_insert_with(|| Thread {
            counted: String::new(),
            grown: 0,
            ended: false,
        });
    }
}

/// The threads of this process that have read or written something since this
/// operation was submitted, or have ended, but for those that tell of it
/// themselves; how many there are. One of them did it, if the kernel counts
/// what each thread reads and writes (proc(5), /proc/PID/task/TID/io).
pub fn who_worked(fd: Fd, offset: u64, names: &mut [Fd]) -> usize {
    let mut known = KNOWN.lock().expect("nobody panics with it");
    let Known { threads, submitted } = &mut *known;
    look(threads);
    let since = submitted.remove(&(fd, offset)).unwrap_or(0);
    let tells = |tid: &i32| TELLERS.iter().any(|it| it.load(Relaxed) == *tid);
    let worked = threads.iter().filter(|(_, thread)| thread.grown >= since);
    let worked = worked.map(|(tid, _)| *tid).filter(|tid| !tells(tid));
    let mut count = 0;
    for (name, tid) in names.iter_mut().zip(worked) {
        *name = tid;
        count += 1;
    }
    let oldest = submitted.values().min().copied().unwrap_or(u64::MAX);
    threads.retain(|_, thread| !thread.ended || thread.grown >= oldest);
    count
}

/// The thread of the kernel's that takes what is submitted to this ring, if it
/// has one (IORING_SETUP_SQPOLL); how many there are. It is a thread of this
/// process, which nothing here has started: io_uring_setup(2).
pub fn of_ring(ring: Fd, names: &mut [Fd]) -> usize {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{ring}"));
    let info = info.unwrap_or_default();
    let told = info.lines().find_map(|line| line.strip_prefix("SqThread:"));
    if told.is_none_or(|tid| tid.trim().starts_with('-')) {
        return 0;
    }
    // It gives itself its name, which ends in the number of who made the ring,
    // once it runs. In a namespace of ours that number is another.
    let own = format!("iou-sqp-{}", nix::unistd::gettid());
    let deadline = now() + 100_000_000;
    while now() < deadline {
        let named = listed().filter_map(|tid| {
            let name =
                fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
            let name = name.ok()?.trim_end().to_owned();
            name.starts_with("iou-sqp-").then_some((name == own, tid))
        });
        if let Some((_, tid)) = named.max() {
            names[0] = tid;
            return 1;
        }
        std::thread::yield_now();
    }
    0
}

fn listed() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten();
    entries.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok())
}

fn look(threads: &mut BTreeMap<i32, Thread>) {
    let mut live = BTreeMap::new();
    // One that ends while the folder is read may hide another that lives; the
    // known ones are asked in any case.
    let tids = threads.keys().copied().chain(listed()).chain(listed());
    for tid in tids.collect::<BTreeSet<i32>>() {
        let counted = fs::read_to_string(format!("/proc/self/task/{tid}/io"));
        let thread = match (counted, threads.remove(&tid)) {
            (Err(_), None) => continue,
            (Err(_), Some(known)) if known.ended => known,
            (Err(_), Some(known)) => {
                Thread { grown: now(), ended: true, ..known }
            }
            (Ok(counted), Some(known)) if known.counted == counted => known,
            // A new one that has done nothing yet has grown before all time.
            (Ok(counted), _) => {
                let idle = counted.lines().all(|line| line.ends_with(" 0"));
                let grown = if idle { 0 } else { now() };
                Thread { counted, grown, ended: false }
            }
        };
        live.insert(tid, thread);
    }
    *threads = live;
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// glibc's threads end when they have nothing to do for a moment.
    #[test]
    fn a_thread_that_has_ended_may_have_done_it() {
        let (fd, operation) = (7, u64::MAX);
        let (tell, told) = channel();
        let (end, ends) = channel::<()>();
        submits(fd, operation);
        let worker = thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ended = ends.recv();
        });
        let tid = told.recv().unwrap();
        has_begun();
        drop(end);
        worker.join().unwrap();
        while Path::new(&format!("/proc/self/task/{tid}")).exists() {
            thread::yield_now();
        }
        let mut names = [0; 64];
        let count = who_worked(fd, operation, &mut names);
        assert!(names[..count].contains(&tid), "{tid}: {names:?}");
        // Nobody asks for an older operation: it is forgotten.
        submits(fd, operation);
        let count = who_worked(fd, operation, &mut names);
        assert!(!names[..count].contains(&tid), "{tid}: {names:?}");
    }
}

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
    /// When the operation on the region that begins here was submitted.
    submitted: BTreeMap<u64, u64>,
}

/// What a thread had read and written, and when that was seen to have grown.
struct Thread {
    counted: String,
    grown: u64,
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

/// An operation on the region that begins at `offset` is about to begin.
pub fn submits(offset: u64) {
    let mut known = KNOWN.lock().expect("nobody panics with it");
    known.submitted.insert(offset, now());
}

/// The threads of this process that have read or written something since this
/// operation was submitted, but for those that tell of it themselves; how many
/// there are. One of them did it, if the kernel counts what each thread reads
/// and writes (proc(5), /proc/PID/task/TID/io).
pub fn who_worked(offset: u64, names: &mut [Fd]) -> usize {
    let mut known = KNOWN.lock().expect("nobody panics with it");
    let Known { threads, submitted } = &mut *known;
    look(threads);
    let since = submitted.remove(&offset).unwrap_or(0);
    let tells = |tid: &i32| TELLERS.iter().any(|it| it.load(Relaxed) == *tid);
    let worked = threads.iter().filter(|(_, thread)| thread.grown >= since);
    let worked = worked.map(|(tid, _)| *tid).filter(|tid| !tells(tid));
    let mut count = 0;
    for (name, tid) in names.iter_mut().zip(worked) {
        *name = tid;
        count += 1;
    }
    count
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
        let Ok(counted) =
            fs::read_to_string(format!("/proc/self/task/{tid}/io"))
        else {
            continue;
        };
        let thread = match threads.remove(&tid) {
            Some(known) if known.counted == counted => known,
            // A new one that has done nothing yet has grown before all time.
            None if counted.lines().all(|line| line.ends_with(" 0")) => {
                Thread { counted, grown: 0 }
            }
            _ => Thread { counted, grown: now() },
        };
        live.insert(tid, thread);
    }
    *threads = live;
}

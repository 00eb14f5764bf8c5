//! Which thread did an operation that this one only asked for.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use nix::unistd::gettid;

use crate::Fd;

/// What the other threads had read and written when they were last looked at.
static SEEN: Mutex<BTreeMap<i32, String>> = Mutex::new(BTreeMap::new());

/// The threads of this process that have read or written something since this
/// was last asked; how many. The kernel counts it for each thread (proc(5),
/// /proc/PID/task/TID/io); where it does not, nobody is named. When several
/// operations were under way, each thread that was at work may have done any
/// of them.
pub fn who_worked(names: &mut [Fd]) -> usize {
    let own = gettid().as_raw();
    let mut seen = SEEN.lock().expect("nobody panics with it");
    let mut now = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/task").into_iter().flatten() {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let tid = name.to_str().and_then(|name| name.parse().ok());
        let counted = fs::read_to_string(entry.path().join("io"));
        if let (Some(tid), Ok(counted)) = (tid, counted)
            && tid != own
        {
            now.insert(tid, counted);
        }
    }
    let worked = |(tid, counted): &(&i32, &String)| match seen.get(tid) {
        Some(before) => before != *counted,
        // A thread that is new has worked if it has counted anything.
        None => counted.lines().any(|line| !line.ends_with(" 0")),
    };
    let mut count = 0;
    let workers = now.iter().filter(worked).map(|(tid, _)| *tid);
    for (name, tid) in names.iter_mut().zip(workers) {
        *name = tid;
        count += 1;
    }
    *seen = now;
    count
}

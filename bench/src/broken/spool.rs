//! A file through which every message goes on its way back, and the threads
//! that wait for it.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Fault;

/// How many operations are in flight at most: each has a thread, and a region
/// of the file.
const OPERATIONS: usize = 8;

/// What is to be written and read back.
struct Order {
    fd: RawFd,
    region: usize,
    bytes: Vec<u8>,
}

/// What has been.
pub(super) struct Done {
    /// For whom.
    pub(super) fd: RawFd,
    /// What was read back.
    pub(super) bytes: io::Result<Vec<u8>>,
    region: usize,
}

/// The file, and what is in flight.
pub(super) struct Spool {
    fault: Fault,
    /// Readable when something is done.
    pub(super) bell: Arc<EventFd>,
    file: Arc<File>,
    orders: Sender<Order>,
    done: Receiver<Done>,
    free: BTreeSet<usize>,
    next: usize,
    waiting: VecDeque<(RawFd, Vec<u8>)>,
    room: usize,
}

impl Spool {
    /// In an unlinked file, in regions of `room` bytes.
    pub(super) fn open(fault: Fault, room: usize) -> Result<Spool> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell = EventFd::from_flags(flags).context("eventfd")?;
        let (orders, taken) = channel::<Order>();
        let (finished, done) = channel();
        let spool = Spool {
            fault,
            bell: Arc::new(bell),
            file: Arc::new(tempfile::tempfile().context("the spool")?),
            orders,
            done,
            free: (0..OPERATIONS).collect(),
            next: OPERATIONS,
            waiting: VecDeque::new(),
            room,
        };
        let taken = Arc::new(Mutex::new(taken));
        for _ in 0..OPERATIONS {
            let (file, bell) = (spool.file.clone(), spool.bell.clone());
            let (taken, finished) = (taken.clone(), finished.clone());
            let work = move || {
                let mut scratch = vec![0; room];
                loop {
                    // The lock is given back before the work begins.
                    let next = taken
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv();
                    let Ok(order) = next else {
                        return;
                    };
                    let done =
                        there_and_back(fault, &file, room, &mut scratch, order);
                    let _ended = finished.send(done);
                    let _ended = bell.write(1);
                }
            };
            thread::Builder::new().spawn(work).context("thread")?;
        }
        Ok(spool)
    }

    /// Lets `bytes` go through the file; they are done later, or now.
    pub(super) fn order(&mut self, fd: RawFd, bytes: &[u8]) -> Option<Done> {
        if self.fault == Fault::SpoolsInLoop {
            let order = Order { fd, region: 0, bytes: bytes.to_vec() };
            let mut scratch = vec![0; self.room];
            let (fault, room) = (self.fault, self.room);
            let file = &self.file;
            return Some(there_and_back(
                fault,
                file,
                room,
                &mut scratch,
                order,
            ));
        }
        self.waiting.push_back((fd, bytes.to_vec()));
        self.begin_waiting();
        None
    }

    fn begin_waiting(&mut self) {
        while let Some(&region) = self.free.first()
            && let Some((fd, bytes)) = self.waiting.pop_front()
        {
            self.free.remove(&region);
            let _ended = self.orders.send(Order { fd, region, bytes });
        }
    }

    /// All that is done by now.
    pub(super) fn take_done(&mut self) -> Vec<Done> {
        let _none = self.bell.read();
        let done: Vec<Done> = self.done.try_iter().collect();
        for done in &done {
            let mut region = done.region;
            if self.fault == Fault::SpoolNeverReused {
                region = self.next;
                self.next += 1;
            }
            self.free.insert(region);
        }
        self.begin_waiting();
        done
    }

    /// Whether something is not done.
    pub(super) fn is_busy(&self) -> bool {
        self.free.len() < OPERATIONS
    }
}

/// Writes, and reads what was written.
fn there_and_back(
    fault: Fault,
    file: &File,
    room: usize,
    scratch: &mut [u8],
    order: Order,
) -> Done {
    let Order { fd, region, bytes } = order;
    let at = (region * room) as u64;
    let back = &mut scratch[..bytes.len()];
    let bytes = file.write_all_at(&bytes, at).and_then(|()| {
        let read = file.read_exact_at(back, at);
        if fault != Fault::StaleReadBack {
            read?;
        }
        Ok(back.to_vec())
    });
    Done { fd, bytes, region }
}

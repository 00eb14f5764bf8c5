//! The operations that may be in flight: memory and policy. Each has a slot,
//! and a slot has a region of the spool, which is used again and again.
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use echo::{Fd, Pending, Region};

use crate::flags::Notify;
use crate::spool::Spool;
use crate::sys::{self, List, Notice};

/// How long a notice may be out before its operation itself is asked. Notices
/// get lost: without room in the queue of signals glibc sends none and calls
/// the result EAGAIN; without a thread it says nothing at all. Long enough to
/// cost a busy server nothing, short enough for a client.
const PATIENCE: Duration = Duration::from_millis(2);

/// How long aio_suspend may sleep, for it does not see sockets.
const LIMIT: Duration = Duration::from_millis(10);

/// All slots: a fixed number, and all that they need is there from the start.
pub struct Operations {
    slots: Vec<Slot>,
    /// The first to be taken is the lowest, so that the spool grows only as
    /// far as it must; but those after the others that failed last: when the
    /// disk is full, the regions that have their place on it go on.
    free: BinaryHeap<Reverse<(u32, usize)>>,
    /// Clients that are readable while no slot is free.
    waiting: VecDeque<Fd>,
    /// Slots whose operation may have ended.
    ended: VecDeque<usize>,
    notify: Notify,
    /// Messages of whose operations nobody will tell the end.
    quiet: usize,
    /// When all that are under way are asked.
    ask_at: Instant,
    list: List,
    /// Its lock ends after the last operation.
    _spool: Spool,
}

/// A message on its way through the spool.
pub struct Slot {
    /// The client whose message it is; -1 while the slot is free.
    pub client: Fd,
    /// What is under way.
    pub call: &'static str,
    /// Nobody will tell of its end.
    quiet: bool,
    operation: sys::Operation,
    notice: Notice,
    /// Where in the spool its region begins.
    start: u64,
    length: usize,
    /// How much of it this call has moved.
    moved: usize,
    /// How many messages in a row were lost here.
    failures: u32,
}

pub const WRITE: &str = "aio_write";
pub const READ: &str = "aio_read";

impl Operations {
    pub fn new(
        spool: Spool,
        count: usize,
        buffer: usize,
        notify: Notify,
    ) -> Self {
        let slots = (0..count).map(|slot| Slot {
            client: -1,
            call: WRITE,
            quiet: false,
            operation: sys::Operation::new(spool.lane(slot)),
            notice: notify.notice(slot),
            start: (slot * buffer) as u64,
            length: 0,
            moved: 0,
            failures: 0,
        });
        Operations {
            slots: slots.collect(),
            free: (0..count).map(|slot| Reverse((0, slot))).collect(),
            waiting: VecDeque::with_capacity(256),
            ended: VecDeque::with_capacity(count.max(256)),
            notify,
            quiet: 0,
            ask_at: Instant::now(),
            list: List::with_capacity(count),
            _spool: spool,
        }
    }

    fn busy(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// No slot is free.
    pub fn all_busy(&self) -> bool {
        self.free.is_empty()
    }

    /// How many clients have a slot or wait for one.
    pub fn clients(&self) -> usize {
        self.busy() + self.waiting.len()
    }

    /// This client waits for a slot.
    pub fn queue(&mut self, client: Fd) {
        self.waiting.push_back(client);
    }

    /// The first client that waits, once there is a free slot.
    pub fn next_client(&mut self) -> Option<Fd> {
        if self.all_busy() { None } else { self.waiting.pop_front() }
    }

    /// Nobody waits for a slot any more: who did.
    pub fn all_waiting(&mut self) -> impl Iterator<Item = Fd> {
        self.waiting.drain(..)
    }

    /// Takes a slot for the bytes of this client: there is a free one. Its
    /// operation is to be submitted.
    pub fn begin(&mut self, client: Fd, bytes: Pending) -> usize {
        if self.busy() == 0 {
            self.ask_at = Instant::now() + PATIENCE;
        }
        let Reverse((_, slot)) = self.free.pop().expect("a slot is free");
        let it = &mut self.slots[slot];
        it.client = client;
        it.length = it.operation.lend(bytes);
        (it.call, it.moved) = (WRITE, 0);
        it.quiet = self.notify == Notify::Suspend;
        self.quiet += usize::from(it.quiet);
        slot
    }

    /// Frees a slot whose operation is not in flight; whose, and the bytes.
    pub fn end(&mut self, slot: usize) -> (Fd, Pending) {
        let it = &mut self.slots[slot];
        self.free.push(Reverse((it.failures, slot)));
        self.quiet -= usize::from(it.quiet);
        let client = mem::replace(&mut it.client, -1);
        (client, it.operation.take())
    }

    /// As `end`, of a slot whose operation has failed.
    pub fn fail(&mut self, slot: usize) -> (Fd, Pending) {
        self.slots[slot].failures += 1;
        self.end(slot)
    }

    /// The message in this slot; `None` if there is none.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut Slot> {
        self.slots.get_mut(slot).filter(|it| it.client >= 0)
    }

    /// The client whose message is in this slot, or -1.
    pub fn client(&self, slot: usize) -> Fd {
        self.slots.get(slot).map_or(-1, |it| it.client)
    }

    /// The notice of an operation lost its way; whether it is worth being made
    /// once more, without one. To move the same bytes to the same place again
    /// does no harm.
    pub fn repeat(&mut self, slot: usize) -> bool {
        let told = !mem::replace(&mut self.slots[slot].quiet, true);
        self.quiet += usize::from(told);
        told
    }

    /// How many are in flight of whose end nobody will tell.
    pub fn quiet(&self) -> usize {
        match self.quiet {
            0 => 0,
            _ => self.slots.iter().filter(|it| it.sleeps_quietly()).count(),
        }
    }

    /// Sleeps until one of those has ended, or for a short time.
    pub fn suspend(&mut self) -> nix::Result<()> {
        let slots = self.slots.iter().filter(|it| it.sleeps_quietly());
        self.list.suspend(slots.map(|it| &it.operation), LIMIT)
    }

    /// The timeout of a wait that may not sleep longer than `other`.
    pub fn timeout(&self, other: i32) -> i32 {
        if self.quiet() > 0 {
            return 0;
        }
        if self.busy() == 0 {
            return other;
        }
        let left = self.ask_at.saturating_duration_since(Instant::now());
        let left = left.as_micros().div_ceil(1000) as i32;
        if other < 0 { left } else { left.min(other) }
    }

    /// This one may have ended, says a notice.
    pub fn told(&mut self, slot: usize) {
        self.ended.push_back(slot);
    }

    /// Asks those of whose end nobody will tell, and now and then all: which
    /// have ended, or could not be submitted?
    pub fn ask(&mut self) {
        if self.busy() == 0 {
            return;
        }
        let now = Instant::now();
        let all = now >= self.ask_at;
        if all {
            self.ask_at = now + PATIENCE;
        }
        if all || self.quiet > 0 {
            let slots = self.slots.iter().enumerate();
            let due = slots.filter(|(_, it)| match it.operation.in_flight() {
                true => (all || it.quiet) && it.operation.has_ended(),
                false => all && it.client >= 0,
            });
            self.ended.extend(due.map(|(slot, _)| slot));
        }
    }

    /// The next slot whose operation may have ended.
    pub fn next_ended(&mut self) -> Option<usize> {
        self.ended.pop_front()
    }
}

impl Slot {
    fn sleeps_quietly(&self) -> bool {
        self.quiet && self.operation.in_flight()
    }

    /// The part of its region that this call is still to move.
    pub fn region(&self) -> Region {
        let offset = self.start + self.moved as u64;
        Region { offset, length: self.length - self.moved }
    }

    /// Whether it still is to be submitted.
    pub fn waits(&self) -> bool {
        !self.operation.in_flight()
    }

    pub fn has_ended(&self) -> bool {
        self.operation.has_ended()
    }

    /// Gives the rest of this call to glibc.
    pub fn submit(&mut self) -> nix::Result<()> {
        let (moved, Region { offset, .. }) = (self.moved, self.region());
        let notice = if self.quiet { Notice::none() } else { self.notice };
        match self.call {
            WRITE => self.operation.write(moved, offset, notice),
            _ => self.operation.read(moved, offset, notice),
        }
    }

    /// What became of it.
    pub fn result(&mut self) -> nix::Result<usize> {
        self.operation.result()
    }

    /// `n` bytes were moved. Whether there is more to move: the rest, or, once
    /// all is written, all of it back.
    pub fn moved(&mut self, n: usize) -> bool {
        self.moved += n;
        if self.moved == self.length && self.call == WRITE {
            (self.call, self.moved) = (READ, 0);
            self.failures = 0;
        }
        self.moved < self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_that_failed_is_taken_after_the_others() {
        let spool = Spool::open(None).expect("a file");
        let mut all = Operations::new(spool, 3, 8, Notify::Suspend);
        let take = |all: &mut Operations| all.begin(7, Pending::default());
        assert_eq!(take(&mut all), 0);
        all.fail(0);
        assert_eq!([take(&mut all), take(&mut all)], [1, 2]);
        all.fail(2);
        all.end(1);
        assert_eq!(take(&mut all), 1);
        // Nobody else is left, and one that works again is first again.
        assert_eq!(take(&mut all), 0);
        all.get_mut(0).expect("in use").moved(0);
        all.end(0);
        assert_eq!(take(&mut all), 0);
    }
}

//! Who has how many clients, in memory that all threads and processes share.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};

use nix::unistd::{Pid, getpid};

/// The most reactors that a server starts.
pub const REACTORS: usize = 64;

/// The most reactors that can share a board: those that a server starts, and
/// those that they replace, until the last client of these has left.
pub const SEATS: usize = 4 * REACTORS;

/// A seat for each reactor.
pub struct Board {
    clients: [AtomicUsize; SEATS],
    /// The processes that a client may wake, and, negative, those that cannot
    /// accept just now.
    awake: [AtomicI32; SEATS],
    /// From this number on, no seat has ever been taken.
    end: AtomicUsize,
    /// The process whose turn it is to accept; 0: nobody's.
    accepting: AtomicI32,
    /// Nobody is to accept any more.
    closed: AtomicBool,
}

impl Default for Board {
    fn default() -> Self {
        let clients = [const { AtomicUsize::new(0) }; SEATS];
        Board {
            clients,
            awake: [const { AtomicI32::new(0) }; SEATS],
            end: AtomicUsize::new(0),
            accepting: AtomicI32::new(0),
            closed: AtomicBool::new(false),
        }
    }
}

impl Board {
    /// A board that lives as long as the process and its children.
    pub fn new() -> &'static Self {
        echo::shared()
    }

    /// The clients of all.
    pub fn all(&self) -> usize {
        let taken = &self.clients[..self.end.load(SeqCst)];
        taken.iter().map(|it| it.load(SeqCst)).sum()
    }

    /// From now on nobody accepts. Signals reach one process after the other.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    /// One reactor's place.
    pub fn seat(&'static self, number: usize) -> Seat {
        self.end.fetch_max(number + 1, SeqCst);
        Seat { board: self, number }
    }

    /// The accept mutex, as this process sees it.
    pub fn mutex(&'static self) -> AcceptMutex {
        AcceptMutex { board: self, mine: false }
    }

    /// The mutex is free again if this process, which has ended, had it.
    pub fn release_for(&self, ended: Pid) {
        self.accepting.compare_exchange(ended.as_raw(), 0, SeqCst, SeqCst).ok();
    }
}

/// One reactor's place on the board.
#[derive(Clone, Copy)]
pub struct Seat {
    board: &'static Board,
    number: usize,
}

impl Seat {
    /// How many clients it has, those on their way to it included.
    pub fn clients(self) -> usize {
        self.count().load(SeqCst)
    }

    /// The clients of all at its board.
    pub fn all(self) -> usize {
        self.board.all()
    }

    /// Whether nobody is to accept any more.
    pub fn is_closed(self) -> bool {
        self.board.closed.load(SeqCst)
    }

    /// A client comes.
    pub fn come(self) {
        self.count().fetch_add(1, SeqCst);
    }

    /// A client has gone.
    pub fn leave(self) {
        self.count().fetch_sub(1, SeqCst);
    }

    /// All have gone with the reactor that served them.
    pub fn clear(self) {
        self.retires();
        self.count().store(0, SeqCst);
    }

    /// This process may be woken for a client.
    pub fn wakes(self) {
        self.awake().store(getpid().as_raw(), SeqCst);
    }

    /// It will never be again.
    pub fn retires(self) {
        self.awake().store(0, SeqCst);
    }

    /// It cannot accept just now.
    pub fn rests(self) {
        let (awake, own) = (self.awake(), getpid().as_raw());
        awake.compare_exchange(own, -own, SeqCst, SeqCst).ok();
    }

    /// It can again, for all that it knows.
    pub fn has_room(self) {
        let awake = self.awake();
        let own = -awake.load(SeqCst);
        if own > 0 {
            awake.compare_exchange(-own, own, SeqCst, SeqCst).ok();
        }
    }

    fn awake(self) -> &'static AtomicI32 {
        &self.board.awake[self.number]
    }

    /// Another process that may be woken instead.
    pub fn another_awake(self) -> Option<Pid> {
        let (before, after) = self.board.awake.split_at(self.number);
        let others = after[1..].iter().chain(before);
        let mut pids = others.map(|it| it.load(SeqCst));
        pids.find(|pid| *pid > 0).map(Pid::from_raw)
    }

    fn count(self) -> &'static AtomicUsize {
        &self.board.clients[self.number]
    }
}

/// A lock that nobody sleeps for, and that names its holder: of a process that
/// was killed with it, others can take it.
pub struct AcceptMutex {
    board: &'static Board,
    mine: bool,
}

impl AcceptMutex {
    /// Whether this process has it, now or already.
    pub fn take(&mut self) -> bool {
        if !self.mine {
            let (place, own) = (&self.board.accepting, getpid().as_raw());
            let taken = place.compare_exchange(0, own, SeqCst, SeqCst);
            self.mine = taken.is_ok();
        }
        self.mine
    }

    /// Whether this process has it.
    pub fn is_mine(&self) -> bool {
        self.mine
    }

    /// Others may have it.
    pub fn release(&mut self) {
        if self.mine {
            self.board.release_for(getpid());
            self.mine = false;
        }
    }
}

impl Drop for AcceptMutex {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mutex_of_a_dead_holder_can_be_taken_and_no_other() {
        let board = Board::new();
        let (mut first, mut second) = (board.mutex(), board.mutex());
        assert!(first.take() && first.take());
        assert!(!second.take());
        board.release_for(Pid::from_raw(1));
        assert!(!second.take(), "process 1 did not have it");
        board.release_for(getpid());
        assert!(second.take());
        drop(second);
        assert!(board.mutex().take());
    }

    #[test]
    fn seats_are_counted_one_by_one_and_together() {
        let board = Board::new();
        let (first, second) = (board.seat(0), board.seat(7));
        first.come();
        second.come();
        second.come();
        assert_eq!((first.clients(), second.clients(), first.all()), (1, 2, 3));
        second.leave();
        first.clear();
        assert_eq!(board.all(), 1);
        first.wakes();
        assert_eq!(second.another_awake(), Some(getpid()));
        assert_eq!(first.another_awake(), None);
        first.rests();
        assert_eq!(second.another_awake(), None);
        first.has_room();
        assert_eq!(second.another_awake(), Some(getpid()));
        first.clear();
        first.has_room();
        assert_eq!(second.another_awake(), None, "it has retired");
    }
}

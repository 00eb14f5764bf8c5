//! Who has how many clients, in memory that all threads and processes share.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The most reactors that can share a board.
pub const SEATS: usize = 64;

/// A seat for each reactor.
pub struct Board {
    clients: [AtomicUsize; SEATS],
}

impl Default for Board {
    fn default() -> Self {
        Board { clients: [const { AtomicUsize::new(0) }; SEATS] }
    }
}

impl Board {
    /// A board that lives as long as the process and its children.
    pub fn new() -> &'static Self {
        echo::shared()
    }

    /// The clients of all.
    pub fn all(&self) -> usize {
        self.clients.iter().map(|it| it.load(Relaxed)).sum()
    }

    /// One reactor's place.
    pub fn seat(&'static self, number: usize) -> Seat {
        Seat { clients: &self.clients[number] }
    }
}

/// One reactor's place on the board.
#[derive(Clone, Copy)]
pub struct Seat {
    clients: &'static AtomicUsize,
}

impl Seat {
    /// How many clients it has, those on their way to it included.
    pub fn clients(self) -> usize {
        self.clients.load(Relaxed)
    }

    /// A client comes.
    pub fn come(self) {
        self.clients.fetch_add(1, Relaxed);
    }

    /// A client has gone.
    pub fn leave(self) {
        self.clients.fetch_sub(1, Relaxed);
    }

    /// All have gone with the reactor that served them.
    pub fn clear(self) {
        self.clients.store(0, Relaxed);
    }
}

use echo::Fd;
use libc::pollfd;
use nix::poll::PollFlags;

/// The interest list of poll: memory of this process, and of no use to anyone
/// else. This file is what epoll moves into the kernel.
#[derive(Default)]
pub struct Interests {
    /// Indexed by descriptor, so that nothing is searched for.
    entries: Vec<pollfd>,
}

/// poll(2) passes over an entry whose descriptor is negative.
const HOLE: pollfd = pollfd { fd: -1, events: 0, revents: 0 };

impl Interests {
    pub fn set(&mut self, fd: Fd, wanted: PollFlags) {
        let slot = fd as usize;
        if slot >= self.entries.len() {
            self.entries.resize(slot + 1, HOLE);
        }
        let events = wanted.bits();
        self.entries[slot] = pollfd { fd, events, revents: 0 };
    }

    pub fn remove(&mut self, fd: Fd) {
        self.entries[fd as usize] = HOLE;
    }

    pub fn entries(&mut self) -> &mut [pollfd] {
        &mut self.entries
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Looks through the whole list for the `n` descriptors that are ready:
    /// poll says how many there are, and not which.
    pub fn ready(&self, n: usize) -> impl Iterator<Item = Fd> {
        let ready = self.entries.iter().filter(|entry| entry.revents != 0);
        ready.take(n).map(|entry| entry.fd)
    }
}

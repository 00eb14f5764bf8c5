use echo::Fd;

use crate::sys::FdSet;

/// What is wanted of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Nothing,
    Read,
    Write,
}

/// The sets of wanted descriptors. select itself only ever sees copies of
/// them, because it leaves in them what is ready instead.
#[derive(Default)]
pub struct Interests {
    reads: FdSet,
    writes: FdSet,
    end: Fd,
}

impl Interests {
    pub fn set(&mut self, fd: Fd, wanted: Wanted) {
        self.remove(fd);
        match wanted {
            Wanted::Nothing => {}
            Wanted::Read => self.reads.insert(fd),
            Wanted::Write => self.writes.insert(fd),
        }
        self.end = self.end.max(fd + 1);
    }

    pub fn remove(&mut self, fd: Fd) {
        self.reads.remove(fd);
        self.writes.remove(fd);
    }

    /// Fresh sets to wait with: for reading and for writing.
    pub fn copies(&self) -> (FdSet, FdSet) {
        (self.reads, self.writes)
    }

    /// The kernel, too, looks at the descriptors below this one only.
    pub fn end(&self) -> Fd {
        self.end
    }
}

/// Looks through the sets, bit by bit, for the descriptors that are ready.
pub fn ready(sets: &(FdSet, FdSet), end: Fd) -> impl Iterator<Item = Fd> {
    (0..end).filter(|fd| sets.0.contains(*fd) || sets.1.contains(*fd))
}

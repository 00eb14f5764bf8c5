//! The synchronous event demultiplexer: the one call in which a reactor waits
//! for all its descriptors, behind an interface that all such calls fit.

mod epoll;
mod poll;
mod select;

use std::fmt;
use std::os::fd::BorrowedFd;

use anyhow::Result;
use echo::{Fd, Timeout, Watch};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

pub use epoll::{Epoll, Trigger};
pub use poll::Poll;
pub use select::Select;

/// What a descriptor is registered with, to be found in its events.
pub type Token = u32;

/// What is wanted of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// It is left alone for now.
    Nothing,
    /// Bytes, a client, or an end.
    Read,
    /// Room for more bytes.
    Write,
    /// Either.
    Both,
}

impl Interest {
    /// Whether bytes to read are wanted.
    pub fn reads(self) -> bool {
        matches!(self, Interest::Read | Interest::Both)
    }

    /// Whether room to write is wanted.
    pub fn writes(self) -> bool {
        matches!(self, Interest::Write | Interest::Both)
    }
}

/// What has become of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose it is: what it was registered with.
    pub token: Token,
    /// A read would not block.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
    /// The connection failed, or both its directions are closed.
    pub hung_up: bool,
    /// More than plain bytes may be there to read: the peer's FIN, or an
    /// urgent byte. A read that brings less than was asked for proves nothing.
    pub more: bool,
}

/// Why a descriptor cannot be registered, or its registration changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterError {
    /// It is registered already.
    Twice(Fd),
    /// Nothing is wanted of it, so nothing would ever be heard of it.
    NoInterest(Fd),
    /// It is not registered.
    Unknown(Fd),
    /// It is closed, or none that can be waited for.
    Closed(Fd),
    /// Its number does not fit into the set of select(2).
    TooHigh(Fd),
    /// The kernel has no memory, or no room in its limits (epoll_ctl(2)).
    System(Fd, Errno),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use RegisterError::*;
        match self {
            Twice(fd) => write!(f, "descriptor {fd} is registered already"),
            NoInterest(fd) => {
                write!(f, "nothing is wanted of descriptor {fd}")
            }
            Unknown(fd) => write!(f, "descriptor {fd} is not registered"),
            Closed(fd) => {
                write!(f, "descriptor {fd} is closed, or cannot be waited for")
            }
            TooHigh(fd) => write!(
                f,
                "descriptor {fd} is beyond FD_SETSIZE, {}",
                libc::FD_SETSIZE
            ),
            System(fd, errno) => write!(f, "descriptor {fd}: {errno}"),
        }
    }
}

impl std::error::Error for RegisterError {}

impl RegisterError {
    /// What epoll_ctl(2) means by this error.
    fn of(fd: Fd, errno: Errno) -> Self {
        match errno {
            Errno::EEXIST => RegisterError::Twice(fd),
            Errno::ENOENT => RegisterError::Unknown(fd),
            Errno::EBADF | Errno::EPERM => RegisterError::Closed(fd),
            errno => RegisterError::System(fd, errno),
        }
    }
}

/// Waits for many descriptors at once.
pub trait Demultiplexer {
    /// The call that it waits in.
    fn name(&self) -> &'static str;

    /// Whether it tells of each change once, and not of what is still so.
    fn tells_changes(&self) -> bool {
        false
    }

    /// Waits for this descriptor too, from now on.
    fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> Result<(), RegisterError>;

    /// Something else is wanted of it; `Nothing` leaves it alone for a while.
    fn modify(
        &mut self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> Result<(), RegisterError>;

    /// Waits for it no longer; it stays open.
    fn remove(&mut self, fd: BorrowedFd<'_>) -> Result<(), RegisterError>;

    /// Its owner is about to close it.
    fn closing(&mut self, fd: Fd);

    /// Sleeps until one of them is ready or the time is over, and adds to
    /// `events` what has become of them. A signal may end it early.
    fn wait(&mut self, timeout: Timeout, events: &mut Vec<Event>)
    -> Result<()>;
}

/// The best that this system offers: epoll, then poll, then select. A
/// container may forbid the system calls of the first.
pub fn best<W: Watch>(watch: W) -> Box<dyn Demultiplexer> {
    match Epoll::new(Trigger::Level, watch) {
        Ok(epoll) => Box::new(epoll),
        Err(_) if Poll::new(watch).works() => Box::new(Poll::new(watch)),
        Err(_) => Box::new(Select::new(watch)),
    }
}

/// A set of descriptors, a bit for each.
#[derive(Default)]
struct Known(Vec<u64>);

impl Known {
    fn contains(&self, fd: Fd) -> bool {
        let (word, bit) = (fd as usize / 64, fd as usize % 64);
        self.0.get(word).is_some_and(|word| word & 1 << bit != 0)
    }

    fn insert(&mut self, fd: Fd) {
        let (word, bit) = (fd as usize / 64, fd as usize % 64);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    /// Whether it was there.
    fn remove(&mut self, fd: Fd) -> bool {
        let there = self.contains(fd);
        if there {
            self.0[fd as usize / 64] &= !(1 << (fd as usize % 64));
        }
        there
    }
}

/// select and poll learn of a closed descriptor only when they wait, and then
/// select does not say which it was.
fn ensure_open(fd: BorrowedFd<'_>) -> Result<(), RegisterError> {
    use std::os::fd::AsRawFd;
    match fcntl(fd, FcntlArg::F_GETFD) {
        Ok(_) => Ok(()),
        Err(_) => Err(RegisterError::Closed(fd.as_raw_fd())),
    }
}

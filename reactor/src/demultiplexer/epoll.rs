use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use echo::{Fd, Timeout, Watch};
use nix::errno::Errno;
use nix::sys::epoll::{EpollCreateFlags, EpollEvent, EpollFlags};

use super::{Demultiplexer, Event, Interest, Known, RegisterError, Token};
/// The most events that one wait brings.
const BATCH: usize = 256;

/// When a descriptor is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// By each wait, as long as it is ready.
    Level,
    /// Once, when it becomes so. Interests need not be changed then: the
    /// reactor knows what it is waiting for, and looks away from the rest.
    Edge,
}

/// epoll(7): the list of interests lives in the kernel.
pub struct Epoll<W> {
    list: nix::sys::epoll::Epoll,
    trigger: Trigger,
    exclusive: Option<Fd>,
    known: Known,
    registered: usize,
    events: Vec<EpollEvent>,
    ready: Vec<Fd>,
    watch: W,
}

impl<W: Watch> Epoll<W> {
    /// An empty list.
    ///
    /// # Errors
    ///
    /// Those of epoll_create1(2).
    pub fn new(trigger: Trigger, watch: W) -> Result<Self> {
        let flags = EpollCreateFlags::EPOLL_CLOEXEC;
        Ok(Epoll {
            list: nix::sys::epoll::Epoll::new(flags)
                .context("epoll_create1")?,
            trigger,
            exclusive: None,
            known: Known::default(),
            registered: 0,
            events: vec![EpollEvent::empty(); BATCH],
            ready: Vec::with_capacity(BATCH),
            watch,
        })
    }

    /// This descriptor, which is on the lists of others too, wakes only one of
    /// them: EPOLLEXCLUSIVE, epoll_ctl(2).
    pub fn exclusive(mut self, fd: Fd) -> Self {
        self.exclusive = Some(fd);
        self
    }

    fn flags(&self, fd: Fd, interest: Interest) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        if self.exclusive == Some(fd) {
            // With EPOLLRDHUP, and others, it is EINVAL.
            return EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        }
        if self.trigger == Trigger::Edge {
            return EpollFlags::EPOLLIN
                | EpollFlags::EPOLLOUT
                | EpollFlags::EPOLLPRI
                | EpollFlags::EPOLLRDHUP
                | EpollFlags::EPOLLET;
        }
        flags.set(EpollFlags::EPOLLIN, interest.reads());
        flags.set(EpollFlags::EPOLLOUT, interest.writes());
        // epoll_ctl(2): an end is told in any case, and by each wait; unless
        // it was an edge.
        flags.set(EpollFlags::EPOLLET, interest == Interest::Nothing);
        flags
    }
}

/// What the kernel keeps with a descriptor, and gives back.
fn packed(fd: Fd, token: Token) -> u64 {
    (fd as u64) << 32 | u64::from(token)
}

impl<W: Watch> Demultiplexer for Epoll<W> {
    fn name(&self) -> &'static str {
        "epoll_wait"
    }

    fn tells_changes(&self) -> bool {
        self.trigger == Trigger::Edge
    }

    fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> Result<(), RegisterError> {
        let number = fd.as_raw_fd();
        if interest == Interest::Nothing {
            return Err(RegisterError::NoInterest(number));
        }
        let flags = self.flags(number, interest);
        let event = EpollEvent::new(flags, packed(number, token));
        self.watch
            .ask("epoll_ctl", number, || self.list.add(fd, event))
            .map_err(|errno| RegisterError::of(number, errno))?;
        self.known.insert(number);
        self.registered += 1;
        Ok(())
    }

    fn modify(
        &mut self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> Result<(), RegisterError> {
        let number = fd.as_raw_fd();
        if !self.known.contains(number) {
            return Err(RegisterError::Unknown(number));
        }
        let exclusive = self.exclusive == Some(number);
        if self.trigger == Trigger::Edge && !exclusive {
            return Ok(());
        }
        let flags = self.flags(number, interest);
        let mut event = EpollEvent::new(flags, packed(number, token));
        let change = || match exclusive {
            false => self.list.modify(fd, &mut event),
            // It cannot be changed, only taken off the list: epoll_ctl(2).
            true if interest == Interest::Nothing => self.list.delete(fd),
            true => self.list.add(fd, event),
        };
        self.watch
            .ask("epoll_ctl", number, change)
            .map_err(|errno| RegisterError::of(number, errno))
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> Result<(), RegisterError> {
        let number = fd.as_raw_fd();
        self.watch
            .ask("epoll_ctl", number, || self.list.delete(fd))
            .map_err(|errno| RegisterError::of(number, errno))?;
        self.closing(number);
        Ok(())
    }

    /// epoll(7): closing the last descriptor also ends the interest in it.
    fn closing(&mut self, fd: Fd) {
        self.registered -= usize::from(self.known.remove(fd));
    }

    fn wait(
        &mut self,
        timeout: Timeout,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let wait = || self.list.wait(&mut self.events, timeout);
        let n = match self.watch.wait("epoll_wait", self.registered, wait) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(err) => return Err(err).context("cannot wait"),
        };
        const FAILED: EpollFlags =
            EpollFlags::EPOLLERR.union(EpollFlags::EPOLLHUP);
        const MORE: EpollFlags =
            EpollFlags::EPOLLRDHUP.union(EpollFlags::EPOLLPRI).union(FAILED);
        self.ready.clear();
        for event in &self.events[..n] {
            let (data, told) = (event.data(), event.events());
            let has = |flags| told.intersects(flags);
            self.ready.push((data >> 32) as Fd);
            events.push(Event {
                token: data as Token,
                readable: has(EpollFlags::EPOLLIN | MORE),
                writable: has(EpollFlags::EPOLLOUT | FAILED),
                hung_up: has(FAILED),
                more: has(MORE),
            });
        }
        self.watch.ready(&self.ready, n);
        Ok(())
    }
}

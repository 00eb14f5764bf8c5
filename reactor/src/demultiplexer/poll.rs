use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use echo::{Fd, Timeout, Watch};
use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, pollfd};
use nix::errno::Errno;

use super::{Demultiplexer, Event, Interest, RegisterError, ensure_open};
use crate::sys;

/// poll(2): the list of interests is an array of this process.
pub struct Poll<W> {
    /// Indexed by descriptor; a hole has a negative one.
    entries: Vec<pollfd>,
    known: Vec<bool>,
    ready: Vec<Fd>,
    watch: W,
}

const HOLE: pollfd = pollfd { fd: -1, events: 0, revents: 0 };

impl<W: Watch> Poll<W> {
    /// An empty list.
    pub fn new(watch: W) -> Self {
        Poll { entries: vec![], known: vec![], ready: vec![], watch }
    }

    /// Whether this system lets a process call it at all.
    pub(super) fn works(&self) -> bool {
        sys::poll(&mut [], Timeout::ZERO).is_ok()
    }

    fn is_known(&self, fd: Fd) -> bool {
        self.known.get(fd as usize) == Some(&true)
    }

    fn set(&mut self, fd: Fd, interest: Interest) {
        let mut entry = HOLE;
        if interest != Interest::Nothing {
            entry.fd = fd;
        }
        if interest.reads() {
            entry.events |= POLLIN;
        }
        if interest.writes() {
            entry.events |= POLLOUT;
        }
        self.entries[fd as usize] = entry;
    }
}

impl<W: Watch> Demultiplexer for Poll<W> {
    fn name(&self) -> &'static str {
        "poll"
    }

    fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        interest: Interest,
    ) -> Result<(), RegisterError> {
        let number = fd.as_raw_fd();
        if interest == Interest::Nothing {
            return Err(RegisterError::NoInterest(number));
        }
        if self.is_known(number) {
            return Err(RegisterError::Twice(number));
        }
        ensure_open(fd)?;
        let slot = number as usize;
        if slot >= self.entries.len() {
            self.entries.resize(slot + 1, HOLE);
            self.known.resize(slot + 1, false);
        }
        self.known[slot] = true;
        self.set(number, interest);
        Ok(())
    }

    fn modify(
        &mut self,
        fd: BorrowedFd<'_>,
        interest: Interest,
    ) -> Result<(), RegisterError> {
        let fd = fd.as_raw_fd();
        if !self.is_known(fd) {
            return Err(RegisterError::Unknown(fd));
        }
        self.set(fd, interest);
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> Result<(), RegisterError> {
        self.modify(fd, Interest::Nothing)?;
        self.closing(fd.as_raw_fd());
        Ok(())
    }

    fn closing(&mut self, fd: Fd) {
        if self.is_known(fd) {
            self.set(fd, Interest::Nothing);
            self.known[fd as usize] = false;
        }
    }

    fn wait(
        &mut self,
        timeout: Timeout,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let asked = self.entries.len();
        let wait = || sys::poll(&mut self.entries, timeout);
        let n = match self.watch.wait("poll", asked, wait) {
            Ok(n) => n as usize,
            Err(Errno::EINTR) => 0,
            Err(err) => return Err(err).context("cannot wait"),
        };
        self.ready.clear();
        // poll says how many are ready, and not which.
        let ready = self.entries.iter().filter(|it| it.revents != 0);
        for entry in ready.take(n) {
            let has = |flags| entry.revents & flags != 0;
            let failed = has(POLLERR | POLLHUP | POLLNVAL);
            self.ready.push(entry.fd);
            events.push(Event {
                fd: entry.fd,
                readable: has(POLLIN) || failed,
                writable: has(POLLOUT) || failed,
                hung_up: failed,
                more: true,
            });
        }
        self.watch.ready(&self.ready, asked);
        Ok(())
    }
}

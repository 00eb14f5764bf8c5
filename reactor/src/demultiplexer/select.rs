use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use echo::{Fd, Timeout, Watch};
use nix::errno::Errno;

use super::{
    Demultiplexer, Event, Interest, RegisterError, Token, ensure_open,
};
use crate::sys::{self, FdSet};

/// select(2): the interests are sets, which each call overwrites.
pub struct Select<W> {
    known: FdSet,
    reads: FdSet,
    writes: FdSet,
    end: Fd,
    /// Indexed by descriptor.
    tokens: Vec<Token>,
    registered: usize,
    ready: Vec<Fd>,
    watch: W,
}

impl<W: Watch> Select<W> {
    /// Empty sets.
    pub fn new(watch: W) -> Self {
        let set = FdSet::default();
        let [known, reads, writes] = [set; 3];
        let (end, registered) = (0, 0);
        let (tokens, ready) = (vec![], vec![]);
        Select { known, reads, writes, end, tokens, registered, ready, watch }
    }

    /// One of the descriptors was closed while it was registered, which its
    /// handler is told of as an end.
    fn closed_ones(&self, events: &mut Vec<Event>) {
        let known = (0..self.end).filter(|fd| self.known.contains(*fd));
        for fd in known.filter(|fd| !sys::is_open(*fd)) {
            events.push(Event {
                token: self.tokens[fd as usize],
                readable: true,
                writable: true,
                hung_up: true,
                more: true,
            });
        }
    }
}

impl<W: Watch> Demultiplexer for Select<W> {
    fn name(&self) -> &'static str {
        "select"
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
        // FD_SET does not look: it would write beside the set, select(2).
        if !sys::fits(number) {
            return Err(RegisterError::TooHigh(number));
        }
        if self.known.contains(number) {
            return Err(RegisterError::Twice(number));
        }
        ensure_open(fd)?;
        self.known.insert(number);
        self.end = self.end.max(number + 1);
        self.tokens.resize(self.end as usize, 0);
        self.registered += 1;
        self.modify(fd, token, interest)
    }

    fn modify(
        &mut self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> Result<(), RegisterError> {
        let fd = fd.as_raw_fd();
        if !sys::fits(fd) || !self.known.contains(fd) {
            return Err(RegisterError::Unknown(fd));
        }
        self.tokens[fd as usize] = token;
        self.reads.set(fd, interest.reads());
        self.writes.set(fd, interest.writes());
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> Result<(), RegisterError> {
        self.modify(fd, 0, Interest::Nothing)?;
        self.closing(fd.as_raw_fd());
        Ok(())
    }

    fn closing(&mut self, fd: Fd) {
        if sys::fits(fd) && self.known.contains(fd) {
            for set in [&mut self.known, &mut self.reads, &mut self.writes] {
                set.set(fd, false);
            }
            self.registered -= 1;
        }
    }

    fn wait(
        &mut self,
        timeout: Timeout,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let (mut reads, mut writes) = (self.reads, self.writes);
        let end = self.end;
        let wait = || sys::select(end, &mut reads, &mut writes, timeout);
        self.ready.clear();
        match self.watch.wait("select", self.registered, wait) {
            Ok(_) => {}
            Err(Errno::EINTR) => {
                self.watch.ready(&self.ready, 0);
                return Ok(());
            }
            Err(Errno::EBADF) => {
                self.closed_ones(events);
                return Ok(());
            }
            Err(err) => return Err(err).context("cannot wait"),
        }
        // The sets say who is ready by their bits alone.
        for fd in 0..end {
            let (readable, writable) =
                (reads.contains(fd), writes.contains(fd));
            if readable || writable {
                self.ready.push(fd);
                let token = self.tokens[fd as usize];
                let (hung_up, more) = (false, true);
                events.push(Event { token, readable, writable, hung_up, more });
            }
        }
        self.watch.ready(&self.ready, end as usize);
        Ok(())
    }
}

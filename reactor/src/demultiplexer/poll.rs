use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use echo::{Fd, Timeout, Watch};
use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, pollfd};
use nix::errno::Errno;

use super::{
    Demultiplexer, Event, Interest, RegisterError, Token, ensure_open,
};
use crate::sys;

/// poll(2): the list of interests is an array of this process.
pub struct Poll<W> {
    entries: Vec<pollfd>,
    /// As `entries`.
    tokens: Vec<Token>,
    /// Where a descriptor stands in them; indexed by descriptor.
    places: Vec<u32>,
    ready: Vec<Fd>,
    watch: W,
}

const NOWHERE: u32 = u32::MAX;

impl<W: Watch> Poll<W> {
    /// An empty list.
    pub fn new(watch: W) -> Self {
        let (entries, tokens, places) = (vec![], vec![], vec![]);
        Poll { entries, tokens, places, ready: vec![], watch }
    }

    /// Whether this system lets a process call it at all.
    pub(super) fn works(&self) -> bool {
        sys::poll(&mut [], Timeout::ZERO).is_ok()
    }

    fn place(&self, fd: Fd) -> Option<usize> {
        let place = self.places.get(fd as usize).copied();
        place.filter(|place| *place != NOWHERE).map(|place| place as usize)
    }
}

/// poll(2) passes over an entry whose descriptor is negative: `!fd` is.
fn entry(fd: Fd, interest: Interest) -> pollfd {
    let mut events = 0;
    if interest.reads() {
        events |= POLLIN;
    }
    if interest.writes() {
        events |= POLLOUT;
    }
    let fd = if interest == Interest::Nothing { !fd } else { fd };
    pollfd { fd, events, revents: 0 }
}

impl<W: Watch> Demultiplexer for Poll<W> {
    fn name(&self) -> &'static str {
        "poll"
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
        if self.place(number).is_some() {
            return Err(RegisterError::Twice(number));
        }
        ensure_open(fd)?;
        if number as usize >= self.places.len() {
            self.places.resize(number as usize + 1, NOWHERE);
        }
        self.places[number as usize] = self.entries.len() as u32;
        self.entries.push(entry(number, interest));
        self.tokens.push(token);
        Ok(())
    }

    fn modify(
        &mut self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> Result<(), RegisterError> {
        let fd = fd.as_raw_fd();
        let place = self.place(fd).ok_or(RegisterError::Unknown(fd))?;
        self.entries[place] = entry(fd, interest);
        self.tokens[place] = token;
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> Result<(), RegisterError> {
        let fd = fd.as_raw_fd();
        self.place(fd).ok_or(RegisterError::Unknown(fd))?;
        self.closing(fd);
        Ok(())
    }

    /// The last one takes its place, so that the list has no holes.
    fn closing(&mut self, fd: Fd) {
        let Some(place) = self.place(fd) else { return };
        self.places[fd as usize] = NOWHERE;
        self.entries.swap_remove(place);
        self.tokens.swap_remove(place);
        if let Some(moved) = self.entries.get(place) {
            let fd = if moved.fd < 0 { !moved.fd } else { moved.fd };
            self.places[fd as usize] = place as u32;
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
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(err) => return Err(err).context("cannot wait"),
        };
        self.ready.clear();
        // poll says how many are ready, and not which.
        let all = self.entries.iter().zip(&self.tokens);
        let ready = all.filter(|(entry, _)| entry.revents != 0);
        for (entry, token) in ready.take(n) {
            let has = |flags| entry.revents & flags != 0;
            let failed = has(POLLERR | POLLHUP | POLLNVAL);
            self.ready.push(entry.fd);
            events.push(Event {
                token: *token,
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

//! What an engine does itself that is told of readiness and no more: to accept
//! a client, and to read the signal that asks to stop.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;

use echo::{Fd, Listener, Watch, accept4};
use nix::errno::Errno;
use nix::sys::socket::SockFlag;

use crate::processor::{Done, SIGNAL};
use crate::sys;

/// An accept that is tried at once, and again when the listener is ready.
pub struct Accept<W> {
    /// One is under way, of this listener; or -1.
    listener: Fd,
    /// It is to be tried again.
    ready: bool,
    /// What the client's socket is to be.
    flags: SockFlag,
    watch: W,
}

impl<W: Watch> Accept<W> {
    pub fn new(flags: SockFlag, watch: W) -> Self {
        Accept { listener: -1, ready: false, flags, watch }
    }

    /// Begins one, or goes on with it. If there is no client yet, it stays
    /// under way.
    pub fn attempt(&mut self, listener: &Listener) -> Option<Done> {
        if self.listener < 0 {
            self.listener = listener.fd();
            self.watch.submitted("accept", self.listener, 0);
        }
        self.ready = false;
        let take = || accept4(listener, self.flags);
        match self.watch.take("accept4", listener, take) {
            Err(Errno::EAGAIN) => None,
            result => {
                let socket = result.as_ref().map(|it| it.as_raw_fd() as usize);
                self.end(number(socket.map_err(|errno| *errno)));
                Some(Done::Accepted(result))
            }
        }
    }

    /// It waits for this listener to be ready; -1 if it does not.
    pub fn waits_for(&self) -> Fd {
        if self.ready { -1 } else { self.listener }
    }

    /// The listener is ready. It is tried when it is next asked for, by
    /// whoever has the listener.
    pub fn again(&mut self) {
        self.ready = true;
    }

    pub fn cancel(&mut self) {
        self.end(-(Errno::ECANCELED as i32));
    }

    fn end(&mut self, result: i32) {
        if self.listener >= 0 {
            self.watch.completed("accept", self.listener, result);
        }
        self.listener = -1;
    }
}

/// Reads all the signals that there are, and so ends a read that was under way.
pub fn read_stop<W: Watch>(stop: Fd, done: &mut VecDeque<Done>, watch: W) {
    while sys::read(stop, &mut [0; SIGNAL]) == Ok(SIGNAL) {
        watch.completed("read", stop, SIGNAL as i32);
        done.push_back(Done::Stop);
        watch.submitted("read", stop, SIGNAL);
    }
}

/// A result as a completion queue has it.
pub fn number(result: nix::Result<usize>) -> i32 {
    result.map_or_else(|errno| -(errno as i32), |n| n as i32)
}

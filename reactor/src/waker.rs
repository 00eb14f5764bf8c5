//! Messages from other threads: a queue, and an eventfd(2) that becomes
//! readable with it. The wait is interrupted by a descriptor like any other.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use echo::{Gone, Watch};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{read, write};

use crate::demultiplexer::Interest;
use crate::reactor::{Handler, Next, Reactor};

/// Room for so many messages is made at once.
const BATCH: usize = 64;

struct Queue<T> {
    messages: Mutex<Vec<T>>,
    wake: EventFd,
}

impl<T> Queue<T> {
    fn put(&self, message: T) -> bool {
        let mut messages =
            self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(message);
        messages.len() == 1
    }

    fn swap(&self, with: &mut Vec<T>) {
        let mut messages =
            self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut *messages, with);
    }
}

/// Sends messages to a reactor, from any thread.
pub struct Sender<T, W> {
    queue: Arc<Queue<T>>,
    watch: W,
}

impl<T, W: Watch> Clone for Sender<T, W> {
    fn clone(&self) -> Self {
        Sender { queue: Arc::clone(&self.queue), watch: self.watch }
    }
}

impl<T, W: Watch> Sender<T, W> {
    /// The reactor's next wait returns, if it has not been told already: many
    /// messages may come of one wake-up.
    pub fn send(&self, message: T) {
        if self.queue.put(message) {
            let wake = &self.queue.wake;
            let one = 1u64.to_ne_bytes();
            let tell = || self.watch.copy("write", wake, || write(wake, &one));
            // Else it fails only with a full counter, which is readable too.
            while tell() == Err(Errno::EINTR) {}
        }
    }
}

/// The other end, which a thread takes to its reactor.
pub struct Receiver<T, W> {
    queue: Arc<Queue<T>>,
    watch: W,
}

/// Where a reactor gets messages: a service that gives each to `take`.
pub struct Inbox<T, F, W> {
    queue: Arc<Queue<T>>,
    batch: Vec<T>,
    take: F,
    watch: W,
}

/// A way for messages into a reactor.
///
/// # Errors
///
/// Those of eventfd(2).
pub fn channel<T, W: Watch>(
    watch: W,
) -> Result<(Sender<T, W>, Receiver<T, W>)> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let wake = EventFd::from_flags(flags).context("eventfd")?;
    watch.name(wake.as_fd().as_raw_fd(), "wake-ups");
    let messages = Mutex::new(Vec::with_capacity(BATCH));
    let queue = Arc::new(Queue { messages, wake });
    let sender = Sender { queue: Arc::clone(&queue), watch };
    Ok((sender, Receiver { queue, watch }))
}

impl<T, W> Receiver<T, W> {
    /// The service that calls `take` for each message.
    pub fn inbox<F>(self, take: F) -> Inbox<T, F, W> {
        let Receiver { queue, watch } = self;
        Inbox { queue, batch: Vec::with_capacity(BATCH), take, watch }
    }
}

impl<C, T, F, W> Handler<C> for Inbox<T, F, W>
where
    C: Handler,
    F: FnMut(T, &mut Reactor<C>),
    W: Watch,
{
    fn fd(&self) -> BorrowedFd<'_> {
        self.queue.wake.as_fd()
    }

    /// First the counter is emptied, then the queue: what is put into it from
    /// now on wakes again.
    fn readable(&mut self, reactor: &mut Reactor<C>) -> Result<Next, Gone> {
        let (wake, mut count) = (&self.queue.wake, [0; 8]);
        let copy = || read(wake, &mut count);
        if self.watch.copy("read", wake, copy) == Err(Errno::EINTR) {
            return Ok(Next::Again(Interest::Read));
        }
        self.queue.swap(&mut self.batch);
        for message in self.batch.drain(..) {
            (self.take)(message, reactor);
        }
        Ok(Next::Wait(Interest::Read))
    }

    /// What others still have to say counts also during the grace.
    fn stopping(&mut self, _: &mut Reactor<C>) -> Result<Next, Gone> {
        Ok(Next::Same)
    }
}

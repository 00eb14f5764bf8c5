//! A thread for each client: each of them sleeps in its own `recv`, and none
//! waits for another.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, sleep};
use std::time::Duration;

use anyhow::Result;
use echo::{Listener, Scratch, Stop, StopFlag, Watch, accept4};
use nix::errno::Errno;
use nix::sys::socket::SockFlag;

use crate::{Connection, rest};

/// What a thread needs besides its buffer, with room to spare.
const STACK: usize = 128 * 1024;

pub struct EventLoop<W> {
    listener: Listener,
    stop: StopFlag,
    /// Every thread holds a copy, so that the copies count the threads.
    threads: Arc<()>,
    watch: W,
}

impl<W: Watch> EventLoop<W> {
    pub fn new(listener: Listener, stop: StopFlag, watch: W) -> Self {
        EventLoop { listener, stop, threads: Arc::new(()), watch }
    }

    pub fn run(mut self) -> Result<()> {
        while !self.stop.asked() {
            self.on_acceptable()?;
        }
        self.on_stop();
        Ok(())
    }

    /// Takes one client and goes back to accept the next.
    fn on_acceptable(&mut self) -> Result<()> {
        let threads = Arc::downgrade(&self.threads);
        let threads = || threads.strong_count() - 1;
        rest(&mut self.listener, self.stop, threads);
        let listener = self.listener.as_fd();
        let take = || accept4(listener, SockFlag::empty());
        match self.watch.take("accept4", listener, take) {
            Ok(socket) => self.on_accepted(socket),
            // A stop has shut the listener down.
            Err(Errno::EINVAL) if self.stop.asked() => {}
            Err(err) => self.listener.on_error(err, threads())?,
        }
        Ok(())
    }

    fn on_accepted(&mut self, socket: OwnedFd) {
        let Self { stop, watch, .. } = *self;
        let mut scratch = Scratch::new(self.listener.buffer());
        let counted = Arc::clone(&self.threads);
        let thread = move || {
            Connection::new(socket, &mut scratch, stop, watch).run();
            drop(counted);
        };
        // pthread_create(3): EAGAIN, the system's limit of threads.
        if let Err(err) = Builder::new().stack_size(STACK).spawn(thread) {
            self.listener.refused(&format!("no thread for it: {err}"));
            self.listener.pause_accepting(Arc::strong_count(&self.threads) - 1);
        }
    }

    /// Threads that sleep in a call are woken; each takes leave of its client.
    fn on_stop(&mut self) {
        self.listener.close();
        self.stop.interrupt_all();
        while Arc::strong_count(&self.threads) > 1 && !self.stop.overdue() {
            sleep(Duration::from_millis(1));
        }
    }
}

//! A process for each client: fork copies this one, and the copy sleeps in its
//! own `recv`. What a child breaks, leaks or changes dies with it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use echo::{Listener, Scratch, Stop, StopFlag, Watch, accept4};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::SockFlag;
use nix::unistd::close;

use crate::sys::{self, Children};
use crate::{Connection, rest};

pub struct EventLoop<W> {
    listener: Listener,
    stop: StopFlag,
    watch: W,
}

impl<W: Watch> EventLoop<W> {
    pub fn new(listener: Listener, stop: StopFlag, watch: W) -> Self {
        EventLoop { listener, stop, watch }
    }

    pub fn run(mut self) -> Result<()> {
        let children = Children::reaped_at_once()?;
        while !self.stop.asked() {
            self.on_acceptable(&children)?;
        }
        self.on_stop(&children);
        Ok(())
    }

    /// Takes one client and goes back to accept the next. The signal of a
    /// child that has ended interrupts this (EINTR), and that is all.
    fn on_acceptable(&mut self, children: &Children) -> Result<()> {
        rest(&mut self.listener, self.stop, || children.len());
        let listener = self.listener.as_fd();
        let take = || accept4(listener, SockFlag::empty());
        match self.watch.take("accept4", listener, take) {
            Ok(socket) => self.on_accepted(socket, children),
            // A stop has shut the listener down.
            Err(Errno::EINVAL) if self.stop.asked() => {}
            Err(err) => self.listener.on_error(err, children.len())?,
        }
        Ok(())
    }

    /// Both processes now hold both descriptors, and each closes the one that
    /// is not its own: a connection ends only when the last holder closes it.
    fn on_accepted(&mut self, socket: OwnedFd, children: &Children) {
        let fd = socket.as_raw_fd();
        match self.watch.ask("fork", fd, || children.fork()) {
            Ok(None) => {
                self.listener.close();
                let mut scratch = Scratch::new(self.listener.buffer());
                let Self { stop, watch, .. } = *self;
                Connection::new(socket, &mut scratch, stop, watch).run();
                drop(scratch);
                sys::exit()
            }
            Ok(Some(_)) => {
                self.watch.ask("close", fd, || close(socket)).ok();
            }
            // fork(2): EAGAIN, ENOMEM.
            Err(err) => {
                self.listener.refused(&format!("no process for it: {err}"));
                self.listener.pause_accepting(children.len());
            }
        }
    }

    /// Each child is told to stop and takes leave of its client.
    fn on_stop(&mut self, children: &Children) {
        self.listener.close();
        children.signal(Signal::SIGTERM);
        while children.len() > 0 && !self.stop.overdue() {
            sleep(Duration::from_millis(1));
        }
        children.signal(Signal::SIGKILL);
    }
}

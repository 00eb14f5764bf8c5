//! io_uring: the kernel carries the operations out. They go to it by one
//! queue and come back by another, in memory that both share: io_uring(7).

pub mod buffers;
#[cfg(test)]
mod model;
mod multishot;
mod probe;
mod single;
mod sys;
#[cfg(test)]
mod tests;
mod workers;

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use buffers::Buffer;
use echo::{Fd, Listener, Stop, StopFd, Timeout, Unwatched, Watch};
use io_uring::IoUring;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::EventLoop;
use crate::bytes::Bytes;
use crate::flags::{Flags, Recv};
use multishot::Multishot;
use probe::Offers;
use single::Single;
use sys::Ring;

/// A submission queue and a completion queue.
pub trait Queues {
    /// A client whose operations will follow.
    fn adopt(&mut self, client: Fd);

    /// A client of whom none follows, and none is under way.
    fn release(&mut self, client: Fd);

    /// Submits an accept: of one client, or of all that will come.
    fn accept(&mut self, listener: Fd, all: bool);

    /// Submits a recv into this memory, which is lent for it.
    fn recv(&mut self, client: Fd, memory: Vec<u8>);

    /// Submits a recv of all that will come, into provided buffers; it ends
    /// after so many bytes, if `limit` is not 0.
    fn recv_all(&mut self, client: Fd, limit: usize);

    /// Submits a send of these bytes, which are lent for it.
    fn send(&mut self, client: Fd, bytes: Bytes);

    /// The same of a send that does not wait: it may send less, or nothing
    /// (EAGAIN), but is over soon, whether the peer reads or not.
    fn send_now(&mut self, client: Fd, bytes: Bytes);

    /// Submits a read.
    fn read(&mut self, fd: Fd, length: usize);

    /// Submits the wish that all that is under way for this client may end.
    fn cancel(&mut self, client: Fd);

    /// The same of its recv only.
    fn cancel_recv(&mut self, client: Fd);

    /// The same of an accept. It may come to that after the listener has been
    /// closed here.
    fn cancel_accept(&mut self, listener: Fd);

    /// Hands over all that was submitted, and sleeps until something is done;
    /// whether it came to that.
    fn enter(&mut self, timeout: Timeout) -> nix::Result<bool>;

    /// The next operation that is done.
    fn next(&mut self) -> Option<Completion>;

    /// What these bytes are.
    fn bytes<'a>(&'a self, bytes: &'a Bytes) -> &'a [u8];

    /// How many provided buffers the kernel has.
    fn free(&self) -> usize;

    /// Provides a buffer once more.
    fn give_back(&mut self, buffer: Buffer);
}

/// What came out of a completion queue, with what was lent for it.
pub enum Completion {
    /// A client; whether there may be more of the same accept.
    Accepted(nix::Result<OwnedFd>, bool),
    /// A recv or read is over.
    Received(Fd, nix::Result<()>, Bytes),
    /// A recv of all that comes has filled a buffer, or says why not; `more`
    /// if it goes on.
    Arrived {
        fd: Fd,
        result: nix::Result<usize>,
        buffer: Option<Buffer>,
        more: bool,
    },
    /// A send is over.
    Sent(Fd, nix::Result<usize>, Bytes),
}

/// How a ring is to be made.
#[derive(Clone)]
pub struct Setup {
    /// How many submissions it takes before it must be entered.
    pub entries: u32,
    /// The most that one receive brings.
    pub buffer: usize,
    /// How many buffers are provided.
    pub buffers: u16,
    pub sqpoll: Option<Duration>,
    pub registered: bool,
    pub zero_copy: bool,
    /// Whether task work waits for who submitted, where that helps.
    pub deferred: bool,
}

impl Setup {
    pub fn builder(&self) -> io_uring::Builder {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(4 * self.entries);
        // One submission that fails does not keep the others from theirs.
        builder.setup_submit_all();
        if let Some(idle) = self.sqpoll {
            builder.setup_sqpoll(idle.as_millis() as u32);
        } else if self.deferred && self.buffers > 0 {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        builder
    }
}

pub fn serve<W: Watch>(
    listener: Listener,
    stop: StopFd,
    flags: &Flags,
    watch: W,
) -> Result<()> {
    let setup = Setup {
        entries: 1024,
        buffer: listener.buffer(),
        buffers: match flags.recv() {
            Recv::Single => 0,
            Recv::Multishot => flags.buffers(),
        },
        sqpoll: flags.sqpoll,
        registered: flags.registered,
        zero_copy: flags.zero_copy,
        deferred: true,
    };
    let setup = Offers::ask(watch)?.fit(setup)?;
    match flags.workers {
        1 => serve_one(listener, stop, setup, watch),
        count => workers::serve(listener, stop, &setup, count, watch),
    }
}

/// Serves by one ring, in this thread.
fn serve_one<W: Watch>(
    listener: Listener,
    stop: StopFd,
    setup: Setup,
    watch: W,
) -> Result<()> {
    blocking(&stop, watch)?;
    let (buffer, multishot) = (setup.buffer, setup.buffers > 0);
    let ring = Ring::new(setup, watch).context("io_uring_setup")?;
    if multishot {
        let processor = Multishot::new(ring, stop.fd(), buffer, watch);
        EventLoop::new(listener, stop, processor).run()
    } else {
        let processor = Single::new(ring, stop.fd(), watch);
        EventLoop::new(listener, stop, processor).run()
    }
}

/// A read of a descriptor that does not block ends with EAGAIN at once; the
/// ring, and a thread, wait for those that do.
fn blocking<W: Watch>(stop: &StopFd, watch: W) -> Result<()> {
    let blocking = FcntlArg::F_SETFL(OFlag::empty());
    watch.ask("fcntl", stop.fd(), || fcntl(stop, blocking))?;
    Ok(())
}

/// Says what there is, and ends the process.
pub fn probe_and_end() -> ! {
    match Offers::ask(Unwatched) {
        Ok(offers) => println!("{}", offers.sentence()),
        Err(why) => {
            echo::say(&format!("{why:#}"));
            std::process::exit(1);
        }
    }
    std::process::exit(0)
}

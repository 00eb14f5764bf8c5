//! Completions by POSIX AIO: threads of glibc's sleep in read and write for
//! this one, and a signal says that one of them has come to an end. AIO has
//! no accept, so clients are taken as readiness has it.

mod sys;

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use echo::{
    Came, Connections, Fd, Listener, Region, Stop, StopFd, Timeout, Watch,
    dropped,
};
use libc::{POLLIN, pollfd};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{Shutdown, SockFlag, shutdown};

use crate::EventLoop;
use crate::bytes::{Bytes, Memory, Spare};
use crate::processor::{Done, Processor, SIGNAL};
use crate::readiness::{Accept, read_stop};
use sys::Operation;

/// So many threads glibc starts at most: aio_init(3), which aio(7) names. Each
/// client has one, asleep in its read, so further clients are left in the
/// accept queue: their reads would not begin until others have ended.
const THREADS: usize = 20;

/// What says that operations have ended. Not a real-time signal: if none can
/// be queued any more (RLIMIT_SIGPENDING), glibc replaces the result of the
/// operation by EAGAIN, and how much was read from the socket is lost. Of any
/// other signal one may be pending, and that one always: signal(7). It may
/// then speak for several operations, so all are asked.
const NOTICE: Signal = Signal::SIGUSR1;

const READ: &str = "aio_read";
const WRITE: &str = "aio_write";

pub fn serve<W: Watch>(
    listener: Listener,
    stop: StopFd,
    watch: W,
) -> Result<()> {
    let nonblocking = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
    watch.ask("fcntl", listener.fd(), || fcntl(&listener, nonblocking))?;
    let processor = Aio::new(&listener, &stop, watch)?;
    EventLoop::new(listener, stop, processor).run()
}

struct Aio<W> {
    connections: Connections<Connection>,
    accept: Accept<W>,
    notices: SignalFd,
    stop: Fd,
    ready: Vec<Fd>,
    /// Clients whose operation has ended.
    ended: VecDeque<Fd>,
    done: VecDeque<Done>,
    buffer: usize,
    spare: Spare,
    watch: W,
}

struct Connection {
    operation: Operation,
    /// What is in flight, or was last.
    call: &'static str,
    /// On so many bytes.
    length: usize,
}

impl Connection {
    /// A socket knows no places. glibc calls pread64 and pwrite64 first, which
    /// fail there (ESPIPE), and then read and write.
    fn region(&self) -> Region {
        Region::of_socket(self.length)
    }
}

impl<W: Watch> Aio<W> {
    fn new(listener: &Listener, stop: &StopFd, watch: W) -> Result<Self> {
        let mask = SigSet::from(NOTICE);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)
            .context("sigprocmask")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let notices = SignalFd::with_flags(&mask, flags).context("signalfd")?;
        watch.name(notices.as_fd().as_raw_fd(), "completions");
        watch.submitted("read", stop.fd(), SIGNAL);
        Ok(Aio {
            connections: Connections::default(),
            accept: Accept::new(SockFlag::empty(), watch),
            notices,
            stop: stop.fd(),
            ready: Vec::with_capacity(3),
            ended: VecDeque::with_capacity(THREADS),
            done: VecDeque::with_capacity(2 * THREADS),
            buffer: listener.buffer(),
            spare: Spare::default(),
            watch,
        })
    }

    /// Gives bytes to glibc, to be read over or written.
    fn submit(&mut self, client: Fd, call: &'static str, bytes: Bytes) {
        let Some(it) = self.connections.get_mut(client) else { return };
        (it.call, it.length) = (call, bytes.len());
        it.operation.lend(bytes);
        let (region, operation) = (it.region(), &mut it.operation);
        let submit = || match call {
            READ => operation.read(),
            _ => operation.write(),
        };
        if let Err(err) = self.watch.submit(call, client, region, submit) {
            // EAGAIN: short of memory or threads.
            dropped(&format!("{call}: {} ({err:?})", err.desc()));
            self.complete(client, Err(err));
        }
    }

    /// An operation is over, and its bytes are ours again.
    fn complete(&mut self, client: Fd, result: nix::Result<usize>) {
        let Some(it) = self.connections.get_mut(client) else { return };
        let mut bytes = it.operation.take();
        self.done.push_back(match (it.call, result) {
            (WRITE, result) => Done::Sent(client, result, bytes),
            (_, Ok(n)) => {
                bytes.end = n as u32;
                Done::Received(client, Ok(bytes))
            }
            (_, Err(err)) => {
                self.spare.keep(bytes);
                Done::Received(client, Err(err))
            }
        });
    }

    /// Reads the notice, and only then asks everyone: what ends later sends
    /// another one.
    fn on_notice(&mut self) {
        let mut came = None;
        let read = || {
            came = self.notices.read_signal()?;
            Ok(came.map_or(0, |_| SIGNAL))
        };
        self.watch.copy("read", &self.notices, read).ok();
        if let Some(info) = came {
            let (fd, code) = (info.ssi_ptr as Fd, info.ssi_code);
            let name = NOTICE.as_str();
            self.watch.signal(&Came { name, fd, code, band: 0 });
        }
        let ended = self.connections.iter();
        let ended = ended.filter(|(_, it)| it.operation.has_ended());
        self.ended.extend(ended.map(|(fd, _)| fd));
        while let Some(fd) = self.ended.pop_front() {
            let Some(it) = self.connections.get_mut(fd) else { continue };
            let (call, region) = (it.call, it.region());
            let take = || it.operation.result();
            let result = self.watch.complete(call, fd, region, take);
            self.complete(fd, result);
        }
    }
}

impl<W: Watch> Processor for Aio<W> {
    /// If there is a thread for one more client.
    fn accept(&mut self, listener: &Listener) {
        if self.clients() < THREADS {
            self.done.extend(self.accept.attempt(listener));
        }
    }

    fn accepting(&self) -> bool {
        self.accept.waits_for() >= 0
    }

    fn stop_accepting(&mut self) {
        self.accept.cancel();
    }

    fn adopt(&mut self, socket: OwnedFd) {
        let fd = socket.as_raw_fd();
        let operation = Operation::new(socket, NOTICE as i32);
        let connection = Connection { operation, call: READ, length: 0 };
        self.connections.insert(fd, connection);
    }

    fn receive(&mut self, client: Fd) {
        let mut memory = self.spare.take();
        memory.resize(self.buffer, 0);
        let bytes = Bytes::new(Memory::Own(memory), self.buffer);
        self.submit(client, READ, bytes);
    }

    fn send(&mut self, client: Fd, bytes: Bytes) {
        self.submit(client, WRITE, bytes);
    }

    fn give_back(&mut self, bytes: Bytes) {
        self.spare.keep(bytes);
    }

    fn finish(&mut self, client: Fd) {
        let finish = || shutdown(client, Shutdown::Write);
        self.watch.ask("shutdown", client, finish).ok();
    }

    fn owed_nothing(&mut self) -> Vec<Fd> {
        let connections = self.connections.iter();
        let idle = connections.filter(|(_, it)| it.call == READ);
        idle.map(|(fd, _)| fd).collect()
    }

    /// Nothing is in flight: what was is what has just come back.
    fn close(&mut self, client: Fd) {
        let Some(it) = self.connections.remove(client) else { return };
        let close = || {
            drop(it);
            Ok(())
        };
        self.watch.ask("close", client, close).ok();
    }

    fn clients(&self) -> usize {
        self.connections.len()
    }

    /// Wait phase of this thread: one call sleeps for a client, a stop and the
    /// notice. Those of the clients' bytes, and the copies, are others'.
    fn wait(&mut self, timeout: Timeout) -> Result<()> {
        // An accept that did not have to wait: of 20 clients at most.
        if !self.done.is_empty() {
            return Ok(());
        }
        let notices = self.notices.as_fd().as_raw_fd();
        let listener = self.accept.waits_for();
        let entry = |fd| pollfd { fd, events: POLLIN, revents: 0 };
        let mut list = [notices, self.stop, listener].map(entry);
        let asked = 2 + usize::from(listener >= 0);
        let wait = || sys::poll(&mut list, timeout.millis());
        match self.watch.wait("poll", asked, wait) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(err) => return Err(err).context("poll"),
        }
        let ready = list.iter().filter(|it| it.revents != 0);
        self.ready.clear();
        self.ready.extend(ready.map(|it| it.fd));
        self.watch.ready(&self.ready, asked);
        for i in 0..self.ready.len() {
            match self.ready[i] {
                fd if fd == notices => self.on_notice(),
                fd if fd == self.stop => {
                    read_stop(fd, &mut self.done, self.watch);
                }
                _ => self.accept.again(),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Done> {
        self.done.pop_front()
    }
}

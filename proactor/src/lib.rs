//! Echo by completions: an operation is given away together with its buffer,
//! and comes back done. Nobody here ever asks who is ready.
mod aio;
mod bytes;
mod emulated;
mod flags;
mod processor;
mod readiness;
mod sys;
mod uring;

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Result;
use bytes::Bytes;
use echo::{Fd, Listener, Stop, StopFd, Watch, tally};
use flags::{Engine, Flags};
use nix::errno::Errno;
use nix::sys::socket::SockType;
use processor::{Done, Processor};

/// The server that `main` starts.
pub enum Server {}

impl echo::Server for Server {
    const NAME: &str = env!("CARGO_PKG_NAME");
    const ABOUT: &str = env!("CARGO_PKG_DESCRIPTION");
    const HELP: &str = include_str!("help.txt");
    type Flags = Flags;
    type Stop = StopFd;

    fn transport(flags: &Flags, _: SocketAddr) -> Result<SockType, String> {
        flags.check()?;
        if flags.probe {
            uring::probe_and_end();
        }
        Ok(SockType::Stream)
    }

    fn serve<W: Watch>(
        listener: Listener,
        stop: StopFd,
        flags: Flags,
        watch: W,
    ) -> Result<()> {
        match flags.engine {
            Engine::Uring => uring::serve(listener, stop, &flags, watch),
            Engine::Emulated => emulated::serve(listener, stop, watch),
            Engine::Aio => aio::serve(listener, stop, watch),
        }
    }
}

/// The proactor: it waits for operations that are done, and calls whoever
/// completes them. It is the same for everyone who carries them out.
struct EventLoop<P> {
    listener: Listener,
    stop: StopFd,
    processor: P,
    echoed: u64,
}

impl<P: Processor> EventLoop<P> {
    fn new(listener: Listener, stop: StopFd, processor: P) -> Self {
        EventLoop { listener, stop, processor, echoed: 0 }
    }

    fn run(mut self) -> Result<()> {
        while !self.stop.finished(self.processor.clients()) {
            self.wait_completed()?;
            while let Some(done) = self.processor.next() {
                self.on_complete(done)?;
            }
        }
        Ok(())
    }

    /// Both phases in one: when this returns, bytes have been copied.
    fn wait_completed(&mut self) -> Result<()> {
        let wanted = self.listener.wanted(self.processor.clients());
        if wanted && !self.processor.accepting() {
            self.processor.accept(&self.listener);
        }
        let timeout = self.listener.timeout(&self.stop, &[]);
        self.processor.wait(timeout)
    }

    /// An operation is done, and the next one of this client begins.
    fn on_complete(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Accepted(Ok(socket)) => self.on_accepted(socket),
            // The accept that was under way has ended with the listener.
            Done::Accepted(Err(_)) if !self.listener.is_open() => {}
            Done::Accepted(Err(err)) => {
                let clients = self.processor.clients();
                return self.listener.on_error(err, clients);
            }
            Done::Received(fd, Ok(bytes)) if bytes.is_empty() => {
                self.processor.give_back(bytes);
                self.processor.close(fd);
            }
            Done::Received(fd, Ok(bytes)) if self.stop.asked() => {
                self.processor.give_back(bytes);
                self.processor.receive(fd);
            }
            Done::Received(fd, Ok(bytes)) => self.processor.send(fd, bytes),
            Done::Received(fd, Err(Errno::EINTR)) => self.processor.receive(fd),
            Done::Received(fd, Err(_)) => self.processor.close(fd),
            Done::Sent(fd, Err(Errno::EINTR), bytes) => {
                self.processor.send(fd, bytes);
            }
            Done::Sent(fd, Err(_), bytes) => {
                self.processor.give_back(bytes);
                self.processor.close(fd);
            }
            Done::Sent(fd, Ok(n), bytes) => self.on_sent(fd, n, bytes),
            Done::Stop => self.on_stop(),
        }
        Ok(())
    }

    fn on_accepted(&mut self, socket: OwnedFd) {
        let fd = socket.as_raw_fd();
        self.processor.adopt(socket);
        if self.stop.asked() {
            self.processor.finish(fd);
        }
        self.processor.receive(fd);
    }

    /// A send may end early. Who does not look loses the rest.
    fn on_sent(&mut self, fd: Fd, n: usize, mut bytes: Bytes) {
        self.echoed += n as u64;
        bytes.sent(n);
        if !bytes.is_empty() {
            return self.processor.send(fd, bytes);
        }
        self.processor.give_back(bytes);
        if self.stop.asked() {
            self.processor.finish(fd);
        }
        self.processor.receive(fd);
    }

    /// Accepts nobody from now on. Peers that are owed nothing are sent our
    /// FIN now, the others after their last byte. What comes in until their
    /// own FIN is dropped: closing with bytes unread would reset them.
    fn on_stop(&mut self) {
        self.stop.told();
        self.processor.stop_accepting();
        self.listener.close();
        for fd in self.processor.owed_nothing() {
            self.processor.finish(fd);
        }
    }
}

impl<P> Drop for EventLoop<P> {
    fn drop(&mut self) {
        tally().add_bytes(self.echoed);
    }
}

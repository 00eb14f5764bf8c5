//! What the two sides of a proactor say to each other: operations are begun,
//! and come back done.

use std::os::fd::OwnedFd;

use anyhow::Result;
use echo::{Fd, Listener, Timeout};

use crate::bytes::Bytes;

/// Who carries operations out: the kernel, or somebody who stands in for it.
/// To begin one returns at once; its end comes out of `next`, later.
///
/// At most one receive and one send of a client are under way. So its bytes
/// keep their order, and a peer that does not read is not read from.
pub trait Processor {
    /// Begins to accept clients; at least one comes out.
    fn accept(&mut self, listener: &Listener);

    /// Whether an accept is under way.
    fn accepting(&self) -> bool;

    /// Ends the accept that is under way, if there is one.
    fn stop_accepting(&mut self);

    /// A client has been accepted: it is this one's from now on.
    fn adopt(&mut self, socket: OwnedFd);

    /// Begins to receive what this client says next.
    fn receive(&mut self, client: Fd);

    /// Begins to send to this client, to whom the bytes belong until then.
    fn send(&mut self, client: Fd, bytes: Bytes);

    /// The bytes are no longer needed.
    fn give_back(&mut self, bytes: Bytes);

    /// Sends this client our FIN, if it is owed nothing.
    fn finish(&mut self, client: Fd);

    /// From now on what comes in is owed to nobody. Whoever is owed nothing.
    fn owed_nothing(&mut self) -> Vec<Fd>;

    /// Ends a client, as soon as no operation of its is under way.
    fn close(&mut self, client: Fd);

    /// How many clients there are.
    fn clients(&self) -> usize;

    /// Wait phase, and copy phase as well: sleeps until an operation is done.
    fn wait(&mut self, timeout: Timeout) -> Result<()>;

    /// The next operation that is done.
    fn next(&mut self) -> Option<Done>;
}

/// The size of what a signalfd says: signalfd(2).
pub const SIGNAL: usize = size_of::<libc::signalfd_siginfo>();

/// An operation that is done. What was lent for it has come back with it.
pub enum Done {
    /// A client was accepted, or why none was.
    Accepted(nix::Result<OwnedFd>),
    /// This client has said something; nothing, if it has sent its FIN.
    Received(Fd, nix::Result<Bytes>),
    /// So many of these bytes were sent: fewer than all, perhaps.
    Sent(Fd, nix::Result<usize>, Bytes),
    /// A signal came that asks to stop.
    Stop,
}

//! One reactor, one thread: whatever a handler does, everyone waits for it.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use anyhow::Result;
use echo::{Listener, StopFd, Watch};

use crate::acceptor::Acceptor;
use crate::demultiplexer::Interest;
use crate::echo_handler::{Echo, Rules};
use crate::flags::Flags;
use crate::reactor::Reactor;
use crate::signals::Stopper;

pub fn serve<W: Watch>(
    listener: Listener,
    stop: StopFd,
    flags: &Flags,
    watch: W,
) -> Result<()> {
    let demultiplexer = flags.demultiplexer(watch)?;
    let mut reactor = Reactor::new(demultiplexer, listener.buffer());
    let rules = Rc::new(flags.rules(None, None));
    let accepted = move |socket, reactor: &mut _| {
        begin(socket, reactor, &rules, watch);
    };
    reactor.attach(Acceptor::new(listener, accepted, watch)?)?;
    reactor.attach(Stopper(stop))?;
    reactor.run()
}

/// A client has come: its handler is registered, or it is turned away.
pub fn begin<W: Watch>(
    socket: OwnedFd,
    reactor: &mut Reactor<Echo<W>>,
    rules: &Rc<Rules<W>>,
    watch: W,
) {
    let echo = Echo::new(socket, rules, watch);
    if let Err(err) = reactor.register(echo, Interest::Read) {
        echo::refused(&err.to_string());
    }
}

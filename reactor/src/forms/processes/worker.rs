//! A worker: a reactor in a process of its own, until it is told to stop, or
//! to end with its clients.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use anyhow::{Context, Result};
use echo::{Listener, StopFd, Watch};
use nix::sys::signal::Signal;

use super::gate::Gate;
use super::passing::{Door, Socket};
use super::sys;
use crate::acceptor::{Acceptor, LOOK_AT_LISTENER};
use crate::board::{Board, Seat};
use crate::echo_handler::Echo;
use crate::flags::{Accept, Flags};
use crate::forms::single::begin;
use crate::reactor::{Id, Reactor};
use crate::signals::{Signals, Stopper};

/// Tells a worker to accept no more, and to end when its clients have left.
pub const RETIRE: Signal = Signal::SIGUSR2;

/// What a worker needs, in its own process.
pub struct Worker<W: Watch> {
    pub number: usize,
    /// Where clients come from: the listener, or the master.
    pub clients: Clients<W>,
    pub buffer: usize,
    pub board: &'static Board,
    pub seat: Seat,
    /// Where it waits for the others, if it is one of the first.
    pub gate: Option<Gate>,
    pub stop: StopFd,
    pub flags: Flags,
    pub watch: W,
}

/// Where a worker's clients come from.
pub enum Clients<W: Watch> {
    /// `made`: beside the one that the server was started with.
    Listener {
        listener: Listener,
        made: bool,
    },
    Master(Socket<W>),
}

impl<W: Watch> Worker<W> {
    /// The whole life of the process.
    pub fn live(self) -> ! {
        let number = self.number;
        sys::exit(match self.serve() {
            Ok(()) => 0,
            Err(err) => {
                echo::say(&format!("worker {number}: {err:#}"));
                1
            }
        })
    }

    fn serve(self) -> Result<()> {
        let Worker { seat, watch, ref flags, .. } = self;
        let demultiplexer = match (&self.clients, flags.accept()) {
            (Clients::Listener { listener, .. }, Accept::Exclusive) => {
                flags.exclusive(listener.fd(), watch)?
            }
            _ => flags.demultiplexer(watch)?,
        };
        let mut reactor = Reactor::new(demultiplexer, self.buffer);
        let rules = Rc::new(flags.rules(None, Some(seat)));
        let entered = move |socket: OwnedFd, reactor: &mut _| {
            begin(socket, reactor, &rules, watch);
        };
        let accept = flags.accept();
        let (mutex, alone) =
            (accept == Accept::Mutex, accept == Accept::Exclusive);
        let acceptor = match self.clients {
            Clients::Master(end) => {
                reactor.attach(Door::new(end, seat, entered, watch))?;
                None
            }
            Clients::Listener { listener, made } => {
                let mut acceptor =
                    Acceptor::new(listener, entered, watch)?.seated(seat);
                if made {
                    acceptor = acceptor.of_own_making();
                }
                if mutex {
                    acceptor = acceptor.taking(self.board.mutex());
                }
                if alone {
                    acceptor = acceptor.woken_alone();
                }
                Some(reactor.attach(acceptor)?)
            }
        };
        if let Some(acceptor) = acceptor.filter(|_| mutex) {
            reactor.ask_before_waits(acceptor);
        }
        reactor.attach(Stopper(self.stop))?;
        let retired = retires(&mut reactor, acceptor, seat)?;
        if alone {
            seat.wakes();
        }
        if let Some(gate) = self.gate {
            gate.pass();
        }
        // A client on its way from the master is counted already.
        let alone = || retired.get() && seat.clients() == 0;
        while !reactor.is_finished() && !alone() {
            reactor.turn()?;
        }
        Ok(())
    }
}

/// Whether the worker has been told to retire. Who has been woken for a client
/// takes it still: with EPOLLEXCLUSIVE nobody else has been woken.
fn retires<W: Watch>(
    reactor: &mut Reactor<Echo<W>>,
    acceptor: Option<Id>,
    seat: Seat,
) -> Result<Rc<Cell<bool>>> {
    let retired = Rc::new(Cell::new(false));
    let told = {
        let retired = Rc::clone(&retired);
        move |signal, reactor: &mut Reactor<_>| {
            match acceptor {
                Some(acceptor) if signal == RETIRE => reactor.finish(acceptor),
                Some(acceptor) => reactor.look(acceptor),
                None => {}
            }
            if signal == RETIRE {
                retired.set(true);
                seat.retires();
            }
        }
    };
    let signals = Signals::new(&[RETIRE, LOOK_AT_LISTENER], told)?;
    reactor.attach(signals).context("cannot wait for signals")?;
    Ok(retired)
}

//! Echo on a reactor: the loop of `epoll_lt`, taken apart into the one thing
//! that waits, and handlers that it calls; and the forms that programs give it.
mod acceptor;
mod board;
mod business;
mod demultiplexer;
mod echo_handler;
mod executor;
mod flags;
mod forms;
mod reactor;
mod signals;
mod sys;
mod table;
mod timers;
mod waker;

use std::net::SocketAddr;

use anyhow::Result;
use echo::{Listener, StopFd, Watch};
use flags::{Flags, Form};
use nix::sys::socket::SockType;

pub use acceptor::Acceptor;
pub use demultiplexer::{
    Demultiplexer, Epoll, Event, Interest, Poll, RegisterError, Select,
    Trigger, best,
};
pub use reactor::{Counters, Handler, Id, Never, Next, Reactor};
pub use signals::{Signals, Stopper};
pub use timers::Timer;
pub use waker::{Inbox, Receiver, Sender, channel};

/// The server that `main` starts.
pub enum Server {}

impl echo::Server for Server {
    const NAME: &str = env!("CARGO_PKG_NAME");
    const ABOUT: &str = env!("CARGO_PKG_DESCRIPTION");
    const HELP: &str = include_str!("help.txt");
    type Flags = Flags;
    type Stop = StopFd;

    fn transport(flags: &Flags, _: SocketAddr) -> Result<SockType, String> {
        flags.check().map(|()| SockType::Stream)
    }

    fn serve<W: Watch>(
        listener: Listener,
        stop: StopFd,
        flags: Flags,
        watch: W,
    ) -> Result<()> {
        match flags.form {
            Form::Single => forms::single::serve(listener, stop, &flags, watch),
            Form::Futures => {
                forms::futures::serve(listener, stop, &flags, watch)
            }
            Form::Pool => forms::pool::serve(listener, stop, &flags, watch),
            Form::Threads => {
                forms::threads::serve(listener, stop, &flags, watch)
            }
            Form::Processes => {
                forms::processes::serve(listener, stop, &flags, watch)
            }
        }
    }
}

//! Many reactors, a thread each: the main one accepts and deals, each of the
//! others serves its clients to their end. So is it in Netty and memcached.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use echo::{Listener, StopFd, Watch};

use super::single::begin;
use crate::acceptor::Acceptor;
use crate::board::{Board, Seat};
use crate::flags::{Deal, Flags};
use crate::reactor::{Never, Reactor};
use crate::signals::Stopper;
use crate::waker::{Receiver, Sender, channel};

/// What the main reactor tells another.
enum Message {
    Serve(OwnedFd),
    Stop(Duration),
}

/// Another reactor, as the main one knows it.
struct Sub<W> {
    messages: Sender<Message, W>,
    seat: Seat,
}

/// How a reactor has ended.
type End = Result<()>;

pub fn serve<W: Watch>(
    listener: Listener,
    stop: StopFd,
    flags: &Flags,
    watch: W,
) -> Result<()> {
    let mut main = Reactor::<Never>::new(flags.demultiplexer(watch)?, 0);
    let left = Rc::new(Cell::new(0));
    let ended = {
        let left = Rc::clone(&left);
        move |end: End, main: &mut Reactor<Never>| {
            left.set(left.get() - 1);
            if let Err(err) = end {
                main.fail(err);
            }
        }
    };
    let (ends, receiver) = channel(watch)?;
    main.attach(receiver.inbox(ended))?;
    let board = Board::new();
    let (mut subs, mut threads) = (Vec::new(), Vec::new());
    for number in 0..flags.reactors() {
        let (messages, receiver) = channel(watch)?;
        let seat = board.seat(number);
        subs.push(Sub { messages, seat });
        let sub = Serving {
            buffer: listener.buffer(),
            flags: flags.clone(),
            seat,
            ends: ends.clone(),
            watch,
        };
        threads.push(sub.start(receiver)?);
        left.set(left.get() + 1);
    }
    let subs = Rc::new(subs);
    let accepted = deal(Rc::clone(&subs), flags.deal());
    let acceptor = Acceptor::new(listener, accepted, watch)?;
    main.attach(acceptor.counting(|| board.all()))?;
    main.attach(Stopper(stop))?;
    while !main.is_stopping() {
        main.turn()?;
    }
    let grace = main.grace().unwrap_or_default();
    for sub in subs.iter() {
        sub.messages.send(Message::Stop(grace));
    }
    // A second signal ends all of this.
    while left.get() > 0 {
        main.turn()?;
    }
    threads.into_iter().try_for_each(|thread: JoinHandle<()>| {
        thread.join().map_err(|_| anyhow!("a reactor has panicked"))
    })
}

/// Gives each client to one of the others: to each in turn, or to whoever has
/// the fewest.
fn deal<W: Watch>(
    subs: Rc<Vec<Sub<W>>>,
    how: Deal,
) -> impl FnMut(OwnedFd, &mut Reactor<Never>) {
    let mut turn = 0;
    move |socket, _| {
        turn = (turn + 1) % subs.len();
        let sub = match how {
            Deal::RoundRobin => &subs[turn],
            Deal::LeastLoaded => {
                // Among equals to the next in turn.
                let from = subs[turn..].iter().chain(&subs[..turn]);
                from.min_by_key(|sub| sub.seat.clients()).expect("one at least")
            }
        };
        sub.seat.come();
        sub.messages.send(Message::Serve(socket));
    }
}

/// What a thread needs for its reactor.
struct Serving<W> {
    buffer: usize,
    flags: Flags,
    seat: Seat,
    ends: Sender<End, W>,
    watch: W,
}

impl<W: Watch> Serving<W> {
    fn start(self, messages: Receiver<Message, W>) -> Result<JoinHandle<()>> {
        let thread = move || {
            let ends = self.ends.clone();
            let end = self.serve(messages);
            ends.send(end);
        };
        Builder::new().spawn(thread).context("cannot start a reactor's thread")
    }

    fn serve(self, messages: Receiver<Message, W>) -> Result<(), Error> {
        let Serving { buffer, flags, seat, watch, .. } = self;
        let mut reactor = Reactor::new(flags.demultiplexer(watch)?, buffer);
        let rules = Rc::new(flags.rules(None, Some(seat)));
        let inbox = messages.inbox(move |message, reactor: &mut Reactor<_>| {
            match message {
                Message::Serve(socket) => begin(socket, reactor, &rules, watch),
                Message::Stop(grace) => reactor.stop(grace),
            }
        });
        reactor.attach(inbox)?;
        reactor.run()
    }
}

//! A master forks workers and looks after them; each serves its clients with a
//! reactor of its own, in a process of its own. So is it in nginx.

mod gate;
mod passing;
mod sys;
mod worker;

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use echo::{Fd, Listener, StopFd, Watch, listeners};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::acceptor::{Acceptor, close};
use crate::board::{Board, SEATS};
use crate::flags::{Accept, Flags};
use crate::reactor::{Id, Never, Reactor};
use crate::signals::{Signals, Stopper};
use gate::Gate;
use passing::{Dealer, Socket, way};
use worker::{Clients, RETIRE, Worker};

/// A worker that has not lived so long died young: the next one in its place
/// may, too.
const YOUNG: Duration = Duration::from_secs(1);

/// How long a place stays empty after one that died young; twice as long after
/// each further one.
const REST: Duration = Duration::from_millis(100);

/// And at most so long.
const LONGEST_REST: Duration = Duration::from_secs(10);

pub fn serve<W: Watch>(
    listener: Listener,
    stop: StopFd,
    flags: &Flags,
    watch: W,
) -> Result<()> {
    let mut master = Reactor::<Never>::new(flags.demultiplexer(watch)?, 0);
    let news = Rc::new(News::default());
    // A worker is born with the same signals blocked, so that none comes too
    // early for it: signal(7).
    let wanted = [Signal::SIGCHLD, Signal::SIGHUP, RETIRE];
    let signals = Signals::new(&wanted, news.taker())?;
    let signals = master.attach(signals)?;
    let mut crew = Crew::new(&listener, &stop, flags, watch)?;
    if let Some(dealer) = &crew.dealer {
        master.attach(accepting(listener, dealer, crew.board, watch)?)?;
    } else if crew.accept == Accept::Reuseport {
        crew.listeners = listeners(listener, flags.workers(), watch)?;
    } else {
        crew.listeners.push(listener);
    }
    master.attach(Stopper(stop))?;

    let mut gate = Some(Gate::new()?);
    while !master.is_stopping() {
        while let Some(place) = crew.vacant() {
            match crew.hire(place) {
                Ok(None) => {}
                Ok(Some(new)) => {
                    master.abandon();
                    crew.into_worker(new, gate).live();
                }
                Err(err) if gate.is_some() => return Err(err),
                Err(err) => {
                    let rest = crew.not_hired(place, &err);
                    master.after(signals, rest);
                }
            }
        }
        if let Some(gate) = gate.take() {
            gate.open();
        }
        master.turn()?;
        if news.ended.take() {
            crew.bury(&mut master, signals);
            // Those who are gone leave room for clients.
            master.has_room();
        }
        if news.renew.take() {
            crew.renew();
        }
    }
    // Who has seen one worker stop must not be served by another.
    crew.board.close();
    crew.tell_all(Signal::SIGTERM);
    crew.close_listeners();
    // A second signal ends all of this.
    while !crew.workers.is_empty() && master.grace() > Some(Duration::ZERO) {
        master.turn()?;
        crew.bury(&mut master, signals);
    }
    crew.tell_all(Signal::SIGKILL);
    for worker in &crew.workers {
        crew.reap(Some(worker.pid));
    }
    Ok(())
}

/// What signals have told the master since it last looked.
#[derive(Default)]
struct News {
    ended: Cell<bool>,
    renew: Cell<bool>,
}

impl News {
    fn taker(
        self: &Rc<Self>,
    ) -> impl FnMut(Signal, &mut Reactor<Never>) + use<> {
        let news = Rc::clone(self);
        move |signal, _| match signal {
            Signal::SIGCHLD => news.ended.set(true),
            Signal::SIGHUP => news.renew.set(true),
            _ => {}
        }
    }
}

/// Accepts, for the workers; not while one client waits for room with them,
/// for which it is looked every few milliseconds.
fn accepting<W: Watch>(
    listener: Listener,
    dealer: &Rc<RefCell<Dealer<W>>>,
    board: &'static Board,
    watch: W,
) -> Result<impl crate::Handler<Never> + use<W>> {
    let (giving, looking) = (Rc::clone(dealer), Rc::clone(dealer));
    let accepted = move |client, _: &mut Reactor<Never>| {
        giving.borrow_mut().give(client);
    };
    let count = move || match looking.borrow_mut().has_room() {
        true => board.all(),
        false => usize::MAX,
    };
    Ok(Acceptor::new(listener, accepted, watch)?.counting(count))
}

/// The workers, and what they are given.
struct Crew<W: Watch> {
    accept: Accept,
    places: Vec<Place>,
    workers: Vec<Hired>,
    board: &'static Board,
    /// One for all, or one for each place, or none: the master has it.
    listeners: Vec<Listener>,
    /// The number of the one that the server was started with.
    first: Fd,
    dealer: Option<Rc<RefCell<Dealer<W>>>>,
    buffer: usize,
    stop: StopFd,
    flags: Flags,
    watch: W,
}

/// A place for a worker; who is replaced may live on without one.
struct Place {
    worker: Option<Pid>,
    /// Another is to be put into it.
    renew: bool,
    /// An empty one is to be filled then.
    due: Instant,
    /// How many have died young here, one after the other.
    young: u32,
}

/// A worker, as the master knows it.
struct Hired {
    pid: Pid,
    place: usize,
    seat: usize,
    since: Instant,
}

/// What a new worker has that no other has.
struct New<W: Watch> {
    place: usize,
    seat: usize,
    end: Option<Socket<W>>,
}

impl<W: Watch> Crew<W> {
    fn new(
        listener: &Listener,
        stop: &StopFd,
        flags: &Flags,
        watch: W,
    ) -> Result<Self> {
        let place = || Place {
            worker: None,
            renew: false,
            due: Instant::now(),
            young: 0,
        };
        let accept = flags.accept();
        let dealer = || Rc::new(RefCell::new(Dealer::new(flags.deal(), watch)));
        Ok(Crew {
            accept,
            places: (0..flags.workers()).map(|_| place()).collect(),
            workers: Vec::new(),
            board: Board::new(),
            listeners: Vec::new(),
            first: listener.fd(),
            dealer: (accept == Accept::Passed).then(dealer),
            buffer: listener.buffer(),
            stop: stop.for_child()?,
            flags: flags.clone(),
            watch,
        })
    }

    /// A place that is to be filled now.
    fn vacant(&self) -> Option<usize> {
        let now = Instant::now();
        let vacant = |it: &Place| match it.worker {
            None => it.due <= now,
            Some(_) => it.renew,
        };
        self.places.iter().position(vacant)
    }

    /// Forks a worker for this place, and tells whoever had it to retire.
    /// Returns twice: in the new worker, with what only that has.
    fn hire(&mut self, place: usize) -> Result<Option<New<W>>> {
        let taken =
            |seat: &usize| self.workers.iter().any(|it| it.seat == *seat);
        let seat = (0..SEATS).find(|seat| !taken(seat)).with_context(|| {
            format!("{SEATS} workers are still there; let their clients leave")
        })?;
        let (mut end, mut its_end) = (None, None);
        if self.dealer.is_some() {
            let (master, worker) = way(self.watch)?;
            (end, its_end) = (Some(master), Some(worker));
        }
        let fork = || sys::fork_worker();
        let forked = self.watch.ask("fork", -1, fork);
        let Some(pid) = forked.context("no process for it")? else {
            return Ok(Some(New { place, seat, end: its_end }));
        };
        let since = Instant::now();
        self.workers.push(Hired { pid, place, seat, since });
        if let (Some(dealer), Some(end)) = (&self.dealer, end) {
            dealer.borrow_mut().add(end, pid, self.board.seat(seat));
        }
        self.places[place].renew = false;
        if let Some(old) = self.places[place].worker.replace(pid) {
            self.retire(old);
        }
        Ok(None)
    }

    /// What becomes of the master's crew in the new worker. Copies of what
    /// belongs to the others are closed.
    fn into_worker(mut self, new: New<W>, gate: Option<Gate>) -> Worker<W> {
        let New { place, seat, end } = new;
        let clients = match end {
            Some(end) => Clients::Master(end),
            None => {
                let own = place.min(self.listeners.len() - 1);
                let listener = self.listeners.remove(own);
                Clients::Listener { listener, made: own > 0 }
            }
        };
        self.close_listeners();
        Worker {
            number: place + 1,
            clients,
            buffer: self.buffer,
            board: self.board,
            seat: self.board.seat(seat),
            gate,
            stop: self.stop,
            flags: self.flags,
            watch: self.watch,
        }
    }

    /// The first one was there before all this, and is closed as everywhere.
    fn close_listeners(&mut self) {
        for mut listener in self.listeners.drain(..) {
            if listener.fd() != self.first {
                close(&mut listener, self.watch);
            }
        }
    }

    /// Says why nobody could be hired, and for how long that is left so.
    fn not_hired(&mut self, at: usize, why: &anyhow::Error) -> Duration {
        let (place, number) = (&mut self.places[at], at + 1);
        if mem::take(&mut place.renew) {
            echo::say(&format!("worker {number} goes on: {why:#}"));
            return Duration::ZERO;
        }
        let rest = place.rest_longer();
        echo::say(&format!("worker {number}: {why:#}; again in {rest:?}"));
        rest
    }

    /// It is dealt no more clients, and serves those it has.
    fn retire(&self, pid: Pid) {
        if let Some(dealer) = &self.dealer {
            dealer.borrow_mut().remove(pid);
        }
        self.tell(pid, RETIRE);
    }

    /// Other workers in all places.
    fn renew(&mut self) {
        self.places.iter_mut().for_each(|place| place.renew = true);
    }

    fn tell(&self, pid: Pid, signal: Signal) {
        self.watch.ask("kill", -1, || kill(pid, signal)).ok();
    }

    fn tell_all(&self, signal: Signal) {
        self.workers.iter().for_each(|worker| self.tell(worker.pid, signal));
    }

    /// Takes leave of all workers that have ended: one signal may stand for
    /// many. Their places are filled again, those of who died young later.
    fn bury(&mut self, master: &mut Reactor<Never>, signals: Id) {
        while let Some(status) = self.reap(None) {
            let Some(pid) = status.pid() else { return };
            let at = self.workers.iter().position(|it| it.pid == pid);
            // The renderer is no worker.
            let Some(at) = at else { continue };
            let Hired { place, seat, since, .. } = self.workers.swap_remove(at);
            self.board.release_for(pid);
            self.board.seat(seat).clear();
            if let Some(dealer) = &self.dealer {
                dealer.borrow_mut().remove(pid);
            }
            if master.is_stopping() {
                continue;
            }
            let number = place + 1;
            let place = &mut self.places[place];
            let ended = how_it_ended(status);
            if place.worker != Some(pid) {
                if status != WaitStatus::Exited(pid, 0) {
                    echo::say(&format!("a retired worker ({pid}) {ended}"));
                }
                continue;
            }
            place.worker = None;
            let lived = since.elapsed();
            let next = match lived < YOUNG {
                false => {
                    (place.young, place.due) = (0, Instant::now());
                    "another takes its place".to_owned()
                }
                true => {
                    let rest = place.rest_longer();
                    master.after(signals, rest);
                    format!("after {lived:.0?}; another comes in {rest:?}")
                }
            };
            echo::say(&format!("worker {number} ({pid}) {ended} {next}"));
        }
    }

    /// A worker that has ended, if there is one, or this one, however long it
    /// takes.
    fn reap(&self, pid: Option<Pid>) -> Option<WaitStatus> {
        let flags = pid.is_none().then_some(WaitPidFlag::WNOHANG);
        let mut status = WaitStatus::StillAlive;
        let wait = || {
            status = waitpid(pid, flags)?;
            Ok(status.pid())
        };
        let pid = self.watch.ask("waitpid", -1, wait);
        pid.ok().flatten().map(|_| status)
    }
}

impl Place {
    /// It rests, twice as long as the last time.
    fn rest_longer(&mut self) -> Duration {
        let rest = REST * 2u32.pow(self.young.min(10));
        let rest = rest.min(LONGEST_REST);
        self.young += 1;
        self.due = Instant::now() + rest;
        rest
    }
}

fn how_it_ended(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("ended with {code},"),
        WaitStatus::Signaled(_, signal, _) => {
            format!("was killed by {signal},")
        }
        _ => "ended,".to_owned(),
    }
}

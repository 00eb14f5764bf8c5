//! The reactor: it waits for all descriptors in one call, and calls the
//! handler of each that is ready. Names are those of the pattern's paper: D.
//! C. Schmidt, "Reactor: An Object Behavioral Pattern for Demultiplexing and
//! Dispatching Handles for Synchronous Events", 1995.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use echo::{Gone, Scratch, Timeout};

use crate::demultiplexer::{
    Demultiplexer, Event, Interest, RegisterError, Token,
};
use crate::table::Table;
use crate::timers::{Own, Timer, Timers};

/// What happens at one descriptor, and to its owner. A turn does what can be
/// done without sleeping, and ends soon: nobody else is served meanwhile.
///
/// `C` is the kind of connection that the reactor serves. A connection is its
/// own kind; what is not one (a listener, signals, messages of other threads)
/// serves reactors of any kind, and does not keep a reactor from stopping.
pub trait Handler<C: Handler = Self> {
    /// The descriptor that it owns. Always the same one.
    fn fd(&self) -> BorrowedFd<'_>;

    /// It has been registered, under [`Reactor::current`].
    fn opened(&mut self, _reactor: &mut Reactor<C>) {}

    /// There may be something to read.
    ///
    /// # Errors
    ///
    /// `Gone`, as from each of these: nothing more can come of it.
    fn readable(&mut self, reactor: &mut Reactor<C>) -> Result<Next, Gone>;

    /// There may be room to write.
    fn writable(&mut self, _reactor: &mut Reactor<C>) -> Result<Next, Gone> {
        Ok(Next::Same)
    }

    /// One of its timers is due.
    fn timer(
        &mut self,
        _timer: Timer,
        _reactor: &mut Reactor<C>,
    ) -> Result<Next, Gone> {
        Ok(Next::Same)
    }

    /// The next wait is about to begin; for those who have asked to be asked:
    /// [`Reactor::ask_before_waits`].
    fn before_wait(&mut self, _reactor: &mut Reactor<C>) -> Next {
        Next::Same
    }

    /// That wait is over, and so is its turn if it was ready, which came before
    /// all others.
    fn after_wait(&mut self, _reactor: &mut Reactor<C>) -> Next {
        Next::Same
    }

    /// The reactor is to stop, within its time of grace.
    fn stopping(&mut self, _reactor: &mut Reactor<C>) -> Result<Next, Gone> {
        Err(Gone)
    }

    /// A connection's end, whatever it came from. It happens to each of them
    /// once: whoever is given away cannot be given away again.
    fn closed(self, _reactor: &mut Reactor<C>)
    where
        Self: Sized,
    {
    }
}

/// What a handler waits for after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// What it waited for before.
    Same,
    /// For this, and there is nothing to be had at once.
    Wait(Interest),
    /// For this, and there may be more of it at once: after the others' turn.
    /// A level-triggered demultiplexer tells so by itself.
    Again(Interest),
    /// For a connection to end, which leaves room for another.
    Room,
}

/// A handler, as long as it is registered: its place may be another's later,
/// its serial number may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    token: Token,
    serial: u64,
}

/// When a service is called again, by a timer, whose interest could not be
/// changed for lack of memory.
const ONCE_MORE: Duration = Duration::from_millis(10);

/// What a reactor has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Waits.
    pub waits: u64,
    /// Descriptors that came out ready.
    pub events: u64,
    /// Timers that were due.
    pub timers: u64,
    /// Connections that were registered.
    pub opened: u64,
    /// Connections that have ended.
    pub closed: u64,
}

/// Waits for the descriptors of its handlers, and calls them.
pub struct Reactor<C: Handler> {
    demultiplexer: Box<dyn Demultiplexer>,
    slots: Table<Slot<C>>,
    connections: usize,
    events: Vec<Event>,
    /// Who may have more to do at once, which no further edge will tell.
    again: Vec<Token>,
    /// Who waits until there is room.
    crowded: Vec<Id>,
    /// Who is asked before each wait.
    asked: Vec<Id>,
    timers: Timers,
    scratch: Scratch,
    current: Id,
    serial: u64,
    /// The last serial number at the time of the last wait.
    waited_for: u64,
    now: Option<Instant>,
    /// When the next wait is to end at the latest, whatever timers say.
    awake_by: Option<Instant>,
    deadline: Option<Instant>,
    failure: Option<Error>,
    counters: Counters,
}

struct Slot<C: Handler> {
    owner: Owner<C>,
    interest: Interest,
    /// The first wait that is to come after it was put on the list of those
    /// that go on without an event; 0: it is not on it.
    again: u64,
    /// Its socket may hold more than plain bytes.
    more: bool,
    serial: u64,
    timers: Own,
}

enum Owner<C: Handler> {
    Connection(C),
    Service(Box<dyn Handler<C>>),
    /// It is its turn.
    Busy,
}

impl<C: Handler> Reactor<C> {
    /// A reactor without handlers, whose connections share a buffer of so many
    /// bytes.
    pub fn new(demultiplexer: Box<dyn Demultiplexer>, buffer: usize) -> Self {
        Self::with_scratch(demultiplexer, Scratch::new(buffer))
    }

    /// A reactor whose connections share these buffers.
    pub fn with_scratch(
        demultiplexer: Box<dyn Demultiplexer>,
        scratch: Scratch,
    ) -> Self {
        Reactor {
            demultiplexer,
            slots: Table::default(),
            connections: 0,
            events: Vec::with_capacity(256),
            again: Vec::with_capacity(64),
            crowded: Vec::new(),
            asked: Vec::new(),
            timers: Timers::default(),
            scratch,
            current: Id { token: Token::MAX, serial: 0 },
            serial: 0,
            waited_for: 0,
            now: None,
            awake_by: None,
            deadline: None,
            failure: None,
            counters: Counters::default(),
        }
    }

    /// Serves a connection until its end.
    ///
    /// # Errors
    ///
    /// Why it cannot be waited for; it is closed then.
    pub fn register(
        &mut self,
        connection: C,
        interest: Interest,
    ) -> Result<Id, RegisterError> {
        match self.enter(connection.fd(), interest) {
            Ok(id) => {
                self.connections += 1;
                self.counters.opened += 1;
                self.open(id, Owner::Connection(connection));
                Ok(id)
            }
            Err(err) => {
                connection.closed(self);
                Err(err)
            }
        }
    }

    /// Serves what is no connection, until its end or the reactor's.
    ///
    /// # Errors
    ///
    /// Why it cannot be waited for.
    pub fn attach(
        &mut self,
        service: impl Handler<C> + 'static,
    ) -> Result<Id, RegisterError> {
        let id = self.enter(service.fd(), Interest::Read)?;
        self.open(id, Owner::Service(Box::new(service)));
        Ok(id)
    }

    /// Calls handlers until the reactor has been told to stop, and nobody is
    /// left or the grace is over.
    ///
    /// # Errors
    ///
    /// That of a wait, or what a handler failed with ([`Reactor::fail`]).
    pub fn run(&mut self) -> Result<()> {
        while !self.is_finished() {
            self.turn()?;
        }
        Ok(())
    }

    /// One round: a wait, and a turn of everyone for whom there is something.
    ///
    /// # Errors
    ///
    /// As those of [`Reactor::run`].
    pub fn turn(&mut self) -> Result<()> {
        self.round(true)
    }

    /// One round, in which the wait may sleep, or only looks.
    ///
    /// # Errors
    ///
    /// As those of [`Reactor::run`].
    pub fn round(&mut self, sleep: bool) -> Result<()> {
        self.ask(|it, reactor| it.before_wait(reactor));
        let timeout = match sleep && self.again.is_empty() {
            true => Timeout::until(self.soonest()),
            false => Timeout::ZERO,
        };
        let mut events = mem::take(&mut self.events);
        self.demultiplexer.wait(timeout, &mut events)?;
        (self.now, self.waited_for) = (None, self.serial);
        self.awake_by = None;
        self.counters.waits += 1;
        self.counters.events += events.len() as u64;
        if !self.asked.is_empty() {
            self.serve_asked(&mut events);
        }
        let unfinished = self.again.len();
        for event in events.drain(..) {
            self.dispatch(event);
        }
        self.events = events;
        for at in 0..unfinished {
            self.go_on(self.again[at]);
        }
        self.again.drain(..unfinished);
        self.call_timers();
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Lets `f` do something with a connection, as in a turn of its own.
    /// Returns whether it is still there.
    pub fn visit(
        &mut self,
        id: Id,
        f: impl FnOnce(&mut C, &mut Self) -> Result<Next, Gone>,
    ) -> bool {
        let Some(slot) = self.slot(id.token) else { return false };
        if slot.serial != id.serial {
            return false;
        }
        let mut owner = mem::replace(&mut slot.owner, Owner::Busy);
        let outer = mem::replace(&mut self.current, id);
        let next = match &mut owner {
            Owner::Connection(connection) => f(connection, self),
            Owner::Service(_) | Owner::Busy => Ok(Next::Same),
        };
        self.settle(id.token, owner, next);
        self.current = outer;
        true
    }

    /// Asks this handler before each wait, and lets it go first after it.
    pub fn ask_before_waits(&mut self, id: Id) {
        self.asked.push(id);
    }

    /// Gives a turn to what is no connection, although nothing was told of it,
    /// and further ones as long as there is something for it to read.
    pub fn look(&mut self, id: Id) {
        if self.is_there(id) {
            self.call(id.token, |it, reactor| {
                let it = it.handler()?;
                loop {
                    match it.readable(reactor) {
                        Ok(Next::Again(_)) => {}
                        last => return last,
                    }
                }
            });
        }
    }

    /// The next wait, and no other, ends within this time: for those who are
    /// asked before each.
    pub fn awake_within(&mut self, delay: Duration) {
        let at = self.now() + delay;
        self.awake_by = Some(self.awake_by.map_or(at, |by| by.min(at)));
    }

    /// Ends what is no connection, once there is nothing left for it to read.
    pub fn finish(&mut self, id: Id) {
        self.look(id);
        if self.is_there(id) {
            self.call(id.token, |_, _| Err(Gone));
        }
    }

    /// Gives up everything in a child that fork(2) has made: it closes copies
    /// of descriptors. Their interests belong to the parent, whose list in the
    /// kernel is this one's too: epoll(7).
    pub fn abandon(mut self) {
        self.slots.clear();
    }

    /// Whose turn it is.
    pub fn current(&self) -> Id {
        self.current
    }

    /// Calls a handler's `timer` once, after so long; `None` if it is gone.
    pub fn after(&mut self, id: Id, delay: Duration) -> Option<Timer> {
        let at = self.now() + delay;
        self.start_timer(id, at, None)
    }

    /// Calls it again and again. A call that comes too late for its time is
    /// left out.
    pub fn every(&mut self, id: Id, period: Duration) -> Option<Timer> {
        let at = self.now() + period;
        self.start_timer(id, at, Some(period))
    }

    /// Stops a handler's timer; returns whether it was still to come.
    pub fn cancel(&mut self, id: Id, timer: Timer) -> bool {
        let Some(slot) = self.slots.get_mut(id.token) else {
            return false;
        };
        slot.serial == id.serial && self.timers.cancel(&mut slot.timers, timer)
    }

    /// The time, as of this round.
    pub fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    /// The buffers that all connections share.
    pub fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }

    /// Whether the socket of whose turn it is may hold more than plain bytes:
    /// an end, or an urgent byte, before which a read stops short (tcp(7)). If
    /// not, a read that brings less than was asked for has emptied it.
    pub fn may_hold_more(&self) -> bool {
        let slot = self.slots.get(self.current.token);
        slot.is_none_or(|slot| slot.more)
    }

    /// The call that it waits in.
    pub fn waits_in(&self) -> &'static str {
        self.demultiplexer.name()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// How many timers are to come.
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Ends `run` with this error after the round.
    pub fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Tells every handler, but the one whose turn it is, that the reactor is
    /// to stop; connections have so much time to end.
    pub fn stop(&mut self, grace: Duration) {
        self.deadline = Some(self.now() + grace);
        for token in 0..self.slots.end() {
            self.call(token, |it, reactor| it.handler()?.stopping(reactor));
        }
    }

    /// How much time is left to stop, if it has been told to.
    pub fn grace(&mut self) -> Option<Duration> {
        let deadline = self.deadline?;
        Some(deadline.saturating_duration_since(self.now()))
    }

    /// Whether it has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.deadline.is_some()
    }

    /// Whether it was told to stop, and nobody is left or the grace is over.
    pub fn is_finished(&self) -> bool {
        let over = |at: Instant| self.connections == 0 || Instant::now() >= at;
        self.deadline.is_some_and(over)
    }

    /// Those who wait for room try again.
    pub fn has_room(&mut self) {
        while let Some(id) = self.crowded.pop() {
            if self.is_there(id) {
                self.call(id.token, |_, _| Ok(Next::Again(Interest::Read)));
            }
        }
    }

    fn enter(
        &mut self,
        fd: BorrowedFd<'_>,
        interest: Interest,
    ) -> Result<Id, RegisterError> {
        let token = self.slots.next();
        self.demultiplexer.register(fd, token, interest)?;
        self.serial += 1;
        let id = Id { token, serial: self.serial };
        self.slots.insert(Slot {
            owner: Owner::Busy,
            interest,
            again: 0,
            more: true,
            serial: self.serial,
            timers: Own::default(),
        });
        Ok(id)
    }

    fn open(&mut self, id: Id, mut owner: Owner<C>) {
        let outer = mem::replace(&mut self.current, id);
        if let Ok(handler) = owner.handler() {
            handler.opened(self);
        }
        self.current = outer;
        if let Some(slot) = self.slot(id.token) {
            slot.owner = owner;
        }
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot<C>> {
        self.slots.get_mut(token)
    }

    fn is_there(&mut self, id: Id) -> bool {
        self.slot(id.token).is_some_and(|slot| slot.serial == id.serial)
    }

    /// Asks those who have asked for it.
    fn ask(&mut self, f: fn(&mut dyn Handler<C>, &mut Self) -> Next) {
        for at in 0..self.asked.len() {
            let id = self.asked[at];
            if self.is_there(id) {
                self.call(id.token, |it, reactor| {
                    Ok(f(it.handler()?, reactor))
                });
            }
        }
    }

    /// Their events come first.
    fn serve_asked(&mut self, events: &mut Vec<Event>) {
        for at in 0..self.asked.len() {
            let token = self.asked[at].token;
            if let Some(at) = events.iter().position(|it| it.token == token) {
                let event = events.remove(at);
                self.dispatch(event);
            }
        }
        self.ask(|it, reactor| it.after_wait(reactor));
    }

    /// When a wait has to end at the latest.
    fn soonest(&self) -> Option<Instant> {
        let others = self.deadline.into_iter().chain(self.awake_by);
        self.timers.next().into_iter().chain(others).min()
    }

    /// Calls whoever an event is for.
    fn dispatch(&mut self, event: Event) {
        let waited_for = self.waited_for;
        let Some(slot) = self.slot(event.token) else { return };
        // Its place was another's when the wait returned, who is gone.
        if slot.serial > waited_for {
            return;
        }
        slot.again = 0;
        slot.more = event.more;
        self.give_turn(event);
    }

    /// Calls whoever had more to do, unless an event came since.
    fn go_on(&mut self, token: Token) {
        let waits = self.counters.waits;
        let Some(slot) = self.slot(token) else { return };
        // An event may have brought its turn, after which it is on the list
        // anew, for the next round.
        if (1..=waits).contains(&slot.again) {
            slot.again = 0;
            let (readable, writable) = (true, true);
            let (hung_up, more) = (false, slot.more);
            self.give_turn(Event { token, readable, writable, hung_up, more });
        }
    }

    fn give_turn(&mut self, event: Event) {
        let Event { token, readable, writable, hung_up, .. } = event;
        let Some(Slot { interest, .. }) = self.slot(token) else { return };
        let interest = *interest;
        if readable && interest.reads() {
            self.call(token, |owner, reactor| match owner {
                Owner::Connection(it) => it.readable(reactor),
                Owner::Service(it) => it.readable(reactor),
                Owner::Busy => Ok(Next::Same),
            });
        }
        if writable && interest.writes() {
            self.call(token, |owner, reactor| match owner {
                Owner::Connection(it) => it.writable(reactor),
                Owner::Service(it) => it.writable(reactor),
                Owner::Busy => Ok(Next::Same),
            });
        }
        // Nobody is going to call on it, so it would be told for ever.
        if hung_up && interest == Interest::Nothing {
            self.call(token, |_, _| Err(Gone));
        }
    }

    /// The handler has the reactor to itself meanwhile, and its slot is empty.
    fn call(
        &mut self,
        token: Token,
        f: impl FnOnce(&mut Owner<C>, &mut Self) -> Result<Next, Gone>,
    ) {
        let Some(slot) = self.slot(token) else { return };
        if let Owner::Busy = slot.owner {
            return;
        }
        let serial = slot.serial;
        let mut owner = mem::replace(&mut slot.owner, Owner::Busy);
        let outer = mem::replace(&mut self.current, Id { token, serial });
        let next = f(&mut owner, self);
        self.settle(token, owner, next);
        self.current = outer;
    }

    /// The turn is over: what is waited for next, or the end.
    fn settle(
        &mut self,
        token: Token,
        owner: Owner<C>,
        next: Result<Next, Gone>,
    ) {
        let edges = self.demultiplexer.tells_changes();
        let Some(slot) = self.slots.get_mut(token) else { return };
        let (wanted, again) = match next {
            Ok(Next::Same) => {
                slot.owner = owner;
                return;
            }
            Ok(Next::Wait(interest)) => (interest, false),
            Ok(Next::Again(interest)) => (interest, true),
            Ok(Next::Room) => {
                self.crowded.push(Id { token, serial: slot.serial });
                (Interest::Nothing, false)
            }
            Err(Gone) => return self.close(token, owner),
        };
        let before = mem::replace(&mut slot.interest, wanted);
        let changed = before != wanted;
        if edges && (again || changed) && slot.again == 0 {
            // An edge may have passed while nobody waited for it.
            slot.again = self.counters.waits + 1;
            self.again.push(token);
        }
        if changed {
            let modified = self.demultiplexer.modify(owner.fd(), token, wanted);
            match (modified, &owner) {
                (Ok(()), _) => {}
                // Without its listener a server would live on for nothing.
                (Err(RegisterError::System(..)), Owner::Service(_)) => {
                    (slot.interest, slot.owner) = (before, owner);
                    let id = Id { token, serial: slot.serial };
                    self.after(id, ONCE_MORE);
                    return;
                }
                (Err(_), _) => return self.close(token, owner),
            }
        }
        slot.owner = owner;
    }

    /// The only way out: what was known of it is forgotten, and then it is
    /// closed.
    fn close(&mut self, token: Token, owner: Owner<C>) {
        if let Some(slot) = self.slots.remove(token) {
            self.timers.cancel_all(slot.timers);
        }
        let fd = owner.fd().as_raw_fd();
        match owner {
            Owner::Connection(connection) => {
                self.demultiplexer.closing(fd);
                self.connections -= 1;
                self.counters.closed += 1;
                connection.closed(self);
                self.has_room();
            }
            // Another process may have it too: to close it here would not end
            // the interest in it.
            Owner::Service(service) => {
                if self.demultiplexer.remove(service.fd()).is_err() {
                    self.demultiplexer.closing(fd);
                }
            }
            Owner::Busy => {}
        }
    }

    fn start_timer(
        &mut self,
        id: Id,
        at: Instant,
        period: Option<Duration>,
    ) -> Option<Timer> {
        let slot = self.slots.get_mut(id.token)?;
        let own = &mut slot.timers;
        (slot.serial == id.serial)
            .then(|| self.timers.start(own, id.token, at, period))
    }

    /// As many as there are now at most: one that is started for this very
    /// moment has to wait for the next round.
    fn call_timers(&mut self) {
        if self.timers.next().is_none() {
            return;
        }
        let now = self.now();
        for _ in 0..self.timers.len() {
            let Some(due) = self.timers.due(now) else { return };
            let Some(slot) = self.slots.get_mut(due.token) else {
                return;
            };
            self.timers.over(&mut slot.timers, due.timer, now);
            self.counters.timers += 1;
            self.call(due.token, |it, reactor| {
                it.handler()?.timer(due.timer, reactor)
            });
        }
    }
}

/// The connections of a reactor that has none.
pub enum Never {}

impl Handler for Never {
    fn fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }

    fn readable(&mut self, _: &mut Reactor<Self>) -> Result<Next, Gone> {
        match *self {}
    }
}

impl<C: Handler> Owner<C> {
    /// For what happens seldom: readiness is dispatched without a detour.
    fn handler(&mut self) -> Result<&mut dyn Handler<C>, Gone> {
        match self {
            Owner::Connection(connection) => Ok(connection),
            Owner::Service(service) => Ok(&mut **service),
            Owner::Busy => Err(Gone),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Owner::Connection(connection) => connection.fd(),
            Owner::Service(service) => service.fd(),
            Owner::Busy => unreachable!("nobody asks during a turn"),
        }
    }
}

impl<C: Handler> Drop for Reactor<C> {
    /// Whoever is still there is closed as well.
    fn drop(&mut self) {
        for token in 0..self.slots.end() {
            self.call(token, |_, _| Err(Gone));
        }
    }
}

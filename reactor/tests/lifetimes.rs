//! A connection ends once, whatever it ends by, and nothing of it is left.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use echo::{Gone, Unwatched};
use reactor::{
    Demultiplexer, Epoll, Handler, Id, Interest, Next, Poll, Reactor, Select,
    Timer, Trigger,
};

/// What happened to connections, in its order.
type Log = Rc<RefCell<Vec<String>>>;

/// A connection that does what its test says.
struct Played {
    name: &'static str,
    socket: TcpStream,
    log: Log,
    /// What its turns return, and its end if they run out.
    turns: Vec<Result<Next, Gone>>,
}

impl Played {
    fn turn(&mut self, what: &str) -> Result<Next, Gone> {
        self.log.borrow_mut().push(format!("{} {what}", self.name));
        match self.turns.is_empty() {
            true => Err(Gone),
            false => self.turns.remove(0),
        }
    }
}

impl Handler for Played {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn readable(&mut self, _: &mut Reactor<Self>) -> Result<Next, Gone> {
        let mut bytes = [0; 64];
        let _ = self.socket.read(&mut bytes);
        self.turn("readable")
    }

    fn writable(&mut self, _: &mut Reactor<Self>) -> Result<Next, Gone> {
        self.turn("writable")
    }

    fn timer(&mut self, _: Timer, _: &mut Reactor<Self>) -> Result<Next, Gone> {
        self.turn("timer")
    }

    fn stopping(&mut self, _: &mut Reactor<Self>) -> Result<Next, Gone> {
        self.turn("stopping")
    }

    fn closed(self, _: &mut Reactor<Self>) {
        self.log.borrow_mut().push(format!("{} closed", self.name));
    }
}

fn each(test: impl Fn(&mut Reactor<Played>, &Log)) {
    let epoll = |trigger| Epoll::new(trigger, Unwatched).unwrap();
    let kinds: [Box<dyn Demultiplexer>; 4] = [
        Box::new(Select::new(Unwatched)),
        Box::new(Poll::new(Unwatched)),
        Box::new(epoll(Trigger::Level)),
        Box::new(epoll(Trigger::Edge)),
    ];
    for kind in kinds {
        let mut reactor = Reactor::new(kind, 64);
        test(&mut reactor, &Log::default());
    }
}

/// A connection, and its peer.
fn played(
    name: &'static str,
    log: &Log,
    turns: &[Result<Next, Gone>],
) -> (Played, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let (turns, log) = (turns.to_vec(), Rc::clone(log));
    (Played { name, socket, log, turns }, far)
}

/// Turns until the log has so many entries.
fn until(reactor: &mut Reactor<Played>, log: &Log, entries: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while log.borrow().len() < entries {
        assert!(Instant::now() < deadline, "only {:?}", log.borrow());
        reactor.round(false).unwrap();
    }
}

fn said(log: &Log) -> Vec<String> {
    log.borrow().clone()
}

const READ: Result<Next, Gone> = Ok(Next::Wait(Interest::Read));

#[test]
fn the_end_comes_once_and_whatever_it_comes_from() {
    type Cause = fn(&mut Reactor<Played>, Id, &mut TcpStream);
    let causes: [(&str, Interest, Cause); 6] = [
        ("readable", Interest::Read, |_, _, far| far.write_all(b"x").unwrap()),
        ("writable", Interest::Write, |_, _, _| {}),
        ("timer", Interest::Read, |reactor, id, _| {
            reactor.after(id, Duration::ZERO).unwrap();
        }),
        ("stopping", Interest::Read, |reactor, _, _| {
            reactor.stop(Duration::from_secs(1));
        }),
        ("", Interest::Read, |reactor, id, _| {
            assert!(reactor.visit(id, |_, _| Err(Gone)));
        }),
        ("", Interest::Read, |reactor, _, _| {
            // Whoever is left at the end.
            let demultiplexer = Box::new(Poll::new(Unwatched));
            drop(std::mem::replace(reactor, Reactor::new(demultiplexer, 1)));
        }),
    ];
    for (what, interest, cause) in causes {
        each(|reactor, log| {
            let (connection, mut far) = played("a", log, &[]);
            let id = reactor.register(connection, interest).unwrap();
            reactor.after(id, Duration::from_secs(3600));
            cause(reactor, id, &mut far);
            let turn = (!what.is_empty()).then(|| format!("a {what}"));
            let mut expected: Vec<String> = turn.into_iter().collect();
            expected.push("a closed".to_owned());
            until(reactor, log, expected.len());
            // Nothing more comes of it.
            for _ in 0..3 {
                reactor.round(false).unwrap();
            }
            assert_eq!(said(log), expected, "by {what}");
            assert_eq!(reactor.connections(), 0);
            assert_eq!(reactor.timers(), 0, "a timer is left");
            assert!(!reactor.visit(id, |_, _| panic!("it is gone")));
            // Its socket is closed: the peer sees an end.
            far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let end = far.read(&mut [0; 8]);
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        });
    }
}

#[test]
fn a_reset_while_nothing_is_wanted_is_an_end() {
    each(|reactor, log| {
        let nothing = Ok(Next::Wait(Interest::Nothing));
        let (connection, mut far) = played("a", log, &[nothing]);
        reactor.register(connection, Interest::Read).unwrap();
        far.write_all(b"x").unwrap();
        until(reactor, log, 1);
        nix::sys::socket::setsockopt(
            &far,
            nix::sys::socket::sockopt::Linger,
            &libc::linger { l_onoff: 1, l_linger: 0 },
        )
        .unwrap();
        drop(far);
        // select and poll are not asked about it meanwhile, and hear of it
        // when something is wanted again.
        let told = reactor.waits_in() == "epoll_wait";
        let deadline = Instant::now() + Duration::from_millis(500);
        while said(log).len() < 2 && told {
            assert!(Instant::now() < deadline, "it is not told of the end");
            reactor.round(false).unwrap();
        }
        if told {
            assert_eq!(said(log), ["a readable", "a closed"]);
        }
    });
}

/// Ends another connection in its turn, and puts a new one in its place.
enum Replacing {
    Replaces {
        socket: TcpStream,
        other: Rc<Cell<Option<Id>>>,
        new: TcpStream,
        turns: Rc<Cell<u32>>,
    },
    Counts {
        socket: TcpStream,
        turns: Rc<Cell<u32>>,
    },
}

impl Handler for Replacing {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Replacing::Replaces { socket, .. } => socket.as_fd(),
            Replacing::Counts { socket, .. } => socket.as_fd(),
        }
    }

    fn readable(&mut self, reactor: &mut Reactor<Self>) -> Result<Next, Gone> {
        match self {
            Replacing::Replaces { other, new, turns, .. } => {
                let other = other.get().unwrap();
                reactor.visit(other, |_, _| Err(Gone));
                let socket = new.try_clone().unwrap();
                let turns = Rc::clone(turns);
                let new = Replacing::Counts { socket, turns };
                reactor.register(new, Interest::Read).unwrap();
                Err(Gone)
            }
            Replacing::Counts { turns, .. } => {
                turns.set(turns.get() + 1);
                READ
            }
        }
    }
}

#[test]
fn who_comes_in_the_place_of_another_gets_none_of_its_events() {
    let log = Log::default();
    let mut reactor = Reactor::new(Box::new(Poll::new(Unwatched)), 64);
    let (first, mut far_first) = played("first", &log, &[]);
    let (second, mut far_second) = played("second", &log, &[]);
    let (third, _far_third) = played("third", &log, &[]);
    let (other, turns) = (Rc::new(Cell::new(None)), Rc::<Cell<u32>>::default());
    let replaces = Replacing::Replaces {
        socket: first.socket,
        other: Rc::clone(&other),
        new: third.socket,
        turns: Rc::clone(&turns),
    };
    reactor.register(replaces, Interest::Read).unwrap();
    let counts =
        Replacing::Counts { socket: second.socket, turns: Rc::clone(&turns) };
    let second = reactor.register(counts, Interest::Read).unwrap();
    other.set(Some(second));
    // Both are ready in one wait, the first of them first.
    far_second.write_all(b"x").unwrap();
    far_first.write_all(b"x").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    reactor.round(false).unwrap();
    assert_eq!(reactor.counters().events, 2, "they were not ready at once");
    assert_eq!(turns.get(), 0, "the event of one that is gone was given away");
    assert_eq!(reactor.connections(), 1);
    assert!(!reactor.visit(second, |_, _| panic!("it is gone")));
}

/// A client that has always more to say, edge-triggered: whether an event or
/// the reactor's own list brings its turn, it has one in each round.
#[test]
fn whoever_has_always_more_has_one_turn_a_round() {
    let again = Ok(Next::Again(Interest::Read));
    let epoll = Epoll::new(Trigger::Edge, Unwatched).unwrap();
    let mut reactor = Reactor::new(Box::new(epoll), 64);
    let log = Log::default();
    let (connection, mut far) = played("a", &log, &[again; 99]);
    reactor.register(connection, Interest::Read).unwrap();
    // Its first event is that it may be written to.
    reactor.round(false).unwrap();
    for round in 1..40 {
        far.write_all(b"x").unwrap();
        // It has arrived, and is an event of this round.
        std::thread::sleep(Duration::from_millis(1));
        let before = said(&log).len();
        reactor.round(false).unwrap();
        let turns = said(&log).len() - before;
        assert!(turns <= 1, "{turns} turns in round {round}");
    }
    assert!(said(&log).len() > 30, "{} turns in 40 rounds", said(&log).len());
}

#[test]
fn timers_come_in_their_order_and_at_their_time() {
    each(|reactor, log| {
        let (a, _far_a) = played("a", log, &[READ; 9]);
        let (b, _far_b) = played("b", log, &[READ; 9]);
        let a = reactor.register(a, Interest::Read).unwrap();
        let b = reactor.register(b, Interest::Read).unwrap();
        let ms = Duration::from_millis;
        let begin = Instant::now();
        reactor.after(a, ms(20)).unwrap();
        reactor.after(b, ms(10)).unwrap();
        let never = reactor.after(b, ms(15)).unwrap();
        assert!(reactor.cancel(b, never) && !reactor.cancel(b, never));
        let deadline = begin + Duration::from_secs(5);
        while said(log).len() < 2 {
            assert!(Instant::now() < deadline);
            // The wait itself sleeps until a timer is due.
            reactor.turn().unwrap();
        }
        assert!(begin.elapsed() >= ms(20), "too early");
        assert_eq!(said(log), ["b timer", "a timer"]);
        assert!(reactor.counters().waits < 20, "it did not sleep");
    });
}

#[test]
fn a_periodic_timer_leaves_out_what_is_too_late() {
    each(|reactor, log| {
        let (a, _far) = played("a", log, &[READ; 99]);
        let a = reactor.register(a, Interest::Read).unwrap();
        let period = Duration::from_millis(20);
        let timer = reactor.every(a, period).unwrap();
        until(reactor, log, 2);
        // Many periods pass while a handler has its turn; the rounds after it
        // take less than one, or else the machine was too busy to tell.
        std::thread::sleep(period * 8);
        let begin = Instant::now();
        for _ in 0..6 {
            reactor.round(false).unwrap();
        }
        let rounds = begin.elapsed().as_millis() / period.as_millis();
        let most = 2 + 2 + rounds as usize;
        assert!(said(log).len() <= most, "{:?}", said(log));
        assert!(reactor.cancel(a, timer));
        assert_eq!(reactor.timers(), 0);
    });
}

#[test]
fn a_timer_that_starts_itself_for_now_does_not_hold_up_the_others() {
    struct Eager(TcpStream, u32);
    impl Handler for Eager {
        fn fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
        fn readable(&mut self, _: &mut Reactor<Self>) -> Result<Next, Gone> {
            Err(Gone)
        }
        fn timer(
            &mut self,
            _: Timer,
            reactor: &mut Reactor<Self>,
        ) -> Result<Next, Gone> {
            self.1 += 1;
            assert!(self.1 < 1000, "it never came to the others");
            reactor.after(reactor.current(), Duration::ZERO);
            Ok(Next::Same)
        }
    }
    let mut reactor = Reactor::new(Box::new(Poll::new(Unwatched)), 64);
    let (played, mut far) = played("a", &Log::default(), &[]);
    let id = reactor
        .register(Eager(played.socket.try_clone().unwrap(), 0), Interest::Read)
        .unwrap();
    reactor.after(id, Duration::ZERO);
    far.write_all(b"x").unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while reactor.connections() > 0 {
        assert!(Instant::now() < deadline);
        reactor.round(false).unwrap();
    }
}

#[test]
fn a_hundred_thousand_timers_are_not_looked_through() {
    // What a round costs with so many timers to come, against none, within
    // one run; a scan of all would be some thousand times as much.
    let log = Log::default();
    let mut reactor = Reactor::new(Box::new(Poll::new(Unwatched)), 64);
    let (a, _far) = played("a", &log, &[]);
    let a = reactor.register(a, Interest::Read).unwrap();
    let mut rounds = || {
        let begin = Instant::now();
        for _ in 0..2_000 {
            reactor.round(false).unwrap();
        }
        begin.elapsed()
    };
    let without = (0..5).map(|_| rounds()).min().unwrap();
    let hour = Duration::from_secs(3600);
    for n in 0..100_000 {
        reactor.after(a, hour + Duration::from_millis(n)).unwrap();
    }
    assert_eq!(reactor.timers(), 100_000);
    let mut rounds = || {
        let begin = Instant::now();
        for _ in 0..2_000 {
            reactor.round(false).unwrap();
        }
        begin.elapsed()
    };
    let with = (0..5).map(|_| rounds()).min().unwrap();
    assert!(with < without * 3, "{with:?} against {without:?}");
    // One is stopped in the middle, and all with their handler.
    reactor.visit(a, |_, _| Err(Gone));
    assert_eq!(reactor.timers(), 0);
}

//! The loop: one thread, one wait for all, and nothing allocated once the
//! clock runs.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{
    ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags,
};
use nix::time::{ClockId, clock_gettime};

use super::payload::{Loud, Payload, Phase};
use super::plan::{Plan, Span};
use super::report::{Measured, OpenLoop, Turn, Whole, curve_of, latency_of};
use super::sizes::{Lap, Place};
use super::slow::{self, Crowd};
use super::socket::{Opener, end_of, is_connected, is_decided, wait_for};

/// How much one call reads or sends at most.
const CHUNK: usize = 64 * 1024;
/// How often one connection is read from before the others have their turn.
const READS: usize = 16;
/// Most messages that become due between two looks at what came back.
const MOST_AT_ONCE: usize = 1024;
/// Bytes that an idle connection sends to show that it is served.
const GREETING: usize = 64;
/// The longest latency that the histogram tells from longer ones.
const LONGEST: u64 = 3_600_000_000_000;
const TIMER: u64 = u64::MAX;

/// All that is ever wanted of a connection, each told once: to ask for less
/// or more would be a call (epoll_ctl) now and then, and to be told again and
/// again makes every wait look once more at those that were ready before.
const WANTED: EpollFlags = EpollFlags::EPOLLET
    .union(EpollFlags::EPOLLIN)
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP);
/// Nothing comes after what is there.
const ENDED: EpollFlags = EpollFlags::EPOLLRDHUP
    .union(EpollFlags::EPOLLHUP)
    .union(EpollFlags::EPOLLERR);

/// Nanoseconds of CLOCK_MONOTONIC, which timers also understand.
pub(super) type Moment = u64;

const NEVER: Moment = u64::MAX;

/// All connections of a load, ready to begin.
pub(super) struct Engine<'a> {
    plan: &'a Plan,
    list: Epoll,
    timer: TimerFd,
    /// When the timer expires.
    armed: Moment,
    events: Vec<EpollEvent>,
    slots: Vec<Slot>,
    idle: Vec<OwnedFd>,
    payload: Payload,
    buffer: Vec<u8>,
    lap: Lap,
    slow: Crowd,
    /// Closed loop: when the outstanding messages of each slot were begun.
    begun: Vec<Moment>,
    opener: Opener,
    schedule: Schedule,
    now: Moment,
    stage: Stage,
    /// Messages that may be sent and are not back.
    outstanding: u64,
    /// Slots whose connection does not stand yet.
    connecting: usize,
    /// Closed loop: messages that may still be begun.
    left: u64,
    histogram: Histogram<u64>,
    /// Of all turns.
    whole: Histogram<u64>,
    /// From connect until the connection stands.
    connects: Histogram<u64>,
    tally: Tally,
}

/// Counted while it is measured, if nothing else is said.
#[derive(Default)]
struct Tally {
    messages: u64,
    bytes: u64,
    renewed: u64,
    /// What came back after that, of what was begun before.
    rest: u64,
    /// As above.
    rest_bytes: u64,
    /// Connections opened anew, from first to last.
    connects: u64,
    /// From first to last.
    blocked: u64,
    /// Of the messages that were due then.
    late: u64,
    /// As above.
    unfinished: u64,
}

/// A moment, and the CPU time that this thread had taken by then.
#[derive(Clone, Copy)]
struct Mark {
    at: Moment,
    cpu: Duration,
}

impl Mark {
    fn now() -> Result<Mark> {
        Ok(Mark { at: monotonic()?, cpu: cpu_time()? })
    }

    /// Seconds, and seconds of CPU time.
    fn since(self, before: Mark) -> (f64, f64) {
        let passed = Duration::from_nanos(self.at - before.at);
        let cpu = self.cpu.saturating_sub(before.cpu);
        (passed.as_secs_f64(), cpu.as_secs_f64())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    WarmUp,
    Measuring,
    /// What was begun is awaited.
    Draining,
}

/// When what is to happen.
#[derive(Clone, Copy)]
struct Schedule {
    begin: Moment,
    /// Measured from here on, up to `to`.
    from: Moment,
    to: Moment,
    /// Open loop: nanoseconds between two messages.
    interval: Option<f64>,
    /// The next message of the open loop, all connections counted.
    next: u64,
    next_slot: usize,
    churn_interval: Moment,
    next_churn: Moment,
    churn_slot: usize,
    next_look: Moment,
    /// When the slow readers are served next.
    next_tick: Moment,
}

impl Schedule {
    /// When message `index` is due. It does not matter when it can be sent.
    fn due(&self, interval: f64, index: u64) -> Moment {
        self.begin + (index as f64 * interval) as u64
    }
}

/// One place among the connections; with churn many have it in turn.
struct Slot {
    socket: OwnedFd,
    connecting: bool,
    /// The kernel has no room for more; the next wait tells when it has.
    blocked: bool,
    generation: u64,
    /// How many bytes may be sent so far: whole messages.
    allowed: u64,
    /// The first message that may not be sent yet.
    ahead: Place,
    /// Where this connection ends, once it is to be renewed: between two
    /// messages.
    end: u64,
    sent: u64,
    received: u64,
    out: Phase,
    back: Phase,
    /// The message that is coming back.
    coming: Place,
    /// Bytes of it that are still to come.
    missing: usize,
    /// Messages of this turn that came back, those of earlier connections
    /// included.
    done: u64,
    /// The message that is coming back, among the outstanding ones.
    oldest: usize,
    /// When the last byte came back, or the first one became outstanding;
    /// while it is connecting, when that began.
    moved: Moment,
}

impl Slot {
    fn goal(&self) -> u64 {
        self.allowed.min(self.end)
    }

    fn owes(&self) -> bool {
        self.connecting || self.received < self.goal()
    }

    fn allow_one(&mut self, lap: &Lap) {
        self.allowed += lap.size(self.ahead) as u64;
        self.ahead = lap.after(self.ahead);
    }

    /// Where the message ends of which the last byte was sent, and which one
    /// and how many of those that are not back come before that.
    fn boundary(&self, lap: &Lap) -> (u64, Place, u64) {
        let whole = lap.size(self.coming);
        let (mut end, mut place, mut count) = (self.received, self.coming, 0);
        if self.missing < whole {
            end += self.missing as u64;
            place = lap.after(place);
            count = 1;
        }
        while end < self.sent {
            end += lap.size(place) as u64;
            place = lap.after(place);
            count += 1;
        }
        (end, place, count)
    }
}

impl<'a> Engine<'a> {
    /// Start barrier: returns once everybody is connected and the idle ones
    /// have been answered.
    pub(super) fn connect(
        plan: &'a Plan,
        tell: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let connections = plan.connections.get();
        let streams = connections + plan.slow_readers;
        let at_once = match plan.slow_readers {
            0 => plan.size.most().saturating_mul(plan.depth.get()),
            _ => CHUNK,
        };
        let all = streams + plan.idle;
        let loud = (plan.loud > 0)
            .then(|| Loud { connections: plan.loud, size: plan.size.most() });
        let lap = Lap::new(&plan.size);
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3)?;
        let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(TimerClock::CLOCK_MONOTONIC, flags)?;
        // timerfd_create(2): it stays readable until it is read. Only the
        // edge is of interest, so it need not be read.
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        list.add(&timer, EpollEvent::new(edge, TIMER))?;
        let begun = match plan.rate {
            Some(_) => Vec::new(),
            None => vec![0; connections * plan.depth.get()],
        };
        let mut engine = Engine {
            plan,
            list,
            timer,
            armed: NEVER,
            events: vec![EpollEvent::empty(); 256],
            slots: Vec::with_capacity(connections),
            idle: Vec::with_capacity(plan.idle),
            payload: Payload::new(streams, at_once, loud),
            buffer: vec![0; CHUNK],
            lap,
            slow: Crowd::new(plan),
            begun,
            opener: Opener::new(plan.addr),
            schedule: Schedule {
                begin: 0,
                from: 0,
                to: 0,
                interval: plan.rate.map(|rate| 1e9 / rate),
                next: 0,
                next_slot: 0,
                churn_interval: plan.churn.map_or(0, |it| (1e9 / it) as u64),
                next_churn: NEVER,
                churn_slot: 0,
                next_look: 0,
                next_tick: NEVER,
            },
            now: 0,
            stage: Stage::Draining,
            outstanding: 0,
            connecting: 0,
            left: 0,
            whole: histogram.clone(),
            connects: histogram.clone(),
            histogram,
            tally: Tally::default(),
        };
        for number in 0..plan.idle {
            let socket = engine
                .open()
                .with_context(|| format!("idle connection {number}"))?;
            engine.idle.push(socket);
            tell(number + 1, all);
        }
        engine.greet_idle()?;
        let begin = engine.payload.begin(0);
        for number in 0..connections {
            let socket = engine
                .open()
                .with_context(|| format!("connection {number}"))?;
            let event = EpollEvent::new(WANTED, number as u64);
            engine.list.add(&socket, event).context("epoll_ctl")?;
            let first = engine.lap.first(number);
            engine.slots.push(Slot {
                socket,
                connecting: false,
                blocked: false,
                generation: 0,
                allowed: 0,
                ahead: first,
                end: engine.end_from(first),
                sent: 0,
                received: 0,
                out: begin,
                back: begin,
                coming: first,
                missing: engine.lap.size(first),
                done: 0,
                oldest: 0,
                moved: 0,
            });
            tell(plan.idle + number + 1, all);
        }
        for number in 0..plan.slow_readers {
            let socket = engine
                .open()
                .with_context(|| format!("slow reader {number}"))?;
            engine.slow.push(socket, connections + number, begin);
            tell(plan.idle + connections + number + 1, all);
        }
        Ok(engine)
    }

    /// Where a connection ends whose first message is this one.
    fn end_from(&self, first: Place) -> u64 {
        let count = self.plan.messages_per_connection;
        count.map_or(NEVER, |it| self.lap.bytes(first, it.get()))
    }

    /// A connection that stands.
    fn open(&mut self) -> Result<OwnedFd> {
        let addr = self.plan.addr;
        let begin = monotonic()?;
        let socket = self.opener.begin()?;
        wait_for(&socket, PollFlags::POLLOUT, self.plan.patience)
            .with_context(|| format!("connect to {addr}"))?;
        is_connected(&socket).with_context(|| format!("connect to {addr}"))?;
        self.connects.saturating_record(monotonic()? - begin);
        Ok(socket)
    }

    /// Each of those that will be idle makes one round trip, so that it is
    /// known to be served and not only to be in a queue.
    fn greet_idle(&mut self) -> Result<()> {
        let patience = self.plan.patience;
        let greeting = |number: usize| {
            let mut bytes = [0; GREETING];
            fastrand::Rng::with_seed(!(number as u64)).fill(&mut bytes);
            bytes
        };
        let flags = MsgFlags::MSG_NOSIGNAL;
        for (number, socket) in self.idle.iter().enumerate() {
            let sent = send(socket.as_raw_fd(), &greeting(number), flags)
                .with_context(|| format!("idle connection {number}: send"))?;
            if sent < GREETING {
                bail!("idle connection {number}: no room for {GREETING} bytes");
            }
        }
        for (number, socket) in self.idle.iter().enumerate() {
            let mut got = [0; GREETING];
            let mut count = 0;
            while count < GREETING {
                wait_for(socket, PollFlags::POLLIN, patience).with_context(
                    || {
                        format!(
                            "idle connection {number} has stalled: {GREETING} \
                             bytes sent, {count} came back"
                        )
                    },
                )?;
                let rest = &mut got[count..];
                match recv(socket.as_raw_fd(), rest, MsgFlags::empty()) {
                    Ok(0) => bail!(
                        "idle connection {number} was closed by the server: \
                         {GREETING} bytes sent, {count} came back"
                    ),
                    Ok(more) => count += more,
                    Err(Errno::EINTR | Errno::EAGAIN) => {}
                    Err(errno) => {
                        return Err(errno).with_context(|| {
                            format!("idle connection {number}")
                        });
                    }
                }
            }
            let expected = greeting(number);
            let mut pairs = expected.iter().zip(got);
            if let Some(at) = pairs.position(|(want, got)| *want != got) {
                bail!(
                    "idle connection {number}, byte {at}: expected {:#04x}, \
                     got {:#04x}",
                    expected[at],
                    got[at]
                );
            }
            let data = (self.plan.connections.get() + number) as u64;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, data);
            self.list.add(socket, event).context("epoll_ctl")?;
        }
        Ok(())
    }

    /// The warm-up flows into what is measured.
    pub(super) fn run(mut self) -> Result<Measured> {
        let span = Span::Time(self.plan.duration);
        let (began, ended) = self.load(self.plan.warm_up, span)?;
        let Schedule { begin, from, to, interval, .. } = self.schedule;
        let open_loop = interval.map(|interval| {
            let before = |end: Moment| {
                let guess = ((end - begin) as f64 / interval) as u64;
                let near = guess.saturating_sub(2)..=guess + 2;
                let due = |it: &u64| self.schedule.due(interval, *it) >= end;
                near.into_iter().find(due).unwrap_or(guess)
            };
            let due = before(to) - before(from);
            let late = self.tally.late;
            OpenLoop {
                due,
                late,
                late_share: late as f64 / due.max(1) as f64,
                unfinished: self.tally.unfinished,
            }
        });
        let (seconds, own_cpu_seconds) = ended.since(began);
        let Tally { messages, bytes, renewed, blocked, .. } = self.tally;
        Ok(Measured {
            plan: self.plan.clone(),
            seconds,
            messages,
            messages_per_second: 0.0,
            bytes_per_second: bytes as f64 / seconds,
            latency: latency_of(&self.histogram),
            connect: latency_of(&self.connects),
            open_loop,
            renewed,
            slow_readers: self.slow.seen(),
            blocked,
            own_cpu_seconds,
            own_cpu_ns_per_message: 0.0,
            own_core_share: 0.0,
            measures_the_pair: false,
        }
        .derive())
    }

    /// Begins when everything is quiet, and ends when everything is quiet
    /// again: all that was begun is back, and counts.
    pub(super) fn turn(&mut self, span: Span) -> Result<Turn> {
        if let (Span::Messages(_), Some(rate)) = (span, self.plan.rate) {
            bail!("{rate} messages a second are due: their number is not free");
        }
        let (began, _) = self.load(Duration::ZERO, span)?;
        // Before what has nothing to do with messages.
        let ended = Mark::now()?;
        ensure!(
            self.outstanding == 0,
            "the server does not keep up: {} messages were not back when the \
             wait for them was given up",
            self.outstanding
        );
        self.whole.add(&self.histogram).context("histogram")?;
        let (seconds, own_cpu_seconds) = ended.since(began);
        Ok(Turn {
            messages: self.tally.messages + self.tally.rest,
            bytes: self.tally.bytes + self.tally.rest_bytes,
            seconds,
            latency: latency_of(&self.histogram),
            own_cpu_seconds,
            own_core_share: own_cpu_seconds / seconds.max(1e-9),
            connects: self.tally.connects,
            blocked: self.tally.blocked,
        })
    }

    /// What all turns have shown since the connections were opened, or since
    /// it was to be forgotten.
    pub(super) fn whole(&self) -> Whole {
        let connects = &self.connects;
        Whole {
            latency: latency_of(&self.whole),
            curve: curve_of(&self.whole),
            connect: (!connects.is_empty()).then(|| latency_of(connects)),
            slow_readers: self.slow.seen(),
        }
    }

    pub(super) fn forget(&mut self) {
        self.whole.reset();
        self.connects.reset();
    }

    /// Loads for so long, and returns when all is back; tells from when to
    /// when it measured.
    fn load(&mut self, warm_up: Duration, span: Span) -> Result<(Mark, Mark)> {
        self.histogram.reset();
        self.tally = Tally::default();
        let (length, count) = match span {
            Span::Time(span) => (nanoseconds(span), None),
            Span::Messages(count) => (NEVER, Some(count)),
        };
        let mut began = Mark::now()?;
        self.now = began.at;
        let schedule = &mut self.schedule;
        schedule.begin = self.now;
        schedule.from = schedule.begin + nanoseconds(warm_up);
        schedule.to = schedule.from.saturating_add(length);
        schedule.next = 0;
        schedule.next_slot = 0;
        if self.plan.churn.is_some() {
            schedule.next_churn = self.now + schedule.churn_interval;
        }
        schedule.next_look = self.now;
        if !self.slow.is_empty() {
            schedule.next_tick = self.now;
        }
        self.stage = match warm_up.is_zero() {
            true => Stage::Measuring,
            false => Stage::WarmUp,
        };
        self.left = count.unwrap_or(u64::MAX);
        self.begin_all()?;
        let mut ended = began;
        loop {
            if self.stage == Stage::WarmUp && self.now >= self.schedule.from {
                began = Mark::now()?;
                self.now = began.at;
                self.stage = Stage::Measuring;
                if self.schedule.interval.is_none() {
                    // It may have begun late, which must not make it shorter.
                    self.schedule.to = self.now.saturating_add(length);
                }
            }
            self.fall_due()?;
            if self.stage == Stage::Measuring && self.is_over() {
                ended = Mark::now()?;
                self.stage = Stage::Draining;
                if count.is_none() {
                    self.begin_no_more();
                }
            }
            if self.stage == Stage::Draining
                && (self.is_quiet() || self.is_given_up())
            {
                return Ok((began, ended));
            }
            self.look_for_stalls()?;
            self.churn();
            self.tick()?;
            self.wait()?;
        }
    }

    /// Closed loop: as many messages as are to be outstanding, but no more
    /// than there are.
    fn begin_all(&mut self) -> Result<()> {
        let closed = self.schedule.interval.is_none();
        self.begun.fill(self.now);
        for slot in &mut self.slots {
            slot.done = 0;
            slot.moved = self.now;
        }
        for _ in 0..self.plan.depth.get() {
            let count = self.left.min(self.slots.len() as u64);
            if !closed || count == 0 {
                break;
            }
            for slot in &mut self.slots[..count as usize] {
                slot.allow_one(&self.lap);
            }
            self.left -= count;
            self.outstanding += count;
        }
        for at in 0..self.slots.len() {
            self.flush(at)?;
        }
        Ok(())
    }

    /// Whether nothing more is to be begun.
    fn is_over(&self) -> bool {
        self.left == 0 || (self.now >= self.schedule.to && !self.is_behind())
    }

    fn is_quiet(&self) -> bool {
        self.outstanding == 0 && self.connecting == 0
    }

    fn tick(&mut self) -> Result<()> {
        if self.now < self.schedule.next_tick {
            return Ok(());
        }
        self.schedule.next_tick = self.now + nanoseconds(slow::TICK);
        self.slow.tick(self.now, &self.payload, &mut self.buffer)
    }

    /// Sleeps until a connection is ready or something is to be done, and
    /// serves all that are.
    fn wait(&mut self) -> Result<()> {
        let wake = self.next_wake();
        if wake != self.armed {
            let at = TimeSpec::from_duration(Duration::from_nanos(wake));
            let absolute = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
            self.timer.set(Expiration::OneShot(at), absolute)?;
            self.armed = wake;
        }
        let n = match self.list.wait(&mut self.events, EpollTimeout::NONE) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno).context("epoll_wait"),
        };
        if n == 0 {
            self.now = monotonic()?;
        }
        for at in 0..n {
            let event = self.events[at];
            if event.data() == TIMER {
                // It expires once.
                self.armed = NEVER;
                self.now = monotonic()?;
                continue;
            }
            let at = event.data() as usize;
            if at >= self.slots.len() {
                self.on_idle_ready(at - self.slots.len())?;
                continue;
            }
            if self.slots[at].connecting {
                self.on_connected(at)?;
                continue;
            }
            let flags = event.events();
            if self.slots[at].blocked && flags.contains(EpollFlags::EPOLLOUT) {
                self.now = monotonic()?;
                self.slots[at].blocked = false;
                self.flush(at)?;
            }
            if flags != EpollFlags::EPOLLOUT {
                self.on_readable(at, flags)?;
            }
        }
        Ok(())
    }

    fn next_wake(&self) -> Moment {
        let Schedule { from, to, interval, next, .. } = self.schedule;
        let always = self.schedule.next_look.min(self.schedule.next_tick);
        let boundary = match self.stage {
            Stage::WarmUp => from,
            Stage::Measuring => to,
            Stage::Draining => return always,
        };
        let due = interval.map_or(NEVER, |it| self.schedule.due(it, next));
        always.min(boundary).min(self.schedule.next_churn).min(due)
    }

    /// Open loop: what is due by now may be sent, and is, where the kernel
    /// has room.
    fn fall_due(&mut self) -> Result<()> {
        let Some(interval) = self.schedule.interval else { return Ok(()) };
        if self.stage == Stage::Draining {
            return Ok(());
        }
        for _ in 0..MOST_AT_ONCE {
            let due = self.schedule.due(interval, self.schedule.next);
            if due > self.now || due >= self.schedule.to {
                break;
            }
            let at = self.schedule.next_slot;
            self.slots[at].allow_one(&self.lap);
            self.outstanding += 1;
            self.flush(at)?;
            self.schedule.next += 1;
            let next = at + 1;
            self.schedule.next_slot =
                if next == self.slots.len() { 0 } else { next };
        }
        Ok(())
    }

    /// Whether messages were due before the end that are not yet known.
    fn is_behind(&self) -> bool {
        self.schedule.interval.is_some_and(|interval| {
            let due = self.schedule.due(interval, self.schedule.next);
            due < self.schedule.to
        })
    }

    /// Sends what may be sent.
    fn flush(&mut self, at: usize) -> Result<()> {
        let slot = &mut self.slots[at];
        if slot.blocked || slot.connecting {
            return Ok(());
        }
        if slot.sent == slot.received {
            slot.moved = self.now;
        }
        let goal = slot.goal();
        while slot.sent < goal {
            let bytes = self.payload.bytes(at, slot.out, goal - slot.sent);
            let fd = slot.socket.as_raw_fd();
            let sent = match send(fd, bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => sent,
                // Not before this is the next room an edge (epoll(7)).
                Err(Errno::EAGAIN) => {
                    slot.blocked = true;
                    self.tally.blocked += 1;
                    return Ok(());
                }
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(self.gone(at, Some(errno))),
            };
            slot.sent += sent as u64;
            slot.out = self.payload.after(slot.out, sent);
        }
        Ok(())
    }

    /// Reads all that is there. One edge is told once; a read that does not
    /// fill the buffer has emptied the socket, and what comes later makes
    /// another edge (epoll(7)). Only an end may have come with the same one.
    fn on_readable(&mut self, at: usize, flags: EpollFlags) -> Result<()> {
        let to_its_end = flags.intersects(ENDED);
        let generation = self.slots[at].generation;
        for _ in 0..READS {
            let more = self.read(at)?;
            let renewed = self.slots[at].generation != generation;
            if renewed || !(more || to_its_end) {
                return Ok(());
            }
        }
        // To ask again makes an edge of what is there.
        let mut event = EpollEvent::new(WANTED, at as u64);
        let socket = &self.slots[at].socket;
        self.list.modify(socket, &mut event).context("epoll_ctl")
    }

    /// Reads once, holds it against what was sent, counts what is complete
    /// and sends as much anew. Says whether there may be more.
    ///
    /// The clock is read once for each read: what came with it is back now,
    /// and not when the wait returned, so that a message's latency neither
    /// lacks the time of those that were served before it nor loses it to the
    /// one that is begun next.
    fn read(&mut self, at: usize) -> Result<bool> {
        let slot = &mut self.slots[at];
        let fd = slot.socket.as_raw_fd();
        let count = match recv(fd, &mut self.buffer, MsgFlags::empty()) {
            Ok(0) => return Err(self.gone(at, None)),
            Ok(count) => count,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => return Ok(true),
            Err(errno) => return Err(self.gone(at, Some(errno))),
        };
        self.now = monotonic()?;
        let more = count == self.buffer.len();
        let got = &self.buffer[..count];
        let wrong = self.payload.first_wrong(at, slot.back, got);
        let surplus = slot.received + count as u64 > slot.sent;
        if wrong.is_some() || surplus {
            return Err(self.wrong(at, wrong, count));
        }
        slot.received += count as u64;
        slot.back = self.payload.after(slot.back, count);
        slot.moved = self.now;
        let mut rest = count;
        let before = self.slots[at].done;
        while rest >= self.slots[at].missing {
            rest -= self.slots[at].missing;
            self.on_complete(at);
        }
        let slot = &mut self.slots[at];
        slot.missing -= rest;
        if slot.received == slot.end {
            self.renew(at)?;
            return Ok(false);
        }
        if slot.done > before {
            self.flush(at)?;
        }
        Ok(more)
    }

    /// One message is back.
    fn on_complete(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let size = self.lap.size(slot.coming) as u64;
        slot.coming = self.lap.after(slot.coming);
        slot.missing = self.lap.size(slot.coming);
        self.outstanding -= 1;
        let began = match self.schedule.interval {
            Some(interval) => {
                let slots = self.plan.connections.get() as u64;
                self.schedule.due(interval, slot.done * slots + at as u64)
            }
            None => {
                let depth = self.plan.depth.get();
                let index = at * depth + slot.oldest;
                let next = slot.oldest + 1;
                slot.oldest = if next == depth { 0 } else { next };
                if self.stage < Stage::Draining && self.left > 0 {
                    self.left -= 1;
                    self.outstanding += 1;
                    slot.allow_one(&self.lap);
                }
                std::mem::replace(&mut self.begun[index], self.now)
            }
        };
        slot.done += 1;
        match self.stage {
            Stage::WarmUp => {}
            Stage::Measuring => {
                self.tally.messages += 1;
                self.tally.bytes += size;
            }
            Stage::Draining => {
                self.tally.rest += 1;
                self.tally.rest_bytes += size;
            }
        }
        if self.is_asked(at) {
            self.record(began);
        }
    }

    /// Whether the latency of this slot is of interest.
    fn is_asked(&self, at: usize) -> bool {
        at >= self.plan.loud || self.plan.loud == self.slots.len()
    }

    fn record(&mut self, began: Moment) {
        if began < self.schedule.from || self.stage == Stage::WarmUp {
            return;
        }
        let took = self.now.saturating_sub(began);
        self.histogram.saturating_record(took);
        if let Some(interval) = self.schedule.interval
            && took as f64 > interval * self.slots.len() as f64
        {
            self.tally.late += 1;
        }
    }

    /// Churn: the next connection that is not at it already ends with the
    /// message that it is sending.
    fn churn(&mut self) {
        if self.stage == Stage::Draining {
            return;
        }
        for _ in 0..MOST_AT_ONCE {
            if self.now < self.schedule.next_churn {
                return;
            }
            let slots = self.slots.len();
            let from = self.schedule.churn_slot;
            let mut turn = (from..slots).chain(0..from);
            let free = |it: &usize| {
                let slot = &self.slots[*it];
                !slot.connecting && slot.end == u64::MAX
            };
            let Some(at) = turn.find(free) else {
                // All are at it; it stays due.
                self.schedule.next_churn = self.now + 1_000_000;
                return;
            };
            self.schedule.churn_slot = (at + 1) % slots;
            self.schedule.next_churn += self.schedule.churn_interval;
            let slot = &mut self.slots[at];
            let (end, next, _) = slot.boundary(&self.lap);
            slot.end = end;
            if slot.received == slot.end {
                // It has nothing outstanding; a message would come first.
                slot.end += self.lap.size(next) as u64;
            }
        }
    }

    /// Closes a connection to which nothing is owed, and begins another in
    /// its place.
    fn renew(&mut self, at: usize) -> Result<()> {
        let label = || format!("connection {at}, opened anew");
        self.now = monotonic()?;
        let socket = self.opener.begin().with_context(label)?;
        let event = EpollEvent::new(WANTED, at as u64);
        self.list.add(&socket, event).context("epoll_ctl")?;
        let end = self.end_from(self.slots[at].coming);
        let slot = &mut self.slots[at];
        // epoll(7): closing the old one also ends the interest in it.
        slot.socket = socket;
        slot.connecting = true;
        slot.blocked = false;
        slot.generation += 1;
        slot.allowed -= slot.end;
        slot.end = end;
        slot.sent = 0;
        slot.received = 0;
        slot.out = self.payload.begin(slot.generation);
        slot.back = slot.out;
        slot.moved = self.now;
        self.connecting += 1;
        self.tally.connects += 1;
        if self.stage == Stage::Measuring {
            self.tally.renewed += 1;
        }
        // Else it would count how long the others of this batch take.
        match is_decided(&self.slots[at].socket)? {
            true => self.on_connected(at),
            false => Ok(()),
        }
    }

    fn on_connected(&mut self, at: usize) -> Result<()> {
        let slot = &mut self.slots[at];
        is_connected(&slot.socket)
            .with_context(|| format!("connection {at}, opened anew"))?;
        self.now = monotonic()?;
        self.connects.saturating_record(self.now - slot.moved);
        self.connecting -= 1;
        slot.connecting = false;
        slot.moved = self.now;
        if self.schedule.interval.is_none() {
            let depth = self.plan.depth.get();
            self.begun[at * depth..][..depth].fill(self.now);
        }
        self.flush(at)
    }

    /// Closed loop: what is not begun is not sent any more. Open loop: all
    /// that was due is.
    fn begin_no_more(&mut self) {
        let closed = self.schedule.interval.is_none();
        if closed {
            self.outstanding = 0;
        }
        for slot in &mut self.slots {
            if self.plan.churn.is_some() {
                slot.end = NEVER;
            }
            if closed {
                let (end, next, count) = slot.boundary(&self.lap);
                slot.allowed = end;
                slot.ahead = next;
                self.outstanding += count;
            }
        }
    }

    /// Whether an open loop's server has had long enough; what is not back
    /// then counts with its age.
    fn is_given_up(&mut self) -> bool {
        let Some(interval) = self.schedule.interval else { return false };
        // Longer than patience, so that a stall is called one.
        let patience = self.plan.patience + self.plan.patience / 4;
        let span = self.schedule.to - self.schedule.from;
        if self.now < self.schedule.to + span.max(nanoseconds(patience)) {
            return false;
        }
        let slots = self.slots.len() as u64;
        for index in 0..self.schedule.next {
            let at = (index % slots) as usize;
            if self.is_asked(at) && index / slots >= self.slots[at].done {
                let due = self.schedule.due(interval, index);
                self.record(due);
                self.tally.unfinished += u64::from(due >= self.schedule.from);
            }
        }
        true
    }

    fn look_for_stalls(&mut self) -> Result<()> {
        if self.now < self.schedule.next_look {
            return Ok(());
        }
        let patience = nanoseconds(self.plan.patience);
        self.schedule.next_look = self.now + (patience / 16).max(1_000_000);
        let stalled = |slot: &Slot| {
            slot.owes() && self.now.saturating_sub(slot.moved) > patience
        };
        let Some(at) = self.slots.iter().position(stalled) else {
            return Ok(());
        };
        let slot = &self.slots[at];
        let what = match slot.connecting {
            true => "is not accepted",
            false => "has stalled",
        };
        bail!(
            "{} {what}: no byte for {:?}; {}",
            slot.label(at),
            self.plan.patience,
            slot.so_far()
        )
    }

    fn on_idle_ready(&self, number: usize) -> Result<()> {
        let fd = self.idle[number].as_raw_fd();
        match recv(fd, &mut [0; 1], MsgFlags::empty()) {
            Ok(0) => bail!("idle connection {number} was closed by the server"),
            Ok(_) => bail!("idle connection {number}: a byte that nobody sent"),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(errno) => {
                Err(errno).with_context(|| format!("idle connection {number}"))
            }
        }
    }

    fn gone(&self, at: usize, errno: Option<Errno>) -> anyhow::Error {
        let slot = &self.slots[at];
        let what = end_of(errno);
        anyhow::anyhow!("{} {what}: {}", slot.label(at), slot.so_far())
    }

    /// What is wrong with the `count` bytes in the buffer: one that is not
    /// what was sent, or one too many.
    fn wrong(
        &self,
        at: usize,
        wrong: Option<usize>,
        count: usize,
    ) -> anyhow::Error {
        let slot = &self.slots[at];
        let label = slot.label(at);
        let Some(wrong) = wrong else {
            return anyhow::anyhow!(
                "{label}: {} bytes came back, but only {} were sent",
                slot.received + count as u64,
                slot.sent
            );
        };
        let position = slot.received + wrong as u64;
        let there = self.payload.after(slot.back, wrong);
        let said = self.payload.explain(at, there, &self.buffer[wrong..count]);
        anyhow::anyhow!("{label}, byte {position}: {said}")
    }
}

impl Slot {
    fn label(&self, at: usize) -> String {
        match self.generation {
            0 => format!("connection {at}"),
            times => format!("connection {at} (renewed {times} times)"),
        }
    }

    fn so_far(&self) -> String {
        format!("{} bytes sent, {} came back", self.sent, self.received)
    }
}

fn monotonic() -> Result<Moment> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    // The kernel's clock is far from either bound.
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// CPU time of this thread.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

pub(super) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

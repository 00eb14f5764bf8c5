//! The loop: one thread, one wait for all, and nothing allocated once the
//! clock runs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrStorage,
    bind, connect, getsockopt, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{
    ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags,
};
use nix::time::{ClockId, clock_gettime};

use super::payload::{Payload, Phase};
use super::plan::Plan;
use super::report::{Latency, Measured, OpenLoop};

/// How much one call reads or sends at most.
const CHUNK: usize = 64 * 1024;
/// How many connections one source address has: it has 28,000 ports.
const PER_SOURCE: u64 = 20_000;
/// Most messages that become due between two looks at what came back.
const MOST_AT_ONCE: usize = 1024;
/// Bytes that an idle connection sends to show that it is served.
const GREETING: usize = 64;
/// The longest latency that the histogram tells from longer ones.
const LONGEST: u64 = 3_600_000_000_000;
const TIMER: u64 = u64::MAX;

/// Nanoseconds of CLOCK_MONOTONIC, which timers also understand.
type Moment = u64;

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
    /// Closed loop: when the outstanding messages of each slot were begun.
    begun: Vec<Moment>,
    /// How many connections were ever opened.
    opened: u64,
    schedule: Schedule,
    now: Moment,
    stage: Stage,
    histogram: Histogram<u64>,
    tally: Tally,
}

/// Counted while it is measured, if nothing else is said.
#[derive(Default)]
struct Tally {
    messages: u64,
    renewed: u64,
    /// From first to last.
    blocked: u64,
    /// Of the messages that were due then.
    late: u64,
    /// As above.
    unfinished: u64,
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
    /// How many bytes may be sent so far.
    allowed: u64,
    /// Where this connection ends, once it is to be renewed.
    end: u64,
    sent: u64,
    received: u64,
    out: Phase,
    back: Phase,
    /// Bytes of the message that is coming back that are still to come.
    missing: usize,
    /// Messages that came back, those of earlier connections included.
    done: u64,
    /// The message that is coming back, among the outstanding ones.
    oldest: usize,
    /// When the last byte came back, or the first one became outstanding.
    moved: Moment,
}

impl Slot {
    fn goal(&self) -> u64 {
        self.allowed.min(self.end)
    }

    fn owes(&self) -> bool {
        self.connecting || self.received < self.goal()
    }
}

impl<'a> Engine<'a> {
    /// Start barrier: returns once everybody is connected and the idle ones
    /// have been answered.
    pub(super) fn connect(plan: &'a Plan) -> Result<Self> {
        let connections = plan.connections.get();
        let at_once = plan.size.get().saturating_mul(plan.depth.get());
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
            payload: Payload::new(connections, at_once),
            buffer: vec![0; CHUNK],
            begun,
            opened: 0,
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
            },
            now: 0,
            stage: Stage::WarmUp,
            histogram: Histogram::new_with_bounds(1, LONGEST, 3)?,
            tally: Tally::default(),
        };
        for number in 0..plan.idle {
            let socket = engine
                .open()
                .with_context(|| format!("idle connection {number}"))?;
            engine.idle.push(socket);
        }
        engine.greet_idle()?;
        for number in 0..connections {
            let socket = engine
                .open()
                .with_context(|| format!("connection {number}"))?;
            let data = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
            engine.list.add(&socket, data).context("epoll_ctl")?;
            engine.slots.push(Slot {
                socket,
                connecting: false,
                blocked: false,
                generation: 0,
                allowed: 0,
                end: u64::MAX,
                sent: 0,
                received: 0,
                out: Phase::of_generation(0),
                back: Phase::of_generation(0),
                missing: plan.size.get(),
                done: 0,
                oldest: 0,
                moved: 0,
            });
        }
        Ok(engine)
    }

    /// A connection that stands.
    fn open(&mut self) -> Result<OwnedFd> {
        let addr = self.plan.addr;
        let socket = begin_connect(addr, self.opened)?;
        self.opened += 1;
        wait_for(&socket, PollFlags::POLLOUT, self.plan.patience)
            .with_context(|| format!("connect to {addr}"))?;
        is_connected(&socket).with_context(|| format!("connect to {addr}"))?;
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

    pub(super) fn run(mut self) -> Result<Measured> {
        self.now = monotonic()?;
        let spans = [self.plan.warm_up, self.plan.duration].map(nanoseconds);
        let schedule = &mut self.schedule;
        schedule.begin = self.now;
        schedule.from = schedule.begin + spans[0];
        schedule.to = schedule.from + spans[1];
        if self.plan.churn.is_some() {
            schedule.next_churn = self.now + schedule.churn_interval;
        }
        schedule.next_look = self.now;
        if schedule.interval.is_none() {
            self.begun.fill(self.now);
            let outstanding = self.plan.size.get() * self.plan.depth.get();
            for at in 0..self.slots.len() {
                self.slots[at].allowed = outstanding as u64;
                self.flush(at)?;
            }
        }
        let mut began = (self.now, Duration::ZERO);
        let mut ended = began;
        loop {
            if self.stage == Stage::WarmUp && self.now >= self.schedule.from {
                began = (self.now, cpu_time()?);
                self.stage = Stage::Measuring;
                if self.schedule.interval.is_none() {
                    // It may have begun late, which must not make it shorter.
                    self.schedule.to = self.now + spans[1];
                }
            }
            self.fall_due()?;
            if self.stage == Stage::Measuring
                && self.now >= self.schedule.to
                && !self.is_behind()
            {
                ended = (self.now, cpu_time()?);
                self.stage = Stage::Draining;
                self.begin_no_more();
            }
            if self.stage == Stage::Draining && self.is_drained() {
                break;
            }
            self.look_for_stalls()?;
            self.churn();
            self.wait()?;
        }
        Ok(self.measured(began, ended))
    }

    fn measured(
        self,
        began: (Moment, Duration),
        ended: (Moment, Duration),
    ) -> Measured {
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
        Measured {
            plan: self.plan.clone(),
            seconds: Duration::from_nanos(ended.0 - began.0).as_secs_f64(),
            messages: self.tally.messages,
            messages_per_second: 0.0,
            bytes_per_second: 0.0,
            latency: Latency::of(&self.histogram),
            open_loop,
            renewed: self.tally.renewed,
            blocked: self.tally.blocked,
            own_cpu_seconds: (ended.1 - began.1).as_secs_f64(),
            own_cpu_ns_per_message: 0.0,
            own_core_share: 0.0,
            measures_the_pair: false,
        }
        .derive()
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
        self.now = monotonic()?;
        for at in 0..n {
            let event = self.events[at];
            if event.data() == TIMER {
                // It expires once.
                self.armed = NEVER;
                continue;
            }
            let at = event.data() as usize;
            if at >= self.slots.len() {
                self.on_idle_ready(at - self.slots.len())?;
                continue;
            }
            let flags = event.events();
            if self.slots[at].connecting {
                self.on_connected(at)?;
                continue;
            }
            if flags.contains(EpollFlags::EPOLLOUT) {
                self.slots[at].blocked = false;
                self.want(at, EpollFlags::EPOLLIN)?;
                self.flush(at)?;
            }
            if flags != EpollFlags::EPOLLOUT {
                self.on_readable(at)?;
            }
        }
        Ok(())
    }

    fn next_wake(&self) -> Moment {
        let Schedule { from, to, interval, next, .. } = self.schedule;
        let boundary = match self.stage {
            Stage::WarmUp => from,
            Stage::Measuring => to,
            Stage::Draining => return self.schedule.next_look,
        };
        let due = interval.map(|it| self.schedule.due(it, next));
        let wakes = [self.schedule.next_churn, self.schedule.next_look];
        wakes.into_iter().chain(due).fold(boundary, Moment::min)
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
            self.slots[at].allowed += self.plan.size.get() as u64;
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
                Err(Errno::EAGAIN) => 0,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(self.gone(at, Some(errno))),
            };
            let all = sent == bytes.len();
            slot.sent += sent as u64;
            slot.out = slot.out.after(sent);
            if !all {
                slot.blocked = true;
                self.tally.blocked += 1;
                let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
                return self.want(at, both);
            }
        }
        Ok(())
    }

    fn want(&self, at: usize, flags: EpollFlags) -> Result<()> {
        let mut event = EpollEvent::new(flags, at as u64);
        self.list
            .modify(&self.slots[at].socket, &mut event)
            .context("epoll_ctl")
    }

    /// Reads once, holds it against what was sent, counts what is complete
    /// and sends as much anew.
    fn on_readable(&mut self, at: usize) -> Result<()> {
        let slot = &mut self.slots[at];
        let fd = slot.socket.as_raw_fd();
        let count = match recv(fd, &mut self.buffer, MsgFlags::empty()) {
            Ok(0) => return Err(self.gone(at, None)),
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(self.gone(at, Some(errno))),
        };
        self.now = monotonic()?;
        let got = &self.buffer[..count];
        let wrong = self.payload.first_wrong(at, slot.back, got);
        let surplus = slot.received + count as u64 > slot.sent;
        if wrong.is_some() || surplus {
            return Err(self.wrong(at, wrong, count));
        }
        slot.received += count as u64;
        slot.back = slot.back.after(count);
        slot.moved = self.now;
        let mut rest = count;
        let before = self.slots[at].done;
        while rest >= self.slots[at].missing {
            rest -= self.slots[at].missing;
            self.slots[at].missing = self.plan.size.get();
            self.on_complete(at);
        }
        let slot = &mut self.slots[at];
        slot.missing -= rest;
        if slot.received == slot.end {
            return self.renew(at);
        }
        if slot.done == before {
            return Ok(());
        }
        self.flush(at)
    }

    /// One message is back.
    fn on_complete(&mut self, at: usize) {
        let slot = &mut self.slots[at];
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
                if self.stage < Stage::Draining {
                    slot.allowed += self.plan.size.get() as u64;
                }
                std::mem::replace(&mut self.begun[index], self.now)
            }
        };
        slot.done += 1;
        if self.stage == Stage::Measuring {
            self.tally.messages += 1;
        }
        self.record(began);
    }

    fn record(&mut self, began: Moment) {
        if began < self.schedule.from || self.stage == Stage::WarmUp {
            return;
        }
        let took = self.now.saturating_sub(began);
        self.histogram.saturating_record(took);
        let slots = self.slots.len() as f64;
        if let Some(interval) = self.schedule.interval
            && took as f64 > interval * slots
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
            let size = self.plan.size.get() as u64;
            let slot = &mut self.slots[at];
            slot.end = slot.sent.div_ceil(size) * size;
            if slot.received == slot.end {
                // It has nothing outstanding; a message would come first.
                slot.end += size;
            }
        }
    }

    /// Closes a connection to which nothing is owed, and begins another in
    /// its place.
    fn renew(&mut self, at: usize) -> Result<()> {
        let label = || format!("connection {at}, opened anew");
        let socket =
            begin_connect(self.plan.addr, self.opened).with_context(label)?;
        self.opened += 1;
        let event = EpollEvent::new(EpollFlags::EPOLLOUT, at as u64);
        self.list.add(&socket, event).context("epoll_ctl")?;
        let slot = &mut self.slots[at];
        // epoll(7): closing the old one also ends the interest in it.
        slot.socket = socket;
        slot.connecting = true;
        slot.blocked = false;
        slot.generation += 1;
        slot.allowed -= slot.end;
        slot.end = u64::MAX;
        slot.sent = 0;
        slot.received = 0;
        slot.out = Phase::of_generation(slot.generation);
        slot.back = slot.out;
        slot.moved = self.now;
        if self.stage == Stage::Measuring {
            self.tally.renewed += 1;
        }
        Ok(())
    }

    fn on_connected(&mut self, at: usize) -> Result<()> {
        let slot = &mut self.slots[at];
        is_connected(&slot.socket)
            .with_context(|| format!("connection {at}, opened anew"))?;
        slot.connecting = false;
        slot.moved = self.now;
        if self.schedule.interval.is_none() {
            let depth = self.plan.depth.get();
            self.begun[at * depth..][..depth].fill(self.now);
        }
        self.want(at, EpollFlags::EPOLLIN)?;
        self.flush(at)
    }

    /// Closed loop: what is not begun is not sent any more. Open loop: all
    /// that was due is.
    fn begin_no_more(&mut self) {
        let size = self.plan.size.get() as u64;
        let closed = self.schedule.interval.is_none();
        for slot in &mut self.slots {
            slot.end = u64::MAX;
            if closed {
                slot.allowed = slot.sent.div_ceil(size) * size;
            }
        }
    }

    /// Whether all is back, or an open loop's server has had long enough.
    fn is_drained(&mut self) -> bool {
        if !self.slots.iter().any(Slot::owes) {
            return true;
        }
        let Some(interval) = self.schedule.interval else { return false };
        // Longer than patience, so that a stall is called one.
        let patience = self.plan.patience + self.plan.patience / 4;
        let longest = nanoseconds(self.plan.duration.max(patience));
        if self.now < self.schedule.to + longest {
            return false;
        }
        let slots = self.slots.len() as u64;
        for index in 0..self.schedule.next {
            let slot = &self.slots[(index % slots) as usize];
            if index / slots >= slot.done {
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
        let what = match errno {
            None => "was closed by the server".to_string(),
            Some(Errno::ECONNRESET | Errno::EPIPE) => "was reset".to_string(),
            Some(errno) => format!("failed ({errno})"),
        };
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
        let there = slot.back.after(wrong);
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

/// A socket that is connecting; `number` connections were opened before it.
fn begin_connect(addr: SocketAddr, number: u64) -> Result<OwnedFd> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)
        .context("socket (is it the limit of descriptors, ulimit -n?)")?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true).context("TCP_NODELAY")?;
    if let Some(source) = source_of(addr, number) {
        // ip(7): connect then chooses the port, for this destination only.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)
            .context("IP_BIND_ADDRESS_NO_PORT")?;
        let from = SockaddrIn::from(SocketAddrV4::new(source, 0));
        bind(socket.as_raw_fd(), &from).context("bind")?;
    }
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(errno) => Err(errno).context("connect"),
    }
}

/// The loopback network has more addresses than one.
fn source_of(addr: SocketAddr, number: u64) -> Option<Ipv4Addr> {
    let last = number / PER_SOURCE % 250 + 1;
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_loopback() && last > 1 => {
            Some(Ipv4Addr::new(127, 0, 0, last as u8))
        }
        _ => None,
    }
}

fn is_connected(socket: &OwnedFd) -> Result<()> {
    match getsockopt(socket, sockopt::SocketError)? {
        0 => Ok(()),
        code => Err(Errno::from_raw(code).into()),
    }
}

fn wait_for(socket: &OwnedFd, what: PollFlags, limit: Duration) -> Result<()> {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(socket.as_fd(), what)];
    loop {
        match poll(&mut fds, timeout) {
            Ok(0) => bail!("no answer for {limit:?}"),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
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

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_change_before_their_ports_run_out() {
        let here = SocketAddr::from(([127, 0, 0, 1], 7));
        let source = |number| source_of(here, number).map(|it| it.octets());
        assert_eq!(source(0), None);
        assert_eq!(source(PER_SOURCE - 1), None);
        assert_eq!(source(PER_SOURCE), Some([127, 0, 0, 2]));
        assert_eq!(source(PER_SOURCE * 249), Some([127, 0, 0, 250]));
        assert_eq!(source(PER_SOURCE * 250), None);
        let other = SocketAddr::from(([192, 0, 2, 1], 7));
        assert_eq!(source_of(other, PER_SOURCE), None);
    }
}

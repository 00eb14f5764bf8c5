//! Draws what a thread of the server did: how the time between the ends of two
//! of its calls divides into sleeping, working and being set aside.

use super::Sheet;
use super::cast::{Cast, Wanted, Whom};
use super::items::{Item, Made, Rounds, Thread};
use super::tell::{Streams, told};
use crate::figure::data::{Bar, Dense, Mark, Phase, What};
use crate::record::{Call, Peer};

/// A call that took less has not slept: to be set aside and taken up again
/// takes longer.
const SLEPT: u64 = 5_000;

/// What a call that sleeps does on a CPU takes at least as long as this.
const WORK: u64 = 500;

/// The two clocks, of which one tells when and the other how long on a CPU,
/// are not read in one moment.
const BLUR: u64 = 2_000;

/// Draws one lane.
pub struct Pen<'a> {
    pub thread: &'a Thread,
    pub cast: &'a Cast<'a>,
    pub sheet: &'a mut Sheet,
    pub streams: &'a mut Streams,
    /// Whether a take sleeps until there is a client.
    pub blocks: bool,
    pub bars: Vec<Bar>,
    pub marks: Vec<Mark>,
    /// The end of the call before, and how long the thread had been on a CPU.
    pub last: Option<(u64, u64)>,
}

impl Pen<'_> {
    /// All that its thread did.
    pub fn draw(&mut self) {
        for (at, item) in self.thread.items.iter().enumerate() {
            match item {
                Item::Call(made) if made.call.is_signal() => self.signal(made),
                Item::Call(made) if made.call.is_queued() => self.queued(made),
                Item::Call(made) => self.call(made, at),
                Item::Rounds(rounds) => self.rounds(rounds),
            }
        }
    }

    fn signal(&mut self, made: &Made) {
        let peer = made.call.peer.as_ref().map(|peer| self.cast.name(peer));
        let text = match peer {
            Some(peer) => format!("{}: {peer}", made.call.name),
            None => made.call.name.clone(),
        };
        self.mark(What::Signal, made.t0, text, None);
    }

    /// To write into a queue, or to read out of one, is work of its own.
    fn queued(&mut self, made: &Made) {
        let bytes = self.streams.moved(made);
        if self.sheet.shows(made.t0, made.t1) {
            let told = told(made, bytes, &[], self.cast, self.sheet);
            let index = self.sheet.tell(told);
            self.marks_of(&made.call, made.t0, index);
        }
    }

    fn mark(&mut self, what: What, at: u64, text: String, call: Option<usize>) {
        if self.sheet.shows(at, at) {
            let at = self.sheet.time(at);
            self.marks.push(Mark { what, at, text, call });
        }
    }

    fn call(&mut self, made: &Made, at: usize) {
        let found = self.found(made, at);
        let sleep = self.sleep((at, made), &found);
        // Who did an operation has moved its bytes, and not who hears of it.
        let operation = made.call.verb == "complete";
        let bytes = self.streams.moved(made).filter(|_| !operation);
        let spent = self.spent(made, sleep.is_some());
        let before = self.last.replace((made.t1, made.cpu));
        if !self.sheet.shows(made.t0, made.t1) {
            return;
        }
        if let Some((end, _)) = before {
            // If it is set aside, then mostly while it writes down the call
            // before: it may have to wait for whoever reads that.
            let goes_on = end + spent.aside;
            self.bar(Phase::SetAside, (end, goes_on), None);
            self.bar(Phase::Running, (goes_on, made.t0), None);
        }
        let told = told(made, bytes, &found, self.cast, self.sheet);
        let index = self.sheet.tell(told);
        self.marks_of(&made.call, made.t0, index);
        let call = Some(index);
        let phase = match self.copies(made, at) {
            true => Phase::Copying,
            false => phase(&made.call),
        };
        let Some(happened) = sleep.filter(|_| spent.asleep > 0) else {
            self.bar(phase, (spent.begun, spent.done), call);
            // Whoever has just been sent something may take the core.
            self.bar(Phase::SetAside, (spent.done, made.t1), call);
            return;
        };
        // What it does on the CPU follows after the sleep.
        let wakes = match &*made.call.verb {
            "wait" if phase != Phase::Copying => made.t1,
            _ => made.t0 + spent.asleep,
        };
        let happened = happened.min(wakes);
        self.bar(Phase::Waiting, (made.t0, happened), call);
        self.bar(Phase::WakingUp, (happened, wakes), call);
        self.bar(phase, (wakes, made.t1), call);
    }

    /// What came out of the queue after this call, if it is one that fills it.
    fn done(&self, made: &Made, at: usize) -> impl Iterator<Item = &Call> {
        let enters = made.call.enters();
        let later = self.thread.items[at + 1..].iter().map_while(Item::call);
        let queued = later.take_while(move |it| enters && it.call.is_queued());
        queued.map(|it| &it.call).filter(|call| call.verb == "complete")
    }

    /// Whether bytes were moved while the call was made for operations: by
    /// this thread, as long as the kernel has no other for it.
    fn copies(&self, made: &Made, at: usize) -> bool {
        let moved = |call: &Call| call.brought() + call.took_out() > 0;
        made.call.by.is_empty() && self.done(made, at).any(moved)
    }

    /// Whom the call slept for, if it is one that waits for operations. A send
    /// is mostly done at once, so it is only then waited for if nothing else
    /// was done.
    fn awaited(&self, made: &Made, at: usize) -> Vec<(Peer, Wanted)> {
        let of = |sends: bool| {
            let done = self.done(made, at);
            let these = done.filter(move |it| (it.name == "send") == sends);
            let these = these.filter_map(|it| it.peer.clone());
            let wanted = |peer: Peer| {
                let wanted = match sends {
                    true => Wanted::Room(self.streams.sent_to(&peer)),
                    false => Wanted::Bytes(self.streams.read_of(&peer)),
                };
                (peer, wanted)
            };
            these.map(wanted).collect::<Vec<_>>()
        };
        match of(false) {
            others if others.is_empty() => of(true),
            others => others,
        }
    }

    /// Where the time since the end of the call before was spent.
    fn spent(&self, made: &Made, sleeps: bool) -> Spent {
        let length = made.t1 - made.t0;
        let Some((end, cpu)) = self.last else {
            // A child begins within the call of its parent.
            let begun = match made.call.name == "fork" {
                true => made.t0.max(made.t1.saturating_sub(made.cpu)),
                false => made.t0,
            };
            let asleep = if sleeps { length } else { 0 };
            return Spent { aside: 0, begun, asleep, done: made.t1 };
        };
        // A thread's number may have come back, and its CPU time begun anew.
        let on = made.cpu.saturating_sub(cpu);
        let off = made.t1.saturating_sub(end).saturating_sub(on);
        let off = if off < BLUR { 0 } else { off };
        let gap = made.t0.saturating_sub(end);
        let asleep = if sleeps { off.min(length - WORK) } else { 0 };
        let aside = (off - asleep).min(gap);
        let within = (off - asleep - aside).min(length - asleep);
        Spent { aside, begun: made.t0, asleep, done: made.t1 - within }
    }

    /// Of a call that may have slept, when that happened for which it waited;
    /// if that cannot be told, when it returned.
    fn sleep(&self, (at, made): (usize, &Made), found: &[Peer]) -> Option<u64> {
        let call = &made.call;
        if made.t1 - made.t0 < SLEPT {
            return None;
        }
        let whom = match (&*call.verb, &*call.name, &call.peer) {
            ("wait", ..) if call.taken.is_some() => {
                // Another thread has accepted the client that it waited for.
                let taken = call.taken.as_ref();
                let accepted = taken.and_then(|it| self.cast.accepted(it));
                return Some(accepted.unwrap_or(made.t1).max(made.t0));
            }
            // SIGIO names nobody, nor does a wait that was stopped and goes on:
            // signal(7).
            ("wait", name, _)
                if found.is_empty()
                    && (name == "sigtimedwait" || call.wasted()) =>
            {
                Whom::Anyone(self.streams.read())
            }
            ("wait", "io_uring_enter", _) => {
                Whom::These(self.awaited(made, at))
            }
            ("wait", ..) => {
                let these = found.iter();
                let these = these.map(|it| (it.clone(), self.wanted(it, at)));
                Whom::These(these.collect())
            }
            ("wait+copy", "send", Some(peer)) => {
                let room = Wanted::Room(self.streams.sent_to(peer));
                let whom = Whom::These(vec![(peer.clone(), room)]);
                // It sleeps only if there is no room, and then until the
                // client has read.
                return self.cast.acts(&whom, (made.t0, made.t1));
            }
            ("take", ..) if !self.blocks => return None,
            ("wait+copy" | "take", _, Some(peer)) => {
                let bytes = Wanted::Bytes(self.streams.read_of(peer));
                Whom::These(vec![(peer.clone(), bytes)])
            }
            _ => return None,
        };
        let happened =
            self.cast.acts(&whom, (made.t0, made.t1.min(self.sheet.end)));
        Some(happened.unwrap_or(made.t1))
    }

    /// Those whom a wait found ready, or whose signal ended it.
    fn found(&self, made: &Made, at: usize) -> Vec<Peer> {
        let call = &made.call;
        let owner =
            |fd: &i32| self.cast.owner(self.thread.pid, *fd, made.t1).cloned();
        let found: Vec<Peer> = call.ready.iter().filter_map(owner).collect();
        if call.verb != "wait" || !found.is_empty() {
            return found;
        }
        if call.enters() {
            let mut peers = Vec::new();
            for peer in self.done(made, at).filter_map(|it| it.peer.as_ref()) {
                if !peers.contains(peer) {
                    peers.push(peer.clone());
                }
            }
            return peers;
        }
        // A handler's signals stand before the wait that they end, those that
        // a wait takes from the queue just after it.
        let items = &self.thread.items;
        let signal =
            |item: &Item| item.call().filter(|it| it.call.is_signal()).cloned();
        let before = items[..at].iter().rev().map_while(signal);
        let before = before.filter(|it| it.t0 >= made.t0);
        let after = items[at + 1..].iter().take(1).filter_map(signal);
        before.chain(after).filter_map(|signal| signal.call.peer).collect()
    }

    /// What a wait wanted of somebody shows in what is done with them next.
    fn wanted(&self, peer: &Peer, at: usize) -> Wanted {
        let later = self.thread.items[at + 1..].iter().filter_map(Item::call);
        let mut copies = later.filter(|it| it.call.verb == "copy");
        let next = copies.find(|it| it.call.peer.as_ref() == Some(peer));
        match next {
            Some(next) if next.call.name == "send" => {
                Wanted::Room(self.streams.sent_to(peer))
            }
            _ => Wanted::Bytes(self.streams.read_of(peer)),
        }
    }

    fn marks_of(&mut self, call: &Call, at: u64, index: usize) {
        let about = call.peer.as_ref().map(|peer| self.cast.name(peer));
        let about = about.unwrap_or_default();
        let name = &call.name;
        let (what, text) = match &*call.verb {
            "submit" => (What::Submit, format!("{name} for {about}")),
            "complete" => {
                (What::Complete, format!("{name} for {about} is over"))
            }
            "ask" if name == "fork" && call.ret != Some(0) => {
                (What::Fork, format!("fork for {about}"))
            }
            _ => return,
        };
        self.mark(what, at, text, Some(index));
    }

    fn rounds(&mut self, rounds: &Rounds) {
        let (begin, cpu0) = self.last.unwrap_or((rounds.t0, rounds.cpu));
        self.last = Some((rounds.t1, rounds.cpu));
        let (from, to) = (self.sheet.time(begin), self.sheet.time(rounds.t1));
        if from < to {
            let length = (rounds.t1 - begin) as f64;
            let on = rounds.cpu.saturating_sub(cpu0) as f64 / length;
            let part = (to - from) as f64 / length;
            let dense = dense(rounds, (length, on.min(1.0)), part);
            let most = dense.shares.iter().max_by(|a, b| a.1.total_cmp(&b.1));
            let phase = match dense.wasted == dense.calls {
                true => Phase::Wasted,
                false => most.map_or(Phase::Running, |share| share.0),
            };
            let dense = Some(dense);
            self.bars.push(Bar { phase, from, to, call: None, dense });
        }
    }

    fn bar(&mut self, phase: Phase, time: (u64, u64), call: Option<usize>) {
        self.sheet.draw(&mut self.bars, phase, time, call);
    }
}

/// What the time up to the end of a call went to, besides its own work.
struct Spent {
    /// How long the thread was set aside before the call.
    aside: u64,
    /// When the call was really begun.
    begun: u64,
    /// How long the thread slept within the call.
    asleep: u64,
    /// When the call was done, if the thread was set aside within it.
    done: u64,
}

/// What a call is while it does not sleep.
fn phase(call: &Call) -> Phase {
    match &*call.verb {
        _ if call.wasted() => Phase::Wasted,
        "copy" | "wait+copy" => Phase::Copying,
        _ => Phase::Asking,
    }
}

/// Rounds that took `length`, for the share `on` of it on a CPU, and of which
/// a `part` is to be seen.
fn dense(rounds: &Rounds, (length, on): (f64, f64), part: f64) -> Dense {
    let seen = |count: u64| (count as f64 * part).round() as u64;
    let off = 1.0 - on;
    let within = (rounds.took as f64 / length).min(1.0);
    let (busy, asleep) = match rounds.sleep {
        true => ((within - off).max(0.0), Phase::Waiting),
        false => (within * on, Phase::SetAside),
    };
    let for_nothing = busy * rounds.wasted as f64 / rounds.calls as f64;
    let shares = [
        (asleep, off),
        (Phase::Wasted, for_nothing),
        (Phase::Asking, busy - for_nothing),
        (Phase::Running, on - busy),
    ];
    Dense {
        rounds: seen(rounds.times),
        calls: seen(rounds.calls),
        wasted: seen(rounds.wasted),
        shares: shares.into_iter().filter(|share| share.1 > 1e-9).collect(),
    }
}

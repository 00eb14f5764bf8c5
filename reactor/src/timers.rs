//! Timers: who is to be called when. A sorted map holds them by their time, so
//! that each change costs O(log n), and the next one is at its beginning.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::demultiplexer::Token;

/// A timer of a handler. It keeps its name when a periodic one is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer(u64);

/// Whose timer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub token: Token,
    pub timer: Timer,
}

/// All timers of a reactor.
#[derive(Default)]
pub(crate) struct Timers {
    by_time: BTreeMap<(Instant, Timer), Entry>,
    /// The first of them: each wait looks at it.
    next: Option<Instant>,
    named: u64,
}

struct Entry {
    token: Token,
    period: Option<Duration>,
}

/// The timers of one handler, and when each is due. Most have none, or one for
/// all their life: an empty list is one word.
#[derive(Default)]
#[expect(clippy::box_collection, reason = "one word, where a Vec has three")]
pub(crate) struct Own(Option<Box<Vec<(Timer, Instant)>>>);

impl Own {
    fn push(&mut self, timer: Timer, due: Instant) {
        self.0.get_or_insert_default().push((timer, due));
    }

    /// Takes this one out, and says when it is due.
    fn take(&mut self, timer: Timer) -> Option<Instant> {
        let all = self.0.as_mut()?;
        let at = all.iter().position(|(it, _)| *it == timer)?;
        Some(all.swap_remove(at).1)
    }
}

impl Timers {
    /// When the first one is due.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    pub fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Starts one for the handler of `token`, which notes it among its own.
    pub fn start(
        &mut self,
        own: &mut Own,
        token: Token,
        at: Instant,
        period: Option<Duration>,
    ) -> Timer {
        self.named += 1;
        let timer = Timer(self.named);
        self.insert(own, timer, at, Entry { token, period });
        timer
    }

    /// Stops one of the handler's own, if it is not over.
    pub fn cancel(&mut self, own: &mut Own, timer: Timer) -> bool {
        let Some(due) = own.take(timer) else { return false };
        self.remove(due, timer);
        true
    }

    /// Stops all of a handler that is gone.
    pub fn cancel_all(&mut self, own: Own) {
        for (timer, due) in own.0.into_iter().flat_map(|all| *all) {
            self.remove(due, timer);
        }
    }

    /// The first one that is due at `now`.
    pub fn due(&self, now: Instant) -> Option<Due> {
        self.next.filter(|next| *next <= now)?;
        let ((_, timer), entry) = self.by_time.first_key_value()?;
        Some(Due { token: entry.token, timer: *timer })
    }

    /// It has been due: a periodic one is started again for the next time that
    /// lies ahead, however many have been missed.
    pub fn over(&mut self, own: &mut Own, timer: Timer, now: Instant) {
        let Some(due) = own.take(timer) else { return };
        let Some(entry) = self.remove(due, timer) else { return };
        if let Some(period) = entry.period {
            let late = now.saturating_duration_since(due);
            let missed = late.as_nanos() / period.as_nanos().max(1);
            let periods = u32::try_from(missed + 1).unwrap_or(u32::MAX);
            self.insert(own, timer, due + period * periods, entry);
        }
    }

    fn insert(&mut self, own: &mut Own, timer: Timer, at: Instant, it: Entry) {
        self.by_time.insert((at, timer), it);
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        own.push(timer, at);
    }

    fn remove(&mut self, due: Instant, timer: Timer) -> Option<Entry> {
        let entry = self.by_time.remove(&(due, timer));
        if self.next == Some(due) {
            self.next = self.by_time.keys().next().map(|(at, _)| *at);
        }
        entry
    }
}

//! Bytes that depend on connection and position, at the cost of a memcmp.

use std::fmt::Write;

/// After how many bytes a connection's bytes begin again. A prime, so that no
/// block of a server's (a power of two, mostly) is a whole number of periods.
const PERIOD: usize = 1021;
/// The least number of messages after which they do where some begin with a
/// mark, for the same reason an odd one.
const MESSAGES: usize = 15;
/// What messages of loud connections begin with.
const MARK: u8 = b'!';
/// How many bytes all patterns may have together.
const BUDGET: usize = 128 << 20;

/// The bytes of every connection.
pub(super) struct Payload {
    /// For each connection one period, and as much of the next ones as is
    /// sent at once.
    bytes: Vec<u8>,
    run: usize,
    period: usize,
    /// Connections begin at a multiple of it.
    step: usize,
}

/// The first connections are loud: each of their messages, which are all so
/// long, begins with a mark. The bytes of the others are never one.
#[derive(Clone, Copy)]
pub(super) struct Loud {
    pub(super) connections: usize,
    pub(super) size: usize,
}

/// A position in a connection's stream, as far as its bytes depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phase(usize);

impl Payload {
    /// The bytes of so many connections, of which `at_once` can be sent with
    /// one call.
    pub(super) fn new(
        connections: usize,
        at_once: usize,
        loud: Option<Loud>,
    ) -> Payload {
        let (step, period) = match loud {
            None => (1, PERIOD),
            Some(Loud { size, .. }) => {
                (size, size * ((PERIOD / size).max(MESSAGES) | 1))
            }
        };
        let affordable = (BUDGET / connections).saturating_sub(period);
        let run = at_once.clamp(1024, 64 * 1024).min(affordable.max(1024));
        let mut bytes = Vec::with_capacity(connections * (period + run));
        for connection in 0..connections {
            let mut one = period_of(connection as u64, period, loud.is_some());
            if loud.is_some_and(|it| connection < it.connections) {
                one.iter_mut().step_by(step).for_each(|byte| *byte = MARK);
            }
            bytes.extend(one.iter().cycle().take(period + run));
        }
        Payload { bytes, run, period, step }
    }

    /// Where a connection begins. One that takes another's place begins
    /// elsewhere, so that the bytes of the two differ.
    pub(super) fn begin(&self, generation: u64) -> Phase {
        let steps = (self.period / self.step) as u64;
        Phase((generation * 389 % steps) as usize * self.step)
    }

    /// So many bytes further on.
    pub(super) fn after(&self, phase: Phase, count: usize) -> Phase {
        let ahead = phase.0 + count;
        // A division takes longer than a short message's memcmp.
        Phase(if ahead < self.period { ahead } else { ahead % self.period })
    }

    /// The bytes from there on, `count` of them or as many as there are in
    /// one piece.
    pub(super) fn bytes(&self, of: usize, from: Phase, count: u64) -> &[u8] {
        let begin = of * (self.period + self.run) + from.0;
        let count = count.min(self.run as u64) as usize;
        &self.bytes[begin..begin + count]
    }

    /// The first byte of `got` that is not the one that stands there.
    pub(super) fn first_wrong(
        &self,
        of: usize,
        from: Phase,
        got: &[u8],
    ) -> Option<usize> {
        let mut phase = from;
        let mut at = 0;
        for piece in got.chunks(self.run) {
            let expected = self.bytes(of, phase, piece.len() as u64);
            if expected != piece {
                let mut pairs = expected.iter().zip(piece);
                let wrong = pairs.position(|(want, got)| want != got);
                return wrong.map(|wrong| at + wrong);
            }
            at += piece.len();
            phase = self.after(phase, piece.len());
        }
        None
    }

    /// Says what stands in `got` instead of what should from `phase` on, the
    /// first byte being wrong.
    pub(super) fn explain(&self, of: usize, at: Phase, got: &[u8]) -> String {
        let expected = self.bytes(of, at, 1)[0];
        let mut text = format!("expected {expected:#04x}, got {:#04x}", got[0]);
        // Fewer bytes may be anyone's.
        let known = &got[..got.len().min(16)];
        if known.len() < 8 {
            return text;
        }
        let next = self.after(at, 1);
        let one_off = self.first_wrong(of, next, &got[1..]).is_none();
        let period = self.period;
        let own = self.find(of, known).map(|there| {
            let ahead = (there + period - at.0) % period;
            match ahead <= period / 2 {
                true => format!("its own byte {ahead} further on: lost bytes"),
                false => format!(
                    "its own byte {} before: bytes twice",
                    period - ahead
                ),
            }
        });
        let count = self.bytes.len() / (period + self.run);
        let others = || (0..count).filter(|&other| other != of);
        let found = own.or_else(|| {
            let whose = others().find(|&it| self.find(it, known).is_some())?;
            Some(format!("a byte of connection {whose}"))
        });
        // Writing to a string does not fail.
        let _done = match found {
            Some(what) => write!(text, ", {what}"),
            None if one_off => write!(text, "; those after it are right"),
            None => write!(text, ", which nobody sent"),
        };
        text
    }

    fn find(&self, of: usize, known: &[u8]) -> Option<usize> {
        (0..self.period)
            .find(|&at| self.bytes(of, Phase(at), known.len() as u64) == known)
    }
}

/// Random bytes of which no two neighbours are alike, so that a byte that is
/// lost or comes twice is noticed at its place. Without marks on request.
fn period_of(connection: u64, length: usize, unmarked: bool) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(connection);
    let mut period: Vec<u8> = Vec::with_capacity(length);
    while period.len() < length {
        let byte = random.u8(..);
        let closes = period.len() + 1 == length;
        let alike = period.last() == Some(&byte)
            || closes && period.first() == Some(&byte);
        if !(alike || unmarked && byte == MARK) {
            period.push(byte);
        }
    }
    period
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5,000 bytes of connection 1, as they were sent.
    fn stream(payload: &Payload) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut phase = payload.begin(0);
        while bytes.len() < 5000 {
            let piece = payload.bytes(1, phase, 700);
            bytes.extend(piece);
            phase = payload.after(phase, piece.len());
        }
        bytes.truncate(5000);
        bytes
    }

    /// Where the damage is noticed, and what is said of it.
    fn seen(damage: impl Fn(&mut Vec<u8>)) -> Option<(usize, String)> {
        let payload = Payload::new(3, 64, None);
        let mut got = stream(&payload);
        damage(&mut got);
        let begin = payload.begin(0);
        let at = payload.first_wrong(1, begin, &got)?;
        Some((at, payload.explain(1, payload.after(begin, at), &got[at..])))
    }

    fn must_see(at: usize, word: &str, damage: impl Fn(&mut Vec<u8>)) {
        let Some((there, said)) = seen(damage) else {
            panic!("not seen: {word}");
        };
        assert_eq!(there, at, "{said}");
        assert!(said.contains(word), "{said}");
    }

    #[test]
    fn an_unchanged_stream_is_right() {
        assert_eq!(seen(|_| {}), None);
    }

    #[test]
    fn damage_is_noticed_at_its_place() {
        for at in [0, 1, 1020, 1021, 1023, 1024, 3000, 4900] {
            must_see(at, "those after it are right", |it| it[at] ^= 1);
            must_see(at, "1 further on", |it| {
                it.remove(at);
            });
            must_see(at + 1, "1 before", |it| it.insert(at, it[at]));
        }
        // A block of 64 bytes comes twice, is lost, changes its place.
        must_see(1088, "64 before", |it| it.copy_within(1024..4900, 1088));
        must_see(1024, "64 further on", |it| {
            it.drain(1024..1088);
        });
        must_see(1024, "64 further on", |it| it[1024..1152].rotate_left(64));
    }

    #[test]
    fn the_bytes_of_another_are_known() {
        let payload = Payload::new(3, 64, None);
        let theirs = payload.bytes(2, Phase(700), 64).to_vec();
        must_see(2048, "connection 2", |it| {
            it[2048..2112].copy_from_slice(&theirs);
        });
    }

    #[test]
    fn one_that_takes_anothers_place_begins_elsewhere() {
        let payload = Payload::new(1, 64, None);
        let phases = (0..PERIOD as u64).map(|it| payload.begin(it).0);
        let distinct: std::collections::BTreeSet<_> = phases.collect();
        assert_eq!(distinct.len(), PERIOD);
    }

    /// Whatever their size, wherever a connection begins.
    #[test]
    fn loud_messages_have_marks_and_quiet_ones_none() {
        for size in [2, 64, 1000, 1021, 4096] {
            let loud = Loud { connections: 2, size };
            let payload = Payload::new(5, size, Some(loud));
            for (connection, generation) in [(0, 0), (1, 7), (2, 0), (4, 7)] {
                let mut phase = payload.begin(generation);
                for message in 0..2000 {
                    let bytes = payload.bytes(connection, phase, size as u64);
                    let label = format!("{size}, {connection}, {message}");
                    assert_eq!(bytes.len(), size, "{label}");
                    let marks = bytes.iter().filter(|it| **it == MARK).count();
                    assert_eq!(bytes[0] == MARK, connection < 2, "{label}");
                    assert_eq!(marks, usize::from(connection < 2), "{label}");
                    phase = payload.after(phase, size);
                }
            }
        }
    }

    /// The mark does not hide it: messages differ beyond it.
    #[test]
    fn damage_to_loud_messages_is_noticed() {
        let loud = Loud { connections: 1, size: 64 };
        let payload = Payload::new(2, 64, Some(loud));
        let mut got = Vec::new();
        let mut phase = payload.begin(0);
        for _ in 0..100 {
            got.extend(payload.bytes(0, phase, 64));
            phase = payload.after(phase, 64);
        }
        let begin = payload.begin(0);
        assert_eq!(payload.first_wrong(0, begin, &got), None);
        let mut lost = got.clone();
        lost.drain(640..704);
        assert_eq!(payload.first_wrong(0, begin, &lost), Some(641));
        let mut swapped = got.clone();
        swapped[4096..8192 - 2048].rotate_left(1024);
        assert_eq!(payload.first_wrong(0, begin, &swapped), Some(4097));
        got[64] ^= 1;
        assert_eq!(payload.first_wrong(0, begin, &got), Some(64));
    }
}

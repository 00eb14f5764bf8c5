//! Bytes that depend on connection and position, at the cost of a memcmp.

use std::fmt::Write;

/// After how many bytes a connection's bytes begin again. A prime, so that no
/// block of a server's (a power of two, mostly) is a whole number of periods.
const PERIOD: usize = 1021;
/// How many bytes all patterns may have together.
const BUDGET: usize = 128 << 20;

/// The bytes of every connection.
pub(super) struct Payload {
    /// For each connection one period, and as much of the next ones as is
    /// sent at once.
    bytes: Vec<u8>,
    run: usize,
}

/// A position in a connection's stream, as far as its bytes depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phase(usize);

impl Phase {
    /// Where a connection begins. One that takes another's place begins
    /// elsewhere, so that the bytes of the two differ.
    pub(super) fn of_generation(generation: u64) -> Phase {
        Phase((generation * 389 % PERIOD as u64) as usize)
    }

    #[must_use]
    pub(super) fn after(self, count: usize) -> Phase {
        let ahead = self.0 + count;
        // A division takes longer than a short message's memcmp.
        Phase(if ahead < PERIOD { ahead } else { ahead % PERIOD })
    }
}

impl Payload {
    /// The bytes of so many connections, of which `at_once` can be sent with
    /// one call.
    pub(super) fn new(connections: usize, at_once: usize) -> Payload {
        let affordable = (BUDGET / connections).saturating_sub(PERIOD);
        let run = at_once.clamp(1024, 64 * 1024).min(affordable.max(1024));
        let mut bytes = Vec::with_capacity(connections * (PERIOD + run));
        for connection in 0..connections {
            let period = period_of(connection as u64);
            bytes.extend(period.iter().cycle().take(PERIOD + run));
        }
        Payload { bytes, run }
    }

    /// The bytes from there on, `count` of them or as many as there are in
    /// one piece.
    pub(super) fn bytes(&self, of: usize, from: Phase, count: u64) -> &[u8] {
        let begin = of * (PERIOD + self.run) + from.0;
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
            phase = phase.after(piece.len());
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
        let one_off = self.first_wrong(of, at.after(1), &got[1..]).is_none();
        let own = self.find(of, known).map(|there| {
            let ahead = (there + PERIOD - at.0) % PERIOD;
            match ahead <= PERIOD / 2 {
                true => format!("its own byte {ahead} further on: lost bytes"),
                false => format!(
                    "its own byte {} before: bytes twice",
                    PERIOD - ahead
                ),
            }
        });
        let count = self.bytes.len() / (PERIOD + self.run);
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
        (0..PERIOD)
            .find(|&at| self.bytes(of, Phase(at), known.len() as u64) == known)
    }
}

/// Random bytes of which no two neighbours are alike, so that a byte that is
/// lost or comes twice is noticed at its place.
fn period_of(connection: u64) -> [u8; PERIOD] {
    let mut random = fastrand::Rng::with_seed(connection);
    let mut period = [0; PERIOD];
    let mut last = 0u8;
    for byte in &mut period {
        last = last.wrapping_add(random.u8(1..));
        *byte = last;
    }
    while period[PERIOD - 1] == period[0]
        || period[PERIOD - 1] == period[PERIOD - 2]
    {
        period[PERIOD - 1] = random.u8(..);
    }
    period
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5,000 bytes of connection 1, as they were sent.
    fn stream(payload: &Payload) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut phase = Phase::of_generation(0);
        while bytes.len() < 5000 {
            let piece = payload.bytes(1, phase, 700);
            bytes.extend(piece);
            phase = phase.after(piece.len());
        }
        bytes.truncate(5000);
        bytes
    }

    /// Where the damage is noticed, and what is said of it.
    fn seen(damage: impl Fn(&mut Vec<u8>)) -> Option<(usize, String)> {
        let payload = Payload::new(3, 64);
        let mut got = stream(&payload);
        damage(&mut got);
        let begin = Phase::of_generation(0);
        let at = payload.first_wrong(1, begin, &got)?;
        Some((at, payload.explain(1, begin.after(at), &got[at..])))
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
        let payload = Payload::new(3, 64);
        let theirs = payload.bytes(2, Phase(700), 64).to_vec();
        must_see(2048, "connection 2", |it| {
            it[2048..2112].copy_from_slice(&theirs);
        });
    }

    #[test]
    fn one_that_takes_anothers_place_begins_elsewhere() {
        let phases = (0..PERIOD as u64).map(|it| Phase::of_generation(it).0);
        let distinct: std::collections::BTreeSet<_> = phases.collect();
        assert_eq!(distinct.len(), PERIOD);
    }
}

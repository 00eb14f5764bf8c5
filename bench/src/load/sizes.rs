//! How long messages are: one size, or a mixture in which each message has a
//! size of its own that does not depend on the server.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// The longest message.
const LONGEST: u64 = 1 << 30;
/// The most that all weights may be together, divided by what they have in
/// common: each message of a lap has an entry in a table.
const MOST_WEIGHT: u64 = 1 << 16;
/// A lap is repeated up to here, so that it has many orders.
const ENTRIES: u64 = 1024;

/// Sizes of messages, and how often each comes: `64`, `64:90,4KiB:9,64KiB:1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sizes(Vec<(u32, u64)>);

impl Sizes {
    /// The size of every message, if they have one.
    pub fn constant(&self) -> Option<NonZeroUsize> {
        match self.0[..] {
            [(size, _)] => NonZeroUsize::new(size as usize),
            _ => None,
        }
    }

    /// The longest one.
    pub fn most(&self) -> usize {
        self.0.iter().map(|it| it.0 as usize).max().unwrap_or(1)
    }

    /// Bytes of a message on average.
    pub fn mean(&self) -> f64 {
        let of =
            |(size, weight): &(u32, u64)| f64::from(*size) * *weight as f64;
        self.0.iter().map(of).sum::<f64>() / self.weights() as f64
    }

    fn weights(&self) -> u64 {
        self.0.iter().map(|it| it.1).sum()
    }

    fn new(mut sizes: Vec<(u32, u64)>) -> Result<Sizes, String> {
        let common = sizes.iter().fold(0, |all, it| divisor(all, it.1));
        for (_, weight) in &mut sizes {
            *weight /= common;
        }
        let sizes = Sizes(sizes);
        if sizes.weights() > MOST_WEIGHT {
            return Err(format!("weights of more than {MOST_WEIGHT} together"));
        }
        Ok(sizes)
    }
}

impl From<NonZeroUsize> for Sizes {
    /// Every message is so long, but none longer than a GiB.
    fn from(size: NonZeroUsize) -> Sizes {
        let size = (size.get() as u64).min(LONGEST);
        Sizes(vec![(size as u32, 1)])
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        if !text.contains([',', ':']) {
            return Ok(Sizes(vec![(size_of(text)?, 1)]));
        }
        let one = |text: &str| {
            let Some((size, weight)) = text.split_once(':') else {
                return Err(format!("{text}: how often, as in {text}:1"));
            };
            let weight: u64 =
                weight.trim().parse().map_err(|it| format!("{text}: {it}"))?;
            match weight {
                0 | 1_000_001.. => Err(format!("{text}: 1 to 1,000,000 times")),
                _ => Ok((size_of(size)?, weight)),
            }
        };
        Sizes::new(text.split(',').map(one).collect::<Result<_, _>>()?)
    }
}

fn size_of(text: &str) -> Result<u32, String> {
    let size: ByteSize = text.trim().parse()?;
    match size.as_u64() {
        0 => Err("a message has a byte at least".to_string()),
        size @ 1..=LONGEST => Ok(size as u32),
        _ => Err("size: at most 1 GiB".to_string()),
    }
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

impl TryFrom<String> for Sizes {
    type Error = String;

    fn try_from(text: String) -> Result<Sizes, String> {
        text.parse()
    }
}

impl From<Sizes> for String {
    fn from(sizes: Sizes) -> String {
        let one = |(size, weight): &(u32, u64)| format!("{size}:{weight}");
        match sizes.constant() {
            Some(size) => size.to_string(),
            None => sizes.0.iter().map(one).collect::<Vec<_>>().join(","),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.weights() as f64;
        for (at, &(size, weight)) in self.0.iter().enumerate() {
            let size = ByteSize::b(size.into()).display().iec();
            let and = if at == 0 { "" } else { ", " };
            write!(f, "{and}{size}")?;
            if self.0.len() > 1 {
                let share = (weight as f64 / all * 1000.0).round() / 10.0;
                write!(f, " ({share} %)")?;
            }
        }
        Ok(())
    }
}

/// The sizes of a lap of messages, in a fixed order that looks like none. All
/// connections go round it, each from another place on.
pub(super) struct Lap {
    sizes: Vec<u32>,
    bytes: u64,
}

/// A message in the lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Lap {
    pub(super) fn new(sizes: &Sizes) -> Lap {
        let mut lap = Vec::new();
        let times = match sizes.0.len() {
            1 => 1,
            _ => (ENTRIES / sizes.weights()).max(1),
        };
        for &(size, weight) in &sizes.0 {
            let count = lap.len() + (weight * times) as usize;
            lap.resize(count, size);
        }
        fastrand::Rng::with_seed(0).shuffle(&mut lap);
        let bytes = lap.iter().map(|&it| u64::from(it)).sum();
        Lap { sizes: lap, bytes }
    }

    /// The first message of a connection.
    pub(super) fn first(&self, connection: usize) -> Place {
        Place((connection * 389 % self.sizes.len()) as u32)
    }

    pub(super) fn size(&self, place: Place) -> usize {
        self.sizes[place.0 as usize] as usize
    }

    pub(super) fn after(&self, place: Place) -> Place {
        let next = place.0 + 1;
        Place(if next as usize == self.sizes.len() { 0 } else { next })
    }

    /// Bytes of so many messages.
    pub(super) fn bytes(&self, from: Place, count: u64) -> u64 {
        let lap = self.sizes.len() as u64;
        let mut bytes = count / lap * self.bytes;
        let mut place = from;
        for _ in 0..count % lap {
            bytes += self.size(place) as u64;
            place = self.after(place);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed() -> Sizes {
        "64:90, 4KiB:9, 64KiB:1".parse().expect("sizes")
    }

    #[test]
    fn what_is_written_is_read() {
        let text = String::from(mixed());
        assert_eq!(text, "64:90,4096:9,65536:1");
        assert_eq!(text.parse::<Sizes>(), Ok(mixed()));
        assert_eq!(
            mixed().to_string(),
            "64 B (90 %), 4.0 KiB (9 %), 64.0 KiB (1 %)"
        );
        let one: Sizes = "1KiB".parse().expect("a size");
        assert_eq!(one.constant(), NonZeroUsize::new(1024));
        assert_eq!(String::from(one), "1024");
        let same: Sizes = "1:20,2:40".parse().expect("sizes");
        assert_eq!(String::from(same), "1:1,2:2");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "64:", "64:0", "64,65", "2GiB", "1:65536,2:1"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_lap_has_each_size_as_often_as_it_should() {
        let lap = Lap::new(&mixed());
        let mut place = lap.first(7);
        let mut counts = [0; 3];
        for _ in 0..lap.sizes.len() {
            let size = lap.size(place);
            counts[[64, 4096, 65536]
                .iter()
                .position(|&it| it == size)
                .expect("a size")] += 1;
            place = lap.after(place);
        }
        assert_eq!(place, lap.first(7));
        assert_eq!(counts, [900, 90, 10]);
        // And not one sort after the other.
        assert!(lap.sizes[..100].contains(&4096));
    }

    #[test]
    fn bytes_of_laps_are_those_of_their_messages() {
        let lap = Lap::new(&mixed());
        let mut place = lap.first(3);
        let mut bytes = 0;
        for count in 0..2500 {
            assert_eq!(lap.bytes(lap.first(3), count), bytes);
            bytes += lap.size(place) as u64;
            place = lap.after(place);
        }
    }
}

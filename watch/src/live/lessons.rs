//! Which call is explained: what is new, one after the other, each for as long
//! as it takes to read.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::seen::Told;

/// How long it takes to read a sentence.
const READING: Duration = Duration::from_millis(2_500);

/// What was explained so far.
#[derive(Default)]
pub struct Lessons {
    taught: HashSet<&'static str>,
    now: Option<(Told, Instant)>,
}

impl Lessons {
    /// The call that is explained.
    pub fn now(&self) -> Option<&Told> {
        self.now.as_ref().map(|(told, _)| told)
    }

    /// Turns to the next one, if the last one has been read: the first of
    /// which nothing has been said, or else the last one that returned.
    pub fn go_on(&mut self, stream: &VecDeque<Told>) {
        if self.now.as_ref().is_some_and(|it| it.1.elapsed() < READING) {
            return;
        }
        let explained = || stream.iter().filter(|told| !told.why.is_empty());
        let is_new = |told: &&Told| !self.taught.contains(told.why);
        let next = explained().find(is_new).or_else(|| explained().next_back());
        if let Some(told) = next {
            self.taught.insert(told.why);
            self.now = Some((told.clone(), Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::data::Phase;

    fn told(why: &'static str) -> Told {
        Told {
            at: 0,
            thread: 0,
            who: "main".into(),
            phase: Phase::Copying,
            text: why.to_owned(),
            took: 0,
            why,
            repeat: 1,
        }
    }

    #[test]
    fn new_things_are_explained_in_turn_and_long_enough() {
        let stream = VecDeque::from(["recv", "send", "", "recv"].map(told));
        let mut lessons = Lessons::default();
        let mut next = || {
            lessons.go_on(&stream);
            let now = lessons.now.as_mut().unwrap();
            let text = now.0.text.clone();
            lessons.go_on(&stream);
            assert_eq!(lessons.now().unwrap().text, text, "still being read");
            lessons.now.as_mut().unwrap().1 -= READING;
            text
        };
        assert_eq!(next(), "recv");
        assert_eq!(next(), "send");
        // Nothing is new any more: the last one that has a sentence.
        assert_eq!(next(), "recv");
    }
}

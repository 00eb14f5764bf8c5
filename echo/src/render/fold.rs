use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::call::{Call, What};
use super::form::Rounds;

/// What is to be written down next of a thread.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A call in full.
    One(Call),
    /// Rounds that repeat the calls before them.
    Rounds(Rounds),
}

/// Folds the calls of one thread: a round is the shortest sequence of calls
/// that has just been repeated. It stands there twice in full by then; as long
/// as it goes on, rounds are only counted. Each call comes out once, in full
/// or within a round, and in its order.
///
/// Memory is bounded: twice the `longest` round of the thread's past, where
/// equal calls share their contents, and two rounds that have not come out. A
/// longer round is not found, and comes out in full.
#[derive(Default)]
pub(crate) struct Folder {
    past: Past,
    fold: Option<Fold>,
}

/// A round that is being repeated.
struct Fold {
    round: Vec<Known>,
    /// Whole rounds that have not come out.
    count: u64,
    /// The first of them.
    first: Vec<Call>,
    /// The calls of the round that is not complete.
    begun: Vec<Call>,
    t1: u64,
    took: u64,
    /// The thread's CPU time when the last call returned that has come out,
    /// and when the last whole round was over.
    cpu0: u64,
    cpu: u64,
    /// All calls since the fold began, whether they have come out or not.
    calls: usize,
}

/// The calls of a thread before a fold.
#[derive(Default)]
struct Past {
    calls: VecDeque<Known>,
    /// The number of the first of them; a thread's calls are numbered from 0.
    first: usize,
    /// Where a call was made last, by its key.
    last: HashMap<u64, usize>,
    /// For each distance at which the last call stands for another time: how
    /// many calls, ending with the last, equal those at this distance before
    /// them. In order of the distance.
    runs: Vec<(usize, usize)>,
    /// `runs` do not speak of the last call.
    stale: bool,
}

/// A call of the past, without what it takes to write it down.
#[derive(Clone)]
struct Known {
    key: u64,
    what: Rc<What>,
    /// How long before it the same call was made; 0: never.
    back: usize,
}

impl Folder {
    /// Takes the thread's next call; `longest` is the most calls that a round
    /// may have.
    pub fn add(
        &mut self,
        call: Call,
        longest: usize,
        out: &mut impl FnMut(Piece),
    ) {
        if let Some(fold) = &mut self.fold {
            if fold.expects(&call) {
                fold.add(call);
                return;
            }
            self.end(longest, out);
        }
        let (known, cpu) = (Known::of(&call), call.cpu);
        out(Piece::One(call));
        self.fold = self.past.add(known, longest).map(|length| {
            let start = self.past.calls.len() - length;
            let round = self.past.calls.range(start..).cloned().collect();
            Fold::new(round, cpu)
        });
    }

    /// Whether calls may have been taken that have not come out.
    pub fn folds(&self) -> bool {
        self.fold.is_some()
    }

    /// Whether there are whole rounds that have not come out.
    pub fn owes(&self) -> bool {
        self.fold.as_ref().is_some_and(|fold| fold.count > 0)
    }

    /// Gives the whole rounds that have not come out.
    pub fn progress(&mut self, out: &mut impl FnMut(Piece)) {
        if let Some(fold) = &mut self.fold {
            fold.give(out);
        }
    }

    /// Gives all that has not come out. The round may go on: it begins anew
    /// with the call that is expected next.
    pub fn flush(&mut self, out: &mut impl FnMut(Piece)) {
        if let Some(fold) = &mut self.fold {
            fold.give(out);
            fold.round.rotate_left(fold.begun.len());
            fold.cpu0 = fold.begun.last().map_or(fold.cpu0, |call| call.cpu);
            fold.begun.drain(..).map(Piece::One).for_each(out);
        }
    }

    fn end(&mut self, longest: usize, out: &mut impl FnMut(Piece)) {
        let Some(mut fold) = self.fold.take() else {
            return;
        };
        let (round, place) = (fold.round.len(), fold.begun.len());
        // What was folded becomes the past, as far as it is remembered.
        let count = fold.calls.min(2 * longest);
        let start = place + round - count % round;
        for i in start..start + count {
            self.past.remember(fold.round[i % round].clone(), longest);
        }
        self.past.stale = true;
        fold.give(out);
        fold.begun.into_iter().map(Piece::One).for_each(out);
    }
}

impl Fold {
    fn new(round: Vec<Known>, cpu: u64) -> Self {
        Fold {
            round,
            count: 0,
            first: Vec::new(),
            begun: Vec::new(),
            t1: 0,
            took: 0,
            cpu0: cpu,
            cpu,
            calls: 0,
        }
    }

    fn expects(&self, call: &Call) -> bool {
        let next = &self.round[self.begun.len()];
        next.key == call.key() && next.what == call.what
    }

    fn add(&mut self, call: Call) {
        self.calls += 1;
        let (t1, cpu) = (call.t1, call.cpu);
        self.begun.push(call);
        if self.begun.len() < self.round.len() {
            return;
        }
        self.took += self.begun.iter().map(Call::took).sum::<u64>();
        (self.t1, self.cpu) = (t1, cpu);
        self.count += 1;
        if self.count == 1 {
            std::mem::swap(&mut self.first, &mut self.begun);
        }
        self.begun.clear();
    }

    fn give(&mut self, out: &mut impl FnMut(Piece)) {
        match self.count {
            0 => return,
            // To say that one round was left out takes a line, and says less.
            1 => self.first.drain(..).map(Piece::One).for_each(out),
            count => out(Piece::Rounds(Rounds {
                t0: self.first[0].t0,
                round: std::mem::take(&mut self.first),
                count,
                t1: self.t1,
                took: self.took,
                cpu0: self.cpu0,
                cpu: self.cpu,
            })),
        }
        (self.count, self.took, self.cpu0) = (0, 0, self.cpu);
    }
}

impl Past {
    /// Adds a call. The length of the round if the last calls are two equal
    /// rounds now; the shortest, if they can be seen so in several ways.
    fn add(&mut self, call: Known, longest: usize) -> Option<usize> {
        self.remember(call, longest);
        let last = self.calls.len() - 1;
        let stale = std::mem::take(&mut self.stale);
        let before = std::mem::take(&mut self.runs);
        let mut before = before.into_iter().peekable();
        // The comparisons that a fold's end may cost.
        let mut patience = 4 * longest;
        let mut place = last;
        loop {
            let back = self.calls[place].back;
            if back == 0 || back > place || last - place + back > longest {
                return None;
            }
            place -= back;
            let distance = last - place;
            let run = if stale {
                let run = self.run(distance, patience);
                patience -= run;
                run
            } else {
                while before.next_if(|(at, _)| *at < distance).is_some() {}
                let same = before.next_if(|(at, _)| *at == distance);
                1 + same.map_or(0, |(_, run)| run)
            };
            if run >= distance {
                self.runs.clear();
                self.stale = true;
                return Some(distance);
            }
            self.runs.push((distance, run));
        }
    }

    /// How many calls, ending with the last, equal those at `distance` before
    /// them; it does not matter how many more than `distance` there are.
    fn run(&self, distance: usize, patience: usize) -> usize {
        let last = self.calls.len() - 1;
        let most = distance.min(last + 1 - distance).min(patience);
        let equal = |i: &usize| {
            self.calls[last - i].key == self.calls[last - i - distance].key
        };
        (0..most).take_while(equal).count()
    }

    fn remember(&mut self, mut call: Known, longest: usize) {
        let number = self.first + self.calls.len();
        let before = self.last.insert(call.key, number);
        call.back = 0;
        if let Some(before) = before.filter(|before| *before >= self.first) {
            call.back = number - before;
            let same = &self.calls[before - self.first].what;
            if *same == call.what {
                call.what = Rc::clone(same);
            }
        }
        self.calls.push_back(call);
        while self.calls.len() > 2 * longest {
            self.calls.pop_front();
            self.first += 1;
        }
        if self.last.len() > 4 * longest {
            self.last.retain(|_, number| *number >= self.first);
        }
    }
}

impl Known {
    fn of(call: &Call) -> Self {
        Known { key: call.key(), what: Rc::clone(&call.what), back: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Random;
    use super::*;

    /// Folds calls that are told apart by a number, and gives the numbers
    /// that came out in full, and the rounds.
    struct Folded {
        folder: Folder,
        out: Vec<Out>,
        time: u64,
    }

    #[derive(Clone, Debug, PartialEq)]
    enum Out {
        One(i64),
        Rounds(Vec<i64>, u64),
    }
    use Out::*;

    impl Folded {
        fn new() -> Self {
            let folder = Folder::default();
            let (out, time) = (Vec::new(), 0);
            Folded { folder, out, time }
        }

        fn add(&mut self, call: i64, longest: usize) {
            self.time += 2;
            let call = Call::numbered(call, self.time, self.time + 1);
            let out = &mut self.out;
            self.folder.add(call, longest, &mut |piece| {
                out.push(Out::from(piece));
            });
        }

        fn flush(&mut self) {
            let out = &mut self.out;
            self.folder.flush(&mut |piece| out.push(Out::from(piece)));
        }

        fn progress(&mut self) {
            let out = &mut self.out;
            self.folder.progress(&mut |piece| out.push(Out::from(piece)));
        }

        fn unfolded(&self) -> Vec<i64> {
            let all = self.out.iter().flat_map(|out| match out {
                One(call) => vec![*call],
                Rounds(round, count) => round.repeat(*count as usize),
            });
            all.collect()
        }
    }

    impl From<Piece> for Out {
        fn from(piece: Piece) -> Self {
            match piece {
                Piece::One(call) => One(call.what.ret),
                Piece::Rounds(rounds) => {
                    let round = rounds.round.iter();
                    let round: Vec<i64> =
                        round.map(|call| call.what.ret).collect();
                    let calls = round.len() as u64 * rounds.count;
                    assert_eq!(rounds.took, calls);
                    assert_eq!(rounds.t1 - rounds.t0, 2 * calls - 1);
                    assert_eq!(rounds.cpu - rounds.cpu0, 2 * calls);
                    assert_eq!(rounds.cpu, rounds.t1);
                    Rounds(round, rounds.count)
                }
            }
        }
    }

    fn fold(calls: &[i64]) -> Vec<Out> {
        let mut folded = Folded::new();
        for call in calls {
            folded.add(*call, 5000);
        }
        folded.flush();
        assert_eq!(folded.unfolded(), calls);
        folded.out
    }

    #[test]
    fn a_round_stands_twice_and_is_counted_from_then_on() {
        let calls = [1, 2, 3].repeat(100);
        let mut expected: Vec<_> = [1, 2, 3, 1, 2, 3].map(One).into();
        expected.push(Rounds(vec![1, 2, 3], 98));
        assert_eq!(fold(&calls), expected);
    }

    #[test]
    fn an_incomplete_round_comes_out_in_full() {
        let mut calls = [7, 8, 9].repeat(5);
        calls.extend([7, 8, 1]);
        let out = fold(&calls);
        let (round, last) = (&out[6], &out[7..]);
        assert_eq!(*round, Rounds(vec![7, 8, 9], 3));
        assert_eq!(last, [One(7), One(8), One(1)]);
    }

    #[test]
    fn a_single_call_may_be_a_round_and_one_round_is_not_counted() {
        assert_eq!(fold(&[4; 3]), [One(4), One(4), One(4)]);
        assert_eq!(fold(&[4; 4]), [One(4), One(4), Rounds(vec![4], 2)]);
    }

    #[test]
    fn the_shortest_round_is_found_and_longer_ones_with_it_inside() {
        let calls = [1, 1, 1, 1, 1, 2].repeat(9);
        let inner = [One(1), One(1), Rounds(vec![1], 3), One(2)];
        let mut expected = [inner.clone(), inner].concat();
        expected.push(Rounds(vec![1, 1, 1, 1, 1, 2], 7));
        assert_eq!(fold(&calls), expected);
    }

    #[test]
    fn a_round_that_was_interrupted_folds_again() {
        let mut calls = [1, 2].repeat(50);
        calls.push(3);
        calls.extend([1, 2].repeat(50));
        let rounds = fold(&calls);
        let rounds = rounds.iter().filter(|out| matches!(out, Rounds(..)));
        let expected = Rounds(vec![1, 2], 48);
        assert_eq!(rounds.collect::<Vec<_>>(), [&expected, &expected]);
    }

    #[test]
    fn rounds_of_five_thousand_calls_fold_and_longer_ones_do_not() {
        let calls: Vec<i64> = (0..5000).collect();
        let out = fold(&calls.repeat(6));
        assert_eq!(out[10_000..], [Rounds(calls, 4)]);
        let calls: Vec<i64> = (0..5001).collect();
        assert_eq!(fold(&calls.repeat(6)).len(), 6 * 5001);
    }

    #[test]
    fn progress_gives_whole_rounds_and_a_flush_the_rest() {
        let mut folded = Folded::new();
        for call in [1, 2, 3].repeat(5) {
            folded.add(call, 9);
        }
        folded.out.clear();
        folded.progress();
        assert_eq!(folded.out, [Rounds(vec![1, 2, 3], 3)]);
        folded.add(1, 9);
        folded.progress();
        assert_eq!(folded.out.len(), 1);
        folded.flush();
        assert_eq!(folded.out[1..], [One(1)]);
        for call in [2, 3, 1, 2, 3, 1] {
            folded.add(call, 9);
        }
        folded.flush();
        assert_eq!(folded.out[2..], [Rounds(vec![2, 3, 1], 2)]);
    }

    #[test]
    fn whatever_was_made_comes_out_in_its_order() {
        let mut random = Random(1);
        for _ in 0..2000 {
            let longest = 1 + random.below(12) as usize;
            let kinds = 1 + random.below(5);
            let (mut folded, mut calls) = (Folded::new(), Vec::new());
            for _ in 0..random.below(40) {
                let length = random.below(6);
                let round: Vec<i64> =
                    (0..length).map(|_| random.below(kinds) as i64).collect();
                for _ in 0..random.below(8) {
                    for call in &round {
                        folded.add(*call, longest);
                        calls.push(*call);
                    }
                    match random.below(60) {
                        0 => folded.flush(),
                        1 => folded.progress(),
                        _ => {}
                    }
                }
                assert!(folded.folder.past.calls.len() <= 2 * longest);
            }
            folded.flush();
            assert_eq!(folded.unfolded(), calls);
        }
    }

    #[test]
    fn every_repetition_is_found_when_it_begins() {
        // By definition: no two equal neighbouring stretches may stand in
        // full but at the very end of a stretch of full calls.
        let mut random = Random(2);
        for _ in 0..2000 {
            let mut past: Past = Past::default();
            let mut calls: Vec<i64> = Vec::new();
            for _ in 0..60 {
                let call = random.below(4) as i64;
                calls.push(call);
                let found = past.add(Known::of(&Call::numbered(call, 0, 0)), 9);
                let square = |n: &usize| {
                    let (a, b) = calls.split_at(calls.len() - n);
                    a.ends_with(b)
                };
                let most = 9.min(calls.len() / 2).min((past.calls.len()) / 2);
                assert_eq!(found, (1..=most).find(square), "{calls:?}");
            }
        }
    }

    #[test]
    fn calls_that_never_repeat_leave_nothing_behind() {
        let mut folded = Folded::new();
        for call in 0..1000 {
            folded.add(call, 10);
        }
        assert!(folded.folder.past.last.len() <= 40);
        assert_eq!(folded.out.len(), 1000);
    }
}

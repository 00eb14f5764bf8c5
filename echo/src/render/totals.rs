use serde::Serialize;

use super::call::Call;
use crate::event::Verb;

/// What all calls come to, by name.
#[derive(Default)]
pub(crate) struct Totals {
    /// In the order in which they appeared; few enough to be looked through.
    sums: Vec<Sum>,
}

struct Sum {
    verb: Verb,
    call: String,
    calls: u64,
    wasted: u64,
    bytes: u64,
    took: u64,
    /// It goes by queues, and no call is made for it.
    queued: bool,
}

/// One row of the table at the end.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub calls: u64,
    pub wasted: u64,
    pub bytes: u64,
    #[serde(rename = "slept_ns")]
    pub slept: u64,
    #[serde(rename = "copying_ns")]
    pub copying: u64,
    #[serde(rename = "other_ns")]
    pub other: u64,
}

impl Totals {
    /// Counts a call.
    pub fn add(&mut self, call: &Call) {
        let (verb, name) = (call.what.verb, call.what.name());
        let known = |sum: &Sum| sum.verb == verb && sum.call == name;
        let place = self.sums.iter().position(known).unwrap_or_else(|| {
            self.sums.push(Sum {
                verb,
                call: name.to_owned(),
                calls: 0,
                wasted: 0,
                bytes: 0,
                took: 0,
                queued: call.what.is_queued(),
            });
            self.sums.len() - 1
        });
        let sum = &mut self.sums[place];
        sum.calls += 1;
        sum.wasted += u64::from(call.what.wasted());
        sum.bytes += call.what.bytes();
        sum.took += call.took();
    }

    /// Whether the server's sockets are blocking, so that its takes sleep too:
    /// a copy that cannot sleep, or a take that met EAGAIN, shows that they
    /// are not.
    pub fn takes_sleep(&self) -> bool {
        !self.sums.iter().any(|sum| {
            let in_vain = sum.verb == Verb::Take && sum.wasted > 0;
            sum.verb == Verb::Copy || in_vain
        })
    }

    /// The table, calls that sleep first.
    pub fn rows(&self) -> Vec<(Verb, &str, Row)> {
        let rows = self.sums.iter();
        let mut rows: Vec<_> = rows
            .map(|sum| (sum.verb, sum.call.as_str(), self.row(sum)))
            .collect();
        rows.sort_by_key(|(verb, _, _)| match verb {
            Verb::Wait => 0,
            Verb::Take => 1,
            Verb::WaitAndCopy => 2,
            Verb::Copy => 3,
            Verb::Submit => 4,
            Verb::Complete => 5,
            Verb::Ask => 6,
            Verb::Signal => 7,
        });
        rows
    }

    /// All calls in one row; neither a signal is one, nor an operation that
    /// goes by queues, but its bytes were moved.
    pub fn total(&self) -> Row {
        let mut total = Row::default();
        let calls = self.sums.iter().filter(|it| it.verb != Verb::Signal);
        for sum in calls {
            let row = self.row(sum);
            total.calls += if sum.queued { 0 } else { row.calls };
            total.wasted += row.wasted;
            total.bytes += row.bytes;
            total.slept += row.slept;
            total.copying += row.copying;
            total.other += row.other;
        }
        total
    }

    fn row(&self, sum: &Sum) -> Row {
        let mut row = Row {
            calls: sum.calls,
            wasted: sum.wasted,
            bytes: sum.bytes,
            ..Row::default()
        };
        match sum.verb {
            Verb::Wait | Verb::WaitAndCopy => row.slept = sum.took,
            Verb::Take if self.takes_sleep() => row.slept = sum.took,
            Verb::Copy => row.copying = sum.took,
            _ => row.other = sum.took,
        }
        row
    }
}

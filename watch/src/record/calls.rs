//! What the calls of a record come to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail, ensure};

use super::{Call, Entry, Line, Peer};

/// A wait that took this long has slept: in the scene nobody is answered
/// sooner and nobody thinks so short, while a call that does not sleep is done
/// after a tenth of it.
const SLEPT_NS: u64 = 100_000;

/// What the calls of one scene come to.
#[derive(Default)]
pub struct Calls {
    /// How many calls returned.
    pub made: u64,
    /// How many of them were made for nothing.
    pub wasted: u64,
    /// How many of them slept before they returned.
    pub wake_ups: u64,
    /// While one client talks, the calls for each of its messages, by name.
    pub per_message: BTreeMap<String, f64>,
    /// As many of these as met EAGAIN.
    pub wasted_per_message: f64,
    /// The operations that went into a queue for each of its messages, by
    /// name; they are no calls.
    pub submitted: BTreeMap<String, f64>,
    /// The results that came out of one.
    pub completed: BTreeMap<String, f64>,
    /// The signals that came for each of its messages.
    pub signals_per_message: f64,
    /// How many other threads did something that the server only asked for.
    pub workers: usize,
    /// What the waits of that time were about, on average.
    pub wait: Option<Wait>,
}

impl Calls {
    /// All calls for one message.
    pub fn all_per_message(&self) -> f64 {
        self.per_message.values().sum()
    }
}

/// What a wait was asked about, and what its server had to look through.
#[derive(Clone, Copy)]
pub struct Wait {
    /// How many descriptors.
    pub asked: f64,
    /// How many of them were ready.
    pub ready: f64,
    /// How many entries were looked through.
    pub scanned: f64,
}

impl Line {
    /// How many times each of its calls returned in this time. Of rounds that
    /// were only partly within it, that part.
    fn times_in(&self, span: &RangeInclusive<u64>) -> f64 {
        if !self.are_rounds() {
            return f64::from(u8::from(span.contains(&self.t1_ns)));
        }
        let from = self.t0_ns.max(*span.start());
        let to = self.t1_ns.min(*span.end());
        let part = to.saturating_sub(from) as f64
            / self.t1_ns.saturating_sub(self.t0_ns).max(1) as f64;
        self.repeat as f64 * part
    }

    /// Whether its calls slept, if they are of those that may.
    pub fn slept(&self, may_sleep: impl Fn(&Call) -> bool) -> bool {
        let sleepers = self.calls().iter().filter(|it| may_sleep(it)).count();
        let each = match self.are_rounds() {
            true => self.took_ns / (self.repeat * sleepers as u64).max(1),
            false => self.t1_ns.saturating_sub(self.t0_ns),
        };
        each >= SLEPT_NS
    }
}

impl Call {
    /// As in the renderer: a copy that cannot sleep, or a take that met
    /// EAGAIN, shows that the server's sockets do not block.
    pub fn cannot_sleep(&self) -> bool {
        self.verb == "copy" || (self.verb == "take" && self.wasted())
    }

    /// Whether it is one that may; a take only where sockets block.
    pub fn may_sleep(&self, takes_sleep: bool) -> bool {
        match self.verb.as_str() {
            "wait" | "wait+copy" => true,
            "take" => takes_sleep,
            _ => false,
        }
    }
}

/// Counts the calls of a record that returned in `scene` (CLOCK_MONOTONIC,
/// nanoseconds); `talker` is the client whose messages are looked at closely.
pub fn read(
    text: &str,
    scene: &RangeInclusive<u64>,
    talker: usize,
) -> Result<Calls> {
    let (mut lines, mut counted) = (Vec::new(), None);
    for line in text.lines() {
        match Entry::read(line)? {
            Entry::Calls(line) => lines.push(line),
            Entry::Summary(total) => counted = Some(total.calls),
            Entry::Note(note) => bail!("the record is not complete: {note}"),
            Entry::Start(_) | Entry::Asleep(_) => {}
        }
    }
    let counted =
        counted.context("the record has no summary: it is cut short")?;
    let calls_of = |line: &Line| {
        line.calls().iter().filter(|call| call.is_call()).count() as u64
    };
    let sum: u64 = lines.iter().map(|line| line.times() * calls_of(line)).sum();
    ensure!(
        sum == counted,
        "the record has {sum} calls, its summary says {counted}"
    );
    let takes_sleep =
        !lines.iter().flat_map(Line::calls).any(Call::cannot_sleep);
    let may_sleep = |call: &Call| call.may_sleep(takes_sleep);
    let mut found = Calls::default();
    let (mut made, mut wasted, mut wake_ups) = (0.0, 0.0, 0.0);
    for line in &lines {
        let times = line.times_in(scene);
        let slept = line.slept(may_sleep);
        for call in line.calls().iter().filter(|call| call.is_call()) {
            made += times;
            wasted += if call.wasted() { times } else { 0.0 };
            wake_ups += if slept && may_sleep(call) { times } else { 0.0 };
        }
    }
    // Rounded once, because a part of many rounds need not be whole.
    found.made = made.round() as u64;
    found.wasted = wasted.round() as u64;
    found.wake_ups = wake_ups.round() as u64;
    let by = lines.iter().flat_map(Line::calls).flat_map(|call| &call.by);
    found.workers = by.collect::<BTreeSet<_>>().len();
    look_closely(&lines, talker, &mut found);
    Ok(found)
}

fn brings_bytes_of(call: &Call, client: usize) -> bool {
    call.brought() > 0 && call.peer == Some(Peer::Client(client))
}

/// Looks at the calls after the recv that brought `talker`'s second message,
/// up to the recv that brought its last: whole messages, and no longer any
/// call that was needed to accept it.
fn look_closely(lines: &[Line], talker: usize, found: &mut Calls) {
    let reads: Vec<(u64, u64)> = lines
        .iter()
        .filter(|it| it.calls().iter().any(|it| brings_bytes_of(it, talker)))
        .map(|line| (line.t1_ns, line.times()))
        .collect();
    let [_, second, rest @ ..] = reads.as_slice() else { return };
    let Some(last) = rest.last() else { return };
    let span = second.0 + 1..=last.0;
    let messages: u64 = rest.iter().map(|(_, times)| times).sum();
    let (mut waits, mut asked, mut ready, mut scanned) = (0.0, 0.0, 0.0, 0.0);
    for line in lines {
        let times = line.times_in(&span);
        if times == 0.0 {
            continue;
        }
        for call in line.calls() {
            if call.is_signal() {
                found.signals_per_message += times;
                continue;
            }
            if call.is_queued() {
                let sums = match call.verb == "submit" {
                    true => &mut found.submitted,
                    false => &mut found.completed,
                };
                *sums.entry(call.name.clone()).or_default() += times;
                continue;
            }
            *found.per_message.entry(call.name.clone()).or_default() += times;
            if call.wasted() {
                found.wasted_per_message += times;
            }
            if let (Some(a), Some(r), Some(s)) =
                (call.asked, call.ready_count, call.scanned)
            {
                waits += times;
                asked += times * a as f64;
                ready += times * r as f64;
                scanned += times * s as f64;
            }
        }
    }
    // Divided only now, so that whole numbers stay whole.
    found.wasted_per_message /= messages as f64;
    found.signals_per_message /= messages as f64;
    let sums = [&mut found.submitted, &mut found.completed];
    let sums = sums.into_iter().chain([&mut found.per_message]);
    for times in sums.flat_map(BTreeMap::values_mut) {
        *times /= messages as f64;
    }
    found.wait = (waits > 0.0).then(|| Wait {
        asked: asked / waits,
        ready: ready / waits,
        scanned: scanned / waits,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"start":"x","pid":1,"t0_ns":1}"#;

    fn summary(calls: u64) -> String {
        format!(r#"{{"summary":{{"calls":[],"total":{{"calls":{calls}}}}}}}"#)
    }

    fn read_lines(lines: &[&str], calls: u64) -> Result<Calls> {
        let end = summary(calls);
        let text = [&[START], lines, &[&end]].concat().join("\n");
        read(&text, &(1_000_000..=2_000_000), 3)
    }

    /// A call of 10 us that ends at this microsecond.
    fn call(end: u64, rest: &str) -> String {
        format!(
            r#"{{"t0_ns":{},"t1_ns":{},"pid":1,"tid":1,{rest}}}"#,
            end * 1000 - 10_000,
            end * 1000
        )
    }

    const RECV: &str =
        r#""verb":"copy","call":"recv","fd":9,"peer":"client 3","ret":64"#;
    const EAGAIN: &str = r#""verb":"copy","call":"recv","errno":"EAGAIN""#;
    const WAIT: &str = r#""verb":"wait","call":"poll","ret":1,"asked":5,
        "ready":[9],"ready_count":1,"scanned":7"#;

    #[test]
    fn only_calls_of_the_scene_count() {
        let lines = [999, 1000, 1500, 2000, 2001].map(|end| call(end, EAGAIN));
        let calls = read_lines(&lines.each_ref().map(|it| &**it), 5).unwrap();
        assert_eq!((calls.made, calls.wasted, calls.wake_ups), (3, 3, 0));
    }

    #[test]
    fn a_signal_is_no_call() {
        let signal = call(1500, r#""verb":"signal","call":"SIGRTMIN","fd":9"#);
        let lines = [1100, 1200, 1300].map(|end| call(end, RECV));
        let [first, second, third] = lines.each_ref().map(|it| &**it);
        let signal = signal.replace("1500000", "1250000");
        let lines = [first, second, &signal, third];
        let calls = read_lines(&lines, 3).unwrap();
        assert_eq!((calls.made, calls.signals_per_message), (3, 1.0));
        assert_eq!(calls.all_per_message(), 1.0);
    }

    #[test]
    fn rounds_are_written_out_and_counted_in_part() {
        // Half of it lies in the scene.
        let rounds = format!(
            r#"{{"t0_ns":500000,"t1_ns":1500000,"pid":1,"tid":1,"repeat":100,
            "calls":2,"wasted":200,"took_ns":9,"round":[{{{EAGAIN}}},
            {{"verb":"take","call":"accept4","errno":"EAGAIN"}}]}}"#
        )
        .replace('\n', "");
        let calls = read_lines(&[&rounds], 200).unwrap();
        assert_eq!((calls.made, calls.wasted), (100, 100));
    }

    #[test]
    fn a_call_that_slept_is_a_wake_up() {
        let slept = |verb, call| {
            format!(
                r#"{{"t0_ns":1000000,"t1_ns":1200000,"verb":"{verb}",
                "call":"{call}","ret":1}}"#
            )
            .replace('\n', "")
        };
        let blocking = [slept("wait+copy", "recv"), slept("take", "accept4")];
        let [recv, take] = &blocking;
        assert_eq!(read_lines(&[recv, take], 2).unwrap().wake_ups, 2);
        // Where copies cannot sleep, takes cannot either.
        let copy = slept("copy", "recv");
        assert_eq!(read_lines(&[&copy, take], 2).unwrap().wake_ups, 0);
        let quick = call(1500, r#""verb":"wait+copy","call":"recv","ret":1"#);
        assert_eq!(read_lines(&[&quick], 1).unwrap().wake_ups, 0);
    }

    #[test]
    fn whole_messages_are_looked_at() {
        let wait = WAIT.replace('\n', "");
        let send = RECV.replace("recv", "send");
        let lines: Vec<String> = (0..4)
            .flat_map(|n| {
                let at = 1100 + n * 100;
                [
                    call(at, &wait),
                    call(at + 20, RECV),
                    call(at + 40, &send),
                    call(at + 60, EAGAIN),
                ]
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
        let calls = read_lines(&lines, 16).unwrap();
        let expected = [("poll", 1.0), ("recv", 2.0), ("send", 1.0)];
        let expected = expected.map(|(name, n)| (name.to_owned(), n));
        assert_eq!(calls.per_message, BTreeMap::from(expected));
        assert_eq!(calls.wasted_per_message, 1.0);
        let wait = calls.wait.unwrap();
        assert_eq!((wait.asked, wait.ready, wait.scanned), (5.0, 1.0, 7.0));
    }

    #[test]
    fn a_record_that_is_not_whole_is_refused() {
        let line = call(1500, EAGAIN);
        let error = |lines: &[&str], calls| {
            read_lines(lines, calls).err().unwrap().to_string()
        };
        assert!(error(&[&line], 2).contains("has 1 calls"));
        assert!(error(&[r#"{"note":"stopped"}"#], 0).contains("stopped"));
        let cut = read(&line, &(0..=1), 3).err().unwrap();
        assert!(cut.to_string().contains("cut short"));
    }
}

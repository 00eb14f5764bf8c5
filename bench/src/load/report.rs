//! What a load has shown, for people and for programs.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::slow::SlowReaders;
pub use crate::results::Latency;

/// Above this share of its core the generator may be what was measured.
const BUSY: f64 = 0.9;
/// How many points a curve has at most.
const POINTS: usize = 60;

/// What a load has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// What was asked.
    pub plan: Plan,
    /// How long it was measured.
    pub seconds: f64,
    /// Messages that came back in that time, every byte right.
    pub messages: u64,
    /// The same by the second.
    pub messages_per_second: f64,
    /// Bytes of these messages by the second, in each direction.
    pub bytes_per_second: f64,
    /// How long messages took that were sent, or in an open loop were due,
    /// while it was measured.
    pub latency: Latency,
    /// How long it took until a connection stood, from first to last.
    pub connect: Latency,
    /// What only an open loop can tell.
    pub open_loop: Option<OpenLoop>,
    /// Connections that were closed and opened anew while it was measured.
    pub renewed: u64,
    /// What became of the slow readers.
    pub slow_readers: Option<SlowReaders>,
    /// How often the kernel had no room for a message, from first to last.
    pub blocked: u64,
    /// CPU time of the generator while it was measured, in seconds.
    pub own_cpu_seconds: f64,
    /// The same by the message.
    pub own_cpu_ns_per_message: f64,
    /// The same as a share of its core.
    pub own_core_share: f64,
    /// The generator was so busy that messages per second measure it and the
    /// server together.
    pub measures_the_pair: bool,
}

/// What one turn of a generator has shown: all that was begun in it is back,
/// and counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Messages that came back, every byte right.
    pub messages: u64,
    /// Bytes of these messages, in each direction.
    pub bytes: u64,
    /// From the first one's beginning to the last one's return.
    pub seconds: f64,
    /// How long messages took.
    pub latency: Latency,
    /// CPU time of the generator.
    pub own_cpu_seconds: f64,
    /// The same as a share of its core.
    pub own_core_share: f64,
    /// Connections that were opened anew.
    pub connects: u64,
    /// How often the kernel had no room for a message.
    pub blocked: u64,
}

impl Turn {
    /// CPU time of the generator for each message, in nanoseconds.
    pub fn own_cpu_ns_per_message(&self) -> f64 {
        per_message(self.own_cpu_seconds, self.messages)
    }
}

/// What all turns of a generator have shown together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Whole {
    /// How long messages took.
    pub latency: Latency,
    /// The same as a curve: share of the messages, and nanoseconds that they
    /// took at most; both ascend.
    pub curve: Vec<(f64, u64)>,
    /// How long it took until a connection stood, if one was opened.
    pub connect: Option<Latency>,
    /// What became of the slow readers, from first to last.
    pub slow_readers: Option<SlowReaders>,
}

/// Nanoseconds to three digits.
pub(super) fn latency_of(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile);
    Latency {
        samples: histogram.len(),
        mean: histogram.mean() as u64,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        max: histogram.max(),
    }
}

/// The shares are spread as those of the histogram's own plots: evenly over
/// the logarithm of 1/(1-share), up to the one slowest.
pub(super) fn curve_of(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    let all = histogram.len() as f64;
    let mut curve: Vec<(f64, u64)> = Vec::with_capacity(POINTS);
    for point in (1..=POINTS).take_while(|_| all > 0.0) {
        let share = match point {
            POINTS => 1.0,
            _ => 1.0 - all.powf(-(point as f64) / POINTS as f64),
        };
        let most = histogram.value_at_quantile(share);
        // Where the same value stands for several shares, the highest counts.
        curve.pop_if(|last| last.1 >= most);
        curve.push((share, most));
    }
    curve
}

fn per_message(seconds: f64, messages: u64) -> f64 {
    match messages {
        0 => 0.0,
        _ => seconds * 1e9 / messages as f64,
    }
}

/// How an open loop went.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OpenLoop {
    /// Messages due while it was measured.
    pub due: u64,
    /// Of these, how many took longer than the time between two messages of a
    /// connection: a client that waits for each answer would have sent the
    /// next one too late, and not have counted that.
    pub late: u64,
    /// Their share.
    pub late_share: f64,
    /// Due and not back when the wait for the last ones was given up; in the
    /// latency they stand with their age at that time.
    pub unfinished: u64,
}

impl Measured {
    pub(super) fn derive(mut self) -> Self {
        self.messages_per_second = self.messages as f64 / self.seconds;
        self.own_cpu_ns_per_message =
            per_message(self.own_cpu_seconds, self.messages);
        self.own_core_share = self.own_cpu_seconds / self.seconds;
        self.measures_the_pair = self.own_core_share > BUSY;
        self
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        let iec = |bytes| ByteSize::b(bytes).display().iec().to_string();
        let connections = counted(plan.connections.get(), "connection");
        write!(f, "{}: {connections}", plan.addr)?;
        if plan.loud > 0 {
            write!(f, ", {} of them loud", plan.loud)?;
        }
        if plan.idle > 0 {
            write!(f, " and {} idle", plan.idle)?;
        }
        write!(f, ", messages of {}, ", plan.size)?;
        match plan.rate {
            Some(rate) => write!(f, "open loop at {rate} a second")?,
            None => write!(f, "closed loop, depth {}", plan.depth)?,
        }
        writeln!(f, ", {:.2} s", self.seconds)?;
        writeln!(
            f,
            "  throughput  {:.0} messages/s, {}/s each way",
            self.messages_per_second,
            iec(self.bytes_per_second as u64)
        )?;
        let Latency { samples, p50, p90, p99, p99_9, max, .. } = self.latency;
        let [p50, p90, p99, p99_9, max] = [p50, p90, p99, p99_9, max].map(span);
        writeln!(
            f,
            "  latency     p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, \
             max {max} ({samples} messages)"
        )?;
        if (1..plan.connections.get()).contains(&plan.loud) {
            writeln!(f, "              of those that are not loud")?;
        }
        if let Some(open) = &self.open_loop {
            writeln!(
                f,
                "              counted from when each was due; {:.2} % took \
                 longer than the time between two",
                open.late_share * 100.0
            )?;
            if open.unfinished > 0 {
                writeln!(
                    f,
                    "              {} were not back when the wait for them was \
                     given up; they count with their age",
                    open.unfinished
                )?;
            }
        }
        if plan.churn.is_some() || plan.messages_per_connection.is_some() {
            let renewed = self.renewed;
            let each = renewed as f64 / self.seconds;
            writeln!(
                f,
                "  churn       {renewed} connections opened anew, {each:.0} a \
                 second"
            )?;
        }
        let Latency { samples, p50, p99, max, .. } = self.connect;
        let [p50, p99, max] = [p50, p99, max].map(span);
        writeln!(
            f,
            "  connect     p50 {p50}, p99 {p99}, max {max} ({})",
            counted(samples as usize, "connection")
        )?;
        if let Some(slow) = &self.slow_readers {
            writeln!(
                f,
                "  slow        {}, {} sent, {} read; {} have not been read by \
                 one; {} cannot send",
                counted(slow.readers, "reader"),
                iec(slow.sent),
                iec(slow.read),
                iec(slow.most_owed),
                slow.stuck
            )?;
        }
        if self.blocked > 0 {
            let times = counted(self.blocked as usize, "time");
            writeln!(f, "  no room     to send: {times}")?;
        }
        write!(
            f,
            "  own CPU     {} per message, {:.0} % of a core",
            span(self.own_cpu_ns_per_message as u64),
            self.own_core_share * 100.0
        )?;
        if self.measures_the_pair {
            write!(
                f,
                "\n  The generator was busy: messages per second measure the \
                 pair.\n  Compare servers by their own CPU per message."
            )?;
        }
        Ok(())
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A time span in three digits.
fn span(nanoseconds: u64) -> String {
    let all = Duration::from_nanos(nanoseconds).as_secs_f64();
    let (number, unit) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..1_000_000 => (all * 1e6, "us"),
        1_000_000..1_000_000_000 => (all * 1e3, "ms"),
        _ => (all, "s"),
    };
    let digits = match number {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{number:.digits$} {unit}")
}

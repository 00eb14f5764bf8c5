//! What a comparison has shown: the one form in which it is saved, drawn, and
//! held against another.

use serde::{Deserialize, Serialize};

/// A whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The version of this form.
    pub format: u32,
    /// Where it ran.
    pub machine: Machine,
    /// How it was measured.
    pub method: Method,
    /// What was measured, scenario by scenario.
    pub points: Vec<Point>,
    /// Lines laid through points of one scenario.
    pub fits: Vec<Fit>,
}

/// The version that [`Comparison::format`] has now. In the first one no
/// connection was loud, and no point had arguments or cores of its own; it is
/// read as that. What has been added to the second one since may be lacking.
pub const FORMAT: u32 = 2;

/// Where a comparison ran; strings are for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// When it began, in UTC (RFC 3339).
    pub date: String,
    /// The commit of this workspace, `-dirty` if files differ from it;
    /// `None` where there is no repository.
    pub commit: Option<String>,
    /// `Linux 6.18.5 x86_64`.
    pub kernel: String,
    /// The model of the processor, and the hypervisor if one shows.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Limits by name, such as `descriptors`.
    pub limits: Vec<(String, String)>,
    /// Mitigations of processor flaws that cost something (by their names in
    /// /sys/devices/system/cpu/vulnerabilities), with their state.
    pub mitigations: Vec<(String, String)>,
    /// Versions by name: this workspace, rustc, glibc, tokio, mio.
    pub versions: Vec<(String, String)>,
    /// Load average of the last minute when it began.
    pub load_average: f64,
}

/// How a comparison was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Rounds at each point; in each, every server has its turn once.
    pub rounds: usize,
    /// Seconds that each turn takes.
    pub turn_seconds: f64,
    /// `--buffer` of every server, in bytes.
    pub buffer: usize,
    /// One sentence on which cores server and generator had.
    pub pinning: String,
    /// One sentence on how system calls were counted, or why not.
    pub calls: String,
    /// Few and short rounds, for a first look.
    pub quick: bool,
}

/// One load of one scenario, and what it took from every server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The scenario, such as `busy`.
    pub scenario: String,
    /// What makes this point of it, such as `50 connections`.
    pub name: String,
    /// The load.
    pub load: Load,
    /// What was added to each server's command line.
    #[serde(default)]
    pub args: Vec<String>,
    /// On how many cores each server ran, where that was asked for.
    #[serde(default)]
    pub cores: Option<usize>,
    /// One sentence on which they were, and on the generator's, where it was
    /// not as [`Method::pinning`] says.
    #[serde(default)]
    pub pinning: Option<String>,
    /// The row that ratios are against.
    pub baseline: Option<String>,
    /// The servers, in the order of the table of models.
    pub rows: Vec<Row>,
    /// Servers that were left out.
    pub absent: Vec<Absent>,
}

/// A load: what each server was asked at one point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Connections that send messages.
    pub connections: usize,
    /// Connections that only stay open.
    pub idle: usize,
    /// How many of those that send are loud: their messages begin with `!`,
    /// which some servers take long for. The others' never do, and where there
    /// are others, latency is theirs.
    #[serde(default)]
    pub loud: usize,
    /// Bytes in a message.
    pub size: usize,
    /// Messages outstanding on each connection; without meaning where there
    /// is a rate.
    pub depth: usize,
    /// Open loop: messages a second over all connections.
    pub rate: Option<f64>,
    /// Each connection is closed after so many messages, and opened anew.
    pub messages_per_connection: Option<u64>,
}

impl Load {
    /// Whether some connections are loud and others are not.
    pub fn some_are_loud(&self) -> bool {
        (1..self.connections).contains(&self.loud)
    }
}

/// A server that was left out, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Absent {
    /// Its row of the table.
    pub model: String,
    /// Such as `one client at a time`.
    pub why: String,
}

/// What a server took at one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its row of the table of models.
    pub model: String,
    /// It is measured against, and no model of this workspace.
    pub peer: bool,
    /// Messages that came back, each second.
    pub messages_per_second: Estimate,
    /// Bytes of them, each second and in each direction.
    pub bytes_per_second: Estimate,
    /// CPU time of the server and its children for each message.
    pub cpu_ns_per_message: Estimate,
    /// The share of it spent in user space, over all rounds.
    pub user_share: Option<f64>,
    /// Bytes, in each direction, for each second of its CPU time.
    #[serde(default)]
    pub bytes_per_cpu_second: Option<Estimate>,
    /// Its CPU time for each message, divided by the baseline's of the same
    /// round.
    pub ratio: Option<Estimate>,
    /// The same of the time that half of the round's messages took at most.
    #[serde(default)]
    pub p50_ratio: Option<Estimate>,
    /// The same of the time that 99 % of them took at most.
    #[serde(default)]
    pub p99_ratio: Option<Estimate>,
    /// How long messages took, over all rounds; those of quiet connections, if
    /// there are both.
    pub latency: Latency,
    /// The same as a curve: share of the messages, and nanoseconds that they
    /// took at most; both ascend. Empty where latency is not the question: in
    /// a closed loop of which no part is loud.
    pub latency_curve: Vec<(f64, u64)>,
    /// How long it took until a connection stood.
    pub connect: Option<Latency>,
    /// CPU time of the load generator for each message.
    pub generator_ns_per_message: Estimate,
    /// How much of its core the generator took: above 0.9, messages per
    /// second measure the pair.
    pub generator_core_share: f64,
    /// Context switches for each message; `None` where threads or children
    /// ended meanwhile and took their counts with them.
    pub switches: Option<Switches>,
    /// System calls for each message.
    pub calls: Option<Calls>,
    /// Resident memory of the server and its children after the last round,
    /// in bytes; anonymous pages, shared ones once.
    pub memory: u64,
    /// What an idle connection adds to it: against the same scenario's point
    /// without idle connections.
    pub memory_per_idle: Option<f64>,
    /// Its CPU time for each message, divided by its own of the same round
    /// at the same scenario's point without idle connections.
    pub against_none_idle: Option<Estimate>,
    /// Threads while connected.
    pub threads: usize,
    /// Processes while connected.
    pub processes: usize,
    /// Each round, from which the estimates come.
    pub rounds: Vec<Round>,
}

/// A median over rounds with its interval: with 95 % or more probability (or
/// with as much as so few rounds allow) the true one lies in it, whatever
/// their distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Half of the rounds were below.
    pub median: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// How long something took, in nanoseconds, to three digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub samples: u64,
    /// The mean; in a closed loop, times messages by the second, it is how
    /// many are outstanding (Little's law).
    pub mean: u64,
    /// Half of them took at most this.
    pub p50: u64,
    /// 90 % of them.
    pub p90: u64,
    /// 99 % of them.
    pub p99: u64,
    /// 99.9 % of them.
    #[serde(rename = "p99.9")]
    pub p99_9: u64,
    /// The longest.
    pub max: u64,
}

/// Context switches for each message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Switches {
    /// The server slept.
    pub voluntary: f64,
    /// The kernel took the core from it.
    pub involuntary: f64,
}

/// System calls for each message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// All of them.
    pub total: f64,
    /// The most frequent ones by the kernel's names, in descending order;
    /// empty where only the total could be counted.
    pub by_name: Vec<(String, f64)>,
    /// Messages for each call that waits for all clients at once, such as
    /// epoll_wait or io_uring_enter: how much a wait brings.
    #[serde(default)]
    pub messages_per_wait: Option<f64>,
    /// What went through its io_uring, if it has one.
    #[serde(default)]
    pub ring: Option<Ring>,
}

/// What a server gave to an io_uring, and took from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ring {
    /// Operations that it submitted, for each message.
    pub submitted: f64,
    /// Completions that came, for each message.
    pub completed: f64,
    /// Submissions for each call of io_uring_enter; `None` without one.
    pub submitted_per_enter: Option<f64>,
    /// Completions for each of them.
    pub completed_per_enter: Option<f64>,
}

/// One round of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// As in [`Row`].
    pub messages_per_second: f64,
    /// As in [`Row`].
    pub cpu_ns_per_message: f64,
    /// As in [`Row`].
    pub generator_ns_per_message: f64,
    /// Half of the round's messages took at most so many nanoseconds.
    pub p50: u64,
    /// 99 % of them.
    pub p99: u64,
}

/// A straight line through the points of one scenario: what each descriptor
/// more costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The scenario.
    pub scenario: String,
    /// The server.
    pub model: String,
    /// What one message, and so one wait, costs with no descriptor, in
    /// nanoseconds of the server's CPU.
    pub base_ns: f64,
    /// What each descriptor adds.
    pub ns_per_descriptor: f64,
    /// The interval of it, from the same fit round by round.
    pub low: f64,
    /// As above.
    pub high: f64,
    /// How much of the variation over the points the line explains, 0 to 1;
    /// points count by their relative distance from the line.
    pub r_squared: f64,
    /// Points that it was laid through.
    pub points: usize,
}

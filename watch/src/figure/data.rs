//! What a figure shows, before anything is drawn. Times are nanoseconds from
//! the scene's beginning.

use serde::Serialize;

/// Everything on one page: the same scene with several models.
#[derive(Debug, Serialize)]
pub struct Page {
    /// The scene's name.
    pub scene: String,
    /// What happens in it.
    pub title: String,
    /// The kernel, the cores and their kind, in a line.
    pub machine: String,
    /// The day on which it was made, as 2026-01-31.
    pub date: String,
    /// The longest of the models' spans: all share one time axis.
    pub span: u64,
    /// One for each model, in the order of the table.
    pub figures: Vec<Figure>,
}

/// One model in the scene.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// The row of the table of models.
    pub model: String,
    /// What the model is.
    pub summary: String,
    /// What to look for.
    pub look: String,
    /// How long the scene took.
    pub span: u64,
    /// Clients in the order of connecting, then the server's threads and
    /// processes as they appear, then those who work for it.
    pub lanes: Vec<Lane>,
    /// The calls that bars and marks refer to.
    pub calls: Vec<Told>,
    /// The stretch around one message of which a closer view tells most.
    pub lens: (u64, u64),
    /// What watching costs this model, if it was measured.
    pub slowdown: Option<Slowdown>,
}

/// Who a lane is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// A client of the scene.
    Client,
    /// A thread of the server that makes calls.
    Thread,
    /// A child process of the server.
    Process,
    /// A thread that glibc started (POSIX AIO).
    HelperThread,
    /// The kernel, where it does the server's work (io_uring).
    Kernel,
}

/// One horizontal strip.
#[derive(Debug, Serialize)]
pub struct Lane {
    /// Who it is about.
    pub who: Who,
    /// What they are called: `talker`, `main`, `thread 2`, `child 1`.
    pub name: String,
    /// From when it is there.
    pub from: u64,
    /// Until when.
    pub to: u64,
    /// What it does: in order, and no two overlap.
    pub bars: Vec<Bar>,
    /// What happens at one moment.
    pub marks: Vec<Mark>,
    /// Of a server's lane: how long the kernel says that the thread was off
    /// the CPU meanwhile (/proc/PID/task/TID/schedstat). It cannot be asked
    /// about a thread that has ended: of the last milliseconds before that,
    /// the thread's own record tells.
    pub off_cpu: Option<u64>,
}

/// A phase; each is told from the others by colour and by pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The server sleeps: nothing that it waits for has happened.
    Waiting,
    /// What it waits for has happened, and it is not running yet.
    WakingUp,
    /// Bytes move between the kernel and the server.
    Copying,
    /// A call that takes a client, tells the kernel what is wanted, or asks who
    /// is ready and is answered at once.
    Asking,
    /// A call that was made for nothing.
    Wasted,
    /// The server's own code, between two calls.
    Running,
    /// It would run and may not: another has the core, or its record is not
    /// taken away as fast as it comes.
    SetAside,
    /// An operation that somebody else does meanwhile.
    InFlight,
    /// A client sends.
    Sending,
    /// A client has sent and not everything has come back.
    Unanswered,
    /// A client receives.
    Receiving,
}

/// What somebody did for a while.
#[derive(Debug, Serialize)]
pub struct Bar {
    /// What it was.
    pub phase: Phase,
    /// From when.
    pub from: u64,
    /// Until when.
    pub to: u64,
    /// The call, by its place among the figure's calls.
    pub call: Option<usize>,
    /// Many calls in one bar: rounds that only repeat.
    pub dense: Option<Dense>,
}

/// Rounds of calls that repeat, too many to be drawn one by one.
#[derive(Debug, Serialize)]
pub struct Dense {
    /// How many rounds.
    pub rounds: u64,
    /// How many calls in all.
    pub calls: u64,
    /// How many of them for nothing.
    pub wasted: u64,
    /// The share of the time that each phase had; together 1.
    pub shares: Vec<(Phase, f64)>,
}

/// What happens at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A client connects.
    Connect,
    /// A client sends FIN, or meets the server's.
    Fin,
    /// A client breaks the connection off, or finds it broken.
    Reset,
    /// A client closes.
    Close,
    /// A client stops reading.
    StopReading,
    /// A client reads again.
    Read,
    /// A signal came.
    Signal,
    /// An operation was given to somebody else.
    Submit,
    /// An operation was found complete.
    Complete,
    /// A child was forked.
    Fork,
    /// The server was stopped (SIGSTOP).
    Stop,
    /// The server was continued (SIGCONT).
    Continue,
}

/// A moment in a lane.
#[derive(Debug, Serialize)]
pub struct Mark {
    /// What happens.
    pub what: What,
    /// When.
    pub at: u64,
    /// In a few words.
    pub text: String,
    /// The call, by its place among the figure's calls.
    pub call: Option<usize>,
}

/// A call as a reader is told of it.
#[derive(Debug, Serialize)]
pub struct Told {
    /// `recv`, or `send 64 bytes` of a client.
    pub call: String,
    /// Whom it is about: `talker`, `listener`; empty if nobody.
    pub about: String,
    /// What it returned, in words: `64 bytes`, `EAGAIN`, `1 of 5 ready: talker`.
    pub result: String,
    /// The sentence that explains the call, and the one that explains its
    /// result if that needs one.
    pub why: String,
    /// When it began.
    pub from: u64,
    /// When it returned.
    pub to: u64,
    /// The stretch of its client's stream that it moved, if it did:
    /// position of the first byte, and of the first behind the last.
    pub bytes: Option<(u64, u64)>,
}

/// What watching costs a server whose clients, eight if it serves so many at a
/// time, always have a message on its way.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Slowdown {
    /// Messages a second, watched.
    pub watched: f64,
    /// And left alone.
    pub unwatched: f64,
}

impl Slowdown {
    /// By how much watching slows it.
    pub fn ratio(&self) -> f64 {
        self.unwatched / self.watched
    }
}

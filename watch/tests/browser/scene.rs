//! A page made up for the test: what each bar must say is known.

use watch::figure::data::{
    Bar, Dense, Figure, Lane, Mark, Page, Phase, Slowdown, Told, What, Who,
};

/// How long the scene takes.
pub const SPAN: u64 = 500_000_000;
/// How long the lens of each model is.
pub const LENS: u64 = 300_000;
/// How many messages the talker sends.
const MESSAGES: u64 = 20;
/// Texts that must not end the element they stand in.
pub const HOSTILE: &str = "</script><b>&amp;\"'<!--";

/// Three models: one that sleeps for all, one with a thread for each client,
/// and one that never sleeps; and many bars if asked for.
pub fn page(bars: u64) -> Page {
    let mut figures = vec![one_thread(), two_threads(), no_sleep()];
    if bars > 0 {
        figures.push(crowded(bars));
    }
    Page {
        scene: "made-up".to_owned(),
        title: format!("One client talks {HOSTILE}"),
        machine: "Linux, two cores".to_owned(),
        date: "2026-01-31".to_owned(),
        span: SPAN,
        figures,
    }
}

/// When the talker sends a message.
fn sends(message: u64) -> u64 {
    100_000_000 + message * 10_000_000
}

struct Drawn {
    figure: Figure,
}

impl Drawn {
    fn new(model: &str, lanes: &[(Who, &str)]) -> Drawn {
        let lane = |&(who, name): &(Who, &str)| Lane {
            who,
            name: name.to_owned(),
            from: 0,
            to: SPAN,
            bars: Vec::new(),
            marks: Vec::new(),
            off_cpu: None,
        };
        let figure = Figure {
            model: model.to_owned(),
            summary: format!("what {model} is"),
            look: format!("what to look for in {model} {HOSTILE}"),
            span: SPAN,
            lanes: lanes.iter().map(lane).collect(),
            calls: Vec::new(),
            lens: (sends(10) - 50_000, sends(10) - 50_000 + LENS),
            slowdown: Some(Slowdown { watched: 8_000.0, unwatched: 20_000.0 }),
        };
        Drawn { figure }
    }

    fn call(
        &mut self,
        call: &str,
        result: &str,
        (from, to): (u64, u64),
        bytes: Option<(u64, u64)>,
    ) -> Option<usize> {
        self.figure.calls.push(Told {
            call: call.to_owned(),
            about: "talker".to_owned(),
            result: result.to_owned(),
            why: format!("What {call} does: {call}(2). {HOSTILE}"),
            from,
            to,
            bytes,
        });
        Some(self.figure.calls.len() - 1)
    }

    fn bar(
        &mut self,
        lane: usize,
        phase: Phase,
        (from, to): (u64, u64),
        call: Option<usize>,
    ) {
        let bars = &mut self.figure.lanes[lane].bars;
        bars.push(Bar { phase, from, to, call, dense: None });
    }

    fn mark(&mut self, lane: usize, what: What, at: u64, text: &str) {
        let mark = Mark { what, at, text: text.to_owned(), call: None };
        self.figure.lanes[lane].marks.push(mark);
    }

    /// The talker's lane: each message and its echo.
    fn talks(&mut self, lane: usize, echo: u64) {
        self.mark(lane, What::Connect, sends(0) - 1_000_000, "connects");
        for message in 0..MESSAGES {
            let at = sends(message);
            let bytes = Some((message * 64, message * 64 + 64));
            let sent = self.call("send", "64 bytes", (at, at + 9_000), bytes);
            self.bar(lane, Phase::Sending, (at, at + 9_000), sent);
            let back = at + echo;
            self.bar(lane, Phase::Unanswered, (at + 9_000, back), None);
            let got =
                self.call("receive", "64 bytes", (back, back + 3_000), bytes);
            self.bar(lane, Phase::Receiving, (back, back + 3_000), got);
        }
        self.mark(lane, What::Close, SPAN - 1_000_000, "closes");
    }
}

/// Sleeps in one wait for all, then recv and send.
fn one_thread() -> Figure {
    let lanes = [(Who::Client, "talker"), (Who::Thread, "main")];
    let mut drawn = Drawn::new("epoll_lt", &lanes);
    drawn.talks(0, 120_000);
    let mut asleep = 0;
    for message in 0..MESSAGES {
        let at = sends(message) + 5_000;
        let awake = at + 40_000;
        let told = "1 of 3 ready: talker";
        let wait = drawn.call("epoll_wait", told, (asleep, awake), None);
        drawn.bar(1, Phase::Waiting, (asleep, at), wait);
        drawn.bar(1, Phase::WakingUp, (at, awake), wait);
        drawn.bar(1, Phase::Running, (awake, awake + 6_000), None);
        let bytes = Some((message * 64, message * 64 + 64));
        let mut copy = |call, from| {
            let all = (from, from + 12_000);
            let call = drawn.call(call, "64 bytes", all, bytes);
            drawn.bar(1, Phase::Copying, all, call);
        };
        copy("recv", awake + 6_000);
        copy("send", awake + 24_000);
        asleep = awake + 40_000;
    }
    let wait = drawn.call("epoll_wait", "asleep", (asleep, SPAN), None);
    drawn.bar(1, Phase::Waiting, (asleep, SPAN), wait);
    drawn.figure
}

/// A thread for each client; the other one only sleeps.
fn two_threads() -> Figure {
    let lanes = [
        (Who::Client, "talker"),
        (Who::Thread, "thread 1"),
        (Who::Thread, "thread 2"),
    ];
    let mut drawn = Drawn::new("blocking-thread", &lanes);
    drawn.talks(0, 90_000);
    let recv = drawn.call("recv", "64 bytes", (0, SPAN), None);
    drawn.bar(1, Phase::Waiting, (0, SPAN / 2), recv);
    drawn.bar(1, Phase::WakingUp, (SPAN / 2, SPAN), recv);
    let recv = drawn.call("recv", "asleep", (0, SPAN), None);
    drawn.bar(2, Phase::Waiting, (0, SPAN), recv);
    drawn.figure
}

/// Rounds that repeat, between messages.
fn no_sleep() -> Figure {
    let lanes = [(Who::Client, "talker"), (Who::Thread, "main")];
    let mut drawn = Drawn::new("nonblocking_poll", &lanes);
    drawn.talks(0, 60_000);
    let mut from = 0;
    for message in 0..=MESSAGES {
        let to = if message < MESSAGES { sends(message) } else { SPAN };
        let shares = vec![(Phase::Wasted, 0.75), (Phase::Running, 0.25)];
        let dense =
            Some(Dense { rounds: 1_234, calls: 4_936, wasted: 4_936, shares });
        let bars = &mut drawn.figure.lanes[1].bars;
        bars.push(Bar { phase: Phase::Wasted, from, to, call: None, dense });
        let all = (to, (to + 20_000).min(SPAN));
        if all.0 < all.1 {
            let recv = drawn.call("recv", "64 bytes", all, None);
            drawn.bar(1, Phase::Copying, all, recv);
        }
        from = to + 20_000;
    }
    drawn.figure
}

/// More bars than there are pixels, and more lanes than anyone looks at.
fn crowded(bars: u64) -> Figure {
    let mut lanes = vec![(Who::Client, "idle"); 60];
    lanes.push((Who::Thread, "main"));
    let mut drawn = Drawn::new("crowded", &lanes);
    let step = SPAN / bars;
    for bar in 0..bars {
        let (from, to) = (bar * step, (bar + 1) * step);
        let (call, result, phase) = match bar % 2 {
            0 => ("recv", "EAGAIN", Phase::Wasted),
            _ => ("send", "64 bytes", Phase::Copying),
        };
        let call = drawn.call(call, result, (from, to), None);
        drawn.bar(60, phase, (from, to), call);
    }
    drawn.figure
}

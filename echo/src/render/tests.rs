//! The recorder as a whole, on stories that no server has to live through.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use serde_json::{Value, json};

use super::form::Form;
use super::json::Json;
use super::recorder::{Options, Recorder};
use super::text::{Look, Text};
use crate::Fd;
use crate::event::{CALL_LENGTH, Event, Kind, READY_SHOWN, Verb};

const MAIN: (i32, i32) = (10, 10);
const CHILD: (i32, i32) = (20, 20);

/// What was written, and for how long that works.
#[derive(Clone)]
struct Paper {
    bytes: Rc<RefCell<Vec<u8>>>,
    room: usize,
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut paper = self.bytes.borrow_mut();
        if paper.len() + bytes.len() > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        paper.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A recorder and the events that it is told.
struct Story {
    recorder: Recorder<Paper>,
    paper: Paper,
    time: u64,
}

const ALL: Options = Options { limit: u64::MAX, every: true, live: false };

const FOLDED: Options = Options { every: false, ..ALL };

const LIVE: Options = Options { live: true, ..FOLDED };

impl Story {
    fn new(form: impl Form + 'static, options: Options) -> Self {
        let bytes = Rc::default();
        let paper = Paper { bytes, room: usize::MAX };
        let recorder = Recorder::new(Box::new(form), paper.clone(), options);
        let mut story = Story { recorder, paper, time: 1_000 };
        let mut start = story.event(Kind::Start, Verb::Ask, MAIN, "echo_test");
        (start.fd, start.asked) = (3, 4);
        story.recorder.add(&start);
        story
    }

    fn json(options: Options) -> Self {
        Story::new(Json { live: false }, options)
    }

    fn text(width: usize) -> Self {
        let look = Look { width, colour: false };
        Story::new(Text::new(look), FOLDED)
    }

    /// An event, the next at its time.
    fn event(
        &mut self,
        kind: Kind,
        verb: Verb,
        (pid, tid): (i32, i32),
        call: &str,
    ) -> Event {
        self.time += 1_000;
        let mut name = [0; CALL_LENGTH];
        name[..call.len()].copy_from_slice(call.as_bytes());
        Event {
            kind,
            verb,
            pid,
            tid,
            fd: -1,
            t0: self.time,
            t1: self.time + 500,
            cpu: self.time / 10,
            ret: 0,
            asked: 0,
            ready_count: 0,
            scanned: 0,
            offset: 0,
            call: name,
            ready: [0; READY_SHOWN],
        }
    }

    fn call(
        &mut self,
        who: (i32, i32),
        verb: Verb,
        call: &str,
        fd: Fd,
        ret: i64,
    ) {
        let mut event = self.event(Kind::After, verb, who, call);
        (event.fd, event.ret) = (fd, ret);
        self.recorder.add(&event);
    }

    fn accept(&mut self, who: (i32, i32), fd: i64) {
        self.call(who, Verb::Take, "accept4", 3, fd);
    }

    fn recv(&mut self, who: (i32, i32), fd: Fd) {
        self.call(who, Verb::Copy, "recv", fd, 64);
    }

    fn close(&mut self, who: (i32, i32), fd: Fd) {
        self.call(who, Verb::Ask, "close", fd, 0);
    }

    fn wait(&mut self, who: (i32, i32), ready: &[Fd]) {
        let mut wait = self.event(Kind::After, Verb::Wait, who, "poll");
        (wait.asked, wait.ret) = (9, ready.len() as i64);
        self.recorder.add(&wait);
        let mut found = self.event(Kind::Ready, Verb::Wait, who, "");
        (found.ready_count, found.scanned) = (ready.len() as u32, 9);
        let shown = ready.len().min(READY_SHOWN);
        found.ready[..shown].copy_from_slice(&ready[..shown]);
        self.recorder.add(&found);
    }

    /// A call that may sleep begins; gives its event.
    fn begin(&mut self, verb: Verb, call: &str) -> Event {
        let event = self.event(Kind::Before, verb, MAIN, call);
        self.recorder.add(&event);
        event
    }

    fn written(&mut self) -> String {
        self.recorder.rest();
        String::from_utf8(self.paper.bytes.take()).unwrap()
    }

    fn objects(&mut self) -> Vec<Value> {
        let text = self.written();
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    /// Whom each call was about, and whom it took.
    fn peers(&mut self) -> Vec<String> {
        let objects = self.objects();
        let calls =
            objects.iter().filter(|object| object["call"] != json!(null));
        calls
            .map(|call| {
                let peer = call["peer"].as_str().unwrap_or("-");
                match call["taken"].as_str() {
                    Some(taken) => format!("{peer} -> {taken}"),
                    None => peer.to_owned(),
                }
            })
            .collect()
    }
}

/// The same numbers on every machine (Knuth's MMIX generator).
pub(super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

#[test]
fn a_call_is_one_object_with_what_was_known_of_it() {
    let mut story = Story::json(ALL);
    story.accept(MAIN, 7);
    story.wait(MAIN, &[3, 7]);
    story.call(MAIN, Verb::Copy, "recv", 7, -11);
    story.recorder.end();
    let objects = story.objects();
    let expected = [
        json!({"start": "echo_test", "pid": 10, "listener": 3, "stop": 4,
            "t0_ns": 2000}),
        json!({"t0_ns": 3000, "t1_ns": 3500, "pid": 10, "tid": 10,
            "verb": "take", "call": "accept4", "fd": 3, "peer": "listener",
            "ret": 7, "taken": "client 1", "cpu_ns": 300}),
        json!({"t0_ns": 4000, "t1_ns": 4500, "pid": 10, "tid": 10,
            "verb": "wait", "call": "poll", "ret": 2, "asked": 9,
            "ready": [3, 7], "ready_count": 2, "scanned": 9, "cpu_ns": 400}),
        json!({"t0_ns": 6000, "t1_ns": 6500, "pid": 10, "tid": 10,
            "verb": "copy", "call": "recv", "fd": 7, "peer": "client 1",
            "errno": "EAGAIN", "cpu_ns": 600}),
    ];
    assert_eq!(objects[..4], expected);
    let total = json!({"calls": 3, "wasted": 1, "bytes": 0, "slept_ns": 500,
        "copying_ns": 500, "other_ns": 500});
    assert_eq!(objects[4]["summary"]["total"], total);
    assert_eq!(objects[4]["summary"]["calls"].as_array().unwrap().len(), 3);
}

#[test]
fn a_wait_without_a_list_is_complete_with_the_next_event() {
    let mut story = Story::json(ALL);
    story.accept(MAIN, 7);
    story.call(CHILD, Verb::Wait, "nanosleep", -1, 0);
    let worker = (MAIN.0, 11);
    story.call(worker, Verb::Wait, "Condvar::wait", -1, 7);
    story.recv(worker, 7);
    story.call(worker, Verb::Wait, "Condvar::wait", -1, -1);
    story.recorder.end();
    let objects = story.objects();
    let calls: Vec<_> = objects[1..6].iter().map(|o| &o["call"]).collect();
    let expected =
        ["accept4", "Condvar::wait", "recv", "nanosleep", "Condvar::wait"];
    assert_eq!(calls, expected);
    assert_eq!(objects[2]["taken"], "client 1");
    assert_eq!(objects[5]["ret"], -1);
}

#[test]
fn a_child_inherits_whichever_event_of_the_fork_comes_first() {
    for child_first in [false, true] {
        let mut story = Story::json(ALL);
        story.accept(MAIN, 5);
        let parent = |story: &mut Story| {
            story.call(MAIN, Verb::Ask, "fork", 5, 20);
            story.close(MAIN, 5);
            story.accept(MAIN, 5);
        };
        let child = |story: &mut Story| {
            story.call(CHILD, Verb::Ask, "fork", 5, 0);
            story.recv(CHILD, 5);
        };
        if child_first {
            child(&mut story);
            parent(&mut story);
        } else {
            parent(&mut story);
            child(&mut story);
        }
        story.recv(CHILD, 5);
        story.recv(MAIN, 5);
        // The child has ended, and its number has come back.
        story.call(MAIN, Verb::Ask, "fork", 5, 20);
        story.recv(CHILD, 5);
        let peers = story.peers();
        let last = ["client 1", "client 2", "client 2", "client 2"];
        assert_eq!(peers[peers.len() - 4..], last, "{child_first}");
        let recv = if child_first { 2 } else { 5 };
        assert_eq!(peers[recv], "client 1", "{child_first}");
    }
}

#[test]
fn a_number_that_returned_belongs_to_the_new_child() {
    // Now the child's own event comes first in its second life.
    let mut story = Story::json(ALL);
    story.accept(MAIN, 5);
    story.call(MAIN, Verb::Ask, "fork", 5, 20);
    story.call(CHILD, Verb::Ask, "fork", 5, 0);
    story.close(MAIN, 5);
    story.accept(MAIN, 5);
    story.call(CHILD, Verb::Ask, "fork", 5, 0);
    story.call(MAIN, Verb::Ask, "fork", 5, 20);
    story.close(MAIN, 5);
    story.recv(CHILD, 5);
    assert_eq!(story.peers().last().unwrap(), "client 2");
}

#[test]
fn a_close_that_is_written_late_closes_whom_it_was_meant_for() {
    let mut story = Story::json(ALL);
    let (closer, taker) = ((10, 11), (10, 12));
    story.accept(MAIN, 5);
    // The number is free once close has done its work, and the accept of
    // another thread returns before the closing thread has said so.
    let mut close = story.event(Kind::After, Verb::Ask, closer, "close");
    close.fd = 5;
    story.accept(taker, 5);
    close.t1 = story.time + 9_000;
    story.recorder.add(&close);
    story.recv(taker, 5);
    story.close(taker, 5);
    story.close(taker, 5);
    let peers = story.peers();
    let expected = ["client 1", "client 2", "client 2", "-"];
    assert_eq!(peers[2..], expected);
}

#[test]
fn unfolded_json_is_what_was_not_folded() {
    let mut random = Random(3);
    for _ in 0..60 {
        let mut stories = [Story::json(ALL), Story::json(FOLDED)];
        let threads = [MAIN, (10, 11), CHILD];
        // Each thread is somewhere in a round of its own.
        let mut rounds: Vec<(Vec<u64>, usize)> = vec![(vec![0], 0); 3];
        for _ in 0..600 {
            let thread = random.below(3) as usize;
            let (round, place) = &mut rounds[thread];
            if random.below(30) == 0 {
                let length = 1 + random.below(5);
                *round = (0..length).map(|_| random.below(6)).collect();
                *place = 0;
            }
            let (who, call) = (threads[thread], round[*place % round.len()]);
            *place += 1;
            let progress = random.below(40) == 0;
            for story in &mut stories {
                match call {
                    0 => story.accept(who, -11),
                    1 => story.wait(who, &[3]),
                    2 => story.wait(who, &[]),
                    3 => story.call(who, Verb::Wait, "nanosleep", -1, 0),
                    n => story.recv(who, n as Fd),
                }
                if progress {
                    let now = story.time;
                    story.recorder.caught_up(now);
                }
            }
        }
        let [every, folded] = stories.map(|mut story| {
            story.recorder.end();
            let mut objects = story.objects();
            let summary = objects.pop();
            (summary, objects)
        });
        assert_eq!(every.0, folded.0, "the summary counts every call");
        assert!(folded.1.len() < every.1.len() / 2, "{}", folded.1.len());
        for (pid, tid) in threads {
            let of = |objects: &[Value]| {
                let objects = objects.iter().filter(|object| {
                    object["pid"] == pid && object["tid"] == tid
                });
                objects.flat_map(unfold).collect::<Vec<_>>()
            };
            assert_eq!(of(&every.1), of(&folded.1));
        }
    }
}

/// The calls of an object, without what a fold leaves out.
fn unfold(object: &Value) -> Vec<Value> {
    if let Some(repeat) = object["repeat"].as_u64() {
        let round = object["round"].as_array().unwrap();
        assert_eq!(object["calls"].as_u64(), Some(round.len() as u64));
        return vec![round.clone(); repeat as usize].concat();
    }
    let mut object = object.clone();
    for key in ["t0_ns", "t1_ns", "pid", "tid", "cpu_ns"] {
        object.as_object_mut().unwrap().remove(key);
    }
    vec![object]
}

#[test]
fn at_the_limit_one_line_says_so_and_counting_goes_on() {
    let options = Options { limit: 1024, ..ALL };
    let mut story = Story::json(options);
    for _ in 0..100 {
        story.recv(MAIN, 3);
    }
    story.recorder.end();
    let text = story.written();
    let (recorded, rest) = text.split_once("{\"note\":").unwrap();
    assert!(recorded.len() <= 1024 && recorded.len() > 800);
    let note = "\"recording stopped after 1 KiB (--watch-limit); the server \
                goes on\"}\n";
    let summary = rest.strip_prefix(note).unwrap();
    let summary: Value = serde_json::from_str(summary).unwrap();
    assert_eq!(summary["summary"]["total"]["calls"], 100);
}

#[test]
fn a_reader_that_went_away_is_no_reason_to_end() {
    let mut story = Story::json(ALL);
    story.paper.room = 300;
    let options = ALL;
    let paper = story.paper.clone();
    story.recorder =
        Recorder::new(Box::new(Json { live: false }), paper, options);
    for _ in 0..10_000 {
        story.recv(MAIN, 3);
    }
    story.recorder.end();
    assert!(story.written().len() <= 300);
}

#[test]
fn a_call_that_sleeps_shows_after_a_moment_and_once() {
    let mut story = Story::text(100);
    let before = story.begin(Verb::Wait, "poll");
    story.recorder.caught_up(before.t0 + 19_999_999);
    assert!(!story.written().contains("sleeping"));
    assert_eq!(story.recorder.rest(), Some(before.t0 + 20_000_000));
    story.recorder.caught_up(before.t0 + 20_000_000);
    let text = story.written();
    assert!(text.contains("main … sleeping in poll\n"), "{text}");
    assert!(text.contains("poll(2)."), "{text}");
    assert_eq!(story.recorder.rest(), None);
    story.recorder.caught_up(before.t0 + 50_000_000);
    story.time += 60_000_000;
    story.wait(MAIN, &[3]);
    let text = story.written();
    assert!(!text.contains("sleeping"), "{text}");
    assert!(text.contains("9 asked, 1 ready, 9 scanned: listener"), "{text}");
    // A call that returned within the moment never slept.
    story.begin(Verb::Wait, "poll");
    story.wait(MAIN, &[3]);
    story.recorder.caught_up(story.time + 50_000_000);
    assert!(!story.written().contains("sleeping"));
}

#[test]
fn a_sleep_within_a_round_shows_when_it_is_long() {
    let mut story = Story::text(100);
    for _ in 0..5 {
        story.begin(Verb::Wait, "poll");
        story.wait(MAIN, &[3]);
        story.accept(MAIN, -11);
    }
    let before = story.begin(Verb::Wait, "poll");
    story.written();
    story.recorder.caught_up(before.t0 + 30_000_000);
    assert_eq!(story.written(), "");
    assert_eq!(story.recorder.rest(), Some(before.t0 + 1_000_000_000));
    story.recorder.caught_up(before.t0 + 1_000_000_000);
    let text = story.written();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("round of 2 calls x 3, 3 calls wasted"));
    assert!(lines[1].contains("… sleeping in poll"), "{text}");
}

#[test]
fn somebody_who_looks_on_sees_how_far_a_round_is() {
    for (live, at) in [(false, 1_000_002_000), (true, 100_002_000)] {
        let mut story = Story::new(Json { live }, LIVE);
        for _ in 0..5 {
            story.accept(MAIN, -11);
        }
        story.written();
        assert_eq!(story.recorder.rest(), Some(at));
        story.recorder.caught_up(at - 1);
        assert_eq!(story.written(), "");
        story.recorder.caught_up(at);
        let round = &story.objects()[0];
        assert_eq!(round["repeat"], 3);
        // The calls ended at 300, 400, … 700.
        assert_eq!(
            (&round["cpu0_ns"], &round["cpu_ns"]),
            (&json!(400), &json!(700))
        );
        assert_eq!(story.recorder.rest(), None);
    }
}

#[test]
fn a_server_that_never_rests_is_seen_at_once() {
    let mut story = Story::new(Json { live: true }, LIVE);
    story.accept(MAIN, 7);
    assert!(story.paper.bytes.borrow().is_empty(), "nothing rested");
    story.recorder.progress(100_001_999);
    assert!(story.paper.bytes.borrow().is_empty(), "it is not yet time");
    story.recorder.progress(100_002_000);
    let text = String::from_utf8(story.paper.bytes.take()).unwrap();
    assert!(text.contains("client 1"), "{text}");
}

#[test]
fn live_json_says_who_sleeps_and_other_json_does_not() {
    for live in [false, true] {
        let mut story = Story::new(Json { live }, LIVE);
        for _ in 0..5 {
            story.wait(MAIN, &[3]);
            story.accept(MAIN, -11);
        }
        let mut begin = story.event(Kind::Before, Verb::Take, MAIN, "accept4");
        begin.fd = 3;
        story.recorder.add(&begin);
        story.written();
        story.recorder.caught_up(begin.t0 + 19_999_999);
        assert_eq!(story.written(), "");
        story.recorder.caught_up(begin.t0 + 20_000_000);
        let objects = story.objects();
        if !live {
            assert_eq!(objects, Vec::<Value>::new());
            story.recorder.caught_up(begin.t0 + 5_000_000_000);
            assert!(!story.written().contains("asleep"));
            continue;
        }
        // What was folded comes before, so that the thread's order holds.
        assert_eq!(objects[0]["repeat"], 3);
        let asleep = json!({"asleep": {"t0_ns": begin.t0, "pid": 10,
            "tid": 10, "verb": "take", "call": "accept4", "fd": 3,
            "peer": "listener"}});
        assert_eq!(objects[1..], [asleep]);
        story.recorder.caught_up(begin.t0 + 5_000_000_000);
        assert_eq!(story.written(), "", "each sleep is told of once");
        // A call that is about no descriptor is about nobody either.
        story.accept(MAIN, -11);
        let begin = story.begin(Verb::Wait, "poll");
        story.recorder.caught_up(begin.t0 + 20_000_000);
        let objects = story.objects();
        let asleep = json!({"asleep": {"t0_ns": begin.t0, "pid": 10,
            "tid": 10, "verb": "wait", "call": "poll"}});
        assert_eq!(objects.last(), Some(&asleep));
    }
}

/// A signal, and an operation from when it is submitted until it is known.
fn signal_and_operation(story: &mut Story) {
    story.accept(MAIN, 7);
    let mut name = story.event(Kind::Name, Verb::Ask, MAIN, "completions");
    name.fd = 5;
    story.recorder.add(&name);
    let mut signal = story.event(Kind::After, Verb::Signal, MAIN, "SIGRTMIN");
    (signal.fd, signal.asked, signal.scanned) = (7, 1, 0x41);
    story.recorder.add(&signal);
    let mut operation =
        story.event(Kind::After, Verb::Submit, MAIN, "aio_write");
    (operation.fd, operation.asked, operation.offset) = (7, 64, 16_384);
    story.recorder.add(&operation);
    story.wait(MAIN, &[5]);
    (operation.verb, operation.ret, operation.ready_count) =
        (Verb::Complete, 64, 1);
    operation.ready[0] = 21;
    story.recorder.add(&operation);
    story.recorder.end();
}

#[test]
fn a_signal_says_why_and_an_operation_where_and_by_whom() {
    let mut story = Story::json(ALL);
    signal_and_operation(&mut story);
    let objects = story.objects();
    let signal = &objects[2];
    assert_eq!(signal["peer"], "client 1");
    assert_eq!(signal["code"], "POLL_IN");
    assert_eq!(signal["band"], json!(["POLLIN", "POLLRDNORM"]));
    assert_eq!(signal.get("ret"), None);
    let (submitted, completed) = (&objects[3], &objects[5]);
    assert_eq!(submitted["verb"], "submit");
    assert_eq!(submitted.get("by"), None);
    assert_eq!(completed["by"], json!([21]));
    for operation in [submitted, completed] {
        assert_eq!(operation["offset"], 16_384);
        assert_eq!(operation["length"], 64);
    }
    // The signal is in the table, but no call.
    let total = &objects[6]["summary"]["total"];
    assert_eq!((&total["calls"], &total["bytes"]), (&json!(4), &json!(64)));
    let rows = objects[6]["summary"]["calls"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["call"] == "SIGRTMIN"));

    let mut story = Story::text(100);
    signal_and_operation(&mut story);
    let text = story.written();
    assert!(text.contains("7 client 1    POLL_IN: POLLIN POLLRDNORM"));
    assert!(text.contains("7 client 1    64 bytes at 16,384  "), "{text}");
    assert!(text.contains("64 bytes at 16,384, by thread 21"), "{text}");
    assert!(text.contains("1 ready, 9 scanned: completions"), "{text}");
}

#[test]
fn text_stays_within_its_width_and_explains_once() {
    for width in [100, 80, 60, 40] {
        let mut story = Story::text(width);
        story.accept(MAIN, 1234);
        story.recv(MAIN, 1234);
        story.call(MAIN, Verb::Copy, "send", 1234, 60);
        story.call(MAIN, Verb::Copy, "send", 1234, 4);
        story.call(MAIN, Verb::Copy, "recv", 1234, -104);
        let all: Vec<Fd> = (0..90).collect();
        story.wait(MAIN, &all);
        story.wait(MAIN, &[1234]);
        story.wait(MAIN, &[3, 4, 1234]);
        story.recorder.end();
        let text = story.written();
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(width.max(80)), "{text}");
        let said = text.lines().filter(|line| !line.contains("  main "));
        let said = said.take_while(|line| !line.is_empty());
        let widest = said.skip(2).map(|line| line.chars().count()).max();
        let names = if width < 80 { 80 } else { width };
        assert!(widest <= Some(names), "{text}");
        let once = |what: &str| assert_eq!(text.matches(what).count(), 1);
        once("accept4(2).");
        once("ECONNRESET: the peer");
        once("A short send");
        assert!(text.contains("60 bytes, short"), "{text}");
        assert!(text.contains("4 bytes  "), "{text}");
        assert!(text.contains(" more\n"), "{text}");
        assert!(text.contains("listener, stop, client 1"), "{text}");
    }
}

impl Story {
    fn submit(&mut self, operation: &str, fd: Fd, bytes: u32) {
        self.queued(Verb::Submit, operation, fd, |it| it.asked = bytes);
    }

    fn complete(&mut self, operation: &str, fd: Fd, result: i64) {
        self.queued(Verb::Complete, operation, fd, |it| it.ret = result);
    }

    fn queued(
        &mut self,
        verb: Verb,
        operation: &str,
        fd: Fd,
        with: impl FnOnce(&mut Event),
    ) {
        let mut event = self.event(Kind::After, verb, MAIN, operation);
        (event.fd, event.offset, event.t1) = (fd, Event::QUEUED, event.t0);
        with(&mut event);
        self.recorder.add(&event);
    }

    fn enter(&mut self, asked: u32, ret: i64) {
        let mut wait =
            self.event(Kind::After, Verb::Wait, MAIN, "io_uring_enter");
        (wait.asked, wait.ret) = (asked, ret);
        self.recorder.add(&wait);
    }
}

/// A client comes, says something, is answered, and goes.
fn by_queues(story: &mut Story) {
    story.submit("accept", 3, 0);
    story.enter(1, 1);
    story.queued(Verb::Complete, "accept", 3, |it| {
        (it.ret, it.scanned) = (7, 1);
    });
    story.submit("recv", 7, 100);
    story.submit("cancel", 7, 0);
    // The kernel takes a part of them only.
    story.enter(2, 1);
    story.complete("recv", 7, 64);
    story.submit("send", 7, 64);
    story.enter(2, 2);
    story.complete("send", 7, 60);
    story.close(MAIN, 7);
    story.complete("cancel", 7, -2);
    story.enter(0, -62);
    story.recorder.end();
}

#[test]
fn what_goes_by_queues_is_no_call_and_says_how_long_it_took() {
    let mut story = Story::json(ALL);
    by_queues(&mut story);
    let objects = story.objects();
    let (submitted, entered, accepted) =
        (&objects[1], &objects[2], &objects[3]);
    assert_eq!(
        *submitted,
        json!({"t0_ns": 3000, "t1_ns": 3000, "pid": 10, "tid": 10,
            "verb": "submit", "call": "accept", "fd": 3, "peer": "listener",
            "length": 0, "queued": true, "cpu_ns": 300})
    );
    let carried = json!([{"call": "accept", "fd": 3, "peer": "listener"}]);
    assert_eq!(entered["carried"], carried);
    assert_eq!((&entered["asked"], entered.get("by")), (&json!(1), None));
    assert_eq!(accepted["taken"], "client 1");
    assert_eq!(accepted["in_flight_ns"], 2000);
    assert_eq!(accepted["goes_on"], true);
    // What was not taken goes with the next call.
    let names = |at: usize| {
        let all = objects[at]["carried"].as_array().unwrap();
        all.iter().map(|it| it["call"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(6), ["recv"]);
    assert_eq!(names(9), ["cancel", "send"]);
    assert_eq!(objects[7]["length"], 100);
    // Its descriptor is nobody's by then, and it was for client 1.
    let last = &objects[12];
    assert_eq!(
        (&last["call"], &last["errno"]),
        (&json!("cancel"), &json!("ENOENT"))
    );
    assert_eq!(last["peer"], "client 1");
    // Four calls of io_uring_enter and a close; the bytes were moved.
    let total = &objects[14]["summary"]["total"];
    assert_eq!((&total["calls"], &total["bytes"]), (&json!(5), &json!(124)));
    assert_eq!(total["wasted"], 0);

    let mut story = Story::text(100);
    by_queues(&mut story);
    let text = story.written();
    for line in [
        "submit    accept       3 listener",
        "wait      io_uring_enter 1 submitted: accept listener   ",
        "accept       3 listener    -> 7 client 1, in flight 2.00 µs, goes on",
        "submit    recv         7 client 1    up to 100 bytes",
        "recv         7 client 1    64 bytes, in flight 3.00 µs\n",
        "2 submitted: cancel client 1, send client 1   ",
        "60 bytes, short, in flight 2.00 µs\n",
        "cancel       7 client 1    ENOENT, in flight ",
        "nothing submitted; time over",
    ] {
        assert!(text.contains(line), "no '{line}' in {text}");
    }
}

#[test]
fn the_thread_that_takes_submissions_is_named() {
    let mut story = Story::json(ALL);
    let mut setup = story.event(Kind::After, Verb::Ask, MAIN, "io_uring_setup");
    (setup.ret, setup.ready_count, setup.ready[0]) = (5, 1, 77);
    story.recorder.add(&setup);
    by_queues(&mut story);
    let objects = story.objects();
    for object in &objects[1..objects.len() - 1] {
        let known = object["verb"] == "complete"
            || ["io_uring_setup", "io_uring_enter"]
                .iter()
                .any(|call| object["call"] == *call);
        let by = known.then(|| json!([77]));
        assert_eq!(object.get("by"), by.as_ref(), "{object}");
        assert_eq!(object.get("carried"), None, "nobody knows: {object}");
    }
}

#[test]
fn what_the_server_called_itself_counts_once() {
    let mut story = Story::json(ALL);
    story.submit("accept", 3, 0);
    story.accept(MAIN, 7);
    story.complete("accept", 3, 7);
    story.submit("recv", 7, 100);
    story.recv(MAIN, 7);
    story.complete("recv", 7, 64);
    story.recorder.end();
    let objects = story.objects();
    assert_eq!(objects[3]["taken"], "client 1");
    assert_eq!(objects[6]["called"], true);
    assert_eq!(objects[6]["peer"], "client 1");
    let total = &objects[7]["summary"]["total"];
    assert_eq!((&total["calls"], &total["bytes"]), (&json!(2), &json!(64)));
}

#[test]
fn rounds_by_queues_fold_although_no_two_take_as_long() {
    let mut story = Story::json(FOLDED);
    story.submit("accept", 3, 0);
    story.enter(1, 1);
    story.complete("accept", 3, 7);
    for round in 0..10 {
        story.submit("recv", 7, 100);
        story.time += 1_000 * round;
        story.enter(1, 1);
        story.complete("recv", 7, 64);
    }
    story.recorder.end();
    let objects = story.objects();
    let rounds = &objects[objects.len() - 2];
    assert_eq!((&rounds["repeat"], &rounds["calls"]), (&json!(8), &json!(3)));
    assert_eq!(rounds["round"][2]["ret"], 64);
}

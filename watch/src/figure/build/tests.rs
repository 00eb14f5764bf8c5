use bench::models::find;

use super::figure;
use crate::clients::{Deed, Did};
use crate::figure::data::{Bar, Figure, Phase, Who};
use crate::figure::run::Run;
use crate::record::{Entry, Start};
use crate::scene::Scene;

/// Of one client that connects at 100 µs and sends 64 bytes at 500 µs; the
/// server is process 1, and the figure begins at 0 and ends at 10 ms.
fn drawn(model: &str, lines: &[&str]) -> Figure {
    let deed = |t0: u64, t1: u64, what| Deed {
        client: 0,
        t0: t0 * 1000,
        t1: t1 * 1000,
        what,
    };
    let lines = lines.iter().map(|line| match Entry::read(line) {
        Ok(Entry::Calls(line)) => line,
        other => panic!("{line}: {other:?}"),
    });
    let run = Run {
        model: find(model).unwrap(),
        begin: 0,
        end: 10_000_000,
        names: vec!["talker".to_owned()],
        deeds: vec![
            deed(100, 110, Did::Connect),
            deed(500, 520, Did::Send { from: 0, to: 64 }),
            deed(600, 603, Did::Receive { from: 0, to: 64 }),
        ],
        start: Start { pid: 1, listener: Some(3), ..Start::default() },
        lines: lines.collect(),
        clocks: [].into(),
    };
    figure(&run, &Scene::find("three-clients").unwrap())
}

/// A call of thread 1; times in microseconds.
fn call(t0: u64, t1: u64, cpu: u64, rest: &str) -> String {
    let [t0, t1, cpu] = [t0, t1, cpu].map(|micros| micros * 1000);
    format!(
        r#"{{"t0_ns":{t0},"t1_ns":{t1},"pid":1,"tid":1,"cpu_ns":{cpu},
        {rest}}}"#
    )
    .replace('\n', "")
}

const TAKE: &str = r#""verb":"take","call":"accept4","fd":3,"peer":"listener",
    "ret":4,"taken":"client 1""#;
const RECV: &str =
    r#""verb":"wait+copy","call":"recv","fd":4,"peer":"client 1","ret":64"#;
const SEND: &str =
    r#""verb":"wait+copy","call":"send","fd":4,"peer":"client 1","ret":64"#;

/// The bars of the server's first lane in microseconds, without those of the
/// code between two calls.
fn bars(figure: &Figure) -> Vec<(Phase, u64, u64)> {
    let lane = figure.lanes.iter().find(|it| it.who == Who::Thread).unwrap();
    let of_calls = |bar: &&Bar| bar.phase != Phase::Running;
    let bars = lane.bars.iter().filter(of_calls);
    bars.map(|it| (it.phase, it.from / 1000, it.to / 1000)).collect()
}

#[test]
fn a_blocking_recv_waits_wakes_up_and_copies() {
    let lines = [
        call(0, 130, 20, TAKE),
        call(135, 540, 35, RECV),
        call(550, 560, 55, SEND),
    ];
    let figure = drawn("blocking", &lines.each_ref().map(|it| &**it));
    assert_eq!(
        bars(&figure),
        [
            (Phase::Waiting, 0, 100),
            (Phase::WakingUp, 100, 130),
            (Phase::Waiting, 135, 500),
            // It was off the CPU for 395 of 410 µs, and worked at the end.
            (Phase::WakingUp, 500, 530),
            (Phase::Copying, 530, 540),
            (Phase::Copying, 550, 560),
        ]
    );
    let recv = figure.calls.iter().find(|it| it.call == "recv").unwrap();
    assert_eq!((&*recv.about, recv.bytes), ("talker", Some((0, 64))));
    assert!(recv.why.starts_with("Sleeps until bytes arrive"));
}

#[test]
fn what_was_read_before_ends_no_wait() {
    let copy = RECV.replace("wait+copy", "copy");
    let wait = |t0, t1, cpu| {
        let rest = r#""verb":"wait","call":"epoll_wait","ret":1,"asked":2,
            "ready":[4],"ready_count":1,"scanned":1"#;
        call(t0, t1, cpu, rest)
    };
    let lines = [
        call(0, 130, 20, &TAKE.replace("wait+", "")),
        wait(135, 510, 30),
        // Its client is still in its send then.
        call(511, 514, 34, &copy),
        wait(516, 9_000, 40),
    ];
    let figure = drawn("epoll_lt", &lines.each_ref().map(|it| &**it));
    assert_eq!(
        bars(&figure)[1..],
        [
            (Phase::Waiting, 135, 500),
            (Phase::WakingUp, 500, 510),
            (Phase::Copying, 511, 514),
            (Phase::Waiting, 516, 9_000),
        ]
    );
}

#[test]
fn a_server_that_was_stopped_wakes_up_late() {
    let rest = r#""verb":"wait","call":"epoll_wait","errno":"EINTR","asked":2"#;
    let lines = [call(0, 130, 20, TAKE), call(135, 900, 30, rest)];
    let figure = drawn("epoll_lt", &lines.each_ref().map(|it| &**it));
    assert_eq!(
        bars(&figure)[2..],
        [(Phase::Waiting, 135, 500), (Phase::WakingUp, 500, 900),]
    );
}

#[test]
fn a_wait_that_returns_at_once_only_asks() {
    let rest = r#""verb":"wait","call":"poll","ret":1,"ready_count":1"#;
    let lines = [call(0, 2, 2, rest), call(4, 16, 16, rest)];
    let figure = drawn("poll_server", &lines.each_ref().map(|it| &**it));
    let asks = [(Phase::Asking, 0, 2), (Phase::Asking, 4, 16)];
    assert_eq!(bars(&figure), asks);
}

#[test]
fn who_is_set_aside_between_two_calls_does_not_run() {
    let wasted = r#""verb":"copy","call":"recv","fd":4,"errno":"EAGAIN""#;
    let lines = [call(0, 2, 2, wasted), call(100, 102, 12, wasted)];
    let figure = drawn("epoll_et", &lines.each_ref().map(|it| &**it));
    assert_eq!(
        bars(&figure),
        [
            (Phase::Wasted, 0, 2),
            (Phase::SetAside, 2, 92),
            (Phase::Wasted, 100, 102),
        ]
    );
}

#[test]
fn rounds_show_how_their_time_was_spent() {
    let wasted = r#""verb":"take","call":"accept4","fd":3,"errno":"EAGAIN""#;
    let rounds = r#"{"t0_ns":2000,"t1_ns":1002000,"pid":1,"tid":1,"repeat":500,
        "calls":1,"wasted":500,"took_ns":250000,"cpu0_ns":2000,"cpu_ns":802000,
        "round":[{"verb":"take","call":"accept4","errno":"EAGAIN"}]}"#;
    let lines = [call(0, 2, 2, wasted), rounds.replace('\n', "")];
    let figure = drawn("nonblocking_poll", &lines.each_ref().map(|it| &**it));
    let lane = figure.lanes.iter().find(|it| it.who == Who::Thread).unwrap();
    let dense = lane.bars.last().unwrap().dense.as_ref().unwrap();
    assert_eq!((dense.rounds, dense.calls, dense.wasted), (500, 500, 500));
    let share = |phase| {
        let shares = dense.shares.iter();
        let found = shares.filter(|share| share.0 == phase).map(|it| it.1);
        (found.sum::<f64>() * 1e6).round() / 1e6
    };
    let phases = [Phase::SetAside, Phase::Wasted, Phase::Running];
    assert_eq!(phases.map(share), [0.2, 0.2, 0.6]);
}

#[test]
fn rounds_that_move_bytes_are_written_out() {
    let rounds = r#"{"t0_ns":1000,"t1_ns":81000,"pid":1,"tid":1,"repeat":4,
        "calls":2,"wasted":0,"took_ns":40000,"cpu0_ns":0,"cpu_ns":80000,"round":[
        {"verb":"copy","call":"recv","fd":4,"peer":"client 1","ret":16},
        {"verb":"copy","call":"send","fd":4,"peer":"client 1","ret":16}]}"#;
    let figure = drawn("nonblocking_poll", &[&rounds.replace('\n', "")]);
    let of = |name: &str| {
        let calls = figure.calls.iter().filter(|it| it.call == name);
        calls.filter_map(|it| it.bytes).collect::<Vec<_>>()
    };
    let parts = [(0, 16), (16, 32), (32, 48), (48, 64)];
    assert_eq!((&*of("recv"), &*of("send")), (&parts[..], &parts[..]));
}

#[test]
fn operations_of_one_thread_are_drawn_one_after_the_other() {
    let of = |verb: &str, at: u64, offset: u64| {
        let rest = format!(
            r#""verb":"{verb}","call":"aio_write","fd":4,"peer":"client 1",
            "ret":0,"offset":{offset},"length":64,"by":[9]"#
        );
        call(at, at + 1, at + 1, &rest)
    };
    let lines = [
        of("submit", 0, 0),
        of("submit", 10, 64),
        of("complete", 50, 0),
        of("complete", 90, 64),
    ];
    let figure = drawn("aio_file", &lines.each_ref().map(|it| &**it));
    let lane = figure.lanes.last().unwrap();
    assert_eq!(lane.who, Who::HelperThread);
    let bars = lane.bars.iter().map(|it| (it.from / 1000, it.to / 1000));
    assert_eq!(bars.collect::<Vec<_>>(), [(0, 50), (50, 90)]);
}

/// Something that goes into a queue or comes out of one, at this microsecond.
fn queued(at: u64, cpu: u64, rest: &str) -> String {
    call(at, at, cpu, rest)
}

#[test]
fn what_the_kernel_does_meanwhile_has_lanes_of_its_own() {
    let enter = r#""verb":"wait","call":"io_uring_enter","ret":1,"asked":1,
        "carried":[{"call":"recv","fd":4,"peer":"client 1"}]"#;
    let accept =
        r#""call":"accept","fd":3,"peer":"listener","length":0,"queued":true"#;
    let recv =
        r#""call":"recv","fd":4,"peer":"client 1","length":0,"queued":true"#;
    let send =
        r#""call":"send","fd":4,"peer":"client 1","length":64,"queued":true"#;
    let submit = |what: &str| format!(r#""verb":"submit",{what}"#);
    let complete = |what: &str, ret: &str| {
        format!(r#""verb":"complete",{what},"in_flight_ns":1,{ret}"#)
    };
    let lines = [
        queued(10, 5, &submit(accept)),
        call(12, 130, 20, enter),
        queued(
            131,
            21,
            &complete(accept, r#""ret":4,"taken":"client 1","goes_on":true"#),
        ),
        queued(132, 22, &submit(recv)),
        call(133, 550, 73, enter),
        queued(551, 74, &complete(recv, r#""ret":64,"goes_on":true"#)),
        queued(552, 75, &submit(send)),
        call(553, 563, 85, enter),
        queued(564, 86, &complete(send, r#""ret":64"#)),
        call(565, 9_900, 91, enter),
        queued(9_901, 92, &complete(recv, r#""ret":0"#)),
    ];
    let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
    let figure = drawn("proactor-multishot", &lines);
    assert_eq!(
        bars(&figure),
        [
            (Phase::Waiting, 12, 100),
            (Phase::WakingUp, 100, 130),
            (Phase::Waiting, 133, 500),
            // It was off the CPU for 367 of 417 µs, and copied at the end.
            (Phase::Copying, 500, 550),
            (Phase::Copying, 553, 563),
            (Phase::Waiting, 565, 9_900),
        ]
    );
    let kernel = figure.lanes.iter().filter(|it| it.who == Who::Kernel);
    let kernel: Vec<_> = kernel
        .map(|lane| {
            let bars = lane.bars.iter();
            let bars = bars.map(|it| (it.from / 1000, it.to / 1000));
            (&*lane.name, bars.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        kernel,
        [
            ("kernel: accept", vec![(10, 131)]),
            // The send lies in front of the recv that goes on.
            (
                "kernel: talker",
                vec![(132, 551), (551, 552), (552, 564), (564, 9_901)]
            ),
        ]
    );
    let of = |name: &str| {
        let told = figure.calls.iter().filter(|it| it.bytes.is_some());
        told.filter(|it| it.call == name).map(|it| it.bytes).next()
    };
    assert_eq!(
        (of("recv"), of("send")),
        (Some(Some((0, 64))), Some(Some((0, 64))))
    );
}

use super::*;

/// A server that is process 7, with a listener and a descriptor to stop it.
fn started() -> Seen {
    let mut seen = Seen::new();
    add(&mut seen, r#"{"start":"x","pid":7,"listener":4,"stop":6,"t0_ns":10}"#);
    seen
}

fn add(seen: &mut Seen, line: &str) {
    seen.add(Entry::read(line).unwrap());
}

/// A call of this thread that took a microsecond.
fn call(seen: &mut Seen, pid: i32, tid: i32, end: u64, rest: &str) {
    let begin = end - 1000;
    let line = format!(
        r#"{{"t0_ns":{begin},"t1_ns":{end},"pid":{pid},"tid":{tid},{rest}}}"#
    );
    add(seen, &line);
}

/// A client is taken as descriptor 8.
fn with_client() -> Seen {
    let mut seen = started();
    call(&mut seen, 7, 7, 2000, TAKE);
    seen
}

fn rounds(end: u64, repeat: u64, round: &str) -> String {
    let took = repeat * 1000;
    format!(
        r#"{{"t0_ns":1,"t1_ns":{end},"pid":7,"tid":7,"repeat":{repeat},
        "calls":1,"wasted":{repeat},"took_ns":{took},"round":[{{{round}}}]}}"#
    )
    .replace('\n', "")
}

fn asleep(seen: &mut Seen, pid: i32, rest: &str) {
    let line = format!(
        r#"{{"asleep":{{"t0_ns":5000,"pid":{pid},"tid":{pid},{rest}}}}}"#
    );
    add(seen, &line);
}

fn texts(seen: &Seen) -> Vec<&str> {
    seen.stream().iter().map(|told| &*told.text).collect()
}

fn fds(seen: &Seen) -> Vec<(i32, i32)> {
    seen.descriptors().iter().map(|it| (it.pid, it.fd)).collect()
}

fn names(seen: &Seen) -> Vec<&str> {
    seen.threads().iter().map(|it| &*it.name).collect()
}

fn client(seen: &Seen) -> Descriptor {
    let mut all = seen.descriptors().into_iter();
    all.find(|it| it.fd == 8).expect("the client")
}

const TAKE: &str = r#""verb":"take","call":"accept4","fd":4,
    "peer":"listener","ret":8,"taken":"client 1""#;
const RECV: &str =
    r#""verb":"copy","call":"recv","fd":8,"peer":"client 1","ret":64"#;
const EAGAIN: &str = r#""verb":"copy","call":"recv","fd":8,"peer":"client 1",
    "errno":"EAGAIN""#;
const CLOSE: &str =
    r#""verb":"ask","call":"close","fd":8,"peer":"client 1","ret":0"#;
const WAIT: &str = r#""verb":"wait","call":"select","ret":2,"asked":3,
    "ready":[4,8],"ready_count":2,"scanned":9"#;

fn send(count: u64) -> String {
    RECV.replace("recv", "send").replace("64", &count.to_string())
}

#[test]
fn a_client_comes_is_owed_and_goes() {
    let mut seen = with_client();
    assert_eq!(fds(&seen), [(7, 4), (7, 6), (7, 8)]);
    assert_eq!(client(&seen).peer, Some(Peer::Client(1)));
    call(&mut seen, 7, 7, 3000, WAIT);
    assert_eq!(client(&seen).waits_for, Wants::In);
    call(&mut seen, 7, 7, 4000, RECV);
    call(&mut seen, 7, 7, 5000, &send(60));
    let it = client(&seen);
    assert_eq!((it.brought, it.took_out, it.owed), (64, 60, 4));
    assert_eq!(it.waits_for, Wants::Out);
    call(&mut seen, 7, 7, 6000, &send(4));
    assert_eq!((client(&seen).owed, client(&seen).waits_for), (0, Wants::In));
    call(&mut seen, 7, 7, 7000, CLOSE);
    assert_eq!(fds(&seen), [(7, 4), (7, 6)]);
    let counters = seen.counters();
    assert_eq!((counters.bytes_in, counters.bytes_out), (64, 64));
    assert_eq!((counters.calls, counters.wake_ups), (6, 0));
}

#[test]
fn what_comes_in_after_our_fin_is_not_owed() {
    let mut seen = with_client();
    call(&mut seen, 7, 7, 3000, RECV);
    assert_eq!(client(&seen).owed, 64);
    call(&mut seen, 7, 7, 4000, &CLOSE.replace("close", "shutdown"));
    call(&mut seen, 7, 7, 5000, RECV);
    assert_eq!(client(&seen).owed, 0);
}

#[test]
fn a_failed_close_or_a_failed_take_changes_nothing() {
    let mut seen = with_client();
    let failed = |rest: &str| rest.replace(r#""ret":0"#, r#""errno":"EIO""#);
    call(&mut seen, 7, 7, 3000, &failed(CLOSE));
    let take = r#""verb":"take","call":"accept4","fd":4,"errno":"EAGAIN""#;
    call(&mut seen, 7, 7, 4000, take);
    assert_eq!(fds(&seen), [(7, 4), (7, 6), (7, 8)]);
    assert_eq!(seen.counters().wasted, 1);
}

#[test]
fn what_a_server_has_for_itself_is_known_by_its_name() {
    let mut seen = started();
    let read = r#""verb":"copy","call":"read","fd":9,"peer":"completions",
        "ret":128"#;
    call(&mut seen, 7, 7, 3000, read);
    let it = seen.descriptors().into_iter().next_back().unwrap();
    assert_eq!(it.peer, Some(Peer::Named("completions".to_owned())));
    assert_eq!((it.fd, it.brought, it.owed), (9, 0, 0));
    call(&mut seen, 7, 7, 4000, &WAIT.replace("[4,8]", "[9,4]"));
    let expected = "select(3 asked) = 2 ready: completions, listener";
    assert_eq!(texts(&seen)[1], expected);
}

#[test]
fn calls_are_told_in_a_line_with_names() {
    let mut seen = with_client();
    seen.name_client(1, "talker");
    for (at, rest) in [WAIT, RECV, &send(64), EAGAIN, CLOSE].iter().enumerate()
    {
        call(&mut seen, 7, 7, 3000 + at as u64, rest);
    }
    let expected = [
        "accept4(4 listener) = 8 client 1",
        "select(3 asked) = 2 ready: listener, talker",
        "recv(8 talker) = 64 bytes",
        "send(8 talker) = 64 bytes",
        "recv(8 talker) = EAGAIN",
        "close(8 talker) = ok",
    ];
    assert_eq!(texts(&seen), expected);
    let phases: Vec<Phase> = seen.stream().iter().map(|it| it.phase).collect();
    use Phase::{Asking, Copying, Waiting, Wasted};
    assert_eq!(phases, [Asking, Waiting, Copying, Copying, Wasted, Asking]);
    assert!(seen.stream().iter().all(|it| it.took == 1000 && it.repeat == 1));
    let why = |at: usize| seen.stream()[at].why;
    assert!(why(2).starts_with("Copies what has arrived"), "{}", why(2));
    assert!(why(4).starts_with("EAGAIN: nothing has arrived"), "{}", why(4));
}

#[test]
fn results_that_are_no_number_are_told_in_words() {
    let mut seen = with_client();
    let tells = |seen: &mut Seen, rest: &str, expected: &str, why: &str| {
        call(seen, 7, 7, 9000, rest);
        let told = seen.stream().back().unwrap();
        assert_eq!(told.text, expected);
        assert!(told.why.contains(why), "{expected}: {}", told.why);
    };
    let seen = &mut seen;
    let fin = RECV.replace("64", "0");
    tells(seen, &fin, "recv(8 client 1) = end of stream", "sent its FIN");
    tells(seen, RECV, "recv(8 client 1) = 64 bytes", "Copies");
    let short = "send(8 client 1) = 60 bytes, short";
    tells(seen, &send(60), short, "A short send");
    tells(seen, &send(4), "send(8 client 1) = 4 bytes", "Copies");
    let none = r#""verb":"wait","call":"poll","ret":0,"asked":3,"ready":[],
        "ready_count":0,"scanned":0"#;
    tells(seen, none, "poll(3 asked) = nothing ready", "in the time given");
    let stop = WAIT.replace("[4,8]", "[6]").replace("t\":2", "t\":1");
    tells(seen, &stop, "select(3 asked) = 1 ready: stop", "signal to stop");
    let signal = r#""verb":"signal","call":"SIGRTMIN","fd":8,
        "peer":"client 1","code":"POLL_IN","band":["POLLIN"]"#;
    let expected = "SIGRTMIN(8 client 1): POLL_IN POLLIN";
    tells(seen, signal, expected, "si_fd says whose");
    let submit = r#""verb":"submit","call":"aio_write","fd":8,
        "peer":"client 1","ret":0,"offset":128,"length":64"#;
    let expected = "aio_write(8 client 1, 64 bytes at 128) = submitted";
    tells(seen, submit, expected, "glibc");
    let complete = submit.replace("submit", "complete");
    let complete = complete.replace(r#""ret":0"#, r#""ret":64,"by":[9]"#);
    let expected =
        "aio_write(8 client 1, 64 bytes at 128) = 64 bytes, by thread 9";
    tells(seen, &complete, expected, "operation is over");
    let fork = r#""verb":"ask","call":"fork","fd":8,"ret":9"#;
    tells(seen, fork, "fork(8) = child process 9", "child process");
    let pause = r#""verb":"wait","call":"clock_nanosleep","asked":0,"ret":0"#;
    tells(seen, pause, "clock_nanosleep() = time over", "fixed time");
    let suspend = r#""verb":"wait","call":"aio_suspend","asked":1,"ret":0"#;
    tells(seen, suspend, "aio_suspend(1 asked) = woken", "operations");
    let queue = r#""verb":"wait","call":"Condvar::wait","ret":-1"#;
    tells(seen, queue, "Condvar::wait() = no more clients", "queue");
}

#[test]
fn the_last_wait_says_whom_it_found() {
    let mut seen = with_client();
    call(&mut seen, 7, 7, 3000, WAIT);
    // A wait in which nobody looked through descriptors is another matter.
    let pause = r#""verb":"wait","call":"clock_nanosleep","asked":0,"ret":0"#;
    call(&mut seen, 7, 7, 4000, pause);
    let expected = Wait {
        call: "select".to_owned(),
        asked: 3,
        ready: vec![(4, Some(Peer::Listener)), (8, Some(Peer::Client(1)))],
        ready_count: 2,
        scanned: 9,
        returned: 3000,
    };
    assert_eq!(seen.last_wait(), Some(&expected));
}

#[test]
fn a_call_that_sleeps_is_what_its_thread_does() {
    let mut seen = with_client();
    let running = |since| Doing::Running { since };
    assert_eq!(seen.threads()[0].doing, running(2000));
    asleep(&mut seen, 7, r#""verb":"wait+copy","call":"recv","fd":8"#);
    let Doing::In { call: recv, since } = &seen.threads()[0].doing else {
        panic!("{:?}", seen.threads())
    };
    assert_eq!((&*recv.name, *since), ("recv", 5000));
    // This thread waits for nobody else.
    let wants: Vec<_> =
        seen.descriptors().iter().map(|it| it.waits_for).collect();
    assert_eq!(wants, [Wants::Nothing, Wants::Nothing, Wants::In]);
    call(&mut seen, 7, 7, 9000, RECV);
    assert_eq!(seen.threads()[0].doing, running(9000));
}

#[test]
fn a_busy_poll_waits_for_nobody() {
    let mut seen = with_client();
    let take = TAKE.replace(r#""ret":8,"taken":"client 1""#, r#""ret":8"#);
    asleep(&mut seen, 7, &take);
    assert_eq!(seen.descriptors()[0].waits_for, Wants::In);
    // It was only set aside in that call, as is known now.
    call(&mut seen, 7, 8, 9000, EAGAIN);
    assert_eq!(seen.descriptors()[0].waits_for, Wants::Nothing);
}

#[test]
fn a_caught_signal_does_not_end_its_wait() {
    let mut seen = with_client();
    asleep(&mut seen, 7, r#""verb":"wait","call":"ppoll""#);
    let signal = r#""verb":"signal","call":"SIGRTMIN","fd":8"#;
    call(&mut seen, 7, 7, 9000, signal);
    assert!(matches!(seen.threads()[0].doing, Doing::In { .. }));
    assert_eq!(seen.counters(), Counters { calls: 1, signals: 1, ..ZERO });
    // It hears of whatever happens.
    assert_eq!(client(&seen).waits_for, Wants::Both);
}

const ZERO: Counters = Counters {
    calls: 0,
    wasted: 0,
    wake_ups: 0,
    signals: 0,
    bytes_in: 0,
    bytes_out: 0,
};

#[test]
fn calls_that_slept_are_wake_ups() {
    let mut seen = started();
    let slept = |seen: &mut Seen, rest: &str| {
        let line = format!(
            r#"{{"t0_ns":1000,"t1_ns":900000,"pid":7,"tid":7,{rest}}}"#
        );
        add(seen, &line);
        seen.counters().wake_ups
    };
    assert_eq!(slept(&mut seen, TAKE), 1);
    assert_eq!(slept(&mut seen, WAIT), 2);
    assert_eq!(slept(&mut seen, RECV), 2);
    // Where copies cannot sleep, takes cannot either.
    assert_eq!(slept(&mut seen, TAKE), 2);
    call(&mut seen, 7, 7, 2000, WAIT);
    assert_eq!(seen.counters().wake_ups, 2);
}

#[test]
fn rounds_that_go_on_are_only_counted() {
    let mut seen = with_client();
    add(&mut seen, &rounds(5000, 10, EAGAIN));
    add(&mut seen, &rounds(6000, 20, EAGAIN));
    let told = seen.stream().back().unwrap();
    assert_eq!((seen.stream().len(), told.repeat, told.at), (2, 30, 6000));
    assert_eq!(told.took, 1000);
    let counters = seen.counters();
    assert_eq!((counters.calls, counters.wasted), (31, 30));
    // Another call in between, and it is told anew.
    call(&mut seen, 7, 7, 7000, RECV);
    add(&mut seen, &rounds(8000, 5, EAGAIN));
    let repeats: Vec<u64> = seen.stream().iter().map(|it| it.repeat).collect();
    assert_eq!(repeats, [1, 30, 1, 5]);
    add(&mut seen, &rounds(9000, 7, &EAGAIN.replace("recv", "send")));
    let told = seen.stream().back().unwrap();
    assert_eq!((&*told.text, told.repeat), ("send(8 client 1) = EAGAIN", 7));
}

#[test]
fn other_threads_do_not_mix_with_rounds() {
    let mut seen = with_client();
    let round = format!("{EAGAIN}}},{{{}", EAGAIN.replace("recv", "send"));
    add(&mut seen, &rounds(5000, 10, &round));
    call(&mut seen, 7, 8, 5500, RECV);
    add(&mut seen, &rounds(6000, 20, &round));
    let repeats: Vec<u64> = seen.stream().iter().map(|it| it.repeat).collect();
    assert_eq!(repeats, [1, 30, 30, 1]);
    // Once its beginning is forgotten it is told anew.
    for at in 0..498 {
        call(&mut seen, 7, 8, 7000 + at, RECV);
    }
    add(&mut seen, &rounds(9000, 1, &round));
    let last: Vec<u64> =
        seen.stream().iter().rev().map(|it| it.repeat).collect();
    assert_eq!((seen.stream().len(), &last[..3]), (500, &[1, 1, 1][..]));
    assert_eq!(seen.stream().back().unwrap().at, 9000);
}

#[test]
fn a_child_has_what_its_parent_had() {
    let fork =
        |ret: i32| format!(r#""verb":"ask","call":"fork","fd":8,"ret":{ret}"#);
    let all = [(7, 4), (7, 6), (7, 8), (9, 4), (9, 6), (9, 8)];
    // The parent is heard of first, and closes before the child says a word.
    let mut seen = with_client();
    call(&mut seen, 7, 7, 3000, &fork(9));
    assert_eq!(fds(&seen), all);
    call(&mut seen, 7, 7, 4000, CLOSE);
    call(&mut seen, 9, 9, 5000, &fork(0));
    call(&mut seen, 9, 9, 6000, RECV);
    assert_eq!(fds(&seen), [(7, 4), (7, 6), (9, 4), (9, 6), (9, 8)]);
    assert_eq!(client(&seen).owed, 64);
    // The child is heard of first.
    let mut seen = with_client();
    call(&mut seen, 9, 9, 3000, &fork(0));
    call(&mut seen, 9, 9, 4000, CLOSE);
    call(&mut seen, 7, 7, 5000, &fork(9));
    assert_eq!(fds(&seen), all[..5]);
    assert_eq!(names(&seen), ["main", "child 1"]);
}

#[test]
fn threads_have_names_and_those_that_are_gone_do_not_come_back() {
    let mut seen = with_client();
    call(&mut seen, 7, 8, 3000, RECV);
    call(&mut seen, 9, 9, 4000, RECV);
    call(&mut seen, 7, 10, 5000, RECV);
    assert_eq!(names(&seen), ["main", "thread 2", "child 1", "thread 3"]);
    seen.forget(&[8, 9]);
    assert_eq!(names(&seen), ["main", "thread 3"]);
    assert_eq!(fds(&seen), [(7, 4), (7, 6), (7, 8)]);
    // Their last words come later.
    call(&mut seen, 9, 9, 6000, CLOSE);
    let fork = r#""verb":"ask","call":"fork","fd":8,"ret":9"#;
    call(&mut seen, 7, 7, 7000, fork);
    assert_eq!(names(&seen), ["main", "thread 3"]);
    assert_eq!(fds(&seen), [(7, 4), (7, 6), (7, 8)]);
    let last: Vec<_> = seen.stream().iter().map(|it| &*it.who).collect();
    assert_eq!(last[last.len() - 2..], ["child 1", "main"]);
    call(&mut seen, 7, 11, 8000, RECV);
    let last = seen.threads().last().unwrap();
    assert_eq!((&*last.name, last.number), ("thread 4", 4));
}

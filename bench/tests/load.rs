//! The load generator against a sound server, in every kind of load, and
//! against servers that are not: each must be caught and named.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bench::harness::{self, Server, Start, Target};
use bench::load::{self, Generator, Measured, Plan, Sizes, SlowReaders, Span};
use bench::models;
use libtest_mimic::{Arguments, Trial};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

type Test = fn() -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("closed_loop", closed_loop),
    ("sixteen_outstanding", sixteen_outstanding),
    ("messages_of_a_mebibyte", messages_of_a_mebibyte),
    ("open_loop", open_loop),
    ("open_loop_that_is_too_much", open_loop_that_is_too_much),
    ("churn", churn),
    ("churn_in_an_open_loop", churn_in_an_open_loop),
    ("idle", idle),
    ("loud_messages_begin_with_a_mark", loud_messages_begin_with_a_mark),
    ("latency_is_that_of_the_quiet", latency_is_that_of_the_quiet),
    ("bad_byte_of_a_loud_message_is_named", bad_byte_of_a_loud_message),
    ("json", json),
    ("corrupt_byte_is_named", corrupt_byte_is_named),
    ("surplus_byte_is_named", surplus_byte_is_named),
    ("stall_is_named", stall_is_named),
    ("stall_in_an_open_loop_is_named", stall_in_an_open_loop_is_named),
    ("close_is_named", close_is_named),
    ("idle_that_is_closed_is_named", idle_that_is_closed_is_named),
    ("nobody_listens", nobody_listens),
    ("slow_server_is_slow", slow_server_is_slow),
    ("pause_counts_from_when_it_was_due", pause_counts_from_when_it_was_due),
    ("pause_counts_what_could_not_be_sent", pause_counts_what_was_not_sent),
    ("pause_at_the_end_counts", pause_at_the_end_counts),
    ("watched_server_is_refused", watched_server_is_refused),
    ("connecting_is_told", connecting_is_told),
    ("connecting_is_measured", connecting_is_measured),
    ("turns_are_exact", turns_are_exact),
    ("turns_of_an_open_loop", turns_of_an_open_loop),
    ("turns_of_the_floor", turns_of_the_floor),
    ("turns_of_mixed_sizes", turns_of_mixed_sizes),
    ("turns_that_end_without_room", turns_that_end_without_room),
    ("mixed_sizes_with_churn", mixed_sizes_with_churn),
    ("messages_of_a_connection_are_counted", messages_of_a_connection),
    ("messages_per_connection", messages_per_connection),
    ("sources_are_many", sources_are_many),
    ("generator_has_its_core", generator_has_its_core),
    ("generator_tells_what_was_wrong", generator_tells_what_was_wrong),
    ("generator_ends_when_dropped", generator_ends_when_dropped),
    ("generator_leaves_the_watched_alone", generator_leaves_the_watched_alone),
    ("slow_readers_are_stuck", slow_readers_are_stuck),
    ("slow_readers_read_at_their_rate", slow_readers_read_at_their_rate),
    ("slow_readers_that_are_not_stuck", slow_readers_that_are_not_stuck),
    ("slow_reader_that_is_dropped_is_named", slow_reader_that_is_dropped),
    ("slow_reader_whose_byte_is_bad_is_named", slow_reader_of_a_bad_byte),
    ("slow_reader_that_starves_is_named", slow_reader_that_starves),
];

fn main() -> ExitCode {
    bench::serve_if_asked();
    harness::raise_descriptor_limit();
    let mut args = Arguments::from_args();
    // They measure time; most of them wait most of it.
    args.test_threads = Some(args.test_threads.unwrap_or(2).min(2));
    let trials = TESTS.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            let begin = Instant::now();
            test().map_err(|error| format!("{error:#}"))?;
            let took = begin.elapsed();
            println!("{name}: {took:?}");
            Ok(())
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}

fn epoll_lt(args: &[&str]) -> Result<Server> {
    let model = models::find("epoll_lt").context("no epoll_lt")?;
    Server::start(&Target::Model(model), &Start::with_args(args))
}

fn number(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

/// A short load of a few connections.
fn plan(addr: SocketAddr, connections: usize, size: usize) -> Plan {
    Plan {
        connections: number(connections),
        size: number(size).into(),
        duration: Duration::from_millis(150),
        warm_up: Duration::from_millis(20),
        ..Plan::new(addr)
    }
}

/// What must hold of every load that succeeded.
fn run(plan: &Plan) -> Result<Measured> {
    let measured = load::run(plan)?;
    let seen = format!("{measured:?}");
    let planned = plan.duration.as_secs_f64();
    if plan.rate.is_none() {
        ensure!(measured.seconds >= planned, "too short: {seen}");
    }
    // The clock decides when an open loop's span ends; it may begin late.
    ensure!(measured.seconds > planned / 2.0, "too short: {seen}");
    ensure!(measured.seconds < planned + 0.5, "too long: {seen}");
    ensure!(measured.messages > 0, "nothing: {seen}");
    ensure!(measured.own_cpu_seconds > 0.0, "no CPU: {seen}");
    ensure!(measured.own_cpu_seconds <= measured.seconds, "more: {seen}");
    let it = &measured.latency;
    ensure!(it.p50 > 0 && it.p50 <= it.p90 && it.p90 <= it.p99, "{seen}");
    ensure!(it.p99 <= it.p99_9 && it.p99_9 <= it.max, "{seen}");
    Ok(measured)
}

/// The line that tells what was wrong with a server.
fn caught(plan: &Plan, words: &[&str]) -> Result<()> {
    let begin = Instant::now();
    let said = match load::run(plan) {
        Ok(measured) => bail!("not caught: {measured:?}"),
        Err(error) => format!("{error:#}"),
    };
    let took = begin.elapsed();
    ensure!(took < Duration::from_secs(3), "caught after {took:?}: {said}");
    ensure!(!said.contains('\n'), "more than a line: {said}");
    for word in words {
        ensure!(said.contains(word), "no '{word}' in: {said}");
    }
    Ok(())
}

/// Latency and messages per second are counted apart, and must agree.
fn holds_outstanding(planned: f64, measured: &Measured) -> Result<()> {
    let rate = measured.messages_per_second;
    let outstanding = rate * measured.latency.mean as f64 / 1e9;
    let share = outstanding / planned;
    ensure!((0.8..1.25).contains(&share), "{share}: {measured:?}");
    Ok(())
}

fn closed_loop() -> Result<()> {
    let server = epoll_lt(&[])?;
    let measured = run(&plan(server.addr, 50, 64))?;
    holds_outstanding(50.0, &measured)?;
    ensure!(measured.open_loop.is_none() && measured.renewed == 0);
    server.stop()
}

fn sixteen_outstanding() -> Result<()> {
    let server = epoll_lt(&[])?;
    // A period of the payload and the chunks of a read do not match 333.
    let plan = Plan { depth: number(16), ..plan(server.addr, 10, 333) };
    let measured = run(&plan)?;
    holds_outstanding(160.0, &measured)?;
    server.stop()
}

fn messages_of_a_mebibyte() -> Result<()> {
    let server = epoll_lt(&[])?;
    run(&plan(server.addr, 4, 1 << 20))?;
    server.stop()
}

fn open_loop() -> Result<()> {
    let server = epoll_lt(&[])?;
    let plan = Plan { rate: Some(2000.0), ..plan(server.addr, 7, 64) };
    let measured = run(&plan)?;
    let open = measured.open_loop.context("no open loop")?;
    // Every message that is due is counted, whenever it comes back.
    ensure!(open.due == 300, "{measured:?}");
    ensure!(measured.latency.samples == 300, "{measured:?}");
    ensure!(open.unfinished == 0, "{measured:?}");
    ensure!(measured.messages_per_second < 2200.0, "{measured:?}");
    server.stop()
}

/// What cannot be kept up with is told, and does not take for ever.
fn open_loop_that_is_too_much() -> Result<()> {
    let addr = serve(1, |mut socket| {
        let mut bytes = [0; 64];
        while socket.read_exact(&mut bytes).is_ok() {
            thread::sleep(Duration::from_millis(10));
            socket.write_all(&bytes)?;
        }
        Ok(())
    })?;
    let plan = Plan {
        rate: Some(1000.0),
        patience: Duration::from_millis(100),
        duration: Duration::from_millis(200),
        ..plan(addr, 1, 64)
    };
    // 42 are back at most, when it is given up after 420 ms.
    let measured = load::run(&plan)?;
    let open = measured.open_loop.context("no open loop")?;
    ensure!(open.due == 200, "{measured:?}");
    ensure!(open.unfinished >= 178, "{measured:?}");
    ensure!(measured.latency.samples == 200, "{measured:?}");
    ensure!(open.late > 190, "{measured:?}");
    ensure!(measured.latency.max > 300_000_000, "{measured:?}");
    Ok(())
}

fn churn() -> Result<()> {
    let server = epoll_lt(&[])?;
    let plan = Plan {
        churn: Some(1000.0),
        depth: number(2),
        ..plan(server.addr, 10, 100)
    };
    let measured = run(&plan)?;
    ensure!((20..=175).contains(&measured.renewed), "{measured:?}");
    server.stop()
}

fn churn_in_an_open_loop() -> Result<()> {
    let server = epoll_lt(&[])?;
    let plan = Plan {
        churn: Some(500.0),
        rate: Some(4000.0),
        ..plan(server.addr, 10, 100)
    };
    let measured = run(&plan)?;
    ensure!((20..=88).contains(&measured.renewed), "{measured:?}");
    ensure!(measured.latency.samples == 600, "{measured:?}");
    server.stop()
}

fn idle() -> Result<()> {
    let server = epoll_lt(&[])?;
    let before = server.observe().descriptors;
    let plan = Plan {
        idle: 300,
        // Long enough to be seen from outside.
        duration: Duration::from_millis(600),
        ..plan(server.addr, 10, 64)
    };
    let seen = thread::scope(|scope| {
        let load = scope.spawn(|| run(&plan));
        let open = before + 310;
        let all = server.settles("all to be open", harness::PATIENCE, |it| {
            it.descriptors == open
        });
        load.join().unwrap_or_else(|_| bail!("panic"))?;
        all
    })?;
    ensure!(seen.descriptors == before + 310);
    server.stop()
}

/// Three of five clients, in every message, also after they were renewed; and
/// no message of the others.
fn loud_messages_begin_with_a_mark() -> Result<()> {
    let (tell, told) = mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let tell = tell.clone();
            thread::spawn(move || {
                let mut seen = Vec::new();
                let done = echo(socket, |at, piece| {
                    let first =
                        (0..piece.len() as u64).find(|it| (at + it) % 100 == 0);
                    seen.extend(first.map(|it| piece[it as usize]));
                });
                // The client may be gone, and so may be the test.
                let _ended = (done, tell.send(seen));
            });
        }
    });
    let plan = Plan {
        loud: 3,
        messages_per_connection: NonZeroU64::new(30),
        ..plan(addr, 5, 100)
    };
    let measured = run(&plan)?;
    ensure!(measured.renewed > 10, "{measured:?}");
    let (mut loud, mut quiet) = (0, 0);
    for _ in 0..measured.renewed {
        let seen = told.recv_timeout(Duration::from_secs(5))?;
        ensure!(!seen.is_empty(), "a connection without a message");
        let marks = seen.iter().filter(|byte| **byte == b'!').count();
        match marks {
            0 => quiet += 1,
            _ if marks == seen.len() => loud += 1,
            _ => bail!("{marks} of {} messages are loud", seen.len()),
        }
    }
    ensure!(loud > 0 && quiet > 0, "{loud} loud, {quiet} quiet");
    Ok(())
}

/// The server is slow with loud messages, and those alone.
fn latency_is_that_of_the_quiet() -> Result<()> {
    let addr = serve(6, |socket| {
        echo(socket, |_, piece| {
            if piece.first() == Some(&b'!') {
                thread::sleep(Duration::from_millis(20));
            }
        })
    })?;
    let some = Plan { loud: 1, ..plan(addr, 3, 64) };
    let measured = run(&some)?;
    let latency = &measured.latency;
    ensure!(latency.p99 < 20_000_000, "{measured:?}");
    ensure!(latency.samples < measured.messages, "{measured:?}");
    ensure!(measured.to_string().contains("not loud"), "{measured}");
    // If there are no others, it is theirs.
    let all = run(&Plan { loud: 3, ..some })?;
    ensure!(all.latency.p50 >= 20_000_000, "{all:?}");
    Ok(())
}

fn bad_byte_of_a_loud_message() -> Result<()> {
    let damage = |byte: u64| {
        move |at: u64, piece: &mut Vec<u8>| {
            let there = at..at + piece.len() as u64;
            if there.contains(&byte) {
                piece[(byte - at) as usize] ^= 0x10;
            }
        }
    };
    // The mark itself.
    let addr = serve(1, move |socket| echo(socket, damage(64 * 100)))?;
    let loud = Plan { loud: 1, ..plan(addr, 1, 64) };
    caught(&loud, &["byte 6400: expected 0x21, got 0x31"])?;
    let mixed = Plan { size: sizes("64:1,65:1")?, ..loud.clone() };
    caught(&mixed, &["loud: messages of one size"])?;
    let more = Plan { loud: 2, ..loud };
    caught(&more, &["loud: 2 of 1 connections"])
}

fn json() -> Result<()> {
    let server = epoll_lt(&[])?;
    let measured = run(&plan(server.addr, 2, 64))?;
    let text = serde_json::to_value(&measured)?;
    ensure!(text["messages"] == measured.messages, "{text}");
    ensure!(text["latency"]["p99.9"] == measured.latency.p99_9, "{text}");
    ensure!(text["plan"]["addr"] == server.addr.to_string(), "{text}");
    ensure!(text["plan"]["duration"] == 0.15, "{text}");
    ensure!(text["plan"]["size"] == "64", "{text}");
    let mixed = Plan {
        size: sizes("64:90,4KiB:9")?,
        rate: Some(0.3),
        messages_per_connection: NonZeroU64::new(3),
        ..measured.plan
    };
    let text = serde_json::to_value(&mixed)?;
    ensure!(text["size"] == "64:10,4096:1", "{text}");
    ensure!(serde_json::from_value::<Plan>(text)? == mixed);
    server.stop()
}

/// Serves `count` clients, each on a thread, that end with their client.
fn serve(
    count: usize,
    serve: impl Fn(TcpStream) -> std::io::Result<()> + Copy + Send + 'static,
) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        for socket in listener.incoming().take(count).flatten() {
            let _done = socket.set_nodelay(true);
            // The client sees how it ended.
            thread::spawn(move || serve(socket));
        }
    });
    Ok(addr)
}

/// Echoes, and lets `damage` change each piece, of which it is told where it
/// begins; it ends when nothing is left of one.
fn echo(
    mut socket: TcpStream,
    mut damage: impl FnMut(u64, &mut Vec<u8>),
) -> std::io::Result<()> {
    let mut at = 0;
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = socket.read(&mut bytes)?;
        let mut piece = bytes[..count].to_vec();
        damage(at, &mut piece);
        if piece.is_empty() {
            return Ok(());
        }
        at += count as u64;
        socket.write_all(&piece)?;
    }
}

/// One in a million, and the right one is named.
fn corrupt_byte_is_named() -> Result<()> {
    const BAD: u64 = 999_999;
    let addr = serve(3, |socket| {
        echo(socket, |at, piece| {
            let there = at..at + piece.len() as u64;
            if there.contains(&BAD) {
                piece[(BAD - at) as usize] ^= 0x10;
            }
        })
    })?;
    let plan = Plan {
        depth: number(4),
        duration: Duration::from_secs(20),
        ..plan(addr, 3, 16 * 1024)
    };
    caught(&plan, &["connection ", ", byte 999999: expected 0x", ", got 0x"])
}

/// The surplus byte is the one that would come next (a message is as long as
/// the bytes of a connection are before they begin again): only the number of
/// bytes is wrong.
fn surplus_byte_is_named() -> Result<()> {
    let addr = serve(1, |socket| {
        echo(socket, |_, piece| piece.extend_from_within(..piece.len().min(1)))
    })?;
    let words = ["connection 0", "bytes came back, but only 1021 were sent"];
    caught(&plan(addr, 1, 1021), &words)
}

fn stalling_server() -> Result<SocketAddr> {
    serve(2, |socket| {
        let mut open = socket.try_clone()?;
        let mut left = 2048usize;
        echo(socket, |_, piece| {
            piece.truncate(left);
            left -= piece.len();
        })?;
        // It stays open, and reads on.
        while open.read(&mut [0; 4096])? > 0 {}
        Ok(())
    })
}

fn stall_is_named() -> Result<()> {
    let plan = Plan {
        patience: Duration::from_millis(300),
        duration: Duration::from_secs(20),
        ..plan(stalling_server()?, 2, 64)
    };
    let words = ["stalled", "no byte for 300ms", "2112 bytes sent, 2048 came"];
    caught(&plan, &words)
}

/// There the generator goes on sending, which is no sign of life.
fn stall_in_an_open_loop_is_named() -> Result<()> {
    let plan = Plan {
        rate: Some(10_000.0),
        patience: Duration::from_millis(300),
        duration: Duration::from_secs(20),
        ..plan(stalling_server()?, 2, 64)
    };
    caught(&plan, &["connection ", "stalled", " bytes sent, 2048 came back"])
}

fn close_is_named() -> Result<()> {
    let addr = serve(1, |socket| {
        let mut left = 640usize;
        echo(socket, |_, piece| {
            piece.truncate(left);
            left -= piece.len();
        })
    })?;
    let words = ["connection 0 was ", "704 bytes sent, 640 came back"];
    caught(&plan(addr, 1, 64), &words)
}

fn idle_that_is_closed_is_named() -> Result<()> {
    let addr = serve(4, |socket| {
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        echo(socket, |_, _| {})
    })?;
    let plan = Plan { idle: 3, ..plan(addr, 1, 64) };
    caught(&plan, &["idle connection ", "was closed by the server"])
}

fn nobody_listens() -> Result<()> {
    let addr = harness::free_address([127, 0, 0, 1].into())?;
    caught(&plan(addr, 1, 64), &["connection 0", "ECONNREFUSED"])
}

/// Slow by design: 10 ms for each message.
fn slow_server_is_slow() -> Result<()> {
    let addr = serve(2, |socket| {
        echo(socket, |_, _| thread::sleep(Duration::from_millis(10)))
    })?;
    let plan =
        Plan { duration: Duration::from_millis(400), ..plan(addr, 2, 64) };
    let measured = run(&plan)?;
    ensure!(measured.latency.p50 >= 10_000_000, "{measured:?}");
    ensure!(measured.latency.p50 < 20_000_000, "{measured:?}");
    // Two connections, at most 100 a second each.
    ensure!(measured.messages_per_second <= 205.0, "{measured:?}");
    ensure!(measured.messages_per_second > 100.0, "{measured:?}");
    // It sleeps nearly all the time.
    ensure!(!measured.measures_the_pair, "{measured:?}");
    ensure!(measured.own_core_share < 0.3, "{measured:?}");
    Ok(())
}

/// A server of one client that stops once, for 200 ms.
fn pausing_server() -> Result<SocketAddr> {
    serve(1, |socket| {
        // Every window stays small, so that little fits into the kernel.
        nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::RcvBuf,
            &(64 * 1024),
        )?;
        let begin = Instant::now();
        let mut paused = false;
        echo(socket, |_, _| {
            if !paused && begin.elapsed() > Duration::from_millis(100) {
                paused = true;
                thread::sleep(Duration::from_millis(200));
            }
        })
    })
}

/// 500 messages a second, and in 600 ms a pause of 200: a third of them wait.
/// A client that waits for each answer would see one slow message.
fn pause_counts_from_when_it_was_due() -> Result<()> {
    let plan = Plan {
        rate: Some(500.0),
        duration: Duration::from_millis(600),
        ..plan(pausing_server()?, 1, 64)
    };
    let measured = run(&plan)?;
    let open = measured.open_loop.context("no open loop")?;
    ensure!(open.due == 300 && measured.latency.samples == 300);
    ensure!(measured.latency.max >= 200_000_000, "{measured:?}");
    ensure!(measured.latency.p90 >= 100_000_000, "{measured:?}");
    ensure!((0.28..0.7).contains(&open.late_share), "{measured:?}");
    ensure!(measured.latency.p50 < 100_000_000, "{measured:?}");
    Ok(())
}

/// The same where the kernel had no room for what was due.
fn pause_counts_what_was_not_sent() -> Result<()> {
    let plan = Plan {
        rate: Some(50.0),
        duration: Duration::from_millis(600),
        ..plan(pausing_server()?, 1, 1 << 20)
    };
    let measured = run(&plan)?;
    ensure!(measured.blocked > 0, "{measured:?}");
    ensure!(measured.latency.samples == 30, "{measured:?}");
    ensure!(measured.latency.max >= 180_000_000, "{measured:?}");
    ensure!(measured.latency.p90 >= 100_000_000, "{measured:?}");
    Ok(())
}

/// The pause outlasts the load: what was due is still sent, and counts.
fn pause_at_the_end_counts() -> Result<()> {
    let plan =
        Plan { rate: Some(100.0), ..plan(pausing_server()?, 1, 1 << 20) };
    let measured = run(&plan)?;
    let open = measured.open_loop.context("no open loop")?;
    ensure!(measured.blocked > 0, "{measured:?}");
    ensure!(open.due == 15, "{measured:?}");
    ensure!(measured.latency.samples == 15, "{measured:?}");
    ensure!(measured.latency.max >= 180_000_000, "{measured:?}");
    Ok(())
}

fn watched_server_is_refused() -> Result<()> {
    let server = epoll_lt(&["--watch", "json"])?;
    let refused = plan(server.addr, 1, 64);
    caught(
        &refused,
        &["is being watched", "--watched", &server.pid.to_string()],
    )?;
    run(&Plan { watched: true, ..refused })?;
    server.stop()
}

fn sizes(text: &str) -> Result<Sizes> {
    text.parse().map_err(anyhow::Error::msg)
}

fn connecting_is_told() -> Result<()> {
    let server = epoll_lt(&[])?;
    let plan = Plan { idle: 3, slow_readers: 2, ..plan(server.addr, 5, 64) };
    let mut told = Vec::new();
    load::run_telling(&plan, |connected, all| told.push((connected, all)))?;
    let expected: Vec<_> = (1..=10).map(|it| (it, 10)).collect();
    ensure!(told == expected, "{told:?}");
    server.stop()
}

fn connecting_is_measured() -> Result<()> {
    let server = epoll_lt(&[])?;
    let plan = Plan { idle: 3, slow_readers: 2, ..plan(server.addr, 5, 64) };
    let connect = run(&plan)?.connect;
    ensure!(connect.samples == 10, "{connect:?}");
    // A handshake takes longer than a call, and here no second.
    ensure!(connect.p50 > 1_000 && connect.max < 900_000_000, "{connect:?}");
    server.stop()
}

/// Connections and bytes, as the server itself has counted them.
fn counted_by(mut server: Server) -> Result<(u64, u64)> {
    server.signal(Signal::SIGTERM)?;
    server.wait_exit(harness::PATIENCE)?;
    let said = server.stderr() + &server.stdout();
    let words: Vec<&str> = said.split_whitespace().collect();
    let before = |what: &str| {
        let at = words.iter().position(|it| it.starts_with(what));
        let number = at.and_then(|at| words.get(at.checked_sub(1)?));
        number.and_then(|it| it.parse().ok()).context(said.clone())
    };
    Ok((before("connection")?, before("bytes")?))
}

fn turns_are_exact() -> Result<()> {
    let server = epoll_lt(&[])?;
    let plan = Plan { depth: number(2), ..plan(server.addr, 10, 100) };
    let mut generator = Generator::start(&plan, None)?;
    let mut all = 0;
    // Fewer than may be outstanding, and none, among them.
    for count in [1000, 7, 0, 20, 21, 333] {
        let turn = generator.turn(Span::Messages(count))?;
        let seen = format!("{count}: {turn:?}");
        ensure!(turn.messages == count, "{seen}");
        ensure!(turn.bytes == count * 100, "{seen}");
        ensure!(turn.latency.samples == count, "{seen}");
        ensure!(turn.connects == 0, "{seen}");
        ensure!(turn.own_cpu_seconds <= turn.seconds, "{seen}");
        all += count;
    }
    ensure!(generator.whole()?.latency.samples == all);
    generator.forget()?;
    ensure!(generator.whole()?.latency.samples == 0);
    ensure!(generator.whole()?.connect.is_none());
    let mut timed = 0;
    for _ in 0..2 {
        let turn = generator.turn(Span::Time(Duration::from_millis(100)))?;
        let seen = format!("{turn:?}");
        ensure!((0.1..0.3).contains(&turn.seconds), "{seen}");
        ensure!(turn.latency.samples == turn.messages, "{seen}");
        ensure!(turn.messages > 100, "{seen}");
        // What is outstanding, by messages and by their latency.
        let mean = turn.latency.mean as f64 / 1e9;
        let held = turn.messages as f64 / turn.seconds * mean;
        ensure!((15.0..25.0).contains(&held), "{held}: {seen}");
        timed += turn.messages;
    }
    let whole = generator.whole()?;
    let (curve, latency) = (&whole.curve, &whole.latency);
    ensure!(latency.samples == timed, "{whole:?}");
    ensure!((20..=60).contains(&curve.len()), "{whole:?}");
    ensure!(curve.last() == Some(&(1.0, latency.max)), "{whole:?}");
    let ascend =
        curve.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1);
    ensure!(ascend, "{whole:?}");
    let median = curve.iter().find(|it| it.0 >= 0.5).context("no median")?;
    ensure!(median.1 >= latency.p50 && median.1 <= latency.p90, "{whole:?}");
    drop(generator);
    // Nothing is left over between two turns, and the ten stayed.
    ensure!(counted_by(server)? == (10, (all + timed) * 100));
    Ok(())
}

fn turns_of_an_open_loop() -> Result<()> {
    let server = epoll_lt(&[])?;
    let plan = Plan { rate: Some(2000.0), ..plan(server.addr, 7, 64) };
    let mut generator = Generator::start(&plan, None)?;
    for _ in 0..2 {
        let turn = generator.turn(Span::Time(Duration::from_millis(100)))?;
        ensure!(turn.messages == 200, "{turn:?}");
        ensure!(turn.latency.samples == 200, "{turn:?}");
        // Longer than a call, from when each was due.
        let plausible = 1_000..50_000_000;
        ensure!(plausible.contains(&turn.latency.p50), "{turn:?}");
    }
    let Err(error) = generator.turn(Span::Messages(10)) else {
        bail!("a number of messages was taken");
    };
    ensure!(format!("{error:#}").contains("is not free"), "{error:#}");
    server.stop()
}

/// It answers in fixed order and knows nobody else meanwhile, so it stalls as
/// soon as answers are not taken in the order in which they came.
fn turns_of_the_floor() -> Result<()> {
    let floor = models::find_with_peers("floor").context("no floor")?;
    let start = Start::with_args(&["--connections", "600"]);
    let server = Server::start(&Target::Model(floor), &start)?;
    let plan = Plan {
        patience: Duration::from_millis(400),
        ..plan(server.addr, 600, 64)
    };
    let mut generator = Generator::start(&plan, None)?;
    for _ in 0..6 {
        let turn = generator.turn(Span::Time(Duration::from_millis(20)))?;
        ensure!(turn.messages >= 600, "{turn:?}");
        let turn = generator.turn(Span::Messages(1000))?;
        ensure!(turn.messages == 1000, "{turn:?}");
    }
    Ok(())
}

fn turns_of_mixed_sizes() -> Result<()> {
    let server = epoll_lt(&[])?;
    let size = sizes("64:90,4KiB:9,64KiB:1")?;
    let plan = Plan { depth: number(3), size, ..plan(server.addr, 1, 1) };
    let mut generator = Generator::start(&plan, None)?;
    let mut all = 0;
    let lap = 900 * 64 + 90 * 4096 + 10 * 65536;
    for laps in [1, 2] {
        // So many messages have each size as often as it should come.
        let turn = generator.turn(Span::Messages(laps * 1000))?;
        ensure!(turn.bytes == laps * lap, "{turn:?}");
        all += turn.bytes;
        // And what was not begun when time was up comes first in the next.
        let turn = generator.turn(Span::Time(Duration::from_millis(30)))?;
        let expected = turn.messages as f64 * lap as f64 / 1000.0;
        let share = turn.bytes as f64 / expected;
        ensure!((0.3..3.0).contains(&share), "{share}: {turn:?}");
        all += turn.bytes;
        let rest = 1000 - turn.messages % 1000;
        all += generator.turn(Span::Messages(rest))?.bytes;
        ensure!(all % lap == 0, "{all}");
    }
    drop(generator);
    ensure!(counted_by(server)? == (1, all));
    Ok(())
}

/// What was to be sent next when time was up, and was not begun, is sent in
/// the next turn.
fn turns_that_end_without_room() -> Result<()> {
    let server = epoll_lt(&[])?;
    let size = sizes("1000:1,8000000:2,3:1")?;
    let plan = Plan { depth: number(16), size, ..plan(server.addr, 2, 1) };
    let mut generator = Generator::start(&plan, None)?;
    let (mut bytes, mut blocked) = (0, 0);
    for _ in 0..4 {
        let turn = generator.turn(Span::Time(Duration::from_millis(15)))?;
        bytes += turn.bytes;
        blocked += turn.blocked;
        let turn = generator.turn(Span::Messages(3))?;
        ensure!(turn.messages == 3, "{turn:?}");
        bytes += turn.bytes;
    }
    ensure!(blocked > 0);
    drop(generator);
    ensure!(counted_by(server)? == (2, bytes));
    Ok(())
}

fn mixed_sizes_with_churn() -> Result<()> {
    // Many messages are sent in part when their connection is to end.
    for (rate, depth) in [(None, 5), (Some(500.0), 1)] {
        let server = epoll_lt(&[])?;
        let plan = Plan {
            size: sizes("1:5,100:3,4000000:1,1021:1")?,
            depth: number(depth),
            churn: Some(2000.0),
            rate,
            ..plan(server.addr, 5, 1)
        };
        let mut generator = Generator::start(&plan, None)?;
        let (mut connects, mut bytes) = (5, 0);
        let begin = Instant::now();
        while connects < 15 {
            let turn = generator.turn(Span::Time(Duration::from_millis(40)))?;
            ensure!(turn.messages > 0, "{turn:?}");
            connects += turn.connects;
            bytes += turn.bytes;
            ensure!(begin.elapsed() < harness::PATIENCE, "{connects}");
        }
        let connect = generator.whole()?.connect.context("no connect")?;
        ensure!(connect.samples == connects, "{connects}: {connect:?}");
        drop(generator);
        ensure!(counted_by(server)? == (connects, bytes));
    }
    Ok(())
}

/// Echoes one client after the other, and tells of each how many bytes it
/// sent and whence it came.
fn counting_server() -> Result<(SocketAddr, mpsc::Receiver<(SocketAddr, u64)>)>
{
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok((mut socket, from)) = listener.accept() {
            let mut all = 0;
            while let Ok(count @ 1..) = socket.read(&mut bytes) {
                all += count as u64;
                let _done = socket.write_all(&bytes[..count]);
            }
            if tell.send((from, all)).is_err() {
                return;
            }
        }
    });
    Ok((addr, told))
}

fn messages_of_a_connection() -> Result<()> {
    // A lap of nine and connections of five share no factor.
    let (addr, told) = counting_server()?;
    let plan = Plan {
        size: sizes("10:5,1000:4")?,
        depth: number(3),
        messages_per_connection: NonZeroU64::new(5),
        ..plan(addr, 1, 1)
    };
    let mut generator = Generator::start(&plan, None)?;
    let mut bytes = 0;
    let mut connects = 0;
    for count in [52, 1, 2, 300] {
        let turn = generator.turn(Span::Messages(count))?;
        ensure!(turn.messages == count, "{turn:?}");
        bytes += turn.bytes;
        connects += turn.connects;
    }
    // Each connection ends with its fifth message, and another stands then.
    ensure!(connects == 355 / 5, "{connects}");
    drop(generator);
    let seen: Vec<u64> = told.iter().take(72).map(|it| it.1).collect();
    ensure!(seen.iter().sum::<u64>() == bytes, "{bytes}: {seen:?}");
    ensure!(seen[71] == 0, "{seen:?}");
    // Five messages of these sizes, in one order or another.
    let five: Vec<u64> = (0..=5).map(|it| it * 1000 + (5 - it) * 10).collect();
    ensure!(seen[..71].iter().all(|it| five.contains(it)), "{seen:?}");
    ensure!(seen.iter().collect::<BTreeSet<_>>().len() > 3, "{seen:?}");
    Ok(())
}

fn messages_per_connection() -> Result<()> {
    let server = epoll_lt(&[])?;
    let plan = Plan {
        messages_per_connection: NonZeroU64::new(2),
        ..plan(server.addr, 10, 64)
    };
    let measured = run(&plan)?;
    let each = measured.messages as f64 / measured.renewed as f64;
    ensure!((1.9..2.1).contains(&each), "{each}: {measured:?}");
    // Those of the warm-up are among them.
    let connects = measured.connect.samples;
    ensure!(connects > 10 + measured.renewed, "{measured:?}");
    let text = measured.to_string();
    let words = format!("{} connections opened anew", measured.renewed);
    ensure!(text.contains(&words), "{text}");
    server.stop()
}

/// More connections than one address has ports for a minute come from several.
fn sources_are_many() -> Result<()> {
    let (addr, told) = counting_server()?;
    let plan = Plan {
        messages_per_connection: NonZeroU64::new(1),
        ..plan(addr, 1, 64)
    };
    let mut generator = Generator::start(&plan, None)?;
    generator.turn(Span::Messages(4200))?;
    drop(generator);
    let from: BTreeSet<_> =
        told.iter().take(4201).map(|it| it.0.ip()).collect();
    ensure!(from.len() == 2, "{from:?}");
    Ok(())
}

fn generator_has_its_core() -> Result<()> {
    let cores = sched_getaffinity(Pid::from_raw(0))?;
    let allowed = |core: &usize| matches!(cores.is_set(*core), Ok(true));
    let core = (0..CpuSet::count()).rfind(allowed).context("no core")?;
    let server = epoll_lt(&[])?;
    let generator = Generator::start(&plan(server.addr, 3, 64), Some(core))?;
    let status =
        fs::read_to_string(format!("/proc/{}/status", generator.pid()))?;
    let list =
        status.lines().find_map(|it| it.strip_prefix("Cpus_allowed_list:"));
    ensure!(list.is_some_and(|it| it.trim() == core.to_string()), "{status}");
    drop(generator);
    server.stop()
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn generator_tells_what_was_wrong() -> Result<()> {
    let addr = serve(1, |socket| {
        echo(socket, |at, piece| {
            if at == 6400
                && let Some(first) = piece.first_mut()
            {
                *first ^= 1;
            }
        })
    })?;
    let mut generator = Generator::start(&plan(addr, 1, 64), None)?;
    let pid = generator.pid();
    generator.turn(Span::Messages(100))?;
    let Err(error) = generator.turn(Span::Messages(1)) else {
        bail!("not caught");
    };
    let said = format!("{error:#}");
    ensure!(said.starts_with("connection 0, byte 6400: expected"), "{said}");
    // It is gone, and says so.
    let again =
        generator.turn(Span::Messages(1)).err().map(|it| it.to_string());
    ensure!(again.is_some_and(|it| it.contains("has ended")));
    drop(generator);
    ensure!(!is_there(pid), "{pid} is left");
    let nobody = harness::free_address([127, 0, 0, 1].into())?;
    let Err(error) = Generator::start(&plan(nobody, 2, 64), None) else {
        bail!("connected to nobody");
    };
    ensure!(format!("{error:#}").contains("ECONNREFUSED"), "{error:#}");
    Ok(())
}

fn generator_ends_when_dropped() -> Result<()> {
    let server = epoll_lt(&[])?;
    for stopped in [false, true] {
        let mut generator = Generator::start(&plan(server.addr, 3, 64), None)?;
        generator.turn(Span::Messages(10))?;
        let pid = generator.pid();
        ensure!(is_there(pid));
        if stopped {
            // Such a one does not end by itself.
            kill(Pid::from_raw(pid.try_into()?), Signal::SIGSTOP)?;
        }
        let begin = Instant::now();
        drop(generator);
        ensure!(!is_there(pid), "{pid} is left");
        let limit = Duration::from_millis(if stopped { 600 } else { 150 });
        ensure!(begin.elapsed() < limit, "{:?}", begin.elapsed());
    }
    server.stop()
}

fn generator_leaves_the_watched_alone() -> Result<()> {
    let server = epoll_lt(&["--watch", "json"])?;
    let Err(error) = Generator::start(&plan(server.addr, 1, 64), None) else {
        bail!("a watched server was loaded");
    };
    ensure!(format!("{error:#}").contains("is being watched"), "{error:#}");
    server.stop()
}

/// Turns until the slow readers are as they should be, and what they then have
/// read at most.
fn slow_readers_settle(
    plan: &Plan,
    wanted: impl Fn(&SlowReaders) -> bool,
) -> Result<(SlowReaders, f64)> {
    let begin = Instant::now();
    let mut generator = Generator::start(plan, None)?;
    loop {
        let turn = generator.turn(Span::Time(Duration::from_millis(20)))?;
        ensure!(turn.messages > 0, "the others wait: {turn:?}");
        let slow = generator.whole()?.slow_readers.context("none")?;
        let passed = begin.elapsed();
        if wanted(&slow) {
            let each = plan.slow_rate.get() as f64 * passed.as_secs_f64();
            return Ok((slow, each * slow.readers as f64));
        }
        ensure!(passed < harness::PATIENCE, "still {slow:?}");
    }
}

/// Those who do not read are not read from, and the others are served.
fn slow_readers_are_stuck() -> Result<()> {
    let server = epoll_lt(&[])?;
    let plan = Plan { slow_readers: 3, ..plan(server.addr, 5, 64) };
    let stuck = |it: &SlowReaders| it.stuck == 3;
    let (slow, readable) = slow_readers_settle(&plan, stuck)?;
    ensure!(slow.readers == 3 && slow.read > 0, "{slow:?}");
    ensure!(slow.read as f64 <= readable, "{readable}: {slow:?}");
    ensure!(slow.sent > 3 * 100_000, "{slow:?}");
    ensure!(slow.most_owed >= (slow.sent - slow.read) / 3, "{slow:?}");
    ensure!(slow.most_owed < slow.sent, "{slow:?}");
    server.stop()
}

fn slow_readers_read_at_their_rate() -> Result<()> {
    let server = epoll_lt(&[])?;
    let plan = Plan {
        slow_readers: 2,
        slow_rate: NonZeroU64::MIN.saturating_add(3_999_999),
        ..plan(server.addr, 1, 64)
    };
    // 4 MB a second each.
    let much = |it: &SlowReaders| it.read > 2_000_000;
    let (slow, readable) = slow_readers_settle(&plan, much)?;
    ensure!(slow.read as f64 <= readable, "{readable}: {slow:?}");
    let measured = load::run(&plan)?;
    let text = measured.to_string();
    ensure!(measured.slow_readers.is_some(), "{text}");
    ensure!(text.contains("slow        2 readers, "), "{text}");
    server.stop()
}

/// A server without a bound takes whatever they send.
fn slow_readers_that_are_not_stuck() -> Result<()> {
    let addr = serve(2, |mut socket| {
        let mut writer = socket.try_clone()?;
        let (owe, owed) = mpsc::channel::<Vec<u8>>();
        thread::spawn(move || {
            owed.iter().try_for_each(|it| writer.write_all(&it))
        });
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = socket.read(&mut bytes) {
            let _gone = owe.send(bytes[..count].to_vec());
        }
        Ok(())
    })?;
    let plan = Plan { slow_readers: 1, ..plan(addr, 1, 64) };
    // More than the kernel would keep: it is in the server.
    let much = |it: &SlowReaders| it.most_owed > 24 << 20;
    let (slow, _) = slow_readers_settle(&plan, much)?;
    ensure!(slow.stuck == 0, "{slow:?}");
    Ok(())
}

/// It serves those well that send little.
fn slow_reader_that_is_dropped() -> Result<()> {
    let addr = serve(2, |socket| {
        echo(socket, |_, piece| {
            if piece.len() > 64 {
                piece.clear();
            }
        })
    })?;
    let plan = Plan { slow_readers: 1, ..plan(addr, 1, 64) };
    caught(&plan, &["slow reader 0 was ", " bytes sent, 0 came back"])
}

fn slow_reader_of_a_bad_byte() -> Result<()> {
    let addr = serve(2, |socket| {
        echo(socket, |at, piece| {
            if at == 0 && piece.len() > 64 {
                piece[500] ^= 1;
            }
        })
    })?;
    let plan = Plan {
        slow_readers: 1,
        slow_rate: NonZeroU64::MIN.saturating_add(9_999),
        duration: Duration::from_secs(5),
        ..plan(addr, 1, 64)
    };
    caught(&plan, &["slow reader 0, byte 500: expected 0x"])
}

fn slow_reader_that_starves() -> Result<()> {
    let addr = serve(2, |socket| {
        let mut open = socket.try_clone()?;
        let mut little = false;
        echo(socket, |at, piece| {
            little |= at == 0 && piece.len() == 64;
            if !little {
                piece.clear();
            }
        })?;
        // It stays open, and reads on.
        while open.read(&mut [0; 4096])? > 0 {}
        Ok(())
    })?;
    let plan = Plan {
        slow_readers: 1,
        patience: Duration::from_millis(200),
        duration: Duration::from_secs(5),
        ..plan(addr, 1, 64)
    };
    let words = ["slow reader 0 has stalled: no byte for 200ms", ", 0 came"];
    caught(&plan, &words)
}

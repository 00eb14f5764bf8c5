//! The load generator against a sound server, in every kind of load, and
//! against servers that are not: each must be caught and named.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bench::harness::{self, Server, Start, Target};
use bench::load::{self, Measured, Plan};
use bench::models;
use libtest_mimic::{Arguments, Trial};

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
        size: number(size),
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

fn json() -> Result<()> {
    let server = epoll_lt(&[])?;
    let measured = run(&plan(server.addr, 2, 64))?;
    let text = serde_json::to_value(&measured)?;
    ensure!(text["messages"] == measured.messages, "{text}");
    ensure!(text["latency"]["p99.9"] == measured.latency.p99_9, "{text}");
    ensure!(text["plan"]["addr"] == server.addr.to_string(), "{text}");
    ensure!(text["plan"]["duration"] == 0.15, "{text}");
    server.stop()
}

/// Serves `count` clients, each on a thread, that end with their client.
fn serve(
    count: usize,
    serve: fn(TcpStream) -> std::io::Result<()>,
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

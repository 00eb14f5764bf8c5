//! How a server begins and ends: its first line and its failures, signals,
//! and a stop that truncates nobody.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket,
};
use nix::unistd::Pid;

use super::blocked::{narrow, send_until_blocked};
use super::{Case, Context, Outcome};
use crate::harness::{
    self, Client, Connect, Output, PATIENCE, Server, Start, TIME_WAIT,
    run_to_end, sockets_of, unread_by_server,
};

pub(super) static CASES: &[Case] = &[
    Case {
        name: "first_line",
        means: "the only line on stdout is `listening on ADDR:PORT`, so that \
                a program which started it on port 0 learns where it is",
        alone: false,
        run: first_line,
    },
    Case {
        name: "usage_errors",
        means: "a flag or an address that cannot be is named on stderr and \
                ends in exit code 2 or 1, never in a panic",
        alone: false,
        run: usage_errors,
    },
    Case {
        name: "port_in_use",
        means: "a second instance on the same address fails with exit code 1 \
                and one line, and takes no client from the first",
        alone: false,
        run: port_in_use,
    },
    Case {
        name: "non_loopback_warning",
        means: "an address that the network can reach is served, with a \
                one-line warning; loopback is served without a word",
        alone: false,
        run: non_loopback_warning,
    },
    Case {
        name: "closed_output",
        means: "a server whose stdout and stderr nobody reads any more, or \
                which never had them, goes on serving",
        alone: false,
        run: closed_output,
    },
    Case {
        name: "pause_and_continue",
        means: "SIGSTOP and SIGCONT, which interrupt a wait without any \
                handler being there, cost no byte and no client",
        alone: false,
        run: pause_and_continue,
    },
    Case {
        name: "harmless_signals",
        means: "a storm of signals that mean nothing (SIGWINCH, SIGURG, \
                SIGCONT) during a transfer and a wait costs no byte",
        alone: false,
        run: harmless_signals,
    },
    Case {
        name: "stop_idle",
        means: "SIGTERM and SIGINT end an idle server: new clients are \
                refused, connected ones see FIN and no reset, the exit code \
                is 0 and one line tells what was done",
        alone: false,
        run: stop_idle,
    },
    Case {
        name: "stop_in_transfer",
        means: "a stop in mid-transfer truncates cleanly: what arrives is a \
                correct beginning, and ends with FIN, never with a reset",
        alone: false,
        run: stop_in_transfer,
    },
    Case {
        name: "stop_sends_owed",
        means: "what the server had read when it was told to stop is still \
                sent, also to a client that was not reading just then",
        alone: false,
        run: stop_sends_owed,
    },
    Case {
        name: "stop_with_stuck_peer",
        means: "a client that never reads holds up a stop for the grace time \
                and no longer",
        alone: false,
        run: stop_with_stuck_peer,
    },
    Case {
        name: "stop_with_pumping_peer",
        means: "a client that goes on sending after our FIN is not reset \
                before the grace time is over: a reset would destroy what it \
                has not read yet",
        alone: false,
        run: stop_with_pumping_peer,
    },
    Case {
        name: "second_signal",
        means: "a second signal ends a stop that takes long at once",
        alone: false,
        run: second_signal,
    },
    Case {
        name: "restart_in_time_wait",
        means: "a server that closed first leaves TIME_WAIT behind, and can be \
                started again at the same address all the same",
        alone: false,
        run: restart_in_time_wait,
    },
];

fn first_line(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let server = context.start()?;
    server.client(0)?.finish()?;
    let wanted = format!("listening on {}\n", server.addr);
    let said = server.stdout();
    ensure!(said == wanted, "stdout says '{said}', not '{wanted}'");
    server.stop()?;
    Ok(Outcome::Passed(format!("'{}'", wanted.trim_end())))
}

fn usage_errors(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let lines: [(&str, &[&str], &[i32]); 7] = [
        ("--no-such-flag", &[], &[2]),
        ("--buffer", &["lots"], &[2]),
        ("--grace", &["soon"], &[2]),
        ("nonsense", &[], &[1, 2]),
        ("127.0.0.1:99999", &[], &[1, 2]),
        // An empty label: refused without asking the network.
        ("no..such..host:7", &[], &[1, 2]),
        // Reserved for documents (RFC 5737): nobody has it.
        ("192.0.2.1:7", &[], &[1]),
    ];
    for (word, values, codes) in lines {
        let start = if word.starts_with("--") {
            let args = [&[word], values].concat();
            Start::with_args(&args)
        } else {
            Start { addr: Some(word.to_string()), ..Start::default() }
        };
        let line = [&[word], values].concat().join(" ");
        let exit = run_to_end(&context.target, &start, PATIENCE)
            .with_context(|| format!("started with {line}"))?;
        let (status, said) = (exit.status, exit.stderr);
        ensure!(
            status.code().is_some_and(|code| codes.contains(&code)),
            "{line}: ended with {status} instead of exit code {codes:?}; it \
             said '{said}'"
        );
        let named = values.first().unwrap_or(&word);
        ensure!(
            said.contains(named),
            "{line}: what it says does not name '{named}': '{said}'"
        );
        // The parser of command lines adds how it is used.
        ensure!(
            status.code() == Some(2) || said.lines().count() == 1,
            "{line}: more than one line: '{said}'"
        );
        ensure!(
            exit.stdout.is_empty(),
            "{line}: it says '{}' on stdout",
            exit.stdout
        );
    }
    Ok(Outcome::Passed(format!(
        "{} impossible command lines, each named on stderr",
        lines.len()
    )))
}

fn port_in_use(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let mut server = context.start()?;
    let start =
        Start { addr: Some(server.addr.to_string()), ..Start::default() };
    let exit = run_to_end(&context.target, &start, Duration::from_secs(3))
        .context("a second instance on the same address")?;
    let said = exit.stderr.trim_end();
    ensure!(
        exit.status.code() == Some(1),
        "the second instance ended with {} instead of exit code 1; it said \
         '{said}'",
        exit.status
    );
    ensure!(
        said.lines().count() == 1
            && said.contains(&server.addr.port().to_string()),
        "the second instance should name the address in one line: '{said}'"
    );
    ensure!(
        exit.stdout.is_empty(),
        "the second instance says '{}' on stdout",
        exit.stdout
    );
    server.must_live()?;
    for id in 0..4 {
        server.client(id)?.finish()?;
    }
    server.stop()?;
    Ok(Outcome::Passed(format!("the second one said '{said}'")))
}

fn non_loopback_warning(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let near = context.start()?;
    near.client(0)?.finish()?;
    let said = near.stderr();
    ensure!(said.is_empty(), "on loopback it says '{said}'");
    near.stop()?;

    let start =
        Start { addr: Some("0.0.0.0:0".to_string()), ..Start::default() };
    let mut server = context.start_with(&start)?;
    ensure!(
        server.addr.ip().is_unspecified(),
        "asked for 0.0.0.0, it listens on {}",
        server.addr
    );
    server.addr = SocketAddr::from(([127, 0, 0, 1], server.addr.port()));
    server.client(0)?.finish()?;
    let said = server.stderr();
    ensure!(
        said.lines().count() == 1,
        "on 0.0.0.0 it should say one line on stderr: '{said}'"
    );
    server.stop()?;
    Ok(Outcome::Passed(format!("'{}'", said.trim_end())))
}

fn closed_output(context: &Context) -> Result<Outcome> {
    let mut ways = vec![
        (Output::BrokenPipe, None, "a pipe without a reader"),
        (Output::Closed, None, "closed descriptors"),
    ];
    if context.target.is_ours() {
        let text = Some(["--watch", "text"]);
        ways.push((Output::BrokenPipe, text, "watched, without a reader"));
    }
    let mut tried = Vec::new();
    for (output, args, what) in ways {
        let args = args.map(|args| args.map(str::to_string).to_vec());
        let start = Start {
            output,
            args: args.unwrap_or_default(),
            ..Start::default()
        };
        let mut server = context
            .start_with(&start)
            .with_context(|| format!("with {what}"))?;
        let served = (0..3).try_for_each(|id| {
            let mut client = server.client(id)?;
            client.round_trip(1_000)?;
            client.finish()
        });
        outlived(&mut server, served)
            .with_context(|| format!("with {what}"))?;
        server.stop().with_context(|| format!("with {what}"))?;
        tried.push(what);
    }
    Ok(Outcome::Passed(tried.join(", ")))
}

/// A result, unless the server has ended: that explains it better.
pub(super) fn outlived<T>(server: &mut Server, result: Result<T>) -> Result<T> {
    if result.is_err() {
        // A client sees the end a moment before it is to be seen from here.
        thread::sleep(Duration::from_millis(20));
    }
    server.must_live()?;
    result
}

fn pause_and_continue(context: &Context) -> Result<Outcome> {
    let rounds = context.size(3, 20);
    let mut server = context.start()?;
    let mut client = server.client(0)?;
    let pause = Duration::from_millis(15);
    let result = (0..rounds).try_for_each(|_| {
        // Once while it waits, once while bytes are under way.
        thread::sleep(pause);
        server.signal_all(Signal::SIGSTOP)?;
        thread::sleep(pause);
        server.signal_all(Signal::SIGCONT)?;
        client.round_trip(64)?;
        client.send(64 << 10)?;
        server.signal_all(Signal::SIGSTOP)?;
        thread::sleep(pause);
        client.send(64 << 10)?;
        server.signal_all(Signal::SIGCONT)?;
        client.receive(128 << 10)
    });
    outlived(&mut server, result).context("with SIGSTOP and SIGCONT")?;
    client.finish()?;
    server.stop()?;
    Ok(Outcome::Passed(format!("stopped and continued {} times", 2 * rounds)))
}

fn harmless_signals(context: &Context) -> Result<Outcome> {
    let total = context.size(1 << 20, 32 << 20);
    let mut server = context.start()?;
    let mut clients = server.clients(context.at_once(4))?;
    for client in &mut clients {
        client.round_trip(64)?;
    }
    let pids = server.tree();
    let over = AtomicBool::new(false);
    let (result, count) = thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                for signal in
                    [Signal::SIGWINCH, Signal::SIGURG, Signal::SIGCONT]
                {
                    for &pid in &pids {
                        let _ended = kill(Pid::from_raw(pid), signal);
                    }
                    count += pids.len();
                }
                thread::sleep(Duration::from_micros(200));
            }
            count
        });
        // First while it waits.
        thread::sleep(Duration::from_millis(30));
        let mut random = context.random();
        let result = harness::pump(&mut clients, total, 64 << 10, &mut random);
        over.store(true, Ordering::Relaxed);
        (result, storm.join().unwrap_or(0))
    });
    outlived(&mut server, result).context("in a storm of harmless signals")?;
    for client in clients {
        client.finish()?;
    }
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{count} signals while {total} bytes went to and fro for each client"
    )))
}

/// The numbers of the summary `NAME: stopped; 3 connections, 1234 bytes
/// echoed`, which must be the last line on stderr.
fn summary(server: &Server) -> Result<(u64, u64)> {
    let said = server.stderr();
    let numbers = said.lines().last().and_then(|line| {
        let (_, rest) = line.split_once(": stopped; ")?;
        let (connections, rest) = rest.split_once(" connection")?;
        let (_, rest) = rest.split_once(", ")?;
        let (bytes, _) = rest.split_once(" byte")?;
        let number = |text: &str| text.replace(',', "").parse().ok();
        Some((number(connections)?, number(bytes)?))
    });
    numbers.with_context(|| {
        format!(
            "the last line on stderr should be like 'NAME: stopped; 3 \
             connections, 1234 bytes echoed', and is '{}'",
            said.lines().last().unwrap_or("")
        )
    })
}

/// Waits for the end, which must be exit code 0.
fn ends_well(server: &mut Server, limit: Duration) -> Result<()> {
    let status = server.wait_exit(limit)?;
    ensure!(
        status.code() == Some(0),
        "ended with {status} instead of exit code 0; it said '{}'",
        server.stderr().trim_end()
    );
    Ok(())
}

/// Reads to the end; a reset is an error.
fn read_to_fin(client: &mut Client) -> Result<()> {
    loop {
        match client.read_some(64 << 10)? {
            Some(0) => return Ok(()),
            Some(_) => {}
            None => bail!(
                "client {} waited for FIN in vain, after {} bytes",
                client.id,
                client.received
            ),
        }
    }
}

fn stop_idle(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let mut server = context.start()?;
    server.signal(Signal::SIGTERM)?;
    ends_well(&mut server, Duration::from_secs(2))
        .context("SIGTERM with no client")?;
    let told = summary(&server)?;
    ensure!(told == (0, 0), "with no client the summary says {told:?}");

    let count = context.at_once(5);
    let mut server =
        context.start_with(&Start::with_args(&["--grace", "9s"]))?;
    let mut clients = server.clients(count)?;
    for client in &mut clients {
        client.round_trip(100)?;
    }
    server.signal(Signal::SIGINT)?;
    for client in &mut clients {
        read_to_fin(client).context("after SIGINT, with idle clients")?;
    }
    is_refused(&server)?;
    let begin = Instant::now();
    drop(clients);
    ends_well(&mut server, Duration::from_secs(4))
        .context("SIGINT, and then the last client has gone")?;
    let took = begin.elapsed();
    let told = summary(&server)?;
    let wanted = (count as u64, 100 * count as u64);
    ensure!(
        told == wanted,
        "the summary should tell {wanted:?} connections and bytes, and tells \
         {told:?}"
    );
    Ok(Outcome::Passed(format!(
        "FIN to {count} idle clients, others refused, ended {took:.0?} after \
         the last had gone"
    )))
}

/// New clients are refused, at once or very soon.
fn is_refused(server: &Server) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(500);
    loop {
        match TcpStream::connect_timeout(&server.addr, PATIENCE) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                return Ok(());
            }
            Err(error) => return Err(error).context("connect while stopping"),
            Ok(_) => ensure!(
                Instant::now() < deadline,
                "while it stops, new clients can still connect"
            ),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits, with a client that sends on and does not read, until the server has
/// input that it cannot read: closing the socket would then be a reset.
fn both_ways_are_full(server: &Server, client: &Client) -> Result<()> {
    let own = client.socket.local_addr()?;
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < 5 {
        ensure!(
            Instant::now() < deadline,
            "the server reads on from a client that reads nothing"
        );
        let unread = unread_by_server(server.addr, own);
        seen = if unread > 0 { seen + 1 } else { 0 };
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn stop_in_transfer(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let enough = context.size(1 << 20, 16 << 20);
    let mut server = context.start()?;
    let mut reader = server.client(0)?;
    let mut writer = Client::new(0, reader.socket.try_clone()?);
    // Counted by the writer; what arrives is held against the bytes anyhow.
    reader.sent = u64::MAX;
    let over = AtomicBool::new(false);
    let result = thread::scope(|scope| -> Result<Duration> {
        let pump = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                match writer.write_some(64 << 10) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // Its own end is shut down when it is over.
                    Err(_) if over.load(Ordering::Relaxed) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let read = (|| {
            while reader.received < enough {
                match reader.read_some(64 << 10)? {
                    Some(0) => bail!("closed before it was told to stop"),
                    Some(_) => {}
                    None => bail!("nothing came back for {PATIENCE:?}"),
                }
            }
            both_ways_are_full(&server, &reader)?;
            server.signal(Signal::SIGTERM)?;
            let begin = Instant::now();
            read_to_fin(&mut reader).context("after SIGTERM in a transfer")?;
            Ok(begin.elapsed())
        })();
        over.store(true, Ordering::Relaxed);
        // The writer may sleep, with the server's buffer full.
        let _ended = reader.socket.shutdown(Shutdown::Write);
        // Whichever side calls first is told of a reset, the other sees FIN.
        match pump.join() {
            Ok(Err(error)) if read.is_ok() => {
                Err(error).context("after SIGTERM in a transfer: send")
            }
            _ => read,
        }
    });
    let fin = result?;
    ends_well(&mut server, Duration::from_millis(2_500))?;
    let told = summary(&server)?;
    ensure!(
        told == (1, reader.received),
        "{} bytes came back to one client; the summary tells {told:?}",
        reader.received
    );
    Ok(Outcome::Passed(format!(
        "{} right bytes, then FIN {fin:.0?} after the signal",
        reader.received
    )))
}

/// The bytes in a socket's queues: sent and not yet acknowledged; received and
/// not yet read.
fn queues(local: SocketAddr, remote: SocketAddr) -> Result<(u64, u64)> {
    let socket = harness::sockets::socket_between(local, remote);
    let socket = socket.with_context(|| {
        format!("no socket of the kernel's is from {local} to {remote}")
    })?;
    Ok((socket.send_queue.into(), socket.receive_queue.into()))
}

fn stop_sends_owed(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    if context.limits.lends_sent {
        let why = "it reads nothing more until the peer has what was sent";
        return Ok(Outcome::Excluded(why.to_string()));
    }
    let mut server =
        context.start_with(&Start::with_args(&["--grace", "9s"]))?;
    let small = Connect {
        receive_buffer: Some(64 << 10),
        send_buffer: Some(64 << 10),
        ..Connect::default()
    };
    let mut client = server.client_with(0, &small)?;
    let (here, there) = (client.socket.local_addr()?, server.addr);
    let deadline = Instant::now() + PATIENCE;
    let (taken, owed) = loop {
        send_until_blocked(&mut client)?;
        let (out, unread) = (queues(here, there)?, queues(there, here)?);
        // What neither kernel has any more, and not yet again.
        let taken = client.sent - out.0 - unread.1;
        let owed = taken.saturating_sub(out.1 + unread.0);
        if owed > 0 {
            break (taken, owed);
        }
        // A sender that saw a full window looks again only by a timer.
        ensure!(
            Instant::now() < deadline,
            "it owes nothing to a client that reads nothing of {taken} bytes"
        );
    };

    server.signal(Signal::SIGTERM)?;
    thread::sleep(Duration::from_millis(30));
    read_to_fin(&mut client).context("after SIGTERM")?;
    ensure!(
        client.received >= taken,
        "the server had read {taken} bytes and sends {}: of {owed} that it \
         held when it was told to stop, {} are lost",
        client.received,
        taken - client.received
    );
    let received = client.received;
    drop(client);
    ends_well(&mut server, Duration::from_secs(4))?;
    Ok(Outcome::Passed(format!(
        "{owed} bytes were in its memory at the signal; all {received} came"
    )))
}

fn stop_with_stuck_peer(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let grace = Duration::from_millis(300);
    let mut server =
        context.start_with(&Start::with_args(&["--grace", "300ms"]))?;
    let mut client = server.client_with(0, &narrow())?;
    send_until_blocked(&mut client)?;
    let begin = Instant::now();
    server.signal(Signal::SIGTERM)?;
    ends_well(&mut server, grace + Duration::from_secs(2))
        .context("SIGTERM beside a client that never reads")?;
    let took = begin.elapsed();
    ensure!(
        took >= grace * 8 / 10,
        "it ended after {took:.0?}, though bytes are owed and the grace time \
         is {grace:.0?}"
    );
    summary(&server)?;
    drop(client);
    Ok(Outcome::Passed(format!(
        "ended after {took:.0?} with a grace time of {grace:.0?}"
    )))
}

fn stop_with_pumping_peer(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let grace = Duration::from_millis(500);
    let mut server =
        context.start_with(&Start::with_args(&["--grace", "500ms"]))?;
    let socket = server.connect()?;
    socket.set_nonblocking(true)?;
    let bytes = vec![b'p'; 64 << 10];
    let mut scratch = vec![0; 64 << 10];
    let mut fin = None;
    // Whether the connection still works; an error is its end.
    let mut pump = |fin: &mut Option<Instant>| -> std::io::Result<()> {
        let passing = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(0),
            _ => Err(error),
        };
        let _taken = (&socket).write(&bytes).or_else(passing)?;
        if fin.is_none() {
            match (&socket).read(&mut scratch) {
                Ok(0) => *fin = Some(Instant::now()),
                Ok(_) => {}
                Err(error) => {
                    passing(error)?;
                }
            }
        }
        Ok(())
    };
    for _ in 0..50 {
        pump(&mut fin).context("before the stop")?;
        thread::sleep(Duration::from_millis(1));
    }
    let begin = Instant::now();
    server.signal(Signal::SIGTERM)?;
    let deadline = begin + grace + Duration::from_secs(2);
    let cut = loop {
        if let Err(error) = pump(&mut fin) {
            break Some((begin.elapsed(), error));
        }
        if server.has_ended()?.is_some() {
            break None;
        }
        ensure!(
            Instant::now() < deadline,
            "waited {:?} for the server to end beside a client that goes on \
             sending, with a grace time of {grace:?}",
            begin.elapsed()
        );
        thread::sleep(Duration::from_millis(1));
    };
    if let Some((after, error)) = cut {
        ensure!(
            after >= grace * 8 / 10,
            "the client was cut off {after:.0?} after the signal, before the \
             grace time of {grace:.0?} was over: {error}"
        );
    }
    let Some(fin) = fin else {
        bail!("the client saw no FIN before the connection ended");
    };
    ends_well(&mut server, Duration::from_secs(2))?;
    Ok(Outcome::Passed(format!(
        "FIN {:.0?} after the signal, and what still came was taken until \
         {:.0?}",
        fin - begin,
        begin.elapsed()
    )))
}

fn second_signal(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let mut server =
        context.start_with(&Start::with_args(&["--grace", "60s"]))?;
    let mut client = server.client(0)?;
    client.round_trip(64)?;
    server.signal(Signal::SIGTERM)?;
    // Its FIN proves that the first signal has been seen: two that are
    // pending together would be one.
    read_to_fin(&mut client)?;
    thread::sleep(Duration::from_millis(20));
    server.must_live().context("one signal, and a grace time of 60 s")?;
    let begin = Instant::now();
    server.signal(Signal::SIGINT)?;
    let status = server
        .wait_exit(Duration::from_secs(2))
        .context("after a second signal")?;
    ensure!(
        status.code() == Some(1),
        "a second signal ended it with {status} instead of exit code 1"
    );
    let took = begin.elapsed();
    drop(client);
    Ok(Outcome::Passed(format!("exit code 1 after {took:.0?}")))
}

fn restart_in_time_wait(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let mut server = context.start()?;
    let addr = server.addr;
    let mut client = server.client(0)?;
    client.round_trip(64)?;
    server.signal(Signal::SIGTERM)?;
    read_to_fin(&mut client)?;
    drop(client);
    ends_well(&mut server, PATIENCE)?;
    drop(server);
    // A look at a long table that changes meanwhile may miss an entry.
    let seen = (0..20).any(|_| sockets_of(addr, TIME_WAIT) > 0);
    if !seen && harness::sockets::time_wait_is_full() {
        let why = "the kernel's table of TIME_WAIT is full";
        return Ok(Outcome::Skipped(why.to_string()));
    }
    ensure!(seen, "this case proves nothing: no TIME_WAIT at {addr}");
    let control = bind_plainly(addr)?;
    ensure!(
        control == Err(Errno::EADDRINUSE),
        "this case proves nothing: a bind without SO_REUSEADDR ends with \
         {control:?}"
    );
    let start = Start { addr: Some(addr.to_string()), ..Start::default() };
    let server = context
        .start_with(&start)
        .context("started again at the address of the one before")?;
    server.client(1)?.finish()?;
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "started again at {addr}, where a plain bind fails"
    )))
}

/// What a bind without SO_REUSEADDR comes to.
fn bind_plainly(addr: SocketAddr) -> Result<nix::Result<()>> {
    let SocketAddr::V4(addr) = addr else {
        bail!("IPv4 only");
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    let addr =
        SockaddrStorage::from(SocketAddrV4::new(*addr.ip(), addr.port()));
    Ok(bind(fd.as_raw_fd(), &addr))
}

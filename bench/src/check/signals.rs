//! Signals: a queue of them that is too short, and a storm. For a server that
//! waits for signals they carry the news, for all others they are noise.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::crowd::{fitting, no_room_for, one_of_many};
use super::stop::outlived;
use super::{Case, Context, Outcome};
use crate::harness::{Client, Server, Start, pump};
use crate::models::PerClient;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "signal_queue_overflow",
        means: "hundreds of clients speak while the server cannot run, and at \
                most 16 signals may be queued for it, or none at all: every \
                byte comes back, also to those who have just come",
        alone: false,
        run: signal_queue_overflow,
    },
    Case {
        name: "signal_storm",
        means: "thousands of signals that mean nothing, and stops, beside a \
                client that sends single bytes as fast as it can: nobody \
                loses a byte or waits in vain",
        alone: false,
        run: signal_storm,
    },
];

/// The most signals that may be pending; the kernel then drops those that are
/// queued and sends a plain SIGIO (fcntl(2), F_SETSIG).
const QUEUES: [u64; 2] = [16, 0];

/// How many segments each client sends at a time: each is a change.
const BURST: usize = 2;

fn signal_queue_overflow(context: &Context) -> Result<Outcome> {
    let limits = context.limits;
    let wanted = match limits.per_client {
        PerClient::Nothing | PerClient::Buffer | PerClient::Task
            if !limits.burns_core =>
        {
            context.size(200, 1_000)
        }
        // To carry so many is work, and none of them waits for all.
        _ => context.size(60, 400),
    };
    let count = fitting(context, context.at_once(wanted));
    let rounds = context.size(3, 6);
    if let Some(skipped) = no_room_for(count)? {
        return Ok(skipped);
    }
    for queue in QUEUES {
        let start = Start { pending_signals: Some(queue), ..Start::default() };
        let mut server = context.start_with(&start)?;
        let bursts = bursts_while_stopped(context, &server, count, rounds);
        outlived(&mut server, bursts)
            .with_context(|| format!("with {queue} pending signals allowed"))?;
        server.stop()?;
    }
    Ok(Outcome::Passed(format!(
        "clients spoke {rounds} times while it was stopped, {count} at once, \
         and got every byte back, with {} and {} pending signals allowed",
        QUEUES[0], QUEUES[1]
    )))
}

/// `rounds` times half of the clients go and others come in their place, and
/// all of them speak, while the server is stopped.
fn bursts_while_stopped(
    context: &Context,
    server: &Server,
    count: usize,
    rounds: usize,
) -> Result<()> {
    let mut clients = Vec::new();
    for id in 0..count.div_ceil(2) {
        clients.push(one_of_many(server, id)?);
    }
    for client in &mut clients {
        client.round_trip(64)?;
    }
    let mut next = clients.len();
    let mut pids = server.tree();
    for round in 0..rounds {
        if round > 0 && context.limits.per_client == PerClient::Process {
            pids = server.tree();
        }
        send(&pids, Signal::SIGSTOP);
        let spoken = (|| {
            while clients.len() < count {
                clients.push(one_of_many(server, next)?);
                next += 1;
            }
            for client in &mut clients {
                client.socket.set_nodelay(true)?;
            }
            for _ in 0..BURST {
                for client in &mut clients {
                    client.send(100)?;
                }
            }
            Ok(())
        })();
        send(&pids, Signal::SIGCONT);
        spoken.and_then(|()| {
            clients.iter_mut().try_for_each(|it| it.receive(BURST * 100))
        })?;
        let leaving = &mut clients[..count / 2];
        leaving.iter_mut().try_for_each(Client::finish_sending)?;
        leaving.iter_mut().try_for_each(Client::drain)?;
        clients.drain(..count / 2);
    }
    clients.iter_mut().try_for_each(Client::finish_sending)?;
    clients.iter_mut().try_for_each(Client::drain)
}

/// Sends a signal to every process of a server.
fn send(pids: &[i32], signal: Signal) {
    for &pid in pids {
        // Its end is noticed by its clients.
        let _ended = kill(Pid::from_raw(pid), signal);
    }
}

/// Ignored unless asked for (signal(7)).
const NOISE: [Signal; 4] =
    [Signal::SIGCONT, Signal::SIGWINCH, Signal::SIGURG, Signal::SIGCHLD];

fn signal_storm(context: &Context) -> Result<Outcome> {
    let signals = context.size(4_000, 100_000);
    let pauses = context.size(6, 100);
    let room = context.at_once(6);
    let mut server = context.start()?;
    let mut clients = server.clients(room)?;
    for client in &mut clients {
        client.round_trip(64)?;
    }
    // Who talks little, who talks without a pause, and who talks much.
    let mut brisk = clients.swap_remove(0);
    let mut flooder = (room > 1).then(|| clients.swap_remove(0));
    let pids = server.tree();
    let (over, quiet) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut random = context.random();
    let result = thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let sent = storm(&pids, signals, pauses);
            over.store(true, Ordering::Relaxed);
            Ok(sent)
        });
        let talk = scope.spawn(|| {
            // Once more after the end, so that nobody is left out.
            loop {
                let last = over.load(Ordering::Relaxed);
                let goal = clients.first().map_or(0, |it| it.sent) + 50_000;
                pump(&mut clients, goal, 10_000, &mut random)?;
                if last || clients.is_empty() {
                    return Ok(());
                }
            }
        });
        let flood = scope.spawn(|| match &mut flooder {
            Some(flooder) => single_bytes(flooder, &quiet),
            None => Ok(()),
        });
        let trips = round_trips(&mut brisk, &over);
        // Not before: it must have had its turn beside the others.
        quiet.store(true, Ordering::Relaxed);
        let storm = ended(storm.join());
        let talk = ended(talk.join());
        let flood = ended(flood.join());
        let trips = trips.context("a client that talks little");
        talk.context("a client that talks much")
            .and(flood.context("a client that sends single bytes"))
            .and(trips)
            .and_then(|trips| Ok((trips, storm?)))
    });
    let flooded = flooder.as_ref().map_or(0, |it| it.received);
    let ((trips, slowest), sent) =
        outlived(&mut server, result).context("in a storm of signals")?;
    for client in clients.into_iter().chain(flooder).chain([brisk]) {
        client.finish()?;
    }
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{sent} signals and {pauses} stops; beside {flooded} single bytes \
         {trips} round trips, the slowest {slowest:.0?}"
    )))
}

/// What a thread came to.
fn ended<T>(joined: thread::Result<Result<T>>) -> Result<T> {
    joined.unwrap_or_else(|_| bail!("its thread panicked"))
}

/// Sends `least` signals at least, and lets the server stop `pauses` times.
fn storm(pids: &[i32], least: usize, pauses: usize) -> usize {
    let mut sent = 0;
    for _ in 0..pauses {
        let before = sent;
        while sent < before + least.div_ceil(pauses) {
            for signal in NOISE.repeat(4) {
                send(pids, signal);
                sent += pids.len();
            }
            thread::sleep(Duration::from_micros(100));
        }
        send(pids, Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(2));
        send(pids, Signal::SIGCONT);
        // Long enough for it to wait again.
        thread::sleep(Duration::from_millis(10));
    }
    sent
}

/// Sends bytes one by one, each a segment of its own, and takes what comes
/// back, until it shall be quiet and all has come.
fn single_bytes(client: &mut Client, quiet: &AtomicBool) -> Result<()> {
    client.socket.set_nodelay(true)?;
    client.socket.set_nonblocking(true)?;
    while !quiet.load(Ordering::Relaxed) {
        for _ in 0..64 {
            match client.write_some(1) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    return Err(error).context("send");
                }
                _ => {}
            }
        }
        ensure!(client.read_some(4_096)? != Some(0), "the server closed");
    }
    client.socket.set_nonblocking(false)?;
    client.receive(usize::try_from(client.sent - client.received)?)
}

/// Round trips until it is over; how many, and the longest.
fn round_trips(
    client: &mut Client,
    over: &AtomicBool,
) -> Result<(usize, Duration)> {
    // No latency is promised, but an answer.
    let patience = Duration::from_secs(3);
    client.socket.set_read_timeout(Some(patience))?;
    let (mut trips, mut slowest) = (0, Duration::ZERO);
    let begin = Instant::now();
    while !over.load(Ordering::Relaxed) || trips < 10 {
        slowest = slowest.max(client.round_trip(64)?);
        trips += 1;
        let took = begin.elapsed();
        ensure!(
            trips > 10 || took < Duration::from_secs(10),
            "{trips} round trips took {took:.0?}"
        );
    }
    Ok((trips, slowest))
}

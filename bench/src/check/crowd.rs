//! Many clients: at once, in waves, in a storm, waiting, and beside one that
//! never stops talking.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;

use super::blocked::{narrow, send_until_blocked};
use super::{Case, Context, Outcome};
use crate::harness::{self, Client, Connect, PATIENCE, Server};
use crate::models::PerClient;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "thousand_at_once",
        means: "1,000 clients that are connected at the same time all get \
                their own bytes back",
        alone: false,
        run: thousand_at_once,
    },
    Case {
        name: "waves_reuse_descriptors",
        means: "waves of clients come and go, some of them with a reset while \
                bytes are owed: whoever gets the same descriptor number next \
                sees nothing of that",
        alone: false,
        run: waves_reuse_descriptors,
    },
    Case {
        name: "beyond_1024",
        means: "1,100 clients push descriptor numbers past 1,023, where a \
                misused fd_set writes into foreign memory: all are served, or \
                refused at once and in words by a model that cannot",
        alone: false,
        run: beyond_1024,
    },
    Case {
        name: "many_idle_few_active",
        means: "thousands of clients that say nothing cost little memory, and \
                the few that talk are served beside them",
        alone: false,
        run: many_idle_few_active,
    },
    Case {
        name: "connect_and_close_storm",
        means: "after a storm of clients that connect and leave in every way \
                there is, no descriptor, thread, zombie or half-closed socket \
                is left",
        alone: false,
        run: connect_and_close_storm,
    },
    Case {
        name: "flood_beside_quiet",
        means: "one client that sends without a pause does not starve twenty \
                that send a few bytes now and then",
        alone: true,
        run: flood_beside_quiet,
    },
    Case {
        name: "clients_wait_while_stopped",
        means: "300 clients that come while the server cannot run wait in the \
                accept queue and are then all served; with a short backlog \
                they would stall for a second or more",
        alone: false,
        run: clients_wait_while_stopped,
    },
];

/// As many of `wanted` clients as a row is asked to carry. A thread takes some
/// 15 KiB and a process 300 KiB, both take a number of which a container often
/// has only a few thousand, and starting one takes up to a millisecond in a
/// debug build; select has a last descriptor, of which the server itself uses
/// a few.
pub(super) fn fitting(context: &Context, wanted: usize) -> usize {
    let most = match context.limits.per_client {
        PerClient::Nothing | PerClient::Buffer | PerClient::Task => wanted,
        PerClient::Thread => context.size(1_200, 2_000),
        PerClient::Process => context.size(200, 1_000),
    };
    let below = context.limits.descriptors_below.unwrap_or(usize::MAX);
    wanted.min(most).min(below - 20)
}

/// `Some(skipped)` when this program, or a server it starts, may not have so
/// many connections.
pub(super) fn no_room_for(connections: usize) -> Result<Option<Outcome>> {
    harness::raise_descriptor_limit();
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Some for what is tried beside it.
    let needed = connections as u64 + 1_000;
    Ok((soft < needed).then(|| {
        Outcome::Skipped(format!(
            "needs {needed} descriptors, and the hard limit is {soft}"
        ))
    }))
}

/// Client `id` from one of several source addresses: each has its own ports,
/// and the kernel is slow to find a free one among thousands.
pub(super) fn one_of_many(server: &Server, id: usize) -> Result<Client> {
    let source = match server.addr {
        SocketAddr::V4(_) => {
            Some(Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(id / 4_000)?))
        }
        SocketAddr::V6(_) => None,
    };
    let how = Connect { source, ..Connect::default() };
    server.client_with(u32::try_from(id)?, &how)
}

/// Every client sends `bytes` and gets them back, all at the same time; where
/// only some are served at once, one after the other in the order in which
/// they came, each leaving before the next is looked at.
pub(super) fn everyone_is_served(
    context: &Context,
    mut clients: Vec<Client>,
    bytes: usize,
) -> Result<()> {
    if context.limits.clients.is_none() {
        for _ in 0..2 {
            for client in &mut clients {
                client.send(bytes)?;
            }
            for client in &mut clients {
                client.receive(bytes)?;
            }
        }
    }
    for mut client in clients {
        client.send(bytes)?;
        client.finish()?;
    }
    Ok(())
}

/// How everyone was served, for reports.
pub(super) fn manner(context: &Context) -> String {
    match context.limits.clients {
        None => "all at once".to_string(),
        Some(1) => "one after the other, as its row says".to_string(),
        Some(most) => format!("{most} at a time, as its row says"),
    }
}

/// One crowd at a time: each takes a good part of the descriptors that a
/// program may have.
fn no_other_crowd() -> MutexGuard<'static, ()> {
    static CROWD: Mutex<()> = Mutex::new(());
    CROWD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The middle one.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn thousand_at_once(context: &Context) -> Result<Outcome> {
    let _only = no_other_crowd();
    let count = fitting(context, 1_000);
    if let Some(skipped) = no_room_for(count)? {
        return Ok(skipped);
    }
    let server = context.start()?;
    let begin = Instant::now();
    everyone_is_served(context, server.clients(count)?, 64)?;
    let took = begin.elapsed();
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{count} clients served {} in {took:.0?}",
        manner(context)
    )))
}

fn waves_reuse_descriptors(context: &Context) -> Result<Outcome> {
    let (waves, count) = context.size((3, 40), (20, 200));
    let server = context.start()?;
    let before = server.at_rest()?;
    let mut blocked = 0;
    for wave in 0..waves {
        let mut clients = Vec::new();
        for at in 0..count {
            let id = u32::try_from(wave * count + at)?;
            clients.push(server.client_with(id, &narrow())?);
        }
        for (at, mut client) in clients.into_iter().enumerate() {
            // Another one in each wave, because descriptor numbers are given
            // out in order.
            if (at + wave) % 40 == 5 {
                send_until_blocked(&mut client)?;
                client.reset()?;
                blocked += 1;
            } else {
                client.send(1_000)?;
                client.finish()?;
            }
        }
    }
    server.returns_to(&before)?;
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{waves} waves of {count} clients, of which {blocked} left while bytes \
         were owed to them: everyone else got exactly its own"
    )))
}

fn beyond_1024(context: &Context) -> Result<Outcome> {
    const COUNT: usize = 1_100;
    if context.limits.per_client == PerClient::Process {
        let why = "each client has a process, and so a table of descriptors, \
                   of its own";
        return Ok(Outcome::Excluded(why.to_string()));
    }
    if let Some(skipped) = no_room_for(COUNT)? {
        return Ok(skipped);
    }
    let _only = no_other_crowd();
    let mut server = context.start()?;
    let clients = server.clients(COUNT)?;
    if let Some(below) = context.limits.descriptors_below {
        return some_are_refused(server, clients, below);
    }
    if context.limits.clients.is_none() && context.target.is_ours() {
        let what = "a descriptor for each of 1,100 clients";
        server.must_live()?;
        server
            .settles(what, PATIENCE, |seen| seen.descriptors > COUNT)
            .or_else(|error| server.must_live().and(Err(error)))?;
    }
    everyone_is_served(context, clients, 64)?;
    server.stop()?;
    Ok(Outcome::Passed(format!("{COUNT} clients served {}", manner(context))))
}

/// Clients whose descriptor would be too high are closed at once and in words;
/// all the others are served.
fn some_are_refused(
    mut server: Server,
    clients: Vec<Client>,
    below: usize,
) -> Result<Outcome> {
    let begin = Instant::now();
    let count = clients.len();
    let (mut served, mut refused) = (Vec::new(), 0);
    for mut client in clients {
        // A refused client's bytes meet a socket that is gone.
        let sent = client.write_some(64);
        match client.socket.peek(&mut [0]) {
            Ok(1) => {
                ensure!(sent.is_ok(), "client {}: cannot send", client.id);
                client.receive(64)?;
                served.push(client);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bail!("client {} was neither served nor refused", client.id);
            }
            Ok(_) | Err(_) => refused += 1,
        }
    }
    let took = begin.elapsed();
    server.must_live()?;
    let least = count - below;
    // It has a few descriptors of its own: listener, signals, standard ones.
    ensure!(
        (least..least + 24).contains(&refused),
        "{refused} of {count} clients were refused with descriptors below \
         {below}"
    );
    ensure!(took < PATIENCE, "the refusals took {took:.1?}");
    let said = server.stderr();
    ensure!(
        said.contains("FD_SETSIZE") || said.contains(&below.to_string()),
        "no word on stderr about the {refused} clients it refused: '{said}'"
    );
    for client in &mut served {
        client.round_trip(64)?;
    }
    let all = served.len();
    drop(served);
    // The numbers of those who left are free again.
    server.settles("the crowd to be gone", PATIENCE, |seen| {
        seen.descriptors < 64
    })?;
    server
        .client(u32::try_from(count)?)?
        .finish()
        .context("a client after the crowd has gone")?;
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{all} clients served at once, and {refused} refused at once and in \
         words"
    )))
}

fn many_idle_few_active(context: &Context) -> Result<Outcome> {
    let wanted = fitting(context, context.size(1_500, 5_000));
    let (idle, active) = match context.limits.clients {
        None => (wanted - 20, 20),
        Some(1) => {
            let why = "one client at a time: an idle one is waited for";
            return Ok(Outcome::Excluded(why.to_string()));
        }
        Some(most) => (most - 1, 1),
    };
    if let Some(skipped) = no_room_for(idle + active)? {
        return Ok(skipped);
    }
    let _only = no_other_crowd();
    let server = context.start()?;
    let before = server.at_rest()?;
    let mut idlers = Vec::new();
    for id in 0..idle {
        idlers.push(one_of_many(&server, id)?);
    }
    let mut talkers = Vec::new();
    for id in idle..idle + active {
        talkers.push(one_of_many(&server, id)?);
    }
    let mut times = Vec::new();
    for _ in 0..10 {
        for client in &mut talkers {
            times.push(client.round_trip(64)?);
        }
    }
    // The last ones have been served, so that all before were accepted.
    let memory = server.observe().memory.saturating_sub(before.memory);
    let each = memory / (idle + active) as u64;
    let allowed = match context.limits.per_client {
        _ if !context.target.is_ours() => 256 << 10,
        _ if context.limits.clients.is_some() => 64 << 10,
        PerClient::Nothing | PerClient::Task => 1 << 10,
        // As --buffer says, and what keeps account of it.
        PerClient::Buffer => 17 << 10,
        PerClient::Thread => 64 << 10,
        PerClient::Process => 1 << 20,
    };
    ensure!(
        memory <= allowed * idle as u64 + (1 << 20),
        "{idle} idle clients hold {} KiB of the server's memory, {each} bytes \
         each; {allowed} are allowed",
        memory >> 10
    );
    // The idle ones were not forgotten.
    for client in idlers.iter_mut().step_by(100) {
        client.round_trip(64)?;
    }
    drop((idlers, talkers));
    server.returns_to(&before)?;
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "beside {idle} idle clients, {active} had round trips of {:.0?} in the \
         middle; {each} bytes of memory for each client",
        median(times)
    )))
}

fn connect_and_close_storm(context: &Context) -> Result<Outcome> {
    let count = context.size(500, 5_000);
    let mut server = context.start()?;
    let before = server.at_rest()?;
    let begin = Instant::now();
    for id in 0..count {
        let mut client = one_of_many(&server, id)?;
        match id % 4 {
            0 => drop(client),
            1 => {
                // What comes back meets a socket that is closed.
                client.send(64)?;
                drop(client);
            }
            2 => client.reset()?,
            _ => {
                client.send(64)?;
                client.finish()?;
            }
        }
    }
    let took = begin.elapsed();
    server.must_live()?;
    let after = server.returns_to(&before)?;
    server.client(1)?.finish()?;
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{count} clients came and went in {took:.1?}; left are {after}"
    )))
}

fn flood_beside_quiet(context: &Context) -> Result<Outcome> {
    let quiet = context.at_once(21) - 1;
    if quiet == 0 {
        let why = "one client at a time: the others wait until it has gone";
        return Ok(Outcome::Excluded(why.to_string()));
    }
    let rounds = context.size(3, 20);
    let server = context.start()?;
    let hurried = Connect {
        patience: Some(Duration::from_secs(3)),
        ..Connect::default()
    };
    let mut clients = (0..quiet)
        .map(|id| server.client_with(u32::try_from(id)?, &hurried))
        .collect::<Result<Vec<_>>>()?;
    let mut trips = || -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for _ in 0..rounds {
            for client in &mut clients {
                times.push(client.round_trip(64)?);
            }
        }
        Ok(times)
    };
    // The first round is warm-up: threads and processes begin there.
    trips()?;
    let alone = median(trips()?);
    let flood = Flood::default();
    let socket = server.connect()?;
    let (beside, flooded) = thread::scope(|scope| -> Result<_> {
        scope.spawn(|| flood.send(&socket));
        scope.spawn(|| flood.receive(&socket));
        let begun = flood.has_echoed(4 << 20);
        let first = flood.echoed.load(Ordering::Relaxed);
        let so_far = || flood.echoed.load(Ordering::Relaxed) - first;
        let deadline = Instant::now() + PATIENCE;
        let mut times = begun.and_then(|()| trips());
        // It may not have come to run in so short a time.
        while let Ok(all) = &mut times
            && so_far() < 1 << 20
            && Instant::now() < deadline
        {
            match trips() {
                Ok(more) => all.extend(more),
                Err(error) => times = Err(error),
            }
        }
        let flooded = so_far();
        flood.over.store(true, Ordering::Relaxed);
        // Both threads may sleep in calls on it.
        let _ended = socket.shutdown(Shutdown::Both);
        let times = times.context("beside one client that floods")?;
        Ok((times, flooded))
    })?;
    let worst = beside.iter().max().copied().unwrap_or_default();
    let middle = median(beside);
    ensure!(
        flooded > 64 << 10,
        "the flood was not served: {flooded} bytes came back meanwhile"
    );
    ensure!(
        middle <= alone * 50 + Duration::from_millis(20)
            && worst <= Duration::from_secs(2),
        "beside one client that floods, a quiet one's round trip takes \
         {middle:.1?} in the middle and {worst:.1?} at worst; it took \
         {alone:.1?} before"
    );
    drop(clients);
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "round trips of {quiet} quiet clients: {alone:.0?} in the middle \
         before, {middle:.0?} beside a flood ({worst:.0?} at worst)"
    )))
}

/// One client that sends and receives as fast as it can, on two threads.
#[derive(Default)]
struct Flood {
    over: AtomicBool,
    echoed: AtomicU64,
}

impl Flood {
    fn send(&self, mut socket: &TcpStream) {
        let bytes = [b'f'; 64 << 10];
        while !self.over.load(Ordering::Relaxed) {
            // A time limit that passes is only another try.
            let _ = socket.write(&bytes);
        }
    }

    fn receive(&self, mut socket: &TcpStream) {
        let mut bytes = [0; 64 << 10];
        while !self.over.load(Ordering::Relaxed) {
            match socket.read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    self.echoed.fetch_add(n as u64, Ordering::Relaxed);
                }
            }
        }
    }

    fn has_echoed(&self, bytes: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.echoed.load(Ordering::Relaxed) < bytes {
            ensure!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} for {bytes} bytes of the flood to come \
                 back"
            );
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn clients_wait_while_stopped(context: &Context) -> Result<Outcome> {
    const WANTED: usize = 300;
    let longest = fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok());
    if longest.is_some_and(|longest| longest < WANTED) {
        let why = "net.core.somaxconn is below 300: no queue can be so long";
        return Ok(Outcome::Skipped(why.to_string()));
    }
    let count = fitting(context, WANTED);
    let mut server = context.start()?;
    server.client(0)?.finish()?;
    server.signal(Signal::SIGSTOP)?;
    // Less than the second after which a lost SYN is sent again.
    let hurried = Connect {
        patience: Some(Duration::from_millis(700)),
        ..Connect::default()
    };
    let mut clients = Vec::new();
    for id in 0..count {
        let client = server
            .client_with(u32::try_from(id)?, &hurried)
            .with_context(|| format!("with {id} waiting, as if in vain"))?;
        client.socket.set_read_timeout(Some(PATIENCE))?;
        client.socket.set_write_timeout(Some(PATIENCE))?;
        clients.push(client);
    }
    server.signal(Signal::SIGCONT)?;
    let begin = Instant::now();
    everyone_is_served(context, clients, 64)?;
    let took = begin.elapsed();
    server.must_live()?;
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{count} clients connected while it was stopped, and were served {} \
         within {took:.0?}",
        manner(context)
    )))
}

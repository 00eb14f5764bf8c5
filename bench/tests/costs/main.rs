//! What a message and an idle connection cost a server: system calls, counted
//! by strace; allocations, counted by this program's own allocator; memory, as
//! /proc tells.

#[path = "../strace/mod.rs"]
mod strace;
mod sys;

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::harness::{
    self, Client, Connect, Server, Start, Target, raise_descriptor_limit,
};
use bench::models::{MODELS, Model, PerClient, find};
use libtest_mimic::{Arguments, Trial};
use nix::sys::resource::{Resource, getrlimit};
use strace::{Traced, Tracing};

#[global_allocator]
static ALLOCATOR: sys::Counting = sys::Counting;

/// Names the file into which a server's allocations are counted.
const COUNT_ALLOCATIONS: &str = "COUNT_ALLOCATIONS";

/// The kernel's names of recv and send.
const RECV: &str = "recvfrom";
const SEND: &str = "sendto";

/// Hands over submissions, and sleeps.
const ENTER: &str = "io_uring_enter";

/// The size of a message.
const MESSAGE: usize = 64;

/// A test that ends well, or with the reason why it cannot be made here.
type Test = fn(&'static Model) -> Result<Option<String>>;

fn main() -> ExitCode {
    // Before this program becomes a server whose allocations are counted.
    count_if_asked().expect("the allocations can be counted");
    bench::serve_if_asked();
    raise_descriptor_limit();
    let mut args = Arguments::from_args();
    args.test_threads = Some(args.test_threads.unwrap_or(2).min(2));
    let mut trials = Vec::new();
    let mut add = |name: &str, model: &'static Model, test: Test| {
        let name = format!("{}::{name}", model.name);
        let shown = name.clone();
        trials.push(Trial::test(name, move || match test(model) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => {
                println!("{shown} SKIPPED: {why}");
                Ok(())
            }
            Err(error) => Err(format!("{error:#}").into()),
        }));
    };
    for name in ["epoll_lt", "epoll_et"] {
        let model = find(name).expect("a row of the table");
        add("calls_of_one_connection", model, calls_of_one_connection);
        add("busy_connections_share_waits", model, busy_share_waits);
        add("ten_thousand_idle_are_small", model, many_idle_are_small);
    }
    for name in ["proactor", "proactor-multishot"] {
        let model = find(name).expect("a row of the table");
        add("calls_of_one_connection", model, enters_of_one_connection);
        add("busy_connections_share_enters", model, busy_share_enters);
    }
    for model in MODELS {
        add("messages_allocate_nothing", model, messages_allocate_nothing);
        if model.limits.per_client == PerClient::Nothing {
            add("idle_clients_own_no_buffer", model, idle_own_no_buffer);
        }
        if model.limits.per_client == PerClient::Buffer {
            add("idle_clients_own_one_buffer", model, idle_own_one_buffer);
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// One wait, one recv and one send for each message, and nothing else; with
/// edge triggering also the recv that meets EAGAIN.
fn calls_of_one_connection(model: &'static Model) -> Result<Option<String>> {
    if let Some(why) = strace::missing() {
        return Ok(Some(why));
    }
    let messages = 200;
    let mut tracing = Tracing::start(model, "--watch off")?;
    let mut client = tracing.server.client(1)?;
    for _ in 0..messages {
        client.round_trip(MESSAGE)?;
        // Under strace a server is slow: the next message would be there
        // before it has come back to its wait.
        sleep(Duration::from_millis(1));
    }
    client.finish()?;
    let calls = calls_of(&mut tracing)?;
    let calls = while_messages_pass(&calls)?;
    let moved = Ok(MESSAGE as i64);
    let drains = model.name == "epoll_et";
    let mut last = ("epoll_wait", Ok(1));
    for (at, call) in calls.iter().enumerate() {
        let result = call.result.as_ref().map(|n| *n).map_err(|e| e.as_str());
        let this = (call.call.as_str(), result);
        let follows = match last {
            // Whoever was drained before its change was told is told of it
            // nevertheless.
            ("epoll_wait", _) => {
                this == (RECV, moved) || drains && this == (RECV, Err("EAGAIN"))
            }
            (RECV, Ok(_)) => this == (SEND, moved),
            // Unless the next message was there already.
            (SEND, _) if drains => {
                this == (RECV, Err("EAGAIN")) || this == (RECV, moved)
            }
            _ => this == ("epoll_wait", Ok(1)),
        };
        ensure!(follows, "call {at} is {call:?}, after {last:?}");
        last = this;
    }
    let count = |name| calls.iter().filter(|it| it.call == name).count();
    let shown = ["epoll_wait", RECV, SEND].map(|it| (it, count(it)));
    println!("{}: {shown:?} for {messages} messages", model.name);
    // Before the first message stands the wait that is not counted.
    let (waits, sends) = (count("epoll_wait") + 1, count(SEND));
    let recvs = count(RECV);
    ensure!(sends == messages, "{sends} sends for {messages} messages");
    ensure!(
        match drains {
            false => waits == messages && recvs == messages,
            true => waits <= messages && recvs <= 2 * messages,
        },
        "{waits} waits and {recvs} recvs for {messages} messages"
    );
    Ok(None)
}

/// With 50 connections that all have something to say, a wait serves many.
fn busy_share_waits(model: &'static Model) -> Result<Option<String>> {
    if let Some(why) = strace::missing() {
        return Ok(Some(why));
    }
    let rounds = 40;
    let mut tracing = Tracing::start(model, "--watch off")?;
    let mut clients = tracing.server.clients(50)?;
    for client in &mut clients {
        client.round_trip(MESSAGE)?;
    }
    for _ in 0..rounds {
        exchange(&mut clients)?;
    }
    let messages = clients.len() * (rounds + 1);
    for client in clients {
        client.finish()?;
    }
    let calls = calls_of(&mut tracing)?;
    let calls = while_messages_pass(&calls)?;
    let count = |name: &str, wanted: Result<i64, &str>| {
        let same = |it: &&Traced| {
            it.call == name
                && it.result.as_ref().map_err(|e| e.as_str())
                    == wanted.as_ref().map_err(|e| *e)
        };
        calls.iter().filter(same).count()
    };
    let moved = Ok(MESSAGE as i64);
    let waits = calls.iter().filter(|it| it.call == "epoll_wait").count();
    println!("{}: {waits} waits for {messages} messages", model.name);
    ensure!(
        count(RECV, moved) == messages && count(SEND, moved) == messages,
        "{} recvs and {} sends of a message, for {messages} messages",
        count(RECV, moved),
        count(SEND, moved)
    );
    // The first message of each connection has a wait of its own, and one for
    // the connection itself.
    ensure!(waits * 2 < messages, "{waits} waits for {messages} messages");
    let changes = |it: &&Traced| {
        it.call == "epoll_ctl" && !it.args.contains("EPOLL_CTL_ADD")
    };
    let changes = calls.iter().filter(changes).count();
    ensure!(changes == 0, "{changes} changes of what is wanted");
    Ok(None)
}

/// A ring is entered to hand over what was submitted, and to sleep, in one call:
/// twice for each message that is received and sent by hand, once for each that
/// one receive for all brings. Nothing else is called.
fn enters_of_one_connection(model: &'static Model) -> Result<Option<String>> {
    if let Some(why) = strace::missing() {
        return Ok(Some(why));
    }
    let messages = 200;
    let mut tracing = Tracing::start(model, "--watch off")?;
    let mut client = tracing.server.client(1)?;
    for _ in 0..messages {
        client.round_trip(MESSAGE)?;
        // As above, the server is to be back in its wait.
        sleep(Duration::from_millis(1));
    }
    client.finish()?;
    let calls = calls_of(&mut tracing)?;
    let enters = calls.iter().filter(|it| it.call == ENTER).count();
    let others = calls.len() - enters;
    println!("{}: {enters} enters for {messages} messages", model.name);
    let by_one = match model.args {
        [] => 2,
        _ => 1,
    };
    // A few more for the client and the stop.
    let expected = by_one * messages..=by_one * messages + 10;
    ensure!(expected.contains(&enters), "{enters} enters, not {expected:?}");
    // The ring is made, after others have been tried; clients are closed.
    ensure!(others < 50, "{others} calls that are no enters");
    Ok(None)
}

/// With 50 connections that all have something to say, a ring is entered once
/// for many.
fn busy_share_enters(model: &'static Model) -> Result<Option<String>> {
    if let Some(why) = strace::missing() {
        return Ok(Some(why));
    }
    let rounds = 40;
    let mut tracing = Tracing::start(model, "--watch off")?;
    let mut clients = tracing.server.clients(50)?;
    for _ in 0..rounds {
        exchange(&mut clients)?;
    }
    let messages = clients.len() * rounds;
    for client in clients {
        client.finish()?;
    }
    let calls = calls_of(&mut tracing)?;
    let enters = calls.iter().filter(|it| it.call == ENTER).count();
    println!("{}: {enters} enters for {messages} messages", model.name);
    ensure!(enters * 2 < messages, "{enters} enters for {messages} messages");
    Ok(None)
}

/// The calls of the server's only thread.
fn calls_of(tracing: &mut Tracing) -> Result<Vec<Traced>> {
    let threads = tracing.stop()?;
    ensure!(threads.len() == 1, "{} threads", threads.len());
    threads.into_values().next().context("no thread")
}

/// From the first recv of a message to the last send of one.
fn while_messages_pass(calls: &[Traced]) -> Result<&[Traced]> {
    let moved = |it: &Traced| it.result == Ok(MESSAGE as i64);
    let first = calls.iter().position(|it| it.call == RECV && moved(it));
    let last = calls.iter().rposition(|it| it.call == SEND && moved(it));
    let (first, last) = first.zip(last).context("no message passed")?;
    Ok(&calls[first..=last])
}

/// Every client sends a message, and then every client receives its own.
fn exchange(clients: &mut [Client]) -> Result<()> {
    for client in clients.iter_mut() {
        client.send(MESSAGE)?;
    }
    for client in clients.iter_mut() {
        client.receive(MESSAGE)?;
    }
    Ok(())
}

/// A server whose allocations are counted.
struct Counted {
    server: Server,
    counts: File,
}

/// What a counted server has allocated since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allocated {
    calls: u64,
    live: u64,
}

/// Becomes a counted program when the environment asks for it.
fn count_if_asked() -> Result<()> {
    if let Some(path) = std::env::var_os(COUNT_ALLOCATIONS) {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        sys::count_into(&file)?;
    }
    Ok(())
}

impl Counted {
    fn start(model: &Model) -> Result<Self> {
        Self::start_with(model, "")
    }

    /// The same with `args` after the row's own.
    fn start_with(model: &Model, args: &str) -> Result<Self> {
        let counts = tempfile::NamedTempFile::new()?;
        counts.as_file().set_len(sys::COUNTS_SIZE as u64)?;
        let line = format!(
            "{COUNT_ALLOCATIONS}={} exec /proc/{}/exe serve {} --addr {{addr}} \
             {args}",
            counts.path().display(),
            std::process::id(),
            model.name
        );
        let server = Server::start(&Target::Command(line), &Start::default())?;
        let counts = counts.into_file();
        let counted = Counted { server, counts };
        let allocated = counted.allocated()?;
        ensure!(allocated.calls > 10, "nothing is counted: {allocated:?}");
        Ok(counted)
    }

    fn allocated(&self) -> Result<Allocated> {
        let mut bytes = [0; sys::COUNTS_SIZE];
        self.counts.read_exact_at(&mut bytes, 0)?;
        let (words, _) = bytes.as_chunks();
        let words: Vec<u64> =
            words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        let live = words[1].saturating_sub(words[2]);
        Ok(Allocated { calls: words[0], live })
    }
}

/// No allocation between message 100 and message 10,000.
fn messages_allocate_nothing(model: &'static Model) -> Result<Option<String>> {
    let counted = Counted::start(model)?;
    let at_once = model.limits.clients.unwrap_or(10).min(10);
    let mut clients = counted.server.clients(at_once)?;
    exchange(&mut clients)?;
    let mut exchanged = clients.len();
    let mut until = |messages: usize| -> Result<Allocated> {
        while exchanged < messages {
            exchange(&mut clients)?;
            exchanged += clients.len();
        }
        counted.allocated()
    };
    let before = until(100)?;
    let after = until(10_000)?;
    ensure!(before == after, "{before:?} became {after:?} in 9,900 messages");
    Ok(None)
}

/// A thousand idle clients take a table, which grows a few times, and nothing
/// each.
fn idle_own_no_buffer(model: &'static Model) -> Result<Option<String>> {
    const CLIENTS: usize = 1000;
    if let Some(why) = no_room_for(CLIENTS)? {
        return Ok(Some(why));
    }
    let counted = Counted::start(model)?;
    let mut first = counted.server.client(0)?;
    first.round_trip(MESSAGE)?;
    let before = counted.allocated()?;
    let mut clients = counted.server.clients(CLIENTS)?;
    match model.limits.clients {
        // Clients are taken in their order: behind the last one are all.
        None => drop(clients[CLIENTS - 1].round_trip(MESSAGE)?),
        // They wait for their turn, and need nothing meanwhile.
        Some(_) => sleep(Duration::from_millis(300)),
    }
    let after = counted.allocated()?;
    let calls = after.calls - before.calls;
    let bytes = after.live.saturating_sub(before.live);
    let name = model.name;
    println!("{name}: {calls} allocations, {bytes} bytes for {CLIENTS} idle");
    ensure!(calls <= 40, "{calls} allocations for {CLIENTS} idle clients");
    let most = 128 * CLIENTS as u64;
    ensure!(bytes <= most, "{bytes} bytes for {CLIENTS} idle clients");
    if model.limits.clients.is_none() {
        ensure!(calls > 0, "a table that never grew was not measured");
    }
    Ok(None)
}

/// A thousand idle clients have one buffer each, of which each receive takes
/// its own along, and besides that a place in a table.
fn idle_own_one_buffer(model: &'static Model) -> Result<Option<String>> {
    const CLIENTS: usize = 1000;
    const BUFFER: u64 = 5000;
    if let Some(why) = no_room_for(CLIENTS)? {
        return Ok(Some(why));
    }
    let args = format!("--buffer {BUFFER}");
    let counted = Counted::start_with(model, &args)?;
    let mut first = counted.server.client(0)?;
    first.round_trip(MESSAGE)?;
    let before = counted.allocated()?.live;
    let mut clients = counted.server.clients(CLIENTS)?;
    // Clients are taken in their order: behind the last one are all.
    clients[CLIENTS - 1].round_trip(MESSAGE)?;
    // They have said something, and have one nevertheless.
    exchange(&mut clients)?;
    let bytes = counted.allocated()?.live.saturating_sub(before);
    let (name, each) = (model.name, bytes / CLIENTS as u64);
    println!("{name}: {each} bytes for each of {CLIENTS} idle");
    ensure!(
        (BUFFER..BUFFER + 400).contains(&each),
        "{each} bytes for each of {CLIENTS} idle clients"
    );
    Ok(None)
}

/// 10,000 idle connections take less than 3 MiB of the server's own memory.
fn many_idle_are_small(model: &'static Model) -> Result<Option<String>> {
    const CLIENTS: usize = 10_000;
    if let Some(why) = no_room_for(CLIENTS)? {
        return Ok(Some(why));
    }
    let server = Server::start(&Target::Model(model), &Start::default())?;
    let before = server.at_rest()?.memory;
    let mut clients = (0..CLIENTS)
        .map(|id| {
            // The kernel is slow to find a free port among thousands.
            let source = Ipv4Addr::new(127, 0, 0, 2 + (id / 4000) as u8);
            let how = Connect { source: Some(source), ..Connect::default() };
            harness::connect(server.addr, &how)
        })
        .collect::<Result<Vec<_>>>()?;
    let last = clients.pop().context("the last client")?;
    Client::new(1, last).round_trip(MESSAGE)?;
    let grown = server.observe().memory.saturating_sub(before);
    let name = model.name;
    println!("{name}: {} KiB for {CLIENTS} idle clients", grown / 1024);
    ensure!(grown < 3 << 20, "{} KiB for {CLIENTS}", grown / 1024);
    Ok(None)
}

/// Why this program, or a server, may not have so many connections.
fn no_room_for(connections: usize) -> Result<Option<String>> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Another test may run beside it.
    let needed = connections as u64 + 1500;
    Ok((soft < needed).then(|| {
        format!("needs {needed} descriptors, and the hard limit is {soft}")
    }))
}

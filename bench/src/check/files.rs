//! A file through which messages go: slow, failing, or full. Whoever waits for
//! it must not hold up the others, and what it lost must not be made up.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::RawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use super::saboteur::Saboteur;
use super::stop::outlived;
use super::{Case, Context, Outcome};
use crate::harness::{Client, Connect, PATIENCE, Server, Start, Target, pump};

pub(super) static CASES: &[Case] = &[
    Case {
        name: "slow_file",
        means: "each read and write of its file takes long: every byte comes \
                back in order, and the operations of several clients are under \
                way at once",
        alone: true,
        run: slow_file,
    },
    Case {
        name: "stop_during_slow_file",
        means: "a stop while bytes are on their way through a slow file: they \
                still come back within the grace time, and operations that \
                outlive it end with the server, without a crash",
        alone: false,
        run: stop_during_slow_file,
    },
    Case {
        name: "failing_file",
        means: "every third read and write of its file fails (EIO, ENOSPC): \
                that client is closed and gets no wrong byte, the others are \
                served, and the server lives on",
        alone: false,
        run: failing_file,
    },
    Case {
        name: "full_disk",
        means: "no file may grow beyond 32 KiB: the server lives, whoever it \
                has room for is served, the others are closed and not left \
                waiting",
        alone: false,
        run: full_disk,
    },
];

/// The calls by which a file is read and written at a position.
const CALLS: &str = "?pread64,?pwrite64";

/// The calls by which a socket is read; they are only written down.
const READS: &str = ",?read,?recvfrom,?recvmsg,?readv";

/// How many bytes a client sends that wants them back through a slow file.
const MESSAGE: usize = 1_000;

/// Starts the target and serves a client; `Err(excluded)` when no message can
/// go through a file.
fn start_with_file(
    context: &Context,
    start: &Start,
) -> Result<std::result::Result<Server, Outcome>> {
    let server = context.start_with(start)?;
    let mut client = server.client(0)?;
    client.round_trip(64)?;
    let found = holds_file(&server);
    client.finish()?;
    if found {
        return Ok(Ok(server));
    }
    must_not_need_one(&context.target)?;
    server.stop()?;
    let why = "it holds no file that it could write to";
    Ok(Err(Outcome::Excluded(why.to_string())))
}

/// A row that is there for its file would be excluded from all that it is
/// there for.
fn must_not_need_one(target: &Target) -> Result<()> {
    let needed = match target {
        Target::Model(model) => model.binary == "aio_file",
        Target::Broken(_) | Target::Command(_) => false,
    };
    ensure!(!needed, "it holds no file that it could write to");
    Ok(())
}

/// Whether a process of the server has a regular file open for writing, its
/// standard output and error apart.
fn holds_file(server: &Server) -> bool {
    server.tree().into_iter().any(|pid| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"));
        fds.into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name();
            let fd = name.to_str().and_then(|name| name.parse().ok());
            // What it leads to, not the link.
            fs::metadata(entry.path()).is_ok_and(|it| it.is_file())
                && fd.is_some_and(|fd: RawFd| fd > 2 && is_writable(pid, fd))
        })
    })
}

fn is_writable(pid: i32, fd: RawFd) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"));
    let flags = text.iter().flat_map(|text| text.lines()).find_map(|line| {
        i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok()
    });
    flags.is_some_and(|flags| {
        flags & OFlag::O_ACCMODE.bits() != OFlag::O_RDONLY.bits()
    })
}

/// Lets each read and write of the server's file take `delay` longer.
fn slowed(
    server: &Server,
    delay: Duration,
) -> Result<std::result::Result<Saboteur, Outcome>> {
    let how = format!("delay_exit={}", delay.as_micros());
    Saboteur::begin(server, CALLS, &how, READS)
}

fn slow_file(context: &Context) -> Result<Outcome> {
    const CLIENTS: usize = 8;
    let delay = Duration::from_millis(context.size(15, 50));
    if context.at_once(CLIENTS) < CLIENTS {
        let why = "the others wait until a client has gone";
        return Ok(Outcome::Excluded(why.to_string()));
    }
    let mut server = match start_with_file(context, &Start::default())? {
        Ok(server) => server,
        Err(outcome) => return Ok(outcome),
    };
    let saboteur = match slowed(&server, delay)? {
        Ok(saboteur) => saboteur,
        Err(outcome) => return Ok(outcome),
    };
    let mut clients = server.clients(CLIENTS)?;
    let mut random = context.random();
    let times = (|| {
        // Threads may have to be started for the first ones.
        let mut alone = together(&mut clients[..1])?;
        let mut all = together(&mut clients)?;
        for _ in 0..context.size(2, 4) {
            alone = alone.min(together(&mut clients[..1])?);
            all = all.min(together(&mut clients)?);
        }
        let begin = clients.iter().map(|it| it.sent).max().unwrap_or(0);
        let more = context.size(20_000, 200_000);
        pump(&mut clients, begin + more, 20_000, &mut random)?;
        Ok((alone, all))
    })();
    let struck = saboteur.end()?;
    let (alone, all) = outlived(&mut server, times)
        .with_context(|| format!("with a file that takes {delay:.0?}"))?;
    ensure!(struck > 0, "strace slowed nothing, though it holds a file");
    ensure!(
        alone >= delay,
        "this case proves nothing: one client's message takes {alone:.1?} \
         with a file that takes {delay:.0?}"
    );
    ensure!(
        all < alone * CLIENTS as u32 * 5 / 8,
        "{CLIENTS} clients at once take {all:.0?} where one alone takes \
         {alone:.0?}: their operations wait for each other"
    );
    for client in clients {
        client.finish()?;
    }
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "with {struck} operations of {delay:.0?} each, one client waited \
         {alone:.0?}, and {CLIENTS} at once {all:.0?}"
    )))
}

/// One message of each, all under way at once; how long until all came back.
fn together(clients: &mut [Client]) -> Result<Duration> {
    let begin = Instant::now();
    clients.iter_mut().try_for_each(|client| client.send(64))?;
    clients.iter_mut().try_for_each(|client| client.receive(64))?;
    Ok(begin.elapsed())
}

fn stop_during_slow_file(context: &Context) -> Result<Outcome> {
    if let Some(excluded) = context.excluded_unless_ours() {
        return Ok(excluded);
    }
    let delay = Duration::from_millis(context.size(100, 300));
    let long = match stopped_in_flight(context, delay, PATIENCE)? {
        Ok(stopped) => stopped,
        Err(outcome) => return Ok(outcome),
    };
    ensure!(
        long.served == long.clients,
        "{} of {} clients whose bytes had been read got them back, with a \
         grace time of {PATIENCE:?} and a file that takes {delay:.0?}",
        long.served,
        long.clients
    );
    let (delay, grace) = (delay * 2, delay / 4);
    let short = match stopped_in_flight(context, delay, grace)? {
        Ok(stopped) => stopped,
        Err(outcome) => return Ok(outcome),
    };
    Ok(Outcome::Passed(format!(
        "all {} clients got what was in flight, and it ended after {:.0?}; \
         with {grace:.0?} of grace it ended after {:.0?}, {} of {} served",
        long.clients, long.took, short.took, short.served, short.clients
    )))
}

/// How a stop in the middle of operations went.
struct Stopped {
    clients: usize,
    /// How many got all that they were owed, and then FIN.
    served: usize,
    took: Duration,
}

/// Tells the server to stop when it has read a message of each client and none
/// has come back, and waits for its end, which must be a good one.
fn stopped_in_flight(
    context: &Context,
    delay: Duration,
    grace: Duration,
) -> Result<std::result::Result<Stopped, Outcome>> {
    const CLIENTS: usize = 4;
    let count = context.at_once(CLIENTS);
    let args = ["--grace", &format!("{}ms", grace.as_millis())];
    let start = Start::with_args(&args);
    let mut server = match start_with_file(context, &start)? {
        Ok(server) => server,
        Err(outcome) => return Ok(Err(outcome)),
    };
    let saboteur = match slowed(&server, delay)? {
        Ok(saboteur) => saboteur,
        Err(outcome) => return Ok(Err(outcome)),
    };
    let mut clients = server.clients(count)?;
    for client in &mut clients {
        client.send(MESSAGE)?;
    }
    has_read(&saboteur, clients.len())?;
    for client in &clients {
        client.socket.set_nonblocking(true)?;
        let early = client.socket.peek(&mut [0]);
        client.socket.set_nonblocking(false)?;
        ensure!(
            early.is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
            "this case proves nothing: a message is back before the stop, or \
             its client was closed"
        );
    }
    let begin = Instant::now();
    server.signal(Signal::SIGTERM)?;
    let mut served = 0;
    for client in &mut clients {
        let all = client.sent;
        if come_back(client, all)? {
            ensure!(!come_back(client, all + 1)?, "more than it was owed");
            served += 1;
        }
    }
    drop(clients);
    // An operation that has begun cannot be called back.
    let limit = (delay * 2 + Duration::from_secs(2)).min(PATIENCE);
    let status = server
        .wait_exit(limit)
        .with_context(|| format!("with {grace:.0?} of grace"))?;
    ensure!(
        status.code() == Some(0),
        "with {grace:.0?} of grace and a file that takes {delay:.0?} it ended \
         with {status} instead of exit code 0; it said '{}'",
        server.stderr().trim_end()
    );
    let took = begin.elapsed();
    let struck = saboteur.end()?;
    ensure!(struck > 0, "strace slowed nothing, though it holds a file");
    Ok(Ok(Stopped { clients: count, served, took }))
}

/// Waits until the server has read `count` messages of that size: only what it
/// has read is owed at a stop.
fn has_read(saboteur: &Saboteur, count: usize) -> Result<()> {
    // What goes through the file is marked as delayed behind its result.
    let result = format!(" = {MESSAGE}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = saboteur.log()?;
        let read = log.lines().filter(|line| line.ends_with(&result)).count();
        if read >= count {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the server has read from {read} of {count} clients"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the bytes up to `goal` come back; false when the connection is
/// closed or reset before. A wrong byte is an error, and silence as well.
fn come_back(client: &mut Client, goal: u64) -> Result<bool> {
    let mut bytes = [0; 4_096];
    while client.received < goal {
        match (&client.socket).read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                client.payload.check(client.received, &bytes[..n])?;
                client.received += n as u64;
                ensure!(
                    client.received <= client.sent,
                    "client {}: more came back than was sent",
                    client.id
                );
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!(
                "client {} was neither served nor closed, after {} of {} bytes",
                client.id,
                client.received,
                client.sent
            ),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// A client who waits less long than others.
fn hurried(server: &Server, id: usize) -> Result<Client> {
    let patience = Some(Duration::from_secs(3));
    let how = Connect { patience, ..Connect::default() };
    server.client_with(u32::try_from(id)?, &how)
}

fn failing_file(context: &Context) -> Result<Outcome> {
    let rounds = context.size(1, 10);
    let count = context.at_once(8);
    let mut server = match start_with_file(context, &Start::default())? {
        Ok(server) => server,
        Err(outcome) => return Ok(outcome),
    };
    let (mut all, mut messages, mut closed) = (0, 0, 0);
    for error in ["EIO", "ENOSPC"] {
        let how = format!("error={error}:when=2+3");
        let saboteur = match Saboteur::begin(&server, CALLS, &how, "")? {
            Ok(saboteur) => saboteur,
            Err(outcome) => return Ok(outcome),
        };
        let talked = (0..rounds).try_for_each(|_| {
            let clients: Result<Vec<Client>> =
                (0..count).map(|id| hurried(&server, id)).collect();
            let (served, gone) = talk(clients?, 4)?;
            messages += served;
            closed += gone;
            Ok(())
        });
        let failed = saboteur.end()?;
        outlived(&mut server, talked).with_context(|| {
            format!("{failed} operations on its file failed with {error}")
        })?;
        ensure!(failed > 0, "strace let nothing fail, though it holds a file");
        all += failed;
    }
    ensure!(messages > 0, "nobody was served while {all} operations failed");
    for id in 0..4 {
        hurried(&server, id)?.finish().context("a client afterwards")?;
    }
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{all} operations failed: {closed} clients were closed, and {messages} \
         messages came back right"
    )))
}

/// Each says a few messages, all at the same time, until it is closed; how
/// many came back, and how many clients were closed.
fn talk(mut clients: Vec<Client>, most: usize) -> Result<(usize, usize)> {
    let count = clients.len();
    let mut messages = 0;
    for _ in 0..most {
        for client in &mut clients {
            // It may have been closed already.
            let _seen_later = client.write_some(1_000);
        }
        let mut left = Vec::new();
        for mut client in clients {
            let goal = client.sent;
            if come_back(&mut client, goal)? {
                messages += 1;
                left.push(client);
            }
        }
        clients = left;
    }
    Ok((messages, count - clients.len()))
}

fn full_disk(context: &Context) -> Result<Outcome> {
    const LIMIT: u64 = 32 << 10;
    let count = context.at_once(context.size(40, 400));
    let start = Start { file_size: Some(LIMIT), ..Start::default() };
    let mut server = context.start_with(&start)?;
    let mut client = hurried(&server, 0)?;
    let first = client.round_trip(64);
    outlived(&mut server, first).context("the first client, alone")?;
    let has_file = holds_file(&server);
    client.finish()?;
    if !has_file {
        must_not_need_one(&context.target)?;
    }
    let crowd = crowd_at_once(context, &server, count);
    let (served, closed) = outlived(&mut server, crowd)
        .with_context(|| format!("with files of at most {LIMIT} bytes"))?;
    ensure!(served > 0, "none of {count} clients was served");
    ensure!(
        has_file || closed == 0,
        "{closed} of {count} clients were closed, though it has no file that \
         could be full"
    );
    // One at a time: what was enough for the first must be enough again.
    for id in 0..context.size(4, 40) {
        let mut client = hurried(&server, id)?;
        let later = client.round_trip(10_000).and_then(|_| client.finish());
        outlived(&mut server, later)
            .context("a client alone, after the crowd has gone")?;
    }
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "of {count} clients at once {served} were served and {closed} closed; \
         those who came later, one at a time, were all served"
    )))
}

/// Clients who have all spoken when the server comes to run: how many were
/// served, and how many closed.
fn crowd_at_once(
    context: &Context,
    server: &Server,
    count: usize,
) -> Result<(usize, usize)> {
    let mut clients = Vec::new();
    for id in 0..count {
        clients.push(hurried(server, id)?);
    }
    server.signal_all(Signal::SIGSTOP)?;
    let spoken = clients
        .iter_mut()
        .try_for_each(|client| client.send(context.size(10_000, 16_000)));
    server.signal_all(Signal::SIGCONT)?;
    spoken?;
    let mut served = 0;
    for client in &mut clients {
        let goal = client.sent;
        served += usize::from(come_back(client, goal)?);
    }
    Ok((served, count - served))
}

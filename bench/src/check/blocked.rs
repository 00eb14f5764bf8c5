//! Clients that do not take what they are owed: the pressure must act on them
//! alone, not on the server's memory, its CPU time or other clients.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytesize::ByteSize;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Case, Context, Outcome, ensure_idle, passed};
use crate::harness::{
    Client, Connect, Observation, PATIENCE, Server, unread_by_server,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "slow_reader",
        means: "a client that takes its bytes slowly gets all of them, and \
                brisk clients beside it do not notice",
        alone: false,
        run: slow_reader,
    },
    Case {
        name: "never_reader",
        means: "clients that send and never read are soon not read from any \
                more: the server's memory stays bounded, it sleeps, and brisk \
                clients beside them are served",
        alone: false,
        run: never_reader,
    },
    Case {
        name: "half_close_while_blocked",
        means: "FIN that arrives while the server cannot send loses nothing: \
                all that was sent comes back when the client reads at last",
        alone: false,
        run: half_close_while_blocked,
    },
    Case {
        name: "reset_while_blocked",
        means: "a reset that arrives while the server cannot send ends that \
                connection, leaves nothing behind and disturbs nobody",
        alone: false,
        run: reset_while_blocked,
    },
];

/// A number of bytes, for the eye.
fn bytes(count: u64) -> String {
    ByteSize::b(count).display().iec().to_string()
}

/// A client whose side of the connection takes little: most of what it is
/// owed stays with the server.
pub(super) fn narrow() -> Connect {
    let receive_buffer = Some(32 * KIB as usize);
    Connect { receive_buffer, ..Connect::default() }
}

/// Clients that must be answered without delay.
fn brisk_clients(server: &Server, count: usize) -> Result<Vec<Client>> {
    let patience = Some(Duration::from_secs(3));
    let how = Connect { patience, ..Connect::default() };
    // Their numbers leave room for the clients they stand beside.
    (0..count)
        .map(|id| server.client_with(1_000 + u32::try_from(id)?, &how))
        .collect()
}

/// How long nothing may move until a client counts as blocked.
const STILL: u8 = 60;

/// Sends `count` bytes without reading; false when the server takes no more.
fn sends(client: &mut Client, count: u64) -> Result<bool> {
    // More than the socket buffers of both sides hold, both ways.
    let most = 96 * MIB;
    let goal = client.sent + count;
    client.socket.set_nonblocking(true)?;
    while client.sent < goal {
        match client.write_some(usize::try_from(goal - client.sent)?) {
            Ok(_) => ensure!(
                client.sent < most,
                "the server took {} from client {}, which reads nothing: it \
                 reads on while it cannot send",
                bytes(client.sent),
                client.id
            ),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let socket = client.socket.as_fd();
                let mut fds = [PollFd::new(socket, PollFlags::POLLOUT)];
                if poll(&mut fds, PollTimeout::from(STILL))? == 0 {
                    break;
                }
            }
            Err(error) => {
                let (id, sent) = (client.id, client.sent);
                return Err(error).with_context(|| {
                    format!("client {id}: send, after {sent} bytes")
                });
            }
        }
    }
    client.socket.set_nonblocking(false)?;
    Ok(client.sent == goal)
}

/// Sends without reading until the server takes no more.
pub(super) fn send_until_blocked(client: &mut Client) -> Result<()> {
    while sends(client, MIB)? {}
    Ok(())
}

/// Sends without reading until the server has stopped reading, but its
/// receive buffer has room: FIN then reaches it while its output is blocked.
pub(super) fn send_until_unread(
    server: &Server,
    client: &mut Client,
) -> Result<()> {
    let own = client.socket.local_addr()?;
    let still = Duration::from_millis(STILL.into());
    let mut unread_since = None;
    loop {
        if unread_by_server(server.addr, own) == 0 {
            unread_since = None;
            // Two MiB fit into any server's send buffer; after that no more
            // than its receive buffer has room for, or FIN would be stuck.
            let early = client.sent < MIB;
            if !sends(client, if early { 2 * MIB } else { 32 * KIB })? {
                return Ok(());
            }
        } else if unread_since.get_or_insert_with(Instant::now).elapsed()
            > still
        {
            return Ok(());
        } else {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Holds the server's memory against its bound: a buffer (16 KiB if not said
/// otherwise), or as many as the model says, for each blocked connection, and
/// some for its tables.
fn ensure_bounded(
    context: &Context,
    server: &Server,
    before: &Observation,
    blocked: usize,
) -> Result<String> {
    let (each, slack) = if context.target.is_ours() {
        (16 * KIB * context.limits.owed_buffers as u64, MIB)
    } else {
        // Other programs choose their own buffers, and may collect garbage.
        (MIB, 32 * MIB)
    };
    let grown = server.observe().memory.saturating_sub(before.memory);
    let bound = each * blocked as u64 + slack;
    ensure!(
        grown <= bound,
        "the server's memory grew by {} with {blocked} blocked clients; at \
         most {} is bounded",
        bytes(grown),
        bytes(bound)
    );
    Ok(format!("memory grew by {}", bytes(grown)))
}

/// One round trip of every client; the slowest.
fn round(clients: &mut [Client], count: usize) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for client in clients {
        let took = client.round_trip(count).context("a brisk client")?;
        slowest = slowest.max(took);
    }
    Ok(slowest)
}

/// How the brisk clients of a server with limits are spoken of.
fn beside(count: usize, slowest: Duration) -> String {
    match count {
        0 => "nobody beside it (one client at a time)".to_string(),
        count => {
            format!(
                "{count} brisk ones beside it, slowest answer {slowest:.1?}"
            )
        }
    }
}

fn slow_reader(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let mut random = context.random();
    let mut slow = server.client_with(0, &narrow())?;
    slow.round_trip(100)?;
    let mut brisk = brisk_clients(&server, context.at_once(51) - 1)?;
    round(&mut brisk, 100)?;
    let before = server.observe();
    // So much that the server's writes come out short, whatever the kernel's
    // buffers hold, and then some.
    send_until_blocked(&mut slow)?;
    let goal = slow.sent + context.size(MIB, 16 * MIB);
    slow.socket.set_nonblocking(true)?;
    let deadline = Instant::now() + 6 * PATIENCE;
    let (mut slowest, mut turn) = (Duration::ZERO, 0);
    let (mut moved, mut moved_at) = (0, Instant::now());
    while slow.received < goal {
        // It sends as much as the server takes, and reads a little.
        while slow.sent < goal {
            let left = usize::try_from(goal - slow.sent)?;
            match slow.write_some(left) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    break;
                }
                Err(error) => return Err(error).context("slow client: send"),
            }
        }
        if slow.read_some(32 * KIB as usize)? == Some(0) {
            bail!(
                "the server closed on the slow reader after {} of {} bytes",
                slow.received,
                slow.sent
            );
        }
        if slow.received > moved {
            (moved, moved_at) = (slow.received, Instant::now());
        }
        ensure!(
            moved_at.elapsed() < PATIENCE && Instant::now() < deadline,
            "the slow reader waited {:.1?} for byte {} of {}",
            moved_at.elapsed(),
            slow.received,
            slow.sent
        );
        if brisk.is_empty() {
            thread::sleep(Duration::from_micros(100));
        } else {
            // Five of them in each turn, with messages of up to a buffer.
            for step in 0..5 {
                let at = (turn * 5 + step) % brisk.len();
                let count = random.usize(1..=16 * KIB as usize);
                slowest = slowest.max(round(&mut brisk[at..=at], count)?);
            }
        }
        turn += 1;
    }
    let memory = ensure_bounded(context, &server, &before, 1)?;
    slow.socket.set_nonblocking(false)?;
    slow.finish().context("the slow reader")?;
    let count = brisk.len();
    for client in brisk {
        client.finish()?;
    }
    // Where clients wait their turn, it has come.
    server.client(1)?.finish().context("a client after the slow reader")?;
    server.stop()?;
    passed(format!(
        "the slow reader got its {}; {}; {memory}",
        bytes(goal),
        beside(count, slowest)
    ))
}

fn never_reader(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let rest = server.at_rest()?;
    let blocked = match context.limits.clients {
        None => context.size(3, 20),
        Some(_) => 1,
    };
    let mut stuck = (0..blocked)
        .map(|id| server.client_with(u32::try_from(id)?, &narrow()))
        .collect::<Result<Vec<_>>>()?;
    for client in &mut stuck {
        client.round_trip(100)?;
    }
    let mut brisk =
        brisk_clients(&server, context.at_once(50 + blocked) - blocked)?;
    round(&mut brisk, 1_000)?;
    let before = server.observe();
    for client in &mut stuck {
        send_until_blocked(client)?;
    }
    let idle = ensure_idle(context, &server, "they are stuck")?;
    let mut slowest = Duration::ZERO;
    for _ in 0..context.size(4, 200) {
        slowest = slowest.max(round(&mut brisk, 1_000)?);
    }
    let memory = ensure_bounded(context, &server, &before, blocked)?;
    let taken: u64 = stuck.iter().map(|client| client.sent).sum();
    // Those that a server with limits lets wait get their turn.
    let waiting = if brisk.is_empty() { 2 } else { 0 };
    let mut late = brisk_clients(&server, waiting)?;
    for client in &mut late {
        client.send(100)?;
    }
    for client in stuck {
        client.reset()?;
    }
    for mut client in late {
        client.receive(100).context("a client that waited")?;
        client.finish()?;
    }
    round(&mut brisk, 100).context("after the stuck ones reset")?;
    let count = brisk.len();
    for client in brisk {
        client.finish()?;
    }
    server.returns_to(&rest)?;
    server.stop()?;
    passed(format!(
        "{blocked} stuck after {} in all; {}; {memory}; {idle}",
        bytes(taken),
        beside(count, slowest)
    ))
}

fn half_close_while_blocked(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let mut total = 0;
    // FIN behind bytes the server cannot take, and FIN that it sees at once.
    for turn in 0..context.size(1, 5) {
        let mut full = server.client_with(2 * turn, &narrow())?;
        send_until_blocked(&mut full).context("until blocked")?;
        full.finish_sending()?;
        if context.at_once(2) < 2 {
            full.drain().context("FIN far behind the blocked bytes")?;
            total += full.sent;
        }
        let mut gentle = server.client_with(2 * turn + 1, &narrow())?;
        send_until_unread(&server, &mut gentle)?;
        gentle.finish_sending()?;
        // Time for the server to see it, and to do the wrong thing.
        thread::sleep(Duration::from_millis(20));
        gentle.drain().context("FIN while the output is blocked")?;
        total += gentle.sent;
        if context.at_once(2) > 1 {
            full.drain().context("FIN far behind the blocked bytes")?;
            total += full.sent;
        }
    }
    server.stop()?;
    passed(format!("all {} came, and FIN after them", bytes(total)))
}

fn reset_while_blocked(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let rest = server.at_rest()?;
    let mut resets = 0;
    for turn in 0..context.size(1, 5) {
        let mut stuck = Vec::new();
        for id in 0..context.at_once(context.size(2, 8)) {
            stuck.push(server.client_with(u32::try_from(id)?, &narrow())?);
        }
        for (at, client) in stuck.iter_mut().enumerate() {
            // Half of them while its receive buffer has room, the others
            // when that is full as well.
            if (at + turn) % 2 == 0 {
                send_until_blocked(client)?;
            } else {
                send_until_unread(&server, client)?;
            }
        }
        resets += stuck.len();
        for client in stuck {
            client.reset()?;
        }
        server.client(9)?.finish().context("a new client, after resets")?;
    }
    server.returns_to(&rest)?;
    server.stop()?;
    passed(format!(
        "{resets} blocked clients reset; nothing left behind, others served"
    ))
}

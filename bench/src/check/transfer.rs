//! Bytes come back: all of them, in order, to the client that sent them.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytesize::ByteSize;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use super::blocked::{narrow, send_until_blocked, send_until_unread};
use super::{Case, Context, Outcome, ensure_idle, passed};
use crate::harness::{
    Client, Connect, PATIENCE, Start, free_address, has_ipv6, pump,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "echo_of_any_size",
        means: "from 0 bytes to 64 MiB, sent and received in pieces of random \
                size, every byte comes back in its place, and then FIN",
        alone: false,
        run: echo_of_any_size,
    },
    Case {
        name: "one_byte_at_a_time",
        means: "each byte of a dribble comes back at once: a server may not \
                wait for more before it answers",
        alone: false,
        run: one_byte_at_a_time,
    },
    Case {
        name: "data_and_fin_together",
        means: "the last bytes and FIN arrive in one segment and wake the \
                server once: neither the bytes nor the end may be overlooked",
        alone: false,
        run: data_and_fin_together,
    },
    Case {
        name: "half_close_drains",
        means: "FIN only ends what the client sends: what it is owed, up to \
                megabytes, still comes before the server closes",
        alone: false,
        run: half_close_drains,
    },
    Case {
        name: "reset_in_transfer",
        means: "clients that reset in the middle of a transfer end their own \
                connection and leave nothing; the others miss no byte",
        alone: false,
        run: reset_in_transfer,
    },
    Case {
        name: "fin_then_reset",
        means: "FIN and a reset right behind it (the server writes to a peer \
                that is gone: EPIPE, SIGPIPE) end one connection only",
        alone: false,
        run: fin_then_reset,
    },
    Case {
        name: "tiny_socket_buffers",
        means: "with the smallest socket buffers a client can ask for, reads \
                and writes come out short, and no byte is lost or doubled",
        alone: false,
        run: tiny_socket_buffers,
    },
    Case {
        name: "out_of_band_byte",
        means: "urgent data neither makes the server spin nor disturbs the \
                bytes before and after it",
        alone: false,
        run: out_of_band_byte,
    },
    Case {
        name: "ipv6",
        means: "the server listens on an IPv6 address and echoes there",
        alone: false,
        run: ipv6,
    },
    Case {
        name: "two_clients_take_turns",
        means: "two clients that speak in turn each get their own bytes, at \
                once",
        alone: false,
        run: two_clients_take_turns,
    },
    Case {
        name: "many_clients_interleaved",
        means: "many clients send and receive in pieces of random size, all \
                at the same time, and each gets its own bytes only",
        alone: false,
        run: many_clients_interleaved,
    },
];

/// A number of bytes, for the eye.
fn bytes(count: u64) -> String {
    ByteSize::b(count).display().iec().to_string()
}

fn echo_of_any_size(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let mut random = context.random();
    // Around the default buffer, where an end can hide behind a full read.
    let mut sizes = vec![0, 1, 2, 100, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1];
    sizes.extend([64 * KIB, MIB + 1, context.size(4 * MIB, 64 * MIB)]);
    for (at, &size) in sizes.iter().enumerate() {
        let what = || format!("echo of {size} bytes");
        let mut client = [server.client(u32::try_from(at)?)?];
        pump(&mut client, size, 64 * KIB as usize, &mut random)
            .with_context(what)?;
        let [client] = client;
        client.finish().with_context(what)?;
    }
    server.stop()?;
    let (count, most) = (sizes.len(), bytes(sizes[sizes.len() - 1]));
    let total = bytes(sizes.iter().sum());
    passed(format!(
        "{count} messages of 0 bytes to {most}, {total} in all, every byte \
         compared"
    ))
}

fn one_byte_at_a_time(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let mut client = server.client(0)?;
    let turns = context.size(200, 5_000);
    for turn in 0..turns {
        client.round_trip(1).with_context(|| format!("turn {turn}"))?;
    }
    // And without waiting for each answer: many small segments.
    for _ in 0..turns {
        client.send(1)?;
    }
    client.finish()?;
    server.stop()?;
    passed(format!("{turns} bytes answered one by one, {turns} in a row"))
}

/// Sends `count` bytes and FIN so that the last bytes leave in one segment
/// with it.
fn send_with_fin(client: &mut Client, count: usize) -> Result<()> {
    let mut data = vec![0; count];
    client.payload.fill(client.sent, &mut data);
    let mut rest = &data[..];
    while !rest.is_empty() {
        // MSG_MORE holds the last, partial segment back; FIN takes it along.
        let more = MsgFlags::from_bits_retain(libc::MSG_MORE);
        let sent = send(client.socket.as_raw_fd(), rest, more)
            .with_context(|| format!("send of {} bytes", rest.len()))?;
        client.sent += sent as u64;
        rest = &rest[sent..];
    }
    client.finish_sending()
}

fn data_and_fin_together(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let mut random = context.random();
    let turns = context.size(40, 1_000);
    for turn in 0..turns {
        let mut client = server.client(turn)?;
        // Half of them after the server has seen the connection and sleeps.
        if turn % 2 == 0 {
            client.round_trip(1)?;
        }
        let count = match turn % 4 {
            0 => 1,
            1 => 16 * KIB as usize,
            _ => random.usize(1..=32 * KIB as usize),
        };
        send_with_fin(&mut client, count)
            .and_then(|()| client.drain())
            .with_context(|| format!("{count} bytes together with FIN"))?;
    }
    server.stop()?;
    passed(format!("{turns} times, 1 byte to 32 KiB with FIN, all echoed"))
}

fn half_close_drains(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let goal = 8 * MIB;
    let mut client = server.client(0)?;
    client.socket.set_nonblocking(true)?;
    // Reads only when nothing more can be sent, so that as much as possible
    // is on its way when FIN is sent.
    while client.sent < goal {
        let left = usize::try_from(goal - client.sent)?;
        match client.write_some(left) {
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("send"),
        }
        let both = PollFlags::POLLIN | PollFlags::POLLOUT;
        let mut fds = [PollFd::new(client.socket.as_fd(), both)];
        let limit = PollTimeout::try_from(PATIENCE)?;
        ensure!(
            poll(&mut fds, limit)? == 1,
            "nothing moved for {PATIENCE:?} after {} bytes sent and {} \
             received",
            client.sent,
            client.received
        );
        if fds[0].revents().is_some_and(|e| e.contains(PollFlags::POLLIN)) {
            client.read_some(16 * KIB as usize)?;
        }
    }
    client.socket.set_nonblocking(false)?;
    client.finish_sending()?;
    let owed = client.sent - client.received;
    client.drain()?;
    server.stop()?;
    passed(format!(
        "FIN after {}; the {} still on their way came, then FIN",
        bytes(goal),
        bytes(owed)
    ))
}

fn reset_in_transfer(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let mut random = context.random();
    let before = server.at_rest()?;
    let goal = context.size(256 * KIB, 4 * MIB);
    let most = 32 * KIB as usize;
    let (mut resets, mut others) = (0, 0);
    for _ in 0..context.size(3, 30) {
        let mut clients = server.clients(context.at_once(8))?;
        pump(&mut clients, goal / 2, most, &mut random)?;
        // A victim leaves bytes behind on the way to it and from it.
        let victims = clients.split_off(clients.len() / 2);
        for mut victim in victims {
            victim.send(random.usize(1..=most))?;
            victim.reset()?;
            resets += 1;
        }
        pump(&mut clients, goal, most, &mut random)
            .context("another client, after a reset")?;
        for client in clients {
            client.finish().context("another client, after a reset")?;
            others += 1;
        }
    }
    server.client(0)?.finish().context("a new client, after resets")?;
    server.returns_to(&before)?;
    server.stop()?;
    passed(format!(
        "{resets} clients reset; {others} beside them got their {} each; \
         nothing left behind",
        bytes(goal)
    ))
}

fn fin_then_reset(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let mut random = context.random();
    let before = server.at_rest()?;
    let turns = context.size(40, 1_000);
    for turn in 0..turns {
        let mut client = server.client(turn)?;
        client.send(random.usize(1..=32 * KIB as usize))?;
        client.finish_sending()?;
        // The reset meets the server before, in and after its answer.
        thread::sleep(Duration::from_micros(random.u64(0..2_000)));
        client.reset()?;
    }
    // The same while the server owes bytes it cannot send: the next write
    // after FIN and reset meets EPIPE, and not ECONNRESET.
    let blocked = context.size(1, 10);
    for turn in 0..blocked {
        let mut client = server.client_with(turn, &narrow())?;
        send_until_unread(&server, &mut client)?;
        client.finish_sending()?;
        thread::sleep(Duration::from_millis(5));
        client.reset()?;
    }
    server.client(0)?.finish().context("a new client, after resets")?;
    server.returns_to(&before)?;
    server.stop()?;
    passed(format!(
        "{turns} times, and {blocked} with the output blocked; nothing left \
         behind, others are served"
    ))
}

fn tiny_socket_buffers(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let mut random = context.random();
    // Where each send waits until the client has said that it has the bytes,
    // which it may put off, as much would take a minute.
    let patient = context.limits.lends_sent;
    let goal = if patient { 4 * KIB } else { context.size(64 * KIB, MIB) };
    // The kernel raises both to its smallest.
    let tiny = Connect {
        receive_buffer: Some(1),
        send_buffer: Some(1),
        ..Connect::default()
    };
    let connect = |how| -> Result<Vec<Client>> {
        (0..context.at_once(2))
            .map(|id| server.client_with(u32::try_from(id)?, how))
            .collect()
    };
    let mut clients = connect(&tiny)?;
    pump(&mut clients, goal, 16 * KIB as usize, &mut random)?;
    for client in clients {
        client.finish()?;
    }
    // The server's own buffer is large all the same: its writes are only
    // short when it is owed more than that, and sent in small windows. (The
    // smallest windows wait for the kernel's timers, megabytes for minutes.)
    let small = Connect { receive_buffer: Some(8_192), ..Connect::default() };
    let mut clients = connect(&small)?;
    for client in &mut clients {
        if patient {
            client.send(64 * KIB as usize)?;
        } else {
            send_until_blocked(client)?;
        }
    }
    let count = clients.len();
    let total = clients.iter().map(|client| client.sent).sum();
    for client in clients {
        client.finish()?;
    }
    server.stop()?;
    passed(format!(
        "{count} clients with the smallest buffers, {} each; {count} in a \
         small window, {} in all; every byte right",
        bytes(goal),
        bytes(total)
    ))
}

fn send_urgent(client: &Client) -> Result<()> {
    send(client.socket.as_raw_fd(), b"!", MsgFlags::MSG_OOB)
        .context("send of an urgent byte")?;
    Ok(())
}

fn out_of_band_byte(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let mut client = server.client(0)?;
    client.round_trip(1_000)?;
    send_urgent(&client)?;
    let idle = ensure_idle(context, &server, "an urgent byte waits")?;
    client.round_trip(1_000).context("bytes after the urgent one")?;
    // In the middle of a stream, the urgent mark cuts a read short.
    for _ in 0..context.size(5, 100) {
        client.send(5_000)?;
        send_urgent(&client)?;
        client.send(5_000)?;
        client.receive(10_000).context("bytes around the urgent one")?;
    }
    client.finish()?;
    server.stop()?;
    passed(format!("the bytes around it came back right; {idle}"))
}

fn ipv6(context: &Context) -> Result<Outcome> {
    if !has_ipv6() {
        return Ok(Outcome::Skipped("::1 is not there".to_string()));
    }
    let addr = if context.target.is_ours() {
        "[::1]:0".to_string()
    } else {
        free_address(Ipv6Addr::LOCALHOST.into())?.to_string()
    };
    let start = Start { addr: Some(addr), ..Start::default() };
    let server = context.start_with(&start)?;
    ensure!(
        matches!(server.addr, SocketAddr::V6(addr) if addr.ip().is_loopback()),
        "it says that it listens on {}",
        server.addr
    );
    let mut client = server.client(0)?;
    client.round_trip(100)?;
    client.finish()?;
    let addr = server.addr;
    server.stop()?;
    passed(format!("echoed at {addr}"))
}

fn two_clients_take_turns(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let turns = context.size(100, 2_000);
    let mut one = server.client(1)?;
    one.round_trip(100)?;
    let mut two = server.client(2)?;
    if context.at_once(2) < 2 {
        two.send(100)?;
        for _ in 0..turns {
            one.round_trip(100)?;
        }
        ensure_unserved(&two)?;
        one.finish()?;
        two.receive(100).context("the second, after the first has gone")?;
        two.finish()?;
        server.stop()?;
        return passed(
            "one client at a time: the second was served when the first had \
             gone"
                .to_string(),
        );
    }
    for turn in 0..turns {
        let turn = || format!("turn {turn}");
        one.round_trip(100).with_context(turn)?;
        two.round_trip(100).with_context(turn)?;
    }
    one.finish()?;
    two.round_trip(100).context("the second, after the first has gone")?;
    two.finish()?;
    server.stop()?;
    passed(format!("{turns} turns of 100 bytes each"))
}

/// A client beyond the limit of the model waits: nothing has come back yet.
fn ensure_unserved(client: &Client) -> Result<()> {
    let mut fds = [PollFd::new(client.socket.as_fd(), PollFlags::POLLIN)];
    ensure!(
        poll(&mut fds, PollTimeout::ZERO)? == 0,
        "client {} was answered, although the row says that it waits",
        client.id
    );
    Ok(())
}

fn many_clients_interleaved(context: &Context) -> Result<Outcome> {
    let server = context.start()?;
    let mut random = context.random();
    let goal = context.size(32 * KIB, 256 * KIB);
    let mut clients = server.clients(context.size(24, 200))?;
    let count = clients.len();
    let at_once = context.at_once(count);
    // The clients that wait have spoken already: their bytes must keep.
    for client in &mut clients {
        client.send(100)?;
    }
    let mut groups = 0;
    while !clients.is_empty() {
        let later = clients.split_off(at_once.min(clients.len()));
        pump(&mut clients, goal, 8 * KIB as usize, &mut random)?;
        for client in clients {
            client.finish()?;
        }
        clients = later;
        groups += 1;
    }
    server.stop()?;
    let waited = if groups == 1 {
        String::new()
    } else {
        format!(", {at_once} at a time")
    };
    passed(format!("{count} clients, {} each{waited}", bytes(goal)))
}

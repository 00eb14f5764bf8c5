//! Who is measured against must be an echo server as well: the peers keep what
//! any user of theirs would expect, and the floor is what it says it is.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use bench::check::{self, Context, Outcome, Tier};
use bench::harness::{
    self, Client, Connect, PATIENCE, Server, Start, Target, run_to_end,
};
use bench::models::{Model, PEERS};
use libtest_mimic::{Arguments, Trial};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

/// What a server must keep that others are measured against. tokio, when it is
/// used like this, does not keep all that the servers of this workspace do: a
/// task owns its buffer also while its client says nothing
/// (`many_idle_few_active`, `memory_after_many`), EINTR ends a connection
/// (`injected_eintr`; the kernel gives none for a socket that does not block),
/// and a mark of urgent data may hide what follows it (`out_of_band_byte`).
const PROMISED: &[&str] = &[
    "echo_of_any_size",
    "data_and_fin_together",
    "half_close_drains",
    "reset_in_transfer",
    "tiny_socket_buffers",
    "ipv6",
    "many_clients_interleaved",
    "slow_reader",
    "never_reader",
    "half_close_while_blocked",
    "thousand_at_once",
    "connect_and_close_storm",
    "out_of_descriptors",
    "injected_accept_errors",
    "idle_cpu",
    "first_line",
];

/// The row that is no server.
const FLOOR: &str = "floor";

fn main() -> ExitCode {
    bench::serve_if_asked();
    harness::raise_descriptor_limit();
    let mut args = Arguments::from_args();
    args.test_threads = Some(args.test_threads.unwrap_or(6).min(6));
    let mut trials = Vec::new();
    for peer in PEERS {
        let mut trial = |name: &str, run: fn(&'static Model) -> Result<()>| {
            let name = format!("{}::{name}", peer.name);
            trials.push(Trial::test(name, move || {
                run(peer).map_err(|error| format!("{error:#}").into())
            }));
        };
        trial("usage_errors_take_one_line", usage_errors_take_one_line);
        trial("signals_end_it_with_success", signals_end_it_with_success);
        if peer.name == FLOOR {
            trial("goes_round_in_fixed_order", goes_round_in_fixed_order);
            trial("one_client_is_a_ping_pong", one_client_is_a_ping_pong);
            trial("takes_exactly_its_clients", takes_exactly_its_clients);
            trial("a_reset_ends_it_too", a_reset_ends_it_too);
            continue;
        }
        for name in PROMISED {
            let trial = format!("{}::{name}", peer.name);
            trials.push(Trial::test(trial, move || {
                keeps(peer, name).map_err(|error| format!("{error:#}").into())
            }));
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

fn keeps(peer: &'static Model, name: &str) -> Result<()> {
    let case = check::cases().find(|case| case.name == name);
    let case = case.with_context(|| format!("no case is called {name}"))?;
    let target = Target::Model(peer);
    let context = Context::new(target, Tier::Quick, fastrand::u64(..));
    let seed = context.seed;
    match check::run(case, &context).0 {
        Ok(Outcome::Passed(_)) => Ok(()),
        Ok(Outcome::Skipped(reason)) => {
            println!("{}::{name} SKIPPED: {reason}", peer.name);
            Ok(())
        }
        Ok(Outcome::Excluded(why)) => bail!("not promised after all: {why}"),
        Err(error) => Err(error).context(format!("seed {seed}")),
    }
}

fn usage_errors_take_one_line(peer: &'static Model) -> Result<()> {
    let lines: [(&[&str], &str); 5] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--buffer", "lots"], "lots"),
        (&["--buffer", "0"], "0"),
        (&["--connections", "none"], "--connections"),
        (&["surplus"], "surplus"),
    ];
    for (args, named) in lines {
        let start = Start::with_args(args);
        let exit = run_to_end(&Target::Model(peer), &start, PATIENCE)?;
        let said = exit.stderr;
        ensure!(
            exit.status.code() == Some(2)
                && said.lines().count() == 1
                && said.contains(named)
                && exit.stdout.is_empty(),
            "{args:?}: {}, stderr '{said}', stdout '{}'",
            exit.status,
            exit.stdout
        );
    }
    Ok(())
}

fn signals_end_it_with_success(peer: &'static Model) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server =
            Server::start(&Target::Model(peer), &Start::default())?;
        // Also while it sleeps in the middle of its work.
        let mut client = server.client(0)?;
        client.round_trip(64)?;
        server.signal(signal)?;
        let status = server.wait_exit(PATIENCE)?;
        ensure!(status.code() == Some(0), "{signal}: it ended with {status}");
    }
    Ok(())
}

fn floor_of(peer: &'static Model, connections: &str) -> Result<Server> {
    let start = Start::with_args(&["--connections", connections]);
    Server::start(&Target::Model(peer), &start)
}

/// Whether bytes come to the client within a time in which any server that
/// looks who is ready would have answered.
fn is_answered(client: &Client) -> Result<bool> {
    let limit = PollTimeout::from(60_u8);
    let mut fds = [PollFd::new(client.socket.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, limit)? > 0)
}

fn goes_round_in_fixed_order(peer: &'static Model) -> Result<()> {
    let mut server = floor_of(peer, "3")?;
    let mut clients = server.clients(2)?;
    clients[0].send(64)?;
    ensure!(!is_answered(&clients[0])?, "it began before it had its clients");
    clients.push(server.client(2)?);
    clients[0].receive(64)?;
    for round in 0..5 {
        // Now it is the second's turn, whoever else has spoken.
        clients[0].send(64)?;
        clients[2].send(64)?;
        for early in [0, 2] {
            ensure!(
                !is_answered(&clients[early])?,
                "round {round}: client {early} was answered before client 1"
            );
        }
        clients[1].round_trip(64)?;
        clients[2].receive(64)?;
        clients[0].receive(64)?;
    }
    let last = clients.remove(1);
    last.finish()?;
    let status = server.wait_exit(PATIENCE).context("after one has closed")?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

fn one_client_is_a_ping_pong(peer: &'static Model) -> Result<()> {
    let mut server = Server::start(&Target::Model(peer), &Start::default())?;
    let mut client = server.client(0)?;
    for size in [1, 64, 16 << 10, 40_000] {
        client.round_trip(size)?;
    }
    client.finish()?;
    let status = server.wait_exit(PATIENCE)?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

fn takes_exactly_its_clients(peer: &'static Model) -> Result<()> {
    let server = floor_of(peer, "2")?;
    let mut clients = server.clients(2)?;
    for client in &mut clients {
        client.round_trip(64)?;
    }
    match harness::connect(server.addr, &Connect::default()) {
        Ok(_) => bail!("a third client is let in"),
        Err(error) => {
            let cause = error.root_cause().downcast_ref::<std::io::Error>();
            ensure!(
                cause.map(std::io::Error::kind)
                    == Some(ErrorKind::ConnectionRefused),
                "a third client: {error:#}"
            );
        }
    }
    for client in &mut clients {
        client.round_trip(64)?;
    }
    server.stop()
}

fn a_reset_ends_it_too(peer: &'static Model) -> Result<()> {
    let mut server = floor_of(peer, "2")?;
    let mut clients = server.clients(2)?;
    for client in &mut clients {
        client.round_trip(64)?;
    }
    clients.remove(0).reset()?;
    let status = server.wait_exit(PATIENCE)?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

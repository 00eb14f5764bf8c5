//! What watching costs a server, in messages a second.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bench::harness::{Client, Server, Start, Target};
use bench::measure::Cores;
use bench::models::Model;
use nix::sys::signal::Signal;

use super::data::Slowdown;

/// Of so many turns the one in the middle counts.
const TURNS: usize = 7;
/// How long each is: short, because a machine that becomes faster or slower
/// then does so for both sides.
const TURN: Duration = Duration::from_millis(30);
/// Bytes of a message.
const SIZE: usize = 64;
/// So many clients speak at a time, or as many as are served at a time: enough
/// that the server does not sleep much.
const CLIENTS: usize = 8;

/// How many messages a server of this model echoes in a second, watched and
/// left alone: two servers, in turns, on another core than their clients.
///
/// # Errors
///
/// What kept a server from starting or answering.
pub fn measure(model: &'static Model) -> Result<Slowdown> {
    // A thread of its own, which can be moved to a core.
    let measured =
        thread::scope(|scope| scope.spawn(|| on_their_cores(model)).join());
    measured.unwrap_or_else(|_| Err(anyhow!("the clients' thread panicked")))
}

fn on_their_cores(model: &'static Model) -> Result<Slowdown> {
    let cores = Cores::choose()?;
    cores.pin_generator()?;
    let record = ["--watch", "json", "--watch-file", "/dev/null"];
    let mut told = Side::start(model, &record, &cores).context("watched")?;
    let mut alone = Side::start(model, &["--watch", "off"], &cores)?;
    let (mut watched, mut unwatched) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        watched.push(told.turn()?);
        unwatched.push(alone.turn()?);
    }
    let (watched, unwatched) = (middle(watched), middle(unwatched));
    Ok(Slowdown { watched, unwatched })
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// One of the two servers, with its clients.
struct Side {
    clients: Vec<Client>,
    server: Server,
    /// It would take a core in the other one's turns.
    pauses: bool,
}

impl Side {
    fn start(
        model: &'static Model,
        args: &[&str],
        cores: &Cores,
    ) -> Result<Side> {
        let cores = cores.for_server();
        let start = Start { cores, ..Start::with_args(args) };
        let server = Server::start(&Target::Model(model), &start)?;
        let limits = &model.limits;
        let served = limits.clients.unwrap_or(CLIENTS).min(CLIENTS);
        let mut clients = server.clients(served)?;
        // The first message waits for the accept, or for a fork.
        for client in &mut clients {
            client.round_trip(SIZE)?;
        }
        let pauses = limits.burns_core || limits.idle_wakes;
        let side = Side { clients, server, pauses };
        side.tell(Signal::SIGSTOP)?;
        Ok(side)
    }

    /// Messages a second.
    fn turn(&mut self) -> Result<f64> {
        self.tell(Signal::SIGCONT)?;
        let begin = Instant::now();
        let mut messages = 0;
        while begin.elapsed() < TURN {
            for client in &mut self.clients {
                client.send(SIZE)?;
            }
            for client in &mut self.clients {
                client.receive(SIZE)?;
            }
            messages += self.clients.len();
        }
        let rate = messages as f64 / begin.elapsed().as_secs_f64();
        self.tell(Signal::SIGSTOP)?;
        Ok(rate)
    }

    fn tell(&self, signal: Signal) -> Result<()> {
        match self.pauses {
            true => self.server.signal_all(signal),
            false => Ok(()),
        }
    }
}

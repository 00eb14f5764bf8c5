//! A server with its load, both ready for their next turn.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::{Servers, Spot};
use crate::harness::{Server, Start, Target, proc_text, tasks_of};
use crate::load::{Generator, Plan, Span, Turn};
use crate::measure::{Cores, Counted, Counting, Snapshot, Standing, Taken};
use crate::models::{Model, is_peer};
use crate::results::Load;

/// What holds for all servers alike.
#[derive(Clone)]
pub struct Setting {
    /// `--buffer`, in bytes.
    pub buffer: usize,
    /// Who runs where.
    pub cores: Cores,
}

impl Setting {
    /// The same with the cores that these servers are to have; an error where
    /// there are not as many.
    fn of(&self, servers: &Servers) -> Result<Setting> {
        let Some(count) = servers.cores else { return Ok(self.clone()) };
        let cores = self.cores.with_server_on(count);
        let cores = cores.with_context(|| format!("needs {count} cores"))?;
        Ok(Setting { cores, ..self.clone() })
    }
}

/// A server and the connections of its load. Between its turns nothing of it
/// moves: a server that would take a core then is stopped.
pub struct Contender {
    /// Its row of the table.
    pub model: &'static Model,
    generator: Generator,
    server: Server,
    pauses: bool,
}

impl Contender {
    /// Starts the server and connects the load's clients; when it returns, the
    /// idle ones have been answered.
    ///
    /// # Errors
    ///
    /// What kept the server or the load from starting.
    pub fn start(
        model: &'static Model,
        spot: &Spot,
        setting: &Setting,
    ) -> Result<Contender> {
        let setting = setting.of(&spot.servers)?;
        let mut server = start(model, spot, &setting)
            .with_context(|| format!("{} does not start", model.name))?;
        // The floor ends with its first client; whoever ends before its last
        // turn fails the load.
        server.may_end();
        let plan = plan(server.addr, &spot.load)?;
        let core = setting.cores.generator;
        let generator = Generator::start(&plan, core)
            .with_context(|| model.name.to_owned())?;
        let limits = &model.limits;
        let pauses = limits.burns_core || limits.idle_wakes || polls(&server);
        let contender = Contender { model, generator, server, pauses };
        contender.pause(Signal::SIGSTOP)?;
        Ok(contender)
    }

    /// One turn, from quiet to quiet, and what it took of the server.
    ///
    /// # Errors
    ///
    /// What the server did wrong.
    pub fn turn(&mut self, span: Span) -> Result<(Turn, Taken)> {
        self.pause(Signal::SIGCONT)?;
        let before = Snapshot::of(&self.server)?;
        let turn = self.generator.turn(span);
        let after = Snapshot::of(&self.server)?;
        self.pause(Signal::SIGSTOP)?;
        let turn = turn.with_context(|| self.model.name.to_owned())?;
        Ok((turn, after.since(&before)))
    }

    /// A turn in which the server's system calls are counted, which makes it
    /// slower: it is no measurement of time. That they cannot be counted is
    /// no fault of the server's.
    ///
    /// # Errors
    ///
    /// What the server did wrong.
    pub fn count_calls(
        &mut self,
        span: Span,
    ) -> Result<(Turn, Result<Counted>)> {
        self.pause(Signal::SIGCONT)?;
        let counting = Counting::begin(&self.server);
        let turn = self.generator.turn(span);
        let counted = counting.and_then(Counting::end);
        self.pause(Signal::SIGSTOP)?;
        Ok((turn.with_context(|| self.model.name.to_owned())?, counted))
    }

    /// Memory, threads and processes of the server now.
    pub fn standing(&self) -> Standing {
        Standing::of(&self.server)
    }

    /// The load generator, for what it has seen over all turns.
    pub fn generator(&mut self) -> &mut Generator {
        &mut self.generator
    }

    fn pause(&self, signal: Signal) -> Result<()> {
        match self.pauses {
            true => self.server.signal_all(signal),
            false => Ok(()),
        }
    }
}

/// Whether a thread of the kernel's polls for what it submits to an io_uring:
/// it goes on with that for a while when nothing comes any more.
fn polls(server: &Server) -> bool {
    let poller = |pid: i32, tid: i32| {
        let comm = proc_text(&format!("/proc/{pid}/task/{tid}/comm"));
        comm.is_ok_and(|name| name.starts_with("iou-sqp-"))
    };
    let entries = server.entries();
    let mut entries = entries.iter().filter(|it| !it.zombie);
    entries.any(|it| tasks_of(it).iter().any(|&tid| poller(it.pid, tid)))
}

fn start(
    model: &'static Model,
    spot: &Spot,
    setting: &Setting,
) -> Result<Server> {
    let mut args = vec!["--buffer".to_owned(), setting.buffer.to_string()];
    if model.name == "floor" {
        args.extend([
            "--connections".to_owned(),
            spot.load.connections.to_string(),
        ]);
    }
    if !is_peer(model) {
        args.extend(["--watch", "off"].map(str::to_owned));
    }
    args.extend(spot.servers.args.iter().map(|it| (*it).to_owned()));
    let cores = Some(setting.cores.server.clone());
    let start = Start { args, cores, ..Start::default() };
    Server::start(&Target::Model(model), &start)
}

fn plan(addr: SocketAddr, load: &Load) -> Result<Plan> {
    let some = |count| NonZeroUsize::new(count).context("a load of nothing");
    Ok(Plan {
        connections: some(load.connections)?,
        idle: load.idle,
        loud: load.loud,
        size: some(load.size)?.into(),
        depth: some(load.depth)?,
        rate: load.rate,
        messages_per_connection: load
            .messages_per_connection
            .and_then(NonZeroU64::new),
        // It was started here, and without being watched.
        watched: true,
        ..Plan::new(addr)
    })
}

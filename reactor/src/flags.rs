use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use echo::Watch;

use crate::board::{SEATS, Seat};
use crate::business::Slow;
use crate::demultiplexer::{Demultiplexer, Epoll, Poll, Select, Trigger, best};
use crate::echo_handler::Rules;
use crate::forms::pool::Jobs;

/// What this model adds to the common command line.
#[derive(Args, Clone)]
pub struct Flags {
    /// Who waits, and who works
    #[arg(long, default_value = "single")]
    pub form: Form,

    /// How many workers a pool has, or a master; by default as many as cores
    #[arg(long, value_name = "N", value_parser = number)]
    pub workers: Option<usize>,

    /// How many reactors serve, besides the one that accepts; by default as
    /// many as cores
    #[arg(long, value_name = "N", value_parser = number)]
    pub reactors: Option<usize>,

    /// Which of them gets the next client
    #[arg(long, value_name = "HOW")]
    pub deal: Option<Deal>,

    /// The call to wait with; best: epoll, then poll, then select
    #[arg(long, default_value = "best", value_name = "CALL")]
    pub demultiplexer: Call,

    /// Burn so much of a core on each message that begins with `!`
    #[arg(long, value_name = "DURATION", default_value = "0s",
          value_parser = echo::duration)]
    pub work: Duration,

    /// Sleep so long on each message that begins with `!`
    #[arg(long, value_name = "DURATION", default_value = "0s",
          value_parser = echo::duration)]
    pub sleep: Duration,

    /// Close clients that have said nothing for so long [default: never]
    #[arg(long, value_name = "DURATION", value_parser = echo::duration)]
    pub idle_timeout: Option<Duration>,
}

/// Who waits, and who works.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// One reactor, one thread
    Single,
    /// One reactor; worker threads do what takes long
    Pool,
    /// A reactor that accepts, and others, each in a thread, that serve
    Threads,
    /// One reactor, one thread; each client is an `async fn`
    Futures,
}

/// Which reactor gets the next client.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Deal {
    /// Each in turn
    RoundRobin,
    /// Whoever has the fewest
    LeastLoaded,
}

/// The call to wait with.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Call {
    Best,
    Select,
    Poll,
    EpollLt,
    EpollEt,
}

impl Flags {
    /// What is wrong with a command line that clap cannot know.
    pub fn check(&self) -> Result<(), String> {
        let of = |form, set: bool, flag: &str| match set && self.form != form {
            true => {
                let form = form.to_possible_value();
                let form =
                    form.map_or(String::new(), |it| it.get_name().into());
                Err(format!("{flag} belongs to --form {form}"))
            }
            false => Ok(()),
        };
        of(Form::Pool, self.workers.is_some(), "--workers")?;
        of(Form::Threads, self.reactors.is_some(), "--reactors")?;
        of(Form::Threads, self.deal.is_some(), "--deal")
    }

    pub fn workers(&self) -> usize {
        self.workers.unwrap_or_else(cores)
    }

    pub fn reactors(&self) -> usize {
        self.reactors.unwrap_or_else(cores)
    }

    pub fn deal(&self) -> Deal {
        self.deal.unwrap_or(Deal::RoundRobin)
    }

    pub fn slow(&self) -> Slow {
        Slow { work: self.work, sleep: self.sleep }
    }

    /// What holds for the connections of one reactor.
    pub fn rules<W>(
        &self,
        jobs: Option<Jobs<W>>,
        seat: Option<Seat>,
    ) -> Rules<W> {
        let (slow, idle_timeout) = (self.slow(), self.idle_timeout);
        Rules { slow, jobs, idle_timeout, seat }
    }

    pub fn demultiplexer<W: Watch>(
        &self,
        watch: W,
    ) -> Result<Box<dyn Demultiplexer>> {
        Ok(match self.demultiplexer {
            Call::Best => best(watch),
            Call::Select => Box::new(Select::new(watch)),
            Call::Poll => Box::new(Poll::new(watch)),
            Call::EpollLt => Box::new(Epoll::new(Trigger::Level, watch)?),
            Call::EpollEt => Box::new(Epoll::new(Trigger::Edge, watch)?),
        })
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from).min(SEATS)
}

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=SEATS) => Ok(n),
        _ => Err(format!("expected a number, 1 to {SEATS}")),
    }
}

use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use echo::{Fd, Watch};

use crate::board::{REACTORS, Seat};
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

    /// Who accepts, of a master and its workers
    #[arg(long, value_name = "HOW")]
    pub accept: Option<Accept>,

    /// Which reactor gets the next client
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

    /// Close clients that say and take nothing for so long [default: never]
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
    /// A master, and workers, each in a process with a reactor of its own
    Processes,
    /// One reactor, one thread; each client is an `async fn`
    Futures,
}

/// Who accepts, of a master and its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accept {
    /// All workers wait for clients, and all are woken by each
    Shared,
    /// All wait, and one is woken: EPOLLEXCLUSIVE (the default)
    Exclusive,
    /// One waits at a time, whoever has the mutex
    Mutex,
    /// Each has a queue of its own: SO_REUSEPORT
    Reuseport,
    /// The master accepts, and passes each client on: SCM_RIGHTS
    Passed,
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
        use Form::{Pool, Processes, Threads};
        let of = |forms: &[Form], set: bool, flag: &str| {
            if !set || forms.contains(&self.form) {
                return Ok(());
            }
            let names = forms.iter().filter_map(Form::to_possible_value);
            let names: Vec<_> =
                names.map(|it| it.get_name().to_owned()).collect();
            Err(format!("{flag} belongs to --form {}", names.join(" or ")))
        };
        of(&[Pool, Processes], self.workers.is_some(), "--workers")?;
        of(&[Threads], self.reactors.is_some(), "--reactors")?;
        of(&[Threads, Processes], self.deal.is_some(), "--deal")?;
        of(&[Processes], self.accept.is_some(), "--accept")?;
        if self.form != Processes {
            return Ok(());
        }
        if self.deal.is_some() && self.accept() != Accept::Passed {
            return Err("--deal belongs to --accept passed".to_owned());
        }
        let edges = self.demultiplexer == Call::EpollEt;
        let epoll =
            edges || matches!(self.demultiplexer, Call::Best | Call::EpollLt);
        match self.accept() {
            Accept::Exclusive if !epoll => {
                Err("--accept exclusive needs epoll".to_owned())
            }
            Accept::Mutex if edges => Err("--accept mutex needs a call that \
                                           tells what is still so: not \
                                           epoll-et"
                .to_owned()),
            _ => Ok(()),
        }
    }

    /// Without epoll, all workers are woken.
    pub fn accept(&self) -> Accept {
        self.accept.unwrap_or(match self.demultiplexer {
            Call::Select | Call::Poll => Accept::Shared,
            Call::Best | Call::EpollLt | Call::EpollEt => Accept::Exclusive,
        })
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

    /// One in which the listener's number is waited for by others, too.
    pub fn exclusive<W: Watch>(
        &self,
        listener: Fd,
        watch: W,
    ) -> Result<Box<dyn Demultiplexer>> {
        let trigger = match self.demultiplexer {
            Call::EpollEt => Trigger::Edge,
            _ => Trigger::Level,
        };
        match Epoll::new(trigger, watch) {
            Ok(epoll) => Ok(Box::new(epoll.exclusive(listener))),
            // Where epoll is forbidden, all are woken.
            Err(_) if self.accept.is_none() => self.demultiplexer(watch),
            Err(err) => Err(err),
        }
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
    available_parallelism().map_or(1, usize::from).min(REACTORS)
}

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=REACTORS) => Ok(n),
        _ => Err(format!("expected a number, 1 to {REACTORS}")),
    }
}

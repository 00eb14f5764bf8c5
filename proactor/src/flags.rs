use std::time::Duration;

use clap::{Args, ValueEnum};

/// What this model adds to the common command line.
#[derive(Args, Clone)]
pub struct Flags {
    /// Who carries the operations out
    #[arg(long, value_name = "WHO", default_value = "uring")]
    pub engine: Engine,

    /// How a client's bytes are asked for, of io_uring
    /// [default: single]
    #[arg(long, value_name = "HOW")]
    pub recv: Option<Recv>,

    /// Buffers that are given to the kernel in advance, of multishot; a power
    /// of two
    /// [default: 256]
    #[arg(long, value_name = "N", value_parser = buffers)]
    pub buffers: Option<u16>,

    /// A thread of the kernel's takes submissions, and polls for them so long
    /// before it sleeps
    #[arg(long, value_name = "IDLE", num_args = 0..=1,
          default_missing_value = "1ms", value_parser = echo::duration)]
    pub sqpoll: Option<Duration>,

    /// Let the ring keep the clients' files, so that it need not look for the
    /// file of a descriptor in each operation
    #[arg(long)]
    pub registered: bool,

    /// Send from our memory without a copy, where the kernel can
    #[arg(long, conflicts_with = "recv")]
    pub zero_copy: bool,

    /// How many threads serve, each with a ring and an accept queue of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = workers)]
    pub workers: usize,

    /// Say what of io_uring this kernel offers, and end
    #[arg(long)]
    pub probe: bool,
}

/// Who carries operations out.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The kernel: io_uring(7)
    Uring,
    /// Nobody else: each is made when epoll(7) says that it need not wait
    Emulated,
    /// Threads that glibc starts in this process: aio(7)
    Aio,
}

impl Flags {
    /// What is wrong with a command line that clap cannot know.
    pub fn check(&self) -> Result<(), String> {
        let of_uring = [
            ("--recv", self.recv.is_some()),
            ("--buffers", self.buffers.is_some()),
            ("--sqpoll", self.sqpoll.is_some()),
            ("--registered", self.registered),
            ("--zero-copy", self.zero_copy),
            ("--workers", self.workers > 1),
            ("--probe", self.probe),
        ];
        let given = of_uring.iter().find(|(_, given)| *given);
        match given.filter(|_| self.engine != Engine::Uring) {
            Some((flag, _)) => Err(format!(
                "{flag} belongs to --engine uring; leave one of the two out"
            )),
            None => Ok(()),
        }
    }

    pub fn recv(&self) -> Recv {
        self.recv.unwrap_or(Recv::Single)
    }

    pub fn buffers(&self) -> u16 {
        self.buffers.unwrap_or(256)
    }
}

/// How a client's bytes are asked for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Recv {
    /// One receive at a time, each with a buffer of its own
    Single,
    /// One order for all that come, into buffers that the kernel picks
    Multishot,
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=256) => Ok(n),
        _ => Err("expected a number of threads, 1 to 256".to_owned()),
    }
}

fn buffers(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(n @ 1..=32768) if u16::is_power_of_two(n) => Ok(n),
        _ => Err("expected a power of two, 1 to 32768".to_owned()),
    }
}

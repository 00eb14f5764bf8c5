use std::time::Duration;

use clap::{Args, ValueEnum};

/// What this model adds to the common command line.
#[derive(Args, Clone)]
pub struct Flags {
    /// Who carries the operations out
    #[arg(long, value_name = "WHO", default_value = "uring")]
    pub engine: Engine,

    /// How a client's bytes are asked for, of io_uring
    #[arg(long, value_name = "HOW", default_value = "single")]
    pub recv: Recv,

    /// Buffers that are given to the kernel in advance, of multishot; a power
    /// of two
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = buffers)]
    pub buffers: u16,

    /// A thread of the kernel's takes submissions, and polls for them so long
    /// before it sleeps
    #[arg(long, value_name = "IDLE", num_args = 0..=1,
          default_missing_value = "10ms", value_parser = echo::duration)]
    pub sqpoll: Option<Duration>,

    /// Let the ring keep the clients' files, so that it need not look for the
    /// file of a descriptor in each operation
    #[arg(long)]
    pub registered: bool,

    /// Send from our memory without a copy, where the kernel can
    #[arg(long)]
    pub zero_copy: bool,
}

/// Who carries operations out.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The kernel: io_uring(7)
    Uring,
}

/// How a client's bytes are asked for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Recv {
    /// One receive at a time, each with a buffer of its own
    Single,
    /// One order for all that come, into buffers that the kernel picks
    Multishot,
}

fn buffers(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(n @ 1..=32768) if u16::is_power_of_two(n) => Ok(n),
        _ => Err("expected a power of two, 1 to 32768".to_owned()),
    }
}

use clap::{Args, ValueEnum};

/// What this model adds to the common command line.
#[derive(Args)]
pub struct Flags {
    /// How signals reach the loop
    #[arg(long, value_enum, default_value = "sigwait")]
    pub delivery: Delivery,
    /// Which signal the kernel sends
    #[arg(long, value_enum, default_value = "realtime")]
    pub signal: Sent,
    /// Echo datagrams (RFC 862 over UDP) instead of connections
    #[arg(long)]
    pub udp: bool,
    /// Let other machines use --udp: a datagram's sender can be forged
    #[arg(long, requires = "udp")]
    pub allow_remote: bool,
}

/// How signals reach the loop.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Delivery {
    /// They stay blocked, and the loop takes them one by one (sigtimedwait)
    Sigwait,
    /// They interrupt the wait (ppoll), and a handler hands them to the loop
    Handler,
}

/// Which signal the kernel sends.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sent {
    /// A real-time signal for each event, with its descriptor (F_SETSIG)
    Realtime,
    /// SIGIO: one at a time, which does not say who is ready
    Sigio,
}

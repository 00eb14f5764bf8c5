//! What every echo server of this workspace needs and no server teaches: the
//! command line, bytes still owed, accepting's policy, watching, and stopping.
//! The calls that make a model (accept, read, write, wait) stand in its server.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "io-models shows Linux system calls and builds only on Linux: use a Linux \
     container, a virtual machine, or WSL2"
);

mod cli;
mod connections;
mod event;
mod listener;
mod listeners;
mod pending;
mod render;
mod server;
mod stop;
mod sys;
mod tally;
mod watch;
mod workers;

pub use cli::{NoFlags, address, duration, parse_or_end, size};
pub use connections::Connections;
pub use listener::{AcceptError, Listener, Timeout, dropped, refused};
pub use listeners::listeners;
pub use pending::{Pending, Scratch};
pub use render::{explain, render_if_asked};
pub use server::{Server, is_renderer, main, say};
pub use stop::{Stop, StopFd, StopFlag, StopSignal};
pub use sys::{accept4, shared, signal_set};
pub use tally::tally;
pub use watch::{Came, Region, Unwatched, Watch, Watched};

/// A descriptor's number, as the kernel reports it in readiness.
pub type Fd = std::os::fd::RawFd;

/// A peer is done for: it sent its FIN, or its connection failed. This ends one
/// connection and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl From<nix::errno::Errno> for Gone {
    fn from(_: nix::errno::Errno) -> Self {
        Gone
    }
}

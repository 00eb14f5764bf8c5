//! Echo as the users of tokio and of mio would write it well, and a floor: what
//! the servers of this workspace are measured against. None is a lesson.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Write, stdout};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen,
    setsockopt, socket, sockopt,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;

mod floor;
mod mio_echo;
mod tokio_echo;

/// Echo servers to measure against.
#[derive(Parser)]
#[command(name = "peers", max_term_width = 80)]
#[command(subcommand_required = true, arg_required_else_help = false)]
struct CommandLine {
    #[command(subcommand)]
    peer: Peer,
}

#[derive(Subcommand)]
enum Peer {
    /// tokio, all tasks on one thread
    Tokio(Common),
    /// tokio, a worker thread for each core
    TokioMulti(Common),
    /// mio, one thread, edge-triggered
    Mio(Common),
    /// The least that N connections can cost one thread; not a server
    #[command(after_help = floor::HELP)]
    Floor {
        #[command(flatten)]
        common: Common,

        /// How many clients it takes, and waits for before it begins
        #[arg(long, value_name = "N", default_value = "1")]
        connections: std::num::NonZeroUsize,
    },
}

#[derive(Args)]
struct Common {
    /// Where to listen; port 0 takes any free port
    #[arg(long, default_value = "127.0.0.1:7007")]
    addr: SocketAddr,

    /// The most that one read takes, and a connection may be owed
    #[arg(long, value_name = "BYTES", default_value = "16KiB",
          value_parser = buffer)]
    buffer: usize,
}

/// The most clients that wait in the accept queue; the kernel caps it.
const BACKLOG: i32 = 4096;

/// How long accepting rests when the system is short of something.
const PAUSE: Duration = Duration::from_millis(100);

/// The whole life of a peer; the first argument is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let peer = match CommandLine::try_parse_from(args) {
        Ok(line) => line.peer,
        Err(err) if !err.use_stderr() => err.exit(),
        Err(err) => {
            say(&format!("{}; see --help", first_words(&err)));
            return ExitCode::from(2);
        }
    };
    match serve(peer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            say(&format!("{err:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(peer: Peer) -> Result<()> {
    // It ends in the handler: no descriptor and no thread is there for it,
    // and nothing that a loop would have to look at.
    for signal in [SIGTERM, SIGINT] {
        let at_once = Arc::new(AtomicBool::new(true));
        register_conditional_shutdown(signal, 0, at_once)?;
    }
    match peer {
        Peer::Tokio(it) => tokio_echo::on_one_thread(listener(&it)?, it.buffer),
        Peer::TokioMulti(it) => tokio_echo::on_many(listener(&it)?, it.buffer),
        Peer::Mio(it) => mio_echo::serve(listener(&it)?, it.buffer),
        Peer::Floor { common, connections } => {
            floor::serve(listener(&common)?, common.buffer, connections.get())
        }
    }
}

/// Listens, and says where. The options are those of the workspace's servers;
/// accepted sockets inherit them.
fn listener(common: &Common) -> Result<TcpListener> {
    let addr = common.addr;
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .context("cannot make a socket")?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(addr))
        .and_then(|()| listen(&socket, Backlog::new(BACKLOG)?))
        .map_err(|errno| {
            let errno = io::Error::from(errno);
            anyhow!("cannot listen on {addr}: {errno}; choose another --addr")
        })?;
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr()?;
    // A closed stdout is no reason to end.
    let _ = writeln!(stdout(), "listening on {addr}");
    let _ = stdout().flush();
    Ok(listener)
}

/// Whether an error of accept is about one client that has gone: the next one
/// may be there already. After any other, trying again at once would spin.
fn is_of_one_client(err: &io::Error) -> bool {
    use nix::libc::{
        ECONNABORTED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINTR, ENETDOWN,
        ENETUNREACH, ENONET, ENOPROTOOPT, EOPNOTSUPP, EPERM, EPROTO, ETIMEDOUT,
    };
    matches!(
        err.raw_os_error(),
        Some(
            ECONNABORTED
                | ECONNRESET
                | EHOSTDOWN
                | EHOSTUNREACH
                | EINTR
                | ENETDOWN
                | ENETUNREACH
                | ENONET
                | ENOPROTOOPT
                | EOPNOTSUPP
                | EPERM
                | EPROTO
                | ETIMEDOUT
        )
    )
}

fn buffer(text: &str) -> Result<usize, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes @ 1..=0x4000_0000)) => Ok(bytes as usize),
        Ok(_) => Err("expected 1 byte to 1 GiB".to_owned()),
        Err(err) => Err(format!("{err}; expected such as 16KiB")),
    }
}

/// clap explains over several lines; the first paragraph says what is wrong
/// with which argument.
fn first_words(err: &clap::Error) -> String {
    let text = err.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    let line = words.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

fn say(line: &str) {
    // A closed stderr is no reason to end either.
    let _ = writeln!(io::stderr(), "peers: {line}");
}

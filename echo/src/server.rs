use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::socket::SockType;
use nix::unistd::Pid;

use crate::cli::{self, Common, How, eprint_line};
use crate::render::RENDER;
use crate::{Listener, Stop, Unwatched, Watch, Watched, tally};

/// A server, as `main` starts it.
pub trait Server {
    /// The program's name.
    const NAME: &'static str;
    /// The model in one line.
    const ABOUT: &'static str;
    /// The model in a few sentences, and what to try.
    const HELP: &'static str;
    /// What the model adds to the common command line.
    type Flags: Args;
    /// How this model learns that it must stop.
    type Stop: Stop;

    /// The kind of socket at which clients reach this server; or what is
    /// wrong with a command line that clap cannot know.
    fn transport(_: &Self::Flags, _: SocketAddr) -> Result<SockType, String> {
        Ok(SockType::Stream)
    }

    /// Serves echo on `listener` until told to stop.
    fn serve<W: Watch>(
        listener: Listener,
        stop: Self::Stop,
        flags: Self::Flags,
        watch: W,
    ) -> Result<()>;
}

static NAME: OnceLock<&str> = OnceLock::new();

/// The renderer's process; 0 while nobody watches.
static RENDERER: AtomicU32 = AtomicU32::new(0);

/// Whether this child is the renderer, which a server did not fork itself.
pub fn is_renderer(pid: Option<Pid>) -> bool {
    pid.is_some_and(|pid| pid.as_raw() as u32 == RENDERER.load(Relaxed))
}

/// The whole life of a server: reads the command line, listens, serves until
/// it is told to stop, and says in one line what it did.
pub fn main<S: Server>(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::render_if_asked();
    NAME.get_or_init(|| S::NAME);
    match run::<S>(args.into_iter()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            say(&format!("{err:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells the person who started the server, in one line.
pub fn say(line: &str) {
    let name = NAME.get().unwrap_or(&"echo");
    eprint_line(&format!("{name}: {line}"));
}

fn run<S: Server>(args: impl Iterator<Item = OsString>) -> Result<()> {
    let cli::CommandLine { common, flags } = cli::parse::<S>(args);
    let max_connections = common.max_connections.unwrap_or(usize::MAX);
    let kind = S::transport(&flags, common.addr)
        .unwrap_or_else(|why| cli::usage(S::NAME, &why));
    let listener = Listener::bind(
        kind,
        common.addr,
        common.backlog,
        max_connections,
        common.buffer,
    )?;
    let addr = listener.addr()?;
    if !addr.ip().is_loopback() {
        say(&format!(
            "warning: {addr} is open to other machines; echo knows no limits"
        ));
    }
    let tally = tally();
    let renderer = Renderer::start(&common)?;
    let stop = S::Stop::install(common.grace)?;
    // A closed stdout does not end a server: whoever started it may have read
    // all it wanted.
    let _ = writeln!(stdout(), "listening on {addr}");
    let _ = stdout().flush();
    match renderer {
        None => S::serve(listener, stop, flags, Unwatched)?,
        Some(renderer) => {
            // A watched server lives as long as its process.
            let pipe: &'static OwnedFd = Box::leak(Box::new(renderer.pipe));
            let pipe = pipe.as_fd();
            let watch = Watched::start(pipe, S::NAME, listener.fd(), &stop);
            let result = S::serve(listener, stop, flags, watch);
            crate::sys::close_for_good(pipe);
            let mut reader = renderer.process;
            let _ = reader.wait();
            result?;
        }
    }
    say(&tally.summary());
    Ok(())
}

/// The process that turns events into text or JSON, so that watching adds
/// neither a thread nor a signal handler to the server.
struct Renderer {
    process: Child,
    pipe: OwnedFd,
}

impl Renderer {
    fn start(common: &Common) -> Result<Option<Self>> {
        let format = match common.watch {
            How::Off => return Ok(None),
            How::Auto if !stderr().is_terminal() => return Ok(None),
            How::Auto | How::Text => "text",
            How::Json => "json",
        };
        eprint_line("watching: slower; --watch off to measure");
        let output = match &common.watch_file {
            None => Stdio::inherit(),
            Some(path) => File::create(path)
                .with_context(|| format!("--watch-file {}", path.display()))?
                .into(),
        };
        let (events, pipe) = std::io::pipe().context("pipe")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg(RENDER).arg(format);
        command.arg(common.watch_limit.to_string());
        command.arg(common.watch_every.to_string());
        command.arg(common.watch_live.to_string());
        command.stdin(events).stdout(Stdio::null()).stderr(output);
        let process = command.spawn().context("cannot start the renderer")?;
        RENDERER.store(process.id(), Relaxed);
        Ok(Some(Renderer { process, pipe: pipe.into() }))
    }
}

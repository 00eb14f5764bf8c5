//! What both measurements need: a server of this very program, and what the
//! kernel says of its processes.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write, stderr};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Becomes the server when the command line says so: what is measured is what
/// this program was built with.
pub fn serve_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1).peekable();
    // The renderer's command line is echo's own.
    echo::render_if_asked();
    (args.peek()? == "serve").then(|| echo::main::<reactor::Server>(args))
}

/// The program's end: an error is one line.
pub fn end(name: &str, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let _ = writeln!(stderr(), "{name}: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// How far a measurement is, in one line, if somebody looks on.
pub fn progress(line: &str) {
    if stderr().is_terminal() {
        let _ = write!(stderr(), "\r\x1b[K{line}");
    }
}

/// This very program, even if its file has been replaced since.
pub fn itself() -> Command {
    Command::new("/proc/self/exe")
}

/// A server; it ends with this, and its workers with it.
pub struct Server {
    /// The master.
    pub child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Server {
    /// A master with so many workers, all of which are there.
    pub fn start(accept: &str, workers: usize) -> Result<Self> {
        let mut child = itself()
            .args(["serve", "--addr", "127.0.0.1:0", "--watch", "off"])
            .args(["--form", "processes", "--accept", accept])
            .args(["--workers", &workers.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("it has a stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let addr = line.trim().rsplit(' ').next().map(str::parse);
        let addr = addr.context("its first line is empty")?;
        let server = Server { child, addr: addr.context("its address")? };
        let begin = Instant::now();
        while server.workers()?.len() < workers {
            ensure!(begin.elapsed() < PATIENCE, "its workers do not come");
            sleep(Duration::from_millis(1));
        }
        Ok(server)
    }

    /// Its workers.
    pub fn workers(&self) -> Result<Vec<i32>> {
        let pid = self.child.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(&path).context(path)?;
        let pids = text.split_whitespace().map(str::parse);
        pids.collect::<Result<_, _>>().context("no process number")
    }

    /// Stops it; what it said.
    pub fn stop(mut self) -> Result<String> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        let mut said = String::new();
        let stderr = self.child.stderr.take().context("it has a stderr")?;
        BufReader::new(stderr).read_to_string(&mut said)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}: {said}");
        Ok(said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// How long anything may take that should take no time.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The number behind `name` in a file of /proc.
pub fn field(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let number = rest.and_then(|rest| rest.split_whitespace().next());
    let number = number.with_context(|| format!("{path} has no {name}"))?;
    number.parse().with_context(|| format!("{path}: {name}"))
}

/// How many sockets a process has.
pub fn sockets(pid: i32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    let fds = fs::read_dir(&path).context(path)?.flatten();
    let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
    Ok(links.filter(|to| to.to_string_lossy().starts_with("socket:")).count())
}

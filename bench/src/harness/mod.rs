//! Starts a server as a child, watches it from outside through /proc, talks
//! to it with bytes that tell where they belong, and leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, close, getpid, getppid};

mod client;
mod observe;
pub mod sockets;

pub use client::{Client, Connect, Payload, connect, pump, reset};
pub(crate) use observe::{Entry, cpu_of, entry_of, proc_text, tasks_of};
pub use observe::{Observation, Standing};
pub use sockets::{
    CLOSE_WAIT, ESTABLISHED, LISTEN, TIME_WAIT, sockets_of, unread_by_server,
};

use observe::{is_in_group, is_runnable, tree_of, wants_of};

use crate::models::{Limits, Model, NO_LIMITS};
use crate::sys;

/// How long one wait may last before the case that waits has failed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What can be checked: a row of the table, the deliberately broken server,
/// or any program that listens where it is told to.
#[derive(Clone)]
pub enum Target {
    /// A row of the table of models.
    Model(&'static Model),
    /// `serve broken --fault NAME`.
    Broken(String),
    /// A line for the shell, in which `{addr}` stands for the address,
    /// `{host}` and `{port}` for its parts.
    Command(String),
}

impl Target {
    /// The name in reports.
    pub fn name(&self) -> &str {
        match self {
            Target::Model(model) => model.name,
            Target::Broken(fault) => fault,
            Target::Command(line) => line,
        }
    }

    /// What the target cannot do by its nature.
    pub fn limits(&self) -> &'static Limits {
        match self {
            Target::Model(model) => &model.limits,
            Target::Broken(_) | Target::Command(_) => &NO_LIMITS,
        }
    }

    /// Whether the target promises the common command line.
    pub fn is_ours(&self) -> bool {
        !matches!(self, Target::Command(_))
    }

    /// The command that starts it at `addr`, where one of ours also takes
    /// `args`.
    fn command(&self, addr: &str, args: &[String]) -> Result<Command> {
        let mut command;
        match self {
            Target::Model(model) => {
                command = Command::new("/proc/self/exe");
                command.args(["serve", model.name, "--addr", addr]);
            }
            Target::Broken(fault) => {
                command = Command::new("/proc/self/exe");
                command.args(["serve", "broken", "--fault", fault]);
                command.args(["--addr", addr]);
            }
            Target::Command(line) => {
                ensure!(args.is_empty(), "an external command has no flags");
                let addr = SocketAddr::from_str(addr)
                    .with_context(|| format!("address '{addr}'"))?;
                let line = line
                    .replace("{addr}", &addr.to_string())
                    .replace("{host}", &addr.ip().to_string())
                    .replace("{port}", &addr.port().to_string());
                command = Command::new("/bin/sh");
                command.arg("-c").arg(line);
            }
        }
        command.args(args);
        Ok(command)
    }
}

/// What is done with the child's standard output and error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Both are kept, to be read by the case.
    #[default]
    Captured,
    /// Both are pipes that nobody reads any more (EPIPE on every write).
    BrokenPipe,
    /// Both descriptors are closed.
    Closed,
}

/// Shares of a core: 1 is a whole one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoreShare {
    /// Taken by all threads.
    pub used: f64,
    /// The most that one of them took, or waited for because others had it;
    /// not less than was taken.
    pub wanted: f64,
}

/// How a server is started.
#[derive(Clone, Default)]
pub struct Start {
    /// Flags after the row's own.
    pub args: Vec<String>,
    /// RLIMIT_NOFILE, soft and hard.
    pub descriptors: Option<u64>,
    /// RLIMIT_SIGPENDING, soft and hard. The kernel holds it against the
    /// signals that are pending for all processes of the user.
    pub pending_signals: Option<u64>,
    /// RLIMIT_FSIZE, soft and hard; a standard output that is a file has it
    /// as well.
    pub file_size: Option<u64>,
    /// Where it listens; a free port of 127.0.0.1 if not said.
    pub addr: Option<String>,
    /// What its standard output and error are.
    pub output: Output,
    /// The cores that it and its children may run on; those of the thread
    /// that starts it if not said.
    pub cores: Option<Vec<usize>>,
    /// How long a program that is not ours may take until it listens;
    /// [`PATIENCE`] if not said.
    pub patience: Option<Duration>,
}

impl Start {
    /// With these flags, and the rest as usual.
    pub fn with_args(args: &[&str]) -> Start {
        Start {
            args: args.iter().map(ToString::to_string).collect(),
            ..Start::default()
        }
    }
}

/// How a program ended that was not expected to serve.
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said on standard error.
    pub stderr: String,
}

/// Starts `target` and waits until it ends by itself, as a usage error does.
pub fn run_to_end(
    target: &Target,
    start: &Start,
    limit: Duration,
) -> Result<Exit> {
    let addr = start.addr.as_deref().unwrap_or("127.0.0.1:0");
    let mut server = spawn(target, start, addr)?;
    let status = server.wait_exit(limit)?;
    Ok(Exit { status, stdout: server.stdout(), stderr: server.stderr() })
}

/// Lets this program, and the servers it starts, have as many descriptors as
/// the hard limit allows.
pub fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Failing leaves the soft limit, which a case then runs into by name.
        let _unchanged = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// How many descriptors this program, and each server, may have at most.
pub fn descriptor_limit() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    usize::try_from(hard).unwrap_or(usize::MAX)
}

/// The process groups of all servers that run now.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills every server started here, and exits: for the end by a signal.
pub fn kill_all_and_exit(code: i32) -> ! {
    // Held to the end, so that no server starts in between.
    let running = lock(&RUNNING);
    for &group in running.iter() {
        kill_tree(group);
    }
    std::process::exit(code);
}

/// A panic elsewhere does not make what a lock guards any worse here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills a group and every descendant of its leader, which may have left the
/// group.
fn kill_tree(leader: i32) {
    let tree = tree_of(leader);
    // A group whose members are all gone is what was wanted.
    let _gone = killpg(Pid::from_raw(leader), Signal::SIGKILL);
    for entry in tree.iter().filter(|entry| entry.pid != leader) {
        let _gone = kill(Pid::from_raw(entry.pid), Signal::SIGKILL);
    }
}

/// A server that runs as a child; dropping it kills it with its children.
///
/// The kernel also kills it when the *thread* that started it ends, so a
/// server belongs to the thread of its case.
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its process.
    pub pid: i32,
    child: Child,
    ours: bool,
    stdout: Option<File>,
    stderr: Option<File>,
    ended: Option<ExitStatus>,
    end_wanted: bool,
    last_words: Arc<Mutex<Vec<String>>>,
}

/// As the kernel takes it.
pub(crate) fn core_set(cores: &[usize]) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core).with_context(|| format!("core {core}"))?;
    }
    Ok(set)
}

/// Starts the child; it may not listen yet.
fn spawn(target: &Target, start: &Start, addr: &str) -> Result<Server> {
    let mut command = target.command(addr, &start.args)?;
    let (mut stdout, mut stderr) = (None, None);
    match start.output {
        Output::Captured => {
            // Files, not pipes: a file never fills up, so nobody has to read
            // it while the server runs.
            let out = tempfile::tempfile().context("a file for stdout")?;
            let err = tempfile::tempfile().context("a file for stderr")?;
            command.stdout(out.try_clone()?).stderr(err.try_clone()?);
            (stdout, stderr) = (Some(out), Some(err));
        }
        Output::BrokenPipe => {
            let (reader, writer) = io::pipe()?;
            command.stdout(writer.try_clone()?).stderr(writer);
            drop(reader);
        }
        Output::Closed => {}
    }
    command.stdin(Stdio::null()).process_group(0);
    let (parent, output) = (getpid(), start.output);
    let limits = [
        (Resource::RLIMIT_NOFILE, start.descriptors),
        (Resource::RLIMIT_SIGPENDING, start.pending_signals),
        (Resource::RLIMIT_FSIZE, start.file_size),
    ];
    let cores = start.cores.as_deref().map(core_set).transpose()?;
    sys::in_child(&mut command, move || {
        // A mask outlives exec, and this program may have blocked signals.
        SigSet::empty().thread_set_mask()?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            // The parent died before the line above: nobody will be told.
            return Err(io::ErrorKind::NotFound.into());
        }
        for (resource, limit) in limits {
            if let Some(limit) = limit {
                setrlimit(resource, limit, limit)?;
            }
        }
        if let Some(cores) = &cores {
            sched_setaffinity(Pid::from_raw(0), cores)?;
        }
        if output == Output::Closed {
            close(1)?;
            close(2)?;
        }
        Ok(())
    });
    let mut running = lock(&RUNNING);
    let child = command.spawn().context("the server cannot be started")?;
    let pid = i32::try_from(child.id())?;
    running.insert(pid);
    Ok(Server {
        addr: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        pid,
        child,
        ours: target.is_ours(),
        stdout,
        stderr,
        ended: None,
        end_wanted: false,
        last_words: Arc::default(),
    })
}

impl Server {
    /// Starts `target` and returns once it listens.
    pub fn start(target: &Target, start: &Start) -> Result<Server> {
        let says_where = target.is_ours() && start.output == Output::Captured;
        let addr = match &start.addr {
            Some(addr) => addr.clone(),
            None if says_where => "127.0.0.1:0".to_string(),
            None => free_address(Ipv4Addr::LOCALHOST.into())?.to_string(),
        };
        let mut server = spawn(target, start, &addr)?;
        server.addr = if says_where {
            server.read_address()?
        } else {
            server.find_listening(&addr, start.patience.unwrap_or(PATIENCE))?
        };
        Ok(server)
    }

    /// From now on nobody is surprised if it ends.
    pub(crate) fn may_end(&mut self) {
        self.end_wanted = true;
    }

    /// Notes its end here when it ends without having been told to.
    pub(crate) fn last_words_to(&mut self, words: &Arc<Mutex<Vec<String>>>) {
        self.last_words = words.clone();
    }

    /// Reads the first line, which must be exactly `listening on ADDR:PORT`.
    fn read_address(&mut self) -> Result<SocketAddr> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.has_ended()?;
            let said = self.stdout();
            if let Some((line, _)) = said.split_once('\n') {
                return line
                    .strip_prefix("listening on ")
                    .and_then(|addr| addr.parse().ok())
                    .with_context(|| {
                        format!(
                            "the first line on stdout is '{line}', not \
                             'listening on ADDR:PORT'"
                        )
                    });
            }
            if let Some(status) = ended {
                self.end_wanted = true;
                bail!("{} before it listened", self.obituary(status));
            }
            ensure!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} for the line 'listening on ADDR:PORT' on \
                 stdout; so far it says '{said}'"
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connects to `addr` until it answers.
    fn find_listening(
        &mut self,
        addr: &str,
        patience: Duration,
    ) -> Result<SocketAddr> {
        let at = SocketAddr::from_str(addr)
            .with_context(|| format!("address '{addr}'"))?;
        let deadline = Instant::now() + patience;
        loop {
            let Err(error) = TcpStream::connect_timeout(&at, PATIENCE) else {
                return Ok(at);
            };
            if let Some(status) = self.has_ended()? {
                self.end_wanted = true;
                bail!("{} before it listened", self.obituary(status));
            }
            ensure!(
                Instant::now() < deadline,
                "waited {patience:?} for a server at {at}: {error}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Connects with time limits set.
    pub fn connect(&self) -> Result<TcpStream> {
        connect(self.addr, &Connect::default())
    }

    /// Connects as client `id`, whose bytes are its own.
    pub fn client(&self, id: u32) -> Result<Client> {
        self.client_with(id, &Connect::default())
    }

    /// Connects as client `id` in a special way.
    pub fn client_with(&self, id: u32, how: &Connect) -> Result<Client> {
        let socket = connect(self.addr, how)
            .with_context(|| format!("client {id} connects"))?;
        Ok(Client::new(id, socket))
    }

    /// Connects as the clients 0 to `count - 1`.
    pub fn clients(&self, count: usize) -> Result<Vec<Client>> {
        (0..count).map(|id| self.client(u32::try_from(id)?)).collect()
    }

    /// Sends a signal to the server (not to its children).
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid), signal)
            .with_context(|| format!("{signal} to the server"))
    }

    /// Sends a signal to the server and its children.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        for pid in self.tree() {
            match kill(Pid::from_raw(pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).context("kill"),
            }
        }
        Ok(())
    }

    /// Its exit status, if it has ended.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            // It stays a zombie until it is dropped, so that its number
            // belongs to nobody else while its children are looked for.
            let flags = WaitPidFlag::WEXITED
                | WaitPidFlag::WNOHANG
                | WaitPidFlag::WNOWAIT;
            self.ended = match waitid(Id::Pid(Pid::from_raw(self.pid)), flags) {
                Ok(WaitStatus::Exited(_, code)) => {
                    Some(ExitStatus::from_raw((code & 0xff) << 8))
                }
                Ok(WaitStatus::Signaled(_, signal, core)) => {
                    let core = i32::from(core) << 7;
                    Some(ExitStatus::from_raw(signal as i32 | core))
                }
                Ok(_) | Err(Errno::EINTR) => None,
                Err(errno) => return Err(errno).context("waitid"),
            };
        }
        Ok(self.ended)
    }

    /// Fails with its last words if the server has ended.
    pub fn must_live(&mut self) -> Result<()> {
        match self.has_ended()? {
            None => Ok(()),
            Some(status) => {
                self.end_wanted = true;
                Err(anyhow!("{}", self.obituary(status)))
            }
        }
    }

    /// Waits until it has ended by itself or by a signal sent before.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.end_wanted = true;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.has_ended()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "waited {limit:?} for the server to end"
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGTERM; it must end with exit code 0, and leave no child behind.
    pub fn stop(mut self) -> Result<()> {
        self.must_live()?;
        let family = self.tree();
        self.signal(Signal::SIGTERM)?;
        let status = self.wait_exit(PATIENCE).context("after SIGTERM")?;
        if self.ours {
            ensure!(status.code() == Some(0), self.obituary(status));
            let deadline = Instant::now() + PATIENCE;
            for pid in family.into_iter().filter(|&pid| pid != self.pid) {
                // A child may outlive the exit by a moment.
                while is_in_group(pid, self.pid) {
                    ensure!(
                        Instant::now() < deadline,
                        "its child {pid} still runs {PATIENCE:?} after it"
                    );
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        Ok(())
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        text_of(self.stderr.as_ref())
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        text_of(self.stdout.as_ref())
    }

    /// One sentence on how it ended.
    fn obituary(&self, status: ExitStatus) -> String {
        let said = self.stderr();
        let said = said.trim_end();
        if said.is_empty() {
            return format!("the server ended with {status}, saying nothing");
        }
        let skip = said.chars().count().saturating_sub(600);
        let tail: String = said.chars().skip(skip).collect();
        format!("the server ended with {status}; it said: {tail}")
    }

    /// The processes of the server: itself and its descendants, without the
    /// renderer of what is watched (it is known by its other command line).
    pub fn tree(&self) -> Vec<i32> {
        self.entries().iter().map(|entry| entry.pid).collect()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut tree = tree_of(self.pid);
        if self.ours {
            let line = |pid: i32| fs::read(format!("/proc/{pid}/cmdline"));
            let own = line(self.pid).unwrap_or_default();
            let mut strangers = BTreeSet::new();
            // Parents stand before their children.
            tree.retain(|entry| {
                // A zombie has no command line any more, and a copy that of
                // its parent.
                let copy = entry.copy && !strangers.contains(&entry.parent);
                let stays = entry.zombie
                    || copy
                    || line(entry.pid).is_ok_and(|text| text == own);
                if !stays {
                    strangers.insert(entry.pid);
                }
                stays
            });
        }
        tree
    }

    /// What it and its children hold now; cheap beside [`Server::observe`].
    pub fn standing(&self) -> Standing {
        Standing::of_all(&self.entries())
    }

    /// What the kernel says of the server, its children and its sockets now.
    pub fn observe(&self) -> Observation {
        let close_wait = sockets_of(self.addr, CLOSE_WAIT);
        Observation { close_wait, ..self.observe_processes() }
    }

    /// The same without what the kernel looks for among all sockets of the
    /// machine, which is most of the work.
    fn observe_processes(&self) -> Observation {
        let entries = self.entries();
        let Standing { memory, threads, processes } =
            Standing::of_all(&entries);
        let mut seen =
            Observation { memory, threads, processes, ..Default::default() };
        for entry in entries {
            // The time of children that were waited for.
            seen.cpu += entry.buried_cpu;
            if entry.zombie {
                seen.zombies += usize::from(entry.pid != self.pid);
                continue;
            }
            let pid = entry.pid;
            seen.cpu += cpu_of(pid);
            seen.descriptors += fs::read_dir(format!("/proc/{pid}/fd"))
                .map_or(0, Iterator::count);
        }
        seen
    }

    /// CPU time of the server and its children, waited for or not.
    pub fn cpu(&self) -> Duration {
        self.entries()
            .iter()
            .map(|entry| entry.buried_cpu + cpu_of(entry.pid))
            .sum()
    }

    /// The share of a core that the server uses during `span`.
    pub fn cpu_share(&self, span: Duration) -> f64 {
        self.core_share(span).used
    }

    /// What the server uses of a core during `span`, and what it would if
    /// nobody else used any: who spins wants one, however full the machine is.
    pub fn core_share(&self, span: Duration) -> CoreShare {
        let wants = || -> BTreeMap<i32, Duration> {
            self.entries().iter().flat_map(wants_of).collect()
        };
        let (cpu, before, begin) = (self.cpu(), wants(), Instant::now());
        thread::sleep(span);
        let passed = begin.elapsed().as_secs_f64();
        let used = self.cpu().saturating_sub(cpu).as_secs_f64() / passed;
        let since = |(tid, wants): (i32, Duration)| {
            match before.get(&tid) {
                // A wait counts when it is over; this one is as long as that.
                Some(&before) if before == wants && is_runnable(tid) => 1.0,
                Some(&before) => {
                    wants.saturating_sub(before).as_secs_f64() / passed
                }
                None => wants.as_secs_f64() / passed,
            }
        };
        let wanted = wants().into_iter().map(since).fold(used, f64::max);
        CoreShare { used, wanted }
    }

    /// Observes until `wanted` holds; fails with `what` and what was seen.
    pub fn settles(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Observation) -> bool,
    ) -> Result<Observation> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        loop {
            // First without any socket in CLOSE_WAIT, which nobody waits for.
            if wanted(&self.observe_processes()) {
                let seen = self.observe();
                if wanted(&seen) {
                    return Ok(seen);
                }
            }
            ensure!(
                Instant::now() < deadline,
                "waited {limit:?} for {what}; still {}",
                self.observe()
            );
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Serves one client, and observes when nothing changes any more: what
    /// `returns_to` may compare with.
    pub fn at_rest(&self) -> Result<Observation> {
        let mut first = self.client(0)?;
        first.round_trip(100)?;
        first.finish().context("the first client")?;
        let deadline = Instant::now() + PATIENCE;
        let counts = |seen: &Observation| {
            let Observation { descriptors, threads, processes, .. } = *seen;
            (descriptors, threads, processes, seen.zombies, seen.close_wait)
        };
        let mut before = self.observe();
        loop {
            thread::sleep(Duration::from_millis(10));
            let now = self.observe();
            if counts(&now) == counts(&before) {
                return Ok(now);
            }
            ensure!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} for the server to come to rest; {now}"
            );
            before = now;
        }
    }

    /// Waits until nothing is left of clients that have gone: descriptors,
    /// threads and processes as in `before`, no zombie, no CLOSE_WAIT.
    pub fn returns_to(&self, before: &Observation) -> Result<Observation> {
        let what = format!(
            "at most {} descriptors, {} threads, {} processes, no zombie and \
             no CLOSE_WAIT",
            before.descriptors, before.threads, before.processes
        );
        self.settles(&what, PATIENCE, |seen| {
            seen.descriptors <= before.descriptors
                && seen.threads <= before.threads
                && seen.processes <= before.processes
                && seen.zombies == 0
                && seen.close_wait == 0
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server whose listener is gone is about to end, if it has not been
        // told to: its last words are worth a moment.
        let deadline = Instant::now() + Duration::from_millis(500);
        while !self.end_wanted
            && self.addr.port() != 0
            && matches!(self.has_ended(), Ok(None))
            && sockets_of(self.addr, LISTEN) == 0
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(5));
        }
        if let Ok(Some(status)) = self.has_ended()
            && !self.end_wanted
        {
            lock(&self.last_words).push(self.obituary(status));
        }
        kill_tree(self.pid);
        let mut running = lock(&RUNNING);
        let _ended = self.child.wait();
        running.remove(&self.pid);
    }
}

/// What was written to a file that another process also has.
fn text_of(file: Option<&File>) -> String {
    let Some(file) = file else {
        return String::new();
    };
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    // By position: the offset is shared with the writer.
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(unreadable: {error})"),
    }
}

/// An address of `ip` at which nobody listens.
pub fn free_address(ip: std::net::IpAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((ip, 0))
        .with_context(|| format!("a free port of {ip}"))?;
    Ok(listener.local_addr()?)
}

/// Whether this machine has the IPv6 loopback address.
pub fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

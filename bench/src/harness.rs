//! Starts a server as a child, watches it from outside through /proc, talks
//! to it with bytes that tell where they belong, and leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{
    Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream,
};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind,
    connect as connect_socket, setsockopt, socket, sockopt,
};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, close, getpid, getppid};

use crate::models::{Limits, Model, PerClient};
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

/// A target of which nothing is known promises everything.
static UNLIMITED: Limits = Limits {
    clients: None,
    descriptors_below: None,
    burns_core: false,
    idle_wakes: false,
    per_client: PerClient::Nothing,
};

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
            Target::Broken(_) | Target::Command(_) => &UNLIMITED,
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

/// How a server is started.
#[derive(Clone, Default)]
pub struct Start {
    /// Flags after the row's own.
    pub args: Vec<String>,
    /// RLIMIT_NOFILE, soft and hard.
    pub descriptors: Option<u64>,
    /// Where it listens; a free port of 127.0.0.1 if not said.
    pub addr: Option<String>,
    /// What its standard output and error are.
    pub output: Output,
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
    let (parent, start) = (getpid(), (start.descriptors, start.output));
    sys::in_child(&mut command, move || {
        // A mask outlives exec, and this program may have blocked signals.
        SigSet::empty().thread_set_mask()?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            // The parent died before the line above: nobody will be told.
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Some(limit) = start.0 {
            setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
        }
        if start.1 == Output::Closed {
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
            server.find_listening(&addr)?
        };
        Ok(server)
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
    fn find_listening(&mut self, addr: &str) -> Result<SocketAddr> {
        let at = SocketAddr::from_str(addr)
            .with_context(|| format!("address '{addr}'"))?;
        let deadline = Instant::now() + PATIENCE;
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
                "waited {PATIENCE:?} for a server at {at}: {error}"
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

    fn entries(&self) -> Vec<Entry> {
        let mut tree = tree_of(self.pid);
        if self.ours {
            let line = |pid: i32| fs::read(format!("/proc/{pid}/cmdline"));
            let own = line(self.pid).unwrap_or_default();
            tree.retain(|entry| {
                // A zombie has no command line any more.
                entry.zombie || line(entry.pid).is_ok_and(|text| text == own)
            });
        }
        tree
    }

    /// What /proc says of the server and its children now.
    pub fn observe(&self) -> Observation {
        let mut seen = Observation::default();
        for entry in self.entries() {
            // The time of children that were waited for.
            seen.cpu += entry.buried_cpu;
            if entry.zombie {
                seen.zombies += usize::from(entry.pid != self.pid);
                continue;
            }
            let pid = entry.pid;
            seen.processes += 1;
            seen.threads += entry.threads;
            seen.cpu += cpu_of(pid);
            seen.memory += memory_of(pid);
            seen.descriptors += fs::read_dir(format!("/proc/{pid}/fd"))
                .map_or(0, Iterator::count);
        }
        seen.close_wait = sockets_of(self.addr.port(), CLOSE_WAIT);
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
        let (cpu, begin) = (self.cpu(), Instant::now());
        thread::sleep(span);
        let used = self.cpu().saturating_sub(cpu);
        used.as_secs_f64() / begin.elapsed().as_secs_f64()
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
            let seen = self.observe();
            if wanted(&seen) {
                return Ok(seen);
            }
            ensure!(
                Instant::now() < deadline,
                "waited {limit:?} for {what}; still {seen}"
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
            && sockets_of(self.addr.port(), LISTEN) == 0
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

/// What /proc says of a server and its children at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation {
    /// CPU time of all, children that were waited for included.
    pub cpu: Duration,
    /// Anonymous resident bytes; a page shared by forks counts once in all.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Processes that live.
    pub processes: usize,
    /// Children that ended and were not waited for.
    pub zombies: usize,
    /// Connections whose client has closed and the server has not.
    pub close_wait: usize,
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptors, {} threads, {} processes, {} zombies, {} \
             sockets in CLOSE_WAIT, {} KiB",
            self.descriptors,
            self.threads,
            self.processes,
            self.zombies,
            self.close_wait,
            self.memory / 1024
        )
    }
}

/// One line of /proc/PID/stat.
struct Entry {
    pid: i32,
    parent: i32,
    group: i32,
    zombie: bool,
    threads: usize,
    buried_cpu: Duration,
}

fn entry_of(pid: i32) -> Option<Entry> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
    let ticks = u64::try_from(number(13)? + number(14)?).ok()?;
    Some(Entry {
        pid,
        parent: i32::try_from(number(1)?).ok()?,
        group: i32::try_from(number(2)?).ok()?,
        zombie: matches!(fields[0], "Z" | "X"),
        threads: usize::try_from(number(17)?).ok()?,
        // USER_HZ is 100 on every architecture Linux still runs on.
        buried_cpu: Duration::from_millis(ticks * 10),
    })
}

/// `root` and all its descendants.
fn tree_of(root: i32) -> Vec<Entry> {
    let mut children: BTreeMap<i32, Vec<Entry>> = BTreeMap::new();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in names
        .filter_map(|name| name.file_name().to_str()?.parse().ok())
        .filter_map(entry_of)
    {
        children.entry(entry.parent).or_default().push(entry);
    }
    let mut tree: Vec<Entry> = entry_of(root).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = tree.get(next).map(|entry| entry.pid) {
        tree.extend(children.remove(&parent).unwrap_or_default());
        next += 1;
    }
    tree
}

/// Whether `pid` lives and belongs to the group: the number alone may have
/// been given to a stranger.
fn is_in_group(pid: i32, group: i32) -> bool {
    entry_of(pid).is_some_and(|entry| !entry.zombie && entry.group == group)
}

/// All threads' time, those that have ended included; zero when it is gone.
fn cpu_of(pid: i32) -> Duration {
    ClockId::pid_cpu_clock_id(Pid::from_raw(pid))
        .and_then(clock_gettime)
        .map_or(Duration::ZERO, Duration::from)
}

fn memory_of(pid: i32) -> u64 {
    // status's RssAnon is counted in batches per core, and may be hundreds of
    // KiB behind; smaps_rollup looks at the pages themselves.
    field_of(&format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:")
        .or_else(|| field_of(&format!("/proc/{pid}/status"), "RssAnon:"))
        .unwrap_or(0)
}

/// A line such as `RssAnon:  132 kB`, in bytes.
fn field_of(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let number = line.split_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(number * 1024)
}

/// The kernel's number of a TCP state (include/net/tcp_states.h).
pub const ESTABLISHED: u8 = 1;
/// The server closed first, and waits for stray segments.
pub const TIME_WAIT: u8 = 6;
/// The client closed, and the server has not.
pub const CLOSE_WAIT: u8 = 8;
/// A listener.
pub const LISTEN: u8 = 10;

/// How many sockets have this local port and are in this state.
pub fn sockets_of(port: u16, state: u8) -> usize {
    sockets(port).filter(|socket| socket.state == state).count()
}

/// How many bytes the server has not read of what the client at port `peer`
/// has sent and the kernel has taken for it.
pub fn unread_by_server(port: u16, peer: u16) -> u64 {
    sockets(port)
        .filter(|socket| socket.peer == peer)
        .map(|socket| socket.unread)
        .sum()
}

/// One line of /proc/net/tcp.
struct Socket {
    port: u16,
    peer: u16,
    state: u8,
    unread: u64,
}

fn sockets(port: u16) -> impl Iterator<Item = Socket> {
    fn parse(line: &str) -> Option<Socket> {
        // sl, local address, remote address, state, tx_queue:rx_queue, …
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut port = || {
            let (_, port) = fields.next()?.rsplit_once(':')?;
            u16::from_str_radix(port, 16).ok()
        };
        let (port, peer) = (port()?, port()?);
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let (_, unread) = fields.next()?.split_once(':')?;
        let unread = u64::from_str_radix(unread, 16).ok()?;
        Some(Socket { port, peer, state, unread })
    }
    // There may be tens of thousands of other lines (TIME_WAIT): most are
    // passed over by one search.
    let mark = format!(":{port:04X} ");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(move |text| {
            text.lines()
                .filter(|line| line.contains(&mark))
                .filter_map(parse)
                .collect::<Vec<_>>()
        })
        .filter(move |socket| socket.port == port)
}

/// How a client connects.
#[derive(Clone, Default)]
pub struct Connect {
    /// From which address: 28,000 ports belong to each.
    pub source: Option<Ipv4Addr>,
    /// SO_RCVBUF.
    pub receive_buffer: Option<usize>,
    /// SO_SNDBUF.
    pub send_buffer: Option<usize>,
    /// How long to wait for this connect and for each later read and write,
    /// if not `PATIENCE`.
    pub patience: Option<Duration>,
}

/// Connects to `addr`; every later read and write has a time limit.
pub fn connect(addr: SocketAddr, how: &Connect) -> Result<TcpStream> {
    let patience = how.patience.unwrap_or(PATIENCE);
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None).context("socket")?;
    // Before connect: the window's scale is settled in the handshake.
    if let Some(bytes) = how.receive_buffer {
        setsockopt(&fd, sockopt::RcvBuf, &bytes).context("SO_RCVBUF")?;
    }
    if let Some(bytes) = how.send_buffer {
        setsockopt(&fd, sockopt::SndBuf, &bytes).context("SO_SNDBUF")?;
    }
    if let Some(source) = how.source {
        // The port is then chosen by connect, for this destination only.
        setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)
            .context("IP_BIND_ADDRESS_NO_PORT")?;
        let from = SockaddrIn::from(std::net::SocketAddrV4::new(source, 0));
        bind(fd.as_raw_fd(), &from)
            .with_context(|| format!("bind to {source}"))?;
    }
    match connect_socket(fd.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno).context(format!("connect to {addr}")),
    }
    let stream = TcpStream::from(fd);
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    let ready = poll(&mut fds, timeout_of(patience)).context("poll")?;
    ensure!(ready == 1, "waited {patience:?} for connect to {addr}");
    if let Some(error) = stream.take_error()? {
        return Err(error).context(format!("connect to {addr}"));
    }
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

fn timeout_of(span: Duration) -> PollTimeout {
    PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX)
}

/// Ends a connection with a reset, dropping what is unsent.
pub fn reset(socket: TcpStream) -> Result<()> {
    let abort = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&socket, sockopt::Linger, &abort).context("SO_LINGER")
}

/// The endless bytes of one client, of which each knows whose and which it is:
/// every eight of them are a client's number and their position, encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    client: u32,
}

/// In the upper 16 bits of each word before it is mixed, to know it again.
const MARK: u64 = 0xec40;
const ODD: u64 = 0xbf58_476d_1ce4_e5b9;

impl Payload {
    /// The bytes of client `client`.
    pub fn new(client: u32) -> Payload {
        assert!(client < 1 << 16, "client {client}: at most 65,535");
        Payload { client }
    }

    /// The bytes from `position` on.
    pub fn fill(&self, position: u64, bytes: &mut [u8]) {
        let mut at = position;
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = self.word(at / 8).to_le_bytes();
            let from = (at % 8) as usize;
            let count = rest.len().min(8 - from);
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&word[from..from + count]);
            at += count as u64;
            rest = later;
        }
    }

    fn word(&self, block: u64) -> u64 {
        mix(MARK << 48 | u64::from(self.client) << 32 | block & 0xffff_ffff)
    }

    /// Fails unless `got` is what stands from `position` on, and says what it
    /// is instead.
    pub fn check(&self, position: u64, got: &[u8]) -> Result<()> {
        let mut expected = vec![0; got.len()];
        self.fill(position, &mut expected);
        if expected == got {
            return Ok(());
        }
        let mut pairs = expected.iter().zip(got);
        let at = pairs.position(|(want, got)| want != got).unwrap_or(0);
        let here = position + at as u64;
        let client = self.client;
        let what = match whose(&got[at..]) {
            Some((other, there)) if other != client => {
                format!("which is client {other}'s byte {there}")
            }
            Some((_, there)) if there > here => format!(
                "which is its own byte {there}: {} bytes are missing",
                there - here
            ),
            Some((_, there)) if there < here => format!(
                "which is its own byte {there}, echoed before: the stream \
                 went back by {} bytes",
                here - there
            ),
            _ => "which no client sent there".to_string(),
        };
        bail!(
            "byte {here} of client {client}: expected {:#04x}, got {:#04x}, \
             {what}",
            expected[at],
            got[at]
        )
    }
}

fn mix(mut word: u64) -> u64 {
    word ^= word >> 32;
    word = word.wrapping_mul(ODD);
    word ^= word >> 32;
    word = word.wrapping_mul(ODD);
    word ^ word >> 32
}

fn unmix(mut word: u64) -> u64 {
    // Newton: each step doubles the number of right bits, from three on.
    let mut inverse = ODD;
    for _ in 0..5 {
        let miss = 2u64.wrapping_sub(ODD.wrapping_mul(inverse));
        inverse = inverse.wrapping_mul(miss);
    }
    word ^= word >> 32;
    word = word.wrapping_mul(inverse);
    word ^= word >> 32;
    word = word.wrapping_mul(inverse);
    word ^ word >> 32
}

/// Whose bytes these are, and which is the first, if they are anyone's.
fn whose(bytes: &[u8]) -> Option<(u32, u64)> {
    (0..8).find_map(|skip| {
        let (word, _) = bytes.get(skip..)?.split_first_chunk()?;
        let plain = unmix(u64::from_le_bytes(*word));
        let client = (plain >> 32 & 0xffff) as u32;
        let first = ((plain & 0xffff_ffff) * 8).checked_sub(skip as u64)?;
        (plain >> 48 == MARK).then_some((client, first))
    })
}

/// A client that knows what it has sent, and holds every byte that comes back
/// against it.
pub struct Client {
    /// Its number, in its bytes and in messages.
    pub id: u32,
    /// Its connection.
    pub socket: TcpStream,
    /// What it sends.
    pub payload: Payload,
    /// How many bytes it has sent.
    pub sent: u64,
    /// How many have come back, all of them right.
    pub received: u64,
    patience: Duration,
    scratch: Vec<u8>,
}

/// How much one read or write of a client moves at most.
const CHUNK: usize = 64 * 1024;

impl Client {
    /// On a connection that exists.
    pub fn new(id: u32, socket: TcpStream) -> Client {
        let patience = socket.read_timeout().ok().flatten();
        Client {
            id,
            patience: patience.unwrap_or(PATIENCE),
            socket,
            payload: Payload::new(id),
            sent: 0,
            received: 0,
            scratch: Vec::new(),
        }
    }

    /// Sends the next `count` bytes; fails when the server does not take them
    /// in time.
    pub fn send(&mut self, count: usize) -> Result<()> {
        let goal = self.sent + count as u64;
        while self.sent < goal {
            match self.write_some((goal - self.sent) as usize) {
                Ok(_) => {}
                Err(error) => bail!(self.explain(&error, "send")),
            }
        }
        Ok(())
    }

    /// One write of at most `count` of the next bytes.
    pub fn write_some(&mut self, count: usize) -> io::Result<usize> {
        self.scratch.resize(count.min(CHUNK), 0);
        self.payload.fill(self.sent, &mut self.scratch);
        let written = retried(|| (&self.socket).write(&self.scratch))?;
        self.sent += written as u64;
        Ok(written)
    }

    /// Receives `count` bytes more, and holds them against what was sent.
    pub fn receive(&mut self, count: usize) -> Result<()> {
        let goal = self.received + count as u64;
        while self.received < goal {
            match self.read_some((goal - self.received) as usize)? {
                Some(0) => bail!(
                    "client {}: the server closed after {} of {} bytes",
                    self.id,
                    self.received,
                    self.sent
                ),
                Some(_) => {}
                None => bail!(self.out_of_time()),
            }
        }
        Ok(())
    }

    /// One read of at most `count` bytes, checked; 0 at the end of the stream
    /// and `None` when there was nothing within the time limit.
    pub fn read_some(&mut self, count: usize) -> Result<Option<usize>> {
        self.scratch.resize(count.min(CHUNK), 0);
        let read = match retried(|| (&self.socket).read(&mut self.scratch)) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(None);
            }
            Err(error) => bail!(self.explain(&error, "receive")),
        };
        self.payload.check(self.received, &self.scratch[..read])?;
        self.received += read as u64;
        ensure!(
            self.received <= self.sent,
            "client {}: {} bytes came back, but only {} were sent",
            self.id,
            self.received,
            self.sent
        );
        Ok(Some(read))
    }

    /// Sends `count` bytes and receives them; how long that took.
    pub fn round_trip(&mut self, count: usize) -> Result<Duration> {
        let begin = Instant::now();
        self.send(count)?;
        self.receive(count)?;
        Ok(begin.elapsed())
    }

    /// Sends FIN: no byte will follow.
    pub fn finish_sending(&mut self) -> Result<()> {
        self.socket
            .shutdown(Shutdown::Write)
            .with_context(|| format!("client {}: shutdown", self.id))
    }

    /// Receives all that is still to come back, and then the end.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            match self.read_some(CHUNK)? {
                Some(0) if self.received == self.sent => return Ok(()),
                Some(0) => bail!(
                    "client {}: truncated: the server closed after {} of {} \
                     bytes",
                    self.id,
                    self.received,
                    self.sent
                ),
                Some(_) => {}
                None => bail!(self.out_of_time()),
            }
        }
    }

    /// FIN, the rest, the end.
    pub fn finish(mut self) -> Result<()> {
        self.finish_sending()?;
        self.drain()
    }

    /// Ends the connection with a reset.
    pub fn reset(self) -> Result<()> {
        reset(self.socket)
    }

    fn out_of_time(&self) -> String {
        let what = if self.received < self.sent {
            format!("byte {} of {}", self.received, self.sent)
        } else {
            format!("the end after its {} bytes", self.sent)
        };
        format!("client {} waited {:?} for {what}", self.id, self.patience)
    }

    fn explain(&self, error: &io::Error, verb: &str) -> String {
        let (sent, received) = (self.sent, self.received);
        let so_far = format!("{sent} bytes sent, {received} received");
        let what = match error.kind() {
            io::ErrorKind::WouldBlock => {
                format!("waited {:?} to {verb}", self.patience)
            }
            io::ErrorKind::ConnectionReset => "was reset".to_string(),
            _ => format!("cannot {verb}: {error}"),
        };
        format!("client {} {what} ({so_far})", self.id)
    }
}

/// Repeats a call that a signal interrupted.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Lets every client send until `sent` is `goal` and receive all of it, all of
/// them interleaved on one thread, with reads and writes of 1 to `largest`
/// bytes; fails when nothing moves for `PATIENCE`.
pub fn pump(
    clients: &mut [Client],
    goal: u64,
    largest: usize,
    random: &mut fastrand::Rng,
) -> Result<()> {
    for client in clients.iter() {
        client.socket.set_nonblocking(true)?;
    }
    loop {
        let mut busy = Vec::new();
        let mut fds = Vec::new();
        for (at, client) in clients.iter().enumerate() {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLOUT, client.sent < goal);
            wanted.set(PollFlags::POLLIN, client.received < goal);
            if !wanted.is_empty() {
                busy.push(at);
                fds.push(PollFd::new(client.socket.as_fd(), wanted));
            }
        }
        if busy.is_empty() {
            break;
        }
        let ready = poll(&mut fds, timeout_of(PATIENCE)).context("poll")?;
        if ready == 0 {
            let stuck = &clients[busy[0]];
            bail!(
                "nothing moved for {PATIENCE:?}; {} of {} clients are not \
                 done; client {} has sent {} of {goal} bytes and received {}",
                busy.len(),
                clients.len(),
                stuck.id,
                stuck.sent,
                stuck.received
            );
        }
        let events: Vec<PollFlags> = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
            .collect();
        for (&at, events) in busy.iter().zip(events) {
            let client = &mut clients[at];
            let count = random.usize(1..=largest);
            let left = usize::try_from(goal - client.sent)?;
            if events.contains(PollFlags::POLLOUT) && left > 0 {
                match client.write_some(count.min(left)) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                        bail!(client.explain(&error, "send"));
                    }
                    _ => {}
                }
            }
            if events.intersects(!PollFlags::POLLOUT)
                && client.read_some(count)? == Some(0)
            {
                bail!(
                    "client {}: the server closed after {} of {} bytes",
                    client.id,
                    client.received,
                    client.sent
                );
            }
        }
    }
    for client in clients.iter() {
        client.socket.set_nonblocking(false)?;
    }
    Ok(())
}

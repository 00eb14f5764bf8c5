//! What never to do: one echo server with every famous mistake built in, each
//! chosen by name, and its twins that make none. It exists so that every case
//! of the suite is proven able to fail; nothing else may use it.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{
    Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, ToSocketAddrs,
};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;
use clap::{Parser, ValueEnum};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen,
    setsockopt, socket, sockopt,
};
use nix::unistd::{read, write};

use crate::sys;
use spool::{Done, Spool};

mod spool;

/// One famous mistake, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// No mistake: the server that passes every case.
    None,
    /// Edge-triggered with one read per event: the rest waits for ever.
    MissedEdge,
    /// Edge-triggered, and takes a short read for an empty socket: the FIN
    /// behind the bytes makes no edge of its own.
    ShortReadIsDrained,
    /// Takes every read for whole messages of 64 bytes.
    TakesReadsForMessages,
    /// Waits for eight bytes before it answers.
    WaitsForMore,
    /// Serves one client at a time and says nothing of it.
    OneAtATime,
    /// Reads from all that are ready into one buffer, and then answers.
    ReadsAllThenWrites,
    /// An edge-triggered listener with one accept per event.
    OneAcceptPerEdge,
    /// Reads on while its output is blocked, and keeps all of it.
    UnboundedBuffer,
    /// Asks for input while it will not read: every wait returns at once.
    BlockedSpin,
    /// Out of descriptors, it asks for new clients again at once.
    EmfileSpin,
    /// Out of descriptors, it exits.
    EmfileExit,
    /// Out of descriptors, it never accepts again.
    EmfileDeaf,
    /// A client that gave up before accept ends the server.
    EconnabortedFatal,
    /// Short of kernel memory at accept, it exits.
    EnobufsFatal,
    /// An epoll_ctl that fails for one client ends the server.
    EpollCtlFatal,
    /// An interrupted epoll_wait ends the server.
    EintrFatal,
    /// An interrupted read or write closes the connection.
    EintrCloses,
    /// SIGPIPE has its default again: a peer that went away kills.
    SigpipeDeath,
    /// Answers a FIN with FIN and never closes.
    DescriptorLeak,
    /// Takes the client's FIN for a hang-up and drops what is owed.
    HalfCloseTruncation,
    /// Stays with one client for as long as it talks.
    Starvation,
    /// Keeps owed bytes in the buffer that every client reads into.
    CrossedBytes,
    /// A new client gets what was owed to an older one of its descriptor.
    InheritedBytes,
    /// One client's reset ends the server.
    ResetFatal,
    /// Takes every failure of a write for a lack of room.
    BlockedResetIgnored,
    /// Writes with a blocking call inside the loop.
    BlockingWrite,
    /// Asks for room to write when nothing is owed.
    PermanentEpollout,
    /// Polls without waiting.
    BusyPoll,
    /// Takes every write for a whole one: bytes are lost.
    ShortWriteIgnored,
    /// After a short write it sends the whole buffer again.
    ShortWriteRepeated,
    /// Listens with a backlog of one.
    ShortBacklog,
    /// Has a table of 512 clients and drops the others.
    FixedTable,
    /// Binds without SO_REUSEADDR.
    NoReuseaddr,
    /// Binds with SO_REUSEPORT: a second instance takes half of the clients.
    SharedPort,
    /// Knows IPv4 only.
    Ipv4Only,
    /// Says something else than `listening on ADDR:PORT`.
    WrongFirstLine,
    /// Serves the whole network without a word.
    SilentlyPublic,
    /// Tells of its failure by a panic.
    PanicsOnFailure,
    /// A bad command line ends in success.
    UsageExitsZero,
    /// Dies when nobody reads its output.
    ClosedOutputDeath,
    /// Blocks SIGTERM and SIGINT and forgets them.
    IgnoresSigterm,
    /// Is killed by SIGTERM in mid-work.
    KilledBySigterm,
    /// Stops without a word.
    NoSummary,
    /// Stops at any signal, also at one that means nothing.
    AnySignalStops,
    /// Closes connections with unread input at stop, which resets them.
    ResetsOnStop,
    /// Drops what it owes at stop.
    StopDropsOwed,
    /// Stops only when the last client has gone.
    EndlessGrace,
    /// Accepts new clients while it stops.
    AcceptsWhileStopping,
    /// A second signal changes nothing.
    SecondSignalIgnored,
    /// Keeps some memory of every connection that has closed.
    MemoryPerConnection,
    /// Gives each connection a buffer, used or not.
    IdleBuffers,
    /// Starts a child per connection and never waits for it.
    Zombies,
    /// Starts a thread per connection that never ends.
    ThreadLeak,
    /// Asks for out-of-band data and never reads it.
    OutOfBandSpin,
    /// Crashes at descriptor 1024, as a misused fd_set may.
    Descriptor1024,
    /// No mistake: a queued signal tells of each change of each client.
    SignalDriven,
    /// Takes the signal that tells of a full queue for one that means nothing.
    OverflowIgnored,
    /// Leaves its default to the signal that tells of a full queue: death.
    OverflowDeath,
    /// Serves whom the first signal in its queue names, and forgets the others.
    FirstSignalOnly,
    /// Takes it that no byte comes before it has asked for signals.
    ArmedTooLate,
    /// No mistake: every message goes through a file, several at once.
    Spooled,
    /// Waits for its file inside the loop.
    SpoolsInLoop,
    /// A failure of its file ends the server.
    SpoolErrorFatal,
    /// Forgets a client whose bytes its file has failed.
    SpoolErrorForgotten,
    /// Sends what its buffer held when reading back has failed.
    StaleReadBack,
    /// Writes every message behind the last one.
    SpoolNeverReused,
    /// Leaves its default to the signal that a full file raises: death.
    FileSizeDeath,
    /// Drops at stop what is on its way through the file.
    StopDropsSpooled,
    /// Takes an operation that outlives the grace time for a failure.
    StopFailsInFlight,
}

impl Fault {
    /// Every mistake, `Fault::None` included.
    pub fn all() -> &'static [Fault] {
        Self::value_variants()
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        match self.to_possible_value() {
            Some(value) => value.get_name().to_owned(),
            None => String::new(),
        }
    }

    /// The server that makes no mistake and is otherwise like this one.
    pub fn twin(self) -> Fault {
        if self.is_signal_driven() {
            Fault::SignalDriven
        } else if self.spools() {
            Fault::Spooled
        } else {
            Fault::None
        }
    }

    fn is_signal_driven(self) -> bool {
        matches!(
            self,
            Fault::SignalDriven
                | Fault::OverflowIgnored
                | Fault::OverflowDeath
                | Fault::FirstSignalOnly
                | Fault::ArmedTooLate
        )
    }

    fn spools(self) -> bool {
        matches!(
            self,
            Fault::Spooled
                | Fault::SpoolsInLoop
                | Fault::SpoolErrorFatal
                | Fault::SpoolErrorForgotten
                | Fault::StaleReadBack
                | Fault::SpoolNeverReused
                | Fault::FileSizeDeath
                | Fault::StopDropsSpooled
                | Fault::StopFailsInFlight
        )
    }

    /// The cases of the suite that must fail on it, each by itself.
    pub fn catches(self) -> &'static [&'static str] {
        match self {
            Fault::None | Fault::SignalDriven | Fault::Spooled => &[],
            Fault::MissedEdge => &["echo_of_any_size"],
            Fault::ShortReadIsDrained => &["data_and_fin_together"],
            Fault::TakesReadsForMessages => &["tiny_socket_buffers"],
            Fault::WaitsForMore => &["one_byte_at_a_time"],
            Fault::OneAtATime => &["two_clients_take_turns"],
            Fault::ReadsAllThenWrites => &["many_clients_interleaved"],
            Fault::OneAcceptPerEdge => &["clients_wait_while_stopped"],
            Fault::UnboundedBuffer => &["never_reader"],
            Fault::BlockedSpin => &["never_reader"],
            Fault::EmfileSpin => &["out_of_descriptors"],
            Fault::EmfileExit => &["out_of_descriptors"],
            Fault::EmfileDeaf => &["out_of_descriptors"],
            Fault::EconnabortedFatal => &["injected_accept_errors"],
            Fault::EnobufsFatal => &["injected_accept_errors"],
            Fault::EpollCtlFatal => &["injected_epoll_ctl_enomem"],
            Fault::EintrFatal => &["pause_and_continue"],
            Fault::EintrCloses => &["injected_eintr"],
            Fault::SigpipeDeath => &["fin_then_reset"],
            Fault::DescriptorLeak => &["waves_reuse_descriptors"],
            Fault::HalfCloseTruncation => {
                &["half_close_drains", "half_close_while_blocked"]
            }
            Fault::Starvation => &["flood_beside_quiet"],
            Fault::CrossedBytes => &["slow_reader"],
            Fault::InheritedBytes => &["waves_reuse_descriptors"],
            Fault::ResetFatal => &["reset_in_transfer"],
            Fault::BlockedResetIgnored => &["reset_while_blocked"],
            Fault::BlockingWrite => &["never_reader"],
            Fault::PermanentEpollout => &["idle_cpu"],
            Fault::BusyPoll => &["idle_cpu"],
            Fault::ShortWriteIgnored => &["half_close_drains"],
            Fault::ShortWriteRepeated => &["half_close_drains"],
            Fault::ShortBacklog => &["clients_wait_while_stopped"],
            Fault::FixedTable => &["thousand_at_once"],
            Fault::NoReuseaddr => &["restart_in_time_wait"],
            Fault::SharedPort => &["port_in_use"],
            Fault::Ipv4Only => &["ipv6"],
            Fault::WrongFirstLine => &["first_line"],
            Fault::SilentlyPublic => &["non_loopback_warning"],
            Fault::PanicsOnFailure => &["port_in_use", "usage_errors"],
            Fault::UsageExitsZero => &["usage_errors"],
            Fault::ClosedOutputDeath => &["closed_output"],
            Fault::IgnoresSigterm => &["stop_idle"],
            Fault::KilledBySigterm => &["stop_idle"],
            Fault::NoSummary => &["stop_idle"],
            Fault::AnySignalStops => &["harmless_signals"],
            Fault::ResetsOnStop => {
                &["stop_in_transfer", "stop_with_pumping_peer"]
            }
            Fault::StopDropsOwed => &["stop_sends_owed"],
            Fault::EndlessGrace => &["stop_with_stuck_peer"],
            Fault::AcceptsWhileStopping => &["stop_idle"],
            Fault::SecondSignalIgnored => &["second_signal"],
            Fault::MemoryPerConnection => &["memory_after_many"],
            Fault::IdleBuffers => &["many_idle_few_active"],
            Fault::Zombies => &["waves_reuse_descriptors"],
            Fault::ThreadLeak => &["connect_and_close_storm"],
            Fault::OutOfBandSpin => &["out_of_band_byte"],
            Fault::Descriptor1024 => &["beyond_1024"],
            Fault::OverflowIgnored => &["signal_queue_overflow"],
            Fault::OverflowDeath => &["signal_queue_overflow"],
            Fault::FirstSignalOnly => &["signal_storm"],
            Fault::ArmedTooLate => &["signal_queue_overflow"],
            Fault::SpoolsInLoop => &["slow_file"],
            Fault::SpoolErrorFatal => &["failing_file", "full_disk"],
            Fault::SpoolErrorForgotten => &["failing_file", "full_disk"],
            Fault::StaleReadBack => &["failing_file"],
            Fault::SpoolNeverReused => &["full_disk"],
            Fault::FileSizeDeath => &["full_disk"],
            Fault::StopDropsSpooled => &["stop_during_slow_file"],
            Fault::StopFailsInFlight => &["stop_during_slow_file"],
        }
    }

    /// What it does, in one line.
    pub fn does(self) -> String {
        let value = self.to_possible_value();
        let text = value.as_ref().and_then(|value| value.get_help());
        text.map(|text| text.to_string()).unwrap_or_default()
    }
}

#[derive(Parser)]
#[command(
    name = "broken",
    about = "An echo server with one famous mistake; never copy from it"
)]
struct Options {
    /// The mistake it makes.
    #[arg(long, value_enum, default_value = "none")]
    fault: Fault,
    /// Where to listen; port 0 lets the kernel choose.
    #[arg(long, default_value = "127.0.0.1:7007")]
    addr: String,
    /// The most bytes that are read at once, and owed to one client.
    #[arg(long, default_value = "16KiB")]
    buffer: ByteSize,
    /// How long a stop waits for its clients.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Accepted for the sake of one command line, and ignored.
    #[arg(long)]
    watch: Option<String>,
    /// Accepted for the sake of one command line, and ignored.
    #[arg(long)]
    max_connections: Option<usize>,
    /// Accepted for the sake of one command line, and ignored.
    #[arg(long)]
    backlog: Option<usize>,
}

/// Serves by the command line in `args`, whose first word is the name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let lenient = Fault::UsageExitsZero.name();
    let lenient = args.iter().any(|word| *word == *lenient);
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            let failed = error.use_stderr() && !lenient;
            return ExitCode::from(if failed { 2 } else { 0 });
        }
    };
    let fault = options.fault;
    match serve(options) {
        Ok(code) => code,
        Err(error) if fault == Fault::PanicsOnFailure => panic!("{error:?}"),
        Err(error) => {
            let _ = writeln!(io::stderr(), "broken: {error:#}");
            ExitCode::from(1)
        }
    }
}

const LISTENER: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;
const CHANGES: u64 = u64::MAX - 2;
const SPOOL: u64 = u64::MAX - 3;
const PAUSE: Duration = Duration::from_millis(100);

struct Connection {
    socket: TcpStream,
    /// What was read and not yet written starts at `sent`.
    pending: Vec<u8>,
    sent: usize,
    wanted: EpollFlags,
    /// Our FIN is out; what still comes is dropped.
    closing: bool,
    /// Its bytes are on their way through the file: not waited for.
    away: bool,
}

impl Connection {
    fn owes(&self) -> bool {
        self.sent < self.pending.len()
    }
}

struct Server {
    fault: Fault,
    epoll: Epoll,
    listener: Option<TcpListener>,
    signals: SignalFd,
    connections: HashMap<RawFd, Connection>,
    scratch: Vec<u8>,
    grace: Duration,
    paused_until: Option<Instant>,
    deadline: Option<Instant>,
    accepted: u64,
    echoed: u64,
    /// Where the leaking faults put what they never give back.
    leaked: Vec<Connection>,
    remembered: Vec<Vec<u8>>,
    inherited: HashMap<RawFd, Vec<u8>>,
    /// Those who wait for their turn, and what was read and not answered yet.
    waiting: VecDeque<TcpStream>,
    unanswered: Vec<(RawFd, usize)>,
    /// Signals of clients, and those who had more than one turn may take.
    changes: Option<SignalFd>,
    again: Vec<RawFd>,
    spool: Option<Spool>,
}

fn serve(options: Options) -> Result<ExitCode> {
    let fault = options.fault;
    if fault == Fault::SigpipeDeath {
        sys::restore_sigpipe()?;
    }
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    if fault == Fault::AnySignalStops {
        set.add(Signal::SIGWINCH);
        set.add(Signal::SIGURG);
    }
    let signals = SignalFd::with_flags(
        &set,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )
    .context("signalfd")?;
    if fault != Fault::KilledBySigterm {
        set.thread_block().context("sigprocmask")?;
    }
    let mut too_large = SigSet::empty();
    too_large.add(Signal::SIGXFSZ);
    if fault != Fault::FileSizeDeath {
        // The write then ends with EFBIG (setrlimit(2)).
        too_large.thread_block().context("sigprocmask")?;
    }

    let listener = bound(&options)?;
    let address = listener.local_addr().context("getsockname")?;
    let first = match fault {
        Fault::WrongFirstLine => "Server is up at",
        _ => "listening on",
    };
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{first} {address}");
    let _ = stdout.flush();
    if !address.ip().is_loopback() && fault != Fault::SilentlyPublic {
        let _ = writeln!(
            io::stderr(),
            "broken: warning: {address} is open to the network"
        );
    }

    let epoll =
        Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll_create1")?;
    let mut listen = EpollFlags::EPOLLIN;
    if fault == Fault::OneAcceptPerEdge {
        listen |= EpollFlags::EPOLLET;
    }
    epoll
        .add(&listener, EpollEvent::new(listen, LISTENER))
        .context("epoll_ctl(listener)")?;
    if fault != Fault::IgnoresSigterm {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS);
        epoll.add(&signals, event).context("epoll_ctl(signals)")?;
    }
    let mut changes = None;
    if fault.is_signal_driven() {
        let set = sys::change_signals(fault != Fault::OverflowDeath);
        set.thread_block().context("sigprocmask")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let queue = SignalFd::with_flags(&set, flags).context("signalfd")?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, CHANGES);
        epoll.add(&queue, event).context("epoll_ctl(changes)")?;
        changes = Some(queue);
    }
    let room = options.buffer.as_u64().max(1) as usize;
    let mut spool = None;
    if fault.spools() {
        let opened = Spool::open(fault, room)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, SPOOL);
        epoll.add(&*opened.bell, event).context("epoll_ctl(spool)")?;
        spool = Some(opened);
    }
    let server = Server {
        fault,
        epoll,
        listener: Some(listener),
        signals,
        connections: HashMap::new(),
        scratch: vec![0; room],
        grace: options.grace,
        paused_until: None,
        deadline: None,
        accepted: 0,
        echoed: 0,
        leaked: Vec::new(),
        remembered: Vec::new(),
        inherited: HashMap::new(),
        waiting: VecDeque::new(),
        unanswered: Vec::new(),
        changes,
        again: Vec::new(),
        spool,
    };
    server.run()
}

fn bound(options: &Options) -> Result<TcpListener> {
    let fault = options.fault;
    let addr = &options.addr;
    let address = if fault == Fault::Ipv4Only {
        SocketAddr::V4(addr.parse::<SocketAddrV4>().context("--addr")?)
    } else {
        let mut all = addr.to_socket_addrs().with_context(|| addr.clone())?;
        match all.next() {
            Some(address) => address,
            None => bail!("{addr}: no address"),
        }
    };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None).context("socket")?;
    if fault != Fault::NoReuseaddr {
        setsockopt(&fd, sockopt::ReuseAddr, &true).context("setsockopt")?;
    }
    if fault == Fault::SharedPort {
        setsockopt(&fd, sockopt::ReusePort, &true).context("setsockopt")?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))
        .with_context(|| format!("bind {address}"))?;
    let backlog = match fault {
        Fault::ShortBacklog => Backlog::new(1).context("backlog")?,
        _ => Backlog::MAXALLOWABLE,
    };
    listen(&fd, backlog).with_context(|| format!("listen {address}"))?;
    Ok(TcpListener::from(fd))
}

impl Server {
    fn run(mut self) -> Result<ExitCode> {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            if self.is_over() {
                if self.fault == Fault::StopFailsInFlight {
                    let busy = self.spool.as_ref().is_some_and(Spool::is_busy);
                    ensure!(!busy, "the file is too slow");
                }
                if self.fault != Fault::NoSummary {
                    let _ = writeln!(
                        io::stderr(),
                        "broken: stopped; {} connections, {} bytes echoed",
                        self.accepted,
                        self.echoed
                    );
                }
                return Ok(ExitCode::SUCCESS);
            }
            let timeout = self.timeout();
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) if self.fault != Fault::EintrFatal => 0,
                Err(error) => return Err(error).context("epoll_wait"),
            };
            self.accept_again();
            for event in &events[..count] {
                match event.data() {
                    LISTENER => self.on_acceptable()?,
                    SIGNALS => {
                        if let Some(code) = self.on_signal() {
                            return Ok(code);
                        }
                    }
                    CHANGES => self.on_changes()?,
                    SPOOL => {
                        let spool = self.spool.as_mut();
                        let done = spool.map(Spool::take_done);
                        for done in done.into_iter().flatten() {
                            self.on_done(done)?;
                        }
                    }
                    fd => self.on_ready(fd as RawFd, event.events())?,
                }
            }
            for fd in std::mem::take(&mut self.again) {
                self.on_ready(fd, EpollFlags::EPOLLIN)?;
            }
            self.answer_late();
        }
    }

    /// Serves whom the queued signals name; everyone, when some did not fit
    /// into the queue and a plain SIGIO came in their place (fcntl(2)).
    fn on_changes(&mut self) -> Result<()> {
        let Some(changes) = &mut self.changes else {
            return Ok(());
        };
        let mut changed = Vec::new();
        let mut overflow = false;
        while let Ok(Some(signal)) = changes.read_signal() {
            if signal.ssi_signo == Signal::SIGIO as u32 {
                overflow = true;
            } else {
                changed.push(signal.ssi_fd);
            }
        }
        if overflow && self.fault != Fault::OverflowIgnored {
            changed = self.connections.keys().copied().collect();
        }
        if self.fault == Fault::FirstSignalOnly {
            changed.truncate(1);
        }
        for fd in changed {
            self.on_ready(fd, EpollFlags::EPOLLIN)?;
        }
        Ok(())
    }

    /// Sends what has come back from the file.
    fn on_done(&mut self, done: Done) -> Result<()> {
        let fd = done.fd;
        let Some(mut connection) = self.connections.remove(&fd) else {
            return Ok(());
        };
        let bytes = match done.bytes {
            Ok(bytes) => bytes,
            Err(error) if self.fault == Fault::SpoolErrorFatal => {
                return Err(error).context("the spool");
            }
            Err(_) if self.fault == Fault::SpoolErrorForgotten => {
                self.connections.insert(fd, connection);
                return Ok(());
            }
            Err(_) => {
                self.ended(connection);
                return Ok(());
            }
        };
        connection.away = false;
        self.scratch[..bytes.len()].copy_from_slice(&bytes);
        let lives = self.give(&mut connection, bytes.len()).is_ok()
            && (self.deadline.is_none()
                || connection.owes()
                || matches!(self.drain(&mut connection), Ok(true)));
        connection.wanted = self.wanted(&connection);
        let event = EpollEvent::new(connection.wanted, fd as u64);
        if lives && self.epoll.add(&connection.socket, event).is_ok() {
            self.connections.insert(fd, connection);
        } else {
            self.ended(connection);
        }
        Ok(())
    }

    /// What a batch has read, from a buffer that only the last one filled.
    fn answer_late(&mut self) {
        for (fd, n) in std::mem::take(&mut self.unanswered) {
            if let Some(mut connection) = self.connections.remove(&fd)
                && self.give(&mut connection, n).is_ok()
            {
                self.connections.insert(fd, connection);
            }
        }
    }

    fn is_over(&self) -> bool {
        let Some(deadline) = self.deadline else {
            return false;
        };
        let late = Instant::now() >= deadline;
        self.connections.is_empty() || late && self.fault != Fault::EndlessGrace
    }

    fn timeout(&self) -> EpollTimeout {
        if self.fault == Fault::BusyPoll || !self.again.is_empty() {
            return EpollTimeout::ZERO;
        }
        let ends = [self.paused_until, self.deadline];
        let Some(end) = ends.into_iter().flatten().min() else {
            return EpollTimeout::NONE;
        };
        // A whole millisecond more, because the kernel counts in those and
        // a wait that ends early would be repeated in a spin.
        let left = end.saturating_duration_since(Instant::now());
        let left = left + Duration::from_millis(1);
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
    }

    fn accept_again(&mut self) {
        let (Some(until), Some(listener)) = (self.paused_until, &self.listener)
        else {
            return;
        };
        if Instant::now() < until {
            return;
        }
        let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
        self.paused_until = match self.epoll.add(listener, event) {
            Ok(()) | Err(Errno::EEXIST) => None,
            Err(_) => Some(Instant::now() + PAUSE),
        };
    }

    fn on_acceptable(&mut self) -> Result<()> {
        for _ in 0..64 {
            let Some(listener) = &self.listener else {
                return Ok(());
            };
            match listener.accept() {
                Ok((socket, _)) => self.admit(socket)?,
                Err(error) => {
                    let raw = error.raw_os_error().unwrap_or(0);
                    if self.on_accept_error(Errno::from_raw(raw))? {
                        continue;
                    }
                    return Ok(());
                }
            }
            if self.fault == Fault::OneAcceptPerEdge {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether to go on with the next client at once.
    fn on_accept_error(&mut self, errno: Errno) -> Result<bool> {
        use Errno::*;
        match (errno, self.fault) {
            (EAGAIN, _) => return Ok(false),
            (EMFILE | ENFILE, Fault::EmfileSpin) => return Ok(false),
            (EMFILE | ENFILE, Fault::EmfileExit)
            | (ENOBUFS | ENOMEM, Fault::EnobufsFatal)
            | (ECONNABORTED, Fault::EconnabortedFatal) => {
                return Err(errno).context("accept");
            }
            (EMFILE | ENFILE | ENOBUFS | ENOMEM, _) => {}
            _ => return Ok(true),
        }
        if let Some(listener) = &self.listener {
            let _ = self.epoll.delete(listener);
            if self.fault != Fault::EmfileDeaf {
                self.paused_until = Some(Instant::now() + PAUSE);
            }
        }
        Ok(false)
    }

    fn admit(&mut self, socket: TcpStream) -> Result<()> {
        self.accepted += 1;
        let fd = socket.as_raw_fd();
        if self.fault == Fault::Descriptor1024 && fd >= 1024 {
            std::process::abort();
        }
        if self.fault == Fault::FixedTable && self.connections.len() >= 512 {
            return Ok(());
        }
        if self.fault == Fault::ClosedOutputDeath {
            println!("accepted descriptor {fd}");
            eprintln!("accepted descriptor {fd}");
        }
        if self.fault == Fault::Zombies {
            drop(Command::new("true").spawn().context("spawn")?);
        }
        if self.fault == Fault::ThreadLeak {
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(|| {
                    loop {
                        thread::park();
                    }
                })
                .context("thread")?;
        }
        if self.fault == Fault::OneAtATime && !self.connections.is_empty() {
            self.waiting.push_back(socket);
            return Ok(());
        }
        if socket.set_nonblocking(true).is_err() {
            return Ok(());
        }
        let _ = socket.set_nodelay(true);
        let mut connection = Connection {
            socket,
            pending: Vec::new(),
            sent: 0,
            wanted: EpollFlags::empty(),
            closing: false,
            away: false,
        };
        if let Some(bytes) = self.inherited.remove(&fd) {
            connection.pending = bytes;
        }
        if self.fault == Fault::IdleBuffers {
            connection.pending = vec![1; self.scratch.len()];
            connection.sent = connection.pending.len();
        }
        connection.wanted = self.wanted(&connection);
        if self.fault.is_signal_driven() {
            sys::signals_of(connection.socket.as_fd())?;
            let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_ASYNC);
            fcntl(&connection.socket, flags).context("fcntl")?;
            self.connections.insert(fd, connection);
            if self.fault != Fault::ArmedTooLate {
                self.on_ready(fd, EpollFlags::EPOLLIN)?;
            }
            return Ok(());
        }
        let event = EpollEvent::new(connection.wanted, fd as u64);
        match self.epoll.add(&connection.socket, event) {
            Ok(()) => {
                self.connections.insert(fd, connection);
                Ok(())
            }
            Err(error) if self.fault == Fault::EpollCtlFatal => {
                Err(error).context("epoll_ctl")
            }
            Err(_) => Ok(()),
        }
    }

    fn wanted(&self, connection: &Connection) -> EpollFlags {
        let (input, output) = (EpollFlags::EPOLLIN, EpollFlags::EPOLLOUT);
        if self.fault.is_signal_driven() {
            return input;
        }
        let owes = connection.owes();
        let direction = if owes { output } else { input };
        direction
            | match self.fault {
                Fault::MissedEdge | Fault::ShortReadIsDrained => {
                    EpollFlags::EPOLLET
                }
                Fault::PermanentEpollout => output,
                Fault::BlockedSpin | Fault::UnboundedBuffer => input,
                Fault::HalfCloseTruncation | Fault::WaitsForMore => {
                    EpollFlags::EPOLLRDHUP
                }
                Fault::OutOfBandSpin => EpollFlags::EPOLLPRI,
                _ => EpollFlags::empty(),
            }
    }

    fn on_ready(&mut self, fd: RawFd, ready: EpollFlags) -> Result<()> {
        // A descriptor that was closed and reused within this batch gets one
        // needless call, which meets EAGAIN.
        let Some(mut connection) = self.connections.remove(&fd) else {
            return Ok(());
        };
        match self.echo(&mut connection, ready) {
            Ok(true) => {
                let wanted = self.wanted(&connection);
                if wanted != connection.wanted && !connection.away {
                    connection.wanted = wanted;
                    let mut event = EpollEvent::new(wanted, fd as u64);
                    let socket = &connection.socket;
                    match self.epoll.modify(socket, &mut event) {
                        Ok(()) => {}
                        Err(error) if self.fault == Fault::EpollCtlFatal => {
                            return Err(error).context("epoll_ctl");
                        }
                        Err(_) => {
                            self.ended(connection);
                            return Ok(());
                        }
                    }
                }
                self.connections.insert(fd, connection);
            }
            Ok(false) => self.ended(connection),
            Err(error) if self.fault == Fault::ResetFatal => {
                return Err(error).context("connection");
            }
            Err(_) => self.ended(connection),
        }
        Ok(())
    }

    /// Whether the connection goes on.
    fn echo(
        &mut self,
        connection: &mut Connection,
        ready: EpollFlags,
    ) -> Result<bool, Errno> {
        if self.fault == Fault::HalfCloseTruncation
            && ready.contains(EpollFlags::EPOLLRDHUP)
        {
            return Ok(false);
        }
        if connection.owes() {
            match self.pay(connection) {
                Err(_) if self.fault == Fault::BlockedResetIgnored => {}
                result => result?,
            }
            if connection.owes() {
                if self.fault == Fault::UnboundedBuffer {
                    self.hoard(connection)?;
                }
                return Ok(true);
            }
        }
        if self.deadline.is_some() {
            return self.drain(connection);
        }
        if self.fault == Fault::WaitsForMore
            && !ready.contains(EpollFlags::EPOLLRDHUP)
            && matches!(connection.socket.peek(&mut [0; 8]), Ok(1..8))
        {
            return Ok(true);
        }
        if self.fault == Fault::Starvation {
            return self.stay_with(connection);
        }
        if self.fault == Fault::OutOfBandSpin
            && !ready.contains(EpollFlags::EPOLLIN)
        {
            return Ok(true);
        }
        let mut turns = 16;
        loop {
            let n = match self.take(connection)? {
                Some(0) => return Ok(false),
                Some(n) => n,
                None => return Ok(true),
            };
            if let Some(spool) = &mut self.spool {
                let fd = connection.socket.as_raw_fd();
                let Some(done) = spool.order(fd, &self.scratch[..n]) else {
                    connection.away = true;
                    let _ = self.epoll.delete(&connection.socket);
                    return Ok(true);
                };
                if done.bytes.is_err() {
                    return Ok(false);
                }
            }
            if self.fault == Fault::TakesReadsForMessages {
                let whole = n.next_multiple_of(64).min(self.scratch.len());
                self.give(connection, whole)?;
                return Ok(true);
            }
            if self.fault == Fault::ReadsAllThenWrites {
                let fd = connection.socket.as_raw_fd();
                self.unanswered.push((fd, n));
                return Ok(true);
            }
            self.give(connection, n)?;
            let more = match self.fault {
                Fault::ShortReadIsDrained => n == self.scratch.len(),
                fault => fault.is_signal_driven(),
            };
            turns -= 1;
            if more && turns == 0 && self.fault.is_signal_driven() {
                self.again.push(connection.socket.as_raw_fd());
                return Ok(true);
            }
            if !more || connection.owes() {
                return Ok(true);
            }
        }
    }

    /// Serves one client until it has been silent for a while.
    fn stay_with(&mut self, one: &mut Connection) -> Result<bool, Errno> {
        loop {
            let wanted = match one.owes() {
                true => PollFlags::POLLOUT,
                false => PollFlags::POLLIN,
            };
            let mut ask = [PollFd::new(one.socket.as_fd(), wanted)];
            if poll(&mut ask, PollTimeout::from(10u8)) != Ok(1) {
                return Ok(true);
            }
            if one.owes() {
                self.pay(one)?;
                continue;
            }
            match self.take(one)? {
                Some(0) => return Ok(false),
                Some(n) => self.give(one, n)?,
                None => {}
            }
        }
    }

    /// Reads once; `None` when there was nothing.
    fn take(&mut self, from: &Connection) -> Result<Option<usize>, Errno> {
        match read(&from.socket, &mut self.scratch) {
            Ok(n) => Ok(Some(n)),
            Err(Errno::EINTR) if self.fault == Fault::EintrCloses => {
                Err(Errno::EINTR)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the `n` bytes just read; what does not fit is owed.
    fn give(&mut self, to: &mut Connection, n: usize) -> Result<(), Errno> {
        if self.fault == Fault::BlockingWrite {
            let _ = to.socket.set_nonblocking(false);
            let written = (&to.socket).write_all(&self.scratch[..n]);
            let _ = to.socket.set_nonblocking(true);
            self.echoed += n as u64;
            return written.map_err(|_| Errno::EPIPE);
        }
        let sent = self.put(to, &self.scratch[..n])?;
        self.echoed += sent as u64;
        if sent == n || self.fault == Fault::ShortWriteIgnored {
            return Ok(());
        }
        let repeated = self.fault == Fault::ShortWriteRepeated;
        let from = if repeated { 0 } else { sent };
        to.pending.clear();
        to.pending.extend_from_slice(&self.scratch[from..n]);
        to.sent = 0;
        if self.fault == Fault::CrossedBytes {
            self.scratch.copy_within(from..n, 0);
        }
        Ok(())
    }

    /// Writes once; 0 when there was no room.
    fn put(&self, to: &Connection, bytes: &[u8]) -> Result<usize, Errno> {
        match write(&to.socket, bytes) {
            Ok(n) => Ok(n),
            Err(Errno::EINTR) if self.fault == Fault::EintrCloses => {
                Err(Errno::EINTR)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Writes what is owed, as far as there is room.
    fn pay(&mut self, to: &mut Connection) -> Result<(), Errno> {
        let crossed = self.fault == Fault::CrossedBytes;
        let owed = if crossed { &self.scratch } else { &to.pending };
        let n = self.put(to, &owed[to.sent..to.pending.len()])?;
        self.echoed += n as u64;
        to.sent += n;
        if !to.owes() {
            // Freed, not cleared: an idle connection owns no buffer.
            to.pending = Vec::new();
            to.sent = 0;
        }
        Ok(())
    }

    fn hoard(&mut self, connection: &mut Connection) -> Result<(), Errno> {
        if let Some(n) = self.take(connection)? {
            connection.pending.extend_from_slice(&self.scratch[..n]);
        }
        Ok(())
    }

    /// Our FIN, once, and then whatever still comes is dropped.
    fn drain(&mut self, connection: &mut Connection) -> Result<bool, Errno> {
        if !connection.closing {
            connection.closing = true;
            if connection.socket.shutdown(Shutdown::Write).is_err() {
                return Ok(false);
            }
        }
        for _ in 0..16 {
            match self.take(connection)? {
                Some(0) => return Ok(false),
                Some(_) => {}
                None => return Ok(true),
            }
        }
        if self.fault.is_signal_driven() {
            self.again.push(connection.socket.as_raw_fd());
        }
        Ok(true)
    }

    fn ended(&mut self, mut connection: Connection) {
        match self.fault {
            Fault::DescriptorLeak => {
                let _ = self.epoll.delete(&connection.socket);
                let _ = connection.socket.shutdown(Shutdown::Write);
                self.leaked.push(connection);
                return;
            }
            Fault::MemoryPerConnection => {
                self.remembered.push(vec![1; 16 << 10]);
            }
            Fault::InheritedBytes if connection.owes() => {
                let fd = connection.socket.as_raw_fd();
                let owed = connection.pending.split_off(connection.sent);
                self.inherited.insert(fd, owed);
            }
            _ => {}
        }
        if self.paused_until.is_some() {
            self.paused_until = Some(Instant::now());
        }
        drop(connection);
        if let Some(next) = self.waiting.pop_front() {
            let _ = self.admit(next);
        }
    }

    fn on_signal(&mut self) -> Option<ExitCode> {
        while let Ok(Some(_)) = self.signals.read_signal() {
            if self.deadline.is_none() {
                self.begin_stop();
            } else if self.fault != Fault::SecondSignalIgnored {
                return Some(ExitCode::from(1));
            }
        }
        None
    }

    fn begin_stop(&mut self) {
        self.deadline = Some(Instant::now() + self.grace);
        if self.fault != Fault::AcceptsWhileStopping {
            self.listener = None;
            self.paused_until = None;
        }
        if self.fault == Fault::ResetsOnStop {
            self.connections.clear();
        }
        let fds: Vec<RawFd> = self.connections.keys().copied().collect();
        for fd in fds {
            let Some(mut connection) = self.connections.remove(&fd) else {
                continue;
            };
            if self.fault == Fault::StopDropsOwed {
                connection.pending.clear();
                connection.sent = 0;
            }
            if connection.away && self.fault != Fault::StopDropsSpooled {
                self.connections.insert(fd, connection);
                continue;
            }
            if connection.owes()
                || matches!(self.drain(&mut connection), Ok(true))
            {
                let wanted = self.wanted(&connection);
                connection.wanted = wanted;
                let mut event = EpollEvent::new(wanted, fd as u64);
                let _ = self.epoll.modify(&connection.socket, &mut event);
                self.connections.insert(fd, connection);
            }
        }
    }
}

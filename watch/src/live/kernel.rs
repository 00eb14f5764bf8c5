//! What the kernel says of a server now.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use bench::harness::sockets::{Socket, sockets_at};
use bench::harness::{LISTEN, Server};
use bench::measure::Snapshot;
use nix::fcntl::OFlag;
use nix::sys::epoll::EpollFlags;

use super::seen::{Descriptor, Thread, Wants};
use super::sets::{self, InWait};
use crate::clock::now;

/// What the kernel says of a server now.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// When it was asked (CLOCK_MONOTONIC, nanoseconds).
    pub at: u64,
    /// The server, then its children.
    pub processes: Vec<Process>,
    /// The server's side of each connection, by the client's port; those that
    /// nobody has accepted yet too.
    pub connections: Vec<Connection>,
    /// Clients that nobody has accepted yet; gone with the listener.
    pub accept_queue: Option<AcceptQueue>,
    /// CPU time of all processes since the start.
    pub cpu: Duration,
    /// Voluntary and involuntary context switches of the threads that live;
    /// `None` if one ended while they were counted.
    pub switches: Option<(u64, u64)>,
}

/// A process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its threads, the first one first.
    pub threads: Vec<Task>,
    /// Its descriptors, by their numbers.
    pub open: Vec<Open>,
}

/// A thread.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its number.
    pub tid: i32,
    /// The call that it sleeps in; `None` while it runs, or where the kernel
    /// does not tell.
    pub wait: Option<InWait>,
}

/// An open descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its number.
    pub fd: i32,
    /// What it is.
    pub what: What,
    /// Whether the kernel sends signals for it (O_ASYNC, fcntl(2)).
    pub signals: bool,
}

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The listening socket.
    Listener,
    /// The connection with the client at this port.
    Client(u16),
    /// Another socket, by its inode.
    Socket(u32),
    /// An epoll instance, with its interest list.
    Epoll(Vec<Interest>),
    /// Something else, as the kernel calls it: `signalfd`, `timerfd`,
    /// `eventfd`, `pipe`, or a file's path.
    Other(String),
}

/// An entry of an interest list (proc_pid_fdinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The descriptor.
    pub fd: i32,
    /// What is wanted. The kernel adds EPOLLERR and EPOLLHUP to all.
    pub events: EpollFlags,
    /// What comes back with each event.
    pub data: u64,
}

/// The server's side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The client's port.
    pub port: u16,
    /// The state of TCP, as `bench::harness::ESTABLISHED`.
    pub state: u8,
    /// Whether a process has a descriptor of it: not while it is in the
    /// accept queue, and not after it was closed.
    pub open: bool,
    /// Bytes that have come in and are not yet read; the client's FIN counts
    /// as one.
    pub unread: u32,
    /// Bytes that were sent and the client has not acknowledged; so does the
    /// server's.
    pub unsent: u32,
}

/// Clients that nobody has accepted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// How many there are.
    pub waiting: u32,
    /// How many there may be; 0 where the kernel does not tell.
    pub room: u32,
}

impl Interest {
    /// What is wanted, by its names: `EPOLLIN`, `EPOLLET`.
    pub fn names(&self) -> Vec<&'static str> {
        self.events.iter_names().map(|(name, _)| name).collect()
    }
}

impl Kernel {
    /// Looks at the server, its children, and its sockets.
    pub fn look(server: &Server) -> Kernel {
        let mut processes: Vec<Process> =
            server.tree().into_iter().filter_map(Process::look).collect();
        // After the descriptors, so that none is without its socket.
        let sockets = sockets_at(server.addr.port());
        let by_inode: HashMap<u32, &Socket> =
            sockets.iter().map(|socket| (socket.inode, socket)).collect();
        for open in processes.iter_mut().flat_map(|it| &mut it.open) {
            open.what.learn(&by_inode);
        }
        let snapshot = Snapshot::of(server).ok();
        let (listeners, connections): (Vec<_>, Vec<_>) =
            sockets.iter().partition(|socket| socket.state == LISTEN);
        Kernel {
            at: now(),
            processes,
            connections: connections.into_iter().map(Connection::of).collect(),
            accept_queue: listeners.first().map(|listener| AcceptQueue {
                waiting: listener.receive_queue,
                room: listener.send_queue,
            }),
            cpu: snapshot.as_ref().map_or(Duration::ZERO, Snapshot::cpu),
            switches: snapshot.as_ref().and_then(Snapshot::switches),
        }
    }

    /// The processes and threads of these that are no more.
    pub fn gone(&self, threads: &[Thread]) -> Vec<i32> {
        let gone = threads.iter().filter_map(|thread| {
            let Some(process) = self.process(thread.pid) else {
                return Some(thread.pid);
            };
            let mut tasks = process.threads.iter();
            let lives = tasks.any(|task| task.tid == thread.tid);
            (!lives).then_some(thread.tid)
        });
        gone.collect()
    }

    /// Corrects what the record cannot tell: which of them are still open,
    /// and what is waited for where the kernel shows it.
    pub fn correct(&self, descriptors: &mut Vec<Descriptor>) {
        descriptors.retain(|it| self.open(it.pid, it.fd).is_some());
        for it in descriptors {
            let process = self.process(it.pid);
            if let Some(wants) = process.and_then(|at| at.wants(it.fd)) {
                it.waits_for = wants;
            }
        }
    }

    /// The connection that a process has under this descriptor.
    pub fn connection(&self, pid: i32, fd: i32) -> Option<&Connection> {
        let What::Client(port) = self.open(pid, fd)?.what else {
            return None;
        };
        self.connections.iter().find(|it| it.port == port)
    }

    fn process(&self, pid: i32) -> Option<&Process> {
        self.processes.iter().find(|it| it.pid == pid)
    }

    fn open(&self, pid: i32, fd: i32) -> Option<&Open> {
        self.process(pid)?.open.iter().find(|it| it.fd == fd)
    }
}

impl Connection {
    fn of(socket: &Socket) -> Connection {
        Connection {
            port: socket.peer,
            state: socket.state,
            open: socket.inode != 0,
            unread: socket.receive_queue,
            unsent: socket.send_queue,
        }
    }
}

impl Process {
    /// `None` if it has ended: a zombie has no descriptors.
    fn look(pid: i32) -> Option<Process> {
        let tasks = numbers(&format!("/proc/{pid}/task"));
        let task = |tid| Task { tid, wait: sets::look(pid, tid) };
        let threads = tasks.into_iter().map(task).collect();
        let open = numbers(&format!("/proc/{pid}/fd"));
        let open: Vec<Open> =
            open.into_iter().filter_map(|fd| Open::look(pid, fd)).collect();
        (!open.is_empty()).then_some(Process { pid, threads, open })
    }

    /// What is wanted to be known of a descriptor now; `None` where nothing
    /// tells.
    fn wants(&self, fd: i32) -> Option<Wants> {
        let lists = self.open.iter().filter_map(|open| match &open.what {
            What::Epoll(list) => Some(list),
            _ => None,
        });
        let mut lists = lists.peekable();
        if lists.peek().is_some() {
            let entry = lists.flatten().find(|entry| entry.fd == fd);
            return Some(entry.map_or(Wants::Nothing, Interest::wants));
        }
        let signals = |it: &&Open| it.fd == fd && it.signals;
        if let Some(open) = self.open.iter().find(signals) {
            return Some(Wants::of(true, open.what != What::Listener));
        }
        // What a thread that runs will want next, nobody knows.
        let waits = self.threads.iter().map(|task| {
            let wait = task.wait.as_ref();
            wait.filter(|wait| wait.is_of_the_model())
        });
        let waits = waits.collect::<Option<Vec<_>>>()?;
        let all = waits.iter().map(|wait| wait.wants(fd));
        Some(all.fold(Wants::Nothing, Wants::and))
    }
}

impl Open {
    fn look(pid: i32, fd: i32) -> Option<Open> {
        let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
        let name = link.to_str().unwrap_or_default();
        let info = || fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"));
        let (mut what, mut signals) = (What::named(name), false);
        match &mut what {
            What::Epoll(list) => *list = interests(&info().ok()?),
            What::Socket(_) => signals = asks_for_signals(&info().ok()?),
            _ => {}
        }
        Some(Open { fd, what, signals })
    }
}

impl What {
    /// By the name of the link in /proc/PID/fd, proc_pid_fd(5).
    fn named(link: &str) -> What {
        let inode = link.strip_prefix("socket:[");
        let inode = inode.and_then(|it| it.strip_suffix(']')?.parse().ok());
        if let Some(inode) = inode {
            return What::Socket(inode);
        } else if link == "anon_inode:[eventpoll]" {
            return What::Epoll(Vec::new());
        }
        let own = link.strip_prefix("anon_inode:").unwrap_or(link);
        let own = match own.split_once(":[") {
            Some((kind, _)) => kind,
            None => own.trim_matches(['[', ']']),
        };
        What::Other(own.to_owned())
    }

    fn learn(&mut self, sockets: &HashMap<u32, &Socket>) {
        if let What::Socket(inode) = self
            && let Some(socket) = sockets.get(inode)
        {
            *self = match socket.state {
                LISTEN => What::Listener,
                _ => What::Client(socket.peer),
            };
        }
    }
}

impl Interest {
    fn wants(&self) -> Wants {
        Wants::of(
            self.events.contains(EpollFlags::EPOLLIN),
            self.events.contains(EpollFlags::EPOLLOUT),
        )
    }
}

/// The lines `tfd: 5 events: 19 data: 5 …`, numbers but the first in hex.
fn interests(info: &str) -> Vec<Interest> {
    let entry = |line: &str| {
        let mut words = line.strip_prefix("tfd:")?.split_whitespace();
        let fd = words.next()?.parse().ok()?;
        let mut hex = |name| {
            let word = words.by_ref().skip_while(|word| *word != name).nth(1);
            u64::from_str_radix(word?, 16).ok()
        };
        let events = hex("events:")?;
        let events = EpollFlags::from_bits_retain(events as u32 as i32);
        Some(Interest { fd, events, data: hex("data:")? })
    };
    info.lines().filter_map(entry).collect()
}

/// The line `flags: 0…`, in octal: proc_pid_fdinfo(5).
fn asks_for_signals(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|it| i32::from_str_radix(it.trim(), 8).ok());
    let flags = OFlag::from_bits_retain(flags.unwrap_or_default());
    flags.contains(OFlag::O_ASYNC)
}

/// The names in a folder of /proc that are numbers, in their order.
fn numbers(folder: &str) -> Vec<i32> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let number = |it: fs::DirEntry| it.file_name().to_str()?.parse().ok();
    let mut numbers: Vec<i32> = names.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

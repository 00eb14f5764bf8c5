//! What has a price: each item does its thing so many times, and says how long
//! that took.

use std::fs::{self, File};
use std::hint::black_box;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libc::{POLLIN, pollfd};
use nix::errno::Errno;
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, close, pipe2, read, write};

use super::{pin, sys};

pub(super) struct Item {
    pub(super) name: &'static str,
    /// What is in its price.
    pub(super) what: &'static str,
    pub(super) run: Box<dyn FnMut(u32) -> Result<Duration>>,
}

/// A page.
const BLOCK: usize = 4096;
const MEMORY: usize = 64 << 20;

/// All of them, for a thread that is pinned to the first of these cores.
pub(super) fn all(cores: &[usize]) -> Result<Vec<Item>> {
    // First, lest its child keeps open what others close.
    let process = Partner::process()?;
    let thread = Partner::thread(cores[0])?;
    let elsewhere = cores.get(1).map(|core| Partner::thread(*core));
    let sockets = Rc::new(datagram_sockets(1000)?);

    let mut items = vec![
        item(super::UNIT, "getppid: into the kernel and back", |n| {
            each(n, || Ok::<_, Errno>(sys::null_call()))
        }),
        item("clock_gettime", "no system call: the vDSO answers", |n| {
            each(n, || Ok::<_, Errno>(Instant::now()))
        }),
        item("a copy of 4 KiB", "in memory, within the cache", {
            let (from, mut to) = ([1u8; BLOCK], [0u8; BLOCK]);
            move |n| {
                each(n, || {
                    to.copy_from_slice(black_box(&from));
                    Ok::<_, Errno>(black_box(&mut to)[0])
                })
            }
        }),
        item("recv of nothing", "EAGAIN", {
            let pair = connection()?;
            move |n| {
                let fd = pair.0.as_raw_fd();
                each(n, || match recv(fd, &mut [0; 64], DONT_WAIT) {
                    Err(Errno::EAGAIN) => Ok(()),
                    other => Err(other.err().unwrap_or(Errno::EPROTO)),
                })
            }
        }),
        item("recv of 64 bytes", "that have come by TCP", {
            let pairs = connections()?;
            move |n| Ok(exchange(&pairs, n)?[1])
        }),
        item(
            "send of 64 bytes",
            "by TCP over loopback, and so with the way \
             to the receiver's socket",
            {
                let pairs = connections()?;
                move |n| Ok(exchange(&pairs, n)?[0])
            },
        ),
        item("epoll_wait", "one ready of 1,000 sockets", {
            let epoll = epoll_of(&sockets)?;
            let sockets = sockets.clone();
            move |n| {
                let _open = &sockets;
                let mut room = [EpollEvent::empty(); 64];
                each(n, || epoll.wait(&mut room, EpollTimeout::ZERO))
            }
        }),
        item("epoll_ctl", "EPOLL_CTL_MOD of one of 1,000 sockets", {
            let (epoll, sockets) = (epoll_of(&sockets)?, sockets.clone());
            move |n| {
                let mut event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
                each(n, || epoll.modify(&sockets[0], &mut event))
            }
        }),
        poll_of(&sockets, 1, "one socket, ready"),
        poll_of(&sockets, 100, "one ready of 100 sockets"),
        poll_of(&sockets, 1000, "one ready of 1,000 sockets"),
        item("a signal", "to oneself, by tgkill, and taken by sigwait", {
            let set = SigSet::from(Signal::SIGUSR1);
            set.thread_block()?;
            move |n| {
                each(n, || {
                    pthread_kill(pthread_self(), Signal::SIGUSR1)?;
                    set.wait()
                })
            }
        }),
        item(
            "a switch to another thread",
            "on the same core, by a pipe: its \
             write and its read are in the price",
            thread.ping_pong(),
        ),
        item("a switch to another process", "the same", process.ping_pong()),
    ];
    if let Some(partner) = elsewhere {
        let what = "the same with a thread that sleeps on another core";
        items.push(item("a wake-up across cores", what, partner?.ping_pong()));
    }
    items.extend([
        item("a thread", "started, and joined once it has ended", |n| {
            each(n, || {
                thread::spawn(|| ()).join().map_err(|_| Errno::ECANCELED)
            })
        }),
        item("a process", "fork, _exit, waitpid; of this program", fork_each),
        item(
            "a process, with more memory",
            "the same, with 64 MiB touched: \
             their page tables are copied",
            |n| {
                let memory = vec![1u8; MEMORY];
                let took = fork_each(n);
                black_box(memory);
                took
            },
        ),
        item("pread of 4 KiB, in memory", "from the page cache", {
            let file = scratch_file()?;
            move |n| each(n, || file.read_exact_at(&mut [0; BLOCK], 0))
        }),
        item(
            "pread of 4 KiB, not in memory",
            "after POSIX_FADV_DONTNEED: \
             from the disk, or what this machine has for one",
            {
                let file = scratch_file()?;
                move |n| read_from_disk(&file, n)
            },
        ),
        item("fsync of 4 KiB", "a pwrite, and fsync", {
            let file = scratch_file()?;
            move |n| {
                each(n, || {
                    file.write_all_at(&[2; BLOCK], 0)?;
                    file.sync_all()
                })
            }
        }),
    ]);
    Ok(items)
}

fn item(
    name: &'static str,
    what: &'static str,
    run: impl FnMut(u32) -> Result<Duration> + 'static,
) -> Item {
    Item { name, what, run: Box::new(run) }
}

/// How long so many calls take.
fn each<T, E>(
    count: u32,
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<Duration>
where
    Result<T, E>: Context<T, E>,
{
    let begin = Instant::now();
    for _ in 0..count {
        black_box(call().context("a call that is measured")?);
    }
    Ok(begin.elapsed())
}

const DONT_WAIT: MsgFlags = MsgFlags::MSG_DONTWAIT;
type Pair = (TcpStream, TcpStream);

fn connection() -> Result<Pair> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((listener.accept()?.0, client))
}

fn connections() -> Result<Vec<Pair>> {
    (0..16).map(|_| connection()).collect()
}

/// How long so many sends and so many recvs take: a message on each
/// connection, and then the next, so that no two become one in a socket.
fn exchange(pairs: &[Pair], count: u32) -> Result<[Duration; 2]> {
    let (mut sends, mut recvs) = (Duration::ZERO, Duration::ZERO);
    let none = MsgFlags::empty();
    let mut left = count as usize;
    while left > 0 {
        let pairs = &pairs[..left.min(pairs.len())];
        let begin = Instant::now();
        for (_, client) in pairs {
            send(client.as_raw_fd(), &[1; 64], none)?;
        }
        let sent = Instant::now();
        for (socket, _) in pairs {
            ensure!(recv(socket.as_raw_fd(), &mut [0; 64], none)? == 64);
        }
        sends += sent - begin;
        recvs += sent.elapsed();
        left -= pairs.len();
    }
    Ok([sends, recvs])
}

/// So many, of which the last has something to read.
fn datagram_sockets(count: usize) -> Result<Vec<UdpSocket>> {
    let sockets = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0"));
    let sockets: Vec<_> = sockets.collect::<Result<_, _>>()?;
    let last = sockets.last().context("none")?;
    last.send_to(b"x", last.local_addr()?)?;
    Ok(sockets)
}

fn epoll_of(sockets: &[UdpSocket]) -> Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for socket in sockets {
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    }
    Ok(epoll)
}

fn poll_of(
    sockets: &Rc<Vec<UdpSocket>>,
    count: usize,
    what: &'static str,
) -> Item {
    let sockets = sockets.clone();
    let last = sockets[sockets.len() - count..].iter();
    let entry = |fd| pollfd { fd, events: POLLIN, revents: 0 };
    let mut list: Vec<_> = last.map(|it| entry(it.as_raw_fd())).collect();
    item("poll", what, move |n| {
        let _open = &sockets;
        each(n, || sys::poll_now(&mut list))
    })
}

/// Whoever sends back each byte.
struct Partner {
    to: Option<OwnedFd>,
    from: OwnedFd,
    other: Other,
}

enum Other {
    Thread(Option<JoinHandle<()>>),
    Process(Pid),
}

impl Partner {
    fn thread(core: usize) -> Result<Partner> {
        let (there, to) = pipe2(OFlag::O_CLOEXEC)?;
        let (from, back) = pipe2(OFlag::O_CLOEXEC)?;
        let thread = thread::spawn(move || {
            // Unpinned, it would be no worse a partner.
            if pin(core).is_ok() {
                send_back(&there, &back);
            }
        });
        Ok(Partner { to: Some(to), from, other: Other::Thread(Some(thread)) })
    }

    fn process() -> Result<Partner> {
        let (there, to) = pipe2(OFlag::O_CLOEXEC)?;
        let (from, back) = pipe2(OFlag::O_CLOEXEC)?;
        let child = sys::child(|| {
            // It would wait for itself.
            close(to.as_raw_fd()).ok();
            send_back(&there, &back);
        })?;
        Ok(Partner { to: Some(to), from, other: Other::Process(child) })
    }

    /// To and fro are two switches.
    fn ping_pong(self) -> impl FnMut(u32) -> Result<Duration> {
        move |n| {
            let to = self.to.as_ref().context("open until it is dropped")?;
            let both = each(n, || {
                write(to, b"x")?;
                read(&self.from, &mut [0])
            });
            Ok(both? / 2)
        }
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.to = None;
        match &mut self.other {
            Other::Thread(thread) => {
                thread.take().map(JoinHandle::join);
            }
            Other::Process(child) => {
                waitpid(*child, None).ok();
            }
        }
    }
}

/// Until the other end is closed.
fn send_back(from: &OwnedFd, to: &OwnedFd) {
    while read(from, &mut [0]) == Ok(1) && write(to, b"x") == Ok(1) {}
}

fn fork_each(count: u32) -> Result<Duration> {
    each(count, || waitpid(sys::child(|| ())?, None))
}

/// A file without a name, whose bytes have reached the disk. What lies in /tmp
/// may never.
fn scratch_file() -> Result<File> {
    let folder = Path::new("/var/tmp");
    let folder = if folder.is_dir() { folder } else { &std::env::temp_dir() };
    let path = folder.join(format!("io-models-basics-{}", process::id()));
    let file = File::options().read(true).write(true).create_new(true);
    let file = file.open(&path).with_context(|| path.display().to_string())?;
    fs::remove_file(&path)?;
    file.write_all_at(&[1; 256 * BLOCK], 0)?;
    file.sync_all()?;
    // No more is read than is asked for.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    Ok(file)
}

fn read_from_disk(file: &File, count: u32) -> Result<Duration> {
    let mut took = Duration::ZERO;
    for block in 0..count {
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        posix_fadvise(file, 0, 0, advice)?;
        let at = u64::from(block % 256) * BLOCK as u64;
        let begin = Instant::now();
        file.read_exact_at(&mut [0; BLOCK], at)?;
        took += begin.elapsed();
    }
    Ok(took)
}

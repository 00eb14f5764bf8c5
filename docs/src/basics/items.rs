//! What has a price: each item does its thing so many times, and says how long
//! that took.

use std::fs::{self, File};
use std::hint::black_box;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, process, thread};

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, PosixFadviseAdvice as Advice, posix_fadvise};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, close, pipe2, read, write};

use super::{pin, sys};

/// Its name, what is in its price, and what does it so often.
pub(super) type Item<'a> = (&'static str, &'static str, Run<'a>);
type Run<'a> = Box<dyn FnMut(u32) -> Result<Duration> + 'a>;

const PAGE: usize = 4096;
const PAGES: usize = 256;

/// What the items are done with.
pub(super) struct Props {
    process: Partner,
    thread: Partner,
    far: Option<Partner>,
    /// A server's and a client's socket.
    pairs: Vec<(TcpStream, TcpStream)>,
    file: File,
}

impl Props {
    /// For a thread that is pinned to the first of these cores.
    pub(super) fn new(cores: &[usize]) -> Result<Props> {
        // A child keeps open what is open now, such as others' pipes.
        let process = Partner::new(None)?;
        let thread = Partner::new(Some(cores[0]))?;
        let far = cores.get(1).map(|core| Partner::new(Some(*core)));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let pair = |_| {
            let client = TcpStream::connect(listener.local_addr()?)?;
            Ok((listener.accept()?.0, client))
        };
        let pairs = (0..17).map(pair).collect::<Result<_>>()?;
        SigSet::from(Signal::SIGUSR1).thread_block()?;
        let (far, file) = (far.transpose()?, scratch_file()?);
        Ok(Props { process, thread, far, pairs, file })
    }

    /// Everything that has a price.
    pub(super) fn items(&self) -> Vec<Item<'_>> {
        let mut items = vec![
            item(super::UNIT, "getppid: into the kernel and back", |n| {
                each(n, || Ok(sys::null_call()))
            }),
            item("clock_gettime", "no system call: the vDSO answers", |n| {
                each(n, || Ok(Instant::now()))
            }),
            item("a copy of 4 KiB", "in memory, within the cache", |n| {
                let (from, mut to) = ([1u8; PAGE], [0; PAGE]);
                each(n, || {
                    to.copy_from_slice(black_box(&from));
                    Ok(black_box(&to)[0])
                })
            }),
            item("recv of nothing", "EAGAIN", |n| {
                let (fd, flags) =
                    (self.pairs[16].0.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
                each(n, || match recv(fd, &mut [0; 64], flags) {
                    Err(Errno::EAGAIN) => Ok(()),
                    said => Err(anyhow!("recv of nothing: {said:?}")),
                })
            }),
            item("recv of 64 bytes", "which have come by TCP", |n| {
                Ok(self.echo(n)?.0)
            }),
            item(
                "send of 64 bytes",
                "by TCP, and they arrive meanwhile",
                |n| Ok(self.echo(n)?.1),
            ),
            item("epoll_wait", "one of 1,000 sockets is ready", |n| {
                let (epoll, _sockets) = interest_list(1000)?;
                let room = &mut [EpollEvent::empty(); 64];
                each(n, || Ok(epoll.wait(room, EpollTimeout::ZERO)?))
            }),
            item("epoll_ctl", "EPOLL_CTL_MOD of one of 1,000", |n| {
                let (epoll, sockets) = interest_list(1000)?;
                let event = &mut EpollEvent::new(EpollFlags::EPOLLIN, 0);
                each(n, || Ok(epoll.modify(&sockets[0], event)?))
            }),
            item("poll of 1", "socket, which is ready", |n| polls(n, 1)),
            item("poll of 100", "sockets, one ready", |n| polls(n, 100)),
            item("poll of 1,000", "sockets, one ready", |n| polls(n, 1000)),
            item("a signal", "to oneself, and taken by sigwait", |n| {
                let set = SigSet::from(Signal::SIGUSR1);
                each(n, || Ok((raise(Signal::SIGUSR1)?, set.wait()?)))
            }),
            item(
                "a switch to another thread",
                "on the same core, by a pipe: its write and read included",
                |n| self.thread.switches(n),
            ),
            item("a switch to another process", "the same", |n| {
                self.process.switches(n)
            }),
        ];
        if let Some(far) = &self.far {
            let what = "the same with a thread that sleeps on another core";
            items.push(item("a wake-up", what, |n| far.switches(n)));
        }
        items.extend([
            item("a thread", "started, and joined after its end", |n| {
                let panicked = |_| anyhow!("it panicked");
                each(n, || thread::spawn(|| ()).join().map_err(panicked))
            }),
            item("a process", "fork, _exit and waitpid", forks),
            item("a process of 64 MiB", "the same with so much touched", |n| {
                let memory = vec![1u8; 64 << 20];
                forks(n).inspect(|_| drop(black_box(memory)))
            }),
            item("pread of 4 KiB, cached", "from the page cache", |n| {
                let room = &mut [0; PAGE];
                each(n, || Ok(self.file.read_exact_at(room, 0)?))
            }),
            item(
                "pread of 4 KiB, not cached",
                "after POSIX_FADV_DONTNEED: from the disk, or what this \
                 machine has for one",
                |n| self.read_from_disk(n),
            ),
            item("fsync of 4 KiB", "and the pwrite before it", |n| {
                each(n, || {
                    self.file.write_all_at(&[2; PAGE], 0)?;
                    Ok(self.file.sync_all()?)
                })
            }),
        ]);
        items
    }

    /// How long so many recvs and sends of an echo server take. There is one
    /// message at a time on each connection: two would become one.
    fn echo(&self, mut count: u32) -> Result<(Duration, Duration)> {
        let flags = MsgFlags::empty();
        let get = |it: &TcpStream| recv(it.as_raw_fd(), &mut [0; 64], flags);
        let put = |it: &TcpStream| send(it.as_raw_fd(), &[1; 64], flags);
        let (mut recvs, mut sends) = (Duration::ZERO, Duration::ZERO);
        while count > 0 {
            let some = count.min(16);
            let pairs = &self.pairs[..some as usize];
            pairs.iter().try_for_each(|it| put(&it.1).map(drop))?;
            let mut servers = pairs.iter().map(|it| &it.0).cycle();
            let mut next = || servers.next().context("it has no end");
            recvs += each(some, || Ok(get(next()?)?))?;
            sends += each(some, || Ok(put(next()?)?))?;
            pairs.iter().try_for_each(|it| get(&it.1).map(drop))?;
            count -= some;
        }
        Ok((recvs, sends))
    }

    fn read_from_disk(&self, count: u32) -> Result<Duration> {
        let mut took = Duration::ZERO;
        for at in 0..count as usize {
            posix_fadvise(&self.file, 0, 0, Advice::POSIX_FADV_DONTNEED)?;
            let (at, room) = ((at % PAGES * PAGE) as u64, &mut [0; PAGE]);
            took += each(1, || Ok(self.file.read_exact_at(room, at)?))?;
        }
        Ok(took)
    }
}

fn item<'a>(
    name: &'static str,
    what: &'static str,
    run: impl FnMut(u32) -> Result<Duration> + 'a,
) -> Item<'a> {
    (name, what, Box::new(run))
}

/// How long so many calls take.
fn each<T>(n: u32, mut call: impl FnMut() -> Result<T>) -> Result<Duration> {
    let begin = Instant::now();
    for _ in 0..n {
        black_box(call()?);
    }
    Ok(begin.elapsed())
}

/// So many sockets, of which the last has something to read. They are there
/// for a turn only: a fork would copy their descriptors.
fn sockets(many: usize) -> Result<Vec<UdpSocket>> {
    let sockets = (0..many).map(|_| UdpSocket::bind("127.0.0.1:0"));
    let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    let last = sockets.last().context("one at least")?;
    last.send_to(b"x", last.local_addr()?)?;
    Ok(sockets)
}

fn interest_list(many: usize) -> Result<(Epoll, Vec<UdpSocket>)> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let sockets = sockets(many)?;
    for socket in &sockets {
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    }
    Ok((epoll, sockets))
}

fn polls(count: u32, many: usize) -> Result<Duration> {
    let sockets = sockets(many)?;
    let entry = |it| PollFd::new(it, PollFlags::POLLIN);
    let list = sockets.iter().map(|it| entry(it.as_fd()));
    let mut list: Vec<PollFd> = list.collect();
    each(count, || Ok(poll(&mut list, PollTimeout::ZERO)?))
}

fn forks(count: u32) -> Result<Duration> {
    each(count, || Ok(waitpid(sys::child(|| ())?, None)?))
}

/// Whoever sends back each byte: a thread, or a child.
struct Partner {
    to: Option<OwnedFd>,
    from: OwnedFd,
    child: Option<Pid>,
}

impl Partner {
    /// A thread on this core; or a child, which is on its parent's.
    fn new(core: Option<usize>) -> Result<Partner> {
        let (there, to) = pipe2(OFlag::O_CLOEXEC)?;
        let (from, back) = pipe2(OFlag::O_CLOEXEC)?;
        let send_back = |from: &OwnedFd, to: &OwnedFd| {
            while read(from, &mut [0]) == Ok(1) && write(to, b"x") == Ok(1) {}
        };
        let mut child = None;
        if let Some(core) = core {
            let run = move || pin(core).map(|()| send_back(&there, &back));
            thread::spawn(run);
        } else {
            child = Some(sys::child(|| {
                // Else it would wait for its own end of the pipe.
                close(to.as_raw_fd()).ok();
                send_back(&there, &back);
            })?);
        }
        Ok(Partner { to: Some(to), from, child })
    }

    /// There and back are two.
    fn switches(&self, count: u32) -> Result<Duration> {
        let to = self.to.as_ref().context("it is open until the drop")?;
        let both = each(count, || {
            write(to, b"x")?;
            ensure!(read(&self.from, &mut [0])? == 1, "it has gone");
            Ok(())
        });
        Ok(both? / 2)
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.to = None;
        self.child.map(|child| waitpid(child, None));
    }
}

/// A file without a name, all of it on the disk; in /tmp it might never be.
fn scratch_file() -> Result<File> {
    let (folder, temp) = (Path::new("/var/tmp"), env::temp_dir());
    let folder = if folder.is_dir() { folder } else { &temp };
    let path = folder.join(format!("io-models-basics-{}", process::id()));
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    let file = options.open(&path).context(path.display().to_string())?;
    fs::remove_file(&path)?;
    file.write_all_at(&[1; PAGE * PAGES], 0)?;
    file.sync_all()?;
    // Lest more is read than is asked for.
    posix_fadvise(&file, 0, 0, Advice::POSIX_FADV_RANDOM)?;
    Ok(file)
}

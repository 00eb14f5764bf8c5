//! What each way to wait says of a descriptor, by what has happened to it: a
//! table, made by having it happen.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use libc::{EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::select::{FD_SETSIZE, FdSet, select};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Pid, read, write};

mod situations;
mod sys;
#[cfg(test)]
mod tests;

const EVENTS: [(&str, i32); 6] = [
    ("EPOLLIN", EPOLLIN),
    ("EPOLLOUT", EPOLLOUT),
    ("EPOLLRDHUP", EPOLLRDHUP),
    ("EPOLLHUP", EPOLLHUP),
    ("EPOLLERR", EPOLLERR),
    ("EPOLLPRI", EPOLLPRI),
];

/// EPOLLHUP and EPOLLERR come unasked.
const ASKED: i32 = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI;

/// By si_code, from 1 on: sigaction(2).
const CODES: [&str; 6] =
    ["POLL_IN", "POLL_OUT", "POLL_MSG", "POLL_ERR", "POLL_PRI", "POLL_HUP"];

/// The table, from a run that has just been made, and what is to be known of
/// it. It is the same at every run.
pub fn table() -> Result<String> {
    let rows = rows()?;
    let mut head = vec!["What has happened"];
    head.extend(EVENTS.map(|(name, _)| name));
    head.extend(["select: read", "write", "except"]);
    head.extend(["signal: si_code", "then recv"]);
    let mut lines = vec![head.join(" | "), vec!["---"; head.len()].join("|")];
    lines.extend(rows.iter().map(Row::cells));
    let lines = lines.into_iter().map(|line| format!("| {line} |\n"));
    let mut text: String = lines.collect();
    text += "\n`●`: it is set. epoll was asked for EPOLLIN, EPOLLOUT, \
             EPOLLRDHUP and EPOLLPRI; EPOLLHUP and EPOLLERR come unasked \
             (epoll_ctl(2)). poll(2) said the same in each row, by its own \
             names";
    for row in &rows {
        if let Err(errno) = row.epoll {
            let said = EVENTS.iter().filter(|(_, bit)| row.poll & bit != 0);
            let said = said.map(|(name, _)| name.replace("EPOLL", "POLL"));
            let said = said.collect::<Vec<_>>().join(" and ");
            let what = row.what;
            text += &format!(
                ", except for {what}: epoll_ctl refuses it with {errno:?}, \
                 and poll said {said}"
            );
        }
    }
    text += ". The signals are those of the last step to where a row is, each \
             named once; they were asked for by O_ASYNC and F_SETSIG \
             (fcntl(2)). SIGURG comes for an urgent byte whatever was asked. \
             recv was called twice, and what it said is given twice where it \
             differs; a pipe and a file were asked by read or write.\n";
    Ok(text)
}

/// What was said of a descriptor.
#[derive(Debug, PartialEq)]
struct Row {
    what: &'static str,
    /// Or why it could not be asked for.
    epoll: Result<i32, Errno>,
    poll: i32,
    /// Whether it was in the sets: read, write, except.
    select: [bool; 3],
    signals: Vec<&'static str>,
    says: String,
}

impl Row {
    fn cells(&self) -> String {
        let epoll = |bit| self.epoll.is_ok_and(|it| it & bit != 0);
        let set = EVENTS.map(|(_, bit)| epoll(bit)).into_iter();
        let set = set.chain(self.select);
        let set = set.map(|set| if set { "●" } else { "" });
        let mut cells = vec![self.what];
        cells.extend(set);
        let signals = self.signals.join(", ");
        cells.extend([&*signals, &*self.says]);
        cells.join(" | ")
    }
}

/// All situations, one after the other, in a thread of its own: the mask of
/// signals and the core are its alone.
fn rows() -> Result<Vec<Row>> {
    let run = || {
        let mut stage = Stage::new()?;
        let all = situations::ALL.iter();
        all.map(|&(what, bring_about)| {
            let fd = bring_about(&mut stage).context(what)?;
            let row = stage.look(what, fd.as_fd()).context(what);
            drop(fd);
            stage.clear()?;
            row
        })
        .collect()
    };
    thread::scope(|scope| match scope.spawn(run).join() {
        Ok(rows) => rows,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Where situations are brought about.
struct Stage {
    signals: SignalFd,
    link: (TcpStream, TcpStream),
    kept: Vec<OwnedFd>,
}

impl Stage {
    /// For the calling thread, which stays on one core and has the signals
    /// blocked from now on.
    fn new() -> Result<Stage> {
        let mut core = CpuSet::new();
        core.set(sched_getcpu()?)?;
        sched_setaffinity(Pid::from_raw(0), &core)?;
        let mut numbers = vec![libc::SIGIO, libc::SIGURG, libc::SIGRTMIN()];
        let taken = echo::signal_set(&numbers);
        // A write to a pipe without a reader sends it.
        numbers.push(libc::SIGPIPE);
        echo::signal_set(&numbers).thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&taken, flags)?;
        let link = situations::pair()?;
        link.0.set_nodelay(true)?;
        link.1.set_nodelay(true)?;
        Ok(Stage { signals, link, kept: Vec::new() })
    }

    /// From now on signals tell of this descriptor.
    fn watch(&self, fd: &impl AsFd) -> Result<()> {
        sys::send_signals_here(fd, libc::SIGRTMIN())?;
        let flags = OFlag::O_NONBLOCK | OFlag::O_ASYNC;
        fcntl(fd, FcntlArg::F_SETFL(flags))?;
        Ok(())
    }

    /// Keeps something open until the situation is over.
    fn keep(&mut self, fd: impl Into<OwnedFd>) {
        self.kept.push(fd.into());
    }

    /// Waits until all that was sent has arrived, and what that sent in turn.
    /// The loopback device has one queue for each core, first in, first out;
    /// what goes through it to and fro comes after what went before, and each
    /// way lets one more answer pass.
    fn settle(&mut self) -> Result<()> {
        let (one, other) = &mut self.link;
        for _ in 0..4 {
            one.write_all(b"1")?;
            other.read_exact(&mut [0])?;
            other.write_all(b"2")?;
            one.read_exact(&mut [0])?;
        }
        Ok(())
    }

    /// Asks everyone.
    fn look(&mut self, what: &'static str, fd: BorrowedFd) -> Result<Row> {
        self.settle()?;
        let epoll = epoll_now(fd)?;
        let poll = sys::poll_now(fd, ASKED)?;
        ensure!(
            epoll.is_err() || epoll == Ok(poll),
            "epoll says {epoll:x?}, and poll {poll:#x}"
        );
        Ok(Row {
            what,
            epoll,
            poll,
            select: select_now(fd)?,
            signals: self.signals()?,
            says: says(fd),
        })
    }

    /// Those that have come.
    fn signals(&mut self) -> Result<Vec<&'static str>> {
        let mut names = Vec::new();
        while let Some(signal) = self.signals.read_signal()? {
            let name = match signal.ssi_signo as i32 {
                libc::SIGURG => "SIGURG",
                libc::SIGIO => bail!("no room for signals: RLIMIT_SIGPENDING"),
                _ => CODES
                    .get((signal.ssi_code as usize).wrapping_sub(1))
                    .context("a signal that the kernel did not send")?,
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Makes room for the next situation.
    fn clear(&mut self) -> Result<()> {
        self.kept.clear();
        self.settle()?;
        self.signals().map(drop)
    }
}

fn epoll_now(fd: BorrowedFd) -> Result<Result<i32, Errno>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let asked = EpollFlags::from_bits_retain(ASKED);
    if let Err(errno) = epoll.add(fd, EpollEvent::new(asked, 0)) {
        return Ok(Err(errno));
    }
    let mut events = [EpollEvent::empty()];
    let ready = epoll.wait(&mut events, EpollTimeout::ZERO)?;
    let events = events.iter().take(ready);
    Ok(Ok(events.map(|it| it.events().bits()).sum()))
}

fn select_now(fd: BorrowedFd) -> Result<[bool; 3]> {
    // select(2): there is no bit for a higher one.
    ensure!((fd.as_raw_fd() as usize) < FD_SETSIZE, "too many descriptors");
    let mut sets = [FdSet::new(); 3];
    for set in &mut sets {
        set.insert(fd);
    }
    let [read, write, except] = &mut sets;
    select(None, read, write, except, &mut TimeVal::zero())?;
    Ok(sets.map(|set| set.contains(fd)))
}

/// What a recv says, and another one; read or write where there is no recv.
fn says(fd: BorrowedFd) -> String {
    let room = &mut [0; 16];
    let mut ask = || match recv(fd.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT) {
        Err(Errno::ENOTSOCK) => match read(fd, room) {
            Err(Errno::EBADF) => ("write: ", write(fd, b"hello")),
            said => ("read: ", said),
        },
        said => ("", said),
    };
    let [first, second] = [(); 2].map(|()| match ask() {
        (call, Ok(0)) => format!("{call}0"),
        (call, Ok(n)) => format!("{call}{n} bytes"),
        (call, Err(errno)) => format!("{call}{errno:?}"),
    });
    if first == second { first } else { format!("{first}, then {second}") }
}

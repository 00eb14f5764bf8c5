//! What went into the call that a thread sleeps in, from the kernel's hands.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::poll::PollFlags;
use syscalls::Sysno;

use super::seen::Wants;

/// The call that a thread sleeps in, with what went into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InWait {
    /// select, with its sets as they went in.
    Select {
        /// The highest number in them, and one more.
        nfds: i32,
        /// Who is to be readable.
        read: Vec<i32>,
        /// Who is to be writable.
        write: Vec<i32>,
    },
    /// poll, with its array: descriptor and wanted events.
    Poll {
        /// In the array's order. Those below zero the kernel passes over.
        fds: Vec<(i32, i16)>,
    },
    /// epoll_wait; the interest list is the kernel's.
    Epoll {
        /// The epoll instance.
        epfd: i32,
        /// How many events it takes at once.
        maxevents: i32,
        /// In milliseconds; -1 is for ever.
        timeout: i32,
    },
    /// A blocking recv.
    Recv {
        /// From whom.
        fd: i32,
        /// The room there is.
        length: u64,
    },
    /// A blocking send.
    Send {
        /// To whom.
        fd: i32,
        /// How much.
        length: u64,
    },
    /// A blocking accept.
    Accept {
        /// The listener.
        fd: i32,
    },
    /// Something else.
    Other {
        /// The kernel's name for it.
        name: String,
    },
}

impl InWait {
    /// Not where it writes its record, nor where the kernel has forgotten
    /// what a call was that a signal interrupted: restart_syscall(2).
    pub fn is_of_the_model(&self) -> bool {
        !matches!(self, InWait::Other { name }
            if name == "write" || name == "restart_syscall")
    }

    /// What the call is to be told of a descriptor.
    pub fn wants(&self, fd: i32) -> Wants {
        match self {
            InWait::Select { read, write, .. } => {
                Wants::of(read.contains(&fd), write.contains(&fd))
            }
            InWait::Poll { fds } => {
                let mut events = fds.iter().filter(|it| it.0 == fd);
                let events = events.next().map_or(0, |it| it.1);
                let events = PollFlags::from_bits_retain(events);
                Wants::of(
                    events.contains(PollFlags::POLLIN),
                    events.contains(PollFlags::POLLOUT),
                )
            }
            InWait::Recv { fd: from, .. } | InWait::Accept { fd: from } => {
                Wants::of(*from == fd, false)
            }
            InWait::Send { fd: to, .. } => Wants::of(false, *to == fd),
            // The interest list is no argument.
            InWait::Epoll { .. } | InWait::Other { .. } => Wants::Nothing,
        }
    }
}

/// What the thread sleeps in; `None` while it runs, and where the kernel does
/// not tell.
pub fn look(pid: i32, tid: i32) -> Option<InWait> {
    let task = format!("/proc/{pid}/task/{tid}");
    let before = Moment::of(&task)?;
    let wait = before.call()?.into_wait(pid)?;
    // What was read belongs to this sleep only if there was no other.
    (Moment::of(&task)? == before).then_some(wait)
}

/// What tells one sleep of a thread from the next.
#[derive(PartialEq)]
struct Moment {
    /// proc_pid_syscall(5): the call's number and arguments.
    syscall: String,
    /// The time on a CPU and how often it got one; neither changes during a
    /// sleep. Empty where the kernel does not count it.
    ran: String,
}

/// A system call with its arguments.
struct Entered {
    call: Sysno,
    args: [u64; 6],
}

impl Moment {
    fn of(task: &str) -> Option<Moment> {
        let ran = fs::read_to_string(format!("{task}/schedstat"));
        let syscall = fs::read_to_string(format!("{task}/syscall")).ok()?;
        Some(Moment { syscall, ran: ran.unwrap_or_default() })
    }

    /// `None` for `running`, and for -1: it sleeps in no call.
    fn call(&self) -> Option<Entered> {
        let mut words = self.syscall.split_whitespace();
        let number: usize = words.next()?.parse().ok()?;
        let mut args = [0; 6];
        for arg in &mut args {
            let digits = words.next()?.strip_prefix("0x")?;
            *arg = u64::from_str_radix(digits, 16).ok()?;
        }
        Some(Entered { call: Sysno::new(number)?, args })
    }
}

impl Entered {
    fn into_wait(self, pid: i32) -> Option<InWait> {
        let [a, b, c, d, ..] = self.args;
        let fd = a as i32;
        // By name, since not every architecture has all of them.
        Some(match self.call.name() {
            "select" | "pselect6" => InWait::Select {
                nfds: fd,
                read: set(pid, b, fd)?,
                write: set(pid, c, fd)?,
            },
            "poll" | "ppoll" => InWait::Poll { fds: array(pid, a, b)? },
            "epoll_wait" | "epoll_pwait" => InWait::Epoll {
                epfd: fd,
                maxevents: c as i32,
                timeout: d as i32,
            },
            "recvfrom" => InWait::Recv { fd, length: c },
            "sendto" => InWait::Send { fd, length: c },
            "accept" | "accept4" => InWait::Accept { fd },
            name => InWait::Other { name: name.to_owned() },
        })
    }
}

/// No array of poll's that is longer is read.
const LONGEST: u64 = 1 << 16;

/// The descriptors in one of select's sets: a bit for each of the first
/// `nfds`.
fn set(pid: i32, address: u64, nfds: i32) -> Option<Vec<i32>> {
    if address == 0 {
        return Some(Vec::new());
    }
    let words = usize::try_from(nfds).ok()?.div_ceil(64);
    let bytes = memory(pid, address, words * 8)?;
    let word = |word: &[u8]| Some(u64::from_ne_bytes(word.try_into().ok()?));
    let words = bytes.chunks_exact(8).map(word);
    let words = words.collect::<Option<Vec<u64>>>()?;
    let is_in = |fd: &i32| words[*fd as usize / 64] >> (fd % 64) & 1 == 1;
    Some((0..nfds).filter(is_in).collect())
}

/// poll's array: of each `struct pollfd` the descriptor and what is wanted.
fn array(pid: i32, address: u64, count: u64) -> Option<Vec<(i32, i16)>> {
    let count = usize::try_from(count.min(LONGEST)).ok()?;
    let bytes = memory(pid, address, count * 8)?;
    let entry = |entry: &[u8]| {
        let fd = i32::from_ne_bytes(entry[..4].try_into().ok()?);
        let events = i16::from_ne_bytes(entry[4..6].try_into().ok()?);
        Some((fd, events))
    };
    bytes.chunks_exact(8).map(entry).collect()
}

/// The kernel lets those read it who may trace the process, as its parent
/// may: ptrace(2), "Ptrace access mode checking".
fn memory(pid: i32, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    memory.read_exact_at(&mut bytes, address).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it is to be told of 3, 4 and 5.
    fn wants(wait: &InWait) -> [Wants; 3] {
        [3, 4, 5].map(|fd| wait.wants(fd))
    }

    #[test]
    fn what_went_in_says_what_is_wanted() {
        use Wants::{Both, In, Nothing, Out};
        let (read, write) = (vec![3, 4], vec![4]);
        let select = InWait::Select { nfds: 6, read, write };
        assert_eq!(wants(&select), [In, Both, Nothing]);
        let (input, output) = (PollFlags::POLLIN, PollFlags::POLLOUT);
        let poll = InWait::Poll {
            fds: vec![
                (-1, input.bits()),
                (4, output.bits()),
                (5, (input | output | PollFlags::POLLPRI).bits()),
            ],
        };
        assert_eq!(wants(&poll), [Nothing, Out, Both]);
        let recv = InWait::Recv { fd: 3, length: 1 };
        assert_eq!(wants(&recv), [In, Nothing, Nothing]);
        let send = InWait::Send { fd: 3, length: 1 };
        assert_eq!(wants(&send), [Out, Nothing, Nothing]);
        let accept = InWait::Accept { fd: 5 };
        assert_eq!(wants(&accept), [Nothing, Nothing, In]);
        assert_eq!(In.and(Out), Both);
        assert_eq!(Nothing.and(Out), Out);
    }

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let moment = |syscall: &str| Moment {
            syscall: syscall.to_owned(),
            ran: String::new(),
        };
        assert!(moment("running\n").call().is_none());
        assert!(moment("-1 0x7ffc 0x7f34\n").call().is_none());
        let number = Sysno::recvfrom as i32;
        let line = format!("{number} 0x8 0x7f 0x4000 0x0 0x0 0x0 0x7f 0x7f\n");
        let wait = moment(&line).call().and_then(|it| it.into_wait(0));
        assert_eq!(wait, Some(InWait::Recv { fd: 8, length: 0x4000 }));
    }
}

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use echo::{Came, Fd, Timeout, Watch, signal_set};
use libc::{SIGINT, SIGIO, SIGTERM, c_int};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::ppoll;
use nix::sys::signal::{self, SigSet, SigmaskHow, sigprocmask};

use crate::flags::{Delivery, Flags, Sent};
use crate::sys::{self, Info};

/// The signals of this server: which it asked for, and how it gets them.
pub struct Signals {
    delivery: Delivery,
    sent: Sent,
    all: SigSet,
    /// What is blocked while a wait lets `all` in.
    others: SigSet,
}

/// What a signal is to the loop.
pub enum Signal {
    /// This descriptor was ready.
    Ready(Fd),
    /// Somebody was ready: the kernel sent a plain SIGIO, which names nobody.
    /// With real-time signals it does so when their queue was full
    /// (RLIMIT_SIGPENDING), and `true` says that this is what happened.
    Somebody(bool),
    /// SIGTERM or SIGINT.
    Stop,
    /// Somebody else's: the kernel did not send it.
    Stray,
}

impl Signals {
    /// From here on no signal is lost, or kills: they are blocked, and stay in
    /// the queue until a wait takes them.
    pub fn new(flags: &Flags) -> Result<Self> {
        let numbers = [SIGIO, SIGTERM, SIGINT, libc::SIGRTMIN()];
        let all = signal_set(&numbers);
        let mut others = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), Some(&mut others))
            .context("sigprocmask")?;
        // SIGTERM and SIGINT are blocked already.
        for stop in [signal::SIGTERM, signal::SIGINT] {
            others.remove(stop);
        }
        if flags.delivery == Delivery::Handler {
            sys::on_signals(&numbers).context("sigaction")?;
        }
        let Flags { delivery, signal: sent, .. } = *flags;
        Ok(Signals { delivery, sent, all, others })
    }

    /// Asks for a signal whenever `socket` becomes ready, and makes it
    /// non-blocking. What was ready before is not told.
    pub fn ask<W: Watch>(
        &self,
        watch: W,
        fd: Fd,
        socket: impl AsFd,
    ) -> nix::Result<()> {
        watch.ask("F_SETOWN_EX", fd, || sys::set_owner(fd))?;
        if self.sent == Sent::Realtime {
            let number = libc::SIGRTMIN();
            watch.ask("F_SETSIG", fd, || sys::set_signal(fd, number))?;
        }
        // Last, lest a signal comes before it can say from where.
        let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_ASYNC);
        watch.ask("F_SETFL", fd, || fcntl(socket, flags))?;
        Ok(())
    }

    /// The next signal; `None` if none came in time. The check whether one is
    /// queued and the sleep are one call, so that none slips in between.
    pub fn next<W: Watch>(
        &self,
        watch: W,
        timeout: Timeout,
    ) -> Result<Option<Signal>> {
        let mut info = Info { number: 0, code: 0, fd: -1, band: 0 };
        let (waited, call) = match self.delivery {
            Delivery::Sigwait => {
                let limit = timeout.timespec().map(|limit| *limit.as_ref());
                let wait = || sys::sigtimedwait(&self.all, &mut info, limit);
                let waited = watch.wait("sigtimedwait", 0, wait);
                (waited.map(|_| Some(info)), "sigtimedwait")
            }
            // They are let in during the call alone; after the first handler
            // they are blocked again: one call, one signal.
            Delivery::Handler => {
                let limit = timeout.timespec();
                let wait = || ppoll(&mut [], limit, Some(self.others));
                match watch.wait("ppoll", 0, wait) {
                    Ok(_) | Err(Errno::EINTR) => (Ok(sys::handed()), "ppoll"),
                    Err(err) => (Err(err), "ppoll"),
                }
            }
        };
        match waited {
            Ok(Some(info)) => Ok(Some(self.told(watch, &info))),
            Ok(None) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(err) => Err(err).context(call),
        }
    }

    fn told<W: Watch>(&self, watch: W, info: &Info) -> Signal {
        let Info { number, code, fd, band } = *info;
        watch.signal(&Came { name: name(number), fd, code, band });
        match number {
            SIGTERM | SIGINT => Signal::Stop,
            SIGIO => {
                let overflow = self.sent == Sent::Realtime;
                Signal::Somebody(overflow && code == libc::SI_KERNEL)
            }
            _ if fd >= 0 => Signal::Ready(fd),
            _ => Signal::Stray,
        }
    }
}

fn name(number: c_int) -> &'static str {
    match number {
        SIGTERM => "SIGTERM",
        SIGINT => "SIGINT",
        SIGIO => "SIGIO",
        _ => "SIGRTMIN",
    }
}

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, getpid, gettid, write};

use crate::event::{CALL_LENGTH, Event, Kind, READY_SHOWN, Verb};
use crate::{Fd, Stop, workers};

/// Sees every system call of a model. Each verb runs the call that it is given
/// and classifies it for the reader, even when nobody watches.
pub trait Watch: Copy + Send + Sync + 'static {
    /// Runs `f` and returns what it returned; what every verb comes down to.
    fn call<T: Returned>(
        &self,
        seen: Seen,
        f: impl FnOnce() -> nix::Result<T>,
    ) -> nix::Result<T>;

    /// Says what the last wait found, and how many entries the server had to
    /// look through to know.
    fn ready(&self, ready: &[Fd], scanned: usize);

    /// Says what a descriptor is there for, which is neither a client's nor
    /// the listener's.
    fn name(&self, fd: Fd, name: &'static str);

    /// Says that a descriptor is a client that another process has accepted:
    /// of all that it accepted, the one of this number.
    fn client(&self, fd: Fd, number: u64);

    /// A signal came, with these fields of its siginfo_t (sigaction(2)).
    /// Allowed in a signal handler.
    fn signal(&self, signal: &Came);

    /// An operation on `fd`, on so many bytes, was put into a queue from which
    /// somebody else will take it. No call is made for it.
    fn submitted(&self, operation: &'static str, fd: Fd, bytes: usize);

    /// The end of an operation on `fd` was found in a queue: what it returned,
    /// or the errno's negative. No call is made for it.
    fn completed(&self, operation: &'static str, fd: Fd, result: i32);

    /// The same of an operation that goes on, and will have further results.
    fn goes_on(&self, operation: &'static str, fd: Fd, result: i32);

    /// The same of an operation that never waits and says nothing if it
    /// succeeds: it was over within the call that handed it over.
    fn done_at_once(&self, operation: &'static str, fd: Fd, result: i32);

    /// A wait: sleeps until one of `asked` descriptors is ready.
    #[inline(always)]
    fn wait<T: Returned>(
        &self,
        call: &'static str,
        asked: usize,
        f: impl FnOnce() -> nix::Result<T>,
    ) -> nix::Result<T> {
        let seen = Seen { verb: Verb::Wait, call, fd: -1, asked, offset: 0 };
        self.call(seen, f)
    }

    /// A copy: moves bytes between the kernel and the process.
    #[inline(always)]
    fn copy(
        &self,
        call: &'static str,
        fd: impl AsFd,
        f: impl FnOnce() -> nix::Result<usize>,
    ) -> nix::Result<usize> {
        self.call(Seen::of(Verb::Copy, call, fd), f)
    }

    /// A blocking call: sleeps until bytes can move, and moves them.
    #[inline(always)]
    fn wait_and_copy(
        &self,
        call: &'static str,
        fd: impl AsFd,
        f: impl FnOnce() -> nix::Result<usize>,
    ) -> nix::Result<usize> {
        self.call(Seen::of(Verb::WaitAndCopy, call, fd), f)
    }

    /// Takes a client from the accept queue; with a blocking listener it
    /// sleeps until there is one.
    #[inline(always)]
    fn take(
        &self,
        call: &'static str,
        fd: impl AsFd,
        f: impl FnOnce() -> nix::Result<OwnedFd>,
    ) -> nix::Result<OwnedFd> {
        self.call(Seen::of(Verb::Take, call, fd), f)
    }

    /// Tells the kernel what is wanted of `fd`.
    #[inline(always)]
    fn ask<T: Returned>(
        &self,
        call: &'static str,
        fd: Fd,
        f: impl FnOnce() -> nix::Result<T>,
    ) -> nix::Result<T> {
        let seen = Seen { verb: Verb::Ask, call, fd, asked: 0, offset: 0 };
        self.call(seen, f)
    }

    /// Gives an operation on a region of a file, for the client of `fd`, to
    /// somebody else who does it meanwhile.
    #[inline(always)]
    fn submit(
        &self,
        call: &'static str,
        fd: Fd,
        Region { offset, length }: Region,
        f: impl FnOnce() -> nix::Result<()>,
    ) -> nix::Result<()> {
        let verb = Verb::Submit;
        self.call(Seen { verb, call, fd, asked: length, offset }, f)
    }

    /// Learns what became of an operation: `f` asks for its result.
    #[inline(always)]
    fn complete(
        &self,
        call: &'static str,
        fd: Fd,
        Region { offset, length }: Region,
        f: impl FnOnce() -> nix::Result<usize>,
    ) -> nix::Result<usize> {
        let verb = Verb::Complete;
        self.call(Seen { verb, call, fd, asked: length, offset }, f)
    }
}

/// A region of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: usize,
}

impl Region {
    /// So many bytes of a socket, which has no places.
    pub fn of_socket(length: usize) -> Self {
        Region { offset: Event::NOWHERE, length }
    }
}

/// A signal as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// Its name, such as `SIGRTMIN`.
    pub name: &'static str,
    /// The descriptor that it is about, or -1.
    pub fd: Fd,
    /// Why it came: `si_code`.
    pub code: i32,
    /// What is ready, as poll says it: `si_band`; 0 if it does not say.
    pub band: i64,
}

/// What is known of a call before it is made.
#[derive(Clone, Copy)]
pub struct Seen {
    verb: Verb,
    call: &'static str,
    fd: Fd,
    asked: usize,
    offset: u64,
}

impl Seen {
    #[inline(always)]
    fn of(verb: Verb, call: &'static str, fd: impl AsFd) -> Self {
        let fd = fd.as_fd().as_raw_fd();
        Seen { verb, call, fd, asked: 0, offset: 0 }
    }
}

/// What a call may return, as the number that the kernel gave.
pub trait Returned {
    /// That number.
    fn number(&self) -> i64;
}

impl Returned for () {
    fn number(&self) -> i64 {
        0
    }
}

impl Returned for i32 {
    fn number(&self) -> i64 {
        i64::from(*self)
    }
}

impl Returned for usize {
    fn number(&self) -> i64 {
        *self as i64
    }
}

impl Returned for OwnedFd {
    fn number(&self) -> i64 {
        i64::from(self.as_raw_fd())
    }
}

impl Returned for Option<OwnedFd> {
    fn number(&self) -> i64 {
        self.as_ref().map_or(-1, Returned::number)
    }
}

impl Returned for Option<Pid> {
    fn number(&self) -> i64 {
        self.map_or(0, |pid| i64::from(pid.as_raw()))
    }
}

/// Nobody watches: the calls and nothing else.
#[derive(Clone, Copy)]
pub struct Unwatched;

impl Watch for Unwatched {
    #[inline(always)]
    fn call<T: Returned>(
        &self,
        _: Seen,
        f: impl FnOnce() -> nix::Result<T>,
    ) -> nix::Result<T> {
        f()
    }

    #[inline(always)]
    fn ready(&self, _: &[Fd], _: usize) {}

    #[inline(always)]
    fn name(&self, _: Fd, _: &'static str) {}

    #[inline(always)]
    fn client(&self, _: Fd, _: u64) {}

    #[inline(always)]
    fn signal(&self, _: &Came) {}

    #[inline(always)]
    fn submitted(&self, _: &'static str, _: Fd, _: usize) {}

    #[inline(always)]
    fn completed(&self, _: &'static str, _: Fd, _: i32) {}

    #[inline(always)]
    fn goes_on(&self, _: &'static str, _: Fd, _: i32) {}

    #[inline(always)]
    fn done_at_once(&self, _: &'static str, _: Fd, _: i32) {}
}

/// Writes an event for each call into a pipe whose other end another process
/// reads. It takes no lock, allocates nothing and keeps errno, so that threads,
/// forked children and signal handlers may all be watched.
#[derive(Clone, Copy)]
pub struct Watched {
    pipe: BorrowedFd<'static>,
}

/// The call from which two processes return.
const FORK: &str = "fork";

/// The call after which the kernel may have a thread for us.
const SETUP: &str = "io_uring_setup";

/// Set once the reader has gone away: there is nobody left to write for.
static READER_GONE: AtomicBool = AtomicBool::new(false);

impl Watched {
    /// Watches into `pipe`, beginning with the server's name, its listener and
    /// the descriptor by which it learns that it must stop.
    pub fn start(
        pipe: BorrowedFd<'static>,
        name: &'static str,
        listener: Fd,
        stop: &impl Stop,
    ) -> Self {
        let watched = Watched { pipe };
        let mut event =
            Event::new(Kind::Start, Verb::Ask, name, listener, now());
        event.asked = stop.fd() as u32;
        watched.write(&event);
        watched
    }

    fn result(&self, operation: &str, fd: Fd, result: i32, how: u32) {
        let mut event =
            Event::new(Kind::After, Verb::Complete, operation, fd, now());
        (event.ret, event.offset) = (i64::from(result), Event::QUEUED);
        event.scanned = how;
        event.cpu = on_cpu();
        self.write(&event);
    }

    fn write(&self, event: &Event) {
        if READER_GONE.load(Relaxed) {
            return;
        }
        let errno = Errno::last_raw();
        while let Err(err) = write(self.pipe, &event.encode()) {
            if err != Errno::EINTR {
                READER_GONE.store(true, Relaxed);
                break;
            }
        }
        Errno::set_raw(errno);
    }
}

impl Watch for Watched {
    fn call<T: Returned>(
        &self,
        seen: Seen,
        f: impl FnOnce() -> nix::Result<T>,
    ) -> nix::Result<T> {
        let Seen { verb, call, fd, asked, offset } = seen;
        let mut event = Event::new(Kind::Before, verb, call, fd, now());
        (event.asked, event.offset) = (asked as u32, offset);
        if matches!(verb, Verb::Wait | Verb::WaitAndCopy | Verb::Take) {
            self.write(&event);
            event.t0 = now();
        }
        match verb {
            Verb::Submit => workers::submits(fd, offset),
            // Before it does what another thread could see it do.
            _ => workers::tells(event.tid),
        }
        let result = f();
        (event.t1, event.cpu) = (now(), on_cpu());
        event.kind = Kind::After;
        event.ret = match &result {
            Ok(value) => value.number(),
            Err(errno) => -i64::from(*errno as i32),
        };
        match verb {
            Verb::Submit => workers::has_begun(),
            Verb::Complete => {
                let by = workers::who_worked(fd, offset, &mut event.ready);
                event.ready_count = by as u32;
            }
            _ => {}
        }
        if call == SETUP && event.ret >= 0 {
            let by = workers::of_ring(event.ret as Fd, &mut event.ready);
            event.ready_count = by as u32;
        }
        if call == FORK {
            // A child returns from the call that its parent made.
            (event.pid, event.tid) = (getpid().as_raw(), gettid().as_raw());
        }
        self.write(&event);
        result
    }

    fn ready(&self, ready: &[Fd], scanned: usize) {
        let mut event = Event::new(Kind::Ready, Verb::Wait, "", -1, now());
        event.ready_count = ready.len() as u32;
        event.scanned = scanned as u32;
        let shown = ready.len().min(READY_SHOWN);
        event.ready[..shown].copy_from_slice(&ready[..shown]);
        self.write(&event);
    }

    fn name(&self, fd: Fd, name: &'static str) {
        self.write(&Event::new(Kind::Name, Verb::Ask, name, fd, now()));
    }

    fn client(&self, fd: Fd, number: u64) {
        let mut event = Event::new(Kind::Name, Verb::Ask, "", fd, now());
        event.offset = number;
        self.write(&event);
    }

    fn signal(&self, signal: &Came) {
        let Came { name, fd, code, band } = *signal;
        let mut event = Event::new(Kind::After, Verb::Signal, name, fd, now());
        (event.asked, event.scanned) = (code as u32, band as u32);
        event.cpu = on_cpu();
        self.write(&event);
    }

    fn submitted(&self, operation: &'static str, fd: Fd, bytes: usize) {
        let mut event =
            Event::new(Kind::After, Verb::Submit, operation, fd, now());
        (event.asked, event.offset) = (bytes as u32, Event::QUEUED);
        event.cpu = on_cpu();
        self.write(&event);
    }

    fn completed(&self, operation: &'static str, fd: Fd, result: i32) {
        self.result(operation, fd, result, 0);
    }

    fn goes_on(&self, operation: &'static str, fd: Fd, result: i32) {
        self.result(operation, fd, result, Event::GOES_ON);
    }

    fn done_at_once(&self, operation: &'static str, fd: Fd, result: i32) {
        self.result(operation, fd, result, Event::AT_ONCE);
    }
}

impl Event {
    fn new(kind: Kind, verb: Verb, call: &str, fd: Fd, at: u64) -> Self {
        let mut name = [0; CALL_LENGTH];
        let length = call.len().min(CALL_LENGTH);
        name[..length].copy_from_slice(&call.as_bytes()[..length]);
        Event {
            kind,
            verb,
            pid: getpid().as_raw(),
            tid: gettid().as_raw(),
            fd,
            t0: at,
            t1: at,
            cpu: 0,
            ret: 0,
            asked: 0,
            ready_count: 0,
            scanned: 0,
            offset: 0,
            call: name,
            ready: [0; READY_SHOWN],
        }
    }
}

/// Nanoseconds of the clock that a stopped or changed wall clock leaves alone.
pub(crate) fn now() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// Nanoseconds that this thread has been on a CPU. Unlike `now` this enters the
/// kernel each time (vdso(7)); a handler may (signal-safety(7)).
fn on_cpu() -> u64 {
    nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, Read, pipe};

    /// The kernel's word for it.
    fn on_cpu() -> u64 {
        nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
    }

    fn watched() -> (Watched, PipeReader) {
        let (events, pipe) = pipe().unwrap();
        let pipe: &'static OwnedFd = Box::leak(Box::new(pipe.into()));
        (Watched { pipe: pipe.as_fd() }, events)
    }

    fn next(events: &mut PipeReader) -> Event {
        let mut bytes = [0; Event::SIZE];
        events.read_exact(&mut bytes).unwrap();
        Event::decode(&bytes).unwrap()
    }

    #[test]
    fn what_has_returned_says_how_long_its_thread_was_on_a_cpu() {
        let (watch, mut events) = watched();
        let worked = |f: &dyn Fn()| {
            let begin = on_cpu();
            f();
            begin..=on_cpu()
        };
        let burn = || {
            let until = on_cpu() + 3_000_000;
            while on_cpu() < until {}
            Ok(())
        };
        let span = worked(&|| watch.ask("burn", -1, burn).unwrap());
        let event = next(&mut events);
        assert!(span.contains(&event.cpu), "{span:?}, {}", event.cpu);
        assert!(event.cpu >= span.start() + 3_000_000);
        let came = Came { name: "SIGIO", fd: -1, code: 0, band: 0 };
        let span = worked(&|| watch.signal(&came));
        let event = next(&mut events);
        assert!(span.contains(&event.cpu), "{span:?}, {}", event.cpu);
    }

    #[test]
    fn what_only_begins_or_names_does_not_ask_for_the_cpu_time() {
        let (watch, mut events) = watched();
        watch.wait("poll", 1, || Ok(1)).unwrap();
        watch.ready(&[], 1);
        watch.name(1, "completions");
        let shown = [(); 4].map(|()| {
            let event = next(&mut events);
            (event.kind, event.cpu > 0)
        });
        let expected = [
            (Kind::Before, false),
            (Kind::After, true),
            (Kind::Ready, false),
            (Kind::Name, false),
        ];
        assert_eq!(shown, expected);
    }
}

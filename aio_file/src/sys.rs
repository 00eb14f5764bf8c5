//! `poll` over a list that lives as long as the server, as in poll_server; and
//! POSIX AIO, whose operations own what glibc's threads read and write.
#![allow(unsafe_code)]

use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::Duration;

use echo::Pending;
use libc::{aiocb, c_int, pollfd, sigevent, signalfd_siginfo, sigval};
use nix::errno::Errno;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction,
};
use nix::unistd::{getpid, gettid};

/// `poll(2)`: sleeps until an entry is ready or `timeout` milliseconds have
/// passed (-1: for ever), and marks the ready ones in their `revents`.
pub fn poll(list: &mut [pollfd], timeout: i32) -> nix::Result<usize> {
    let length = list.len() as libc::nfds_t;
    // SAFETY: `list` is `length` entries that we may write, for the whole
    // call. A closed or negative descriptor is reported, not followed.
    let ready = unsafe { libc::poll(list.as_mut_ptr(), length, timeout) };
    Errno::result(ready).map(|ready| ready as usize)
}

/// An operation of POSIX AIO. From its submission to its result it is in
/// flight: a thread of glibc's reads and writes the control block and the
/// bytes whenever it likes. So it owns both, at addresses that do not change,
/// and its descriptor, whose number must not come to mean another file.
///
/// Nothing gives out a reference to the block or to the bytes while it is in
/// flight. To drop it then waits for its end; to forget it leaks them.
pub struct Operation {
    /// A box of its own, as a pointer: a reference would claim that nobody
    /// else writes to it.
    block: NonNull<aiocb>,
    /// The bytes lie where a Vec in it keeps them, wherever it moves itself.
    bytes: Pending,
    lane: Rc<OwnedFd>,
    in_flight: bool,
}

impl Operation {
    /// An operation on this descriptor, not in flight.
    pub fn new(lane: Rc<OwnedFd>) -> Self {
        // SAFETY: a block of zeros is one: numbers, and pointers that may be
        // null.
        let mut block: aiocb = unsafe { mem::zeroed() };
        block.aio_fildes = lane.as_raw_fd();
        let block = NonNull::from(Box::leak(Box::new(block)));
        let bytes = Pending::default();
        Operation { block, bytes, lane, in_flight: false }
    }

    /// Whether it was submitted and its result not yet taken.
    pub fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// Takes the bytes that it is to move, and says how many are owed.
    pub fn lend(&mut self, bytes: Pending) -> usize {
        assert!(!self.in_flight, "its bytes are in use");
        self.bytes = bytes;
        self.bytes.owed_mut().len()
    }

    /// Gives the bytes back.
    pub fn take(&mut self) -> Pending {
        assert!(!self.in_flight, "its bytes are in use");
        mem::take(&mut self.bytes)
    }

    /// `aio_write(3)` of the owed bytes, without the first `skip`.
    pub fn write(
        &mut self,
        skip: usize,
        offset: u64,
        notice: Notice,
    ) -> nix::Result<()> {
        let block = self.prepare(skip, offset, notice);
        // SAFETY: `prepare` filled the block in, and block, bytes and
        // descriptor stay in place until the result is there: nothing takes
        // them from an operation in flight, and its drop waits. If the call
        // fails, glibc has forgotten the block.
        let begun = unsafe { libc::aio_write(block) };
        self.in_flight = begun == 0;
        Errno::result(begun).map(drop)
    }

    /// `aio_read(3)` into the owed bytes, behind the first `skip`.
    pub fn read(
        &mut self,
        skip: usize,
        offset: u64,
        notice: Notice,
    ) -> nix::Result<()> {
        let block = self.prepare(skip, offset, notice);
        // SAFETY: as in `write`; and the bytes are ours to overwrite, for
        // `prepare` had them by a unique reference.
        let begun = unsafe { libc::aio_read(block) };
        self.in_flight = begun == 0;
        Errno::result(begun).map(drop)
    }

    fn prepare(
        &mut self,
        skip: usize,
        offset: u64,
        Notice(notice): Notice,
    ) -> *mut aiocb {
        assert!(!self.in_flight, "it is in flight");
        let bytes = &mut self.bytes.owed_mut()[skip..];
        // SAFETY: the box that `new` made; not in flight, nobody else uses it.
        let block = unsafe { self.block.as_mut() };
        block.aio_buf = bytes.as_mut_ptr().cast();
        block.aio_nbytes = bytes.len();
        block.aio_offset = offset as libc::off_t;
        block.aio_sigevent = notice;
        self.block.as_ptr()
    }

    /// Whether it was in flight and has ended.
    pub fn has_ended(&self) -> bool {
        self.in_flight && self.error() != libc::EINPROGRESS
    }

    /// `aio_error(3)`. glibc answers under the lock under which a thread ends
    /// an operation, its notice included. So with any answer but EINPROGRESS
    /// that thread has let go of block and bytes, and the answer is the last.
    fn error(&self) -> c_int {
        // SAFETY: the block was submitted, as both callers know, and is alive.
        unsafe { libc::aio_error(self.block.as_ptr()) }
    }

    /// Its result, after which it is in flight no more; EINPROGRESS if it has
    /// not ended.
    pub fn result(&mut self) -> nix::Result<usize> {
        assert!(self.in_flight, "it was not submitted");
        let error = self.error();
        if error == libc::EINPROGRESS {
            return Err(Errno::EINPROGRESS);
        }
        // SAFETY: it has ended, and its result was not yet taken.
        let moved = unsafe { libc::aio_return(self.block.as_ptr()) };
        self.in_flight = false;
        match error {
            0 => Ok(moved as usize),
            error => Err(Errno::from_raw(error)),
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let block = self.block.as_ptr();
        if self.in_flight {
            // aio_cancel(3) takes it out of the queue; one that a thread has
            // begun stays (AIO_NOTCANCELED), and has to be waited for.
            // SAFETY: the block was submitted on this descriptor, still open.
            unsafe { libc::aio_cancel(self.lane.as_raw_fd(), block) };
            while self.result() == Err(Errno::EINPROGRESS) {
                let list = [block.cast_const()];
                // SAFETY: a list of one block, alive; no time limit.
                unsafe { libc::aio_suspend(list.as_ptr(), 1, ptr::null()) };
            }
        }
        // SAFETY: the box that `new` leaked, and nobody uses it any more: it
        // was never submitted, or its result is taken.
        drop(unsafe { Box::from_raw(block) });
    }
}

/// The list that aio_suspend wants, kept from call to call.
pub struct List(Vec<*const aiocb>);

impl List {
    /// Room for so many operations.
    pub fn with_capacity(most: usize) -> Self {
        List(Vec::with_capacity(most))
    }

    /// `aio_suspend(3)`: sleeps until one of the operations has ended, at once
    /// if one has already; EAGAIN after `limit`.
    pub fn suspend<'a>(
        &mut self,
        operations: impl Iterator<Item = &'a Operation>,
        limit: Duration,
    ) -> nix::Result<()> {
        let in_flight = operations.filter(|it| it.in_flight);
        self.0.clear();
        self.0.extend(in_flight.map(|it| it.block.as_ptr().cast_const()));
        let limit = libc::timespec {
            tv_sec: limit.as_secs() as libc::time_t,
            tv_nsec: limit.subsec_nanos().into(),
        };
        let (list, length) = (self.0.as_ptr(), self.0.len() as c_int);
        // SAFETY: `length` blocks of operations that are borrowed, and so
        // alive, during the call; afterwards glibc keeps none of it.
        let ended = unsafe { libc::aio_suspend(list, length, &limit) };
        Errno::result(ended).map(drop)
    }
}

/// How the end of an operation makes itself known.
#[derive(Clone, Copy)]
pub struct Notice(sigevent);

/// What libc's `sigevent` has no names for: the union that begins at its
/// `sigev_notify_thread_id` holds a function and its thread's attributes.
#[repr(C)]
#[derive(Clone, Copy)]
struct ByThread {
    value: sigval,
    signo: c_int,
    notify: c_int,
    function: extern "C" fn(sigval),
    attributes: *const libc::pthread_attr_t,
}

#[repr(C)]
union Event {
    whole: sigevent,
    by_thread: ByThread,
}

const _: () = assert!(
    mem::offset_of!(ByThread, function)
        == mem::offset_of!(sigevent, sigev_notify_thread_id)
);

impl Notice {
    /// None: only whoever asks learns of it.
    pub fn none() -> Self {
        // SAFETY: an event of zeros is one: numbers and a null pointer.
        let mut event: sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_NONE;
        Notice(event)
    }

    /// A signal that carries the number of the operation's slot.
    pub fn by_signal(signal: c_int, slot: usize) -> Self {
        let Notice(mut event) = Self::none();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        event.sigev_value = value_of(slot);
        Notice(event)
    }

    /// A thread that runs `function` with the number of the operation's slot.
    pub fn by_thread(function: extern "C" fn(sigval), slot: usize) -> Self {
        let Notice(whole) = Self::none();
        let mut event = Event { whole };
        event.by_thread = ByThread {
            value: value_of(slot),
            signo: 0,
            notify: libc::SIGEV_THREAD,
            function,
            // glibc starts it detached.
            attributes: ptr::null(),
        };
        // SAFETY: both fields begin alike, and what `by_thread` does not
        // cover is still as `whole` was.
        Notice(unsafe { event.whole })
    }
}

fn value_of(slot: usize) -> sigval {
    sigval { sival_ptr: ptr::without_provenance_mut(slot) }
}

/// No signal was read yet.
pub fn no_signal() -> signalfd_siginfo {
    // SAFETY: it consists of numbers, and zeros are some.
    unsafe { mem::zeroed() }
}

/// `read(2)` of a signalfd: as many signals as are there and have room. It
/// returns their bytes.
pub fn read_signals(
    fd: impl AsFd,
    room: &mut [signalfd_siginfo],
) -> nix::Result<usize> {
    let fd = fd.as_fd().as_raw_fd();
    let (start, size) = (room.as_mut_ptr(), size_of_val(room));
    // SAFETY: `room` is `size` bytes that we may write; whatever the kernel
    // writes, numbers are valid.
    let read = unsafe { libc::read(fd, start.cast(), size) };
    Errno::result(read).map(|bytes| bytes as usize)
}

/// The thread that the signals of a stop are meant for.
static SERVING: AtomicI32 = AtomicI32::new(0);

/// In the thread that it starts for a notice, glibc unblocks every signal. One
/// that stops the server may come to it then, and its default would be to
/// end the process. So it has a handler that sends it on to this thread, where
/// it is blocked and makes the stop's descriptor readable.
pub fn keep_stop_signals_here() -> nix::Result<()> {
    SERVING.store(gettid().as_raw(), Relaxed);
    let handler = SigHandler::Handler(send_on);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        // SAFETY: the handler calls async-signal-safe functions only: getpid
        // and the system call tgkill; it keeps errno.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

extern "C" fn send_on(signal: c_int) {
    let errno = Errno::last_raw();
    let (pid, tid) = (getpid().as_raw(), SERVING.load(Relaxed));
    // SAFETY: tgkill(2) takes three numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
    Errno::set_raw(errno);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::time::Instant;

    use echo::Scratch;
    use nix::unistd::{pipe, write};

    use super::*;

    /// Bytes to read over.
    fn owed(length: usize) -> Pending {
        let (mut pending, mut scratch) =
            (Pending::default(), Scratch::new(length));
        pending.turn(&mut scratch).filled(length);
        pending
    }

    /// Waits until a thread sleeps in a read of `fd`; says why it cannot tell.
    fn until_read_of(fd: i32) -> Result<(), String> {
        let begin = Instant::now();
        let asleep = format!("{} {fd:#x} ", libc::SYS_read);
        while begin.elapsed() < Duration::from_secs(10) {
            for thread in fs::read_dir("/proc/self/task").expect("/proc") {
                let path = thread.expect("a thread").path().join("syscall");
                match fs::read_to_string(path) {
                    Ok(call) if call.starts_with(&asleep) => return Ok(()),
                    Ok(_) => {}
                    // A thread may have ended meanwhile.
                    Err(err) if err.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(err) => return Err(format!("proc's syscall: {err}")),
                }
            }
        }
        panic!("nobody reads");
    }

    #[test]
    fn an_operation_in_flight_is_dropped_after_its_end_and_not_before() {
        let (from, to) = pipe().expect("a pipe");
        let fd = from.as_raw_fd();
        let lane = Rc::new(from);
        let mut sleeps = Operation::new(lane.clone());
        assert_eq!(sleeps.lend(owed(4)), 4);
        sleeps.read(0, 0, Notice::none()).expect("begins");
        if let Err(why) = until_read_of(fd) {
            println!("SKIPPED: {why}");
            write(&to, b"late").expect("room");
            return;
        }
        assert!(!sleeps.has_ended());
        assert_eq!(sleeps.result(), Err(Errno::EINPROGRESS));

        // One that no thread has begun is cancelled, and ends at once.
        let mut queued = Operation::new(lane);
        queued.lend(owed(4));
        queued.read(0, 0, Notice::none()).expect("is queued");
        drop(queued);

        let written = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                written.store(true, Relaxed);
                write(&to, b"late").expect("room");
            });
            drop(sleeps);
            assert!(written.load(Relaxed), "it was dropped in flight");
        });
    }
}

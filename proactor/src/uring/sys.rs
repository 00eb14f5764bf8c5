//! A ring, and what is lent to it. The kernel reads and writes memory of ours
//! long after the call that told it to, so that memory belongs to the ring
//! until the operation's own completion has come out.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::num::NonZero;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering::Release};
use std::time::{Duration, Instant};

use echo::{Fd, Timeout, Watch, tally};
use io_uring::types::{
    self, BufRingEntry, CancelBuilder, SubmitArgs, Timespec,
};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use super::buffers::{Accounts, Buffer};
use super::{Completion, Queues, Setup};
use crate::bytes::{Bytes, Memory};

/// The two queues, and all that the kernel may still read or write.
pub struct Ring<W: Watch> {
    ring: IoUring,
    /// By descriptor: what its operation in flight reads or writes.
    lent: Vec<Option<Lent>>,
    /// How many submissions there have been.
    pushed: u64,
    /// Sends that say nothing when they have succeeded: whose, and which
    /// submission it is.
    silent: VecDeque<(Fd, NonZero<u64>)>,
    /// How many of the first of these are known to be over.
    over: usize,
    provided: Option<Provided>,
    /// Completions that were taken out of the queue and not looked at yet.
    done: VecDeque<cqueue::Entry>,
    /// By descriptor: whether a recv for all that comes is under way.
    receiving: Vec<bool>,
    /// Operations whose last completion is still to come.
    in_flight: usize,
    setup: Setup,
    /// Which descriptors the ring knows as registered files.
    registered: Vec<bool>,
    watch: W,
}

/// Bytes of an operation in flight.
struct Lent {
    bytes: Bytes,
    kind: Kind,
    /// Which submission it is, of a send that says nothing when it succeeds,
    /// and has not said anything yet.
    silent: Option<NonZero<u64>>,
    /// What it has sent without a copy, and may not have let go of yet.
    sent: i32,
}

/// The kernel is to say whether a zero-copy send copied after all, and how it
/// says so: linux/io_uring.h.
const REPORT_USAGE: u16 = 1 << 3;
const COPIED: u32 = 1 << 31;

/// What an operation is, beside its descriptor, in its `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Accept,
    Recv,
    RecvMulti,
    Send,
    SendNow,
    Read,
    Cancel,
}

impl Kind {
    fn of(user_data: u64) -> Self {
        use Kind::*;
        let kinds = [Accept, Recv, RecvMulti, Send, SendNow, Read, Cancel];
        kinds[(user_data >> 32) as usize]
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Accept => "accept",
            Kind::Recv | Kind::RecvMulti => "recv",
            Kind::Send | Kind::SendNow => "send",
            Kind::Read => "read",
            Kind::Cancel => "cancel",
        }
    }

    fn key(self, fd: Fd) -> u64 {
        (self as u64) << 32 | u64::from(fd as u32)
    }
}

/// The group of the provided buffers: there is one.
const GROUP: u16 = 0;

impl<W: Watch> Ring<W> {
    /// A ring of its own for this thread.
    pub fn new(setup: Setup, watch: W) -> nix::Result<Self> {
        let mut ring = None;
        watch.ask("io_uring_setup", -1, || {
            let new = setup.builder().build(setup.entries);
            let new = ring.insert(new.map_err(errno)?);
            Ok(new.as_raw_fd())
        })?;
        let ring = ring.expect("it was made");
        watch.name(ring.as_raw_fd(), "completions");
        let mut registered = Vec::new();
        if setup.registered {
            let (most, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
            let most = most.min(1 << 20) as u32;
            watch.ask("io_uring_register", ring.as_raw_fd(), || {
                ring.submitter().register_files_sparse(most).map_err(errno)
            })?;
            registered = vec![false; most as usize];
        }
        let provided = match setup.buffers {
            0 => None,
            count => {
                let provided = Provided::new(count, setup.buffer)?;
                let (addr, fd) = (provided.entries.addr(), ring.as_raw_fd());
                // SAFETY: the entries are `count` of them, at the beginning
                // of a page, and stay mapped until nothing is in flight, or
                // for good: `drop`.
                watch.ask("io_uring_register", fd, || unsafe {
                    let submitter = ring.submitter();
                    submitter
                        .register_buf_ring_with_flags(addr, count, GROUP, 0)
                        .map_err(errno)
                })?;
                Some(provided)
            }
        };
        Ok(Ring {
            ring,
            lent: Vec::new(),
            pushed: 0,
            silent: VecDeque::with_capacity(256),
            over: 0,
            provided,
            done: VecDeque::with_capacity(4 * setup.entries as usize),
            receiving: Vec::new(),
            in_flight: 0,
            registered,
            setup,
            watch,
        })
    }

    /// Puts an operation into the submission queue.
    ///
    /// # Safety
    ///
    /// What it reads and writes must stay valid until its last completion.
    #[inline]
    unsafe fn push(&mut self, kind: Kind, fd: Fd, bytes: usize, it: Entry) {
        let mut entry = it.user_data(kind.key(fd));
        if self.registered.get(fd as usize) == Some(&true) {
            entry = entry.flags(squeue::Flags::FIXED_FILE);
        }
        // Of those that say nothing, none outlives the call that submits it.
        self.in_flight += usize::from(kind != Kind::SendNow);
        // SAFETY: as the caller promises.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.make_room();
        }
        self.pushed += 1;
        self.watch.submitted(kind.name(), fd, bytes);
    }

    /// Lets the ring keep the file of `fd`, or nothing (-1), in the place of
    /// this number, so that no operation has to look for it.
    fn register(&mut self, place: Fd, fd: Fd) {
        let Some(known) = self.registered.get_mut(place as usize) else {
            return;
        };
        let ring = self.ring.as_raw_fd();
        let update = || {
            let submitter = self.ring.submitter();
            submitter.register_files_update(place as u32, &[fd]).map_err(errno)
        };
        let result = self.watch.ask("io_uring_register", ring, update);
        *known = result.is_ok() && fd >= 0;
    }

    /// Hands over what is in the submission queue, and waits for nothing.
    fn make_room(&mut self) {
        let fd = self.ring.as_raw_fd();
        let _ = self.watch.ask("io_uring_enter", fd, || {
            let submitter = self.ring.submitter();
            match self.setup.sqpoll {
                None => submitter.submit(),
                Some(_) => submitter.squeue_wait(),
            }
            .map_err(errno)
        });
        // The kernel takes nothing more while nobody takes what it has done.
        self.take_completions();
    }

    /// Takes out of the queue what is there. A send that was to say nothing
    /// and is not among this has succeeded, if its submission was taken: it
    /// was tried there and then, and did not wait.
    fn take_completions(&mut self) {
        for entry in self.ring.completion() {
            if Kind::of(entry.user_data()) == Kind::SendNow {
                let slot = entry.user_data() as Fd as usize;
                if let Some(lent) = &mut self.lent[slot] {
                    lent.silent = None;
                }
            }
            self.done.push_back(entry);
        }
        let submissions = self.ring.submission();
        // One that has failed may be among those that found no room.
        if submissions.cq_overflow() {
            return;
        }
        let taken = self.pushed - submissions.len() as u64;
        drop(submissions);
        let over = |it: &&(Fd, NonZero<u64>)| it.1.get() <= taken;
        let silent = self.silent.iter().skip(self.over);
        self.over += silent.take_while(over).count();
    }

    /// A send that was to say nothing, and has succeeded.
    #[inline]
    fn next_silent(&mut self) -> Option<Completion> {
        while self.over > 0 {
            self.over -= 1;
            let (fd, number) = self.silent.pop_front()?;
            let lent = &mut self.lent[fd as usize];
            let same = |it: &mut Lent| it.silent == Some(number);
            if let Some(Lent { bytes, .. }) = lent.take_if(same) {
                let n = bytes.len();
                self.watch.done_at_once(Kind::SendNow.name(), fd, n as i32);
                return Some(Completion::Sent(fd, Ok(n), bytes));
            }
        }
        None
    }

    /// The same of each operation that may be under way, by its own name: to
    /// ask for all at once has the kernel look through all for each.
    fn cancel_each(&mut self) {
        for slot in 0..self.receiving.len().max(self.lent.len()) {
            let fd = slot as Fd;
            if self.receiving.get(slot) == Some(&true) {
                self.cancel_recv(fd);
            }
            if let Some(Some(Lent { kind, .. })) = self.lent.get(slot) {
                let key = kind.key(fd);
                self.cancel_all(CancelBuilder::user_data(key));
            }
        }
    }

    /// Submits the wish that whatever is such may end.
    fn cancel_all(&mut self, such: CancelBuilder) {
        let entry = opcode::AsyncCancel2::new(such.all()).build();
        // SAFETY: it reads and writes nothing.
        unsafe { self.push(Kind::Cancel, -1, 0, entry) };
    }

    /// Lends bytes to the operation on this descriptor that begins now; where
    /// they lie.
    #[inline]
    fn lend(&mut self, kind: Kind, fd: Fd, bytes: Bytes) -> *mut u8 {
        let slot = fd as usize;
        if slot >= self.lent.len() {
            self.lent.resize_with(slot + 1, || None);
        }
        assert!(self.lent[slot].is_none(), "one at a time");
        let Lent { bytes, .. } =
            self.lent[slot].insert(Lent { bytes, kind, silent: None, sent: 0 });
        let start = bytes.start as usize;
        let whole = match &mut bytes.memory {
            Memory::Own(memory) => memory.as_mut_ptr(),
            Memory::Provided(buffer) => {
                let provided = self.provided.as_ref();
                provided.expect("it is one of them").at(buffer.id())
            }
        };
        whole.wrapping_add(start)
    }

    /// The bytes of the operation on this descriptor that has ended.
    #[inline]
    fn returned(&mut self, fd: Fd) -> Bytes {
        let lent = self.lent.get_mut(fd as usize).and_then(Option::take);
        lent.expect("they were lent until now").bytes
    }
}

type Entry = squeue::Entry;

impl<W: Watch> Queues for Ring<W> {
    fn adopt(&mut self, client: Fd) {
        self.register(client, client);
    }

    fn release(&mut self, client: Fd) {
        if self.registered.get(client as usize) == Some(&true) {
            self.register(client, -1);
        }
    }

    fn accept(&mut self, listener: Fd, all: bool) {
        let at = types::Fd(listener);
        let flags = libc::SOCK_CLOEXEC;
        let entry = match all {
            true => opcode::AcceptMulti::new(at).flags(flags).build(),
            false => {
                let nobody = ptr::null_mut();
                opcode::Accept::new(at, nobody, ptr::null_mut())
                    .flags(flags)
                    .build()
            }
        };
        // SAFETY: it writes no address.
        unsafe { self.push(Kind::Accept, listener, 0, entry) };
    }

    fn recv(&mut self, client: Fd, mut memory: Vec<u8>) {
        memory.resize(self.setup.buffer, 0);
        let room = memory.len();
        let at =
            self.lend(Kind::Recv, client, Bytes::new(Memory::Own(memory), 0));
        let fd = types::Fd(client);
        let entry = opcode::Recv::new(fd, at, room as u32).build();
        // SAFETY: the memory is lent, `room` bytes from its beginning.
        unsafe { self.push(Kind::Recv, client, room, entry) };
    }

    fn recv_all(&mut self, client: Fd, limit: usize) {
        let entry = opcode::RecvMulti::new(types::Fd(client), GROUP).build();
        let entry = limited(entry, limit.min(i32::MAX as usize) as u32);
        let slot = client as usize;
        if slot >= self.receiving.len() {
            self.receiving.resize(slot + 1, false);
        }
        self.receiving[slot] = true;
        // SAFETY: it writes into buffers that were provided, each of which is
        // out of the kernel's hands once a completion names it.
        unsafe { self.push(Kind::RecvMulti, client, 0, entry) };
    }

    #[inline]
    fn send_now(&mut self, client: Fd, bytes: Bytes) {
        let length = bytes.len();
        // Of a submission that a thread of the kernel's takes, nobody here
        // knows when: it has to say when it is over.
        let told = self.setup.sqpoll.is_some();
        let kind = if told { Kind::Send } else { Kind::SendNow };
        let at = self.lend(kind, client, bytes);
        // With MSG_WAITALL less than all is a failure, which is told.
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let mut entry = opcode::Send::new(types::Fd(client), at, length as u32)
            .flags(flags)
            .build();
        if !told {
            entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
            let number = NonZero::<u64>::MIN.saturating_add(self.pushed);
            if let Some(lent) = &mut self.lent[client as usize] {
                lent.silent = Some(number);
            }
            self.silent.push_back((client, number));
        }
        // SAFETY: the bytes are lent, `length` of them from there.
        unsafe { self.push(kind, client, length, entry) };
    }

    fn send(&mut self, client: Fd, bytes: Bytes) {
        let length = bytes.len();
        let at = self.lend(Kind::Send, client, bytes);
        let fd = types::Fd(client);
        let flags = libc::MSG_NOSIGNAL;
        let entry = match self.setup.zero_copy {
            false => {
                opcode::Send::new(fd, at, length as u32).flags(flags).build()
            }
            true => opcode::SendZc::new(fd, at, length as u32)
                .flags(flags)
                .zc_flags(REPORT_USAGE)
                .build(),
        };
        // SAFETY: the bytes are lent, `length` of them from there.
        unsafe { self.push(Kind::Send, client, length, entry) };
    }

    fn read(&mut self, fd: Fd, length: usize) {
        let memory = Memory::Own(vec![0; length]);
        let at = self.lend(Kind::Read, fd, Bytes::new(memory, 0));
        let entry = opcode::Read::new(types::Fd(fd), at, length as u32).build();
        // SAFETY: the memory is lent, `length` bytes from its beginning.
        unsafe { self.push(Kind::Read, fd, length, entry) };
    }

    fn cancel(&mut self, client: Fd) {
        self.cancel_all(match self.registered.get(client as usize) {
            Some(true) => CancelBuilder::fd(types::Fixed(client as u32)),
            _ => CancelBuilder::fd(types::Fd(client)),
        });
    }

    fn cancel_recv(&mut self, client: Fd) {
        let key = Kind::RecvMulti.key(client);
        self.cancel_all(CancelBuilder::user_data(key));
    }

    fn cancel_accept(&mut self, listener: Fd) {
        let key = Kind::Accept.key(listener);
        self.cancel_all(CancelBuilder::user_data(key));
        // At once: who is sent our FIN next finds the door closed.
        self.make_room();
    }

    fn enter(&mut self, timeout: Timeout) -> nix::Result<bool> {
        let queued = self.ring.submission().len();
        // Not while buffers that are wanted would come back.
        let scarce = self.silent.len() > self.free();
        let overflown = self.ring.submission().cq_overflow();
        let sleep = timeout != Timeout::ZERO && !scarce && !overflown;
        let want = usize::from(self.done.is_empty() && sleep);
        if queued + want == 0 && !overflown {
            return Ok(true);
        }
        let limit = timeout.timespec().map(|it| {
            Timespec::new().sec(it.tv_sec() as u64).nsec(it.tv_nsec() as u32)
        });
        let mut args = SubmitArgs::new();
        if let Some(limit) = &limit {
            args = args.timespec(limit);
        }
        let submitter = self.ring.submitter();
        // Also a call that does not sleep is to look at what has come in: with
        // deferred task work nobody else does.
        let flags = (EnterFlags::GETEVENTS | EnterFlags::EXT_ARG).bits();
        let enter = || match self.setup.sqpoll {
            Some(_) => submitter.submit_with_args(want, &args),
            // SAFETY: so many entries are in the queue, and the arguments are
            // those that the flag speaks of.
            None => unsafe {
                submitter.enter(queued as u32, want as u32, flags, Some(&args))
            },
        };
        let wait = || enter().map_err(errno);
        let result = self.watch.wait("io_uring_enter", queued, wait);
        self.take_completions();
        match result {
            // The kernel is short of memory for the others.
            Ok(n) if n < queued => Ok(false),
            // Nothing was done in time.
            Ok(_) | Err(Errno::ETIME) => Ok(true),
            // A signal came; the kernel first wants to get rid of
            // completions, or is short of memory.
            Err(Errno::EINTR | Errno::EBUSY | Errno::EAGAIN) => Ok(false),
            Err(err) => Err(err),
        }
    }

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        // These were over before anything else was done.
        if let Some(sent) = self.next_silent() {
            return Some(sent);
        }
        loop {
            let entry = self.done.pop_front()?;
            let (fd, kind) =
                (entry.user_data() as Fd, Kind::of(entry.user_data()));
            let (flags, mut raw) = (entry.flags(), entry.result());
            let more = cqueue::more(flags);
            // Of a send without a copy it only says that its bytes are free.
            let told = if cqueue::notif(flags) { 0 } else { raw };
            match more {
                true => self.watch.goes_on(kind.name(), fd, told),
                false => self.watch.completed(kind.name(), fd, told),
            }
            if !more && kind != Kind::SendNow {
                self.in_flight -= 1;
            }
            if kind == Kind::Send && (more || cqueue::notif(flags)) {
                // What was sent is known first; that it is free, later.
                let lent = self.lent.get_mut(fd as usize);
                let Some(Some(lent)) = lent else { continue };
                if more {
                    lent.sent = raw;
                    continue;
                }
                if raw as u32 & COPIED != 0 {
                    tally().add_copied();
                }
                raw = lent.sent;
            }
            let result = Errno::result(raw).map(|n| n as usize);
            let result = match raw {
                0.. => result,
                _ => Err(Errno::from_raw(-raw)),
            };
            return Some(match kind {
                Kind::Accept => {
                    // SAFETY: the kernel has just made it, and told nobody
                    // else.
                    let new = |fd| unsafe { OwnedFd::from_raw_fd(fd as Fd) };
                    if result.is_ok() {
                        tally().add_connection();
                    }
                    Completion::Accepted(result.map(new), more)
                }
                Kind::Recv | Kind::Read => {
                    let mut bytes = self.returned(fd);
                    bytes.end = result.unwrap_or(0) as u32;
                    Completion::Received(fd, result.map(drop), bytes)
                }
                Kind::RecvMulti => {
                    self.receiving[fd as usize] = more;
                    let id = cqueue::buffer_select(flags);
                    let provided = self.provided.as_mut();
                    let taken = id.zip(provided);
                    let buffer = taken.map(|(id, it)| it.accounts.take(id));
                    Completion::Arrived { fd, result, buffer, more }
                }
                Kind::Send | Kind::SendNow => {
                    Completion::Sent(fd, result, self.returned(fd))
                }
                Kind::Cancel => continue,
            });
        }
    }

    fn bytes<'a>(&'a self, bytes: &'a Bytes) -> &'a [u8] {
        let range = bytes.start as usize..bytes.end as usize;
        match &bytes.memory {
            Memory::Own(memory) => &memory[range],
            Memory::Provided(buffer) => {
                let provided = self.provided.as_ref();
                &provided.expect("it is one of them").filled(buffer)[range]
            }
        }
    }

    #[inline]
    fn free(&self) -> usize {
        self.provided.as_ref().map_or(0, |it| it.accounts.free())
    }

    #[inline]
    fn give_back(&mut self, buffer: Buffer) {
        let provided = self.provided.as_mut();
        provided.expect("it is one of them").give_back(buffer);
    }
}

impl<W: Watch> Drop for Ring<W> {
    /// To close a ring ends no operation: the kernel does that later, and may
    /// write meanwhile. So all of them are cancelled and awaited; if one does
    /// not end, what it was lent is never freed.
    fn drop(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        if self.in_flight > 0 {
            self.cancel_each();
        }
        let mut deadline = Instant::now() + PATIENCE;
        while self.in_flight > 0 && Instant::now() < deadline {
            let left = self.in_flight;
            let soon = Instant::now() + Duration::from_millis(10);
            if self.enter(Timeout::until(Some(soon))).is_err() {
                break;
            }
            while self.next().is_some() {}
            // Thousands take their time, but some of them end.
            if self.in_flight < left {
                deadline = Instant::now() + PATIENCE;
                continue;
            }
            let fd = self.ring.as_raw_fd();
            let limit = Timespec::from(Duration::from_millis(100));
            let _ = self.watch.ask("io_uring_register", fd, || {
                let submitter = self.ring.submitter();
                let all = CancelBuilder::any();
                submitter.register_sync_cancel(Some(limit), all).map_err(errno)
            });
        }
        if self.in_flight > 0 || !self.ring.submission().is_empty() {
            mem::forget(mem::take(&mut self.lent));
            mem::forget(self.provided.take());
        }
    }
}

/// Lets a receive that goes on and on end after so many bytes; 0 is no limit.
fn limited(mut entry: Entry, bytes: u32) -> Entry {
    /// Where `optlen` lies in io_uring_sqe, in words: linux/io_uring.h.
    const OPTLEN: usize = 44 / 4;
    const { assert!(size_of::<Entry>() == 64) };
    let words = ptr::from_mut(&mut entry).cast::<u32>();
    // SAFETY: an entry is one io_uring_sqe, which has 64 bytes and any value
    // there is one; RecvMulti leaves this word zero.
    unsafe { words.wrapping_add(OPTLEN).write(bytes) };
    entry
}

pub fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Memory that the kernel fills for whoever has something to say.
struct Provided {
    entries: Mapping,
    memory: Mapping,
    count: u16,
    size: usize,
    tail: u16,
    accounts: Accounts,
}

impl Provided {
    fn new(count: u16, size: usize) -> nix::Result<Self> {
        let entries = usize::from(count) * size_of::<BufRingEntry>();
        let mut provided = Provided {
            entries: Mapping::new(entries)?,
            memory: Mapping::new(usize::from(count) * stride(size))?,
            count,
            size,
            tail: 0,
            accounts: Accounts::new(count),
        };
        (0..count).for_each(|id| provided.put(id));
        Ok(provided)
    }

    fn at(&self, id: u16) -> *mut u8 {
        assert!(id < self.count);
        let start = self.memory.0.as_ptr();
        start.wrapping_add(usize::from(id) * stride(self.size))
    }

    /// What the kernel has written; it has let go of it.
    fn filled(&self, buffer: &Buffer) -> &[u8] {
        // SAFETY: `size` bytes of the mapping. Who has the token has the
        // buffer: the kernel writes there again only after `give_back`, which
        // takes it, and so ends this borrow of it.
        unsafe { std::slice::from_raw_parts(self.at(buffer.id()), self.size) }
    }

    fn give_back(&mut self, buffer: Buffer) {
        let id = self.accounts.give_back(buffer);
        self.put(id);
    }

    fn put(&mut self, id: u16) {
        let ring = self.entries.0.as_ptr().cast::<BufRingEntry>();
        let place = usize::from(self.tail & (self.count - 1));
        let addr = self.at(id) as u64;
        // SAFETY: one of `count` entries, which are ours to write until the
        // tail is behind them; no more than `count` are out.
        let entry = unsafe { &mut *ring.wrapping_add(place) };
        entry.set_addr(addr);
        entry.set_len(self.size as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, and is aligned.
        let tail = unsafe { BufRingEntry::tail(ring) };
        // SAFETY: mapped, and written by nobody but us; the kernel reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Release);
    }
}

/// One buffer and a little: if all began at the same place of a page, they
/// would share a few lines of the cache.
fn stride(size: usize) -> usize {
    size.next_multiple_of(64) + 64
}

/// Memory that the kernel and we share, from the beginning of a page.
struct Mapping(NonNull<u8>, usize);

impl Mapping {
    fn new(size: usize) -> nix::Result<Self> {
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
        );
        let anywhere = ptr::null_mut();
        // SAFETY: at an address of the kernel's choice: no memory of ours.
        let at = unsafe { libc::mmap(anywhere, size, prot, flags, -1, 0) };
        match NonNull::new(at.cast::<u8>()) {
            Some(start) if at != libc::MAP_FAILED => Ok(Mapping(start, size)),
            _ => Err(Errno::last()),
        }
    }

    fn addr(&self) -> u64 {
        self.0.as_ptr() as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, and nobody has a pointer into it: the
        // ring drops it once nothing is in flight.
        unsafe { libc::munmap(self.0.as_ptr().cast(), self.1) };
    }
}

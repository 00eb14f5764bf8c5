use crate::Fd;

/// A call's name is cut to this many bytes.
pub const CALL_LENGTH: usize = 20;

/// A wait's event names at most this many ready descriptors.
pub const READY_SHOWN: usize = 64;

/// One thing that happened in a watched server, as it crosses the pipe to the
/// renderer: of fixed size and below PIPE_BUF, so that threads, children and
/// signal handlers can write one at a time without a lock (pipe(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What this event says of the call.
    pub kind: Kind,
    /// How a reader should see the call.
    pub verb: Verb,
    /// The process.
    pub pid: i32,
    /// The thread.
    pub tid: i32,
    /// The descriptor that the call is about, or -1.
    pub fd: Fd,
    /// Nanoseconds of CLOCK_MONOTONIC before the call.
    pub t0: u64,
    /// Nanoseconds after it; for `Before`, as `t0`.
    pub t1: u64,
    /// Of `After`: nanoseconds that its thread had been on a CPU by `t1`.
    pub cpu: u64,
    /// What the call returned, or the errno's negative.
    pub ret: i64,
    /// Of a wait: how many descriptors were asked about; of io_uring_enter, how
    /// many submissions there were to hand over. Of a signal: its `si_code`.
    /// Of an operation: the bytes that it is to move.
    pub asked: u32,
    /// Of `Ready`: how many descriptors came out ready. Of `Complete`: how
    /// many threads may have done it. Of io_uring_setup: how many threads of
    /// the kernel's the ring has.
    pub ready_count: u32,
    /// Of `Ready`: how many entries the server had to look through. Of a
    /// signal: its `si_band`. Of a `Complete` that was `QUEUED`: `GOES_ON`,
    /// `AT_ONCE`, or 0.
    pub scanned: u32,
    /// Of an operation: where in its file, or `QUEUED`. Of `Name`: which
    /// client it is, or 0.
    pub offset: u64,
    /// The call's name; of `Name`, the descriptor's; of a signal, its own.
    pub call: [u8; CALL_LENGTH],
    /// Of `Ready`: the first of the ready descriptors. Of `Complete` and
    /// io_uring_setup: those threads.
    pub ready: [Fd; READY_SHOWN],
}

/// What an event says of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The server starts: `fd` is its listener, `asked` the descriptor that
    /// becomes readable at a stop signal (`u32::MAX`: none), `call` its name.
    Start,
    /// A call that may sleep begins.
    Before,
    /// A call has returned.
    After,
    /// What the last wait of this thread found.
    Ready,
    /// What a descriptor is there for, which was not accepted here: `fd`, and
    /// `call`; or the client that it is, `offset`.
    Name,
}

/// How a reader should see a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verb {
    /// Sleeps until something is ready.
    Wait,
    /// Moves bytes.
    Copy,
    /// Sleeps until bytes can move, and moves them.
    WaitAndCopy,
    /// Takes a client from the accept queue.
    Take,
    /// Tells the kernel what is wanted.
    Ask,
    /// A signal came. It is no call of the server: the kernel, or a thread,
    /// tells something.
    Signal,
    /// Gives an operation to somebody else, who does it meanwhile.
    Submit,
    /// Learns what became of an operation.
    Complete,
}

impl Verb {
    /// The verb as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Wait => "wait",
            Verb::Copy => "copy",
            Verb::WaitAndCopy => "wait+copy",
            Verb::Take => "take",
            Verb::Ask => "ask",
            Verb::Signal => "signal",
            Verb::Submit => "submit",
            Verb::Complete => "complete",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        use Verb::*;
        let verbs =
            [Wait, Copy, WaitAndCopy, Take, Ask, Signal, Submit, Complete];
        verbs.into_iter().find(|verb| *verb as u8 == byte)
    }
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        let kinds = [Start, Before, After, Ready, Name];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl Event {
    /// In the place of an offset: the operation goes by a queue that is shared
    /// with who does it, and no call tells of it.
    pub const QUEUED: u64 = u64::MAX;

    /// In the place of an offset: of a socket, which has no places.
    pub const NOWHERE: u64 = u64::MAX - 1;

    /// The operation is still under way, and will have further results.
    pub const GOES_ON: u32 = 1;

    /// The operation was over as soon as it was begun, and said nothing.
    pub const AT_ONCE: u32 = 2;

    /// The bytes of an event in the pipe.
    pub const SIZE: usize =
        2 + 3 * 4 + 4 * 8 + 3 * 4 + 8 + CALL_LENGTH + 4 * READY_SHOWN;

    /// The call's name.
    pub fn call(&self) -> &str {
        text_of(&self.call)
    }

    /// The event as it crosses the pipe. No allocation: a signal handler may.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let mut rest = &mut bytes[..];
        let mut put = |field: &[u8]| {
            let (head, tail) =
                std::mem::take(&mut rest).split_at_mut(field.len());
            head.copy_from_slice(field);
            rest = tail;
        };
        put(&[self.kind as u8, self.verb as u8]);
        put(&self.pid.to_ne_bytes());
        put(&self.tid.to_ne_bytes());
        put(&self.fd.to_ne_bytes());
        put(&self.t0.to_ne_bytes());
        put(&self.t1.to_ne_bytes());
        put(&self.cpu.to_ne_bytes());
        put(&self.ret.to_ne_bytes());
        put(&self.asked.to_ne_bytes());
        put(&self.ready_count.to_ne_bytes());
        put(&self.scanned.to_ne_bytes());
        put(&self.offset.to_ne_bytes());
        put(&self.call);
        let shown = READY_SHOWN.min(self.ready_count as usize);
        for fd in &self.ready[..shown] {
            put(&fd.to_ne_bytes());
        }
        bytes
    }

    /// Reads back what `encode` wrote; `None` if these bytes are no event.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let mut rest = &bytes[..];
        let event = Event {
            kind: Kind::from_byte(cut::<1>(&mut rest)[0])?,
            verb: Verb::from_byte(cut::<1>(&mut rest)[0])?,
            pid: i32::from_ne_bytes(cut(&mut rest)),
            tid: i32::from_ne_bytes(cut(&mut rest)),
            fd: i32::from_ne_bytes(cut(&mut rest)),
            t0: u64::from_ne_bytes(cut(&mut rest)),
            t1: u64::from_ne_bytes(cut(&mut rest)),
            cpu: u64::from_ne_bytes(cut(&mut rest)),
            ret: i64::from_ne_bytes(cut(&mut rest)),
            asked: u32::from_ne_bytes(cut(&mut rest)),
            ready_count: u32::from_ne_bytes(cut(&mut rest)),
            scanned: u32::from_ne_bytes(cut(&mut rest)),
            offset: u64::from_ne_bytes(cut(&mut rest)),
            call: cut(&mut rest),
            ready: std::array::from_fn(|_| i32::from_ne_bytes(cut(&mut rest))),
        };
        Some(event)
    }
}

/// A name without the zeros that fill it up.
pub fn text_of(name: &[u8; CALL_LENGTH]) -> &str {
    let length = name.iter().position(|byte| *byte == 0);
    let name = &name[..length.unwrap_or(CALL_LENGTH)];
    std::str::from_utf8(name).unwrap_or("?")
}

fn cut<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_first_chunk().expect("sized by SIZE");
    *rest = tail;
    *head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_pipe_and_fits_it() {
        let mut event = Event {
            kind: Kind::Ready,
            verb: Verb::Wait,
            pid: 1,
            tid: 2,
            fd: -1,
            t0: u64::MAX,
            t1: 4,
            cpu: 12,
            ret: -11,
            asked: 6,
            ready_count: 2,
            scanned: 8,
            offset: 10,
            call: [0; CALL_LENGTH],
            ready: [0; READY_SHOWN],
        };
        event.call[..4].copy_from_slice(b"poll");
        event.ready[..2].copy_from_slice(&[5, 9]);
        assert_eq!(Event::decode(&event.encode()).as_ref(), Some(&event));
        assert_eq!(event.call(), "poll");
        const { assert!(Event::SIZE < libc::PIPE_BUF) }
    }
}

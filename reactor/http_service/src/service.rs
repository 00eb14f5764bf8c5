//! What all connections share: the folder, the limits, buffers, the date, and
//! the counts of what was answered.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

/// The service, of which every connection has a share.
pub struct Service {
    pub root: OwnedFd,
    pub limits: Limits,
    pub buffers: Buffers,
    pub clock: Clock,
    /// Indexed by status.
    answers: [Cell<u64>; 600],
}

/// What a client may ask for, and for how long.
pub struct Limits {
    pub idle: Duration,
    pub request: Duration,
    pub max_body: u64,
    pub max_head: usize,
}

impl Service {
    pub fn new(root: OwnedFd, limits: Limits) -> Self {
        Service {
            root,
            buffers: Buffers::new(limits.max_head),
            limits,
            clock: Clock::default(),
            answers: [const { Cell::new(0) }; 600],
        }
    }

    pub fn count(&self, status: u16) {
        let count = &self.answers[usize::from(status)];
        count.set(count.get() + 1);
    }

    /// How many requests were answered with each status.
    pub fn by_status(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.answers.iter().map(Cell::get).enumerate();
        counts.filter(|(_, count)| *count > 0)
    }

    pub fn requests(&self) -> u64 {
        self.by_status().map(|(_, count)| count).sum()
    }
}

/// Bytes that have come or are to go. Without any it owns no memory between
/// two turns.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// How many bytes more it takes without growing.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// Where the next bytes may land.
    pub fn room(&mut self) -> &mut [u8] {
        if self.left() == 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= mem::take(&mut self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes have landed there.
    pub fn filled(&mut self, n: usize) {
        self.end += n;
    }

    /// So many of its bytes are done with.
    pub fn taken(&mut self, n: usize) {
        self.start += n;
        if self.is_empty() {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// It grows only for what is longer than most.
    pub fn push(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        self.bytes[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// The length of all that was ever pushed, for `cut`.
    pub fn mark(&self) -> usize {
        self.end
    }

    /// Takes back what came after the mark.
    pub fn cut(&mut self, mark: usize) -> Vec<u8> {
        let cut = self.bytes[mark..self.end].to_vec();
        self.end = mark;
        cut
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// The memory of buffers that are empty.
pub struct Buffers {
    spares: RefCell<Vec<Vec<u8>>>,
    size: usize,
}

/// How many are kept: two for whoever has a turn, and some for those who were
/// slow.
const SPARES: usize = 16;

impl Buffers {
    fn new(max_head: usize) -> Self {
        let size = (64 << 10).max(2 * max_head);
        Buffers { spares: RefCell::default(), size }
    }

    /// Gives it memory for a turn, if it has none.
    pub fn lend(&self, buffer: &mut Buffer) {
        if buffer.bytes.is_empty() {
            let spare = self.spares.borrow_mut().pop();
            buffer.bytes = spare.unwrap_or_else(|| vec![0; self.size]);
        }
    }

    /// Takes it back, unless something is in it.
    pub fn take_back(&self, buffer: &mut Buffer) {
        if buffer.is_empty() && !buffer.bytes.is_empty() {
            let bytes = mem::take(buffer).bytes;
            let mut spares = self.spares.borrow_mut();
            if bytes.len() == self.size && spares.len() < SPARES {
                spares.push(bytes);
            }
        }
    }
}

/// The date, which changes once a second.
#[derive(Default)]
pub struct Clock {
    second: Cell<u64>,
    text: RefCell<String>,
}

impl Clock {
    pub fn write(&self, out: &mut Buffer) {
        let now = SystemTime::now();
        let second =
            now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        let mut text = self.text.borrow_mut();
        if self.second.replace(second) != second || text.is_empty() {
            *text = HttpDate::from(now).to_string();
        }
        out.push(text.as_bytes());
    }
}

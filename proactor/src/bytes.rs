//! Bytes on their way from a client and back to it.

use crate::uring::buffers::Buffer;

/// Bytes that a client has sent and is owed. They belong to whoever has them:
/// to an operation, from its begin to its end.
pub struct Bytes {
    pub memory: Memory,
    pub start: u32,
    pub end: u32,
}

/// Where bytes lie.
pub enum Memory {
    /// In memory of their own.
    Own(Vec<u8>),
    /// In a buffer that is one of the ring's again later.
    Provided(Buffer),
}

impl Bytes {
    /// The first `end` bytes there.
    pub fn new(memory: Memory, end: usize) -> Self {
        Bytes { memory, start: 0, end: end as u32 }
    }

    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `n` of them are on their way.
    pub fn sent(&mut self, n: usize) {
        self.start += n as u32;
    }
}

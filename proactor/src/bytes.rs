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

    /// What they are, if they lie in memory of their own; else nothing.
    pub fn own(&self) -> &[u8] {
        let range = self.start as usize..self.end as usize;
        match &self.memory {
            Memory::Own(memory) => &memory[range],
            Memory::Provided(_) => &[],
        }
    }

    /// The same, to be read over.
    pub fn own_mut(&mut self) -> &mut [u8] {
        let range = self.start as usize..self.end as usize;
        match &mut self.memory {
            Memory::Own(memory) => &mut memory[range],
            Memory::Provided(_) => &mut [],
        }
    }
}

/// Memory for the next recv. Of clients who have gone so much is kept for
/// those who are still to come.
#[derive(Default)]
pub struct Spare(Vec<Vec<u8>>);

impl Spare {
    const MOST: usize = 64;

    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// The bytes are no longer needed.
    pub fn keep(&mut self, bytes: Bytes) {
        if let Memory::Own(memory) = bytes.memory
            && self.0.len() < Self::MOST
        {
            self.0.push(memory);
        }
    }
}

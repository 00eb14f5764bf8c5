use crate::tally;

/// Bytes read from a peer and not yet written back to it. Memory only: it makes
/// no system calls. While nothing is owed it owns no buffer.
#[derive(Default)]
pub struct Pending {
    bytes: Vec<u8>,
    start: u32,
    end: u32,
}

/// The buffers that all connections of one thread share; one, unless their
/// turns overlap. A connection borrows one for a turn, and keeps it only when
/// its peer did not take everything.
pub struct Scratch {
    spares: Vec<Vec<u8>>,
    size: usize,
    echoed: u64,
}

/// One connection's pending bytes for one turn, with a buffer under them.
pub struct Turn<'a> {
    pending: &'a mut Pending,
    scratch: &'a mut Scratch,
}

impl Pending {
    /// Whether nothing is owed to the peer.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What is owed to the peer, for whoever is to overwrite it in place with
    /// the same bytes.
    pub fn owed_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start as usize..self.end as usize]
    }

    /// Lends one of the thread's buffers to this connection; the end of the turn takes
    /// it back unless bytes are still owed.
    pub fn turn<'a>(&'a mut self, scratch: &'a mut Scratch) -> Turn<'a> {
        if self.bytes.is_empty() {
            self.bytes = scratch.spares.pop().unwrap_or_default();
            self.bytes.resize(scratch.size, 0);
        }
        Turn { pending: self, scratch }
    }
}

impl Scratch {
    /// A buffer of `size` bytes: the most that one read takes.
    pub fn new(size: usize) -> Self {
        Self::of(size, 1)
    }

    /// As many buffers of `size` bytes as connections have turns at once.
    pub fn of(size: usize, turns: usize) -> Self {
        let spares = (0..turns).map(|_| vec![0; size]).collect();
        Scratch { spares, size, echoed: 0 }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        tally().add_bytes(self.echoed);
    }
}

impl Turn<'_> {
    /// Whether nothing is owed to the peer.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Where the next read may land: there is room only while nothing is owed.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.pending.bytes[self.pending.end as usize..]
    }

    /// `n` bytes arrived and are owed to the peer.
    pub fn filled(&mut self, n: usize) {
        self.pending.end += n as u32;
    }

    /// What is still owed to the peer.
    pub fn owed(&self) -> &[u8] {
        let Pending { bytes, start, end } = &self.pending;
        &bytes[*start as usize..*end as usize]
    }

    /// `n` of the owed bytes are on their way.
    pub fn sent(&mut self, n: usize) {
        self.scratch.echoed += n as u64;
        self.pending.start += n as u32;
        if self.is_empty() {
            (self.pending.start, self.pending.end) = (0, 0);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.is_empty() {
            let bytes = std::mem::take(&mut self.pending.bytes);
            let spares = &mut self.scratch.spares;
            // Never more than at first: a crowd of slow peers leaves nothing.
            if spares.len() < spares.capacity() {
                spares.push(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_write_keeps_the_rest_and_the_next_turn_sends_it() {
        let mut scratch = Scratch::new(8);
        let (mut slow, mut brisk) = (Pending::default(), Pending::default());

        let mut turn = slow.turn(&mut scratch);
        turn.room()[..6].copy_from_slice(b"abcdef");
        turn.filled(6);
        turn.sent(2);
        drop(turn);

        let mut turn = brisk.turn(&mut scratch);
        turn.room()[..3].copy_from_slice(b"xyz");
        turn.filled(3);
        assert_eq!(turn.owed(), b"xyz");
        turn.sent(3);
        drop(turn);
        assert!(brisk.is_empty() && brisk.bytes.capacity() == 0);

        let mut turn = slow.turn(&mut scratch);
        assert_eq!(turn.owed(), b"cdef");
        turn.sent(4);
        assert_eq!(turn.room().len(), 8);
        drop(turn);
        assert!(slow.is_empty() && slow.bytes.capacity() == 0);
    }

    #[test]
    fn turns_that_overlap_have_a_buffer_each_and_leave_no_more_than_at_first() {
        let mut scratch = Scratch::of(4, 2);
        let mut peers: [Pending; 3] = Default::default();
        for (n, pending) in peers.iter_mut().enumerate() {
            let mut turn = pending.turn(&mut scratch);
            turn.room().fill(n as u8);
            turn.filled(4);
        }
        assert!(scratch.spares.is_empty());
        for (n, pending) in peers.iter_mut().enumerate() {
            assert_eq!(pending.owed_mut(), [n as u8; 4]);
            pending.turn(&mut scratch).sent(4);
        }
        assert_eq!(scratch.spares.len(), 2);
        assert!(peers.iter().all(|it| it.bytes.capacity() == 0));
    }
}

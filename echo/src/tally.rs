use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::sys;

/// What a server has done, for its summary line. It lies in memory that forked
/// children share, so that their work counts too.
#[derive(Default)]
pub struct Tally {
    connections: AtomicU64,
    bytes: AtomicU64,
    wasted: AtomicU64,
    datagrams: AtomicU64,
    unanswered: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    overflows: AtomicU64,
    repeated: AtomicU64,
    copied: AtomicU64,
}

/// The tally of this server.
pub fn tally() -> &'static Tally {
    static TALLY: OnceLock<&Tally> = OnceLock::new();
    TALLY.get_or_init(sys::shared::<Tally>)
}

impl Tally {
    /// A client was accepted.
    pub fn add_connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// This many bytes went back to their senders.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// A datagram of so many bytes went back to its sender.
    pub fn add_datagram(&self, bytes: usize) {
        self.datagrams.fetch_add(1, Relaxed);
        self.add_bytes(bytes as u64);
    }

    /// A datagram must not, or could not, be answered.
    pub fn add_unanswered(&self) {
        self.unanswered.fetch_add(1, Relaxed);
    }

    /// This many calls found nothing to do (EAGAIN).
    pub fn add_wasted(&self, calls: u64) {
        self.wasted.fetch_add(calls, Relaxed);
    }

    /// A client was turned away. Returns how many there have been.
    pub fn add_refused(&self) -> u64 {
        self.refused.fetch_add(1, Relaxed) + 1
    }

    /// A client was dropped, though it did nothing wrong. Returns how many
    /// there have been.
    pub fn add_dropped(&self) -> u64 {
        self.dropped.fetch_add(1, Relaxed) + 1
    }

    /// The queue of signals overflowed, and every descriptor was looked at.
    pub fn add_overflow(&self) {
        self.overflows.fetch_add(1, Relaxed);
    }

    /// An operation was made once more, because its completion got lost.
    pub fn add_repeated(&self) {
        self.repeated.fetch_add(1, Relaxed);
    }

    /// A send that was to do without a copy made one after all.
    pub fn add_copied(&self) {
        self.copied.fetch_add(1, Relaxed);
    }

    /// The summary, without the server's name.
    pub fn summary(&self) -> String {
        let connections = self.connections.load(Relaxed);
        let bytes = self.bytes.load(Relaxed);
        let mut parts = vec![
            counted(connections, "connection"),
            counted(bytes, "byte") + " echoed",
        ];
        let others = [
            (&self.datagrams, "datagram", "answered"),
            (&self.unanswered, "datagram", "not answered"),
            (&self.refused, "client", "refused"),
            (&self.dropped, "client", "dropped"),
            (&self.wasted, "call", "wasted"),
            (&self.overflows, "signal queue overflow", "recovered"),
            (&self.repeated, "operation", "repeated"),
            (&self.copied, "zero-copy send", "copied after all"),
        ];
        for (count, what, became) in others {
            match count.load(Relaxed) {
                0 => {}
                n => parts.push(format!("{} {became}", counted(n, what))),
            }
        }
        format!("stopped; {}", parts.join(", "))
    }
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

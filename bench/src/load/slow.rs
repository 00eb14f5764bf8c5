//! Clients that send as much as the kernel takes and read slowly: what is
//! owed to them has to stay in the kernel's buffers, not in the server.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use serde::{Deserialize, Serialize};

use super::engine::{Moment, nanoseconds};
use super::payload::{Payload, Phase};
use super::plan::Plan;
use super::socket::end_of;

/// How often they are served.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// How much each sends in a tick at most, in pieces of the buffer, so that the
/// others do not wait long.
const SENDS: usize = 8;
/// More than kernels keep for a connection. From here on nothing is sent, lest
/// a server that keeps everything takes all memory.
const MOST_OWED: u64 = 128 << 20;
/// One that could send nothing for so long is stuck.
const STUCK: Duration = Duration::from_millis(100);

/// What became of the slow readers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowReaders {
    /// How many.
    pub readers: usize,
    /// Bytes that they have sent, from first to last.
    pub sent: u64,
    /// Bytes that they have read, every one right.
    pub read: u64,
    /// The most that one of them has sent and not read.
    pub most_owed: u64,
    /// Of how many the kernel took nothing in the last tenth of a second,
    /// because the server does not read from those who do not read.
    pub stuck: usize,
}

/// All of them.
pub(super) struct Crowd {
    readers: Vec<Reader>,
    /// Bytes in a nanosecond.
    rate: f64,
    patience: Moment,
    /// The last tick.
    at: Moment,
}

struct Reader {
    socket: OwnedFd,
    /// Among those whose payload is known.
    whose: usize,
    sent: u64,
    received: u64,
    out: Phase,
    back: Phase,
    /// Bytes that it may read by now.
    credit: f64,
    /// When the kernel last took a byte.
    took: Moment,
    /// Since when nothing is there, though something is owed.
    starved: Option<Moment>,
}

impl Crowd {
    pub(super) fn new(plan: &Plan) -> Crowd {
        Crowd {
            readers: Vec::with_capacity(plan.slow_readers),
            rate: plan.slow_rate.get() as f64 / 1e9,
            patience: nanoseconds(plan.patience),
            at: 0,
        }
    }

    pub(super) fn push(&mut self, socket: OwnedFd, whose: usize, begin: Phase) {
        self.readers.push(Reader {
            socket,
            whose,
            sent: 0,
            received: 0,
            out: begin,
            back: begin,
            credit: 0.0,
            took: 0,
            starved: None,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    pub(super) fn tick(
        &mut self,
        now: Moment,
        payload: &Payload,
        buffer: &mut [u8],
    ) -> Result<()> {
        // After a rest they read no faster.
        let passed = (now - self.at).min(10 * nanoseconds(TICK));
        self.at = now;
        let credit = self.rate * passed as f64;
        for (number, reader) in self.readers.iter_mut().enumerate() {
            // A credit that could not be used is lost, but for a byte.
            reader.credit = reader.credit.min(1.0) + credit;
            reader.read(number, now, payload, buffer)?;
            reader.send(number, now, payload)?;
            let Some(since) = reader.starved else { continue };
            if now - since > self.patience {
                bail!(
                    "slow reader {number} has stalled: no byte for {:?}; {}",
                    Duration::from_nanos(self.patience),
                    reader.so_far()
                );
            }
        }
        Ok(())
    }

    pub(super) fn seen(&self) -> Option<SlowReaders> {
        if self.is_empty() {
            return None;
        }
        let of = |what: fn(&Reader) -> u64| self.readers.iter().map(what);
        let stuck = |it: &&Reader| {
            let may = it.sent - it.received < MOST_OWED;
            may && self.at - it.took >= nanoseconds(STUCK)
        };
        Some(SlowReaders {
            readers: self.readers.len(),
            sent: of(|it| it.sent).sum(),
            read: of(|it| it.received).sum(),
            most_owed: of(|it| it.sent - it.received).max().unwrap_or(0),
            stuck: self.readers.iter().filter(stuck).count(),
        })
    }
}

impl Reader {
    /// Reads what its rate allows by now.
    fn read(
        &mut self,
        number: usize,
        now: Moment,
        payload: &Payload,
        buffer: &mut [u8],
    ) -> Result<()> {
        while self.credit >= 1.0 {
            let most = buffer.len().min(self.credit as usize);
            let fd = self.socket.as_raw_fd();
            let count = match recv(fd, &mut buffer[..most], MsgFlags::empty()) {
                Ok(0) => return Err(self.gone(number, None)),
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {
                    if self.received < self.sent {
                        self.starved.get_or_insert(now);
                    }
                    return Ok(());
                }
                Err(errno) => return Err(self.gone(number, Some(errno))),
            };
            let got = &buffer[..count];
            if let Some(at) = payload.first_wrong(self.whose, self.back, got) {
                let there = payload.after(self.back, at);
                let said = payload.explain(self.whose, there, &got[at..]);
                let position = self.received + at as u64;
                bail!("slow reader {number}, byte {position}: {said}");
            }
            self.received += count as u64;
            if self.received > self.sent {
                bail!(
                    "slow reader {number}: {} bytes came back, but only {} \
                     were sent",
                    self.received,
                    self.sent
                );
            }
            self.back = payload.after(self.back, count);
            self.credit -= count as f64;
            self.starved = None;
        }
        Ok(())
    }

    /// Sends until the kernel takes no more, or the others have waited long
    /// enough.
    fn send(
        &mut self,
        number: usize,
        now: Moment,
        payload: &Payload,
    ) -> Result<()> {
        for _ in 0..SENDS {
            let room = MOST_OWED - (self.sent - self.received).min(MOST_OWED);
            let bytes = payload.bytes(self.whose, self.out, room);
            if bytes.is_empty() {
                return Ok(());
            }
            let fd = self.socket.as_raw_fd();
            match send(fd, bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => {
                    self.sent += sent as u64;
                    self.out = payload.after(self.out, sent);
                    self.took = now;
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.gone(number, Some(errno))),
            }
        }
        Ok(())
    }

    fn gone(&self, number: usize, errno: Option<Errno>) -> anyhow::Error {
        let what = end_of(errno);
        anyhow!("slow reader {number} {what}: {}", self.so_far())
    }

    fn so_far(&self) -> String {
        format!("{} bytes sent, {} came back", self.sent, self.received)
    }
}

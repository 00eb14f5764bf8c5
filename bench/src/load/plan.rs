//! What is asked of the load generator.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::sizes::Sizes;

/// A load, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The server.
    pub addr: SocketAddr,
    /// How many connections send messages.
    pub connections: NonZeroUsize,
    /// How many connections only stay open.
    pub idle: usize,
    /// How many of those that send are loud: their messages begin with `!`,
    /// the others' never do. Latency is that of the others, if there are any.
    pub loud: usize,
    /// Bytes in a message.
    pub size: Sizes,
    /// Closed loop: messages outstanding on each connection.
    pub depth: NonZeroUsize,
    /// Open loop: messages a second over all connections, whether or not the
    /// server keeps up.
    pub rate: Option<f64>,
    /// How long it is measured.
    #[serde(with = "seconds")]
    pub duration: Duration,
    /// How long it runs before that.
    #[serde(with = "seconds")]
    pub warm_up: Duration,
    /// Connections a second that are closed and opened anew.
    pub churn: Option<f64>,
    /// Each connection is closed after so many messages, and opened anew.
    pub messages_per_connection: Option<NonZeroU64>,
    /// How many connections more send as much as the kernel takes, and read
    /// slowly.
    pub slow_readers: usize,
    /// Bytes a second that each of these reads.
    pub slow_rate: NonZeroU64,
    /// How long a connection may stay without a byte while something is
    /// outstanding.
    #[serde(with = "seconds")]
    pub patience: Duration,
    /// Also load a server that is being watched.
    pub watched: bool,
}

/// How much of a load there is in one turn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// After so long nothing more is begun.
    Time(#[serde(with = "seconds")] Duration),
    /// Closed loop: exactly so many messages, over all connections.
    Messages(u64),
}

impl Plan {
    /// 50 connections, each with one message of 64 bytes outstanding.
    pub fn new(addr: SocketAddr) -> Plan {
        Plan {
            addr,
            connections: NonZeroUsize::MIN.saturating_add(49),
            idle: 0,
            loud: 0,
            size: NonZeroUsize::MIN.saturating_add(63).into(),
            depth: NonZeroUsize::MIN,
            rate: None,
            duration: Duration::from_secs(2),
            warm_up: Duration::from_millis(200),
            churn: None,
            messages_per_connection: None,
            slow_readers: 0,
            slow_rate: NonZeroU64::MIN.saturating_add(1023),
            patience: Duration::from_secs(5),
            watched: false,
        }
    }

    /// Refuses what has no meaning.
    ///
    /// # Errors
    ///
    /// The number that is out of range.
    pub fn check(&self) -> Result<()> {
        for (name, number) in [("rate", self.rate), ("churn", self.churn)] {
            if let Some(number) = number {
                ensure!(
                    number.is_finite() && (1e-3..=1e9).contains(&number),
                    "{name}: {number} a second is out of range"
                );
            }
        }
        ensure!(self.depth.get() <= 1 << 16, "depth: at most 65,536");
        let each = self.messages_per_connection.map_or(1, NonZeroU64::get);
        ensure!(each <= 1 << 30, "messages per connection: at most 2^30");
        ensure!(
            self.churn.is_none() || self.messages_per_connection.is_none(),
            "connections end by churn or after a number of messages, not both"
        );
        ensure!(
            self.loud <= self.connections.get(),
            "loud: {} of {} connections",
            self.loud,
            self.connections
        );
        if self.loud > 0 {
            let size = self.size.constant().map_or(0, NonZeroUsize::get);
            ensure!(
                size >= 2,
                "loud: messages of one size, and of two bytes at least"
            );
            // Their bytes begin again with a message, which takes many.
            let all = self.connections.get().saturating_mul(size);
            ensure!(all <= 4 << 20, "loud: 4 MiB in all messages at most");
        }
        ensure!(self.slow_rate.get() <= 1 << 30, "slow rate: at most 1 GiB");
        ensure!(!self.duration.is_zero(), "duration: nothing to measure");
        ensure!(!self.patience.is_zero(), "patience: no server is so fast");
        let longest = self.duration.max(self.warm_up).max(self.patience);
        ensure!(
            longest <= Duration::from_secs(86_400),
            "at most a day of duration, warm-up and patience"
        );
        Ok(())
    }
}

/// A duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        span: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_f64(span.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)
    }
}

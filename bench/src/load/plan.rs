//! What is asked of the load generator.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Serialize, Serializer};

/// A load, and for how long.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The server.
    pub addr: SocketAddr,
    /// How many connections send messages.
    pub connections: NonZeroUsize,
    /// How many connections only stay open.
    pub idle: usize,
    /// Bytes in a message.
    pub size: NonZeroUsize,
    /// Closed loop: messages outstanding on each connection.
    pub depth: NonZeroUsize,
    /// Open loop: messages a second over all connections, whether or not the
    /// server keeps up.
    pub rate: Option<f64>,
    /// How long it is measured.
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// How long it runs before that.
    #[serde(serialize_with = "seconds")]
    pub warm_up: Duration,
    /// Connections a second that are closed and opened anew.
    pub churn: Option<f64>,
    /// How long a connection may stay without a byte while something is
    /// outstanding.
    #[serde(serialize_with = "seconds")]
    pub patience: Duration,
    /// Also load a server that is being watched.
    pub watched: bool,
}

impl Plan {
    /// 50 connections, each with one message of 64 bytes outstanding.
    pub fn new(addr: SocketAddr) -> Plan {
        Plan {
            addr,
            connections: NonZeroUsize::MIN.saturating_add(49),
            idle: 0,
            size: NonZeroUsize::MIN.saturating_add(63),
            depth: NonZeroUsize::MIN,
            rate: None,
            duration: Duration::from_secs(2),
            warm_up: Duration::from_millis(200),
            churn: None,
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
        let (size, depth) = (self.size.get(), self.depth.get());
        ensure!(size <= 1 << 30, "size: at most 1 GiB");
        ensure!(depth <= 1 << 16, "depth: at most 65,536");
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
pub(super) fn seconds<S: Serializer>(
    span: &Duration,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_f64(span.as_secs_f64())
}

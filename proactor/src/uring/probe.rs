//! What of io_uring there is: kernels differ, and many a host forbids it.

use std::os::fd::AsRawFd;

use anyhow::{Result, bail};
use echo::Watch;
use io_uring::{IoUring, Probe, opcode};
use nix::errno::Errno;

use super::Setup;
use super::sys::errno;

/// What this kernel offers beyond the rings themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    /// One accept or recv for all that comes, into provided buffers.
    pub multishot: bool,
    /// An operation goes on only while the thread that submitted it waits.
    pub deferred: bool,
    /// Sends without a copy.
    pub zero_copy: bool,
}

/// What to do without io_uring.
const INSTEAD: &str = "--engine emulated needs none of it";

impl Offers {
    /// Finds out, by making a ring and asking.
    ///
    /// # Errors
    ///
    /// That there is no io_uring, why, and what to do.
    pub fn ask<W: Watch>(watch: W) -> Result<Self> {
        let plain = match trial(IoUring::builder(), watch) {
            Ok(ring) => ring,
            Err(Errno::ENOSYS) => {
                bail!("this kernel has no io_uring (Linux 5.1); {INSTEAD}")
            }
            Err(err @ (Errno::EPERM | Errno::EACCES)) => bail!(
                "io_uring is forbidden here ({err}): by the sysctl \
                 kernel.io_uring_disabled, or by a container's filter; \
                 {INSTEAD}"
            ),
            Err(err) => bail!("io_uring_setup: {}; {INSTEAD}", err.desc()),
        };
        let mut probe = Probe::new();
        let fd = plain.as_raw_fd();
        let known = watch.ask("io_uring_register", fd, || {
            plain.submitter().register_probe(&mut probe).map_err(errno)
        });
        // Cancelling by descriptor and waiting for it came with SendZc: 6.0.
        let zero_copy = probe.is_supported(opcode::SendZc::CODE);
        if known.is_err() || !zero_copy || !plain.params().is_feature_ext_arg()
        {
            bail!("io_uring of this kernel is too old (Linux 6.0); {INSTEAD}");
        }
        let mut single = IoUring::builder();
        single.setup_single_issuer();
        // The flag came in the release in which recv became multishot.
        let multishot = trial(single.clone(), watch).is_ok();
        let deferred = trial(single.setup_defer_taskrun().clone(), watch);
        Ok(Offers { multishot, deferred: deferred.is_ok(), zero_copy })
    }

    /// The nearest to `setup` that there is.
    ///
    /// # Errors
    ///
    /// What is missing, and what to do.
    pub fn fit(self, mut setup: Setup) -> Result<Setup> {
        if setup.buffers > 0 && !self.multishot {
            bail!(
                "this kernel cannot receive all that comes by one order \
                 (Linux 6.0); --recv single can be had"
            );
        }
        if setup.buffers > 0 && !self.deferred && setup.sqpoll.is_none() {
            echo::say(
                "this kernel cannot defer task work (Linux 6.1); it goes \
                 without, and takes more time",
            );
        }
        setup.deferred = self.deferred;
        Ok(setup)
    }

    /// The same in one sentence.
    pub fn sentence(self) -> String {
        let offered = [
            (self.multishot, "multishot receives into provided buffers"),
            (self.deferred, "deferred task work"),
            (self.zero_copy, "sends without a copy"),
        ];
        let list = |there: bool| {
            let of = offered.iter().filter(|(is, _)| *is == there);
            let names: Vec<&str> = of.map(|(_, name)| *name).collect();
            names.join(", ")
        };
        match list(false).as_str() {
            "" => format!("io_uring can be had here, with {}", list(true)),
            missing => format!("io_uring can be had here, but no {missing}"),
        }
    }
}

/// A small ring; what becomes of the wish.
fn trial<W: Watch>(
    builder: io_uring::Builder,
    watch: W,
) -> nix::Result<IoUring> {
    let mut ring = None;
    watch.ask("io_uring_setup", -1, || {
        let new = ring.insert(builder.build(2).map_err(errno)?);
        Ok(new.as_raw_fd())
    })?;
    Ok(ring.expect("it was made"))
}

//! Where the first workers wait for each other: else one would serve, and get
//! all clients, while the others are still being made.

use std::io::{PipeReader, PipeWriter, Read, pipe};

use anyhow::{Context, Result};

/// Two pipes, which say something by the close of their last writer: so whoever
/// dies holds up nobody.
pub struct Gate {
    ready: (PipeReader, PipeWriter),
    open: (PipeReader, PipeWriter),
}

impl Gate {
    /// To be made before the workers, each of which has a copy.
    pub fn new() -> Result<Self> {
        let (ready, open) = (pipe().context("pipe")?, pipe().context("pipe")?);
        Ok(Gate { ready, open })
    }

    /// In a worker: it is ready, and sleeps until all are.
    pub fn pass(self) {
        let Gate { ready, open: (mut opened, writer) } = self;
        drop((ready, writer));
        // There is nothing to read but the end.
        opened.read_exact(&mut [0]).ok();
    }

    /// In the master: all workers are ready or dead, and go on.
    pub fn open(self) {
        let Gate { ready: (mut all_ready, writer), open: _open } = self;
        drop(writer);
        all_ready.read_exact(&mut [0]).ok();
    }
}

//! A file for a record, which nothing is left of afterwards.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

/// It has no name that could outlive a sudden end of this program.
pub struct RecordFile(File);

impl RecordFile {
    /// An empty one.
    pub fn new() -> Result<RecordFile> {
        let file = tempfile::tempfile().context("a file for the record")?;
        Ok(RecordFile(file))
    }

    /// What makes a server write its record to it, as `text` or `json`.
    pub fn args(&self, form: &str) -> [String; 4] {
        let (pid, fd) = (std::process::id(), self.0.as_raw_fd());
        // By this name another process opens it.
        let path = format!("/proc/{pid}/fd/{fd}");
        ["--watch", form, "--watch-file", &path].map(ToOwned::to_owned)
    }

    /// All that was written; the server has ended.
    pub fn text(mut self) -> Result<String> {
        let mut text = String::new();
        self.0.read_to_string(&mut text).context("the record")?;
        Ok(text)
    }
}

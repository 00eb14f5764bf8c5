//! A server's record as it comes, through a pipe.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::record::Entry;

/// What lies in the pipe at most. A record that is longer waits with its
/// server.
const PIPE: i32 = 1 << 20;
/// How much is read at once at most, so that a frame does not take longer.
const BITE: usize = 256 << 10;

/// The reading end.
pub struct Feed {
    reader: PipeReader,
    /// Ours, so that the pipe does not end while nobody else writes.
    _writer: PipeWriter,
    /// What has been read, from the beginning of a line.
    text: Vec<u8>,
    /// Whether more came than was read: the pipe may be full, and then the
    /// server waits.
    pub is_behind: bool,
}

impl Feed {
    /// Nothing has come yet.
    pub fn new() -> Result<Feed> {
        let (reader, writer) = io::pipe().context("a pipe for the record")?;
        // A user may have no room for larger pipes: pipe(7).
        let _smaller = fcntl(&reader, FcntlArg::F_SETPIPE_SZ(PIPE));
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let text = Vec::new();
        Ok(Feed { reader, _writer: writer, text, is_behind: false })
    }

    /// By this name another process opens it for writing.
    pub fn path(&self) -> String {
        let fd = self.reader.as_raw_fd();
        format!("/proc/{}/fd/{fd}", std::process::id())
    }

    /// Readable when something has come.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// The lines that have come, so many that it does not take long.
    pub fn take(&mut self) -> Result<Vec<Entry>> {
        let old = self.text.len();
        let limit = (BITE as u64).saturating_sub(old as u64).max(1);
        match (&self.reader).take(limit).read_to_end(&mut self.text) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                return Err(error).context("the record cannot be read");
            }
            done => self.is_behind = done.is_ok(),
        }
        let end = self.text.iter().rposition(|&byte| byte == b'\n');
        let whole = self.text.drain(..end.map_or(0, |end| end + 1));
        let whole =
            String::from_utf8_lossy(&whole.collect::<Vec<u8>>()).into_owned();
        whole.lines().map(Entry::read).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_whole_and_in_bites() {
        let mut feed = Feed::new().unwrap();
        let mut other = File::create(feed.path()).unwrap();
        assert_eq!(feed.take().unwrap(), []);
        other.write_all(b"{\"note\":\"one\"}\n{\"note\":").unwrap();
        assert_eq!(feed.take().unwrap(), [Entry::Note("one".into())]);
        other.write_all(b"\"two\"}\n").unwrap();
        assert_eq!(feed.take().unwrap(), [Entry::Note("two".into())]);
        assert!(!feed.is_behind);

        let line = format!("{{\"note\":\"{}\"}}\n", "x".repeat(50));
        let lines = BITE / line.len() + 10;
        other.write_all(line.repeat(lines).as_bytes()).unwrap();
        let first = feed.take().unwrap().len();
        assert!(feed.is_behind && first < lines);
        assert_eq!(first + feed.take().unwrap().len(), lines);
        assert!(!feed.is_behind);

        other.write_all(b"what?\n").unwrap();
        let error = feed.take().unwrap_err();
        assert!(error.to_string().contains("what?"), "{error}");
    }
}

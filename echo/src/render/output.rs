use std::io::{ErrorKind, Write};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Where lines go: gathered until nobody has more to say, and never more of
/// them than the limit.
pub(crate) struct Output<W> {
    to: W,
    gathered: Vec<u8>,
    left: u64,
    /// Nobody can be written to any more, which is no reason to stop reading.
    broken: bool,
}

/// Gathered bytes are written when there are so many.
const ENOUGH: usize = 64 * 1024;

impl<W: Write> Output<W> {
    /// Writes at most `limit` bytes to `to`.
    pub fn new(to: W, limit: u64) -> Self {
        Output { to, gathered: Vec::new(), left: limit, broken: false }
    }

    /// Writes these lines if they are within the limit, and says whether they
    /// were.
    pub fn put(&mut self, lines: &[u8]) -> bool {
        match self.left.checked_sub(lines.len() as u64) {
            Some(left) => self.left = left,
            None => return false,
        }
        self.put_anyway(lines);
        true
    }

    /// Writes these lines, whatever the limit.
    pub fn put_anyway(&mut self, lines: &[u8]) {
        self.gathered.extend_from_slice(lines);
        if self.gathered.len() >= ENOUGH {
            self.flush();
        }
    }

    /// Writes what has been gathered.
    pub fn flush(&mut self) {
        if !self.broken && !self.gathered.is_empty() {
            self.broken = self.to.write_all(&self.gathered).is_err();
        }
        self.gathered.clear();
    }
}

/// Standard error without a buffer. Somebody else may have made it
/// non-blocking, which is no failure.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let stderr = std::io::stderr();
        loop {
            match nix::unistd::write(&stderr, bytes) {
                Err(Errno::EAGAIN) => {
                    use std::os::fd::AsFd;
                    let wanted = PollFlags::POLLOUT;
                    let mut asked = [PollFd::new(stderr.as_fd(), wanted)];
                    match poll(&mut asked, PollTimeout::NONE) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(err) => return Err(err.into()),
                    }
                }
                Err(Errno::EINTR) => return Err(ErrorKind::Interrupted.into()),
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

use std::env::temp_dir;
use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Under how many descriptors the spool is open. glibc does the operations of
/// one descriptor number one after another; of several, at the same time.
/// (Seen: behind a read that sleeps, a write to the same number waits, and one
/// to a dup of it is done.)
const LANES: usize = 4;

/// The file through which every message goes.
pub struct Spool {
    /// Ours alone: two servers would overwrite each other's regions.
    _locked: Flock<File>,
    lanes: Vec<Rc<OwnedFd>>,
}

impl Spool {
    /// Opens it at `path`, or else a file without a name.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        match path {
            Some(path) => Self::at(path).with_context(|| {
                format!("cannot open the spool {}", path.display())
            }),
            None => Self::unnamed().with_context(|| {
                let dir = temp_dir();
                format!("cannot open a spool in {}", dir.display())
            }),
        }
    }

    fn at(path: &Path) -> Result<Self> {
        let mut options = options();
        // A FIFO would make open wait for somebody who reads it.
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = options.create(true).truncate(false).open(path)?;
        ensure!(file.metadata()?.is_file(), "it is not a regular file");
        let locked = lock(file)?;
        locked.set_len(0)?;
        Self::of(locked)
    }

    fn unnamed() -> Result<Self> {
        let dir = temp_dir();
        let opened = options().custom_flags(libc::O_TMPFILE).open(&dir);
        let file = match opened {
            // open(2): not every file system can; old kernels say EISDIR.
            Err(err)
                if is_one_of(&err, &[Errno::EOPNOTSUPP, Errno::EISDIR]) =>
            {
                let path = dir.join(format!("aio_file.{}", process::id()));
                let file = options().create_new(true).open(&path)?;
                remove_file(&path)?;
                file
            }
            opened => opened?,
        };
        Self::of(lock(file)?)
    }

    fn of(locked: Flock<File>) -> Result<Self> {
        let lane = || Ok(Rc::new(OwnedFd::from(locked.try_clone()?)));
        let lanes = (0..LANES).map(|_| lane()).collect::<Result<_>>()?;
        Ok(Spool { _locked: locked, lanes })
    }

    /// The descriptor for operations of this slot.
    pub fn lane(&self, slot: usize) -> Rc<OwnedFd> {
        self.lanes[slot % LANES].clone()
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn is_one_of(err: &io::Error, known: &[Errno]) -> bool {
    known.iter().any(|errno| err.raw_os_error() == Some(*errno as i32))
}

fn lock(file: File) -> Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        match errno {
            Errno::EWOULDBLOCK => anyhow!("another server uses it"),
            errno => anyhow!(errno).context("flock"),
        }
    })
}

//! Makes system calls of a running server fail or dawdle, from outside: the
//! server that is tested is the one that is used.

use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

use super::Outcome;
use crate::harness::{PATIENCE, Server};
use crate::sys;

/// strace, attached to a server and to every thread and child that it starts.
pub(super) struct Saboteur {
    strace: Child,
    log: NamedTempFile,
}

impl Saboteur {
    /// Lets every other of the first `last` of each of `calls` fail with
    /// `error`. An outcome instead when that cannot be done here.
    ///
    /// There is a last one so that strace can leave in peace: a call that it
    /// leaves in the middle of has its number destroyed (ENOSYS).
    pub(super) fn every_other(
        server: &Server,
        calls: &str,
        error: &str,
        last: usize,
    ) -> Result<std::result::Result<Saboteur, Outcome>> {
        let how = format!("error={error}:when=1..{last}+2");
        Self::begin(server, calls, &how, "")
    }

    /// Does to `calls` what strace's `inject` calls `how`, and writes down
    /// `beside`, too (more calls, with a comma before each). An outcome
    /// instead when that cannot be done here.
    ///
    /// Never `retval=`: it skips the call and pretends that it was made, so
    /// that bytes are lost which no server could have kept.
    pub(super) fn begin(
        server: &Server,
        calls: &str,
        how: &str,
        beside: &str,
    ) -> Result<std::result::Result<Saboteur, Outcome>> {
        let log = NamedTempFile::new().context("a file for strace")?;
        let mut stderr = tempfile::tempfile().context("a file for strace")?;
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-e", "signal=none", "-e"])
            .arg(format!("trace={calls}{beside}"))
            .arg("-e")
            .arg(format!("inject={calls}:{how}"))
            .arg("-o")
            .arg(log.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone()?);
        let tree = server.tree();
        for pid in &tree {
            command.arg("-p").arg(pid.to_string());
        }
        sys::in_child(&mut command, || {
            // A blocked SIGTERM would be inherited, and it must not outlive
            // the case that started it.
            SigSet::empty().thread_set_mask()?;
            prctl::set_pdeathsig(Signal::SIGTERM)?;
            Ok(())
        });
        let strace = match command.spawn() {
            Ok(strace) => strace,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let why = "strace is not installed";
                return Ok(Err(Outcome::Skipped(why.to_string())));
            }
            Err(error) => return Err(error).context("strace"),
        };
        let mut saboteur = Saboteur { strace, log };
        let deadline = Instant::now() + PATIENCE;
        while !tree.iter().all(|&pid| saboteur.has_attached_to(pid))
            || !saboteur.is_at_work()?
        {
            if saboteur.strace.try_wait()?.is_some() {
                let mut said = String::new();
                stderr.seek(SeekFrom::Start(0))?;
                stderr.read_to_string(&mut said)?;
                let why = format!("strace cannot attach: {}", said.trim());
                return Ok(Err(Outcome::Skipped(why)));
            }
            ensure!(Instant::now() < deadline, "strace does not attach");
            thread::sleep(Duration::from_millis(2));
        }
        Ok(Ok(saboteur))
    }

    fn has_attached_to(&self, pid: i32) -> bool {
        let tracer = format!("TracerPid:\t{}\n", self.strace.id());
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        tasks.into_iter().flatten().flatten().all(|task| {
            fs::read_to_string(task.path().join("status"))
                .is_ok_and(|status| status.contains(&tracer))
        })
    }

    /// Whether strace is past its start. A tracee is its own before it has
    /// been stopped for the first time, and what it calls until then goes
    /// unseen: ptrace(2), PTRACE_SEIZE. Once strace waits for its tracees, or
    /// has written of one, each has been told to stop.
    fn is_at_work(&self) -> Result<bool> {
        let path = format!("/proc/{}/syscall", self.strace.id());
        let sleeps_in = fs::read_to_string(path).unwrap_or_default();
        let wait4 = format!("{} ", libc::SYS_wait4);
        Ok(sleeps_in.starts_with(&wait4) || !self.log()?.is_empty())
    }

    /// Leaves the server alone again; how many calls were struck.
    pub(super) fn end(mut self) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        let (mut struck, mut still) = (self.struck()?, 0);
        // With its last tracee it has ended as well.
        while still < 3
            && self.strace.try_wait()?.is_none()
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(20));
            let now = self.struck()?;
            still = if now == struck { still + 1 } else { 0 };
            struck = now;
        }
        self.detach();
        self.struck()
    }

    /// How many calls were struck so far.
    pub(super) fn struck(&self) -> Result<usize> {
        let log = self.log()?;
        Ok(["(INJECTED)", "(DELAYED)"]
            .iter()
            .map(|mark| log.matches(mark).count())
            .sum())
    }

    /// How many calls of these names were struck so far.
    pub(super) fn struck_of(&self, names: &[&str]) -> Result<usize> {
        let struck = |line: &&str| {
            let called = |name: &&str| {
                line.contains(&format!(" {name}("))
                    || line.contains(&format!(" {name} resumed"))
            };
            line.contains("(INJECTED)") && names.iter().any(called)
        };
        Ok(self.log()?.lines().filter(struck).count())
    }

    /// What strace has written down so far.
    pub(super) fn log(&self) -> Result<String> {
        fs::read_to_string(self.log.path()).context("what strace writes")
    }

    fn detach(&mut self) {
        let Ok(None) = self.strace.try_wait() else {
            return;
        };
        // Asked to end, strace lets its tracees go on untouched.
        if let Ok(pid) = i32::try_from(self.strace.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = self.strace.try_wait() {
            if Instant::now() >= deadline {
                let _ = self.strace.kill();
                let _ = self.strace.wait();
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        self.detach();
    }
}

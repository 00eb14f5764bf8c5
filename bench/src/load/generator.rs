//! A load in a process of its own: it has all descriptors for its connections
//! and a core for itself, and is asked for turns by one line each.

use std::env;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpid, getppid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::{Plan, Span};
use super::report::{Turn, Whole};
use crate::sys;

/// How long one may take to end once nobody wants anything of it.
const FAREWELL: Duration = Duration::from_millis(200);

/// Holds the connections of one load; dropping it closes them.
///
/// The kernel ends it with the *thread* that started it, so it belongs to that
/// thread.
pub struct Generator {
    child: Child,
    /// `None` once it is to end.
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

/// What a generator is asked, after its plan.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Turn(Span),
    Whole,
    Forget,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply<T> {
    Done(T),
    Failed(String),
}

impl Generator {
    /// Returns once all connections stand and the idle ones were answered.
    /// It runs on `core` alone, if one is named.
    ///
    /// # Errors
    ///
    /// A plan that cannot be carried out, in the words of [`super::run`].
    pub fn start(plan: &Plan, core: Option<usize>) -> Result<Generator> {
        let mut cores = CpuSet::new();
        if let Some(core) = core {
            cores.set(core).with_context(|| format!("core {core}"))?;
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg("generate").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let parent = getpid();
        sys::in_child(&mut command, move || {
            // A mask outlives exec, and this program may have blocked signals.
            SigSet::empty().thread_set_mask()?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid() != parent {
                // The parent died before the line above.
                return Err(ErrorKind::NotFound.into());
            }
            if core.is_some() {
                sched_setaffinity(Pid::from_raw(0), &cores)?;
            }
            Ok(())
        });
        let mut child = command.spawn().context("no load generator")?;
        let requests = child.stdin.take();
        let replies = child.stdout.take().context("no pipe")?;
        let replies = BufReader::new(replies);
        let mut generator = Generator { child, requests, replies };
        generator.ask::<()>(plan)?;
        Ok(generator)
    }

    /// Loads for so long; begins and ends when everything is quiet, so that
    /// what the server took in between belongs to these messages.
    ///
    /// # Errors
    ///
    /// What the server did wrong; the generator has then ended.
    pub fn turn(&mut self, span: Span) -> Result<Turn> {
        self.ask(&Request::Turn(span))
    }

    /// What all turns have shown, or those since [`Generator::forget`].
    ///
    /// # Errors
    ///
    /// The generator has ended.
    pub fn whole(&mut self) -> Result<Whole> {
        self.ask(&Request::Whole)
    }

    /// What was shown so far is no part of [`Generator::whole`].
    ///
    /// # Errors
    ///
    /// The generator has ended.
    pub fn forget(&mut self) -> Result<()> {
        self.ask(&Request::Forget)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ask<T: DeserializeOwned>(
        &mut self,
        request: &impl Serialize,
    ) -> Result<T> {
        let Some(to) = &mut self.requests else {
            bail!("the load generator has ended");
        };
        // One that has ended may have said why before it was asked.
        let _lost = write_line(to, request);
        let mut line = String::new();
        self.replies.read_line(&mut line).context("load generator")?;
        if !line.ends_with('\n') {
            self.requests = None;
            let status = self.child.wait()?;
            bail!("the load generator ended with {status}");
        }
        match serde_json::from_str(&line).with_context(|| line.clone())? {
            Reply::Done(done) => Ok(done),
            Reply::Failed(why) => {
                self.requests = None;
                Err(anyhow!(why))
            }
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.requests = None;
        let deadline = Instant::now() + FAREWELL;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // It may have ended meanwhile.
                let _ended = self.child.kill();
                let _status = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn write_line(to: &mut impl Write, what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    Ok(to.flush()?)
}

/// Becomes the generator of a [`Generator`] when the command line says
/// `generate`; otherwise returns.
pub fn generate_if_asked() {
    if env::args_os().nth(1).is_none_or(|word| word != "generate") {
        return;
    }
    let mut replies = io::stdout().lock();
    let code = match generate(&mut replies) {
        Ok(()) => 0,
        Err(error) => {
            let reply = Reply::<()>::Failed(format!("{error:#}"));
            // Nobody is left to be told if this fails as well.
            let _lost = write_line(&mut replies, &reply);
            1
        }
    };
    std::process::exit(code);
}

/// Answers line by line until there are no more.
fn generate(replies: &mut impl Write) -> Result<()> {
    let mut lines = io::stdin().lock().lines();
    let Some(plan) = lines.next() else { return Ok(()) };
    let plan: Plan = serde_json::from_str(&plan?).context("plan")?;
    let mut engine = super::connect(&plan, &mut |_, _| {})?;
    write_line(replies, &Reply::Done(()))?;
    for line in lines {
        match serde_json::from_str(&line?).context("request")? {
            Request::Turn(span) => {
                let turn = engine.turn(span)?;
                write_line(replies, &Reply::Done(turn))?;
            }
            Request::Whole => {
                write_line(replies, &Reply::Done(engine.whole()))?;
            }
            Request::Forget => {
                engine.forget();
                write_line(replies, &Reply::Done(()))?;
            }
        }
    }
    Ok(())
}

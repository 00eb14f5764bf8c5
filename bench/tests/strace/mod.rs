//! A server under `strace`, and what the kernel says that its threads called.
//!
//! With `-ff` each thread has a file of its own, so that no call is ever
//! written in two halves (`<unfinished ...>`) around those of other threads.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bench::harness::{PATIENCE, Server, Start, Target};
use bench::models::Model;
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// One call as strace wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The kernel's name of it.
    pub call: String,
    /// What stands between the parentheses, as `-y -s 0` prints it.
    pub args: String,
    /// What was returned, or the error's name.
    pub result: Result<i64, String>,
    /// What stands behind that in parentheses.
    pub note: String,
}

/// The call of a line that tells of a signal which a handler gets; its `args`
/// are what the line says.
pub const SIGNAL: &str = "---";

/// The calls of each thread, by its number.
pub type Threads = BTreeMap<i32, Vec<Traced>>;

/// `-D` leaves the server a child of the shell that started it; the rest asks
/// for whole structures, no bytes, and what each descriptor is.
const FLAGS: &str = "-D -ff -q -v -y -s 0 --seccomp-bpf -e trace=%desc,\
                     %network,%process,clock_nanosleep,nanosleep,\
                     rt_sigtimedwait";

/// Why nothing can be traced here, if so.
pub fn missing() -> Option<String> {
    let mut words = FLAGS.split_whitespace();
    let mut strace = Command::new("strace");
    strace.args(words.by_ref()).args(["-o", "/dev/null", "true"]);
    match strace.output() {
        Err(err) => Some(format!("strace is not installed ({err})")),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or_default();
            Some(format!("strace may not trace ({said})"))
        }
    }
}

/// A server that runs under strace.
pub struct Tracing {
    /// The server.
    pub server: Server,
    /// Where the server may have written to.
    pub folder: TempDir,
}

impl Tracing {
    /// Starts the server of a row, with `args` after the row's own; `{folder}`
    /// in them is a folder that is there until this is dropped.
    pub fn start(model: &Model, args: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let to = folder.path().display();
        // This very program, even if its file has been replaced since.
        let exe = format!("/proc/{}/exe", std::process::id());
        let args = args.replace("{folder}", &to.to_string());
        let line = format!(
            "exec strace {FLAGS} -o {to}/trace \
             {exe} serve {} --addr {{addr}} {args}",
            model.name
        );
        let target = Target::Command(line);
        let server = Server::start(&target, &Start::default())?;
        Ok(Tracing { server, folder })
    }

    /// Stops the server, and reads what it and its children called after the
    /// line `listening on …`. The renderer is left out.
    pub fn stop(&mut self) -> Result<Threads> {
        self.server.signal(Signal::SIGTERM)?;
        let status = self.server.wait_exit(2 * PATIENCE)?;
        let said = self.server.stderr();
        ensure!(status.success(), "the server ended with {status}: {said}");
        let deadline = Instant::now() + PATIENCE;
        let mut threads = Threads::new();
        for (tid, text) in loop {
            let texts = self.texts()?;
            // The tracer may still be writing.
            let ends = |text: &String| {
                text.lines().last().is_some_and(|line| line.starts_with("+++"))
            };
            if texts.values().all(ends) {
                break texts;
            }
            ensure!(Instant::now() < deadline, "strace does not end");
            sleep(Duration::from_millis(2));
        } {
            let mut calls = parse(&text)?;
            if tid == self.server.pid {
                let listens = |it: &Traced| {
                    it.call == "write" && it.args.starts_with("1<")
                };
                let at = calls.iter().position(listens);
                let at = at.context("no line was written to stdout")?;
                calls.drain(..=at);
            } else if calls.iter().any(|it| it.call == "execve") {
                // The renderer: the server's own execve is in its own file.
                continue;
            }
            threads.insert(tid, calls);
        }
        Ok(threads)
    }

    fn texts(&self) -> Result<BTreeMap<i32, String>> {
        let mut texts = BTreeMap::new();
        for entry in fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let tid = name.and_then(|name| name.strip_prefix("trace."));
            if let Some(tid) = tid.and_then(|tid| tid.parse().ok()) {
                let text = fs::read(&path)?;
                texts.insert(tid, String::from_utf8_lossy(&text).into_owned());
            }
        }
        Ok(texts)
    }
}

/// The calls in one thread's file.
pub fn parse(text: &str) -> Result<Vec<Traced>> {
    let mut calls = Vec::new();
    for line in text.lines() {
        // The thread's end.
        if line.starts_with("+++") {
            continue;
        }
        if let Some(signal) = line.strip_prefix("--- ") {
            let args = signal.strip_suffix(" ---").unwrap_or(signal);
            calls.push(Traced {
                call: SIGNAL.to_owned(),
                args: args.to_owned(),
                result: Ok(0),
                note: String::new(),
            });
            continue;
        }
        // A call that the end of its process cut off.
        if line.ends_with("<unfinished ...>") || line.ends_with("= ?") {
            continue;
        }
        // A signal came in between; the kernel makes the same call again,
        // whatever the handler wants, and the caller never knows.
        if line.contains(" = ? ERESTARTNOINTR ") {
            continue;
        }
        match parse_line(line) {
            Some(call) => calls.push(call),
            None => bail!("strace's line is not understood: {line}"),
        }
    }
    Ok(calls)
}

fn parse_line(line: &str) -> Option<Traced> {
    let (call, rest) = line.split_once('(')?;
    if call.contains("resumed") {
        return None;
    }
    let (args, end) = rest.rsplit_once(" = ")?;
    let args = args.trim_end().strip_suffix(')')?;
    let (value, rest) = end.split_once(' ').unwrap_or((end, ""));
    let (error, note) = rest.split_once(' ').unwrap_or((rest, ""));
    let result = match value {
        // Interrupted by a signal whose handler is not to restart the call,
        // which is what all handlers here are: the caller gets EINTR.
        "?" if error.starts_with("ERESTART") => Err("EINTR".to_owned()),
        "-1" => Err(error.to_owned()),
        _ => Ok(number(value)?),
    };
    let note = if result.is_ok() { rest } else { note };
    Some(Traced {
        call: call.to_owned(),
        args: args.to_owned(),
        result,
        note: note.to_owned(),
    })
}

/// The number that a value begins with: `8<socket:[123]>`, `0x1`.
pub fn number(value: &str) -> Option<i64> {
    if let Some(hex) = value.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok();
    }
    let digit = |c: char| !c.is_ascii_digit() && c != '-';
    let end = value.find(digit).unwrap_or(value.len());
    value[..end].parse().ok()
}

//! How far a command of several seconds is, on a terminal; and its end by a
//! signal.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::harness;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};

/// A signal has come, and whatever fails from now on fails because of it.
static ENDING: AtomicBool = AtomicBool::new(false);

/// A bar on stderr; it hides itself where that is no terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// So many steps are to come.
    pub fn start(steps: usize) -> Result<Progress> {
        let bar = ProgressBar::new(steps as u64);
        end_on_signal(bar.clone())?;
        let style = ProgressStyle::with_template(
            "{spinner} {bar:30} {pos}/{len}  {elapsed}  {msg}",
        );
        bar.set_style(style.context("the progress bar")?);
        bar.enable_steady_tick(Duration::from_millis(100));
        Ok(Progress(bar))
    }

    /// The next step begins.
    pub fn step(&self, what: &str) {
        // The first one begins without another's end.
        if !self.0.message().is_empty() {
            self.0.inc(1);
        }
        self.0.set_message(what.to_owned());
    }

    /// Passes on what became of it, unless a signal ended it.
    pub fn end<T>(self, result: Result<T>) -> Result<T> {
        while ENDING.load(Relaxed) {
            thread::park();
        }
        self.0.finish_and_clear();
        result
    }
}

/// Ctrl-C and its like end this program and every server it has started.
fn end_on_signal(bar: ProgressBar) -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Before any other thread exists, so that all inherit it.
    signals.thread_block().context("sigmask")?;
    thread::Builder::new().spawn(move || {
        let signal = signals.wait().unwrap_or(Signal::SIGINT);
        ENDING.store(true, Relaxed);
        bar.finish_and_clear();
        harness::kill_all_and_exit(128 + signal as i32)
    })?;
    Ok(())
}

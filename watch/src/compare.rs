//! Runs the comparison, and shows on a terminal how far it is.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::harness;
use bench::models::Model;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};

use crate::measure::{Row, measure};

/// A signal has come, and whatever fails from now on fails because of it.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Every one of `models` in the scene, one after the other.
pub fn compare(models: &[&'static Model]) -> Result<Vec<Row>> {
    // It draws to stderr, and hides itself where that is no terminal.
    let bar = ProgressBar::new(2 * models.len() as u64);
    end_on_signal(bar.clone())?;
    let style = ProgressStyle::with_template(
        "{spinner} {bar:30} {pos}/{len}  {elapsed}  {msg}",
    );
    bar.set_style(style.context("the progress bar")?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let rows: Result<Vec<Row>> = models
        .iter()
        .map(|model| {
            let name = model.name;
            let row = measure(model, |run| {
                bar.set_message(format!("{name}, {run}"));
                bar.inc(u64::from(run == "watched"));
            });
            bar.inc(1);
            row.with_context(|| name.to_owned())
        })
        .collect();
    while ENDING.load(Relaxed) {
        thread::park();
    }
    bar.finish_and_clear();
    rows
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

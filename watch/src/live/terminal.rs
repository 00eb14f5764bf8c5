//! The terminal: taken, and given back whatever happens.

use std::io::{self, Stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, TryLockError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bench::harness;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::{cursor, execute, terminal};

/// Whether there is something to give back.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Held while something is drawn.
static DRAWING: Mutex<()> = Mutex::new(());

/// How long a signal waits for a frame that is being drawn.
const A_FRAME: Duration = Duration::from_millis(500);

/// The terminal while it is ours; dropping it gives it back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal that this program was started from.
    pub fn take() -> Result<Screen> {
        on_panic(give_back);
        TAKEN.store(true, SeqCst);
        let mut screen = Screen {
            terminal: Terminal::new(CrosstermBackend::new(io::stdout()))?,
        };
        terminal::enable_raw_mode().context("the terminal's raw mode")?;
        let out = screen.terminal.backend_mut();
        execute!(out, terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Draws what has changed.
    pub fn draw(&mut self, show: impl FnOnce(&mut Frame)) -> Result<()> {
        let _drawing = DRAWING.lock();
        self.terminal.draw(show).context("the terminal cannot be drawn to")?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back, once.
fn give_back() {
    if TAKEN.swap(false, SeqCst) {
        // Nothing better can be done if there is no terminal any more.
        let _lost = terminal::disable_raw_mode();
        let show = (terminal::LeaveAlternateScreen, cursor::Show);
        let _lost = execute!(io::stdout(), show.0, show.1);
    }
}

/// Does this before a panic is told, so that it can be read.
fn on_panic(first: fn()) {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        first();
        tell(info);
    }));
}

/// Ctrl-C in another form, and its like: gives the terminal back and ends this
/// program with every server it has started. To be called before there is any
/// other thread, so that all inherit the mask.
pub fn end_on_signal() -> Result<()> {
    let ends =
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
    let ends = SigSet::from_iter(ends);
    let mut blocked = ends;
    // Stopped, it would leave the terminal as it is now to the shell.
    blocked.add(Signal::SIGTSTP);
    blocked.thread_block().context("sigmask")?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let signal = ends.wait().unwrap_or(Signal::SIGTERM);
        let _never_drawn_again = no_frame_any_more();
        give_back();
        harness::kill_all_and_exit(128 + signal as i32)
    })?;
    Ok(())
}

/// A frame that cannot be drawn to its end does not keep us for ever.
fn no_frame_any_more() -> Option<MutexGuard<'static, ()>> {
    let deadline = Instant::now() + A_FRAME;
    loop {
        match DRAWING.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(guard)) => {
                return Some(guard.into_inner());
            }
            Err(_) if Instant::now() >= deadline => return None,
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// What the reader types, and changes of size.
pub struct Input {
    events: mpsc::Receiver<io::Result<Event>>,
    /// Readable when there is something.
    pub bell: &'static EventFd,
}

impl Input {
    /// Begins to listen; to be called when the screen has been taken.
    pub fn listen() -> Result<Input> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        // It is rung by a thread that ends with the program.
        let bell: &EventFd =
            Box::leak(Box::new(EventFd::from_value_and_flags(0, flags)?));
        let (sender, events) = mpsc::channel();
        thread::Builder::new().name("keys".into()).spawn(move || {
            loop {
                let event = event::read();
                let last = event.is_err();
                let unheard = sender.send(event).is_err();
                let _full = bell.write(1);
                if last || unheard {
                    return;
                }
            }
        })?;
        Ok(Input { events, bell })
    }

    /// All that has come since.
    pub fn take(&self) -> Result<Vec<Event>> {
        let _nothing_rang = self.bell.read();
        let events: io::Result<Vec<Event>> = self.events.try_iter().collect();
        events.context("the terminal cannot be read from")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_is_given_back_before_a_panic_is_told() {
        static ORDER: Mutex<Vec<&str>> = Mutex::new(Vec::new());
        let usual = panic::take_hook();
        let is_ours = || thread::current().name() == Some("panics");
        panic::set_hook(Box::new(move |info| match is_ours() {
            true => ORDER.lock().unwrap().push("told"),
            false => usual(info),
        }));
        on_panic(|| {
            if thread::current().name() == Some("panics") {
                ORDER.lock().unwrap().push("given back");
            }
        });
        let thread = thread::Builder::new().name("panics".into());
        thread.spawn(|| panic!("a test")).unwrap().join().unwrap_err();
        let _ours = panic::take_hook();
        assert_eq!(*ORDER.lock().unwrap(), ["given back", "told"]);
    }
}

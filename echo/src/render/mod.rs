//! What a watched server did, as text or JSON, written by a process of its own.

mod assembly;
mod call;
pub mod explain;
mod fold;
mod form;
mod json;
mod output;
mod recorder;
#[cfg(test)]
mod tests;
mod text;
mod totals;

use std::io::{IsTerminal, stderr, stdin};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::read;

use crate::event::Event;
use crate::watch::now;
use form::Form;
use output::Stderr;
use recorder::{Options, Recorder};

/// The first argument of a process that is to render.
pub(crate) const RENDER: &str = "render-events";

/// The pipe's new size. A server that writes faster than it is read for a
/// moment need not block.
const PIPE: i32 = 1 << 20;

/// Becomes the renderer when the command line asks for it: reads events from
/// stdin until the last of their writers has gone, and writes to stderr.
pub fn render_if_asked() {
    let args = std::env::args_os().skip(1);
    let mut args = args.map(|word| word.to_string_lossy().into_owned());
    if args.next().as_deref() != Some(RENDER) {
        return;
    }
    // The terminal sends its signals to the renderer too; it ends after the
    // server, whose last calls would be lost otherwise.
    crate::sys::ignore(Signal::SIGINT);
    crate::sys::ignore(Signal::SIGTERM);
    // Else the server would lose its core to us with each event that it tells.
    crate::sys::wake_politely();
    let terminal = stderr().is_terminal();
    let format = args.next();
    let limit = args.next().and_then(|limit| limit.parse().ok());
    let mut flag = || args.next().as_deref() == Some("true");
    let (every, live) = (flag(), flag());
    let form: Box<dyn Form> = match format.as_deref() {
        Some("json") => Box::new(json::Json { live }),
        _ => Box::new(text::Text::new(text::Look::of_stderr(terminal))),
    };
    let options = Options {
        limit: limit.unwrap_or(u64::MAX),
        every,
        live: terminal || live,
    };
    let mut recorder = Recorder::new(form, Stderr, options);
    // Where this is not allowed the pipe stays as it is.
    let size = fcntl(stdin(), FcntlArg::F_SETPIPE_SZ(PIPE));
    let size = size.or_else(|_| fcntl(stdin(), FcntlArg::F_GETPIPE_SZ));
    record(&mut recorder, size.map_or(0, |size| size as usize));
    std::process::exit(0);
}

/// Records what comes on stdin, a pipe of this size, until its end.
fn record(recorder: &mut Recorder<Stderr>, size: usize) {
    let stdin = stdin();
    let mut buffer = vec![0; PIPE as usize];
    let mut filled = 0;
    loop {
        let at = now();
        let mut asked = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        // Whatever there is to be read comes before what there is to be said.
        if poll(&mut asked, PollTimeout::ZERO) == Ok(0) {
            recorder.caught_up(at);
            let until = recorder.rest();
            let left = until.map(|until| until.saturating_sub(now()));
            let millis = left.map(|left| left.div_ceil(1_000_000));
            let timeout = millis.and_then(|left| u16::try_from(left).ok());
            let timeout = timeout.map_or(PollTimeout::NONE, PollTimeout::from);
            if poll(&mut asked, timeout) == Ok(0) {
                continue;
            }
        }
        let at = now();
        let n = match read(&stdin, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => n,
            Err(Errno::EINTR) => continue,
            Err(_) => break,
        };
        filled += n;
        let (events, rest) = buffer[..filled].as_chunks::<{ Event::SIZE }>();
        for event in events.iter().filter_map(Event::decode) {
            recorder.add(&event);
        }
        let end = filled - rest.len();
        buffer.copy_within(end..filled, 0);
        filled -= end;
        recorder.progress(at);
        // While the pipe is nearly full, writers wait in calls that have
        // returned.
        if n < size / 2 {
            recorder.caught_up(at);
        }
    }
    recorder.end();
}

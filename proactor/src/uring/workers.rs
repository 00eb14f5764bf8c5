//! Many rings, a thread each: nothing is shared. The kernel spreads the clients
//! over their accept queues (SO_REUSEPORT), and a signal is passed on.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, anyhow};
use echo::{Listener, StopFd, Watch, listeners};
use nix::errno::Errno;
use nix::unistd::read;

use super::{Setup, blocking, serve_one};
use crate::processor::SIGNAL;

pub fn serve<W: Watch>(
    listener: Listener,
    stop: StopFd,
    setup: &Setup,
    count: usize,
    watch: W,
) -> Result<()> {
    let (mut threads, mut tellers) = (Vec::new(), Vec::new());
    for listener in listeners(listener, count, watch)? {
        let (stop, teller) = stop.for_thread()?;
        let setup = setup.clone();
        let serves = move || serve_one(listener, stop, setup, watch);
        let thread = Builder::new().name("ring".to_owned()).spawn(serves);
        threads.push(thread.context("cannot start a thread")?);
        tellers.push(teller);
    }
    let tellers = Arc::new(tellers);
    blocking(&stop, watch)?;
    let to = Arc::clone(&tellers);
    // Nobody waits for this one: it ends with the process.
    Builder::new()
        .name("signals".to_owned())
        .spawn(move || relay(&stop, &to, watch))
        .context("cannot start a thread")?;
    let mut result = Ok(());
    for thread in threads {
        let ended = join(thread);
        if ended.is_err() && result.is_ok() {
            // The others are not to go on as if all were well.
            tellers.iter().for_each(StopFd::relay);
            result = ended;
        }
    }
    result
}

/// Passes each signal on to all who serve, for ever.
fn relay<W: Watch>(stop: &StopFd, tellers: &[OwnedFd], watch: W) {
    let mut signal = [0; SIGNAL];
    loop {
        let take = || read(stop, &mut signal);
        match watch.wait_and_copy("read", stop, take) {
            Ok(_) => tellers.iter().for_each(StopFd::relay),
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("a thread has panicked"))?
}

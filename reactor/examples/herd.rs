//! Many wait for one listener, and one client wakes them all.
//!
//! Symptom: of four threads that sleep, one client wakes four. One of them
//! gets it, and accept finds nothing (EAGAIN) for the other three.
//!
//! Cause: each has an epoll of its own with the listener on its list, and a
//! client is news for each of the lists: epoll(7). The kernel cannot know
//! that one is enough.
//!
//! Fix: tell it so: EPOLLEXCLUSIVE, epoll_ctl(2), wakes one or more, and here
//! it is one. Or give each a listener of its own: SO_REUSEPORT, socket(7).
//! reactor does either with `--form processes`, by `--accept exclusive` or
//! `reuseport` (reactor/src/forms/processes/mod.rs).
#![forbid(unsafe_code)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::unistd::gettid;
use pitfall::{Shown, pitfall, say};

const READ: EpollFlags = EpollFlags::EPOLLIN;
const THREADS: usize = 4;
const CLIENTS: usize = 5;
/// When nobody has woken up for so long, nobody will.
const QUIET: Duration = Duration::from_millis(100);

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    crowd(READ)
}

fn mended() -> Result<Shown> {
    crowd(READ | EpollFlags::EPOLLEXCLUSIVE)
}

/// What a thread tells: it is awake, and its number; or what accept said.
enum Told {
    Awake(usize),
    Accepted(bool),
}

fn crowd(wanted: EpollFlags) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let (tell, told) = channel();
    let (mut go_on, mut threads) = (Vec::new(), Vec::new());
    let mut sleepers = Vec::new();
    for number in 0..THREADS {
        let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        list.add(&listener, EpollEvent::new(wanted, 0))?;
        let (listener, tell) = (listener.try_clone()?, tell.clone());
        let (go, may) = channel();
        go_on.push(go);
        let sleeper = Arc::new(AtomicI32::new(0));
        sleepers.push(Arc::clone(&sleeper));
        threads.push(thread::spawn(move || {
            serve(number, &list, &listener, &sleeper, &tell, &may)
        }));
    }
    drop(tell);

    let (mut woken, mut wasted) = (0, 0);
    for _ in 0..CLIENTS {
        until_asleep(&sleepers);
        let client = TcpStream::connect(addr)?;
        // The client stays in the queue until nobody wakes up any more. So all
        // of them have had their chance, and go back to sleep together.
        let mut awake = Vec::new();
        while awake.len() < THREADS
            && let Some(number) = next_awake(&told, awake.is_empty())?
        {
            awake.push(number);
        }
        woken += awake.len();
        for &number in &awake {
            go_on[number].send(()).ok();
        }
        let mut accepted = 0;
        for _ in &awake {
            match told.recv()? {
                Told::Accepted(true) => accepted += 1,
                Told::Accepted(false) => wasted += 1,
                Told::Awake(_) => bail!("somebody woke up late"),
            }
        }
        ensure!(accepted == 1, "{accepted} of {awake:?} have it");
        for &number in &awake {
            go_on[number].send(()).ok();
        }
        drop(client);
    }
    say!("{CLIENTS} clients, {THREADS} threads that sleep: {woken} woke up");
    say!("accept found nothing (EAGAIN): {wasted} times");

    // Without a way to go on they end; one more client wakes them for that.
    drop(go_on);
    while !threads.is_empty() {
        let _client = TcpStream::connect(addr)?;
        let ended = threads.extract_if(.., |it| it.is_finished());
        for thread in ended.collect::<Vec<_>>() {
            let Ok(served) = thread.join() else { bail!("a thread panicked") };
            served?;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(Shown::symptom_if(wasted >= CLIENTS))
}

/// Who does not sleep could not be woken, and another would be instead.
fn until_asleep(sleepers: &[Arc<AtomicI32>]) {
    for sleeper in sleepers {
        let sleeps = || {
            let thread = sleeper.load(Ordering::SeqCst);
            let path = format!("/proc/self/task/{thread}/stat");
            let stat = fs::read_to_string(path);
            thread != 0 && stat.is_ok_and(|it| it.contains(") S "))
        };
        while !sleeps() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Who wakes up next; nobody, unless it must be somebody.
fn next_awake(told: &Receiver<Told>, must: bool) -> Result<Option<usize>> {
    let next = match must {
        true => Some(told.recv()?),
        false => told.recv_timeout(QUIET).ok(),
    };
    match next {
        Some(Told::Awake(number)) => Ok(Some(number)),
        Some(Told::Accepted(_)) => bail!("accepted out of turn"),
        None => Ok(None),
    }
}

/// One thread: wakes up, and may accept when all are awake who will be.
fn serve(
    number: usize,
    list: &Epoll,
    listener: &TcpListener,
    sleeper: &AtomicI32,
    tell: &Sender<Told>,
    may: &Receiver<()>,
) -> Result<()> {
    loop {
        sleeper.store(gettid().as_raw(), Ordering::SeqCst);
        list.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE)?;
        sleeper.store(0, Ordering::SeqCst);
        tell.send(Told::Awake(number)).ok();
        let Ok(()) = may.recv() else { return Ok(()) };
        let accepted = match listener.accept() {
            Ok(_) => true,
            Err(err) => {
                let errno = Errno::try_from(err).ok();
                ensure!(errno == Some(Errno::EAGAIN), "accept: {errno:?}");
                false
            }
        };
        tell.send(Told::Accepted(accepted)).context("nobody counts")?;
        let Ok(()) = may.recv() else { return Ok(()) };
    }
}

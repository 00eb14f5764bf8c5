//! A server starts a child for each client and does not wait for it.
//!
//! Symptom: each client that has gone leaves a zombie behind, until there is no
//! room for one more process.
//!
//! Cause: the kernel keeps how a child has ended until its parent asks:
//! waitpid(2), NOTES. To ask once for each SIGCHLD is too little: it is not
//! queued while it is pending, so one may stand for many children (signal(7)).
//!
//! Fix: at each SIGCHLD, waitpid with WNOHANG until there is no more to ask
//! for: on_child in blocking/src/sys.rs, for blocking --per process.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::exit;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, wait, waitpid};
use nix::unistd::Pid;
use pitfall::{Shown, child, pitfall, say};

const CLIENTS: usize = 8;

/// The server's exit code is this, and one more for each zombie.
const NO_ERROR: i32 = 100;

pitfall!(broken, mended, child: become_a_child);

fn broken() -> Result<Shown> {
    let never = zombies("never waits")?;
    let once = zombies("waits once a signal")?;
    Ok(Shown::symptom_if(never > 0 && once > 0))
}

fn mended() -> Result<Shown> {
    Ok(Shown::symptom_if(zombies("waits for all")? > 0))
}

/// How many zombies a server has in the end, which goes about it in this way.
fn zombies(way: &str) -> Result<i32> {
    let ended = child(way).status()?;
    match ended.code() {
        Some(code @ NO_ERROR..) => Ok(code - NO_ERROR),
        _ => bail!("the server that {way}: {ended}"),
    }
}

/// A server alone in its process, so that no thread of somebody else takes its
/// signals, or a child for one client.
fn become_a_child(role: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if role == "client's child" {
        return echo();
    }
    let zombies = serve(role)?;
    exit(NO_ERROR + zombies as i32)
}

fn serve(way: &str) -> Result<usize> {
    let mask = SigSet::from(Signal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut children = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (socket, _) = listener.accept()?;
        let mut command = child("client's child");
        // To drop what spawn returns is not to wait for the child.
        children.push(command.stdin(OwnedFd::from(socket)).spawn()?.id());
        client.write_all(b"hello")?;
        client.read_exact(&mut [0; 5])?;
    }
    // The server has been busy with something else meanwhile.
    let begin = Instant::now();
    while count_zombies(&children) < CLIENTS {
        ensure!(begin.elapsed() < Duration::from_secs(5), "no end");
        thread::sleep(Duration::from_millis(1));
    }

    let mut taken = 0;
    while signals.read_signal()?.is_some() {
        taken += 1;
        match way {
            "never waits" => {}
            "waits once a signal" => {
                wait()?;
            }
            "waits for all" => wait_for_all()?,
            other => bail!("{other}?"),
        }
    }
    let zombies = count_zombies(&children);
    say!("{CLIENTS} children have ended; SIGCHLDs taken: {taken}");
    say!("a server that {way} has {zombies} zombies");
    while wait().is_ok() {}
    Ok(zombies)
}

/// waitpid(2): 0 if there are children and all live, ECHILD if there are none.
fn wait_for_all() -> Result<()> {
    let any = Pid::from_raw(-1);
    loop {
        match waitpid(any, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
}

/// How many of them have ended and are still there: state Z in proc(5).
fn count_zombies(children: &[u32]) -> usize {
    let zombie = |pid: &&u32| {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.contains(") Z "))
    };
    children.iter().filter(zombie).count()
}

/// Serves the client whose socket is our stdin.
fn echo() -> Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = TcpStream::from(socket);
    io::copy(&mut &socket, &mut &socket)?;
    Ok(())
}

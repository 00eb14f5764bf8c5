//! A server sends to a client that has gone, and is killed by SIGPIPE.
//!
//! Symptom: one client goes too early, and the server is dead: no message, no
//! error to look at, and all other clients are reset.
//!
//! Cause: a peer that has closed answers what comes with RST. Who sends once
//! more gets EPIPE, and before it a SIGPIPE, which kills a program that has not
//! said otherwise: send(2), signal(7). A Rust program begins with SIGPIPE
//! ignored; this one sets it back to what it is in C.
//!
//! Fix: MSG_NOSIGNAL in each send: EPIPE is an error like others then, and ends
//! one connection: on_ready in blocking/src/lib.rs. write(2) has no such flag;
//! there, ignore the signal.
#![allow(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{MsgFlags, recv, send};
use pitfall::{Shown, child, pitfall, say};

const BUFFER: usize = 64;

pitfall!(broken, mended, child: serve);

fn broken() -> Result<Shown> {
    two_clients("no flag")
}

fn mended() -> Result<Shown> {
    two_clients("MSG_NOSIGNAL")
}

fn two_clients(flag: &str) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut first = TcpStream::connect(listener.local_addr()?)?;
    first.write_all(&[b'.'; BUFFER])?;
    drop(first);
    let mut second = TcpStream::connect(listener.local_addr()?)?;
    second.write_all(b"hello")?;
    say!("one client sends and goes, the next one sends and stays");

    // The command holds a copy of the listener, and ends here.
    let server = child(flag).stdin(OwnedFd::from(listener)).spawn();
    let answer = second.read_exact(&mut [0; 5]);
    let ended = server?.wait()?;
    match &answer {
        Ok(()) => say!("the second client has its answer"),
        Err(error) => say!("the second client: {error}"),
    }
    say!("the server, with {flag}: {ended}");
    let killed = ended.signal() == Some(Signal::SIGPIPE as i32);
    ensure!(killed || ended.success(), "it ended otherwise");
    ensure!(killed || answer.is_ok(), "no answer");
    Ok(Shown::symptom_if(killed))
}

/// The server, in a process of its own, which it may lose. Its stdin listens.
fn serve(flag: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let flags = match flag {
        "MSG_NOSIGNAL" => MsgFlags::MSG_NOSIGNAL,
        _ => MsgFlags::empty(),
    };
    // SAFETY: no handler is installed: SIG_DFL runs no code of this program.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (first, _) = listener.accept()?;
    let gone = echo(&first, flags);
    ensure!(gone == Err(Errno::EPIPE), "the first client: {gone:?}");
    let (second, _) = listener.accept()?;
    Ok(echo(&second, flags)?)
}

/// Sends what comes back byte by byte, as answers are sent that are not ready
/// all at once.
fn echo(socket: &TcpStream, flags: MsgFlags) -> nix::Result<()> {
    let mut bytes = [0; BUFFER];
    let n = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
    for byte in bytes[..n].chunks(1) {
        send(socket.as_raw_fd(), byte, flags)?;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

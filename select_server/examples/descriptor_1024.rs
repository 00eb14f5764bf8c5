//! A select server counts its clients, and not their descriptors.
//!
//! Symptom: three clients, where 1,024 are allowed, and a variable changes that
//! nobody has assigned to. Here it is the limit itself, which becomes 0.
//!
//! Cause: a set has a bit for each number below FD_SETSIZE, 1,024, and numbers
//! grow with all that the program has open. C's FD_SET looks at no bound
//! (glibc's does with _FORTIFY_SOURCE, Rust's always; both abort), and the
//! kernel overwrites as many bits as it is told to look at: select(2).
//!
//! Fix: look at the number before FD_SET, refuse that one client and serve the
//! others: EventLoop::on_accepted in select_server/src/lib.rs. Or poll(2).
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::Stdio;
use std::ptr;

use anyhow::{Context, Result, ensure};
use libc::{FD_SETSIZE, c_ulong};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pitfall::{Shown, child, pitfall, say};

/// A set is so many words of so many bits.
const WORDS: usize = FD_SETSIZE / BITS;
const BITS: usize = c_ulong::BITS as usize;

/// What the server remembers, as C sees it: a set, and behind it, with no
/// wall between, how many clients it may have.
type Memory = [c_ulong; WORDS + 1];
const LIMIT: usize = WORDS;

/// Whether one more client may be taken: how many there are, how many there
/// may be, and the descriptor of the new one.
type Fits = fn(usize, usize, RawFd) -> bool;

/// The highest descriptor that is a file for a while.
const HIGHEST: RawFd = 1029;

pitfall!(broken, mended, child: set_with_bound);

fn broken() -> Result<Shown> {
    let shown = three_clients(|count, limit, _| count < limit)?;
    let ended = child("FD_SET").stderr(Stdio::null()).status()?;
    ensure!(!ended.success(), "libc's FD_SET looks at no bound");
    say!("Rust's libc::FD_SET, which looks at the bound: {ended}");
    Ok(shown)
}

fn mended() -> Result<Shown> {
    three_clients(|count, limit, fd| {
        count < limit && (fd as usize) < FD_SETSIZE
    })
}

fn three_clients(fits: Fits) -> Result<Shown> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(soft.max(2048)), hard)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connect = |_| TcpStream::connect(listener.local_addr()?);
    let outside: Vec<_> = (0..3).map(connect).collect::<Result<_, _>>()?;

    let mut memory = [0; WORDS + 1];
    memory[LIMIT] = FD_SETSIZE as c_ulong;
    let mut clients = Vec::new();
    serve_one(&listener, &mut clients, &mut memory, fits)?;
    let files = many_files()?;
    serve_one(&listener, &mut clients, &mut memory, fits)?;
    drop(files);
    serve_one(&listener, &mut clients, &mut memory, fits)?;

    drop(clients);
    let served = outside.into_iter().map(|mut client| client.read(&mut [0]));
    let served = served.sum::<Result<usize, _>>()?;
    say!("{served} of 3 clients were served; the limit is {}", memory[LIMIT]);
    Ok(Shown::symptom_if(memory[LIMIT] != FD_SETSIZE as c_ulong))
}

/// One turn of the server: waits for the listener and for all clients, and
/// takes one more client or refuses it.
fn serve_one(
    listener: &TcpListener,
    clients: &mut Vec<TcpStream>,
    memory: &mut Memory,
    fits: Fits,
) -> Result<()> {
    memory[..WORDS].fill(0);
    let mut end = 0;
    let fds = clients.iter().map(|client| client.as_raw_fd());
    for fd in fds.chain([listener.as_raw_fd()]) {
        fd_set(fd, memory);
        end = end.max(fd + 1);
    }
    let before = memory[LIMIT];
    let (set, null) = (memory.as_mut_ptr().cast(), ptr::null_mut());
    // SAFETY: CONTRACT BROKEN: `end` may be beyond the set, and the kernel
    // then writes beyond it, too. What it writes to is still `memory`: no
    // descriptor here is so high that its bit lies behind that.
    let n = unsafe { libc::select(end, set, null, null, ptr::null_mut()) };
    Errno::result(n)?;
    if memory[LIMIT] != FD_SETSIZE as c_ulong {
        say!("limit after FD_SET: {before}, after select: {}", memory[LIMIT]);
    }
    let (mut client, _) = listener.accept()?;
    let fd = client.as_raw_fd();
    if fits(clients.len(), memory[LIMIT] as usize, fd) {
        say!("a client, descriptor {fd}: taken");
        client.write_all(b"!")?;
        clients.push(client);
    } else {
        say!("a client, descriptor {fd}: refused");
    }
    Ok(())
}

/// FD_SET as C has it.
fn fd_set(fd: RawFd, memory: &mut Memory) {
    memory[fd as usize / BITS] |= 1 << (fd as usize % BITS);
}

/// Takes all descriptors up to the highest, as a program does that has many
/// files open.
fn many_files() -> Result<Vec<File>> {
    let mut files = Vec::new();
    while files.last().is_none_or(|it: &File| it.as_raw_fd() < HIGHEST) {
        files.push(File::open("/dev/null").context("RLIMIT_NOFILE")?);
    }
    say!("{} files are opened, and soon closed", files.len());
    Ok(files)
}

/// What becomes of a program that uses an FD_SET with a bound.
fn set_with_bound(_: &str) -> Result<()> {
    // It aborts, and is to leave no core behind.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let mut set = MaybeUninit::zeroed();
    // SAFETY: CONTRACT BROKEN: the descriptor is beyond FD_SETSIZE. This
    // FD_SET panics rather than write there; the set is zeroed, and ours.
    unsafe { libc::FD_SET(HIGHEST, set.as_mut_ptr()) };
    Ok(())
}

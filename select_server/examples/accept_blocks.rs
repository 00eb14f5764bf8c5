//! Two threads select on one listener, and accept may block.
//!
//! Symptom: one client comes. Both threads are told so; one accepts, the other
//! sleeps in accept until the next client comes, and all whom it serves wait.
//!
//! Cause: select(2) tells what was true when it looked. Both threads looked
//! before either had accepted, and a blocking accept sleeps while the queue is
//! empty: accept(2), NOTES.
//!
//! Fix: a non-blocking listener. Whoever comes too late gets EAGAIN and goes
//! back to wait. It is the first thing that select_server does: EventLoop::new
//! in select_server/src/lib.rs.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use libc::linger;
use nix::sys::select::{FdSet, select};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use pitfall::{Shown, pitfall, say};

const PATIENCE: Duration = Duration::from_millis(300);

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let shown = one_client_for_two(&listener)?;
    reset_before_accept()?;
    Ok(shown)
}

fn mended() -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    one_client_for_two(&listener)
}

fn one_client_for_two(listener: &TcpListener) -> Result<Shown> {
    let awake = Barrier::new(2);
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        for n in 1..=2 {
            let (awake, tell) = (&awake, tell.clone());
            scope.spawn(move || {
                let waited = wait_readable(listener);
                say!("thread {n}: select says that the listener is readable");
                // What is chance in a server: neither has accepted before
                // both are awake.
                awake.wait();
                tell.send((n, waited.and_then(|()| listener.accept())))
            });
        }
        let client = TcpStream::connect(listener.local_addr()?);
        let (n, first) = told.recv()?;
        say!("thread {n}: accept: {}", brief(&first));
        let second = told.recv_timeout(PATIENCE);
        match &second {
            Ok((n, result)) => say!("thread {n}: accept: {}", brief(result)),
            Err(_) => say!("the other: still in accept after {PATIENCE:?}"),
        }
        // Ends an accept that sleeps; a server would wait for its next client.
        shutdown(listener.as_raw_fd(), Shutdown::Both)?;
        client?;
        Ok(Shown::symptom_if(second.is_err()))
    })
}

fn brief<T>(result: &io::Result<T>) -> String {
    match result {
        Ok(_) => "the client".to_owned(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            "EAGAIN; it goes back to wait".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// It is often said that a client which resets its connection before accept
/// makes accept sleep, too. That was seen on BSD; Linux keeps the connection.
fn reset_before_accept() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    // To close without lingering is to reset: socket(7), SO_LINGER.
    let reset = linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&client, sockopt::Linger, &reset)?;
    drop(client);
    wait_readable(&listener)?;
    let (mut socket, _) = listener.accept()?;
    match socket.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {
            say!("but a client that resets before accept does not do it:");
            say!("accept returns its socket, and recv says ECONNRESET");
            Ok(())
        }
        other => bail!("recv after a reset: {other:?}"),
    }
}

fn wait_readable(listener: &TcpListener) -> io::Result<()> {
    let mut set = FdSet::new();
    set.insert(listener.as_fd());
    select(None, &mut set, None, None, None)?;
    Ok(())
}

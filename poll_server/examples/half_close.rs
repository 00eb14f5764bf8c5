//! A server takes a client's FIN for a hang-up.
//!
//! Symptom: a client sends a long message, ends its sending side and reads. It
//! gets the beginning of its answer, and a reset in place of the rest.
//!
//! Cause: POLLRDHUP says that the peer has sent its FIN: poll(2). What it sent
//! before may lie unread in the receive buffer, and the peer may read for as
//! long as it likes: shutdown(2). A close(2) with bytes unread throws them away
//! and sends RST (RFC 2525, 2.17).
//!
//! Fix: do not ask for POLLRDHUP. Send what is owed, read on, and close when
//! recv(2) returns 0, as it does after the last byte: EventLoop::on_ready in
//! poll_server/src/lib.rs. POLLHUP says that both directions have ended.
#![allow(unsafe_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;

use anyhow::{Result, anyhow};
use libc::{POLLHUP, POLLIN, POLLOUT, POLLRDHUP, c_short, pollfd};
use nix::errno::Errno;
use pitfall::{Shown, pitfall, say};

const MESSAGE: usize = 64 * 1024;
const BUFFER: usize = 16 * 1024;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    half_closing_client(POLLHUP | POLLRDHUP)
}

fn mended() -> Result<Shown> {
    half_closing_client(POLLHUP)
}

/// Its message and its FIN are there before the server looks, as those of
/// `nc -N` may be.
fn half_closing_client(gone: c_short) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.write_all(&[b'.'; MESSAGE])?;
    client.shutdown(Shutdown::Write)?;
    say!("the client sends {MESSAGE} bytes and FIN, and reads");
    let (socket, _) = listener.accept()?;
    let server = thread::spawn(move || serve(socket, gone));

    let mut answer = Vec::new();
    let end = match client.read_to_end(&mut answer) {
        Ok(_) => "FIN".to_owned(),
        Err(error) => error.to_string(),
    };
    say!("the answer: {} bytes, then {end}", answer.len());
    server.join().map_err(|_| anyhow!("the server panics"))??;
    Ok(Shown::symptom_if(answer.len() < MESSAGE))
}

/// Serves one client until poll reports one of `gone`, or its end is read.
fn serve(mut socket: TcpStream, gone: c_short) -> Result<()> {
    socket.set_nonblocking(true)?;
    let mut buffer = [0; BUFFER];
    let mut owed = 0..0;
    loop {
        let wanted = if owed.is_empty() { POLLIN } else { POLLOUT };
        let ready = wait(&socket, wanted | gone)?;
        if owed.is_empty() {
            match socket.read(&mut buffer)? {
                0 => {
                    say!("the server has read the end, and closes");
                    return Ok(());
                }
                n => owed = 0..n,
            }
        }
        match socket.write(&buffer[owed.clone()]) {
            Ok(n) => owed.start += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if ready & gone != 0 {
            say!("the server is told of a hang-up, and closes");
            return Ok(());
        }
    }
}

/// poll(2) for one socket. That of nix knows no POLLRDHUP.
fn wait(socket: &TcpStream, events: c_short) -> nix::Result<c_short> {
    let mut entry = pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry, ours to write, that outlives the call.
    Errno::result(unsafe { libc::poll(&mut entry, 1, -1) })?;
    Ok(entry.revents)
}

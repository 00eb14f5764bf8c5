//! A send has completed, and nobody looks how much of it was sent.
//!
//! Symptom: a client reads late, and its long answer has a hole: the end is
//! missing, and the next answer stands in its place.
//!
//! Cause: a send takes what there is room for, and completes with that count.
//! On a socket that blocks, send(2) would wait for the rest; here a short send
//! is no error, and nobody goes on with it: io_uring_prep_send(3). The kernel
//! does with MSG_WAITALL, and even then an error may cut it short.
//!
//! Fix: look at each completion's count and submit the rest, before anything
//! else is sent to that client: EventLoop::on_sent in proactor/src/lib.rs.
#![allow(unsafe_code)]

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context, Result, bail};
use io_uring::{IoUring, opcode, types};
use nix::errno::Errno;
use pitfall::{Shown, or_skipped, pitfall, say};

/// More than the kernel takes for a client that does not read.
const LONG: usize = 16 << 20;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    two_answers(|server, answer| {
        let sent = server.send(answer)?;
        say!("server: of {} bytes a send has sent {sent}", answer.len());
        Ok(())
    })
}

fn mended() -> Result<Shown> {
    two_answers(|server, answer| {
        let (mut sent, mut sends) = (0, 0);
        while sent < answer.len() {
            sent += server.send(&answer[sent..])?;
            sends += 1;
        }
        say!("server: {sent} bytes are sent; sends: {sends}");
        Ok(())
    })
}

/// Sends an answer.
type Answer = fn(&mut Server, &'static [u8]) -> Result<()>;

struct Server {
    ring: IoUring,
    socket: TcpStream,
    /// What lets the client read.
    late: Option<Sender<()>>,
}

fn two_answers(answer: Answer) -> Result<Shown> {
    let ring = IoUring::new(8).map_err(or_skipped("io_uring"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let socket = listener.accept()?.0;
    let (late, may_read) = channel();
    let client = thread::spawn(move || {
        may_read.recv().ok();
        let mut got = Vec::new();
        client.read_to_end(&mut got)?;
        Ok::<_, anyhow::Error>(got)
    });

    let mut server = Server { ring, socket, late: Some(late) };
    answer(&mut server, vec![b'l'; LONG].leak())?;
    answer(&mut server, b"SHORT")?;
    drop(server);
    let Ok(got) = client.join() else { bail!("the client panicked") };
    let got = got?;
    let long = got.iter().take_while(|it| **it == b'l').count();
    say!("client: {long} bytes of the long answer, {} more", got.len() - long);
    Ok(Shown::symptom_if(long < LONG))
}

impl Server {
    /// One send, to its completion; tells how many bytes it has sent.
    fn send(&mut self, bytes: &'static [u8]) -> Result<usize> {
        let (fd, n) = (types::Fd(self.socket.as_raw_fd()), bytes.len());
        let send = opcode::Send::new(fd, bytes.as_ptr(), n as u32);
        let send = send.flags(libc::MSG_NOSIGNAL).build();
        // SAFETY: the bytes are never freed, and nobody writes to them.
        unsafe { self.ring.submission().push(&send) }?;
        self.ring.submit_and_wait(1)?;
        let sent = self.ring.completion().next().context("no completion")?;
        let sent = usize::try_from(sent.result())
            .map_err(|_| Errno::from_raw(-sent.result()))?;
        self.late = None;
        Ok(sent)
    }
}

//! Two sends for one client are in flight at the same time.
//!
//! Symptom: the second answer stands in the middle of the first one. All bytes
//! are there, and none of it can be understood.
//!
//! Cause: operations in flight have no order among each other: io_uring(7). A
//! send that waits for room is tried again once there is some; one that is
//! submitted meanwhile is tried at once, and takes that room.
//!
//! Fix: one send in flight per connection; what comes meanwhile is owed. In
//! proactor a client's next operation begins when the last one is done:
//! EventLoop::on_complete in proactor/src/lib.rs. Sends that are submitted
//! together can be linked (IOSQE_IO_LINK, with MSG_WAITALL):
//! io_uring_prep_send(3).
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use io_uring::{IoUring, opcode, types};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pitfall::{Shown, or_skipped, pitfall, say};

/// More than the kernel takes for a client that does not read.
const LONG: usize = 16 << 20;
const SHORT: &[u8] = b"SHORT";
/// With MSG_WAITALL the kernel itself goes on with a send that was short.
const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    two_answers(|_| true)
}

fn mended() -> Result<Shown> {
    two_answers(|in_flight| in_flight == 0)
}

/// Whether one more send may be submitted, with so many in flight.
type May = fn(usize) -> bool;

struct Server {
    ring: IoUring,
    socket: TcpStream,
    may: May,
    owed: VecDeque<&'static [u8]>,
    in_flight: usize,
}

fn two_answers(may: May) -> Result<Shown> {
    // As fast servers have it: what has become ready is looked at in a wait,
    // and not whenever this thread is in the kernel (io_uring_setup(2)).
    let mut ring = IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    let ring = ring.build(8).map_err(or_skipped("io_uring"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (socket, owed) = (listener.accept()?.0, VecDeque::new());
    let mut server = Server { ring, socket, may, owed, in_flight: 0 };

    server.answer(vec![b'l'; LONG].leak())?;
    say!("server: a send of {} bytes waits for room", LONG);
    let mut got = vec![0; LONG + SHORT.len()];
    let mut n = 0;
    while !has_room(&server.socket, &client)? {
        n += client.read(&mut got[n..])?;
    }
    say!("client: has read {n} bytes; there is room");
    server.answer(SHORT)?;

    let client = thread::spawn(move || {
        client.read_exact(&mut got[n..])?;
        Ok::<_, anyhow::Error>(got)
    });
    while server.in_flight > 0 {
        server.turn()?;
    }
    drop(server);
    let Ok(got) = client.join() else { bail!("the client panicked") };
    let place = got?.iter().position(|it| *it != b'l');
    let place = place.context("the short answer is not there")?;
    say!("client: has all; the short answer begins at byte {place}");
    Ok(Shown::symptom_if(place < LONG))
}

/// Waits until the server's socket has room, or the client has something to
/// read; tells whether it has room.
fn has_room(socket: &TcpStream, client: &TcpStream) -> Result<bool> {
    let socket = PollFd::new(socket.as_fd(), PollFlags::POLLOUT);
    let client = PollFd::new(client.as_fd(), PollFlags::POLLIN);
    let mut list = [socket, client];
    poll(&mut list, PollTimeout::NONE)?;
    Ok(list[0].any() == Some(true))
}

impl Server {
    fn answer(&mut self, bytes: &'static [u8]) -> Result<()> {
        self.owed.push_back(bytes);
        self.submit()
    }

    fn submit(&mut self) -> Result<()> {
        while (self.may)(self.in_flight)
            && let Some(bytes) = self.owed.pop_front()
        {
            let (fd, n) = (types::Fd(self.socket.as_raw_fd()), bytes.len());
            let send = opcode::Send::new(fd, bytes.as_ptr(), n as u32);
            let send = send.flags(FLAGS).build().user_data(n as u64);
            // SAFETY: the bytes are never freed, and nobody writes to them.
            unsafe { self.ring.submission().push(&send) }?;
            self.ring.submit()?;
            self.in_flight += 1;
        }
        Ok(())
    }

    /// Waits for a send to complete, and submits what is owed.
    fn turn(&mut self) -> Result<()> {
        self.ring.submit_and_wait(1)?;
        let done: Vec<_> = self.ring.completion().collect();
        for it in done {
            let (n, sent) = (it.user_data(), it.result());
            say!("server: a send of {n} bytes has completed with {sent}");
            ensure!(u64::try_from(sent) == Ok(n), "short, or failed");
            self.in_flight -= 1;
        }
        self.submit()
    }
}

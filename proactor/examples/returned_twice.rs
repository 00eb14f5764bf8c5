//! A provided buffer is given back to its ring twice.
//!
//! Symptom: all is well while clients speak one after the other. Two speak at
//! once, and one of them is sent what the other one has said.
//!
//! Cause: the kernel takes the next entry of the ring for the next recv and
//! looks no further: io_uring_register_buf_ring(3). A buffer that stands there
//! twice goes to two clients, and the later one's bytes replace the earlier
//! one's before they are sent.
//!
//! Fix: a buffer has one owner and one way back, after its send's completion.
//! In proactor it is a value that cannot be copied, and giving it back takes
//! it: Buffer in proactor/src/uring/buffers.rs. Twice does not compile.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode};
use nix::errno::Errno;
use pitfall::{Shown, or_skipped, pitfall, say};

const BUFFERS: usize = 2;
const SIZE: usize = 8;
/// More than there are buffers, so that nothing else goes wrong.
const ENTRIES: usize = 8;
const GROUP: u16 = 7;
/// The clients, in the order of their numbers, which their completions carry.
const NAMES: [&str; 2] = ["A", "B"];
/// And whether it is a send that has completed.
const SEND: u64 = 1 << 32;

/// When a buffer goes back to the ring.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    OnReceived,
    OnSent,
}

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    talk(&[Back::OnReceived, Back::OnSent])
}

fn mended() -> Result<Shown> {
    talk(&[Back::OnSent])
}

fn talk(back: &'static [Back]) -> Result<Shown> {
    let ring = IoUring::new(8).map_err(or_skipped("io_uring"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut a = TcpStream::connect(listener.local_addr()?)?;
    let mut b = TcpStream::connect(listener.local_addr()?)?;
    let clients = [listener.accept()?.0, listener.accept()?.0];
    let buffers = Buffers::new(&ring)?;
    let mut server = Server { ring, buffers, clients, back };
    server.recv(0)?;
    server.recv(1)?;

    for client in [&mut a, &mut b] {
        client.write_all(b"once")?;
        server.turn(1)?;
        server.turn(1)?;
        client.read_exact(&mut [0; 4])?;
    }
    say!("both at once: A says AAAA, B says BBBB");
    a.write_all(b"AAAA")?;
    b.write_all(b"BBBB")?;
    server.turn(2)?;
    let (mut to_a, mut to_b) = ([0; 4], [0; 4]);
    a.read_exact(&mut to_a)?;
    b.read_exact(&mut to_b)?;
    let text = String::from_utf8_lossy;
    say!("A is sent {}, B is sent {}", text(&to_a), text(&to_b));
    Ok(Shown::symptom_if(to_a != *b"AAAA" || to_b != *b"BBBB"))
}

struct Server {
    ring: IoUring,
    buffers: Buffers,
    clients: [TcpStream; 2],
    back: &'static [Back],
}

impl Server {
    /// Submits what is there, waits for so many completions, and submits what
    /// comes of them.
    fn turn(&mut self, completions: usize) -> Result<()> {
        self.ring.submit_and_wait(completions)?;
        let done: Vec<_> = self.ring.completion().collect();
        for it in done {
            let client = (it.user_data() & !SEND) as usize;
            let n = usize::try_from(it.result());
            let n = n.map_err(|_| Errno::from_raw(-it.result()))?;
            match it.user_data() & SEND {
                0 => {
                    let buffer = cqueue::buffer_select(it.flags());
                    let buffer = buffer.context("no buffer was taken")?;
                    say!("recv for {}: buffer {buffer}", NAMES[client]);
                    self.send(client, buffer, n)?;
                    self.give_back(buffer, Back::OnReceived);
                }
                _ => {
                    let buffer = self.buffers.sent_from[client];
                    self.give_back(buffer, Back::OnSent);
                    self.recv(client)?;
                }
            }
        }
        self.ring.submit()?;
        Ok(())
    }

    fn give_back(&mut self, buffer: u16, now: Back) {
        if self.back.contains(&now) {
            self.buffers.give(buffer);
        }
    }

    fn recv(&mut self, client: usize) -> Result<()> {
        let fd = Fd(self.clients[client].as_raw_fd());
        let recv = opcode::Recv::new(fd, std::ptr::null_mut(), 0);
        let recv = recv.buf_group(GROUP).build().flags(Flags::BUFFER_SELECT);
        self.push(recv.user_data(client as u64))
    }

    fn send(&mut self, client: usize, buffer: u16, n: usize) -> Result<()> {
        self.buffers.sent_from[client] = buffer;
        let fd = Fd(self.clients[client].as_raw_fd());
        let bytes = self.buffers.bytes(buffer);
        let send = opcode::Send::new(fd, bytes, n as u32);
        let send = send.flags(libc::MSG_NOSIGNAL).build();
        self.push(send.user_data(client as u64 | SEND))
    }

    fn push(&mut self, operation: Entry) -> Result<()> {
        // SAFETY: CONTRACT BROKEN, in the broken twin: a send's buffer may be
        // written to meanwhile. The buffers themselves live for ever.
        unsafe { self.ring.submission().push(&operation) }?;
        Ok(())
    }
}

/// Buffers, and the ring of entries from which the kernel takes them. Both
/// live for ever, and so longer than any operation.
struct Buffers {
    memory: *mut u8,
    entries: *mut BufRingEntry,
    /// The buffer of each client's send.
    sent_from: [u16; 2],
}

#[repr(align(4096))]
struct Page([u8; 4096]);

impl Buffers {
    fn new(ring: &IoUring) -> Result<Buffers> {
        let memory = Box::leak(Box::new([0; BUFFERS * SIZE])).as_mut_ptr();
        let page = Box::leak(Box::new(Page([0; 4096])));
        let entries: *mut BufRingEntry = page.0.as_mut_ptr().cast();
        let (at, submitter) = (entries as u64, ring.submitter());
        // SAFETY: the page lives for ever.
        let done = unsafe {
            submitter.register_buf_ring_with_flags(at, ENTRIES as u16, GROUP, 0)
        };
        done.context("register_buf_ring")?;
        let mut buffers = Buffers { memory, entries, sent_from: [0; 2] };
        for buffer in 0..BUFFERS {
            buffers.give(buffer as u16);
        }
        Ok(buffers)
    }

    fn bytes(&self, buffer: u16) -> *const u8 {
        self.memory.wrapping_add(usize::from(buffer) * SIZE)
    }

    /// Gives a buffer to the kernel.
    fn give(&mut self, buffer: u16) {
        let tail = self.tail().load(Ordering::Relaxed);
        let at = self.entries.wrapping_add(usize::from(tail) % ENTRIES);
        // SAFETY: an entry of the page. The kernel only reads entries, and this
        // one not before the tail has passed it.
        let entry = unsafe { &mut *at };
        entry.set_addr(self.bytes(buffer) as u64);
        entry.set_len(SIZE as u32);
        entry.set_bid(buffer);
        self.tail().store(tail.wrapping_add(1), Ordering::Release);
    }

    /// Where the kernel sees how far the entries go.
    fn tail(&self) -> &AtomicU16 {
        // SAFETY: the first entry of the ring, in a page that was zeroed.
        let tail = unsafe { BufRingEntry::tail(self.entries) };
        // SAFETY: only this thread writes there, and the kernel only reads.
        unsafe { AtomicU16::from_ptr(tail.cast_mut()) }
    }
}

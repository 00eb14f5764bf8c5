//! The ring on the kernel of this machine.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use echo::{Timeout, Unwatched};
use nix::errno::Errno;

use super::sys::Ring;
use super::{Completion, Queues, Setup};
use crate::bytes::{Bytes, Memory};

/// A small ring with many small buffers, unless there is none here.
fn ring() -> Option<Ring<Unwatched>> {
    let setup = Setup {
        entries: 2,
        buffer: 16,
        buffers: 64,
        sqpoll: None,
        registered: false,
        zero_copy: false,
        deferred: true,
    };
    match Ring::new(setup, Unwatched) {
        Ok(ring) => Some(ring),
        Err(why) => {
            println!("SKIPPED: io_uring_setup: {why}");
            None
        }
    }
}

fn own(length: usize) -> Bytes {
    Bytes::new(Memory::Own(vec![1; length]), length)
}

/// While submissions keep it from ever sleeping, what comes in is found.
#[test]
fn what_comes_in_is_seen_by_a_ring_that_never_sleeps() {
    let Some(mut ring) = ring() else { return };
    let (near, mut far) = UnixStream::pair().unwrap();
    let (busy, _far) = UnixStream::pair().unwrap();
    ring.recv_all(near.as_raw_fd(), 0);
    assert_eq!(ring.enter(Timeout::ZERO), Ok(true));
    assert!(ring.next().is_none());
    far.write_all(b"hello").unwrap();
    for _ in 0..20 {
        ring.send_now(busy.as_raw_fd(), own(1));
        assert_eq!(ring.enter(Timeout::ZERO), Ok(true));
        while let Some(completion) = ring.next() {
            if let Completion::Arrived { result, buffer, .. } = completion {
                assert_eq!(result, Ok(5));
                ring.give_back(buffer.unwrap());
                return;
            }
        }
    }
    panic!("it has not come");
}

/// A send that was to say nothing fails when the queue is full: that it failed
/// comes later, and it is not taken for a success meanwhile.
#[test]
fn a_failure_that_found_no_room_in_the_queue_is_no_success() {
    let Some(mut ring) = ring() else { return };
    let (near, mut far) = UnixStream::pair().unwrap();
    let (full, _far) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while (&full).write(&[0; 4096]).is_ok() {}
    // More buffers than there are places for completions.
    far.write_all(&[7; 16 * 40]).unwrap();
    ring.recv_all(near.as_raw_fd(), 0);
    ring.send_now(full.as_raw_fd(), own(100));
    let (mut arrived, mut sent) = (0, None);
    for _ in 0..10 {
        assert_eq!(ring.enter(Timeout::ZERO), Ok(true));
        while let Some(completion) = ring.next() {
            match completion {
                Completion::Arrived { buffer, .. } => {
                    arrived += 1;
                    buffer.into_iter().for_each(|it| ring.give_back(it));
                }
                Completion::Sent(_, result, _) => sent = Some(result),
                _ => unreachable!(),
            }
        }
    }
    assert!(arrived > 8, "{arrived} completions found room");
    assert_eq!(sent, Some(Err(Errno::EAGAIN)));
}

/// The accept ends though its listener has no number any more.
#[test]
fn an_accept_is_cancelled_after_its_listener_was_closed() {
    let Some(mut ring) = ring() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    ring.accept(listener.as_raw_fd(), true);
    assert_eq!(ring.enter(Timeout::ZERO), Ok(true));
    ring.cancel_accept(listener.as_raw_fd());
    drop(listener);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        assert_eq!(ring.enter(Timeout::until(Some(deadline))), Ok(true));
        match ring.next() {
            None => assert!(Instant::now() < deadline, "it has not ended"),
            Some(Completion::Accepted(result, more)) => {
                assert_eq!(result.err(), Some(Errno::ECANCELED));
                assert!(!more);
                return;
            }
            Some(_) => unreachable!(),
        }
    }
}

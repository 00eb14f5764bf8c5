//! One suite for every demultiplexer: what it promises, whichever call it is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use echo::{Timeout, Unwatched};
use reactor::{
    Demultiplexer, Epoll, Event, Interest, Poll, RegisterError, Select,
    Trigger, best,
};

/// Every kind, under its name.
fn each(test: impl Fn(&str, Box<dyn Demultiplexer>)) {
    test("select", Box::new(Select::new(Unwatched)));
    test("poll", Box::new(Poll::new(Unwatched)));
    for trigger in [Trigger::Level, Trigger::Edge] {
        let epoll = Epoll::new(trigger, Unwatched).unwrap();
        test(&format!("epoll, {trigger:?}"), Box::new(epoll));
    }
}

/// Two ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    (near, far)
}

fn look(demultiplexer: &mut dyn Demultiplexer) -> Vec<Event> {
    let mut events = Vec::new();
    demultiplexer.wait(Timeout::ZERO, &mut events).unwrap();
    events
}

/// Waits until something is told; bytes take a moment from end to end.
fn next(demultiplexer: &mut dyn Demultiplexer) -> Vec<Event> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut events = Vec::new();
    while events.is_empty() {
        assert!(Instant::now() < deadline, "nothing is told");
        demultiplexer
            .wait(Timeout::until(Some(deadline)), &mut events)
            .unwrap();
    }
    events
}

#[test]
fn wrong_registrations_are_told_apart() {
    each(|name, mut it| {
        let (near, _far) = pair();
        let fd = near.as_raw_fd();
        let read = Interest::Read;
        assert_eq!(
            it.register(near.as_fd(), 1, Interest::Nothing),
            Err(RegisterError::NoInterest(fd)),
            "{name}"
        );
        let unknown = Err(RegisterError::Unknown(fd));
        assert_eq!(it.modify(near.as_fd(), 1, read), unknown, "{name}");
        assert_eq!(it.remove(near.as_fd()), unknown, "{name}");
        assert_eq!(it.register(near.as_fd(), 1, read), Ok(()), "{name}");
        assert_eq!(
            it.register(near.as_fd(), 2, read),
            Err(RegisterError::Twice(fd)),
            "{name}"
        );
        assert_eq!(it.remove(near.as_fd()), Ok(()), "{name}");
        assert_eq!(it.remove(near.as_fd()), unknown, "{name}");
        assert_eq!(it.register(near.as_fd(), 3, read), Ok(()), "{name}");
    });
}

/// epoll(7): a folder is none that can be waited for.
#[test]
fn what_cannot_be_waited_for_is_told() {
    let mut it = Epoll::new(Trigger::Level, Unwatched).unwrap();
    let folder = std::fs::File::open(std::env::temp_dir()).unwrap();
    assert_eq!(
        it.register(folder.as_fd(), 1, Interest::Read),
        Err(RegisterError::Closed(folder.as_raw_fd()))
    );
}

#[test]
fn readiness_is_told_with_its_token() {
    each(|name, mut it| {
        let ((one, far_one), (two, mut far_two)) = (pair(), pair());
        it.register(one.as_fd(), 7, Interest::Read).unwrap();
        it.register(two.as_fd(), 8, Interest::Read).unwrap();
        let readable = |events: Vec<Event>| -> Vec<u32> {
            let readable = events.into_iter().filter(|event| event.readable);
            readable.map(|event| event.token).collect()
        };
        assert!(readable(look(&mut *it)).is_empty(), "{name}");
        far_two.write_all(b"x").unwrap();
        let mut told = vec![];
        while told.is_empty() {
            told = readable(next(&mut *it));
        }
        assert_eq!(told, [8], "{name}");
        drop(far_one);
        let mut told = vec![];
        while !told.contains(&7) {
            told = readable(next(&mut *it));
        }
    });
}

#[test]
fn what_is_still_so_is_told_again_unless_changes_are() {
    each(|name, mut it| {
        let (mut near, mut far) = pair();
        it.register(near.as_fd(), 1, Interest::Read).unwrap();
        far.write_all(b"xy").unwrap();
        while !next(&mut *it).iter().any(|event| event.readable) {}
        let again = look(&mut *it).iter().any(|event| event.readable);
        assert_eq!(again, !it.tells_changes(), "{name}");
        near.read_exact(&mut [0; 2]).unwrap();
        assert!(!look(&mut *it).iter().any(|it| it.readable), "{name}");
    });
}

#[test]
fn whoever_is_left_alone_is_not_told_of() {
    each(|name, mut it| {
        // Edge-triggered, the reactor looks away instead.
        if it.tells_changes() {
            return;
        }
        let (near, mut far) = pair();
        it.register(near.as_fd(), 1, Interest::Both).unwrap();
        far.write_all(b"x").unwrap();
        while !next(&mut *it).iter().any(|event| event.readable) {}
        it.modify(near.as_fd(), 1, Interest::Nothing).unwrap();
        assert_eq!(look(&mut *it), [], "{name}");
        it.modify(near.as_fd(), 1, Interest::Write).unwrap();
        let told = look(&mut *it);
        assert!(told[0].writable && told.len() == 1, "{name}: {told:?}");
        it.modify(near.as_fd(), 1, Interest::Read).unwrap();
        let told = look(&mut *it);
        assert!(told[0].readable && !told[0].writable, "{name}: {told:?}");
    });
}

/// A read stops before a FIN and before an urgent byte, and brings less than
/// was asked for: with plain bytes alone nothing more is there.
#[test]
fn plain_bytes_are_told_from_an_end() {
    let mut it = Epoll::new(Trigger::Edge, Unwatched).unwrap();
    let (near, mut far) = pair();
    it.register(near.as_fd(), 1, Interest::Read).unwrap();
    // That it may be written to.
    next(&mut it);
    far.write_all(b"x").unwrap();
    let told = next(&mut it);
    assert!(told[0].readable && !told[0].more, "{told:?}");
    far.shutdown(std::net::Shutdown::Write).unwrap();
    let told = next(&mut it);
    assert!(told[0].readable && told[0].more, "{told:?}");
}

#[test]
fn the_best_here_is_epoll() {
    assert_eq!(best(Unwatched).name(), "epoll_wait");
}

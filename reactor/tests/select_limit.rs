//! The one test that takes all low descriptors, in a process of its own.

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};

use echo::Unwatched;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reactor::{Demultiplexer, Interest, RegisterError, Select};

#[test]
fn a_descriptor_that_select_has_no_bit_for_is_refused() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < 1200 {
        println!(
            "SKIPPED: needs 1200 descriptors, and the hard limit is {hard}"
        );
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut it = Select::new(Unwatched);
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let copies: Vec<UdpSocket> =
        (0..1100).map(|_| near.try_clone().unwrap()).collect();
    let last = copies.last().unwrap();
    assert_eq!(
        it.register(last.as_fd(), 1, Interest::Read),
        Err(RegisterError::TooHigh(last.as_raw_fd()))
    );
}

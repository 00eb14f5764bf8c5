//! Notices get lost when the queue of signals is full: glibc sends none then,
//! and calls the result EAGAIN. No byte may be lost with them.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use nix::sys::resource::Resource::{RLIMIT_AS, RLIMIT_SIGPENDING};

use crate::server::start;

/// Clients and messages are more than slots, so that some have to wait.
fn serves(notify: &str, signals: u64) -> String {
    let args = ["--notify", notify, "--operations", "20"];
    let server = start(Some((RLIMIT_SIGPENDING, signals)), &args);
    assert_eq!(server.echoes(40, 3, 20_000), 40);
    server.stop()
}

#[test]
fn without_any_signal_every_operation_is_repeated_and_no_byte_lost() {
    let said = serves("signal", 0);
    let repeated = said.split(", ").find(|it| it.contains("repeated"));
    let repeated = repeated.and_then(|it| it.split(' ').next());
    let repeated = repeated.and_then(|it| it.parse::<u32>().ok());
    // 40 clients sent 3 messages, each in two reads at least.
    assert!(repeated >= Some(240), "{said}");
}

#[test]
fn with_few_signals_no_byte_is_lost() {
    serves("signal", 16);
}

#[test]
fn threads_and_aio_suspend_need_no_signals() {
    for notify in ["thread", "suspend"] {
        for signals in [0, 16] {
            let said = serves(notify, signals);
            assert!(!said.contains("repeated"), "{notify}: {said}");
        }
    }
}

/// Without memory for the stack of glibc's first thread no operation begins.
#[test]
fn what_cannot_begin_is_tried_again() {
    for notify in ["signal", "thread", "suspend"] {
        let server = start(None, &["--notify", notify]);
        let mut client = server.client();
        server.until_accepted(1);
        server.limit(RLIMIT_AS, 0);
        let briefly = Duration::from_millis(30);
        client.set_read_timeout(Some(briefly)).expect("a socket");
        client.write_all(b"patience").expect("it lives");
        let mut echo = [0; 8];
        let none = client.read(&mut echo).map_err(|err| err.kind());
        assert_eq!(none, Err(ErrorKind::WouldBlock), "{notify}");
        server.limit(RLIMIT_AS, u64::MAX);
        let patience = Duration::from_secs(10);
        client.set_read_timeout(Some(patience)).expect("a socket");
        client.read_exact(&mut echo).expect("an echo");
        assert_eq!(&echo, b"patience");
        drop(client);
        server.stop();
    }
}

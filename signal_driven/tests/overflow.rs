//! What only queued signals promise: when there is no room in the queue, what
//! they would have told is found out all the same, and counted.

mod start;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use start::Server;

const CLIENTS: usize = 60;

/// A burst while the server does not run has no room in its queue.
fn burst(args: &[&str]) -> String {
    let server = Server::start(args);
    let mut clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| TcpStream::connect(&server.addr).expect("it accepts"))
        .collect();
    for round in 0..3u8 {
        server.signal(Signal::SIGSTOP);
        for (id, client) in clients.iter_mut().enumerate() {
            client.write_all(&[round, id as u8]).expect("there is room");
        }
        server.signal(Signal::SIGCONT);
        for (id, client) in clients.iter_mut().enumerate() {
            let limit = Some(Duration::from_secs(5));
            client.set_read_timeout(limit).expect("a time limit");
            let mut echoed = [0; 2];
            client.read_exact(&mut echoed).expect("its event is not lost");
            assert_eq!(echoed, [round, id as u8]);
        }
    }
    drop(clients);
    server.stop()
}

// One test, because the limit is the whole process's.
#[test]
fn an_overflow_is_made_up_for_and_counted() {
    let (_, most) = getrlimit(Resource::RLIMIT_SIGPENDING).expect("a limit");
    for delivery in ["sigwait", "handler"] {
        let args = ["--delivery", delivery];
        assert!(!burst(&args).contains("overflow"), "there was room");
        for room in [8, 0] {
            let limit = Resource::RLIMIT_SIGPENDING;
            setrlimit(limit, room, most).expect("less is allowed");
            let said = burst(&args);
            assert!(said.contains(" overflows recovered"), "{said}");
            let said = burst(&["--delivery", delivery, "--signal", "sigio"]);
            assert!(!said.contains("overflow"), "SIGIO does not queue: {said}");
            setrlimit(limit, most, most).expect("the limit it had");
        }
    }
}

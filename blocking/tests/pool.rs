//! What only a pool promises: clients that nobody has served yet do not hold
//! up a stop, however many wait in its queue.

mod start;

use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use start::start;

const CLIENTS: usize = 400;

#[test]
fn a_long_queue_does_not_outlast_the_grace() {
    let args = ["--pool", "1", "--grace", "100ms"];
    let (mut server, addr) = start(&args);
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| TcpStream::connect(&addr).unwrap()).collect();
    let fds = format!("/proc/{}/fd", server.id());
    while std::fs::read_dir(&fds).expect("it lives").count() < CLIENTS {
        sleep(Duration::from_millis(1));
    }

    let begin = Instant::now();
    let pid = Pid::from_raw(server.id() as i32);
    kill(pid, Signal::SIGTERM).expect("it lives");
    assert!(server.wait().expect("it ends").success());
    // To give each one its 10 ms of attention would take four seconds.
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "the stop took {took:?}");
    drop(clients);
}

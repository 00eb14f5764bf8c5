//! What only these engines promise: AIO serves as many clients at once as it
//! has threads for, and what belongs to io_uring goes with nothing else.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// So many threads glibc starts, and no more.
const THREADS: usize = 20;

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that does not outlive its test.
struct Server {
    process: Child,
    addr: String,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_proactor"))
            .args(["--addr", "127.0.0.1:0", "--watch", "off"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("its address");
        let addr = line.trim().rsplit(' ').next().expect("its address");
        Server { process, addr: addr.to_owned() }
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(&self.addr).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

fn echoes(mut client: &TcpStream) {
    client.write_all(b"hello").expect("room");
    let mut back = [0; 5];
    client.read_exact(&mut back).expect("an answer");
    assert_eq!(&back, b"hello");
}

#[test]
fn one_client_more_than_there_are_threads_waits_until_one_has_left() {
    let mut server = Server::start(&["--engine", "aio", "--grace", "200ms"]);
    let mut clients: Vec<_> = (0..THREADS).map(|_| server.client()).collect();
    clients.iter().for_each(echoes);
    // No operation of theirs is in the way of another's.
    clients.iter().for_each(echoes);

    let mut late = server.client();
    late.write_all(b"late").expect("room");
    // Their threads are free for a moment each, and not for it.
    clients.iter().for_each(echoes);
    sleep(Duration::from_millis(100));
    late.set_nonblocking(true).expect("a flag");
    let answer = late.read(&mut [0; 4]).expect_err("it is not yet accepted");
    assert_eq!(answer.kind(), ErrorKind::WouldBlock);

    drop(clients.pop());
    late.set_nonblocking(false).expect("a flag");
    let mut back = [0; 4];
    late.read_exact(&mut back).expect("an answer");
    assert_eq!(&back, b"late");

    // Nobody leaves: at the end of the grace all the reads are still asleep,
    // and the server ends all the same.
    sleep(Duration::from_millis(20));
    let begin = Instant::now();
    let pid = Pid::from_raw(server.process.id() as i32);
    kill(pid, Signal::SIGTERM).expect("it lives");
    while server.process.try_wait().expect("a child").is_none() {
        assert!(begin.elapsed() < PATIENCE, "it does not end");
        sleep(Duration::from_millis(5));
    }
    assert!(server.process.wait().expect("its status").success());
}

#[test]
fn what_belongs_to_io_uring_goes_with_no_other_engine() {
    let all: [&[&str]; 5] = [
        &["--recv", "single"],
        &["--buffers", "8"],
        &["--sqpoll"],
        &["--registered"],
        &["--zero-copy"],
    ];
    for engine in ["emulated", "aio"] {
        for flag in all {
            let output = Command::new(env!("CARGO_BIN_EXE_proactor"))
                .args(["--addr", "127.0.0.1:0", "--engine", engine])
                .args(flag)
                .output()
                .expect("it starts");
            assert_eq!(output.status.code(), Some(2), "{engine}, {flag:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains(flag[0]), "{said}");
            assert!(said.contains("--engine uring"), "{said}");
        }
    }
}

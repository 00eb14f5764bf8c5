//! `--idle-timeout` in every form: who is silent is closed, who says or takes
//! something is not.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const FORMS: [&[&str]; 5] = [
    &["--form", "single"],
    &["--form", "pool", "--workers", "2"],
    &["--form", "threads", "--reactors", "2"],
    &["--form", "futures"],
    &["--form", "processes", "--workers", "2"],
];

/// How long one may be silent here.
const LIMIT: Duration = Duration::from_secs(1);

/// How long something may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server as a child of a test.
struct Server(Child, SocketAddr);

impl Server {
    fn start(form: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_reactor"))
            .args(["--addr", "127.0.0.1:0", "--watch", "off"])
            .args(["--idle-timeout", "1s"])
            .args(form)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("its address");
        let addr = line.trim().rsplit(' ').next().expect("an address");
        Server(child, addr.parse().expect("an address"))
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.1).expect("connects");
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Workers end with their master.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn who_is_silent_is_closed_and_nobody_else() {
    // All at the same time: they mostly sleep.
    std::thread::scope(|scope| {
        for form in FORMS {
            scope.spawn(|| in_form(form));
        }
    });
}

fn in_form(form: &[&str]) {
    let server = Server::start(form);
    let mut silent = server.connect();
    let mut talker = server.connect();
    // Takes slowly what it said once: more than all buffers hold.
    let mut taker = server.connect();
    taker.set_nonblocking(true).unwrap();
    let (mut said, chunk) = (0, [b't'; 64 << 10]);
    let begin = Instant::now();
    let mut last = Instant::now();
    // Until the server is blocked too.
    while last.elapsed() < Duration::from_millis(50) {
        match taker.write(&chunk) {
            Ok(n) => (said, last) = (said + n, Instant::now()),
            Err(err) if err.kind() == ErrorKind::WouldBlock => {
                sleep(Duration::from_millis(1));
            }
            Err(err) => panic!("{form:?}: {err}"),
        }
    }
    taker.set_nonblocking(false).unwrap();
    let (mut taken, mut rounds) = (0, 0);
    let mut room = vec![0; 256 << 10];
    while begin.elapsed() < LIMIT * 3 || rounds < 10 {
        talker.write_all(b"x").unwrap();
        let mut byte = [0];
        talker.read_exact(&mut byte).unwrap_or_else(|err| {
            panic!("{form:?}: the talker in round {rounds}: {err}")
        });
        if taken < said {
            let n = taker.read(&mut room).unwrap_or_else(|err| {
                panic!("{form:?}: the taker after {taken}: {err}")
            });
            assert!(n > 0, "{form:?}: the taker, closed after {taken}");
            taken += n;
        }
        rounds += 1;
        sleep(LIMIT / 20);
    }
    // By now the silent one has been left.
    silent.set_nonblocking(true).unwrap();
    let end = silent.read(&mut [0]);
    assert!(matches!(end, Ok(0)), "{form:?}: the silent one: {end:?}");
    while taken < said {
        match taker.read(&mut room) {
            Ok(0) => panic!("{form:?}: the taker misses some of {said}"),
            Ok(n) => taken += n,
            Err(err) => panic!("{form:?}: the taker: {err}"),
        }
    }
    assert_eq!(taken, said);
}

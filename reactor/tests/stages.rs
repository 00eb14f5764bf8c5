//! The stages: each is a whole server, and differs from the one before by its
//! lesson alone.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

/// The stages in their order, and the most lines that may be added and removed
/// since the one before, white space apart.
const STAGES: &[(&str, u32, u32)] = &[
    ("step1_loop", 0, 0),
    ("step2_handlers", 65, 45),
    ("step3_demultiplexer", 130, 35),
    ("step4_timers", 100, 35),
    ("step5_signals_wakeups", 205, 30),
    ("step6_http", 165, 15),
    ("step7_futures", 260, 75),
];

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Each stage with each way to wait that it has, from this one on.
fn stages(first: usize, seconds: u32) -> Vec<(&'static str, Vec<String>)> {
    let mut all = Vec::new();
    for (at, (name, ..)) in STAGES.iter().enumerate().skip(first - 1) {
        let waits: &[&str] = if at < 2 { &[""] } else { &["epoll", "poll"] };
        for wait in waits {
            let seconds = seconds.to_string();
            let words: &[&str] = match at + 1 {
                1 | 2 => &["0"],
                3 => &["0", wait],
                4 | 5 => &["0", &seconds, wait],
                _ => &["0", &seconds, wait, "0"],
            };
            all.push((*name, words.iter().map(|it| it.to_string()).collect()));
        }
    }
    all
}

/// A stage that runs, and ends with this value.
struct Server {
    child: Child,
    addr: String,
    /// Where it speaks HTTP, if it does.
    http: Option<String>,
}

impl Server {
    fn start(name: &str, words: &[String]) -> Server {
        let mut child = Command::new(program(name))
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the stage starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
                let _gone = tell.send(line.trim().to_owned());
                line.clear();
            }
        });
        let (addr, http) = (String::new(), None);
        let mut server = Server { child, addr, http };
        let next = |begin| {
            let line: String = told.recv_timeout(PATIENCE).expect("a line");
            line.strip_prefix(begin).expect(begin).to_owned()
        };
        server.addr = next("listening on ");
        server.http = (words.len() > 3).then(|| next("HTTP on "));
        server
    }

    fn connect(&self) -> TcpStream {
        connect(&self.addr)
    }

    /// Whether a new client is served.
    fn lives(&self) {
        let mut client = self.connect();
        echo(&mut client, b"there?");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, signal).expect("it is there");
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        until("it ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/schedstat", self.child.id());
        let text = fs::read_to_string(path).expect("it runs");
        let nanos = text.split(' ').next().and_then(|it| it.parse().ok());
        Duration::from_nanos(nanos.expect("its first number"))
    }

    fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(folder).expect("it runs").count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    let folder = test.ancestors().nth(2).expect("target/PROFILE");
    let program = folder.join("examples").join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name)
        .with_extension("rs");
    let time = |path: &Path| fs::metadata(path).and_then(|it| it.modified());
    let built = time(&program).ok();
    assert!(
        built.is_some_and(|built| built >= time(&source).expect("a source")),
        "{} is not there, or older than its source; `cargo test -p reactor` \
         builds it, and so does `cargo build -p reactor --examples`",
        program.display()
    );
    program
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn connect(addr: &str) -> TcpStream {
    let client = TcpStream::connect(addr).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a time");
    client.set_write_timeout(Some(PATIENCE)).expect("a time");
    client
}

fn echo(client: &mut TcpStream, message: &[u8]) {
    client.write_all(message).expect("a server that reads");
    let mut answer = vec![0; message.len()];
    client.read_exact(&mut answer).expect("an answer");
    assert!(answer == message, "wrong bytes came back");
}

/// Bytes that are all different in their places, and never ask for the worker.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| b'a' + (at * 7 / 3 % 26) as u8).collect()
}

/// What comes until the end of the stream.
fn rest(client: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("FIN, and no reset");
    all
}

fn reset(client: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&client, sockopt::Linger, &linger).expect("a socket");
}

#[test]
fn everything_comes_back_to_a_slow_reader() {
    for (name, words) in stages(1, 60) {
        println!("{name} {words:?}");
        let server = Server::start(name, &words);
        let mut client = server.connect();
        // Else the kernel would hold it all: tcp(7).
        setsockopt(&client, sockopt::RcvBuf, &32_768).expect("a socket");
        for size in [1, 64, 200_000] {
            let message = bytes(size);
            let mut writer = client.try_clone().expect("a descriptor");
            thread::scope(|scope| {
                scope.spawn(|| writer.write_all(&message).expect("a reader"));
                let mut answer: Vec<u8> = Vec::new();
                while answer.len() < size {
                    let mut some = [0; 8_192];
                    let n = client.read(&mut some).expect("an answer");
                    assert!(n > 0, "the end, after {}", answer.len());
                    answer.extend(&some[..n]);
                    thread::sleep(Duration::from_micros(500));
                }
                assert!(answer == message, "wrong bytes came back");
            });
        }
    }
}

/// The server has to keep what it cannot send, and to serve others meanwhile.
#[test]
fn whoever_reads_nothing_holds_up_nobody() {
    for (name, words) in stages(1, 60) {
        println!("{name} {words:?}");
        let server = Server::start(name, &words);
        let (mut greedy, mut other) = (server.connect(), server.connect());
        let message = bytes(1 << 16);
        greedy.set_nonblocking(true).expect("a socket");
        let (mut sent, mut failed) = (0, 0);
        while failed < 20 {
            match greedy.write(&message[sent % message.len()..]) {
                Ok(n) => (sent, failed) = (sent + n, 0),
                Err(err) => {
                    assert_eq!(err.kind(), ErrorKind::WouldBlock);
                    failed += 1;
                    echo(&mut other, b"hello");
                }
            }
        }
        // Nobody does anything: nor does the server.
        let (begin, before) = (Instant::now(), server.cpu_time());
        thread::sleep(Duration::from_millis(150));
        let (spent, passed) = (server.cpu_time() - before, begin.elapsed());
        assert!(spent < passed / 20, "it was busy for {spent:?} of {passed:?}");
        greedy.set_nonblocking(false).expect("a socket");
        greedy.shutdown(Shutdown::Write).expect("a connection");
        let answer = rest(&mut greedy);
        assert_eq!(answer.len(), sent, "bytes that came back");
        let mut parts = answer.chunks(message.len());
        assert!(parts.all(|it| it == &message[..it.len()]), "wrong bytes");
    }
}

#[test]
fn a_half_close_loses_nothing() {
    for (name, words) in stages(1, 60) {
        println!("{name} {words:?}");
        let server = Server::start(name, &words);
        let mut client = server.connect();
        let message = bytes(200_000);
        let mut writer = client.try_clone().expect("a descriptor");
        thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&message).expect("a reader");
                writer.shutdown(Shutdown::Write).expect("a connection");
            });
            thread::sleep(Duration::from_millis(20));
            assert!(rest(&mut client) == message, "wrong bytes came back");
        });
    }
}

#[test]
fn a_reset_harms_nobody() {
    for (name, words) in stages(1, 60) {
        println!("{name} {words:?}");
        let server = Server::start(name, &words);
        let mut other = server.connect();
        echo(&mut other, b"hello");
        let before = server.descriptors();
        for round in 0..10 {
            let mut client = server.connect();
            client.set_nonblocking(round % 2 == 0).expect("a socket");
            let message = bytes(if round % 2 == 0 { 1 << 20 } else { 64 });
            let _some = client.write(&message).expect("a server");
            reset(client);
            echo(&mut other, b"and I?");
        }
        until("all are closed", || server.descriptors() == before);
    }
}

#[test]
fn two_hundred_clients_at_once() {
    for (name, words) in stages(1, 60) {
        println!("{name} {words:?}");
        let server = Server::start(name, &words);
        let mut all: Vec<_> = (0..200).map(|_| server.connect()).collect();
        let message = |at: usize| bytes(64 + at);
        for _ in 0..3 {
            for (at, client) in all.iter_mut().enumerate() {
                client.write_all(&message(at)).expect("a server");
            }
            for (at, client) in all.iter_mut().enumerate().rev() {
                let mut answer = message(0);
                answer.resize(64 + at, 0);
                client.read_exact(&mut answer).expect("an answer");
                assert!(answer == message(at), "somebody else's bytes");
            }
        }
    }
}

#[test]
fn who_is_silent_is_closed_and_who_talks_is_not() {
    const LIMIT: Duration = Duration::from_secs(1);
    thread::scope(|scope| {
        for (name, words) in stages(4, 1) {
            scope.spawn(move || {
                let server = Server::start(name, &words);
                // A machine that stalls could make the talker silent: again.
                let shown = (0..5).any(|_| {
                    let begin = Instant::now();
                    let mut silent = server.connect();
                    let mut talker = server.connect();
                    let pause = Some(Duration::from_millis(50));
                    silent.set_read_timeout(pause).expect("a socket");
                    let (mut last, mut more) = (begin, 10);
                    while more > 0 {
                        let talked = talker.write_all(b"hello").is_ok()
                            && talker.read_exact(&mut [0; 5]).is_ok();
                        if last.elapsed() > LIMIT / 2 {
                            return false;
                        }
                        last = Instant::now();
                        assert!(talked, "{name}: who talks is closed");
                        match silent.read(&mut [0]) {
                            Ok(n) => {
                                assert_eq!(n, 0);
                                assert!(begin.elapsed() >= LIMIT, "early");
                                thread::sleep(LIMIT / 20);
                                more -= 1;
                            }
                            Err(err) => {
                                assert_eq!(err.kind(), ErrorKind::WouldBlock);
                                assert!(begin.elapsed() < PATIENCE, "{name}");
                            }
                        }
                    }
                    true
                });
                assert!(shown, "this machine stalls");
            });
        }
    });
}

#[test]
fn what_the_worker_does_holds_up_nobody() {
    for (name, words) in stages(5, 60) {
        println!("{name} {words:?}");
        let server = Server::start(name, &words);
        let mut slow: Vec<_> = (0..10).map(|_| server.connect()).collect();
        let mut other = server.connect();
        for (at, client) in slow.iter_mut().enumerate() {
            write!(client, "!{at}").expect("a server");
        }
        echo(&mut other, b"I am in a hurry");
        // The worker sleeps ten times, one after the other.
        let answered = slow.iter().filter(|client| {
            client.set_nonblocking(true).expect("a socket");
            let answered = client.peek(&mut [0]).is_ok();
            client.set_nonblocking(false).expect("a socket");
            answered
        });
        let answered = answered.count();
        assert!(answered < 10, "who was in a hurry had to wait for all");
        // In order, though what comes behind needs no worker.
        for (at, client) in slow.iter_mut().enumerate() {
            write!(client, " {at}").expect("a server");
            let mut answer = [0; 4];
            client.read_exact(&mut answer).expect("an answer");
            assert_eq!(answer, *format!("!{at} {at}").as_bytes());
        }
    }
}

#[test]
fn an_answer_to_nobody_goes_to_nobody_else() {
    for (name, words) in stages(5, 60) {
        println!("{name} {words:?}");
        let server = Server::start(name, &words);
        let mut leaving = server.connect();
        leaving.write_all(b"!mine").expect("a server");
        server.lives();
        let before = server.descriptors();
        reset(leaving);
        let mut next: Vec<_> = (0..3).map(|_| server.connect()).collect();
        for client in &mut next {
            client.write_all(b"!yours").expect("a server");
        }
        for client in &mut next {
            client.shutdown(Shutdown::Write).expect("a connection");
            assert_eq!(rest(client), b"!yours");
        }
        until("all are closed", || server.descriptors() < before);
    }
}

#[test]
fn a_stop_sends_what_is_owed_and_then_fin() {
    for (name, words) in stages(5, 60) {
        println!("{name} {words:?}");
        let mut server = Server::start(name, &words);
        let (mut idle, mut new) = (server.connect(), server.connect());
        echo(&mut idle, b"hello");
        let (mut waiting, mut greedy) = (server.connect(), server.connect());
        greedy.set_nonblocking(true).expect("a socket");
        let message = bytes(1 << 20);
        let sent = greedy.write(&message).expect("room");
        waiting.write_all(b"!bye").expect("a server");
        // Later than those two it was served, so they have been, too.
        (0..3).for_each(|_| echo(&mut idle, b"hello"));
        server.signal(Signal::SIGTERM);
        assert_eq!(rest(&mut waiting), b"!bye");
        assert_eq!(rest(&mut idle), b"");
        assert_eq!(rest(&mut new), b"");
        // What comes after our FIN does no harm, nor does who reads it late.
        idle.write_all(b"still here").expect("a connection");
        greedy.set_nonblocking(false).expect("a socket");
        let answer = rest(&mut greedy);
        assert!(answer.len() <= sent && message.starts_with(&answer));
        assert!(!answer.is_empty(), "what was owed is lost");
        let refused = TcpStream::connect(&server.addr).err();
        let refused = refused.expect("nobody listens").kind();
        assert_eq!(refused, ErrorKind::ConnectionRefused);
        drop((idle, new, waiting, greedy));
        assert_eq!(server.end().code(), Some(0));
    }
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    thread::scope(|scope| {
        for (name, words) in stages(5, 1) {
            scope.spawn(move || {
                let mut server = Server::start(name, &words);
                let mut stays = server.connect();
                echo(&mut stays, b"hello");
                server.signal(Signal::SIGINT);
                assert_eq!(server.end().code(), Some(0), "{name} {words:?}");
            });
        }
    });
    for (name, words) in stages(5, 60) {
        println!("{name} {words:?}");
        let mut server = Server::start(name, &words);
        let mut stays = server.connect();
        echo(&mut stays, b"hello");
        server.signal(Signal::SIGTERM);
        assert_eq!(rest(&mut stays), b"");
        assert!(server.child.try_wait().expect("a child").is_none());
        server.signal(Signal::SIGTERM);
        assert!(!server.end().success(), "a second signal ends it at once");
    }
}

/// The head and the text of an answer.
fn get(client: &mut TcpStream) -> (String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("a head");
        head.push(byte[0].into());
    }
    let length = head.split("Content-Length: ").nth(1).expect("a length");
    let length = length.lines().next().and_then(|it| it.parse().ok());
    let mut text = vec![0; length.expect("a number")];
    client.read_exact(&mut text).expect("a text");
    (head, String::from_utf8(text).expect("a text"))
}

#[test]
fn http_is_one_more_handler() {
    for (name, words) in stages(6, 60) {
        println!("{name} {words:?}");
        let mut server = Server::start(name, &words);
        let http = server.http.clone().expect("it speaks HTTP");
        let mut client = connect(&http);
        let good = b"GET /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        // One after the other, two at once, and byte by byte.
        client.write_all(good).expect("a server");
        let (head, text) = get(&mut client);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        client.write_all(&good.repeat(2)).expect("a server");
        assert_eq!(get(&mut client).1, text);
        assert_eq!(get(&mut client).1, text);
        client.set_nodelay(true).expect("a socket");
        for byte in good {
            client.write_all(&[*byte]).expect("a server");
        }
        assert_eq!(get(&mut client).1, text);
        echo(&mut server.connect(), good);
        for last in [
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: a, Close\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
        ] {
            let mut client = connect(&http);
            client.write_all(last.as_bytes()).expect("a server");
            assert_eq!(get(&mut client).1, text);
            assert_eq!(rest(&mut client), b"");
        }
        let long = format!("GET / HTTP/1.1\r\nHost: {}", "x".repeat(20_000));
        for bad in [
            "\r\n\r\n",
            "hello\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/2\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            &long,
        ] {
            let mut client = connect(&http);
            client.write_all(bad.as_bytes()).expect("a server");
            let (head, _) = get(&mut client);
            assert!(head.starts_with("HTTP/1.1 400 "), "{bad}: {head}");
            assert_eq!(rest(&mut client), b"");
        }
        server.signal(Signal::SIGTERM);
        assert_eq!(rest(&mut client), b"");
        drop(client);
        assert_eq!(server.end().code(), Some(0));
    }
}

#[test]
fn errors_are_one_line_that_says_what() {
    for (name, ..) in STAGES {
        let said = |words: &[&str], code| {
            let mut command = Command::new(program(name));
            let output = command.args(words).output().expect("it starts");
            assert_eq!(output.status.code(), Some(code), "{output:?}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(said.lines().count(), 1, "{said}");
            said
        };
        assert!(said(&["70000"], 2).contains("'70000'"));
        let all = stages(1, 60);
        let (_, words) = all.iter().find(|it| it.0 == *name).expect("it");
        let server = Server::start(name, words);
        let port = server.addr.rsplit(':').next().expect("a port");
        assert!(said(&[port], 1).contains(port));
    }
}

/// What two neighbours share is the same to the byte: the diff is the lesson.
#[test]
fn steps_are_small() {
    let mut wrong = Vec::new();
    for pair in STAGES.windows(2) {
        let [(from, ..), (to, most_added, most_removed)] = pair else {
            unreachable!("pairs");
        };
        let [from, to] = [from, to].map(|it| format!("examples/{it}.rs"));
        let mut git = Command::new("git");
        git.args(["diff", "--no-index", "--numstat", "-w", &from, &to]);
        git.current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = match git.output() {
            Ok(output) => output,
            Err(err) if err.kind() == ErrorKind::NotFound => {
                println!("steps_are_small SKIPPED: git is not installed");
                return;
            }
            Err(err) => panic!("git: {err}"),
        };
        let numbers = String::from_utf8_lossy(&output.stdout);
        let mut numbers = numbers.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(added)), Some(Ok(removed))) =
            (numbers.next(), numbers.next())
        else {
            panic!("git diff {from} {to}: {output:?}");
        };
        println!("{from} -> {to}: {added} added, {removed} removed");
        if added > *most_added || removed > *most_removed {
            wrong.push(format!(
                "{to}: {added} added (at most {most_added}), {removed} removed \
                 (at most {most_removed})"
            ));
        }
    }
    assert!(wrong.is_empty(), "drifted apart:\n  {}", wrong.join("\n  "));
}

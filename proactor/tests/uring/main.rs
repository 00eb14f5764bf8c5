//! The real server on the real kernel, where its operations are many, are
//! refused, are ended from outside, or do not end by themselves.

mod sys;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt,
    socket, sockopt,
};
use nix::unistd::Pid;

/// How long something may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(20);

const SINGLE: &[&str] = &["--recv", "single"];
const MULTISHOT: &[&str] = &["--recv", "multishot"];
const EIGHT: &[&str] = &["--recv", "multishot", "--buffers", "8"];
const ONE: &[&str] = &["--recv", "multishot", "--buffers", "1"];

/// A server that does not outlive its test.
struct Server {
    process: Child,
    addr: SocketAddr,
    /// A closed stdout is another test's.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// The server, unless there is no io_uring here.
    fn start(args: &[&str]) -> Option<Self> {
        let probe = Command::new(env!("CARGO_BIN_EXE_proactor"))
            .arg("--probe")
            .output()
            .expect("it starts");
        if !probe.status.success() {
            let why = String::from_utf8_lossy(&probe.stderr);
            println!("{args:?} SKIPPED: {}", why.trim());
            return None;
        }
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("it is less");
        }
        let mut process = Command::new(env!("CARGO_BIN_EXE_proactor"))
            .args(["--addr", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its address");
        let addr = line.trim().rsplit(' ').next().map(str::parse);
        let addr = addr.expect("a word").expect("its address");
        Some(Server { process, addr, _stdout: stdout })
    }

    fn client(&self) -> TcpStream {
        self.client_from(Ipv4Addr::LOCALHOST, None)
    }

    /// A client from this address, whose side takes little, if so asked.
    fn client_from(&self, from: Ipv4Addr, takes: Option<usize>) -> TcpStream {
        let SocketAddr::V4(addr) = self.addr else { panic!("it is IPv4") };
        let flags = SockFlag::SOCK_CLOEXEC;
        let client: OwnedFd =
            socket(AddressFamily::Inet, SockType::Stream, flags, None)
                .expect("there are descriptors");
        if let Some(takes) = takes {
            setsockopt(&client, sockopt::RcvBuf, &takes).expect("a size");
        }
        setsockopt(&client, sockopt::IpBindAddressNoPort, &true)
            .expect("a flag");
        let from = SockaddrIn::from(SocketAddrV4::new(from, 0));
        bind(client.as_raw_fd(), &from).expect("it is loopback");
        connect(client.as_raw_fd(), &SockaddrIn::from(addr))
            .expect("it listens");
        let client = TcpStream::from(client);
        client.set_nodelay(true).expect("a flag");
        client.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        client.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        client
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id() as i32);
        kill(pid, signal).expect("it lives");
    }

    fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.id());
        fs::read_dir(path).expect("it lives").count()
    }

    /// How many it has when it serves nobody.
    fn idle_descriptors(&self) -> usize {
        let client = self.client();
        // By now it has all that it makes for itself.
        echoes(&client);
        self.descriptors() - 1
    }

    /// Its own memory, in KiB.
    fn memory(&self) -> usize {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(path).expect("it lives");
        let line = status.lines().find(|it| it.starts_with("RssAnon:"));
        let words = line.expect("it has memory").split_whitespace();
        let number = { words }.nth(1).map(str::parse);
        number.expect("a word").expect("a number")
    }

    fn ends(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("a child") {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end");
            sleep(Duration::from_millis(2));
        }
    }

    /// What it has said, once it has ended.
    fn said(&mut self) -> String {
        let mut said = String::new();
        let stderr = self.process.stderr.as_mut().expect("stderr is a pipe");
        stderr.read_to_string(&mut said).expect("it is text");
        said
    }

    fn stops(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.ends();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "not so: {what}");
        sleep(Duration::from_millis(2));
    }
}

/// What this client says, from here on: no two places nearby look alike.
fn text(client: usize, from: usize, length: usize) -> Vec<u8> {
    let byte = |at: usize| {
        let at = (at as u32).wrapping_mul(0x9E37_79B1) >> 11;
        (at ^ (client as u32).wrapping_mul(101)) as u8
    };
    (from..from + length).map(byte).collect()
}

/// Takes so much, which must be what the client has said.
fn takes(mut client: &TcpStream, number: usize, from: usize, length: usize) {
    let mut back = vec![0; length];
    client.read_exact(&mut back).expect("all that was said comes back");
    assert!(back == text(number, from, length), "client {number}, at {from}");
}

fn echoes(mut client: &TcpStream) {
    client.write_all(&text(7, 0, 100)).expect("room");
    takes(client, 7, 0, 100);
}

/// RST: what is under way ends at once.
fn reset(client: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&client, sockopt::Linger, &linger).expect("an option");
}

/// Says as much as there is room for, while nobody reads; how much that was.
fn fill(mut client: &TcpStream, number: usize) -> usize {
    client.set_nonblocking(true).expect("a flag");
    let (mut said, mut full) = (0, 0);
    while full < 10 {
        match client.write(&text(number, said, 10_000)) {
            Ok(n) => (said, full) = (said + n, 0),
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                full += 1;
                sleep(Duration::from_millis(5));
            }
            Err(why) => panic!("{why}"),
        }
    }
    client.set_nonblocking(false).expect("a flag");
    said
}

#[test]
fn a_thousand_clients_share_a_few_buffers() {
    for flags in [EIGHT, ONE] {
        let Some(server) =
            Server::start(&[flags, &["--watch", "off"]].concat())
        else {
            return;
        };
        let idle = server.idle_descriptors();
        let clients: Vec<_> = (0..1000).map(|_| server.client()).collect();
        for round in 0..2 {
            // Longer than two of the buffers.
            let (from, length) = (round * 40_000, 40_000);
            for (number, mut client) in clients.iter().enumerate() {
                client.write_all(&text(number, from, length)).expect("room");
            }
            for (number, client) in clients.iter().enumerate() {
                takes(client, number, from, length);
            }
        }
        drop(clients);
        until("all are closed", || server.descriptors() == idle);
        server.stops();
    }
}

#[test]
fn who_found_no_buffer_gets_one_later() {
    let flags = [ONE, &["--watch", "json", "--watch-every"]].concat();
    let Some(mut server) = Server::start(&flags) else { return };
    let clients: Vec<_> = (0..20).map(|_| server.client()).collect();
    clients.iter().for_each(echoes);
    // All of them have something to say at once.
    server.signal(Signal::SIGSTOP);
    for (number, mut client) in clients.iter().enumerate() {
        client.write_all(&text(number, 0, 50_000)).expect("room");
    }
    server.signal(Signal::SIGCONT);
    let mut stderr = server.process.stderr.take().expect("a pipe");
    let lines = thread::spawn(move || {
        let mut json = String::new();
        stderr.read_to_string(&mut json).expect("it is text");
        json
    });
    for (number, client) in clients.iter().enumerate() {
        takes(client, number, 0, 50_000);
    }
    drop(clients);
    server.stops();
    let json = lines.join().expect("it reads");
    let refused = json.matches(r#""errno":"ENOBUFS""#).count();
    println!("{refused} receives found no buffer");
    assert!(refused > 0, "that did not happen");
}

#[test]
fn idle_clients_need_no_buffer() {
    let Some(server) = Server::start(&[ONE, &["--watch", "off"]].concat())
    else {
        return;
    };
    let clients: Vec<_> = (0..50).map(|_| server.client()).collect();
    clients.iter().for_each(echoes);
    // Their receives end for want of a buffer, all but the first's, and only
    // the last has more to say.
    for _ in 0..20 {
        server.signal(Signal::SIGSTOP);
        for mut client in &clients {
            client.write_all(&text(3, 0, 10)).expect("room");
        }
        let last = &clients[49];
        { last }.write_all(&text(3, 10, 40_000)).expect("room");
        server.signal(Signal::SIGCONT);
        takes(last, 3, 0, 40_010);
        clients[..49].iter().for_each(|it| takes(it, 3, 0, 10));
    }
    server.stops();
}

#[test]
fn a_reset_ends_what_is_in_flight_and_leaves_nothing() {
    for flags in [SINGLE, MULTISHOT, EIGHT] {
        let few = ["--buffer", "1KiB", "--watch", "off"];
        let Some(server) = Server::start(&[flags, &few].concat()) else {
            return;
        };
        let idle = server.idle_descriptors();
        let mut memory = Vec::new();
        for _ in 0..6 {
            let silent: Vec<_> = (0..100).map(|_| server.client()).collect();
            silent.iter().for_each(echoes);
            let from = Ipv4Addr::LOCALHOST;
            let full = || server.client_from(from, Some(4096));
            let full: Vec<_> = (0..40).map(|_| full()).collect();
            for _ in 0..2 {
                for mut client in &full {
                    client.set_nonblocking(true).expect("a flag");
                    while client.write(&[0; 20_000]).is_ok() {}
                }
                // What they have said comes to the server, until it is stuck.
                sleep(Duration::from_millis(20));
            }
            silent.into_iter().chain(full).for_each(reset);
            until("all are closed", || server.descriptors() == idle);
            echoes(&server.client());
            memory.push(server.memory());
        }
        // One buffer of each of them would be more. What is kept for the next
        // ones, 64 times four buffers, is there by now.
        let grown = memory[5].saturating_sub(memory[2]);
        // A sanitizer keeps what is freed.
        let sanitized = std::env::var_os("ASAN_OPTIONS").is_some();
        assert!(grown < 256 || sanitized, "{flags:?}: {memory:?} KiB");
        server.stops();
    }
}

#[test]
fn slow_readers_get_messages_of_every_size() {
    let few = ["--buffer", "4KiB", "--watch", "off"];
    for flags in [SINGLE, MULTISHOT, ONE] {
        let Some(server) = Server::start(&[flags, &few].concat()) else {
            return;
        };
        thread::scope(|scope| {
            for power in 0..=20 {
                let (size, server) = (1_usize << power, &server);
                scope.spawn(move || slow_reader(server, size));
                scope.spawn(move || slow_reader(server, size + size / 3));
            }
        });
        server.stops();
    }
}

/// Says some messages, and leaves what comes back lying for a while, again
/// and again.
fn slow_reader(server: &Server, size: usize) {
    let client = server.client_from(Ipv4Addr::LOCALHOST, Some(4096));
    let total = size * (2_000_000 / size).clamp(1, 200);
    thread::scope(|scope| {
        scope.spawn(|| {
            for from in (0..total).step_by(size) {
                let message = text(size, from, size);
                { &client }.write_all(&message).expect("room, later");
            }
        });
        let (mut taken, pause) = (0, total / 4 + 1);
        while taken < total {
            sleep(Duration::from_millis(20));
            let some = pause.min(total - taken);
            takes(&client, size, taken, some);
            taken += some;
        }
    });
    client.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!({ &client }.read(&mut [0]).expect("FIN"), 0);
}

#[test]
fn a_stop_under_load_sends_what_is_owed_and_no_more_are_accepted() {
    for flags in [SINGLE, MULTISHOT, ONE] {
        let args = [flags, &["--watch", "off", "--grace", "15s"]].concat();
        let Some(mut server) = Server::start(&args) else { return };
        let clients: Vec<_> = (0..10).map(|_| server.client()).collect();
        let silent = server.client();
        echoes(&silent);
        thread::scope(|scope| {
            for (number, client) in clients.iter().enumerate() {
                scope.spawn(move || fill(client, number));
            }
        });
        server.signal(Signal::SIGTERM);
        // It has seen the signal.
        assert_eq!({ &silent }.read(&mut [0]).expect("FIN"), 0);
        until("nobody is accepted any more", || {
            let late = TcpStream::connect(server.addr);
            late.is_err_and(|it| it.kind() == ErrorKind::ConnectionRefused)
        });
        let mut sum = 100;
        for (number, mut client) in clients.iter().enumerate() {
            let mut back = Vec::new();
            client.read_to_end(&mut back).expect("an end that is no reset");
            assert!(back == text(number, 0, back.len()), "client {number}");
            sum += back.len();
        }
        drop((clients, silent));
        let status = server.ends();
        let said = server.said();
        assert!(status.success(), "{status}: {said}");
        let all = format!("connections, {sum} bytes echoed");
        assert!(said.contains(&all), "{flags:?}: not {all}: {said}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for flags in [SINGLE, MULTISHOT] {
        let args = [flags, &["--watch", "off", "--grace", "1h"]].concat();
        let Some(mut server) = Server::start(&args) else { return };
        let client = server.client();
        fill(&client, 0);
        server.signal(Signal::SIGTERM);
        sleep(Duration::from_millis(50));
        assert!(server.process.try_wait().expect("a child").is_none());
        server.signal(Signal::SIGTERM);
        assert_eq!(server.ends().code(), Some(1));
    }
}

#[test]
fn ten_thousand_receives_are_under_way_and_all_end() {
    const CLIENTS: usize = 10_000;
    for flags in [SINGLE, MULTISHOT] {
        let few = ["--buffer", "512", "--grace", "100ms", "--watch", "off"];
        let Some(mut server) = Server::start(&[flags, &few].concat()) else {
            return;
        };
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        // Other tests run in this process.
        let needed = CLIENTS as u64 + 2500;
        if soft < needed {
            println!(
                "SKIPPED: needs {needed} descriptors, and the hard limit is \
                 {soft}"
            );
            return;
        }
        let from = |it: usize| Ipv4Addr::new(127, 0, 0, 2 + (it / 4000) as u8);
        let clients: Vec<_> =
            (0..CLIENTS).map(|it| server.client_from(from(it), None)).collect();
        for (number, mut client) in clients.iter().enumerate() {
            client.write_all(&text(number, 0, 9)).expect("room");
        }
        for (number, client) in clients.iter().enumerate() {
            takes(client, number, 0, 9);
        }
        assert!(server.descriptors() > CLIENTS);
        // Nobody leaves: each receive is ended by the server itself.
        server.signal(Signal::SIGTERM);
        for mut client in &clients {
            assert_eq!(client.read(&mut [0]).expect("FIN"), 0);
        }
        let status = server.ends();
        assert!(status.success(), "{status}: {}", server.said());
    }
}

#[test]
fn where_io_uring_is_forbidden_one_line_says_so() {
    for flags in [SINGLE, MULTISHOT, &["--probe"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proactor"));
        command.args(["--addr", "127.0.0.1:0"]).args(flags);
        sys::forbid_io_uring(&mut command);
        let output = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let words = ["io_uring", "forbidden", "--engine emulated"];
        assert!(words.iter().all(|it| said.contains(it)), "{said}");
    }
}

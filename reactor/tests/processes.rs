//! What a master and its workers promise beyond what every echo server does:
//! workers come and go, and clients notice only what they must.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MODES: [&str; 5] =
    ["shared", "exclusive", "mutex", "reuseport", "passed"];

/// How long something may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server as a child of a test; its processes end with it.
struct Server {
    child: Child,
    addr: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(mode: &str, workers: usize, args: &[&str]) -> Self {
        Self::run(
            Command::new(env!("CARGO_BIN_EXE_reactor")),
            mode,
            workers,
            args,
        )
    }

    fn run(
        mut command: Command,
        mode: &str,
        workers: usize,
        args: &[&str],
    ) -> Self {
        let mut child = command
            .args(["--addr", "127.0.0.1:0", "--watch", "off"])
            .args(["--form", "processes", "--accept", mode])
            .args(["--workers", &workers.to_string()])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("its address");
        let addr =
            line.trim().rsplit(' ').next().and_then(|it| it.parse().ok());
        let said = Arc::<Mutex<Vec<String>>>::default();
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let lines = Arc::clone(&said);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("nobody panics with it").push(line);
            }
        });
        let server = Server { child, addr: addr.expect("its address"), said };
        server.has_workers(workers);
        server
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it lives");
    }

    /// Its workers, retired ones too.
    fn workers(&self) -> BTreeSet<i32> {
        let alive = |it: &(i32, char)| it.1 != 'Z';
        children_of(self.pid())
            .into_iter()
            .filter(alive)
            .map(|it| it.0)
            .collect()
    }

    fn has_workers(&self, count: usize) {
        until("all workers are there", || self.workers().len() == count);
    }

    /// The workers by the number of sockets that they have for clients.
    fn clients(&self) -> BTreeMap<i32, usize> {
        let port = format!("{:04X}", self.addr.port());
        let tcp = fs::read_to_string("/proc/net/tcp").expect("it is there");
        let established = tcp.lines().skip(1).filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let ours = words[1].ends_with(&port) && words[3] == "01";
            ours.then(|| format!("socket:[{}]", words[9]))
        });
        let established: BTreeSet<String> = established.collect();
        let count = |pid: &i32| {
            let fds = fs::read_dir(format!("/proc/{pid}/fd"));
            let fds = fds.into_iter().flatten().flatten();
            let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
            links
                .filter(|to| established.contains(&*to.to_string_lossy()))
                .count()
        };
        self.workers().iter().map(|pid| (*pid, count(pid))).collect()
    }

    fn connect(&self) -> TcpStream {
        connect(self.addr).expect("it accepts")
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().expect("nobody panics with it").clone()
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the server ends", || {
            status = self.child.try_wait().expect("it is a child of ours");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// SIGTERM: it ends well, and so do all its processes.
    fn stop(mut self) -> Vec<String> {
        let workers = self.workers();
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}, {:?}", self.said());
        assert_eq!(left_of(&workers), [], "when the master has ended");
        let summary = |it: &String| it.contains("stopped; ");
        until("the summary is there", || self.said().iter().any(summary));
        self.said()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let workers = self.workers();
        self.child.kill().ok();
        self.child.wait().ok();
        for pid in left_of(&workers) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

/// The children of a process, with their states.
fn children_of(pid: i32) -> Vec<(i32, char)> {
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|child| {
        let (state, parent) = state_of(child)?;
        (parent == pid).then_some((child, state))
    })
    .collect()
}

/// The state and the parent of a process.
fn state_of(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (name) state parent …
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    let state = words.next()?.chars().next()?;
    Some((state, words.next()?.parse().ok()?))
}

/// Those that still run. Who adopts an orphan may take a while to wait for it.
fn left_of(pids: &BTreeSet<i32>) -> Vec<i32> {
    let runs = |pid: &i32| state_of(*pid).is_some_and(|it| it.0 != 'Z');
    pids.iter().copied().filter(runs).collect()
}

/// Workers, each of which may open so few.
fn with_descriptors(count: usize, workers: usize, mode: &str) -> Server {
    let mut shell = Command::new("sh");
    let line = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
    shell.args(["-c", &line, env!("CARGO_BIN_EXE_reactor")]);
    Server::run(shell, mode, workers, &[])
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "not so: {what}");
        sleep(Duration::from_millis(2));
    }
}

fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&addr, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn round_trip(mut socket: &TcpStream) -> std::io::Result<()> {
    socket.write_all(b"hello")?;
    let mut echoed = [0; 5];
    socket.read_exact(&mut echoed)?;
    assert_eq!(&echoed, b"hello");
    Ok(())
}

fn echoing_clients(server: &Server, count: usize) -> Vec<TcpStream> {
    let clients: Vec<_> = (0..count).map(|_| server.connect()).collect();
    for client in &clients {
        round_trip(client).expect("it echoes");
    }
    clients
}

#[test]
fn fifty_clients_are_served_in_every_mode() {
    for mode in MODES {
        let server = Server::start(mode, 3, &[]);
        let clients = echoing_clients(&server, 50);
        let shares: Vec<usize> = server.clients().into_values().collect();
        assert_eq!(shares.iter().sum::<usize>(), 50, "{mode}: {shares:?}");
        match mode {
            "reuseport" => assert!(!shares.contains(&0), "{shares:?}"),
            "passed" => {
                assert!(shares.iter().all(|it| *it >= 16), "{shares:?}");
            }
            // Whoever comes first may get all.
            _ => {}
        }
        drop(clients);
        let said = server.stop().join("\n");
        let summary = "reactor: stopped; 50 connections, 250 bytes echoed";
        assert!(said.contains(summary), "{mode}: {said}");
    }
}

#[test]
fn the_least_loaded_worker_gets_the_next_client() {
    let server = Server::start("passed", 2, &["--deal", "least-loaded"]);
    let clients = echoing_clients(&server, 20);
    let shares = || server.clients().into_values().collect::<Vec<_>>();
    assert_eq!(shares(), [10, 10]);
    // They came to the two by turns: one of these has none left.
    let staying: Vec<_> = clients.into_iter().step_by(2).collect();
    until("half of them have left", || shares().iter().sum::<usize>() == 10);
    assert!(shares().contains(&0), "{:?}", shares());
    let others = echoing_clients(&server, 10);
    assert_eq!(shares(), [10, 10]);
    drop((staying, others));
    server.stop();
}

#[test]
fn a_killed_worker_takes_its_own_clients_along_and_is_replaced() {
    for mode in MODES {
        let server = Server::start(mode, 2, &[]);
        let clients = echoing_clients(&server, 30);
        let before = server.clients();
        // With the mutex, this is who holds it.
        let (victim, lost) =
            before.iter().max_by_key(|it| it.1).expect("two workers");
        kill(Pid::from_raw(*victim), Signal::SIGKILL).expect("it lives");
        let begin = Instant::now();

        let broken = clients.iter().filter(|it| round_trip(it).is_err());
        assert_eq!(broken.count(), *lost, "{mode}: {before:?}");
        until("another takes its place", || {
            let now = server.workers();
            now.len() == 2 && !now.contains(victim)
        });
        // Those who come now are served, by whomever.
        echoing_clients(&server, 10);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(1), "{mode}: {took:?}");
        until("nobody is a zombie", || {
            children_of(server.pid()).iter().all(|it| it.1 != 'Z')
        });
        let said = server.stop();
        let died = said.iter().filter(|it| it.contains("SIGKILL"));
        assert_eq!(died.count(), 1, "{mode}: {said:?}");
    }
}

#[test]
fn a_new_worker_serves_when_all_others_have_been_killed() {
    for mode in MODES {
        let server = Server::start(mode, 2, &[]);
        let old = server.workers();
        for pid in &old {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).expect("it lives");
        }
        // A client that had been passed to one of them would end with it.
        until("both have ended", || left_of(&old).is_empty());
        // It waits in a queue for the next worker.
        let client = server.connect();
        round_trip(&client).expect("it echoes");
        assert!(server.workers().is_disjoint(&old), "{mode}");
        server.stop();
    }
}

#[test]
fn a_worker_that_always_dies_does_not_keep_the_master_busy() {
    let server = Server::start("exclusive", 1, &[]);
    let (begin, mut killed) = (Instant::now(), BTreeSet::new());
    while begin.elapsed() < Duration::from_secs(2) {
        for pid in server.workers().difference(&killed.clone()) {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
            killed.insert(*pid);
        }
        sleep(Duration::from_millis(1));
    }
    // After 100, 200, 400 and 800 ms; in a tight loop it would be hundreds.
    let count = killed.len();
    assert!((2..=6).contains(&count), "{count} workers in 2 s");
    let line = |it: &String| it.contains("SIGKILL");
    until("each death is told in a line", || {
        server.said().iter().filter(|it| line(it)).count() == count
    });
    // And it comes back in the end.
    round_trip(&server.connect()).expect("it echoes");
    server.stop();
}

#[test]
fn all_workers_are_replaced_and_no_client_notices() {
    for mode in MODES {
        let server = Server::start(mode, 2, &[]);
        let staying = echoing_clients(&server, 20);
        let (over, addr) = (AtomicBool::new(false), server.addr);
        let (visits, old) = thread::scope(|scope| {
            let coming = || {
                let mut visits = 0;
                while !over.load(Relaxed) {
                    let client = connect(addr)?;
                    round_trip(&client)?;
                    visits += 1;
                }
                Ok::<_, std::io::Error>(visits)
            };
            let threads = [scope.spawn(coming), scope.spawn(coming)];
            let mut old = BTreeSet::new();
            for _ in 0..3 {
                sleep(Duration::from_millis(100));
                let before = server.workers();
                server.signal(Signal::SIGHUP);
                until("there are two others", || {
                    server.workers().difference(&before).count() == 2
                });
                old.extend(before);
            }
            for client in &staying {
                round_trip(client).expect("its worker serves it still");
            }
            over.store(true, Relaxed);
            let visits = threads.map(|it| it.join().expect("no panic"));
            (visits, old)
        });
        for visits in visits {
            let visits = visits.unwrap_or_else(|err| panic!("{mode}: {err}"));
            assert!(visits > 0, "{mode}");
        }
        assert_eq!(old.len(), 6, "{mode}: three times two were replaced");
        // Some of them still have clients, and end with these.
        let left = left_of(&old);
        assert!(!left.is_empty(), "{mode}: 20 clients are somewhere");
        drop(staying);
        until("the old ones end", || left_of(&old).is_empty());
        echoing_clients(&server, 5);
        let said = server.stop();
        assert_eq!(said.len(), 1, "{mode}: only the summary: {said:?}");
    }
}

#[test]
fn no_worker_outlives_a_master_that_is_killed() {
    for mode in MODES {
        let mut server = Server::start(mode, 3, &["--grace", "300ms"]);
        let clients = echoing_clients(&server, 10);
        let workers = server.workers();
        assert_eq!(workers.len(), 3);
        server.child.kill().expect("it lives");
        server.wait();
        for mut client in &clients {
            let rest = client.read(&mut [0; 1]);
            assert_eq!(rest.expect("FIN, and no reset"), 0, "{mode}");
        }
        drop(clients);
        until("the workers end", || left_of(&workers).is_empty());
    }
}

#[test]
fn a_stop_waits_for_clients_and_a_second_one_does_not() {
    for mode in MODES {
        let mut server = Server::start(mode, 2, &["--grace", "60s"]);
        let clients = echoing_clients(&server, 10);
        let mut workers = server.clients();
        workers.retain(|_, clients| *clients > 0);
        let workers: BTreeSet<i32> = workers.into_keys().collect();
        server.signal(Signal::SIGTERM);
        for mut client in &clients {
            assert_eq!(client.read(&mut [0; 1]).expect("FIN"), 0, "{mode}");
        }
        // These have not sent theirs.
        assert_eq!(left_of(&workers).len(), workers.len());
        // The last worker may still be about to learn of it.
        until("no more clients", || connect(server.addr).is_err());
        server.signal(Signal::SIGINT);
        assert_eq!(server.wait().code(), Some(1), "{mode}");
        until("the workers end", || left_of(&workers).is_empty());
    }
}

#[test]
fn a_second_server_at_the_same_address_is_refused() {
    for mode in MODES {
        let server = Server::start(mode, 2, &[]);
        let addr = server.addr.to_string();
        for other in MODES {
            let mut second = Command::new(env!("CARGO_BIN_EXE_reactor"))
                .args(["--addr", &addr, "--watch", "off", "--form"])
                .args(["processes", "--workers", "2", "--accept", other])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it starts");
            let begin = Instant::now();
            let status = loop {
                match second.try_wait().expect("it is a child of ours") {
                    Some(status) => break status,
                    None if begin.elapsed() > PATIENCE => {
                        second.kill().expect("it lives");
                        panic!("{other} listens where {mode} does");
                    }
                    None => sleep(Duration::from_millis(1)),
                }
            };
            let mut said = String::new();
            let stderr = second.stderr.as_mut().expect("stderr is a pipe");
            stderr.read_to_string(&mut said).expect("text");
            assert_eq!(status.code(), Some(1), "{other} beside {mode}: {said}");
            assert!(said.contains("choose another --addr"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        echoing_clients(&server, 4);
        server.stop();
    }
}

#[test]
fn there_are_never_more_clients_than_allowed_whoever_accepts() {
    const MOST: usize = 5;
    for mode in MODES {
        let most = MOST.to_string();
        let server = Server::start(mode, 4, &["--max-connections", &most]);
        let mut waiting: Vec<TcpStream> = Vec::new();
        for _ in 0..30 {
            let mut client = server.connect();
            client.write_all(b"hello").expect("the queue has room");
            client.set_nonblocking(true).expect("a socket can");
            waiting.push(client);
        }
        let mut rounds = 0;
        while !waiting.is_empty() {
            let expected = waiting.len().min(MOST);
            let answered = |it: &TcpStream| it.peek(&mut [0]).is_ok();
            until("as many as may be are served", || {
                waiting.iter().filter(|it| answered(it)).count() >= expected
            });
            // Time enough for others to slip in.
            sleep(Duration::from_millis(30));
            let (served, others): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(answered);
            assert_eq!(served.len(), expected, "{mode}");
            waiting = others;
            rounds += 1;
        }
        assert_eq!(rounds, 6, "{mode}");
        server.stop();
    }
}

#[test]
fn no_client_is_lost_when_workers_run_out_of_descriptors() {
    for mode in MODES {
        let server = with_descriptors(24, 2, mode);
        let mut waiting: Vec<TcpStream> = Vec::new();
        for _ in 0..80 {
            let mut client = server.connect();
            client.write_all(b"hello").expect("the queue has room");
            waiting.push(client);
        }
        let begin = Instant::now();
        while !waiting.is_empty() {
            assert!(begin.elapsed() < PATIENCE, "{mode}: {}", waiting.len());
            let before = waiting.len();
            waiting.retain(|client| {
                client.set_nonblocking(true).expect("a socket can");
                let mut socket = client;
                match socket.read(&mut [0; 5]) {
                    Ok(5) => false,
                    Err(err) if err.kind() == ErrorKind::WouldBlock => true,
                    other => panic!("{mode}: {other:?}, {:?}", server.said()),
                }
            });
            if waiting.len() == before {
                sleep(Duration::from_millis(1));
            }
        }
        let said = server.stop().join("\n");
        assert!(!said.contains("dropped"), "{mode}: {said}");
        assert!(said.contains("80 connections, 400 bytes"), "{mode}: {said}");
    }
}

#[test]
fn who_is_woken_alone_and_cannot_accept_wakes_another() {
    // Room for 64, so that most are full in the end; and nobody comes after
    // the one who waits, which would wake somebody else.
    let server = with_descriptors(24, 4, "exclusive");
    let clients = echoing_clients(&server, 56);
    let shares = server.clients();
    assert_eq!(shares.values().sum::<usize>(), 56, "{shares:?}");
    drop(clients);
    server.stop();
}

#[test]
fn a_full_worker_keeps_nobody_from_the_others() {
    // One worker does not run, so nothing of its queue is taken.
    let server = Server::start("passed", 2, &["--deal", "round-robin"]);
    let stopped = *server.workers().first().expect("two workers");
    kill(Pid::from_raw(stopped), Signal::SIGSTOP).expect("it lives");
    let clients: Vec<_> = (0..1_000).map(|_| server.connect()).collect();
    let mut answered = 0;
    for client in &clients {
        let mut socket = client;
        socket.write_all(b"hello").expect("it has room");
    }
    // Half of them go to the other, and more when the first has no room left.
    let begin = Instant::now();
    while answered <= 500 && begin.elapsed() < PATIENCE {
        answered = clients
            .iter()
            .filter(|it| {
                it.set_nonblocking(true).expect("a socket can");
                it.peek(&mut [0]).is_ok()
            })
            .count();
        sleep(Duration::from_millis(5));
    }
    assert!(answered > 500, "{answered} of 1,000 were answered");
    kill(Pid::from_raw(stopped), Signal::SIGCONT).expect("it lives");
    until("all are answered", || {
        clients.iter().all(|it| it.peek(&mut [0]).is_ok())
    });
    drop(clients);
    server.stop();
}

#[test]
fn what_does_not_fit_together_is_a_usage_error() {
    let processes = ["--form", "processes"];
    let cases: [(&[&str], &str); 5] = [
        (&["--accept", "shared"], "--accept belongs to --form processes"),
        (&["--workers", "2"], "--workers belongs to --form pool or processes"),
        (&["--deal", "round-robin"], "--deal belongs to --form threads or"),
        (
            &["--accept", "exclusive", "--demultiplexer", "poll"],
            "--accept exclusive needs epoll",
        ),
        (
            &["--accept", "mutex", "--demultiplexer", "epoll-et"],
            "--accept mutex needs a call that tells what is still so",
        ),
    ];
    for (args, expected) in cases {
        let both = args.len() > 2;
        let output = Command::new(env!("CARGO_BIN_EXE_reactor"))
            .args(processes.iter().filter(|_| both))
            .args(args)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

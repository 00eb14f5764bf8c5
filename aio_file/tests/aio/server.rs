//! A server of this crate as a child of a test, and clients of it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sys;

/// A server, and where it is.
pub struct Server {
    child: Child,
    addr: String,
}

/// Starts it at a free port, perhaps with a limit of its own.
pub fn start(limit: Option<(Resource, u64)>, args: &[&str]) -> Server {
    let mut child = command(args).spawn().expect("the server starts");
    if let Some((resource, limit)) = limit {
        sys::limit(&child, resource, limit);
    }
    let mut line = String::new();
    let stdout = child.stdout.take().expect("stdout is a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("its address");
    let addr = line.trim().rsplit(' ').next().expect("its address").to_owned();
    Server { child, addr }
}

/// The command line of a server at a free port.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aio_file"));
    command.args(["--addr", "127.0.0.1:0", "--watch", "off"]).args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Server {
    /// Limits it from now on.
    pub fn limit(&self, resource: Resource, limit: u64) {
        sys::limit(&self.child, resource, limit);
    }

    /// Waits until it has accepted so many clients.
    pub fn until_accepted(&self, clients: usize) {
        let begin = Instant::now();
        while self.sockets() < clients + 1 {
            assert!(begin.elapsed() < Duration::from_secs(10), "it sleeps");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn sockets(&self) -> usize {
        let fds = format!("/proc/{}/fd", self.child.id());
        let fds = fs::read_dir(fds).expect("it lives").flatten();
        let names = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        let sockets =
            |name: &PathBuf| name.to_string_lossy().starts_with("socket:");
        names.filter(sockets).count()
    }

    pub fn client(&self) -> TcpStream {
        let client = TcpStream::connect(&self.addr).expect("it accepts");
        let patience = Some(Duration::from_secs(10));
        client.set_read_timeout(patience).expect("a socket");
        client
    }

    /// Many clients at the same time, each with messages of its own; how many
    /// of them got every byte back.
    pub fn echoes(&self, clients: usize, rounds: usize, size: usize) -> usize {
        thread::scope(|scope| {
            let talk = |id: usize| {
                let client = self.client();
                move || talk(client, id, rounds, size)
            };
            let clients: Vec<_> =
                (0..clients).map(|id| scope.spawn(talk(id))).collect();
            let done = clients.into_iter().map(|it| it.join().expect("ends"));
            done.filter(|done| *done).count()
        })
    }

    /// Tells it to stop; its last line, or panics if it does not end well.
    pub fn stop(mut self) -> String {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, Signal::SIGTERM).expect("it lives");
        let status = self.child.wait().expect("it ends");
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().expect("stderr is a pipe");
        stderr.read_to_string(&mut said).expect("text");
        assert!(status.success(), "{status}, and it said {said}");
        said
    }
}

/// Whether every message came back. Anything wrong that did come is a panic.
pub fn talk(
    mut client: TcpStream,
    id: usize,
    rounds: usize,
    size: usize,
) -> bool {
    let mut echo = vec![0; size];
    for round in 0..rounds {
        let byte = |at: usize| (at * 31 + id * 7 + round) as u8;
        let message: Vec<u8> = (0..size).map(byte).collect();
        let sent = client.write_all(&message);
        if sent.and_then(|()| client.read_exact(&mut echo)).is_err() {
            return false;
        }
        assert!(echo == message, "client {id} got other bytes");
    }
    client.shutdown(Shutdown::Write).is_ok()
        && client.read(&mut echo).is_ok_and(|n| n == 0)
}

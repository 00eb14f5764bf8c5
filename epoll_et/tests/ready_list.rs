//! What only edge triggering promises: a descriptor whose budget is spent goes
//! on a local ready list, and stands on it once however often it is reported.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CLIENTS: usize = 4;
const SENT: usize = 4 << 20;

#[test]
fn a_descriptor_has_one_turn_in_a_batch() {
    let record = format!("{}/ready_list.json", env!("CARGO_TARGET_TMPDIR"));
    let mut server = Command::new(env!("CARGO_BIN_EXE_epoll_et"))
        .args(["--addr", "127.0.0.1:0", "--buffer", "1KiB"])
        .args(["--watch", "json", "--watch-file", &record])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    let stdout = server.stdout.take().expect("stdout is a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("its address");
    let addr = line.trim().rsplit(' ').next().expect("its address").to_owned();

    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let socket = TcpStream::connect(&addr).expect("it accepts");
            let mut sender = socket.try_clone().expect("a descriptor");
            thread::spawn(move || {
                sender.write_all(&vec![7; SENT]).expect("it reads");
                sender.shutdown(Shutdown::Write).expect("FIN");
            });
            thread::spawn(move || {
                let mut echoed = Vec::new();
                (&socket).read_to_end(&mut echoed).expect("it writes");
                echoed.len()
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().expect("a client"), SENT);
    }
    let pid = Pid::from_raw(server.id() as i32);
    kill(pid, Signal::SIGTERM).expect("it lives");
    assert!(server.wait().expect("it ends").success());

    let record = fs::read_to_string(&record).expect("the record");
    let lists = record.split("\"ready\":[").skip(1);
    let lists = lists.map(|rest| rest.split(']').next().unwrap_or_default());
    let mut left = 0;
    for list in lists.filter(|list| !list.is_empty()) {
        let mut fds: Vec<&str> = list.split(',').collect();
        let named = fds.len();
        fds.sort_unstable();
        fds.dedup();
        assert_eq!(fds.len(), named, "one descriptor twice in [{list}]");
        left += usize::from(named > 1);
    }
    assert!(left > 0, "no wait found several clients: nothing was shown");
}

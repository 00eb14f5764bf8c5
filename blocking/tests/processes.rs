//! What only a process for each client promises: children end with their
//! parent, even if it is killed and can tell them nothing.

mod start;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use start::start;

fn echoing_client(addr: &str) -> TcpStream {
    let mut socket = TcpStream::connect(addr).expect("it accepts");
    socket.write_all(b"hello").expect("it reads");
    let mut echoed = [0; 5];
    socket.read_exact(&mut echoed).expect("it echoes");
    socket
}

/// The processes whose parent is `pid`, zombies included.
fn children_of(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|child| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat"));
            // pid (name) state parent …
            let stat = stat.unwrap_or_default();
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            rest.split_whitespace().nth(1) == Some(&pid.to_string())
        })
        .collect()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(5), "not so: {what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn children_end_with_a_parent_that_is_killed() {
    let (mut server, addr) = start(&["--per", "process"]);
    let clients: Vec<_> = (0..3).map(|_| echoing_client(&addr)).collect();
    let children = children_of(server.id());
    assert_eq!(children.len(), 3, "one child for each client");

    server.kill().expect("it lives");
    server.wait().expect("it was a child of ours");
    for mut client in clients {
        let rest = client.read(&mut [0; 1]).expect("FIN, and no reset");
        assert_eq!(rest, 0);
    }
    wait_until("the children end", || {
        let mut children = children.iter();
        children.all(|child| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat"));
            // Who adopts them may take a while to wait for them.
            stat.map_or(true, |stat| stat.contains(") Z "))
        })
    });
}

#[test]
fn a_child_that_has_ended_is_no_zombie_though_nobody_comes() {
    let (mut server, addr) = start(&["--per", "process"]);
    for _ in 0..20 {
        drop(echoing_client(&addr));
    }
    let pid = server.id();
    wait_until("no child is left", || children_of(pid).is_empty());
    server.kill().expect("it lives");
    server.wait().expect("it was a child of ours");
}

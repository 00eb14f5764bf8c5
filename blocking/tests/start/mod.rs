//! A server of this crate as a child of a test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Starts it at a free port, and returns it with its address.
pub fn start(args: &[&str]) -> (Child, String) {
    let mut server = Command::new(env!("CARGO_BIN_EXE_blocking"))
        .args(["--addr", "127.0.0.1:0", "--watch", "off"])
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    let stdout = server.stdout.take().expect("stdout is a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("its address");
    let addr = line.trim().rsplit(' ').next().expect("its address").to_owned();
    (server, addr)
}

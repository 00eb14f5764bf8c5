//! RFC 862 over UDP.

mod start;

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use start::Server;

fn client(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).expect("a free port");
    let limit = Some(Duration::from_secs(5));
    socket.set_read_timeout(limit).expect("a time limit");
    socket
}

#[test]
fn each_datagram_comes_back_whole() {
    for delivery in ["sigwait", "handler"] {
        for signal in ["realtime", "sigio"] {
            let args = ["--udp", "--delivery", delivery, "--signal", signal];
            let server = Server::start(&args);
            let client = client("127.0.0.1:0");
            // 65,507 is the most that IPv4 has room for.
            for size in [0, 1, 1000, 65_507] {
                let sent: Vec<u8> = (0..size).map(|at| at as u8).collect();
                client.send_to(&sent, &server.addr).expect("it is sent");
                let mut echoed = vec![0; 65_535];
                let (n, from) =
                    client.recv_from(&mut echoed).expect("an answer");
                assert_eq!(from.to_string(), server.addr);
                assert!(echoed[..n] == sent, "{n} of {size} bytes");
            }
            let said = server.stop();
            assert!(said.contains("4 datagrams answered"), "{said}");
        }
    }
}

#[test]
fn a_burst_is_answered_in_its_order() {
    let server = Server::start(&["--udp"]);
    let client = client("127.0.0.1:0");
    for round in 0..20u8 {
        for at in 0..20u8 {
            client.send_to(&[round, at], &server.addr).expect("it is sent");
        }
        for at in 0..20u8 {
            let mut echoed = [0; 2];
            client.recv_from(&mut echoed).expect("an answer");
            assert_eq!(echoed, [round, at]);
        }
    }
    server.stop();
}

#[test]
fn a_service_is_not_answered() {
    // Only root may take such a port; elsewhere the unit test has to do.
    let service = |port| UdpSocket::bind(("127.0.0.3", port)).ok();
    let Some(service) = (512..1024).find_map(service) else {
        println!("SKIPPED: no port below 1,024 may be taken");
        return;
    };
    let server = Server::start(&["--udp"]);
    service.send_to(b"echo?", &server.addr).expect("it is sent");
    // An answer to a later one shows that the first was passed over.
    let client = client("127.0.0.1:0");
    client.send_to(b"later", &server.addr).expect("it is sent");
    let mut echoed = [0; 9];
    assert_eq!(client.recv_from(&mut echoed).expect("an answer").0, 5);
    service.set_nonblocking(true).expect("it does not wait");
    assert!(service.recv_from(&mut echoed).is_err(), "it was answered");
    let said = server.stop();
    assert!(said.contains("1 datagram not answered"), "{said}");
}

#[test]
fn other_machines_must_be_allowed() {
    let run = |args: &[&str]| {
        let mut server = Command::new(env!("CARGO_BIN_EXE_signal_driven"));
        server.args(args).output().expect("it runs")
    };
    let output = run(&["--udp", "--addr", "0.0.0.0:0"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("0.0.0.0:0") && said.contains("--allow-remote"));
    let output = run(&["--allow-remote"]);
    assert_eq!(output.status.code(), Some(2), "only with --udp");
    Server::start_at("0.0.0.0:0", &["--udp", "--allow-remote"]).stop();
}

//! A request goes out in two small writes, and each answer takes 40 ms.
//!
//! Symptom: every exchange takes 40 ms, on an idle machine and the fastest
//! network too. The same bytes in one write take microseconds.
//!
//! Cause: two rules wait for each other. Nagle's algorithm (RFC 896; tcp(7),
//! TCP_NODELAY) holds a small segment back while an earlier one has not been
//! acknowledged. The receiver delays that (RFC 1122, 4.2.3.2): it would like
//! to send it along with its answer, and has none before the rest is there.
//!
//! Fix: hand over the whole request at once, by writev(2) if its parts lie
//! apart, or set TCP_NODELAY. Every server here does, on its listener, from
//! which accepted sockets have it too: echo/src/listener.rs.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use pitfall::{Shown, pitfall, say};

const HEADER: [u8; 4] = 60u32.to_be_bytes();
const BODY: [u8; 60] = [b'.'; 60];
const EXCHANGES: usize = 12;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    let (client, server) = pair()?;
    against_one_write(client, server)
}

fn mended() -> Result<Shown> {
    let (client, server) = pair()?;
    client.set_nodelay(true)?;
    against_one_write(client, server)
}

/// Two writes a request with this client and one write with another, turn by
/// turn, so that whatever else the machine does hits both.
fn against_one_write(
    mut client: TcpStream,
    server: TcpStream,
) -> Result<Shown> {
    let (mut other, its_server) = pair()?;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for socket in [server, its_server] {
        thread::spawn(move || serve(socket));
    }
    let whole = [HEADER.as_slice(), &BODY].concat();
    for _ in 0..EXCHANGES {
        one.push(exchange(&mut other, &[&whole])?);
        two.push(exchange(&mut client, &[&HEADER, &BODY])?);
    }
    let (one, two) = (median(one), median(two));
    let ratio = two.as_secs_f64() / one.as_secs_f64();
    say!("answer after one write of 64 bytes:    {one:.1?}");
    say!("answer after writes of 4 and 60 bytes: {two:.1?}");
    say!("medians of {EXCHANGES} exchanges each; ratio {ratio:.0}");
    Ok(Shown::symptom_if(ratio > 20.0))
}

/// Sends a request in these writes, and takes the answer.
fn exchange(client: &mut TcpStream, writes: &[&[u8]]) -> Result<Duration> {
    let begin = Instant::now();
    for bytes in writes {
        client.write_all(bytes)?;
    }
    client.read_exact(&mut [0])?;
    Ok(begin.elapsed())
}

/// Answers each request once all of it is there, until its client has gone.
fn serve(mut socket: TcpStream) -> io::Result<()> {
    loop {
        socket.read_exact(&mut [0; HEADER.len()])?;
        socket.read_exact(&mut [0; BODY.len()])?;
        socket.write_all(b"!")?;
    }
}

fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

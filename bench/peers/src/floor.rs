//! The least that N connections can cost one thread: recv from each in turn,
//! send to it, and never a question who is ready.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result};

pub const HELP: &str = "\
What it is: one thread that takes exactly N clients and goes round them in the \
order in which they came, with a blocking recv and a blocking send for each. \
It does per message what every server must do, and nothing else: it never \
finds out who is ready. So it is the least that a readiness server of N \
connections can cost; with N = 1 it is the ping-pong.

What it is not: a server. A client that says nothing holds up all the others, \
further ones are refused once it has its N, and it ends when one of them \
closes. Ask it with N clients that all wait for an answer and then send again.";

pub fn serve(
    listener: TcpListener,
    buffer: usize,
    connections: usize,
) -> Result<()> {
    let accepted = (0..connections).map(|_| Ok(listener.accept()?.0));
    let accepted: Result<Vec<TcpStream>> = accepted.collect();
    let mut clients = accepted.context("accept")?;
    drop(listener);
    let mut bytes = vec![0; buffer];
    loop {
        for client in &mut clients {
            match echo(client, &mut bytes) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(err) => match err.kind() {
                    // Its turn comes again in the next round.
                    ErrorKind::Interrupted => {}
                    // To reset is to close as well.
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                        return Ok(());
                    }
                    _ => return Err(err).context("a client"),
                },
            }
        }
    }
}

fn echo(client: &mut TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    let n = client.read(bytes)?;
    client.write_all(&bytes[..n])?;
    Ok(n)
}

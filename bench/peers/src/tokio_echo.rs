//! Echo as a user of tokio writes it: a task for each client, which reads and
//! then writes all of it. A client that does not read is not read from either.

use std::io;
use std::net;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use crate::{PAUSE, is_of_one_client};

/// All tasks on the thread that calls.
pub fn on_one_thread(listener: net::TcpListener, buffer: usize) -> Result<()> {
    run(Builder::new_current_thread().enable_all().build(), listener, buffer)
}

/// As many workers as there are cores that this process may use.
pub fn on_many(listener: net::TcpListener, buffer: usize) -> Result<()> {
    run(Builder::new_multi_thread().enable_all().build(), listener, buffer)
}

fn run(
    runtime: io::Result<Runtime>,
    listener: net::TcpListener,
    buffer: usize,
) -> Result<()> {
    let runtime = runtime.context("cannot start tokio")?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        // Accepting is a task like the others: what block_on is given runs
        // on the calling thread, beside the workers and not among them.
        tokio::spawn(accept(listener, buffer)).await?;
        Ok(())
    })
}

async fn accept(listener: TcpListener, buffer: usize) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Its error ends this client, and is nobody else's.
                tokio::spawn(echo(stream, buffer));
            }
            Err(err) if is_of_one_client(&err) => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    let mut bytes = vec![0; buffer];
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            n => stream.write_all(&bytes[..n]).await?,
        }
    }
}

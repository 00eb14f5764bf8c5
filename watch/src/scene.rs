//! The scene: three clients that do the same, at the same times, with every
//! server. The quick one comes last, so that whoever serves one client at a
//! time is seen to make it wait.

use std::net::SocketAddr;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bench::harness::{Client, Connect, connect};

/// How many bytes a message has.
pub const SIZE: usize = 64;
/// How many messages client 1 sends, each once the one before is echoed.
pub const MESSAGES: usize = 20;
/// How long client 1 thinks before its second message: long enough for every
/// server that sleeps to be asleep again.
pub const THINKS: Duration = Duration::from_millis(2);
/// How much longer it thinks before its last one. A server that looks once in
/// a while must not be met at the same moment of its round each time.
pub const THINKS_LONGER: Duration = Duration::from_millis(1);
/// How many messages are echoed in all: client 2 sends one.
pub const ECHOED: usize = MESSAGES + 1;

/// When somebody does something, counted from the beginning.
pub mod at {
    use std::time::Duration;

    /// Client 2 connects and sends half a message.
    pub const PAUSER_COMES: Duration = Duration::ZERO;
    /// Client 3 connects, and stays silent.
    pub const SILENT_COMES: Duration = Duration::from_millis(50);
    /// Client 1 connects and talks at once.
    pub const TALKER_COMES: Duration = Duration::from_millis(100);
    /// From here on nobody speaks for a while.
    pub const QUIET: Duration = Duration::from_millis(200);
    /// Client 2 sends the other half, and leaves when it is echoed.
    pub const PAUSER_RESUMES: Duration = Duration::from_millis(300);
    /// Client 3 leaves.
    pub const SILENT_LEAVES: Duration = Duration::from_millis(400);
    /// Client 1 leaves, if it is not still waiting for an echo.
    pub const TALKER_LEAVES: Duration = Duration::from_millis(500);
}

/// What the clients saw.
pub struct Played {
    /// From client 1's connect to the first byte that came back.
    pub talker_first: Duration,
    /// From sending a message to having it back, of client 1's messages but
    /// the first, on average.
    pub talker_echo: Duration,
    /// When client 1 had its first echo, counted from the beginning.
    pub talker_answered: Duration,
    /// From client 2's connect to the first byte that came back.
    pub pauser_first: Duration,
    /// When client 3 began to leave, counted from the beginning.
    pub silent_left: Duration,
}

/// Plays the scene with the server at `addr`; calls `quiet` when all clients
/// are there and nobody speaks.
pub fn play<T>(
    addr: SocketAddr,
    quiet: impl FnOnce() -> T,
) -> Result<(Played, T)> {
    let begin = Instant::now();
    thread::scope(|scope| {
        let pauser = scope.spawn(move || pauser(addr, begin));
        let silent = scope.spawn(move || silent(addr, begin));
        let talker = scope.spawn(move || talker(addr, begin));
        until(begin, at::QUIET);
        let seen = quiet();
        let pauser_first = joined(pauser).context("client 2, which pauses")?;
        let silent_left = joined(silent).context("client 3, the silent")?;
        let talk = joined(talker).context("client 1, which talks")?;
        let played = Played {
            talker_first: talk.first,
            talker_echo: talk.echo,
            talker_answered: talk.answered,
            pauser_first,
            silent_left,
        };
        Ok((played, seen))
    })
}

struct Talk {
    first: Duration,
    echo: Duration,
    answered: Duration,
}

fn talker(addr: SocketAddr, begin: Instant) -> Result<Talk> {
    until(begin, at::TALKER_COMES);
    let coming = Instant::now();
    let mut client = come(1, addr)?;
    client.round_trip(SIZE)?;
    let (first, answered) = (coming.elapsed(), begin.elapsed());
    let (mut echoes, later) = (Duration::ZERO, MESSAGES as u32 - 1);
    for n in 0..later {
        thread::sleep(THINKS + THINKS_LONGER * n / (later - 1));
        echoes += client.round_trip(SIZE)?;
    }
    until(begin, at::TALKER_LEAVES);
    client.finish()?;
    Ok(Talk { first, echo: echoes / later, answered })
}

fn pauser(addr: SocketAddr, begin: Instant) -> Result<Duration> {
    until(begin, at::PAUSER_COMES);
    let coming = Instant::now();
    let mut client = come(2, addr)?;
    client.round_trip(SIZE / 2)?;
    let first = coming.elapsed();
    until(begin, at::PAUSER_RESUMES);
    client.round_trip(SIZE - SIZE / 2)?;
    client.finish()?;
    Ok(first)
}

fn silent(addr: SocketAddr, begin: Instant) -> Result<Duration> {
    until(begin, at::SILENT_COMES);
    let client = come(3, addr)?;
    until(begin, at::SILENT_LEAVES);
    let left = begin.elapsed();
    client.finish()?;
    Ok(left)
}

fn come(id: u32, addr: SocketAddr) -> Result<Client> {
    Ok(Client::new(id, connect(addr, &Connect::default())?))
}

fn until(begin: Instant, at: Duration) {
    thread::sleep(at.saturating_sub(begin.elapsed()));
}

fn joined<T>(client: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    client.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked")))
}

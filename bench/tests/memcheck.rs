//! Where the kernel, a signal handler or another thread writes into a server's
//! memory, no compiler sees whether that memory is still there: these servers
//! run under valgrind's memcheck, and a session ends without a complaint.

use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::harness::{Client, PATIENCE, Server, Start, Target};
use bench::models::{MODELS, Model};
use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::Signal;

/// The packages whose memory others write into.
const SHARED: &[&str] = &["signal_driven", "aio_file", "proactor"];

/// How memcheck tells of an access to memory that is not the server's, or of
/// memory that it lost.
const FAILS: i32 = 99;

fn main() -> ExitCode {
    bench::serve_if_asked();
    if std::env::args().nth(1).as_deref() == Some(LEAK) {
        std::mem::forget(std::hint::black_box(vec![1; 100]));
        return ExitCode::SUCCESS;
    }
    let mut args = Arguments::from_args();
    // Half of the time they wait.
    args.test_threads = Some(args.test_threads.unwrap_or(4).min(4));
    let rows = MODELS.iter().filter(|row| SHARED.contains(&row.binary));
    let mut trials = vec![trial("a_leak_is_noticed".to_owned(), || {
        let leak = memcheck(&format!("{} {LEAK}", this_program()));
        let status = Command::new("sh").arg("-c").arg(leak).output()?.status;
        ensure!(status.code() == Some(FAILS), "it ended with {status}");
        Ok(())
    })];
    trials.extend(rows.map(|model| {
        let name = format!("{}::memory_is_its_own", model.name);
        trial(name, || memory_is_its_own(model))
    }));
    libtest_mimic::run(&args, trials).exit_code()
}

/// Makes this program lose some memory, and nothing else.
const LEAK: &str = "leak";

fn trial(
    name: String,
    test: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    let shown = name.clone();
    Trial::test(name, move || {
        match Command::new("valgrind").arg("--version").output() {
            Err(_) => println!("{shown} SKIPPED: valgrind is not installed"),
            Ok(_) => test().map_err(|error| format!("{error:#}"))?,
        }
        Ok(())
    })
}

/// This very program, even if its file has been replaced since.
fn this_program() -> String {
    format!("/proc/{}/exe", std::process::id())
}

/// A line for the shell that runs another under memcheck.
fn memcheck(line: &str) -> String {
    format!(
        "exec valgrind -q --error-exitcode={FAILS} --leak-check=full \
         --show-leak-kinds=definite,indirect \
         --errors-for-leak-kinds=definite,indirect {line}"
    )
}

fn memory_is_its_own(model: &Model) -> Result<()> {
    let exe = this_program();
    let line =
        format!("{exe} serve {} --addr {{addr}} --watch off", model.name);
    let target = Target::Command(memcheck(&line));
    // It begins slowly, and beside others still more so.
    let patience = Some(4 * PATIENCE);
    let start = Start { patience, ..Start::default() };
    let mut server = Server::start(&target, &start)?;
    session(&server).context("the session")?;
    // One client stays, and one is in the middle of something.
    let mut clients = server.clients(2)?;
    clients[0].round_trip(10)?;
    clients[1].send(100_000)?;
    server.signal(Signal::SIGTERM)?;
    let status = server.wait_exit(2 * PATIENCE)?;
    let said = server.stderr();
    ensure!(
        status.code() != Some(FAILS),
        "memcheck complains: {}",
        said.lines().take(30).collect::<Vec<_>>().join("\n")
    );
    ensure!(status.success(), "the server ended with {status}: {said}");
    Ok(())
}

/// Many clients at once, messages larger than any buffer, a half-close, a
/// reset in mid-message, a client that stays silent; then the threads that are
/// not needed any more have time to end.
fn session(server: &Server) -> Result<()> {
    let mut clients: Vec<Client> = server.clients(20)?;
    for round in 1..4 {
        for client in &mut clients {
            client.send(round * 700)?;
        }
        for client in &mut clients {
            client.receive(round * 700)?;
        }
    }
    let silent = clients.pop();
    let mut big = clients.pop().context("a client")?;
    big.round_trip(200_000)?;
    big.finish()?;
    let mut gone = clients.pop().context("a client")?;
    gone.send(50_000)?;
    gone.reset()?;
    for client in clients {
        client.finish()?;
    }
    sleep(Duration::from_millis(1200));
    server.client(30)?.round_trip(100)?;
    drop(silent);
    Ok(())
}

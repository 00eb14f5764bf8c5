//! Watching is true: each server runs under strace while it is watched, and
//! the two records are held against each other, thread by thread and call by
//! call.
//!
//! Every call of the kernel's record that touches a socket or an epoll set,
//! sleeps, or makes a process must stand in the server's own record, in the
//! same place and with the same result, and the other way round. `KERNEL` says
//! under which names, `LEFT_OUT` and `NO_CALL` what is not compared, and why.

mod cpu;
mod live;
mod operations;
mod queues;
mod signals;
#[path = "../strace/mod.rs"]
mod strace;

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bench::harness::{
    CLOSE_WAIT, Client, Connect, ESTABLISHED, PATIENCE, Server, pump,
    sockets_of, unread_by_server,
};
use bench::models::{MODELS, Model};
use cpu::Cpu;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use signals::{is_signal, siginfo, signal};
use strace::{Traced, Tracing, number};

/// The function that a server calls, and the kernel's names for it.
const KERNEL: &[(&str, &[&str])] = &[
    ("F_SETFL", &["fcntl", "fcntl64"]),
    ("F_SETOWN_EX", &["F_SETOWN_EX"]),
    ("F_SETSIG", &["F_SETSIG"]),
    ("accept4", &["accept4"]),
    ("bind", &["bind"]),
    ("clock_nanosleep", &["clock_nanosleep"]),
    ("close", &["close"]),
    ("epoll_ctl", &["epoll_ctl"]),
    ("epoll_wait", &["epoll_wait", "epoll_pwait"]),
    ("fcntl", &["fcntl", "fcntl64"]),
    ("fork", &["clone", "clone3", "fork", "vfork"]),
    ("getsockname", &["getsockname"]),
    ("io_uring_enter", &["io_uring_enter"]),
    ("io_uring_register", &["io_uring_register"]),
    ("io_uring_setup", &["io_uring_setup"]),
    ("listen", &["listen"]),
    ("poll", &["poll", "ppoll"]),
    ("ppoll", &["ppoll", "ppoll_time64"]),
    ("read", &["read"]),
    ("recv", &["recvfrom"]),
    ("recvmsg", &["recvmsg"]),
    ("select", &["select", "pselect6"]),
    ("send", &["sendto"]),
    ("sendmsg", &["sendmsg"]),
    ("setsockopt", &["setsockopt"]),
    ("shutdown", &["shutdown"]),
    ("sigtimedwait", &["rt_sigtimedwait", "rt_sigtimedwait_time64"]),
    ("socket", &["socket"]),
    ("socketpair", &["socketpair"]),
    ("write", &["write"]),
];

/// Calls of the kernel's record that are not the model's: the name, what their
/// arguments contain (`LISTENER`: begin with the listener), and why.
const LEFT_OUT: &[(&str, &str, &str)] = &[
    ("fcntl", "F_GETFD", "std's debug builds look before every close"),
    ("close", LISTENER, "echo's at a stop; a forked child's at once"),
    ("shutdown", LISTENER, "the stop's signal handler wakes accept"),
    ("setsockopt", "SO_RCVTIMEO", "the stop's signal handler hurries calls"),
    ("setsockopt", "SO_SNDTIMEO", "the stop's signal handler hurries calls"),
    ("close", "[eventpoll]", "the set is dropped after the last wait"),
    ("clock_nanosleep", "CLOCK_REALTIME", "std's sleep, while a stop waits"),
    ("clone3", "CLONE_THREAD", "std starts a thread: memory and the kernel"),
    ("clone", "CLONE_THREAD", "the same on older systems"),
];

const LISTENER: &str = "LISTENER";

/// What a server records although the kernel's record has no such call, or
/// only sometimes, and why.
const NO_CALL: &[(&str, &str)] = &[
    ("Condvar::wait", "std sleeps in futex only if it has to"),
    ("aio_suspend", "glibc sleeps in futex only if it has to"),
    ("fork = 0", "fork returns a second time, in the child"),
    ("kill", "it is about a process, and touches no descriptor"),
    ("waitpid", "the same; it does not sleep"),
];

fn main() -> ExitCode {
    bench::serve_if_asked();
    let mut args = Arguments::from_args();
    args.test_threads = Some(args.test_threads.unwrap_or(2).min(2));
    let mut trials = vec![
        Trial::test("strace_is_read_right", strace_is_read_right),
        Trial::test("a_lie_is_noticed", a_lie_is_noticed),
        Trial::test("live::who_sleeps", || live::who_sleeps().map_err(failed)),
        Trial::test("live::how_far_a_round_is", || {
            live::how_far_a_round_is().map_err(failed)
        }),
    ];
    trials.extend(MODELS.iter().map(|model| {
        Trial::test(format!("{}::watching_is_true", model.name), move || {
            match strace::missing() {
                None => Ok(watching_is_true(model).map_err(failed)?),
                Some(why) => {
                    println!("{}::watching_is_true SKIPPED: {why}", model.name);
                    Ok(())
                }
            }
        })
    }));
    libtest_mimic::run(&args, trials).exit_code()
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

/// One call, as both records tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    call: String,
    fd: Option<i64>,
    result: Result<i64, String>,
    /// Of a wait for descriptors: which came out ready, in ascending order.
    ready: Option<Vec<i64>>,
    /// Of a wait: it did not sleep, because the server's own list was not
    /// empty, and its descriptors are ready too (epoll_et: those whose budget
    /// was over; signal_driven: also those that signals named). The kernel
    /// does not know of them.
    carries: bool,
    /// Of io_uring_enter: how many submissions it was to take.
    submits: Option<i64>,
}

impl Default for Step {
    fn default() -> Self {
        Step {
            call: String::new(),
            fd: None,
            result: Ok(0),
            ready: None,
            carries: false,
            submits: None,
        }
    }
}

/// The calls of each thread, in their order.
type Record = BTreeMap<i32, Vec<Step>>;

fn watching_is_true(model: &Model) -> Result<()> {
    // With a large buffer it does not take many calls to fill a socket's.
    let watch = "--buffer 256KiB --watch json --watch-every --watch-limit 1GiB \
                 --watch-file {folder}/watch";
    let mut tracing = Tracing::start(model, watch)?;
    let spoken = session(&tracing.server, model).context("the session")?;
    let tasks = queues::threads_of_the_kernel(tracing.server.pid)?;
    let threads = tracing.stop()?;
    let text = fs::read_to_string(tracing.folder.path().join("watch"))?;
    let Told { record: told, listener, own, operations, queued, cpu } =
        told(&text)?;
    ensure!(
        cpu.slept() || model.limits.burns_core,
        "every long call is said to have been on a CPU"
    );
    let through_file = model.binary == "aio_file";
    ensure!(
        !through_file || operations.len() > 100,
        "{} operations show little",
        operations.len()
    );
    operations::compare(&operations, &threads)?;
    operations::every_lie_is_noticed(&operations, &threads)?;
    let signals = told.values().flatten().any(is_signal);
    let kernel = kernel(&threads, listener, &own, signals)?;
    let held = queues::Held {
        spoken: &spoken,
        threads: &tasks,
        by_kernel: enters(&kernel),
        by_others: !operations.is_empty(),
    };
    queues::compare(&queued, &held)?;
    queues::every_lie_is_noticed(&queued, &held)?;
    let steps: usize = kernel.values().map(Vec::len).sum();
    let steps = steps + queued.len();
    ensure!(steps > 100, "a session of {steps} calls shows little");
    match through_socket(&operations) {
        true => operations::ensure_rich(&operations)?,
        false => ensure_rich(&kernel, &threads, &queued, model)?,
    }
    compare(&told, &kernel)?;
    every_lie_is_noticed(&told, &kernel)
}

fn enters(kernel: &Record) -> bool {
    kernel.values().flatten().any(|step| step.call == "io_uring_enter")
}

/// Whether these operations are about sockets, which have no places.
fn through_socket(operations: &[Value]) -> bool {
    operations.iter().any(|it| it.get("offset").is_none())
}

/// Clients one after another and at the same time, with small and large
/// messages, short writes, half-closes, resets, and an end without a byte. All
/// have left when it returns.
fn session(server: &Server, model: &Model) -> Result<Vec<Spoken>> {
    let at_once = model.limits.clients.unwrap_or(5).min(5);
    // The first came to see whether the server was there.
    let mut spoken = vec![Spoken { sent: 0, received: 0, whole: true }];
    for (id, size) in [(0, 1), (1, 10_000), (2, 100_000)] {
        let mut client = server.client(id)?;
        client.round_trip(size)?;
        spoken.push(Spoken::whole(&client));
        client.finish()?;
    }
    // At the same time, as far as the model goes; the others wait.
    let mut clients: Vec<Client> = server.clients(5)?;
    for group in clients.chunks_mut(at_once) {
        for _ in 0..3 {
            for client in group.iter_mut() {
                client.send(64)?;
            }
            for client in group.iter_mut() {
                client.receive(64)?;
            }
        }
        for client in group {
            client.finish_sending()?;
            client.drain()?;
        }
    }
    spoken.extend(clients.iter().map(Spoken::whole));
    drop(clients);
    spoken.push(slow_reader(server)?);
    // Resets: with nothing under way, and with an echo that nobody read.
    let mut client = server.client(7)?;
    client.round_trip(100)?;
    spoken.push(Spoken::whole(&client));
    client.reset()?;
    let mut client = server.client(8)?;
    client.send(50_000)?;
    client.receive(1)?;
    spoken.push(Spoken { whole: false, ..Spoken::whole(&client) });
    client.reset()?;
    let client = server.client(9)?;
    spoken.push(Spoken::whole(&client));
    drop(client);
    let deadline = Instant::now() + PATIENCE;
    let addr = server.addr;
    while sockets_of(addr, ESTABLISHED) + sockets_of(addr, CLOSE_WAIT) > 0 {
        ensure!(Instant::now() < deadline, "the clients do not leave");
        sleep(Duration::from_millis(5));
    }
    // The server has closed the last one; a thread of its own may just be on
    // its way back to its queue.
    sleep(Duration::from_millis(50));
    Ok(spoken)
}

/// What a client of the session sent and received, in the order in which they
/// connected, which is that in which they are accepted.
#[derive(Clone, Copy)]
struct Spoken {
    sent: u64,
    received: u64,
    /// It received all of its bytes before it left.
    whole: bool,
}

impl Spoken {
    fn whole(client: &Client) -> Self {
        let (sent, received) = (client.sent, client.received);
        Spoken { sent, received, whole: true }
    }
}

/// Sends until the server takes nothing more, because nothing is read, and
/// then reads all of it.
fn slow_reader(server: &Server) -> Result<Spoken> {
    let small = Connect { receive_buffer: Some(4096), ..Connect::default() };
    let mut clients = [server.client_with(6, &small)?];
    let client = &mut clients[0];
    client.socket.set_nonblocking(true)?;
    let peer = client.socket.local_addr()?;
    let (mut idle, mut unread) = (0, u64::MAX);
    while idle < 50 {
        if client.write_some(64 * 1024).is_ok() {
            idle = 0;
            continue;
        }
        sleep(Duration::from_millis(2));
        idle += 1;
        // A server that is slow under strace may still be reading.
        if idle == 50 {
            let now = unread_by_server(server.addr, peer);
            idle =
                if std::mem::replace(&mut unread, now) == now { 50 } else { 0 };
        }
    }
    let goal = client.sent;
    pump(&mut clients, goal, 64 * 1024, &mut fastrand::Rng::with_seed(1))?;
    let [client] = clients;
    let spoken = Spoken::whole(&client);
    client.finish()?;
    Ok(spoken)
}

/// A session that shows none of the hard things would prove nothing of them.
fn ensure_rich(
    kernel: &Record,
    threads: &strace::Threads,
    queued: &[Value],
    model: &Model,
) -> Result<()> {
    let steps = || kernel.values().flatten();
    let through_files = |it: &&Traced| {
        let moves = matches!(&*it.call, "read" | "write");
        moves && it.args.contains("<socket:")
    };
    let dearer = threads.values().flatten().find(through_files);
    ensure!(dearer.is_none(), "recv and send cost less: {dearer:?}");
    if enters(kernel) {
        let calls = ["recvfrom", "sendto", "accept4"];
        let called = steps().find(|it| calls.contains(&&*it.call));
        ensure!(called.is_none(), "what is submitted is called: {called:?}");
        return queues::ensure_rich(queued);
    }
    let ended = steps().any(|it| it.call == "recvfrom" && it.result == Ok(0));
    ensure!(ended, "no recv met an end of stream");
    let reset = |it: &Step| matches!(&it.result, Err(e) if e == "ECONNRESET");
    ensure!(steps().any(reset), "no call met a reset");
    let short = |it: &Traced| {
        let asked = it.args.split(", ").nth(2).and_then(number);
        let fell_short = match &it.result {
            Ok(wrote) => asked.is_some_and(|asked| *wrote < asked),
            Err(error) => error == "EAGAIN",
        };
        it.call == "sendto" && fell_short
    };
    let short = threads.values().flatten().any(short);
    // A blocking send sleeps until everything has been taken.
    ensure!(short || model.sleeps_in == "recv", "no send was short");
    Ok(())
}

/// What the server says that it did.
struct Told {
    record: Record,
    listener: i64,
    /// Descriptors by which its own threads, or the kernel, tell it something.
    own: Vec<i64>,
    /// What it let others do; no calls of its own.
    operations: Vec<Value>,
    /// What went into queues, and came out of them; no calls at all.
    queued: Vec<Value>,
    cpu: Cpu,
}

/// How a server calls the descriptor that tells of operations.
const COMPLETIONS: &str = "completions";

/// How servers call descriptors that are no clients'.
const OWN: &[&str] = &[COMPLETIONS, "wake-ups"];

/// The size of what a signalfd gives for a signal (signalfd(2)).
const SIGNALFD_SIGINFO: i64 = 128;

fn told(text: &str) -> Result<Told> {
    let mut record = Record::new();
    let mut listener = None;
    let (mut own, mut operations) = (Vec::new(), Vec::new());
    let mut queued = Vec::new();
    let (mut read, mut signals) = (0, 0);
    let mut cpu = Cpu::default();
    for line in text.lines() {
        let object: Value = serde_json::from_str(line)
            .with_context(|| format!("the record's line '{line}'"))?;
        if object.get("start").is_some() {
            listener = object["listener"].as_i64();
        } else if object.get("summary").is_none() {
            let tid = object["tid"].as_i64().context("no tid")?;
            cpu.add(&object)
                .with_context(|| format!("the record's line '{line}'"))?;
            if OWN.iter().any(|name| object["peer"] == *name) {
                own.extend(object["fd"].as_i64());
            }
            if object["peer"] == COMPLETIONS {
                read += object["ret"].as_i64().unwrap_or(0);
            }
            match object["verb"].as_str() {
                Some("submit" | "complete") if object["queued"] == true => {
                    queued.push(object);
                    continue;
                }
                Some("submit" | "complete") => {
                    operations.push(object);
                    continue;
                }
                // It came out of a descriptor, as bytes: strace sees a read.
                Some("signal") if object["code"] == "SI_ASYNCIO" => {
                    signals += 1;
                    continue;
                }
                _ => {}
            }
            let step = told_step(&object)
                .with_context(|| format!("the record's line '{line}'"))?;
            let kind = match (&*step.call, &step.result) {
                ("fork", Ok(0)) => "fork = 0",
                (call, _) => call,
            };
            if !NO_CALL.iter().any(|(call, _)| *call == kind) {
                record.entry(i32::try_from(tid)?).or_default().push(step);
            }
        }
    }
    ensure!(
        signals == 0 || read == signals * SIGNALFD_SIGINFO,
        "{read} bytes were read for {signals} signals"
    );
    let listener = listener.context("the record does not name the listener")?;
    Ok(Told { record, listener, own, operations, queued, cpu })
}

fn told_step(object: &Value) -> Result<Step> {
    let call = object["call"].as_str().context("no call")?;
    if object["verb"] == "signal" {
        let code = object["code"].as_str().context("no code")?;
        let band = object["band"].as_array().context("no band")?;
        let band = band.iter().filter_map(Value::as_str);
        let band = band.collect::<Vec<_>>().join("|");
        return Ok(signal(call, code, &band, object["fd"].as_i64()));
    }
    let result = match (object["ret"].as_i64(), object["errno"].as_str()) {
        (Some(value), None) => Ok(value),
        (None, Some(error)) => Err(error.to_owned()),
        _ => bail!("neither a result nor an error, or both"),
    };
    // Who is ready is what the signals said, each a step of its own.
    let by_signal = matches!(call, "sigtimedwait" | "ppoll");
    let ready = object["ready"].as_array().filter(|_| !by_signal);
    let ready = ready.map(|it| {
        let mut ready: Vec<_> = it.iter().filter_map(Value::as_i64).collect();
        ready.sort_unstable();
        ready
    });
    // To fork is not about a descriptor: the record tells for whom it is.
    let whole = ["fork", "io_uring_enter"];
    let fd = object["fd"].as_i64().filter(|_| !whole.contains(&call));
    // Where a thread of the kernel's takes submissions, it may have taken more
    // by the time of the call.
    let enters = call == "io_uring_enter" && object.get("by").is_none();
    let submits = object["asked"].as_i64().filter(|_| enters);
    let call = call.to_owned();
    Ok(Step { call, fd, result, ready, submits, ..Step::default() })
}

/// What the kernel says, without what is left out. A model that does not hear
/// by signals does not tell of those that come.
fn kernel(
    threads: &strace::Threads,
    listener: i64,
    own: &[i64],
    signals: bool,
) -> Result<Record> {
    let mut record = Record::new();
    for (tid, calls) in threads {
        let mut steps = Vec::new();
        for it in calls {
            let moves = matches!(&*it.call, "read" | "write");
            let own =
                moves && number(&it.args).is_some_and(|fd| own.contains(&fd));
            let own = own || is_in_scope(it);
            if own && !left_out(it, listener) && !operations::is_one(it) {
                steps.push(step(it));
            }
            let takes = it.call.starts_with("rt_sigtimedwait");
            if signals && (it.call == strace::SIGNAL || takes) {
                steps.extend(siginfo(&it.args));
            }
        }
        if !steps.is_empty() {
            record.insert(*tid, steps);
        }
    }
    Ok(record)
}

/// Whether a call is one that watching must show: on a socket or an epoll set,
/// a wait, or one that makes a process.
fn is_in_scope(call: &Traced) -> bool {
    const BY_NAME: &[&str] = &[
        "clock_nanosleep",
        "clone",
        "clone3",
        "fork",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "nanosleep",
        "poll",
        "ppoll",
        "pselect6",
        "rt_sigtimedwait",
        "select",
        "socket",
        "vfork",
    ];
    call.args.contains("<socket:")
        || call.args.contains("[eventpoll]")
        || (call.call.starts_with("fcntl") && call.args.contains("[signalfd]"))
        || BY_NAME.contains(&&*call.call)
}

fn left_out(call: &Traced, listener: i64) -> bool {
    let on_listener = || call.args.starts_with(&format!("{listener}<socket:"));
    LEFT_OUT.iter().any(|(name, contains, _)| {
        let found = match *contains {
            LISTENER => on_listener(),
            text => call.args.contains(text),
        };
        call.call == *name && found
    })
}

fn step(traced: &Traced) -> Step {
    let Traced { call, args, result, note } = traced;
    let numbers_after = |text: &str, mark: &str| -> Vec<i64> {
        text.split(mark).skip(1).filter_map(number).collect()
    };
    let mut ready = match call.as_str() {
        "epoll_wait" | "epoll_pwait" => {
            let data = numbers_after(args, "u64=").into_iter();
            Some(data.map(registered_as).collect())
        }
        "poll" | "ppoll" => Some(numbers_after(note, "fd=")),
        "select" | "pselect6" => {
            let lists = note.split('[').skip(1);
            let lists = lists.filter_map(|it| it.split_once(']'));
            let words = lists.flat_map(|(list, _)| list.split(' '));
            Some(words.filter_map(number).collect())
        }
        _ => None,
    };
    if let Some(ready) = &mut ready {
        ready.sort_unstable();
        // A descriptor may be in both of select's sets.
        ready.dedup();
    }
    let carries =
        ["epoll_wait", "poll"].contains(&&**call) && args.ends_with(", 0");
    let fd = match call.as_str() {
        // The set is the first, whom it is about the third.
        "epoll_ctl" => args.split(", ").nth(2).and_then(number),
        "read" | "write" | "fcntl" | "io_uring_register" => number(args),
        _ if args.contains("<socket:") && ready.is_none() => number(args),
        _ => None,
    };
    // What fcntl is asked for makes it another call.
    let commands = ["F_SETOWN_EX", "F_SETSIG"];
    let command = commands.into_iter().find(|it| {
        call.starts_with("fcntl") && args.contains(&format!(", {it}, "))
    });
    let submits = args.split(", ").nth(1).and_then(number);
    let submits = submits.filter(|_| call == "io_uring_enter");
    // Whoever registers is told only whether that has succeeded.
    let result = match (call.as_str(), result) {
        ("io_uring_register", Ok(_)) => Ok(0),
        (_, result) => result.clone(),
    };
    let call = command.unwrap_or(call).to_owned();
    Step { call, fd, result, ready, carries, submits }
}

/// Whose an event is: servers give epoll the descriptor to keep for them, or,
/// the reactor, the descriptor in the upper half and its own number below.
fn registered_as(data: i64) -> i64 {
    match data >> 32 {
        0 => data,
        fd => fd,
    }
}

/// Holds what a server tells against what the kernel says.
fn compare(told: &Record, kernel: &Record) -> Result<()> {
    let names = |record: &Record| record.keys().copied().collect::<Vec<_>>();
    ensure!(
        names(told) == names(kernel),
        "the threads {:?} are told of, and the kernel saw {:?}",
        names(told),
        names(kernel)
    );
    for (tid, told) in told {
        let kernel = &kernel[tid];
        for (at, (told, kernel)) in told.iter().zip(kernel).enumerate() {
            ensure!(
                agree(told, kernel),
                "call {at} of thread {tid} is told as {told:?}, and the \
                 kernel saw {kernel:?}"
            );
        }
        let shorter = told.len().min(kernel.len());
        ensure!(
            told.len() == kernel.len(),
            "of thread {tid} {} calls are told, and the kernel saw {}; the \
             first without a partner is {:?}",
            told.len(),
            kernel.len(),
            told.iter().chain(kernel).nth(match told.len() > shorter {
                true => shorter,
                false => told.len() + shorter,
            })
        );
    }
    Ok(())
}

fn agree(told: &Step, kernel: &Step) -> bool {
    if is_signal(told) {
        return told == kernel;
    }
    let named = KERNEL.iter().any(|(name, names)| {
        *name == told.call && names.contains(&&*kernel.call)
    });
    let ready = match (&told.ready, &kernel.ready) {
        (None, None) => true,
        (Some(told), Some(kernel_ready)) if kernel.carries => {
            kernel_ready.iter().all(|fd| told.contains(fd))
        }
        (Some(told), Some(kernel)) => told == kernel,
        // A wait that was interrupted found nothing.
        (None, Some(kernel)) => kernel.is_empty(),
        (Some(_), None) => false,
    };
    let submits = told.submits.is_none() || told.submits == kernel.submits;
    named
        && ready
        && submits
        && told.fd == kernel.fd
        && told.result == kernel.result
}

/// The comparison is as sharp as it says: each record that differs from the
/// true one by a call that is missing, made up, changed, or in another's place
/// does not pass.
fn every_lie_is_noticed(told: &Record, kernel: &Record) -> Result<()> {
    for (tid, steps) in told {
        // All of a short record, some places of a long one.
        let stride = (steps.len() / 50).max(1);
        for at in (0..steps.len()).step_by(stride) {
            for (lie, steps) in lies(steps, at) {
                let mut record = told.clone();
                record.insert(*tid, steps);
                ensure!(
                    compare(&record, kernel).is_err(),
                    "{lie} at call {at} of thread {tid} goes unnoticed"
                );
            }
        }
    }
    Ok(())
}

/// The record with one thing wrong at `at`.
fn lies(steps: &[Step], at: usize) -> Vec<(&'static str, Vec<Step>)> {
    let lie = |change: &dyn Fn(&mut Vec<Step>)| {
        let mut steps = steps.to_vec();
        change(&mut steps);
        steps
    };
    let mut lies = vec![
        ("a call left out", lie(&|steps| drop(steps.remove(at)))),
        (
            "a call told twice",
            lie(&|steps| {
                let step = steps[at].clone();
                steps.insert(at, step);
            }),
        ),
        (
            "another result",
            lie(&|steps| {
                steps[at].result = match &steps[at].result {
                    Ok(value) => Ok(value + 1),
                    Err(_) => Err("EIO".to_owned()),
                };
            }),
        ),
        (
            "another descriptor",
            lie(&|steps| {
                steps[at].fd = Some(steps[at].fd.map_or(1, |fd| fd + 1));
            }),
        ),
        (
            "another call",
            lie(&|steps| {
                let call = &mut steps[at].call;
                *call = if call == "recv" { "send" } else { "recv" }.to_owned();
            }),
        ),
    ];
    if let Some(submits) = steps[at].submits {
        lies.push((
            "another number of submissions",
            lie(&|steps| steps[at].submits = Some(submits + 1)),
        ));
    }
    if steps.get(at + 1).is_some_and(|next| *next != steps[at]) {
        lies.push((
            "two in the wrong order",
            lie(&|steps| {
                steps.swap(at, at + 1);
            }),
        ));
    }
    let found = steps[at].result.as_ref().is_ok_and(|found| *found > 0);
    if let (true, Some(ready)) = (found, &steps[at].ready) {
        let others: Vec<i64> = ready.iter().map(|fd| fd + 100).collect();
        lies.push((
            "others that are ready",
            lie(&|steps| steps[at].ready = Some(others.clone())),
        ));
    }
    lies
}

const SAMPLE: &str = "\
epoll_ctl(5<anon_inode:[eventpoll]>, EPOLL_CTL_ADD, 7<socket:[1]>, \
{events=EPOLLIN, data={u32=7, u64=7}}) = 0
epoll_wait(5<anon_inode:[eventpoll]>, [{events=EPOLLIN, data={u32=7, u64=7}}, \
{events=EPOLLIN, data={u32=9, u64=9}}], 256, -1) = 2
write(6<pipe:[2]>, \"\"..., 322)          = 322
recvfrom(7<socket:[1]>, \"\"..., 16384, 0, NULL, NULL) = 64
sendto(7<socket:[1]>, \"\"..., 64, MSG_NOSIGNAL, NULL, 0) = -1 EAGAIN \
(Resource temporarily unavailable)
accept4(3<socket:[4]>, NULL, NULL, SOCK_CLOEXEC) = 8<socket:[5]>
fcntl(3<socket:[4]>, F_GETFD)           = 0x1 (flags FD_CLOEXEC)
close(3<socket:[4]>)                    = 0
accept4(3<socket:[4]>, NULL, NULL, 0)   = ? ERESTARTSYS (To be restarted if \
SA_RESTART is set)
--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=9} ---
--- SIGRT_2 {si_signo=SIGRT_2, si_code=0x1, si_pid=65, si_uid=0, si_int=8, \
si_ptr=0x8} ---
rt_sigtimedwait([INT TERM IO RT_2], {si_signo=SIGIO, si_code=SI_KERNEL}, \
NULL, 8) = 29 (SIGIO)
clone(child_stack=NULL, flags=SIGCHLD)  = ? ERESTARTNOINTR (To be restarted)
clone(child_stack=NULL, flags=SIGCHLD)  = 9
poll([{fd=-1}, {fd=8<socket:[5]>, events=POLLIN}], 2, -1) = 1 \
([{fd=8, revents=POLLIN}])
pselect6(9, [3<socket:[4]> 8<socket:[5]>], [], NULL, NULL, NULL) = 2 \
(in [3 8], left {tv_sec=0, tv_nsec=7})
exit_group(0)                           = ?
+++ exited with 0 +++
";

fn sample() -> Result<Vec<Step>> {
    let threads = [(1, strace::parse(SAMPLE)?)].into();
    Ok(kernel(&threads, 3, &[], true)?.remove(&1).unwrap_or_default())
}

fn strace_is_read_right() -> Result<(), Failed> {
    let steps = sample().map_err(failed)?;
    let shown: Vec<String> = steps
        .iter()
        .map(|Step { call, fd, result, ready, .. }| {
            let fd = fd.map_or("-".to_owned(), |fd| fd.to_string());
            let ready = ready.as_ref().map(|it| format!(" {it:?}"));
            let ready = ready.unwrap_or_default();
            match result {
                Ok(value) => format!("{call} {fd} {value}{ready}"),
                Err(error) => format!("{call} {fd} {error}{ready}"),
            }
        })
        .collect();
    let expected = [
        "epoll_ctl 7 0",
        "epoll_wait - 2 [7, 9]",
        "recvfrom 7 64",
        "sendto 7 EAGAIN",
        "accept4 3 8",
        "accept4 3 EINTR",
        "SIGRTMIN POLL_IN POLLIN|POLLRDNORM 8 0",
        "rt_sigtimedwait - 29",
        "SIGIO SI_KERNEL  - 0",
        "clone - 9",
        "poll - 1 [8]",
        "pselect6 - 2 [3, 8]",
    ];
    let halves = "<... recvfrom resumed>\"\"..., 16384, 0, NULL, NULL) = 64";
    match () {
        _ if shown != expected => Err(format!("read as {shown:#?}").into()),
        _ if strace::parse(halves).is_ok() => {
            Err("half a call is taken for a whole one".into())
        }
        _ => Ok(()),
    }
}

fn a_lie_is_noticed() -> Result<(), Failed> {
    let steps = sample().map_err(failed)?;
    let kernel = Record::from([(1, steps.clone())]);
    let mut told = steps;
    for step in &mut told {
        if is_signal(step) {
            continue;
        }
        let library =
            KERNEL.iter().find(|(_, names)| names.contains(&&*step.call));
        step.call = library.map_or("?", |(name, _)| *name).to_owned();
    }
    let told = Record::from([(1, told)]);
    compare(&told, &kernel).map_err(failed)?;
    if compare(&Record::new(), &kernel).is_ok() {
        return Err("a thread left out goes unnoticed".into());
    }
    every_lie_is_noticed(&told, &kernel).map_err(failed)
}

//! What the live view knows of real servers: from their record, from the
//! kernel, and from their own memory while they sleep.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bench::harness::{Client, PATIENCE, Server, Start, Target};
use bench::models;
use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::Signal;
use watch::live::kernel::{Kernel, What};
use watch::live::seen::{Descriptor, Doing, Seen, Told, Wants};
use watch::live::sets::{self, InWait};
use watch::record::{Entry, Peer};

type Test = fn() -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("half_a_message_is_shown", half_a_message_is_shown),
    ("what_is_owed_is_shown", what_is_owed_is_shown),
    ("a_sequential_server_waits_for_one", a_sequential_server_waits_for_one),
    ("a_full_server", a_full_server_does_not_wait_for_its_listener),
    ("a_dead_server_has_nothing", a_dead_server_has_nothing),
    ("sets_of_select", sets_of_select),
    ("sets_of_a_busy_select", sets_of_a_busy_select),
    ("array_of_poll", array_of_poll),
    ("interest_lists_of_epoll", interest_lists_of_epoll),
    ("signals_tell_everything", signals_tell_everything),
    ("operations_under_way", operations_under_way),
    ("queues_of_a_stopped_server", queues_of_a_stopped_server),
    ("children_come_and_go", children_come_and_go),
    ("threads_come_and_go", threads_come_and_go),
    ("a_busy_poll_does_not_flood", a_busy_poll_does_not_flood),
];

fn main() -> ExitCode {
    bench::serve_if_asked();
    let args = Arguments::from_args();
    let trials = TESTS.iter().map(|&(name, test)| {
        Trial::test(name, move || Ok(test().map_err(|it| format!("{it:#}"))?))
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}

/// A server with its record, as the live view has it.
struct Watched {
    server: Server,
    record: File,
    read: u64,
    rest: Vec<u8>,
    seen: Seen,
}

impl Watched {
    fn start(name: &str) -> Result<Watched> {
        Watched::start_with(name, &[])
    }

    fn start_with(name: &str, more: &[&str]) -> Result<Watched> {
        let model = models::find(name).with_context(|| format!("no {name}"))?;
        let record = tempfile::tempfile()?;
        let path =
            format!("/proc/{}/fd/{}", std::process::id(), record.as_raw_fd());
        let mut args =
            vec!["--watch", "json", "--watch-live", "--watch-file", &path];
        if !model.limits.burns_core {
            args.push("--watch-every");
        }
        args.extend(more);
        let start = Start::with_args(&args);
        let server = Server::start(&Target::Model(model), &start)?;
        let (rest, seen) = (Vec::new(), Seen::new());
        Ok(Watched { server, record, read: 0, rest, seen })
    }

    /// What the kernel says, after the record was read to its end.
    fn look(&mut self) -> Result<Kernel> {
        let mut bytes = [0; 64 << 10];
        loop {
            let count = self.record.read_at(&mut bytes, self.read)?;
            if count == 0 {
                break;
            }
            self.read += count as u64;
            self.rest.extend_from_slice(&bytes[..count]);
        }
        while let Some(end) = self.rest.iter().position(|it| *it == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.seen.add(Entry::read(std::str::from_utf8(&line)?.trim_end())?);
        }
        let kernel = Kernel::look(&self.server);
        self.seen.forget(&kernel.gone(self.seen.threads()));
        Ok(kernel)
    }

    /// Looks until `wanted` holds.
    fn until(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Seen, &Kernel) -> bool,
    ) -> Result<Kernel> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let kernel = self.look()?;
            if wanted(&self.seen, &kernel) {
                return Ok(kernel);
            }
            ensure!(
                Instant::now() < deadline,
                "waited for {what}; still {:?}, {:?}, {:?}",
                self.seen.threads(),
                corrected(&self.seen, &kernel),
                kernel
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Until all its threads sleep, and the record says so.
    fn rests(&mut self) -> Result<Kernel> {
        self.until("all to sleep", |seen, kernel| {
            let tasks = kernel.processes.iter().flat_map(|it| &it.threads);
            let asleep = tasks.filter(|it| it.wait.is_some()).count();
            let mut threads = seen.threads().iter();
            asleep > 0
                && asleep == threads.len()
                && threads.all(|it| in_call(&it.doing).is_some())
        })
    }

    /// Connects and is served, and the record says so.
    fn client(&mut self, id: u32) -> Result<Client> {
        let mut client = self.server.client(id)?;
        let out = self.seen.counters().bytes_out + 32;
        client.round_trip(32)?;
        self.until("an echo", |seen, _| seen.counters().bytes_out == out)?;
        Ok(client)
    }

    /// The number of the listener and of the stop descriptor, and of client 1.
    fn known(&self) -> Result<[i32; 3]> {
        let all = self.seen.descriptors();
        let fd = |peer: &Peer| {
            let mut found =
                all.iter().filter(|it| it.peer.as_ref() == Some(peer));
            found.next().map(|it| it.fd).with_context(|| format!("no {peer}"))
        };
        Ok([fd(&Peer::Listener)?, fd(&Peer::Stop)?, fd(&Peer::Client(1))?])
    }
}

fn in_call(doing: &Doing) -> Option<&str> {
    match doing {
        Doing::In { call, .. } => Some(&call.name),
        Doing::Running { .. } => None,
    }
}

fn corrected(seen: &Seen, kernel: &Kernel) -> Vec<Descriptor> {
    let mut all = seen.descriptors();
    kernel.correct(&mut all);
    all
}

/// What is waited for on all that are known, by whom they stand for.
fn wants(seen: &Seen, kernel: &Kernel) -> Vec<(String, Wants)> {
    let all = corrected(seen, kernel).into_iter();
    let all = all.filter_map(|it| Some((it.peer?.to_string(), it.waits_for)));
    all.collect()
}

fn of(expected: &[(&str, Wants)]) -> Vec<(String, Wants)> {
    let own = expected.iter().map(|(name, it)| ((*name).to_owned(), *it));
    own.collect()
}

fn wait_of(kernel: &Kernel) -> Result<&InWait> {
    let task = kernel.processes.first().and_then(|it| it.threads.first());
    task.and_then(|it| it.wait.as_ref()).context("it does not sleep")
}

/// Of client 1 the server has read, written and owes so much.
fn moved(seen: &Seen) -> Option<(u64, u64, u64)> {
    let all = seen.descriptors();
    let mut own = all.iter().filter(|it| it.peer == Some(Peer::Client(1)));
    own.next().map(|it| (it.brought, it.took_out, it.owed))
}

fn half_a_message_is_shown() -> Result<()> {
    let mut watched = Watched::start("epoll_lt")?;
    let client = watched.client(1)?;
    let kernel = watched.rests()?;
    let seen = &watched.seen;
    ensure!(moved(seen) == Some((32, 32, 0)), "{:?}", seen.descriptors());
    let doing = in_call(&seen.threads()[0].doing);
    ensure!(doing == Some("epoll_wait"), "{doing:?}");
    let expected = of(&[
        ("listener", Wants::In),
        ("stop", Wants::In),
        ("client 1", Wants::In),
    ]);
    ensure!(wants(seen, &kernel) == expected, "{:?}", wants(seen, &kernel));
    let [_, _, fd] = watched.known()?;
    let pid = watched.server.pid;
    let connection = kernel.connection(pid, fd).context("no connection")?;
    ensure!(connection.port == client.socket.local_addr()?.port());
    ensure!((connection.unread, connection.unsent) == (0, 0));
    let text = format!("recv({fd} client 1) = 32 bytes");
    let told = seen.stream().iter().find(|told| told.text == text);
    ensure!(told.is_some_and(|it| it.who == "main"), "{text} is not told");
    let wait = seen.last_wait().context("no wait")?;
    ensure!(wait.ready == [(fd, Some(Peer::Client(1)))], "{wait:?}");
    Ok(())
}

fn what_is_owed_is_shown() -> Result<()> {
    let mut watched = Watched::start("epoll_lt")?;
    let mut client = watched.client(1)?;
    client.socket.set_nonblocking(true)?;
    let expected = [
        ("listener", Wants::In),
        ("stop", Wants::In),
        ("client 1", Wants::Out),
    ];
    let kernel = watched.until("a full send buffer", |seen, kernel| {
        // The client never reads, so that in the end neither side has room.
        while client.write_some(1 << 20).is_ok() {}
        let mut last = seen.stream().iter().rev().take(3);
        let full = last.any(|told| {
            let Told { text, .. } = told;
            text.starts_with("send")
                && (text.ends_with("bytes, short") || text.ends_with("EAGAIN"))
        });
        full && wants(seen, kernel) == of(&expected)
    })?;
    let (brought, took_out, owed) = moved(&watched.seen).context("gone")?;
    ensure!(owed > 0, "{owed}");
    ensure!(owed == brought - took_out, "{brought} - {took_out}: {owed}");
    let [_, _, fd] = watched.known()?;
    let connection = kernel.connection(watched.server.pid, fd);
    ensure!(connection.is_some_and(|it| it.unsent > 0), "{connection:?}");
    Ok(())
}

/// The listener waits for nobody while a client is served, and its queue
/// holds the next client.
fn a_sequential_server_waits_for_one() -> Result<()> {
    let mut watched = Watched::start("blocking")?;
    let kernel = watched.rests()?;
    let now = wants(&watched.seen, &kernel);
    ensure!(now == of(&[("listener", Wants::In)]), "{now:?}");
    let wait = wait_of(&kernel)?;
    ensure!(matches!(wait, InWait::Accept { .. }), "{wait:?}");
    let mut first = watched.client(1)?;
    let _second = watched.server.client(2)?;
    let kernel = watched.rests()?;
    let now = wants(&watched.seen, &kernel);
    let expected = of(&[("listener", Wants::Nothing), ("client 1", Wants::In)]);
    ensure!(now == expected, "{now:?}");
    let wait = wait_of(&kernel)?;
    ensure!(matches!(wait, InWait::Recv { length: 16384, .. }), "{wait:?}");
    let queue = kernel.accept_queue.context("no listener")?;
    ensure!(queue.waiting == 1 && queue.room >= 128, "{queue:?}");
    let open = kernel.connections.iter().filter(|it| it.open).count();
    ensure!((open, kernel.connections.len()) == (1, 2), "{kernel:?}");
    first.socket.set_nonblocking(true)?;
    let expected =
        of(&[("listener", Wants::Nothing), ("client 1", Wants::Out)]);
    watched.until("it to sleep in send", |seen, kernel| {
        while first.write_some(1 << 20).is_ok() {}
        let wait = wait_of(kernel);
        matches!(wait, Ok(InWait::Send { length: 1..=16384, .. }))
            && wants(seen, kernel) == expected
    })?;
    Ok(())
}

/// Its record alone does not tell.
fn a_full_server_does_not_wait_for_its_listener() -> Result<()> {
    for name in ["select_server", "poll_server", "epoll_lt"] {
        let full = ["--max-connections", "1"];
        let mut watched = Watched::start_with(name, &full)?;
        let _client = watched.client(1)?;
        let kernel = watched.rests()?;
        let now = wants(&watched.seen, &kernel);
        let expected = of(&[
            ("listener", Wants::Nothing),
            ("stop", Wants::In),
            ("client 1", Wants::In),
        ]);
        ensure!(now == expected, "{name}: {now:?}");
    }
    Ok(())
}

fn sets_of_select() -> Result<()> {
    let mut watched = Watched::start("select_server")?;
    let _client = watched.client(1)?;
    let kernel = watched.rests()?;
    let known = watched.known()?;
    let InWait::Select { nfds, read, write } = wait_of(&kernel)? else {
        bail!("it does not sleep in select: {kernel:?}");
    };
    let (mut known, last) = (known.to_vec(), known.iter().max());
    ensure!(Some(&(nfds - 1)) == last, "{nfds}");
    known.sort_unstable();
    ensure!((read, write) == (&known, &vec![]), "{read:?}, {write:?}");
    Ok(())
}

/// A call that returns while it is looked at has overwritten its sets: those
/// that are shown are those that went in.
fn sets_of_a_busy_select() -> Result<()> {
    let mut watched = Watched::start("select_server")?;
    let mut client = watched.client(1)?;
    watched.rests()?;
    let (known, pid) = (watched.known()?, watched.server.pid);
    let done = Arc::new(AtomicBool::new(false));
    let told = done.clone();
    let busy = thread::spawn(move || -> Result<Client> {
        while !told.load(Ordering::Relaxed) {
            client.round_trip(32)?;
        }
        Ok(client)
    });
    let (mut sleeps, begin) = (0, Instant::now());
    while sleeps < 10 || begin.elapsed() < LOOKS {
        ensure!(begin.elapsed() < PATIENCE, "seen asleep {sleeps} times");
        if let Some(InWait::Select { read, .. }) = sets::look(pid, pid) {
            ensure!(known.iter().all(|fd| read.contains(fd)), "{read:?}");
            sleeps += 1;
        }
    }
    done.store(true, Ordering::Relaxed);
    busy.join().expect("no panic").map(drop)
}

/// In this time many a look meets a call that returns meanwhile.
const LOOKS: Duration = Duration::from_millis(300);

fn array_of_poll() -> Result<()> {
    let mut watched = Watched::start("poll_server")?;
    let _client = watched.client(1)?;
    let kernel = watched.rests()?;
    let InWait::Poll { fds } = wait_of(&kernel)? else {
        bail!("it does not sleep in poll: {kernel:?}");
    };
    // The kernel passes over entries below zero: poll(2).
    let asked: Vec<_> = fds.iter().filter(|it| it.0 >= 0).copied().collect();
    let mut expected = watched.known()?.map(|fd| (fd, 1));
    expected.sort_unstable();
    ensure!(asked == expected, "{fds:?}");
    let before = wants(&watched.seen, &kernel);
    watched.server.signal(Signal::SIGSTOP)?;
    watched.server.signal(Signal::SIGCONT)?;
    // The kernel goes on with it, and no longer says what it was.
    watched.until("a call that goes on", |seen, kernel| {
        matches!(wait_of(kernel), Ok(InWait::Other { name })
            if name == "restart_syscall")
            && wants(seen, kernel) == before
    })?;
    Ok(())
}

fn interest_lists_of_epoll() -> Result<()> {
    let always = ["EPOLLIN", "EPOLLERR", "EPOLLHUP"];
    let edges = ["EPOLLIN", "EPOLLOUT", "EPOLLERR", "EPOLLHUP", "EPOLLET"];
    for (name, expected) in [("epoll_lt", &always[..]), ("epoll_et", &edges)] {
        let mut watched = Watched::start(name)?;
        let _client = watched.client(1)?;
        let kernel = watched.rests()?;
        let InWait::Epoll { epfd, timeout: -1, .. } = *wait_of(&kernel)? else {
            bail!("it does not sleep in epoll_wait: {kernel:?}");
        };
        let open = &kernel.processes[0].open;
        let epoll = open.iter().find(|it| it.fd == epfd);
        let Some(What::Epoll(list)) = epoll.map(|it| &it.what) else {
            bail!("{epfd} is no epoll instance: {open:?}");
        };
        let mut fds: Vec<i32> = list.iter().map(|it| it.fd).collect();
        let mut known = watched.known()?.to_vec();
        let client = list.iter().find(|it| it.fd == known[2]);
        let client = client.context("no client")?;
        ensure!(client.names() == *expected, "{:?}", client.names());
        ensure!(client.data == client.fd as u64, "{client:?}");
        fds.sort_unstable();
        known.sort_unstable();
        ensure!(fds == known, "{fds:?}, not {known:?}");
        let stop = What::Other("signalfd".to_owned());
        ensure!(open.iter().any(|it| it.what == stop), "{open:?}");
    }
    Ok(())
}

fn signals_tell_everything() -> Result<()> {
    let mut watched = Watched::start("signal_driven")?;
    let mut client = watched.client(1)?;
    watched.rests()?;
    client.round_trip(32)?;
    let kernel = watched
        .until("a signal", |seen, _| seen.counters().signals > 0)
        .and_then(|_| watched.rests())?;
    let now = wants(&watched.seen, &kernel);
    let expected = of(&[("listener", Wants::In), ("client 1", Wants::Both)]);
    ensure!(now == expected, "{now:?}");
    Ok(())
}

/// A server that is told what is done waits for nobody to be ready; what it
/// has given away is known.
fn operations_under_way() -> Result<()> {
    let mut watched = Watched::start("proactor")?;
    let mut client = watched.client(1)?;
    watched.rests()?;
    client.round_trip(32)?;
    let kernel = watched.until("the answer", |seen, kernel| {
        moved(seen) == Some((64, 64, 0)) && wait_of(kernel).is_ok()
    })?;
    let seen = &watched.seen;
    let now = wants(seen, &kernel);
    let nothing = |it: &(String, Wants)| it.1 == Wants::Nothing;
    ensure!(now.iter().all(nothing), "{now:?}");
    let each = seen.under_way().iter().map(|it| {
        let peer = it.peer.as_ref().map(Peer::to_string);
        format!("{} {}", it.operation, peer.unwrap_or_default())
    });
    let mut each: Vec<String> = each.collect();
    each.sort();
    let expected = ["accept listener", "read stop", "recv client 1"];
    ensure!(each == expected, "{each:?}");
    Ok(())
}

fn queues_of_a_stopped_server() -> Result<()> {
    let mut watched = Watched::start("poll_server")?;
    let mut client = watched.client(1)?;
    watched.rests()?;
    watched.server.signal(Signal::SIGSTOP)?;
    client.send(1000)?;
    let more = watched.server.clients(3)?;
    let [_, _, fd] = watched.known()?;
    let pid = watched.server.pid;
    let unread =
        |kernel: &Kernel| kernel.connection(pid, fd).map_or(0, |it| it.unread);
    let waiting =
        |kernel: &Kernel| kernel.accept_queue.map_or(0, |queue| queue.waiting);
    let kernel = watched.until("a full queue", |_, kernel| {
        unread(kernel) == 1000 && waiting(kernel) == 3
    })?;
    for client in &more {
        let port = client.socket.local_addr()?.port();
        let mut all = kernel.connections.iter();
        let found = all.find(|it| it.port == port).context("not there")?;
        ensure!(!found.open && found.unread == 0, "{found:?}");
    }
    watched.server.signal(Signal::SIGCONT)?;
    client.receive(1000)?;
    watched.until("empty queues", |_, kernel| {
        unread(kernel) == 0 && waiting(kernel) == 0
    })?;
    Ok(())
}

fn children_come_and_go() -> Result<()> {
    let mut watched = Watched::start("blocking-process")?;
    let client = watched.client(1)?;
    let kernel = watched.rests()?;
    let names: Vec<_> =
        watched.seen.threads().iter().map(|it| &*it.name).collect();
    ensure!(names == ["main", "child 1"], "{names:?}");
    // The parent has closed the client, the child the listener.
    let now = wants(&watched.seen, &kernel);
    let expected = of(&[("listener", Wants::In), ("client 1", Wants::In)]);
    ensure!(now == expected, "{now:?}");
    let (cpu, switches) = (kernel.cpu, kernel.switches);
    ensure!(cpu > Duration::ZERO && switches > Some((1, 0)), "{kernel:?}");
    client.finish()?;
    let kernel = watched.until("the child's end", |seen, kernel| {
        seen.threads().len() == 1 && kernel.processes.len() == 1
    })?;
    let now = wants(&watched.seen, &kernel);
    ensure!(now == of(&[("listener", Wants::In)]), "{now:?}");
    Ok(())
}

fn threads_come_and_go() -> Result<()> {
    let mut watched = Watched::start("blocking-thread")?;
    let mut clients = vec![watched.client(1)?, watched.client(2)?];
    let kernel = watched.rests()?;
    ensure!(kernel.processes[0].threads.len() == 3, "{kernel:?}");
    let doing: Vec<_> = watched.seen.threads().iter().collect();
    let doing: Vec<_> =
        doing.iter().map(|it| (&*it.name, in_call(&it.doing))).collect();
    let expected = [
        ("main", Some("accept4")),
        ("thread 2", Some("recv")),
        ("thread 3", Some("recv")),
    ];
    ensure!(doing == expected, "{doing:?}");
    clients.remove(0).finish()?;
    watched.until("the thread's end", |seen, _| seen.threads().len() == 2)?;
    let names: Vec<_> =
        watched.seen.threads().iter().map(|it| &*it.name).collect();
    ensure!(names == ["main", "thread 3"], "{names:?}");
    Ok(())
}

fn a_dead_server_has_nothing() -> Result<()> {
    let mut watched = Watched::start("blocking-process")?;
    let _client = watched.client(1)?;
    watched.rests()?;
    watched.server.signal_all(Signal::SIGKILL)?;
    let kernel = watched.until("its end", |seen, kernel| {
        kernel.processes.is_empty() && seen.threads().is_empty()
    })?;
    ensure!(kernel.accept_queue.is_none(), "{kernel:?}");
    ensure!(wants(&watched.seen, &kernel).is_empty());
    watched.server.wait_exit(PATIENCE)?;
    Ok(())
}

fn a_busy_poll_does_not_flood() -> Result<()> {
    let mut watched = Watched::start("nonblocking_poll")?;
    let _client = watched.client(1)?;
    let many = |seen: &Seen| {
        seen.stream().iter().filter(|told| told.repeat > 1000).count()
    };
    watched.until("rounds", |seen, _| {
        seen.counters().wasted > 10_000 && many(seen) >= 2
    })?;
    let seen = &watched.seen;
    ensure!(seen.stream().len() < 200, "{} lines", seen.stream().len());
    let kernel = watched.look()?;
    let now = wants(&watched.seen, &kernel);
    let asks = |it: &(String, Wants)| it.1 == Wants::Nothing;
    ensure!(now.iter().all(asks), "it asks, and does not wait: {now:?}");
    Ok(())
}

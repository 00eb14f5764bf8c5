//! What is said of a server's time, switches, system calls and cores, held
//! against what is known of it from elsewhere.

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bench::harness::{self, PATIENCE, Server, Start, Target};
use bench::measure::{
    Cores, Counted, Counting, CountingBy, Snapshot, Standing, Taken,
    counting_by, this_machine,
};
use bench::models;
use libtest_mimic::{Arguments, Trial};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// It may be told why it cannot be done here.
type Test = fn() -> Result<Option<String>>;

const TESTS: &[(&str, Test)] = &[
    ("time_of_children_that_ended_is_in", time_of_children_that_ended_is_in),
    ("time_is_the_servers_own", time_is_the_servers_own),
    ("snapshot_looks_at_no_stranger", snapshot_looks_at_no_stranger),
    ("switches_are_counted", switches_are_counted),
    ("switches_need_the_same_threads", switches_need_the_same_threads),
    ("a_child_that_came_and_went_is_noticed", child_that_came_and_went),
    ("spans_add_up", spans_add_up),
    ("standing_is_what_is_observed", standing_is_what_is_observed),
    ("calls_of_a_server", calls_of_a_server),
    ("calls_of_threads_that_exist", calls_of_threads_that_exist),
    ("calls_of_children_that_begin_later", calls_of_children_of_later),
    ("calls_of_more_than_descriptors", calls_of_more_than_descriptors),
    ("calls_by_strace", calls_by_strace),
    ("calls_by_strace_of_children", calls_by_strace_of_children),
    ("way_of_counting_is_told", way_of_counting_is_told),
    ("server_stays_on_its_cores", server_stays_on_its_cores),
    ("machine_is_told", machine_is_told),
];

fn main() -> ExitCode {
    bench::serve_if_asked();
    harness::raise_descriptor_limit();
    let mut args = Arguments::from_args();
    // They measure time.
    args.test_threads = Some(1);
    let _ready = Counting::make_ready();
    let trials = TESTS.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            let begin = Instant::now();
            let skipped = test().map_err(|error| format!("{error:#}"))?;
            match skipped {
                Some(why) => println!("{name} SKIPPED: {why}"),
                None => println!("{name}: {:?}", begin.elapsed()),
            }
            Ok(())
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}

fn started(name: &str, start: &Start) -> Result<Server> {
    let model = models::find(name).with_context(|| format!("no {name}"))?;
    Server::start(&Target::Model(model), start)
}

fn server(name: &str) -> Result<Server> {
    started(name, &Start::default())
}

/// 10 ms in which the time of children is told, twice over: in user space and
/// in the kernel.
const ROUNDING: Duration = Duration::from_millis(20);

fn time_of_children_that_ended_is_in() -> Result<Option<String>> {
    let server = server("blocking-process")?;
    let before = Snapshot::of(&server)?;
    let deadline = Instant::now() + 4 * PATIENCE;
    let mut client = server.client(0)?;
    let alive = loop {
        client.round_trip(256 * 1024)?;
        let alive = Snapshot::of(&server)?.since(&before);
        if alive.cpu >= 5 * ROUNDING {
            break alive;
        }
        ensure!(
            Instant::now() < deadline,
            "the child gets too little: {alive:?}"
        );
    };
    client.finish()?;
    server.settles("the child to be gone", PATIENCE, |seen| {
        seen.processes == 1 && seen.zombies == 0
    })?;
    let gone = Snapshot::of(&server)?.since(&before);
    ensure!(gone.cpu + ROUNDING >= alive.cpu, "{alive:?}, then {gone:?}");
    ensure!(gone.cpu <= alive.cpu + 2 * ROUNDING, "{alive:?}, then {gone:?}");
    let ticks = gone.user_ticks + gone.system_ticks;
    let told = Duration::from_millis(10 * ticks);
    ensure!(told.abs_diff(gone.cpu) <= 2 * ROUNDING, "{gone:?}");
    ensure!(gone.switches.is_none(), "{gone:?}");
    server.stop()?;
    Ok(None)
}

/// Nanoseconds that the first thread ran, as the scheduler counts them.
fn scheduled(server: &Server) -> Result<Duration> {
    let path = format!("/proc/{}/schedstat", server.pid);
    let text = fs::read_to_string(path)?;
    let first = text.split_whitespace().next().context("schedstat")?;
    Ok(Duration::from_nanos(first.parse()?))
}

/// One that spins takes what the scheduler gave it, however busy the machine
/// is, and one that sleeps nothing.
fn time_is_the_servers_own() -> Result<Option<String>> {
    let wanted = Duration::from_millis(100);
    let spinning = server("nonblocking_poll")?;
    let sleeping = server("epoll_lt")?;
    let begin = Instant::now();
    let slept = Snapshot::of(&sleeping)?;
    let (given, spun) = (scheduled(&spinning)?, Snapshot::of(&spinning)?);
    while scheduled(&spinning)? < given + wanted {
        ensure!(begin.elapsed() < 2 * PATIENCE, "it does not spin");
        thread::sleep(Duration::from_millis(1));
    }
    let spun = Snapshot::of(&spinning)?.since(&spun);
    let slept = Snapshot::of(&sleeping)?.since(&slept);
    let took = begin.elapsed();
    // The scheduler's count is brought up to date once in a tick.
    let tick = Duration::from_millis(10);
    ensure!(spun.cpu + tick >= wanted, "one that spins: {spun:?}");
    ensure!(spun.cpu <= took + tick, "one that spins, in {took:?}: {spun:?}");
    ensure!(slept.cpu < tick / 10, "one that sleeps: {slept:?}");
    Ok(None)
}

/// The shortest of some tries.
fn shortest(mut of: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let begin = Instant::now();
        of()?;
        least = least.min(begin.elapsed());
    }
    Ok(least)
}

/// Hundreds of processes cost a snapshot of the server beside them nothing,
/// and one of the server that has them little.
fn snapshot_looks_at_no_stranger() -> Result<Option<String>> {
    const MANY: usize = 300;
    let alone = server("epoll_lt")?;
    let crowd = server("blocking-process")?;
    let clients = crowd.clients(MANY)?;
    crowd.settles("children", PATIENCE, |seen| seen.processes == MANY + 1)?;
    let scan = shortest(|| {
        let mut read = 0;
        for entry in fs::read_dir("/proc")?.flatten() {
            let stat = entry.path().join("stat");
            read += usize::from(fs::read_to_string(stat).is_ok());
        }
        ensure!(read > MANY, "{read} are not all");
        Ok(())
    })?;
    let one = shortest(|| Snapshot::of(&alone).map(drop))?;
    let all = shortest(|| Snapshot::of(&crowd).map(drop))?;
    println!("a scan {scan:?}, a snapshot of one {one:?}, of {MANY} {all:?}");
    ensure!(one * 5 < scan, "a snapshot {one:?}, a scan {scan:?}");
    ensure!(all < scan * 12, "of {MANY} {all:?}, a scan {scan:?}");
    drop(clients);
    Ok(None)
}

fn switches_are_counted() -> Result<Option<String>> {
    let server = server("epoll_lt")?;
    let mut client = server.client(0)?;
    client.round_trip(64)?;
    let before = Snapshot::of(&server)?;
    for _ in 0..100 {
        client.round_trip(64)?;
        // It sleeps before the next message comes.
        thread::sleep(Duration::from_micros(500));
    }
    let taken = Snapshot::of(&server)?.since(&before);
    let (voluntary, _) = taken.switches.context("the threads are the same")?;
    ensure!((95..=105).contains(&voluntary), "{taken:?}");
    Ok(None)
}

fn switches_need_the_same_threads() -> Result<Option<String>> {
    let server = server("blocking-thread")?;
    let alone = Snapshot::of(&server)?;
    let mut client = server.client(0)?;
    client.round_trip(64)?;
    let one = Snapshot::of(&server)?;
    ensure!(one.since(&alone).switches.is_none(), "a thread more");
    client.round_trip(64)?;
    let same = Snapshot::of(&server)?;
    ensure!(same.since(&one).switches.is_some(), "the same threads");
    client.finish()?;
    server.settles("one thread", PATIENCE, |seen| seen.threads == 1)?;
    let alone = Snapshot::of(&server)?;
    ensure!(alone.since(&same).switches.is_none(), "a thread less");
    Ok(None)
}

fn child_that_came_and_went() -> Result<Option<String>> {
    let server = server("blocking-process")?;
    server.at_rest()?;
    let before = Snapshot::of(&server)?;
    let still = Snapshot::of(&server)?.since(&before);
    ensure!(still.switches.is_some(), "{still:?}");
    let mut client = server.client(0)?;
    client.round_trip(64)?;
    client.finish()?;
    server.settles("the child to be gone", PATIENCE, |seen| {
        seen.processes == 1 && seen.zombies == 0
    })?;
    let taken = Snapshot::of(&server)?.since(&before);
    ensure!(taken.switches.is_none(), "{taken:?}");
    Ok(None)
}

fn spans_add_up() -> Result<Option<String>> {
    let one = Taken {
        cpu: Duration::from_millis(30),
        user_ticks: 1,
        system_ticks: 3,
        switches: Some((5, 7)),
    };
    let both: Taken = [one, one].into_iter().sum();
    ensure!(both.switches == Some((10, 14)), "{both:?}");
    ensure!(both.cpu == Duration::from_millis(60), "{both:?}");
    ensure!(both.user_share() == Some(0.25), "{both:?}");
    let mut sum = both;
    sum += Taken { switches: None, user_ticks: 4, ..one };
    ensure!(sum.switches.is_none(), "{sum:?}");
    ensure!(sum.user_share() == Some(0.4), "{sum:?}");
    ensure!(Taken::NOTHING.user_share().is_none());
    Ok(None)
}

fn standing_is_what_is_observed() -> Result<Option<String>> {
    let server = server("blocking-process")?;
    let mut clients = server.clients(3)?;
    for client in &mut clients {
        client.round_trip(64)?;
    }
    let seen = server.observe();
    let standing = Standing::of(&server);
    ensure!(standing.processes == 4 && standing.threads == 4, "{standing:?}");
    ensure!(standing.memory > 0, "{standing:?}");
    let apart = standing.memory.abs_diff(seen.memory);
    ensure!(apart < 64 * 1024, "{standing:?}, observed: {seen}");
    Ok(None)
}

/// A way to count.
type Way = fn(&Server) -> Result<Counting>;

/// Why nothing can be counted at tracepoints here, if so.
fn no_tracepoints() -> Option<String> {
    match counting_by() {
        CountingBy::Tracepoints => None,
        CountingBy::Strace { because } | CountingBy::Nothing { because } => {
            Some(because)
        }
    }
}

/// Why strace may not look at a server here, if so.
fn no_strace(server: &Server) -> Result<Option<String>> {
    match Counting::by_strace(server) {
        Ok(counting) => counting.end().map(|_| None),
        Err(error) => {
            let why = format!("{error:#}");
            let closed = ["strace cannot attach", "strace is not installed"];
            match closed.iter().any(|it| why.starts_with(it)) {
                true => Ok(Some(why)),
                false => Err(error),
            }
        }
    }
}

/// Waits until every thread sleeps in the call with which it waits for more:
/// the bytes come back before the call that sends them has returned.
fn sleeps(server: &Server) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut states = String::new();
        for pid in server.tree() {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                let stat = fs::read_to_string(task?.path().join("stat"))?;
                let (_, rest) = stat.rsplit_once(") ").context("stat")?;
                states.extend(rest.chars().next());
            }
        }
        if states.chars().all(|state| state == 'S') {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it does not sleep: {states}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What is called for `count` clients that make 100 round trips together, of
/// whom `before` are there when it begins. The parts must be the whole.
fn counted(
    server: &Server,
    count: usize,
    way: Way,
    before: usize,
) -> Result<Counted> {
    let mut clients = server.clients(before)?;
    for client in &mut clients {
        client.round_trip(64)?;
    }
    sleeps(server)?;
    let counting = way(server)?;
    clients.extend(server.clients(count - before)?);
    for turn in 0..100 {
        clients[turn % count].round_trip(64)?;
    }
    sleeps(server)?;
    let counted = counting.end()?;
    println!("{counted:?}");
    let sum: u64 = counted.by_name.iter().map(|(_, count)| count).sum();
    ensure!(sum == counted.total, "the sum is {sum}: {counted:?}");
    let falls = counted.by_name.is_sorted_by(|one, two| one.1 >= two.1);
    ensure!(falls, "{counted:?}");
    Ok(counted)
}

/// How often one of the names was called.
fn times(counted: &Counted, names: &[&str]) -> u64 {
    names.iter().filter_map(|name| counted.of(name)).sum()
}

const READS: &[&str] = &["read", "recvfrom"];
const WRITES: &[&str] = &["write", "sendto"];

/// 100 messages are 100 writes, and as many reads that bring something; more
/// of them may sleep.
fn exactly(
    counted: &Counted,
    reads: std::ops::RangeInclusive<u64>,
) -> Result<()> {
    let (read, written) = (times(counted, READS), times(counted, WRITES));
    ensure!(reads.contains(&read), "{read} reads: {counted:?}");
    ensure!(written == 100, "{written} writes: {counted:?}");
    Ok(())
}

fn calls_of_a_server() -> Result<Option<String>> {
    if let Some(why) = no_tracepoints() {
        return Ok(Some(why));
    }
    let server = server("epoll_lt")?;
    let counted = counted(&server, 1, Counting::at_tracepoints, 1)?;
    exactly(&counted, 100..=100)?;
    // It slept in one as counting began, and does so again.
    let waits = times(&counted, &["epoll_wait", "epoll_pwait"]);
    ensure!(waits == 100 && counted.total == 300, "{counted:?}");
    Ok(None)
}

fn calls_of_threads_that_exist() -> Result<Option<String>> {
    if let Some(why) = no_tracepoints() {
        return Ok(Some(why));
    }
    let server = server("blocking-thread")?;
    // Each of the three threads that begin has one more read, to sleep in.
    let counted = counted(&server, 5, Counting::at_tracepoints, 2)?;
    exactly(&counted, 103..=103)?;
    Ok(None)
}

fn calls_of_children_of_later() -> Result<Option<String>> {
    if let Some(why) = no_tracepoints() {
        return Ok(Some(why));
    }
    let server = server("blocking-process")?;
    let counted = counted(&server, 5, Counting::at_tracepoints, 2)?;
    exactly(&counted, 103..=103)?;
    let forks = times(&counted, &["clone", "clone3", "fork"]);
    ensure!(forks == 3, "{counted:?}");
    Ok(None)
}

/// Where descriptors do not suffice for the names, the total is still right.
fn calls_of_more_than_descriptors() -> Result<Option<String>> {
    if let Some(why) = no_tracepoints() {
        return Ok(Some(why));
    }
    let server = server("blocking-process")?;
    let mut clients = server.clients(5)?;
    for client in &mut clients {
        client.round_trip(64)?;
    }
    sleeps(&server)?;
    let open = fs::read_dir("/proc/self/fd")?.count() as u64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, open + 164, hard)?;
    let counting = Counting::at_tracepoints(&server);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    let counting = counting?;
    for turn in 0..100 {
        clients[turn % 5].round_trip(64)?;
    }
    sleeps(&server)?;
    let counted = counting.end()?;
    ensure!(counted.by_name.is_empty(), "{counted:?}");
    ensure!(counted.of("read").is_none(), "{counted:?}");
    ensure!(counted.total == 200, "{counted:?}");
    Ok(None)
}

fn calls_by_strace() -> Result<Option<String>> {
    let server = server("epoll_lt")?;
    if let Some(why) = no_strace(&server)? {
        return Ok(Some(why));
    }
    let traced = counted(&server, 1, Counting::by_strace, 1)?;
    exactly(&traced, 100..=100)?;
    if let Some(why) = no_tracepoints() {
        return Ok(Some(why));
    }
    let counted = counted(&server, 1, Counting::at_tracepoints, 1)?;
    // To attach and to detach interrupts the wait, which then begins anew.
    for name in ["epoll_wait", "epoll_pwait"] {
        let both = (traced.of(name), counted.of(name));
        let (Some(one), Some(two)) = both else {
            bail!("{both:?}: {traced:?}, {counted:?}");
        };
        ensure!(one.abs_diff(two) <= 2, "{traced:?}, {counted:?}");
    }
    for name in READS.iter().chain(WRITES) {
        let both = (traced.of(name), counted.of(name));
        ensure!(both.0 == both.1, "{name}: {traced:?}, {counted:?}");
    }
    Ok(None)
}

fn calls_by_strace_of_children() -> Result<Option<String>> {
    let server = server("blocking-process")?;
    if let Some(why) = no_strace(&server)? {
        return Ok(Some(why));
    }
    let traced = counted(&server, 4, Counting::by_strace, 2)?;
    // To attach interrupts the two reads that sleep.
    exactly(&traced, 100..=106)?;
    Ok(None)
}

fn way_of_counting_is_told() -> Result<Option<String>> {
    let way = counting_by();
    let said = way.to_string();
    println!("{said}");
    ensure!(said.ends_with('.') && !said.contains('\n'), "{said}");
    let server = server("epoll_lt")?;
    match (way, Counting::begin(&server)) {
        (CountingBy::Nothing { .. }, Err(error)) => {
            ensure!(error.to_string().contains("cannot be counted"));
        }
        (CountingBy::Nothing { .. }, Ok(_)) => bail!("counted, but: {said}"),
        (_, counting) => drop(counting?.end()?),
    }
    Ok(None)
}

fn allowed_of(pid: i32) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        text.lines().find_map(|it| it.strip_prefix("Cpus_allowed_list:"));
    Ok(line.context("no Cpus_allowed_list")?.trim().to_owned())
}

fn server_stays_on_its_cores() -> Result<Option<String>> {
    let cores = Cores::choose()?;
    println!("{cores}");
    let said = cores.to_string();
    ensure!(said.ends_with('.') && !said.contains('\n'), "{said}");
    let all = allowed_of(std::process::id().try_into()?)?;
    // Any core does, even the only one; not the last, the usual one.
    let core = cores.server[0];
    let start = Start { cores: Some(vec![core]), ..Start::default() };
    let server = started("blocking-process", &start)?;
    let mut client = server.client(0)?;
    client.round_trip(64)?;
    let pids = server.tree();
    ensure!(pids.len() >= 2, "no children: {pids:?}");
    for pid in pids {
        let list = allowed_of(pid)?;
        ensure!(list == core.to_string(), "{pid}: {list}, not {core}");
    }
    let own = allowed_of(std::process::id().try_into()?)?;
    ensure!(own == all, "the program itself was moved: {own}");
    // A thread of its own, so that nobody else is moved.
    thread::spawn(move || -> Result<()> {
        cores.pin_generator()?;
        let list = fs::read_to_string("/proc/thread-self/status")?;
        let wanted = match cores.generator {
            Some(core) => core.to_string(),
            None => all,
        };
        let line = format!("Cpus_allowed_list:\t{wanted}\n");
        ensure!(list.contains(&line), "{wanted}: {list}");
        Ok(())
    })
    .join()
    .unwrap_or_else(|_| bail!("panic"))?;
    Ok(None)
}

fn machine_is_told() -> Result<Option<String>> {
    let machine = this_machine();
    println!("{machine:#?}");
    ensure!(machine.date.len() == 20 && machine.date.ends_with('Z'));
    ensure!(machine.kernel.starts_with("Linux "), "{}", machine.kernel);
    ensure!(!machine.cpu.is_empty() && machine.cores > 0);
    ensure!(machine.memory > 1 << 26, "{}", machine.memory);
    let names = |list: &[(String, String)]| -> Result<BTreeSet<String>> {
        for (name, value) in list {
            ensure!(!value.trim().is_empty(), "{name} is empty");
            ensure!(!value.contains('\n'), "{name}: {value}");
        }
        Ok(list.iter().map(|(name, _)| name.clone()).collect())
    };
    let limits = names(&machine.limits)?;
    for name in ["descriptors", "pid_max", "threads-max", "ephemeral ports"] {
        ensure!(limits.contains(name), "no {name}: {limits:?}");
    }
    let versions = names(&machine.versions)?;
    for name in ["io-models", "glibc", "tokio", "mio"] {
        ensure!(versions.contains(name), "no {name}: {versions:?}");
    }
    ensure!(
        machine.mitigations.iter().all(|(_, it)| it != "Not affected"),
        "{:?}",
        machine.mitigations
    );
    names(&machine.mitigations)?;
    // It is what this was built with, whatever `rustc` is in the path now.
    if let Some((_, rustc)) =
        machine.versions.iter().find(|(name, _)| name == "rustc")
    {
        let number = rustc.split(['.', ' ', '-']).take(3);
        let parts: Vec<_> = number.map(str::parse::<u32>).collect();
        ensure!(parts.len() == 3 && parts.iter().all(Result::is_ok), "{rustc}");
    }
    Ok(None)
}

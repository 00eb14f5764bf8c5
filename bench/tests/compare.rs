//! Comparisons end to end: what is asked is measured, a server that fails is
//! left out by name, and the command line says what is wrong with it.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bench::compare::{
    self, Progress, SCENARIOS, Scenario, Servers, Spot, Task, URING_OR_EPOLL,
};
use bench::harness;
use bench::measure::Cores;
use bench::models::{self, Model, NO_LIMITS};
use bench::results::{Comparison, Load, Point, Row};
use libtest_mimic::{Arguments, Trial};

type Test = fn() -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("every_number_is_there_and_fits_the_others", every_number_fits),
    ("open_loop_has_a_curve", open_loop_has_a_curve),
    ("idle_points_are_held_against_none_idle", idle_points),
    ("who_fails_is_left_out_by_name", who_fails_is_left_out),
    ("who_fails_in_its_turn_is_left_out", who_fails_in_its_turn),
    ("a_baseline_of_ones_choice", a_baseline_of_ones_choice),
    ("a_slow_handler_makes_others_wait", a_slow_handler_makes_others_wait),
    ("forms_have_the_cores_that_they_are_given", forms_have_their_cores),
    ("completions_are_held_against_readiness", completions_and_readiness),
    ("a_question_has_servers_of_its_own", a_question_has_its_servers),
    ("command_line", command_line),
    ("usage_errors_are_one_line", usage_errors),
];

fn main() -> ExitCode {
    bench::serve_if_asked();
    harness::raise_descriptor_limit();
    let mut args = Arguments::from_args();
    // They share the cores with what they measure.
    args.test_threads = Some(1);
    let trials = TESTS.iter().map(|&(name, test)| {
        Trial::test(name, move || Ok(test().map_err(|it| format!("{it:#}"))?))
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}

struct Silent;

impl Progress for Silent {
    fn done(&self, _: Duration) {}
    fn next(&self, _: &str) {}
    fn note(&self, _: &str) {}
}

/// Adds up what it is told of.
struct Sum(Cell<Duration>);

impl Progress for Sum {
    fn done(&self, part: Duration) {
        self.0.set(self.0.get() + part);
    }
    fn next(&self, _: &str) {}
    fn note(&self, _: &str) {}
}

fn row_of(name: &str) -> Result<&'static Model> {
    models::find_with_peers(name).with_context(|| name.to_owned())
}

fn task(
    scenarios: Vec<&'static Scenario>,
    models: &[&'static str],
) -> Result<Task> {
    let models: Result<Vec<_>> = models.iter().map(|it| row_of(it)).collect();
    Ok(Task {
        scenarios,
        models: models?,
        unnamed: false,
        baseline: None,
        rounds: 3,
        turn: Duration::from_millis(15),
        buffer: 16 * 1024,
        quick: false,
        calls: false,
    })
}

fn known(name: &str) -> Result<&'static Scenario> {
    SCENARIOS.iter().find(|it| it.name == name).context("no such scenario")
}

/// A scenario of this test's own.
fn scenario(name: &'static str, loads: &[Load]) -> &'static Scenario {
    let spot = |&load: &Load| {
        let servers = Servers::ALL;
        Spot { name: "a spot", load, servers, quick: false }
    };
    let points: Vec<Spot> = loads.iter().map(spot).collect();
    let scenario = Scenario {
        name,
        shows: "",
        points: Vec::leak(points),
        stretch: 1,
        with_itself: name == "scan",
        field: None,
    };
    Box::leak(Box::new(scenario))
}

fn load(connections: usize, idle: usize) -> Load {
    Load { connections, idle, size: 64, depth: 1, ..Load::default() }
}

fn row<'a>(point: &'a Point, model: &str) -> Result<&'a Row> {
    let found = point.rows.iter().find(|row| row.model == model);
    found.with_context(|| format!("no {model} in {point:?}"))
}

fn every_number_fits() -> Result<()> {
    let names = ["blocking-process", "epoll_lt", "peer-mio", "floor"];
    let busy = scenario("busy", &[load(4, 0)]);
    let task = Task { calls: true, ..task(vec![busy], &names)? };
    let found = compare::run(&task, &Silent)?;
    let [point] = &found.points[..] else {
        anyhow::bail!("{} points", found.points.len());
    };
    ensure!(point.absent.is_empty(), "{:?}", point.absent);
    ensure!(point.baseline.as_deref() == Some("floor"));
    for name in names {
        let it = row(point, name)?;
        let seen = format!("{it:?}");
        ensure!(it.rounds.len() == 3, "{seen}");
        for estimate in [
            it.messages_per_second,
            it.bytes_per_second,
            it.cpu_ns_per_message,
            it.generator_ns_per_message,
        ] {
            ensure!(estimate.low > 0.0, "{seen}");
            ensure!(estimate.low <= estimate.median, "{seen}");
            ensure!(estimate.median <= estimate.high, "{seen}");
        }
        ensure!(it.latency.p50 > 0 && it.latency.samples > 100, "{seen}");
        ensure!(it.memory > 0 && it.threads > 0, "{seen}");
        ensure!(it.peer == (name == "peer-mio" || name == "floor"), "{seen}");
        let processes = if name == "blocking-process" { 5 } else { 1 };
        ensure!(it.processes == processes, "{seen}");
        // A read and a write at least; where they cannot be counted, the
        // method says so.
        match &it.calls {
            Some(calls) => ensure!(calls.total >= 1.9, "{seen}"),
            None => ensure!(found.method.calls.contains("not counted")),
        }
        ensure!(it.ratio.is_some(), "{seen}");
    }
    let floor = row(point, "floor")?.ratio.context("no ratio")?;
    ensure!((floor.low, floor.high) == (1.0, 1.0), "{floor:?}");
    // It is saved and read again as the same.
    let text = serde_json::to_string(&found)?;
    let again: Comparison = serde_json::from_str(&text)?;
    ensure!(again == found, "{text} is read as something else");
    Ok(())
}

fn open_loop_has_a_curve() -> Result<()> {
    let due = Load { rate: Some(2000.0), ..load(4, 0) };
    let latency = scenario("latency", &[due, load(4, 0)]);
    let found = compare::run(&task(vec![latency], &["epoll_lt"])?, &Silent)?;
    let it = row(&found.points[0], "epoll_lt")?;
    let (shares, spans): (Vec<f64>, Vec<u64>) =
        it.latency_curve.iter().copied().unzip();
    let seen = format!("{it:?}");
    ensure!(shares.is_sorted() && spans.is_sorted(), "{seen}");
    ensure!(shares.last() == Some(&1.0), "{seen}");
    ensure!(spans.last() == Some(&it.latency.max), "{seen}");
    let rate = it.messages_per_second;
    ensure!(rate.low > 1000.0 && rate.high < 2100.0, "{seen}");
    ensure!(row(&found.points[1], "epoll_lt")?.latency_curve.is_empty());
    Ok(())
}

fn idle_points() -> Result<()> {
    let loads = [load(1, 0), load(1, 100), load(1, 900)];
    let names = ["blocking-thread", "poll_server", "epoll_lt"];
    let scan = scenario("scan", &loads);
    let found = compare::run(&task(vec![scan], &names)?, &Silent)?;
    ensure!(found.points.len() == 3);
    let most = &found.points[2];
    // Each of its idle clients has a thread with pages of its own.
    let thread = row(most, "blocking-thread")?.memory_per_idle;
    let epoll = row(most, "epoll_lt")?.memory_per_idle;
    let (thread, epoll) =
        (thread.context("no number")?, epoll.context("no number")?);
    ensure!(thread > 4096.0 && epoll < 300.0, "{thread} and {epoll} bytes");
    ensure!(row(&found.points[0], "epoll_lt")?.memory_per_idle.is_none());
    let slope = |model: &str| {
        let fit = found.fits.iter().find(|fit| fit.model == model);
        fit.map(|fit| fit.ns_per_descriptor).context("no line")
    };
    let (poll, epoll) = (slope("poll_server")?, slope("epoll_lt")?);
    // 150 ns and none, where nothing else runs.
    ensure!(poll > 3.0 * epoll.abs(), "{poll} and {epoll} ns a descriptor");
    Ok(())
}

fn who_fails_is_left_out() -> Result<()> {
    let busy = scenario("busy", &[load(2, 0)]);
    let names = ["blocking", "blocking-pool", "epoll_lt"];
    let found = compare::run(&task(vec![busy], &names)?, &Silent)?;
    let point = &found.points[0];
    ensure!(point.rows.len() == 2, "{point:?}");
    let [absent] = &point.absent[..] else {
        anyhow::bail!("{:?}", point.absent);
    };
    ensure!(absent.model == "blocking", "{absent:?}");
    ensure!(absent.why == "1 client at a time", "{absent:?}");
    // With no floor among them there is nothing to hold the others against.
    ensure!(point.baseline.is_none(), "{point:?}");
    ensure!(point.rows.iter().all(|row| row.ratio.is_none()), "{point:?}");

    let bad = scenario("busy", &[Load { depth: 1 << 20, ..load(1, 0) }]);
    let found = compare::run(&task(vec![bad], &["epoll_lt"])?, &Silent)?;
    let [absent] = &found.points[0].absent[..] else {
        anyhow::bail!("{:?}", found.points);
    };
    ensure!(absent.why.contains("depth"), "{absent:?}");
    Ok(())
}

/// select_server refuses descriptors from 1,024 on; a table that does not say
/// so has it loaded nevertheless, and its first turn fails.
fn who_fails_in_its_turn() -> Result<()> {
    let honest = row_of("select_server")?;
    let boastful = Box::leak(Box::new(Model { limits: NO_LIMITS, ..*honest }));
    let busy = scenario("busy", &[load(1100, 0)]);
    let mut task = task(vec![busy], &["epoll_lt"])?;
    task.models.insert(0, boastful);
    task.baseline = Some(boastful);
    let found = compare::run(&task, &Silent)?;
    let point = &found.points[0];
    let [absent] = &point.absent[..] else {
        anyhow::bail!("{:?}", point.absent);
    };
    ensure!(absent.model == "select_server", "{absent:?}");
    ensure!(absent.why.contains("connection 10"), "{absent:?}");
    ensure!(row(point, "epoll_lt")?.rounds.len() == task.rounds);
    ensure!(point.baseline.is_none(), "{point:?}");
    Ok(())
}

fn a_baseline_of_ones_choice() -> Result<()> {
    let names = ["epoll_lt", "floor"];
    let busy = scenario("busy", &[load(2, 0)]);
    let mut task = task(vec![busy], &names)?;
    task.baseline = Some(row_of("epoll_lt")?);
    let told = Sum(Cell::default());
    let found = compare::run(&task, &told)?;
    ensure!(told.0.get() == task.estimate(), "{:?} of it told", told.0);
    let point = &found.points[0];
    let ratio = row(point, "epoll_lt")?.ratio.context("no ratio")?;
    ensure!((ratio.low, ratio.high) == (1.0, 1.0), "{ratio:?}");
    ensure!(row(point, "floor")?.ratio.is_some());
    Ok(())
}

/// The loud client's rest is everybody's where one thread does all; with a
/// second worker it is its own. A rest of 100 ms is longer than others of this
/// machine take a core for.
fn a_slow_handler_makes_others_wait() -> Result<()> {
    for _ in 0..4 {
        // One in a hundred may have waited for a core that others had.
        if only_one_thread_makes_all_wait()? {
            return Ok(());
        }
    }
    anyhow::bail!("the slowest hundredth waits for a worker as for a thread")
}

/// Whether the slowest hundredth, too, waited ten times as long for the one
/// thread as for a pool. The middle one always does.
fn only_one_thread_makes_all_wait() -> Result<bool> {
    let some = Load { loud: 1, ..load(20, 0) };
    let only = Some(("reactor", "has no slow handler"));
    let slow = |args| Servers { only, args, cores: None };
    let spots = [&["--sleep", "0ms"][..], &["--sleep", "100ms"]].map(|args| {
        let name = args[1];
        Spot { name, load: some, servers: slow(args), quick: false }
    });
    let points = Vec::leak(spots.into());
    let scenario = scenario("slow_handler", &[]);
    let scenario = Box::leak(Box::new(Scenario { points, ..*scenario }));
    let names = ["epoll_lt", "reactor", "reactor-pool", "floor"];
    let mut task = task(vec![scenario], &names)?;
    task.turn = Duration::from_millis(250);
    let found = compare::run(&task, &Silent)?;
    for point in &found.points {
        let absent: Vec<&str> =
            point.absent.iter().map(|it| &*it.model).collect();
        ensure!(absent == ["epoll_lt", "floor"], "{absent:?}");
        for it in &point.absent {
            ensure!(it.why == "has no slow handler", "{it:?}");
        }
        ensure!(point.baseline.as_deref() == Some("reactor"), "{point:?}");
        ensure!(point.args == ["--sleep", &point.name], "{:?}", point.args);
        for row in &point.rows {
            ensure!(row.latency.samples > 10, "{row:?}");
            ensure!(!row.latency_curve.is_empty(), "{row:?}");
        }
    }
    let of = |at: usize, model: &str| {
        Ok::<_, anyhow::Error>(row(&found.points[at], model)?.latency)
    };
    let (single, pool) = (of(1, "reactor")?, of(1, "reactor-pool")?);
    // It sleeps at least so long, and then serves all the others.
    ensure!(single.p50 >= 99_000_000, "{single:?} beside a sleep of 100 ms");
    ensure!(single.p50 >= 10 * pool.p50, "{single:?} and {pool:?}");
    let quiet = of(0, "reactor")?;
    ensure!(single.p50 >= 10 * quiet.p50, "{single:?}, not slow {quiet:?}");
    Ok(single.p99 >= 10 * pool.p99)
}

fn forms_have_their_cores() -> Result<()> {
    let forms = known("forms")?;
    let names = ["epoll_lt", "reactor", "reactor-threads"];
    let found = compare::run(&task(vec![forms], &names)?, &Silent)?;
    let cores = Cores::choose()?;
    for (point, spot) in found.points.iter().zip(forms.points) {
        let wanted = spot.servers.cores.context("any cores")?;
        ensure!(point.cores == Some(wanted), "{point:?}");
        let Some(there) = cores.with_server_on(wanted) else {
            ensure!(point.rows.is_empty(), "{point:?}");
            continue;
        };
        ensure!(point.pinning == Some(there.to_string()), "{point:?}");
        ensure!(point.absent.len() == 1, "{:?}", point.absent);
        let why = "is no form of the reactor";
        ensure!(point.absent[0].why == why, "{:?}", point.absent);
        // What is burnt for each message is in its CPU time.
        let single = row(point, "reactor")?.cpu_ns_per_message.median;
        ensure!(point.args.is_empty() || single > 20_000.0, "{single} ns");
        ensure!(row(point, "reactor-threads")?.threads == 3, "{point:?}");
    }
    Ok(())
}

/// The baseline is its own, and what went through the ring is known.
fn completions_and_readiness() -> Result<()> {
    let question = known(URING_OR_EPOLL)?;
    let points = scenario("", &[load(4, 0), load(4, 0)]).points;
    let scenario = Scenario { points, ..*question };
    let names = ["epoll_et", "proactor", "proactor-multishot", "floor"];
    let mut task = task(vec![Box::leak(Box::new(scenario))], &names)?;
    task.calls = true;
    let found = compare::run(&task, &Silent)?;
    let point = &found.points[0];
    ensure!(point.baseline.as_deref() == Some("epoll_et"), "{point:?}");
    for it in &point.rows {
        let seen = format!("{it:?}");
        ensure!(it.ratio.is_some() && it.p50_ratio.is_some(), "{seen}");
        ensure!(it.p99_ratio.is_some(), "{seen}");
        let bytes = it.bytes_per_cpu_second.context(seen.clone())?.median;
        let same = bytes * it.cpu_ns_per_message.median / 1e9 / 64.0;
        ensure!((0.999..1.001).contains(&same), "{same}: {seen}");
        // Only where they could be counted by name.
        let Some(calls) = &it.calls else { continue };
        let enters = calls.by_name.iter().find(|it| it.0 == "io_uring_enter");
        let waits = calls.messages_per_wait;
        match (it.model.as_str(), enters) {
            ("floor", _) => ensure!(waits.is_none(), "{seen}"),
            ("epoll_et", _) => ensure!(waits >= Some(0.9), "{seen}"),
            (_, None) => ensure!(calls.ring.is_none(), "{seen}"),
            (_, Some((_, enters))) => {
                let waits = waits.context(seen.clone())?;
                ensure!((waits * enters - 1.0).abs() < 1e-9, "{seen}");
                let Some(ring) = calls.ring else { continue };
                // Each message is received, and most are sent by the ring.
                ensure!((0.9..3.1).contains(&ring.completed), "{seen}");
                let each = ring.completed_per_enter.context(seen.clone())?;
                let same = each * enters / ring.completed;
                ensure!((same - 1.0).abs() < 1e-9, "{seen}");
                if it.model == "proactor" {
                    // One receive and one send, each submitted by itself.
                    let ring = (ring.submitted, ring.completed);
                    let two = 1.9..2.1;
                    ensure!(two.contains(&ring.0), "{seen}");
                    ensure!(two.contains(&ring.1), "{seen}");
                }
            }
        }
    }
    if let [absent, ..] = &point.absent[..] {
        println!("{} SKIPPED: {}", absent.model, absent.why);
    }
    Ok(())
}

/// Those of its field, where nobody was named, and each at the loads at which
/// it is asked; whoever is named is asked everything.
fn a_question_has_its_servers() -> Result<()> {
    let question = known(URING_OR_EPOLL)?;
    let field = question.field.context("no servers of its own")?;
    let mut asked = 0;
    for spot in question.points {
        for name in models::names() {
            let entry = question.entry(row_of(name)?, &spot.load);
            let entrant = field.entrants.iter().find(|it| it.name == name);
            ensure!(entry.is_some() == entrant.is_some(), "{name}");
            asked += usize::from(entry == Some(Ok(())));
        }
    }
    ensure!(asked > 3 * question.points.len(), "{asked} are asked");
    ensure!(row_of(field.baseline).is_ok(), "{}", field.baseline);

    let points = scenario("", &[load(2, 0)]).points;
    let question = Box::leak(Box::new(Scenario { points, ..*question }));
    let names = ["epoll_lt", "epoll_et", "poll_server", "proactor-zero-copy"];
    let mut task = task(vec![question], &names)?;
    task.rounds = 1;
    for unnamed in [false, true] {
        task.unnamed = unnamed;
        let found = compare::run(&task, &Silent)?;
        let point = &found.points[0];
        ensure!(row(point, "poll_server").is_ok() != unnamed, "{point:?}");
        ensure!(row(point, "epoll_lt").is_ok(), "{point:?}");
        let absent = point.absent.iter();
        let mut absent = absent.filter(|it| it.why.contains("from 4 KiB on"));
        ensure!(absent.next().is_some() == unnamed, "{point:?}");
        ensure!(!point.absent.iter().any(|it| it.model == "poll_server"));
    }
    Ok(())
}

fn bench(args: &[&str]) -> Result<Output> {
    let bench = env!("CARGO_BIN_EXE_bench");
    Command::new(bench).args(args).output().context(bench)
}

fn command_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (json, html) = (file("run.json"), file("run.html"));
    let line = [
        "compare",
        "busy",
        "--quick",
        "--no-calls",
        "--models",
        "epoll_lt,floor",
        "--rounds",
        "2",
        "--turn",
        "5ms",
        "--json",
        &json,
        "--html",
        &html,
    ];
    let output = bench(&line)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    // Without a terminal one line says how long it will take.
    ensure!(said.lines().count() == 1 && said.contains("about"), "{said}");
    let table = String::from_utf8(output.stdout)?;
    let saved: Comparison = serde_json::from_slice(&fs::read(&json)?)?;
    ensure!(saved.method.quick && saved.method.rounds == 2);
    ensure!(saved.points.len() == 3, "{:?}", saved.points);
    for point in &saved.points {
        ensure!(table.contains(&point.name), "no {} in {table}", point.name);
    }
    ensure!(!table.contains('\x1b'), "colour without a terminal: {table}");
    let page = fs::read_to_string(&html)?;
    ensure!(page.contains("50 connections"), "{page}");

    let listed = bench(&["compare", "--list"])?;
    let listed = String::from_utf8(listed.stdout)?;
    for scenario in SCENARIOS {
        ensure!(listed.contains(scenario.name), "{listed}");
    }
    for name in models::names() {
        ensure!(listed.contains(name), "{listed}");
    }
    ensure!(known("churn").is_ok());
    Ok(())
}

fn usage_errors() -> Result<()> {
    let nowhere = Path::new("/nonexistent/run.json").display().to_string();
    for (args, code, words) in [
        (&["nothing"][..], 2, "'nothing'"),
        (&["--models", "epol"], 2, "'epol'"),
        (&["--models", "epoll_lt", "--baseline", "floor"], 2, "'floor'"),
        (&["--rounds", "0"], 2, "--rounds"),
        (&["--turn", "1h"], 2, "--turn"),
        (&["--buffer", "0"], 2, "--buffer"),
        (&["bulk", "--quick"], 2, "bulk"),
        (&["busy", "--json", &nowhere], 1, &nowhere),
    ] {
        let output = bench(&[&["compare"], args].concat())?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(code), "{args:?}: {said}");
        ensure!(said.lines().count() == 1, "{args:?}: {said}");
        ensure!(said.contains(words), "{args:?}: {said}");
    }
    Ok(())
}

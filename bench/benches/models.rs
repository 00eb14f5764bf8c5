//! `cargo bench`: every row of the table through real child processes, in
//! groups by scenario, so that one chart compares the models.

use std::cell::Cell;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Result;
use bench::compare::{
    Contender, Room, SCENARIOS, Scenario, Setting, Spot, absence,
};
use bench::harness;
use bench::load::Span;
use bench::measure::Cores;
use bench::models::{MODELS, Model, PEERS};
use criterion::{
    BenchmarkId, Criterion, PlottingBackend, SamplingMode, Throughput,
};

/// The scenarios that are benches, and which of their loads are left to the
/// full matrix. A `slow_handler` will come with the reactors.
const GROUPS: &[(&str, &[&str])] = &[
    ("round_trip", &["1 B", "1 KiB"]),
    ("busy", &["1 connection", "50 connections"]),
    ("idle", &["10,000 idle"]),
    ("churn", &[]),
    ("bulk", &[]),
];

/// In the environment of the program that runs the full matrix: criterion
/// refuses arguments that it does not know.
const FULL: &str = "IO_MODELS_FULL_MATRIX";

const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_millis(800);
/// To start a server with its load, and to draw what was measured.
const AROUND: Duration = Duration::from_millis(1400);

fn main() -> ExitCode {
    bench::serve_if_asked();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ! {
    // Nothing is left to tell when this cannot be written either.
    let _lost = writeln!(io::stderr(), "bench: {error:#}");
    std::process::exit(1)
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--full") {
        let others = args.iter().skip(1).filter(|arg| *arg != "--full");
        let error =
            Command::new("/proc/self/exe").args(others).env(FULL, "yes").exec();
        return Err(error.into());
    }
    let benches = benches(std::env::var_os(FULL).is_some());
    // `cargo test --benches` does not say --bench, and means --test.
    let measures = args.iter().any(|arg| arg == "--bench")
        && !args.iter().any(|arg| matches!(&**arg, "--test" | "--list"));
    if measures {
        let each = WARM_UP + MEASURED + AROUND;
        let count = u32::try_from(benches.len())?;
        let minutes = (each * count).as_secs_f64() / 60.0;
        writeln!(
            io::stderr(),
            "{count} benches, about {minutes:.0} minutes; `cargo bench -- \
             NAME` runs those whose name has NAME in it, `-- --full` the full \
             matrix"
        )?;
    }
    harness::raise_descriptor_limit();
    let setting = Setting { buffer: 16 * 1024, cores: Cores::choose()? };
    let mut criterion = Criterion::default()
        .plotting_backend(PlottingBackend::Plotters)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASURED)
        .sample_size(10)
        .configure_from_args();
    for &(name, _) in GROUPS {
        let of_group = benches.iter().filter(|bench| bench.0.name == name);
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat);
        for &(scenario, spot, model) in of_group {
            group.throughput(match scenario.name {
                "bulk" => Throughput::Bytes(spot.load.size as u64),
                _ => Throughput::Elements(1),
            });
            let id = BenchmarkId::new(model.name, spot.name);
            // It is started by the first use: a filter may leave it out.
            let contender = Cell::new(None);
            group.bench_function(id, |bencher| {
                let mut ready = contender.take().unwrap_or_else(|| {
                    Contender::start(model, spot, &setting)
                        .unwrap_or_else(|error| failed(&error))
                });
                bencher.iter_custom(|wanted| {
                    // The floor goes round all of its clients.
                    let clients = spot.load.connections as u64;
                    let messages = wanted.next_multiple_of(clients);
                    let turn = ready.turn(Span::Messages(messages));
                    let (turn, _) = turn.unwrap_or_else(|err| failed(&err));
                    let share = wanted as f64 / messages as f64;
                    Duration::from_secs_f64(turn.seconds * share)
                });
                contender.set(Some(ready));
            });
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}

type Bench = (&'static Scenario, &'static Spot, &'static Model);

fn benches(full: bool) -> Vec<Bench> {
    let mut benches = Vec::new();
    for (name, rare) in GROUPS {
        let scenario = SCENARIOS.iter().find(|it| it.name == *name);
        let spots = scenario.into_iter().flat_map(|scenario| {
            scenario.points.iter().map(move |spot| (scenario, spot))
        });
        let wanted = |spot: &Spot| full || !rare.contains(&spot.name);
        for (scenario, spot) in spots.filter(|it| wanted(it.1)) {
            let models = MODELS.iter().chain(PEERS);
            let room = Room::here();
            let fits = |it: &&Model| absence(it, spot, room).is_none();
            benches.extend(models.filter(fits).map(|it| (scenario, spot, it)));
        }
    }
    benches
}

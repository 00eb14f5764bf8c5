//! A comparison that nobody has measured: every scenario, every server of
//! the table, numbers of a likely size, always the same.

use bench::compare::{SCENARIOS, URING_OR_EPOLL};
use bench::models::{MODELS, Model, PEERS};
use bench::results::{
    Absent, Calls, Comparison, Estimate, FORMAT, Fit, Latency, Load, Machine,
    Method, Point, Ring, Round, Row, Switches,
};

const ROUNDS: usize = 20;

/// What a server is likely to take.
struct Nature {
    /// Nanoseconds of CPU a message with one connection, and with many.
    alone: f64,
    busy: f64,
    /// What each silent descriptor adds to a wait.
    scan: f64,
    /// Bytes of an idle connection.
    idle: f64,
    calls: &'static [(&'static str, f64)],
}

fn nature(model: &Model) -> Nature {
    let nature = |alone, busy, scan, idle, calls| Nature {
        alone,
        busy,
        scan,
        idle,
        calls,
    };
    match model.name {
        "blocking" => nature(
            19_800.0,
            0.0,
            0.0,
            0.0,
            &[("recvfrom", 1.0), ("sendto", 1.0)],
        ),
        "blocking-process" => {
            let calls = &[("recvfrom", 1.0), ("sendto", 1.0)];
            nature(20_400.0, 11_900.0, 0.0, 92_000.0, calls)
        }
        "blocking-thread" => {
            let calls = &[("recvfrom", 1.0), ("sendto", 1.0)];
            nature(20_100.0, 9_800.0, 0.0, 14_300.0, calls)
        }
        "blocking-pool" => {
            let calls = &[("recvfrom", 1.0), ("sendto", 1.0), ("futex", 0.01)];
            nature(20_200.0, 9_900.0, 0.0, 0.0, calls)
        }
        "nonblocking_poll" => {
            let calls =
                &[("recvfrom", 11.4), ("sendto", 1.0), ("accept4", 0.21)];
            nature(51_000.0, 9_100.0, 380.0, 61.0, calls)
        }
        "nonblocking_poll-pause" => {
            let calls = &[
                ("recvfrom", 1.9),
                ("sendto", 1.0),
                ("clock_nanosleep", 0.02),
                ("accept4", 0.02),
            ];
            nature(31_000.0, 6_600.0, 371.0, 61.0, calls)
        }
        "select_server" => {
            let calls =
                &[("recvfrom", 1.0), ("sendto", 1.0), ("pselect6", 0.12)];
            nature(22_900.0, 7_600.0, 168.0, 66.0, calls)
        }
        "poll_server" => {
            let calls = &[("recvfrom", 1.0), ("sendto", 1.0), ("poll", 0.12)];
            nature(22_700.0, 7_500.0, 171.0, 72.0, calls)
        }
        "epoll_lt" => {
            let calls =
                &[("recvfrom", 1.0), ("sendto", 1.0), ("epoll_wait", 0.13)];
            nature(21_900.0, 6_900.0, 0.01, 0.0, calls)
        }
        "epoll_et" => {
            let calls =
                &[("recvfrom", 2.0), ("sendto", 1.0), ("epoll_wait", 0.12)];
            nature(22_300.0, 7_250.0, 0.012, 0.0, calls)
        }
        "signal_driven" => {
            let calls =
                &[("recvfrom", 2.0), ("sendto", 1.0), ("rt_sigtimedwait", 3.1)];
            nature(24_900.0, 11_800.0, 0.02, 40.0, calls)
        }
        "signal_driven-handler" => {
            let calls = &[
                ("recvfrom", 2.0),
                ("sendto", 1.0),
                ("ppoll", 2.9),
                ("rt_sigreturn", 2.9),
            ];
            nature(26_800.0, 14_100.0, 0.02, 40.0, calls)
        }
        "signal_driven-sigio" => {
            let calls = &[
                ("recvfrom", 1.0),
                ("sendto", 1.0),
                ("rt_sigtimedwait", 0.61),
                ("poll", 0.6),
            ];
            nature(26_100.0, 9_900.0, 169.0, 72.0, calls)
        }
        "aio_file" | "aio_file-thread" | "aio_file-suspend" => {
            let more = if model.name == "aio_file" { 1.0 } else { 1.4 };
            let calls: &[_] = match model.name {
                "aio_file-thread" => &[
                    ("futex", 9.1),
                    ("pread64", 1.0),
                    ("pwrite64", 1.0),
                    ("clone3", 2.0),
                    ("recvfrom", 1.0),
                    ("sendto", 1.0),
                    ("read", 2.1),
                    ("write", 2.0),
                    ("rt_sigprocmask", 12.0),
                    ("poll", 1.2),
                ],
                _ => &[
                    ("futex", 5.2),
                    ("pread64", 1.0),
                    ("pwrite64", 1.0),
                    ("recvfrom", 1.0),
                    ("sendto", 1.0),
                    ("poll", 1.2),
                    ("rt_sigqueueinfo", 2.0),
                ],
            };
            nature(118_000.0 * more, 61_000.0 * more, 175.0, 210.0, calls)
        }
        "peer-tokio" => {
            let calls =
                &[("recvfrom", 1.0), ("sendto", 1.0), ("epoll_wait", 0.13)];
            nature(23_100.0, 7_300.0, 0.01, 5_120.0, calls)
        }
        "peer-tokio-multi" => {
            let calls = &[
                ("recvfrom", 1.0),
                ("sendto", 1.0),
                ("epoll_wait", 0.31),
                ("futex", 0.22),
            ];
            nature(26_400.0, 9_700.0, 0.02, 5_180.0, calls)
        }
        "peer-mio" => {
            let calls =
                &[("recvfrom", 2.0), ("sendto", 1.0), ("epoll_wait", 0.13)];
            nature(22_400.0, 7_180.0, 0.01, 53.0, calls)
        }
        "proactor-multishot" => {
            let calls = &[("io_uring_enter", 0.06)];
            nature(24_100.0, 5_310.0, 0.01, 0.0, calls)
        }
        name if name.starts_with("proactor") => {
            let calls = &[("io_uring_enter", 0.09)];
            nature(22_800.0, 7_280.0, 0.01, 16_400.0, calls)
        }
        _ => nature(
            19_300.0,
            6_390.0,
            0.0,
            0.0,
            &[("recvfrom", 1.0), ("sendto", 1.0)],
        ),
    }
}

struct Dice(fastrand::Rng);

impl Dice {
    /// So many times as much, give or take so much.
    fn about(&mut self, number: f64, spread: f64) -> f64 {
        number * (1.0 + spread * (self.0.f64() + self.0.f64() - 1.0))
    }
}

fn estimate(mut rounds: Vec<f64>) -> Estimate {
    rounds.sort_by(f64::total_cmp);
    let n = rounds.len();
    Estimate {
        median: (rounds[(n - 1) / 2] + rounds[n / 2]) / 2.0,
        low: rounds[n / 4],
        high: rounds[n - 1 - n / 4],
    }
}

/// Why a server has no place at this load.
fn why_not(model: &Model, load: &Load) -> Option<String> {
    let all = load.connections + load.idle;
    if model.name == "floor" && load.idle > 0 {
        return Some("it goes round its clients and waits for each".into());
    }
    if model.name != "floor"
        && let Some(clients) = model.limits.clients
        && clients < all
    {
        return Some(match clients {
            1 => "one client at a time".to_string(),
            many => format!("{many} clients at a time"),
        });
    }
    if model.limits.descriptors_below.is_some_and(|it| it <= all + 8) {
        return Some("descriptors below 1,024".to_string());
    }
    if model.name == "blocking-process" && all > 4_000 {
        return Some("as many processes as clients, and no more fit".into());
    }
    None
}

fn curve(p50: f64, dice: &mut Dice) -> Vec<(f64, u64)> {
    let jump = dice.about(3.0, 0.8);
    let step = |n: u32| {
        let share = 1.0 - 10f64.powf(-f64::from(n) / 12.0);
        let tail = -(1.0 - share).ln();
        let knee = if share > 0.995 { jump } else { 1.0 };
        (share, (p50 * (0.6 + 0.55 * tail) * knee) as u64)
    };
    let mut curve: Vec<_> = (0..=54).map(step).collect();
    curve.push((1.0, curve[54].1 * 2));
    curve
}

fn latency(curve: &[(f64, u64)]) -> Latency {
    let within =
        |share: f64| curve.iter().find(|it| it.0 >= share).map_or(0, |it| it.1);
    Latency {
        samples: 812_345,
        mean: within(0.6),
        p50: within(0.5),
        p90: within(0.9),
        p99: within(0.99),
        p99_9: within(0.999),
        max: within(1.0),
    }
}

fn row(
    model: &Model,
    load: &Load,
    base: &[f64],
    dice: &mut Dice,
) -> Option<Row> {
    if why_not(model, load).is_some() {
        return None;
    }
    let nature = nature(model);
    let peer = model.binary == "peers";
    let few = 1.0 / load.connections as f64;
    let depth = (load.depth.max(1) as f64).powf(0.85);
    let mut cost = nature.busy + (nature.alone - nature.busy) * few;
    // A wait is shared by the messages that it found.
    let found = (load.connections as f64 / 8.0).max(1.0);
    cost += nature.scan * (load.connections + load.idle) as f64 / found;
    cost = cost / depth + load.size as f64 * 0.11;
    if load.messages_per_connection.is_some() {
        cost += 42_000.0;
    }
    let cpu: Vec<f64> = (0..ROUNDS).map(|_| dice.about(cost, 0.05)).collect();
    let own: Vec<f64> =
        (0..ROUNDS).map(|_| dice.about(6_700.0 / depth, 0.04)).collect();
    let rate = |at: usize| {
        let slower = cpu[at].max(own[at]) + 21_000.0 * few;
        load.rate.unwrap_or(1e9 / slower)
    };
    let rates: Vec<f64> = (0..ROUNDS).map(rate).collect();
    let sent = estimate(rates.clone());
    let p50 = 1e9 / sent.median * load.connections as f64 * depth;
    let p50 = if load.rate.is_some() { cost * 7.0 } else { p50 };
    let curve = curve(p50, dice);
    let latency = latency(&curve);
    let bytes = |it: f64| it * load.size as f64;
    let share = (own[0] * sent.median / 1e9).min(0.99);
    let total: f64 = nature.calls.iter().map(|it| it.1).sum();
    let per_client = model.summary.contains("for each client");
    let clients = load.connections + load.idle;
    let threads = if per_client { clients + 1 } else { 1 };
    let process = model.name == "blocking-process";
    let rounds = (0..ROUNDS).map(|at| Round {
        messages_per_second: rates[at],
        cpu_ns_per_message: cpu[at],
        generator_ns_per_message: own[at],
        p50: latency.p50,
        p99: latency.p99,
    });
    let ratios_of = |times: f64| -> Vec<f64> {
        cpu.iter().zip(base).map(|(it, base)| times * it / base).collect()
    };
    let waits = ["epoll_wait", "io_uring_enter", "poll", "pselect6"];
    let wait = nature.calls.iter().find(|it| waits.contains(&it.0));
    let ring = nature.calls.iter().find(|it| it.0 == "io_uring_enter");
    let mut by_name: Vec<_> =
        nature.calls.iter().map(|it| (it.0.to_string(), it.1)).collect();
    by_name.sort_by(|a, b| b.1.total_cmp(&a.1));
    Some(Row {
        model: model.name.to_string(),
        peer,
        bytes_per_second: Estimate {
            median: bytes(sent.median),
            low: bytes(sent.low),
            high: bytes(sent.high),
        },
        messages_per_second: sent,
        cpu_ns_per_message: estimate(cpu.clone()),
        user_share: Some(dice.about(0.11, 0.4)),
        bytes_per_cpu_second: Some(estimate(
            cpu.iter().map(|it| bytes(1e9 / it)).collect(),
        )),
        p50_ratio: (!base.is_empty()).then(|| estimate(ratios_of(1.01))),
        p99_ratio: (!base.is_empty()).then(|| estimate(ratios_of(0.99))),
        ratio: (!base.is_empty()).then(|| estimate(ratios_of(1.0))),
        latency,
        latency_curve: curve,
        connect: load.messages_per_connection.map(|_| latency),
        generator_ns_per_message: estimate(own.clone()),
        generator_core_share: share,
        switches: (model.name != "aio_file-thread").then(|| Switches {
            voluntary: dice.about(0.9 * few + 0.02, 0.3),
            involuntary: dice.about(0.003, 0.9),
        }),
        calls: Some(Calls {
            total: total * 1.004,
            by_name,
            messages_per_wait: wait.map(|it| 1.0 / it.1),
            ring: ring.map(|it| Ring {
                submitted: 1.02,
                completed: 2.0,
                submitted_per_enter: Some(1.02 / it.1),
                completed_per_enter: Some(2.0 / it.1),
            }),
        }),
        memory: (1_400_000.0 + nature.idle * clients as f64) as u64,
        memory_per_idle: (load.idle > 0 && model.name != "epoll_et")
            .then(|| dice.about(nature.idle, 0.02)),
        against_none_idle: (load.idle > 0 && model.name != "epoll_et")
            .then(|| estimate(cpu.iter().map(|it| it / cpu[0]).collect())),
        threads: if process { clients + 1 } else { threads },
        processes: if process { clients + 1 } else { 1 },
        rounds: rounds.collect(),
    })
}

fn point(scenario: &str, name: &str, load: Load, dice: &mut Dice) -> Point {
    let baseline = match load.idle {
        0 => "floor",
        _ => "peer-mio",
    };
    point_against(baseline, scenario, name, load, dice)
}

fn point_against(
    baseline: &str,
    scenario: &str,
    name: &str,
    load: Load,
    dice: &mut Dice,
) -> Point {
    let all = || MODELS.iter().chain(PEERS);
    let base = all().find(|it| it.name == baseline);
    let base = base.and_then(|it| row(it, &load, &[], dice));
    let base: Vec<f64> = base.map_or(Vec::new(), |row| {
        row.rounds.iter().map(|it| it.cpu_ns_per_message).collect()
    });
    let rows = all().filter_map(|it| row(it, &load, &base, dice)).collect();
    let absent = all().filter_map(|it| {
        let why = why_not(it, &load)?;
        Some(Absent { model: it.name.to_string(), why })
    });
    Point {
        scenario: scenario.to_string(),
        name: name.to_string(),
        load,
        baseline: Some(baseline.to_string()),
        rows,
        absent: absent.collect(),
        args: Vec::new(),
        cores: None,
        pinning: None,
    }
}

/// A point that is for reactors only, and says something to them.
fn of_reactors(
    mut point: Point,
    args: &str,
    cores: Option<usize>,
    why: &str,
) -> Point {
    let others: Vec<String> = MODELS
        .iter()
        .chain(PEERS)
        .filter(|it| it.binary != "reactor")
        .map(|it| it.name.to_string())
        .collect();
    point.rows.retain(|row| !others.contains(&row.model));
    let absent = others.into_iter();
    point.absent =
        absent.map(|model| Absent { model, why: why.to_string() }).collect();
    point.baseline = Some("reactor".to_string());
    point.args = args.split_whitespace().map(str::to_string).collect();
    point.cores = cores;
    point.pinning = cores.map(|cores| {
        let many = if cores == 1 { "core 0" } else { "cores 0-1" };
        format!("The server had {many}, the generator core 1.")
    });
    point
}

/// Completions held against readiness: who takes part is in its scenario.
fn uring_or_epoll(dice: &mut Dice) -> Vec<Point> {
    let scenario = SCENARIOS.iter().find(|it| it.name == URING_OR_EPOLL);
    let Some(scenario) = scenario else { return Vec::new() };
    let point = |spot: &bench::compare::Spot| {
        let (name, load) = (spot.name, spot.load);
        let mut point =
            point_against("epoll_et", URING_OR_EPOLL, name, load, dice);
        let entry = |name: &str| {
            let mut all = MODELS.iter().chain(PEERS);
            let model = all.find(|model| model.name == name)?;
            scenario.entry(model, &load)
        };
        let takes_part = |row: &Row| matches!(entry(&row.model), Some(Ok(())));
        point.rows.retain(takes_part);
        point.absent.retain(|it| entry(&it.model).is_some());
        for model in MODELS {
            if let Some(Err(why)) = entry(model.name) {
                let (model, why) = (model.name.to_string(), why.to_string());
                point.absent.push(Absent { model, why });
            }
        }
        point
    };
    scenario.points.iter().map(point).collect()
}

/// A straight line through two of the points; the fixture's points lie on it.
fn fit(model: &str, points: &[Point]) -> Option<Fit> {
    let of = |point: &Point| {
        let row = point.rows.iter().find(|row| row.model == model)?;
        let descriptors = point.load.idle + point.load.connections;
        Some((descriptors as f64, row.cpu_ns_per_message.median))
    };
    let all: Vec<_> = points.iter().filter_map(of).collect();
    let (first, last) = (*all.first()?, *all.last()?);
    let slope = (last.1 - first.1) / (last.0 - first.0);
    (all.len() > 2).then(|| Fit {
        scenario: "scan".to_string(),
        model: model.to_string(),
        base_ns: first.1 - slope * first.0,
        ns_per_descriptor: slope,
        low: slope - slope.abs() * 0.02,
        high: slope + slope.abs() * 0.02,
        r_squared: 0.9987,
        points: all.len(),
    })
}

/// The whole of it.
pub fn comparison() -> Comparison {
    let dice = &mut Dice(fastrand::Rng::with_seed(4));
    let base = Load { connections: 50, size: 64, depth: 1, ..Load::default() };
    let mut points = Vec::new();
    let mut add = |scenario: &str, name: String, load: Load| {
        points.push(point(scenario, &name, load, dice));
    };
    for (name, size) in
        [("1 B", 1), ("64 B", 64), ("1 KiB", 1024), ("64 KiB", 65_536)]
    {
        let load = Load { connections: 1, size, ..base };
        add("round_trip", name.to_string(), load);
    }
    for connections in [1, 10, 50, 100, 1000] {
        let load = Load { connections, ..base };
        let s = if connections == 1 { "" } else { "s" };
        add("busy", format!("{connections} connection{s}"), load);
    }
    add("pipelined", "depth 16".into(), Load { depth: 16, ..base });
    add("large", "16 KiB".into(), Load { size: 16_384, ..base });
    for idle in [0, 1000, 10_000] {
        let load = Load { connections: 100, idle, ..base };
        add("idle", format!("{idle} idle"), load);
    }
    for idle in [0, 100, 300, 900, 3000, 10_000] {
        let load = Load { connections: 1, idle, ..base };
        add("scan", format!("{idle} idle"), load);
    }
    let churn = Load { messages_per_connection: Some(1), ..base };
    add("churn", "one message each".into(), churn);
    let bulk = Load { connections: 1, size: 1 << 20, depth: 4, ..base };
    add("bulk", "1 MiB".into(), bulk);
    let rate = Load { rate: Some(20_000.0), ..base };
    add("latency", "20,000 messages a second".into(), rate);
    let loud = Load { connections: 20, loud: 1, ..base };
    for sleep in ["0 ms", "10 ms"] {
        let (name, args) = (format!("sleep {sleep}"), sleep.replace(' ', ""));
        let point = point("slow_handler", &name, loud, dice);
        let args = format!("--sleep {args}");
        let why = "has no slow handler";
        points.push(of_reactors(point, &args, None, why));
    }
    for (args, loud) in [("", 0), ("--work 20us", 64)] {
        for cores in [1, 2] {
            let load = Load { connections: 64, loud, ..base };
            let name = format!("{cores} of the cores{args}");
            let point = point("forms", &name, load, dice);
            let why = "is no form of the reactor";
            points.push(of_reactors(point, args, Some(cores), why));
        }
    }
    points.extend(uring_or_epoll(dice));
    let scans: Vec<Point> =
        points.iter().filter(|it| it.scenario == "scan").cloned().collect();
    let fits = MODELS.iter().chain(PEERS);
    let fits = fits.filter_map(|it| fit(it.name, &scans)).collect();
    let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
    Comparison {
        format: FORMAT,
        machine: Machine {
            date: "2026-11-21T18:28:36Z".to_string(),
            commit: Some("71dcd96b1c5e-dirty".to_string()),
            kernel: "Linux 6.18.5 x86_64".to_string(),
            cpu: "Intel Xeon Platinum 8481C, under KVM".to_string(),
            cores: 2,
            memory: 8_321_499_136,
            limits: vec![
                pair("descriptors", "20,000"),
                pair("processes", "31,337"),
                pair("ports", "32768 to 60999"),
            ],
            mitigations: vec![
                pair("spectre_v2", "Enhanced / Automatic IBRS"),
                pair("mmio_stale_data", "Vulnerable: no microcode"),
            ],
            versions: vec![
                pair("io-models", "0.1.0"),
                pair("rustc", "1.95.0"),
                pair("glibc", "2.36"),
                pair("tokio", "1.52.1"),
                pair("mio", "1.2.0"),
            ],
            load_average: 0.34,
        },
        method: Method {
            rounds: ROUNDS,
            turn_seconds: 0.25,
            buffer: 4096,
            pinning: "The server had core 0, the generator core 1.".to_string(),
            calls: "System calls were counted by the kernel’s tracepoint, on \
                    a short run of its own."
                .to_string(),
            quick: false,
        },
        points,
        fits,
    }
}

//! Which charts a comparison gives, and the numbers that stand below each.

use std::collections::BTreeMap;

use super::answers::{Passage, Verdict};
use super::number;
use super::plural;
use super::scale::Kind;
use super::series::Series;
use super::svg::{Axis, Bar, Bars, Dots, Drawing, Line, Lines, Mark};
use crate::compare::URING_OR_EPOLL;
use crate::results::{Comparison, Estimate, Point, Row};

mod uring;

/// Above this the generator, too, decides how many messages there are.
pub const BUSY: f64 = 0.9;

/// Charts that answer one question.
pub struct Section {
    /// The question.
    pub title: &'static str,
    /// What is said before them.
    pub before: Vec<Part>,
    /// The answers.
    pub charts: Vec<Chart>,
    /// What is not drawn, and why.
    pub missing: Vec<String>,
}

impl Section {
    fn new(title: &'static str) -> Section {
        let (before, charts, missing) = (Vec::new(), Vec::new(), Vec::new());
        Section { title, before, charts, missing }
    }
}

/// What is said, where nothing is drawn.
pub enum Part {
    /// A heading within the section.
    Heading(String),
    /// A paragraph.
    Passage(Passage),
    /// Several of them, as a list.
    List(Vec<Passage>),
    /// Numbers, and what they are.
    Table(String, Numbers),
}

/// A chart with all that stands around it.
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// How it is to be read.
    pub caption: String,
    /// What is drawn.
    pub drawing: Drawing,
    /// The names of the parts of its bars.
    pub parts: Vec<String>,
    /// Its numbers.
    pub tables: Vec<Numbers>,
    /// What is not in it, and why.
    pub absent: Vec<String>,
    /// A dagger in its table means that the generator was busy.
    pub daggers: bool,
}

/// A table of numbers.
pub struct Numbers {
    /// The columns' names, but for the first, which holds servers.
    pub heads: Vec<String>,
    /// One row for each server, by its number.
    pub rows: Vec<(usize, Vec<Cell>)>,
}

/// What stands in a table.
pub enum Cell {
    /// A number that there is not.
    Nothing,
    /// A number that was measured.
    Number(Shown),
    /// A median with its interval; `true` if the generator was busy.
    Estimate([Shown; 3], bool),
    /// A ratio with its interval, and what it says.
    Verdict([Shown; 3], Verdict),
}

/// A number, and where it stands in the saved form.
pub struct Shown {
    /// A JSON pointer (RFC 6901).
    pub at: String,
    /// The number.
    pub number: f64,
    /// How it is written.
    pub unit: Unit,
}

/// How a number is written.
#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    /// Nanoseconds, written in microseconds.
    Micros,
    /// Three digits.
    Three,
    /// A whole number.
    Count,
    /// With its own unit.
    Bytes,
    /// A share of one, in hundredths.
    Percent,
    /// Without zeros at its end.
    Plain,
}

impl Unit {
    /// The number as text.
    pub fn write(self, number: f64) -> String {
        match self {
            Unit::Micros => number::micros(number),
            Unit::Three => number::three(number),
            Unit::Count => number::count(number),
            Unit::Bytes => number::bytes(number),
            Unit::Percent => number::percent(number),
            Unit::Plain => number::plain(number),
        }
    }

    /// Its name in the page.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Micros => "us",
            Unit::Three => "three",
            Unit::Count => "count",
            Unit::Bytes => "bytes",
            Unit::Percent => "percent",
            Unit::Plain => "plain",
        }
    }
}

impl Cell {
    /// A number of the saved form.
    pub fn number(at: String, number: f64, unit: Unit) -> Self {
        Cell::Number(Shown { at, number, unit })
    }

    /// A number that may be lacking.
    pub fn maybe(at: String, number: Option<f64>, unit: Unit) -> Self {
        number.map_or(Cell::Nothing, |number| Cell::number(at, number, unit))
    }

    /// An estimate of the saved form.
    pub fn estimate(at: &str, it: &Estimate, unit: Unit, busy: bool) -> Self {
        let of = |name: &str, number| Shown {
            at: format!("{at}/{name}"),
            number,
            unit,
        };
        let three =
            [of("median", it.median), of("low", it.low), of("high", it.high)];
        Cell::Estimate(three, busy)
    }
}

/// Scenarios that have an axis, and so charts of their own.
const WITH_AXIS: [&str; 8] = [
    "round_trip",
    "busy",
    "idle",
    "scan",
    "latency",
    "slow_handler",
    "forms",
    URING_OR_EPOLL,
];

/// What the others are about.
fn about(scenario: &str) -> &'static str {
    match scenario {
        "pipelined" => "Several messages are outstanding on each connection.",
        "large" => "Messages that are copied long.",
        "churn" => "Each client connects, says one message, and goes.",
        "bulk" => "One client, and as many bytes as it can get through.",
        _ => "",
    }
}

/// A comparison with its servers numbered.
pub struct Source<'a> {
    comparison: &'a Comparison,
    series: &'a [Series],
    numbers: BTreeMap<&'a str, usize>,
}

impl<'a> Source<'a> {
    /// The servers are those of [`super::series::of`].
    pub fn new(comparison: &'a Comparison, series: &'a [Series]) -> Self {
        let numbers = series.iter().enumerate();
        let numbers = numbers.map(|(at, it)| (it.name.as_str(), at)).collect();
        Source { comparison, series, numbers }
    }

    /// All that can be drawn.
    pub fn sections(&self) -> Vec<Section> {
        let section = |title, charts: Vec<Result<Chart, String>>| {
            let mut section = Section::new(title);
            for chart in charts {
                match chart {
                    Ok(chart) => section.charts.push(chart),
                    Err(why) => section.missing.push(why),
                }
            }
            section
        };
        if self.is_uring_only() {
            return self.uring();
        }
        let mut busy = vec![self.busy_cpu(), self.busy_throughput()];
        busy.extend(self.ratios());
        let mut sections = vec![
            section("What a message costs", busy),
            section(
                "What idle connections cost",
                vec![
                    self.idle_cpu(),
                    self.idle_ratio(),
                    self.scan(),
                    self.idle_memory(),
                ],
            ),
            section("What a client sees", {
                let mut charts = vec![self.round_trip()];
                charts.extend(self.latency());
                charts.extend(self.slow_handler());
                charts
            }),
            section("What a second core brings", self.forms()),
            section("What the server asks of the kernel", vec![self.calls()]),
            section("Other loads", self.others()),
        ];
        sections.extend(self.uring());
        sections
    }

    fn points(&self, scenario: &str) -> Vec<(usize, &'a Point)> {
        let points = self.comparison.points.iter().enumerate();
        points.filter(|(_, point)| point.scenario == scenario).collect()
    }

    /// Rows with their places in the saved form.
    fn rows(
        &self,
        at: usize,
        point: &'a Point,
    ) -> impl Iterator<Item = (usize, String, &'a Row)> {
        point.rows.iter().enumerate().map(move |(row, it)| {
            let number = self.numbers[it.model.as_str()];
            (number, format!("/points/{at}/rows/{row}"), it)
        })
    }

    /// A chart of lines, where each point gives each server one mark.
    fn lines(
        &self,
        scenario: &str,
        texts: (&str, &str),
        axes: (Axis, Axis),
        across: impl Fn(&Point) -> f64,
        up: impl Fn(&Row) -> Option<(Cell, Mark)>,
    ) -> Result<Chart, String> {
        let points = self.points(scenario);
        self.lines_of(scenario, &points, texts, axes, across, up)
    }

    /// The same of some points of the scenario.
    fn lines_of(
        &self,
        scenario: &str,
        points: &[(usize, &'a Point)],
        texts: (&str, &str),
        axes: (Axis, Axis),
        across: impl Fn(&Point) -> f64,
        up: impl Fn(&Row) -> Option<(Cell, Mark)>,
    ) -> Result<Chart, String> {
        let (title, caption) = texts;
        let mut lines: BTreeMap<usize, Line> = BTreeMap::new();
        let mut cells: BTreeMap<usize, Vec<Cell>> = BTreeMap::new();
        for (column, &(at, point)) in points.iter().enumerate() {
            for (number, place, row) in self.rows(at, point) {
                let Some((mut cell, mut mark)) = up(row) else { continue };
                match &mut cell {
                    Cell::Nothing => {}
                    Cell::Number(it) => it.at.insert_str(0, &place),
                    Cell::Estimate(all, _) | Cell::Verdict(all, _) => {
                        all.iter_mut()
                            .for_each(|it| it.at.insert_str(0, &place));
                    }
                }
                mark.x = across(point);
                mark.told =
                    format!("{}, {}: {}", row.model, point.name, mark.told);
                let line =
                    || Line { series: number, marks: Vec::new(), path: None };
                lines.entry(number).or_insert_with(line).marks.push(mark);
                let cells = cells.entry(number).or_default();
                cells.resize_with(column, || Cell::Nothing);
                cells.push(cell);
            }
        }
        if lines.is_empty() {
            return Err(format!(
                "“{title}” is not drawn: nothing of the scenario {scenario} was \
                 measured."
            ));
        }
        for cells in cells.values_mut() {
            cells.resize_with(points.len(), || Cell::Nothing);
        }
        let heads = points.iter().map(|(_, it)| it.name.clone()).collect();
        let mut lines: Vec<Line> = lines.into_values().collect();
        for line in &mut lines {
            line.marks.sort_by(|a, b| a.x.total_cmp(&b.x));
        }
        let (x, y) = axes;
        Ok(Chart {
            title: title.to_string(),
            caption: caption.to_string(),
            drawing: Drawing::Lines(Lines { x, y, reference: None, lines }),
            parts: Vec::new(),
            tables: vec![Numbers { heads, rows: cells.into_iter().collect() }],
            absent: absent(points),
            daggers: false,
        })
    }

    /// Ticks where something was measured.
    fn ticks(
        &self,
        scenario: &str,
        across: impl Fn(&Point) -> f64,
        write: fn(f64) -> String,
    ) -> Option<Vec<(f64, String)>> {
        let points = self.points(scenario);
        let mut ticks: Vec<f64> =
            points.iter().map(|(_, point)| across(point)).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        Some(ticks.into_iter().map(|tick| (tick, write(tick))).collect())
    }

    fn busy_cpu(&self) -> Result<Chart, String> {
        let across = |point: &Point| point.load.connections as f64;
        self.lines(
            "busy",
            (
                "CPU time a message, against active connections",
                "What the server and its children take of a core. Lower is \
                 better. Each step of an axis is a factor.",
            ),
            (
                Axis {
                    ticks: self.ticks("busy", across, number::count),
                    ..axis("active connections", Kind::Log)
                },
                micros_axis("CPU time a message, µs"),
            ),
            across,
            |row| Some(cpu(row)),
        )
    }

    fn busy_throughput(&self) -> Result<Chart, String> {
        let across = |point: &Point| point.load.connections as f64;
        let mut chart = self.lines(
            "busy",
            (
                "Messages a second, against active connections",
                "Higher is better, but see above: where the load generator has \
                 no time left, this is what the pair of them can do.",
            ),
            (
                Axis {
                    ticks: self.ticks("busy", across, number::count),
                    ..axis("active connections", Kind::Log)
                },
                Axis {
                    write: number::plain_brief,
                    ..axis("messages a second", Kind::Log)
                },
            ),
            across,
            |row| Some(throughput(row)),
        )?;
        chart.daggers = any_busy(&self.points("busy"));
        Ok(chart)
    }

    fn ratios(&self) -> Vec<Result<Chart, String>> {
        let mut charts = Vec::new();
        for (at, point) in self.points("busy") {
            if [1, 50, 1000].contains(&point.load.connections)
                && let Some(chart) = self.ratio(at, point)
            {
                charts.push(Ok(chart));
            }
        }
        if charts.is_empty() {
            charts.push(Err(
                "“CPU time against the baseline” is not drawn: at \
                             1, 50 and 1,000 active connections nothing was \
                             measured together with a baseline."
                    .to_string(),
            ));
        }
        charts
    }

    fn ratio(&self, at: usize, point: &'a Point) -> Option<Chart> {
        let baseline = point.baseline.as_deref()?;
        let title = format!(
            "CPU time a message against {baseline}, {}",
            plural(point.load.connections, "connection", "connections")
        );
        let times = format!("times {baseline}");
        self.times(at, point, title, &times, "ratio", |row| row.ratio)
    }

    /// At the point with most idle connections.
    fn idle_ratio(&self) -> Result<Chart, String> {
        let points = self.points("idle").into_iter();
        let most = points.max_by_key(|(_, point)| point.load.idle);
        let chart = most.and_then(|(at, point)| {
            let title = format!(
                "CPU time a message among {} idle connections, against none",
                number::count(point.load.idle as f64)
            );
            let (head, name) = ("times none idle", "against_none_idle");
            self.times(at, point, title, head, name, |it| it.against_none_idle)
        });
        chart.ok_or_else(|| {
            "“CPU time against none idle” is not drawn: no server was \
             measured with and without idle connections."
                .to_string()
        })
    }

    /// A ratio of each server at one point; `name` is its field's.
    fn times(
        &self,
        at: usize,
        point: &'a Point,
        title: String,
        head: &str,
        name: &str,
        of: impl Fn(&Row) -> Option<Estimate>,
    ) -> Option<Chart> {
        let mut rows = Vec::new();
        let mut cells = Vec::new();
        for (number, place, row) in self.rows(at, point) {
            let Some(it) = of(row) else { continue };
            let told = told(&it, number::three, head);
            let told = format!("{}: {told}", row.model);
            rows.push((number, mark(&it, told)));
            let place = format!("{place}/{name}");
            let cell = Cell::estimate(&place, &it, Unit::Three, false);
            cells.push((number, vec![cell]));
        }
        let numbers = Numbers { heads: vec![head.to_string()], rows: cells };
        (!rows.is_empty()).then(|| Chart {
            title,
            caption: "The ratio within each round, with its interval. Lower \
                      is better; where two intervals overlap, nothing says \
                      that they differ."
                .to_string(),
            drawing: Drawing::Dots(Dots {
                axis: axis(head, Kind::Log),
                reference: Some(1.0),
                rows,
                end: "median",
                write: number::three,
            }),
            parts: Vec::new(),
            tables: vec![numbers],
            absent: absent(&[(at, point)]),
            daggers: false,
        })
    }

    fn idle_cpu(&self) -> Result<Chart, String> {
        let across = |point: &Point| point.load.idle as f64;
        let points = self.points("idle");
        let active = points.first().map_or(0, |it| it.1.load.connections);
        let label = format!("idle connections, beside {active} active ones");
        let least = points.iter().map(|(_, it)| it.load.idle as f64);
        let least = least.filter(|it| *it > 0.0).fold(1e9, f64::min);
        self.lines(
            "idle",
            (
                "CPU time a message, against idle connections",
                "A flat line: who is silent costs nothing. Lower is better.",
            ),
            (
                Axis {
                    ticks: self.ticks("idle", across, number::count),
                    ..axis(&label, Kind::LogFrom(least))
                },
                micros_axis("CPU time a message, µs"),
            ),
            across,
            |row| Some(cpu(row)),
        )
    }

    fn scan(&self) -> Result<Chart, String> {
        let across =
            |point: &Point| (point.load.connections + point.load.idle) as f64;
        let mut chart = self.lines(
            "scan",
            (
                "Cost of a wait, against descriptors",
                "One client speaks among silent ones, so each message is one \
                 wait. Marks were measured; a line is base + slope × \
                 descriptors where one was fitted, and bends only because of \
                 the axes.",
            ),
            (
                axis("descriptors in the set", Kind::Log),
                micros_axis("CPU time a wait with its message, µs"),
            ),
            across,
            |row| Some(cpu(row)),
        )?;
        let mut rows = Vec::new();
        let fits = self.comparison.fits.iter().enumerate();
        for (at, fit) in fits.filter(|(_, fit)| fit.scenario == "scan") {
            let Some(&number) = self.numbers.get(fit.model.as_str()) else {
                continue;
            };
            if let Drawing::Lines(drawing) = &mut chart.drawing
                && let Some(line) =
                    drawing.lines.iter_mut().find(|it| it.series == number)
            {
                let low = line.marks.first().map_or(1.0, |it| it.x).max(1.0);
                let high = line.marks.last().map_or(1.0, |it| it.x).max(low);
                let step = |n| low * (high / low).powf(f64::from(n) / 32.0);
                let value = |x| (x, fit.base_ns + fit.ns_per_descriptor * x);
                line.path = Some((0..=32).map(step).map(value).collect());
            }
            let place = format!("/fits/{at}");
            let of = |name, value, unit| {
                Cell::number(format!("{place}/{name}"), value, unit)
            };
            rows.push((
                number,
                vec![
                    of("base_ns", fit.base_ns, Unit::Micros),
                    of("ns_per_descriptor", fit.ns_per_descriptor, Unit::Three),
                    of("low", fit.low, Unit::Three),
                    of("high", fit.high, Unit::Three),
                    of("r_squared", fit.r_squared, Unit::Three),
                    of("points", fit.points as f64, Unit::Count),
                ],
            ));
        }
        if !rows.is_empty() {
            let heads = [
                "base, µs",
                "slope, ns a descriptor",
                "from",
                "to",
                "R²",
                "points",
            ];
            let heads = heads.map(str::to_string).to_vec();
            chart.tables.push(Numbers { heads, rows });
        }
        Ok(chart)
    }

    /// Of each server at the point where it had most of them.
    fn idle_memory(&self) -> Result<Chart, String> {
        let mut most: BTreeMap<usize, (usize, String, &Row)> = BTreeMap::new();
        let points = self.points("idle");
        for &(at, point) in &points {
            for (number, place, row) in self.rows(at, point) {
                let idle = point.load.idle;
                let more = most.get(&number).is_none_or(|it| it.0 < idle);
                if row.memory_per_idle.is_some() && more {
                    most.insert(number, (at, place, row));
                }
            }
        }
        let mut rows = Vec::new();
        let mut cells = Vec::new();
        for (number, (at, place, row)) in most {
            let Some(each) = row.memory_per_idle else { continue };
            let idle = self.comparison.points[at].load.idle;
            let told = format!(
                "{}, {} idle: {} each",
                row.model,
                number::count(idle as f64),
                number::bytes(each)
            );
            rows.push((number, Mark { x: 0.0, y: each, interval: None, told }));
            let each = (format!("{place}/memory_per_idle"), each);
            let idle = (format!("/points/{at}/load/idle"), idle as f64);
            cells.push((
                number,
                vec![
                    Cell::number(idle.0, idle.1, Unit::Count),
                    Cell::number(each.0, each.1, Unit::Bytes),
                ],
            ));
        }
        if rows.is_empty() {
            return Err("“Memory of an idle connection” is not drawn: it was \
                        not measured."
                .to_string());
        }
        let heads = ["idle connections", "memory of each"];
        let sixteens = [0.0].into_iter().chain((1..9).map(|n| 16f64.powi(n)));
        let named = |it| match it {
            0.0 => "0".to_string(),
            _ => number::bytes(it),
        };
        let sixteens = sixteens.map(|it| (it, named(it))).collect();
        Ok(Chart {
            title: "Memory of an idle connection".to_string(),
            caption: "Resident memory of the server and its children that one \
                      more silent client adds, where it had most of them; the \
                      kernel’s own is not in it. Lower is better."
                .to_string(),
            drawing: Drawing::Dots(Dots {
                axis: Axis {
                    ticks: Some(sixteens),
                    ..axis("memory of each", Kind::LogFrom(8.0))
                },
                reference: None,
                rows,
                end: "of each",
                write: number::bytes,
            }),
            parts: Vec::new(),
            tables: vec![Numbers {
                heads: heads.map(str::to_string).to_vec(),
                rows: cells,
            }],
            absent: absent(&points),
            daggers: false,
        })
    }

    fn round_trip(&self) -> Result<Chart, String> {
        let across = |point: &Point| point.load.size as f64;
        self.lines(
            "round_trip",
            (
                "Round trip of one client, by size",
                "Half of the messages came back within this time. With one \
                 client, most of it is the time that two cores take to wake \
                 each other.",
            ),
            (
                Axis {
                    ticks: self.ticks("round_trip", across, number::bytes),
                    ..axis("bytes in a message", Kind::Log)
                },
                micros_axis("median round trip, µs"),
            ),
            across,
            |row| {
                let p50 = row.latency.p50 as f64;
                let at = "/latency/p50".to_string();
                let told = format!("{} µs", number::micros(p50));
                let mark = Mark { x: 0.0, y: p50, interval: None, told };
                Some((Cell::number(at, p50, Unit::Micros), mark))
            },
        )
    }

    fn latency(&self) -> Vec<Result<Chart, String>> {
        let points = self.points("latency");
        let charts = points.iter().filter(|(_, it)| !it.rows.is_empty());
        let charts: Vec<_> = charts
            .map(|&(at, point)| {
                let title = format!("Latency, {}", point.name);
                let counts = "So many of the messages came back within this \
                              time, counted from when each was due.";
                Ok(self.curves(at, point, title, counts))
            })
            .collect();
        if charts.is_empty() {
            return vec![Err(
                "“Latency” is not drawn: nothing of the scenario \
                             latency was measured."
                    .to_string(),
            )];
        }
        charts
    }

    /// Of those who have to wait, at each of its points.
    fn slow_handler(&self) -> Vec<Result<Chart, String>> {
        let points = self.points("slow_handler").into_iter();
        let points = points.filter(|(_, it)| !it.rows.is_empty());
        let charts: Vec<_> = points
            .map(|(at, point)| {
                let title =
                    format!("Latency beside a slow handler, {}", point.name);
                let counts = "Clients whose messages take no time, beside \
                              some whose messages take long: so many of the \
                              former’s came back within this time.";
                Ok(self.curves(at, point, title, counts))
            })
            .collect();
        if charts.is_empty() {
            return vec![Err("“Latency beside a slow handler” is not drawn: \
                             nothing of the scenario slow_handler was \
                             measured."
                .to_string())];
        }
        charts
    }

    /// One chart for each load, by how many cores the servers had.
    fn forms(&self) -> Vec<Result<Chart, String>> {
        let across = |point: &Point| point.cores.unwrap_or(0) as f64;
        let points = self.points("forms");
        let mut loads: Vec<&[String]> =
            points.iter().map(|(_, it)| &it.args[..]).collect();
        loads.sort();
        loads.dedup();
        let chart = |args: &[String]| {
            let of = |it: &&(usize, &Point)| it.1.args == args;
            let points: Vec<_> = points.iter().filter(of).copied().collect();
            let mut title = "Messages a second, against cores".to_string();
            if !args.is_empty() {
                title += &format!(", {}", args.join(" "));
            }
            let told = points.iter().filter_map(|(_, point)| {
                let pinning = point.pinning.as_ref()?;
                Some(format!(" {}: {pinning}", point.name))
            });
            let caption =
                format!("Higher is better.{}", told.collect::<String>());
            let mut chart = self.lines_of(
                "forms",
                &points,
                (&title, &caption),
                (
                    Axis {
                        ticks: self.ticks("forms", across, number::count),
                        ..axis("cores of the server", Kind::Log)
                    },
                    Axis {
                        write: number::plain_brief,
                        ..axis("messages a second", Kind::Log)
                    },
                ),
                across,
                |row| Some(throughput(row)),
            )?;
            chart.daggers = any_busy(&points);
            Ok(chart)
        };
        match loads.is_empty() {
            true => vec![Err("“Messages a second, against cores” is not \
                              drawn: nothing of the scenario forms was \
                              measured."
                .to_string())],
            false => loads.into_iter().map(chart).collect(),
        }
    }

    fn curves(
        &self,
        at: usize,
        point: &'a Point,
        title: String,
        counts: &str,
    ) -> Chart {
        let tail = |share: f64| 1.0 / (1.0 - share);
        let mut lines = Vec::new();
        let mut cells = Vec::new();
        for (number, place, row) in self.rows(at, point) {
            let it = &row.latency;
            let named = [
                (0.5, "50 %", it.p50),
                (0.9, "90 %", it.p90),
                (0.99, "99 %", it.p99),
                (0.999, "99.9 %", it.p99_9),
            ];
            let marks = named.map(|(share, name, took)| Mark {
                x: tail(share),
                y: took as f64,
                interval: None,
                told: format!(
                    "{}, {name} within {} µs",
                    row.model,
                    number::micros(took as f64)
                ),
            });
            // Beyond it each step would be one message.
            let last = tail(0.9999) * 1.001;
            let path = row.latency_curve.iter();
            let path = path.map(|(share, took)| (tail(*share), *took as f64));
            let path = path.filter(|(x, _)| (1.0..=last).contains(x)).collect();
            lines.push(Line {
                series: number,
                marks: marks.into(),
                path: Some(path),
            });
            let of = |name: &str, took: u64| {
                let place = format!("{place}/latency/{name}");
                Cell::number(place, took as f64, Unit::Micros)
            };
            cells.push((
                number,
                vec![
                    of("p50", it.p50),
                    of("p90", it.p90),
                    of("p99", it.p99),
                    of("p99.9", it.p99_9),
                    of("max", it.max),
                ],
            ));
        }
        let heads = ["p50", "p90", "p99", "p99.9", "max"];
        let heads = heads.map(|name| format!("{name}, µs")).to_vec();
        let shares = [0.0, 0.9, 0.99, 0.999, 0.9999];
        let names = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"];
        let ticks = shares.iter().zip(names);
        let ticks = ticks.map(|(it, name)| (tail(*it), name.to_string()));
        Chart {
            title,
            caption: format!(
                "{counts} Each step to the right leaves a tenth of them. \
                 Lower is better."
            ),
            drawing: Drawing::Lines(Lines {
                x: Axis {
                    ticks: Some(ticks.collect()),
                    ..axis("share of the messages", Kind::Log)
                },
                y: micros_axis("came back within, µs"),
                reference: None,
                lines,
            }),
            parts: Vec::new(),
            tables: vec![Numbers { heads, rows: cells }],
            absent: absent(&[(at, point)]),
            daggers: false,
        }
    }

    /// Of the point of `busy` with 50 connections, or the next best.
    fn calls(&self) -> Result<Chart, String> {
        let counted =
            |point: &Point| point.rows.iter().any(|row| row.calls.is_some());
        let points = self.comparison.points.iter().enumerate();
        let best =
            points.filter(|(_, it)| counted(it)).min_by_key(|(_, it)| {
                let fifty = it.load.connections.abs_diff(50);
                (it.scenario != "busy", fifty, it.load.idle)
            });
        let Some((at, point)) = best else {
            return Err(format!(
                "“System calls a message” is not drawn: they were not counted. \
                 {}",
                self.comparison.method.calls
            ));
        };
        Ok(self.calls_at(at, point))
    }

    fn calls_at(&self, at: usize, point: &'a Point) -> Chart {
        let parts = parts(point);
        let mut rows = Vec::new();
        let mut cells = Vec::new();
        for (number, place, row) in self.rows(at, point) {
            let Some(calls) = &row.calls else { continue };
            let place = format!("{place}/calls");
            let mut line =
                vec![Cell::number(place.clone() + "/total", calls.total, {
                    Unit::Three
                })];
            let mut bar =
                Bar { series: number, parts: Vec::new(), total: calls.total };
            for (part, name) in parts.iter().enumerate() {
                let of = calls.by_name.iter().position(|it| it.0 == *name);
                let Some(of) = of else {
                    line.push(Cell::Nothing);
                    continue;
                };
                let much = calls.by_name[of].1;
                bar.parts.push((part, much));
                let place = format!("{place}/by_name/{of}/1");
                line.push(Cell::number(place, much, Unit::Three));
            }
            let named: f64 = bar.parts.iter().map(|it| it.1).sum();
            let rest = calls.total - named;
            if rest > calls.total * 0.002 {
                bar.parts.push((parts.len(), rest));
            }
            rows.push(bar);
            cells.push((number, line));
        }
        let heads = ["all".to_string()].into_iter().chain(parts.clone());
        let mut names = parts.clone();
        let others = |bar: &Bar| bar.parts.iter().any(|it| it.0 == parts.len());
        if rows.iter().any(others) {
            names.push("others".to_string());
        }
        Chart {
            title: format!("System calls a message, {}", named(point)),
            caption: self.comparison.method.calls.clone(),
            drawing: Drawing::Bars(Bars {
                axis: axis("system calls a message", Kind::Linear),
                names: names.clone(),
                rows,
            }),
            parts: names,
            tables: vec![Numbers { heads: heads.collect(), rows: cells }],
            absent: absent(&[(at, point)]),
            daggers: false,
        }
    }

    /// Points without an axis, also of scenarios that are not known here.
    fn others(&self) -> Vec<Result<Chart, String>> {
        let points = self.comparison.points.iter().enumerate();
        let other = |point: &Point| {
            !WITH_AXIS.contains(&point.scenario.as_str())
                && !point.rows.is_empty()
        };
        let others: Vec<_> = points.filter(|(_, it)| other(it)).collect();
        let chart = |&(at, point): &(usize, &'a Point)| {
            let mut rows = Vec::new();
            let mut cells = Vec::new();
            for (number, place, row) in self.rows(at, point) {
                let (_, mut mark) = cpu(row);
                mark.told = format!("{}: {}", row.model, mark.told);
                rows.push((number, mark));
                let busy = row.generator_core_share > BUSY;
                let cell = |name: &str, it, unit, busy| {
                    Cell::estimate(&format!("{place}/{name}"), it, unit, busy)
                };
                let taken = &row.cpu_ns_per_message;
                let sent = &row.messages_per_second;
                cells.push((
                    number,
                    vec![
                        cell("cpu_ns_per_message", taken, Unit::Micros, false),
                        cell("messages_per_second", sent, Unit::Count, busy),
                    ],
                ));
            }
            let heads = ["CPU time a message, µs", "messages a second"];
            Chart {
                title: format!("CPU time a message, {}", named(point)),
                caption: format!("{} Lower is better.", about(&point.scenario))
                    .trim_start()
                    .to_string(),
                drawing: Drawing::Dots(Dots {
                    axis: micros_axis("CPU time a message, µs"),
                    reference: None,
                    rows,
                    end: "median",
                    write: number::micros,
                }),
                parts: Vec::new(),
                tables: vec![Numbers {
                    heads: heads.map(str::to_string).to_vec(),
                    rows: cells,
                }],
                absent: absent(&[(at, point)]),
                daggers: point
                    .rows
                    .iter()
                    .any(|row| row.generator_core_share > BUSY),
            }
        };
        let mut charts: Vec<_> =
            others.iter().map(|it| Ok(chart(it))).collect();
        for scenario in ["pipelined", "large", "churn", "bulk"] {
            if !others.iter().any(|(_, it)| it.scenario == scenario) {
                charts.push(Err(format!(
                    "“CPU time a message, {scenario}” is not drawn: nothing of \
                     the scenario {scenario} was measured."
                )));
            }
        }
        charts
    }

    /// All that is known of one point.
    pub fn whole(&self, at: usize) -> Numbers {
        let point = &self.comparison.points[at];
        let heads = [
            "messages a second",
            "bytes a second",
            "CPU a message, µs",
            "of it user",
            "times the baseline",
            "p50, µs",
            "p90, µs",
            "p99, µs",
            "p99.9, µs",
            "max, µs",
            "connect p50, µs",
            "calls a message",
            "sleeps a message",
            "preempted a message",
            "memory",
            "memory of an idle one",
            "times none idle",
            "threads",
            "processes",
            "generator a message, µs",
            "generator of its core",
        ];
        let rows = self
            .rows(at, point)
            .map(|(number, place, row)| (number, whole_row(&place, row)));
        Numbers {
            heads: heads.map(str::to_string).to_vec(),
            rows: rows.collect(),
        }
    }

    /// The servers, by their numbers.
    pub fn series(&self) -> &'a [Series] {
        self.series
    }
}

fn whole_row(place: &str, row: &Row) -> Vec<Cell> {
    let busy = row.generator_core_share > BUSY;
    let path = |name: &str| format!("{place}/{name}");
    let estimate =
        |name, it, unit, busy| Cell::estimate(&path(name), it, unit, busy);
    let maybe = |name, it, unit| Cell::maybe(path(name), it, unit);
    let micros =
        |name, it: u64| Cell::number(path(name), it as f64, Unit::Micros);
    let (took, connect) = (&row.latency, &row.connect);
    let connect = connect.map(|it| it.p50 as f64);
    let calls = row.calls.as_ref().map(|it| it.total);
    let sleeps = row.switches.map(|it| it.voluntary);
    let preempted = row.switches.map(|it| it.involuntary);
    let cpu = &row.cpu_ns_per_message;
    let generator = &row.generator_ns_per_message;
    let ratio = match &row.ratio {
        Some(ratio) => estimate("ratio", ratio, Unit::Three, false),
        None => Cell::Nothing,
    };
    let none_idle = match &row.against_none_idle {
        Some(it) => estimate("against_none_idle", it, Unit::Three, false),
        None => Cell::Nothing,
    };
    let share = row.generator_core_share;
    vec![
        estimate(
            "messages_per_second",
            &row.messages_per_second,
            Unit::Count,
            busy,
        ),
        estimate("bytes_per_second", &row.bytes_per_second, Unit::Bytes, busy),
        estimate("cpu_ns_per_message", cpu, Unit::Micros, false),
        maybe("user_share", row.user_share, Unit::Percent),
        ratio,
        micros("latency/p50", took.p50),
        micros("latency/p90", took.p90),
        micros("latency/p99", took.p99),
        micros("latency/p99.9", took.p99_9),
        micros("latency/max", took.max),
        maybe("connect/p50", connect, Unit::Micros),
        maybe("calls/total", calls, Unit::Three),
        maybe("switches/voluntary", sleeps, Unit::Three),
        maybe("switches/involuntary", preempted, Unit::Three),
        Cell::number(path("memory"), row.memory as f64, Unit::Bytes),
        maybe("memory_per_idle", row.memory_per_idle, Unit::Bytes),
        none_idle,
        Cell::number(path("threads"), row.threads as f64, Unit::Count),
        Cell::number(path("processes"), row.processes as f64, Unit::Count),
        estimate("generator_ns_per_message", generator, Unit::Micros, false),
        Cell::number(path("generator_core_share"), share, Unit::Percent),
    ]
}

fn axis(label: &str, kind: Kind) -> Axis {
    Axis { label: label.to_string(), kind, ticks: None, write: number::plain }
}

fn micros_axis(label: &str) -> Axis {
    let write = |nanoseconds| number::plain(nanoseconds / 1e3);
    Axis { write, ..axis(label, Kind::Log) }
}

/// `busy, 50 connections`.
pub fn named(point: &Point) -> String {
    match point.name.is_empty() {
        true => point.scenario.clone(),
        false => format!("{}, {}", point.scenario, point.name),
    }
}

fn cpu(row: &Row) -> (Cell, Mark) {
    let it = &row.cpu_ns_per_message;
    let told = told(it, number::micros, "µs");
    let cell = Cell::estimate("/cpu_ns_per_message", it, Unit::Micros, false);
    (cell, mark(it, told))
}

fn throughput(row: &Row) -> (Cell, Mark) {
    let it = &row.messages_per_second;
    let busy = row.generator_core_share > BUSY;
    let told = told(it, number::count, "a second");
    let cell = Cell::estimate("/messages_per_second", it, Unit::Count, busy);
    (cell, mark(it, told))
}

fn any_busy(points: &[(usize, &Point)]) -> bool {
    let mut rows = points.iter().flat_map(|(_, point)| &point.rows);
    rows.any(|row| row.generator_core_share > BUSY)
}

fn mark(it: &Estimate, told: String) -> Mark {
    let interval = Some((it.low, it.high));
    Mark { x: 0.0, y: it.median, interval, told }
}

fn told(it: &Estimate, write: fn(f64) -> String, unit: &str) -> String {
    let interval = number::interval(it, write);
    format!("{} {unit} ({interval})", write(it.median))
}

/// The calls that most of all servers' calls are, at most eight of them.
fn parts(point: &Point) -> Vec<String> {
    let mut most: BTreeMap<&str, f64> = BTreeMap::new();
    let calls = point.rows.iter().filter_map(|row| row.calls.as_ref());
    for calls in calls {
        for (name, much) in &calls.by_name {
            // What matters is how much of a server's calls it is: one that
            // makes hundreds would decide alone.
            *most.entry(name).or_default() += much / calls.total.max(1e-9);
        }
    }
    let mut most: Vec<_> = most.into_iter().collect();
    most.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    most.truncate(8);
    most.into_iter().map(|(name, _)| name.to_string()).collect()
}

/// One sentence for each server that was left out somewhere.
fn absent(points: &[(usize, &Point)]) -> Vec<String> {
    let mut found: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for (_, point) in points {
        for it in &point.absent {
            let same = found
                .iter_mut()
                .find(|(model, why, _)| (*model, *why) == (&it.model, &it.why));
            match same {
                Some((_, _, places)) => places.push(&point.name),
                None => found.push((&it.model, &it.why, vec![&point.name])),
            }
        }
    }
    let told = found.into_iter().map(|(model, why, places)| {
        if places.len() == points.len() {
            return format!("{model}: {why}");
        }
        format!("{model} at {}: {why}", super::listed(&places))
    });
    told.collect()
}

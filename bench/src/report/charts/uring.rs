//! The page that answers when io_uring wins: a sweep after the other, and at
//! its end what each of them has shown.

use super::{
    Cell, Chart, Numbers, Part, Section, Source, Unit, absent, axis, cpu, mark,
    micros_axis, told,
};
use crate::compare::{BETWEEN, URING_OR_EPOLL};
use crate::report::answers::{self, Measure, Sweep, Verdict};
use crate::report::capital;
use crate::report::number;
use crate::report::scale::Kind;
use crate::report::svg::{Axis, Dots, Drawing, Lines, Mark};
use crate::results::{Calls, Estimate, Point, Row};

/// What stands on the vertical axis of a sweep's chart.
struct Up {
    title: &'static str,
    caption: &'static str,
    axis: Axis,
    /// A number that others are to be seen against.
    reference: Option<f64>,
    of: fn(&Row) -> Option<(Cell, Mark)>,
}

impl<'a> Source<'a> {
    /// Whether nothing else was asked.
    pub fn is_uring_only(&self) -> bool {
        let points = &self.comparison.points;
        !points.is_empty()
            && points.iter().all(|it| it.scenario == URING_OR_EPOLL)
    }

    /// All that the scenario gives; of nothing, one line that says so.
    pub fn uring(&self) -> Vec<Section> {
        let title = "io_uring or epoll?";
        let points = self.points(URING_OR_EPOLL);
        if points.iter().all(|(_, point)| point.rows.is_empty()) {
            let missing = vec![format!(
                "“{title}” is not drawn: nothing of the scenario \
                 {URING_OR_EPOLL} was measured."
            )];
            return vec![Section { missing, ..Section::new(title) }];
        }
        let summary = answers::summary(self.comparison);
        let mut sections = vec![Section {
            before: summary.into_iter().map(Part::Passage).collect(),
            charts: self.uring_calls(),
            ..Section::new(title)
        }];
        for sweep in Sweep::ALL {
            sections.extend(self.sweep(sweep));
        }
        sections.push(Section {
            before: self.answers(),
            ..Section::new("When io_uring wins, and when it does not")
        });
        sections
    }

    fn sweep(&self, sweep: Sweep) -> Option<Section> {
        let points = sweep.points(self.comparison);
        if points.iter().all(|(_, point)| point.rows.is_empty()) {
            return None;
        }
        let charts = match sweep {
            Sweep::Streams => self.streams(&points),
            _ => self.swept(sweep, &points),
        };
        let title = match sweep {
            Sweep::Connections => "io_uring or epoll, by connections",
            Sweep::Sizes => "io_uring or epoll, by size",
            Sweep::Depths => "io_uring or epoll, by depth",
            Sweep::Streams => "io_uring or epoll, streams beside requests",
        };
        let about = vec![answers::Piece::Words(sweep.about())];
        Some(Section {
            before: vec![Part::Passage(about)],
            charts,
            ..Section::new(title)
        })
    }

    fn swept(&self, sweep: Sweep, points: &[(usize, &'a Point)]) -> Vec<Chart> {
        let baseline = points.iter().find_map(|it| it.1.baseline.as_deref());
        let ups = ups(baseline.unwrap_or("the baseline"));
        let label = match sweep {
            Sweep::Connections => "active connections",
            Sweep::Sizes => "bytes in a message",
            _ => "messages outstanding on a connection",
        };
        let write = match sweep {
            Sweep::Sizes => number::bytes,
            _ => number::count,
        };
        let chart = |up: Up| {
            let title = format!("{}, {}", up.title, sweep.name());
            let across = points.iter().map(|it| sweep.across(&it.1.load));
            let ticks = across.map(|it| (it, write(it))).collect();
            let x = Axis { ticks: Some(ticks), ..axis(label, Kind::Log) };
            let chart = self.lines_of(
                URING_OR_EPOLL,
                points,
                (&title, up.caption),
                (x, up.axis),
                |point| sweep.across(&point.load),
                up.of,
            );
            // What nobody has a number of is not drawn.
            let mut chart = chart.ok()?;
            if let Drawing::Lines(Lines { reference, .. }) = &mut chart.drawing
            {
                *reference = up.reference;
            }
            Some(chart)
        };
        ups.into_iter().filter_map(chart).collect()
    }

    /// What a second of CPU carries, at each point.
    fn streams(&self, points: &[(usize, &'a Point)]) -> Vec<Chart> {
        let chart = |&(at, point): &(usize, &'a Point)| {
            let (mut rows, mut cells) = (Vec::new(), Vec::new());
            for (number, place, row) in self.rows(at, point) {
                let Some(it) = &row.bytes_per_cpu_second else { continue };
                let told = told(it, number::bytes, "a CPU second");
                let told = format!("{}: {told}", row.model);
                rows.push((number, mark(it, told)));
                cells.push((number, stream_row(&place, row)));
            }
            let against = point.baseline.as_deref().unwrap_or("the baseline");
            let against = format!("times {against}");
            let heads = [
                "bytes a CPU second",
                "CPU time a message, µs",
                &against,
                "p50, µs",
                "p99, µs",
                "calls a message",
                "messages a wait",
            ];
            (!rows.is_empty()).then(|| Chart {
                title: format!(
                    "Bytes a CPU second, {}",
                    Sweep::Streams.label(&point.load)
                ),
                caption: "Bytes that come back for each second of the \
                          server’s CPU time. More is better."
                    .to_string(),
                drawing: Drawing::Dots(Dots {
                    axis: Axis {
                        write: number::bytes,
                        ..axis("bytes a CPU second", Kind::Linear)
                    },
                    reference: None,
                    rows,
                    end: "median",
                    write: number::bytes,
                }),
                parts: Vec::new(),
                tables: vec![Numbers {
                    heads: heads.map(str::to_string).to_vec(),
                    rows: cells,
                }],
                absent: absent(&[(at, point)]),
                daggers: false,
            })
        };
        points.iter().filter_map(chart).collect()
    }

    /// By name, where all sweeps pass and at the far end of each.
    fn uring_calls(&self) -> Vec<Chart> {
        let counted =
            |point: &Point| point.rows.iter().any(|row| row.calls.is_some());
        let common = self.points(URING_OR_EPOLL).into_iter();
        let common = common.filter(|(_, it)| it.load == BETWEEN);
        let ends = Sweep::ALL.iter().filter_map(|sweep| {
            let mut points = sweep.points(self.comparison).into_iter();
            points.rfind(|(_, it)| counted(it))
        });
        let mut all: Vec<(usize, &Point)> = Vec::new();
        for (at, point) in common.chain(ends) {
            if counted(point) && !all.iter().any(|it| it.0 == at) {
                all.push((at, point));
            }
        }
        all.into_iter().map(|(at, point)| self.calls_at(at, point)).collect()
    }

    /// What each sweep has shown, as numbers and in words.
    fn answers(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        for sweep in Sweep::ALL {
            let passages =
                answers::of_sweep(self.comparison, sweep, &Measure::ALL);
            if passages.is_empty() {
                continue;
            }
            let points = sweep.points(self.comparison);
            let name = match sweep {
                Sweep::Streams => "Streams beside requests",
                Sweep::Connections => "By connections",
                Sweep::Sizes => "By size",
                Sweep::Depths => "By depth",
            };
            parts.push(Part::Heading(name.to_string()));
            parts.push(Part::List(passages));
            for measure in Measure::ALL {
                if let Some(numbers) = self.verdicts(&points, measure) {
                    let baseline =
                        points.iter().find_map(|it| it.1.baseline.as_deref());
                    parts.push(Part::Table(
                        format!(
                            "{}, times {}",
                            capital(measure.name()),
                            baseline.unwrap_or("the baseline")
                        ),
                        numbers,
                    ));
                }
            }
        }
        if parts.is_empty() {
            let none = answers::summary(self.comparison).into_iter();
            parts.extend(none.map(Part::Passage));
        }
        parts
    }

    fn verdicts(
        &self,
        points: &[(usize, &'a Point)],
        measure: Measure,
    ) -> Option<Numbers> {
        let mut rows: Vec<(usize, Vec<Cell>)> = Vec::new();
        for (column, &(at, point)) in points.iter().enumerate() {
            for (number, place, row) in self.rows(at, point) {
                let Some(it) = measure.of(row) else { continue };
                if point.baseline.as_ref() == Some(&row.model) {
                    continue;
                }
                let cells = match rows.iter_mut().find(|it| it.0 == number) {
                    Some((_, cells)) => cells,
                    None => {
                        rows.push((number, Vec::new()));
                        let last = rows.len() - 1;
                        &mut rows[last].1
                    }
                };
                cells.resize_with(column, || Cell::Nothing);
                let place = format!("{place}/{}", measure.field());
                cells.push(Cell::verdict(&place, it));
            }
        }
        for (_, cells) in &mut rows {
            cells.resize_with(points.len(), || Cell::Nothing);
        }
        rows.sort_by_key(|it| it.0);
        let heads = points.iter().map(|(_, it)| it.name.clone()).collect();
        (!rows.is_empty()).then_some(Numbers { heads, rows })
    }
}

impl Cell {
    /// A ratio with what its interval says.
    fn verdict(at: &str, it: &Estimate) -> Self {
        match Cell::estimate(at, it, Unit::Three, false) {
            Cell::Estimate(numbers, _) => {
                Cell::Verdict(numbers, Verdict::of(it))
            }
            other => other,
        }
    }
}

/// All that is drawn over the axis of a sweep.
fn ups(baseline: &str) -> Vec<Up> {
    let few = |label: &str| Axis {
        write: number::plain_brief,
        ..axis(label, Kind::Log)
    };
    vec![
        Up {
            title: "CPU time a message against the baseline",
            caption: "The ratio within each round, with its interval. Below \
                      the dashed line a server takes less than the baseline.",
            axis: axis(&format!("times {baseline}"), Kind::Log),
            reference: Some(1.0),
            of: |row| {
                let it = row.ratio.as_ref()?;
                let told = told(it, number::three, "times the baseline");
                let cell = Cell::estimate("/ratio", it, Unit::Three, false);
                Some((cell, mark(it, told)))
            },
        },
        Up {
            title: "CPU time a message",
            caption: "What the server and its threads take of a core. Lower \
                      is better.",
            axis: micros_axis("CPU time a message, µs"),
            reference: None,
            of: |row| Some(cpu(row)),
        },
        Up {
            title: "Median latency",
            caption: "Half of the messages came back within this time: a \
                      closed loop, in which each client sends when it has its \
                      answer. Lower is better.",
            axis: micros_axis("half came back within, µs"),
            reference: None,
            of: |row| Some(took("p50", row.latency.p50)),
        },
        Up {
            title: "99 % latency",
            caption: "99 % of the messages came back within this time. Lower \
                      is better.",
            axis: micros_axis("99 % came back within, µs"),
            reference: None,
            of: |row| Some(took("p99", row.latency.p99)),
        },
        Up {
            title: "System calls a message",
            caption: "All of the server’s, counted in a turn of their own. \
                      What is below a thousandth stands at 0.",
            axis: axis("system calls a message", Kind::LogFrom(0.001)),
            reference: None,
            of: |row| of_calls(row, "total", |calls| Some(calls.total)),
        },
        Up {
            title: "Messages a wait",
            caption: "How many messages each call brings that waits for all \
                      clients (epoll_wait, io_uring_enter). More is better.",
            axis: few("messages a wait"),
            reference: None,
            of: |row| {
                of_calls(row, "messages_per_wait", |it| it.messages_per_wait)
            },
        },
        Up {
            title: "Submissions for each io_uring_enter",
            caption: "How many operations were submitted, over how many \
                      calls there were: the size of a batch on its way in.",
            axis: few("submissions a call"),
            reference: None,
            of: |row| {
                of_calls(row, "ring/submitted_per_enter", |it| {
                    it.ring?.submitted_per_enter
                })
            },
        },
        Up {
            title: "Completions for each io_uring_enter",
            caption: "The size of a batch on its way out. One operation may \
                      complete many times (multishot).",
            axis: few("completions a call"),
            reference: None,
            of: |row| {
                of_calls(row, "ring/completed_per_enter", |it| {
                    it.ring?.completed_per_enter
                })
            },
        },
    ]
}

fn took(name: &str, took: u64) -> (Cell, Mark) {
    let told = format!("{} µs", number::micros(took as f64));
    let cell =
        Cell::number(format!("/latency/{name}"), took as f64, Unit::Micros);
    (cell, Mark { x: 0.0, y: took as f64, interval: None, told })
}

fn of_calls(
    row: &Row,
    name: &str,
    of: impl Fn(&Calls) -> Option<f64>,
) -> Option<(Cell, Mark)> {
    let it = of(row.calls.as_ref()?)?;
    let cell = Cell::number(format!("/calls/{name}"), it, Unit::Three);
    let told = number::three(it);
    Some((cell, Mark { x: 0.0, y: it, interval: None, told }))
}

fn stream_row(place: &str, row: &Row) -> Vec<Cell> {
    let path = |name: &str| format!("{place}/{name}");
    let estimate = |name: &str, it: Option<&Estimate>, unit| match it {
        Some(it) => Cell::estimate(&path(name), it, unit, false),
        None => Cell::Nothing,
    };
    let micros =
        |name: &str, it: u64| Cell::number(path(name), it as f64, Unit::Micros);
    let calls = row.calls.as_ref();
    let total = calls.map(|it| it.total);
    let wait = calls.and_then(|it| it.messages_per_wait);
    let carried = row.bytes_per_cpu_second.as_ref();
    let cpu = Some(&row.cpu_ns_per_message);
    vec![
        estimate("bytes_per_cpu_second", carried, Unit::Bytes),
        estimate("cpu_ns_per_message", cpu, Unit::Micros),
        estimate("ratio", row.ratio.as_ref(), Unit::Three),
        micros("latency/p50", row.latency.p50),
        micros("latency/p99", row.latency.p99),
        Cell::maybe(path("calls/total"), total, Unit::Three),
        Cell::maybe(path("calls/messages_per_wait"), wait, Unit::Three),
    ]
}

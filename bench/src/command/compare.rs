//! `bench compare`: servers under the same loads, in turns, and what each took.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::compare::{self, Progress, SCENARIOS, Scenario, Task};
use crate::harness;
use crate::models::{self, MODELS, Model, PEERS};
use crate::report;
use anyhow::{Context as _, Result, ensure};
use bytesize::ByteSize;
use clap::Args;
use console::Term;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::{end_on_signal, failed};

pub const TEACHING: &str = "\
Each server is a process of its own, and so is the load of each; servers and \
generators run on different cores where there are two. In every round each \
server has a short turn at each load, and ratios are taken within the round, \
because a machine may change its speed from one second to the next. Servers \
are compared by their CPU time per message: where the generator is as busy as \
the server, messages per second measure the pair.

Try:
  bench compare --quick                        all models, under a minute
  bench compare busy --models epoll_lt,epoll_et,peer-mio,floor
  bench compare idle scan --html report.html   what idle clients cost
  bench compare slow_handler forms             the forms of the reactor
  bench compare uring-or-epoll --html page.html
                                               when io_uring wins, and when not
  bench compare --json run.json --html run.html
  bench compare --list                         scenarios, and what they show
  bench plot run.json --html again.html        draws saved numbers again
  bench diff before.json after.json            what has changed beyond noise

Exit code: 0, also when a server was left out (the report says why), 1 when \
nothing could be compared, 2 for a usage error.";

#[derive(Args)]
pub struct Compare {
    /// Which scenarios; all, if none is named.
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Which servers, by the names of `--list`; if not said, all, peers too,
    /// or those that a scenario is about.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    models: Vec<String>,
    /// What ratios are against [default: floor, or epoll_lt where a floor
    /// cannot be had; epoll_et in uring-or-epoll].
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Few loads, few and short rounds: a first look, under a minute.
    #[arg(long)]
    quick: bool,
    /// Rounds that count, after one that does not [default: 21, quick: 5].
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How long each turn takes [default: 100ms, quick: 40ms].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    turn: Option<Duration>,
    /// Do not count system calls, which takes a turn of its own.
    #[arg(long)]
    no_calls: bool,
    /// The most that one read of a server takes.
    #[arg(long, value_name = "BYTES", default_value = "16KiB")]
    buffer: ByteSize,
    /// Save the numbers to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Save a page with charts to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the scenarios and the servers, and run nothing.
    #[arg(long)]
    list: bool,
}

pub fn run(asked: &Compare) -> ExitCode {
    if asked.list {
        let listed = list(&mut io::stdout().lock());
        return match listed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                failed(&error.into(), 1)
            }
            _ => ExitCode::SUCCESS,
        };
    }
    let task = match asked.task() {
        Ok(task) => task,
        Err(error) => return failed(&error, 2),
    };
    match asked.carry_out(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 1),
    }
}

impl Compare {
    fn task(&self) -> Result<Task> {
        let models = named(&self.models)?;
        let baseline = self.baseline.as_ref().map(|name| {
            models.iter().copied().find(|it| it.name == *name).with_context(
                || format!("--baseline: '{name}' is not among the servers"),
            )
        });
        let (rounds, turn) = match self.quick {
            true => (5, Duration::from_millis(40)),
            false => (21, Duration::from_millis(100)),
        };
        let task = Task {
            scenarios: scenarios(&self.scenarios)?,
            models,
            unnamed: self.models.is_empty(),
            baseline: baseline.transpose()?,
            rounds: self.rounds.unwrap_or(rounds),
            turn: self.turn.unwrap_or(turn),
            buffer: usize::try_from(self.buffer.as_u64())?,
            quick: self.quick,
            calls: !self.no_calls,
        };
        ensure!(task.rounds > 0, "--rounds: at least one");
        ensure!(
            (Duration::from_millis(1)..=Duration::from_secs(60))
                .contains(&task.turn),
            "--turn: from 1ms to 60s"
        );
        ensure!(
            (1..=1 << 30).contains(&task.buffer),
            "--buffer: from 1 byte to 1 GiB"
        );
        ensure!(
            !task.estimate().is_zero(),
            "--quick has no load of {}",
            self.scenarios.join(", ")
        );
        Ok(task)
    }

    fn carry_out(&self, task: &Task) -> Result<()> {
        // A file that cannot be written is better known now than at the end.
        let files = [&self.json, &self.html];
        for path in files.into_iter().flatten() {
            let open = fs::File::options().append(true).create(true).open(path);
            open.with_context(|| path.display().to_string())?;
        }
        harness::raise_descriptor_limit();
        end_on_signal()?;
        let bar = Bar::new(task);
        let found = compare::run(task, &bar)?;
        bar.0.finish_and_clear();
        if let Some(path) = &self.json {
            let text = serde_json::to_string(&found)? + "\n";
            fs::write(path, text)
                .with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &self.html {
            let page = report::page(&found)?;
            fs::write(path, page)
                .with_context(|| path.display().to_string())?;
        }
        let term = Term::stdout().size_checked();
        let width = term.map_or(100, |(_, columns)| usize::from(columns));
        let colour = console::colors_enabled();
        let table = report::table(&found, colour, width);
        // Nobody may read it, and the files are written all the same.
        match write!(io::stdout(), "{table}") {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(error.into());
            }
            _ => {}
        }
        let compared = found.points.iter().any(|it| !it.rows.is_empty());
        ensure!(compared, "no server could be compared");
        Ok(())
    }
}

fn scenarios(names: &[String]) -> Result<Vec<&'static Scenario>> {
    let known = || {
        let names: Vec<&str> = SCENARIOS.iter().map(|it| it.name).collect();
        names.join(", ")
    };
    for name in names {
        ensure!(
            SCENARIOS.iter().any(|it| it.name == name),
            "no scenario is called '{name}'; there are {}",
            known()
        );
    }
    let wanted = |it: &&Scenario| {
        names.is_empty() || names.iter().any(|name| name == it.name)
    };
    Ok(SCENARIOS.iter().filter(wanted).collect())
}

fn named(names: &[String]) -> Result<Vec<&'static Model>> {
    for name in names {
        models::find_with_peers(name).with_context(|| {
            format!("no server is called '{name}'; see compare --list")
        })?;
    }
    let wanted = |it: &&Model| {
        names.is_empty() || names.iter().any(|name| name == it.name)
    };
    Ok(MODELS.iter().chain(PEERS).filter(wanted).collect())
}

fn list(out: &mut impl Write) -> io::Result<()> {
    for scenario in SCENARIOS {
        let points: Vec<&str> =
            scenario.points.iter().map(|it| it.name).collect();
        writeln!(out, "{}: {}", scenario.name, points.join("; "))?;
        let words = scenario.shows.split_whitespace().collect::<Vec<_>>();
        writeln!(out, "    {}", words.join(" "))?;
        if let Some(field) = scenario.field {
            let names = field.entrants.iter().map(|it| it.name);
            let names: Vec<&str> = names.collect();
            writeln!(out, "    by itself of {}", names.join(", "))?;
        }
    }
    writeln!(out, "\nservers:")?;
    for model in MODELS.iter().chain(PEERS) {
        writeln!(out, "  {:22} {}", model.name, model.summary)?;
    }
    Ok(())
}

/// What is left to do; it draws to stderr, and hides itself where that is no
/// terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(task: &Task) -> Bar {
        let bar = ProgressBar::new(task.estimate().as_millis() as u64);
        let style = ProgressStyle::with_template(
            "{bar:24} {percent:>3} %, {eta} left: {wide_msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        let time = HumanDuration(task.estimate());
        let line = format!(
            "{} servers, {} rounds: about {time}",
            task.servers(),
            task.rounds
        );
        match bar.is_hidden() {
            // Nothing is left to tell when this cannot be written either.
            true => drop(writeln!(io::stderr(), "{line}")),
            false => bar.println(line),
        }
        Bar(bar)
    }
}

impl Progress for Bar {
    fn done(&self, part: Duration) {
        self.0.inc(part.as_millis() as u64);
    }

    fn next(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    fn note(&self, what: &str) {
        self.0.suspend(|| drop(writeln!(io::stderr(), "{what}")));
    }
}

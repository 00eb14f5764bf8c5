//! `bench check`: a server against the conformance suite, and what each case
//! means and saw.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::check::{self, Case, Context, Outcome, Tier};
use crate::harness::{self, Target};
use crate::models::{self, Limits, MODELS};
use anyhow::{Context as _, Result};
use clap::Args;
use console::{Style, style};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{end_on_signal, failed, is_broken_pipe};

pub const TEACHING: &str = "\
Each case starts a fresh server on a free port, is its client, and watches it \
through /proc. A case ends in one of four ways:
  passed    the promise held; the line says what was seen
  FAILED    it did not; the line says what was seen instead
  SKIPPED   a tool or a privilege is missing on this machine
  excluded  the server does not promise this, by a limit of its model

Try:
  bench check --list                   what the cases are and mean
  bench check epoll_lt                 one server of this workspace
  bench check --all --full             every server, at full sizes
  bench check --command 'socat TCP-LISTEN:{port},fork,reuseaddr EXEC:cat'
  bench check --command './mine {addr}' --case half_close_drains
  bench check broken:missed-edge       a server with a known mistake

Exit code: 0 when no case failed, 1 when one did, 2 for a usage error.";

#[derive(Args)]
pub struct Check {
    /// Rows of the table of models (or `broken:FAULT`).
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Every row of the table.
    #[arg(long, conflicts_with = "models")]
    all: bool,
    /// Any echo server: a shell command in which {addr} becomes the address
    /// to listen on ({host} and {port} its parts).
    #[arg(long, value_name = "CMD", conflicts_with_all = ["models", "all"])]
    command: Option<String>,
    /// How many clients the command serves at once, if there is a limit;
    /// the others wait.
    #[arg(long, value_name = "N", requires = "command")]
    clients: Option<std::num::NonZeroUsize>,
    /// Full sizes: minutes, thousands of connections.
    #[arg(long)]
    full: bool,
    /// Only this case; may be given more than once.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Print the cases and what they mean, and run nothing.
    #[arg(long)]
    list: bool,
    /// One JSON object per case instead of text.
    #[arg(long)]
    json: bool,
    /// Repeat a run with the random numbers it printed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub fn run(check: &Check) -> ExitCode {
    match try_run(check) {
        Ok(code) => code,
        // Nobody reads any more; a list cut short is still a list.
        Err(error) if is_broken_pipe(&error) => {
            ExitCode::from(u8::from(!check.list))
        }
        Err(error) => failed(&error, 2),
    }
}

fn try_run(check: &Check) -> Result<ExitCode> {
    let cases = chosen_cases(&check.cases)?;
    if check.list {
        return list(&cases, check.json);
    }
    let targets = chosen_targets(check)?;
    harness::raise_descriptor_limit();
    end_on_signal()?;
    let seed = check.seed.unwrap_or_else(|| fastrand::u64(..));
    let tier = if check.full { Tier::Full } else { Tier::Quick };
    // What a context refers to lives as long as the program.
    let limits = check.clients.map(|clients| {
        &*Box::leak(Box::new(Limits {
            clients: Some(clients.get()),
            ..models::NO_LIMITS
        }))
    });
    let mut tally = Tally::default();
    let bar = progress(targets.len() * cases.len());
    for target in &targets {
        if !check.json {
            bar.suspend(|| head(target, &cases, tier, seed))?;
        }
        for case in &cases {
            bar.set_message(format!("{}::{}", target.name(), case.name));
            let mut context = Context::new(target.clone(), tier, seed);
            if let Some(limits) = limits {
                context = context.with_limits(limits);
            }
            let (result, took) = check::run(case, &context);
            let report = Report::new(target, case, &result, took, seed);
            tally.count(&result);
            bar.suspend(|| report.print(check.json))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if !check.json {
        writeln!(io::stdout(), "{tally}")?;
    }
    Ok(ExitCode::from(u8::from(tally.failed > 0)))
}

fn chosen_cases(names: &[String]) -> Result<Vec<&'static Case>> {
    if names.is_empty() {
        return Ok(check::cases().collect());
    }
    let find = |name: &String| {
        check::cases().find(|case| case.name == *name).with_context(|| {
            format!("no case is called '{name}'; `check --list` names them")
        })
    };
    names.iter().map(find).collect()
}

fn chosen_targets(check: &Check) -> Result<Vec<Target>> {
    if let Some(line) = &check.command {
        anyhow::ensure!(
            line.contains("{addr}") || line.contains("{port}"),
            "--command: where is {{addr}} (or {{port}}) in '{line}'?"
        );
        return Ok(vec![Target::Command(line.clone())]);
    }
    if check.all {
        return Ok(MODELS.iter().map(Target::Model).collect());
    }
    let names = || {
        let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        names.join(", ")
    };
    anyhow::ensure!(
        !check.models.is_empty(),
        "check what? A model ({}), --all, or --command 'CMD {{addr}}'",
        names()
    );
    let target = |name: &String| match name.strip_prefix("broken:") {
        Some(fault) => Ok(Target::Broken(fault.to_string())),
        None => models::find(name).map(Target::Model).with_context(|| {
            format!("no model is called '{name}'; there are {}", names())
        }),
    };
    check.models.iter().map(target).collect()
}

fn progress(steps: usize) -> ProgressBar {
    // It draws to stderr, and hides itself where that is no terminal.
    let bar = ProgressBar::new(steps as u64);
    let style =
        ProgressStyle::with_template("{spinner} {pos}/{len} {elapsed} {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn list(cases: &[&Case], json: bool) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Listed {
        case: &'static str,
        means: &'static str,
    }
    let mut out = io::stdout().lock();
    for case in cases {
        let listed = Listed { case: case.name, means: case.means };
        if json {
            writeln!(out, "{}", serde_json::to_string(&listed)?)?;
        } else {
            writeln!(out, "{}", style(case.name).bold())?;
            writeln!(out, "    {}", case.means)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn head(
    target: &Target,
    cases: &[&Case],
    tier: Tier,
    seed: u64,
) -> io::Result<()> {
    let name = style(target.name()).bold();
    let size = match tier {
        Tier::Quick => "quick",
        Tier::Full => "full",
    };
    let count = cases.len();
    let word = if count == 1 { "case" } else { "cases" };
    writeln!(
        io::stdout(),
        "{name}: {count} {word}, {size} sizes, --seed {seed}"
    )
}

/// How many cases ended in which way.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    excluded: usize,
}

impl Tally {
    fn count(&mut self, result: &Result<Outcome>) {
        *match result {
            Ok(Outcome::Passed(_)) => &mut self.passed,
            Ok(Outcome::Skipped(_)) => &mut self.skipped,
            Ok(Outcome::Excluded(_)) => &mut self.excluded,
            Err(_) => &mut self.failed,
        } += 1;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { passed, failed, skipped, excluded } = self;
        write!(
            f,
            "{passed} passed, {failed} failed, {skipped} skipped, {excluded} \
             excluded"
        )
    }
}

/// How one case ended.
#[derive(Serialize)]
struct Report<'a> {
    target: &'a str,
    case: &'static str,
    means: &'static str,
    outcome: &'static str,
    seen: String,
    seconds: f64,
    seed: u64,
}

impl<'a> Report<'a> {
    fn new(
        target: &'a Target,
        case: &Case,
        result: &Result<Outcome>,
        took: Duration,
        seed: u64,
    ) -> Self {
        let (outcome, seen) = match result {
            Ok(Outcome::Passed(seen)) => ("passed", seen.clone()),
            Ok(Outcome::Skipped(why)) => ("skipped", why.clone()),
            Ok(Outcome::Excluded(why)) => ("excluded", why.clone()),
            Err(error) => ("failed", format!("{error:#}")),
        };
        Report {
            target: target.name(),
            case: case.name,
            means: case.means,
            outcome,
            seen,
            seconds: took.as_secs_f64(),
            seed,
        }
    }

    fn print(&self, json: bool) -> Result<()> {
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        // The crate asks for a terminal and for NO_COLOR.
        let plain = Style::new();
        let (word, look) = match self.outcome {
            "failed" => ("FAILED", plain.red().bold()),
            "skipped" => ("SKIPPED", plain.yellow()),
            "excluded" => ("excluded", plain.dim()),
            word => (word, plain.green()),
        };
        writeln!(
            out,
            "  {:8}  {} ({:.2} s)",
            look.apply_to(word),
            style(self.case).bold(),
            self.seconds
        )?;
        writeln!(out, "            {}", style(self.means).dim())?;
        writeln!(out, "            {}", self.seen)?;
        Ok(())
    }
}

//! The command line.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Error, Result};
use bench::models::{self, MODELS, Model, PerClient};
use clap::{Parser, Subcommand};
use comfy_table::{Attribute, Cell};
use serde_json::{Value, json};

use crate::{compare, page};

/// Shows the Linux I/O models at work, side by side: real echo servers,
/// real connections.
#[derive(Parser)]
#[command(name = "watch", version, max_term_width = 80)]
#[command(after_help = TEACHING)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Print the comparison and end
    #[arg(long, global = true)]
    plain: bool,
    /// Print JSON, for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Play one scene with every server, and print what each made of it
    /// (also without any command)
    #[command(after_help = READING)]
    Compare {
        /// Only these rows; `watch models` names them
        #[arg(value_name = "MODEL")]
        models: Vec<String>,
    },
    /// Print the table of models: what each is, and where it sleeps
    Models,
    /// Be the server of a model, with its own flags; see
    /// `serve MODEL --help`
    #[command(disable_help_flag = true)]
    Serve {
        /// A row of the table of models
        model: String,
        /// The server's own flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

const TEACHING: &str = "\
An echo server sends back what it receives. How it waits for many clients at
once is its model, and that is all in which the servers here differ.

Try:
  watch                                all models, in a quarter of a minute
  watch compare blocking epoll_lt      two rows of it
  watch models                         what there is
  watch serve epoll_lt --watch text    a server that tells its every call;
                                       talk to it: nc 127.0.0.1 7007

Exit code: 0, or 1 for a failure, 2 for a usage error.";

const READING: &str = "\
Client 2 comes first, sends half a message, pauses, and sends the other half.
Client 3 comes next and says nothing. Client 1 comes last and talks at once.
Whoever sleeps for one client at a time lets client 1 wait: begin there.

Each server plays the scene twice, in a new process each time: once left
alone, for time, CPU and context switches, and once with its calls recorded.
The page says below the table which column is from which run.";

/// Reads the command line and does what it asks.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        // clap explains over several lines; the first paragraph says what is
        // wrong with which argument.
        let text = error.render().to_string();
        let first = text.split("\n\n").next().unwrap_or_default();
        let words: Vec<&str> = first.split_whitespace().collect();
        let line = words.join(" ");
        let line = line.strip_prefix("error: ").unwrap_or(&line);
        usage_error(&format!("{line}; see --help"))
    });
    let done = match cli.verb {
        None => compare_all(&[], cli.json),
        Some(Verb::Compare { models }) => compare_all(&models, cli.json),
        Some(Verb::Models) => print(&table_of_models(cli.json)),
        Some(Verb::Serve { .. }) => {
            usage_error("`serve` must be the first word: watch serve MODEL")
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads any more, and that is the reader's right.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn compare_all(names: &[String], json: bool) -> Result<()> {
    let rows = compare::compare(&chosen(names))?;
    print(&match json {
        true => format!("{}\n", page::json(&rows)),
        false => page::text(&rows),
    })
}

/// The rows of these names, in the order of the table; all without a name.
fn chosen(names: &[String]) -> Vec<&'static Model> {
    if let Some(name) = names.iter().find(|name| models::find(name).is_none()) {
        let known: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        usage_error(&format!(
            "no model is called '{name}'; there are {}",
            known.join(", ")
        ));
    }
    let wanted = |model: &&Model| {
        names.is_empty() || names.iter().any(|name| name == model.name)
    };
    MODELS.iter().filter(wanted).collect()
}

fn table_of_models(json: bool) -> String {
    if json {
        let rows: Vec<Value> = MODELS.iter().map(model_json).collect();
        return format!("{}\n", Value::from(rows));
    }
    let mut table = page::ruled();
    table.set_header(["model", "sleeps in", "what it is"]);
    for model in MODELS {
        table.add_row([
            Cell::new(model.name).add_attribute(Attribute::Bold),
            Cell::new(model.sleeps_in),
            Cell::new(model.summary),
        ]);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((u16::from(at > 0), 0));
    }
    page::lines_of(&table) + "\n"
}

fn model_json(model: &Model) -> Value {
    let limits = &model.limits;
    json!({
        "name": model.name,
        "binary": model.binary,
        "args": model.args,
        "summary": model.summary,
        "sleeps_in": model.sleeps_in,
        "limits": {
            "clients": limits.clients,
            "descriptors_below": limits.descriptors_below,
            "burns_core": limits.burns_core,
            "idle_wakes": limits.idle_wakes,
            "per_client": match limits.per_client {
                PerClient::Nothing => "nothing",
                PerClient::Thread => "thread",
                PerClient::Process => "process",
            },
        },
        "try": model.try_it,
        "see": model.see,
    })
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn is_broken_pipe(error: &Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn usage_error(line: &str) -> ! {
    say(line);
    std::process::exit(2)
}

fn say(line: &str) {
    // Nothing is left to tell when this cannot be written either.
    let _lost = writeln!(io::stderr(), "watch: {line}");
}

//! The command line.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Error, Result};
use bench::models::{self, MODELS, Model, PerClient};
use clap::{Parser, Subcommand};
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement};
use serde_json::{Value, json};

use crate::compare::{self, page};
use crate::narrate::narrate;
use crate::progress::Progress;
use crate::scene::Scene;
use crate::{figure, live};

/// Shows the Linux I/O models at work, side by side: real echo servers,
/// real connections.
#[derive(Parser)]
#[command(name = "watch", version, max_term_width = 80)]
#[command(after_help = TEACHING)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Print the comparison and end, on a terminal too
    #[arg(long, global = true)]
    plain: bool,
    /// Print JSON, for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Be the clients of one server or two, and see their every call (on a
    /// terminal also without any command)
    #[command(after_help = LIVE)]
    Live {
        /// One row or two of the table; `watch models` names them
        /// [default: blocking epoll_lt]
        #[arg(value_name = "MODEL", num_args = 0..=2)]
        models: Vec<String>,
        /// Begin with this scene; `watch scenes` names them
        #[arg(long, value_name = "SCENE")]
        scene: Option<String>,
    },
    /// Draw what servers did in a scene, from a real run
    #[command(after_help = FIGURE)]
    Figure {
        /// Only these rows; `watch models` names them
        #[arg(value_name = "MODEL")]
        models: Vec<String>,
        /// What the clients do; `watch scenes` names them
        #[arg(long, value_name = "SCENE", default_value = "three-clients")]
        scene: String,
        /// A file that ends in .svg or .html, or a folder, with a slash at
        /// its end, for an SVG of each model
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
    },
    /// Play a scene with one server, and print its every call
    #[command(after_help = NARRATE)]
    Narrate {
        /// A row of the table; `watch models` names them
        #[arg(value_name = "MODEL")]
        model: String,
        /// What the clients do; `watch scenes` names them
        #[arg(long, value_name = "SCENE", default_value = "hello")]
        scene: String,
        /// The server's own flags
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Play one scene with every server, and print what each made of it
    /// (where there is no terminal also without any command)
    #[command(after_help = READING)]
    Compare {
        /// Only these rows; `watch models` names them
        #[arg(value_name = "MODEL")]
        models: Vec<String>,
    },
    /// Print the table of models: what each is, and where it sleeps
    Models,
    /// Print the scenes, or the text of one: to read, and to write your own
    Scenes {
        /// A scene that comes with this program, or a file
        #[arg(value_name = "SCENE")]
        scene: Option<String>,
    },
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
  watch                                be the clients of two servers
  watch --plain                        all models, in a quarter of a minute
  watch compare blocking epoll_lt      two rows of it
  watch live epoll_lt epoll_et --scene burst
  watch figure --out models.html       all models on one time axis
  watch narrate epoll_lt               a few messages, call by call
  watch models                         what there is
  watch serve epoll_lt --watch text    a server that tells its every call;
                                       talk to it: nc 127.0.0.1 7007

Exit code: 0, or 1 for a failure, 2 for a usage error.";

const LIVE: &str = "\
Every key does the same to both servers. The footer shows the keys, and ?
explains them; q ends it.

Where the terminal is narrow, one server is shown at a time. Nothing is left
behind: servers end with the view.";

const FIGURE: &str = "\
Each server plays the scene with its calls recorded. In the figure every client
and every thread of the server has a lane; waiting, waking up, copying, wasted
calls and running code are told apart by colour and pattern.

  watch figure epoll_lt --out epoll_lt.svg       one model
  watch figure --out models.svg                  all of them, small
  watch figure --scene burst --out burst.html    a page to zoom into
  watch figure --out docs/book/figures/               an SVG of each";

const NARRATE: &str = "\
The server tells of its calls itself, as it does with --watch text:

  watch narrate epoll_lt                          two clients, three messages
  watch narrate epoll_et --scene half-close
  watch narrate blocking --scene one-slow -- --per thread";

const READING: &str = "\
Client 2 comes first, sends half a message, pauses, and sends the other half.
Client 3 comes next and says nothing. Client 1 comes last and talks at once.
Whoever sleeps for one client at a time lets client 1 wait: begin there.

Each server plays the scene twice, in a new process each time: once left
alone, for time, CPU and context switches, and once with its calls recorded.
The page says below the table which column is from which run.";

/// Reads the command line and does what it asks.
pub fn main() -> ExitCode {
    let cli: Cli = echo::parse_or_end("watch");
    let done = match cli.verb {
        None if cli.plain || cli.json || !has_terminal() => {
            compare_all(&[], cli.json)
        }
        None => live(&[], None),
        Some(Verb::Live { models, scene }) => live(&models, scene.as_deref()),
        Some(Verb::Figure { models, scene, out }) => {
            draw(&models, &scene, &out)
        }
        Some(Verb::Narrate { model, scene, args }) => {
            narrate(named(&model), &args, &found(&scene))
                .and_then(|text| print(&text))
        }
        Some(Verb::Scenes { scene: None }) => print(&scenes(cli.json)),
        Some(Verb::Scenes { scene: Some(name) }) => print(&found(&name).text),
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

/// Whether somebody looks on who can also press keys.
fn has_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn live(names: &[String], scene: Option<&str>) -> Result<()> {
    let models: Vec<_> = names.iter().map(|name| named(name)).collect();
    let scene = scene.map(found);
    if !has_terminal() {
        usage_error(
            "the live view needs a terminal; `watch compare` and `watch \
             figure` need none",
        );
    }
    live::run(&models, scene)
}

fn draw(names: &[String], scene: &str, out: &Path) -> Result<()> {
    let (models, scene) = (chosen(names), found(scene));
    let form = figure::Form::of(out).unwrap_or_else(|why| usage_error(&why));
    let progress = Progress::start(models.len())?;
    let step = |name: &str| progress.step(name);
    let done = figure::run(&models, &scene, form, out, step);
    progress.end(done)
}

/// The scene of this name or in this file.
fn found(name: &str) -> Scene {
    Scene::find(name).unwrap_or_else(|error| usage_error(&format!("{error:#}")))
}

fn scenes(json: bool) -> String {
    let all = Scene::all();
    if json {
        return format!("{}\n", json!(all));
    }
    let mut table = page::ruled();
    table.set_header([
        "scene",
        "clients",
        "what happens, and what to look for",
    ]);
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(page::width_of_page());
    for scene in &all {
        let look = scene.look("");
        table.add_row([
            Cell::new(&scene.name).add_attribute(Attribute::Bold),
            Cell::new(scene.crowd()).set_alignment(CellAlignment::Right),
            Cell::new(format!("{}. {look}", scene.title)),
        ]);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((u16::from(at > 0), 0));
    }
    page::lines_of(&table) + "\n"
}

/// The rows of these names, in the order of the table; all without a name.
fn chosen(names: &[String]) -> Vec<&'static Model> {
    let named: Vec<&str> = names.iter().map(|name| named(name).name).collect();
    let wanted =
        |model: &&Model| named.is_empty() || named.contains(&model.name);
    MODELS.iter().filter(wanted).collect()
}

/// The row of this name.
fn named(name: &str) -> &'static Model {
    models::find(name).unwrap_or_else(|| {
        let known: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        usage_error(&format!(
            "no model is called '{name}'; there are {}",
            known.join(", ")
        ))
    })
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
            "no_calls": limits.no_calls,
            "lends_sent": limits.lends_sent,
            "owed_buffers": limits.owed_buffers,
            "per_client": match limits.per_client {
                PerClient::Nothing => "nothing",
                PerClient::Buffer => "buffer",
                PerClient::Task => "task",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The front door's own tests compare the rows in groups, by name.
    #[test]
    fn without_names_all_are_compared_in_the_tables_order() {
        let names = |rows: Vec<&'static Model>| -> Vec<&str> {
            rows.into_iter().map(|model| model.name).collect()
        };
        let all: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        assert_eq!(names(chosen(&[])), all);
        let two = ["poll_server", "blocking"].map(str::to_owned);
        assert_eq!(names(chosen(&two)), ["blocking", "poll_server"]);
    }
}

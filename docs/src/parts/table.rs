//! The table of models, as the README and the book show it.

use anyhow::{Result, bail};
use bench::models::{Limits, MODELS, Model, PerClient};

/// `try`: what to try with each, for the README; none: what each is, by the
/// two questions.
pub fn models(words: &str) -> Result<String> {
    Ok(match words {
        "try" => table(
            "`cargo run --release --bin` | The model | Sleeps in | Try | \
             You will see",
            |model| {
                format!(
                    "[`{}`](docs/book/{}.md) | {} | {} | {} | {}",
                    command(model),
                    model.binary,
                    model.summary,
                    model.sleeps_in,
                    model.try_it,
                    model.see
                )
            },
        ),
        "" => table(
            "Row | The model | An idle server sleeps in | Its limits",
            |model| {
                format!(
                    "`{}` | {} | {} | {}",
                    model.name,
                    model.summary,
                    model.sleeps_in,
                    limits(&model.limits)
                )
            },
        ),
        other => bail!("there is no table of models '{other}'"),
    })
}

fn table(head: &str, row: impl Fn(&Model) -> String) -> String {
    let columns = head.split(" | ").count();
    let mut lines = vec![format!("| {head} |"), "|---".repeat(columns) + "|"];
    lines.extend(MODELS.iter().map(|model| format!("| {} |", row(model))));
    lines.join("\n")
}

/// What comes after `cargo run --release --bin`.
fn command(model: &Model) -> String {
    if model.args.is_empty() {
        return model.binary.to_owned();
    }
    format!("{} -- {}", model.binary, model.args.join(" "))
}

fn limits(limits: &Limits) -> String {
    let mut words = Vec::new();
    match limits.clients {
        Some(1) => words.push("one client at a time".to_owned()),
        Some(n) => words.push(format!("{n} clients at a time")),
        None => {}
    }
    if let Some(below) = limits.descriptors_below {
        words.push(format!("descriptors below {below}"));
    }
    if limits.burns_core {
        words.push("takes a whole core".to_owned());
    }
    if limits.idle_wakes {
        words.push("wakes up while idle".to_owned());
    }
    match limits.per_client {
        PerClient::Nothing => {}
        PerClient::Buffer => {
            words.push("a buffer for each client".to_owned());
        }
        PerClient::Task => words.push("a task for each client".to_owned()),
        PerClient::Thread => words.push("a thread for each client".to_owned()),
        PerClient::Process => {
            words.push("a process for each client".to_owned());
        }
    }
    if words.is_empty() { "–".to_owned() } else { words.join("; ") }
}

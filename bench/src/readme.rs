//! The part of README.md that is generated from the table of models.

use std::fmt::Write;

use crate::models::MODELS;

/// The generated part stands between this line …
const BEGIN: &str = "<!-- models: written by `UPDATE=1 cargo test -p bench \
                     --test house`, from bench/src/models.rs -->\n";
/// … and this one.
const END: &str = "<!-- end of models -->\n";

/// README.md with its generated part as it should be; `None` if there is no
/// place for it.
pub fn refreshed(readme: &str) -> Option<String> {
    let (before, rest) = readme.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", table()))
}

/// A row for every server: how to start it, what to try, what is then seen.
fn table() -> String {
    let mut table = String::from(
        "| `cargo run --release --bin` | The model | Sleeps in | Try | \
         You will see |\n|---|---|---|---|---|\n",
    );
    for model in MODELS {
        let mut command = model.binary.to_owned();
        if !model.args.is_empty() {
            write!(command, " -- {}", model.args.join(" ")).ok();
        }
        writeln!(
            table,
            "| `{command}` | {} | {} | {} | {} |",
            model.summary, model.sleeps_in, model.try_it, model.see
        )
        .ok();
    }
    table
}

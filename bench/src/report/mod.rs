//! Shows a comparison: in a terminal, as a page, and against another.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::results::{Comparison, FORMAT};

mod answers;
mod charts;
mod diff;
pub mod number;
mod page;
mod scale;
mod series;
mod svg;
mod table;

pub use diff::{Change, Diff, Difference, Place, Quantity, diff};
pub use page::{escaped, page};
pub use table::table;

/// A comparison that was saved; an error is one line and names the file.
pub fn read(path: &Path) -> Result<Comparison> {
    let name = || path.display().to_string();
    let text = fs::read_to_string(path).with_context(name)?;
    parse(&text).with_context(name)
}

fn parse(text: &str) -> Result<Comparison> {
    /// What every version of the form has.
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let not = "not a comparison that `bench compare --json` has saved";
    let Form { format } = serde_json::from_str(text).context(not)?;
    ensure!(
        (1..=FORMAT).contains(&format),
        "its form is version {format}, and this program knows 1 to {FORMAT}: \
         use the `bench` that wrote it"
    );
    let found: Comparison = serde_json::from_str(text).context(not)?;
    // What an older one does not say is what was the case then.
    Ok(Comparison { format: FORMAT, ..found })
}

/// So many of these.
fn plural(count: usize, one: &str, more: &str) -> String {
    format!(
        "{} {}",
        number::count(count as f64),
        match count {
            1 => one,
            _ => more,
        }
    )
}

/// With a capital letter.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|it| it.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// `a`, `a and b`, `a, b and c`.
fn listed<T: AsRef<str>>(words: &[T]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => (*only).to_string(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

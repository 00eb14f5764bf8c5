//! Excerpts of the tree, cut by item name.

use anyhow::{Result, ensure};

use crate::source::{self, Source};

/// An item of a source file, or a whole text file, with where it stands.
pub fn code(words: &str, up: &str) -> Result<String> {
    let (path, item) = words.split_once(' ').unwrap_or((words, ""));
    let (text, language) = match item {
        "" => (source::text(path)?, language(path)),
        item => (Source::read(path)?.excerpt(item)?, "rust"),
    };
    let text = text.trim_end();
    Ok(format!("```{language}\n{text}\n```\n\n<sub>[{path}]({up}{path})</sub>"))
}

fn language(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "rs")) => "rust",
        Some((_, "toml")) => "toml",
        _ => "text",
    }
}

/// The bodies of all pieces of a page, each named by its place, its file and
/// its item; one file's pieces follow one another.
pub fn pieces(named: &[(usize, String)]) -> Result<Vec<(usize, String)>> {
    let mut done = Vec::new();
    let mut rest = named;
    while let Some((_, first)) = rest.first() {
        let (path, _) = first.split_once(' ').unwrap_or((first, ""));
        let file = |it: &(usize, String)| {
            it.1.split_once(' ').is_some_and(|it| it.0 == path)
        };
        let count = rest.iter().take_while(|it| file(it)).count();
        ensure!(count > 0, "'{first}' names no file and no item");
        let (these, others) = rest.split_at(count);
        let items: Vec<&str> =
            these.iter().map(|it| &it.1[path.len() + 1..]).collect();
        let bodies = Source::read(path)?.pieces(&items)?;
        for ((at, _), body) in these.iter().zip(bodies) {
            done.push((*at, format!("\n```rust\n{body}\n```\n\n")));
        }
        rest = others;
    }
    Ok(done)
}

//! What is generated in Markdown: each part stands between two markers that
//! say what it is, so that it can be made again and held against the tree.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::source;

mod diff;
mod excerpt;
pub mod narration;
pub mod numbers;
mod pitfalls;
mod table;

pub use diff::Neighbours;
pub use pitfalls::{Example, all as all_pitfalls};

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end generated -->";
const ANNOTATE: &str = "<!-- annotate: ";
const END_ANNOTATE: &str = "<!-- end annotate -->";

/// One piece of a Markdown text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// What people wrote.
    Prose(String),
    /// What is generated: the words of its marker, and what stands there.
    Part {
        /// Such as `code epoll_lt/src/lib.rs on_ready`.
        words: String,
        /// Between the markers.
        body: String,
    },
    /// From here to the next `AnnotateEnd`, prose and pieces of this file
    /// stand beside each other.
    Annotate(String),
    /// See [`Span::Annotate`].
    AnnotateEnd,
}

/// Takes a text apart; put together again it is the same.
///
/// Fails where markers have no partner; `name` says in which file.
pub fn spans(name: &str, text: &str) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    let mut prose = String::new();
    let mut lines = text.split_inclusive('\n').enumerate();
    while let Some((at, line)) = lines.next() {
        let place = || format!("{name}, line {}", at + 1);
        let between = |begin: &str| {
            let rest = line.trim_end().strip_prefix(begin)?;
            Some(rest.strip_suffix(" -->")?.to_owned())
        };
        let span = if let Some(words) = between(BEGIN) {
            let mut body = String::new();
            loop {
                let (_, line) = lines.next().with_context(|| {
                    format!("{}: '{END}' is missing", place())
                })?;
                if line.trim_end() == END {
                    break;
                }
                if line.starts_with(BEGIN) {
                    bail!("{}: '{END}' is missing", place());
                }
                body.push_str(line);
            }
            Span::Part { words, body }
        } else if let Some(path) = between(ANNOTATE) {
            Span::Annotate(path)
        } else if line.trim_end() == END_ANNOTATE {
            Span::AnnotateEnd
        } else if line.trim_end() == END || line.starts_with(BEGIN) {
            bail!("{}: a marker without its partner", place());
        } else {
            prose.push_str(line);
            continue;
        };
        if !prose.is_empty() {
            spans.push(Span::Prose(std::mem::take(&mut prose)));
        }
        spans.push(span);
    }
    if !prose.is_empty() {
        spans.push(Span::Prose(prose));
    }
    Ok(spans)
}

/// The text that was taken apart into these.
pub fn joined(spans: &[Span]) -> String {
    let lines = spans.iter().map(|span| match span {
        Span::Prose(text) => text.clone(),
        Span::Part { words, body } => {
            format!("{BEGIN}{words} -->\n{body}{END}\n")
        }
        Span::Annotate(path) => format!("{ANNOTATE}{path} -->\n"),
        Span::AnnotateEnd => format!("{END_ANNOTATE}\n"),
    });
    lines.collect()
}

/// How far a part that comes from a run is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Where what stands there is not what a run shows now.
    Stale,
    /// Always: with today's times.
    All,
}

/// A text with all its parts as the tree says they should be.
///
/// `path` is the file's in the workspace, such as `docs/book/poll_server.md`.
/// Fails with the marker that is wrong.
pub fn refreshed(path: &str, text: &str, runs: Runs) -> Result<String> {
    let mut spans = spans(path, text)?;
    let mut annotated: Vec<(usize, String)> = Vec::new();
    let mut file: Option<String> = None;
    for (at, span) in spans.iter_mut().enumerate() {
        match span {
            Span::Annotate(path) => file = Some(path.clone()),
            Span::AnnotateEnd => file = None,
            Span::Prose(_) => {}
            Span::Part { words, body } => {
                let marker = words.clone();
                if let Some(name) = marker.strip_prefix("piece ") {
                    let file = file.as_ref().with_context(|| {
                        format!("{path}: '{marker}' is in no annotation")
                    })?;
                    annotated.push((at, format!("{file} {name}")));
                    continue;
                }
                let fresh = part(path, &marker, body, runs)
                    .with_context(|| format!("{path}: '{marker}'"))?;
                *body = fresh;
            }
        }
    }
    for (at, piece) in excerpt::pieces(&annotated)? {
        if let Span::Part { body, .. } = &mut spans[at] {
            *body = piece;
        }
    }
    Ok(joined(&spans))
}

/// What should stand at a marker where `now` stands.
fn part(path: &str, marker: &str, now: &str, runs: Runs) -> Result<String> {
    let (kind, rest) = marker.split_once(' ').unwrap_or((marker, ""));
    let rest = rest.trim();
    let up = up_to_root(path);
    let body = match kind {
        "code" => excerpt::code(rest, &up)?,
        "diff" => diff::between(rest)?,
        "run" => return narration::block(rest, now, runs),
        "models" => table::models(rest)?,
        "numbers" => numbers::table(rest, &up)?,
        "pitfall" => pitfalls::one(rest, &up)?,
        "pitfalls" => pitfalls::table(&up)?,
        "events" => crate::events::table()?,
        _ => bail!("there is no part called '{kind}'"),
    };
    Ok(format!("\n{}\n\n", body.trim_matches('\n')))
}

/// From a file of the workspace to its root: `../../` from `docs/book/x.md`.
fn up_to_root(path: &str) -> String {
    let folders = Path::new(path).components().count() - 1;
    "../".repeat(folders)
}

/// The Markdown files that hold generated parts, by their paths in the
/// workspace.
///
/// Fails when a folder cannot be read.
pub fn files() -> Result<Vec<String>> {
    let mut files = vec!["README.md".to_owned()];
    files.extend(crate::book::chapters()?);
    Ok(files)
}

/// Makes all parts of these files anew that are stale, and returns the files
/// that changed.
///
/// A file with a wrong marker stays as it is; the error names all of them.
pub fn refresh(
    files: &[String],
    runs: Runs,
    mut step: impl FnMut(&str),
) -> Result<Vec<String>> {
    let (mut changed, mut wrong) = (Vec::new(), Vec::new());
    for path in files {
        step(path);
        let text = source::text(path)?;
        match refreshed(path, &text, runs) {
            Ok(fresh) if fresh == text => {}
            Ok(fresh) => {
                std::fs::write(source::root().join(path), fresh)?;
                changed.push(path.clone());
            }
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n      "));
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_taken_apart_is_the_same_again() -> Result<()> {
        let text = "# A\n\n<!-- generated: code x -->\n\nold\n\n\
                    <!-- end generated -->\n\nB\n<!-- annotate: y -->\n\
                    C\n<!-- end annotate -->\n";
        let spans = spans("a.md", text)?;
        assert_eq!(joined(&spans), text);
        assert_eq!(spans.len(), 6);
        Ok(())
    }

    #[test]
    fn a_lonely_marker_is_named() {
        let text = "A\n\n<!-- generated: models -->\nB\n";
        let why = format!("{:#}", spans("a.md", text).unwrap_err());
        assert_eq!(why, format!("a.md, line 3: '{END}' is missing"));
        let text = "A\n<!-- end generated -->\n";
        let why = format!("{:#}", spans("a.md", text).unwrap_err());
        assert!(why.starts_with("a.md, line 2: "), "{why}");
    }

    #[test]
    fn an_unknown_part_is_named() {
        let text = "<!-- generated: nonsense -->\n<!-- end generated -->\n";
        let why = refreshed("docs/book/a.md", text, Runs::Stale).unwrap_err();
        let why = format!("{why:#}");
        assert!(why.contains("there is no part called 'nonsense'"), "{why}");
    }
}

//! Builds the book: mdBook, with what it needs beyond plain Markdown.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use mdbook_driver::MDBook;
use mdbook_preprocessor::book::{Book, BookItem};
use mdbook_preprocessor::{Preprocessor, PreprocessorContext};

use crate::markdown::{Found, find, man_pages, replaced};
use crate::parts::{Span, spans};
use crate::source::{self, root, without_parents};

/// The folder of the chapters, in the workspace.
pub const CHAPTERS: &str = "docs/book";

/// Where manual pages of a section stand: the site of the Linux man-pages
/// project's maintainers.
const MAN_PAGES: &str = "https://man7.org/linux/man-pages";

/// Every chapter, by its path in the workspace, the contents excepted.
pub fn chapters() -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(CHAPTERS)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md")
                && !path.ends_with("SUMMARY.md")
            {
                let path = path.strip_prefix(root())?;
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Builds the book into `out`, or into `target/book`, and returns where it
/// begins.
///
/// Fails with what mdBook says, and where a link leads to no file.
pub fn build(out: Option<&Path>) -> Result<PathBuf> {
    let mut book = MDBook::load(root().join("docs"))?;
    if let Some(out) = out {
        book.config.build.build_dir = std::path::absolute(out)?;
    }
    let out = book.build_dir_for("html");
    let linked = Linked::default();
    book.with_preprocessor(Finish { linked: linked.clone() });
    book.build()?;
    for path in linked.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let to = out.join(shown_at(path));
        fs::create_dir_all(to.parent().context("a folder")?)?;
        fs::copy(root().join(path), &to).with_context(|| path.clone())?;
    }
    Ok(out.canonicalize()?.join("index.html"))
}

/// Files of the workspace that the book links to.
type Linked = Arc<Mutex<BTreeSet<String>>>;

/// Where a source file stands in the built book: as text, which a browser
/// shows.
fn shown_at(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((_, "svg" | "json")) => format!("source/{path}"),
        _ => format!("source/{path}.txt"),
    }
}

/// The last step before a chapter is rendered.
struct Finish {
    linked: Linked,
}

impl Preprocessor for Finish {
    fn name(&self) -> &str {
        "finish"
    }

    fn run(&self, _: &PreprocessorContext, mut book: Book) -> Result<Book> {
        let mut failed = Ok(());
        book.for_each_mut(|item| {
            let BookItem::Chapter(chapter) = item else { return };
            let Some(path) = chapter.source_path.clone() else { return };
            match self.finished(&path, &chapter.content) {
                Ok(text) => chapter.content = text,
                Err(error) => {
                    failed = Err(error.context(path.display().to_string()));
                }
            }
        });
        failed.map(|()| book)
    }
}

impl Finish {
    fn finished(&self, path: &Path, text: &str) -> Result<String> {
        let text = laid_out(&path.display().to_string(), text)?;
        let mut edits = Vec::new();
        for found in find(&text) {
            match found {
                Found::Link { to, place, .. } => {
                    if let Some(new) = self.in_the_book(path, &to)? {
                        edits.push((place, new));
                    }
                }
                Found::Prose(range) => {
                    let begin = range.start;
                    for (place, name, section) in man_pages(&text[range]) {
                        let link = format!(
                            "[{name}({section})]({MAN_PAGES}/man{section}/\
                             {name}.{section}.html)"
                        );
                        let place = begin + place.start..begin + place.end;
                        edits.push((place, link));
                    }
                }
                Found::Code(_) | Found::Heading { .. } => {}
            }
        }
        Ok(replaced(&text, edits))
    }

    /// Where a link that leaves the book's folder leads to in the built book.
    fn in_the_book(&self, path: &Path, to: &str) -> Result<Option<String>> {
        let Some(file) = outside(path, to) else { return Ok(None) };
        ensure!(root().join(&file).is_file(), "'{to}' leads to no file");
        let new =
            "../".repeat(path.components().count() - 1) + &shown_at(&file);
        let mut linked =
            self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.insert(file);
        Ok(Some(new))
    }
}

/// The file of the workspace that a chapter's link leads to, if it is none of
/// the book's own folder. `path` is the chapter's in that folder.
pub fn outside(path: &Path, to: &str) -> Option<String> {
    if to.contains("://") || to.starts_with('#') {
        return None;
    }
    let to = to.split('#').next().unwrap_or_default();
    let folder = Path::new(CHAPTERS).join(path.parent()?);
    let file = without_parents(&folder.join(to));
    (!Path::new(&file).starts_with(CHAPTERS)).then_some(file)
}

/// Annotated code beside its prose, no markers, and what needs the reader's
/// hand told from what does not.
fn laid_out(name: &str, text: &str) -> Result<String> {
    let mut out = String::new();
    let mut prose: Option<String> = None;
    for span in spans(name, text)? {
        match (span, &mut prose) {
            (Span::Annotate(_), _) => {
                out.push_str("<div class=\"annotated\">\n\n");
                prose = Some(String::new());
            }
            (Span::AnnotateEnd, _) => {
                prose = None;
                out.push_str("</div>\n\n");
            }
            (Span::Prose(text), Some(prose)) => prose.push_str(&text),
            (Span::Part { words, body }, Some(text))
                if words.starts_with("piece ") =>
            {
                let text = std::mem::take(text);
                out.push_str("<div class=\"prose\">\n\n");
                out.push_str(text.trim());
                out.push_str("\n\n</div><div class=\"code\">\n\n");
                out.push_str(body.trim());
                out.push_str("\n\n</div>\n\n");
            }
            (Span::Part { body, .. }, Some(text)) => text.push_str(&body),
            (Span::Part { body, .. }, None) => out.push_str(&body),
            (Span::Prose(text), None) => out.push_str(&marked(&text)),
        }
    }
    Ok(out)
}

/// `<!-- by hand: why -->` as something that a reader sees.
fn marked(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let why = line.strip_prefix(crate::commands::BY_HAND);
        match why.and_then(|why| why.strip_suffix("-->")) {
            Some(why) => {
                let why = why.trim();
                format!("<p class=\"by-hand\">By hand: {why}</p>\n\n")
            }
            None => format!("{line}\n"),
        }
    });
    lines.collect()
}

/// The table of contents, by the paths of the chapters in their order.
pub fn contents() -> Result<Vec<String>> {
    let text = source::text(&format!("{CHAPTERS}/SUMMARY.md"))?;
    let links = find(&text).into_iter().filter_map(|found| match found {
        Found::Link { to, .. } if !to.is_empty() => {
            Some(format!("{CHAPTERS}/{to}"))
        }
        _ => None,
    });
    Ok(links.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stand_beside_their_prose() -> Result<()> {
        let text = "# T\n\n<!-- annotate: a.rs -->\n\nWhy.\n\n\
                    <!-- generated: piece //! -->\n\n```rust\nx\n```\n\n\
                    <!-- end generated -->\n\n<!-- end annotate -->\n";
        let html = laid_out("a.md", text)?;
        let wanted = "# T\n\n<div class=\"annotated\">\n\n\
                      <div class=\"prose\">\n\nWhy.\n\n</div>\
                      <div class=\"code\">\n\n```rust\nx\n```\n\n</div>\n\n\
                      </div>\n\n";
        assert_eq!(html, wanted);
        Ok(())
    }

    #[test]
    fn knows_what_is_outside() {
        let outside = |path, to| outside(Path::new(path), to);
        assert_eq!(
            outside("a.md", "../../epoll_lt/src/lib.rs").as_deref(),
            Some("epoll_lt/src/lib.rs")
        );
        assert_eq!(
            outside("annotated/a.md", "../../../README.md#x").as_deref(),
            Some("README.md")
        );
        assert_eq!(outside("annotated/a.md", "../a.md#x"), None);
        assert_eq!(outside("a.md", "figures/a.svg"), None);
        assert_eq!(outside("a.md", "https://x.org/"), None);
    }
}

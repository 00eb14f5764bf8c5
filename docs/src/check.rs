//! What must hold of the book besides that its parts are fresh. Each check
//! returns what is wrong, in lines that say where.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::book;
use crate::markdown::{Found, anchors, find, man_pages};
use crate::parts::{Neighbours, Span, spans};
use crate::source::{self, without_parents};

/// Texts by their paths in the workspace.
pub type Texts = HashMap<String, String>;

/// The book's chapters, the README and the other documents at the root.
pub fn texts() -> Result<Texts> {
    let mut paths = book::chapters()?;
    paths.push(format!("{}/SUMMARY.md", book::CHAPTERS));
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        paths.push(name.to_owned());
    }
    let read = |path: String| Ok((path.clone(), source::text(&path)?));
    paths.into_iter().map(read).collect()
}

/// Links and pictures of the Markdown that lead to no file, or to no heading
/// of one.
pub fn links(texts: &Texts) -> Vec<String> {
    let mut wrong = Vec::new();
    let headings: HashMap<&str, Vec<String>> =
        texts.iter().map(|(path, text)| (&**path, anchors(text))).collect();
    for (path, text) in texts {
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        for found in find(text) {
            let Found::Link { to, .. } = found else { continue };
            // A chapter that is to come.
            if to.is_empty() && path.ends_with("SUMMARY.md") {
                continue;
            }
            if to.starts_with("http://") || to.starts_with("https://") {
                continue;
            }
            let (file, anchor) = match to.split_once('#') {
                Some((file, anchor)) => (file, Some(anchor)),
                None => (&*to, None),
            };
            let target = match file {
                "" => path.clone(),
                file => without_parents(&folder.join(file)),
            };
            let headings = headings.get(&*target);
            if headings.is_none() && !source::root().join(&target).exists() {
                wrong.push(format!("{path}: '{to}' leads to no file"));
            } else if let (Some(anchor), Some(headings)) = (anchor, headings)
                && !headings.iter().any(|it| it == anchor)
            {
                wrong.push(format!("{path}: '{to}' leads to no heading"));
            }
        }
    }
    wrong
}

/// Chapters that the contents leave out.
pub fn contents(chapters: &[String], listed: &[String]) -> Vec<String> {
    let listed: BTreeSet<&String> = listed.iter().collect();
    let lost = chapters.iter().filter(|it| !listed.contains(it));
    lost.map(|it| format!("{it} is not in SUMMARY.md")).collect()
}

/// Items in which neighbours differ, and that the chapter about the later one
/// does not show; and those that it shows twice.
pub fn diffs(chapter: &str, text: &str) -> Result<Vec<String>> {
    let mut pairs: HashMap<(String, String), Vec<String>> = HashMap::new();
    for span in spans(chapter, text)? {
        let Span::Part { words, .. } = span else { continue };
        let words: Vec<&str> = words.split_whitespace().collect();
        if let ["diff", from, to, item] = words[..] {
            let pair = (from.to_owned(), to.to_owned());
            pairs.entry(pair).or_default().push(item.to_owned());
        }
    }
    let mut wrong = Vec::new();
    for ((from, to), items) in pairs {
        let pair = Neighbours::new(&from, &to)?;
        let mut left = pair.differing();
        for item in items {
            for name in pair.named(&item)? {
                if !left.remove(&name) {
                    wrong.push(format!(
                        "{chapter}: {from} and {to} do not differ in {name}, \
                         or it is shown twice"
                    ));
                }
            }
        }
        wrong.extend(left.iter().map(|name| {
            format!("{chapter}: {from} and {to} differ in {name}: not shown")
        }));
    }
    Ok(wrong)
}

/// Manual pages that the texts name and `known` does not, with who names them.
pub fn unknown_pages(texts: &Texts, known: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in texts {
        for found in find(text) {
            let Found::Prose(range) = found else { continue };
            for (_, name, section) in man_pages(&text[range]) {
                let page = format!("{name}({section})");
                if !known.contains(&page) {
                    wrong.push(format!("{path}: {page}"));
                }
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

/// Links of the built pages, and what they load, that lead nowhere.
///
/// Fails when a page cannot be read.
pub fn pages(folder: &Path) -> Result<Vec<String>> {
    let mut files = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path);
            }
        }
    }
    let mut names = HashMap::new();
    let mut leads = Vec::new();
    for file in files.iter().filter(|it| {
        // Its links count from wherever a site may stand.
        it.extension().is_some_and(|extension| extension == "html")
            && !it.ends_with("404.html")
    }) {
        let html = fs::read_to_string(file)?;
        let ids: BTreeSet<String> =
            values(&html, "id").map(str::to_owned).collect();
        for to in values(&html, "href").chain(values(&html, "src")) {
            leads.push((file, to.replace("&amp;", "&")));
        }
        names.insert(file.clone(), ids);
    }
    let mut wrong = BTreeSet::new();
    for (file, to) in leads {
        if to.contains(':') {
            continue;
        }
        let (path, anchor) = to.split_once('#').unwrap_or((&to, ""));
        let here = file.parent().unwrap_or(folder);
        let target = match path {
            "" => file.clone(),
            path => PathBuf::from(without_parents(&here.join(path))),
        };
        let shown = file.strip_prefix(folder).unwrap_or(file).display();
        let ids = names.get(&target);
        if !files.contains(&target) {
            wrong.insert(format!("{shown}: '{to}' leads to no file"));
        } else if !anchor.is_empty()
            && ids.is_some_and(|ids| !ids.contains(anchor))
        {
            wrong.insert(format!("{shown}: '{to}' leads to no place"));
        }
    }
    Ok(wrong.into_iter().collect())
}

/// The values of an attribute in a page.
fn values<'a>(html: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let begin = format!(" {name}=\"");
    let parts: Vec<&str> = html.split(&begin).skip(1).collect();
    parts.into_iter().filter_map(|it| it.split('"').next())
}

//! What is drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bench::models::MODELS;
use roxmltree::{Document, Node};
use watch::figure::data::{Lane, Page, Who};
use watch::figure::{Form, draw};

/// The largest files that are allowed, of one model and of all.
const ONE: usize = 100_000;
const ALL: usize = 500_000;

/// The files of a folder, by name.
type Files = BTreeMap<String, String>;

fn files(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().context("no name")?.to_string_lossy();
        files.insert(name.into_owned(), fs::read_to_string(&path)?);
    }
    Ok(files)
}

/// Writes them as `watch figure --out FOLDER/` does.
fn written(page: &Page) -> Result<Files> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path().join("figures");
    draw(page, Form::Folder, &folder)?;
    files(&folder)
}

pub fn each(page: &Page) -> Result<()> {
    let files = written(page)?;
    let names: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    let known = MODELS.iter().map(|model| model.name);
    let known: BTreeSet<&str> = known.chain(["models"]).collect();
    ensure!(names == known, "{names:?}");
    for figure in &page.figures {
        let text = &files[&figure.model];
        let document = sound(text, ONE).context(figure.model.clone())?;
        let drawn: Vec<(String, String)> = lanes(document.root_element());
        // The whole scene comes first, and has all of them.
        for (lane, drawn) in figure.lanes.iter().zip(&drawn) {
            ensure!(named(lane) == *drawn, "{}: {drawn:?}", figure.model);
        }
        ensure!(drawn.len() > figure.lanes.len(), "{}: no look", figure.model);
        for text in [&figure.model, &figure.summary] {
            let mut texts = document.descendants().filter(is_text);
            ensure!(texts.any(|it| it.text() == Some(text)), "no '{text}'");
        }
    }
    Ok(())
}

/// Every phase that the model must show, for each.
pub fn all(page: &Page) -> Result<()> {
    let files = written(page)?;
    let document = sound(&files["models"], ALL)?;
    let strips = document.descendants();
    let strips =
        strips.filter_map(|it| Some((it.attribute("data-model")?, it)));
    let strips: Vec<(&str, Node)> = strips.collect();
    let names: Vec<&str> = strips.iter().map(|strip| strip.0).collect();
    let known: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
    ensure!(names == known, "{names:?}");
    for (figure, (name, strip)) in page.figures.iter().zip(strips) {
        let drawn = lanes(strip);
        let shown: Vec<_> = figure.lanes.iter().map(named).collect();
        ensure!(drawn == shown, "{name}: {drawn:?}");
        let phases = phases(strip);
        for phase in expected(name) {
            ensure!(phases.contains(phase), "{name}: no '{phase}' there");
        }
        let sleeps = phases.contains("waiting");
        ensure!(sleeps == (name != "nonblocking_poll"), "{name}: {phases:?}");
    }
    Ok(())
}

/// What a model is known by.
fn expected(model: &str) -> Vec<&'static str> {
    let mut phases =
        vec!["sending", "unanswered", "receiving", "copying", "running"];
    match model {
        "nonblocking_poll" => phases.push("wasted"),
        "nonblocking_poll-pause" => phases.extend(["wasted", "waiting"]),
        _ => phases.extend(["waiting", "waking"]),
    }
    match model {
        "epoll_et" => phases.push("wasted"),
        _ if model.starts_with("signal_driven") => phases.push("wasted"),
        _ if model.starts_with("aio_file") => phases.push("flight"),
        "proactor-emulated" => {}
        "proactor-sqpoll" => {
            phases.retain(|phase| *phase != "copying");
            phases.push("flight");
        }
        _ if model.starts_with("proactor") => phases.push("flight"),
        _ => {}
    }
    phases
}

/// It is well formed, and needs and runs nothing.
fn sound(text: &str, most: usize) -> Result<Document<'_>> {
    ensure!(text.len() < most, "{} bytes", text.len());
    let document = Document::parse(text)?;
    let root = document.root_element();
    ensure!(root.has_tag_name("svg") && root.attribute("viewBox").is_some());
    for name in ["title", "desc"] {
        let mut children = root.children();
        let child = children.find(|child| child.tag_name().name() == name);
        let says = child.and_then(|child| child.text());
        ensure!(says.is_some_and(|says| !says.is_empty()), "no {name}");
    }
    for node in document.descendants() {
        let name = node.tag_name().name();
        let foreign = ["script", "image", "use", "a", "foreignObject"];
        ensure!(!foreign.contains(&name), "{name}");
        for attribute in node.attributes() {
            let runs = attribute.name().starts_with("on");
            ensure!(!runs, "{}", attribute.name());
        }
    }
    let address = text.replace("http://www.w3.org/2000/svg", "");
    ensure!(!address.contains("://"), "it needs the network");
    ensure!(text.contains("prefers-color-scheme:dark"));
    Ok(document)
}

fn is_text(node: &Node) -> bool {
    node.has_tag_name("text")
}

fn named(lane: &Lane) -> (String, String) {
    let who = match lane.who {
        Who::Client => "client",
        Who::Thread => "thread",
        Who::Process => "process",
        Who::HelperThread => "helper-thread",
        Who::Kernel => "kernel",
    };
    (who.to_owned(), lane.name.clone())
}

/// Kind and name of each lane in a part of a file.
fn lanes(part: Node) -> Vec<(String, String)> {
    let lanes = part.descendants().filter_map(|node| {
        let attribute = |name| node.attribute(name).map(str::to_owned);
        Some((attribute("data-who")?, attribute("data-name")?))
    });
    lanes.collect()
}

fn phases<'a>(part: Node<'a, 'a>) -> BTreeSet<&'a str> {
    let lanes = part.descendants();
    let lanes = lanes.filter_map(|node| node.attribute("data-phases"));
    lanes.flat_map(str::split_whitespace).collect()
}

/// A piece of text is taken to be as wide as in a usual font.
pub fn texts(page: &Page) -> Result<()> {
    for (name, text) in &written(page)? {
        let document = Document::parse(text)?;
        let root = document.root_element();
        let width: f64 = root.attribute("width").unwrap_or("0").parse()?;
        let mut boxes = Vec::new();
        for node in document.descendants().filter(is_text) {
            boxes.push(Room::of(node)?);
        }
        for (at, one) in boxes.iter().enumerate() {
            let inside = one.from >= 0.0 && one.to <= width;
            ensure!(inside, "{name}: '{}' leaves the sheet", one.text);
            let other = boxes[..at].iter().find(|other| one.covers(other));
            if let Some(other) = other {
                anyhow::bail!("{name}: '{}' on '{}'", one.text, other.text);
            }
        }
    }
    Ok(())
}

/// Where a piece of text is.
struct Room {
    text: String,
    from: f64,
    to: f64,
    top: f64,
    bottom: f64,
}

impl Room {
    fn of(node: Node) -> Result<Room> {
        let number = |name: &str| -> Result<f64> {
            Ok(node.attribute(name).context("no such attribute")?.parse()?)
        };
        let texts = node.descendants().filter(|it| it.is_text());
        let text: String = texts.filter_map(|it| it.text()).collect();
        let size = number("font-size")?;
        let wide = |char| if "ijlt.,:;' ".contains(char) { 0.3 } else { 0.57 };
        let width = size * text.chars().map(wide).sum::<f64>();
        let before = match node.attribute("text-anchor") {
            Some("middle") => width / 2.0,
            Some(_) => width,
            None => 0.0,
        };
        let (from, y) = (number("x")? - before, number("y")?);
        let (top, bottom) = (y - 0.7 * size, y + 0.1 * size);
        Ok(Room { text, from, to: from + width, top, bottom })
    }

    fn covers(&self, other: &Room) -> bool {
        let apart = |a: (f64, f64), b: (f64, f64)| a.1 <= b.0 || b.1 <= a.0;
        !apart((self.from, self.to), (other.from, other.to))
            && !apart((self.top, self.bottom), (other.top, other.bottom))
    }
}

/// The pictures in the repository are of this table, these lanes and these
/// phases; times are what that run had.
pub fn documents(page: &Page) -> Result<()> {
    let now = written(page)?;
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/book/figures");
    let shown = files(&folder).context("docs/book/figures")?;
    let again = "make them again: cargo run --release -- figure --out \
                 docs/book/figures/";
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    ensure!(names(&now) == names(&shown), "{:?}; {again}", names(&shown));
    for (name, text) in &shown {
        let most = if name == "models" { ALL } else { ONE };
        let document = sound(text, most).context(name.clone())?;
        let (shown, now) = (structure(&document), &now[name]);
        let now = Document::parse(now)?;
        let now = structure(&now);
        ensure!(shown == now, "{name} shows {shown:?}, not {now:?}; {again}");
    }
    Ok(())
}

/// Lanes and phases by model. glibc starts as many threads as it likes, and it
/// is chance whether anybody was set aside, and which of several processes
/// comes too late for a client.
fn structure(document: &Document) -> Vec<(String, BTreeSet<String>)> {
    let root = document.root_element();
    let strips = root.descendants().filter(|it| it.has_attribute("data-model"));
    let mut parts: Vec<Node> = strips.collect();
    if parts.is_empty() {
        parts.push(root);
    }
    let of_part = |part: Node| {
        let name = part.attribute("data-model").unwrap_or_default();
        let phases = phases(part).into_iter().map(str::to_owned);
        let phases = phases.filter(|phase| phase != "aside");
        let lanes =
            lanes(part).into_iter().map(|(who, name)| match who.as_str() {
                "helper-thread" => {
                    let name =
                        name.trim_end_matches(|it: char| it.is_numeric());
                    format!("{who} {name}")
                }
                _ => format!("{who} {name}"),
            });
        let mut all: BTreeSet<String> = phases.chain(lanes).collect();
        if all.iter().any(|it| it.starts_with("process ")) {
            all.remove("wasted");
        }
        (name.to_owned(), all)
    };
    parts.into_iter().map(of_part).collect()
}

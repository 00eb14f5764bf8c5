//! What is generated in the README and the book is what the tree says, every
//! link leads somewhere, and nothing that must be told is left out.

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use docs::check::{self, Texts};
use docs::parts::{self, Runs, Span, all_pitfalls, refreshed, spans};
use docs::{book, source};
use libtest_mimic::{Arguments, Failed, Trial};
use watch::figure::{self, Form};
use watch::scene::Scene;

/// Names of manual pages that were looked for and found.
const MAN_PAGES: &str = "docs/man-pages.txt";

const AGAIN: &str = "cargo run -p docs -- refresh";

type Test = (&'static str, fn() -> Result<()>);

const TESTS: &[Test] = &[
    ("figures_of_scenes", figures_of_scenes),
    ("links", links),
    ("contents", contents),
    ("diffs_are_whole", diffs_are_whole),
    ("every_server_has_its_pages", every_server_has_its_pages),
    ("every_pitfall_is_told_once", every_pitfall_is_told_once),
    ("manual_pages_exist", manual_pages_exist),
    ("a_stale_part_is_found", a_stale_part_is_found),
    ("a_stale_run_is_found", a_stale_run_is_found),
    ("a_broken_link_is_found", a_broken_link_is_found),
    ("a_missing_diff_is_found", a_missing_diff_is_found),
];

fn main() -> ExitCode {
    bench::serve_if_asked();
    let mut args = Arguments::from_args();
    // Runs mostly wait for their clients.
    args.test_threads = Some(args.test_threads.unwrap_or(4).min(4));
    let files = match parts::files() {
        Ok(files) => files,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut trials = Vec::new();
    for path in files {
        let name = format!("fresh::{path}");
        trials.push(Trial::test(name, move || ended(is_fresh(&path))));
    }
    for &(name, test) in TESTS {
        trials.push(Trial::test(name, move || ended(test())));
    }
    libtest_mimic::run(&args, trials).exit_code()
}

fn ended(result: Result<()>) -> Result<(), Failed> {
    result.map_err(|error| format!("{error:#}").into())
}

fn none(wrong: &[String]) -> Result<()> {
    ensure!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    Ok(())
}

fn is_fresh(path: &str) -> Result<()> {
    let text = source::text(path)?;
    let fresh = refreshed(path, &text, Runs::Stale)?;
    let stale = text.lines().zip(fresh.lines()).find(|(a, b)| a != b);
    let (now, wanted) = stale.unwrap_or_default();
    ensure!(
        fresh == text,
        "{path} is stale; to write it anew: {AGAIN}\n  it says  {now}\n  and \
         should {wanted}"
    );
    Ok(())
}

/// Figures of other scenes than the one that `watch` holds its own to: the
/// same lanes and phases come out of a run today.
fn figures_of_scenes() -> Result<()> {
    for name in ["epoll_lt", "epoll_et"] {
        let path = format!("docs/book/scenes/burst-{name}.svg");
        let model = bench::models::find(name).context("the model")?;
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("now.svg");
        let scene = Scene::find("burst")?;
        figure::run(&[model], &scene, Form::Svg, &out, |_| {})?;
        let picture = source::text(&path)?;
        let shown = lanes(&picture);
        let now = lanes(&fs::read_to_string(out)?);
        ensure!(
            shown == now && !shown.is_empty(),
            "{path} shows {shown:?}, not {now:?}; to draw it anew: cargo run \
             --release -- figure {name} --scene burst --out {path}"
        );
        // The test itself: a phase that is not there any more.
        ensure!(lanes(&picture.replace(" copying", "")) != now, "{now:?}");
    }
    Ok(())
}

/// Each lane with its phases; whether somebody was set aside is chance.
fn lanes(svg: &str) -> Vec<String> {
    let tags = svg.split('<').filter(|tag| tag.contains(" data-"));
    let words = tags.map(|tag| {
        let words = tag.split(" data-").skip(1).map(|word| {
            let end = word.match_indices('"').nth(1).map_or(0, |it| it.0);
            word[..end].replace(" aside", "")
        });
        words.collect::<Vec<_>>().join(" ")
    });
    words.collect()
}

fn links() -> Result<()> {
    none(&check::links(&check::texts()?))
}

fn contents() -> Result<()> {
    none(&check::contents(&book::chapters()?, &book::contents()?))
}

fn diffs_are_whole() -> Result<()> {
    let mut pairs = 0;
    for path in book::chapters()? {
        let text = source::text(&path)?;
        pairs += usize::from(text.contains("<!-- generated: diff "));
        none(&check::diffs(&path, &text)?)?;
    }
    ensure!(pairs >= 7, "{pairs} chapters show a diff");
    Ok(())
}

/// A chapter, and a page on which the whole of `lib.rs` stands.
fn every_server_has_its_pages() -> Result<()> {
    let binaries: BTreeSet<&str> =
        bench::models::MODELS.iter().map(|model| model.binary).collect();
    for name in binaries {
        source::text(&format!("{}/{name}.md", book::CHAPTERS))?;
        let page = format!("{}/annotated/{name}.md", book::CHAPTERS);
        let text = source::text(&page)?;
        let file = format!("{name}/src/lib.rs");
        let whole = annotated(&page, &text, &file)?;
        ensure!(
            without_space(&whole) == without_space(&source::text(&file)?),
            "{page} does not show the whole of {file}"
        );
    }
    Ok(())
}

/// The code of all pieces of a file.
fn annotated(page: &str, text: &str, file: &str) -> Result<String> {
    let mut code = String::new();
    let mut here = false;
    for span in spans(page, text)? {
        match span {
            Span::Annotate(path) => here = path == file,
            Span::Part { words, body }
                if here && words.starts_with("piece") =>
            {
                let lines = body.lines().filter(|it| !it.starts_with("```"));
                code.extend(lines.map(|line| format!("{line}\n")));
            }
            _ => {}
        }
    }
    Ok(code)
}

fn without_space(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn every_pitfall_is_told_once() -> Result<()> {
    let mut told = Vec::new();
    for path in book::chapters()? {
        for span in spans(&path, &source::text(&path)?)? {
            if let Span::Part { words, .. } = span
                && let Some(name) = words.strip_prefix("pitfall ")
            {
                told.push(name.to_owned());
            }
        }
    }
    told.sort();
    let mut there: Vec<String> = all_pitfalls()?
        .iter()
        .map(|it| format!("{} {}", it.package, it.name))
        .collect();
    there.sort();
    ensure!(there.len() >= 20, "only {} pitfalls are there", there.len());
    ensure!(told == there, "told: {told:?}\nthere: {there:?}");
    Ok(())
}

/// No test can ask the site; each new name is looked for by hand, as
/// `man 2 epoll_wait`, and then listed.
fn manual_pages_exist() -> Result<()> {
    let known = source::text(MAN_PAGES)?;
    let known: BTreeSet<String> = known.lines().map(str::to_owned).collect();
    let unknown = check::unknown_pages(&check::texts()?, &known);
    none(&unknown).context(format!("not in {MAN_PAGES}"))
}

/// One of each kind, with something changed in it.
fn a_stale_part_is_found() -> Result<()> {
    for (words, from, to) in [
        ("code epoll_lt/src/lib.rs on_stop", "stop.take", "stop.taken"),
        ("diff epoll_lt epoll_et EventLoop::on_ready", "+", " "),
        ("models", "epoll_wait", "epoll"),
        ("numbers costs epoll_lt", "×1", "×2"),
        ("pitfall epoll_et no_drain", "Fix", "Fixed"),
    ] {
        let path = "docs/book/x.md";
        let empty =
            format!("<!-- generated: {words} -->\n<!-- end generated -->\n");
        let fresh = refreshed(path, &empty, Runs::Stale)?;
        ensure!(refreshed(path, &fresh, Runs::Stale)? == fresh, "{words}");
        let stale = fresh.replacen(from, to, 1);
        let marker = format!("generated: {words}");
        ensure!(stale != fresh && stale.contains(&marker), "{words}: {fresh}");
        ensure!(refreshed(path, &stale, Runs::Stale)? == fresh, "{words}");
    }
    Ok(())
}

/// A run that shows something else is stale; other times are not.
fn a_stale_run_is_found() -> Result<()> {
    let path = "docs/book/epoll_lt.md";
    let text = source::text(path)?;
    let other_times = text.replace(" µs\n", " ms\n");
    ensure!(other_times != text, "it tells no times");
    let fresh = refreshed(path, &other_times, Runs::Stale)?;
    ensure!(fresh == other_times, "other times make it stale");
    let (before, told) = text
        .split_once("<!-- generated: run hello epoll_lt -->")
        .context("the run")?;
    let told = told.replacen("   6 bytes", "   7 bytes", 1);
    let wrong = format!("{before}<!-- generated: run hello epoll_lt -->{told}");
    let fresh = refreshed(path, &wrong, Runs::Stale)?;
    ensure!(fresh != wrong, "another result does not make it stale");
    Ok(())
}

fn a_broken_link_is_found() -> Result<()> {
    let text = "# One\n\n[a](x.md) [b](x.md#two) [c](gone.md) [d](#one) \
                [e](#gone) ![f](figures/gone.svg) ![g](figures/epoll_lt.svg)\n";
    let mut texts = Texts::new();
    texts.insert("docs/book/a.md".to_owned(), text.to_owned());
    texts.insert("docs/book/x.md".to_owned(), "# One\n".to_owned());
    let mut wrong = check::links(&texts);
    wrong.sort();
    let wanted = [
        "docs/book/a.md: '#gone' leads to no heading",
        "docs/book/a.md: 'figures/gone.svg' leads to no file",
        "docs/book/a.md: 'gone.md' leads to no file",
        "docs/book/a.md: 'x.md#two' leads to no heading",
    ];
    ensure!(wrong == wanted, "{wrong:?}");
    let mut texts = Texts::new();
    texts.insert("a.md".to_owned(), "See poll(2), gone(2), `x(2)`.".to_owned());
    let known = BTreeSet::from(["poll(2)".to_owned()]);
    let unknown = check::unknown_pages(&texts, &known);
    ensure!(unknown == ["a.md: gone(2)"], "{unknown:?}");
    let lost = check::contents(&["a".to_owned()], &["b".to_owned()]);
    ensure!(lost == ["a is not in SUMMARY.md"], "{lost:?}");
    Ok(())
}

fn a_missing_diff_is_found() -> Result<()> {
    let path = "docs/book/epoll_et.md";
    let text = source::text(path)?;
    let marker = "<!-- generated: diff epoll_lt epoll_et ";
    let (before, after) = text.split_once(marker).context("a diff")?;
    let (_, after) =
        after.split_once("<!-- end generated -->").context("end")?;
    let wrong = check::diffs(path, &format!("{before}{after}"))?;
    ensure!(wrong.len() == 1 && wrong[0].contains("not shown"), "{wrong:?}");
    let twice = text.replacen(
        marker,
        "<!-- generated: diff epoll_lt epoll_et head -->\n\
         <!-- end generated -->\n\n<!-- generated: diff epoll_lt epoll_et ",
        1,
    );
    let wrong = check::diffs(path, &twice)?;
    ensure!(wrong.len() == 1 && wrong[0].contains("twice"), "{wrong:?}");
    Ok(())
}

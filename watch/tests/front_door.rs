//! The front door as its user meets it: through the built program.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bench::models::{MODELS, Model};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn watch(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watch"));
    command.args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    watch(args).output().expect("the built program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The rows of every shape that the page has: the longest name, the widest
/// numbers, one client after the other, and several processes.
fn of_every_shape() -> Vec<&'static str> {
    let longest = MODELS.iter().map(|model| model.name);
    let longest = longest.max_by_key(|name| name.len()).expect("a model");
    vec![longest, "nonblocking_poll", "blocking", "blocking-process"]
}

#[test]
fn the_page_has_a_row_and_a_sentence_for_every_model_it_compares() {
    let names = of_every_shape();
    let output = output(&[&["compare"], &names[..]].concat());
    let (page, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    // No terminal: no progress, no colour.
    assert_eq!(said, "");
    assert!(!page.contains('\x1b'));
    for line in page.lines() {
        assert!(line.chars().count() <= 100, "too wide: {line}");
    }
    for model in MODELS {
        let of_model = |line: &&str| line.split(' ').next() == Some(model.name);
        let lines: Vec<&str> = page.lines().filter(of_model).collect();
        let wanted = names.contains(&model.name);
        assert_eq!(lines.len(), if wanted { 2 } else { 0 }, "{lines:?}");
        if let [row, sentence] = lines[..] {
            assert!(row.ends_with("silent"), "{row}");
            assert_eq!(row.split_whitespace().count(), 11, "{row}");
            assert!(sentence.split_whitespace().count() > 5, "{sentence}");
        }
    }
}

/// The rows of a comparison of these.
fn compared(models: &[Model]) -> Vec<Value> {
    let names: Vec<&str> = models.iter().map(|model| model.name).collect();
    let begin = Instant::now();
    let output = output(&[&["compare", "--json"], &names[..]].concat());
    let took = begin.elapsed();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let most = 2 * u32::try_from(models.len()).expect("a few");
    assert!(took < Duration::from_secs(1) * most, "{took:?}");
    assert_eq!(said, "");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    found["rows"].as_array().expect("rows").clone()
}

#[test]
fn the_numbers_stand_to_each_other_as_the_models_promise() {
    // A few of the rows at a time: most of the scene is silence.
    let few = MODELS.len().div_ceil(4);
    let found: Vec<Value> = thread::scope(|scope| {
        let runs =
            MODELS.chunks(few).map(|rows| scope.spawn(|| compared(rows)));
        let runs: Vec<_> = runs.collect();
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    });
    let rows = &found;
    let names: Vec<&str> =
        rows.iter().filter_map(|row| row["model"].as_str()).collect();
    let expected: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
    assert_eq!(names, expected);
    let rows: BTreeMap<&str, &Value> = names.into_iter().zip(rows).collect();
    let number = |name: &str, field: &str| {
        let value = rows[name][field].as_f64();
        value.unwrap_or_else(|| panic!("{name} has no {field}: {found:?}"))
    };

    for (name, row) in &rows {
        assert_eq!(row["as_expected"], true, "{name}: {}", row["sentence"]);
        let waits =
            number(name, "answered_at_ms") >= number(name, "silent_left_at_ms");
        assert_eq!(waits, *name == "blocking", "{row}");
        // At least one for each of the talker's messages.
        assert!(number(name, "calls") > 20.0, "{row}");
        let sentence = row["sentence"].as_str().unwrap_or_default();
        assert!(sentence.split_whitespace().count() > 5, "{row}");
    }

    let several = |field| {
        let more = |name: &&&str| number(name, field) > 1.0;
        rows.keys().filter(more).copied().collect::<Vec<_>>()
    };
    let forks = MODELS.iter().filter(|model| {
        ["process", "processes"].iter().any(|it| model.args.contains(it))
    });
    let mut forks: Vec<&str> = forks.map(|model| model.name).collect();
    forks.sort_unstable();
    assert_eq!(several("processes"), forks);
    let grown =
        |name| number(name, "threads") - number(name, "threads_at_rest");
    assert_eq!(grown("blocking-thread"), 3.0);
    assert_eq!(grown("blocking-pool"), 0.0);
    assert_eq!(grown("epoll_lt"), 0.0);

    // One wait, one recv, one send; a blocking recv is also the wait; edge
    // triggering adds the recv that meets EAGAIN.
    let costs = |name| number(name, "calls_per_message");
    assert_eq!(costs("blocking").round(), 2.0);
    assert_eq!(costs("blocking-thread").round(), 2.0);
    assert_eq!(costs("poll_server").round(), 3.0);
    assert_eq!(costs("epoll_lt").round(), 3.0);
    assert!(costs("epoll_et") >= costs("epoll_lt"));
    assert_eq!(costs("epoll_et").round(), 4.0);

    let wasted = |name| number(name, "wasted_calls");
    assert!(wasted("nonblocking_poll") > 10.0 * number("epoll_lt", "calls"));
    assert!(wasted("nonblocking_poll") > wasted("nonblocking_poll-pause"));
    assert!(wasted("epoll_et") > wasted("epoll_lt"));

    let wakes = |name| number(name, "wake_ups");
    assert_eq!(wakes("nonblocking_poll"), 0.0);
    assert!(wakes("nonblocking_poll-pause") > wakes("epoll_lt"));
    assert!(
        number("nonblocking_poll", "cpu_ms") > number("epoll_lt", "cpu_ms")
    );
}

#[test]
fn a_comparison_of_some_shows_these() {
    let output = output(&["compare", "epoll_lt", "--json", "--plain"]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = found["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["model"], "epoll_lt");
    assert_eq!(rows[0]["first_echo_ms"]["client_3"], Value::Null);
}

#[test]
fn the_table_of_models_is_printed() {
    let page = text(&output(&["models"]).stdout);
    let found = output(&["models", "--json"]).stdout;
    let found: Value = serde_json::from_slice(&found).expect("JSON");
    for (at, model) in MODELS.iter().enumerate() {
        assert!(page.contains(model.name) && page.contains(model.summary));
        assert_eq!(found[at]["name"], model.name);
    }
    assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
}

#[test]
fn figures_are_drawn_into_what_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |args: &[&str], out: &str| {
        let path = folder.path().join(out);
        let args = [&["figure"], args, &["--out"]].concat();
        let mut command = watch(&args);
        let output = command.arg(&path).output().unwrap();
        assert_eq!(text(&output.stderr), "", "{out}");
        assert_eq!(output.status.code(), Some(0), "{out}");
        path
    };
    let figure = |path| fs::read_to_string(path).expect("the figure");
    let one = figure(draw(&["epoll_lt", "--scene", "half-close"], "one.svg"));
    assert!(one.starts_with("<svg") && one.contains("sender"), "{one}");
    let several = draw(&["epoll_et", "epoll_lt"], "several/");
    let mut names: Vec<_> = fs::read_dir(several)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["epoll_et.svg", "epoll_lt.svg", "models.svg"]);
    let html = figure(draw(&["epoll_lt", "--scene", "burst"], "page.html"));
    assert!(html.to_lowercase().starts_with("<!doctype html>"));
    // What watching costs, in messages a second.
    let (watched, rest) = html.split_once(" messages/s watched, ").unwrap();
    let (left_alone, rest) = rest.split_once(" not: <b>").unwrap();
    let (factor, _) = rest.split_once('×').unwrap();
    let number = |text: &str| -> f64 {
        let digits = text.rsplit(['>', ' ']).next().unwrap();
        digits.replace(',', "").parse().unwrap()
    };
    let (watched, left_alone) = (number(watched), number(left_alone));
    // Which is faster is for the machine to say.
    assert!(watched > 100.0 && left_alone > 100.0, "{watched} {left_alone}");
    let off = left_alone / watched / number(factor);
    assert!((0.9..1.1).contains(&off), "{left_alone} / {watched}: {factor}");
}

#[test]
fn scenes_are_printed_to_be_changed() {
    let list = text(&output(&["scenes"]).stdout);
    let found = output(&["scenes", "--json"]).stdout;
    let found: Value = serde_json::from_slice(&found).expect("JSON");
    let scenes = found.as_array().expect("scenes");
    assert_eq!(scenes.len(), 8);
    for scene in scenes {
        assert!(list.contains(scene["name"].as_str().unwrap()), "{list}");
    }
    assert!(list.lines().all(|line| line.chars().count() <= 100), "{list}");
    // What is printed can be changed, and is read again.
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.scene");
    let burst = text(&output(&["scenes", "burst"]).stdout);
    fs::write(&own, burst.replace("128KiB", "64KiB")).unwrap();
    let own = own.to_str().unwrap();
    assert!(text(&output(&["scenes", own]).stdout).contains("64KiB"));
    fs::write(own, burst.replace("server  stop", "server  halt")).unwrap();
    let wrong = output(&["scenes", own]);
    assert_eq!(wrong.status.code(), Some(2));
    let said = text(&wrong.stderr);
    assert!(said.contains("line 16: 'halt' is no action"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn help_teaches() {
    let output = output(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for word in ["compare", "models", "serve", "--plain", "--json", "Try:"] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
}

#[test]
fn a_usage_error_is_one_line_and_2() {
    let error = |args: &[&str]| {
        let output = output(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let said = text(&output.stderr);
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let said = error(&["compare", "epoll"]);
    assert!(said.contains("'epoll'"), "{said}");
    for model in MODELS {
        assert!(said.contains(model.name), "{said}");
    }
    assert!(error(&["compare", "--fast"]).contains("--fast"));
    assert!(error(&["figures"]).contains("figures"));
    assert!(error(&["figure", "--out", "x.png"]).contains("'x.png'"));
    assert!(error(&["figure", "--out", "/no/x.svg"]).contains("not there"));
    let said = error(&["figure", "--scene", "strom", "--out", "x.svg"]);
    assert!(said.contains("'strom'") && said.contains("storm"), "{said}");
    assert!(error(&["live"]).contains("needs a terminal"));
    assert!(error(&["live", "epoll_lt", "epol_et"]).contains("'epol_et'"));
    assert!(error(&["--json", "serve", "epoll_lt"]).contains("first word"));
    error(&["serve"]);
}

#[test]
fn nobody_reads_and_nothing_panics() {
    for args in [&["models"][..], &["compare", "epoll_lt"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = watch(args);
        let output = command.stdout(OwnedFd::from(writer)).output().unwrap();
        assert_eq!(text(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = watch(&["models"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr).lines().count(), 1);
}

#[test]
fn an_interrupt_ends_it_with_every_server() {
    // Servers and their children inherit it, and nobody else has it.
    let mark = format!("WATCH_TEST_MARK={}", std::process::id());
    let (name, value) = mark.split_once('=').unwrap();
    let mut command = watch(&["compare", "blocking-process"]);
    command.env(name, value).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while marked(&mark) < 3 {
        assert!(Instant::now() < deadline, "no server was started");
        thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let status = child.wait().unwrap();
    let said = text_of(child.stderr.take().unwrap());
    assert_eq!((status.code(), &*said), (Some(130), ""));
    assert_eq!(text_of(child.stdout.take().unwrap()), "");
    let deadline = Instant::now() + Duration::from_secs(5);
    while marked(&mark) > 0 {
        assert!(Instant::now() < deadline, "a server is left");
        thread::sleep(Duration::from_millis(5));
    }
}

fn text_of(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).expect("UTF-8");
    text
}

/// How many processes have this in their environment.
fn marked(mark: &str) -> usize {
    let has_it = |path: std::path::PathBuf| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|it| it == mark.as_bytes())
    };
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    all.filter(|entry| has_it(entry.path())).count()
}

#[test]
fn a_scene_is_told_call_by_call() {
    let told = output(&["narrate", "blocking", "--", "--pool", "2"]);
    let told = text(&told.stdout);
    assert!(told.starts_with("blocking: process "), "{told}");
    assert_eq!(told.matches(" 6 bytes ").count(), 6, "{told}");
    for wrong in [
        &["narrate"][..],
        &["narrate", "no_such"],
        &["narrate", "epoll_lt", "--scene", "no_such"],
    ] {
        let output = output(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{wrong:?}");
    }
    // The server itself says no.
    let output = output(&["narrate", "epoll_lt", "--", "--no-such-flag"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--no-such-flag"));
}

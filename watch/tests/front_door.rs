//! The front door as its user meets it: through the built program.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bench::models::MODELS;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Two comparisons at a time would measure each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

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

#[test]
fn the_page_has_a_row_and_a_sentence_for_every_model() {
    let _alone = alone();
    let begin = Instant::now();
    let output = output(&[]);
    let took = begin.elapsed();
    let (page, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    // No terminal: no progress, no colour.
    assert_eq!(said, "");
    assert!(!page.contains('\x1b'));
    for line in page.lines() {
        assert!(line.chars().count() <= 100, "too wide: {line}");
    }
    for model in MODELS {
        let of_model = |line: &&str| line.split(' ').next() == Some(model.name);
        let lines: Vec<&str> = page.lines().filter(of_model).collect();
        let [row, sentence] = lines[..] else {
            panic!("{}: {lines:?} in\n{page}", model.name)
        };
        assert!(row.ends_with("silent"), "{row}");
        assert_eq!(row.split_whitespace().count(), 11, "{row}");
        assert!(sentence.split_whitespace().count() > 5, "{sentence}");
    }
}

#[test]
fn the_numbers_stand_to_each_other_as_the_models_promise() {
    let _alone = alone();
    let output = output(&["--json"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = found["rows"].as_array().expect("rows");
    let names: Vec<&str> =
        rows.iter().filter_map(|row| row["model"].as_str()).collect();
    let expected: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
    assert_eq!(names, expected);
    let rows: BTreeMap<&str, &Value> = names.into_iter().zip(rows).collect();
    let number = |name: &str, field: &str| {
        let value = rows[name][field].as_f64();
        value.unwrap_or_else(|| panic!("{name} has no {field}: {found}"))
    };

    for (name, row) in &rows {
        assert_eq!(row["as_expected"], true, "{name}: {}", row["sentence"]);
        let waits =
            number(name, "answered_at_ms") >= number(name, "silent_left_at_ms");
        assert_eq!(waits, *name == "blocking", "{row}");
        assert!(number(name, "calls") > 40.0, "{row}");
    }

    let several = |field| {
        let more = |name: &&&str| number(name, field) > 1.0;
        rows.keys().filter(more).copied().collect::<Vec<_>>()
    };
    assert_eq!(several("processes"), ["blocking-process"]);
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
    let _alone = alone();
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
    assert!(error(&["--json", "serve", "epoll_lt"]).contains("first word"));
    error(&["serve"]);
}

#[test]
fn nobody_reads_and_nothing_panics() {
    let _alone = alone();
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
    let _alone = alone();
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

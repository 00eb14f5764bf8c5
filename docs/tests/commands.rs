//! Every command that the README and the book show is run here, as a reader
//! would type it, or says that it needs the reader's hand.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bench::check;
use bench::models::MODELS;
use docs::check::texts;
use docs::commands::{Block, blocks};
use docs::markdown::{Found, find};
use docs::source::root;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Which program this one is to be, in place of the tests.
const BE: &str = "DOCS_TEST_BE";

/// The longest that a block may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The port that readers' servers listen on.
const PORT: &str = "7007";

/// Tools that blocks use, and that a machine may lack.
const TOOLS: &[&str] =
    &["bash", "curl", "nc", "pkill", "prlimit", "ps", "ss", "time", "timeout"];

fn main() -> ExitCode {
    if let Some(code) = be_if_asked() {
        return code;
    }
    let mut args = Arguments::from_args();
    // They mostly sleep.
    args.test_threads = Some(args.test_threads.unwrap_or(4).min(4));
    let mut trials = match found() {
        Ok(trials) => trials,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    trials.push(Trial::test("names_are_known", || named(names_are_known)));
    trials.push(Trial::test("a_wrong_command_fails", || {
        named(a_wrong_command_fails)
    }));
    libtest_mimic::run(&args, trials).exit_code()
}

fn named(test: fn() -> Result<()>) -> Result<(), Failed> {
    test().map_err(|error| format!("{error:#}").into())
}

/// A command of this workspace, for which the test's own program stands in:
/// so what is run is what the test was built with.
fn be_if_asked() -> Option<ExitCode> {
    docs::serve_if_asked();
    Some(match &*env::var(BE).ok()? {
        "watch" => watch::main(),
        "bench" => bench::command::main(),
        "docs" => docs::main(),
        "http_service" => http_service::main(),
        name => {
            let model = MODELS.iter().find(|model| model.binary == name)?;
            (model.entry)(env::args_os().collect())
        }
    })
}

/// A trial for each block that needs no hand.
fn found() -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for (path, text) in texts()? {
        for block in blocks(&text) {
            let is_told = block.commands().any(|it| it.contains(" narrate "));
            // Tests of their own: told runs, and what cargo itself runs.
            if block.by_hand.is_some() || is_told {
                continue;
            }
            let name = format!("{path}:{}", block.line);
            trials.push(Trial::test(name, move || {
                run(&block).map_err(|error| format!("{error:#}").into())
            }));
        }
    }
    ensure!(trials.len() > 10, "only {} blocks were found", trials.len());
    Ok(trials)
}

/// Runs a block in a folder that looks like a checkout, and holds what it
/// prints against what is shown.
fn run(block: &Block) -> Result<()> {
    let commands: Vec<&str> = block.commands().collect();
    if let Some(tool) = lacking(&commands) {
        println!("{} SKIPPED: {tool} is not installed", commands[0]);
        return Ok(());
    }
    let port = free_port()?;
    let checkout = Checkout::new(&port)?;
    let mut script = String::from("set -u\n");
    for command in &commands {
        let command = command.replace(PORT, &port);
        // Nobody types so fast that a server does not listen by then.
        let ends = match command.ends_with('&') {
            true => "\nsleep 0.2",
            false => " || failed",
        };
        script.push_str(&format!("now='{}'\n", command.replace('\'', "")));
        script.push_str(&format!("{command}{ends}\n"));
    }
    let script =
        format!("failed() {{ echo \"FAILED ($?): $now\"; exit 1; }}\n{script}");
    let (success, said) = checkout.bash(&script)?;
    ensure!(success, "{said}");
    let mut said_lines = said.lines().map(|it| shape(it, &port));
    for line in block.printed().filter(|line| !line.trim().is_empty()) {
        let wanted = shape(line, PORT);
        ensure!(
            said_lines.any(|line| line == wanted),
            "it shows '{line}', and this is not printed (in this order):\n\
             {said}"
        );
    }
    Ok(())
}

fn lacking(commands: &[&str]) -> Option<&'static str> {
    let words: BTreeSet<&str> =
        commands.iter().flat_map(|it| it.split([' ', '(', '|', ';'])).collect();
    let path = env::var_os("PATH").unwrap_or_default();
    let has = |tool: &str| {
        tool == "time"
            || env::split_paths(&path).any(|it| it.join(tool).is_file())
    };
    if words.contains("nc") && !nc_is_openbsds() {
        return Some("the nc of netcat-openbsd");
    }
    let mut tools = TOOLS.iter().copied();
    tools.find(|tool| (words.contains(tool) || *tool == "bash") && !has(tool))
}

/// There is another one, which knows no `-N`.
fn nc_is_openbsds() -> bool {
    let help = Command::new("nc").arg("-h").output();
    help.is_ok_and(|help| {
        let said = [help.stdout, help.stderr].concat();
        String::from_utf8_lossy(&said).contains("-N")
    })
}

fn free_port() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port().to_string())
}

/// A line without what changes from run to run: numbers, and how wide they
/// are.
fn shape(line: &str, port: &str) -> String {
    let line = line.replace(port, "PORT");
    let mut shape = String::new();
    for it in line.chars() {
        match it {
            '0'..='9' if shape.ends_with('#') => {}
            '0'..='9' => shape.push('#'),
            ' ' if shape.ends_with(' ') => {}
            it => shape.push(it),
        }
    }
    shape.trim().to_owned()
}

/// A folder that looks like a checkout in which everything has been built.
struct Checkout {
    folder: tempfile::TempDir,
}

impl Checkout {
    fn new(port: &str) -> Result<Checkout> {
        let folder = tempfile::tempdir()?;
        for entry in fs::read_dir(root())? {
            let entry = entry?;
            if entry.file_name() != "target" {
                let to = folder.path().join(entry.file_name());
                symlink(entry.path(), to)?;
            }
        }
        let built = folder.path().join("target/release");
        fs::create_dir_all(&built)?;
        let me = env::current_exe()?;
        let me = me.display();
        let binaries = MODELS.iter().map(|model| model.binary);
        for name in binaries.chain(["watch", "bench", "docs", "http_service"]) {
            let server = MODELS.iter().any(|model| model.binary == name);
            // Where readers' servers listen, others may listen as well.
            let addr = match server {
                true => format!("--addr 127.0.0.1:{port}"),
                false => String::new(),
            };
            program(
                &built.join(name),
                &format!("{BE}={name} exec {me} {addr} \"$@\""),
            )?;
        }
        fs::create_dir_all(folder.path().join("bin"))?;
        program(&folder.path().join("bin/cargo"), CARGO)?;
        Ok(Checkout { folder })
    }

    /// Runs a script there, and ends what it leaves behind.
    fn bash(&self, script: &str) -> Result<(bool, String)> {
        let folder = self.folder.path();
        let said = folder.join("said");
        let out = File::create(&said)?;
        let path = env::var("PATH").unwrap_or_default();
        let bin = folder.join("bin");
        let mut child = Command::new("bash")
            .args(["-c", script])
            .current_dir(folder)
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("NO_COLOR", "1")
            .env_remove(BE)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("bash")?;
        let group = Pid::from_raw(i32::try_from(child.id())?);
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() > deadline {
                break None;
            }
            thread::sleep(Duration::from_millis(20));
        };
        // Whatever still runs; mostly nothing does.
        let _gone = killpg(group, Signal::SIGKILL);
        let said = fs::read_to_string(&said)?;
        let Some(status) = status else {
            child.wait()?;
            bail!("it has not ended after {PATIENCE:?}:\n{said}");
        };
        Ok((status.success(), said))
    }
}

fn program(path: &Path, line: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/bash\n{line}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// What stands in for cargo. A program of this workspace is run as the test
/// was built with it, and loads last half a second where none is said; what
/// cargo itself tests and builds is only looked for.
const CARGO: &str = r#"
words="$*"
name=watch
case "$1" in
run)
    shift
    while [ $# -gt 0 ]; do
        case "$1" in
        --release) ;;
        -p | --bin) name=$2; shift ;;
        --example)
            test -f "$name/examples/$2.rs" && exit 0
            echo "no example: cargo $words"; exit 1 ;;
        --) shift; break ;;
        *) echo "unknown to this test: cargo $words"; exit 1 ;;
        esac
        shift
    done
    if [ "$name ${1-}" = 'bench load' ] && [[ "$*" != *--duration* ]]; then
        set -- "$@" --duration 500ms
    fi
    exec "target/release/$name" "$@" ;;
test)
    case " $words " in
    *' -p '*)
        package=$(sed 's/.* -p \([^ ]*\).*/\1/' <<< " $words ")
        grep -q "^name = \"$package\"" */Cargo.toml */*/Cargo.toml || {
            echo "no package: cargo $words"; exit 1; } ;;
    esac
    case " $words " in
    *' --test '*)
        test=$(sed 's/.* --test \([^ ]*\).*/\1/' <<< " $words ")
        ls -d */tests/"$test"{.rs,/main.rs} 2> /dev/null | grep -q . || {
            echo "no test: cargo $words"; exit 1; } ;;
    esac
    exit 0 ;;
build | bench) exit 0 ;;
esac
echo "unknown to this test: cargo $words"
exit 1
"#;

/// Programs that are no servers of the table.
const OTHER_PROGRAMS: &[&str] =
    &["http_service", "accept_modes", "many_connections"];

/// Also where a hand is needed, and within a sentence: servers, cases and
/// scenes of that name exist.
fn names_are_known() -> Result<()> {
    let cases: BTreeSet<&str> = check::cases().map(|case| case.name).collect();
    let mut wrong = Vec::new();
    for (path, text) in texts()? {
        let mut commands: Vec<String> = find(&text)
            .into_iter()
            .filter_map(|found| match found {
                Found::Code(words) => Some(words),
                _ => None,
            })
            .collect();
        for block in blocks(&text) {
            commands.extend(block.commands().map(str::to_owned));
        }
        for command in commands {
            let words: Vec<&str> = command.split_whitespace().collect();
            for pair in words.windows(2) {
                let known = match pair[0] {
                    "--case" => cases.contains(pair[1]) || pair[1] == "…",
                    "--scene" => is_scene(pair[1]),
                    "--bin" => {
                        MODELS.iter().any(|it| it.binary == pair[1])
                            || OTHER_PROGRAMS.contains(&pair[1])
                    }
                    _ => true,
                };
                if !known {
                    wrong.push(format!("{path}: {command}"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn is_scene(name: &str) -> bool {
    let own = root().join(name).to_string_lossy().into_owned();
    let found = watch::scene::Scene::find;
    // CONTRIBUTING's own example is the reader's file.
    name == "FILE.scene" || found(name).is_ok() || found(&own).is_ok()
}

/// The test itself: a command that fails, and output that does not come.
fn a_wrong_command_fails() -> Result<()> {
    let block = |lines: &[&str]| Block {
        line: 1,
        by_hand: None,
        lines: lines.iter().map(ToString::to_string).collect(),
    };
    for lines in [
        &["$ false"][..],
        &["$ cargo run --release -- nonsense"],
        &["$ cargo run --release -p bench -- check epoll_lt --case no_such"],
        &["$ cargo run --release -p epoll_et --example no_such"],
        &["$ cargo test -p bench --test no_such"],
        &["$ target/release/no_such"],
        &["$ echo hello", "hullo"],
        &["$ echo 1; echo a", "a", "1"],
    ] {
        ensure!(run(&block(lines)).is_err(), "{lines:?} is found right");
    }
    run(&block(&["$ echo 1; echo a", "2", "a"]))?;
    run(&block(&["$ cargo run --release -p bench -- check --list"]))
}

//! The rules of the house that a compiler does not hold: what a server may
//! depend on, where `unsafe` may stand, how far neighbours may differ.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use anyhow::{Context, Result, bail, ensure};
use bench::models::MODELS;
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

/// What a server crate may depend on. What a server would need beyond this
/// would hide its model.
const ALLOWED: &[&str] = &["anyhow", "clap", "echo", "libc", "nix"];

/// What only one of them needs, because its model is made of it.
const OF_ONE: &[(&str, &str)] = &[("proactor", "io-uring")];

/// And what its tests and pitfalls may use besides.
const ALLOWED_FOR_TESTS: &[&str] = &["pitfall", "proptest"];

/// Neighbours in the order of the lessons, and the most lines that may be
/// added and removed between their `lib.rs`, white space apart. What is common
/// to both must be the same to the byte, so that the diff is the lesson.
const NEIGHBOURS: &[(&str, &str, u32, u32)] = &[
    ("blocking", "nonblocking_poll", 126, 99),
    ("nonblocking_poll", "select_server", 75, 75),
    ("select_server", "poll_server", 25, 25),
    ("poll_server", "epoll_lt", 25, 25),
    ("epoll_lt", "epoll_et", 25, 25),
    // Beside the chain: each with the one that it is best read next to.
    ("nonblocking_poll", "signal_driven", 120, 70),
    ("poll_server", "aio_file", 147, 20),
];

/// The widest line of a server: two columns stand side by side.
const COLUMNS: usize = 80;

/// A rule; it may be told why it cannot be looked at here.
type Rule = fn(&House) -> Result<Option<String>>;

const RULES: &[(&str, Rule)] = &[
    ("servers_depend_on_little", servers_depend_on_little),
    ("members_are_alike", members_are_alike),
    ("mains_are_the_same", mains_are_the_same),
    ("unsafe_stands_in_sys_only", unsafe_stands_in_sys_only),
    ("lines_of_servers_are_short", lines_of_servers_are_short),
    ("neighbours_differ_in_the_lesson", neighbours_differ_in_the_lesson),
    ("sources_are_formatted", sources_are_formatted),
    ("pitfalls_are_tests", pitfalls_are_tests),
    ("stages_are_declared", stages_are_declared),
];

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let trials = RULES.iter().map(|(name, rule)| {
        Trial::test(*name, move || {
            let result = House::open().and_then(|house| rule(&house));
            match result {
                Ok(None) => Ok(()),
                Ok(Some(why)) => {
                    println!("{name} SKIPPED: {why}");
                    Ok(())
                }
                Err(error) => Err(format!("{error:#}").into()),
            }
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}

/// The workspace, as cargo describes it.
struct House {
    root: PathBuf,
    members: Vec<Member>,
    /// The identifiers of the default members.
    default_members: BTreeSet<String>,
}

struct Member {
    id: String,
    name: String,
    folder: PathBuf,
    dependencies: Vec<Dependency>,
    /// The manifest as cargo reads it, target by target.
    targets: Vec<Value>,
    published: bool,
}

struct Dependency {
    name: String,
    for_tests: bool,
}

impl House {
    fn open() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = root.canonicalize()?;
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--no-deps", "--offline"]);
        cargo.args(["--format-version", "1"]).current_dir(&root);
        let output = cargo.output().context("cargo metadata")?;
        ensure!(output.status.success(), "cargo metadata: {output:?}");
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let list = |value: &Value| -> Result<Vec<Value>> {
            Ok(value.as_array().context("not a list")?.clone())
        };
        let text = |value: &Value| -> Result<String> {
            Ok(value.as_str().context("not a text")?.to_owned())
        };
        let members = list(&metadata["packages"])?.into_iter().map(|package| {
            let manifest = PathBuf::from(text(&package["manifest_path"])?);
            let dependencies = list(&package["dependencies"])?;
            Ok(Member {
                id: text(&package["id"])?,
                name: text(&package["name"])?,
                folder: manifest.parent().context("no folder")?.to_owned(),
                dependencies: dependencies
                    .iter()
                    .map(|it| {
                        let for_tests = it["kind"] == "dev";
                        Ok(Dependency { name: text(&it["name"])?, for_tests })
                    })
                    .collect::<Result<_>>()?,
                targets: list(&package["targets"])?,
                published: package["publish"] != Value::Array(Vec::new()),
            })
        });
        let default_members = list(&metadata["workspace_default_members"])?;
        Ok(House {
            root,
            members: members.collect::<Result<_>>()?,
            default_members: default_members
                .iter()
                .map(text)
                .collect::<Result<_>>()?,
        })
    }

    /// The members whose name is a server's in the table of models.
    fn servers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| {
            MODELS.iter().any(|model| model.binary == member.name)
        })
    }
}

impl Member {
    /// Every file in it whose name ends so.
    fn files(&self, ending: &str) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() && !path.ends_with("target") {
                    folders.push(path);
                } else if path.to_string_lossy().ends_with(ending) {
                    files.push(path);
                }
            }
        }
        files.sort();
        Ok(files)
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Fails with all that is wrong, not only the first.
fn none(what: &str, wrong: Vec<String>) -> Result<Option<String>> {
    ensure!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
    Ok(None)
}

/// Runs a tool; `Err` says why it is not there.
fn run(command: &mut Command) -> Result<Result<Output, String>> {
    match command.output() {
        Ok(output) => Ok(Ok(output)),
        Err(err) if err.kind() == ErrorKind::NotFound => {
            let name = command.get_program().display();
            Ok(Err(format!("{name} is not installed")))
        }
        Err(err) => Err(err.into()),
    }
}

fn servers_depend_on_little(house: &House) -> Result<Option<String>> {
    let mut wrong = Vec::new();
    for server in house.servers() {
        for Dependency { name, for_tests } in &server.dependencies {
            let name = name.as_str();
            let may = *for_tests && ALLOWED_FOR_TESTS.contains(&name);
            let own = OF_ONE.contains(&(server.name.as_str(), name));
            if !may && !own && !ALLOWED.contains(&name) {
                wrong.push(format!("{} depends on {name}", server.name));
            }
        }
    }
    let binaries: BTreeSet<_> = MODELS.iter().map(|it| it.binary).collect();
    let servers = house.servers().count();
    ensure!(servers == binaries.len(), "{servers} of {binaries:?} are members");
    none("a server may depend on echo, libc, nix, clap and anyhow", wrong)
}

fn members_are_alike(house: &House) -> Result<Option<String>> {
    let mut wrong = Vec::new();
    for member in &house.members {
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{}: {what}", member.name));
            }
        };
        must(!member.published, "publish = false");
        must(
            house.default_members.contains(&member.id),
            "is not among the default members",
        );
        // cargo metadata does not tell of this one.
        let manifest = read(&member.folder.join("Cargo.toml"))?;
        for target in ["[lib]", "[[bin]]"] {
            let file = match target {
                "[lib]" => "src/lib.rs",
                _ => "src/main.rs",
            };
            let tables = manifest.split("\n[").map(|it| format!("[{it}"));
            let tables: Vec<String> =
                tables.filter(|it| it.starts_with(target)).collect();
            must(
                !tables.is_empty() || !member.folder.join(file).exists(),
                &format!("{target} is not spelled out"),
            );
            let silent = |it: &String| !it.contains("\nbench = false\n");
            must(
                !tables.iter().any(silent),
                &format!("{target} needs bench = false"),
            );
        }
    }
    none("every member of the workspace", wrong)
}

fn mains_are_the_same(house: &House) -> Result<Option<String>> {
    let mut wrong = Vec::new();
    let mut first: Option<(String, String)> = None;
    for server in house.servers() {
        let text = read(&server.folder.join("src/main.rs"))?;
        let text = text.replace(&server.name, "NAME");
        let name = server.name.clone();
        match &first {
            None => first = Some((name, text)),
            Some((_, same)) if *same == text => {}
            Some((other, _)) => wrong.push(format!("{name} and {other}")),
        }
    }
    none("src/main.rs differs in more than the name", wrong)
}

fn unsafe_stands_in_sys_only(house: &House) -> Result<Option<String>> {
    // Put together, lest this file finds itself.
    let word = concat!("un", "safe");
    let allow = format!("allow({word}_code)");
    let forbid = format!("#![forbid({word}_code)]");
    let mut wrong = Vec::new();
    for member in &house.members {
        let mut has_sys = false;
        for path in member.files(".rs")? {
            let shown = path.strip_prefix(&house.root).unwrap_or(&path);
            let text = read(&path)?;
            // A pitfall may break a contract to show what comes of it.
            if path.starts_with(member.folder.join("examples")) {
                continue;
            }
            if path.ends_with("sys.rs") {
                has_sys |= path.starts_with(member.folder.join("src"));
                continue;
            }
            for (at, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                let mut words = code
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                if code.contains(&allow) || words.any(|it| it == word) {
                    wrong.push(format!("{}:{}", shown.display(), at + 1));
                }
            }
        }
        let lib = read(&member.folder.join("src/lib.rs"))?;
        if !has_sys && !lib.contains(&forbid) {
            wrong.push(format!("{}: src/lib.rs lacks {forbid}", member.name));
        }
    }
    none(&format!("`{word}` belongs into modules named sys.rs"), wrong)
}

fn lines_of_servers_are_short(house: &House) -> Result<Option<String>> {
    let mut wrong = Vec::new();
    for server in house.servers() {
        let texts = server.files(".txt")?;
        for path in server.files(".rs")?.iter().chain(&texts) {
            let shown = path.strip_prefix(&house.root).unwrap_or(path);
            for (at, line) in read(path)?.lines().enumerate() {
                let width = line.chars().count();
                if width > COLUMNS {
                    let shown = shown.display();
                    wrong.push(format!("{shown}:{}: {width}", at + 1));
                }
            }
        }
    }
    none(&format!("lines of more than {COLUMNS} columns"), wrong)
}

fn neighbours_differ_in_the_lesson(house: &House) -> Result<Option<String>> {
    let mut wrong = Vec::new();
    for &(from, to, most_added, most_removed) in NEIGHBOURS {
        let [from, to] = [from, to].map(|name| format!("{name}/src/lib.rs"));
        let mut git = Command::new("git");
        git.args(["diff", "--no-index", "--numstat", "-w", &from, &to]);
        let output = match run(git.current_dir(&house.root))? {
            Ok(output) => output,
            Err(why) => return Ok(Some(why)),
        };
        let numbers = String::from_utf8_lossy(&output.stdout);
        let mut numbers = numbers.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(added)), Some(Ok(removed))) =
            (numbers.next(), numbers.next())
        else {
            bail!("git diff {from} {to}: {output:?}");
        };
        println!("{from} -> {to}: {added} added, {removed} removed");
        if added > most_added || removed > most_removed {
            wrong.push(format!(
                "{from} -> {to}: {added} added (at most {most_added}), \
                 {removed} removed (at most {most_removed}); see `git diff \
                 --no-index -w {from} {to}`"
            ));
        }
    }
    none(
        "neighbours have drifted apart: bring what they share back to the same \
         text in all of them (a fix in one is a fix in all), or, if the model \
         itself needs the lines, raise the bound in bench/tests/house.rs and \
         say why",
        wrong,
    )
}

fn sources_are_formatted(house: &House) -> Result<Option<String>> {
    let mut files = Vec::new();
    for member in house.members.iter() {
        files.extend(member.files(".rs")?);
    }
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--edition", "2024", "--check", "-l"]).args(files);
    let output = match run(rustfmt.current_dir(&house.root))? {
        Ok(output) => output,
        Err(why) => return Ok(Some(why)),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong: BTreeSet<_> = said.lines().map(str::to_owned).collect();
    ensure!(
        output.status.success() || !wrong.is_empty(),
        "rustfmt: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    none("not formatted; `cargo fmt` does it", wrong.into_iter().collect())
}

/// A pitfall is run by `cargo test`, and fails if its symptom stays away. One
/// without `unsafe` promises so.
fn pitfalls_are_tests(house: &House) -> Result<Option<String>> {
    let mut wrong = Vec::new();
    let mut count = 0;
    for server in house.servers() {
        let folder = server.folder.join("examples");
        let manifest = read(&server.folder.join("Cargo.toml"))?;
        for path in server
            .files(".rs")?
            .iter()
            .filter(|it| it.parent() == Some(&folder) && !is_stage(server, it))
        {
            count += 1;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let shown = path.strip_prefix(&house.root).unwrap_or(path);
            let target = server
                .targets
                .iter()
                .find(|it| it["name"] == *name && it["kind"][0] == "example");
            if target.is_none_or(|it| it["test"] != true) {
                wrong.push(format!("{}: test = true", shown.display()));
            }
            // cargo metadata does not tell of this one.
            let table = format!(
                "[[example]]\nname = \"{name}\"\ntest = true\n\
                 harness = false\n"
            );
            if !manifest.contains(&table) {
                wrong.push(format!("{}: harness = false", shown.display()));
            }
            let text = read(path)?;
            if !text.contains("pitfall!(") {
                wrong.push(format!("{}: pitfall!", shown.display()));
            }
            let word = concat!("un", "safe");
            if !text.contains(&format!("{word} {{"))
                && !text.contains(&format!("#![forbid({word}_code)]"))
            {
                let shown = shown.display();
                wrong.push(format!("{shown}: #![forbid({word}_code)]"));
            }
        }
    }
    ensure!(count > 0, "no server has a pitfall");
    none("a pitfall lacks", wrong)
}

/// An example that is no pitfall: one of the steps in which the reactor grows.
fn is_stage(member: &Member, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    member.name == STAGED && name.starts_with("step")
}

/// The member whose examples hold the stages.
const STAGED: &str = "reactor";

/// A stage is a program that is built and started by a test of its crate, and
/// says what moved since the one before.
fn stages_are_declared(house: &House) -> Result<Option<String>> {
    let member = house.members.iter().find(|it| it.name == STAGED);
    let member = member.with_context(|| format!("no member {STAGED}"))?;
    let manifest = read(&member.folder.join("Cargo.toml"))?;
    let test = read(&member.folder.join("tests/stages.rs"))?;
    let folder = member.folder.join("examples");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for path in member
        .files(".rs")?
        .iter()
        .filter(|it| it.parent() == Some(&folder) && is_stage(member, it))
    {
        count += 1;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{name}: {what}"));
            }
        };
        let step = format!("step{count}_");
        must(name.starts_with(&step), &format!("is not {step}…"));
        let table = format!("[[example]]\nname = \"{name}\"\n");
        must(manifest.contains(&table), "is not in the manifest");
        must(
            test.contains(&format!("\"{name}\"")),
            "is not in tests/stages.rs",
        );
        let text = read(path)?;
        let head = text.lines().take_while(|it| it.starts_with("//!")).count();
        must((1..=3).contains(&head), "its head has one to three lines");
        let forbid = concat!("#![forbid(un", "safe_code)]");
        must(text.contains(forbid), forbid);
    }
    ensure!(count > 0, "{STAGED} has no stages");
    none("a stage", wrong)
}

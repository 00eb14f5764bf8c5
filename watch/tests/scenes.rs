//! Every scene with every model, to its end, and what scenes are there to
//! show.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bench::harness::{Server, Start, Target};
use bench::models::{self, MODELS, Model};
use libtest_mimic::{Arguments, Trial};
use watch::clients::{Deed, Did};
use watch::player::{Played, play};
use watch::record::{Entry, RecordFile};
use watch::scene::Scene;

fn main() -> ExitCode {
    bench::serve_if_asked();
    let mut arguments = Arguments::from_args();
    // Scripted clients mostly wait.
    arguments.test_threads.get_or_insert(8);
    let mut trials = Vec::new();
    for scene in Scene::all() {
        for model in MODELS {
            let name = format!("{}::{}", scene.name, model.name);
            let scene = scene.clone();
            let test = move || played_to_the_end(&scene, model);
            trials.push(trial(name, test));
        }
    }
    for buffer in [4, 16, 64] {
        trials.push(trial(format!("burst::waits::{buffer}KiB"), move || {
            level_triggering_waits_for_each_buffer(buffer)
        }));
    }
    trials.push(trial("one-slow::who_waits".to_owned(), one_slow_client));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(
    name: String,
    test: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    Trial::test(name, || Ok(test()?))
}

fn played_to_the_end(scene: &Scene, model: &'static Model) -> Result<()> {
    let start = Start::with_args(&["--watch", "off"]);
    let server = Server::start(&Target::Model(model), &start)?;
    let played = play(scene, &server, (Duration::ZERO, || ()))?;
    ensure!(played.names.len() == scene.crowd(), "{:?}", played.names);
    for client in 0..played.names.len() {
        answered(&played, client)?;
    }
    server.stop()
}

/// A client that was not reset has everything that it sent.
fn answered(played: &Played, client: usize) -> Result<()> {
    let name = &played.names[client];
    let deeds: Vec<&Deed> =
        played.deeds.iter().filter(|deed| deed.client == client).collect();
    let last = deeds.last().map(|deed| &deed.what);
    let (mut sent, mut received) = (0, 0);
    for deed in &deeds {
        match &deed.what {
            Did::Send { to, .. } => sent = *to,
            Did::Receive { from, to } => {
                ensure!(*from == received, "{name}: {deed:?}");
                received = *to;
            }
            Did::Failed(error) => bail!("{name}: {error}"),
            _ => {}
        }
    }
    match last {
        Some(Did::Reset) => Ok(()),
        Some(Did::Close) => {
            ensure!(sent == received, "{name}: {received} of {sent} bytes");
            Ok(())
        }
        _ => bail!("{name} did not leave: {last:?}"),
    }
}

/// The kernel tells of what is left as long as it is left, or once.
fn level_triggering_waits_for_each_buffer(buffer: usize) -> Result<()> {
    // epoll_et gives way to others after so many copies (its budget).
    const BUDGET: usize = 16;
    let buffers = 128 / buffer;
    let expected =
        [("epoll_lt", buffers), ("epoll_et", buffers.div_ceil(BUDGET))];
    for (name, expected) in expected {
        let waits = waits_that_brought(name, buffer)?;
        ensure!(
            waits == expected,
            "{name}: {waits} waits for {buffers} buffers, not {expected}"
        );
    }
    Ok(())
}

/// How many waits a server makes in the scene `burst`, after each of which it
/// receives at least a buffer.
fn waits_that_brought(name: &str, buffer: usize) -> Result<usize> {
    let file = RecordFile::new()?;
    let mut start =
        Start { args: file.args("json").to_vec(), ..Start::default() };
    let size = format!("{buffer}KiB");
    start.args.extend(["--watch-every", "--buffer", &size].map(str::to_owned));
    let model = models::find(name).context("no such model")?;
    let server = Server::start(&Target::Model(model), &start)?;
    play(&Scene::find("burst")?, &server, (Duration::ZERO, || ()))?;
    server.stop()?;
    let text = file.text()?;
    let (mut waits, mut just_waited) = (0, false);
    for line in text.lines() {
        let Entry::Calls(line) = Entry::read(line)? else { continue };
        let call = &line.calls()[0];
        let brought = call.brought() >= buffer as u64 * 1024;
        waits += usize::from(just_waited && brought);
        just_waited = call.name == "epoll_wait";
    }
    Ok(waits)
}

/// Before every other model there was none: the second client waits for the
/// whole of the first.
fn one_slow_client() -> Result<()> {
    let scene = Scene::find("one-slow")?;
    for (name, waits) in [("blocking", true), ("epoll_lt", false)] {
        let model = models::find(name).context("no such model")?;
        let start = Start::with_args(&["--watch", "off"]);
        let server = Server::start(&Target::Model(model), &start)?;
        let played = play(&scene, &server, (Duration::ZERO, || ()))?;
        let of = |client: &str, wanted: fn(&Did) -> bool| {
            let is_it = |deed: &&Deed| {
                played.names[deed.client] == client && wanted(&deed.what)
            };
            played.deeds.iter().find(is_it).context("it never did that")
        };
        let answered = of("quick", |did| matches!(did, Did::Receive { .. }))?;
        let left = of("slow", |did| *did == Did::HalfClose)?;
        ensure!((answered.t0 > left.t0) == waits, "{name}: {answered:?}");
        server.stop()?;
    }
    Ok(())
}

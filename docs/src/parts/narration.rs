//! Runs as the servers tell them. What a run shows is held against the text
//! by its structure: who made which calls, with which results, in which order
//! for each descriptor. Times are never compared.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use bench::models;
use watch::narrate::narrate;
use watch::scene::Scene;

use super::Runs;
use crate::source;

/// A machine that is busy may put two steps of a scene together: so often a
/// run is repeated before what stands there is called stale.
const TRIES: usize = 4;

/// `SCENE MODEL ARGS…`: the command and what it prints; `now` is what stands
/// there.
pub fn block(words: &str, now: &str, runs: Runs) -> Result<String> {
    let mut words = words.split_whitespace();
    let mut word = || words.next().context("say: run SCENE MODEL ARGS…");
    let (scene, name) = (word()?, word()?);
    let args: Vec<String> = words.map(str::to_owned).collect();
    let model = models::find(name);
    let model = model.with_context(|| format!("no model '{name}'"))?;
    let path = format!("docs/scenes/{scene}.scene");
    let own = source::root().join(&path);
    let (scene, shown) = match own.exists() {
        true => (Scene::find(&own.to_string_lossy())?, &*path),
        false => (Scene::find(scene)?, scene),
    };
    let mut command =
        format!("cargo run --release -- narrate {name} --scene {shown}");
    if !args.is_empty() {
        command = format!("{command} -- {}", args.join(" "));
    }
    let mut fresh = String::new();
    for _ in 0..TRIES {
        let told = narrate(model, &args, &scene)?;
        let told: Vec<&str> = told.lines().map(str::trim_end).collect();
        let told = told.join("\n");
        let told = told.trim_matches('\n');
        fresh = format!("\n```console\n$ {command}\n{told}\n```\n\n");
        let same = command_of(now) == command_of(&fresh)
            && Structure::of(now) == Structure::of(&fresh);
        match runs {
            Runs::All => break,
            Runs::Stale if same => return Ok(now.to_owned()),
            Runs::Stale => {}
        }
    }
    Ok(fresh)
}

fn command_of(body: &str) -> Option<&str> {
    body.lines().find(|line| line.starts_with("$ "))
}

/// What a told run shows, without its times.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// For each descriptor, by the main thread or by others: the calls on it
    /// that did something, in their order.
    calls: BTreeMap<String, Vec<String>>,
    /// The calls that slept, and all others, by verb.
    kinds: BTreeSet<(String, String)>,
    /// What was explained.
    explained: BTreeSet<String>,
}

impl Structure {
    /// Reads what `--watch text` wrote.
    pub fn of(told: &str) -> Structure {
        let mut structure = Structure::default();
        let mut columns: Option<[usize; 5]> = None;
        let mut explanation = String::new();
        for line in told.lines() {
            let line: Vec<char> = line.chars().collect();
            let text = |from: usize, to: usize| {
                let to = to.min(line.len());
                let text: String = line[from.min(to)..to].iter().collect();
                text.trim().to_owned()
            };
            let is_explanation = text(0, 28).is_empty() && line.len() > 28;
            if is_explanation {
                explanation.push_str(&text(28, line.len()));
                explanation.push(' ');
                continue;
            }
            structure.explain(&mut explanation);
            let Some([who, verb, call, descriptor, result]) = columns else {
                let head: String = line.iter().collect();
                let at = |word| head.find(word);
                columns = (|| {
                    Some([
                        at("who ")?,
                        at("verb ")?,
                        at("call ")?,
                        at("descriptor ")?,
                        at("result ")?,
                    ])
                })();
                continue;
            };
            // The table of totals ends what is told call by call.
            if line.is_empty() {
                break;
            }
            let words = [
                text(verb, call),
                text(call, descriptor),
                text(descriptor, result),
                without_duration(&without_flight(&text(result, line.len()))),
            ];
            structure.call(&text(who, verb), words);
        }
        structure.explain(&mut explanation);
        structure
    }

    fn explain(&mut self, explanation: &mut String) {
        let text = std::mem::take(explanation);
        let by_chance = text.contains("round")
            || ["EAGAIN", "EINTR"].iter().any(|it| text.starts_with(it));
        if !text.is_empty() && !by_chance {
            self.explained.insert(text.trim().to_owned());
        }
    }

    fn call(
        &mut self,
        who: &str,
        [verb, call, descriptor, result]: [String; 4],
    ) {
        // How often one asks in vain is chance; that one does is the model.
        if result.starts_with("EAGAIN") && ["copy", "take"].contains(&&*verb) {
            self.kinds.insert((verb, format!("{call} in vain")));
            return;
        }
        // Told that it sleeps, interrupted, repeated: by chance.
        let by_chance = ["EAGAIN", "EINTR", "EINPROGRESS"];
        let vain = by_chance.iter().any(|it| result.starts_with(it));
        if verb.starts_with('…') || verb.starts_with("round") || vain {
            return;
        }
        let kinds = (verb.clone(), call.clone());
        match &*verb {
            // How many are ready at once, and which signal says so, is
            // chance; that one waits so is not.
            "wait" | "signal" => {
                self.kinds.insert(kinds);
            }
            _ => {
                self.kinds.insert(kinds);
                let mut name = without_numbers(&descriptor, true);
                if who != "main" {
                    name.push_str(", not by main");
                }
                let result = without_numbers(&result, false);
                let told = format!("{verb} {call} {result}");
                self.calls.entry(name).or_default().push(told);
            }
        }
    }
}

/// What stands before how long it took: `ok   1.60 µs` is `ok`.
fn without_duration(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        [ref first @ .., number, "ns" | "µs" | "ms" | "s"]
            if number.parse::<f64>().is_ok() =>
        {
            first.join(" ")
        }
        _ => words.join(" "),
    }
}

/// How long an operation was in flight is chance; that it was is not:
/// `6 bytes, in flight 1.2 ms, goes on`.
fn without_flight(text: &str) -> String {
    const IN_FLIGHT: &str = ", in flight ";
    let Some((before, rest)) = text.split_once(IN_FLIGHT) else {
        return text.to_owned();
    };
    let mut words = rest.splitn(3, ' ');
    let unit = words.nth(1).unwrap_or_default();
    let comma = if unit.ends_with(',') { "," } else { "" };
    let after = words.next().unwrap_or_default();
    format!("{before}, in flight{comma} {after}").trim_end().to_owned()
}

/// A descriptor's number, a thread's and a process's are chance; how many
/// bytes are not. `7 client 1` is `client 1`, and `-> 7 client 1` too.
fn without_numbers(text: &str, descriptor: bool) -> String {
    let text = text.strip_prefix("-> ").map_or(text, |rest| {
        rest.trim_start_matches(|it: char| it.is_ascii_digit()).trim()
    });
    let is_number = |word: &str| word.bytes().all(|it| it.is_ascii_digit());
    match text.split_once(' ') {
        Some((number, name)) if descriptor && is_number(number) => {
            name.to_owned()
        }
        Some(("child", number)) if is_number(number) => "child".to_owned(),
        _ => match text.find(" by ") {
            Some(at) => text[..at].to_owned(),
            None => text.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "\
x: process 1; descriptor 3 listens, 4 tells it to stop
    seconds  who  verb      call         descriptor    result            took
   0.000044  main ask       epoll_ctl    4 stop        ok             1.60 µs
   0.000074  main … sleeping in epoll_wait
                            Sleeps until a descriptor is ready, and says
                            which: epoll_wait(2).
   0.301866  main wait      epoll_wait   2 asked, 1 ready: listener    302 ms
   0.301905  main take      accept4      3 listener    -> 7 client 1  16.0 µs
   0.301946  main copy      recv         7 client 1    6 bytes        8.99 µs
   0.301946  main copy      recv         7 client 1    EAGAIN         8.99 µs

 verb   call        calls
 wait   epoll_wait      5
";

    #[test]
    fn times_and_numbers_are_chance() {
        let other = TOLD.replace("16.0 µs", "1.60 ms").replace("7 cl", "8 cl");
        let other = other.replace("2 asked, 1 ready", "3 asked, 2 ready");
        assert_eq!(Structure::of(TOLD), Structure::of(&other));
        assert_eq!(
            Structure::of(TOLD).calls["client 1"],
            ["copy recv 6 bytes"]
        );
    }

    #[test]
    fn how_long_an_operation_was_in_flight_is_chance_too() {
        for (told, left) in [
            ("6 bytes, in flight 302 ms", "6 bytes, in flight"),
            (
                "6 bytes, in flight 1.2 µs, goes on",
                "6 bytes, in flight, goes on",
            ),
            ("6 bytes", "6 bytes"),
        ] {
            assert_eq!(without_flight(told), left);
        }
    }

    #[test]
    fn calls_results_and_words_are_not() {
        for (from, to) in [
            ("6 bytes", "5 bytes"),
            ("copy      recv ", "copy      read "),
            ("wait      epoll_wait", "wait      poll      "),
            ("says\n", "tells\n"),
            ("EAGAIN", "EINTR "),
        ] {
            assert!(TOLD.contains(from), "{from}");
            let other = TOLD.replace(from, to);
            assert_ne!(Structure::of(TOLD), Structure::of(&other), "{from}");
        }
    }
}

//! The text of a scene. A line is a comment (`#`), one of `title: TEXT`,
//! `look: TEXT`, `look MODEL…: TEXT`, `clients: NAME, NAME x COUNT`, or a
//! step: a time, who, and what they do.

use std::ops::RangeInclusive;
use std::time::Duration;

use bench::models::{self, MODELS};
use bytesize::ByteSize;

use super::{Action, Look, Role, Scene, Step, Who};

/// The line's number, and what is wrong with it.
type Wrong = (usize, String);

const ACTIONS: &str = "connect, send BYTES, talk N x BYTES every \
    PAUSE[..PAUSE], await, stop-reading, read, half-close, leave, close, reset; \
    and for the server stop, continue";

/// Limits that keep a slip of the pen from taking the machine.
const MOST_CLIENTS: usize = 1_000;
const MOST_BYTES: u64 = 64 << 20;
const LONGEST: Duration = Duration::from_secs(60);

pub(super) fn scene(name: &str, text: &str) -> Result<Scene, Wrong> {
    let mut scene = Scene {
        name: name.to_owned(),
        title: String::new(),
        looks: Vec::new(),
        clients: Vec::new(),
        steps: Vec::new(),
        text: text.to_owned(),
    };
    let mut order = Order::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            add(&mut scene, &mut order, line).map_err(|why| (number, why))?;
        }
    }
    let last = text.lines().count();
    complete(&scene, &order).map_err(|why| (last, why))?;
    Ok(scene)
}

fn add(scene: &mut Scene, order: &mut Order, line: &str) -> Result<(), String> {
    // Only a step begins with a digit.
    if line.starts_with(|first: char| first.is_ascii_digit()) {
        let step = step(scene, line)?;
        order.allows(scene, &step)?;
        scene.steps.push(step);
        return Ok(());
    }
    let Some((head, rest)) = line.split_once(':') else {
        return Err(format!(
            "'{line}' is neither a step, such as '10ms NAME send 64', nor \
             'title:', 'look:', 'look MODEL:' or 'clients:'"
        ));
    };
    let rest = rest.trim();
    let mut words = head.split_whitespace();
    match (words.next(), words.clone().next()) {
        (Some("title"), None) if scene.title.is_empty() => {
            scene.title = rest.to_owned();
        }
        (Some("title"), None) => return Err("a second title".to_owned()),
        (Some("look"), _) => {
            let models = words.map(model).collect::<Result<_, _>>()?;
            scene.looks.push(Look { models, text: rest.to_owned() });
        }
        (Some("clients"), None) => {
            for role in rest.split(',') {
                let role = role_of(role.trim())?;
                let same = |known: &Role| known.name == role.name;
                if scene.clients.iter().any(same) {
                    return Err(format!("a second client '{}'", role.name));
                }
                scene.clients.push(role);
            }
            if scene.crowd() > MOST_CLIENTS {
                return Err(format!("more than {MOST_CLIENTS} clients"));
            }
        }
        _ => {
            return Err(format!(
                "'{head}:' is not known; there are 'title:', 'look:', 'look \
                 MODEL:' and 'clients:'"
            ));
        }
    }
    Ok(())
}

fn model(name: &str) -> Result<String, String> {
    match models::find(name) {
        Some(model) => Ok(model.name.to_owned()),
        None => {
            let known: Vec<&str> =
                MODELS.iter().map(|model| model.name).collect();
            Err(format!(
                "no model is called '{name}'; there are {}",
                known.join(", ")
            ))
        }
    }
}

fn role_of(text: &str) -> Result<Role, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (name, count) = match words[..] {
        [name] => (name, 1),
        [name, "x", count] => (name, number(count)?),
        _ => return Err(format!("'{text}' is not 'NAME' or 'NAME x COUNT'")),
    };
    if name == "server" {
        return Err("no client may be called 'server'".to_owned());
    }
    Ok(Role { name: name.to_owned(), count })
}

fn step(scene: &Scene, line: &str) -> Result<Step, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [at, who, ref action @ ..] = words[..] else {
        return Err(format!("'{line}' lacks who does it, and what"));
    };
    let at = duration(at)?;
    if at > LONGEST {
        return Err(format!("a scene lasts {LONGEST:?} at most, not {at:?}"));
    }
    let role = scene.clients.iter().position(|role| role.name == who);
    let who = match (who, role) {
        ("server", _) => Who::Server,
        (_, Some(role)) => Who::Role(role),
        _ => {
            return Err(format!(
                "no client is called '{who}'; they are named by 'clients:' \
                 above"
            ));
        }
    };
    Ok(Step { at, who, action: action_of(action)? })
}

fn action_of(words: &[&str]) -> Result<Action, String> {
    Ok(match *words {
        ["connect"] => Action::Connect,
        ["send", size] => Action::Send(bytes(size)?),
        ["talk", messages, "x", size, "every", pauses] => Action::Talk {
            messages: number(messages)?,
            bytes: bytes(size)?,
            pauses: pauses_of(pauses)?,
        },
        ["await"] => Action::Await,
        ["stop-reading"] => Action::StopReading,
        ["read"] => Action::Read,
        ["half-close"] => Action::HalfClose,
        ["leave"] => Action::Leave,
        ["close"] => Action::Close,
        ["reset"] => Action::Reset,
        ["stop"] => Action::Stop,
        ["continue"] => Action::Continue,
        _ => {
            let said = words.join(" ");
            return Err(format!("'{said}' is no action; there are {ACTIONS}"));
        }
    })
}

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=100_000) => Ok(number),
        _ => Err(format!("'{text}' is not a number from 1 to 100,000")),
    }
}

fn bytes(text: &str) -> Result<usize, String> {
    match text.parse().map(|size: ByteSize| size.as_u64()) {
        Ok(size @ 1..=MOST_BYTES) => Ok(size as usize),
        _ => Err(format!("'{text}' is not a size from 1 to 64MiB")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    echo::duration(text).map_err(|why| format!("'{text}': {why}"))
}

fn pauses_of(text: &str) -> Result<RangeInclusive<Duration>, String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let pauses = duration(least)?..=duration(most)?;
    match pauses.is_empty() {
        true => Err(format!("'{text}' goes from longer to shorter")),
        false => Ok(pauses),
    }
}

/// What each client may still do.
#[derive(Default)]
struct Order {
    stages: Vec<Stage>,
    stopped: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Away,
    Connected,
    HalfClosed,
    Gone,
}

impl Order {
    /// Whether a step can follow those that were read before.
    fn allows(&mut self, scene: &Scene, step: &Step) -> Result<(), String> {
        if scene.steps.last().is_some_and(|last| last.at > step.at) {
            return Err("it is due before the step above it".to_owned());
        }
        let role = match (step.who, &step.action) {
            (Who::Server, Action::Stop) if !self.stopped => {
                self.stopped = true;
                return Ok(());
            }
            (Who::Server, Action::Continue) if self.stopped => {
                self.stopped = false;
                return Ok(());
            }
            (Who::Server, _) => {
                return Err("the server can only stop, and then continue \
                            (SIGSTOP and SIGCONT)"
                    .to_owned());
            }
            (Who::Role(role), Action::Stop | Action::Continue) => {
                let name = &scene.clients[role].name;
                return Err(format!("only the server can do that, not {name}"));
            }
            (Who::Role(role), _) => role,
        };
        self.stages.resize(scene.clients.len(), Stage::Away);
        let name = &scene.clients[role].name;
        let stage = &mut self.stages[role];
        *stage = match (*stage, &step.action) {
            (Stage::Away, Action::Connect) => Stage::Connected,
            (Stage::Away, _) => {
                return Err(format!("{name} must connect first"));
            }
            (Stage::Gone, _) => return Err(format!("{name} has left already")),
            (_, Action::Connect) => {
                return Err(format!("{name} is connected already"));
            }
            (_, Action::Leave | Action::Close | Action::Reset) => Stage::Gone,
            (
                Stage::HalfClosed,
                Action::Send(_) | Action::Talk { .. } | Action::HalfClose,
            ) => return Err(format!("{name} has sent FIN already")),
            (_, Action::HalfClose) => Stage::HalfClosed,
            (stage, _) => stage,
        };
        Ok(())
    }
}

/// Whether nothing is missing at the end.
fn complete(scene: &Scene, order: &Order) -> Result<(), String> {
    if scene.title.is_empty() {
        return Err("there is no 'title: TEXT'".to_owned());
    }
    if !scene.looks.iter().any(|look| look.models.is_empty()) {
        return Err(
            "there is no 'look: TEXT', which says what to look for".to_owned()
        );
    }
    if order.stopped {
        return Err("the server is stopped and never continued".to_owned());
    }
    let stages = (0..scene.clients.len()).map(|role| order.stages.get(role));
    for (role, stage) in scene.clients.iter().zip(stages) {
        if stage != Some(&Stage::Gone) {
            let name = &role.name;
            return Err(format!("{name} never leaves, closes or resets"));
        }
    }
    match scene.steps.is_empty() {
        true => Err("nothing happens".to_owned()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
# A comment.
title: Somebody comes and goes
look: It is answered.
clients: one, many x 3

0ms   one  connect
0ms   many connect
1ms   one  talk 20 x 64 every 2ms..3ms
10ms  server stop
11ms  many send 16KiB
12ms  server continue
20ms  one  half-close
20ms  many stop-reading
30ms  many read
40ms  many await
50ms  many leave
50ms  one  close
";

    #[test]
    fn a_scene_is_read() {
        let scene = scene("good", GOOD).unwrap();
        assert_eq!(scene.crowd(), 4);
        assert_eq!(scene.names(), ["one", "many 1", "many 2", "many 3"]);
        assert_eq!(scene.steps.len(), 12);
        let ms = Duration::from_millis;
        let talk =
            Action::Talk { messages: 20, bytes: 64, pauses: ms(2)..=ms(3) };
        assert_eq!(
            scene.steps[2],
            Step { at: ms(1), who: Who::Role(0), action: talk }
        );
        assert_eq!(scene.steps[4].action, Action::Send(16 << 10));
    }

    /// What each mistake is called, with the number of its line.
    #[test]
    fn a_mistake_is_named_with_its_line() {
        let mistakes = [
            ("0ms   one  connect", "0ms   one  conect", 6, "'conect'"),
            ("0ms   one  connect", "0ms   non  connect", 6, "'non'"),
            ("0ms   one  connect", "0m7   one  connect", 6, "'0m7'"),
            ("0ms   one  connect", "0ms   one", 6, "no action"),
            ("0ms   one  connect", "", 8, "one must connect first"),
            ("1ms   one  talk", "99ms   one  talk", 9, "before the step"),
            ("talk 20", "talk 0", 8, "'0'"),
            ("2ms..3ms", "3ms..2ms", 8, "longer to shorter"),
            ("16KiB", "16TiB", 10, "'16TiB'"),
            ("16KiB", "0", 10, "'0'"),
            ("server stop", "server send 1", 9, "can only stop"),
            ("server stop", "one stop", 9, "only the server"),
            ("12ms  server continue", "", 17, "never continued"),
            ("many leave", "many await", 17, "many never leaves"),
            ("50ms  one  close", "50ms  one  send 1", 17, "sent FIN"),
            ("50ms  one  close", "50ms  many close", 17, "left already"),
            ("title:", "titel:", 2, "'titel:'"),
            ("title: Somebody", "# title: Somebody", 17, "no 'title: TEXT'"),
            ("look: It", "look epoll: It", 3, "'epoll'"),
            ("look: It", "look epoll_lt: It", 17, "no 'look: TEXT'"),
            ("one, many", "one, one, many", 4, "a second client 'one'"),
            ("many x 3", "many 3", 4, "'many 3'"),
            ("many x 3", "many x 3, all x 998", 4, "more than 1000"),
            ("50ms  one", "2min  one", 17, "lasts 60s at most"),
            ("# A comment.", "What?", 1, "'What?'"),
        ];
        for (good, bad, line, named) in mistakes {
            assert!(GOOD.contains(good), "{good}");
            let (at, why) =
                scene("bad", &GOOD.replacen(good, bad, 1)).expect_err(bad);
            assert_eq!((at, why.contains(named)), (line, true), "{bad}: {why}");
            assert!(!why.contains('\n'), "{why}");
        }
    }
}

//! Scenes: what scripted clients do, the same with every server. They are
//! data, in files that a reader can read and add to.

mod parse;

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

/// Clients, what they do and when, and what to look for meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scene {
    /// What it is called: its file's name without the ending.
    pub name: String,
    /// What happens, in a few words.
    pub title: String,
    /// What to look for.
    pub looks: Vec<Look>,
    /// Who takes part.
    pub clients: Vec<Role>,
    /// What they do, in the order of its time.
    #[serde(skip)]
    pub steps: Vec<Step>,
    /// The text that all of this was read from.
    #[serde(skip)]
    pub text: String,
}

/// What to look for, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Look {
    /// The models of which it speaks; none: all others.
    pub models: Vec<String>,
    /// The sentence.
    pub text: String,
}

/// A client, or a number of clients that do the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Role {
    /// What it is called.
    pub name: String,
    /// How many there are.
    pub count: usize,
}

/// What somebody does, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Counted from the beginning. A client that is not done with its last
    /// step then begins later.
    pub at: Duration,
    /// Who does it.
    pub who: Who,
    /// What they do.
    pub action: Action,
}

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The server, which is stopped and continued.
    Server,
    /// Every client of this role, by its place among the scene's.
    Role(usize),
}

/// What may be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Connects; all connect one after the other.
    Connect,
    /// Sends so many bytes, and goes on at once: what does not fit into the
    /// socket follows when there is room.
    Send(usize),
    /// Sends messages, each once the last has come back, after a pause that
    /// grows from one length to the other.
    Talk {
        /// How many.
        messages: usize,
        /// Of how many bytes each.
        bytes: usize,
        /// The pauses between them.
        pauses: RangeInclusive<Duration>,
    },
    /// Waits until everything that was sent has come back.
    Await,
    /// Reads no more: what comes back stays in the socket.
    StopReading,
    /// Reads again.
    Read,
    /// Sends FIN after everything else, and goes on reading.
    HalfClose,
    /// Sends FIN, takes what is still to come back, and closes.
    Leave,
    /// Closes, whatever is still to come.
    Close,
    /// Breaks the connection off (RST).
    Reset,
    /// The server gets SIGSTOP, with all its processes.
    Stop,
    /// And SIGCONT.
    Continue,
}

/// The scenes that come with the program.
const BUILT_IN: &[(&str, &str)] = &[
    ("three-clients", include_str!("../../scenes/three-clients.scene")),
    ("one-slow", include_str!("../../scenes/one-slow.scene")),
    ("burst", include_str!("../../scenes/burst.scene")),
    ("never-reads", include_str!("../../scenes/never-reads.scene")),
    ("storm", include_str!("../../scenes/storm.scene")),
    ("half-close", include_str!("../../scenes/half-close.scene")),
    ("many-idle", include_str!("../../scenes/many-idle.scene")),
    ("hello", include_str!("../../scenes/hello.scene")),
];

impl Scene {
    /// The scene of this name, or of the file of this name.
    pub fn find(name: &str) -> Result<Scene> {
        let known = BUILT_IN.iter().find(|(known, _)| *known == name);
        if let Some((_, text)) = known {
            return Scene::parse(name, name, text);
        }
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        let path = Path::new(name);
        if path.extension().is_none() {
            return Err(anyhow!(
                "no scene is called '{name}'; there are {}, and files whose \
                 names end in .scene",
                names.join(", ")
            ));
        }
        let text = fs::read_to_string(path)
            .with_context(|| format!("the scene '{name}' cannot be read"))?;
        let stem = path.file_stem().unwrap_or(path.as_os_str());
        Scene::parse(&stem.to_string_lossy(), name, &text)
    }

    /// All scenes that come with the program.
    pub fn all() -> Vec<Scene> {
        let parse = |&(name, text): &(&str, &str)| {
            Scene::parse(name, name, text).expect("a test reads them all")
        };
        BUILT_IN.iter().map(parse).collect()
    }

    /// Reads a scene; `source` names it in errors.
    fn parse(name: &str, source: &str, text: &str) -> Result<Scene> {
        parse::scene(name, text)
            .map_err(|(line, why)| anyhow!("{source}, line {line}: {why}"))
    }

    /// What to look for with this model: what is said of it, or else of all.
    pub fn look(&self, model: &str) -> &str {
        let of = |look: &&Look| look.models.iter().any(|name| name == model);
        let all = |look: &&Look| look.models.is_empty();
        let found = self.looks.iter().find(of);
        let found = found.or_else(|| self.looks.iter().find(all));
        found.map_or("", |look| &look.text)
    }

    /// How many clients take part.
    pub fn crowd(&self) -> usize {
        self.clients.iter().map(|role| role.count).sum()
    }

    /// The clients' names, in the order of their roles.
    pub fn names(&self) -> Vec<String> {
        let names = self.clients.iter().flat_map(|role| {
            (1..=role.count).map(|n| match role.count {
                1 => role.name.clone(),
                _ => format!("{} {n}", role.name),
            })
        });
        names.collect()
    }

    /// When a client's first and last steps are due.
    pub fn stay(&self, name: &str) -> (Duration, Duration) {
        let is_it = |step: &&Step| match step.who {
            Who::Role(role) => self.clients[role].name == name,
            Who::Server => false,
        };
        let mut times = self.steps.iter().filter(is_it).map(|step| step.at);
        let first = times.next().unwrap_or_default();
        (first, times.next_back().unwrap_or(first))
    }

    /// When its last step is due.
    pub fn lasts(&self) -> Duration {
        self.steps.last().map_or(Duration::ZERO, |step| step.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_scenes_are_good() {
        for scene in Scene::all() {
            assert!(scene.crowd() > 0 && scene.lasts() > Duration::ZERO);
            assert!(!scene.look("no model").is_empty(), "{}", scene.name);
            for look in &scene.looks {
                assert!(look.text.ends_with('.'), "{}", look.text);
            }
        }
    }

    #[test]
    fn a_look_at_one_model_comes_first() {
        let text = "title: t\nlook: All.\nlook blocking: One.\nclients: a\n\
                    0ms a connect\n0ms a close\n";
        let scene = Scene::parse("s", "s", text).unwrap();
        assert_eq!(scene.look("blocking"), "One.");
        assert_eq!(scene.look("epoll_lt"), "All.");
    }

    #[test]
    fn no_such_scene_is_told_what_there_is() {
        let error = Scene::find("strom").unwrap_err().to_string();
        assert!(error.contains("'strom'") && error.contains("storm"));
        let error = Scene::find("nowhere.scene").unwrap_err().to_string();
        assert!(error.contains("'nowhere.scene' cannot be read"));
    }
}

//! What the view is showing, and what each key does to it. It knows of no
//! terminal.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use bench::models::{MODELS, Model};

use super::keys::Deed;
use super::pane::Pane;
use super::stage::Stage;
use crate::clients::{Client, Crowd};
use crate::scene::Scene;

/// A short message, and half of it.
const MESSAGE: u64 = 64;
/// What a server reads at once at most (`--buffer`), eight times.
const BURST: u64 = 8 * 16 * 1024;
/// More would not be chosen one by one.
const MOST_CLIENTS: usize = 99;
/// How long what was done has consequences that nobody tells of.
const AFTERMATH: Duration = Duration::from_secs(1);

/// What the view is showing.
pub struct App {
    /// The servers: one, or two side by side.
    pub panes: Vec<Pane>,
    /// The client that the keys are for, from 0.
    pub chosen: usize,
    /// The scene that is played, or was.
    pub stage: Option<Stage>,
    /// What may be played.
    pub scenes: Vec<&'static Scene>,
    /// What lies over it.
    pub over: Over,
    /// What a pane shows that cannot show everything.
    pub part: Part,
    /// The pane that is seen if there is room for one.
    pub focus: usize,
    /// What came of the last key.
    pub said: String,
    /// Whether the servers are stopped.
    pub frozen: bool,
    /// Whether the reader has had enough.
    pub quits: bool,
    /// Who has sent the first half of a message.
    halves: BTreeSet<usize>,
    start: fn(&'static Model) -> Result<Pane>,
    told: Instant,
}

/// What lies over the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Nothing,
    Help,
    /// Scenes; this one would be taken.
    Scenes(usize),
    /// Models for the pane in focus; this one would be taken.
    Models(usize),
}

/// A part of a pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The calls as they come.
    Calls,
    /// The descriptors.
    Descriptors,
    /// What goes into the wait, and what comes out.
    Waits,
    /// What is said in sentences.
    Why,
}

impl Part {
    /// All of them, in turn.
    pub const ALL: [Part; 4] =
        [Part::Calls, Part::Descriptors, Part::Waits, Part::Why];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Part::Calls => "calls",
            Part::Descriptors => "descriptors",
            Part::Waits => "waits",
            Part::Why => "why",
        }
    }
}

impl App {
    /// Starts servers, and the scene if there is one.
    pub fn new(
        models: &[&'static Model],
        scene: Option<&'static Scene>,
        start: fn(&'static Model) -> Result<Pane>,
    ) -> Result<App> {
        let mut app = App {
            panes: Vec::new(),
            chosen: 0,
            stage: None,
            scenes: Vec::new(),
            over: Over::Nothing,
            part: Part::Calls,
            focus: 0,
            said: String::new(),
            frozen: false,
            quits: false,
            halves: BTreeSet::new(),
            start,
            told: Instant::now(),
        };
        app.begin(models, scene)?;
        Ok(app)
    }

    /// Begins from nothing. What there was goes on if that fails.
    fn begin(
        &mut self,
        models: &[&'static Model],
        scene: Option<&'static Scene>,
    ) -> Result<()> {
        let start = |&model: &&'static Model| (self.start)(model);
        self.panes = models.iter().map(start).collect::<Result<_>>()?;
        let pace = self.stage.as_ref().map(Stage::pace);
        self.stage = scene.map(|scene| Stage::new(scene, pace));
        if let Some(scene) = scene {
            self.panes.iter_mut().for_each(|pane| pane.play(scene));
        }
        self.halves.clear();
        self.chosen = 0;
        self.frozen = false;
        Ok(())
    }

    fn begin_or_say(
        &mut self,
        models: &[&'static Model],
        scene: Option<&'static Scene>,
    ) {
        self.say(match scene {
            // What happens in it is said then.
            Some(_) => "",
            None => "new servers",
        });
        if let Err(error) = self.begin(models, scene) {
            self.say(format!("{error:#}"));
        }
    }

    fn models(&self) -> Vec<&'static Model> {
        self.panes.iter().map(|pane| pane.model).collect()
    }

    /// How many clients there are or have been.
    pub fn clients(&self) -> usize {
        let counts = self.panes.iter().map(|it| it.crowd.clients().len());
        counts.max().unwrap_or(0)
    }

    /// A client as it is with each server.
    pub fn client(&self, who: usize) -> Vec<Option<&Client>> {
        self.panes.iter().map(|it| it.crowd.clients().get(who)).collect()
    }

    /// What a client is called.
    pub fn name(&self, who: usize) -> &str {
        let with = self.client(who).into_iter().flatten().next();
        with.map_or("", |client| &client.name)
    }

    /// Whether a client has sent the first half of a message.
    pub fn is_half(&self, who: usize) -> bool {
        self.halves.contains(&who)
    }

    /// When something happened last.
    pub fn told(&self) -> Instant {
        self.told
    }

    fn say(&mut self, what: impl Into<String>) {
        self.said = what.into();
    }

    /// Does what a key asks for.
    pub fn act(&mut self, deed: Deed) {
        self.told = Instant::now();
        match self.over {
            Over::Nothing => self.act_on_view(deed),
            Over::Help => match deed {
                Deed::Help | Deed::Leave | Deed::Take | Deed::Quit => {
                    self.over = Over::Nothing;
                }
                _ => {}
            },
            Over::Scenes(at) => self.act_on_scenes(at, deed),
            Over::Models(at) => self.act_on_models(at, deed),
        }
    }

    fn act_on_view(&mut self, deed: Deed) {
        self.said.clear();
        match deed {
            Deed::Open => self.open(),
            Deed::Message => {
                self.send(MESSAGE, "a message");
            }
            Deed::Half => self.send_half(),
            Deed::Burst => {
                self.send(BURST, "eight buffers");
            }
            Deed::Reading => self.turn_reading(),
            Deed::HalfClose => {
                self.each("sends FIN", |crowd, who| crowd.half_close(who));
            }
            Deed::Reset => {
                self.each("breaks off", |crowd, who| crowd.reset(who));
            }
            Deed::Close => self.each("closes", |crowd, who| crowd.close(who)),
            Deed::Earlier => self.choose(self.chosen.saturating_sub(1)),
            Deed::Later => self.choose(self.chosen + 1),
            Deed::Choose(who) => self.choose(who),
            Deed::Scenes => self.over = Over::Scenes(self.scene_now()),
            Deed::Pause => self.pause(),
            Deed::Step => self.step(),
            Deed::Slower | Deed::Faster => self.pace(deed == Deed::Faster),
            Deed::Freeze => self.freeze(),
            Deed::Part => self.part = next(&Part::ALL, self.part),
            Deed::Pane => self.focus = (self.focus + 1) % self.panes.len(),
            Deed::Models => self.over = Over::Models(self.model_now()),
            Deed::Again => {
                let scene = self.stage.as_ref().map(|stage| stage.scene);
                self.begin_or_say(&self.models(), scene);
            }
            Deed::Help => self.over = Over::Help,
            Deed::Quit => self.quits = true,
            Deed::Take | Deed::Leave => {}
        }
    }

    fn act_on_scenes(&mut self, at: usize, deed: Deed) {
        let last = self.scenes.len().saturating_sub(1);
        self.over = match deed {
            Deed::Earlier => Over::Scenes(at.saturating_sub(1)),
            Deed::Later => Over::Scenes((at + 1).min(last)),
            Deed::Choose(at) if at <= last => Over::Scenes(at),
            Deed::Take | Deed::Scenes => {
                let scene = self.scenes.get(at).copied();
                self.begin_or_say(&self.models(), scene);
                Over::Nothing
            }
            Deed::Leave | Deed::Quit => Over::Nothing,
            _ => self.over,
        }
    }

    fn act_on_models(&mut self, at: usize, deed: Deed) {
        self.over = match deed {
            Deed::Earlier => Over::Models(at.saturating_sub(1)),
            Deed::Later => Over::Models((at + 1).min(MODELS.len() - 1)),
            Deed::Pane => {
                self.focus = (self.focus + 1) % self.panes.len();
                Over::Models(self.model_now())
            }
            Deed::Take | Deed::Models => {
                let mut models = self.models();
                models[self.focus] = &MODELS[at];
                let scene = self.stage.as_ref().map(|stage| stage.scene);
                self.begin_or_say(&models, scene);
                Over::Nothing
            }
            Deed::Leave | Deed::Quit => Over::Nothing,
            _ => self.over,
        }
    }

    fn scene_now(&self) -> usize {
        let now = self.stage.as_ref().map(|stage| &stage.scene.name);
        let known = self.scenes.iter().position(|it| Some(&it.name) == now);
        known.unwrap_or(0)
    }

    fn model_now(&self) -> usize {
        let now = self.panes[self.focus].model.name;
        MODELS.iter().position(|model| model.name == now).unwrap_or(0)
    }

    fn open(&mut self) {
        let who = self.clients();
        if who >= MOST_CLIENTS {
            return self.say(format!("{MOST_CLIENTS} clients are enough"));
        }
        // The record calls it so too.
        let name = format!("client {}", who + 1);
        for pane in &mut self.panes {
            pane.open(&name);
        }
        self.chosen = who;
        self.say(format!("{name} connects"));
    }

    /// Why the chosen client cannot do anything.
    fn obstacle(&self) -> Option<String> {
        let who = self.chosen;
        let open = self.client(who).into_iter().flatten().any(Client::is_open);
        match open {
            true => None,
            _ if who >= self.clients() => {
                Some("there is no client yet: o opens one".to_owned())
            }
            _ => Some(format!("{} is gone: o opens another", self.name(who))),
        }
    }

    /// Does something with the chosen client of each server.
    fn each(&mut self, what: &str, deed: impl Fn(&mut Crowd, usize)) {
        if let Some(obstacle) = self.obstacle() {
            return self.say(obstacle);
        }
        let who = self.chosen;
        for pane in &mut self.panes {
            if who < pane.crowd.clients().len() {
                deed(&mut pane.crowd, who);
            }
        }
        self.say(format!("{} {what}", self.name(who)));
    }

    /// Says whether it could.
    fn send(&mut self, bytes: u64, what: &str) -> bool {
        let who = self.chosen;
        let fin = |client: &Client| client.half_closed;
        let fin = self.client(who).into_iter().flatten().any(fin);
        if self.obstacle().is_none() && fin {
            let name = self.name(who);
            self.say(format!("{name} has sent FIN, and nothing more"));
            return false;
        }
        self.each(&format!("sends {what}: {bytes} bytes"), |crowd, who| {
            crowd.send(who, bytes);
        });
        self.obstacle().is_none()
    }

    fn send_half(&mut self) {
        let who = self.chosen;
        let rest = self.halves.contains(&who);
        let what = if rest { "the rest" } else { "half a message" };
        if !self.send(MESSAGE / 2, what) || rest {
            self.halves.remove(&who);
        } else {
            self.halves.insert(who);
        }
    }

    fn turn_reading(&mut self) {
        let reads = |client: &Client| client.reads;
        let did = self.client(self.chosen).into_iter().flatten().any(reads);
        let what = if did { "stops reading" } else { "reads again" };
        self.each(what, |crowd, who| crowd.set_reading(who, !did));
    }

    fn choose(&mut self, who: usize) {
        if who < self.clients() {
            self.chosen = who;
        }
    }

    fn pause(&mut self) {
        let Some(stage) = self.stage.as_mut().filter(|stage| !stage.over)
        else {
            return self.say("no scene is played: p plays one");
        };
        stage.tick();
        stage.paused = !stage.paused;
    }

    /// Holds the scene, and does what comes next in it.
    fn step(&mut self) {
        let dues = self.panes.iter().filter_map(Pane::next_due);
        let due = dues.min();
        let Some(stage) = self.stage.as_mut().filter(|stage| !stage.over)
        else {
            return self.say("no scene is played: p plays one");
        };
        stage.tick();
        stage.paused = true;
        let Some(due) = due else {
            return self.say("the next step waits for an answer");
        };
        stage.step_to(due);
        let at = stage.at();
        self.advance(at);
    }

    fn pace(&mut self, faster: bool) {
        let Some(stage) = &mut self.stage else {
            return self.say("no scene is played: p plays one");
        };
        stage.set_pace(faster);
    }

    fn freeze(&mut self) {
        let frozen = !self.frozen;
        let each = self.panes.iter().map(|pane| pane.freeze(frozen));
        match each.collect::<Result<Vec<()>>>() {
            Ok(_) => self.frozen = frozen,
            Err(error) => return self.say(format!("{error:#}")),
        }
        self.say(match frozen {
            true => "the servers are stopped (SIGSTOP); z lets them go on",
            false => "the servers go on (SIGCONT)",
        });
    }

    fn advance(&mut self, at: Duration) {
        for pane in &mut self.panes {
            pane.advance(at);
        }
        if let Some(stage) = &mut self.stage {
            stage.over = self.panes.iter().all(Pane::is_done);
        }
    }

    /// Lets the clients do what they can and the scene what is due; says
    /// whether anything happened.
    pub fn go_on(&mut self) -> bool {
        let runs = self.stage.as_mut().filter(|stage| stage.runs());
        let at = runs.map(|stage| {
            stage.tick();
            stage.at()
        });
        if let Some(at) = at {
            self.advance(at);
        }
        let mut moved = false;
        for pane in &mut self.panes {
            moved |= pane.pump();
        }
        if moved {
            self.told = Instant::now();
        }
        moved
    }

    /// How long nothing is due in the scene.
    pub fn rests(&self) -> Option<Duration> {
        let stage = self.stage.as_ref().filter(|stage| stage.runs())?;
        let due = self.panes.iter().filter_map(Pane::next_due).min()?;
        Some(stage.until(due))
    }

    /// Takes what has been told of the servers.
    pub fn look(&mut self) {
        let quiet = self.told.elapsed() > AFTERMATH;
        for pane in &mut self.panes {
            if pane.look(quiet) {
                self.told = Instant::now();
            }
        }
    }
}

/// The one after this, and after the last the first.
fn next<T: Copy + PartialEq>(all: &[T], now: T) -> T {
    let at = all.iter().position(|it| *it == now).unwrap_or(0);
    all[(at + 1) % all.len()]
}

#[cfg(test)]
mod tests;

//! The clock of a scene that is played: it can be held, stepped and slowed.

use std::time::{Duration, Instant};

use crate::scene::{Action, Scene, Step, Who};

/// How many times slower than written, from the slowest.
const SLOWER: &[u32] = &[100, 30, 10, 3, 1];
/// Slow enough to be read.
const READABLE: usize = 2;

/// A scene that is played.
pub struct Stage {
    /// Which.
    pub scene: &'static Scene,
    /// Whether its time stands still.
    pub paused: bool,
    /// Whether everything has been done.
    pub over: bool,
    pace: usize,
    at: Duration,
    ticked: Instant,
}

impl Stage {
    /// It begins.
    pub fn new(scene: &'static Scene, pace: Option<usize>) -> Stage {
        Stage {
            scene,
            paused: false,
            over: false,
            pace: pace.unwrap_or(READABLE),
            at: Duration::ZERO,
            ticked: Instant::now(),
        }
    }

    /// How much time of the scene has passed.
    pub fn at(&self) -> Duration {
        self.at
    }

    /// What was due last, in words.
    pub fn last_steps(&self) -> Option<String> {
        let due = |step: &&Step| step.at <= self.at;
        let last = self.scene.steps.iter().rev().find(due)?.at;
        let steps = self.scene.steps.iter().filter(|step| step.at == last);
        let steps: Vec<String> =
            steps.map(|step| in_words(self.scene, step)).collect();
        Some(format!("{} ms: {}", last.as_millis(), steps.join("; ")))
    }

    /// Whether its time goes on.
    pub fn runs(&self) -> bool {
        !self.paused && !self.over
    }

    /// Lets the time pass that has passed.
    pub fn tick(&mut self) {
        let now = Instant::now();
        if self.runs() {
            self.at += (now - self.ticked) / self.slower();
        }
        self.ticked = now;
    }

    /// How long it takes until this time of the scene has come.
    pub fn until(&self, due: Duration) -> Duration {
        due.saturating_sub(self.at).saturating_mul(self.slower())
    }

    /// Goes on to this time at once.
    pub fn step_to(&mut self, due: Duration) {
        self.at = self.at.max(due);
    }

    /// Plays it faster, or slower.
    pub fn set_pace(&mut self, faster: bool) {
        self.tick();
        self.pace = match faster {
            true => (self.pace + 1).min(SLOWER.len() - 1),
            false => self.pace.saturating_sub(1),
        };
    }

    /// The pace, for a scene that follows.
    pub fn pace(&self) -> usize {
        self.pace
    }

    /// How many times slower than written.
    pub fn slower(&self) -> u32 {
        SLOWER[self.pace]
    }
}

fn in_words(scene: &Scene, step: &Step) -> String {
    let (who, many) = match step.who {
        Who::Server => ("the server", false),
        Who::Role(role) => {
            let role = &scene.clients[role];
            (&*role.name, role.count > 1)
        }
    };
    let who = if many { format!("each {who}") } else { who.to_owned() };
    let does = match &step.action {
        Action::Connect => "connects",
        Action::Send(bytes) => &format!("sends {bytes} bytes"),
        Action::Talk { messages, bytes, .. } => {
            &format!("begins to send {messages} messages of {bytes} bytes")
        }
        Action::Await => "waits for the answer",
        Action::StopReading => "stops reading",
        Action::Read => "reads again",
        Action::HalfClose => "sends FIN",
        Action::Leave => "sends FIN, and closes after the server's",
        Action::Close => "closes",
        Action::Reset => "breaks the connection off",
        Action::Stop => "is stopped (SIGSTOP)",
        Action::Continue => "goes on (SIGCONT)",
    };
    format!("{who} {does}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> Stage {
        let scene = Box::leak(Box::new(Scene::find("burst").unwrap()));
        Stage::new(scene, None)
    }

    /// As if so much time had passed.
    fn pass(stage: &mut Stage, time: Duration) {
        stage.ticked -= time;
        stage.tick();
    }

    #[test]
    fn time_passes_slowly_and_stands_still() {
        let (mut stage, second) = (stage(), Duration::from_secs(1));
        pass(&mut stage, second);
        let at = stage.at().as_millis();
        assert!((100..110).contains(&at), "{at}");
        stage.paused = true;
        pass(&mut stage, second);
        assert_eq!(stage.at().as_millis(), at);
        stage.step_to(Duration::from_millis(160));
        stage.step_to(Duration::from_millis(80));
        assert_eq!(stage.at().as_millis(), 160);
        let until = stage.until(Duration::from_millis(161));
        assert_eq!(until, Duration::from_millis(10));
        stage.paused = false;
        stage.over = true;
        pass(&mut stage, second);
        assert_eq!(stage.at().as_millis(), 160);
    }

    #[test]
    fn what_was_due_last_is_told() {
        let mut stage = stage();
        let told = |stage: &mut Stage, at| {
            stage.step_to(Duration::from_millis(at));
            stage.last_steps().unwrap()
        };
        assert_eq!(told(&mut stage, 19), "0 ms: sender connects");
        assert_eq!(
            told(&mut stage, 59),
            "20 ms: sender sends 64 bytes; sender waits for the answer"
        );
        let stop = "60 ms: the server is stopped (SIGSTOP)";
        assert_eq!(told(&mut stage, 60), stop);
    }

    #[test]
    fn the_pace_has_two_ends() {
        let mut stage = stage();
        let paces = |stage: &mut Stage, faster| {
            let turn = |_| {
                stage.set_pace(faster);
                stage.slower()
            };
            (0..5).map(turn).collect::<Vec<_>>()
        };
        assert_eq!(paces(&mut stage, true), [3, 1, 1, 1, 1]);
        assert_eq!(paces(&mut stage, false), [3, 10, 30, 100, 100]);
    }
}

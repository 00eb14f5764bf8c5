//! Plays a scene: tells the clients what to do when it is time for it. It has
//! no clock of its own, so that a scene can be paused, stepped and slowed.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bench::harness::{PATIENCE, Server};
use nix::sys::signal::Signal;

use crate::clients::{Client, Crowd, Deed};
use crate::clock::now;
use crate::scene::{Action, Scene, Step, Who};

/// A scene in which some steps have been done.
pub struct Player<'a> {
    /// The server's steps that are to come.
    server: Vec<&'a Step>,
    members: Vec<Member<'a>>,
}

/// One client and what it has still to do.
struct Member<'a> {
    name: String,
    /// In the crowd, once it is connected.
    number: Option<usize>,
    steps: Vec<&'a Step>,
    /// What its last step waits for.
    doing: Doing,
}

enum Doing {
    Nothing,
    Talking { left: usize, step: Talk, due: Duration },
    Awaiting,
    Leaving,
}

#[derive(Clone)]
struct Talk {
    messages: usize,
    bytes: usize,
    pauses: RangeInclusive<Duration>,
}

impl<'a> Player<'a> {
    /// Nothing has been done yet.
    pub fn new(scene: &'a Scene) -> Self {
        let steps_of = |who: Who| {
            // The next one stands last.
            let steps = scene.steps.iter().rev();
            steps.filter(move |step| step.who == who).collect::<Vec<_>>()
        };
        let roles = scene.clients.iter().enumerate();
        let roles = roles.flat_map(|(at, role)| vec![at; role.count]);
        let members = roles.zip(scene.names()).map(|(role, name)| Member {
            name,
            number: None,
            steps: steps_of(Who::Role(role)),
            doing: Doing::Nothing,
        });
        let members = members.collect();
        Player { server: steps_of(Who::Server), members }
    }

    /// Does everything that is due at `at`, counted from the beginning.
    pub fn advance(
        &mut self,
        at: Duration,
        crowd: &mut Crowd,
        server: &Server,
    ) -> Result<()> {
        while self.server.last().is_some_and(|step| step.at <= at) {
            let step = self.server.pop();
            match step.map(|step| &step.action) {
                Some(Action::Stop) => server.signal_all(Signal::SIGSTOP)?,
                _ => server.signal_all(Signal::SIGCONT)?,
            }
        }
        for member in &mut self.members {
            while member.advance(at, crowd)? {}
        }
        Ok(())
    }

    /// When the next thing is due that waits for nothing but its time.
    pub fn next_due(&self, crowd: &Crowd) -> Option<Duration> {
        let server = self.server.last().map(|step| step.at);
        let members = self.members.iter();
        members.filter_map(|member| member.due(crowd)).chain(server).min()
    }

    /// Whether everything has been done.
    pub fn is_done(&self) -> bool {
        let rests = |member: &Member| {
            member.steps.is_empty() && matches!(member.doing, Doing::Nothing)
        };
        self.server.is_empty() && self.members.iter().all(rests)
    }

    /// Who has not done everything.
    fn stragglers(&self) -> impl Iterator<Item = &str> {
        let busy = self.members.iter().filter(|member| {
            !member.steps.is_empty() || !matches!(member.doing, Doing::Nothing)
        });
        busy.map(|member| &*member.name)
    }
}

impl Member<'_> {
    /// Does one thing if it is due, and says whether it did.
    fn advance(&mut self, at: Duration, crowd: &mut Crowd) -> Result<bool> {
        match self.number.map(|number| (number, &crowd.clients()[number])) {
            // A client whose connection has failed has no more to do.
            Some((_, client)) if !client.is_open() => {
                self.steps.clear();
                self.doing = Doing::Nothing;
                return Ok(false);
            }
            Some((number, client)) if !self.goes_on(at, client) => {
                return Ok(self.waited(number, at, crowd));
            }
            _ => {}
        }
        let Some(step) = self.steps.pop_if(|step| step.at <= at) else {
            return Ok(false);
        };
        self.doing = Doing::Nothing;
        let number = match self.number {
            Some(number) => number,
            None => *self.number.insert(crowd.connect(&self.name)?),
        };
        match &step.action {
            // The validation lets nothing but this stand first.
            Action::Connect | Action::Stop | Action::Continue => {}
            Action::Send(bytes) => crowd.send(number, *bytes as u64),
            Action::Talk { messages, bytes, pauses } => {
                let (messages, bytes) = (*messages, *bytes);
                let step = Talk { messages, bytes, pauses: pauses.clone() };
                crowd.send(number, bytes as u64);
                let due = Duration::MAX;
                self.doing = Doing::Talking { left: messages - 1, step, due };
            }
            Action::Await => self.doing = Doing::Awaiting,
            Action::StopReading => crowd.set_reading(number, false),
            Action::Read => crowd.set_reading(number, true),
            Action::HalfClose => crowd.half_close(number),
            Action::Leave => {
                crowd.set_reading(number, true);
                crowd.half_close(number);
                self.doing = Doing::Leaving;
            }
            Action::Close => crowd.close(number),
            Action::Reset => crowd.reset(number),
        }
        Ok(true)
    }

    /// Whether its last step is over, as far as that can be seen.
    fn goes_on(&self, at: Duration, client: &Client) -> bool {
        match &self.doing {
            Doing::Nothing => true,
            Doing::Awaiting => client.is_answered(),
            Doing::Talking { left: 0, .. } => client.is_answered(),
            // An end that it does not wait for.
            Doing::Talking { .. } => {
                let next = self.steps.last();
                next.is_some_and(|next| {
                    let ends =
                        matches!(next.action, Action::Reset | Action::Close);
                    ends && next.at <= at
                })
            }
            Doing::Leaving => false,
        }
    }

    /// Does what its last step still wants of it.
    fn waited(&mut self, who: usize, at: Duration, crowd: &mut Crowd) -> bool {
        let client = &crowd.clients()[who];
        match &mut self.doing {
            Doing::Talking { left, step, due } if client.is_answered() => {
                if *due == Duration::MAX {
                    *due = at + step.pause(*left);
                }
                if *due > at {
                    return false;
                }
                (*left, *due) = (*left - 1, Duration::MAX);
                let bytes = step.bytes as u64;
                crowd.send(who, bytes);
                true
            }
            Doing::Leaving if client.has_ended() => {
                crowd.close(who);
                true
            }
            _ => false,
        }
    }

    /// When it has something to do, if that depends on the time alone.
    fn due(&self, crowd: &Crowd) -> Option<Duration> {
        let next = self.steps.last().map(|step| step.at);
        let Some(client) = self.number.map(|number| &crowd.clients()[number])
        else {
            return next;
        };
        match &self.doing {
            Doing::Nothing => next,
            Doing::Awaiting | Doing::Talking { left: 0, .. } => {
                next.filter(|_| client.is_answered())
            }
            Doing::Talking { due, .. } => {
                Some(*due).filter(|_| client.is_answered())
            }
            Doing::Leaving => None,
        }
    }
}

impl Talk {
    /// The pause before a message, `left` of which are to come.
    fn pause(&self, left: usize) -> Duration {
        let (least, most) = (*self.pauses.start(), *self.pauses.end());
        let later = self.messages.saturating_sub(2).max(1) as u32;
        let past = (self.messages - 1 - left) as u32;
        least + (most - least) * past.min(later) / later
    }
}

/// A scene that was played to its end.
pub struct Played {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub begin: u64,
    /// See `begin`.
    pub end: u64,
    /// The clients' names, by the number in their deeds.
    pub names: Vec<String>,
    /// All that they did.
    pub deeds: Vec<Deed>,
}

/// Plays a scene with a server from its beginning to its end; calls `at` once
/// with what it says when that time has come.
pub fn play(
    scene: &Scene,
    server: &Server,
    (time, at): (Duration, impl FnOnce()),
) -> Result<Played> {
    let mut crowd = Crowd::new(server.addr);
    let mut player = Player::new(scene);
    let (begin, started) = (now(), Instant::now());
    let mut at = Some(at);
    let mut deeds = Vec::new();
    let mut moved = Instant::now();
    loop {
        player.advance(started.elapsed(), &mut crowd, server)?;
        if player.is_done() {
            break;
        }
        if started.elapsed() >= time
            && let Some(at) = at.take()
        {
            at();
        }
        let due = player.next_due(&crowd);
        let due = due.into_iter().chain(at.is_some().then_some(time)).min();
        let due = due.unwrap_or(Duration::MAX);
        crowd.pump(due.saturating_sub(started.elapsed()).min(PATIENCE))?;
        let new = crowd.take_deeds();
        if !new.is_empty() || due < Duration::MAX {
            moved = Instant::now();
        }
        deeds.extend(new);
        ensure!(
            moved.elapsed() < PATIENCE,
            "nothing has happened for {PATIENCE:?} in the scene '{}'; not \
             done: {}",
            scene.name,
            player.stragglers().take(3).collect::<Vec<_>>().join(", ")
        );
    }
    deeds.extend(crowd.take_deeds());
    let clients = crowd.clients().iter();
    let names = clients.map(|client| client.name.clone()).collect();
    Ok(Played { begin, end: now(), names, deeds })
}

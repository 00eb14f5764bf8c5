//! The live view: servers side by side, whose clients the reader is.

mod app;
mod feed;
pub mod kernel;
mod keys;
mod lessons;
mod pane;
pub mod seen;
pub mod sets;
mod stage;
mod terminal;
mod told;
mod ui;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bench::harness::raise_descriptor_limit;
use bench::models::{self, Model};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use ratatui::crossterm::event::{Event, KeyEventKind};

use crate::scene::Scene;
use app::App;
use pane::Pane;
use terminal::{Input, Screen};

/// Between two frames, at least.
const FRAME: Duration = Duration::from_millis(50);
/// Between two frames while nothing happens but that times grow.
const COUNTING: Duration = Duration::from_millis(200);
/// The same when they are so long that tenths of a second do not matter.
const COUNTING_LONG: Duration = Duration::from_secs(1);
/// From then on they do not.
const LONG: Duration = Duration::from_secs(10);

/// What is shown if nobody says what.
const USUAL: [&str; 2] = ["blocking", "epoll_lt"];

/// Shows one or two servers, until the reader has had enough.
pub fn run(models: &[&'static Model], scene: Option<Scene>) -> Result<()> {
    terminal::end_on_signal()?;
    // Two crowds, and the ends of both, may be more than the usual 1,024.
    raise_descriptor_limit();
    let usual = USUAL.map(models::find);
    let usual: Vec<&Model> = usual.into_iter().flatten().collect();
    let models = if models.is_empty() { &usual } else { models };
    // They are few, and there to the end.
    let keep = |scene: Scene| -> &'static Scene { Box::leak(Box::new(scene)) };
    let scene = scene.map(keep);
    let mut app = App::new(models, scene, Pane::start)?;
    app.scenes = Scene::all().into_iter().map(keep).collect();
    let mut screen = Screen::take()?;
    let input = Input::listen()?;
    show(&mut app, &mut screen, &input)
}

fn show(app: &mut App, screen: &mut Screen, input: &Input) -> Result<()> {
    let mut drawn: Option<Instant> = None;
    let mut changed = true;
    while !app.quits {
        let next = drawn.map_or(Duration::ZERO, |drawn| {
            let pause = if changed { FRAME } else { counting(app) };
            pause.saturating_sub(drawn.elapsed())
        });
        if next.is_zero() {
            app.look();
            screen.draw(|frame| ui::draw(frame, app))?;
            drawn = Some(Instant::now());
            // What was not read yet is a change too.
            changed = app.panes.iter().any(Pane::is_behind);
            continue;
        }
        let rests = app.rests().unwrap_or(Duration::MAX);
        // What the record says can wait for the next frame.
        changed |= wait(app, input, !changed, next.min(rests))?;
        for event in input.take()? {
            changed = true;
            if let Event::Key(key) = event
                && key.kind != KeyEventKind::Release
                && let Some(deed) = keys::deed(key)
            {
                app.act(deed);
            }
        }
        changed |= app.go_on();
    }
    Ok(())
}

/// The pause between frames that show only how time passes.
fn counting(app: &App) -> Duration {
    match app.told().elapsed() < LONG {
        true => COUNTING,
        false => COUNTING_LONG,
    }
}

/// Sleeps until somebody has something to say, at most so long; says whether
/// a record has.
fn wait(
    app: &App,
    input: &Input,
    records: bool,
    most: Duration,
) -> Result<bool> {
    let reads = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut asked = vec![reads(input.bell.as_fd())];
    let feeds = app.panes.iter().filter(|_| records);
    asked.extend(feeds.map(|pane| reads(pane.feed().fd())));
    let feeds = asked.len();
    asked.extend(app.panes.iter().flat_map(|pane| pane.crowd.wanted()));
    match ppoll(&mut asked, Some(TimeSpec::from_duration(most)), None) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno).context("ppoll"),
    }
    Ok(asked[1..feeds].iter().any(|fd| fd.any() == Some(true)))
}

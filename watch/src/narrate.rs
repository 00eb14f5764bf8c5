//! A scene as the server itself tells it: its every call, as text.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use bench::harness::{Server, Start, Target};
use bench::models::Model;

use crate::player::play;
use crate::record::RecordFile;
use crate::scene::Scene;

/// After the start until the server sleeps, and after the scene until it has
/// seen the last client go.
const SETTLES: Duration = Duration::from_millis(30);

/// Plays `scene` with a server of this model, which gets `args` besides, and
/// returns what `--watch text` wrote.
///
/// Fails when the server cannot be started with them, or when the scene
/// cannot be played to its end.
pub fn narrate(
    model: &'static Model,
    args: &[String],
    scene: &Scene,
) -> Result<String> {
    let file = RecordFile::new()?;
    let args = [&file.args("text"), args].concat();
    let start = Start { args, ..Start::default() };
    let server = Server::start(&Target::Model(model), &start)?;
    thread::sleep(SETTLES);
    play(scene, &server, (Duration::ZERO, || ()))?;
    thread::sleep(SETTLES);
    server.stop()?;
    file.text()
}

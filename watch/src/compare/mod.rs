//! The comparison: one scene with all models, as text.

mod answers;
mod lesson;
mod measure;
pub mod page;

use anyhow::{Context, Result};
use bench::models::Model;

use crate::progress::Progress;
use crate::scene::Scene;
use measure::{Row, measure};

/// Of the server's numbers: it counts its clients as they come, and the one
/// that talks comes last.
const TALKER: usize = 3;
/// How many messages the talker sends.
const MESSAGES: usize = 20;
/// How many bytes each has.
const SIZE: usize = 64;
/// How many messages are echoed in all: the pauser sends one.
const ECHOED: usize = MESSAGES + 1;

/// The scene of the comparison.
fn the_scene() -> Scene {
    Scene::find("three-clients").expect("it comes with the program")
}

/// Every one of `models` in the scene, one after the other.
pub fn compare(models: &[&'static Model]) -> Result<Vec<Row>> {
    let progress = Progress::start(2 * models.len())?;
    let rows = models.iter().map(|model| {
        let name = model.name;
        let row =
            measure(model, |run| progress.step(&format!("{name}, {run}")));
        row.with_context(|| name.to_owned())
    });
    let rows = rows.collect();
    progress.end(rows)
}

//! Figures as SVG.

mod all;
mod axis;
mod canvas;
mod labels;
mod legend;
mod near;
mod one;
mod paint;
mod sums;
mod text;
mod whole;

pub use all::all;
pub use one::one;

use super::data::{Figure, Lane, Phase, Who};
use crate::words::escaped;

/// What a group of the file says of its lane, for who reads it.
fn data(lane: &Lane) -> String {
    let mut phases = sums::phases(lane);
    phases.sort_by_key(|(phase, _)| *phase as u8);
    let phases = phases.iter().map(|(phase, _)| paint::of(*phase).class);
    let phases = phases.collect::<Vec<_>>().join(" ");
    let who = match lane.who {
        Who::Client => "client",
        Who::Thread => "thread",
        Who::Process => "process",
        Who::HelperThread => "helper-thread",
        Who::Kernel => "kernel",
    };
    let name = escaped(&lane.name);
    format!(
        "class=\"lane\" data-who=\"{who}\" data-name=\"{name}\" \
         data-phases=\"{phases}\""
    )
}

/// A lane in words.
fn told(lane: &Lane) -> String {
    let phases = sums::phases(lane);
    let parts = phases.iter().map(|(phase, ns)| {
        format!("{} for {}", paint::of(*phase).name, text::time(*ns))
    });
    let parts = parts.collect::<Vec<_>>().join(", ");
    match parts.is_empty() {
        true => format!("{}: nothing", lane.name),
        false => format!("{}: {parts}", lane.name),
    }
}

/// From when on the closer look counts: the message is sent.
fn sent(figure: &Figure) -> u64 {
    let (from, to) = figure.lens;
    let clients = figure.lanes.iter().filter(|it| it.who == Who::Client);
    let sends = clients.flat_map(|lane| &lane.bars).filter(|bar| {
        bar.phase == Phase::Sending && (from..to).contains(&bar.from)
    });
    sends.map(|bar| bar.from).min().unwrap_or(from)
}

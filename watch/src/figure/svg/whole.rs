//! The whole scene: so narrow that most calls are thinner than a line. Each
//! column of a lane shows what there was in its time.

use std::collections::BTreeMap;

use super::canvas::{Canvas, Rects};
use super::paint;
use crate::figure::data::{Bar, Lane, Phase};

/// A place on the sheet.
#[derive(Clone, Copy)]
pub struct Place {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

/// What is told from afar when it happens at all, the most telling first.
const TELLING: &[Phase] = &[
    Phase::Copying,
    Phase::Sending,
    Phase::Receiving,
    Phase::Wasted,
    Phase::Asking,
    Phase::Running,
];

/// What fills the time while nobody does anything.
const QUIET: &[Phase] = &[
    Phase::Waiting,
    Phase::WakingUp,
    Phase::SetAside,
    Phase::InFlight,
    Phase::Unanswered,
];

/// The least width of something that happens.
const LEAST: f64 = 1.4;

/// A column's part of each phase.
type Column = Vec<(Phase, f64)>;

/// Draws a lane's bars over the time from 0 to `span`.
pub fn draw(canvas: &mut Canvas, lane: &Lane, span: u64, place: Place) {
    let columns = columns(&lane.bars, span, place.width);
    let quiet = runs(&columns, quiet);
    let busy = runs(&columns, telling);
    let mut looks: BTreeMap<(bool, &str, bool), Rects> = BTreeMap::new();
    for (quiet, runs) in [(true, quiet), (false, busy)] {
        for (from, to, (phase, solid)) in runs {
            let paint = paint::of(phase);
            let height = place.height * paint.height;
            let width =
                ((to - from) as f64).max(if quiet { 0.0 } else { LEAST });
            let look = (!quiet, paint.class, solid);
            let rects = looks.entry(look).or_default();
            let (x, y) = (place.x + from as f64, place.y + place.height);
            rects.add(x, y - height, width, height);
        }
    }
    for ((_, class, solid), rects) in &looks {
        let faint = if *solid { "" } else { " faint" };
        canvas.rects(&format!("{class}{faint}"), rects);
    }
}

fn columns(bars: &[Bar], span: u64, width: f64) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![Column::new(); width as usize];
    let last = columns.len() as f64;
    let scale = last / span.max(1) as f64;
    for bar in bars {
        let (from, to) = (bar.from as f64 * scale, bar.to as f64 * scale);
        let first = from as usize;
        let touched = columns.iter_mut().enumerate().skip(first);
        for (at, column) in touched.take(to as usize + 1 - first) {
            let part = to.min(at as f64 + 1.0) - from.max(at as f64);
            let Some(dense) = &bar.dense else {
                add(column, bar.phase, part);
                continue;
            };
            for (phase, share) in &dense.shares {
                add(column, *phase, part * share);
            }
        }
    }
    columns
}

fn add(column: &mut Column, phase: Phase, part: f64) {
    match column.iter_mut().find(|it| it.0 == phase) {
        Some(known) => known.1 += part,
        None => column.push((phase, part)),
    }
}

/// What most of the quiet time of a column is.
fn quiet(column: &Column) -> Option<(Phase, bool)> {
    let quiet = column.iter().filter(|it| QUIET.contains(&it.0));
    let most = quiet.max_by(|a, b| a.1.total_cmp(&b.1))?;
    (most.1 > 0.0).then_some((most.0, true))
}

/// The most telling of what happens in a column, and whether it is solid: bytes
/// that move are, others if they fill the time.
fn telling(column: &Column) -> Option<(Phase, bool)> {
    let happens = |phase: &&Phase| {
        column.iter().any(|(it, part)| it == *phase && *part > 0.0)
    };
    let phase = *TELLING.iter().find(happens)?;
    let busy = column.iter().filter(|it| TELLING.contains(&it.0));
    let busy: f64 = busy.map(|it| it.1).sum();
    let moves = TELLING[..3].contains(&phase);
    Some((phase, moves || busy > 0.25))
}

/// Columns in a row that look the same.
fn runs<T: PartialEq>(
    columns: &[Column],
    look: impl Fn(&Column) -> Option<T>,
) -> Vec<(usize, usize, T)> {
    let mut runs: Vec<(usize, usize, T)> = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let Some(look) = look(column) else { continue };
        match runs.last_mut() {
            Some(run) if run.1 == at && run.2 == look => run.1 += 1,
            _ => runs.push((at, at + 1, look)),
        }
    }
    runs
}

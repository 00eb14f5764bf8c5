//! What colours, patterns and marks mean.

use super::canvas::Canvas;
use super::paint::{PAINTS, Paint, shape};
use super::sums;
use super::text::width;
use crate::figure::data::{Figure, What};

const SIZE: f64 = 11.5;
const LINE: f64 = 20.0;

/// Every phase of these figures, from `left` to `right`; where it ends.
pub fn phases(
    canvas: &mut Canvas,
    figures: &[&Figure],
    (left, right): (f64, f64),
    top: f64,
) -> f64 {
    let lanes = || figures.iter().flat_map(|figure| &figure.lanes);
    let used = |paint: &&Paint| {
        lanes().any(|lane| {
            sums::phases(lane).iter().any(|(it, _)| *it == paint.phase)
        })
    };
    let (mut x, mut y) = (left, top + 14.0);
    for paint in PAINTS.iter().filter(used) {
        let says = match paint.says {
            "" => String::new(),
            says => format!(": {says}"),
        };
        let (name, more) = (width(paint.name, SIZE), width(&says, SIZE));
        let whole = 30.0 + name + more + 20.0;
        if x > left && x + whole > right {
            (x, y) = (left, y + LINE);
        }
        canvas.swatch(paint, (x, y + 1.0));
        canvas.pair((x + 30.0, y), SIZE, (paint.name, &says));
        x += whole;
    }
    y + 8.0
}

/// Every mark of a figure.
pub fn marks(
    canvas: &mut Canvas,
    figure: &Figure,
    (left, right): (f64, f64),
    top: f64,
) -> f64 {
    let mut known: Vec<What> = Vec::new();
    for mark in figure.lanes.iter().flat_map(|lane| &lane.marks) {
        if !known.contains(&mark.what) {
            known.push(mark.what);
        }
    }
    let (mut x, mut y) = (left, top + 14.0);
    for what in known {
        let (_, says) = shape(what);
        let whole = 16.0 + width(says, SIZE) + 20.0;
        if x > left && x + whole > right {
            (x, y) = (left, y + LINE);
        }
        canvas.mark(what, (x + 5.0, y - 4.0));
        canvas.text("soft", (x + 16.0, y), SIZE, says);
        x += whole;
    }
    y + 8.0
}

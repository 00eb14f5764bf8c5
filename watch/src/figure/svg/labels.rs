//! Names above a lane, none of which covers another.

use std::cmp::Ordering;

use super::canvas::{Anchor, Canvas};
use super::near::Name;
use super::text::width;

/// The height of a row of names.
pub const ROW: f64 = 12.0;
/// How many rows there are above a lane.
pub const ROWS: usize = 3;
const SIZE: f64 = 10.0;
const GAP: f64 = 5.0;

/// A name that has its place.
struct Placed<'a> {
    name: &'a Name,
    row: usize,
    from: f64,
    to: f64,
}

/// Writes as many as have room between `left` and `right`, above `bottom`, and
/// a line from each down to its `lane`.
pub fn draw(
    canvas: &mut Canvas,
    names: &[Name],
    (left, right): (f64, f64),
    (bottom, lane): (f64, f64),
) {
    let placed = placed(names, left, right);
    for it in &placed {
        let y = bottom - 3.0 - it.row as f64 * ROW;
        canvas.line("lead", (it.name.x, y + 1.5), (it.name.x, lane));
        let at = ((it.from + it.to) / 2.0, y);
        canvas.anchored("ink", at, (SIZE, Anchor::Middle), &it.name.text);
    }
}

/// How many rows they will need.
pub fn rows_of(names: &[Name], (left, right): (f64, f64)) -> usize {
    let placed = placed(names, left, right);
    placed.iter().map(|it| it.row + 1).max().unwrap_or(0)
}

fn placed(names: &[Name], left: f64, right: f64) -> Vec<Placed<'_>> {
    let mut placed: Vec<Placed> = Vec::new();
    for name in names {
        let wide = width(&name.text, SIZE);
        let tries = sides(names, name, wide).into_iter().flat_map(|side| {
            let from = name.x - wide * side;
            let from = from.clamp(left, (right - wide).max(left));
            (0..ROWS).map(move |row| (row, from, from + wide))
        });
        // Rather in a low row than in the middle.
        let mut tries: Vec<(usize, f64, f64)> = tries.collect();
        tries.sort_by_key(|it| it.0);
        let free = |it: &(usize, f64, f64)| is_free(&placed, name, *it);
        if let Some((row, from, to)) = tries.into_iter().find(free) {
            placed.push(Placed { name, row, from, to });
        }
    }
    placed
}

/// Which part of a name may stand before the place that it names: half of it,
/// or most of it on the side where no other name is near.
fn sides(names: &[Name], name: &Name, wide: f64) -> [f64; 3] {
    let distance = |before: bool| {
        let others = names.iter().filter(|it| (it.x < name.x) == before);
        let others = others.filter(|it| it.x != name.x && it.rank <= name.rank);
        others.map(|it| (it.x - name.x).abs()).fold(f64::MAX, f64::min)
    };
    let (before, after) = (distance(true), distance(false));
    match () {
        () if before.min(after) > wide + GAP => [0.5, 0.9, 0.1],
        () if after < before => [0.9, 0.5, 0.1],
        () => [0.1, 0.5, 0.9],
    }
}

fn is_free(
    placed: &[Placed],
    name: &Name,
    (row, from, to): (usize, f64, f64),
) -> bool {
    // The line from a higher name down to its lane crosses lower rows.
    let crosses =
        |x: f64, from: f64, to: f64| (from - 2.0..=to + 2.0).contains(&x);
    placed.iter().all(|it| match row.cmp(&it.row) {
        Ordering::Equal => to + GAP < it.from || it.to + GAP < from,
        Ordering::Less => !crosses(it.name.x, from, to),
        Ordering::Greater => !crosses(name.x, it.from, it.to),
    })
}

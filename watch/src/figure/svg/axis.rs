//! Time axes with round numbers.

use super::canvas::{Anchor, Canvas};
use super::text::width;

/// Lines from `top` to `bottom` at round times, and the times at `names`;
/// `scale` makes a time of the axis, in nanoseconds, a place.
pub fn draw(
    canvas: &mut Canvas,
    (from, to): (f64, f64),
    scale: impl Fn(f64) -> f64,
    (top, bottom): (f64, f64),
    (names, size): (f64, f64),
) {
    let room = scale(to) - scale(from);
    let unit = Unit::of(to - from);
    let step = step(to - from, room, size);
    let right = scale(to);
    let mut at = (from / step).ceil() * step;
    while at <= to {
        let x = scale(at);
        canvas.line("grid", (x, top), (x, bottom));
        let text = unit.write(at);
        let half = width(&text, size) / 2.0;
        let end = match x + half > right + BEYOND {
            true => Anchor::End,
            false => Anchor::Middle,
        };
        canvas.anchored("soft", (x, names), (size, end), &text);
        at += step;
    }
}

/// How far a time may reach beyond the end of its axis.
const BEYOND: f64 = 10.0;

/// The distance of two times that are written, so that they do not touch.
fn step(length: f64, room: f64, size: f64) -> f64 {
    let most = (room / (6.5 * size)).max(1.0);
    let least = length / most;
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    steps.into_iter().find(|step| *step >= least).unwrap_or(10.0 * power)
}

struct Unit {
    name: &'static str,
    ns: f64,
}

impl Unit {
    fn of(length: f64) -> Unit {
        match length {
            ..=2e3 => Unit { name: "ns", ns: 1.0 },
            ..=2e6 => Unit { name: "µs", ns: 1e3 },
            ..=9.99e9 => Unit { name: "ms", ns: 1e6 },
            _ => Unit { name: "s", ns: 1e9 },
        }
    }

    fn write(&self, at: f64) -> String {
        let number = (at / self.ns * 1e3).round() / 1e3;
        format!("{} {}", number + 0.0, self.name)
    }
}

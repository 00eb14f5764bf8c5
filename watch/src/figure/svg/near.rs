//! One message, so near that every call is seen.

use std::collections::BTreeMap;

use echo::explain::END_OF_STREAM;

use super::canvas::{Canvas, Rects};
use super::paint;
use super::whole::Place;
use crate::figure::data::{Bar, Dense, Figure, Lane, Phase, What};
use crate::words::count;

/// A bar is not drawn thinner.
const LEAST: f64 = 0.9;

/// What a bar or a mark is called, and where that points.
pub struct Name {
    pub text: String,
    /// In the sheet's coordinates.
    pub x: f64,
    /// What matters most comes first.
    pub rank: usize,
}

/// From times to places.
#[derive(Clone, Copy)]
pub struct Scale {
    pub from: u64,
    pub to: u64,
    pub x: f64,
    pub width: f64,
}

impl Scale {
    pub fn x(&self, at: u64) -> f64 {
        let at = at.clamp(self.from, self.to) - self.from;
        self.x + self.width * at as f64 / (self.to - self.from).max(1) as f64
    }

    fn shows(&self, bar: &Bar) -> bool {
        bar.to > self.from && bar.from < self.to
    }
}

/// Draws a lane's bars, each as it is.
pub fn draw(canvas: &mut Canvas, lane: &Lane, scale: Scale, place: Place) {
    let mut looks: BTreeMap<u8, Vec<(Phase, f64, f64)>> = BTreeMap::new();
    let mut put = |phase: Phase, from: f64, to: f64| {
        let to = to.max(from + LEAST);
        let known = looks.entry(phase as u8).or_default();
        match known.last_mut() {
            // Nobody could see that there are two.
            Some(last) if from <= last.2 => last.2 = to.max(last.2),
            _ => known.push((phase, from, to)),
        }
    };
    for bar in lane.bars.iter().filter(|bar| scale.shows(bar)) {
        let (from, to) = (scale.x(bar.from), scale.x(bar.to));
        match &bar.dense {
            None => put(bar.phase, from, to),
            Some(dense) => stripes(dense, bar, scale, &mut put),
        }
    }
    for bars in looks.values() {
        let paint = paint::of(bars[0].0);
        let height = place.height * paint.height;
        let mut rects = Rects::default();
        for (_, from, to) in bars {
            let y = place.y + place.height - height;
            rects.add(*from, y, to - from, height);
        }
        canvas.rects(paint.class, &rects);
    }
}

/// Calls that were not drawn one by one, as many as there were and as long as
/// they were on average.
fn stripes(
    dense: &Dense,
    bar: &Bar,
    scale: Scale,
    put: &mut impl FnMut(Phase, f64, f64),
) {
    let length = (bar.to - bar.from) as f64 / dense.calls.max(1) as f64;
    let from = bar.from.max(scale.from);
    let to = bar.to.min(scale.to);
    let calls = ((to - from) as f64 / length).ceil() as u64;
    for call in 0..calls.min(400) {
        let mut at = from as f64 + call as f64 * length;
        for (phase, share) in &dense.shares {
            let end = (at + share * length).min(to as f64);
            put(*phase, scale.x(at as u64), scale.x(end as u64));
            at = end;
        }
    }
}

/// What there is to be named in a lane.
pub fn names(figure: &Figure, lane: &Lane, scale: Scale) -> Vec<Name> {
    let mut names = Vec::new();
    let mut last: Option<(usize, String)> = None;
    for bar in lane.bars.iter().filter(|bar| scale.shows(bar)) {
        let x = (scale.x(bar.from) + scale.x(bar.to)) / 2.0;
        if let Some(dense) = &bar.dense {
            let calls = count(dense.calls);
            let wasted = match dense.wasted == dense.calls {
                true => "all".to_owned(),
                false => count(dense.wasted),
            };
            let text = format!("{calls} calls, {wasted} wasted");
            names.push(Name { text, x, rank: 2 });
            continue;
        }
        let named = bar.call.filter(|_| bar.phase != Phase::SetAside);
        let Some(call) = named else { continue };
        let (text, rank) = name(figure, bar, call);
        let marked = lane.marks.iter().any(|mark| mark.call == Some(call));
        let rank = if marked { 1 } else { rank };
        // A call that has several bars is named once, and so are calls for
        // nothing in a row.
        let again = last.as_ref().is_some_and(|(before, name)| {
            let once = *before == call || bar.phase == Phase::Wasted;
            once && *name == text
        });
        if !again && !text.is_empty() {
            names.push(Name { text: text.clone(), x, rank });
        }
        last = Some((call, text));
    }
    let within = |at: u64| (scale.from..scale.to).contains(&at);
    for mark in lane.marks.iter().filter(|mark| within(mark.at)) {
        if mark.what == What::Signal {
            let text = mark.text.clone();
            names.push(Name { text, x: scale.x(mark.at), rank: 1 });
        }
    }
    names.sort_by_key(|name| name.rank);
    names
}

fn name(figure: &Figure, bar: &Bar, call: usize) -> (String, usize) {
    let told = &figure.calls[call];
    match bar.phase {
        Phase::Sending | Phase::Receiving => (told.call.clone(), 0),
        Phase::Unanswered => (String::new(), 9),
        Phase::Copying if told.bytes.is_some() => {
            let short = told.result.replace(" bytes", "");
            (format!("{} {short}", told.call), 0)
        }
        Phase::Copying if told.result == END_OF_STREAM => {
            (format!("{}: {END_OF_STREAM}", told.call), 2)
        }
        Phase::Waiting | Phase::WakingUp => (told.call.clone(), 1),
        Phase::Wasted => {
            let result = told.result.split(';').next().unwrap_or_default();
            let result = if result.is_empty() { "nothing" } else { result };
            (format!("{}: {result}", told.call), 3)
        }
        Phase::InFlight => (told.call.clone(), 1),
        _ => (told.call.clone(), 4),
    }
}

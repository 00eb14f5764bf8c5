//! The data as the page carries it: times as steps from one to the next,
//! texts by their number. `data.js` reads it.

use std::collections::HashMap;

use serde::Serialize;

use crate::figure::data::{Bar, Dense, Figure, Lane, Mark, Page, Told};

#[derive(Serialize)]
struct Packed<'a> {
    span: u64,
    texts: Vec<String>,
    figures: Vec<PackedFigure<'a>>,
}

#[derive(Serialize)]
struct PackedFigure<'a> {
    model: &'a str,
    span: u64,
    lens: (u64, u64),
    /// Eight numbers for each: call, about, result and why by their texts;
    /// begin since that of the one before, length; position of the first
    /// byte, or -1, and number of bytes.
    calls: Vec<i64>,
    lanes: Vec<PackedLane<'a>>,
}

#[derive(Serialize)]
struct PackedLane<'a> {
    who: usize,
    name: usize,
    from: u64,
    to: u64,
    off_cpu: Option<u64>,
    /// Four for each: phase by its text, begin since the end of the one
    /// before, length, call since that of the one before, or null.
    bars: Vec<Option<i64>>,
    /// Of those bars that are of many rounds.
    dense: Vec<(usize, &'a Dense)>,
    /// Four for each: kind by its text, time since the one before, text,
    /// call, or -1.
    marks: Vec<i64>,
}

/// The page's data as JSON.
pub fn packed(page: &Page) -> String {
    let mut texts = Texts::default();
    let figures = page.figures.iter();
    let figures = figures.map(|it| figure(it, &mut texts)).collect();
    let packed = Packed { span: page.span, texts: texts.list, figures };
    serde_json::to_string(&packed).expect("numbers and texts only")
}

/// Each text once.
#[derive(Default)]
struct Texts {
    list: Vec<String>,
    places: HashMap<String, usize>,
}

impl Texts {
    fn place(&mut self, text: &str) -> usize {
        if let Some(&place) = self.places.get(text) {
            return place;
        }
        self.list.push(text.to_owned());
        self.places.insert(text.to_owned(), self.list.len() - 1);
        self.list.len() - 1
    }

    /// Of a variant without fields, which JSON has as its name.
    fn variant(&mut self, variant: impl Serialize) -> usize {
        let name = serde_json::to_value(variant).expect("a name");
        self.place(name.as_str().expect("a name"))
    }
}

fn figure<'a>(figure: &'a Figure, texts: &mut Texts) -> PackedFigure<'a> {
    let lanes = figure.lanes.iter().map(|it| lane(it, texts)).collect();
    let mut before = 0;
    let calls = figure.calls.iter();
    let calls = calls.flat_map(|it| call(it, &mut before, texts)).collect();
    PackedFigure {
        model: &figure.model,
        span: figure.span,
        lens: figure.lens,
        calls,
        lanes,
    }
}

fn call(call: &Told, before: &mut u64, texts: &mut Texts) -> [i64; 8] {
    let step = call.from as i64 - *before as i64;
    *before = call.from;
    let (first, many) = match call.bytes {
        Some((first, behind)) => (first as i64, (behind - first) as i64),
        None => (-1, 0),
    };
    let mut text = |text: &str| texts.place(text) as i64;
    [
        text(&call.call),
        text(&call.about),
        text(&call.result),
        text(&call.why),
        step,
        call.to as i64 - call.from as i64,
        first,
        many,
    ]
}

fn lane<'a>(lane: &'a Lane, texts: &mut Texts) -> PackedLane<'a> {
    let dense = lane.bars.iter().enumerate();
    let dense =
        dense.filter_map(|(at, bar)| Some((at, bar.dense.as_ref()?))).collect();
    let (mut last, mut before) = ((0, 0), 0);
    let bars = lane.bars.iter();
    let bars = bars.flat_map(|it| bar(it, &mut last, texts)).collect();
    let marks = lane.marks.iter();
    let marks = marks.flat_map(|it| mark(it, &mut before, texts)).collect();
    PackedLane {
        who: texts.variant(lane.who),
        name: texts.place(&lane.name),
        from: lane.from,
        to: lane.to,
        off_cpu: lane.off_cpu,
        bars,
        dense,
        marks,
    }
}

/// `last` is where the bar before ended, and the last bar's call.
fn bar(
    bar: &Bar,
    last: &mut (u64, i64),
    texts: &mut Texts,
) -> [Option<i64>; 4] {
    let phase = texts.variant(bar.phase) as i64;
    let step = bar.from as i64 - last.0 as i64;
    let length = bar.to as i64 - bar.from as i64;
    let call = bar.call.map(|call| call as i64 - last.1);
    *last = (bar.to, last.1 + call.unwrap_or(0));
    [Some(phase), Some(step), Some(length), call]
}

fn mark(mark: &Mark, before: &mut u64, texts: &mut Texts) -> [i64; 4] {
    let step = mark.at as i64 - *before as i64;
    *before = mark.at;
    let kind = texts.variant(mark.what) as i64;
    let call = mark.call.map_or(-1, |call| call as i64);
    [kind, step, texts.place(&mark.text) as i64, call]
}

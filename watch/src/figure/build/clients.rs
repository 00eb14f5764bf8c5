//! The clients' lanes.

use std::ops::Range;

use super::Sheet;
use crate::clients::{Deed, Did};
use crate::figure::data::{Bar, Lane, Mark, Phase, Told, What, Who};
use crate::figure::run::Run;

const SENDS: &str = "The client sends, and does not wait until the server has \
    received it: from here on the bytes lie in the server's socket.";
const RECEIVES: &str = "What the server has sent is back, and every byte of it \
    is held against what was sent.";

/// One for each client, in the order of connecting.
pub fn lanes(run: &Run, sheet: &mut Sheet) -> Vec<Lane> {
    let names = run.names.iter().enumerate();
    let lanes = names.map(|(number, name)| {
        let deeds = run.deeds.iter().filter(|deed| deed.client == number);
        let deeds: Vec<&Deed> = deeds.collect();
        lane(name, &deeds, sheet)
    });
    lanes.collect()
}

fn lane(name: &str, deeds: &[&Deed], sheet: &mut Sheet) -> Lane {
    // The sends that are not answered yet: where each ends in the stream, and
    // its place among the figure's calls.
    let mut open: Vec<(u64, usize)> = Vec::new();
    let (mut bars, mut marks) = (Vec::new(), Vec::new());
    let mut last = deeds.first().map_or(sheet.begin, |deed| deed.t0);
    let (from, mut to) = (sheet.time(last), sheet.span());
    for deed in deeds {
        if let Some((_, call)) = open.first() {
            let time = (last, deed.t0);
            sheet.draw(&mut bars, Phase::Unanswered, time, Some(*call));
        }
        last = deed.t1;
        match &deed.what {
            Did::Send { from, to } => {
                let call = tell(sheet, name, deed, ("send", SENDS), *from..*to);
                open.push((*to, call));
                bars.push(bar(sheet, Phase::Sending, deed, call));
            }
            Did::Receive { from, to } => {
                let what = ("receive", RECEIVES);
                let call = tell(sheet, name, deed, what, *from..*to);
                answer(&mut open, *to, deed.t1, sheet);
                bars.push(bar(sheet, Phase::Receiving, deed, call));
            }
            what => {
                let (what, text) = mark(what);
                let at = sheet.time(deed.t0);
                marks.push(Mark { what, at, text, call: None });
                if matches!(what, What::Close | What::Reset) {
                    to = sheet.time(deed.t1);
                    open.clear();
                }
            }
        }
    }
    if let Some((_, call)) = open.first() {
        let time = (last, sheet.end);
        sheet.draw(&mut bars, Phase::Unanswered, time, Some(*call));
    }
    let (who, name) = (Who::Client, name.to_owned());
    Lane { who, name, from, to, bars, marks, off_cpu: None }
}

fn bar(sheet: &Sheet, phase: Phase, deed: &Deed, call: usize) -> Bar {
    let (from, to) = (sheet.time(deed.t0), sheet.time(deed.t1));
    Bar { phase, from, to, call: Some(call), dense: None }
}

fn tell(
    sheet: &mut Sheet,
    name: &str,
    deed: &Deed,
    (verb, why): (&str, &str),
    bytes: Range<u64>,
) -> usize {
    let told = Told {
        call: format!("{verb} {} bytes", bytes.end - bytes.start),
        about: name.to_owned(),
        result: String::new(),
        why: why.to_owned(),
        from: sheet.time(deed.t0),
        to: sheet.time(deed.t1),
        bytes: Some((bytes.start, bytes.end)),
    };
    sheet.tell(told)
}

/// Says of the sends that are answered by now how long that took.
fn answer(
    open: &mut Vec<(u64, usize)>,
    received: u64,
    at: u64,
    sheet: &mut Sheet,
) {
    let at = sheet.time(at);
    open.retain(|&(end, call)| {
        let told = &mut sheet.calls[call];
        if end <= received {
            let took = (at - told.from) as f64 / 1e6;
            told.result = format!("all of it back after {took:.3} ms");
        }
        end > received
    });
}

fn mark(did: &Did) -> (What, String) {
    let (what, text) = match did {
        Did::Connect => (What::Connect, "connects"),
        Did::StopReading => (What::StopReading, "stops reading"),
        Did::Read => (What::Read, "reads again"),
        Did::HalfClose => (What::Fin, "sends FIN"),
        Did::EndOfStream => (What::Fin, "receives the server's FIN"),
        Did::Reset => (What::Reset, "breaks the connection off (RST)"),
        Did::Failed(error) => {
            let text = format!("finds the connection broken: {error}");
            return (What::Reset, text);
        }
        Did::Close | Did::Send { .. } | Did::Receive { .. } => {
            (What::Close, "closes")
        }
    };
    (what, text.to_owned())
}

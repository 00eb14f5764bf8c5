//! The kernel's lanes: what it does of the server's work, from when it was put
//! into the one queue until it came out of the other (io_uring(7)).

use std::collections::HashMap;

use super::Sheet;
use super::cast::Cast;
use super::items::{Made, Thread};
use super::tell::{Streams, told};
use crate::figure::data::{Bar, Lane, Phase, Who};
use crate::record::Peer;

/// Who asks for what on which descriptor.
type Key = (i32, String, i32);

/// The bars of one lane. A recv may stay under way for all that a client will
/// ever say; then its sends lie in front of it.
#[derive(Default)]
struct Bars {
    front: Vec<Bar>,
    behind: Vec<Bar>,
}

/// One for the listener, and one for each client. That the stop's descriptor
/// is read all the time is left out, and so are wishes that something may end.
pub fn lanes(threads: &[Thread], cast: &Cast, sheet: &mut Sheet) -> Vec<Lane> {
    let mut streams = Streams::default();
    let mut lanes: Vec<(Peer, Bars)> = Vec::new();
    for thread in threads {
        let mut begun: HashMap<Key, Vec<u64>> = HashMap::new();
        for made in thread.calls().filter(|it| it.call.is_queued()) {
            let call = &made.call;
            let key = (thread.tid, call.name.clone(), call.fd.unwrap_or(-1));
            let begun = begun.entry(key).or_default();
            if call.verb == "submit" {
                begun.push(made.t0);
                continue;
            }
            let bytes = streams.moved(made);
            let Some(since) = begun.first().copied() else { continue };
            match call.goes_on {
                true => begun[0] = made.t1,
                false => drop(begun.remove(0)),
            }
            let shown = ["accept", "recv", "send"].contains(&&*call.name);
            let Some(peer) = call.peer.clone() else { continue };
            if !shown || call.called || !sheet.shows(since, made.t1) {
                continue;
            }
            let known = lanes.iter().position(|(it, _)| *it == peer);
            let at = known.unwrap_or_else(|| {
                lanes.push((peer, Bars::default()));
                lanes.len() - 1
            });
            let told = told_from(since, made, bytes, cast, sheet);
            let place = Some(sheet.tell(told));
            let bars = match &*call.name {
                "send" => &mut lanes[at].1.front,
                _ => &mut lanes[at].1.behind,
            };
            let over = made.in_flight.filter(|_| call.at_once);
            let time = (since, over.map_or(made.t1, |time| since + time));
            sheet.draw(bars, Phase::InFlight, time, place);
        }
    }
    let order = |peer: &Peer| match peer {
        Peer::Client(number) => *number,
        _ => 0,
    };
    lanes.sort_by_key(|(peer, _)| order(peer));
    let lanes = lanes.into_iter().filter_map(|(peer, bars)| {
        let name = match peer {
            Peer::Listener => "accept".to_owned(),
            peer => cast.name(&peer),
        };
        lane(format!("kernel: {name}"), bars)
    });
    lanes.collect()
}

fn told_from(
    since: u64,
    made: &Made,
    bytes: Option<(u64, u64)>,
    cast: &Cast,
    sheet: &Sheet,
) -> crate::figure::data::Told {
    let mut told = told(made, bytes, &[], cast, sheet);
    told.from = sheet.time(since);
    told
}

/// None without anything in it. What lies behind shows where nothing is in
/// front of it.
fn lane(name: String, Bars { mut front, mut behind }: Bars) -> Option<Lane> {
    front.sort_by_key(|bar| (bar.from, bar.to));
    behind.sort_by_key(|bar| (bar.from, bar.to));
    let mut bars: Vec<Bar> = Vec::new();
    let mut above = front.iter().peekable();
    for bar in &behind {
        let mut from = bar.from;
        while above.next_if(|it| it.to <= from).is_some() {}
        for it in above.clone().take_while(|it| it.from < bar.to) {
            bars.push(part(bar, from, it.from));
            from = from.max(it.to);
        }
        bars.push(part(bar, from, bar.to));
    }
    bars.extend(front);
    bars.sort_by_key(|bar| (bar.from, bar.to));
    // Two clients of one name, one after the other, would share a lane.
    let mut end = 0;
    for bar in &mut bars {
        bar.from = bar.from.max(end);
        end = bar.to.max(end);
    }
    bars.retain(|bar| bar.from < bar.to);
    Some(Lane {
        who: Who::Kernel,
        name,
        from: bars.first()?.from,
        to: bars.last()?.to,
        bars,
        marks: Vec::new(),
        off_cpu: None,
    })
}

/// A piece of a bar; one without length is dropped later.
fn part(bar: &Bar, from: u64, to: u64) -> Bar {
    let from = from.max(bar.from);
    let to = to.clamp(from, bar.to.max(from));
    Bar { from, to, phase: bar.phase, call: bar.call, dense: None }
}

//! The kernel's lanes: what it does of the server's work, from when it was put
//! into the one queue until it came out of the other (io_uring(7)).

use std::collections::HashMap;

use super::Sheet;
use super::cast::Cast;
use super::items::{Made, Thread};
use super::tell::{Streams, told};
use crate::figure::data::{Bar, Lane, Phase, Told, Who};
use crate::record::Peer;

/// Who asks for what on which descriptor.
type Key = (i32, String, i32);

/// One for the listener, and one for each client. That the stop's descriptor
/// is read all the time is left out, and so are wishes that something may end.
pub fn lanes(threads: &[Thread], cast: &Cast, sheet: &mut Sheet) -> Vec<Lane> {
    let mut streams = Streams::default();
    let mut lanes: Vec<(Peer, Vec<Bar>)> = Vec::new();
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
                lanes.push((peer, Vec::new()));
                lanes.len() - 1
            });
            let told = told_from(since, made, bytes, cast, sheet);
            let place = Some(sheet.tell(told));
            let bars = &mut lanes[at].1;
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
) -> Told {
    let mut told = told(made, bytes, &[], cast, sheet);
    told.from = sheet.time(since);
    told
}

/// None without anything in it.
fn lane(name: String, bars: Vec<Bar>) -> Option<Lane> {
    let bars = in_layers(bars);
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

/// In the order of time, and none over another: what is shorter lies in front
/// of what is longer, such as a send in front of a recv that goes on.
pub fn in_layers(mut bars: Vec<Bar>) -> Vec<Bar> {
    bars.sort_by_key(|bar| (bar.to - bar.from, bar.from));
    let mut placed: Vec<Bar> = Vec::new();
    for bar in bars {
        let (mut from, mut pieces) = (bar.from, Vec::new());
        let first = placed.partition_point(|it| it.to <= from);
        let over = placed[first..].iter().take_while(|it| it.from < bar.to);
        for it in over {
            pieces.extend(piece(&bar, from, it.from));
            from = it.to;
        }
        pieces.extend(piece(&bar, from, bar.to));
        placed.extend(pieces);
        placed.sort_by_key(|it| it.from);
    }
    placed
}

fn piece(bar: &Bar, from: u64, to: u64) -> Option<Bar> {
    let (phase, call) = (bar.phase, bar.call);
    (from < to).then_some(Bar { from, to, phase, call, dense: None })
}

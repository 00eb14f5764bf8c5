//! A call of the server in words.

use std::collections::HashMap;

use echo::explain;

use super::Sheet;
use super::cast::Cast;
use super::items::Made;
use crate::figure::data::Told;
use crate::record::{Call, Peer};

/// How far each client's stream has been read and sent back.
#[derive(Default)]
pub struct Streams(HashMap<Peer, (u64, u64)>);

/// The place in its stream behind which a client that has gone sends nothing.
pub const GONE: u64 = u64::MAX;

impl Streams {
    /// The stretch of its client's stream that a call moved.
    pub fn moved(&mut self, made: &Made) -> Option<(u64, u64)> {
        let peer @ Peer::Client(_) = made.call.peer.as_ref()? else {
            return None;
        };
        let (brought, took) = (made.call.brought(), made.call.took_out());
        // A close does not tell: a parent closes what its child serves.
        if made.call.name == "recv" && made.call.ret == Some(0) {
            self.0.entry(peer.clone()).or_default().0 = GONE;
        }
        if brought + took == 0 {
            return None;
        }
        let (inwards, outwards) = self.0.entry(peer.clone()).or_default();
        let place = if brought > 0 { inwards } else { outwards };
        let from = *place;
        *place += brought + took;
        Some((from, *place))
    }

    /// How far a client's stream has been read.
    pub fn read_of(&self, peer: &Peer) -> u64 {
        self.0.get(peer).map_or(0, |(inwards, _)| *inwards)
    }

    /// How far it has been sent back.
    pub fn sent_to(&self, peer: &Peer) -> u64 {
        self.0.get(peer).map_or(0, |(_, outwards)| *outwards)
    }

    /// How far all have been read.
    pub fn read(&self) -> HashMap<Peer, u64> {
        let streams = self.0.iter();
        streams.map(|(peer, (inwards, _))| (peer.clone(), *inwards)).collect()
    }
}

/// The call in words; `found` are those whom a wait found ready, or who woke
/// it.
pub fn told(
    made: &Made,
    bytes: Option<(u64, u64)>,
    found: &[Peer],
    cast: &Cast,
    sheet: &Sheet,
) -> Told {
    let call = &made.call;
    let about = call.peer.as_ref().map(|peer| cast.name(peer));
    let result = match made.t1 > sheet.end {
        true => "not back when the figure ends".to_owned(),
        false => result(made, found, cast),
    };
    Told {
        call: call.name.clone(),
        about: about.unwrap_or_default(),
        result,
        why: why(made, found),
        from: sheet.time(made.t0),
        to: sheet.time(made.t1),
        bytes,
    }
}

fn result(made: &Made, found: &[Peer], cast: &Cast) -> String {
    let call = &made.call;
    let names = names(found, cast);
    let ret = call.ret.unwrap_or(0);
    match (&call.errno, &*call.verb) {
        (Some(errno), _) => match names {
            Some(names) => format!("{errno}; {names}"),
            None => errno.clone(),
        },
        (None, _) if call.enters() => entered(call, names, cast),
        (None, "complete") if call.taken.is_some() => {
            let taken = call.taken.as_ref().map(|peer| cast.name(peer));
            taken.unwrap_or_default()
        }
        (None, "copy" | "wait+copy" | "complete") => match (&*call.name, ret) {
            ("recv", 0) => explain::END_OF_STREAM.to_owned(),
            ("cancel", _) => format!("{ret} told to end"),
            (_, 1) => "1 byte".to_owned(),
            _ => format!("{ret} bytes"),
        },
        (None, "take" | "wait") if call.taken.is_some() => {
            let taken = call.taken.as_ref().map(|peer| cast.name(peer));
            taken.unwrap_or_default()
        }
        (None, "wait") => match (call.ready_count, names) {
            (Some(0), _) => "nobody is ready".to_owned(),
            (Some(ready), Some(names)) => {
                let asked = call.asked.unwrap_or(ready).max(ready);
                format!("{ready} of {asked} ready: {names}")
            }
            (_, names) => names.unwrap_or_default(),
        },
        (None, _) if call.name == "fork" && ret == 0 => {
            "this is the child".to_owned()
        }
        (None, _) if call.name == "fork" => "a child".to_owned(),
        (None, _) => String::new(),
    }
}

/// What a call that hands operations over took with it, and for whom
/// something was done when it returned.
fn entered(call: &Call, names: Option<String>, cast: &Cast) -> String {
    const SHOWN: usize = 4;
    let each = call.carried.iter().take(SHOWN).map(|it| {
        let whom = it.peer.as_ref().map(|peer| cast.name(peer));
        format!("{} {}", it.call, whom.unwrap_or_default()).trim().to_owned()
    });
    let mut taken = each.collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = call.carried.len().checked_sub(SHOWN) {
        taken += &format!(" and {more} more");
    }
    match (taken.is_empty(), names) {
        (true, None) => String::new(),
        (true, Some(names)) => format!("something is done for {names}"),
        (false, None) => format!("submits {taken}"),
        (false, Some(names)) => {
            format!("submits {taken}; something is done for {names}")
        }
    }
}

/// The first of them by name.
fn names(found: &[Peer], cast: &Cast) -> Option<String> {
    const SHOWN: usize = 4;
    let shown = found.iter().take(SHOWN).map(|peer| cast.name(peer));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match found.len().checked_sub(SHOWN) {
        _ if found.is_empty() => None,
        Some(more @ 1..) => Some(format!("{shown} and {more} more")),
        _ => Some(shown),
    }
}

/// The sentences with which the record explains itself.
fn why(made: &Made, found: &[Peer]) -> String {
    let call = &made.call;
    let (verb, name) = (&*call.verb, &*call.name);
    let nothing = call.ret == Some(0);
    let result = match call.errno.as_deref() {
        Some(errno) => Some(errno),
        None if name == "recv" && nothing => Some(explain::END_OF_STREAM),
        None if call.goes_on => Some(explain::GOES_ON),
        None if nothing && call.ready_count == Some(0) => {
            Some(explain::TIMED_OUT)
        }
        None if found.contains(&Peer::Stop) => Some(explain::STOP),
        None => None,
    };
    let call = explain::explain_call(verb, name);
    let result = result.and_then(|it| explain::explain_result(verb, name, it));
    let sentences: Vec<&str> = call.into_iter().chain(result).collect();
    sentences.join(" ")
}

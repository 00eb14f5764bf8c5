//! Who is who, and what they did that a sleeping server waits for.

use std::collections::HashMap;

use super::items::{Made, Thread};
use super::tell::GONE;
use crate::clients::{Deed, Did};
use crate::figure::run::Run;
use crate::record::Peer;

/// All who take part.
pub struct Cast<'a> {
    names: &'a [String],
    /// In the order of their time: one thread plays all clients.
    deeds: &'a [Deed],
    /// By process and descriptor: whom it stands for since when.
    owners: HashMap<(i32, i32), Vec<(u64, Peer)>>,
    /// When a client had been accepted.
    accepted: HashMap<Peer, u64>,
}

impl<'a> Cast<'a> {
    pub fn new(run: &'a Run, threads: &[Thread]) -> Self {
        let mut cast = Cast {
            names: &run.names,
            deeds: &run.deeds,
            owners: HashMap::new(),
            accepted: HashMap::new(),
        };
        let known = [
            (run.start.listener, Peer::Listener),
            (run.start.stop, Peer::Stop),
        ];
        for (fd, peer) in known {
            cast.owns(run.start.pid, fd, 0, peer);
        }
        for thread in threads {
            thread.calls().for_each(|made| cast.learn(thread.pid, made));
        }
        for owners in cast.owners.values_mut() {
            owners.sort_by_key(|(since, _)| *since);
        }
        cast
    }

    fn owns(&mut self, pid: i32, fd: Option<i32>, since: u64, peer: Peer) {
        if let Some(fd) = fd {
            self.owners.entry((pid, fd)).or_default().push((since, peer));
        }
    }

    fn learn(&mut self, pid: i32, made: &Made) {
        let call = &made.call;
        if let (Some(taken), true) = (&call.taken, call.brings()) {
            let fd = call.ret.and_then(|fd| i32::try_from(fd).ok());
            self.owns(pid, fd, made.t1, taken.clone());
            self.accepted.insert(taken.clone(), made.t1);
        }
        // A descriptor of the server's own is known by its first call only.
        if let Some(peer @ Peer::Named(_)) = &call.peer {
            self.owns(pid, call.fd, 0, peer.clone());
        }
    }

    /// What a reader calls them.
    pub fn name(&self, peer: &Peer) -> String {
        match peer {
            Peer::Client(number) => {
                let name = self.names.get(number.wrapping_sub(1));
                name.cloned().unwrap_or_else(|| peer.to_string())
            }
            _ => peer.to_string(),
        }
    }

    /// Whom a descriptor stands for at a time.
    pub fn owner(&self, pid: i32, fd: i32, at: u64) -> Option<&Peer> {
        let owners = self.owners.get(&(pid, fd))?;
        let known = owners.partition_point(|(since, _)| *since <= at);
        Some(&owners[known.checked_sub(1)?].1)
    }

    /// When a client had been accepted.
    pub fn accepted(&self, client: &Peer) -> Option<u64> {
        self.accepted.get(client).copied()
    }

    /// When the first thing happened before `to` that ends a call which is
    /// for `whom`, and which began at `from`.
    pub fn acts(&self, whom: &Whom, (from, to): (u64, u64)) -> Option<u64> {
        let mut deeds = self.deeds.iter().take_while(|deed| deed.t0 < to);
        let first = deeds.find(|deed| {
            let client = Peer::Client(deed.client + 1);
            let wanted = whom.wanted(&client);
            let later = deed.t1 > from;
            match deed.what {
                Did::Connect => {
                    whom.wanted(&Peer::Listener).is_some()
                        && self.accepted(&client).is_none_or(|at| at > from)
                }
                Did::Send { to, .. } => {
                    wanted.is_some_and(|wanted| wanted.brings(to))
                }
                Did::Read => later && matches!(wanted, Some(Wanted::Room(_))),
                Did::Receive { from, .. } => {
                    later
                        && wanted.is_some_and(|wanted| wanted.makes_room(from))
                }
                Did::HalfClose => {
                    wanted.is_some_and(|wanted| wanted.brings(END))
                }
                Did::Close | Did::Reset => {
                    wanted.is_some_and(|wanted| !wanted.nothing())
                }
                Did::StopReading | Did::EndOfStream | Did::Failed(_) => false,
            }
        });
        Some(first?.t0.max(from))
    }
}

/// The place of a FIN, behind all bytes.
const END: u64 = GONE - 1;

/// Who may end a call.
pub enum Whom {
    /// Whoever does anything; how far each client's stream was read is known.
    Anyone(HashMap<Peer, u64>),
    /// These.
    These(Vec<(Peer, Wanted)>),
}

/// What is wanted of somebody.
#[derive(Clone, Copy)]
pub enum Wanted {
    /// What lies behind this place of its stream, or its end; of a listener, a
    /// client.
    Bytes(u64),
    /// That it reads something of what was sent up to this place, so that
    /// there is room for more.
    Room(u64),
}

impl Whom {
    fn wanted(&self, peer: &Peer) -> Option<Wanted> {
        match self {
            Whom::Anyone(read) => {
                Some(Wanted::Bytes(read.get(peer).copied().unwrap_or(0)))
            }
            Whom::These(these) => {
                let found = these.iter().find(|(it, _)| it == peer);
                found.map(|(_, wanted)| *wanted)
            }
        }
    }
}

impl Wanted {
    /// Whether a send up to this place brings what is wanted.
    fn brings(self, to: u64) -> bool {
        matches!(self, Wanted::Bytes(read) if to > read)
    }

    /// Whether a receive from this place on makes room.
    fn makes_room(self, from: u64) -> bool {
        matches!(self, Wanted::Room(sent) if from < sent)
    }

    /// Whether the client has gone already.
    fn nothing(self) -> bool {
        matches!(self, Wanted::Bytes(GONE))
    }
}

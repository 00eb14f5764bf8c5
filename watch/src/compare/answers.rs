//! What the clients of the comparison saw.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::clients::Did;
use crate::player::Played;

/// When the clients were answered.
pub struct Answers {
    /// From client 1's connect to the first byte that came back.
    pub talker_first: Duration,
    /// From sending a message to having it back, of client 1's messages but
    /// the first, on average.
    pub talker_echo: Duration,
    /// When client 1 had its first echo, counted from the beginning.
    pub talker_answered: Duration,
    /// From client 2's connect to the first byte that came back.
    pub pauser_first: Duration,
    /// When client 3 began to leave, counted from the beginning.
    pub silent_left: Duration,
}

impl Answers {
    /// Of the scene that was played.
    pub fn of(played: &Played) -> Result<Answers> {
        let talker = Client::of(played, "talker")?;
        let pauser = Client::of(played, "pauser")?;
        let silent = Client::of(played, "silent")?;
        let come = talker.first(|did| *did == Did::Connect)?.0;
        let answer = talker.first(is_receive)?.1;
        let left = silent.first(|did| *did == Did::HalfClose)?.0;
        let since = |later: u64, earlier: u64| {
            Duration::from_nanos(later.saturating_sub(earlier))
        };
        Ok(Answers {
            talker_first: since(answer, come),
            talker_echo: talker.later_echoes()?,
            talker_answered: since(answer, played.begin),
            pauser_first: since(
                pauser.first(is_receive)?.1,
                pauser.first(|did| *did == Did::Connect)?.0,
            ),
            silent_left: since(left, played.begin),
        })
    }
}

fn is_receive(did: &Did) -> bool {
    matches!(did, Did::Receive { .. })
}

/// One client's deeds, each with its time before and after.
struct Client<'a> {
    name: &'a str,
    deeds: Vec<(u64, u64, &'a Did)>,
}

impl<'a> Client<'a> {
    fn of(played: &'a Played, name: &'a str) -> Result<Self> {
        let number = played.names.iter().position(|known| known == name);
        let number = number.with_context(|| format!("no {name} came"))?;
        let deeds = played.deeds.iter().filter(|it| it.client == number);
        let deeds = deeds.map(|it| (it.t0, it.t1, &it.what)).collect();
        Ok(Client { name, deeds })
    }

    fn first(&self, wanted: impl Fn(&Did) -> bool) -> Result<(u64, u64)> {
        let found = self.deeds.iter().find(|(_, _, did)| wanted(did));
        let name = self.name;
        let (t0, t1, _) =
            found.with_context(|| format!("{name} was never answered"))?;
        Ok((*t0, *t1))
    }

    /// From each send to its last byte's coming back, without the first.
    fn later_echoes(&self) -> Result<Duration> {
        let sends = self.deeds.iter().filter_map(|(t0, _, did)| match did {
            Did::Send { to, .. } => Some((*t0, *to)),
            _ => None,
        });
        let echoes = sends.skip(1).map(|(sent, end)| {
            let whole = |did: &Did| {
                matches!(did, Did::Receive { to, .. } if *to >= end)
            };
            Ok(self.first(whole)?.1.saturating_sub(sent))
        });
        let echoes = echoes.collect::<Result<Vec<u64>>>()?;
        let sum: u64 = echoes.iter().sum();
        Ok(Duration::from_nanos(sum / echoes.len().max(1) as u64))
    }
}

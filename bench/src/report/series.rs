//! Which colour, mark and dash a server has, in every chart: the colour and
//! the mark tell its family, the dash and the filling its variant.

use std::collections::BTreeMap;

use crate::models::{self, MODELS, PEERS};
use crate::results::Comparison;

/// Families by the packages of their servers. A package that is none of them
/// is among the others.
const FAMILIES: &[(&str, &[&str])] = &[
    ("blocking", &["blocking"]),
    ("busy polling", &["nonblocking_poll"]),
    ("select, poll", &["select_server", "poll_server"]),
    ("epoll", &["epoll_lt", "epoll_et"]),
    ("signals", &["signal_driven"]),
    ("POSIX AIO", &["aio_file"]),
    ("reactor", &["reactor"]),
    ("proactor", &["proactor"]),
    ("peers", &["peers"]),
    ("others", &[]),
];

const PEER: usize = 8;
const OTHER: usize = 9;

/// A server as it is drawn.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its row of the table of models.
    pub name: String,
    /// What it is, if this program's table has it.
    pub summary: &'static str,
    /// No model of this workspace.
    pub peer: bool,
    /// Which family; a number that the style sheet has a colour for.
    pub family: usize,
    /// Which variant within the family.
    pub variant: usize,
}

impl Series {
    /// The family's name.
    pub fn family_name(&self) -> &'static str {
        FAMILIES[self.family].0
    }

    /// Classes of everything that is drawn for it.
    pub fn classes(&self) -> String {
        let hollow = if self.is_hollow() { " hollow" } else { "" };
        format!("s f{} d{}{hollow}", self.family, self.variant % 4)
    }

    /// Every other variant is drawn hollow, and the other ones the next time
    /// that the dashes come.
    pub fn is_hollow(&self) -> bool {
        (self.variant + self.variant / 4) % 2 == 1
    }

    /// From the third time on that they come, a bar goes through the mark.
    pub fn has_bar(&self) -> bool {
        self.variant / 8 % 2 == 1
    }
}

/// Every server that has a row somewhere, in the order of the table of models;
/// those that it does not name follow.
pub fn of(comparison: &Comparison) -> Vec<Series> {
    let mut found: Vec<(&str, bool)> = Vec::new();
    for row in comparison.points.iter().flat_map(|point| &point.rows) {
        if !found.iter().any(|(name, _)| *name == row.model) {
            found.push((&row.model, row.peer));
        }
    }
    let table = || MODELS.iter().chain(PEERS);
    found.sort_by_key(|(name, _)| {
        table().position(|it| it.name == *name).unwrap_or(usize::MAX)
    });
    // By the whole table, not by who is here: a server looks the same in
    // every comparison. Those that are not in it follow.
    let mut variants = [0; FAMILIES.len()];
    let mut known = BTreeMap::new();
    for model in table() {
        let variant = &mut variants[family(model.binary)];
        known.insert(model.name, *variant);
        *variant += 1;
    }
    let series = found.into_iter().map(|(name, peer)| {
        let model = models::find_with_peers(name);
        let family = match model {
            Some(model) => family(model.binary),
            None if peer => PEER,
            None => OTHER,
        };
        let variant = known.get(name).copied().unwrap_or_else(|| {
            variants[family] += 1;
            variants[family] - 1
        });
        Series {
            name: name.to_string(),
            summary: model.map_or("", |model| model.summary),
            peer,
            family,
            variant,
        }
    });
    series.collect()
}

fn family(binary: &str) -> usize {
    let has = |(_, binaries): &(&str, &[&str])| binaries.contains(&binary);
    FAMILIES.iter().position(has).unwrap_or(OTHER)
}

//! Which cores the server has, and which one the load generator: what shares
//! nothing does not slow each other down.

use std::{fmt, fs};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::harness::core_set;

/// Disjoint cores, if there are two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Where the server and its children run.
    pub server: Vec<usize>,
    /// Where the load generator runs; `None` if nothing is pinned.
    pub generator: Option<usize>,
    /// A hyper-thread of the generator's physical core is among the server's.
    shared: bool,
    /// All that there are.
    allowed: Vec<usize>,
}

impl Cores {
    /// From the cores that this thread may use now: before it is pinned.
    pub fn choose() -> Result<Cores> {
        let allowed = allowed()?;
        Ok(Cores::among(&allowed, |core| {
            let path = format!(
                "/sys/devices/system/cpu/cpu{core}/topology/\
                 thread_siblings_list"
            );
            fs::read_to_string(path).map_or(vec![], |text| listed(&text))
        }))
    }

    /// The last of the ascending `allowed` is the generator's; its
    /// `siblings`, hyper-threads of one physical core, stay idle where the
    /// server has another one.
    pub fn among(
        allowed: &[usize],
        siblings: impl Fn(usize) -> Vec<usize>,
    ) -> Cores {
        let (Some(&generator), [_, _, ..]) = (allowed.last(), allowed) else {
            let (server, allowed) = (allowed.to_vec(), allowed.to_vec());
            return Cores { server, generator: None, shared: true, allowed };
        };
        let siblings = siblings(generator);
        let without = |others: &[usize]| -> Vec<usize> {
            let other =
                |&core: &usize| core != generator && !others.contains(&core);
            allowed.iter().copied().filter(other).collect()
        };
        let apart = without(&siblings);
        let shared = apart.is_empty();
        let server = if shared { without(&[]) } else { apart };
        let (generator, allowed) = (Some(generator), allowed.to_vec());
        Cores { server, generator, shared, allowed }
    }

    /// With so many cores for the server: the generator's is the last that it
    /// is given. `None` where there are fewer.
    pub fn with_server_on(&self, count: usize) -> Option<Cores> {
        let siblings = self.allowed.iter().filter(|it| {
            !self.server.contains(it) && self.generator != Some(**it)
        });
        let all = self.server.iter().chain(siblings).copied();
        let all: Vec<usize> = all.chain(self.generator).collect();
        let mut server = all.get(..count)?.to_vec();
        server.sort_unstable();
        let shared = self.shared || count > self.server.len();
        Some(Cores { server, shared, ..self.clone() })
    }

    /// How many there are, the generator's and its siblings included.
    pub fn count(&self) -> usize {
        self.allowed.len()
    }

    /// For [`crate::harness::Start::cores`].
    pub fn for_server(&self) -> Option<Vec<usize>> {
        self.generator.map(|_| self.server.clone())
    }

    /// Moves the calling thread, and all that it starts from now on, to the
    /// generator's core, if there is one.
    pub fn pin_generator(&self) -> Result<()> {
        let Some(core) = self.generator else {
            return Ok(());
        };
        sched_setaffinity(Pid::from_raw(0), &core_set(&[core])?)
            .with_context(|| format!("sched_setaffinity to core {core}"))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(generator) = self.generator else {
            return write!(
                f,
                "Not pinned: server and generator share the only core."
            );
        };
        let many = if self.server.len() == 1 { "core" } else { "cores" };
        let server = spans(&self.server);
        write!(f, "The server had {many} {server}, the generator core ")?;
        write!(f, "{generator}")?;
        if self.server.contains(&generator) {
            write!(f, ", which is one of them")?;
        } else if self.shared {
            write!(f, ", which are threads of one physical core")?;
        }
        write!(f, ".")
    }
}

/// The cores that the calling thread may use, ascending.
pub(super) fn allowed() -> Result<Vec<usize>> {
    let set =
        sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    let allowed = |&core: &usize| set.is_set(core).unwrap_or(false);
    Ok((0..CpuSet::count()).filter(allowed).collect())
}

/// The numbers of a list such as `0-2,8`.
fn listed(text: &str) -> Vec<usize> {
    let span = |item: &str| {
        let (from, to) = item.split_once('-').unwrap_or((item, item));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    text.split(',').filter_map(span).flatten().collect()
}

/// The other way round.
fn spans(cores: &[usize]) -> String {
    let runs = cores.chunk_by(|one, next| one + 1 == *next);
    let shown = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run.iter().map(ToString::to_string).collect(),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for text in ["0", "0-2,8", "1,3,5-6"] {
            assert_eq!(spans(&listed(text)), text);
        }
        assert_eq!(listed("0-2,8\n"), [0, 1, 2, 8]);
    }

    #[test]
    fn generator_shares_nothing_if_it_can() {
        let pairs = |core| vec![core / 2 * 2, core / 2 * 2 + 1];
        let four = Cores::among(&[0, 1, 2, 3], pairs);
        assert_eq!((&four.server[..], four.generator), (&[0, 1][..], Some(3)));
        assert_eq!(
            four.to_string(),
            "The server had cores 0-1, the generator core 3."
        );
        let one_pair = Cores::among(&[2, 3], pairs);
        assert_eq!(
            one_pair.to_string(),
            "The server had core 2, the generator core 3, which are threads \
             of one physical core."
        );
        // The sibling is not ours to use: it cannot be given away.
        let odd = Cores::among(&[1, 4], pairs);
        assert_eq!((&odd.server[..], odd.generator), (&[1][..], Some(4)));
        assert!(!odd.shared);
        // One, two, and the generator's as well.
        let on = |count| four.with_server_on(count).unwrap().server;
        assert_eq!((on(1), on(2), on(3)), (vec![0], vec![0, 1], vec![0, 1, 2]));
        assert_eq!(on(4), [0, 1, 2, 3]);
        assert_eq!(four.with_server_on(5), None);
        let both = one_pair.with_server_on(2).unwrap();
        assert_eq!(
            both.to_string(),
            "The server had cores 2-3, the generator core 3, which is one of \
             them."
        );
        assert_eq!(odd.with_server_on(1), Some(odd.clone()));
        let single = Cores::among(&[5], pairs);
        assert_eq!((&single.server[..], single.generator), (&[5][..], None));
        assert_eq!(single.for_server(), None);
        assert_eq!(single.with_server_on(1), Some(single.clone()));
        assert_eq!(single.with_server_on(2), None);
        assert!(single.to_string().starts_with("Not pinned: "));
    }
}

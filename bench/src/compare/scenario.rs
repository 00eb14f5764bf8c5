//! What servers are compared by: each scenario is a list of loads, and says
//! what they show.

use crate::harness;
use crate::measure::Cores;
use crate::models::{Model, PerClient};
use crate::results::Load;

/// Loads that belong together; their turns are interleaved, so that they may
/// be compared with one another as well.
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// One sentence on what it is, and what it shows.
    pub shows: &'static str,
    /// Its loads.
    pub points: &'static [Spot],
    /// How many times longer its turns are than usual.
    pub stretch: u32,
    /// Each server is compared with itself first of all: its turns at all
    /// loads come one after the other.
    pub with_itself: bool,
    /// Who takes part where nobody was named; everybody, if nothing is said.
    pub field: Option<&'static Field>,
}

/// The servers that a question is about.
pub struct Field {
    /// What ratios are against.
    pub baseline: &'static str,
    /// The servers, by their rows of the table.
    pub entrants: &'static [Entrant],
}

/// One of them.
pub struct Entrant {
    /// Its row.
    pub name: &'static str,
    /// At which loads it is asked, if not at all of them.
    pub only: Option<Only>,
}

/// Some loads of a scenario.
pub struct Only {
    /// Whether it is one of them.
    pub fits: fn(&Load) -> bool,
    /// Why the others are none.
    pub why: &'static str,
}

const fn entrant(name: &'static str) -> Entrant {
    Entrant { name, only: None }
}

impl Scenario {
    /// Whether it is asked at this load where nobody was named: `None` for a
    /// server that the question is not about, or why not.
    pub fn entry(
        &self,
        model: &Model,
        load: &Load,
    ) -> Option<Result<(), &str>> {
        let Some(field) = self.field else { return Some(Ok(())) };
        let all = field.entrants;
        let entrant = all.iter().find(|it| it.name == model.name)?;
        Some(match &entrant.only {
            Some(only) if !(only.fits)(load) => Err(only.why),
            _ => Ok(()),
        })
    }
}

/// One load of a scenario.
pub struct Spot {
    /// Its name, such as `50 connections`.
    pub name: &'static str,
    /// What is asked of every server.
    pub load: Load,
    /// Which servers are asked, and what is said to them.
    pub servers: Servers,
    /// It is among the few of a first look.
    pub quick: bool,
}

/// Which servers take part in a load, and how they are started for it.
#[derive(Clone, Copy)]
pub struct Servers {
    /// Only those of this binary take part, and why the others do not.
    pub only: Option<(&'static str, &'static str)>,
    /// What is added to their command lines.
    pub args: &'static [&'static str],
    /// On how many cores they run, where not on as many as there are.
    pub cores: Option<usize>,
}

impl Servers {
    /// Whoever can carry the load, as its row says.
    pub const ALL: Servers = Servers { only: None, args: &[], cores: None };
}

const fn spot(name: &'static str, load: Load) -> Spot {
    Spot { name, load, servers: Servers::ALL, quick: false }
}

const fn quick(name: &'static str, load: Load) -> Spot {
    Spot { name, load, servers: Servers::ALL, quick: true }
}

const fn spot_of(name: &'static str, load: Load, servers: Servers) -> Spot {
    Spot { name, load, servers, quick: false }
}

/// Loud messages take long.
const fn slow(args: &'static [&'static str]) -> Servers {
    let only = Some(("reactor", "has no slow handler"));
    Servers { only, args, cores: None }
}

/// One client in twenty is loud.
const fn some_loud(connections: usize) -> Load {
    Load { loud: connections / 20, ..busy(connections) }
}

/// 64 clients of a reactor of some form, on so many cores.
const fn form(
    name: &'static str,
    loud: usize,
    cores: usize,
    args: &'static [&'static str],
) -> Spot {
    let only = Some(("reactor", "is no form of the reactor"));
    Spot {
        name,
        load: Load { loud, ..busy(64) },
        servers: Servers { only, args, cores: Some(cores) },
        quick: false,
    }
}

/// 64 bytes, one message outstanding on each of so many connections.
const fn busy(connections: usize) -> Load {
    Load {
        connections,
        idle: 0,
        loud: 0,
        size: 64,
        depth: 1,
        rate: None,
        messages_per_connection: None,
    }
}

const fn one(size: usize) -> Load {
    Load { size, ..busy(1) }
}

const fn idle(active: usize, idle: usize) -> Load {
    Load { idle, ..busy(active) }
}

/// The scenario that holds completions against readiness.
pub const URING_OR_EPOLL: &str = "uring-or-epoll";

/// The load from which each of its sweeps changes one thing.
pub const BETWEEN: Load = busy(50);

/// So many bytes outstanding on a connection fill its windows both ways, so
/// that a send meets no room: they are a stream, and no request with its
/// response. tcp_wmem's usual most is as much: tcp(7).
pub const STREAM: usize = 4 << 20;

const fn streaming(connections: usize) -> Load {
    let size = 64 * 1024;
    Load { size, depth: STREAM / size, ..busy(connections) }
}

static URING_AND_EPOLL: Field = Field {
    baseline: "epoll_et",
    entrants: &[
        entrant("epoll_lt"),
        entrant("epoll_et"),
        entrant("proactor"),
        entrant("proactor-multishot"),
        Entrant {
            name: "proactor-sqpoll",
            only: Some(Only {
                fits: |load| load.size <= BETWEEN.size,
                why: "it saves calls, of which long messages have few for \
                      their bytes: asked up to 64 B",
            }),
        },
        Entrant {
            name: "proactor-zero-copy",
            only: Some(Only {
                fits: |load| load.size >= 4096,
                why: "it saves a copy, and has a notice more for each send: \
                      asked from 4 KiB on",
            }),
        },
        entrant("proactor-emulated"),
        // It has but a few clients at once, as its row says.
        entrant("proactor-aio"),
        entrant("floor"),
    ],
};

/// Every scenario, in the order in which a report shows them.
pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "round_trip",
        shows: "one client sends, and waits for the answer: nothing to share, \
                so every call more is seen",
        points: &[
            spot("1 B", one(1)),
            spot("64 B", one(64)),
            spot("1 KiB", one(1024)),
            spot("64 KiB", one(64 * 1024)),
        ],
        stretch: 1,
        with_itself: false,
        field: None,
    },
    Scenario {
        name: "busy",
        shows: "so many clients, each with one message of 64 B outstanding: \
                one wait may find many of them ready",
        points: &[
            quick("1 connection", busy(1)),
            spot("10 connections", busy(10)),
            quick("50 connections", busy(50)),
            spot("100 connections", busy(100)),
            quick("1,000 connections", busy(1000)),
        ],
        stretch: 1,
        with_itself: false,
        field: None,
    },
    Scenario {
        name: "pipelined",
        shows: "50 clients, each with 16 messages of 64 B outstanding: one \
                read may bring them all",
        points: &[spot("depth 16", Load { depth: 16, ..busy(50) })],
        stretch: 1,
        with_itself: false,
        field: None,
    },
    Scenario {
        name: "large",
        shows: "50 clients, messages of 16 KiB: copying is most of it",
        points: &[spot("16 KiB", Load { size: 16 * 1024, ..busy(50) })],
        stretch: 1,
        with_itself: false,
        field: None,
    },
    Scenario {
        name: "idle",
        shows: "100 busy clients among idle ones: what is paid for those who \
                say nothing",
        points: &[
            spot("none idle", idle(100, 0)),
            quick("1,000 idle", idle(100, 1000)),
            spot("10,000 idle", idle(100, 10_000)),
        ],
        stretch: 1,
        with_itself: true,
        field: None,
    },
    Scenario {
        name: "scan",
        shows: "one busy client among idle ones, so that each message is one \
                wait: what a wait costs by the descriptor",
        points: &[
            spot("none idle", idle(1, 0)),
            spot("100 idle", idle(1, 100)),
            spot("300 idle", idle(1, 300)),
            spot("900 idle", idle(1, 900)),
            spot("3,000 idle", idle(1, 3000)),
            spot("10,000 idle", idle(1, 10_000)),
        ],
        stretch: 1,
        with_itself: true,
        field: None,
    },
    Scenario {
        name: "churn",
        shows: "10 clients at a time that connect, send 64 B, take the answer \
                and close: what a client costs",
        points: &[quick(
            "1 message each",
            Load { messages_per_connection: Some(1), ..busy(10) },
        )],
        stretch: 1,
        with_itself: false,
        field: None,
    },
    Scenario {
        name: "bulk",
        shows: "one client, 4 messages of 1 MiB outstanding: how fast bytes \
                go through",
        points: &[spot("1 MiB", Load { depth: 4, ..one(1024 * 1024) })],
        stretch: 1,
        with_itself: false,
        field: None,
    },
    Scenario {
        name: "latency",
        shows: "5,000 messages a second over 50 clients, due by the clock \
                whether or not the server keeps up: what clients wait when it \
                is not full",
        points: &[spot("5,000/s", Load { rate: Some(5000.0), ..busy(50) })],
        stretch: 4,
        with_itself: false,
        field: None,
    },
    Scenario {
        name: "slow_handler",
        shows: "of 20 clients one sends messages that the server takes long \
                for (it sleeps, or works): what the other 19 wait meanwhile",
        points: &[
            spot_of("sleep 0 ms", some_loud(20), slow(&["--sleep", "0ms"])),
            spot_of("sleep 1 ms", some_loud(20), slow(&["--sleep", "1ms"])),
            Spot {
                quick: true,
                ..spot_of(
                    "sleep 10 ms",
                    some_loud(20),
                    slow(&["--sleep", "10ms"]),
                )
            },
            spot_of(
                "sleep 10 ms, 5 of 100",
                some_loud(100),
                slow(&["--sleep", "10ms"]),
            ),
            spot_of("work 1 ms", some_loud(20), slow(&["--work", "1ms"])),
        ],
        stretch: 2,
        with_itself: false,
        field: None,
    },
    Scenario {
        name: "forms",
        shows: "64 clients, and a server that may use one core or two, by how \
                its reactors and workers share them: with nothing to do for a \
                message, and with 20 us of work for each",
        points: &[
            form("1 core", 0, 1, &[]),
            form("2 cores", 0, 2, &[]),
            form("1 core, 20 us of work", 64, 1, &["--work", "20us"]),
            form("2 cores, 20 us of work", 64, 2, &["--work", "20us"]),
        ],
        stretch: 1,
        with_itself: false,
        field: None,
    },
    Scenario {
        name: URING_OR_EPOLL,
        shows: "completions held against readiness, by connections (1 to \
                10,000), by size (16 B to 64 KiB), by depth (1 to 32), and \
                streams beside requests: when io_uring wins and when it does \
                not",
        points: &[
            spot("1 connection", busy(1)),
            spot("10 connections", busy(10)),
            // Each sweep passes here.
            quick("50 connections, 64 B", BETWEEN),
            quick("1,000 connections", busy(1000)),
            spot("10,000 connections", busy(10_000)),
            spot("16 B", Load { size: 16, ..BETWEEN }),
            spot("1 KiB", Load { size: 1024, ..BETWEEN }),
            spot("4 KiB", Load { size: 4 * 1024, ..BETWEEN }),
            spot("16 KiB", Load { size: 16 * 1024, ..BETWEEN }),
            spot("64 KiB", Load { size: 64 * 1024, ..BETWEEN }),
            spot("depth 4", Load { depth: 4, ..BETWEEN }),
            spot("depth 16", Load { depth: 16, ..BETWEEN }),
            spot("depth 32", Load { depth: 32, ..BETWEEN }),
            spot("1 connection, 64 KiB", one(64 * 1024)),
            spot(
                "10 connections, 64 KiB",
                Load { size: 64 * 1024, ..busy(10) },
            ),
            spot("1 stream", streaming(1)),
            spot("10 streams", streaming(10)),
        ],
        stretch: 1,
        with_itself: false,
        field: Some(&URING_AND_EPOLL),
    },
];

/// Threads or processes beyond which a model that takes one for each client is
/// not tried: they would fill the machine.
const MOST_TASKS: usize = 2000;

/// Descriptors that a program has besides its connections, generously.
const SPARE: usize = 16;

/// What one read of a server brings, if nothing is said of its buffer.
const ONE_READ: usize = 16 * 1024;

/// What a machine has for a comparison.
#[derive(Clone, Copy)]
pub struct Room {
    /// A program may have so many.
    pub descriptors: usize,
    /// This one may use so many.
    pub cores: usize,
}

impl Room {
    /// What is never too little.
    const ENOUGH: Room = Room { descriptors: usize::MAX, cores: usize::MAX };

    /// What this one has.
    pub fn here() -> Room {
        let cores = Cores::choose().map_or(1, |it| it.count());
        Room { descriptors: harness::descriptor_limit(), cores }
    }
}

/// Why `model` cannot be asked this, or nothing.
pub fn absence(model: &Model, spot: &Spot, room: Room) -> Option<String> {
    if let Some((binary, why)) = spot.servers.only
        && model.binary != binary
    {
        return Some(why.to_owned());
    }
    if let Some(cores) = spot.servers.cores
        && cores > room.cores
    {
        return Some(format!("needs {cores} cores, and has {}", room.cores));
    }
    let Room { descriptors, .. } = room;
    let load = &spot.load;
    let clients = load.connections + load.idle;
    let comes_and_goes = load.messages_per_connection.is_some();
    if model.name == "floor" {
        let keep_sending =
            load.idle == 0 && load.rate.is_none() && !comes_and_goes;
        if !keep_sending {
            let why = "it goes round clients that all keep sending";
            return Some(why.to_owned());
        }
        // Else some have said all that they will while others have not, and
        // it waits for those.
        let outstanding = load.size.saturating_mul(load.depth);
        let one_read = load.connections == 1 || outstanding <= ONE_READ;
        return (!one_read).then(|| {
            "it goes round clients that are each done with one read".to_owned()
        });
    }
    let limits = &model.limits;
    if let Some(most) = limits.clients
        && clients > most
        && !comes_and_goes
    {
        let word = if most == 1 { "client" } else { "clients" };
        return Some(format!("{most} {word} at a time"));
    }
    if let Some(below) = limits.descriptors_below
        && clients + SPARE > below
    {
        return Some(format!("descriptors below {below}"));
    }
    let tasks = match limits.per_client {
        PerClient::Nothing | PerClient::Buffer | PerClient::Task => None,
        PerClient::Thread => Some("threads"),
        PerClient::Process => Some("processes"),
    };
    if let Some(tasks) = tasks
        && clients > MOST_TASKS
    {
        return Some(format!("it would take {clients} {tasks}; not tried"));
    }
    (clients + SPARE > descriptors).then(|| {
        format!("needs {clients} descriptors, and the limit is {descriptors}")
    })
}

/// What ratios are against, if nothing else is asked: the least that N
/// connections can cost, or where that cannot be had, the plain epoll server;
/// among those of one binary, the plainest.
pub fn usual_baseline(spot: &Spot) -> &'static str {
    let floor = crate::models::PEERS.iter().find(|peer| peer.name == "floor");
    let fits = |model| absence(model, spot, Room::ENOUGH).is_none();
    match spot.servers.only {
        Some((binary, _)) => binary,
        None if floor.is_some_and(fits) => "floor",
        None => "epoll_lt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{find_with_peers, is_peer, names};

    const ROOM: Room = Room { descriptors: 20_000, cores: 2 };

    fn why(model: &str, load: &Load) -> Option<String> {
        let model = find_with_peers(model).unwrap();
        absence(model, &spot("", *load), ROOM)
    }

    #[test]
    fn who_is_left_out_and_why() {
        assert_eq!(why("blocking", &busy(1)), None);
        let one = "1 client at a time";
        assert_eq!(why("blocking", &busy(2)).as_deref(), Some(one));
        assert_eq!(why("blocking", &idle(1, 1)).as_deref(), Some(one));
        // They come one after the other.
        let churn = Load { messages_per_connection: Some(1), ..busy(10) };
        assert_eq!(why("blocking", &churn), None);
        assert_eq!(why("select_server", &idle(1, 900)), None);
        assert_eq!(why("select_server", &busy(1000)), None);
        assert!(why("select_server", &idle(100, 1000)).is_some());
        assert!(why("blocking-thread", &busy(1000)).is_none());
        assert!(why("blocking-thread", &idle(100, 10_000)).is_some());
        assert!(why("floor", &idle(100, 1000)).is_some());
        assert_eq!(why("floor", &busy(1000)), None);
        assert_eq!(why("floor", &streaming(1)), None);
        assert!(why("floor", &streaming(10)).is_some());
        assert_eq!(why("epoll_lt", &idle(100, 10_000)), None);
        assert!(why("epoll_lt", &idle(100, 20_000)).is_some());
    }

    #[test]
    fn every_model_is_compared_somewhere_and_every_point_has_its_baseline() {
        let spots = || SCENARIOS.iter().flat_map(|it| it.points);
        let why = |name, spot: &Spot| {
            absence(find_with_peers(name).unwrap(), spot, ROOM)
        };
        for name in names() {
            assert!(spots().any(|it| why(name, it).is_none()), "{name}");
        }
        for spot in spots() {
            let baseline = usual_baseline(spot);
            assert_eq!(why(baseline, spot), None, "{}", spot.name);
        }
    }

    #[test]
    fn who_a_question_is_about_is_in_the_table() {
        for field in SCENARIOS.iter().filter_map(|it| it.field) {
            let names = || field.entrants.iter().map(|it| it.name);
            for name in names() {
                assert!(find_with_peers(name).is_some(), "{name}");
            }
            assert!(names().any(|name| name == field.baseline));
        }
    }

    #[test]
    fn only_those_with_slow_messages_are_asked_for_them() {
        let slow = SCENARIOS.iter().find(|it| it.name == "slow_handler");
        for spot in slow.unwrap().points {
            let why =
                |name| absence(find_with_peers(name).unwrap(), spot, ROOM);
            assert_eq!(why("reactor-pool"), None);
            let room = Room { cores: 1, ..ROOM };
            let model = find_with_peers("reactor").unwrap();
            assert_eq!(absence(model, spot, room), None);
            let none = Some("has no slow handler");
            assert_eq!(why("epoll_lt").as_deref(), none);
            assert_eq!(why("floor").as_deref(), none);
            assert_eq!(spot.load.loud * 20, spot.load.connections);
        }
    }

    #[test]
    fn cores_that_are_not_there_are_missed() {
        let forms = SCENARIOS.iter().find(|it| it.name == "forms").unwrap();
        let model = find_with_peers("reactor-threads").unwrap();
        let one = Room { cores: 1, ..ROOM };
        let why = |at: usize| absence(model, &forms.points[at], one);
        assert_eq!(why(0), None);
        assert_eq!(why(1).as_deref(), Some("needs 2 cores, and has 1"));
    }

    #[test]
    fn peers_are_told_from_models() {
        assert!(is_peer(find_with_peers("floor").unwrap()));
        assert!(!is_peer(find_with_peers("epoll_lt").unwrap()));
    }
}

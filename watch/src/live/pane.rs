//! One server with its clients, and what is known of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bench::harness::{Server, Start, Target};
use bench::models::Model;
use nix::sys::signal::Signal;

use super::feed::Feed;
use super::kernel::Kernel;
use super::lessons::Lessons;
use super::seen::{Descriptor, Seen};
use super::sets::InWait;
use crate::clients::Crowd;
use crate::player::Player;
use crate::record::Peer;
use crate::scene::Scene;

/// How long what the kernel said is good for, while nothing happens.
const QUIET: Duration = Duration::from_secs(1);
/// And while something does.
const LIVELY: Duration = Duration::from_millis(100);
/// The share of our time that may be spent on asking.
const SHARE: u32 = 20;

/// One server with its clients.
pub struct Pane {
    /// Which server.
    pub model: &'static Model,
    /// Its clients.
    pub crowd: Crowd,
    /// What it was seen to do.
    pub seen: Seen,
    /// What the kernel said of it.
    pub kernel: Kernel,
    /// Its descriptors, by the record and by the kernel.
    pub descriptors: Vec<Descriptor>,
    /// What went into the last call that was seen to sleep.
    pub asked: Option<InWait>,
    /// What is explained.
    pub lessons: Lessons,
    /// Why there is no more to be seen.
    pub trouble: Option<String>,
    /// Gone once it has ended.
    server: Option<Server>,
    feed: Feed,
    player: Option<Player<'static>>,
    /// How many clients have told their names.
    named: usize,
    /// When the kernel was asked, and how long that took.
    looked: Option<(Instant, Duration)>,
}

impl Pane {
    /// Starts a server.
    pub fn start(model: &'static Model) -> Result<Pane> {
        let feed = Feed::new()?;
        let path = feed.path();
        let mut args = vec!["--watch", "json", "--watch-file", &path];
        args.extend(["--watch-live", "--watch-limit", "1TiB"]);
        // Rounds without end would flood us if each were told.
        if !model.limits.burns_core && !model.limits.idle_wakes {
            args.push("--watch-every");
        }
        let start = Start::with_args(&args);
        let server = Server::start(&Target::Model(model), &start)
            .with_context(|| model.name)?;
        Ok(Pane::of(model, server.addr, feed, Some(server)))
    }

    fn of(
        model: &'static Model,
        addr: SocketAddr,
        feed: Feed,
        server: Option<Server>,
    ) -> Pane {
        Pane {
            model,
            crowd: Crowd::new(addr),
            seen: Seen::new(),
            kernel: Kernel::default(),
            descriptors: Vec::new(),
            asked: None,
            lessons: Lessons::default(),
            trouble: None,
            server,
            feed,
            player: None,
            named: 0,
            looked: None,
        }
    }

    /// For tests: a server of which only the address is real.
    #[cfg(test)]
    pub fn without_server(model: &'static Model, addr: SocketAddr) -> Pane {
        Pane::of(model, addr, Feed::new().expect("a pipe"), None)
    }

    /// The record.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Whether the server waits for its record to be read.
    pub fn is_behind(&self) -> bool {
        self.feed.is_behind
    }

    /// Whom a descriptor stands for.
    pub fn who(&self, peer: Option<&Peer>) -> String {
        peer.map_or_else(String::new, |peer| self.seen.name_of(peer))
    }

    /// A descriptor with whom it stands for: `8 talker`.
    pub fn descriptor(&self, fd: i32) -> String {
        let known = self.descriptors.iter().find(|it| it.fd == fd);
        let who = self.who(known.and_then(|it| it.peer.as_ref()));
        format!("{fd} {who}").trim_end().to_owned()
    }

    /// A new client connects.
    pub fn open(&mut self, name: &str) {
        if self.trouble.is_none()
            && let Err(error) = self.crowd.connect(name)
        {
            self.end(format!("{error:#}"));
        }
    }

    /// A scene begins.
    pub fn play(&mut self, scene: &'static Scene) {
        self.player = Some(Player::new(scene));
    }

    /// Does what is due in the scene.
    pub fn advance(&mut self, at: Duration) {
        if let (Some(player), Some(server)) = (&mut self.player, &self.server)
            && let Err(error) = player.advance(at, &mut self.crowd, server)
        {
            self.trouble = Some(format!("{error:#}"));
            self.player = None;
        }
    }

    /// When the scene goes on, if that depends on the time alone.
    pub fn next_due(&self) -> Option<Duration> {
        self.player.as_ref()?.next_due(&self.crowd)
    }

    /// Whether the scene is over.
    pub fn is_done(&self) -> bool {
        self.server.is_none()
            || self.player.as_ref().is_none_or(Player::is_done)
    }

    /// Moves what the clients have to move, and says whether anything
    /// happened to them.
    pub fn pump(&mut self) -> bool {
        if let Err(error) = self.crowd.pump(Duration::ZERO) {
            self.end(format!("{error:#}"));
        }
        !self.crowd.take_deeds().is_empty()
    }

    /// Stops the server as it is, or lets it go on.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        let server = self.server.as_ref();
        server.map_or(Ok(()), |server| server.signal_all(signal))
    }

    /// Takes what the record and the kernel say, and says whether the record
    /// said anything. If nothing happens the kernel is asked less often.
    pub fn look(&mut self, quiet: bool) -> bool {
        let unnamed = self.crowd.clients().iter().enumerate().skip(self.named);
        for (at, client) in unnamed {
            self.seen.name_client(at + 1, &client.name);
            self.named = at + 1;
        }
        let entries = self.feed.take().unwrap_or_else(|error| {
            self.end(format!("{error:#}"));
            Vec::new()
        });
        let told = !entries.is_empty();
        for entry in entries {
            self.seen.add(entry);
        }
        self.lessons.go_on(self.seen.stream());
        if let Some(server) = &mut self.server
            && let Err(end) = server.must_live()
        {
            self.end(format!("{end:#}"));
        }
        let good = if quiet && !told { QUIET } else { LIVELY };
        // A server of many processes takes long to look at.
        let good = |took: Duration| good.max(took * SHARE);
        if self.looked.is_none_or(|(at, took)| at.elapsed() >= good(took)) {
            let begin = Instant::now();
            self.ask_kernel();
            self.looked = Some((Instant::now(), begin.elapsed()));
        }
        told
    }

    fn ask_kernel(&mut self) {
        if let Some(server) = &self.server {
            self.kernel = Kernel::look(server);
        }
        let gone = self.kernel.gone(self.seen.threads());
        self.seen.forget(&gone);
        self.descriptors = self.seen.descriptors();
        self.kernel.correct(&mut self.descriptors);
        let processes = self.kernel.processes.iter();
        let mut threads = processes.flat_map(|it| &it.threads);
        let asked = |wait: &&InWait| wait.is_of_the_model();
        let asked = threads.find_map(|it| it.wait.as_ref().filter(asked));
        if let Some(asked) = asked {
            self.asked = Some(asked.clone());
        }
    }

    /// The server is no more.
    fn end(&mut self, why: String) {
        self.trouble = Some(why);
        self.server = None;
        self.player = None;
        self.kernel = Kernel::default();
    }
}

use std::collections::VecDeque;
use std::io::Write;

use bytesize::ByteSize;

use super::assembly::{Assembly, Sleep};
use super::call::Call;
use super::fold::{Folder, Piece};
use super::form::{Form, SLEEP, Start};
use super::output::Output;
use super::totals::Totals;
use crate::Fd;
use crate::event::{Event, Kind};

/// Turns events into the lines of a form: puts calls together, folds the
/// rounds that repeat, counts, and keeps to the limit.
pub(crate) struct Recorder<W> {
    page: Page<W>,
    assembly: Assembly,
    totals: Totals,
    /// By the number of the thread.
    folders: Vec<Folder>,
    /// How many threads there were when the past was last forgotten.
    swept: usize,
    /// Calls that sleep within a round, and are not worth a line yet.
    dozing: VecDeque<Sleep>,
    calls: Vec<Call>,
    options: Options,
    /// When progress was given last.
    progress: u64,
}

/// What is wanted of a recorder.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// The bytes that may be written before the final table.
    pub limit: u64,
    /// No round is folded.
    pub every: bool,
    /// Somebody looks on, and wants to see how far a long round is.
    pub live: bool,
}

/// What is written, in which form.
struct Page<W> {
    form: Box<dyn Form>,
    output: Output<W>,
    limit: u64,
    /// The limit was met: only counting goes on.
    full: bool,
    lines: Vec<u8>,
}

/// The longest round that is found, if its thread is one of few.
const LONGEST: usize = 5000;

/// So many new threads are a reason to forget what the others did.
const MANY: usize = 1024;

/// The calls that are remembered of all threads together (see `Folder`).
const REMEMBERED: usize = 250_000;

impl<W: Write> Recorder<W> {
    pub fn new(form: Box<dyn Form>, to: W, options: Options) -> Self {
        Recorder {
            page: Page {
                form,
                output: Output::new(to, options.limit),
                limit: options.limit,
                full: false,
                lines: Vec::new(),
            },
            assembly: Assembly::default(),
            totals: Totals::default(),
            folders: Vec::new(),
            swept: 0,
            dozing: VecDeque::new(),
            calls: Vec::new(),
            options,
            progress: 0,
        }
    }

    /// Takes the next event.
    pub fn add(&mut self, event: &Event) {
        if event.kind == Kind::Start {
            self.assembly.start(event);
            self.progress = event.t0;
            let start = Start {
                name: event.call().to_owned(),
                pid: event.pid,
                listener: event.fd,
                stop: event.asked as Fd,
                at: event.t0,
            };
            self.page.put(|form, lines| form.start(&start, lines));
            return;
        }
        let mut calls = std::mem::take(&mut self.calls);
        self.assembly.add(event, &mut calls);
        calls.drain(..).for_each(|call| self.call(call));
        self.calls = calls;
        for thread in self.assembly.ended() {
            if let Some(folder) = self.folders.get_mut(thread) {
                folder.flush(&mut |piece| self.page.piece(piece));
                *folder = Folder::default();
            }
        }
    }

    fn call(&mut self, call: Call) {
        self.totals.add(&call);
        if self.page.full {
            return;
        }
        if self.options.every {
            self.page.piece(Piece::One(call));
            return;
        }
        if self.folders.len() <= call.thread {
            self.folders.resize_with(call.thread + 1, Folder::default);
            self.sweep();
        }
        let longest = REMEMBERED / (2 * self.folders.len());
        let longest = longest.clamp(LONGEST / 100, LONGEST);
        let folder = &mut self.folders[call.thread];
        folder.add(call, longest, &mut |piece| self.page.piece(piece));
    }

    /// Forgets the past of all threads now and then, because most of very many
    /// have ended, and nobody says so.
    fn sweep(&mut self) {
        if self.folders.len() < self.swept + MANY {
            return;
        }
        self.swept = self.folders.len();
        let resting = self.folders.iter_mut().filter(|one| !one.folds());
        resting.for_each(|folder| *folder = Folder::default());
    }

    /// Says how far long rounds are, if it is time for that; and writes, for
    /// a server that never rests may give no other occasion.
    pub fn progress(&mut self, at: u64) {
        let due = self.progress + self.page.form.pace().round;
        if !self.options.live || at < due {
            return;
        }
        self.progress = at;
        for folder in &mut self.folders {
            folder.progress(&mut |piece| self.page.piece(piece));
        }
        self.page.output.flush();
    }

    /// Everything that happened until `at` has been added: shows who sleeps.
    pub fn caught_up(&mut self, at: u64) {
        self.progress(at);
        while let Some(sleep) = self.assembly.asleep(at.saturating_sub(SLEEP)) {
            let folder = self.folders.get(sleep.thread);
            if !self.page.form.shows_sleep() {
                continue;
            } else if folder.is_some_and(Folder::folds) {
                self.dozing.push_back(sleep);
            } else {
                self.page.put(|form, lines| form.asleep(&sleep, lines));
            }
        }
        let long_ago = at.saturating_sub(self.page.form.pace().nap);
        while self.dozing.front().is_some_and(|doze| doze.since <= long_ago) {
            let Some(sleep) = self.dozing.pop_front() else {
                break;
            };
            if self.assembly.sleeps(&sleep) {
                let folder = &mut self.folders[sleep.thread];
                folder.flush(&mut |piece| self.page.piece(piece));
                self.page.put(|form, lines| form.asleep(&sleep, lines));
            }
        }
    }

    /// Nothing is to be read: writes what has been said, and says when there
    /// may be more to say.
    pub fn rest(&mut self) -> Option<u64> {
        self.page.output.flush();
        let pace = self.page.form.pace();
        let sleep = self.assembly.first_begun().map(|at| at + SLEEP);
        let doze = self.dozing.front().map(|sleep| sleep.since + pace.nap);
        let folds = self.options.live && self.folders.iter().any(Folder::owes);
        let progress = folds.then_some(self.progress + pace.round);
        [sleep, doze, progress].into_iter().flatten().min()
    }

    /// The last of the writers has gone.
    pub fn end(&mut self) {
        let mut calls = std::mem::take(&mut self.calls);
        self.assembly.finish(&mut calls);
        calls.into_iter().for_each(|call| self.call(call));
        for folder in &mut self.folders {
            folder.flush(&mut |piece| self.page.piece(piece));
        }
        self.page.end(&self.totals);
    }
}

impl<W: Write> Page<W> {
    fn piece(&mut self, piece: Piece) {
        self.put(|form, lines| match &piece {
            Piece::One(call) => form.call(call, lines),
            Piece::Rounds(rounds) => form.rounds(rounds, lines),
        });
    }

    /// Writes lines, or that there is no more room for them.
    fn put(&mut self, add: impl FnOnce(&mut dyn Form, &mut Vec<u8>)) {
        if self.full {
            return;
        }
        self.lines.clear();
        add(&mut *self.form, &mut self.lines);
        if !self.output.put(&self.lines) {
            self.full = true;
            self.lines.clear();
            let limit = ByteSize::b(self.limit).display().iec().to_string();
            let limit = limit.replace(".0 ", " ");
            let note = format!(
                "recording stopped after {limit} (--watch-limit); the server \
                 goes on"
            );
            self.form.note(&note, &mut self.lines);
            self.output.put_anyway(&self.lines);
        }
    }

    fn end(&mut self, totals: &Totals) {
        self.lines.clear();
        self.form.end(totals, &mut self.lines);
        self.output.put_anyway(&self.lines);
        self.output.flush();
    }
}

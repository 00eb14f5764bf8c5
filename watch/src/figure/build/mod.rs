//! Makes a figure of what a run left behind.

mod cast;
mod clients;
mod items;
mod lens;
mod pen;
mod queues;
mod server;
mod tell;
#[cfg(test)]
mod tests;
mod workers;

use super::data::{Bar, Figure, Phase, Told};
use super::run::Run;
use crate::scene::Scene;
use cast::Cast;

/// The figure of a run.
pub fn figure(run: &Run, scene: &Scene) -> Figure {
    let mut sheet = Sheet::new(run.begin, run.end);
    let threads = items::threads(&run.lines);
    let cast = Cast::new(run, &threads);
    let mut lanes = clients::lanes(run, &mut sheet);
    lanes.extend(server::lanes(run, scene, &threads, &cast, &mut sheet));
    lanes.extend(workers::lanes(run, &threads, &cast, &mut sheet));
    lanes.extend(queues::lanes(&threads, &cast, &mut sheet));
    let lens = lens::around_a_message(&lanes, sheet.span());
    Figure {
        model: run.model.name.to_owned(),
        summary: run.model.summary.to_owned(),
        look: scene.look(run.model.name).to_owned(),
        span: sheet.span(),
        lanes,
        calls: sheet.calls,
        lens,
        slowdown: None,
    }
}

/// Where calls are written down, and times counted from the beginning.
struct Sheet {
    begin: u64,
    end: u64,
    calls: Vec<Told>,
}

impl Sheet {
    fn new(begin: u64, end: u64) -> Sheet {
        Sheet { begin, end, calls: Vec::new() }
    }

    fn span(&self) -> u64 {
        self.end - self.begin
    }

    /// A time as the figure has it; what lies outside of it is moved to its
    /// edge.
    fn time(&self, at: u64) -> u64 {
        at.clamp(self.begin, self.end) - self.begin
    }

    /// Whether something of this lies within.
    fn shows(&self, from: u64, to: u64) -> bool {
        from <= self.end && to >= self.begin
    }

    /// Writes a call down; its place among the figure's.
    fn tell(&mut self, told: Told) -> usize {
        self.calls.push(told);
        self.calls.len() - 1
    }

    /// Draws from one time of the clock to another, if anything of that is to
    /// be seen.
    fn draw(
        &self,
        bars: &mut Vec<Bar>,
        phase: Phase,
        (from, to): (u64, u64),
        call: Option<usize>,
    ) {
        let (from, to) = (self.time(from), self.time(to));
        if from < to {
            bars.push(Bar { phase, from, to, call, dense: None });
        }
    }
}

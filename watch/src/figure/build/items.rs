//! The record, thread by thread and call by call.

use std::collections::HashSet;

use crate::record::{Call, Line};

/// A thread of the server and what it did, in order.
pub struct Thread {
    pub pid: i32,
    pub tid: i32,
    pub items: Vec<Item>,
}

/// What stands in the record of a thread.
pub enum Item {
    /// A call, or a signal.
    Call(Box<Made>),
    /// Many calls that only repeat, and move no bytes.
    Rounds(Rounds),
}

/// Many calls that only repeat.
#[derive(Default)]
pub struct Rounds {
    pub t0: u64,
    pub t1: u64,
    pub cpu: u64,
    /// How often all of them were made.
    pub times: u64,
    pub calls: u64,
    /// How many of them for nothing.
    pub wasted: u64,
    /// The time within them.
    pub took: u64,
    /// Whether they may sleep.
    pub sleep: bool,
}

/// A call that was made. Times are of CLOCK_MONOTONIC.
#[derive(Clone)]
pub struct Made {
    pub t0: u64,
    pub t1: u64,
    /// How long its thread had been on a CPU at its end.
    pub cpu: u64,
    /// Of an operation that came out of a queue: how long it was under way.
    pub in_flight: Option<u64>,
    pub call: Call,
}

impl Item {
    pub fn t0(&self) -> u64 {
        match self {
            Item::Call(made) => made.t0,
            Item::Rounds(rounds) => rounds.t0,
        }
    }

    pub fn t1(&self) -> u64 {
        match self {
            Item::Call(made) => made.t1,
            Item::Rounds(rounds) => rounds.t1,
        }
    }

    pub fn cpu(&self) -> u64 {
        match self {
            Item::Call(made) => made.cpu,
            Item::Rounds(rounds) => rounds.cpu,
        }
    }

    pub fn call(&self) -> Option<&Made> {
        match self {
            Item::Call(made) => Some(made),
            Item::Rounds(_) => None,
        }
    }
}

impl Thread {
    /// Its calls and signals that stand there one by one.
    pub fn calls(&self) -> impl Iterator<Item = &Made> {
        self.items.iter().filter_map(Item::call)
    }
}

/// All threads, in the order in which they first called something.
pub fn threads(lines: &[Line]) -> Vec<Thread> {
    let mut threads: Vec<Thread> = Vec::new();
    for line in lines {
        let of_line = |it: &Thread| (it.pid, it.tid) == (line.pid, line.tid);
        let at = threads.iter().rposition(of_line).unwrap_or_else(|| {
            let (pid, tid) = (line.pid, line.tid);
            threads.push(Thread { pid, tid, items: Vec::new() });
            threads.len() - 1
        });
        add(line, &mut threads[at].items);
    }
    for thread in &mut threads {
        thread.items = folded(std::mem::take(&mut thread.items));
    }
    threads.sort_by_key(|thread| thread.items.first().map(Item::t0));
    threads
}

fn add(line: &Line, items: &mut Vec<Item>) {
    let moves = |call: &Call| call.brought() + call.took_out() > 0;
    match line.are_rounds() {
        true if line.calls().iter().any(moves) => write_out(line, items),
        true => items.push(Item::Rounds(Rounds::of(line))),
        false => items.extend(line.calls().iter().map(|call| {
            Item::Call(Box::new(Made {
                t0: line.t0_ns,
                t1: line.t1_ns,
                cpu: line.cpu_ns,
                in_flight: line.in_flight_ns,
                call: call.clone(),
            }))
        })),
    }
}

/// Rounds that move bytes, call by call: every byte has its place in the
/// figure. When each call was made is not in the record; they are spread
/// evenly.
fn write_out(line: &Line, items: &mut Vec<Item>) {
    let calls = line.times() * line.calls().len() as u64;
    let took = line.took_ns / calls;
    let cpu0 = line.cpu0_ns.unwrap_or(line.cpu_ns);
    let part = |from: u64, to: u64, n: u64| from + (to - from) * n / calls;
    let round = line.calls().iter().cycle();
    for (n, call) in (0..calls).zip(round) {
        let t0 = part(line.t0_ns, line.t1_ns, n);
        let end = part(line.t0_ns, line.t1_ns, n + 1);
        items.push(Item::Call(Box::new(Made {
            t0,
            t1: end.min(t0 + took),
            cpu: part(cpu0, line.cpu_ns, n + 1),
            in_flight: None,
            call: call.clone(),
        })));
    }
}

/// So many calls for nothing stand one by one at each end of a stretch.
const SHOWN: usize = 24;

/// The record folds no rounds that it has not seen twice. In a figure one call
/// for nothing is like another, wherever there are many of them.
fn folded(items: Vec<Item>) -> Vec<Item> {
    let barren = |item: &Item| match item {
        Item::Call(made) => made.call.wasted() && made.call.verb != "wait",
        Item::Rounds(rounds) => rounds.wasted == rounds.calls,
    };
    let mut left = Vec::new();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let useful = std::iter::from_fn(|| items.next_if(|it| !barren(it)));
        left.extend(useful);
        let stretch = std::iter::from_fn(|| items.next_if(barren));
        let mut stretch: Vec<Item> = stretch.collect();
        let is_call = |item: &&Item| matches!(item, Item::Call(_));
        let first = stretch.iter().take_while(is_call).count().min(SHOWN);
        let last = stretch.iter().rev().take_while(is_call).count().min(SHOWN);
        if stretch.len() > first + last + 1 {
            let end = stretch.split_off(stretch.len() - last);
            let middle = stretch.split_off(first);
            stretch.push(Item::Rounds(Rounds::of_all(&middle)));
            stretch.extend(end);
        }
        left.append(&mut stretch);
    }
    left
}

impl Rounds {
    fn of(line: &Line) -> Rounds {
        let calls = line.calls();
        let count = |wanted: fn(&Call) -> bool| {
            let calls = calls.iter().filter(|call| wanted(call));
            line.times() * calls.count() as u64
        };
        Rounds {
            t0: line.t0_ns,
            t1: line.t1_ns,
            cpu: line.cpu_ns,
            times: line.times(),
            calls: count(|_| true),
            wasted: count(Call::wasted),
            took: line.took_ns,
            sleep: calls.iter().any(|call| call.verb == "wait"),
        }
    }

    fn of_all(items: &[Item]) -> Rounds {
        let t0 = items.first().map_or(0, Item::t0);
        let mut all = Rounds { t0, ..Rounds::default() };
        let mut names = HashSet::new();
        for item in items {
            (all.t1, all.cpu) = (item.t1(), item.cpu());
            match item {
                Item::Call(made) => {
                    names.insert((&made.call.name, made.call.fd));
                    all.calls += 1;
                    all.wasted += u64::from(made.call.wasted());
                    all.took += made.t1 - made.t0;
                }
                Item::Rounds(rounds) => {
                    all.times += rounds.times;
                    all.calls += rounds.calls;
                    all.wasted += rounds.wasted;
                    all.took += rounds.took;
                    all.sleep |= rounds.sleep;
                }
            }
        }
        let alone = items.iter().filter_map(Item::call).count() as u64;
        all.times += alone / (names.len() as u64).max(1);
        all
    }
}

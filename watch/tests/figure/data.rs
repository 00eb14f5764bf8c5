//! What is behind the figures.

use anyhow::{Context, Result, ensure};
use watch::figure::data::{Bar, Figure, Lane, Page, Phase, Told, Who};

/// How far what is drawn may be from what the kernel says.
const MOST: f64 = 0.05;

pub fn no_overlap(page: &Page) -> Result<()> {
    for (figure, lane) in lanes(page) {
        let name = format!("{}, {}", figure.model, lane.name);
        let mut end = lane.from;
        for bar in &lane.bars {
            ensure!(bar.from >= end, "{name}: {bar:?} begins before {end}");
            ensure!(bar.to >= bar.from, "{name}: {bar:?}");
            end = bar.to;
        }
        ensure!(end <= lane.to && lane.to <= figure.span, "{name}: {end}");
    }
    Ok(())
}

fn lanes(page: &Page) -> impl Iterator<Item = (&Figure, &Lane)> {
    page.figures
        .iter()
        .flat_map(|figure| figure.lanes.iter().map(move |lane| (figure, lane)))
}

/// The difference is held against the time off the CPU or on it, whichever is
/// longer: of a lane that never sleeps, a few per cent of nearly nothing would
/// say nothing.
pub fn sleep(page: &Page) -> Result<()> {
    for (figure, lane) in lanes(page) {
        if !matches!(lane.who, Who::Thread | Who::Process) {
            continue;
        }
        let name = format!("{}, {}", figure.model, lane.name);
        let kernel = lane.off_cpu.with_context(|| {
            format!("{name}: the kernel was not asked about it")
        })? as f64;
        let drawn: f64 = lane.bars.iter().map(off_cpu).sum();
        let life = (lane.to - lane.from) as f64;
        let share = (drawn - kernel).abs() / kernel.max(life - kernel);
        ensure!(
            share <= MOST,
            "{name}: drawn are {:.2} ms off the CPU, the kernel says {:.2}",
            drawn / 1e6,
            kernel / 1e6
        );
        println!("{name}: {:.2} %", 100.0 * share);
    }
    Ok(())
}

fn off_cpu(bar: &Bar) -> f64 {
    let off = |phase: Phase| {
        matches!(phase, Phase::Waiting | Phase::WakingUp | Phase::SetAside)
    };
    let length = (bar.to - bar.from) as f64;
    match &bar.dense {
        None => length * f64::from(u8::from(off(bar.phase))),
        Some(dense) => {
            let shares = dense.shares.iter().filter(|share| off(share.0));
            length * shares.map(|share| share.1).sum::<f64>()
        }
    }
}

/// Of every client: sent, copied in, copied out and received is the same, each
/// byte once, and none before it could be.
pub fn bytes(page: &Page) -> Result<()> {
    for figure in &page.figures {
        let mut sum = 0;
        for lane in figure.lanes.iter().filter(|it| it.who == Who::Client) {
            // Where the kernel does the operations, the server has no copies.
            let others = match by_kernel(figure) {
                true => |who: Who| who == Who::Kernel,
                false => |who: Who| who != Who::Client,
            };
            let of_client = |call: &str, own: bool| {
                let of_lanes =
                    figure.lanes.iter().filter(move |it| match own {
                        true => it.who == Who::Client,
                        false => others(it.who),
                    });
                moved(figure, of_lanes, call, &lane.name)
            };
            let ways = [
                ("sent", of_client("send", true)),
                ("copied in", of_client("recv", false)),
                ("copied out", of_client("send", false)),
                ("received", of_client("receive", true)),
            ];
            let name = format!("{}, {}", figure.model, lane.name);
            sum += same(&ways).context(name)?;
        }
        // 20 messages and two halves of one, by the scene.
        ensure!(sum == 20 * 64 + 64, "{}: {sum} bytes", figure.model);
    }
    Ok(())
}

/// What POSIX AIO calls it.
fn operation(call: &str) -> Option<&'static str> {
    match call {
        "recv" => Some("aio_read"),
        "send" => Some("aio_write"),
        _ => None,
    }
}

fn by_kernel(figure: &Figure) -> bool {
    figure.lanes.iter().any(|lane| lane.who == Who::Kernel)
}

/// The calls of these lanes that moved bytes of a client, each once.
fn moved<'a>(
    figure: &'a Figure,
    lanes: impl Iterator<Item = &'a Lane>,
    call: &str,
    client: &str,
) -> Vec<&'a Told> {
    let bars = lanes.flat_map(|lane| &lane.bars);
    let mut calls: Vec<usize> = bars.filter_map(|bar| bar.call).collect();
    calls.sort_unstable();
    calls.dedup();
    let calls = calls.into_iter().map(|call| &figure.calls[call]);
    let mut calls: Vec<&Told> = calls
        .filter(|told| told.bytes.is_some() && told.about == client)
        .filter(|told| {
            let name = told.call.split(' ').next();
            name == Some(call) || name == operation(call)
        })
        .collect();
    calls.sort_by_key(|told| told.bytes);
    calls
}

/// How many bytes went each of the ways.
fn same(ways: &[(&str, Vec<&Told>); 4]) -> Result<u64> {
    let mut all = None;
    for (way, calls) in ways {
        let mut end = 0;
        for told in calls {
            let (from, to) = told.bytes.unwrap_or_default();
            ensure!(from == end && to > from, "{way}: {told:?} after {end}");
            end = to;
        }
        ensure!(*all.get_or_insert(end) == end, "{end} bytes {way}");
    }
    for pair in ways.windows(2) {
        for earlier in &pair[0].1 {
            let last = earlier.bytes.unwrap_or_default().1;
            let reaches = |it: &&&Told| it.bytes.is_some_and(|it| it.1 >= last);
            let later = pair[1].1.iter().find(reaches);
            let later = later.context("a byte is lost")?;
            ensure!(earlier.from < later.to, "{earlier:?} after {later:?}");
        }
    }
    Ok(all.unwrap_or(0))
}

/// In the closer look a message is sent and its answer received.
pub fn looks(page: &Page) -> Result<()> {
    for figure in &page.figures {
        let (from, to) = figure.lens;
        ensure!(from < to && to <= figure.span, "{}", figure.model);
        for phase in [Phase::Sending, Phase::Receiving, Phase::Copying] {
            // It is not seen copying where a thread of its own does that.
            let by_kernel = phase == Phase::Copying && by_kernel(figure);
            let within = |bar: &Bar| {
                let it_is = bar.phase == phase
                    || (by_kernel && bar.phase == Phase::InFlight);
                it_is && bar.to > from && bar.from < to
            };
            let mut bars = figure.lanes.iter().flat_map(|lane| &lane.bars);
            ensure!(bars.any(within), "{}: no {phase:?}", figure.model);
        }
    }
    Ok(())
}

//! All models, small: a strip for each, on one time axis.

use super::canvas::Canvas;
use super::near::{self, Scale};
use super::text::{time, wrapped};
use super::whole::{self, Place};
use super::{axis, data, legend, sent, sums, told};
use crate::figure::data::{Figure, Lane, Page, Who};

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 20.0;
/// Where the lanes' names stand.
const NAMES: f64 = 208.0;
/// Where the whole scene begins.
const LEFT: f64 = 278.0;
const PLOT: f64 = 330.0;
/// Where the closer look begins.
const NEAR: f64 = 630.0;
const LOOK: f64 = 350.0;
const PITCH: f64 = 11.5;
const LANE: f64 = 9.0;
/// As many lanes of a kind has a strip.
const CLIENTS: usize = 4;
const OTHERS: usize = 11;

/// The page of small multiples.
pub fn all(page: &Page) -> String {
    let mut canvas = Canvas::default();
    canvas.text("ink title", (MARGIN, 38.0), 20.0, &page.title);
    let text = format!(
        "The same scene with {} real echo servers, each lane a client, a \
         thread or a process. Left the whole scene, right one message of it, \
         counted from when it is sent.",
        page.figures.len()
    );
    let mut y = 62.0;
    for line in wrapped(&text, 13.0, WIDTH - 2.0 * MARGIN) {
        canvas.text("soft", (MARGIN, y), 13.0, &line);
        y += 18.0;
    }
    let figures: Vec<&Figure> = page.figures.iter().collect();
    let across = (MARGIN, WIDTH - MARGIN);
    y = legend::phases(&mut canvas, &figures, across, y - 4.0);
    let look = usual_look(page);
    let head = format!("the whole scene, {}", time(page.span as f64));
    canvas.text("ink head", (LEFT, y + 22.0), 12.0, &head);
    let head = format!("one message, {}", time(look as f64));
    canvas.text("ink head", (NEAR, y + 22.0), 12.0, &head);
    y += 32.0;
    let top = y;
    let mut strips = Canvas::default();
    for figure in &page.figures {
        y = strip(&mut strips, page, figure, look, y);
    }
    axes(&mut canvas, page, look, (top, y));
    canvas.add(&strips);
    y += 40.0;
    let made = format!("Real runs of {} on {}.", page.date, page.machine);
    canvas.text("soft", (MARGIN, y), 11.0, &made);
    let described: Vec<String> = figures
        .iter()
        .map(|it| format!("{}: {}. {}", it.model, it.summary, it.look))
        .collect();
    canvas.file((WIDTH, y + 16.0), &page.title, &described.join(" "))
}

/// How long most models' closer looks are.
fn usual_look(page: &Page) -> u64 {
    let looks = page.figures.iter().map(|it| it.lens.1 - it.lens.0);
    let looks: Vec<u64> = looks.collect();
    let often = |look: &u64| looks.iter().filter(|it| *it == look).count();
    // Of two that are as frequent, the shorter.
    let most = looks.iter().max_by_key(|look| (often(look), u64::MAX - **look));
    most.copied().unwrap_or(1)
}

fn axes(canvas: &mut Canvas, page: &Page, look: u64, rows: (f64, f64)) {
    let span = page.span.max(1) as f64;
    let scale = |at: f64| LEFT + PLOT * at / span;
    axis::draw(canvas, (0.0, span), scale, rows, (rows.1 + 13.0, 10.5));
    let look = look as f64;
    let before = page
        .figures
        .iter()
        .find(|figure| figure.lens.1 - figure.lens.0 == look as u64);
    let before = before.map_or(0.0, |it| (sent(it) - it.lens.0) as f64);
    let scale = |at: f64| NEAR + LOOK * (at + before) / look;
    let times = (-before, look - before);
    axis::draw(canvas, times, scale, rows, (rows.1 + 13.0, 10.5));
}

/// One model; where its strip ends.
fn strip(
    canvas: &mut Canvas,
    page: &Page,
    figure: &Figure,
    look: u64,
    top: f64,
) -> f64 {
    let mut inside = Canvas::default();
    inside.line("rule", (MARGIN, top), (WIDTH - MARGIN, top));
    inside.text("ink title", (MARGIN, top + 18.0), 13.0, &figure.model);
    let mut low = top + 32.0;
    for line in wrapped(&figure.summary, 10.0, NAMES - MARGIN - 14.0) {
        inside.text("soft", (MARGIN, low), 10.0, &line);
        low += 12.5;
    }
    if let Some(answers) = sums::most_answers(figure) {
        inside.text("ink", (MARGIN, low), 10.0, &answers);
        low += 12.5;
    }
    let (from, to) = figure.lens;
    let scale = Scale { from, to, x: NEAR, width: LOOK };
    let (lanes, left_out) = shown(figure);
    let mut y = top + 9.0;
    for lane in lanes {
        let place = Place { x: LEFT, y, width: PLOT, height: LANE };
        let mut group = Canvas::default();
        let size = (8.5, LEFT - NAMES - 4.0);
        group.short("soft", (NAMES, y + LANE - 1.5), size, &lane.name);
        if lane.who == Who::Client {
            let x = |at: u64| PLOT * at as f64 / page.span.max(1) as f64;
            let there = (x(lane.to) - x(lane.from), 0.8);
            group.rect("there", (LEFT + x(lane.from), y + LANE - 0.8), there);
        }
        whole::draw(&mut group, lane, page.span, place);
        let place = Place { x: NEAR, width: LOOK, ..place };
        near::draw(&mut group, lane, scale, place);
        inside.group(&data(lane), &told(lane), &group);
        y += PITCH;
    }
    if left_out > 0 {
        let text = format!("and {left_out} lanes more");
        inside.text("soft", (NAMES, y + LANE - 1.5), 8.5, &text);
        y += PITCH;
    }
    if to - from != look {
        let text = format!("here {}", time((to - from) as f64));
        inside.text("ink", (NEAR, y + LANE), 9.5, &text);
        y += PITCH;
    }
    let name = format!("data-model=\"{}\"", figure.model);
    canvas.group(&name, &figure.look, &inside);
    y.max(low - 6.0) + 7.0
}

/// The first lanes of each kind, and how many there are besides.
fn shown(figure: &Figure) -> (Vec<&Lane>, usize) {
    let of = |client: bool, most: usize| {
        let lanes = figure.lanes.iter();
        lanes.filter(move |it| (it.who == Who::Client) == client).take(most)
    };
    let shown = of(true, CLIENTS).chain(of(false, OTHERS));
    let shown: Vec<&Lane> = shown.collect();
    let left_out = figure.lanes.len() - shown.len();
    (shown, left_out)
}

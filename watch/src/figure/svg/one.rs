//! One model: the whole scene above, and one message of it below.

use super::canvas::Canvas;
use super::near::{self, Scale};
use super::text::{time, wrapped};
use super::whole::{self, Place};
use super::{axis, data, labels, legend, sent, sums, told};
use crate::figure::data::{Figure, Lane, Page, Phase, What, Who};
use crate::words::count;

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 24.0;
/// Where the lanes begin; their names stand before that.
const LEFT: f64 = 130.0;
/// How wide they are.
const PLOT: f64 = 680.0;
const RIGHT: f64 = LEFT + PLOT;
/// Lanes of the whole scene, together.
const LANES: f64 = 900.0;

const READS: &str = "Each lane is a client, a thread or a process. To be \
    watched makes a server slower, and sets it aside more often.";

/// The figure of one model.
pub fn one(page: &Page, figure: &Figure) -> String {
    let mut canvas = Canvas::default();
    canvas.text("ink title", (MARGIN, 40.0), 22.0, &figure.model);
    canvas.text("soft", (MARGIN, 62.0), 14.0, &figure.summary);
    let mut y = 88.0;
    for line in wrapped(&figure.look, 13.5, WIDTH - 2.0 * MARGIN) {
        canvas.text("ink", (MARGIN, y), 13.5, &line);
        y += 19.0;
    }
    y = scene(&mut canvas, page, figure, y + 18.0);
    y = message(&mut canvas, figure, y);
    canvas.line("rule", (MARGIN, y), (WIDTH - MARGIN, y));
    let across = (MARGIN, WIDTH - MARGIN);
    y = legend::phases(&mut canvas, &[figure], across, y + 10.0);
    y = legend::marks(&mut canvas, figure, across, y + 2.0);
    let made = format!("A real run of {} on {}.", page.date, page.machine);
    for line in [&*made, READS] {
        y += 16.0;
        canvas.text("soft", (MARGIN, y), 11.0, line);
    }
    let title = format!("{}: {}", figure.model, page.title);
    canvas.file((WIDTH, y + 16.0), &title, &described(figure))
}

fn described(figure: &Figure) -> String {
    let lanes = figure.lanes.iter().map(told);
    let lanes = lanes.collect::<Vec<_>>().join(". ");
    format!("{} {} {lanes}.", figure.summary, figure.look)
}

/// All lanes from the beginning to the end.
fn scene(canvas: &mut Canvas, page: &Page, figure: &Figure, top: f64) -> f64 {
    let span = time(figure.span as f64);
    let head = format!("The whole scene, {span}");
    canvas.text("ink head", (MARGIN, top), 13.0, &head);
    canvas.text("soft", (LEFT + 90.0, top), 12.0, &page.title);
    let count = figure.lanes.len() as f64;
    let pitch = (LANES / count).clamp(9.0, 34.0);
    let height = (pitch * 0.65).min(22.0);
    let begin = top + 36.0;
    let bottom = begin + pitch * count;
    let scale = |at: f64| LEFT + PLOT * at / figure.span.max(1) as f64;
    let times = (0.0, figure.span as f64);
    axis::draw(canvas, times, scale, (begin, bottom), (begin - 6.0, 11.0));
    for (row, lane) in (0..).zip(&figure.lanes) {
        let y = begin + pitch * f64::from(row) + (pitch - height) / 2.0;
        let place = Place { x: LEFT, y, width: PLOT, height };
        let mut inside = Canvas::default();
        if lane.who == Who::Client {
            let x = |at: u64| scale(at as f64);
            let there = (x(lane.to) - x(lane.from), 1.5);
            inside.rect("there", (x(lane.from), y + height - 1.5), there);
        }
        label(&mut inside, lane, (y, height));
        notes(&mut inside, figure, lane, (y, height));
        whole::draw(&mut inside, lane, figure.span, place);
        marks(&mut inside, figure, lane, place);
        canvas.group(&data(lane), &told(lane), &inside);
    }
    glass(canvas, figure, (begin, bottom))
}

fn label(canvas: &mut Canvas, lane: &Lane, (y, height): (f64, f64)) {
    let size = (height + 1.0).min(12.0);
    let at = (MARGIN, y + height / 2.0 + size * 0.36);
    canvas.short("ink", at, (size, LEFT - MARGIN - 8.0), &lane.name);
}

fn notes(
    canvas: &mut Canvas,
    figure: &Figure,
    lane: &Lane,
    (y, height): (f64, f64),
) {
    let size = height.min(10.5);
    let (x, most) = (RIGHT + 12.0, WIDTH - RIGHT - 12.0 - 8.0);
    let [first, second] = sums::notes(figure, lane);
    let middle = y + height / 2.0;
    if height < 20.0 || second.is_empty() {
        let at = (x, middle + size * 0.36);
        return canvas.short("soft", at, (size, most), &first);
    }
    canvas.short("soft", (x, middle - 2.0), (size, most), &first);
    canvas.short("soft", (x, middle + 10.5), (size, most), &second);
}

/// Marks of which no two are nearer to each other than they are wide.
fn marks(canvas: &mut Canvas, figure: &Figure, lane: &Lane, place: Place) {
    let mut last = None;
    for mark in &lane.marks {
        let part = mark.at as f64 / figure.span.max(1) as f64;
        let x = place.x + place.width * part;
        let near = last
            .is_some_and(|(what, last)| what == mark.what && x - last < 5.0);
        if near || place.height < 10.0 {
            continue;
        }
        match mark.what {
            What::Signal | What::Submit | What::Complete => {
                canvas.rect("mark", (x - 0.5, place.y - 5.0), (1.0, 3.0));
                continue;
            }
            _ => {}
        }
        let y = match lane.who {
            Who::Client => place.y + place.height / 2.0,
            _ => place.y - 0.5,
        };
        canvas.mark(mark.what, (x, y));
        last = Some((mark.what, x));
    }
}

/// The glass over the scene, and what it is held over; where its lower edge
/// is.
fn glass(
    canvas: &mut Canvas,
    figure: &Figure,
    (top, bottom): (f64, f64),
) -> f64 {
    let x = |at: u64| LEFT + PLOT * at as f64 / figure.span.max(1) as f64;
    let (from, to) = figure.lens;
    let middle = (x(from) + x(to)) / 2.0;
    let half = ((x(to) - x(from)) / 2.0).max(1.0);
    let (from, to) = (middle - half, middle + half);
    let low = bottom + 34.0;
    canvas.rect("glass", (from - 1.5, top), (to - from + 3.0, bottom - top));
    let fan = format!(
        "M{from:.1} {bottom:.1}L{to:.1} {bottom:.1}L{RIGHT} {low:.1}L{LEFT} \
         {low:.1}Z"
    );
    canvas.path("glass", &fan);
    canvas.line("edge", (middle, top), (middle, bottom));
    canvas.line("edge", (from, bottom), (LEFT, low));
    canvas.line("edge", (to, bottom), (RIGHT, low));
    low
}

/// The closer look.
fn message(canvas: &mut Canvas, figure: &Figure, top: f64) -> f64 {
    let (from, to) = figure.lens;
    let scale = Scale { from, to, x: LEFT, width: PLOT };
    let (shown, others) = seen(figure);
    let mut inside = Canvas::default();
    let mut y = top + 34.0;
    let begin = y;
    for lane in shown {
        let names = near::names(figure, lane, scale);
        let rows = labels::rows_of(&names, (LEFT, RIGHT));
        let marked = |at: u64| at >= from && at < to;
        let marks = || lane.marks.iter().filter(|mark| marked(mark.at));
        // Marks stand on the lane, and names above them.
        let over = if marks().next().is_some() { 7.0 } else { 0.0 };
        let y_of_lane = y + labels::ROW * rows as f64 + 6.0 + over;
        let height = if lane.who == Who::Client { 18.0 } else { 26.0 };
        let place = Place { x: LEFT, y: y_of_lane, width: PLOT, height };
        let mut group = Canvas::default();
        label(&mut group, lane, (y_of_lane, height));
        near::draw(&mut group, lane, scale, place);
        let rest = (y_of_lane - over, y_of_lane);
        labels::draw(&mut group, &names, (LEFT, RIGHT), rest);
        for mark in marks() {
            group.mark(mark.what, (scale.x(mark.at), y_of_lane));
        }
        inside.group(&data(lane), &told(lane), &group);
        y = y_of_lane + height + 8.0;
    }
    let zoom = figure.span / (to - from).max(1);
    let head = format!(
        "One message, magnified {} times: {}",
        count(zoom),
        time((to - from) as f64)
    );
    canvas.text("ink head", (LEFT + 10.0, top + 20.0), 13.0, &head);
    let zero = sent(figure);
    let times = (from as f64 - zero as f64, to as f64 - zero as f64);
    let place = |at: f64| LEFT + PLOT * (at - times.0) / (times.1 - times.0);
    axis::draw(canvas, times, place, (begin - 4.0, y), (y + 14.0, 11.0));
    canvas.line("edge", (LEFT, top), (LEFT, y));
    canvas.line("edge", (RIGHT, top), (RIGHT, y));
    canvas.add(&inside);
    y += 30.0;
    if others > 0 {
        let text = match others {
            1 => "One more lane sleeps meanwhile.".to_owned(),
            _ => format!("{others} more lanes sleep meanwhile."),
        };
        canvas.text("soft", (LEFT, y), 11.0, &text);
        y += 14.0;
    }
    y
}

/// The lanes in which something is to be seen in the closer look, and how
/// many server lanes are not among them.
fn seen(figure: &Figure) -> (Vec<&Lane>, usize) {
    let (from, to) = figure.lens;
    let few = figure.lanes.len() <= 6;
    let moves = |lane: &Lane| {
        lane.bars.iter().any(|bar| {
            let quiet = bar.phase == Phase::Waiting;
            bar.to > from && bar.from < to && !quiet
        })
    };
    let (shown, hidden): (Vec<&Lane>, Vec<&Lane>) = figure
        .lanes
        .iter()
        .partition(|lane| moves(lane) || (few && lane.who == Who::Thread));
    let sleep = hidden.iter().filter(|lane| {
        lane.who != Who::Client && lane.from < to && lane.to > from
    });
    (shown, sleep.count())
}

//! Charts as SVG. plotters is not used for them: it knows whole pixels only,
//! no groups to switch on and off, and no text that follows the page's theme.

use super::number;
use super::page::escaped;
use super::scale::{Kind, Scale};
use super::series::Series;

/// As wide as a small screen, so that no label is ever scaled down.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 300.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 38.0;
/// A row of a dot plot.
const ROW: f64 = 17.0;
/// How wide a character is on average, in the widest of the usual fonts.
const CHARACTER: f64 = 6.3;
/// The longest name that is shown in full, in characters.
const LONGEST: usize = 24;

/// One axis.
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// How numbers are laid out.
    pub kind: Kind,
    /// What stands beside it instead of round numbers.
    pub ticks: Option<Vec<(f64, String)>>,
    /// How a round number is written.
    pub write: fn(f64) -> String,
}

/// Lines of servers over a common axis.
pub struct Lines {
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// A number of it that others are to be seen against.
    pub reference: Option<f64>,
    /// One for each server.
    pub lines: Vec<Line>,
}

/// The line of one server.
pub struct Line {
    /// Which server, by its number.
    pub series: usize,
    /// What was measured.
    pub marks: Vec<Mark>,
    /// Where the line goes, if not from mark to mark.
    pub path: Option<Vec<(f64, f64)>>,
}

/// Something measured.
pub struct Mark {
    /// Where, on the horizontal axis.
    pub x: f64,
    /// How much.
    pub y: f64,
    /// The interval, if it has one.
    pub interval: Option<(f64, f64)>,
    /// The same in words.
    pub told: String,
}

/// A row for each server, and a dot with its interval in it.
pub struct Dots {
    /// The horizontal axis.
    pub axis: Axis,
    /// A number that others are to be seen against.
    pub reference: Option<f64>,
    /// One for each server; of a mark, `y` counts.
    pub rows: Vec<(usize, Mark)>,
    /// What stands at the rows' ends.
    pub end: &'static str,
    /// How it is written.
    pub write: fn(f64) -> String,
}

/// A row for each server, and a bar in it that is made of parts.
pub struct Bars {
    /// The horizontal axis.
    pub axis: Axis,
    /// What the parts are.
    pub names: Vec<String>,
    /// One for each server.
    pub rows: Vec<Bar>,
}

/// The bar of one server.
pub struct Bar {
    /// Which server, by its number.
    pub series: usize,
    /// Which part, by its number, and how much.
    pub parts: Vec<(usize, f64)>,
    /// All of them.
    pub total: f64,
}

/// What is drawn.
pub enum Drawing {
    /// See there.
    Lines(Lines),
    /// See there.
    Dots(Dots),
    /// See there.
    Bars(Bars),
}

impl Drawing {
    /// If its axis ends before some of its rows do.
    pub fn is_cut(&self) -> bool {
        match self {
            Drawing::Lines(_) => false,
            Drawing::Dots(dots) => dots.limit().is_finite(),
            Drawing::Bars(bars) => bars.limit().is_finite(),
        }
    }

    /// As an element of a page; `title` is the id of the element that names
    /// it.
    pub fn svg(&self, title: &str, series: &[Series]) -> String {
        let (height, inside) = match self {
            Drawing::Lines(lines) => (HEIGHT, lines.draw(series)),
            Drawing::Dots(dots) => {
                (TOP + dots.rows.len() as f64 * ROW + BOTTOM, dots.draw(series))
            }
            Drawing::Bars(bars) => {
                (TOP + bars.rows.len() as f64 * ROW + BOTTOM, bars.draw(series))
            }
        };
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
             aria-labelledby=\"{title}\">\n{inside}</svg>\n"
        )
    }
}

impl Lines {
    fn draw(&self, series: &[Series]) -> String {
        let marks = || self.lines.iter().flat_map(|line| &line.marks);
        let paths =
            || self.lines.iter().flat_map(|it| it.path.iter().flatten());
        let ends = |mark: &Mark| {
            let (low, high) = mark.interval.unwrap_or((mark.y, mark.y));
            [low, mark.y, high]
        };
        let y = Scale::over(
            self.y.kind,
            marks()
                .flat_map(ends)
                .chain(paths().map(|it| it.1))
                .chain(self.reference),
            HEIGHT - BOTTOM,
            TOP,
        );
        let ticks = self.y.ticks(&y, 6);
        let longest = ticks.iter().map(|it| it.1.chars().count()).max();
        let left = 12.0 + longest.unwrap_or(0) as f64 * CHARACTER;
        let ends = self.x.ticks.iter().flatten().map(|it| it.0);
        let x = Scale::over(
            self.x.kind,
            marks().map(|it| it.x).chain(paths().map(|it| it.0)).chain(ends),
            left,
            WIDTH - RIGHT,
        );
        let mut out = String::new();
        for (number, text) in &ticks {
            let at = y.at_or_end(*number);
            let end = WIDTH - RIGHT;
            out += &format!(
                "<path class=\"grid\" d=\"M{left:.1},{at:.1}H{end}\"/>"
            );
            out += &label("tick", left - 5.0, at + 3.8, "end", text);
        }
        let floor = HEIGHT - BOTTOM;
        let mut free = f64::NEG_INFINITY;
        for (number, text) in &self.x.ticks(&x, 5) {
            let at = x.at_or_end(*number);
            out += &format!(
                "<path class=\"grid\" d=\"M{at:.1},{TOP}V{:.1}\"/>\n",
                floor + 4.0
            );
            let half = text.chars().count() as f64 * CHARACTER / 2.0;
            if at - half > free {
                let middle = at.min(WIDTH - half);
                out += &label("tick", middle, floor + 16.0, "middle", text);
                free = at + half + 4.0;
            }
        }
        out += &format!(
            "<path class=\"base\" d=\"M{left:.1},{floor}H{}\"/>\n",
            WIDTH - RIGHT
        );
        if let Some(at) = self.reference.and_then(|it| y.at(it)) {
            out += &format!(
                "<path class=\"reference\" d=\"M{left:.1},{at:.1}H{}\"/>\n",
                WIDTH - RIGHT
            );
        }
        out += &label("axis", 2.0, 12.0, "start", &self.y.label);
        let middle = (left + WIDTH - RIGHT) / 2.0;
        out += &label("axis", middle, HEIGHT - 5.0, "middle", &self.x.label);
        for line in &self.lines {
            out += &line.draw(&series[line.series], &x, &y);
        }
        out
    }
}

impl Line {
    fn draw(&self, series: &Series, x: &Scale, y: &Scale) -> String {
        let mut out = group(self.series, series);
        let places: Vec<(f64, f64)> = match &self.path {
            Some(path) => path.clone(),
            None => self.marks.iter().map(|it| (it.x, it.y)).collect(),
        };
        let at = |&(h, v): &(f64, f64)| Some((x.at(h)?, y.at(v)?));
        let points: Vec<String> = places
            .iter()
            .filter_map(at)
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        if points.len() > 1 {
            let points = points.join(" ");
            out += &format!("<polyline class=\"hit\" points=\"{points}\"/>\n");
            out += &format!("<polyline points=\"{points}\"/>\n");
        }
        for mark in &self.marks {
            let Some((across, up)) = at(&(mark.x, mark.y)) else { continue };
            let told = escaped(&mark.told);
            out += &format!("<g><title>{told}</title>");
            if let Some((low, high)) = mark.interval {
                let (low, high) = (y.at_or_end(low), y.at_or_end(high));
                // Smaller than its mark, it would only blur it.
                if (low - high).abs() > 5.0 {
                    out += &format!(
                        "<path class=\"interval\" d=\"M{across:.1},{low:.1}\
                         V{high:.1}\"/>"
                    );
                }
            }
            out += &shape(series, across, up, 1.0);
            out += "</g>\n";
        }
        out + "</g>\n"
    }
}

impl Dots {
    fn draw(&self, series: &[Series]) -> String {
        let limit = self.limit();
        let values = self.rows.iter().filter(|it| it.1.y <= limit);
        let values = values.flat_map(|(_, mark)| {
            let (low, high) = mark.interval.unwrap_or((mark.y, mark.y));
            [low, mark.y, high]
        });
        let ends: Vec<String> =
            self.rows.iter().map(|(_, mark)| (self.write)(mark.y)).collect();
        let names: Vec<String> = self
            .rows
            .iter()
            .map(|(number, _)| short_name(&series[*number].name))
            .collect();
        let (left, right) = (width(&names, "server"), width(&ends, self.end));
        let right = WIDTH - right;
        let x = Scale::over(
            self.axis.kind,
            values.chain(self.reference),
            left + 12.0,
            right - 12.0,
        );
        let floor = TOP + self.rows.len() as f64 * ROW;
        let mut out = frame(&self.axis, &x, left, right, floor);
        out += &label("axis", WIDTH, 14.0, "end", self.end);
        if let Some(at) = self.reference.and_then(|it| x.at(it)) {
            out += &format!(
                "<path class=\"reference\" d=\"M{at:.1},{TOP}V{floor}\"/>\n"
            );
        }
        for (row, (number, mark)) in self.rows.iter().enumerate() {
            let series = &series[*number];
            let middle = TOP + (row as f64 + 0.5) * ROW;
            out += &group(*number, series);
            out += &format!("<title>{}</title>", escaped(&mark.told));
            out += &lane(left, right, middle);
            let base = middle + 3.8;
            out += &label("name", left - 6.0, base, "end", &names[row]);
            if mark.y > limit {
                out += &arrow(right, middle);
            } else if let Some((low, high)) = mark.interval {
                let (low, high) = (x.at_or_end(low), x.at_or_end(high));
                out += &format!(
                    "<path class=\"interval\" d=\"M{low:.1},{middle}H{high:.1}\
                     M{low:.1},{0}v6M{high:.1},{0}v6\"/>",
                    middle - 3.0
                );
            }
            if mark.y <= limit {
                out += &shape(series, x.at_or_end(mark.y), middle, 0.75);
            }
            out += &label("value", WIDTH, base, "end", &ends[row]);
            out += "</g>\n";
        }
        out
    }
}

impl Dots {
    /// Where the axis ends; beyond it are arrows.
    pub fn limit(&self) -> f64 {
        match self.axis.kind {
            Kind::Log => limit(self.rows.iter().map(|(_, mark)| mark.y)),
            _ => f64::INFINITY,
        }
    }
}

impl Bars {
    /// Where the axis ends; beyond it are arrows.
    pub fn limit(&self) -> f64 {
        limit(self.rows.iter().map(|bar| bar.total))
    }
}

/// A few that are far beyond all others would leave these no room: then the
/// axis ends before them.
fn limit(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let upper = numbers.get(numbers.len() * 3 / 4).copied().unwrap_or(0.0);
    let most = numbers.last().copied().unwrap_or(0.0);
    if most > upper * 2.5 { upper * 1.8 } else { f64::INFINITY }
}

impl Bars {
    fn draw(&self, series: &[Series]) -> String {
        let limit = self.limit();
        let totals = self.rows.iter().map(|bar| bar.total);
        let totals = totals.filter(|it| *it <= limit);
        let ends: Vec<String> =
            self.rows.iter().map(|bar| number::three(bar.total)).collect();
        let names: Vec<String> = self
            .rows
            .iter()
            .map(|bar| short_name(&series[bar.series].name))
            .collect();
        let (left, right) = (width(&names, "server"), width(&ends, "all"));
        let right = WIDTH - right;
        let x = Scale::over(self.axis.kind, totals, left, right - 8.0);
        let floor = TOP + self.rows.len() as f64 * ROW;
        let mut out = frame(&self.axis, &x, left, right, floor);
        out += &label("axis", WIDTH, 14.0, "end", "all");
        for (row, bar) in self.rows.iter().enumerate() {
            let series = &series[bar.series];
            let middle = TOP + (row as f64 + 0.5) * ROW;
            out += &group(bar.series, series);
            out += &lane(left, right, middle);
            let base = middle + 3.8;
            out += &label("name", left - 6.0, base, "end", &names[row]);
            let mut sum = 0.0;
            for &(part, much) in &bar.parts {
                let (from, to) = (x.at_or_end(sum), x.at_or_end(sum + much));
                if sum > 0.0 && from >= to {
                    break;
                }
                sum += much;
                let name = &self.names[part];
                // A hair of the page between two parts, whatever their colours.
                let long = (to - from - 0.8).max(0.3);
                out += &format!(
                    "<g><title>{}: {} {}</title><rect class=\"c{part}\" \
                     x=\"{from:.1}\" y=\"{:.1}\" width=\"{long:.1}\" \
                     height=\"{:.1}\"/>",
                    escaped(&series.name),
                    number::three(much),
                    escaped(name),
                    middle - ROW / 2.0 + 2.0,
                    ROW - 4.0,
                );
                if long > (name.chars().count() + 1) as f64 * CHARACTER {
                    let center = (from + to) / 2.0;
                    out += &label("part", center, base, "middle", name);
                }
                out += "</g>";
            }
            if bar.total > limit {
                out += &arrow(right, middle);
            }
            out += &label("value", WIDTH, base, "end", &ends[row]);
            out += "</g>\n";
        }
        out
    }
}

/// Further to the right than there is room.
fn arrow(right: f64, middle: f64) -> String {
    format!(
        "<path class=\"beyond\" d=\"M{:.1},{:.1}l4,3.5l-4,3.5\"/>",
        right - 4.0,
        middle - 3.5
    )
}

impl Axis {
    fn ticks(&self, scale: &Scale, wanted: usize) -> Vec<(f64, String)> {
        match &self.ticks {
            Some(ticks) => {
                let ticks = ticks.iter();
                ticks.filter(|tick| scale.holds(tick.0)).cloned().collect()
            }
            None => {
                let ticks = scale.ticks(wanted).into_iter();
                ticks.map(|tick| (tick, (self.write)(tick))).collect()
            }
        }
    }
}

/// What a plot of rows has before its rows.
fn frame(axis: &Axis, x: &Scale, left: f64, right: f64, floor: f64) -> String {
    let mut out = label("axis", left - 6.0, 14.0, "end", "server");
    let mut free = f64::NEG_INFINITY;
    for (number, text) in &axis.ticks(x, 4) {
        let at = x.at_or_end(*number);
        out +=
            &format!("<path class=\"grid\" d=\"M{at:.1},{TOP}V{floor}\"/>\n");
        let half = text.chars().count() as f64 * CHARACTER / 2.0;
        if at - half > free {
            out += &label("tick", at, floor + 14.0, "middle", text);
            free = at + half + 4.0;
        }
    }
    out += &format!(
        "<path class=\"base\" d=\"M{left:.1},{floor}H{right:.1}\"/>\n"
    );
    // The plot is narrower than what it is called.
    let half = axis.label.chars().count() as f64 * CHARACTER / 2.0;
    let middle = ((left + right) / 2.0).min(WIDTH - half).max(half);
    out + &label("axis", middle, floor + 31.0, "middle", &axis.label)
}

/// What the pointer may rest on anywhere in a row.
fn lane(left: f64, right: f64, middle: f64) -> String {
    format!(
        "<rect class=\"hit\" x=\"0\" y=\"{:.1}\" width=\"{WIDTH}\" \
         height=\"{ROW}\"/><path class=\"grid\" d=\"M{left:.1},{middle}\
         H{right:.1}\"/>",
        middle - ROW / 2.0
    )
}

fn group(number: usize, series: &Series) -> String {
    format!(
        "<g class=\"{}\" data-series=\"{number}\" data-model=\"{}\">",
        series.classes(),
        escaped(&series.name)
    )
}

fn label(class: &str, x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" \
         text-anchor=\"{anchor}\">{}</text>",
        escaped(text)
    )
}

fn width(texts: &[String], head: &str) -> f64 {
    let all = texts.iter().map(String::as_str).chain([head]);
    let longest = all.map(|text| text.chars().count()).max();
    longest.unwrap_or(0) as f64 * CHARACTER + 8.0
}

fn short_name(name: &str) -> String {
    if name.chars().count() <= LONGEST {
        return name.to_string();
    }
    name.chars().take(LONGEST - 1).chain(['…']).collect()
}

/// The mark of a server's family, with its middle at this place.
fn shape(series: &Series, x: f64, y: f64, size: f64) -> String {
    let path = match series.family {
        0 => "m-3.2,0a3.2,3.2 0 1 0 6.4,0a3.2,3.2 0 1 0 -6.4,0z",
        1 => "m-3.7,-3h7.4l-3.7,6.4z",
        2 => "m-2.9,-2.9h5.8v5.8h-5.8z",
        3 => "m-4.1,0l4.1,-4.1l4.1,4.1l-4.1,4.1z",
        4 => "m-3.7,3h7.4l-3.7,-6.4z",
        5 => "m-3.4,-3.4h6.8l-6.8,6.8h6.8z",
        6 => "m-3.8,0l1.9,-3.3h3.8l1.9,3.3l-1.9,3.3h-3.8z",
        // A star of five points.
        7 => {
            "m0,-4.4l1.1,3h3.1l-2.5,1.9l0.9,3.1l-2.6,-1.8l-2.6,1.8l0.9,-3.1\
             l-2.5,-1.9h3.1z"
        }
        8 => "m-3,-3l6,6m-6,0l6,-6",
        _ => "m-3.6,0h7.2m-3.6,-3.6v7.2",
    };
    let place = format!("translate({x:.1},{y:.1}) scale({size})");
    let bar = if series.has_bar() { "M-5.5,0h11" } else { "" };
    format!(
        "<path class=\"mark\" transform=\"{place}\" d=\"M0,0{path}{bar}\"/>"
    )
}

/// A short line with its mark, for the legend.
pub fn key(series: &Series) -> String {
    format!(
        "<svg class=\"swatch\" viewBox=\"0 0 34 12\" aria-hidden=\"true\">\
         <g class=\"{}\"><polyline points=\"1,6 33,6\"/>{}</g></svg>",
        series.classes(),
        shape(series, 17.0, 6.0, 1.0)
    )
}

//! Draws the view, in whatever room there is.

mod clients;
mod column;
mod over;
mod pane;
#[cfg(test)]
mod tests;
mod theme;
mod waits;
mod words;

use std::ops::Range;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::app::App;
use super::keys::KEYS;
use column::put;

/// A smaller window can show nothing that would be of use.
const LEAST: (u16, u16) = (60, 18);
/// From this width on there is room for two servers side by side.
const TWO: u16 = 80;

/// Draws everything.
pub fn draw(frame: &mut Frame, app: &App) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "This window has {}x{}; the live view needs {}x{}. q quits.",
            area.width, area.height, LEAST.0, LEAST.1
        );
        let lines = words::wrap(&text, area.width);
        return put(buffer, area, lines.into_iter().map(Line::from).collect());
    }
    let footer = footer(area.width);
    let shown = shown(app, area.width);
    let rows = area.height / 5;
    let clients = clients::lines(app, shown.clone(), (area.width, rows));
    let (top, rest) = split_top(area, 1);
    let (rest, bottom) = split_bottom(rest, footer.len() as u16 + 1);
    let (panes, crowd) = split_bottom(rest, clients.len() as u16);
    put(buffer, top, vec![header(app, area.width)]);
    put(buffer, crowd, clients);
    put(buffer, bottom, [vec![said(app, area.width)], footer].concat());
    let hides = shown.len() < app.panes.len();
    for (pane, area) in shown.clone().zip(rooms(panes, shown.len())) {
        pane::draw(buffer, area, app, (pane, hides));
        if area.x > 0 {
            let between = Rect { x: area.x - 1, width: 1, ..area };
            bar(buffer, between);
        }
    }
    over::draw(buffer, area, app);
}

/// The servers that there is room for.
fn shown(app: &App, width: u16) -> Range<usize> {
    match app.panes.len() > 1 && width < TWO {
        true => app.focus..app.focus + 1,
        false => 0..app.panes.len(),
    }
}

/// Room for one server, or for two side by side.
fn rooms(area: Rect, count: usize) -> Vec<Rect> {
    if count < 2 {
        return vec![area];
    }
    let half = (area.width - 1) / 2;
    let right = area.x + half + 1;
    let left = Rect { width: half, ..area };
    vec![left, Rect { x: right, width: area.right() - right, ..area }]
}

/// The upper rows, and the others.
fn split_top(area: Rect, rows: u16) -> (Rect, Rect) {
    let rows = rows.min(area.height);
    let top = Rect { height: rows, ..area };
    let (y, height) = (area.y + rows, area.height - rows);
    (top, Rect { y, height, ..area })
}

/// The others, and the lower rows.
fn split_bottom(area: Rect, rows: u16) -> (Rect, Rect) {
    let rows = rows.min(area.height);
    let (top, bottom) = split_top(area, area.height - rows);
    (top, bottom)
}

/// A line between two servers.
fn bar(buffer: &mut Buffer, area: Rect) {
    let bars = (0..area.height).map(|_| Line::styled("│", theme::faint()));
    put(buffer, area, bars.collect());
}

fn header(app: &App, width: u16) -> Line<'static> {
    let Some(stage) = &app.stage else {
        let text = " You are the clients. o opens one, p plays a scene";
        return Line::styled(text, theme::strong());
    };
    let state = match (stage.over, stage.paused) {
        (true, _) => "over",
        (_, true) => "paused",
        _ => "plays",
    };
    let slower = match stage.slower() {
        1 => "as fast as written".to_owned(),
        slower => format!("{slower} times slower"),
    };
    let at = stage.at().as_millis();
    let clock = format!("  {at} ms, {state}, {slower}");
    let name = format!(" {}", stage.scene.name);
    let title = format!("{name}: {}", stage.scene.title);
    let used = title.chars().count() + clock.chars().count();
    let title = if used <= width.into() { title } else { name };
    Line::from(vec![Span::styled(title, theme::strong()), Span::raw(clock)])
}

/// What came of the last key, or else of the scene.
fn said(app: &App, width: u16) -> Line<'static> {
    let said = match (&app.stage, app.said.is_empty()) {
        (Some(stage), true) => stage.last_steps().unwrap_or_default(),
        _ => app.said.clone(),
    };
    Line::styled(words::cut(&format!(" {said}"), width), theme::strong())
}

fn footer(width: u16) -> Vec<Line<'static>> {
    let shown = KEYS.iter().filter(|key| !key.short.is_empty());
    let keys = shown.map(|key| format!("{} {}", key.sign, key.short));
    let lines = words::flow(keys, "  ", width - 1);
    let faint = |line| Line::styled(format!(" {line}"), theme::faint());
    lines.into_iter().map(faint).collect()
}

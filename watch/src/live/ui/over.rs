//! What lies over the view: the help, and what there is to choose from.

use bench::models::{MODELS, Model};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Widget};

use super::column::put;
use super::{theme, words};
use crate::live::app::{App, Over};
use crate::live::keys::KEYS;

/// As wide as what lies over it is at most.
const WIDEST: u16 = 100;

/// Draws it, if there is anything.
pub fn draw(buffer: &mut Buffer, area: Rect, app: &App) {
    let width = area.width.min(WIDEST) - 2;
    let (title, lines) = match app.over {
        Over::Nothing => return,
        Over::Help => ("help: Esc closes it", help(width)),
        Over::Scenes(at) => {
            ("play a scene: ↑ ↓ Enter, or Esc", scenes(app, at, width))
        }
        Over::Models(at) => (
            "choose a model: ↑ ↓ Enter, or Esc; Tab: for the other server",
            models(app, at, width, area.height.saturating_sub(2)),
        ),
    };
    let height = (lines.len() as u16 + 2).min(area.height);
    let area = Rect {
        x: area.x + (area.width - width - 2) / 2,
        y: area.y + (area.height - height) / 2,
        width: width + 2,
        height,
    };
    Clear.render(area, buffer);
    let block = Block::bordered().title(format!(" {title} "));
    let inner = block.inner(area);
    block.render(area, buffer);
    put(buffer, inner, lines);
}

fn help(width: u16) -> Vec<Line<'static>> {
    let keys: Vec<String> = KEYS
        .iter()
        .map(|key| format!("{:>5} {}", key.sign, key.long))
        .collect();
    let rows = keys.len().div_ceil(2);
    let (left, right) = keys.split_at(rows);
    let half = usize::from(width / 2);
    let mut lines: Vec<Line<'static>> = (0..rows)
        .map(|at| {
            let right = right.get(at).map_or("", |text| text);
            Line::raw(format!("{:<half$}{right}", left[at]))
        })
        .collect();
    let about = "Each key does the same with both servers. Calls are told \
        apart by sign and colour:";
    let wrapped = words::wrap(about, width - 2);
    lines.extend(wrapped.into_iter().map(|text| Line::raw(format!(" {text}"))));
    let legend: Vec<Span> = theme::PHASES
        .iter()
        .map(|(phase, sign, _, what)| {
            let text = format!("     {sign} {what}");
            Span::styled(format!("{text:<half$}"), theme::style(*phase))
        })
        .collect();
    let pairs = legend.chunks(2).map(|pair| Line::from(pair.to_vec()));
    lines.extend(pairs);
    lines
}

fn row(chosen: bool, text: String) -> Line<'static> {
    match chosen {
        true => Line::styled(text, theme::chosen()),
        false => Line::raw(text),
    }
}

fn scenes(app: &App, at: usize, width: u16) -> Vec<Line<'static>> {
    let name = |name: &str| format!(" {name:<14} ");
    let mut lines: Vec<Line<'static>> = app
        .scenes
        .iter()
        .enumerate()
        .map(|(n, scene)| {
            let text = name(&scene.name) + &scene.title;
            row(n == at, format!("{:<1$}", text, usize::from(width)))
        })
        .collect();
    let Some(scene) = app.scenes.get(at) else { return lines };
    for pane in &app.panes {
        let model = pane.model.name;
        let head = Line::styled(format!(" {model}"), theme::strong());
        lines.extend([Line::raw(""), head]);
        let text = words::wrap(scene.look(model), width - 2);
        let text = text.into_iter().map(|text| Line::raw(format!(" {text}")));
        lines.extend(text);
    }
    lines
}

/// As many rows as there is room for, the chosen one among them, and beside
/// them what is to be said of it.
fn models(app: &App, at: usize, width: u16, height: u16) -> Vec<Line<'static>> {
    let shown = usize::from(height).clamp(1, MODELS.len());
    let first = (at + 1).saturating_sub(shown);
    const NAME: usize = 24;
    let model = &MODELS[at];
    let place = app.panes[app.focus].model.name;
    let room = width.saturating_sub(NAME as u16 + 2);
    let text = [
        format!("In place of {place}:"),
        String::new(),
        format!("{}.", model.summary),
        format!("It sleeps in: {}.", model.sleeps_in),
        String::new(),
        format!("To see: {}.", model.see),
    ];
    let mut beside = text.iter().flat_map(|text| words::wrap(text, room));
    let row = |(n, model): (usize, &Model)| {
        let name = format!(" {:<1$}", model.name, NAME - 1);
        let beside = format!(" {}", beside.next().unwrap_or_default());
        let style = if n == at { theme::chosen() } else { Style::new() };
        Line::from(vec![Span::styled(name, style), Span::raw(beside)])
    };
    MODELS.iter().enumerate().skip(first).take(shown).map(row).collect()
}

//! The clients: what each has sent, and what came back from each server.

use std::ops::Range;

use ratatui::text::{Line, Span};

use super::column::rule;
use super::{theme, words};
use crate::clients::Client;
use crate::live::app::App;

/// What a name may take.
const NAME: usize = 13;
/// What is said of a client of one server.
const CELL: usize = 32;
/// What of it is left for its state.
const STATE: u16 = 12;

/// The clients around the chosen one, so many at most, as they are with these
/// servers.
pub fn lines(
    app: &App,
    servers: Range<usize>,
    (width, most): (u16, u16),
) -> Vec<Line<'static>> {
    let count = app.clients();
    let title = vec![Span::styled(head(app, servers.clone()), theme::faint())];
    let mut lines = vec![rule(title, width)];
    if count == 0 {
        let text = " No client yet: press o to open one, then s to send a \
                    message; or p for a scene.";
        lines.push(Line::raw(words::cut(text, width)));
        return lines;
    }
    let shown = window(count, app.chosen, usize::from(most).max(2));
    let hidden = count - shown.len();
    lines.extend(shown.map(|who| row(app, who, servers.clone(), width)));
    if hidden > 0 {
        let text = format!("  … {hidden} more, by ↑ and ↓");
        lines.push(Line::styled(text, theme::faint()));
    }
    lines
}

fn head(app: &App, servers: Range<usize>) -> String {
    let heads = app.panes[servers].iter().map(|pane| {
        let name = words::cut(pane.model.name, STATE);
        format!("{:<CELL$}", format!(" sent  back unsent {name}"))
    });
    let heads: Vec<String> = heads.collect();
    format!("{:<NAME$} {}", "clients", heads.join("").trim_end())
}

/// So many of them, with the chosen one among them.
fn window(count: usize, chosen: usize, most: usize) -> Range<usize> {
    if count <= most {
        return 0..count;
    }
    let room = most - 1;
    let first = chosen.saturating_sub(room / 2).min(count - room);
    first..first + room
}

fn row(
    app: &App,
    who: usize,
    servers: Range<usize>,
    width: u16,
) -> Line<'static> {
    let mark = if who == app.chosen { '▸' } else { ' ' };
    let half = if app.is_half(who) { "½" } else { "" };
    let name = words::cut(&format!("{}{half}", app.name(who)), NAME as u16);
    let mut text = format!("{mark} {name:<NAME$} ");
    for client in &app.client(who)[servers] {
        let cell = client.map_or_else(String::new, cell);
        text.push_str(&format!("{cell:<CELL$}"));
    }
    let style = match who == app.chosen {
        true => theme::strong(),
        false => ratatui::style::Style::new(),
    };
    Line::styled(words::cut(text.trim_end(), width), style)
}

fn cell(client: &Client) -> String {
    let [sent, back, unsent] =
        [client.sent, client.received, client.to_send].map(words::bytes);
    format!("{sent:>5} {back:>5} {unsent:>6} {}", state(client))
}

fn state(client: &Client) -> &'static str {
    match client {
        client if !client.is_open() => "gone",
        client if !client.reads => "not reading",
        client if client.has_ended() => "met FIN",
        client if client.half_closed => "sent FIN",
        _ => "open",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_one_is_always_seen() {
        assert_eq!(window(3, 0, 5), 0..3);
        for chosen in 0..50 {
            let seen = window(50, chosen, 6);
            assert!(seen.contains(&chosen) && seen.len() == 5, "{seen:?}");
        }
    }
}

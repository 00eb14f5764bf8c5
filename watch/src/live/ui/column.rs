//! Pieces one below the other, each as high as there is room.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::theme;

/// Lines under a title.
pub struct Piece {
    pub title: Option<Line<'static>>,
    pub lines: Vec<Line<'static>>,
    /// How many of them are shown at most.
    pub most: u16,
    /// It takes the room that is left, and shows its end.
    pub grows: bool,
}

impl Piece {
    /// Lines without a title.
    pub fn plain(lines: Vec<Line<'static>>) -> Piece {
        Piece { title: None, lines, most: u16::MAX, grows: false }
    }

    /// Lines under a title.
    pub fn titled(title: &str, lines: Vec<Line<'static>>) -> Piece {
        let title = Line::styled(title.to_owned(), theme::faint());
        Piece { title: Some(title), ..Piece::plain(lines) }
    }

    /// Not more lines than these.
    pub fn at_most(self, most: u16) -> Piece {
        Piece { most, ..self }
    }

    /// With the room that is left.
    pub fn growing(self) -> Piece {
        Piece { grows: true, ..self }
    }

    fn wants(&self) -> u16 {
        let lines = u16::try_from(self.lines.len()).unwrap_or(u16::MAX);
        u16::from(self.title.is_some()).saturating_add(lines.min(self.most))
    }
}

/// Draws them; those that come first get their room first.
pub fn draw(buffer: &mut Buffer, area: Rect, pieces: Vec<Piece>) {
    // One that grows needs a few lines to be of use.
    let kept = |piece: &Piece| if piece.grows { 4 } else { 0 };
    let mut left =
        area.height - pieces.iter().map(kept).sum::<u16>().min(area.height);
    let heights: Vec<u16> = pieces
        .iter()
        .map(|piece| match piece.grows {
            true => kept(piece),
            false => {
                let height = piece.wants().min(left);
                left -= height;
                height
            }
        })
        .collect();
    let mut y = area.y;
    for (piece, height) in pieces.into_iter().zip(heights) {
        let height = height + if piece.grows { left } else { 0 };
        let height = height.min(area.bottom() - y);
        one(buffer, Rect { y, height, ..area }, piece);
        y += height;
    }
}

fn one(buffer: &mut Buffer, area: Rect, piece: Piece) {
    let Piece { title, mut lines, grows, .. } = piece;
    let room = area.height.saturating_sub(u16::from(title.is_some()));
    let over = lines.len().saturating_sub(usize::from(room));
    if over > 0 && grows {
        lines.drain(..over);
    } else if over > 0 && room > 0 {
        lines.truncate(usize::from(room) - 1);
        let more = format!("  … {} more", over + 1);
        lines.push(Line::styled(more, theme::faint()));
    }
    put(buffer, area, title.into_iter().chain(lines).collect());
}

/// Writes lines into an area, and nothing beside it.
pub fn put(buffer: &mut Buffer, area: Rect, lines: Vec<Line<'static>>) {
    let area = area.intersection(buffer.area);
    for (y, line) in (area.y..area.bottom()).zip(&lines) {
        buffer.set_line(area.x, y, line, area.width);
    }
}

/// A text over the whole width, with a line behind it.
pub fn rule(title: Vec<Span<'static>>, width: u16) -> Line<'static> {
    let used: usize = title.iter().map(Span::width).sum();
    let rest = usize::from(width).saturating_sub(used + 3);
    let mut spans = vec![Span::styled("─ ", theme::faint())];
    spans.extend(title);
    spans.push(Span::styled(format!(" {}", "─".repeat(rest)), theme::faint()));
    Line::from(spans)
}

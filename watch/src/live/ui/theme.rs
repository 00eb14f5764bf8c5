//! Phases by colour, and by a sign for those who see none.

use std::sync::LazyLock;

use ratatui::style::{Color, Modifier, Style};

use crate::figure::data::Phase;

/// Phases of a server, in the order of the legend: sign, colour, and what it
/// is.
pub const PHASES: &[(Phase, char, Color, &str)] = &[
    (Phase::Waiting, 'w', Color::Blue, "waits, asleep"),
    (Phase::WakingUp, 'u', Color::Yellow, "is woken up"),
    (Phase::Copying, 'c', Color::Green, "copies bytes"),
    (Phase::Asking, 'a', Color::Cyan, "takes a client, asks the kernel"),
    (Phase::Wasted, '!', Color::Red, "a call made for nothing"),
    (Phase::InFlight, 'f', Color::Magenta, "somebody else does it"),
    (Phase::SetAside, 's', Color::Magenta, "stopped, or has no core"),
    (Phase::Running, 'r', Color::Reset, "runs its own code"),
];

/// <https://no-color.org>: any value but the empty one.
static COLOURS: LazyLock<bool> = LazyLock::new(|| {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
});

/// The sign of a phase.
pub fn sign(phase: Phase) -> char {
    PHASES.iter().find(|row| row.0 == phase).map_or('·', |row| row.1)
}

/// Its colour.
pub fn style(phase: Phase) -> Style {
    styled(phase, *COLOURS)
}

fn styled(phase: Phase, colours: bool) -> Style {
    let row = PHASES.iter().find(|row| row.0 == phase);
    match row.filter(|_| colours) {
        Some(row) => Style::new().fg(row.2),
        None => Style::new(),
    }
}

/// What matters less.
pub fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// What matters more.
pub fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// What is chosen.
pub fn chosen() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

/// What is wrong.
pub fn wrong() -> Style {
    style(Phase::Wasted).add_modifier(Modifier::BOLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_a_sign_of_its_own() {
        let mut signs: Vec<char> = PHASES.iter().map(|row| row.1).collect();
        signs.sort_unstable();
        signs.dedup();
        assert_eq!(signs.len(), PHASES.len());
        assert_eq!(sign(Phase::Copying), 'c');
        assert_eq!(styled(Phase::Copying, true).fg, Some(Color::Green));
        assert_eq!(styled(Phase::Copying, false), Style::new());
    }
}

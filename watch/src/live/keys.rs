//! The keys, in one table: what they do, and what the footer and the help
//! say of them.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a reader can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Open,
    Message,
    Half,
    Burst,
    Reading,
    HalfClose,
    Reset,
    Close,
    Earlier,
    Later,
    /// By its number, from 0.
    Choose(usize),
    Scenes,
    Pause,
    Step,
    Slower,
    Faster,
    Freeze,
    Part,
    Pane,
    Models,
    Again,
    Help,
    Take,
    Leave,
    Quit,
}

/// One key.
pub struct Key {
    pub code: KeyCode,
    pub deed: Deed,
    /// How it is written.
    pub sign: &'static str,
    /// In the footer; empty if it has no place there.
    pub short: &'static str,
    /// In the help.
    pub long: &'static str,
}

const fn key(
    letter: char,
    deed: Deed,
    sign: &'static str,
    short: &'static str,
    long: &'static str,
) -> Key {
    Key { code: KeyCode::Char(letter), deed, sign, short, long }
}

/// The client's keys, then those of the view.
pub const KEYS: &[Key] = &[
    key('o', Deed::Open, "o", "open", "open a client, of both servers"),
    key('s', Deed::Message, "s", "send", "send a message: 64 bytes"),
    key('h', Deed::Half, "h", "half", "send half a message, then its rest"),
    key('b', Deed::Burst, "b", "burst", "send eight buffers: 128 KiB"),
    key('r', Deed::Reading, "r", "read", "stop reading, or read again"),
    key('f', Deed::HalfClose, "f", "fin", "half-close: FIN, and read on"),
    key('x', Deed::Reset, "x", "reset", "break the connection off: RST"),
    key('c', Deed::Close, "c", "close", "close"),
    Key {
        code: KeyCode::Up,
        deed: Deed::Earlier,
        sign: "↑↓",
        short: "choose",
        long: "choose a client, or by 1 to 9",
    },
    key('p', Deed::Scenes, "p", "play", "play a scene, with new servers"),
    key(' ', Deed::Pause, "space", "hold", "hold the scene; let it go on"),
    key('n', Deed::Step, "n", "step", "play the scene's next step"),
    key('-', Deed::Slower, "-+", "pace", "play slower, or faster"),
    key('z', Deed::Freeze, "z", "stop", "stop the servers; let them go on"),
    key('v', Deed::Part, "v", "view", "show another part of the servers"),
    Key {
        code: KeyCode::Tab,
        deed: Deed::Pane,
        sign: "Tab",
        short: "",
        long: "turn to the other server",
    },
    key('m', Deed::Models, "m", "model", "choose another model"),
    key('R', Deed::Again, "R", "", "begin again, with new servers"),
    key('?', Deed::Help, "?", "help", "this page"),
    key('q', Deed::Quit, "q", "quit", "quit; Ctrl-C does so too"),
];

/// Keys that stand in the table by another.
const TWINS: &[(KeyCode, Deed)] = &[
    (KeyCode::Down, Deed::Later),
    (KeyCode::Char('k'), Deed::Earlier),
    (KeyCode::Char('j'), Deed::Later),
    (KeyCode::Char('+'), Deed::Faster),
    (KeyCode::Char('='), Deed::Faster),
    (KeyCode::Enter, Deed::Take),
    (KeyCode::Esc, Deed::Leave),
];

/// What a key does; `None`: nothing.
pub fn deed(event: KeyEvent) -> Option<Deed> {
    let code = event.code;
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return (code == KeyCode::Char('c')).then_some(Deed::Quit);
    }
    if let KeyCode::Char(digit @ '1'..='9') = code {
        return Some(Deed::Choose(digit as usize - '1' as usize));
    }
    let of_table = KEYS.iter().map(|key| (key.code, key.deed));
    let mut all = of_table.chain(TWINS.iter().copied());
    all.find(|(known, _)| *known == code).map(|(_, deed)| deed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things() {
        let of_table = KEYS.iter().map(|key| key.code);
        let mut all: Vec<KeyCode> =
            of_table.chain(TWINS.iter().map(|(code, _)| *code)).collect();
        let count = all.len();
        all.sort_unstable_by_key(|code| format!("{code:?}"));
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn keys_are_known() {
        let plain = |code| deed(KeyEvent::new(code, KeyModifiers::NONE));
        let ctrl = |code| deed(KeyEvent::new(code, KeyModifiers::CONTROL));
        assert_eq!(plain(KeyCode::Char('3')), Some(Deed::Choose(2)));
        assert_eq!(plain(KeyCode::Char('c')), Some(Deed::Close));
        assert_eq!(ctrl(KeyCode::Char('c')), Some(Deed::Quit));
        // What it does without Control is not what is meant.
        assert_eq!(ctrl(KeyCode::Char('x')), None);
        assert_eq!(plain(KeyCode::Char('y')), None);
        let shifted = KeyEvent::new(KeyCode::Char('R'), KeyModifiers::SHIFT);
        assert_eq!(deed(shifted), Some(Deed::Again));
    }
}

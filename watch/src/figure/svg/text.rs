//! Text of which nobody says how wide it will be.

/// How wide it is at most, in the widest of the usual fonts.
pub fn width(text: &str, size: f64) -> f64 {
    let units = text.chars().map(|char| match char {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.31,
        'f' | 't' | 'r' | ' ' | '(' | ')' | '-' | '/' => 0.4,
        'm' | 'w' | 'M' | 'W' => 0.9,
        'A'..='Z' | '_' | '%' => 0.72,
        _ => 0.61,
    });
    units.sum::<f64>() * size
}

/// Cut at spaces into lines that are no wider.
pub fn wrapped(text: &str, size: f64, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line)
                if width(line, size) + width(word, size) + 0.4 * size
                    <= most =>
            {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// As much of it as fits.
pub fn fitting(text: &str, size: f64, most: f64) -> String {
    if width(text, size) <= most {
        return text.to_owned();
    }
    let mut short = text.to_owned();
    while !short.is_empty() && width(&short, size) + size > most {
        short.pop();
    }
    short + "…"
}

/// A time in the unit that a reader would choose.
pub fn time(ns: f64) -> String {
    match ns {
        ..995.0 => format!("{ns:.0} ns"),
        ..9_950.0 => format!("{:.1} µs", ns / 1e3),
        ..995_000.0 => format!("{:.0} µs", ns / 1e3),
        ..9_950_000.0 => format!("{:.2} ms", ns / 1e6),
        ..99_500_000.0 => format!("{:.1} ms", ns / 1e6),
        ..9_950_000_000.0 => format!("{:.0} ms", ns / 1e6),
        _ => format!("{:.1} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_no_wider_than_allowed_and_lose_no_word() {
        let text = "Each client has a lane of its own that sleeps in its recv";
        let lines = wrapped(text, 13.0, 160.0);
        assert!(lines.len() > 2);
        assert!(lines.iter().all(|line| width(line, 13.0) <= 160.0));
        assert_eq!(lines.join(" "), text);
    }

    #[test]
    fn what_does_not_fit_is_cut_visibly() {
        assert_eq!(fitting("talker", 12.0, 100.0), "talker");
        let short = fitting("a client with a long name", 12.0, 60.0);
        assert!(short.ends_with('…') && width(&short, 12.0) <= 66.0);
    }

    #[test]
    fn times_are_written_as_people_do() {
        let times = [0.0, 64e3, 3.5e6, 516e6].map(time);
        assert_eq!(times, ["0 ns", "64 µs", "3.50 ms", "516 ms"]);
    }
}

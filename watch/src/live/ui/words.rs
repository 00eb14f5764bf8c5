//! Numbers, times and texts in little room.

use std::time::Duration;

pub use crate::words::count;

/// A number of bytes in five columns at most; exact as long as it is short.
pub fn bytes(n: u64) -> String {
    if n < 100_000 {
        return n.to_string();
    }
    let mut scaled = n as f64 / 1024.0;
    for unit in ["K", "M", "G"] {
        if scaled < 1000.0 {
            return match scaled < 99.95 {
                true => format!("{scaled:.1}").replace(".0", "") + unit,
                false => format!("{scaled:.0}{unit}"),
            };
        }
        scaled /= 1024.0;
    }
    "a lot".to_owned()
}

/// A time in eight columns at most.
pub fn time(ns: u64) -> String {
    let (whole, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        1_000_000_000..100_000_000_000 => (ns as f64 / 1e9, "s"),
        _ => return format!("{} s", count(ns / 1_000_000_000)),
    };
    match whole < 9.95 {
        true => format!("{whole:.1} {unit}"),
        false => format!("{whole:.0} {unit}"),
    }
}

/// The same of a duration.
pub fn span(span: Duration) -> String {
    time(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// A text in lines that are at most so wide.
pub fn wrap(text: &str, width: u16) -> Vec<String> {
    let lines = textwrap::wrap(text, usize::from(width.max(1)));
    lines.into_iter().map(|line| line.into_owned()).collect()
}

/// Words in lines that are at most so wide; none is broken.
pub fn flow(
    words: impl IntoIterator<Item = String>,
    gap: &str,
    width: u16,
) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        let longer = lines.last().map(|line| {
            line.chars().count() + gap.len() + word.chars().count()
        });
        match lines.last_mut() {
            Some(line) if longer <= Some(usize::from(width)) => {
                line.push_str(gap);
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// So wide at most; what is cut off is marked.
pub fn cut(text: &str, width: u16) -> String {
    let width = usize::from(width);
    match text.chars().count() > width {
        true => {
            let head = text.chars().take(width.saturating_sub(1));
            head.chain(['…']).collect()
        }
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_bytes_are_short() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_204), "1,204");
        assert_eq!(count(123_456), "123,456");
        let known = [
            (64, "64"),
            (1280, "1280"),
            (16 << 10, "16384"),
            (128 << 10, "128K"),
            (1_000 << 10, "1M"),
            (1_536 << 10, "1.5M"),
            (32 << 20, "32M"),
        ];
        for (n, text) in known {
            assert_eq!(bytes(n), text);
        }
        for shift in 0..40 {
            for n in [1_u64 << shift, (1 << shift) - 1] {
                assert!(bytes(n).len() <= 5, "{n}: {}", bytes(n));
            }
        }
    }

    #[test]
    fn times_are_short() {
        assert_eq!(time(340), "340 ns");
        assert_eq!(time(1_240), "1.2 µs");
        assert_eq!(time(12_300_000), "12 ms");
        assert_eq!(span(Duration::from_secs(73)), "73 s");
        for digits in 0..15 {
            let text = time(10_u64.pow(digits) - 1);
            assert!(text.chars().count() <= 9, "{text}");
        }
    }

    #[test]
    fn nothing_is_wider_than_there_is_room() {
        let words = ["o open", "s send", "h half"].map(String::from);
        assert_eq!(flow(words, "  ", 14), ["o open  s send", "h half"]);
        assert_eq!(cut("epoll_wait", 5), "epol…");
        assert_eq!(cut("recv", 4), "recv");
        let long = "a sentence, and averylongwordofmanyletters";
        assert!(wrap(long, 10).iter().all(|line| line.chars().count() <= 10));
    }
}

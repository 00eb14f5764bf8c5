//! Numbers for people: three digits that say something, and a unit.

use crate::results::Estimate;

/// Three significant digits, no more than three of them after the point, and
/// whole numbers in full: `0.512`, `5.12`, `51.2`, `512`, `5,124`.
pub fn three(number: f64) -> String {
    let digits = match number.abs() {
        0.0 => return "0".to_string(),
        ..0.9995 => 3,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => return count(number),
    };
    format!("{number:.digits$}")
}

/// `1234567` as `1,234,567`.
pub fn count(number: f64) -> String {
    let whole = format!("{:.0}", number.abs());
    let sign = if number < 0.0 && whole != "0" { "-" } else { "" };
    let mut text = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if at > 0 && left.is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `171234` as `171k`: where there is little room.
pub fn brief(number: f64) -> String {
    match number.abs() {
        ..999.5 => three(number),
        ..999_500.0 => three(number / 1e3) + "k",
        ..999_500_000.0 => three(number / 1e6) + "M",
        _ => three(number / 1e9) + "G",
    }
}

/// Nanoseconds, as microseconds without the unit.
pub fn micros(nanoseconds: f64) -> String {
    three(nanoseconds / 1e3)
}

/// The same where there is little room: five characters, from a nanosecond
/// to a minute.
pub fn brief_micros(nanoseconds: f64) -> String {
    match nanoseconds.abs() {
        ..999_500.0 => three(nanoseconds / 1e3),
        ..9_999_500.0 => format!("{:.0}", nanoseconds / 1e3),
        _ => brief(nanoseconds / 1e3),
    }
}

/// Bytes with their unit.
pub fn bytes(number: f64) -> String {
    const KIB: f64 = 1024.0;
    let (number, unit) = match number.abs() {
        ..999.5 => (number, "B"),
        ..1_023_488.0 => (number / KIB, "KiB"),
        ..1_048_051_712.0 => (number / KIB / KIB, "MiB"),
        _ => (number / KIB / KIB / KIB, "GiB"),
    };
    match number.fract() {
        0.0 => format!("{} {unit}", count(number)),
        _ => format!("{} {unit}", three(number)),
    }
}

/// A share of one.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// The interval, in the same way as its median.
pub fn interval(estimate: &Estimate, write: fn(f64) -> String) -> String {
    format!("{}–{}", write(estimate.low), write(estimate.high))
}

/// A round number, without digits that are zero: `0.5`, `20`, `5,000`.
pub fn plain(number: f64) -> String {
    if number.abs() >= 999.5 {
        return count(number);
    }
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// A round number where there is little room: `50k`.
pub fn plain_brief(number: f64) -> String {
    match number.abs() {
        ..999.5 => plain(number),
        ..999_500.0 => plain(number / 1e3) + "k",
        ..999_500_000.0 => plain(number / 1e6) + "M",
        _ => plain(number / 1e9) + "G",
    }
}

/// Bytes where there is little room: `1.21M`.
pub fn brief_bytes(number: f64) -> String {
    bytes(number).replace(" B", "").replace("iB", "").replace(' ', "")
}

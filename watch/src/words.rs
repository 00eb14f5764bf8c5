//! Numbers and texts, as every form of showing writes them.

pub use bench::report::escaped;
use indicatif::HumanCount;

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

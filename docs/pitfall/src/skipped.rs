//! What keeps a pitfall from being shown here.

use std::error::Error;
use std::fmt::{self, Display};
use std::io;

/// The system does not allow what the pitfall is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skipped(&'static str);

impl Skipped {
    /// If that is what the error says. A filter of system calls, as containers
    /// have one, makes them fail with either of the two.
    pub(crate) fn of(what: &'static str, error: &io::Error) -> Option<Skipped> {
        let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        let absent = error.kind() == io::ErrorKind::Unsupported;
        (forbidden || absent).then_some(Skipped(what))
    }
}

impl Error for Skipped {}

impl Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not allowed here", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPERM: i32 = 1;
    const EINVAL: i32 = 22;
    const ENOSYS: i32 = 38;

    #[test]
    fn what_is_forbidden_or_absent_is_skipped_and_nothing_else() {
        let of = |errno| {
            Skipped::of("io_uring", &io::Error::from_raw_os_error(errno))
        };
        assert_eq!(of(EPERM), Some(Skipped("io_uring")));
        assert_eq!(of(ENOSYS), Some(Skipped("io_uring")));
        assert_eq!(of(EINVAL), None);
        let told = Skipped("io_uring").to_string();
        assert_eq!(told, "io_uring is not allowed here");
    }
}

//! Signals, as a server tells of them and as strace prints them.

use super::Step;
use super::strace::number;

/// A signal stands among the calls, at its place.
pub fn signal(name: &str, code: &str, band: &str, fd: Option<i64>) -> Step {
    let call = format!("{name} {code} {band}");
    Step { call, fd, ..Step::default() }
}

pub fn is_signal(step: &Step) -> bool {
    step.call.starts_with("SIG")
}

/// What a siginfo_t says, as strace prints it: for real-time signals it takes
/// `si_band` and `si_fd`, which it does not know of, for `si_pid`, `si_uid`
/// and `si_int`, which lie in the same places.
pub fn siginfo(text: &str) -> Option<Step> {
    const BAND: &[(i64, &str)] = &[
        (0x1, "POLLIN"),
        (0x2, "POLLPRI"),
        (0x4, "POLLOUT"),
        (0x8, "POLLERR"),
        (0x10, "POLLHUP"),
        (0x40, "POLLRDNORM"),
        (0x80, "POLLRDBAND"),
        (0x100, "POLLWRNORM"),
        (0x200, "POLLWRBAND"),
    ];
    const CODES: &[(&str, &str)] = &[
        ("0x1", "POLL_IN"),
        ("0x2", "POLL_OUT"),
        ("0x4", "POLL_ERR"),
        ("0x6", "POLL_HUP"),
    ];
    let field = |name: &str| {
        let (_, rest) = text.split_once(&format!("{name}="))?;
        let end = rest.find([',', '}']).unwrap_or(rest.len());
        Some(&rest[..end])
    };
    let name = match field("si_signo")? {
        "SIGRT_2" => "SIGRTMIN",
        known @ ("SIGIO" | "SIGTERM") => known,
        _ => return None,
    };
    let code = field("si_code")?;
    let Some((_, code)) = CODES.iter().find(|(number, _)| *number == code)
    else {
        return Some(signal(name, code, "", None));
    };
    let (band, fd) = (number(field("si_pid")?)?, number(field("si_int")?)?);
    let band = BAND.iter().filter(|(bit, _)| band & bit != 0);
    let band: Vec<&str> = band.map(|(_, name)| *name).collect();
    Some(signal(name, code, &band.join("|"), Some(fd)))
}

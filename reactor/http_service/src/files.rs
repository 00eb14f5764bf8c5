//! The files of a folder. The kernel itself sees to it that no name leads out
//! of it: openat2(2). Nothing is cached: each answer is what lies there now.

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::read;

use crate::answer::Answer;
use crate::request::{Manner, Refusal, Request};
use crate::routes::Outcome;
use crate::service::{Buffer, Service};

/// A file up to this goes out with its head in one send; a longer one goes
/// from the page cache to the socket, piece by piece.
pub const SMALL: u64 = 32 << 10;

/// A file that is on its way.
pub struct Sending {
    pub file: OwnedFd,
    pub at: i64,
    pub left: u64,
}

/// Opens the folder, and tries whether the kernel can keep names within it.
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    let shown = path.display();
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(path, flags, Mode::empty()).map_err(|errno| {
        let why = errno.desc();
        anyhow!("cannot serve {shown}: {why}; choose another --root")
    })?;
    match open_beneath(&root, b".") {
        Ok(_) => Ok(root),
        Err(Errno::ENOSYS) => bail!(
            "this kernel has no openat2(2), which keeps clients within \
             --root; it needs Linux 5.6, or whoever forbids the call to \
             allow it"
        ),
        Err(errno) => bail!("cannot read {shown}: {}", errno.desc()),
    }
}

/// RESOLVE_BENEATH: what leads out of the folder, by `..` or by a link, is
/// EXDEV. O_NONBLOCK: to open a FIFO or a device does not sleep.
fn open_beneath(root: &OwnedFd, path: &[u8]) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY
        | OFlag::O_CLOEXEC
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY;
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    let mut tries = 0;
    loop {
        match openat2(root, path, how) {
            Err(Errno::EINTR) => {}
            // openat2(2): something was renamed meanwhile, and the kernel
            // cannot tell whether `..` stayed inside.
            Err(Errno::EAGAIN) if tries < 8 => tries += 1,
            result => return result,
        }
    }
}

/// Answers GET and HEAD of the file that `path` names, without its escapes.
pub fn answer(
    path: &[u8],
    request: &Request<'_>,
    manner: Manner,
    service: &Service,
    out: &mut Buffer,
) -> Result<Outcome, Refusal> {
    // An absolute name would be one outside of the folder, to the kernel.
    let start = path.iter().take_while(|it| **it == b'/').count();
    let name: Cow<'_, [u8]> = match &path[start..] {
        b"" => b"index.html".into(),
        folder if folder.ends_with(b"/") => {
            [folder, b"index.html"].concat().into()
        }
        name => name.into(),
    };
    let file = open_beneath(&service.root, &name).map_err(refusal)?;
    let stat = fstat(&file).map_err(refusal)?;
    match stat.st_mode & SFlag::S_IFMT.bits() {
        mode if mode == SFlag::S_IFREG.bits() => {}
        mode if mode == SFlag::S_IFDIR.bits() => {
            redirect(request, manner, service, out);
            return Ok(Outcome::Done);
        }
        _ => return Err(Refusal::new(404, "no such file")),
    }
    let modified = modified(&stat);
    if let (Some(modified), Some(since)) = (modified, request.since)
        && modified <= since
    {
        let mut answer = Answer::new(304, None);
        answer.modified = Some(modified);
        answer.write(manner, service, out);
        return Ok(Outcome::Done);
    }
    let (kind, size) = (kind(&name), stat.st_size as u64);
    let mut answer = Answer::new(200, Some((kind, size)));
    answer.modified = modified;
    if manner.head_only || size > SMALL {
        answer.write(manner, service, out);
        return Ok(match manner.head_only {
            true => Outcome::Done,
            false => Outcome::File(Sending { file, at: 0, left: size }),
        });
    }
    let before = out.mark();
    answer.put(manner, service, out);
    let after = out.mark();
    let got = copy(&file, size as usize, out);
    if got != Ok(size as usize) {
        // It has just become shorter, and this is all of it.
        let content = out.cut(after);
        out.cut(before);
        got.map_err(refusal)?;
        answer.content = Some((kind, content.len() as u64));
        answer.put(manner, service, out);
        out.push(&content);
    }
    service.count(200);
    Ok(Outcome::Done)
}

/// Copies a file of this size; one that has become shorter ends early.
fn copy(file: &OwnedFd, size: usize, out: &mut Buffer) -> nix::Result<usize> {
    let mut got = 0;
    while got < size {
        match read(file, &mut out.room()[..size - got]) {
            Ok(0) => break,
            Ok(n) => {
                out.filled(n);
                got += n;
            }
            Err(Errno::EINTR) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(got)
}

/// To the same folder by the name that relative links in it need.
fn redirect(
    request: &Request<'_>,
    manner: Manner,
    service: &Service,
    out: &mut Buffer,
) {
    // One slash: `//name` would be another host.
    let path = request.path.trim_start_matches('/');
    let (mark, query) = match request.query {
        Some(query) => ("?", query),
        None => ("", ""),
    };
    let location = ["/", path, "/", mark, query];
    let mut answer = Answer::new(301, Some((crate::answer::TEXT, 0)));
    answer.more = Some(("Location", &location));
    answer.write(manner, service, out);
}

/// By whole seconds, as HTTP has it; a time before 1970 is none.
fn modified(stat: &FileStat) -> Option<SystemTime> {
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    // The year 9999 is the last that a date of HTTP can name.
    let seconds = Some(seconds).filter(|it| *it < 253_402_300_800)?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn refusal(errno: Errno) -> Refusal {
    match errno {
        Errno::EACCES | Errno::EPERM => Refusal::new(403, "not readable"),
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN => {
            Refusal::new(503, "too busy to open the file; try again")
        }
        Errno::EIO => Refusal::new(500, "the file cannot be read"),
        // What leads out of the folder is told like what is not there.
        _ => Refusal::new(404, "no such file"),
    }
}

fn kind(name: &[u8]) -> &'static str {
    let last = name.rsplit(|it| *it == b'/').next().unwrap_or_default();
    let ending = match last.iter().rposition(|it| *it == b'.') {
        Some(dot) if dot > 0 => &last[dot + 1..],
        _ => b"",
    };
    let is = |it: &&(&str, &str)| ending.eq_ignore_ascii_case(it.0.as_bytes());
    KINDS.iter().find(is).map_or("application/octet-stream", |it| it.1)
}

const KINDS: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("json", "application/json"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/plain; charset=utf-8"),
    ("rs", "text/plain; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("ico", "image/vnd.microsoft.icon"),
    ("woff2", "font/woff2"),
    ("wasm", "application/wasm"),
    ("pdf", "application/pdf"),
    ("xml", "application/xml"),
    ("mp4", "video/mp4"),
    ("gz", "application/gzip"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_the_last_name_tells_the_type() {
        let octets = "application/octet-stream";
        assert_eq!(kind(b"a/b.HTML"), "text/html; charset=utf-8");
        assert_eq!(kind(b"a.css/b"), octets);
        assert_eq!(kind(b".json"), octets);
        assert_eq!(kind(b"x.tar.gz"), "application/gzip");
        assert_eq!(kind(b""), octets);
    }

    #[test]
    fn nothing_outside_of_the_root_can_be_opened() {
        let root = open_root(Path::new("/proc/self")).unwrap();
        let err = |path: &[u8]| open_beneath(&root, path).unwrap_err();
        assert!(open_beneath(&root, b"status").is_ok());
        assert!(open_beneath(&root, b"fd/../status").is_ok());
        assert_eq!(err(b"../version"), Errno::EXDEV);
        assert_eq!(err(b"/proc/version"), Errno::EXDEV);
        // Links of proc(5) lead anywhere without a name.
        assert_eq!(err(b"cwd/Cargo.toml"), Errno::ELOOP);
        assert_eq!(err(b"root"), Errno::ELOOP);
        assert!(open_root(Path::new("/dev/null")).is_err());
    }
}

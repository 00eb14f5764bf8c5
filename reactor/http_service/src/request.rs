//! Requests, strictly: what two readers could understand in two ways is
//! refused, for the other one may stand between the client and this service
//! (request smuggling). RFC 9112 says how a message is written, RFC 9110 what
//! it means.

use std::str;
use std::time::SystemTime;

use httparse::{EMPTY_HEADER, Error, Status, parse_headers};

/// Why a request is not answered as it wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub why: &'static str,
    /// With 405: what would be allowed.
    pub allow: Option<&'static str>,
}

impl Refusal {
    pub const fn new(status: u16, why: &'static str) -> Self {
        Refusal { status, why, allow: None }
    }
}

fn bad<T>(why: &'static str) -> Result<T, Refusal> {
    Err(Refusal::new(400, why))
}

/// The most fields that a head may have.
const FIELDS: usize = 64;

/// How far the search for the end of a head has come.
#[derive(Default)]
pub struct Scan {
    at: usize,
    /// Where the line begins that it is in.
    line: usize,
    /// The first line is over.
    first: bool,
}

impl Scan {
    /// Where the head ends, if its end has come. It looks at each byte once,
    /// however slowly they come.
    ///
    /// A line ends with CR LF and nothing else, and has no control characters.
    /// RFC 9112, 2.2, lets a recipient take LF alone; but one that does and
    /// one that does not see different fields.
    pub fn end(
        &mut self,
        input: &[u8],
        max: usize,
    ) -> Result<Option<usize>, Refusal> {
        let mut before = input[..self.at].last().copied();
        for (at, &byte) in input.iter().enumerate().skip(self.at) {
            if before == Some(b'\r') && byte != b'\n' {
                return bad("a CR without LF");
            }
            if byte == b'\n' {
                if before != Some(b'\r') {
                    return bad("a LF without CR");
                }
                self.first_line(at, max)?;
                self.first = true;
                if at == self.line + 1 {
                    return match at < max {
                        true => Ok(Some(at + 1)),
                        false => Err(TOO_LONG),
                    };
                }
                self.line = at + 1;
            } else if byte != b'\r' && is_control(byte) {
                return bad("a control character");
            }
            before = Some(byte);
        }
        self.at = input.len();
        self.first_line(self.at, max)?;
        if self.at >= max { Err(TOO_LONG) } else { Ok(None) }
    }

    fn first_line(&self, length: usize, max: usize) -> Result<(), Refusal> {
        match !self.first && length > max / 2 {
            true => Err(Refusal::new(414, "the first line is too long")),
            false => Ok(()),
        }
    }
}

const TOO_LONG: Refusal = Refusal::new(431, "the head is too long");

/// Controls but for the tab, which may stand in the value of a field.
fn is_control(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Options,
    /// HTTP has it, and nothing here allows it.
    Other,
}

/// How the client wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    pub http10: bool,
    /// It may ask again on the same connection.
    pub keep: bool,
    /// The head of the answer is enough.
    pub head_only: bool,
}

impl Manner {
    /// For whoever cannot be understood: he is left.
    pub fn last(head_only: bool) -> Self {
        Manner { http10: false, keep: false, head_only }
    }
}

/// How long the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Sized(u64),
    Chunked,
}

/// The head of a request, as far as this service asks for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: Method,
    /// Without its query; every escape in it is a good one.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub manner: Manner,
    /// `None`: there is no body.
    pub body: Option<Framing>,
    /// It sends its body only once it is told to: RFC 9110, 10.1.1.
    pub expects: bool,
    /// It has the file as of that time.
    pub since: Option<SystemTime>,
}

impl<'a> Request<'a> {
    /// Reads a head that `Scan` has found the end of.
    pub fn parse(head: &'a [u8]) -> Result<Self, Refusal> {
        let end = head.iter().position(|it| *it == b'\r').unwrap_or_default();
        let (line, fields) = (&head[..end], &head[end + 2..]);
        let mut words = line.split(|it| *it == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return bad("the first line is not METHOD TARGET VERSION");
        };
        let http10 = version_of(version)?;
        if !is_token(method) {
            return bad("the method is no word");
        }
        let mut space = [EMPTY_HEADER; FIELDS];
        let fields = match parse_headers(fields, &mut space) {
            Ok(Status::Complete((_, fields))) => fields,
            Ok(Status::Partial) => return bad("a field is cut off"),
            Err(Error::TooManyHeaders) => {
                return Err(Refusal::new(431, "too many fields"));
            }
            // Among others: a space before the colon, or before the name,
            // which was once a way to continue a line.
            Err(_) => return bad("a field is not NAME: VALUE"),
        };
        let mut it = Fields::default();
        for field in fields {
            it.note(field.name, field.value)?;
        }
        let body = it.framing(http10)?;
        match it.host {
            Some(host) if !is_authority(host) => {
                return bad("the host is not HOST:PORT");
            }
            None if !http10 => return bad("Host is missing"),
            _ => {}
        }
        let (path, query) = target_of(method, target)?;
        let method = method_of(method)?;
        if it.expects_more && !http10 {
            return Err(Refusal::new(417, "only 100-continue can be expected"));
        }
        let keep = if http10 { it.keep && !it.close } else { !it.close };
        Ok(Request {
            method,
            path,
            query,
            manner: Manner { http10, keep, head_only: method == Method::Head },
            body,
            expects: it.expects && !http10,
            since: it.since.filter(|_| !it.none_match),
        })
    }
}

/// The fields that matter here.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    codings: Codings,
    keep: bool,
    close: bool,
    expects: bool,
    expects_more: bool,
    since: Option<SystemTime>,
    none_match: bool,
}

impl<'a> Fields<'a> {
    fn note(&mut self, name: &str, value: &'a [u8]) -> Result<(), Refusal> {
        let is = |other| name.eq_ignore_ascii_case(other);
        // Most fields are none of these, and this tells most of them apart.
        match name.len() {
            4 if is("Host") && self.host.replace(value).is_some() => {
                return bad("two hosts");
            }
            14 if is("Content-Length")
                && self.length.replace(value).is_some() =>
            {
                return bad("two lengths");
            }
            17 if is("Transfer-Encoding") => self.codings.note(value)?,
            10 if is("Connection") => {
                for word in value.split(|it| *it == b',') {
                    let word = word.trim_ascii();
                    self.close |= word.eq_ignore_ascii_case(b"close");
                    self.keep |= word.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            6 if is("Expect") => {
                let known = value.eq_ignore_ascii_case(b"100-continue");
                self.expects |= known;
                self.expects_more |= !known;
            }
            17 if is("If-Modified-Since") => {
                let text = str::from_utf8(value).unwrap_or_default();
                self.since = httpdate::parse_http_date(text).ok();
            }
            13 if is("If-None-Match") => self.none_match = true,
            _ => {}
        }
        Ok(())
    }

    /// Where the body ends: RFC 9112, 6.3. A length of two meanings, or of
    /// none, is where smuggling begins.
    fn framing(&self, http10: bool) -> Result<Option<Framing>, Refusal> {
        match (self.length, &self.codings) {
            (None, Codings { any: false, .. }) => Ok(None),
            (Some(_), Codings { any: true, .. }) => {
                bad("both Content-Length and Transfer-Encoding")
            }
            (Some(length), _) => match length_of(length)? {
                0 => Ok(None),
                length => Ok(Some(Framing::Sized(length))),
            },
            _ if http10 => bad("HTTP/1.0 has no Transfer-Encoding"),
            (_, Codings { unknown: true, .. }) => Err(UNKNOWN),
            (_, Codings { chunked: false, .. }) => bad(LAST),
            (_, Codings { other: true, .. }) => Err(UNKNOWN),
            _ => Ok(Some(Framing::Chunked)),
        }
    }
}

const UNKNOWN: Refusal = Refusal::new(501, "only chunked is understood");
const LAST: &str = "chunked must be the last coding, once";

/// How a body is wrapped up for its way.
#[derive(Default)]
struct Codings {
    any: bool,
    chunked: bool,
    /// HTTP has it; the bodies of this service have no use for it.
    other: bool,
    unknown: bool,
}

impl Codings {
    fn note(&mut self, value: &[u8]) -> Result<(), Refusal> {
        self.any = true;
        for word in value.split(|it| *it == b',') {
            let word = word.trim_ascii();
            let name = word.split(|it| *it == b';').next().unwrap_or(word);
            let is = |it: &str| name.eq_ignore_ascii_case(it.as_bytes());
            let known = ["gzip", "x-gzip", "deflate", "compress", "x-compress"];
            if self.chunked {
                return bad(LAST);
            } else if !is_token(name.trim_ascii()) {
                return bad("a transfer coding is no word");
            } else if is("chunked") {
                self.chunked = true;
                if name.len() != word.len() {
                    return bad("chunked has no parameters");
                }
            } else if known.into_iter().any(is) {
                self.other = true;
            } else {
                self.unknown = true;
            }
        }
        Ok(())
    }
}

/// Digits and nothing else: no sign, no list.
fn length_of(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return bad("Content-Length is no number");
    }
    let digits = str::from_utf8(value).unwrap_or_default();
    digits.parse().map_err(|_| TOO_LARGE)
}

/// Also what a body says of itself that is longer than any.
pub const TOO_LARGE: Refusal = Refusal::new(413, "the body is too long");

/// Whether it is HTTP/1.0. RFC 9110, 2.5: a later minor version is understood
/// as the last that one knows.
fn version_of(version: &[u8]) -> Result<bool, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(false),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Refusal::new(505, "only HTTP/1.0 and HTTP/1.1"))
        }
        _ => bad("no version of HTTP"),
    }
}

fn method_of(method: &[u8]) -> Result<Method, Refusal> {
    Ok(match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"OPTIONS" => Method::Options,
        b"DELETE" | b"PATCH" | b"TRACE" | b"CONNECT" => Method::Other,
        // RFC 9110, 9.1; they differ in upper and lower case.
        _ => return Err(Refusal::new(501, "an unknown method")),
    })
}

/// Path and query of the forms of RFC 9112, 3.2.
fn target_of<'a>(
    method: &[u8],
    target: &'a [u8],
) -> Result<(&'a str, Option<&'a str>), Refusal> {
    let target = match str::from_utf8(target) {
        Ok(it) if it.bytes().all(|it| it.is_ascii_graphic() && it != b'#') => {
            it
        }
        _ => return bad("a character in the target that none may have"),
    };
    let scheme = target.get(..7).unwrap_or_default();
    let rest = match target {
        "*" if method == b"OPTIONS" => return Ok(("*", None)),
        // HOST:PORT, which is allowed nowhere.
        _ if method == b"CONNECT" => return Ok(("*", None)),
        _ if target.starts_with('/') => target,
        _ if scheme.eq_ignore_ascii_case("http://") => {
            let rest = &target[7..];
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            if end == 0 || !is_authority(&rest.as_bytes()[..end]) {
                return bad("the target's host is not HOST:PORT");
            }
            &rest[end..]
        }
        _ => return bad("the target is not a path"),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let mut rest = path.as_bytes();
    while let Some(at) = rest.iter().position(|it| *it == b'%') {
        match rest[at + 1..] {
            // No name of a file has a NUL in it.
            [b'0', b'0', ..] => return bad("a NUL in the path"),
            [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {}
            _ => return bad("% is not followed by two digits"),
        }
        rest = &rest[at + 3..];
    }
    Ok((if path.is_empty() { "/" } else { path }, query))
}

/// HOST or HOST:PORT, as far as another could take it for something else. An
/// empty one is right where there is no host (RFC 9112, 3.2).
fn is_authority(text: &[u8]) -> bool {
    let end = match text.iter().position(|it| *it == b']') {
        Some(end) if text[0] == b'[' => end + 1,
        Some(_) => return false,
        None => text.iter().position(|it| *it == b':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    let host_fits = match host {
        [b'[', inner @ .., b']'] => inner
            .iter()
            .all(|it| it.is_ascii_hexdigit() || matches!(it, b':' | b'.')),
        host => host.iter().all(|it| {
            it.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(it)
        }),
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_fits && port_fits
}

fn is_token(word: &[u8]) -> bool {
    let fits =
        |it: &u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(it);
    !word.is_empty() && word.iter().all(fits)
}

/// A body as it comes in.
pub enum Body {
    Sized(u64),
    Chunked(Chunks),
}

/// How far a body has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress {
    /// So much of the input was of it.
    pub taken: usize,
    pub is_over: bool,
}

impl Body {
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Sized(length) => Body::Sized(length),
            Framing::Chunked => Body::Chunked(Chunks::default()),
        }
    }

    /// Gives what has come of it to `content`.
    pub fn take(
        &mut self,
        input: &[u8],
        max: u64,
        mut content: impl FnMut(&[u8]),
    ) -> Result<Progress, Refusal> {
        match self {
            Body::Chunked(chunks) => chunks.take(input, max, content),
            Body::Sized(left) => {
                let taken = input.len().min(*left as usize);
                content(&input[..taken]);
                *left -= taken as u64;
                Ok(Progress { taken, is_over: *left == 0 })
            }
        }
    }
}

/// RFC 9112, 7.1: each chunk follows its size, and the last one is empty.
#[derive(Default)]
pub struct Chunks {
    at: At,
    /// Bytes of this chunk that are still to come.
    left: u64,
    sum: u64,
    /// Extensions and trailers so far, which nobody reads here.
    unread: usize,
}

#[derive(Default)]
enum At {
    #[default]
    Size,
    Content,
    /// The end of the line after it.
    End,
    Trailer,
}

/// The longest line between chunks, and how much of such may come in all.
const LINE: usize = 1 << 10;
const UNREAD: usize = 16 << 10;

impl Chunks {
    fn take(
        &mut self,
        input: &[u8],
        max: u64,
        mut content: impl FnMut(&[u8]),
    ) -> Result<Progress, Refusal> {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            let not_yet = Ok(Progress { taken, is_over: false });
            match self.at {
                At::Content => {
                    let n = rest.len().min(self.left as usize);
                    content(&rest[..n]);
                    taken += n;
                    self.left -= n as u64;
                    if self.left > 0 {
                        return Ok(Progress { taken, is_over: false });
                    }
                    self.at = At::End;
                }
                At::End => {
                    match rest {
                        [b'\r', b'\n', ..] => self.at = At::Size,
                        [] | [b'\r'] => return not_yet,
                        _ => return bad("a chunk is longer than its size"),
                    }
                    taken += 2;
                }
                At::Size => {
                    let Some(line) = line_of(rest)? else { return not_yet };
                    taken += line.len() + 2;
                    let (size, extension) = size_of(line)?;
                    self.skip(extension, 400)?;
                    self.sum = self.sum.saturating_add(size);
                    if self.sum > max {
                        return Err(TOO_LARGE);
                    }
                    self.left = size;
                    self.at = if size > 0 { At::Content } else { At::Trailer };
                }
                At::Trailer => {
                    let Some(line) = line_of(rest)? else { return not_yet };
                    taken += line.len() + 2;
                    self.skip(line.len(), 431)?;
                    if line.is_empty() {
                        return Ok(Progress { taken, is_over: true });
                    }
                    let colon = line.iter().position(|it| *it == b':');
                    if !colon.is_some_and(|colon| is_token(&line[..colon])) {
                        return bad("a trailer is not NAME: VALUE");
                    }
                }
            }
        }
    }

    fn skip(&mut self, bytes: usize, status: u16) -> Result<(), Refusal> {
        self.unread += bytes;
        match self.unread > UNREAD {
            true => Err(Refusal::new(status, "too much between the chunks")),
            false => Ok(()),
        }
    }
}

/// The line that has come, without its end.
fn line_of(input: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    let Some(end) = input.iter().take(LINE).position(|it| *it == b'\n') else {
        if input.len() >= LINE {
            return bad("a line between the chunks is too long");
        }
        return Ok(None);
    };
    match &input[..end] {
        [line @ .., b'\r'] if !line.iter().any(|it| is_control(*it)) => {
            Ok(Some(line))
        }
        _ => bad("a line between the chunks has no good end"),
    }
}

/// The size of a chunk, and the length of its extensions.
fn size_of(line: &[u8]) -> Result<(u64, usize), Refusal> {
    let end = line.iter().position(|it| !it.is_ascii_hexdigit());
    let (digits, extension) = line.split_at(end.unwrap_or(line.len()));
    let follows = extension.trim_ascii_start();
    if digits.is_empty() || !(extension.is_empty() || follows.starts_with(b";"))
    {
        return bad("a chunk has no size");
    }
    let digits = str::from_utf8(digits).unwrap_or_default();
    match u64::from_str_radix(digits, 16) {
        Ok(size) if digits.len() <= 16 => Ok((size, extension.len())),
        _ => Err(TOO_LARGE),
    }
}

#[cfg(test)]
mod tests;

//! What the service has: files, and three resources of its own.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use reactor::Reactor;

use crate::answer::{Answer, TEXT};
use crate::connection::Connection;
use crate::files::{self, Sending};
use crate::request::{Framing, Manner, Method, Refusal, Request, TOO_LARGE};
use crate::service::{Buffer, Service};

/// What remains to be done when an answer has been begun.
pub enum Outcome {
    Done,
    /// Its content is a file.
    File(Sending),
    /// It is to be made after a while, by `slept`.
    Sleep(Duration),
}

/// The longest sleep that one may ask for.
const SLEEP: u64 = 60_000;

enum Route<'a> {
    Echo,
    Stats,
    Sleep,
    /// The service as a whole.
    All,
    File(Cow<'a, [u8]>),
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Self {
        let path: Cow<'a, [u8]> = percent_decode_str(path).into();
        match &*path {
            b"/echo" => Route::Echo,
            b"/stats" => Route::Stats,
            b"/sleep" => Route::Sleep,
            b"*" => Route::All,
            _ => Route::File(path),
        }
    }

    fn allows(&self) -> (&'static [Method], &'static str) {
        use Method::*;
        match self {
            Route::Echo => (&[Post, Put, Options], "POST, PUT, OPTIONS"),
            Route::All => (&[Options], "GET, HEAD, POST, PUT, OPTIONS"),
            _ => (&[Get, Head, Options], "GET, HEAD, OPTIONS"),
        }
    }
}

/// What is known to be wrong before the body has come.
pub fn check(request: &Request<'_>, service: &Service) -> Result<(), Refusal> {
    let (methods, allow) = Route::of(request.path).allows();
    if !methods.contains(&request.method) {
        let refusal = Refusal::new(405, "that is not allowed here");
        return Err(Refusal { allow: Some(allow), ..refusal });
    }
    match request.body {
        Some(Framing::Sized(it)) if it > service.limits.max_body => {
            Err(TOO_LARGE)
        }
        _ => Ok(()),
    }
}

/// Whether anybody wants to have the body.
pub fn wants_body(request: &Request<'_>) -> bool {
    matches!(Route::of(request.path), Route::Echo)
}

/// Writes the answer, or what is at hand of it.
pub fn answer(
    request: &Request<'_>,
    content: &[u8],
    manner: Manner,
    service: &Service,
    reactor: &Reactor<Connection>,
    out: &mut Buffer,
) -> Result<Outcome, Refusal> {
    let route = Route::of(request.path);
    if request.method == Method::Options {
        let mut answer = Answer::new(204, None);
        let allow = [route.allows().1];
        answer.more = Some(("Allow", &allow));
        answer.write(manner, service, out);
        return Ok(Outcome::Done);
    }
    match route {
        Route::File(path) => {
            return files::answer(&path, request, manner, service, out);
        }
        Route::Sleep => return milliseconds(request).map(Outcome::Sleep),
        Route::Echo => {
            let kind = "application/octet-stream";
            let answer = Answer::new(200, None);
            answer.write_with(kind, content, manner, service, out);
        }
        Route::Stats | Route::All => {
            let (kind, stats) = ("application/json", stats(service, reactor));
            let answer = Answer::new(200, None);
            answer.write_with(kind, stats.as_bytes(), manner, service, out);
        }
    }
    Ok(Outcome::Done)
}

/// Writes the answer to whoever asked for a sleep.
pub fn slept(manner: Manner, service: &Service, out: &mut Buffer) {
    Answer::new(200, None).write_with(TEXT, b"slept\n", manner, service, out);
}

fn milliseconds(request: &Request<'_>) -> Result<Duration, Refusal> {
    let number = request.query.and_then(|it| it.strip_prefix("ms="));
    let digits = number.filter(|it| it.bytes().all(|it| it.is_ascii_digit()));
    match digits.and_then(|it| it.parse().ok()) {
        Some(number @ 0..=SLEEP) => Ok(Duration::from_millis(number)),
        _ => Err(Refusal::new(400, "expected ms=N, 60000 at most")),
    }
}

fn stats(service: &Service, reactor: &Reactor<Connection>) -> String {
    let (it, connections) = (reactor.counters(), reactor.connections());
    let mut text = format!(
        "{{\"connections\":{connections},\"opened\":{},\"closed\":{},\
         \"waits\":{},\"events\":{},\"timers\":{},\"answers\":{{",
        it.opened, it.closed, it.waits, it.events, it.timers
    );
    for (at, (status, count)) in service.by_status().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(text, "{comma}\"{status}\":{count}");
    }
    text.push_str("}}\n");
    text
}

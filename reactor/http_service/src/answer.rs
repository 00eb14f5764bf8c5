//! The head of an answer, and answers that consist of a line.

use std::fmt::Write;
use std::time::SystemTime;

use httpdate::HttpDate;

use crate::request::{Manner, Refusal};
use crate::service::{Buffer, Service};

/// What the head of an answer says.
pub struct Answer<'a> {
    pub status: u16,
    /// The type and length of its content; some answers have none by their
    /// status.
    pub content: Option<(&'a str, u64)>,
    pub modified: Option<SystemTime>,
    /// One field more, and its value in parts.
    pub more: Option<(&'a str, &'a [&'a str])>,
}

pub const TEXT: &str = "text/plain; charset=utf-8";

impl<'a> Answer<'a> {
    pub fn new(status: u16, content: Option<(&'a str, u64)>) -> Self {
        Answer { status, content, modified: None, more: None }
    }

    /// Counts it, and writes the head.
    pub fn write(&self, manner: Manner, service: &Service, out: &mut Buffer) {
        service.count(self.status);
        self.put(manner, service, out);
    }

    /// Writes the head. What is fixed goes as it is: most of it is.
    pub fn put(&self, manner: Manner, service: &Service, out: &mut Buffer) {
        match self.status {
            200 => out.push(b"HTTP/1.1 200 OK\r\nDate: "),
            status => {
                let reason = reason(status);
                let _ = write!(out, "HTTP/1.1 {status} {reason}\r\nDate: ");
            }
        }
        service.clock.write(out);
        if let Some((kind, length)) = self.content {
            out.push(b"\r\nContent-Type: ");
            out.push(kind.as_bytes());
            let _ = write!(out, "\r\nContent-Length: {length}");
        }
        if let Some(modified) = self.modified {
            let modified = HttpDate::from(modified);
            let _ = write!(out, "\r\nLast-Modified: {modified}");
        }
        if let Some((field, value)) = self.more {
            out.push(b"\r\n");
            out.push(field.as_bytes());
            out.push(b": ");
            value.iter().for_each(|part| out.push(part.as_bytes()));
        }
        // RFC 9112, 9.3: to keep it is what HTTP/1.1 expects, and 1.0 not.
        match manner {
            Manner { keep: false, .. } => out.push(b"\r\nConnection: close"),
            Manner { http10: true, .. } => {
                out.push(b"\r\nConnection: keep-alive");
            }
            _ => {}
        }
        out.push(b"\r\n\r\n");
    }

    /// Writes all of an answer whose content is at hand.
    pub fn write_with(
        mut self,
        kind: &'a str,
        content: &[u8],
        manner: Manner,
        service: &Service,
        out: &mut Buffer,
    ) {
        self.content = Some((kind, content.len() as u64));
        self.write(manner, service, out);
        if !manner.head_only {
            out.push(content);
        }
    }
}

impl Refusal {
    /// Writes the answer that says what is wrong.
    pub fn write(&self, manner: Manner, service: &Service, out: &mut Buffer) {
        let (status, why) = (self.status, self.why);
        let allow = [self.allow.unwrap_or_default()];
        let mut answer = Answer::new(status, None);
        answer.more = self.allow.map(|_| ("Allow", &allow[..]));
        let text = format!("{status} {}: {why}\n", reason(status));
        answer.write_with(TEXT, text.as_bytes(), manner, service, out);
    }
}

/// RFC 9110, 15.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

//! Serves the built book to a browser on this machine: a thread for each
//! connection, and one answer on each, so that none waits for another.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use httparse::{EMPTY_HEADER, Request, Status};

/// The longest that a browser may keep its thread waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest head of a request.
const HEAD: usize = 16 * 1024;

/// A server that listens already.
pub struct Site {
    listener: TcpListener,
    folder: PathBuf,
}

impl Site {
    /// Listens at `addr` for whoever wants to read `folder`.
    ///
    /// Fails when the address is taken.
    pub fn listen(addr: SocketAddr, folder: &Path) -> Result<Site> {
        let listener = TcpListener::bind(addr)
            .with_context(|| format!("cannot listen on {addr}"))?;
        Ok(Site { listener, folder: folder.canonicalize()? })
    }

    /// Where the book is to be found.
    ///
    /// Fails when the listener has been closed.
    pub fn url(&self) -> Result<String> {
        Ok(format!("http://{}/", self.listener.local_addr()?))
    }

    /// Answers until the program ends.
    pub fn run(self) {
        for client in self.listener.incoming() {
            let Ok(client) = client else {
                // Mostly a lack of descriptors, which passes.
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            let folder = self.folder.clone();
            // A reader that has gone needs no answer.
            thread::spawn(move || drop(answer(client, &folder)));
        }
    }
}

fn answer(mut client: TcpStream, folder: &Path) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    client.set_nodelay(true)?;
    let (status, kind, body) = match asked(&mut client)? {
        Asked::File(path) => match file(folder, &path) {
            Some(path) => ("200 OK", kind_of(&path), fs::read(path)?),
            None => told("404 Not Found", "There is no such page.\n"),
        },
        Asked::Else => told("405 Method Not Allowed", "Only GET is known.\n"),
        Asked::Nonsense => told("400 Bad Request", "This is no request.\n"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: \
         {}\r\nAllow: GET\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(&[head.as_bytes(), &body].concat())?;
    // To close with bytes unread would take back what has been sent.
    client.shutdown(Shutdown::Write)?;
    io::copy(&mut client.take(HEAD as u64), &mut io::sink()).map(drop)
}

fn told(
    status: &'static str,
    words: &str,
) -> (&'static str, &'static str, Vec<u8>) {
    (status, kind_of(Path::new("x.txt")), words.as_bytes().to_vec())
}

enum Asked {
    /// GET of this path.
    File(String),
    /// Another method.
    Else,
    /// No HTTP.
    Nonsense,
}

fn asked(client: &mut TcpStream) -> io::Result<Asked> {
    let mut bytes = Vec::new();
    let mut room = [0; 4096];
    while bytes.len() < HEAD {
        let n = client.read(&mut room)?;
        bytes.extend_from_slice(&room[..n]);
        let mut headers = [EMPTY_HEADER; 64];
        let mut request = Request::new(&mut headers);
        match request.parse(&bytes) {
            Ok(Status::Complete(_)) => {
                let path = request.path.unwrap_or("/");
                let path = path.split(['?', '#']).next().unwrap_or("/");
                return Ok(match request.method {
                    Some("GET") => Asked::File(path.to_owned()),
                    _ => Asked::Else,
                });
            }
            Ok(Status::Partial) if n > 0 => {}
            _ => break,
        }
    }
    Ok(Asked::Nonsense)
}

/// A file below the folder, and none outside of it.
fn file(folder: &Path, path: &str) -> Option<PathBuf> {
    let mut file = folder.join(path.trim_start_matches('/'));
    if file.is_dir() {
        file.push("index.html");
    }
    let file = file.canonicalize().ok()?;
    (file.starts_with(folder) && file.is_file()).then_some(file)
}

fn kind_of(path: &Path) -> &'static str {
    let ending = path.extension().and_then(|it| it.to_str());
    match ending.unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css",
        "js" => "text/javascript",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

//! Serves the built book to a browser on this machine.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use tiny_http::{Header, Request, Response, Server, StatusCode};

/// A server that listens already.
pub struct Site {
    server: Server,
    folder: PathBuf,
}

impl Site {
    /// Listens at `addr` for whoever wants to read `folder`.
    ///
    /// Fails when the address is taken.
    pub fn listen(addr: SocketAddr, folder: &Path) -> Result<Site> {
        let server = Server::http(addr)
            .map_err(|error| anyhow!("cannot listen on {addr}: {error}"))?;
        Ok(Site { server, folder: folder.canonicalize()? })
    }

    /// Where the book is to be found.
    pub fn url(&self) -> String {
        format!("http://{}/", self.server.server_addr())
    }

    /// Answers until the program ends.
    pub fn run(self) {
        for request in self.server.incoming_requests() {
            // A reader that has gone needs no answer.
            let _gone = self.answer(request);
        }
    }

    fn answer(&self, request: Request) -> std::io::Result<()> {
        let path = request.url().split(['?', '#']).next().unwrap_or("/");
        match self.file(path) {
            Some(path) => {
                let kind = kind_of(&path);
                let header = Header::from_bytes("Content-Type", kind);
                let mut response = Response::from_file(File::open(&path)?);
                if let Ok(header) = header {
                    response.add_header(header);
                }
                request.respond(response)
            }
            None => {
                let text = Response::from_string("There is no such page.\n");
                request.respond(text.with_status_code(StatusCode(404)))
            }
        }
    }

    /// A file below the folder, and none outside of it.
    fn file(&self, path: &str) -> Option<PathBuf> {
        let mut file = self.folder.join(path.trim_start_matches('/'));
        if file.is_dir() {
            file.push("index.html");
        }
        let file = file.canonicalize().ok()?;
        (file.starts_with(&self.folder) && file.is_file()).then_some(file)
    }
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

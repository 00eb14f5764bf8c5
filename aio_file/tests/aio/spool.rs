//! The spool: a file that stays small, is nobody else's, and may be full.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::Resource::RLIMIT_FSIZE;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::server::{command, start};

/// How long a race may take to be lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A name in a place for temporary files, removed in the end.
struct Name(PathBuf);

impl Name {
    fn new(name: &str) -> Self {
        let dir = env!("CARGO_TARGET_TMPDIR");
        let name = PathBuf::from(format!("{dir}/{name}.{}", process::id()));
        fs::remove_file(&name).ok();
        Name(name)
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// What a server says that does not even start to serve.
fn refuses(path: &str) -> String {
    let output = command(&["--spool", path]).output().expect("it starts");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let begin = format!("aio_file: cannot open the spool {path}: ");
    said.strip_prefix(&begin).expect(&said).to_owned()
}

#[test]
fn regions_are_used_again() {
    let name = Name::new("regions");
    fs::write(&name.0, vec![1; 1 << 20]).expect("it was there before");
    let args = ["--operations", "3", "--buffer", "1KiB", "--spool"];
    let server = start(None, &[&args[..], &[name.text()]].concat());
    assert_eq!(server.echoes(20, 50, 1500), 20);
    let size = fs::metadata(&name.0).expect("a file").len();
    assert!(0 < size && size <= 3 * 1024, "the spool has {size} bytes");
    server.stop();
    assert!(name.0.exists(), "a reader may look at it");
}

/// Whoever does not fit is dropped, and the others are served; and there is
/// room for them always, for a region that has worked is used again.
#[test]
fn a_full_spool_ends_clients_and_not_the_server() {
    for notify in ["signal", "thread", "suspend"] {
        let args = ["--notify", notify];
        let server = start(Some((RLIMIT_FSIZE, 32 << 10)), &args);
        // All at once, before anyone of them is served.
        let mut clients: Vec<TcpStream> =
            (0..30).map(|_| server.client()).collect();
        for client in &mut clients {
            client.write_all(&[7; 10_000]).expect("it accepts");
        }
        let served = clients
            .iter_mut()
            .filter_map(|client| client.read_exact(&mut [0; 10_000]).ok());
        let served = served.count();
        assert!(served > 0, "{notify}: nobody was served");
        for _ in 0..5 {
            assert_eq!(server.echoes(1, 3, 10_000), 1, "{notify}");
        }
        let dropped = clients.len() - served;
        drop(clients);
        let said = server.stop();
        if dropped > 0 {
            let why = "a client was dropped: aio_write: File too large (EFBIG)";
            assert!(said.contains(why), "{said}");
            assert_eq!(said.lines().count(), 2, "{said}");
            assert!(said.contains(&format!("{dropped} client")), "{said}");
        }
    }
}

#[test]
fn a_spool_that_fits_nobody_drops_everyone() {
    let server = start(Some((RLIMIT_FSIZE, 0)), &[]);
    assert_eq!(server.echoes(3, 1, 100), 0);
    let said = server.stop();
    assert!(said.contains("3 clients dropped"), "{said}");
}

/// A read that finds nothing met the end of the file: somebody else made it
/// shorter. The client is dropped then, and gets no other bytes.
#[test]
fn a_spool_that_others_truncate_gives_nobody_wrong_bytes() {
    let name = Name::new("truncated");
    let args = ["--operations", "1", "--spool", name.text()];
    let server = start(None, &args);
    assert_eq!(server.echoes(1, 1, 3000), 1);
    let file = File::options().write(true).open(&name.0).expect("a file");
    let begin = Instant::now();
    thread::scope(|scope| {
        let talking = scope.spawn(|| {
            // `echoes` itself holds every byte that comes against its own.
            while server.echoes(1, 20, 3000) == 1 {
                assert!(begin.elapsed() < PATIENCE, "no read found the end");
            }
        });
        while !talking.is_finished() {
            file.set_len(0).expect("it may be truncated");
        }
    });
    assert_eq!(server.echoes(3, 1, 3000), 3);
    let said = server.stop();
    assert!(said.contains("aio_read: No data available"), "{said}");
}

#[test]
fn what_cannot_be_a_spool_is_refused_in_a_line() {
    assert!(refuses("/nonexistent/spool").contains("No such file"));
    assert!(refuses("/tmp").contains("Is a directory"));
    assert!(refuses("/dev/null").contains("it is not a regular file"));
    let fifo = Name::new("fifo");
    mkfifo(&fifo.0, Mode::S_IRWXU).expect("a fifo");
    assert!(refuses(fifo.text()).contains("it is not a regular file"));
}

#[test]
fn two_servers_do_not_share_a_spool() {
    let name = Name::new("shared");
    let server = start(None, &["--spool", name.text()]);
    assert_eq!(server.echoes(1, 1, 100), 1);
    assert!(refuses(name.text()).contains("another server uses it"));
    let size = fs::metadata(&name.0).expect("a file").len();
    assert_eq!(size, 100, "the other one has truncated it");
    server.stop();
    start(None, &["--spool", name.text()]).stop();
}

//! The HTTP service, from outside: each test starts one of its own.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

/// Nothing here takes so long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

const BIG: usize = 8 << 20;

struct Service {
    child: Child,
    addr: SocketAddr,
    folder: TempDir,
}

impl Service {
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("index.html"), "the root\n").unwrap();
        fs::write(root.join("small.txt"), "small\n").unwrap();
        fs::write(root.join("a b.txt"), "with a space\n").unwrap();
        fs::write(root.join("sub/index.html"), "a folder\n").unwrap();
        fs::write(root.join("empty.css"), "").unwrap();
        fs::write(root.join("big.bin"), noise(BIG)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_http_service"));
        command.args(["--addr", "127.0.0.1:0", "--root"]).arg(&root);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ");
        let addr = addr.and_then(|it| it.parse().ok());
        Service { child, addr: addr.expect(&line), folder }
    }

    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    fn client(&self) -> Client {
        let socket = TcpStream::connect(self.addr).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        Client { socket, came: Vec::new() }
    }

    /// What a well-behaved client is answered to one request.
    fn get(&self, target: &str) -> Answer {
        let mut client = self.client();
        client.send(get(target));
        client.answer().expect(target)
    }

    fn assert_serves(&self, after: &str) {
        let answer = self.get("/small.txt");
        assert_eq!(
            (answer.status, &*answer.body),
            (200, &b"small\n"[..]),
            "{after}"
        );
    }

    fn proc(&self, name: &str) -> std::path::PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    fn resident(&self) -> usize {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
        let kib = line.split_whitespace().nth(1).unwrap();
        kib.parse::<usize>().unwrap() << 10
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Its exit status, and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        eventually("the service ends", || {
            self.child.try_wait().unwrap().is_some()
        });
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Client {
    socket: TcpStream,
    came: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.fields.iter().filter(|it| it.0 == name);
        let field = all.next().map(|it| &*it.1);
        assert!(all.next().is_none(), "{name} twice: {self:?}");
        field
    }

    fn closes(&self) -> bool {
        self.field("connection") == Some("close")
    }
}

impl Client {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The service may have answered and left before the end of it.
        self.socket.write_all(bytes.as_ref()).ok();
    }

    fn more(&mut self) -> usize {
        let mut bytes = [0; 16 << 10];
        let n = match self.socket.read(&mut bytes) {
            Ok(n) => n,
            Err(err) => panic!("{err} after {:?}", self.came.escape_ascii()),
        };
        self.came.extend_from_slice(&bytes[..n]);
        n
    }

    /// The next answer; `None` if there is none any more.
    fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET")
    }

    fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let end = loop {
            let found = self.came.windows(4).position(|it| it == b"\r\n\r\n");
            if let Some(end) = found {
                break end + 4;
            }
            if self.more() == 0 {
                assert!(
                    self.came.is_empty(),
                    "cut off: {:?}",
                    self.came.escape_ascii()
                );
                return None;
            }
        };
        let head: Vec<u8> = self.came.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
        let status = status[..3].parse().unwrap();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        });
        let fields = fields.collect();
        let mut answer = Answer { status, fields, body: vec![] };
        let bare = method == "HEAD" || [100, 204, 304].contains(&status);
        let length = answer.field("content-length");
        assert_eq!(length.is_none(), [100, 204, 304].contains(&status));
        if !bare {
            let length: usize = length.unwrap().parse().unwrap();
            while self.came.len() < length {
                assert!(
                    self.more() > 0,
                    "cut off at {} of {length}",
                    self.came.len()
                );
            }
            answer.body = self.came.drain(..length).collect();
        }
        Some(answer)
    }

    fn assert_end(&mut self, after: &str) {
        assert!(
            self.came.is_empty(),
            "{after}: {:?}",
            self.came.escape_ascii()
        );
        assert_eq!(self.more(), 0, "{after}: {:?}", self.came.escape_ascii());
    }

    fn half_close(&self) {
        // It may be closed on both sides already.
        self.socket.shutdown(Shutdown::Write).ok();
    }

    /// Its end sends RST.
    fn reset(self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&self.socket, sockopt::Linger, &linger).unwrap();
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.u8(..)).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LIMIT, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// First lines, each followed by a host and the end of the head.
const LINES: &[(&str, u16)] = &[
    ("GET / HTTP/1.1", 200),
    ("GET /small.txt?query HTTP/1.1", 200),
    ("GET /a%20b.txt HTTP/1.1", 200),
    ("GET /sm%61ll.txt HTTP/1.1", 200),
    ("GET //small.txt HTTP/1.1", 200),
    ("GET /./sub/../small.txt HTTP/1.1", 200),
    ("GET /sub/ HTTP/1.1", 200),
    ("GET /sub HTTP/1.1", 301),
    ("GET /sub%2findex.html HTTP/1.1", 200),
    ("GET http://a/small.txt HTTP/1.1", 200),
    ("GET HTTP://a:80 HTTP/1.1", 200),
    ("GET http:///small.txt HTTP/1.1", 400),
    ("GET http://u@a/ HTTP/1.1", 400),
    ("GET ftp://a/ HTTP/1.1", 400),
    ("GET / HTTP/1.0", 200),
    ("GET / HTTP/1.2", 200),
    ("GET / HTTP/1.9", 200),
    ("GET / HTTP/0.9", 505),
    ("GET / HTTP/2.0", 505),
    ("GET / HTTP/3.0", 505),
    ("PRI * HTTP/2.0", 505),
    ("GET / HTTP/1.10", 400),
    ("GET / HTTP/11", 400),
    ("GET / HTTP/1", 400),
    ("GET / http/1.1", 400),
    ("GET / HTTP/x.y", 400),
    ("GET / HTTPS/1.1", 400),
    ("GET /", 400),
    ("GET", 400),
    ("GET  / HTTP/1.1", 400),
    ("GET /  HTTP/1.1", 400),
    ("GET / HTTP/1.1 ", 400),
    (" GET / HTTP/1.1", 400),
    ("GET\t/ HTTP/1.1", 400),
    ("GET /a b HTTP/1.1", 400),
    ("GET /a\tb HTTP/1.1", 400),
    ("GET /\u{e9} HTTP/1.1", 400),
    ("GET /#fragment HTTP/1.1", 400),
    ("GET /\x7f HTTP/1.1", 400),
    ("GET /\0 HTTP/1.1", 400),
    ("GET /% HTTP/1.1", 400),
    ("GET /%2 HTTP/1.1", 400),
    ("GET /%zz HTTP/1.1", 400),
    ("GET /%00 HTTP/1.1", 400),
    ("GET /small.txt%00.html HTTP/1.1", 400),
    ("GET small.txt HTTP/1.1", 400),
    ("GET * HTTP/1.1", 400),
    ("GET ? HTTP/1.1", 400),
    ("OPTIONS * HTTP/1.1", 204),
    ("OPTIONS /echo HTTP/1.1", 204),
    ("OPTIONS / HTTP/1.1", 204),
    ("get / HTTP/1.1", 501),
    ("BREW / HTTP/1.1", 501),
    ("G(T / HTTP/1.1", 400),
    ("DELETE /small.txt HTTP/1.1", 405),
    ("TRACE / HTTP/1.1", 405),
    ("CONNECT a:80 HTTP/1.1", 405),
    ("POST /small.txt HTTP/1.1", 405),
    ("GET /echo HTTP/1.1", 405),
    ("HEAD /echo HTTP/1.1", 405),
    ("POST /stats HTTP/1.1", 405),
    ("GET /missing HTTP/1.1", 404),
    ("GET /small.txt/ HTTP/1.1", 404),
    ("GET /empty.css HTTP/1.1", 200),
    ("GET /sleep?ms=0 HTTP/1.1", 200),
    ("GET /sleep HTTP/1.1", 400),
    ("GET /sleep?ms=-1 HTTP/1.1", 400),
    ("GET /sleep?ms=60001 HTTP/1.1", 400),
    ("GET /sleep?ms=99999999999999999999 HTTP/1.1", 400),
];

/// Fields, which a GET of a small file has besides its host.
const FIELDS: &[(&[u8], u16)] = &[
    (b"A: b", 200),
    (b"A:b", 200),
    (b"A:\t b \t", 200),
    (b"A:", 200),
    (b"A: \xe9\xff", 200),
    (b"!#$%&'*+-.^_`|~09azAZ: all of a word", 200),
    (b"A : b", 400),
    (b"A\t: b", 400),
    (b" A: b", 400),
    (b"A: b\r\n c", 400),
    (b"A: b\r\n\tc", 400),
    (b"A", 400),
    (b": b", 400),
    (b"A b: c", 400),
    (b"A(b): c", 400),
    (b"\xe9: b", 400),
    (b"A: b\nC: d", 400),
    (b"A: b\rC: d", 400),
    (b"A: b\0", 400),
    (b"A: \x01", 400),
    (b"A: \x7f", 400),
    (b"Host: a", 400),
    (b"Host: b", 400),
    (b"Content-Length: 0", 200),
    (b"Content-Length: 00", 200),
    (b"Content-Length:", 400),
    (b"Content-Length: +5", 400),
    (b"Content-Length: -5", 400),
    (b"Content-Length: 0x5", 400),
    (b"Content-Length: 5.0", 400),
    (b"Content-Length: 5 5", 400),
    (b"Content-Length: 5, 5", 400),
    (b"Content-Length: five", 400),
    (b"Content-Length: 5\r\nContent-Length: 5", 400),
    (b"Content-Length: 5\r\nContent-Length: 6", 400),
    (b"Content-Length: 5\r\ncontent-length: 5", 400),
    (b"Content-Length: 18446744073709551616", 413),
    (b"Content-Length: 18446744073709551615", 413),
    (b"Content-Length: 1048577", 413),
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 0", 400),
    (b"Content-Length: 5\r\nTransfer-Encoding: unknown", 400),
    (b"Transfer-Encoding:", 400),
    (b"Transfer-Encoding: ,chunked", 400),
    (b"Transfer-Encoding: \"chunked\"", 400),
    (b"Transfer-Encoding: chunked, chunked", 400),
    (b"Transfer-Encoding: chunked, identity", 400),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", 400),
    (b"Transfer-Encoding: chunked; a=b", 400),
    (b"Transfer-Encoding: \x0bchunked", 400),
    (b"Transfer-Encoding : chunked", 400),
    (b"Transfer-Encoding: gzip", 400),
    (b"Transfer-Encoding: gzip, chunked", 501),
    (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
    (b"Transfer-Encoding: xchunked", 501),
    (b"Transfer-Encoding: identity", 501),
    (b"Transfer_Encoding: chunked", 200),
    (b"Expect: 200-ok", 417),
    (b"Expect: 100-continue", 200),
    (b"If-Modified-Since: yesterday", 200),
    (b"If-Modified-Since: Fri, 31 Dec 2100 23:59:59 GMT", 304),
    (
        b"If-Modified-Since: Fri, 31 Dec 2100 23:59:59 GMT\r\nIf-None-Match: x",
        200,
    ),
    (b"If-Modified-Since: Thu, 01 Jan 1970 00:00:01 GMT", 200),
    (b"Upgrade: h2c\r\nConnection: Upgrade", 200),
    (b"Range: bytes=0-1", 200),
];

/// Bodies in chunks, as `/echo` gets them.
const CHUNKS: &[(&[u8], u16)] = &[
    (b"5\r\nhello\r\n0\r\n\r\n", 200),
    (b"5;a;b=c;d=\"e f\"\r\nhello\r\n000\r\n\r\n", 200),
    (b"5 ;a\r\nhello\r\n0\r\n\r\n", 200),
    (b"0\r\nA: b\r\nContent-Length: 7\r\n\r\n", 200),
    (b"5\r\nhello!\r\n0\r\n\r\n", 400),
    (b"5\r\nhell\r\n0\r\n\r\n", 400),
    (b"5\nhello\r\n0\r\n\r\n", 400),
    (b"5\r\nhello\n0\r\n\r\n", 400),
    (b"5\rxhello\r\n0\r\n\r\n", 400),
    (b"5;a\nb\r\nhello\r\n0\r\n\r\n", 400),
    (b"5;\0\r\nhello\r\n0\r\n\r\n", 400),
    (b"x\r\n", 400),
    (b"\r\n", 400),
    (b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    (b"+5\r\nhello\r\n0\r\n\r\n", 400),
    (b"-1\r\n", 400),
    (b" 5\r\nhello\r\n0\r\n\r\n", 400),
    (b"5 \r\nhello\r\n0\r\n\r\n", 400),
    (b"5,5\r\nhello\r\n0\r\n\r\n", 400),
    (b"fffffffffffffffff\r\n", 413),
    (b"100001\r\n", 413),
    (b"0\r\nno field\r\n\r\n", 400),
    (b"0\r\nA : b\r\n\r\n", 400),
    (b"0\r\nA: b\n\r\n", 400),
];

/// What ends with the client's FIN, in the midst of a request.
const CUT_OFF: &[(&[u8], u16)] = &[
    (b"G", 400),
    (b"GET / HTTP/1.1\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell", 400),
    (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
       5\r\nhello\r\n0\r\n",
        400,
    ),
    (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.0\r\n\r\n", 200),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 200),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
    (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"GET / HTTP/1.0\r\nExpect: nothing\r\n\r\n", 200),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    (b"PUT /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", 200),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 200),
    (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 405),
];

#[test]
fn odd_requests_get_their_status_and_harm_nobody() {
    let service = Service::start(&[]);
    let mut cases: Vec<(Vec<u8>, u16, bool)> = Vec::new();
    for (line, status) in LINES {
        let text = format!("{line}\r\nHost: a\r\n\r\n");
        cases.push((text.into_bytes(), *status, false));
    }
    for (fields, status) in FIELDS {
        let head = b"GET /small.txt HTTP/1.1\r\nHost: a\r\n";
        let text = [head, *fields, b"\r\n\r\n"].concat();
        cases.push((text, *status, false));
    }
    for (chunks, status) in CHUNKS {
        let head = b"POST /echo HTTP/1.1\r\nHost: a\r\n\
                     Transfer-Encoding: chunked\r\n\r\n";
        cases.push(([head, *chunks].concat(), *status, false));
    }
    for (text, status) in CUT_OFF {
        cases.push((text.to_vec(), *status, true));
    }
    let long = |n: usize| "x".repeat(n);
    let many = "A: b\r\n".repeat(70);
    for (text, status) in [
        (get(&format!("/{}", long(8000))), 404),
        (get(&format!("/{}", long(9000))), 414),
        (get(&format!("/?{}", long(100_000))), 414),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", long(12_000)),
            200,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", long(17_000)),
            431,
        ),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (long(20_000), 414),
    ] {
        cases.push((text.into_bytes(), status, false));
    }
    println!("{} cases", cases.len());
    assert!(cases.len() >= 100);
    let mut kept = service.client();
    for (text, status, cut_off) in cases {
        let shown = text.escape_ascii().to_string();
        let shown = &shown[..shown.len().min(200)];
        let mut client = service.client();
        client.send(&text);
        if cut_off {
            client.half_close();
        }
        let method = if text.starts_with(b"HEAD") { "HEAD" } else { "GET" };
        let answer = client.answer_to(method).expect(shown);
        assert_eq!(answer.status, status, "{shown}: {answer:?}");
        assert!(answer.field("date").is_some(), "{answer:?}");
        let is_allowed = answer.field("allow").is_some();
        assert_eq!(is_allowed, [204, 405].contains(&status), "{shown}");
        // Where the next request would begin, only a good one tells.
        if [400, 408, 413, 414, 431, 505].contains(&status)
            && !shown.starts_with("GET /sleep")
        {
            assert!(answer.closes(), "{shown}: {answer:?}");
        }
        if answer.closes() || cut_off {
            client.half_close();
            client.assert_end(shown);
        } else {
            client.send(get("/small.txt"));
            let next = client.answer().expect(shown);
            assert_eq!(next.body, b"small\n", "on the same one after {shown}");
        }
        kept.send(get("/small.txt"));
        assert_eq!(kept.answer().expect(shown).body, b"small\n", "{shown}");
    }
    service.assert_serves("all");
}

#[test]
fn no_name_leads_out_of_the_root() {
    let service = Service::start(&[]);
    let (root, outside) = (service.root(), service.folder.path());
    fs::write(outside.join("secret.txt"), "secret\n").unwrap();
    let secret = outside.join("secret.txt");
    symlink(&secret, root.join("absolute")).unwrap();
    symlink("../secret.txt", root.join("relative")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("/", root.join("slash")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("small.txt", root.join("inside")).unwrap();
    symlink("../small.txt", root.join("sub/inside")).unwrap();
    let path = secret.to_str().unwrap().trim_start_matches('/').to_owned();
    let escaped: String = path.bytes().map(|it| format!("%{it:02x}")).collect();
    let targets = [
        "/../secret.txt".to_owned(),
        "/%2e%2e/secret.txt".to_owned(),
        "/..%2fsecret.txt".to_owned(),
        "/%2e%2e%2fsecret.txt".to_owned(),
        "/sub/../../secret.txt".to_owned(),
        "/sub/%2e./%2E%2e/secret.txt".to_owned(),
        "/./.././secret.txt".to_owned(),
        "/..".to_owned(),
        "/../".to_owned(),
        "/absolute".to_owned(),
        "/relative".to_owned(),
        "/up/secret.txt".to_owned(),
        "/slash".to_owned(),
        "/loop".to_owned(),
        "/sub/../up/secret.txt".to_owned(),
        format!("/{path}"),
        format!("//{path}"),
        format!("///{path}"),
        format!("/%2f{path}"),
        format!("/{escaped}"),
        format!("/slash/{path}"),
        format!("/magic/{path}"),
        format!("/{}{path}", "../".repeat(20)),
        format!("http://a/../../{path}"),
    ];
    for target in &targets {
        let answer = service.get(target);
        assert!(!answer.body.ends_with(b"secret\n"), "{target}");
        assert_eq!(answer.status, 404, "{target}: {answer:?}");
    }
    // The same names are good ones where they stay inside.
    for target in
        ["/inside", "/sub/inside", "/sub/../inside", "/sub/%2e%2e/inside"]
    {
        assert_eq!(service.get(target).body, b"small\n", "{target}");
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let service = Service::start(&[]);
    let root = service.root();
    mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket"));
    fs::create_dir(root.join("bare")).unwrap();
    for (target, status) in
        [("/fifo", 404), ("/socket", 404), ("/bare/", 404), ("/bare", 301)]
    {
        assert_eq!(service.get(target).status, status, "{target}");
    }
    assert_eq!(service.get("/sub?a=b").field("location"), Some("/sub/?a=b"));
    // `//sub/` would be the root of another host.
    assert_eq!(service.get("//sub").field("location"), Some("/sub/"));
}

#[test]
fn a_file_that_is_replaced_is_served_anew() {
    let service = Service::start(&[]);
    let path = service.root().join("small.txt");
    let mut client = service.client();
    for round in 0..20 {
        let text = format!("round {}\n", "x".repeat(round));
        fs::write(&path, &text).unwrap();
        client.send(get("/small.txt"));
        assert_eq!(client.answer().unwrap().body, text.as_bytes());
    }
    fs::remove_file(&path).unwrap();
    client.send(get("/small.txt"));
    assert_eq!(client.answer().unwrap().status, 404);
}

#[test]
fn head_has_the_fields_of_get() {
    let service = Service::start(&[]);
    for target in ["/", "/small.txt", "/big.bin", "/empty.css", "/sub", "/none"]
    {
        // Within one second, the date is the same.
        eventually("the same second", || {
            let mut client = service.client();
            client.send(get(target).replace("GET", "HEAD"));
            let head = client.answer_to("HEAD").unwrap();
            client.send(get(target));
            let get = client.answer().unwrap();
            assert_eq!(head.status, get.status, "{target}");
            if head.field("date") != get.field("date") {
                return false;
            }
            assert_eq!(head.fields, get.fields, "{target}");
            true
        });
    }
}

#[test]
fn a_thousand_requests_in_one_write_are_answered_in_order() {
    let service = Service::start(&[]);
    for n in 0..10 {
        let name = service.root().join(format!("{n}.txt"));
        fs::write(name, format!("{n}\n").repeat(n * n)).unwrap();
    }
    let order: Vec<usize> = (0..1000).map(|at| at * 7 % 10).collect();
    let all: String = order.iter().map(|n| get(&format!("/{n}.txt"))).collect();
    let mut client = service.client();
    client.send(all);
    for (at, n) in order.into_iter().enumerate() {
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.body,
            format!("{n}\n").repeat(n * n).as_bytes(),
            "{at}"
        );
    }
    client.half_close();
    client.assert_end("all");
    // Long files, bodies and sleeps between others keep the order as well.
    let mut client = service.client();
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let sleep = get("/sleep?ms=20");
    let batch =
        [&get("/small.txt"), &get("/big.bin"), post, &sleep, &get("/none")];
    client.send(batch.concat().repeat(3));
    for _ in 0..3 {
        assert_eq!(client.answer().unwrap().body, b"small\n");
        assert!(client.answer().unwrap().body == noise(BIG));
        assert_eq!(client.answer().unwrap().body, b"abc");
        assert_eq!(client.answer().unwrap().body, b"slept\n");
        assert_eq!(client.answer().unwrap().status, 404);
    }
}

#[test]
fn a_connection_is_kept_and_closed_as_its_client_asks() {
    let service = Service::start(&[]);
    let mut client = service.client();
    for _ in 0..100 {
        client.send(get("/small.txt"));
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.field("connection")), (200, None));
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(client.answer().unwrap().closes());
    client.assert_end("close");
    let mut old = service.client();
    for _ in 0..3 {
        old.send("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let answer = old.answer().unwrap();
        assert_eq!(answer.field("connection"), Some("keep-alive"));
    }
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert!(old.answer().unwrap().closes());
    old.assert_end("HTTP/1.0");
    let stats = service.get("/stats");
    let stats = String::from_utf8(stats.body).unwrap();
    assert!(stats.contains("\"opened\":3,"), "{stats}");
    assert!(stats.contains("\"answers\":{\"200\":105}"), "{stats}");
}

#[test]
fn chunks_come_back_however_they_are_cut() {
    let service = Service::start(&[]);
    let mut random = fastrand::Rng::with_seed(2026);
    let mut client = service.client();
    for round in 0..60 {
        let content = noise(random.usize(..2000) * random.usize(1..20));
        let mut text = b"POST /echo HTTP/1.1\r\nHost: a\r\n\
                         Transfer-Encoding: chunked\r\n\r\n"
            .to_vec();
        let mut rest = &content[..];
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(random.usize(1..=rest.len()));
            let extension = ["", ";a", ";a=\"b\"", " ; c=d"][random.usize(..4)];
            text.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
            text.extend(chunk);
            text.extend(b"\r\n");
            rest = after;
        }
        let trailer = ["", "A: b\r\n", "A: b\r\nC: d\r\n"][random.usize(..3)];
        text.extend(format!("0\r\n{trailer}\r\n").bytes());
        let mut rest = &text[..];
        while !rest.is_empty() {
            // Small pieces at times, so that lines are cut as well.
            let most = [3, 50, 20_000][random.usize(..3)].min(rest.len());
            let (piece, after) = rest.split_at(random.usize(1..=most));
            client.send(piece);
            rest = after;
        }
        let answer = client.answer().unwrap();
        assert_eq!(answer.status, 200, "round {round}");
        assert!(answer.body == content, "round {round}");
    }
}

#[test]
fn a_client_that_expects_is_told_to_go_on() {
    let service = Service::start(&["--max-body", "100B"]);
    let head = |length: usize| {
        format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
                 Content-Length: {length}\r\n\r\n"
        )
    };
    let mut client = service.client();
    client.send(head(5));
    assert_eq!(client.answer().unwrap().status, 100);
    client.send("hello");
    assert_eq!(client.answer().unwrap().body, b"hello");
    // Whoever did not wait need not be told.
    client.send(head(5) + "hello");
    assert_eq!(client.answer().unwrap().body, b"hello");
    client.send(head(101));
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.closes()), (413, true));
    client.assert_end("413");
}

#[test]
fn a_refusal_reaches_a_client_that_still_sends() {
    let service = Service::start(&["--max-body", "1KiB"]);
    for _ in 0..20 {
        let mut client = service.client();
        client.send(
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
        );
        client.send(noise(1_000_000));
        assert_eq!(client.answer().unwrap().status, 413);
        client.half_close();
        client.assert_end("413");
    }
}

#[test]
fn who_asks_slowly_is_told_and_who_asks_nothing_is_closed() {
    let service = Service::start(&["--request-timeout", "300ms"]);
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    let head = "GET / HTTP/1.1\r\nHost: a\r\nA: ";
    for begin in [head, post, "G"] {
        let mut client = service.client();
        client.send(begin);
        let mut slow = client.socket.try_clone().unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Relaxed) && slow.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(30));
                }
            });
            let answer = client.answer().expect(begin);
            is_over.store(true, Relaxed);
            assert_eq!(
                (answer.status, answer.closes()),
                (408, true),
                "{begin}"
            );
        });
        client.half_close();
        client.assert_end(begin);
        service.assert_serves(begin);
    }
    // A request that comes in time is none of them, however long it sleeps.
    assert_eq!(service.get("/sleep?ms=700").body, b"slept\n");

    let service = Service::start(&["--idle-timeout", "200ms"]);
    let none = service.descriptors();
    let mut silent = service.client();
    silent.assert_end("nothing was asked");
    let mut idle = service.client();
    idle.send(get("/small.txt"));
    assert_eq!(idle.answer().unwrap().status, 200);
    idle.assert_end("nothing more was asked");
    // Whoever takes nothing is idle as well.
    let mut deaf = service.client();
    deaf.send(get("/big.bin").repeat(2));
    eventually("it is served", || service.descriptors() == none + 2);
    eventually("it is closed", || service.descriptors() == none);
}

#[test]
fn a_sleep_keeps_nobody_waiting() {
    let service = Service::start(&[]);
    let mut sleeper = service.client();
    sleeper.send(get("/sleep?ms=1000"));
    let mut requests = 0;
    sleeper.socket.set_nonblocking(true).unwrap();
    loop {
        service.assert_serves("while one sleeps");
        requests += 1;
        match sleeper.socket.peek(&mut [0]) {
            Ok(n) => break assert_eq!(n, 1),
            Err(err) => assert_eq!(err.kind(), ErrorKind::WouldBlock),
        }
    }
    sleeper.socket.set_nonblocking(false).unwrap();
    assert_eq!(sleeper.answer().unwrap().body, b"slept\n");
    assert!(requests > 3, "only {requests}");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let service = Service::start(&[]);
    let mut client = service.client();
    client.socket.set_nodelay(true).unwrap();
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\n\
                Transfer-Encoding: chunked\r\n\r\n\
                3;a\r\nabc\r\n0\r\nB: c\r\n\r\n";
    for byte in format!("\r\n{post}\r\n\r\n{post}").bytes() {
        client.send([byte]);
        thread::sleep(Duration::from_micros(300));
    }
    for _ in 0..2 {
        assert_eq!(client.answer().unwrap().body, b"abc");
    }
}

#[test]
fn an_idle_client_owns_no_buffer() {
    let service = Service::start(&[]);
    fs::write(service.root().join("some.txt"), noise(30_000)).unwrap();
    // A long head and a long answer would leave their traces.
    let long = "x".repeat(7_000);
    let request =
        format!("GET /some.txt?{long} HTTP/1.1\r\nHost: a\r\nA: {long}");
    let mut clients = Vec::new();
    let mut ask = || {
        let mut client = service.client();
        client.send(format!("{request}\r\n\r\n"));
        assert_eq!(client.answer().unwrap().body.len(), 30_000);
        clients.push(client);
    };
    ask();
    let before = service.resident();
    (0..200).for_each(|_| ask());
    let more = service.resident().saturating_sub(before);
    println!("{more} bytes for 200 idle clients");
    assert!(more < 200 * (8 << 10), "{more} bytes for 200 idle clients");
}

/// No descriptor is left for a file, or a client: both wait or are told so.
#[test]
fn a_service_without_descriptors_goes_on() {
    let service = Service::start(&[]);
    let used = service.descriptors();
    let is_free = |fd: &usize| !service.proc(&format!("fd/{fd}")).exists();
    // A limit is one of numbers: five free ones lie below the sixth.
    let limit = (0..).filter(is_free).nth(5).unwrap();
    let limit = format!("--nofile={limit}:{limit}");
    let id = service.child.id().to_string();
    let mut prlimit = Command::new("prlimit");
    match prlimit.args(["--pid", &id, &limit]).status() {
        Ok(status) => assert!(status.success()),
        Err(err) => return println!("SKIPPED: no prlimit: {err}"),
    }
    let mut clients: Vec<Client> = (0..8).map(|_| service.client()).collect();
    eventually("none is left", || service.descriptors() == used + 5);
    clients[0].send(get("/small.txt"));
    assert_eq!(clients[0].answer().unwrap().status, 503);
    clients.drain(1..5);
    // Those that waited outside come in; from then on no more are taken.
    for client in &mut clients[1..] {
        client.send(get("/sleep?ms=1"));
        assert_eq!(client.answer().unwrap().status, 200);
    }
    eventually("one is left", || service.descriptors() == used + 4);
    clients[0].send(get("/small.txt"));
    assert_eq!(clients[0].answer().unwrap().status, 200);
    clients.truncate(1);
    eventually("four are left", || service.descriptors() == used + 1);
    service.assert_serves("descriptors have come back");
}

#[test]
fn clients_that_take_nothing_hold_little_memory() {
    let service = Service::start(&[]);
    let descriptors = service.descriptors();
    service.get("/big.bin");
    let before = service.resident();
    let mut clients: Vec<Client> = (0..40).map(|_| service.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        if at % 2 == 0 {
            client.send(get("/big.bin"));
            continue;
        }
        // As many small ones as the sockets take.
        let requests = get("/small.txt").repeat(1000);
        client.socket.set_nonblocking(true).unwrap();
        for _ in 0..200 {
            client.send(&requests);
        }
        client.socket.set_nonblocking(false).unwrap();
    }
    // Its last one waits for all of them.
    eventually("all are served", || service.descriptors() == descriptors + 60);
    service.assert_serves("they take nothing");
    let more = service.resident().saturating_sub(before);
    println!("{more} bytes for 40 clients");
    assert!(more < 40 * (256 << 10), "{more} bytes");
    // What they are owed is still theirs.
    assert!(clients[0].answer().unwrap().body == noise(BIG));
    assert_eq!(clients[1].answer().unwrap().body, b"small\n");
    drop(clients);
    eventually("all are closed", || service.descriptors() == descriptors);
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answers() {
    let service = Service::start(&[]);
    for target in ["/small.txt", "/big.bin", "/sleep?ms=50"] {
        let mut client = service.client();
        client.send(get(target).repeat(3));
        client.half_close();
        for _ in 0..3 {
            assert_eq!(client.answer().expect(target).status, 200);
        }
        client.assert_end(target);
    }
}

#[test]
fn descriptors_return_after_clients_that_reset() {
    let service = Service::start(&[]);
    let none = service.descriptors();
    let mut idle = service.client();
    idle.send(get("/small.txt"));
    idle.answer().unwrap();
    assert_eq!(service.descriptors(), none + 1);
    for round in 0..30 {
        for target in ["/big.bin", "/sleep?ms=60000", "/small.txt"] {
            let mut client = service.client();
            client.send(get(target));
            if target == "/big.bin" {
                client.more();
            }
            client.reset();
        }
        let mut client = service.client();
        client.send(
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",
        );
        client.reset();
        service.assert_serves(&format!("round {round}"));
    }
    eventually("all are closed", || service.descriptors() == none + 1);
    idle.send(get("/small.txt"));
    assert_eq!(idle.answer().unwrap().status, 200);
}

#[test]
fn a_stop_finishes_what_is_under_way() {
    let service = Service::start(&["--grace", "15s"]);
    let (answers, has_stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut idle = service.client();
    let mut sleeper = service.client();
    sleeper.send(get("/sleep?ms=400"));
    let mut slow = service.client();
    slow.send(get("/big.bin"));
    slow.more();
    thread::scope(|scope| {
        for n in 0..8 {
            let mut client = service.client();
            let (answers, has_stopped) = (&answers, &has_stopped);
            scope.spawn(move || {
                loop {
                    let target = ["/small.txt", "/big.bin"][n / 6];
                    client.send(get(target));
                    // An answer that has begun is whole, or this panics.
                    let Ok(answer) = client.answer_if_any() else { break };
                    let Some(answer) = answer else { break };
                    answers.fetch_add(1, Relaxed);
                    if answer.closes() {
                        client.assert_end("the last answer");
                        break;
                    }
                }
                assert!(has_stopped.load(Relaxed));
            });
        }
        eventually("there is load", || answers.load(Relaxed) > 50);
        has_stopped.store(true, Relaxed);
        service.signal(Signal::SIGTERM);
    });
    idle.assert_end("an idle one");
    let answer = sleeper.answer().unwrap();
    assert_eq!((&*answer.body, answer.closes()), (&b"slept\n"[..], true));
    assert!(slow.answer().unwrap().body == noise(BIG));
    assert!(TcpStream::connect(service.addr).is_err(), "it still listens");
    drop((sleeper, slow));
    let (code, said) = service.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("http_service: stopped: 11 connections, "),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

impl Client {
    /// As `answer`; one that comes too late may find the connection reset.
    fn answer_if_any(&mut self) -> Result<Option<Answer>, ()> {
        match self.socket.peek(&mut [0]) {
            Ok(_) => Ok(self.answer()),
            Err(err) if err.kind() == ErrorKind::ConnectionReset => Err(()),
            Err(err) => panic!("{err}"),
        }
    }
}

#[test]
fn a_grace_ends_and_a_second_signal_does_not_wait_for_it() {
    let service = Service::start(&["--grace", "100ms"]);
    let mut deaf = service.client();
    deaf.send(get("/sleep?ms=60000"));
    service.assert_serves("first");
    service.signal(Signal::SIGINT);
    let (code, said) = service.end();
    assert_eq!(code, Some(0), "{said}");
    let service = Service::start(&["--grace", "1h"]);
    let mut deaf = service.client();
    deaf.send(get("/sleep?ms=60000"));
    service.assert_serves("first");
    service.signal(Signal::SIGTERM);
    eventually("it stops", || TcpStream::connect(service.addr).is_err());
    service.signal(Signal::SIGTERM);
    assert_eq!(service.end().0, Some(1));
}

/// What a small file costs on a connection that is kept: nothing is cached,
/// and nothing is asked twice.
#[test]
fn a_small_file_takes_seven_calls() {
    let service = Service::start(&[]);
    let mut client = service.client();
    let mut ask = || {
        client.send(get("/small.txt"));
        assert_eq!(client.answer().unwrap().status, 200);
    };
    // The first one brings the connection, its timer and its buffers.
    ask();
    let file = service.folder.path().join("calls");
    let mut strace = Command::new("strace");
    strace.arg("-o").arg(&file).arg("-p").arg(service.child.id().to_string());
    let mut strace = match strace.stderr(Stdio::piped()).spawn() {
        Ok(strace) => strace,
        Err(err) => return println!("SKIPPED: strace cannot attach: {err}"),
    };
    let mut said = String::new();
    let mut err = BufReader::new(strace.stderr.take().unwrap());
    err.read_line(&mut said).unwrap();
    if !said.contains("attached") {
        strace.wait().unwrap();
        return println!("SKIPPED: strace cannot attach: {}", said.trim());
    }
    for _ in 0..100 {
        ask();
    }
    kill(Pid::from_raw(strace.id() as i32), Signal::SIGINT).unwrap();
    strace.wait().unwrap();
    let text = fs::read_to_string(file).unwrap();
    let calls = text.lines().filter_map(|it| it.split('(').next());
    let mut counts = std::collections::BTreeMap::new();
    calls.for_each(|it| *counts.entry(it).or_insert(0) += 1);
    counts.retain(|_, count| *count > 2);
    // A std with assertions looks whether what it closes was open.
    counts.remove("fcntl");
    for (call, count) in &counts {
        assert!((98..=102).contains(count), "{call} {count} times of 100");
    }
    assert_eq!(counts.len(), 7, "{counts:?}");
}

#[test]
fn a_wrong_command_line_is_told_in_one_line() {
    for (args, code, words) in [
        (&["--root", "/dev/null"][..], 1, "/dev/null"),
        (&["--root", "/no/such"], 1, "/no/such"),
        (&[], 2, "--root"),
        (&["--root", "/tmp", "--addr", "nowhere"], 2, "nowhere"),
        (&["--root", "/tmp", "--max-head", "1"], 2, "--max-head"),
        (&["--root", "/tmp", "--idle-timeout", "soon"], 2, "soon"),
        (&["--root", "/tmp", "--addr", "192.0.2.1:0"], 1, "192.0.2.1:0"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_http_service"));
        let output = command.args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
    }
}

use super::*;

fn refused(head: &str) -> u16 {
    Request::parse(head.as_bytes()).unwrap_err().status
}

fn with(fields: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
}

#[test]
fn a_head_says_what_is_asked_for() {
    let head = "HEAD /a%20b?c=d?e HTTP/1.1\r\nhost: a.b:80\r\n\
                CONNECTION: x , Close\r\nContent-Length: 007\r\n\
                Expect: 100-Continue\r\n\r\n";
    let request = Request::parse(head.as_bytes()).unwrap();
    let manner = Manner { http10: false, keep: false, head_only: true };
    assert_eq!(
        request,
        Request {
            method: Method::Head,
            path: "/a%20b",
            query: Some("c=d?e"),
            manner,
            body: Some(Framing::Sized(7)),
            expects: true,
            since: None,
        }
    );
}

#[test]
fn a_connection_is_kept_as_its_version_has_it() {
    let keep = |version: &str, field: &str| {
        let head = format!("GET / {version}\r\nHost: a\r\n{field}\r\n");
        Request::parse(head.as_bytes()).unwrap().manner.keep
    };
    assert!(keep("HTTP/1.1", ""));
    assert!(keep("HTTP/1.5", ""));
    assert!(!keep("HTTP/1.1", "Connection: close\r\n"));
    assert!(!keep("HTTP/1.0", ""));
    assert!(keep("HTTP/1.0", "Connection: Keep-Alive\r\n"));
    assert!(!keep("HTTP/1.0", "Connection: keep-alive, close\r\n"));
}

#[test]
fn an_absolute_target_is_its_path() {
    let path = |target: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let request = Request::parse(head.as_bytes()).unwrap();
        (request.path.to_owned(), request.query.map(str::to_owned))
    };
    assert_eq!(path("http://b/c?d"), ("/c".into(), Some("d".into())));
    assert_eq!(path("HTTP://b:80"), ("/".into(), None));
    assert_eq!(path("http://b?d"), ("/".into(), Some("d".into())));
}

#[test]
fn a_body_has_one_length_or_none() {
    let body =
        |fields: &str| Request::parse(with(fields).as_bytes()).unwrap().body;
    assert_eq!(body("Content-Length: 0"), None);
    assert_eq!(body("Content-Length: 5"), Some(Framing::Sized(5)));
    assert_eq!(body("Transfer-Encoding: ChunkeD"), Some(Framing::Chunked));
    for (fields, status) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: 99999999999999999999", 413),
        ("Transfer-Encoding: chunked, gzip", 400),
        ("Transfer-Encoding: gzip", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: x, chunked", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked;a=b", 400),
    ] {
        assert_eq!(refused(&with(fields)), status, "{fields}");
    }
}

#[test]
fn hosts_are_told_from_what_only_looks_like_one() {
    for host in ["", "a", "a:", "a:80", "[::1]:80", "1.2.3.4", "a_b%20"] {
        assert!(is_authority(host.as_bytes()), "{host}");
    }
    for host in
        ["a b", "a/b", "u@a", "a:b", "a:80:80", "[::1", "]", "[x]", "a,b"]
    {
        assert!(!is_authority(host.as_bytes()), "{host}");
    }
}

/// However it is cut into pieces, the head ends at the same place, or is
/// refused for the same reason.
#[test]
fn a_head_is_found_byte_by_byte() {
    for (text, end) in [
        ("GET / HTTP/1.1\r\nA: b\r\n\r\nmore", Ok(Some(24))),
        ("GET / HTTP/1.1\r\nA: b\r\n", Ok(None)),
        ("GET / HTTP/1.1\r\nA: b\n\r\n", Err(400)),
        ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Err(400)),
        ("GET / HTTP/1.1\r\nA: b\r\r\n\r\n", Err(400)),
        ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", Err(400)),
        ("GET / HTTP/1.1\r\nA: 0123456789012345678901\r\n\r\n", Err(431)),
        ("GET /01234567890123456789 HTTP/1.1\r\n\r\n", Err(414)),
    ] {
        let bytes = text.as_bytes();
        let whole = Scan::default().end(bytes, 42);
        assert_eq!(whole.map_err(|it| it.status), end, "{text:?}");
        let mut scan = Scan::default();
        let found = (0..=bytes.len())
            .map(|n| scan.end(&bytes[..n], 42))
            .find(|it| !matches!(it, Ok(None)));
        let found = found.unwrap_or(Ok(None)).map_err(|it| it.status);
        assert_eq!(found, end, "{text:?} byte by byte");
    }
}

fn decoded(input: &[u8], step: usize) -> Result<(Vec<u8>, usize), u16> {
    let mut body = Body::new(Framing::Chunked);
    let (mut content, mut taken, mut came) = (Vec::new(), 0, 0);
    loop {
        let more = |bytes: &[u8]| content.extend_from_slice(bytes);
        let progress = body.take(&input[taken..came], 100, more);
        let progress = progress.map_err(|it| it.status)?;
        taken += progress.taken;
        if progress.is_over {
            return Ok((content, taken));
        }
        if came == input.len() {
            return Err(0);
        }
        came = input.len().min(came + step);
    }
}

#[test]
fn chunks_are_put_together_however_they_come() {
    let long = format!("1;{}\r\na\r\n", "x".repeat(2000));
    let cases: &[(&str, Result<&str, u16>)] = &[
        ("5\r\nhello\r\n0\r\n\r\n", Ok("hello")),
        (
            "00a;x=\"y\" ; z\r\n0123456789\r\n1\r\n!\r\n0\r\n\r\n",
            Ok("0123456789!"),
        ),
        ("0\r\nA: b\r\nC:\r\n\r\n", Ok("")),
        ("5\r\nhello", Err(0)),
        ("5\r\nhello!\r\n0\r\n\r\n", Err(400)),
        ("5\r\nhello!", Err(400)),
        ("00000000000000005\r\n", Err(413)),
        ("5\nhello\r\n0\r\n\r\n", Err(400)),
        ("\r\n", Err(400)),
        ("0x5\r\nhello\r\n", Err(400)),
        ("+5\r\nhello\r\n", Err(400)),
        ("-5\r\n", Err(400)),
        (" 5\r\nhello\r\n", Err(400)),
        ("5 \r\nhello\r\n", Err(400)),
        ("5 5\r\nhello\r\n", Err(400)),
        ("5;\x01\r\nhello\r\n", Err(400)),
        ("65\r\n", Err(413)),
        ("fffffffffffffffff\r\n", Err(413)),
        ("0\r\nno field\r\n\r\n", Err(400)),
        ("0\r\nA : b\r\n\r\n", Err(400)),
        (&long, Err(400)),
    ];
    for (text, expected) in cases {
        let expected = expected.map(|it| (it.as_bytes().to_vec(), text.len()));
        for step in [1, 2, 3, 7, text.len()] {
            let got = decoded(text.as_bytes(), step);
            assert_eq!(got, expected, "{text:?} by {step}");
        }
    }
}

#[test]
fn extensions_and_trailers_cannot_go_on_for_ever() {
    let line = format!("A: {}\r\n", "x".repeat(1000));
    let trailers = format!("0\r\n{}\r\n", line.repeat(17));
    assert_eq!(decoded(trailers.as_bytes(), 64), Err(431));
    let chunk = format!("1;{}\r\nx\r\n", "x".repeat(1000));
    assert_eq!(decoded(chunk.repeat(17).as_bytes(), 64), Err(400));
}

/// Whatever comes, it is understood or refused, and however it is cut, alike.
#[test]
fn noise_is_refused_and_nothing_worse() {
    let mut random = fastrand::Rng::with_seed(9112);
    let good = "POST http://a:1/b%20c?d HTTP/1.1\r\nHost: [::1]:8\r\n\
                Transfer-Encoding: chunked\r\nConnection: close, x\r\n\r\n\
                5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n";
    let odd = b"\r\n\0 :;,%/?#[]@+-x0f\xff\t";
    let (mut whole, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut text = good.as_bytes().to_vec();
        for _ in 0..random.usize(..4) {
            let at = random.usize(..text.len());
            match random.usize(..3) {
                0 => text[at] = odd[random.usize(..odd.len())],
                1 => text.insert(at, odd[random.usize(..odd.len())]),
                _ => drop(text.remove(at)),
            }
        }
        let end = match Scan::default().end(&text, 500) {
            Ok(Some(end)) => end,
            Ok(None) => continue,
            Err(_) => {
                refused += 1;
                continue;
            }
        };
        let body = Request::parse(&text[..end]).map(|it| it.body);
        if body != Ok(Some(Framing::Chunked)) {
            refused += usize::from(body.is_err());
            continue;
        }
        let at_once = decoded(&text[end..], text.len());
        let pieces = decoded(&text[end..], random.usize(1..5));
        assert_eq!(at_once, pieces, "{}", text.escape_ascii());
        whole += usize::from(at_once.is_ok());
    }
    assert!(whole > 1_000 && refused > 1_000, "{whole}, {refused}");
}

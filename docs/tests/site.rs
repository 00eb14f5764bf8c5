//! The built book as its reader meets it: every page, and some of them in a
//! browser.

// What other tests of pages need besides.
#[allow(dead_code)]
#[path = "../../watch/tests/browser/mod.rs"]
mod browser;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use browser::Browser;
use docs::serve::Site;
use docs::{book, check};

const WIDE: (u32, u32) = (1280, 900);
const SMALL: (u32, u32) = (400, 800);

/// Builds the book into a folder of its own.
fn built() -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let index = book::build(Some(folder.path()))?;
    ensure!(index.is_file(), "{} is not there", index.display());
    Ok((folder, index))
}

fn pages(folder: &Path) -> Result<Vec<String>> {
    let mut pages = Vec::new();
    for at in [folder.to_owned(), folder.join("annotated")] {
        for entry in fs::read_dir(at)? {
            let path = entry?.path();
            let is_page = path.extension().is_some_and(|it| it == "html");
            let name =
                path.strip_prefix(folder)?.to_string_lossy().into_owned();
            // Not for readers: mdBook's frame of contents, and what it shows
            // for a page that is not there.
            if is_page
                && !["toc.html", "404.html", "print.html"].contains(&&*name)
            {
                pages.push(name);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

#[test]
fn every_link_of_every_page_leads_somewhere() -> Result<()> {
    let (folder, _) = built()?;
    let wrong = check::pages(folder.path())?;
    ensure!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    // The test itself: a page, a picture and a heading less.
    fs::remove_file(folder.path().join("poll_server.html"))?;
    fs::remove_file(folder.path().join("figures/epoll_lt.svg"))?;
    let page = folder.path().join("sockets.html");
    let text = fs::read_to_string(&page)?;
    fs::write(&page, text.replace(" id=\"further-reading\"", ""))?;
    let wrong = check::pages(folder.path())?;
    for part in ["poll_server.html", "figures/epoll_lt.svg", "#further-reading"]
    {
        ensure!(wrong.iter().any(|it| it.contains(part)), "{part}: {wrong:?}");
    }
    Ok(())
}

#[test]
fn manual_pages_are_linked_in_prose_and_not_in_code() -> Result<()> {
    let (folder, _) = built()?;
    let text = fs::read_to_string(folder.path().join("epoll_et.html"))?;
    let link =
        "<a href=\"https://man7.org/linux/man-pages/man7/epoll.7.html\">";
    ensure!(text.contains(link), "epoll(7) is no link");
    let text =
        fs::read_to_string(folder.path().join("annotated/epoll_lt.html"))?;
    ensure!(text.contains("// epoll(7): closing"), "code was changed");
    Ok(())
}

#[test]
fn the_server_gives_what_is_there_and_no_more() -> Result<()> {
    let (_folder, index) = built()?;
    let root = index.parent().context("its folder")?;
    let site = Site::listen(SocketAddr::from(([127, 0, 0, 1], 0)), root)?;
    let url = site.url()?;
    let addr = url.trim_start_matches("http://").trim_end_matches('/');
    thread::spawn(move || site.run());
    // Browsers connect ahead, and may ask later: that keeps nobody waiting.
    let silent = (0..20).map(|_| TcpStream::connect(addr));
    let _silent = silent.collect::<Result<Vec<_>, _>>()?;
    for (request, wanted) in [
        ("GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Type: text/html"),
        ("GET /epoll_et.html?a=b HTTP/1.1", "HTTP/1.1 200 OK"),
        ("GET /figures/epoll_lt.svg HTTP/1.1", "image/svg+xml"),
        ("GET /source/epoll_lt/src/lib.rs.txt HTTP/1.1", "text/plain"),
        ("GET /no_such.html HTTP/1.1", "HTTP/1.1 404"),
        ("GET /../../../../etc/passwd HTTP/1.1", "HTTP/1.1 404"),
        ("POST / HTTP/1.1", "HTTP/1.1 405"),
        ("nonsense", "HTTP/1.1 400"),
    ] {
        let mut client = TcpStream::connect(addr)?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(client, "{request}\r\nHost: x\r\n\r\n")?;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).context(request)?;
        let answer = String::from_utf8_lossy(&answer);
        let head: String = answer.chars().take(200).collect();
        ensure!(head.contains(wanted), "{request}: {head}");
    }
    Ok(())
}

/// The book, served, and a browser to look at it with.
struct Reader {
    folder: tempfile::TempDir,
    url: String,
    browser: Browser,
}

/// None, and a word about it, where there is no browser.
fn reader(test: &str) -> Result<Option<Reader>> {
    let Some(program) = Browser::installed() else {
        println!("{test} SKIPPED: Chromium is not installed");
        return Ok(None);
    };
    let (folder, index) = built()?;
    let root = index.parent().context("its folder")?;
    let site = Site::listen(SocketAddr::from(([127, 0, 0, 1], 0)), root)?;
    let url = site.url()?;
    thread::spawn(move || site.run());
    let browser = Browser::start(&program)?;
    Ok(Some(Reader { folder, url, browser }))
}

#[test]
fn every_page_fits() -> Result<()> {
    let Some(it) = reader("every_page_fits")? else { return Ok(()) };
    let Reader { folder, url, mut browser } = it;
    // What is too wide in it may scroll in the page's own frame.
    let over = "Math.max(
        document.documentElement.scrollWidth - window.innerWidth,
        ...[...document.querySelectorAll('.page, .content')].map(
            it => it.scrollWidth - it.clientWidth))";
    // The contents, as they are in a window that is wide from the beginning;
    // they slide in, and nobody here wants to see that.
    let open = "(() => {
        document.querySelector('#mdbook-sidebar').style.transition = 'none';
        document.querySelector('#mdbook-sidebar-toggle').click();
    })()";
    let is_open = "document.querySelector('#mdbook-sidebar')
        .getBoundingClientRect().left === 0";
    for page in pages(folder.path())? {
        // Once for both widths, for it is loading that takes the time.
        browser.resize(SMALL.0, SMALL.1)?;
        browser.visit(&format!("{url}{page}")).with_context(|| page.clone())?;
        let small = browser.eval(over)?;
        browser.resize(WIDE.0, WIDE.1)?;
        browser.eval(open)?;
        browser.until(is_open).with_context(|| page.clone())?;
        for (name, over) in [("small", small), ("wide", browser.eval(over)?)] {
            ensure!(
                over.as_i64().is_some_and(|it| it <= 0),
                "{page} scrolls sideways where it is {name}: {over}"
            );
        }
        browser.no_errors().with_context(|| page.clone())?;
    }
    Ok(())
}

#[test]
fn in_a_browser() -> Result<()> {
    let Some(it) = reader("in_a_browser")? else { return Ok(()) };
    let Reader { folder: _folder, url, mut browser } = it;

    // Prose stands beside code where there is room, and above it elsewhere.
    let page = format!("{url}annotated/epoll_et.html");
    let beside = "(() => {
        const [prose, code] = ['.prose', '.code'].map(
            it => document.querySelector('.annotated > ' + it)
                .getBoundingClientRect());
        if (prose.right <= code.left && prose.top === code.top)
            return 'beside';
        return prose.bottom <= code.top ? 'above' : 'elsewhere';
    })()";
    let hidden = "[...document.querySelectorAll('.annotated pre > code')]
        .filter(it => it.scrollWidth > it.parentElement.clientWidth).length";
    browser.resize(WIDE.0, WIDE.1)?;
    browser.visit(&page)?;
    ensure!(browser.text(beside)? == "beside", "{}", browser.text(beside)?);
    let cut = browser.eval(hidden)?;
    ensure!(cut == 0, "{cut} pieces are cut off where the page is wide");
    browser.resize(SMALL.0, SMALL.1)?;
    browser.visit(&page)?;
    ensure!(browser.text(beside)? == "above", "{}", browser.text(beside)?);

    // Code is coloured, in the dark too.
    let colours = "new Set([...document.querySelectorAll('pre code span')]
        .map(it => getComputedStyle(it).color)).size";
    for scheme in ["light", "dark"] {
        browser.prefer(&[("prefers-color-scheme", scheme)])?;
        browser.visit(&format!("{url}epoll_lt.html"))?;
        browser.until(&format!("{colours} > 2"))?;
        let back = "getComputedStyle(document.documentElement)
            .getPropertyValue('color-scheme')";
        ensure!(browser.text(back)? == scheme, "{}", browser.text(back)?);
    }

    // Search finds what is looked for.
    browser.resize(WIDE.0, WIDE.1)?;
    browser.visit(&format!("{url}?search=edge-triggered"))?;
    browser.until(
        "[...document.querySelectorAll('#mdbook-searchresults a, \
         #searchresults a')].some(it => it.href.includes('epoll_et.html'))",
    )?;
    browser.no_errors()
}

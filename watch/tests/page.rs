//! The interactive page as its reader meets it: in a browser, with a mouse
//! and a keyboard.

mod browser;
#[path = "browser/scene.rs"]
mod scene;

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use browser::{Browser, naming};
use scene::{HOSTILE, LENS, SPAN};
use serde_json::{Value, json};
use watch::figure::data::Page;
use watch::figure::page::html;

const WIDE: (u32, u32) = (1280, 900);
const SMALL: (u32, u32) = (400, 800);

/// Bars of the crowded model.
const BARS: u64 = 10_000;

#[test]
fn the_page_needs_nothing_else() {
    let page = scene::page(BARS);
    let text = html(&page);
    assert_eq!(text, html(&page));
    assert!(text.contains("content=\"default-src 'none'; style-src"));
    let text = text.replace("http://www.w3.org/2000/svg", "");
    for loads in ["http:", "https:", "src=", "href=", "@import", "url(h"] {
        assert!(!text.contains(loads), "{loads}");
    }
    // The data's and the script's own, and no other.
    assert_eq!(text.matches("</script").count(), 2);
    assert_eq!(text.matches("<!--").count(), 0);
    assert_eq!(data_of(&text)["figures"].as_array().map(Vec::len), Some(4));
    for look in &page.figures {
        assert!(text.contains(&look.summary), "{}", look.model);
    }
    assert!(text.contains("8,000 messages/s watched, 20,000 not: <b>2.5×</b>"));
    assert!(text.contains("by a factor of 2.5"));
    assert!(text.contains("made-up") && text.contains("2026-01-31"));
}

#[test]
fn the_page_is_small() {
    let alone = |page: &Page| html(page).len();
    let frame = alone(&Page { figures: Vec::new(), ..scene::page(0) });
    let mut crowd = scene::page(BARS);
    crowd.figures.drain(..3);
    let model = alone(&crowd) - frame;
    assert!(frame < 100_000, "{frame}");
    assert!(model < 500_000, "{model} for {BARS} bars");
}

/// The data as it stands in the page.
fn data_of(text: &str) -> Value {
    let (_, data) = text.split_once("id=\"data\">").expect("the data");
    let (data, _) = data.split_once("</script>").expect("its end");
    serde_json::from_str(data).expect("JSON")
}

#[test]
fn a_reader_finds_the_way() -> Result<()> {
    let Some(program) = Browser::installed() else {
        // Not by println!, of which cargo shows nothing when a test passes.
        let why = "no Chromium: none of its names is on the PATH";
        writeln!(io::stdout(), "SKIPPED: {why}")?;
        return Ok(());
    };
    let mut browser = Browser::start(&program)?;
    let folder = browser.folder().to_owned();
    let calm = ("prefers-reduced-motion", "reduce");
    browser.prefer(&[calm, ("prefers-color-scheme", "light")])?;
    browser.resize(WIDE.0, WIDE.1)?;
    browser.open(&html(&scene::page(BARS)))?;
    for (name, step) in STEPS {
        step(&mut browser).with_context(|| format!("step '{name}'"))?;
        browser.no_errors().with_context(|| format!("step '{name}'"))?;
    }
    a_message_that_was_sent_long_before(&mut browser)?;
    browser.no_errors()?;
    drop(browser);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !naming(&folder).is_empty() {
        ensure!(Instant::now() < deadline, "a process is left");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

type Step = fn(&mut Browser) -> Result<()>;

/// In this order, each on what the one before has left.
const STEPS: &[(&str, Step)] = &[
    ("texts stay texts", texts_stay_texts),
    ("a bar under the mouse", a_bar_under_the_mouse),
    ("many bars are one item", many_bars_are_one_item),
    ("one message", one_message),
    ("by keyboard", by_keyboard),
    ("zoom and pan", zoom_and_pan),
    ("a stretch of the axis", a_stretch_of_the_axis),
    ("a model is switched off", a_model_is_switched_off),
    ("the address remembers", the_address_remembers),
    ("nothing overflows", nothing_overflows),
    ("dark", dark),
    ("with motion", with_motion),
];

/// Where a moment of a lane is, in the window, at a given view.
fn place(
    browser: &mut Browser,
    (model, lane): (usize, usize),
    at: u64,
    (from, to): (u64, u64),
) -> Result<(f64, f64)> {
    let panel = format!("document.querySelectorAll('.model')[{model}]");
    browser.eval(&format!("{panel}.scrollIntoView({{ block: 'center' }})"))?;
    // What was out of sight is drawn only now.
    drawn(browser)?;
    // Above are marks and words, below is the bar's lower half.
    let rect = browser.eval(&format!(
        "(() => {{
            const axis = document.querySelector('.ruler')
                .getBoundingClientRect();
            const lane = {panel}.querySelectorAll('.name')[{lane}]
                .getBoundingClientRect();
            return [axis.left, axis.width, lane.top + lane.height * 0.65];
        }})()"
    ))?;
    let [left, width, y] = [0, 1, 2].map(|it| rect[it].as_f64());
    let share = (at - from) as f64 / (to - from) as f64;
    let x = left.zip(width).map(|(left, width)| left + width * share);
    x.zip(y).with_context(|| format!("no lane {lane} of {model}: {rect}"))
}

/// The middle of an element.
fn middle(browser: &mut Browser, selector: &str) -> Result<(f64, f64)> {
    let rect = browser.eval(&format!(
        "(() => {{
            const it = document.querySelector('{selector}');
            it.scrollIntoView({{ block: 'nearest' }});
            const {{ left, top, width, height }} = it.getBoundingClientRect();
            return [left + width / 2, top + height / 2];
        }})()"
    ))?;
    let (x, y) = (rect[0].as_f64(), rect[1].as_f64());
    x.zip(y).with_context(|| format!("no {selector}"))
}

fn click(browser: &mut Browser, selector: &str) -> Result<()> {
    let at = middle(browser, selector)?;
    browser.mouse("mouseMoved", at)?;
    browser.mouse("mousePressed", at)?;
    browser.mouse("mouseReleased", at)
}

fn readout(browser: &mut Browser) -> Result<String> {
    browser.text("document.querySelector('.readout').innerText")
}

/// The readout tells all these words.
fn reads(browser: &mut Browser, words: &[&str]) -> Result<()> {
    let text = readout(browser)?;
    for word in words {
        ensure!(text.contains(word), "'{word}' is not in '{text}'");
    }
    Ok(())
}

/// Waits until the page has drawn what was asked for.
fn drawn(browser: &mut Browser) -> Result<()> {
    let twice = "new Promise(done => requestAnimationFrame(() =>
        requestAnimationFrame(() => done(true))))";
    let asked = json!({ "expression": twice, "awaitPromise": true });
    browser.tell("Runtime.evaluate", asked).map(drop)
}

/// What stands on the axis.
fn labels(browser: &mut Browser) -> Result<Vec<String>> {
    drawn(browser)?;
    let texts = browser.text(
        "[...document.querySelectorAll('.ruler .label, .unit')]
            .map(it => it.textContent).join(' ')",
    )?;
    Ok(texts.split(' ').map(str::to_owned).collect())
}

/// The stretch of the scene that is seen, in ms, as the page tells it.
fn stretch(browser: &mut Browser) -> Result<(f64, f64)> {
    drawn(browser)?;
    let text = browser.text("document.querySelector('.where').textContent")?;
    let mut numbers = text.split(' ').filter_map(|word| word.parse().ok());
    let both = numbers.next().zip(numbers.next());
    both.with_context(|| format!("no stretch: {text}"))
}

fn texts_stay_texts(browser: &mut Browser) -> Result<()> {
    let title = browser.text("document.querySelector('h1').textContent")?;
    ensure!(title == format!("One client talks {HOSTILE}"), "{title}");
    let look = browser.text("document.querySelector('.look').textContent")?;
    ensure!(look.ends_with(HOSTILE), "{look}");
    Ok(())
}

fn a_bar_under_the_mouse(browser: &mut Browser) -> Result<()> {
    browser.until("document.querySelector('.model svg .waiting') !== null")?;
    let at = place(browser, (0, 1), 50_000_000, (0, SPAN))?;
    browser.mouse("mouseMoved", at)?;
    reads(browser, &["waiting", "epoll_wait", "1 of 3 ready: talker"])?;
    reads(browser, &["about talker", "What epoll_wait does: epoll_wait(2)."])?;
    reads(browser, &[HOSTILE])?;
    let call = browser.text("document.querySelector('.call').textContent")?;
    ensure!(call == "epoll_wait", "{call}");
    // The bar ends when the message comes, the call 40 µs later.
    reads(browser, &["100 ms of 100 ms in the call", "epoll_lt · main"])?;
    let at = place(browser, (1, 1), SPAN * 3 / 4, (0, SPAN))?;
    browser.mouse("mouseMoved", at)?;
    reads(browser, &["waking up", "recv", "250 ms of 500 ms in the call"])?;
    let at = place(browser, (2, 1), 50_000_000, (0, SPAN))?;
    browser.mouse("mouseMoved", at)?;
    reads(browser, &["1,234 rounds", "4,936 calls", "wasted 75 %"])
}

fn many_bars_are_one_item(browser: &mut Browser) -> Result<()> {
    let crowd = "document.querySelectorAll('.model')[3]";
    // Of 60 lanes that tell nothing, so many that with the last it is 40.
    let at = place(browser, (3, 39), SPAN / 2, (0, SPAN))?;
    browser.mouse("mouseMoved", at)?;
    reads(browser, &["bars", "closer together than a pixel", "wasted 5"])?;
    let count = format!("{crowd}.querySelectorAll('svg *').length");
    let elements = browser.eval(&count)?;
    ensure!(elements.as_u64() < Some(120), "{elements} elements");
    let lanes = format!("{crowd}.querySelectorAll('.name').length");
    ensure!(browser.eval(&lanes)? == 40);
    click(browser, ".model .all")?;
    ensure!(browser.eval(&lanes)? == 61);
    reads(browser, &["bars", "crowded · main"])
}

fn one_message(browser: &mut Browser) -> Result<()> {
    click(browser, "[data-do=message]")?;
    let axis = labels(browser)?;
    ensure!(axis.contains(&"µs".to_owned()), "{axis:?}");
    ensure!(axis.contains(&"100".to_owned()), "{axis:?}");
    // The message is sent at 0, which is an eighth behind the left edge. As
    // scene.rs has it, 5 µs later the wait is over, and 40 later it returns.
    let view = (0, LENS);
    for (lane, at, words) in [
        (0, 5_000, &["sending", "send", "64 bytes", "bytes 640 to 703"][..]),
        (0, 50_000, &["unanswered", "111 µs"]),
        (1, 20_000, &["waking up", "epoll_wait"]),
        (1, 48_000, &["running", "6.00 µs"]),
        (1, 57_000, &["copying", "recv", "64 bytes", "recv(2)"]),
        (1, 75_000, &["copying", "send", "64 bytes", "send(2)"]),
    ] {
        let at = place(browser, (0, lane), at + LENS * 12 / 100, view)?;
        browser.mouse("mouseMoved", at)?;
        reads(browser, words)?;
    }
    Ok(())
}

/// The lens begins where it is taken up, and that is then in view.
fn a_message_that_was_sent_long_before(browser: &mut Browser) -> Result<()> {
    let mut page = scene::page(0);
    page.figures.truncate(1);
    page.figures[0].lens.0 += LENS / 4;
    page.figures[0].lens.1 += LENS / 4;
    browser.resize(WIDE.0, WIDE.1)?;
    browser.open(&html(&page))?;
    click(browser, "[data-do=message]")?;
    // 50 µs after the lens began before, the message was sent, and 57 later
    // the server received it; the lens begins 75 µs later now.
    let at = 50_000 + 57_000 - LENS / 4;
    let at = place(browser, (0, 1), at + LENS * 12 / 100, (0, LENS))?;
    browser.mouse("mouseMoved", at)?;
    reads(browser, &["copying", "recv", "64 bytes"])
}

fn by_keyboard(browser: &mut Browser) -> Result<()> {
    browser.mouse("mouseMoved", (1.0, 1.0))?;
    browser.eval("document.querySelector('.ruler').focus()")?;
    browser.key("Tab")?;
    let focused = "document.activeElement";
    browser.until(&format!("{focused}.className === 'cursor'"))?;
    browser.key("Home")?;
    reads(browser, &["waiting", "epoll_wait", "epoll_lt · main"])?;
    for words in [&["waking up"][..], &["running"], &["recv"], &["send"]] {
        browser.key("ArrowRight")?;
        reads(browser, words)?;
    }
    // A screen reader is told the same.
    let label = format!("{focused}.getAttribute('aria-label')");
    let label = browser.text(&label)?;
    let begin = "epoll_lt, main · copying · send · 64 bytes · about talker";
    ensure!(label.starts_with(begin), "{label}");
    let seen = format!("getComputedStyle({focused}).outlineStyle");
    ensure!(browser.text(&seen)? == "solid");
    browser.key("ArrowLeft")?;
    reads(browser, &["copying", "recv"])?;
    browser.key("ArrowUp")?;
    reads(browser, &["epoll_lt · talker"])?;
    browser.key("ArrowDown")?;
    browser.key("ArrowDown")?;
    reads(browser, &["blocking-thread · talker"])?;
    // Beyond the window's edge it moves on: to the message before.
    let before = labels(browser)?;
    browser.key("Home")?;
    browser.key("ArrowLeft")?;
    reads(browser, &["receiving", "bytes 576 to 639"])?;
    ensure!(labels(browser)? != before);
    Ok(())
}

fn zoom_and_pan(browser: &mut Browser) -> Result<()> {
    browser.key("w")?;
    let whole = labels(browser)?;
    ensure!(whole[..3] == ["ms", "0", "50"], "{whole:?}");
    browser.key("+")?;
    let closer = labels(browser)?;
    ensure!(closer != whole, "{closer:?}");
    browser.key("-")?;
    ensure!(labels(browser)? == whole);
    // Enter goes to the bar, and Escape back.
    browser.key("Enter")?;
    let bar = labels(browser)?;
    ensure!(bar != whole);
    browser.key("Escape")?;
    ensure!(labels(browser)? == whole);
    click(browser, "[data-do=in]")?;
    ensure!(stretch(browser)? == (125.0, 375.0));
    click(browser, "[data-do=left]")?;
    ensure!(stretch(browser)? == (25.0, 275.0));
    browser.eval("document.querySelector('.ruler').focus()")?;
    browser.key("ArrowRight")?;
    ensure!(stretch(browser)? == (125.0, 375.0));
    drag_lane(browser)?;
    wheel_zooms(browser)
}

/// To the right by a fifth: what was before comes in from the left.
fn drag_lane(browser: &mut Browser) -> Result<()> {
    let view = (SPAN / 4, SPAN * 3 / 4);
    let from = place(browser, (0, 1), 255_000_000, view)?;
    let to = place(browser, (0, 1), 305_000_000, view)?;
    browser.mouse("mouseMoved", from)?;
    browser.mouse("mousePressed", from)?;
    browser.mouse("mouseMoved", to)?;
    browser.mouse("mouseReleased", to)?;
    let moved = stretch(browser)?;
    ensure!((moved.0 - 75.0).abs() < 0.5, "{moved:?}");
    ensure!((moved.1 - 325.0).abs() < 0.5, "{moved:?}");
    Ok(())
}

fn wheel_zooms(browser: &mut Browser) -> Result<()> {
    click(browser, "[data-do=scene]")?;
    let (x, y) = place(browser, (0, 1), SPAN / 2, (0, SPAN))?;
    let wheel = |browser: &mut Browser, modifiers: u8| {
        let event = json!({
            "type": "mouseWheel", "x": x, "y": y, "deltaX": 0,
            "deltaY": -300, "modifiers": modifiers,
        });
        browser.tell("Input.dispatchMouseEvent", event)
    };
    // With Ctrl it zooms to what is below it; alone it scrolls the page.
    wheel(browser, 2)?;
    browser.until(
        "!document.querySelector('.where').textContent.startsWith('0.000')",
    )?;
    let closer = stretch(browser)?;
    ensure!(closer.1 - closer.0 < 300.0, "{closer:?}");
    ensure!((closer.1 + closer.0 - 500.0).abs() < 2.0, "{closer:?}");
    browser.eval("globalThis.before = scrollY")?;
    wheel(browser, 0)?;
    browser.until("scrollY < before")?;
    ensure!(stretch(browser)? == closer);
    Ok(())
}

fn a_stretch_of_the_axis(browser: &mut Browser) -> Result<()> {
    click(browser, "[data-do=scene]")?;
    labels(browser)?;
    let (from, y) = middle(browser, ".ruler")?;
    let width = browser.eval("document.querySelector('.ruler').clientWidth")?;
    let to = from + width.as_f64().unwrap_or_default() / 5.0;
    browser.mouse("mouseMoved", (from, y))?;
    browser.mouse("mousePressed", (from, y))?;
    browser.mouse("mouseMoved", (to, y))?;
    browser.mouse("mouseReleased", (to, y))?;
    let chosen = stretch(browser)?;
    ensure!((chosen.0 - 250.0).abs() < 1.0, "{chosen:?}");
    ensure!((chosen.1 - 350.0).abs() < 1.0, "{chosen:?}");
    Ok(())
}

const SECOND: &str = "document.querySelectorAll('.model')[1].offsetHeight";

fn a_model_is_switched_off(browser: &mut Browser) -> Result<()> {
    ensure!(browser.eval(SECOND)?.as_u64() > Some(50));
    click(browser, "[data-switch=\"1\"]")?;
    ensure!(browser.eval(SECOND)? == 0);
    // Who walks through the lanes does not meet it.
    click(browser, "[data-do=message]")?;
    labels(browser)?;
    browser.eval("document.querySelector('.model .cursor').focus()")?;
    browser.key("ArrowDown")?;
    reads(browser, &["nonblocking_poll · talker"])
}

fn the_address_remembers(browser: &mut Browser) -> Result<()> {
    browser.until("location.hash.endsWith('&off=blocking-thread')")?;
    browser.until("location.hash.startsWith('#at=message:-36000-264000')")?;
    let before = labels(browser)?;
    browser.eval("document.title = 'before'")?;
    browser.tell("Page.reload", json!({}))?;
    browser.until(
        "document.title !== 'before' && document.readyState === 'complete'",
    )?;
    ensure!(labels(browser)? == before);
    ensure!(browser.eval(SECOND)? == 0);
    click(browser, "[data-all=on]")?;
    ensure!(browser.eval(SECOND)?.as_u64() > Some(50));
    click(browser, "[data-do=scene]")
}

fn nothing_overflows(browser: &mut Browser) -> Result<()> {
    for (width, height) in [SMALL, WIDE] {
        browser.resize(width, height)?;
        browser.until(&format!("innerWidth === {width}"))?;
        for button in ["message", "scene"] {
            click(browser, &format!("[data-do={button}]"))?;
            labels(browser)?;
            browser.eval("document.querySelector('.model .cursor').focus()")?;
            ensure!(!readout(browser)?.is_empty());
            let wide = browser.eval(
                "[document.documentElement,
                    ...document.querySelectorAll('body *:not(svg *)')]
                    .filter(it => it.scrollWidth > innerWidth ||
                        it.getBoundingClientRect().right > innerWidth + 0.5)
                    .map(it => it.className || it.tagName)",
            )?;
            ensure!(wide == json!([]), "at {width}: {wide}");
            let text = "document.querySelector('.ruler').clientWidth";
            let ruler = browser.eval(text)?.as_u64();
            ensure!(ruler > Some(u64::from(width) * 3 / 4), "{ruler:?}");
        }
    }
    Ok(())
}

fn dark(browser: &mut Browser) -> Result<()> {
    let colours = |browser: &mut Browser| {
        browser.text(
            "[getComputedStyle(document.body).backgroundColor,
              getComputedStyle(document.body).color,
              getComputedStyle(document.querySelector(
                '#waiting .ground')).fill].join(' ')",
        )
    };
    let light = "rgb(255, 255, 255) rgb(28, 33, 39) rgb(217, 232, 245)";
    let by_day = colours(browser)?;
    ensure!(by_day == light, "{by_day}");
    let calm = ("prefers-reduced-motion", "reduce");
    browser.prefer(&[calm, ("prefers-color-scheme", "dark")])?;
    let by_night = colours(browser)?;
    let dark = "rgb(20, 23, 27) rgb(227, 231, 235) rgb(28, 51, 71)";
    ensure!(by_night == dark, "{by_night}");
    Ok(())
}

/// Who does not mind motion is flown there, and arrives at the same place.
fn with_motion(browser: &mut Browser) -> Result<()> {
    browser.prefer(&[("prefers-reduced-motion", "no-preference")])?;
    browser.eval("document.querySelector('.ruler').focus()")?;
    browser.key("w")?;
    browser.key("+")?;
    let seen = "document.querySelector('.where').textContent";
    let there = "125.000 ms to 375.000 ms of the scene";
    browser.until(&format!("{seen} === '{there}'"))
}

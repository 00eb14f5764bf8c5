use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Result;
use bench::models::{self, MODELS, Model};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::live::app::{Over, Part};
use crate::live::kernel::{AcceptQueue, Connection, Interest, Kernel};
use crate::live::kernel::{Open, Process, Task, What};
use crate::live::keys::Deed;
use crate::live::pane::Pane;
use crate::live::sets::InWait;
use crate::record::Entry;
use crate::scene::Scene;

const SIZES: [(u16, u16); 3] = [(80, 24), (100, 30), (200, 60)];

/// A server that accepts nobody: the kernel does what clients need.
fn start(model: &'static Model) -> Result<Pane> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let addr: SocketAddr = listener.local_addr()?;
    // To the end of the test.
    std::mem::forget(listener);
    Ok(Pane::without_server(model, addr))
}

/// Two servers with two clients each, and much to be told.
fn full() -> App {
    let names = ["select_server", "epoll_lt"];
    let models: Vec<_> =
        names.iter().filter_map(|it| models::find(it)).collect();
    let mut app = App::new(&models, None, start).unwrap();
    let scenes = Scene::all().into_iter();
    app.scenes = scenes.map(|it| &*Box::leak(Box::new(it))).collect();
    for deed in [Deed::Open, Deed::Message, Deed::Open, Deed::Half] {
        app.act(deed);
    }
    for (pane, call) in app.panes.iter_mut().zip(["select", "epoll_wait"]) {
        for line in record(call).lines() {
            pane.seen.add(Entry::read(line).unwrap());
        }
        pane.lessons.go_on(pane.seen.stream());
        let ports = pane.crowd.clients().iter().map(|it| it.port);
        pane.kernel = kernel(ports.collect(), call);
        pane.descriptors = pane.seen.descriptors();
    }
    app.panes[0].asked =
        Some(InWait::Select { nfds: 9, read: vec![3, 4, 8], write: vec![] });
    let (epfd, maxevents, timeout) = (5, 256, -1);
    app.panes[1].asked = Some(InWait::Epoll { epfd, maxevents, timeout });
    app
}

fn record(wait: &str) -> String {
    let recv = if wait == "select" { "recv" } else { "send" };
    format!(
        r#"{{"start":"x","pid":7,"listener":3,"stop":4,"t0_ns":10}}
{{"t0_ns":12,"t1_ns":15,"pid":7,"tid":7,"verb":"take","call":"accept4","fd":3,"peer":"listener","ret":8,"taken":"client 1"}}
{{"t0_ns":16,"t1_ns":18,"pid":7,"tid":7,"verb":"wait","call":"{wait}","ret":1,"asked":3,"ready":[8],"ready_count":1,"scanned":9}}
{{"t0_ns":20,"t1_ns":25,"pid":7,"tid":7,"verb":"copy","call":"{recv}","fd":8,"peer":"client 1","ret":64}}
{{"asleep":{{"t0_ns":30,"pid":7,"tid":7,"verb":"wait","call":"{wait}"}}}}"#
    )
}

fn kernel(ports: Vec<u16>, call: &str) -> Kernel {
    let list = ["select"].contains(&call).then(Vec::new);
    let list = list.unwrap_or_else(|| {
        let events = nix::sys::epoll::EpollFlags::EPOLLIN;
        vec![Interest { fd: 8, events, data: 8 }]
    });
    let open = [(3, What::Listener), (5, What::Epoll(list))];
    let open = open.into_iter().chain([(8, What::Client(ports[0]))]);
    let open = open.map(|(fd, what)| Open { fd, what, signals: false });
    let side = |port, open| Connection {
        port,
        state: bench::harness::ESTABLISHED,
        open,
        unread: 32,
        unsent: 0,
    };
    Kernel {
        processes: vec![Process {
            pid: 7,
            threads: vec![Task { tid: 7, wait: None }],
            open: open.collect(),
        }],
        connections: vec![side(ports[0], true), side(ports[1], false)],
        accept_queue: Some(AcceptQueue { waiting: 1, room: 4096 }),
        cpu: Duration::from_millis(12),
        switches: Some((40, 2)),
        ..Kernel::default()
    }
}

fn lines(app: &App, (width, height): (u16, u16)) -> Vec<String> {
    let backend = TestBackend::new(width, height);
    let mut terminal = Terminal::new(backend).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect();
    (0..height).map(row).collect()
}

/// The columns of each server, as texts.
fn halves(app: &App, size: (u16, u16)) -> [String; 2] {
    let middle = usize::from((size.0 - 1) / 2);
    let lines = lines(app, size);
    let rows = lines.iter().map(|it| it.chars().collect::<Vec<_>>());
    let rows: Vec<_> = rows.filter(|row| row[middle] == '│').collect();
    assert!(rows.len() > 8, "{lines:#?}");
    [0..middle, middle + 1..usize::from(size.0)].map(|span| {
        let row = |row: &Vec<char>| row[span.clone()].iter().collect();
        rows.iter().map(row).collect::<Vec<String>>().join("\n")
    })
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no '{part}' in\n{text}");
    }
}

#[test]
fn each_server_has_its_own_half() {
    let app = full();
    for size in SIZES {
        let [left, right] = halves(&app, size);
        has(&left, &["select_server", "w main in select()", "calls 3"]);
        has(
            &left,
            &["c recv(8 client 1) = 64 bytes", "accept queue 1 of 4,096"],
        );
        has(&right, &["epoll_lt", "w main in epoll_wait()", "CPU 12 ms"]);
        has(
            &right,
            &["c send(8 client 1) = 64 bytes", "switches 40, forced 2"],
        );
        assert!(!left.contains("send(") && !right.contains("recv("));
        assert!(!right.contains("select("), "{right}");
    }
}

#[test]
fn every_part_is_shown_somewhere() {
    let mut app = full();
    for size in SIZES {
        let mut shown = [String::new(), String::new()];
        for part in Part::ALL {
            app.part = part;
            let [left, right] = halves(&app, size);
            shown[0].push_str(&left);
            shown[1].push_str(&right);
        }
        let table = ["fd who", "3 listener", "8 client 1", "client 2"];
        shown.iter().for_each(|half| has(half, &table));
        has(&shown[0], &["read     ···11···1", "ready    ········1"]);
        has(&shown[0], &["explained: accept4(3 listener)", "accept4(2)."]);
        has(&shown[1], &["interest list of epoll 5", "8 client 1 IN"]);
        has(&shown[1], &["room for 256 events", "1 of 3"]);
    }
}

#[test]
fn every_key_is_named_and_every_client_shown() {
    let app = full();
    for size in SIZES {
        let text = lines(&app, size).join("\n");
        for key in KEYS.iter().filter(|key| !key.short.is_empty()) {
            has(&text, &[&format!("{} {}", key.sign, key.short)]);
        }
        has(&text, &["  client 1         64     0      0 open"]);
        has(&text, &["▸ client 2½        32     0      0 open"]);
        has(&text, &["client 2 sends half a message: 32 bytes"]);
        let sent = text.lines().find(|it| it.contains("▸ client 2")).unwrap();
        assert_eq!(sent.matches(" 32 ").count(), 2, "{sent}");
    }
}

#[test]
fn what_lies_over_it_is_whole() {
    let mut app = full();
    for size in SIZES {
        app.over = Over::Help;
        let text = lines(&app, size).join("\n");
        for key in KEYS {
            has(&text, &[key.long]);
        }
        for row in theme::PHASES {
            has(&text, &[&format!("{} {}", row.1, row.3)]);
        }
        app.over = Over::Scenes(0);
        let text = lines(&app, size).join("\n");
        for scene in &app.scenes {
            has(&text, &[&scene.name, &scene.title]);
        }
        has(&text, &["for one client alone."]);
        for (at, model) in MODELS.iter().enumerate() {
            app.over = Over::Models(at);
            let text = lines(&app, size).join("\n");
            has(&text, &[&format!(" {} ", model.name), model.sleeps_in]);
            let end = model.see.split(' ').next_back().unwrap();
            has(&text, &[&format!("{end}.")]);
        }
    }
}

#[test]
fn a_server_that_has_ended_says_why() {
    let mut app = full();
    let words = "the server ended with exit status: 1; it said: no more";
    app.panes[1].trouble = Some(words.to_owned());
    for size in SIZES {
        let [left, right] = halves(&app, size);
        has(&left, &["c recv(8 client 1)"]);
        has(&right, &["the server ended with exit status: 1", "said: no"]);
        has(&right, &["its last calls", "c send(8 client 1) = 64 bytes"]);
    }
}

#[test]
fn no_size_is_too_odd() {
    let mut app = full();
    let overs = [Over::Nothing, Over::Help, Over::Scenes(3), Over::Models(15)];
    for (at, over) in overs.into_iter().cycle().take(40).enumerate() {
        app.over = over;
        app.part = Part::ALL[at / 4 % 4];
        let odd = at as u16;
        for size in [(odd * 6 + 1, odd % 30 + 1), (60, odd + 1), (odd + 60, 18)]
        {
            lines(&app, size);
        }
    }
    has(&lines(&app, (50, 3)).join("\n"), &["has 50x3", "needs 60x18"]);
    app.over = Over::Nothing;
    // No room for two: the one in focus.
    let text = lines(&app, (79, 24)).join("\n");
    has(&text, &["w main in select()", "Tab: epoll_lt"]);
    app.act(Deed::Pane);
    let text = lines(&app, (79, 24)).join("\n");
    has(&text, &["w main in epoll_wait()", "Tab: select_server"]);
}

use std::net::TcpListener;

use anyhow::anyhow;

use super::*;

fn start(model: &'static Model) -> Result<Pane> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let addr = listener.local_addr()?;
    // To the end of the test.
    std::mem::forget(listener);
    Ok(Pane::without_server(model, addr))
}

fn two() -> App {
    let mut app = App::new(&[&MODELS[0], &MODELS[8]], None, start).unwrap();
    app.scenes = vec![Box::leak(Box::new(Scene::find("burst").unwrap()))];
    app
}

fn act(app: &mut App, deeds: &[Deed]) {
    deeds.iter().for_each(|deed| app.act(*deed));
}

/// Of both servers, which must agree.
fn of<T: PartialEq + std::fmt::Debug>(
    app: &App,
    who: usize,
    what: impl Fn(&Client) -> T,
) -> T {
    let mut both = app.client(who).into_iter().map(|it| what(it.unwrap()));
    let (one, other) = (both.next().unwrap(), both.next().unwrap());
    assert_eq!(one, other);
    one
}

#[test]
fn a_key_does_the_same_with_both_servers() {
    let mut app = two();
    act(&mut app, &[Deed::Open, Deed::Open, Deed::Message]);
    assert_eq!(app.clients(), 2);
    assert_eq!(of(&app, 0, |it| it.sent), 0);
    assert_eq!(of(&app, 1, |it| it.sent), 64);
    act(&mut app, &[Deed::Choose(0), Deed::Burst]);
    assert_eq!(of(&app, 0, |it| it.sent + it.to_send), 8 * 16 * 1024);
    act(&mut app, &[Deed::Reading]);
    assert!(!of(&app, 0, |it| it.reads) && app.said.contains("stops reading"));
    act(&mut app, &[Deed::Reading]);
    assert!(of(&app, 0, |it| it.reads));
    act(&mut app, &[Deed::Later, Deed::Reset]);
    assert!(of(&app, 0, Client::is_open) && !of(&app, 1, Client::is_open));
    act(&mut app, &[Deed::Earlier, Deed::Close]);
    assert!(!of(&app, 0, Client::is_open));
}

#[test]
fn half_a_message_is_followed_by_its_rest() {
    let mut app = two();
    act(&mut app, &[Deed::Open, Deed::Half]);
    assert!(of(&app, 0, |it| it.sent) == 32 && app.is_half(0));
    act(&mut app, &[Deed::Half]);
    assert!(of(&app, 0, |it| it.sent) == 64 && !app.is_half(0));
}

#[test]
fn what_cannot_be_done_is_said() {
    let mut app = two();
    for deed in [Deed::Message, Deed::Half, Deed::Reading, Deed::Close] {
        act(&mut app, &[deed]);
        assert!(app.said.contains("no client yet: o opens one"), "{deed:?}");
    }
    for deed in [Deed::Pause, Deed::Step, Deed::Slower] {
        act(&mut app, &[deed]);
        assert!(app.said.contains("p plays one"), "{deed:?}");
    }
    act(&mut app, &[Deed::Open, Deed::HalfClose, Deed::Message]);
    assert!(app.said.contains("client 1 has sent FIN"), "{}", app.said);
    assert_eq!(of(&app, 0, |it| it.sent), 0);
    // Its second half cannot follow either.
    act(&mut app, &[Deed::Half]);
    assert!(!app.is_half(0));
    act(&mut app, &[Deed::Close, Deed::Message]);
    assert!(app.said.contains("client 1 is gone"), "{}", app.said);
    act(&mut app, &[Deed::Choose(7)]);
    assert_eq!(app.chosen, 0);
}

#[test]
fn models_and_scenes_begin_anew() {
    let mut app = two();
    act(&mut app, &[Deed::Open, Deed::Models, Deed::Later, Deed::Quit]);
    assert!(app.over == Over::Nothing && app.clients() == 1 && !app.quits);
    act(&mut app, &[Deed::Pane, Deed::Models, Deed::Later, Deed::Take]);
    let names: Vec<_> = app.panes.iter().map(|it| it.model.name).collect();
    assert_eq!(names, [MODELS[0].name, MODELS[9].name]);
    assert_eq!(app.clients(), 0);
    act(&mut app, &[Deed::Open, Deed::Scenes, Deed::Later, Deed::Take]);
    let stage = app.stage.as_ref().unwrap();
    assert_eq!((&*stage.scene.name, app.clients()), ("burst", 0));
    act(&mut app, &[Deed::Faster, Deed::Again]);
    let slower = app.stage.as_ref().map(Stage::slower);
    assert_eq!(slower, Some(3), "the pace is kept");
}

#[test]
fn what_fails_leaves_what_was() {
    let mut app = two();
    app.start = |_| Err(anyhow!("no room"));
    act(&mut app, &[Deed::Open, Deed::Again]);
    assert_eq!((&*app.said, app.clients()), ("no room", 1));
}

#[test]
fn help_comes_and_goes_and_quit_quits() {
    let mut app = two();
    act(&mut app, &[Deed::Help, Deed::Open, Deed::Help]);
    assert!(app.over == Over::Nothing && app.clients() == 0);
    let mut parts = Vec::new();
    for _ in Part::ALL {
        act(&mut app, &[Deed::Part]);
        parts.push(app.part);
    }
    assert_eq!(parts.last(), Some(&Part::Calls));
    act(&mut app, &[Deed::Quit]);
    assert!(app.quits);
}

//! `--watch-live`: what goes on stands in the record while it goes on.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench::harness::{PATIENCE, Server, Start, Target};
use bench::models::MODELS;
use serde_json::Value;

/// Who sleeps says so, and says it again after it has worked.
pub fn who_sleeps() -> Result<()> {
    watched("epoll_lt", |server, record| {
        let sleeps = |objects: &[Value]| {
            let asleep = objects.iter().filter(|it| {
                it["asleep"]["call"] == "epoll_wait"
                    && it["asleep"]["tid"] == server.pid
            });
            asleep.count()
        };
        let before = until(record, |objects| sleeps(objects) > 0)?;
        let mut client = server.client(0)?;
        client.round_trip(64)?;
        let after = until(record, |objects| {
            let sent = objects.iter().position(|it| it["call"] == "send");
            sent.is_some_and(|at| sleeps(&objects[at..]) > 0)
        })?;
        ensure!(sleeps(&after) > sleeps(&before), "{after:?}");
        client.finish()
    })
}

/// A server that never sleeps shows how far its rounds are several times a
/// second.
pub fn how_far_a_round_is() -> Result<()> {
    watched("nonblocking_poll", |_, record| {
        until(record, |objects| {
            let rounds = objects.iter().filter(|it| it["repeat"].is_u64());
            let ends: Vec<u64> =
                rounds.filter_map(|it| it["t1_ns"].as_u64()).collect();
            ends.windows(2).any(|two| two[1] - two[0] < 500_000_000)
        })?;
        Ok(())
    })
}

/// Runs `look` while this server is watched live into a file.
fn watched(
    name: &str,
    look: impl FnOnce(&Server, &Path) -> Result<()>,
) -> Result<()> {
    let model = MODELS.iter().find(|model| model.name == name);
    let target = Target::Model(model.context("no such model")?);
    let folder = tempfile::tempdir()?;
    let record = folder.path().join("watch");
    let path = record.to_str().context("a path that is no text")?;
    let flags = ["--watch", "json", "--watch-live", "--watch-file", path];
    let server = Server::start(&target, &Start::with_args(&flags))?;
    look(&server, &record)?;
    server.stop()
}

/// Waits until the whole lines of the record are as wanted.
fn until(
    record: &Path,
    wanted: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(record)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let objects = whole.lines().map(serde_json::from_str);
        let objects = objects.collect::<Result<Vec<Value>, _>>()?;
        if wanted(&objects) {
            return Ok(objects);
        }
        ensure!(Instant::now() < deadline, "it never came: {text}");
        sleep(Duration::from_millis(5));
    }
}

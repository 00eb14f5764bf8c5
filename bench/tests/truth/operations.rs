//! Operations that others do: each that a server submits and completes must be
//! one call of another thread on that region of its file.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::strace::{Threads, Traced, number};

/// An operation, and what names it: the kernel's call, where in the file, how
/// many bytes.
type Key = (&'static str, i64, i64);

/// For each operation its results, and the threads that may have done each.
type Done = BTreeMap<Key, Vec<(i64, Vec<i32>)>>;

/// Holds what a server tells against what the kernel says.
pub fn compare(told: &[Value], threads: &Threads) -> Result<()> {
    let (submitted, completed) = read(told)?;
    let kernel = kernel(threads)?;
    let keys = |done: &Done| -> BTreeMap<Key, usize> {
        done.iter().map(|(key, results)| (*key, results.len())).collect()
    };
    ensure!(
        submitted == keys(&completed),
        "{submitted:?} were submitted, and {:?} completed",
        keys(&completed)
    );
    ensure!(
        submitted == keys(&kernel),
        "{submitted:?} were submitted, and the kernel saw {:?}",
        keys(&kernel)
    );
    for (key, told) in &completed {
        let results = |done: &[(i64, Vec<i32>)]| {
            let mut all: Vec<i64> = done.iter().map(|it| it.0).collect();
            all.sort_unstable();
            all
        };
        let seen = &kernel[key];
        ensure!(
            results(told) == results(seen),
            "{key:?} came to {:?}, and the kernel saw {:?}",
            results(told),
            results(seen)
        );
        for (_, by) in told {
            let worked = |tid| seen.iter().any(|(_, one)| one.contains(tid));
            ensure!(
                by.iter().any(worked),
                "{key:?} is said to be the work of {by:?}, and the kernel saw \
                 {seen:?}"
            );
        }
    }
    Ok(())
}

/// How often each operation was submitted, and how it was completed.
fn read(told: &[Value]) -> Result<(BTreeMap<Key, usize>, Done)> {
    let mut submitted: BTreeMap<Key, usize> = BTreeMap::new();
    let mut completed = Done::new();
    for object in told {
        let call = match object["call"].as_str() {
            Some("aio_write") => "pwrite64",
            Some("aio_read") => "pread64",
            other => bail!("{other:?} is no operation"),
        };
        let field = |name: &str| {
            object[name].as_i64().with_context(|| format!("no {name}"))
        };
        let offset = object["offset"].as_i64().unwrap_or(NOWHERE);
        let key = (call, offset, field("length")?);
        if object["verb"] == "submit" {
            *submitted.entry(key).or_default() += 1;
            continue;
        }
        let by = object["by"].as_array().context("nobody did it")?;
        let by = by.iter().filter_map(Value::as_i64);
        let by = by.map(i32::try_from).collect::<Result<_, _>>()?;
        let result = object["ret"].as_i64().unwrap_or(-1);
        completed.entry(key).or_default().push((result, by));
    }
    Ok((submitted, completed))
}

/// In the place of an offset.
const NOWHERE: i64 = -1;

/// Whether it is one of those that glibc's threads make for operations on a
/// socket: pread64, which fails there, and then read.
pub fn is_one(call: &Traced) -> bool {
    let names = ["pread64", "pwrite64", "read", "write"];
    names.contains(&&*call.call) && call.args.contains("<socket:")
}

/// A session that shows none of the hard things would prove nothing of them.
pub fn ensure_rich(told: &[Value]) -> Result<()> {
    let done = || told.iter().filter(|it| it["verb"] == "complete");
    let ended = |it: &Value| it["call"] == "aio_read" && it["ret"] == 0;
    ensure!(done().any(ended), "no operation met an end of stream");
    let reset = |it: &Value| it["errno"] == "ECONNRESET";
    ensure!(done().any(reset), "no operation met a reset");
    Ok(())
}

/// The calls on files that say where, by thread.
fn kernel(threads: &Threads) -> Result<Done> {
    let mut done = Done::new();
    for (tid, calls) in threads {
        for it in calls {
            let socket = is_one(it);
            let call = match &*it.call {
                "pwrite64" if !socket => "pwrite64",
                "pread64" if !socket => "pread64",
                "write" if socket => "pwrite64",
                "read" if socket => "pread64",
                _ => continue,
            };
            // fd, bytes, length, and offset in a file
            let mut args = it.args.rsplit(", ");
            let mut next = || args.next().and_then(number).context("arguments");
            let offset = if socket { NOWHERE } else { next()? };
            let length = next()?;
            let result = it.result.clone().unwrap_or(-1);
            let entry = done.entry((call, offset, length)).or_default();
            entry.push((result, vec![*tid]));
        }
    }
    Ok(done)
}

/// The comparison is as sharp as it says.
pub fn every_lie_is_noticed(told: &[Value], threads: &Threads) -> Result<()> {
    let stride = (told.len() / 50).max(1);
    for at in (0..told.len()).step_by(stride) {
        let lie = |what: &str, change: &dyn Fn(&mut Vec<Value>)| {
            let mut lie = told.to_vec();
            change(&mut lie);
            ensure!(
                compare(&lie, threads).is_err(),
                "{what} at operation {at} goes unnoticed"
            );
            Ok(())
        };
        let completes = told[at]["verb"] == "complete";
        lie("one left out", &|told| drop(told.remove(at)))?;
        lie("one told twice", &|told| told.insert(at, told[at].clone()))?;
        for field in ["offset", "length", "ret"] {
            if field == "ret" && !completes {
                continue;
            }
            if told[at].get(field).is_none() {
                continue;
            }
            lie(field, &|told| {
                let value = told[at][field].as_i64().unwrap_or(0);
                told[at][field] = Value::from(value + 1);
            })?;
        }
        if completes {
            lie("by nobody", &|told| told[at]["by"] = Value::Array(vec![]))?;
            lie("by another", &|told| told[at]["by"] = Value::from(vec![1]))?;
        }
    }
    Ok(())
}

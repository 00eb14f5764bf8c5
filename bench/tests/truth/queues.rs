//! Operations that go by queues, which strace does not see: what came out of
//! them is held against what went in, and against what the clients sent and
//! received.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{SIGNALFD_SIGINFO, Spoken};

/// The threads of this process that the kernel has started, with their names:
/// iou-sqp-… takes submissions, and iou-wrk-… does what would have to wait.
/// The latter stay for five seconds after they were last needed.
pub fn threads_of_the_kernel(pid: i32) -> Result<BTreeMap<i64, String>> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        let name = fs::read_to_string(task.path().join("comm"));
        let name = name.unwrap_or_default().trim_end().to_owned();
        if name.starts_with("iou-") {
            let tid = task.file_name().to_string_lossy().parse()?;
            threads.insert(tid, name);
        }
    }
    Ok(threads)
}

/// What is known of a client so far.
#[derive(Default)]
struct Known {
    received: u64,
    sent: u64,
}

/// Whose an operation is, and which one.
type Key = (i64, String, i64);

/// What a server's word is held against.
pub struct Held<'a> {
    pub spoken: &'a [Spoken],
    /// Those that the kernel has for it.
    pub threads: &'a BTreeMap<i64, String>,
    /// The queues are the kernel's.
    pub by_kernel: bool,
    /// Bytes are moved by others, in operations that strace sees.
    pub by_others: bool,
}

/// Holds what a server tells of its queues against what its clients know, and
/// against the threads that the kernel has for it.
pub fn compare(told: &[Value], held: &Held) -> Result<()> {
    let Held { spoken, threads, by_kernel, by_others } = *held;
    let mut under_way: BTreeMap<Key, Vec<&Value>> = BTreeMap::new();
    let mut clients: BTreeMap<String, Known> = BTreeMap::new();
    let mut fds: BTreeMap<String, i64> = BTreeMap::new();
    for it in told {
        look(it, &mut under_way, &mut clients, &mut fds)
            .with_context(|| format!("the operation {it}"))?;
        let by = it["by"].as_array().cloned().unwrap_or_default();
        let by: Vec<i64> = by.iter().filter_map(Value::as_i64).collect();
        let takes = it["verb"] == "complete" && it.get("called").is_none();
        let own: Vec<i64> = threads.keys().copied().collect();
        let expected = if takes { own } else { Vec::new() };
        ensure!(by == expected, "{it}: the kernel has {threads:?}");
    }
    let works = threads.values().find(|name| !name.starts_with("iou-sqp-"));
    ensure!(works.is_none(), "nobody tells of the thread {works:?}");
    under_way.retain(|_, all| !all.is_empty());
    // Where no kernel has it, the wish to read the stop does not come back.
    let left = under_way.iter().map(|((_, call, _), all)| (&**call, all.len()));
    let left: Vec<(&str, usize)> = left.collect();
    let waits = !by_kernel && !told.is_empty();
    let expected: &[_] = if waits { &[("read", 1)] } else { &[] };
    ensure!(left == expected, "it never came back: {under_way:?}");
    if told.is_empty() {
        return Ok(());
    }
    ensure!(
        clients.len() == spoken.len(),
        "{} clients are told of, and there were {}",
        clients.len(),
        spoken.len()
    );
    for (number, said) in (1..).zip(spoken).filter(|_| !by_others) {
        let name = format!("client {number}");
        let it = clients.get(&name).with_context(|| format!("no {name}"))?;
        let as_it_says = match said.whole {
            true => it.received == said.sent && it.sent == said.received,
            false => it.received <= said.sent && it.sent >= said.received,
        };
        ensure!(
            as_it_says && it.sent <= it.received,
            "{} bytes of {name} are told to be received and {} sent; it sent \
             {} and received {}",
            it.received,
            it.sent,
            said.sent,
            said.received
        );
    }
    Ok(())
}

fn look<'a>(
    it: &'a Value,
    under_way: &mut BTreeMap<Key, Vec<&'a Value>>,
    clients: &mut BTreeMap<String, Known>,
    fds: &mut BTreeMap<String, i64>,
) -> Result<()> {
    let field = |name: &str| {
        it[name].as_i64().with_context(|| format!("it has no {name}"))
    };
    let call = it["call"].as_str().context("it has no name")?;
    // At its end a server cancels all, whatever it is about.
    let all = call == "cancel" && it.get("fd").is_none();
    let (fd, peer) = match all {
        true => (-1, ""),
        false => {
            let peer = it["peer"].as_str().context("it is about nobody")?;
            (field("fd")?, peer)
        }
    };
    let length = field("length")?;
    ensure!(call != "read" || length == SIGNALFD_SIGINFO, "no whole signal");
    let key = (field("tid")?, call.to_owned(), fd);
    let own = *fds.entry(peer.to_owned()).or_insert(fd);
    ensure!(own == fd, "{peer} is {own}");
    let all = under_way.entry(key).or_default();
    if it["verb"] == "submit" {
        if call == "send" {
            let client = clients.get(peer).context("it was not accepted")?;
            let owed = client.received - client.sent;
            ensure!((1..=owed).contains(&(length as u64)), "{owed} are owed");
        }
        all.push(it);
        return Ok(());
    }
    let begun = *all.first().context("it was not submitted")?;
    let took = begun["t0_ns"]
        .as_i64()
        .and_then(|begun| field("t0_ns").ok()?.checked_sub(begun));
    let in_flight = Some(field("in_flight_ns")?);
    ensure!(
        match it.get("at_once").is_some() {
            true => in_flight < took && in_flight >= Some(0),
            false => in_flight == took,
        },
        "it took {took:?}"
    );
    ensure!(begun["length"] == length, "it was {}", begun["length"]);
    if it.get("goes_on").is_none() {
        all.remove(0);
    }
    let Some(result) = it["ret"].as_i64() else {
        ensure!(it["errno"].is_string(), "it came to nothing");
        return Ok(());
    };
    ensure!(
        length == 0 || (0..=length).contains(&result),
        "{result} of {length} bytes"
    );
    let bytes = result as u64;
    match call {
        "accept" => {
            let name = it["taken"].as_str().context("it brought nobody")?;
            let expected = format!("client {}", clients.len() + 1);
            ensure!(name == expected, "it is {expected}");
            fds.insert(expected.clone(), result);
            clients.insert(expected, Known::default());
        }
        "recv" => {
            let client = clients.get_mut(peer).context("it is no client")?;
            client.received += bytes;
        }
        "send" => {
            let client = clients.get_mut(peer).context("it is no client")?;
            client.sent += bytes;
        }
        "read" => ensure!(result == length, "no whole signal"),
        _ => {}
    }
    Ok(())
}

/// A session that shows none of the hard things would prove nothing of them.
pub fn ensure_rich(told: &[Value]) -> Result<()> {
    let done = || told.iter().filter(|it| it["verb"] == "complete");
    let ended = |it: &Value| it["call"] == "recv" && it["ret"] == 0;
    ensure!(done().any(ended), "no recv met an end of stream");
    let reset = |it: &Value| it["errno"] == "ECONNRESET";
    ensure!(done().any(reset), "no operation met a reset");
    let short = |it: &Value| {
        let sent = it["ret"].as_i64() < it["length"].as_i64();
        it["call"] == "send" && (sent || it["errno"] == "EAGAIN")
    };
    ensure!(done().any(short), "no send was short");
    ensure!(told.len() > 100, "{} operations show little", told.len());
    Ok(())
}

/// The comparison is as sharp as it says.
pub fn every_lie_is_noticed(told: &[Value], held: &Held) -> Result<()> {
    let stride = (told.len() / 50).max(1);
    for at in (0..told.len()).step_by(stride) {
        let lie = |what: &str, change: &dyn Fn(&mut Vec<Value>)| {
            let mut lie = told.to_vec();
            change(&mut lie);
            ensure!(
                compare(&lie, held).is_err(),
                "{what} at operation {at} goes unnoticed: {}",
                told[at]
            );
            Ok(())
        };
        lie("one left out", &|told| drop(told.remove(at)))?;
        lie("one told twice", &|told| told.insert(at, told[at].clone()))?;
        let whole = |peer: &str| {
            let number = peer.strip_prefix("client ");
            let number = number.and_then(|it| it.parse::<usize>().ok());
            number.is_none_or(|number| held.spoken[number - 1].whole)
        };
        let sure = told[at]["peer"].as_str().is_none_or(whole);
        let cancels = told[at]["call"] == "cancel";
        // That call stands in the record itself.
        let by_call = held.by_others && told[at]["called"] == true;
        for field in ["ret", "length", "fd", "in_flight_ns"] {
            let told = &told[at];
            let known = told.get(field).is_some()
                && match field {
                    // Nobody says how many there were, or when it was asked.
                    "ret" => sure && !cancels && !by_call,
                    "in_flight_ns" => told.get("at_once").is_none(),
                    _ => true,
                };
            if known {
                lie(field, &|told| {
                    let value = told[at][field].as_i64().unwrap_or(0);
                    told[at][field] = Value::from(value + 1);
                })?;
            }
        }
        lie("by another", &|told| told[at]["by"] = Value::from(vec![1]))?;
        if told[at].get("by").is_some() {
            lie("by nobody", &|told| told[at]["by"] = Value::Null)?;
        }
    }
    Ok(())
}

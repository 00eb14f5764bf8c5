//! One sentence on each row: what to see in it. Every number in it was
//! measured in this run, and what it claims is checked against them first.

use std::collections::BTreeMap;

use bench::models::PerClient;

use super::measure::Row;
use super::page::{decimal, millis, plural, short};
use super::{ECHOED, MESSAGES};
use crate::record::calls::Wait;
use crate::words::count;

/// What a row shows.
pub struct Lesson {
    pub text: String,
    /// Whether this run shows what the model promises. If not, the text says
    /// what was seen instead.
    pub holds: bool,
}

impl Lesson {
    /// What to say when the claim holds, and what when it does not.
    fn of(holds: bool, seen: String, instead: String) -> Lesson {
        let text = match holds {
            true => seen,
            false => format!("not as expected in this run: {instead}"),
        };
        Lesson { text, holds }
    }
}

/// What to see in this row.
pub fn lesson(row: &Row) -> Lesson {
    let limits = &row.model.limits;
    match row.model.name {
        "proactor-emulated" => emulates(row),
        "proactor-aio" => by_helpers(row),
        "proactor-multishot" => one_for_all(row),
        "proactor-sqpoll" => by_the_kernels_thread(row),
        "proactor-zero-copy" => completes_twice(row),
        name if name.starts_with("proactor") => completes(row),
        _ if limits.clients == Some(1) => waits_for_others(row),
        _ if limits.per_client == PerClient::Process => own_process(row),
        _ if limits.per_client == PerClient::Thread => own_thread(row),
        _ if limits.clients.is_some() => pool(row),
        _ if limits.burns_core => burns_core(row),
        _ if limits.idle_wakes => idle_wakes(row),
        "select_server" | "poll_server" => scans_all(row),
        "epoll_lt" => scans_ready(row),
        "epoll_et" => drains(row),
        "signal_driven" | "signal_driven-handler" => signals_name(row),
        "signal_driven-sigio" => signals_nobody(row),
        name if name.starts_with("aio_file") => through_a_file(row),
        "reactor" => dispatches(row, "the handlers that its loop calls"),
        "reactor-futures" => dispatches(row, "the tasks that it wakes"),
        "reactor-pool" => by_workers(row),
        "reactor-threads" => many_reactors(row),
        _ if row.model.args.contains(&"processes") => many_workers(row),
        _ => plain(row),
    }
}

/// Whether client 1 had its first echo while client 3 was still there.
fn answered_in_time(row: &Row) -> bool {
    let answers = &row.cost.answers;
    answers.talker_answered < answers.silent_left
}

fn waits_for_others(row: &Row) -> Lesson {
    let first = millis(row.cost.answers.talker_first);
    Lesson::of(
        !answered_in_time(row),
        format!(
            "client 1 talked at once and waited {first} ms for its first \
             echo, until the silent client had gone: one thread, asleep in \
             one recv"
        ),
        format!(
            "client 1 was answered after {first} ms, although the silent \
             client was still there"
        ),
    )
}

/// How quickly client 1 was answered: at first, which includes `what`, and
/// later.
fn pace(row: &Row, what: &str) -> String {
    let answers = &row.cost.answers;
    let (first, later) = (answers.talker_first, answers.talker_echo);
    format!(
        "client 1's first echo took {} ms with {what}, a later one {} ms",
        millis(first),
        millis(later)
    )
}

fn own_process(row: &Row) -> Lesson {
    let (rest, crowd) = (&row.cost.at_rest, &row.cost.crowd);
    let names = ("process", "processes");
    one_for_each(row, (rest.processes, crowd.processes), names, "the fork")
}

fn own_thread(row: &Row) -> Lesson {
    let (rest, crowd) = (&row.cost.at_rest, &row.cost.crowd);
    let (names, start) = (("thread", "threads"), "the start of its thread");
    one_for_each(row, (rest.threads, crowd.threads), names, start)
}

/// Each client has a process or thread to itself, which took `start`.
fn one_for_each(
    row: &Row,
    (before, with): (usize, usize),
    (one, many): (&str, &str),
    start: &str,
) -> Lesson {
    let grown = with == before + 3;
    let before = plural(before, one, many);
    let pace = pace(row, start);
    Lesson::of(
        grown && answered_in_time(row),
        format!(
            "{before} became {with}, one more for each client, each asleep in \
             a recv of its own: {pace}"
        ),
        format!("{before} became {with} with 3 clients; {pace}"),
    )
}

fn pool(row: &Row) -> Lesson {
    let (before, with) = (row.cost.at_rest.threads, row.cost.crowd.threads);
    let served = row.model.limits.clients.unwrap_or_default();
    let first = millis(row.cost.answers.talker_first);
    Lesson::of(
        with == before && answered_in_time(row),
        format!(
            "all {with} threads were there before the clients came, and none \
             was started: client 1 woke one of them and was answered in \
             {first} ms; client {} would have to wait",
            served + 1
        ),
        format!(
            "{before} threads became {with}; client 1 was answered in {first} \
             ms"
        ),
    )
}

/// The share of a core while nobody spoke.
fn quiet(row: &Row) -> String {
    match row.cost.quiet_share * 100.0 {
        percent @ ..9.95 => format!("{percent:.1}% of a core"),
        percent @ ..95.0 => format!("{percent:.0}% of a core"),
        _ => "a whole core".to_owned(),
    }
}

fn burns_core(row: &Row) -> Lesson {
    let calls = &row.calls;
    let wasted = match row.cost.said_wasted {
        Some(said) => format!(
            "{} calls found nothing ({} when watched, which is slower)",
            count(said),
            count(calls.wasted)
        ),
        None => format!("{} calls found nothing", count(calls.wasted)),
    };
    let (quiet, slept) = (quiet(row), count(calls.wake_ups));
    Lesson::of(
        // On a busy machine it is given less than a core, and takes that.
        calls.wasted > calls.made / 2
            && calls.wake_ups == 0
            && row.cost.usage.voluntary < MESSAGES as u64,
        format!(
            "{wasted} and none slept: while nobody spoke, the server still \
             took {quiet}"
        ),
        format!(
            "{wasted} and {slept} slept; while nobody spoke, the server took \
             {quiet}"
        ),
    )
}

fn idle_wakes(row: &Row) -> Lesson {
    let calls = &row.calls;
    let (woke, wasted) = (count(calls.wake_ups), count(calls.wasted));
    let echo = millis(row.cost.answers.talker_echo);
    let quiet = quiet(row);
    let seen = format!(
        "it woke {woke} times for {ECHOED} messages, and {wasted} calls found \
         nothing; an echo took {echo} ms on average, and while nobody spoke \
         the server still took {quiet}"
    );
    let holds = calls.wake_ups > 2 * ECHOED as u64;
    Lesson::of(holds, seen.clone(), seen)
}

const NO_WAIT: Wait = Wait { asked: 0.0, ready: 0.0, scanned: 0.0 };

fn scans_all(row: &Row) -> Lesson {
    let Wait { asked, ready, scanned } = row.calls.wait.unwrap_or(NO_WAIT);
    let call = row.model.sleeps_in;
    let all = decimal(row.calls.all_per_message());
    Lesson::of(
        ready > 0.0 && scanned > ready,
        format!(
            "{all} calls a message; each {call} was told anew of all {} \
             descriptors, and the server looked through {} entries to find \
             the {} that was ready",
            short(asked),
            short(scanned),
            short(ready)
        ),
        format!(
            "{all} calls a message; {call} found {} ready of {}, and {} \
             entries were looked through",
            short(ready),
            short(asked),
            short(scanned)
        ),
    )
}

fn scans_ready(row: &Row) -> Lesson {
    let Wait { asked, ready, scanned } = row.calls.wait.unwrap_or(NO_WAIT);
    let call = row.model.sleeps_in;
    let all = decimal(row.calls.all_per_message());
    Lesson::of(
        ready > 0.0 && scanned == ready && asked > ready,
        format!(
            "{all} calls a message; the kernel keeps the list of {} \
             descriptors, and each {call} gave back only what was ready: {}",
            short(asked),
            short(scanned)
        ),
        format!(
            "{all} calls a message; of {} descriptors {} were ready, and {} \
             entries were looked through",
            short(asked),
            short(ready),
            short(scanned)
        ),
    )
}

fn drains(row: &Row) -> Lesson {
    let calls = &row.calls;
    let all = decimal(calls.all_per_message());
    let again = short(calls.wasted_per_message);
    let wasted = count(calls.wasted);
    Lesson::of(
        calls.wasted_per_message > 0.9,
        format!(
            "{all} calls a message, {again} of them a recv that meets EAGAIN: \
             a change is reported only once, so whoever is ready is drained; \
             {wasted} calls wasted in all"
        ),
        format!(
            "{all} calls a message, {again} of them met EAGAIN; {wasted} \
             calls wasted in all"
        ),
    )
}

fn signals_name(row: &Row) -> Lesson {
    let Wait { asked, scanned, .. } = row.calls.wait.unwrap_or(NO_WAIT);
    let all = decimal(row.calls.all_per_message());
    let signals = decimal(row.calls.signals_per_message);
    let wasted = decimal(row.calls.wasted_per_message);
    Lesson::of(
        row.calls.signals_per_message > 0.9 && asked == 0.0,
        format!(
            "{all} calls and {signals} signals a message: each signal said \
             whose it was, so no call was about all descriptors; {wasted} \
             calls a message found the queue or a socket empty"
        ),
        format!(
            "{all} calls and {signals} signals a message; a wait was asked \
             about {} descriptors and looked through {}",
            short(asked),
            short(scanned)
        ),
    )
}

fn signals_nobody(row: &Row) -> Lesson {
    let calls = &row.calls;
    let polls = calls.per_message.get("poll").copied().unwrap_or(0.0);
    let all = decimal(calls.all_per_message());
    let (signals, polls) = (decimal(calls.signals_per_message), decimal(polls));
    let seen = format!(
        "{all} calls and {signals} signals a message: a signal says that \
         someone is ready and not who, so {polls} polls of everyone had to \
         find out"
    );
    let holds = calls.signals_per_message > 0.9
        && calls.per_message.get("poll").is_some_and(|polls| *polls > 0.9);
    Lesson::of(holds, seen.clone(), seen)
}

fn through_a_file(row: &Row) -> Lesson {
    let calls = &row.calls;
    let of = |name: &str| calls.per_message.get(name).copied().unwrap_or(0.0);
    // Each is seen twice: as it is submitted, and when it is complete.
    let operations = (of("aio_write") + of("aio_read")) / 2.0;
    let all = decimal(calls.all_per_message());
    let shown = decimal(operations);
    let workers = plural(calls.workers, "thread", "threads");
    Lesson::of(
        operations > 1.9 && calls.workers > 0,
        format!(
            "{all} calls a message, and {shown} operations on a file that \
             {workers} of glibc carried out while the server waited for other \
             things"
        ),
        format!(
            "{all} calls a message, and {shown} operations by {workers} of \
             glibc"
        ),
    )
}

/// The calls of a bare loop, although there is `what` besides.
fn dispatches(row: &Row, what: &str) -> Lesson {
    let Wait { asked, ready, scanned } = row.calls.wait.unwrap_or(NO_WAIT);
    let all = decimal(row.calls.all_per_message());
    Lesson::of(
        ready > 0.0 && scanned == ready && row.calls.all_per_message() < 4.0,
        format!(
            "{all} calls a message, those of epoll_lt: {what} make none of \
             their own; each wait was about {} descriptors and gave back {}",
            short(asked),
            short(ready)
        ),
        format!(
            "{all} calls a message; of {} descriptors {} were ready, and {} \
             entries were looked through",
            short(asked),
            short(ready),
            short(scanned)
        ),
    )
}

fn by_workers(row: &Row) -> Lesson {
    let of =
        |name: &str| row.calls.per_message.get(name).copied().unwrap_or(0.0);
    let (writes, reads) = (of("write"), of("read"));
    let threads = row.cost.crowd.threads;
    let all = decimal(row.calls.all_per_message());
    let shown = format!(
        "{all} calls a message by {threads} threads, among them {} writes and \
         {} reads of an eventfd",
        decimal(writes),
        decimal(reads)
    );
    Lesson::of(
        writes > 0.5 && reads > 0.5 && threads > 1,
        format!(
            "{shown}: a worker had each message, and told the reactor when it \
             was done; the reactor alone receives and sends"
        ),
        shown,
    )
}

fn many_reactors(row: &Row) -> Lesson {
    let (before, with) = (row.cost.at_rest.threads, row.cost.crowd.threads);
    let first = millis(row.cost.answers.talker_first);
    Lesson::of(
        with == before && before > 2 && answered_in_time(row),
        format!(
            "{with} threads, each with a wait of its own, before the clients \
             came and after: one accepted client 1 and dealt it to another, \
             which answered in {first} ms and served it to its end"
        ),
        format!(
            "{before} threads became {with}; client 1 was answered in {first} \
             ms"
        ),
    )
}

fn many_workers(row: &Row) -> Lesson {
    let (rest, crowd) = (&row.cost.at_rest, &row.cost.crowd);
    let (before, with) = (rest.processes, crowd.processes);
    let first = millis(row.cost.answers.talker_first);
    Lesson::of(
        with == before && before > 2 && answered_in_time(row),
        format!(
            "{with} processes before the clients came and after: a master that \
             looks after the others, and workers with a reactor each, of which \
             one answered client 1 in {first} ms"
        ),
        format!(
            "{before} processes became {with}; client 1 was answered in \
             {first} ms"
        ),
    )
}

/// How many of these were submitted, or completed, for a message.
fn of(sums: &BTreeMap<String, f64>, name: &str) -> f64 {
    sums.get(name).copied().unwrap_or(0.0)
}

/// Whether nothing was called for a message but io_uring_enter.
fn only_enters(row: &Row) -> bool {
    let calls = &row.calls.per_message;
    calls.keys().all(|name| name == "io_uring_enter")
}

/// What was called and submitted for a message.
fn submissions(row: &Row) -> String {
    let calls = &row.calls;
    let sum = calls.submitted.values().fold(0.0, |sum, it| sum + it);
    let names: Vec<String> = calls
        .per_message
        .iter()
        .map(|(name, times)| format!("{} {name}", decimal(*times)))
        .collect();
    let all = match names.is_empty() {
        true => "no calls".to_owned(),
        false => names.join(", "),
    };
    format!("a message took {all} and {} submissions", decimal(sum))
}

fn completes(row: &Row) -> Lesson {
    let said = submissions(row);
    let (put, got) = (&row.calls.submitted, &row.calls.completed);
    let each = ["recv", "send"].iter().all(|name| {
        of(put, name) > 0.9 && (of(put, name) - of(got, name)).abs() < 0.1
    });
    Lesson::of(
        each && only_enters(row),
        format!(
            "{said}: a recv and a send, and neither was called; by the time \
             that they completed, the kernel had copied the bytes"
        ),
        said,
    )
}

fn one_for_all(row: &Row) -> Lesson {
    let said = submissions(row);
    let (put, got) = (&row.calls.submitted, &row.calls.completed);
    Lesson::of(
        of(put, "recv") < 0.1 && of(got, "recv") > 0.9 && only_enters(row),
        format!(
            "{said}: no recv is among these, for one was submitted when \
             client 1 came, and completed with each of its messages"
        ),
        said,
    )
}

fn by_the_kernels_thread(row: &Row) -> Lesson {
    let said = submissions(row);
    let workers = plural(row.calls.workers, "thread", "threads");
    Lesson::of(
        of(&row.calls.submitted, "send") > 0.9
            && row.calls.workers == 1
            && only_enters(row),
        format!(
            "{said}, which a thread of the kernel's took out of memory: the \
             server calls only to sleep, or to wake that thread"
        ),
        format!("{said}, taken by {workers} of the kernel's"),
    )
}

fn completes_twice(row: &Row) -> Lesson {
    let said = submissions(row);
    let calls = &row.calls;
    let sends = of(&calls.submitted, "send");
    let results = of(&calls.completed, "send");
    let shown = decimal(results);
    Lesson::of(
        sends > 0.9 && results > 1.9 * sends && only_enters(row),
        format!(
            "{said}, and {shown} completions of a send: one says how much was \
             sent, and the other that its memory is the server's again"
        ),
        format!("{said}, and {shown} completions of a send"),
    )
}

fn emulates(row: &Row) -> Lesson {
    let said = submissions(row);
    let calls = &row.calls;
    let each = ["recv", "send"].iter().all(|name| {
        of(&calls.per_message, name) > 0.9 && of(&calls.submitted, name) > 0.9
    });
    Lesson::of(
        each,
        format!(
            "{said}: the same completions, but each of them stands for a call \
             that the server made itself once epoll said that it would not \
             wait"
        ),
        said,
    )
}

fn by_helpers(row: &Row) -> Lesson {
    let workers = plural(row.calls.workers, "thread", "threads");
    let calls = &row.calls.per_message;
    let copies = of(calls, "recv") + of(calls, "send");
    // Each is seen twice: as it is submitted, and when it is complete.
    let operations = (of(calls, "aio_read") + of(calls, "aio_write")) / 2.0;
    let all = decimal(row.calls.all_per_message());
    let shown = decimal(operations);
    Lesson::of(
        operations > 1.9 && row.calls.workers > 0 && copies < 0.1,
        format!(
            "{all} calls a message, and {shown} operations on its socket that \
             {workers} of glibc carried out, each asleep in a read until its \
             client spoke"
        ),
        format!(
            "{all} calls a message, and {shown} operations by {workers} of \
             glibc"
        ),
    )
}

/// For a model of which nothing special is known here.
fn plain(row: &Row) -> Lesson {
    let names: Vec<String> = row
        .calls
        .per_message
        .iter()
        .map(|(name, share)| format!("{name} {}", decimal(*share)))
        .collect();
    let first = millis(row.cost.answers.talker_first);
    Lesson::of(
        answered_in_time(row),
        format!(
            "client 1 was answered in {first} ms; a message takes {}",
            names.join(", ")
        ),
        format!("client 1 was answered after {first} ms only"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::answers::Answers;
    use crate::compare::measure::{Cost, Crowd, Usage};
    use crate::record::calls::Calls;
    use bench::models::{MODELS, Model};
    use std::time::Duration;

    /// A row in which client 1 was answered at once and nothing else happened.
    fn idle(model: &'static Model) -> Row {
        let ms = Duration::from_millis;
        let none = Crowd { threads: 1, processes: 1 };
        Row {
            model,
            cost: Cost {
                answers: Answers {
                    talker_first: ms(1),
                    talker_echo: ms(1),
                    talker_answered: ms(101),
                    pauser_first: ms(1),
                    silent_left: ms(400),
                },
                usage: Usage { cpu: ms(1), voluntary: 99, involuntary: 0 },
                at_rest: none,
                crowd: none,
                quiet_share: 0.0,
                said_wasted: None,
            },
            calls: Calls::default(),
        }
    }

    #[test]
    fn a_claim_that_the_run_does_not_show_is_not_made() {
        for model in MODELS.iter().filter(|it| it.name != "blocking-pool") {
            let lesson = lesson(&idle(model));
            let text = &lesson.text;
            assert!(!lesson.holds, "{}: {text}", model.name);
            assert!(text.starts_with("not as expected"), "{text}");
        }
    }

    #[test]
    fn a_pool_that_grows_is_none() {
        let mut row = idle(bench::models::find("blocking-pool").unwrap());
        assert!(lesson(&row).holds);
        row.cost.crowd.threads += 3;
        assert!(!lesson(&row).holds);
    }

    #[test]
    fn the_sequential_server_is_told_by_when_it_answered() {
        let mut row = idle(bench::models::find("blocking").unwrap());
        row.cost.answers.talker_answered = Duration::from_millis(401);
        row.cost.answers.talker_first = Duration::from_millis(301);
        let lesson = lesson(&row);
        assert!(lesson.holds && lesson.text.contains(" 301 ms "));
    }
}

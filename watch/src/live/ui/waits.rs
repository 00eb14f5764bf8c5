//! What goes into a wait, and what comes out of it.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use nix::poll::PollFlags;

use super::{theme, words};
use crate::figure::data::Phase;
use crate::live::kernel::{Interest, What};
use crate::live::pane::Pane;
use crate::live::seen::Wait;
use crate::live::sets::InWait;

/// Of this part.
pub const TITLE: &str = "into the wait, and out of it";

const NOBODY: &str = "ppoll: about no descriptor, but lets signals in.";

/// How wide the names of sets are.
const LABEL: usize = 8;

/// Everything that is known of it.
pub fn lines(pane: &Pane, width: u16) -> Vec<Line<'static>> {
    let mut lines = interest_lists(pane, width);
    lines.extend(signals(pane, width));
    let out = pane.seen.last_wait();
    match &pane.asked {
        Some(InWait::Select { nfds, read, write }) => {
            lines.extend(bits(*nfds, read, write, out, width));
        }
        // ppoll, which waits for signals: ppoll(2).
        Some(InWait::Poll { fds }) if fds.is_empty() => {
            lines.extend(wrapped(NOBODY, width));
        }
        Some(InWait::Poll { fds }) => {
            let vacant = fds.iter().filter(|it| it.0 < 0).count();
            let head = match vacant {
                0 => format!("poll, an array of {}:", fds.len()),
                _ => format!(
                    "poll, an array of {}; {vacant} vacant (-1):",
                    fds.len()
                ),
            };
            let used = fds.iter().filter(|it| it.0 >= 0);
            let items = used.map(|(fd, events)| {
                let events = PollFlags::from_bits_retain(*events);
                format!("{} {}", pane.descriptor(*fd), short(events))
            });
            lines.extend(listed(&head, items, Style::new(), width));
        }
        Some(other) => lines.extend(wrapped(&in_words(pane, other), width)),
        None => lines.extend(wrapped("No call has slept yet.", width)),
    }
    lines.extend(out.map(|out| came_out(pane, out, width)).unwrap_or_default());
    lines
}

fn wrapped(text: &str, width: u16) -> Vec<Line<'static>> {
    words::wrap(text, width).into_iter().map(Line::raw).collect()
}

/// A head, and under it words that are not broken.
fn listed(
    head: &str,
    items: impl IntoIterator<Item = String>,
    style: Style,
    width: u16,
) -> Vec<Line<'static>> {
    let flown = words::flow(items, ", ", width - 2);
    let mut lines = vec![Line::raw(head.to_owned())];
    let item = |text| Line::styled(format!("  {text}"), style);
    lines.extend(flown.into_iter().map(item));
    lines
}

fn short(events: PollFlags) -> String {
    let names = events.iter_names().map(|(name, _)| name.to_lowercase());
    let names: Vec<String> =
        names.map(|name| name.trim_start_matches("poll").to_owned()).collect();
    names.join("|")
}

/// What a call that is about one descriptor, or about none, was given.
fn in_words(pane: &Pane, asked: &InWait) -> String {
    match asked {
        InWait::Recv { fd, length } => format!(
            "recv({}), room for {}: it hears of nobody else.",
            pane.descriptor(*fd),
            words::bytes(*length)
        ),
        InWait::Send { fd, length } => format!(
            "send({}), {} to send: it hears of nobody else.",
            pane.descriptor(*fd),
            words::bytes(*length)
        ),
        InWait::Accept { fd } => {
            format!("accept4({}): new clients only.", pane.descriptor(*fd))
        }
        InWait::Epoll { epfd, maxevents, timeout } => {
            let timeout = match timeout {
                -1 => "no time limit".to_owned(),
                ms => format!("at most {ms} ms"),
            };
            format!(
                "epoll_wait({epfd}), room for {maxevents} events, {timeout}: \
                 the list above is the kernel's, and nothing of it goes in."
            )
        }
        InWait::Other { name } if name == "io_uring_enter" => {
            let each = pane.seen.under_way().iter().map(|it| {
                let whom = pane.who(it.peer.as_ref());
                format!("{} {whom}", it.operation)
            });
            let each: Vec<String> = each.collect();
            format!(
                "io_uring_enter: it hears of nobody who is ready. {} \
                 operations are under way: {}.",
                each.len(),
                each.join(", ")
            )
        }
        InWait::Other { name } => {
            format!("{name}: about no descriptor in particular.")
        }
        InWait::Select { .. } | InWait::Poll { .. } => String::new(),
    }
}

/// The interest lists of its epoll instances, as the kernel shows them.
fn interest_lists(pane: &Pane, width: u16) -> Vec<Line<'static>> {
    let open = pane.kernel.processes.iter().flat_map(|it| &it.open);
    let lists = open.filter_map(|it| match &it.what {
        What::Epoll(list) => Some((it.fd, list)),
        _ => None,
    });
    let style = theme::style(Phase::Asking);
    let lines = lists.flat_map(|(fd, list)| {
        let head =
            format!("interest list of epoll {fd}, {} entries:", list.len());
        let item = |it: &Interest| {
            let names = it.names().join("|").replace("EPOLL", "");
            format!("{} {names}", pane.descriptor(it.fd))
        };
        listed(&head, list.iter().map(item), style, width)
    });
    lines.collect()
}

/// For whom the kernel sends signals.
fn signals(pane: &Pane, width: u16) -> Vec<Line<'static>> {
    let open = pane.kernel.processes.iter().flat_map(|it| &it.open);
    let fds = open.filter(|it| it.signals).map(|it| pane.descriptor(it.fd));
    let fds: Vec<String> = fds.collect();
    if fds.is_empty() {
        return Vec::new();
    }
    let head = "the kernel sends signals for (O_ASYNC):";
    listed(head, fds, theme::style(Phase::Asking), width)
}

/// select's sets: as they went in, and as the last answer left them.
fn bits(
    nfds: i32,
    read: &[i32],
    write: &[i32],
    out: Option<&Wait>,
    width: u16,
) -> Vec<Line<'static>> {
    let ready: Vec<i32> =
        out.map_or(Vec::new(), |out| out.ready.iter().map(|it| it.0).collect());
    let head = format!("select, the numbers 0 to {}:", nfds - 1);
    let mut lines = vec![Line::raw(head)];
    let room = usize::from(width).saturating_sub(LABEL + 1).max(10) / 10 * 10;
    let numbers: Vec<i32> = (0..nfds).collect();
    for span in numbers.chunks(room) {
        let ruler: String = span
            .iter()
            .map(|n| match n % 10 {
                0 => char::from(b'0' + (n / 10 % 10) as u8),
                _ => '.',
            })
            .collect();
        lines.push(row("number", &ruler, theme::faint()));
        let sets = [
            ("read", read, theme::style(Phase::Waiting)),
            ("write", write, theme::style(Phase::Waiting)),
            ("ready", &ready, theme::style(Phase::Copying)),
        ];
        for (label, set, style) in sets {
            let bit = |n: &i32| if set.contains(n) { '1' } else { '·' };
            let bits: String = span.iter().map(bit).collect();
            lines.push(row(label, &bits, style));
        }
    }
    lines
}

fn row(label: &str, bits: &str, style: Style) -> Line<'static> {
    let label = Span::styled(format!("{label:<LABEL$} "), theme::faint());
    Line::from(vec![label, Span::styled(bits.to_owned(), style)])
}

fn came_out(pane: &Pane, out: &Wait, width: u16) -> Vec<Line<'static>> {
    let of = match out.asked {
        0 => String::new(),
        asked => format!(" of {asked}"),
    };
    let head = format!(
        "out of the last {}: {}{of} ready, {} looked through",
        out.call, out.ready_count, out.scanned
    );
    let ready = out.ready.iter().map(|(fd, peer)| {
        format!("{fd} {}", pane.who(peer.as_ref())).trim_end().to_owned()
    });
    let heads = words::wrap(&head, width);
    let mut lines: Vec<Line<'static>> =
        heads.into_iter().map(Line::raw).collect();
    let style = theme::style(Phase::Copying);
    lines.extend(listed("", ready, style, width).drain(1..));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &Line) -> String {
        line.spans.iter().map(|span| &*span.content).collect()
    }

    #[test]
    fn select_is_drawn_as_bits() {
        let out = Wait {
            call: "select".into(),
            asked: 3,
            ready: vec![(10, None)],
            ready_count: 1,
            scanned: 11,
            returned: 0,
        };
        let lines = bits(12, &[4, 6, 10], &[9], Some(&out), 40);
        let lines: Vec<String> = lines.iter().map(text).collect();
        assert_eq!(
            lines,
            [
                "select, the numbers 0 to 11:",
                "number   0.........1.",
                "read     ····1·1···1·",
                "write    ·········1··",
                "ready    ··········1·",
            ]
        );
        let lines = bits(25, &[4], &[], None, 25);
        assert_eq!(lines.len(), 1 + 3 * 4);
        assert!(lines.iter().all(|line| line.width() <= 28));
    }

    #[test]
    fn events_of_poll_are_short() {
        let events = PollFlags::POLLIN | PollFlags::POLLOUT;
        assert_eq!(short(events), "in|out");
    }
}

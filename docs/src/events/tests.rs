use super::*;

fn row<'a>(rows: &'a [Row], what: &str) -> &'a Row {
    let found = rows.iter().find(|row| row.what.starts_with(what));
    found.unwrap_or_else(|| panic!("no row '{what}'"))
}

#[test]
fn every_run_gives_the_same() {
    let first = table().expect("a table");
    for _ in 0..5 {
        assert_eq!(table().expect("a table"), first);
    }
}

#[test]
fn a_fin_is_no_hangup_until_both_have_sent_one() {
    let rows = rows().expect("rows");
    let fin = row(&rows, "the peer has sent FIN");
    assert_eq!(fin.epoll, Ok(EPOLLIN | EPOLLOUT | EPOLLRDHUP));
    assert_eq!((fin.select, &*fin.says), ([true, true, false], "0"));
    assert_eq!(row(&rows, "we have sent FIN, the").epoll, Ok(EPOLLOUT));
    let both = row(&rows, "we have sent FIN, and");
    let all = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP;
    assert_eq!(both.epoll, Ok(all));
}

#[test]
fn a_reset_is_an_error_and_a_hangup() {
    let rows = rows().expect("rows");
    for what in ["the peer has reset", "the peer has closed with our"] {
        let reset = row(&rows, what);
        let both = EPOLLHUP | EPOLLERR;
        assert_eq!(reset.epoll.map(|it| it & both), Ok(both), "{what}");
        assert!(reset.says.starts_with("ECONNRESET"), "{}", reset.says);
    }
}

#[test]
fn a_listener_is_readable_while_a_client_waits() {
    let rows = rows().expect("rows");
    let nobody = row(&rows, "a listener, nobody");
    assert_eq!((nobody.epoll, nobody.select), (Ok(0), [false; 3]));
    let somebody = row(&rows, "a listener, a client");
    assert_eq!(somebody.epoll, Ok(EPOLLIN));
    assert_eq!(somebody.signals, ["POLL_IN"]);
}

#[test]
fn a_full_buffer_is_told_of_once_it_has_room() {
    let rows = rows().expect("rows");
    let full = row(&rows, "the send buffer is full");
    assert_eq!((full.epoll, full.signals.len()), (Ok(0), 0));
    let room = row(&rows, "the send buffer was full");
    assert_eq!(room.epoll, Ok(EPOLLOUT));
    assert_eq!(room.signals, ["POLL_OUT"]);
}

#[test]
fn epoll_takes_no_file() {
    let rows = rows().expect("rows");
    let file = row(&rows, "a regular file");
    assert_eq!(file.epoll, Err(Errno::EPERM));
    assert_eq!(file.poll, EPOLLIN | EPOLLOUT);
}

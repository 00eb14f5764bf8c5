//! A stop while glibc's threads are at work.

use std::io::{Read, Write};
use std::thread;

use crate::server::{start, talk};

/// In a thread that it starts for a notice glibc unblocks all signals, and by
/// default the signal of a stop would end the process there. While clients
/// talk, there is hardly a moment without such a thread.
#[test]
fn a_stop_is_not_lost_or_deadly_in_a_thread_for_a_notice() {
    for _ in 0..10 {
        let server = start(None, &["--notify", "thread"]);
        let clients: Vec<_> = (0..30).map(|_| server.client()).collect();
        let mut first = server.client();
        thread::scope(|scope| {
            for (id, client) in clients.into_iter().enumerate() {
                scope.spawn(move || talk(client, id, 100_000, 100));
            }
            first.write_all(b"?").expect("it accepts");
            first.read_exact(&mut [0; 1]).expect("an echo");
            drop(first);
            server.stop();
        });
    }
}

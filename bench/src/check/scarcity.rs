//! Too few descriptors, failing system calls, and what is left of memory and
//! of CPU time when the work is done.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::crowd::{everyone_is_served, no_room_for, one_of_many};
use super::saboteur::Saboteur;
use super::stop::outlived;
use super::{Case, Context, Outcome};
use crate::harness::{Client, CoreShare, PATIENCE, Start, Target};

pub(super) static CASES: &[Case] = &[
    Case {
        name: "out_of_descriptors",
        means: "with 64 descriptors and 200 clients the server neither exits \
                nor spins: it serves those it has, and the others as soon as \
                some have left",
        alone: false,
        run: out_of_descriptors,
    },
    Case {
        name: "injected_eintr",
        means: "every other read, write, wait and accept is interrupted \
                (EINTR): no byte is lost and no client",
        alone: false,
        run: injected_eintr,
    },
    Case {
        name: "injected_accept_errors",
        means: "every other accept fails with an error that concerns one \
                client or passes by itself: the server lives on and serves \
                everyone",
        alone: false,
        run: injected_accept_errors,
    },
    Case {
        name: "injected_epoll_ctl_enomem",
        means: "every other epoll_ctl fails for lack of memory: that client is \
                closed, and the server lives on",
        alone: false,
        run: injected_epoll_ctl_enomem,
    },
    Case {
        name: "memory_after_many",
        means: "thousands of clients later the server holds no more memory \
                than after the first few hundred",
        alone: true,
        run: memory_after_many,
    },
    Case {
        name: "idle_cpu",
        means: "a server whose clients say nothing sleeps; one that polls \
                without sleeping is shown to burn its core",
        alone: false,
        run: idle_cpu,
    },
];

fn out_of_descriptors(context: &Context) -> Result<Outcome> {
    const CLIENTS: usize = 200;
    if let Some(skipped) = no_room_for(CLIENTS)? {
        return Ok(skipped);
    }
    let start = Start { descriptors: Some(64), ..Start::default() };
    let mut server = context.start_with(&start)?;
    // Those who are served at once, with room for the server's own.
    let group = context.at_once(40);
    let mut clients = server.clients(CLIENTS)?;
    for client in &mut clients {
        client.send(64)?;
    }
    for client in &mut clients[..group] {
        client.receive(64)?;
    }
    let span = context.size(Duration::from_millis(400), Duration::from_secs(2));
    let allowed = allowed_idle_share(context);
    // Beside others one that spins may get less than it wants.
    let spins = |it: &CoreShare| {
        it.used > allowed || (allowed < 0.5 && it.wanted > 0.5)
    };
    let mut looked = server.core_share(span);
    if spins(&looked) {
        // What led here may still be under way.
        looked = server.core_share(span * 2);
    }
    server.must_live()?;
    let share = looked.used;
    ensure!(
        !spins(&looked),
        "with no descriptor left it uses {:.0} % of a core and wants {:.0} %; \
         {:.0} % are allowed",
        share * 100.0,
        looked.wanted * 100.0,
        allowed * 100.0
    );
    let lines = server.stderr().lines().count();
    ensure!(lines <= 50, "it wrote {lines} lines about it");
    for client in &mut clients[..group] {
        client.round_trip(64)?;
    }

    let begin = Instant::now();
    let mut served = group;
    let mut clients = clients.into_iter().peekable();
    while clients.peek().is_some() {
        let mut leaving: Vec<Client> = clients.by_ref().take(group).collect();
        for client in &mut leaving {
            let missing = usize::try_from(client.sent - client.received)?;
            client.receive(missing).with_context(|| {
                format!("{served} clients were served, and have left")
            })?;
        }
        served += leaving.len();
        for client in leaving {
            client.finish()?;
        }
    }
    let took = begin.elapsed();
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{group} clients served, the other {} within {took:.1?} as room \
         came; {:.1} % of a core while there was none",
        CLIENTS - group,
        share * 100.0
    )))
}

/// Which share of a core a server may use that has nothing to do.
fn allowed_idle_share(context: &Context) -> f64 {
    if context.limits.burns_core {
        // Any number of threads of it, by its nature.
        f64::INFINITY
    } else if context.limits.idle_wakes {
        0.6
    } else {
        0.2
    }
}

/// Any of the calls that a server may read, write, wait and accept with; the
/// mark lets strace pass over those that a machine does not have.
const WAITS_AND_COPIES: &str = "?read,?recvfrom,?recvmsg,?readv,?write,?sendto,\
    ?sendmsg,?writev,?io_uring_enter,?epoll_wait,?epoll_pwait,?epoll_pwait2,?poll,?ppoll,\
    ?select,?pselect6,?accept,?accept4";

/// Those of them that bring bytes in, and those that send them.
const RECEIVES: &[&str] =
    &["read", "recvfrom", "recvmsg", "readv", "io_uring_enter"];
const SENDS: &[&str] =
    &["write", "sendto", "sendmsg", "writev", "io_uring_enter"];

fn injected_eintr(context: &Context) -> Result<Outcome> {
    let mut server = context.start()?;
    server.client(0)?.finish()?;
    let saboteur =
        match Saboteur::every_other(&server, WAITS_AND_COPIES, "EINTR", 200)? {
            Ok(saboteur) => saboteur,
            Err(outcome) => return Ok(outcome),
        };
    let served = everyone_is_served(context, server.clients(4)?, 20_000);
    let copies = [RECEIVES, SENDS].map(|names| saboteur.struck_of(names));
    let failed = saboteur.end()?;
    outlived(&mut server, served)
        .with_context(|| format!("{failed} calls were interrupted"))?;
    let [received, sent] = copies;
    let (received, sent) = (received?, sent?);
    ensure!(
        failed > 0
            && (received.min(sent) > 0
                || matches!(context.target, Target::Command(_))),
        "strace interrupted {failed} calls, {received} of them to receive and \
         {sent} to send"
    );
    server.client(5)?.finish()?;
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "4 clients got their bytes while {failed} calls were interrupted, \
         {received} of them to receive and {sent} to send"
    )))
}

fn injected_accept_errors(context: &Context) -> Result<Outcome> {
    if context.limits.no_calls {
        let why = "no call of it accepts: a ring's operations cannot be made \
                   to fail from outside";
        return Ok(Outcome::Excluded(why.to_string()));
    }
    // After the last four a server rests, so that they take their time.
    let few = context.size(6, 40);
    let errors = [
        ("ECONNABORTED", 200),
        ("EPROTO", 200),
        ("EMFILE", few),
        ("ENFILE", few),
        ("ENOBUFS", few),
        ("ENOMEM", few),
    ];
    let mut all = 0;
    let mut server = context.start()?;
    // Who is served is served by processes that are there to be attached to.
    server.client(0)?.finish()?;
    for (error, last) in errors {
        let calls = "?accept,?accept4";
        let saboteur = match Saboteur::every_other(&server, calls, error, last)?
        {
            Ok(saboteur) => saboteur,
            Err(outcome) => return Ok(outcome),
        };
        let count = context.size(2, 10);
        let served = (0..count).try_for_each(|id| {
            let mut client = server.client(id)?;
            client.round_trip(64)?;
            client.finish()
        });
        let failed = saboteur.end()?;
        outlived(&mut server, served)
            .with_context(|| format!("{failed} accepts failed with {error}"))?;
        ensure!(failed > 0, "strace let no accept fail with {error}");
        all += failed;
    }
    server.client(0)?.finish()?;
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "everyone was served although {all} accepts failed, in {} ways",
        errors.len()
    )))
}

fn injected_epoll_ctl_enomem(context: &Context) -> Result<Outcome> {
    let mut server = context.start()?;
    server.client(0)?.finish()?;
    let saboteur =
        match Saboteur::every_other(&server, "?epoll_ctl", "ENOMEM", 200)? {
            Ok(saboteur) => saboteur,
            Err(outcome) => return Ok(outcome),
        };
    let mut served = 0;
    let clients = (0..12).try_for_each(|id| {
        let mut client = server.client(id)?;
        // It may have been closed already.
        let _ = client.write_some(64);
        match client.socket.peek(&mut [0]) {
            Ok(1) => {
                client.receive(64)?;
                served += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bail!("client {id} was neither served nor closed");
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    });
    let failed = saboteur.end()?;
    let said = || format!("{failed} epoll_ctl calls failed with ENOMEM");
    outlived(&mut server, clients).with_context(said)?;
    if failed == 0 {
        let epoll = match &context.target {
            Target::Model(model) => model.sleeps_in.contains("epoll"),
            Target::Broken(_) => true,
            Target::Command(_) => false,
        };
        ensure!(!epoll, "strace let no epoll_ctl fail");
        let why = "it never calls epoll_ctl";
        return Ok(Outcome::Excluded(why.to_string()));
    }
    ensure!(served > 0, "none of 12 clients was served; {}", said());
    server.client(0)?.finish()?;
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{served} of 12 clients were served and the rest closed while {failed} \
         epoll_ctl calls failed"
    )))
}

fn memory_after_many(context: &Context) -> Result<Outcome> {
    let count = context.size(1_000, 20_000);
    let allowed = context.size(256 << 10, 1 << 20);
    let server = context.start()?;
    let wave = |from: usize, to: usize| -> Result<()> {
        for begin in (from..to).step_by(50) {
            let clients: Result<Vec<Client>> = (begin..begin + 50)
                .map(|id| one_of_many(&server, id))
                .collect();
            everyone_is_served(context, clients?, 64)?;
        }
        Ok(())
    };
    // Tables and the allocator's lists grow to their size with these.
    wave(0, 300)?;
    let before = server.settles("the first to be gone", PATIENCE, |seen| {
        seen.close_wait == 0
    })?;
    let begin = Instant::now();
    wave(300, 300 + count)?;
    let took = begin.elapsed();
    let after = server.returns_to(&before)?;
    let grown = after.memory.saturating_sub(before.memory);
    ensure!(
        grown <= allowed,
        "{count} clients later it holds {} KiB more, {} bytes for each \
         client that has gone",
        grown >> 10,
        grown / count as u64
    );
    server.stop()?;
    Ok(Outcome::Passed(format!(
        "{} KiB after 300 clients, {} KiB after {count} more ({took:.1?})",
        before.memory >> 10,
        after.memory >> 10
    )))
}

fn idle_cpu(context: &Context) -> Result<Outcome> {
    let span = context.size(Duration::from_millis(300), Duration::from_secs(3));
    let server = context.start()?;
    let mut clients = server.clients(context.at_once(10))?;
    for client in &mut clients {
        client.round_trip(64)?;
    }
    // A thread of the kernel's that polls for submissions goes on for some
    // milliseconds after the last one: io_uring_setup(2), sq_thread_idle.
    std::thread::sleep(Duration::from_millis(30));
    let CoreShare { used: share, wanted } = server.core_share(span);
    let percent = share * 100.0;
    let count = clients.len();
    let seen = format!("{percent:.2} % of a core beside {count} idle clients");
    if context.limits.burns_core {
        // Others may want the core as well, and then it waits for it.
        ensure!(
            wanted >= 0.5,
            "{seen}, though its row says that it burns one: is the row wrong?"
        );
    } else if context.limits.idle_wakes {
        ensure!(share > 0.0, "{seen}, though its row says that it wakes up");
        ensure!(share <= 0.6, "{seen}: its pause does not rest");
    } else {
        // One that spins may get nothing beside others.
        let sleeps = share <= 0.02 && wanted <= 0.5;
        ensure!(sleeps, "{seen}: it should sleep");
    }
    for client in &mut clients {
        client.round_trip(64)?;
    }
    drop(clients);
    server.stop()?;
    Ok(Outcome::Passed(seen))
}

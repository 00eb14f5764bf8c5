//! A handler does what takes long by itself.
//!
//! Symptom: one client's request takes long, and another one's answer, which
//! is there for the taking, comes only after it.
//!
//! Cause: a reactor has one thread, and while it is in a handler it waits for
//! nobody. Non-blocking sockets do not help: it is not asleep in a call on a
//! socket, but in the work.
//!
//! Fix: a thread of a pool does the work, and what it has done comes back
//! through a queue whose eventfd(2) is one more descriptor of the wait. The
//! form `pool` of reactor does so (reactor/src/forms/pool.rs).
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::eventfd::{EfdFlags, EventFd};
use pitfall::{Shown, pitfall, say};

/// The longest that the slow work waits for the other answer to be out.
const PATIENCE: Duration = Duration::from_secs(1);
/// Whom an event is for, beside clients.
const BELL: u64 = 2;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    talk(|work, _, _| {
        work.run();
        true
    })
}

fn mended() -> Result<Shown> {
    talk(|work, client, inbox| {
        let (work, inbox) = (work.clone(), inbox.clone());
        thread::spawn(move || {
            work.run();
            inbox.put(client);
        });
        false
    })
}

/// What a handler does with a request that takes long; returns whether the
/// answer is there.
type OnSlow = fn(&Work, client: u64, &Inbox) -> bool;

/// It is done when the quick client is answered, or it loses its patience.
#[derive(Clone)]
struct Work {
    begun: Sender<()>,
    enough: Arc<Mutex<Receiver<()>>>,
}

impl Work {
    fn run(&self) {
        self.begun.send(()).ok();
        if let Ok(enough) = self.enough.lock() {
            enough.recv_timeout(PATIENCE).ok();
        }
    }
}

/// Whose work is done.
#[derive(Clone)]
struct Inbox {
    done: Arc<Mutex<Vec<u64>>>,
    bell: Arc<EventFd>,
}

impl Inbox {
    fn put(&self, client: u64) {
        if let Ok(mut done) = self.done.lock() {
            done.push(client);
        }
        self.bell.write(1).ok();
    }

    fn take(&self) -> Vec<u64> {
        self.bell.read().ok();
        self.done
            .lock()
            .map(|mut it| it.drain(..).collect())
            .unwrap_or_default()
    }
}

fn talk(on_slow: OnSlow) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connect = || {
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok::<_, anyhow::Error>((client, listener.accept()?.0))
    };
    let ((mut slow, a), (mut quick, b)) = (connect()?, connect()?);
    let ((begun, has_begun), (tell, enough)) = (channel(), channel());
    let work = Work { begun, enough: Arc::new(Mutex::new(enough)) };
    let server = thread::spawn(move || serve([a, b], work, on_slow));

    slow.write_all(b"slow\n")?;
    has_begun.recv()?;
    say!("slow: asks for something that takes long; the server has begun");
    quick.write_all(b"quick\n")?;
    say!("quick: asks for something that is there");
    let mut fds =
        [&slow, &quick].map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN));
    poll(&mut fds, PollTimeout::NONE)?;
    let quick_first = fds[0].any() != Some(true);
    tell.send(()).ok();
    let mut answer = [0; 6];
    quick.read_exact(&mut answer)?;
    ensure!(&answer == b"quick\n", "quick's answer is wrong");
    slow.read_exact(&mut answer[..5])?;
    ensure!(&answer[..5] == b"slow\n", "slow's answer is wrong");
    match quick_first {
        true => say!("the first answer is quick's"),
        false => say!("the first answer is slow's; quick had to wait for it"),
    }
    drop((slow, quick));
    let Ok(served) = server.join() else { bail!("the server panicked") };
    served?;
    Ok(Shown::symptom_if(!quick_first))
}

/// The reactor, until both clients have left.
fn serve(mut clients: [TcpStream; 2], work: Work, slow: OnSlow) -> Result<()> {
    let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let read = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
    for (token, client) in clients.iter().enumerate() {
        list.add(client, read(token as u64))?;
    }
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let bell = Arc::new(EventFd::from_flags(flags)?);
    list.add(&bell, read(BELL))?;
    let inbox = Inbox { done: Arc::default(), bell };
    let mut left = clients.len();
    let mut events = [EpollEvent::empty(); 3];
    while left > 0 {
        let n = list.wait(&mut events, EpollTimeout::NONE)?;
        for token in events[..n].iter().map(EpollEvent::data) {
            if token == BELL {
                for done in inbox.take() {
                    clients[done as usize].write_all(b"slow\n")?;
                }
                continue;
            }
            let client = &mut clients[token as usize];
            let mut bytes = [0; 16];
            match client.read(&mut bytes)? {
                0 => {
                    list.delete(&*client)?;
                    left -= 1;
                }
                n if bytes[..n] == *b"slow\n" => {
                    if slow(&work, token, &inbox) {
                        client.write_all(b"slow\n")?;
                    }
                }
                n => client.write_all(&bytes[..n])?,
            }
        }
    }
    Ok(())
}

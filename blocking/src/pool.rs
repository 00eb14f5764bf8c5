//! A pool of threads: N of them take accepted clients from one locked queue.
//! N clients are served at a time; the next waits until one of them has gone.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result};
use echo::{Listener, Scratch, Stop, StopFlag, Watch, accept4};
use nix::errno::Errno;
use nix::sys::socket::SockFlag;

use crate::{Connection, rest};

pub struct EventLoop<W> {
    listener: Listener,
    stop: StopFlag,
    queue: Arc<Queue>,
    watch: W,
}

/// Clients that have been accepted, and threads that wait for one.
#[derive(Default)]
struct Queue {
    clients: Mutex<Clients>,
    changed: Condvar,
}

#[derive(Default)]
struct Clients {
    waiting: VecDeque<OwnedFd>,
    served: usize,
    closed: bool,
}

impl<W: Watch> EventLoop<W> {
    pub fn new(listener: Listener, stop: StopFlag, watch: W) -> Self {
        EventLoop { listener, stop, queue: Arc::default(), watch }
    }

    pub fn run(mut self, threads: usize) -> Result<()> {
        let pool: Vec<JoinHandle<()>> = (1..=threads)
            .map(|n| {
                let Self { stop, watch, .. } = self;
                let queue = Arc::clone(&self.queue);
                let scratch = Scratch::new(self.listener.buffer());
                Builder::new()
                    .spawn(move || serve_clients(&queue, scratch, stop, watch))
                    .with_context(|| format!("cannot start thread {n}"))
            })
            .collect::<Result<_>>()?;
        while !self.stop.asked() {
            self.on_acceptable()?;
        }
        self.on_stop(pool);
        Ok(())
    }

    /// Takes one client and puts it into the queue.
    fn on_acceptable(&mut self) -> Result<()> {
        let queue = Arc::clone(&self.queue);
        let connections = || queue.connections();
        rest(&mut self.listener, self.stop, connections);
        let listener = self.listener.as_fd();
        let take = || accept4(listener, SockFlag::empty());
        match self.watch.take("accept4", listener, take) {
            Ok(socket) => self.on_accepted(socket),
            // A stop has shut the listener down.
            Err(Errno::EINVAL) if self.stop.asked() => {}
            Err(err) => self.listener.on_error(err, connections())?,
        }
        Ok(())
    }

    fn on_accepted(&mut self, socket: OwnedFd) {
        self.queue.lock().waiting.push_back(socket);
        self.queue.changed.notify_one();
    }

    /// Threads that sleep in a call are woken. Each takes leave of its client,
    /// and of those in the queue while there is time.
    fn on_stop(&mut self, pool: Vec<JoinHandle<()>>) {
        self.listener.close();
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
        self.stop.interrupt_all();
        for thread in pool {
            thread.join().ok();
        }
    }
}

/// What each thread of the pool does: sleeps until there is a client in the
/// queue, and serves it to its end.
fn serve_clients<W: Watch>(
    queue: &Queue,
    mut scratch: Scratch,
    stop: StopFlag,
    watch: W,
) {
    let next = || Ok(queue.take());
    while !stop.overdue()
        && let Ok(Some(socket)) = watch.wait("Condvar::wait", 0, next)
    {
        Connection::new(socket, &mut scratch, stop, watch).run();
        queue.lock().served -= 1;
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().expect("no thread panics with the queue")
    }

    fn connections(&self) -> usize {
        let clients = self.lock();
        clients.waiting.len() + clients.served
    }

    /// The next client; `None` when there will be no more.
    fn take(&self) -> Option<OwnedFd> {
        let idle = |clients: &mut Clients| {
            clients.waiting.is_empty() && !clients.closed
        };
        let waited = self.changed.wait_while(self.lock(), idle);
        let mut clients = waited.expect("no thread panics with the queue");
        let socket = clients.waiting.pop_front()?;
        clients.served += 1;
        Some(socket)
    }
}

//! One reactor, and workers for what takes long: they are given a message and
//! give it back, and never touch a socket. So answers keep their order.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result};
use echo::{Listener, Pending, Scratch, StopFd, Watch};

use super::single::begin;
use crate::acceptor::Acceptor;
use crate::business::Slow;
use crate::echo_handler::{Echo, Rules};
use crate::flags::Flags;
use crate::reactor::{Id, Reactor};
use crate::signals::Stopper;
use crate::waker::{Sender, channel};

/// Messages that may be with the workers before one more costs an allocation.
const AT_ONCE: usize = 64;

/// A message on its way to a worker and back.
pub struct Job {
    pub whose: Id,
    pub pending: Pending,
}

/// Where workers get their messages from.
pub struct Jobs<W> {
    queue: Arc<Queue>,
    watch: W,
}

struct Queue {
    jobs: Mutex<Waiting>,
    changed: Condvar,
}

struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

pub fn serve<W: Watch>(
    listener: Listener,
    stop: StopFd,
    flags: &Flags,
    watch: W,
) -> Result<()> {
    let scratch = Scratch::of(listener.buffer(), AT_ONCE);
    let demultiplexer = flags.demultiplexer(watch)?;
    let mut reactor = Reactor::with_scratch(demultiplexer, scratch);
    let jobs = VecDeque::with_capacity(AT_ONCE);
    let jobs = Mutex::new(Waiting { jobs, closed: false });
    let queue = Arc::new(Queue { jobs, changed: Condvar::new() });
    let jobs = Jobs { queue, watch };
    // One wake-up of the reactor may bring many answers.
    let back = |job: Job, reactor: &mut Reactor<Echo<W>>| {
        let Job { whose, pending } = job;
        reactor
            .visit(whose, |client, reactor| client.answered(pending, reactor));
    };
    let (answers, receiver) = channel(watch)?;
    reactor.attach(receiver.inbox(back))?;
    let crew = Crew::start(flags.workers(), &jobs, &answers, flags.slow())?;
    let rules: Rc<Rules<W>> = Rc::new(flags.rules(Some(jobs), None));
    let accepted = move |socket: OwnedFd, reactor: &mut _| {
        begin(socket, reactor, &rules, watch);
    };
    reactor.attach(Acceptor::new(listener, accepted, watch)?)?;
    reactor.attach(Stopper(stop))?;
    let result = reactor.run();
    drop(reactor);
    drop(crew);
    result
}

impl<W: Watch> Jobs<W> {
    /// Wakes one worker, if one sleeps.
    pub fn put(&self, job: Job) {
        self.queue.lock().jobs.push_back(job);
        self.queue.changed.notify_one();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.jobs.lock().expect("no thread panics with the queue")
    }

    /// The next message; `None` when there will be no more.
    fn take(&self) -> Option<Job> {
        let idle = |it: &mut Waiting| it.jobs.is_empty() && !it.closed;
        let waited = self.changed.wait_while(self.lock(), idle);
        let mut waiting = waited.expect("no thread panics with the queue");
        waiting.jobs.pop_front().filter(|_| !waiting.closed)
    }
}

/// The workers. They end with it, and with the message that they are at.
struct Crew {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    fn start<W: Watch>(
        workers: usize,
        jobs: &Jobs<W>,
        answers: &Sender<Job, W>,
        slow: Slow,
    ) -> Result<Self> {
        let queue = Arc::clone(&jobs.queue);
        let mut crew = Crew { queue, threads: Vec::new() };
        let watch = jobs.watch;
        for n in 1..=workers {
            let (queue, answers) = (Arc::clone(&crew.queue), answers.clone());
            let thread = Builder::new()
                .spawn(move || work(&queue, &answers, slow, watch))
                .with_context(|| format!("cannot start worker {n}"))?;
            crew.threads.push(thread);
        }
        Ok(crew)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// What each worker does: sleeps until there is a message, and does with it
/// what takes long.
fn work<W: Watch>(
    queue: &Queue,
    answers: &Sender<Job, W>,
    slow: Slow,
    watch: W,
) {
    let mut job = None;
    loop {
        let next = || {
            job = queue.take();
            Ok(())
        };
        watch.wait("Condvar::wait", 0, next).ok();
        let Some(mut job) = job.take() else { return };
        slow.answer(job.pending.owed_mut(), watch);
        answers.send(job);
    }
}

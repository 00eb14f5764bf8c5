//! What a runtime adds to a reactor, at its smallest: tasks, each a future that
//! is polled when its waker was called, and between the polls the reactor's
//! turn. tokio and asyncio do this too, for many threads and with more care.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use anyhow::Result;

use crate::reactor::{Handler, Reactor};

/// A computation that can be left and gone on with: its state between two
/// polls is one value in memory, where a thread has a stack.
type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks whose wakers were called, in their order.
struct Ready(Mutex<VecDeque<usize>>);

impl Default for Ready {
    /// With room for many at once, so that a busy moment allocates nothing.
    fn default() -> Self {
        Ready(Mutex::new(VecDeque::with_capacity(256)))
    }
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, VecDeque<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a waker does: its task gets a turn.
struct Ticket {
    number: usize,
    /// Called twice before its turn, it has one turn.
    called: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Ticket {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.called.swap(true, AcqRel) {
            self.ready.lock().push_back(self.number);
        }
    }
}

/// Where new tasks come from: whoever has a copy can start one.
#[derive(Clone, Default)]
pub struct Spawner(Rc<RefCell<Vec<Task>>>);

impl Spawner {
    /// Starts a task; its first poll is in the executor's next round.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().push(Box::pin(task));
    }
}

/// Polls tasks, on one thread.
#[derive(Default)]
pub struct Executor {
    /// Each with its ticket, which the next task at this place takes over.
    tasks: Vec<(Option<Task>, Arc<Ticket>)>,
    free: Vec<usize>,
    ready: Arc<Ready>,
    spawner: Spawner,
}

impl Executor {
    /// Starts tasks.
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Runs tasks, and `reactor` between them, until the reactor has stopped
    /// and every task has ended or its time of grace is over.
    pub fn run<C: Handler>(
        &mut self,
        reactor: &RefCell<Reactor<C>>,
    ) -> Result<()> {
        while !reactor.borrow().is_finished() {
            self.admit();
            // Those who call their own waker are not polled again at once.
            let called = self.ready.lock().len();
            for _ in 0..called {
                let next = self.ready.lock().pop_front();
                next.into_iter().for_each(|number| self.poll(number));
            }
            let sleep = self.ready.lock().is_empty();
            let mut reactor = reactor.borrow_mut();
            // The last task may just have ended.
            if !reactor.is_finished() {
                reactor.round(sleep)?;
            }
        }
        Ok(())
    }

    /// Whoever is new is ready: a future does nothing before its first poll.
    fn admit(&mut self) {
        for task in self.spawner.0.take() {
            let number = self.free.pop().unwrap_or_else(|| {
                let (number, ready) = (self.tasks.len(), self.ready.clone());
                let called = AtomicBool::new(false);
                let ticket = Ticket { number, called, ready };
                self.tasks.push((None, Arc::new(ticket)));
                number
            });
            let (place, ticket) = &mut self.tasks[number];
            *place = Some(task);
            ticket.wake_by_ref();
        }
    }

    fn poll(&mut self, number: usize) {
        let (task, ticket) = &mut self.tasks[number];
        ticket.called.store(false, Release);
        // A waker may outlive its task.
        let Some(future) = task else { return };
        let waker = Waker::from(Arc::clone(ticket));
        let mut context = Context::from_waker(&waker);
        if let Poll::Ready(()) = future.as_mut().poll(&mut context) {
            *task = None;
            self.free.push(number);
        }
    }
}

/// Lets the others have their turn first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

//! A worker sends its answer by itself.
//!
//! Symptom: a client asks twice, and the second answer stands in the middle
//! of the first one. All bytes are there, and none of it can be understood.
//!
//! Cause: a long answer takes several sends, since each takes only what there
//! is room for: send(2). Between two of them another worker sends for the
//! same client. Nobody orders them; with shorter answers the quicker worker
//! still overtakes the slower one.
//!
//! Fix: results go back to the reactor, through a queue; it alone writes, one
//! answer after the other, in the order of the questions. The form `pool` of
//! reactor does so (reactor/src/forms/pool.rs).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout,
};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, recv, send};
use pitfall::{Shown, pitfall, say};

const READ: EpollFlags = EpollFlags::EPOLLIN;
const WRITE: EpollFlags = EpollFlags::EPOLLOUT;
const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);
/// More than the kernel takes for a client that does not read.
const LONG: usize = 16 << 20;
const SHORT: &[u8] = b"SHORT";
/// Whom an event is for.
const CLIENT: u64 = 0;
const BELL: u64 = 1;

pitfall!(broken, mended);

fn broken() -> Result<Shown> {
    talk(|job, _| {
        let mut sent = 0;
        while sent < job.answer.len() {
            let out = PollFd::new(job.socket.as_fd(), PollFlags::POLLOUT);
            poll(&mut [out], PollTimeout::NONE)?;
            let fd = job.socket.as_raw_fd();
            sent += send(fd, &job.answer[sent..], FLAGS)?;
            job.others_too(sent);
        }
        Ok(())
    })
}

fn mended() -> Result<Shown> {
    talk(|job, results| {
        job.others_too(0);
        results.put(job.number, job.answer);
        Ok(())
    })
}

/// What a worker does with a job.
type Worker = fn(Job, &Results) -> Result<()>;

struct Job {
    number: usize,
    answer: Vec<u8>,
    socket: Arc<TcpStream>,
    tell: Sender<usize>,
    go_on: Arc<Mutex<Receiver<()>>>,
}

impl Job {
    /// A thread may lose its core at any point. Here the first one does, once.
    fn others_too(&self, sent: usize) {
        self.tell.send(sent).ok();
        if self.number == 0
            && let Ok(go_on) = self.go_on.lock()
        {
            go_on.recv().ok();
        }
    }
}

/// What the workers have done, each by the number of its question.
struct Results {
    queue: Mutex<Vec<(usize, Vec<u8>)>>,
    bell: EventFd,
}

impl Results {
    fn put(&self, number: usize, answer: Vec<u8>) {
        if let Ok(mut queue) = self.queue.lock() {
            queue.push((number, answer));
        }
        self.bell.write(1).ok();
    }
}

fn talk(worker: Worker) -> Result<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let socket = Arc::new(listener.accept()?.0);
    let ((tell, told), (go_on, may)) = (channel(), channel());
    let may = Arc::new(Mutex::new(may));
    let server = thread::spawn(move || serve(socket, worker, tell, may));

    client.write_all(b"l")?;
    let sent = told.recv()?;
    ensure!(sent < LONG, "the kernel took it all");
    say!("client: asks for {LONG} bytes; of these a worker has sent {sent}");
    let mut got = vec![0; LONG + SHORT.len()];
    client.read_exact(&mut got[..sent])?;
    client.write_all(b"s")?;
    told.recv()?;
    say!("client: asks for {} bytes; another worker has them", SHORT.len());
    // From now on the first one goes on whenever it may.
    drop(go_on);
    client.read_exact(&mut got[sent..])?;
    let place = got.windows(SHORT.len()).position(|it| it == SHORT);
    let Some(place) = place else { bail!("the short answer is not there") };
    say!("client: has all; the short answer begins at byte {place}");
    drop(client);
    let Ok(served) = server.join() else { bail!("the server panicked") };
    served?;
    Ok(Shown::symptom_if(place < LONG))
}

/// The reactor, until the client has left.
fn serve(
    socket: Arc<TcpStream>,
    worker: Worker,
    tell: Sender<usize>,
    go_on: Arc<Mutex<Receiver<()>>>,
) -> Result<()> {
    let list = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    list.add(&*socket, EpollEvent::new(READ, CLIENT))?;
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let bell = EventFd::from_flags(flags)?;
    list.add(&bell, EpollEvent::new(READ, BELL))?;
    let results = Arc::new(Results { queue: Mutex::default(), bell });
    let fd = socket.as_raw_fd();
    let (mut asked, mut answered) = (0, 0);
    let (mut done, mut owed) = (BTreeMap::new(), Vec::new());
    let mut workers = Vec::new();
    let mut events = [EpollEvent::empty(); 2];
    'served: loop {
        let n = list.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..n] {
            if event.data() == BELL {
                results.bell.read().ok();
                if let Ok(mut queue) = results.queue.lock() {
                    done.extend(queue.drain(..));
                }
            } else if event.events().contains(READ) {
                let mut bytes = [0; 2];
                let n = recv(fd, &mut bytes, FLAGS)?;
                if n == 0 {
                    break 'served;
                }
                for kind in &bytes[..n] {
                    let answer = match kind {
                        b'l' => vec![b'l'; LONG],
                        _ => SHORT.to_vec(),
                    };
                    let job = Job {
                        number: asked,
                        answer,
                        socket: Arc::clone(&socket),
                        tell: tell.clone(),
                        go_on: Arc::clone(&go_on),
                    };
                    let results = Arc::clone(&results);
                    let work = move || worker(job, &results);
                    workers.push(thread::spawn(work));
                    asked += 1;
                }
            }
        }
        // Whichever was done first: answers go in the order of questions.
        while let Some(answer) = done.remove(&answered) {
            owed.extend(answer);
            answered += 1;
        }
        if !owed.is_empty() {
            match send(fd, &owed, FLAGS) {
                Ok(n) => drop(owed.drain(..n)),
                Err(Errno::EAGAIN) => {}
                Err(err) => return Err(err.into()),
            }
        }
        let wanted = if owed.is_empty() { READ } else { READ | WRITE };
        list.modify(&*socket, &mut EpollEvent::new(wanted, CLIENT))?;
    }
    for worker in workers {
        let Ok(worked) = worker.join() else { bail!("a worker panicked") };
        worked?;
    }
    Ok(())
}

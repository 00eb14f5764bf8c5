//! A client, from its first request to its end. Requests are answered one
//! after the other; the answers to those that came together leave together.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use echo::Gone;
use nix::errno::Errno;
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use reactor::{Handler, Interest, Next, Reactor, Timer};

use crate::files::{SMALL, Sending};
use crate::request::{Body, Manner, Refusal, Request, Scan};
use crate::routes::{self, Outcome};
use crate::service::{Buffer, Service};

const READ: Interest = Interest::Read;
const WRITE: Interest = Interest::Write;

/// Room for the longest answer that is not sent piece by piece.
const ANSWER: usize = SMALL as usize + 1024;

/// A long file goes out in pieces of this size, and so many in one turn.
const PIECE: u64 = 128 << 10;
const PIECES: usize = 4;

/// How long the client may take to close its side after its last answer.
const LINGER: Duration = Duration::from_secs(2);

/// One client.
pub struct Connection {
    socket: OwnedFd,
    state: State,
    /// What has come and was not looked at yet. Both buffers own memory only
    /// while something is in them.
    input: Buffer,
    scan: Scan,
    /// Answers that are to go, and the file whose head is the last of them.
    output: Buffer,
    file: Option<Sending>,
    /// The client's FIN has come.
    ended: bool,
    /// Something has changed then, after which only so much time may pass.
    since: Instant,
    timer: Option<(Timer, Instant)>,
    service: Rc<Service>,
}

enum State {
    /// Between two requests, or in the head of one.
    Head,
    /// In the body of one.
    Body(Box<Incoming>),
    /// Until its timer is due. What comes meanwhile stays in the socket.
    Sleeping(Timer, Manner),
    /// The last answer is on its way.
    Closing,
    /// It is out, and our FIN. What still comes is dropped: closing with bytes
    /// unread sends RST, which may destroy the answer at its receiver (RFC
    /// 9112, 9.6).
    Lingering,
}

/// A request whose body has not come as a whole.
struct Incoming {
    head: Vec<u8>,
    body: Body,
    content: Option<Vec<u8>>,
}

/// How far sending came.
enum Sent {
    All,
    /// There is room, and others have waited.
    Enough,
    /// There is no room.
    Blocked,
}

impl Connection {
    pub fn new(socket: OwnedFd, service: Rc<Service>) -> Self {
        Connection {
            socket,
            state: State::Head,
            input: Buffer::default(),
            scan: Scan::default(),
            output: Buffer::default(),
            file: None,
            ended: false,
            since: Instant::now(),
            timer: None,
            service,
        }
    }

    /// Copy phase: one receive a turn. Returns whether nothing is left there.
    /// There is always room: it is not called while a request waits here.
    fn receive(&mut self, reactor: &mut Reactor<Self>) -> Result<bool, Gone> {
        let is_first = self.is_between();
        self.service.buffers.lend(&mut self.input);
        let fd = self.socket.as_raw_fd();
        match recv(fd, self.input.room(), MsgFlags::empty()) {
            Ok(0) => self.ended = true,
            Ok(n) => {
                self.input.filled(n);
                if is_first {
                    self.since = reactor.now();
                }
            }
            Err(Errno::EAGAIN) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(err) => return Err(err.into()),
        }
        Ok(false)
    }

    /// Answers what has come, as far as there is room for answers, and sends
    /// them. A client that takes nothing is not read from any more.
    fn advance(
        &mut self,
        drained: bool,
        reactor: &mut Reactor<Self>,
    ) -> Result<Next, Gone> {
        self.service.buffers.lend(&mut self.output);
        let mut more = true;
        while more && self.file.is_none() && self.output.left() >= ANSWER {
            more = self.step(reactor);
        }
        let next = match self.send(reactor)? {
            Sent::Blocked => Next::Wait(WRITE),
            Sent::Enough => Next::Again(WRITE),
            Sent::All => self.sent(more, drained, reactor)?,
        };
        self.service.buffers.take_back(&mut self.input);
        self.service.buffers.take_back(&mut self.output);
        self.keep_time(reactor);
        Ok(next)
    }

    /// The next thing that can be done with what has come. Returns whether
    /// there may be another.
    fn step(&mut self, reactor: &mut Reactor<Self>) -> bool {
        match self.state {
            State::Head => self.on_head(reactor),
            State::Body(_) => self.on_body(reactor),
            _ => false,
        }
    }

    fn on_head(&mut self, reactor: &mut Reactor<Self>) -> bool {
        // RFC 9112, 2.2: some clients send an empty line after a body.
        while self.input.bytes().starts_with(b"\r\n") {
            self.input.taken(2);
            self.scan = Scan::default();
        }
        if self.input.is_empty() {
            return false;
        }
        let max = self.service.limits.max_head;
        let end = match self.scan.end(self.input.bytes(), max) {
            Ok(Some(end)) => end,
            Ok(None) if self.ended => return self.refuse(CUT_OFF),
            Ok(None) => return false,
            Err(refusal) => return self.refuse(refusal),
        };
        self.scan = Scan::default();
        let head = &self.input.bytes()[..end];
        let request = match Request::parse(head) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(refusal),
        };
        let mut manner = request.manner;
        manner.keep &= !reactor.is_stopping();
        let service = &self.service;
        if let Err(refusal) = routes::check(&request, service) {
            // Its body may or may not come, so that nothing after it can be
            // understood.
            manner.keep &= request.body.is_none();
            self.input.taken(end);
            return self.answered(Err(refusal), manner, reactor);
        }
        if let Some(framing) = request.body {
            let content = routes::wants_body(&request).then(Vec::new);
            if request.expects && self.input.bytes().len() == end {
                self.output.push(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            let (head, body) = (head.to_vec(), Body::new(framing));
            self.state =
                State::Body(Box::new(Incoming { head, body, content }));
            self.input.taken(end);
            return true;
        }
        let out = &mut self.output;
        let outcome =
            routes::answer(&request, &[], manner, service, reactor, out);
        self.input.taken(end);
        self.answered(outcome, manner, reactor)
    }

    fn on_body(&mut self, reactor: &mut Reactor<Self>) -> bool {
        let State::Body(incoming) = &mut self.state else { return false };
        let Incoming { head, body, content } = &mut **incoming;
        let keep = |bytes: &[u8]| {
            if let Some(content) = content {
                content.extend_from_slice(bytes);
            }
        };
        let max = self.service.limits.max_body;
        let progress = match body.take(self.input.bytes(), max, keep) {
            Ok(progress) => progress,
            Err(refusal) => return self.refuse(refusal),
        };
        self.input.taken(progress.taken);
        if !progress.is_over {
            return self.ended && self.refuse(CUT_OFF);
        }
        // It was understood before.
        let Ok(request) = Request::parse(head) else { return false };
        let mut manner = request.manner;
        manner.keep &= !reactor.is_stopping();
        let (content, out) = (content.take(), &mut self.output);
        let content = content.unwrap_or_default();
        let service = &self.service;
        let outcome =
            routes::answer(&request, &content, manner, service, reactor, out);
        self.answered(outcome, manner, reactor)
    }

    /// An answer has been begun. What comes after it.
    fn answered(
        &mut self,
        outcome: Result<Outcome, Refusal>,
        manner: Manner,
        reactor: &mut Reactor<Self>,
    ) -> bool {
        self.since = reactor.now();
        self.state = match manner.keep {
            true => State::Head,
            false => State::Closing,
        };
        match outcome {
            Ok(Outcome::Done) => {}
            Ok(Outcome::File(file)) => self.file = Some(file),
            Ok(Outcome::Sleep(time)) => {
                let timer = reactor.after(reactor.current(), time);
                if let Some(timer) = timer {
                    self.state = State::Sleeping(timer, manner);
                }
            }
            Err(refusal) => {
                refusal.write(manner, &self.service, &mut self.output);
            }
        }
        true
    }

    /// Whoever cannot be understood is told so, and left.
    fn refuse(&mut self, refusal: Refusal) -> bool {
        let manner = Manner::last(self.input.bytes().starts_with(b"HEAD "));
        refusal.write(manner, &self.service, &mut self.output);
        self.state = State::Closing;
        false
    }

    /// Copy phase: answers in one send, a long file from the page cache. Only
    /// to read from a slow disk is to sleep: no call tells when a file is
    /// ready.
    fn send(&mut self, reactor: &mut Reactor<Self>) -> Result<Sent, Gone> {
        let fd = self.socket.as_raw_fd();
        if !self.output.is_empty() {
            // The head of a file waits for its first bytes: MSG_MORE, send(2).
            let flags = MsgFlags::MSG_NOSIGNAL
                | match self.file.is_some() {
                    true => MsgFlags::from_bits_retain(libc::MSG_MORE),
                    false => MsgFlags::empty(),
                };
            match send(fd, self.output.bytes(), flags) {
                Ok(n) => self.output.taken(n),
                Err(Errno::EAGAIN) => return Ok(Sent::Blocked),
                Err(Errno::EINTR) => {}
                Err(err) => return Err(err.into()),
            }
            self.since = reactor.now();
        }
        if !self.output.is_empty() {
            return Ok(Sent::Enough);
        }
        let Some(Sending { file, at, left }) = &mut self.file else {
            return Ok(Sent::All);
        };
        for _ in 0..PIECES {
            let piece = (*left).min(PIECE) as usize;
            match sendfile(&self.socket, &*file, Some(at), piece) {
                // It has become shorter than was promised.
                Ok(0) => return Err(Gone),
                Ok(n) => *left -= n as u64,
                Err(Errno::EAGAIN) => return Ok(Sent::Blocked),
                Err(Errno::EINTR) => {}
                Err(err) => return Err(err.into()),
            }
            self.since = reactor.now();
            if *left == 0 {
                self.file = None;
                return Ok(Sent::All);
            }
        }
        Ok(Sent::Enough)
    }

    /// Nothing is owed any more. What is waited for.
    fn sent(
        &mut self,
        more: bool,
        drained: bool,
        reactor: &mut Reactor<Self>,
    ) -> Result<Next, Gone> {
        match self.state {
            State::Closing => self.finish(reactor),
            State::Sleeping(..) => Ok(Next::Wait(Interest::Nothing)),
            // The others' turn first: there is room, as the next wait tells.
            _ if more && !self.input.is_empty() => Ok(Next::Again(WRITE)),
            _ if self.ended => Err(Gone),
            State::Head if self.input.is_empty() && reactor.is_stopping() => {
                self.finish(reactor)
            }
            _ if drained => Ok(Next::Wait(READ)),
            _ => Ok(Next::Again(READ)),
        }
    }

    /// Sends our FIN, and waits for the client's.
    fn finish(&mut self, reactor: &mut Reactor<Self>) -> Result<Next, Gone> {
        if self.ended {
            return Err(Gone);
        }
        shutdown(self.socket.as_raw_fd(), Shutdown::Write)?;
        self.state = State::Lingering;
        self.since = reactor.now();
        self.input.clear();
        Ok(Next::Again(READ))
    }

    /// Whether it owes no answer, and none is asked for.
    fn is_between(&self) -> bool {
        matches!(self.state, State::Head) && self.input.is_empty()
    }

    fn is_owed(&self) -> bool {
        !self.output.is_empty() || self.file.is_some()
    }

    /// When it has taken too long. While it sleeps, the time is ours.
    fn due(&self) -> Option<Instant> {
        let limits = &self.service.limits;
        let limit = match self.state {
            State::Sleeping(..) => return None,
            State::Lingering => LINGER,
            State::Closing => limits.idle,
            _ if self.is_owed() || self.is_between() => limits.idle,
            State::Head | State::Body(_) => limits.request,
        };
        Some(self.since + limit)
    }

    /// One timer for all of this. It is not moved with each request: when it
    /// is due too early, it is started again.
    fn keep_time(&mut self, reactor: &mut Reactor<Self>) {
        let Some(due) = self.due() else { return };
        let id = reactor.current();
        match self.timer {
            Some((_, at)) if at <= due => return,
            Some((timer, _)) => {
                reactor.cancel(id, timer);
            }
            None => {}
        }
        let after = due.saturating_duration_since(reactor.now());
        self.timer = reactor.after(id, after).map(|it| (it, due));
    }
}

const CUT_OFF: Refusal = Refusal::new(400, "the request is cut off");
const TOO_SLOW: Refusal = Refusal::new(408, "the request took too long");

impl Handler for Connection {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn opened(&mut self, reactor: &mut Reactor<Self>) {
        self.keep_time(reactor);
    }

    fn readable(&mut self, reactor: &mut Reactor<Self>) -> Result<Next, Gone> {
        let drained = self.receive(reactor)?;
        if let State::Lingering = self.state {
            self.input.clear();
            self.service.buffers.take_back(&mut self.input);
            return match (self.ended, drained) {
                (true, _) => Err(Gone),
                (_, true) => Ok(Next::Wait(READ)),
                (_, false) => Ok(Next::Again(READ)),
            };
        }
        self.advance(drained, reactor)
    }

    fn writable(&mut self, reactor: &mut Reactor<Self>) -> Result<Next, Gone> {
        self.advance(false, reactor)
    }

    fn timer(
        &mut self,
        timer: Timer,
        reactor: &mut Reactor<Self>,
    ) -> Result<Next, Gone> {
        if let State::Sleeping(own, mut manner) = self.state
            && own == timer
        {
            manner.keep &= !reactor.is_stopping();
            self.service.buffers.lend(&mut self.output);
            routes::slept(manner, &self.service, &mut self.output);
            self.answered(Ok(Outcome::Done), manner, reactor);
            return self.advance(false, reactor);
        }
        self.timer = None;
        if self.due().is_none_or(|due| reactor.now() < due) {
            self.keep_time(reactor);
            return Ok(Next::Same);
        }
        let is_asking = matches!(self.state, State::Head | State::Body(_))
            && !self.is_between();
        if is_asking && !self.is_owed() {
            self.service.buffers.lend(&mut self.output);
            self.refuse(TOO_SLOW);
            return self.advance(false, reactor);
        }
        Err(Gone)
    }

    /// Whoever asks nothing is left; the others, after their next answer. A
    /// request that has come already is one.
    fn stopping(&mut self, reactor: &mut Reactor<Self>) -> Result<Next, Gone> {
        if !self.is_between() || self.is_owed() {
            return Ok(Next::Same);
        }
        let drained = self.receive(reactor)?;
        if self.input.is_empty() {
            return Err(Gone);
        }
        self.advance(drained, reactor)
    }

    fn closed(mut self, _: &mut Reactor<Self>) {
        let buffers = &self.service.buffers;
        for mut buffer in
            [mem::take(&mut self.input), mem::take(&mut self.output)]
        {
            buffer.clear();
            buffers.take_back(&mut buffer);
        }
    }
}

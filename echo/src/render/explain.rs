//! What calls and their results mean, in a sentence each.

use super::call::{Peer, What};
use crate::event::Verb::{self, *};

/// What each call does, in a sentence that names its page.
const CALLS: &[(Verb, &str, &str)] = &[
    (
        Wait,
        "epoll_wait",
        "Sleeps until a descriptor of the interest list is ready; the list \
         lives in the kernel, which hands back the ready ones and no others: \
         epoll_wait(2).",
    ),
    (
        Wait,
        "poll",
        "Sleeps until a descriptor of its array is ready; the whole array goes \
         into the kernel with each call, and the server looks through all of \
         it for the ready ones: poll(2).",
    ),
    (
        Wait,
        "select",
        "Sleeps until a descriptor of its sets is ready; the kernel overwrites \
         the sets with its answer, so the server rebuilds them for each call \
         and tests every number: select(2).",
    ),
    (
        Wait,
        "sigtimedwait",
        "Takes the next signal from the queue, and sleeps until there is one; \
         it is about no descriptor in particular, for each signal says whose \
         it is: sigtimedwait(2).",
    ),
    (
        Wait,
        "ppoll",
        "Sleeps on no descriptor at all: it lets the signals in that are \
         blocked otherwise, and the handler of the first ends it, so that none \
         comes between a check and the sleep: ppoll(2).",
    ),
    (
        Wait,
        "aio_suspend",
        "Sleeps until one of the operations is complete; of sockets it hears \
         nothing meanwhile, so that it has to give up now and then: \
         aio_suspend(3).",
    ),
    (Wait, "nanosleep", PAUSE),
    (Wait, "clock_nanosleep", PAUSE),
    (
        Wait,
        "Condvar::wait",
        "A thread of the pool sleeps until there is something for it in the \
         queue: a client, or a message; no descriptor is involved, another \
         thread wakes it: pthread_cond_wait(3), futex(2).",
    ),
    (Wait, "waitpid", REAP),
    (
        Take,
        "accept4",
        "Takes the first client from the accept queue and gives it a \
         descriptor of its own; with a blocking listener it sleeps until \
         there is one: accept4(2).",
    ),
    (
        Copy,
        "recv",
        "Copies what has arrived out of the socket's receive buffer; the \
         socket is non-blocking, so this never sleeps: recv(2).",
    ),
    (
        Copy,
        "send",
        "Copies into the socket's send buffer what there is room for; the \
         kernel sends it later, and this never sleeps: send(2).",
    ),
    (
        Copy,
        "read",
        "Takes what others have to tell out of a descriptor that is no \
         socket, as much as there is and has room; it is non-blocking, so \
         this never sleeps: read(2).",
    ),
    (
        Copy,
        "write",
        "Tells another thread: a pipe or an eventfd becomes readable, which \
         is one more descriptor for it to wait for: pipe(7), eventfd(2).",
    ),
    (
        WaitAndCopy,
        "recv",
        "Sleeps until bytes arrive, then copies them: one blocking call does \
         both, and its thread serves nobody else meanwhile; if no other thread \
         accepts, new clients wait in the accept queue: recv(2), listen(2).",
    ),
    (
        WaitAndCopy,
        "send",
        "Copies into the socket's send buffer, and sleeps as long as that is \
         full because the client does not read: send(2).",
    ),
    (
        Ask,
        "epoll_ctl",
        "Changes the interest list in the kernel; what is said once holds for \
         every later wait: epoll_ctl(2).",
    ),
    (
        Ask,
        "shutdown",
        "Ends one direction of the connection: a FIN follows what was sent, \
         and the other direction stays open: shutdown(2).",
    ),
    (
        Ask,
        "close",
        "Gives the descriptor back; the next accept may return the same \
         number for another client: close(2).",
    ),
    (
        Ask,
        "fork",
        "Makes a child process with a copy of everything, open descriptors \
         too; the parent gets the child's number, the child gets 0: fork(2).",
    ),
    (Ask, "waitpid", REAP),
    (
        Ask,
        "kill",
        "Tells another process something by a signal, which it takes out of a \
         descriptor (signalfd) when it comes to it: kill(2).",
    ),
    (
        Ask,
        "socketpair",
        "Makes two sockets that are each other's peer, one for the master and \
         one for the worker that is about to be forked: socketpair(2).",
    ),
    (
        Copy,
        "sendmsg",
        "Passes a descriptor to another process (SCM_RIGHTS), with a number to \
         carry it; the kernel keeps the connection alive on the way: unix(7).",
    ),
    (
        Copy,
        "recvmsg",
        "Takes a client that was passed on (SCM_RIGHTS): with the message comes \
         a descriptor, which gets a number of its own in this process: unix(7).",
    ),
    (
        Ask,
        "getsockname",
        "Asks at which address the first one listens: getsockname(2).",
    ),
    (
        Ask,
        "socket",
        "Makes one more socket, to listen at the same address: socket(2).",
    ),
    (
        Ask,
        "setsockopt",
        "Sets an option of a listener: with SO_REUSEPORT others may listen at \
         its address, and the kernel spreads the clients over all of them: \
         socket(7).",
    ),
    (
        Ask,
        "bind",
        "Gives the socket the address at which another listens already, which \
         both must have allowed (SO_REUSEPORT): bind(2), socket(7).",
    ),
    (
        Ask,
        "listen",
        "From now on the socket has an accept queue of its own: listen(2).",
    ),
    (
        Ask,
        "F_SETOWN_EX",
        "Says which thread is to get this descriptor's signals: fcntl(2).",
    ),
    (
        Ask,
        "F_SETSIG",
        "Asks for a real-time signal in place of SIGIO: it is queued for each \
         event, and carries the descriptor and what happened: fcntl(2).",
    ),
    (
        Ask,
        "F_SETFL",
        "Turns signals on (O_ASYNC): one comes whenever the descriptor becomes \
         ready from now on; and calls no longer sleep (O_NONBLOCK): fcntl(2).",
    ),
    (
        Submit,
        "aio_write",
        "Leaves the bytes to a thread that glibc starts, which writes them; \
         until it is done they must not be touched, and the server goes on at \
         once: aio(7).",
    ),
    (
        Submit,
        "aio_read",
        "Lets a thread that glibc starts read into this client's buffer, which \
         belongs to that thread until it is done: aio(7).",
    ),
    (Complete, "aio_write", DONE),
    (Complete, "aio_read", DONE),
    (
        Signal,
        "SIGRTMIN",
        "A signal of a descriptor: si_fd says whose, si_code and si_band say \
         what happened; such signals queue, each as long as there is room: \
         fcntl(2).",
    ),
    (
        Signal,
        "SIGIO",
        "It says that some descriptor became ready, and not which; while one \
         waits to be taken no further one is queued, so everyone has to be \
         looked at: fcntl(2).",
    ),
    (
        Signal,
        "SIGRTMIN+1",
        "An operation is complete (SI_ASYNCIO); the thread that did it queued \
         this signal, and the value in it says which one: sigevent(3type).",
    ),
    (
        Wait,
        "io_uring_enter",
        "Hands over what is in the submission queue, and sleeps until \
         something lies in the completion queue: no socket is ready then, but \
         an operation is done: io_uring_enter(2).",
    ),
    (
        Ask,
        "io_uring_enter",
        "Hands over what is in the submission queue, because it is full, and \
         waits for nothing: io_uring_enter(2).",
    ),
    (
        Ask,
        "io_uring_setup",
        "Makes a submission queue and a completion queue, in memory that the \
         kernel and the server share: to write into the one or to read the \
         other is no call: io_uring_setup(2).",
    ),
    (
        Ask,
        "io_uring_register",
        "Tells the kernel what holds for all operations of this ring, such as \
         the buffers that it may fill, or that all of them are to end: \
         io_uring_register(2).",
    ),
    (
        Submit,
        "accept",
        "Asks for the next client, or for all that will come, by an entry in \
         the submission queue; no call is made for it: \
         io_uring_prep_accept(3).",
    ),
    (
        Submit,
        "recv",
        "Asks for what this client says next; the memory for it is lent now, \
         or the kernel takes a buffer when something comes, and it is not the \
         server's until then: io_uring_prep_recv(3).",
    ),
    (
        Submit,
        "send",
        "Lends the bytes to the kernel, which is to send them; until that is \
         complete they may neither change nor move: io_uring_prep_send(3).",
    ),
    (
        Submit,
        "read",
        "Asks for what a descriptor that is no socket has to tell; the signal \
         to stop comes so: io_uring_prep_read(3), signalfd(2).",
    ),
    (
        Submit,
        "cancel",
        "Asks that what is under way on this descriptor may end; each such \
         operation still has a completion of its own: io_uring_prep_cancel(3).",
    ),
    (
        Complete,
        "accept",
        "A client was taken from the accept queue, and the result is its \
         descriptor; accept was never called: io_uring_prep_accept(3).",
    ),
    (
        Complete,
        "recv",
        "Wait and copy are both over: the bytes lie in the server's memory, \
         copied by the kernel within a call of this thread, or by the other \
         thread that is named: io_uring(7).",
    ),
    (
        Complete,
        "send",
        "So many of the bytes lie in the socket's send buffer, and the memory \
         that was lent is the server's again: io_uring_prep_send(3).",
    ),
    (
        Complete,
        "read",
        "What was read lies in the server's memory: io_uring_prep_read(3).",
    ),
    (
        Complete,
        "cancel",
        "So many operations were found and told to end: \
         io_uring_prep_cancel(3).",
    ),
    (
        Signal,
        "SIGUSR1",
        "An operation is complete (SI_ASYNCIO), and perhaps others: while one \
         such signal waits to be taken no further one is queued, so all that \
         are under way have to be asked: signal(7).",
    ),
    (
        Ask,
        "fcntl",
        "Sets or clears O_NONBLOCK: with it, a call that would sleep returns \
         EAGAIN instead: fcntl(2).",
    ),
];

const PAUSE: &str = "Sleeps for a fixed time, whatever the clients do: a \
    longer pause burns less CPU and lets them wait longer: nanosleep(2).";

const DONE: &str = "The operation is over, both its wait and its copy; only now \
    is its result known, and its memory the server's again: aio_return(3).";

const REAP: &str = "Collects a child that has ended; until then it stays in \
    the table of processes as a zombie: waitpid(2).";

/// What a result means: of this verb and call if they are named.
const RESULTS: &[(&str, Option<Verb>, &str, &str)] = &[
    (
        "EAGAIN",
        Some(Take),
        "",
        "EAGAIN: no client is in the accept queue, and the listener is \
         non-blocking: accept4(2).",
    ),
    (
        "EAGAIN",
        Some(Copy),
        "recv",
        "EAGAIN: nothing has arrived, and a non-blocking call does not sleep \
         until something does; all it did was to look: recv(2).",
    ),
    (
        "EAGAIN",
        Some(Copy),
        "send",
        "EAGAIN: the send buffer is full, because the client reads more slowly \
         than it sends; its bytes stay owed: send(2).",
    ),
    (
        "EAGAIN",
        Some(Wait),
        "sigtimedwait",
        "EAGAIN: the queue is empty, so all who are ready are known, and only \
         now is anyone served: sigtimedwait(2).",
    ),
    (
        "EAGAIN",
        Some(Complete),
        "send",
        "EAGAIN: the send buffer is full, and this send was told not to wait \
         (MSG_DONTWAIT); its bytes stay owed: send(2).",
    ),
    (
        "ETIME",
        Some(Wait),
        "io_uring_enter",
        "ETIME: nothing was complete in the time given; the server sets a time \
         only when something is due, such as the end of a pause: \
         io_uring_enter(2).",
    ),
    (
        "ENOBUFS",
        Some(Complete),
        "recv",
        "ENOBUFS: all buffers that were provided are in use, which ends this \
         recv; it is submitted again once there is one: \
         io_uring_prep_recv(3).",
    ),
    (
        "ECANCELED",
        Some(Complete),
        "",
        "ECANCELED: the operation was told to end before it was done: \
         io_uring_prep_cancel(3).",
    ),
    (
        "ENOENT",
        Some(Complete),
        "cancel",
        "ENOENT: nothing was under way there any more: \
         io_uring_prep_cancel(3).",
    ),
    (
        "EALREADY",
        Some(Complete),
        "cancel",
        "EALREADY: the operation is being carried out and cannot be ended: \
         io_uring_prep_cancel(3).",
    ),
    (
        GOES_ON,
        Some(Complete),
        "send",
        "So much is sent, but the memory is still lent: the network reads it \
         where it lies, and a second completion gives it back: \
         io_uring_prep_send_zc(3).",
    ),
    (
        GOES_ON,
        Some(Complete),
        "",
        "It was submitted once for all that will come: it is still under way, \
         and completes again with whatever is next (multishot): io_uring(7).",
    ),
    (
        "EAGAIN",
        Some(Complete),
        "",
        "EAGAIN: glibc could not tell that this operation was complete, \
         because the queue of signals was full, and forgot its result; it is \
         made again: sigqueue(3).",
    ),
    (
        "EAGAIN",
        Some(WaitAndCopy),
        "",
        "EAGAIN from a blocking call: a time limit is over, which was put on \
         the socket when the server was told to stop (SO_RCVTIMEO): socket(7).",
    ),
    (
        "EAGAIN",
        Some(Ask),
        "fork",
        "EAGAIN: there may be no more processes, of this user or at all; the \
         client is turned away: fork(2).",
    ),
    (
        "EAGAIN",
        Some(Copy),
        "sendmsg",
        "EAGAIN: this worker has not taken so many clients yet that there is \
         no room for more: the next one may do: unix(7).",
    ),
    (
        "EAGAIN",
        Some(Copy),
        "recvmsg",
        "EAGAIN: the master has passed on no other client: recvmsg(2).",
    ),
    (
        "EINTR",
        Some(Wait),
        "ppoll",
        "EINTR: the handler of a signal ran, and handed what the signal said \
         to the loop; the others stay blocked until the next wait: \
         sigaction(2).",
    ),
    (
        "EINTR",
        None,
        "",
        "EINTR: a signal came before anything else did; nothing is lost, and \
         the call can be made again: signal(7).",
    ),
    (
        "ECONNRESET",
        None,
        "",
        "ECONNRESET: the peer broke the connection off (RST), and whatever was \
         on its way is lost; this ends one connection only: tcp(7).",
    ),
    (
        "EPIPE",
        None,
        "",
        "EPIPE: nothing can be sent on this connection any more; SIGPIPE, which \
         would kill the program, does not come with it (MSG_NOSIGNAL): send(2).",
    ),
    (
        "ECONNABORTED",
        None,
        "",
        "ECONNABORTED: this client gave up while it was in the accept queue; \
         the next one may be there already: accept(2).",
    ),
    (
        "EMFILE",
        None,
        "",
        "EMFILE: this process may open no more descriptors (RLIMIT_NOFILE); \
         the client stays in the queue until one is closed: getrlimit(2).",
    ),
    (
        "ENFILE",
        None,
        "",
        "ENFILE: the whole system may open no more files; the client stays in \
         the queue until one is closed: accept(2).",
    ),
    ("ENOBUFS", None, "", MEMORY),
    ("ENOMEM", None, "", MEMORY),
    (
        "EINVAL",
        Some(Take),
        "",
        "EINVAL: the listener was shut down, which ends a sleeping accept for \
         good; so a stop reaches a server that sleeps here: accept(2).",
    ),
    (
        "ETIMEDOUT",
        Some(Copy),
        "",
        "ETIMEDOUT: the peer has not answered for so long that the kernel gave \
         it up: tcp(7).",
    ),
    (
        "ENOTCONN",
        None,
        "",
        "ENOTCONN: the connection is over already, there is nothing left to \
         end: shutdown(2).",
    ),
    (
        "ECHILD",
        None,
        "",
        "ECHILD: there is no child that could be collected: waitpid(2).",
    ),
    (
        END_OF_STREAM,
        None,
        "",
        "To receive 0 bytes is no empty message: the peer has sent its FIN \
         and will send no more, though it may still read: recv(2).",
    ),
    (
        SHORT_SEND,
        None,
        "",
        "A short send: the send buffer had room for a part only; the rest \
         stays owed, and this client is not read from until it is sent: \
         send(2).",
    ),
    (
        TIMED_OUT,
        None,
        "",
        "Nothing became ready in the time given; the server sets a time only \
         when something is due, such as the end of a pause: poll(2).",
    ),
    (
        STOP,
        None,
        "",
        "The signal to stop is one more descriptor that becomes readable, so \
         that no signal can slip in between a check and the wait: signalfd(2).",
    ),
];

const MEMORY: &str = "The kernel is short of memory for sockets; to try again \
    at once would fail at once, so accepting rests for a moment: accept(2).";

/// A receive of no bytes: the peer's FIN.
pub const END_OF_STREAM: &str = "end of stream";
/// A send that took less than its client was owed.
pub const SHORT_SEND: &str = "short send";
/// An operation that has a result and is still under way.
pub const GOES_ON: &str = "goes on";
/// A wait that found nothing in the time given.
pub const TIMED_OUT: &str = "timed out";
/// A wait that found the descriptor which tells the server to stop.
pub const STOP: &str = "stop";

/// Explains a call by its `verb` and name, as they stand in the record.
pub fn explain_call(verb: &str, call: &str) -> Option<&'static str> {
    let mut calls = CALLS.iter();
    let (_, _, text) =
        calls.find(|row| (row.0.name(), row.1) == (verb, call))?;
    Some(text)
}

/// Explains what a call came to: an error by its name, or one of the results
/// above, which have none.
pub fn explain_result(
    verb: &str,
    call: &str,
    result: &str,
) -> Option<&'static str> {
    let mut results = RESULTS.iter();
    let (_, _, _, text) = results.find(|(of, only, name, _)| {
        *of == result
            && only.is_none_or(|only| only.name() == verb)
            && (name.is_empty() || *name == call)
    })?;
    Some(text)
}

/// Explains what this call came to.
pub(crate) fn result(what: &What, short: bool) -> Option<&'static str> {
    let errno = what.errno_name();
    let found = what.found.as_ref();
    let stop = |ready: &(_, Option<Peer>)| ready.1 == Some(Peer::Stop);
    let goes_on = what.operation.as_ref().is_some_and(|it| it.goes_on);
    let result = match &errno {
        Some(errno) => errno.as_str(),
        None if what.end_of_stream() => END_OF_STREAM,
        None if short => SHORT_SEND,
        None if goes_on => GOES_ON,
        None if what.timed_out() && what.asked > 0 => TIMED_OUT,
        None if found.is_some_and(|f| f.ready.iter().any(stop)) => STOP,
        None => return None,
    };
    explain_result(what.verb.name(), what.name(), result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_explanation_is_one_sentence_that_names_a_page() {
        let calls = CALLS.iter().map(|(_, _, text)| text);
        let results = RESULTS.iter().map(|(_, _, _, text)| text);
        for text in calls.chain(results) {
            assert!(text.ends_with(")."), "{text}");
            assert_eq!(text.matches(". ").count(), 0, "{text}");
            assert!(text.len() < 210 && !text.contains("  "), "{text}");
        }
    }

    #[test]
    fn an_explanation_is_found_by_what_stands_in_the_record() {
        let call = |verb, call, begins: &str| {
            let text = explain_call(verb, call).unwrap_or_default();
            assert!(text.starts_with(begins), "{verb} {call}: {text}");
        };
        call("copy", "recv", "Copies what has arrived");
        call("wait+copy", "recv", "Sleeps until bytes arrive");
        assert_eq!(explain_call("wait", "recv"), None);
        let result = |verb, call, result, begins: &str| {
            let text = explain_result(verb, call, result).unwrap_or_default();
            assert!(text.starts_with(begins), "{verb} {call}: {text}");
        };
        result("take", "accept4", "EAGAIN", "EAGAIN: no client");
        result("copy", "send", "EAGAIN", "EAGAIN: the send buffer");
        result("copy", "recv", END_OF_STREAM, "To receive 0 bytes");
        result("wait+copy", "send", SHORT_SEND, "A short send");
        result("wait", "poll", TIMED_OUT, "Nothing became ready");
        result("wait", "poll", STOP, "The signal to stop");
        assert_eq!(explain_result("copy", "recv", "EIO"), None);
    }
}

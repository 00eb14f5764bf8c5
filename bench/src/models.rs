//! The one table of models: tests, benches, `watch` and the documents are
//! driven from it.

use std::ffi::OsString;
use std::process::ExitCode;

/// One row: a server, with the arguments that make it this variant.
pub struct Model {
    /// The row's name on every command line here, such as `blocking-thread`.
    pub name: &'static str,
    /// The package and binary, such as `blocking`.
    pub binary: &'static str,
    /// What the variant adds to the command line.
    pub args: &'static [&'static str],
    /// The server's `main`; the first argument is the program's name.
    pub entry: fn(Vec<OsString>) -> ExitCode,
    /// One line of what the model is.
    pub summary: &'static str,
    /// The call in which an idle server of this model sleeps.
    pub sleeps_in: &'static str,
    /// What the model cannot do, by its nature.
    pub limits: Limits,
    /// What a reader may try with it.
    pub try_it: &'static str,
    /// What a reader then sees.
    pub see: &'static str,
}

/// What a model cannot do by its nature; tested as that.
pub struct Limits {
    /// How many clients are served at once; the others wait.
    pub clients: Option<usize>,
    /// Descriptors from this number on are refused.
    pub descriptors_below: Option<usize>,
    /// An idle server takes a whole core.
    pub burns_core: bool,
    /// An idle server wakes up now and then.
    pub idle_wakes: bool,
    /// Its operations are no calls, but lie in memory that it shares with who
    /// carries them out: nobody can make them fail from outside.
    pub no_calls: bool,
    /// What it sends is lent until the peer has it, so that it never holds
    /// more than that: it owes nothing of which the kernel does not know.
    pub lends_sent: bool,
    /// How many buffers (--buffer) a client may be owed that does not read.
    pub owed_buffers: usize,
    /// What each client takes besides its descriptor.
    pub per_client: PerClient,
}

/// What each client takes besides its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerClient {
    /// Nothing but its entry in a table.
    Nothing,
    /// A buffer, which is lent for what it has not said yet.
    Buffer,
    /// A task: its future, in a piece of memory of its own.
    Task,
    /// A thread.
    Thread,
    /// A process.
    Process,
}

/// It can do all.
pub const NO_LIMITS: Limits = Limits {
    clients: None,
    descriptors_below: None,
    burns_core: false,
    idle_wakes: false,
    no_calls: false,
    lends_sent: false,
    owed_buffers: 1,
    per_client: PerClient::Nothing,
};

/// Every server of the workspace, with its variants as rows of their own, in
/// the order in which a reader should meet them.
pub static MODELS: &[Model] = &[
    Model {
        name: "blocking",
        binary: "blocking",
        args: &[],
        entry: echo::main::<blocking::Server>,
        summary: "one client at a time; recv sleeps until it has spoken",
        sleeps_in: "recv",
        limits: Limits { clients: Some(1), ..NO_LIMITS },
        try_it: "nc in two terminals, the first silent",
        see: "the second is connected and gets no answer until the first ends",
    },
    Model {
        name: "blocking-process",
        binary: "blocking",
        args: &["--per", "process"],
        entry: echo::main::<blocking::Server>,
        summary: "a process for each client; fork copies the server",
        sleeps_in: "recv",
        limits: Limits { per_client: PerClient::Process, ..NO_LIMITS },
        try_it: "nc in two terminals, then ps --forest",
        see: "both are answered; each has a child that sleeps in its own recv",
    },
    Model {
        name: "blocking-thread",
        binary: "blocking",
        args: &["--per", "thread"],
        entry: echo::main::<blocking::Server>,
        summary: "a thread for each client; each sleeps in its own recv",
        sleeps_in: "recv",
        limits: Limits { per_client: PerClient::Thread, ..NO_LIMITS },
        try_it: "nc in two terminals, then ps -L",
        see: "both are answered, by two threads of one process",
    },
    Model {
        name: "blocking-pool",
        binary: "blocking",
        args: &["--pool", "8"],
        entry: echo::main::<blocking::Server>,
        summary: "8 threads take accepted clients from one locked queue",
        sleeps_in: "recv",
        limits: Limits { clients: Some(8), ..NO_LIMITS },
        try_it: "nine times nc",
        see: "the ninth waits until one of the eight has ended",
    },
    Model {
        name: "nonblocking_poll",
        binary: "nonblocking_poll",
        args: &[],
        entry: echo::main::<nonblocking_poll::Server>,
        summary: "asks every client all the time; no call ever sleeps",
        sleeps_in: "nothing",
        limits: Limits { burns_core: true, ..NO_LIMITS },
        try_it: "nc, silent, and top beside it",
        see: "a whole core is busy, and the wasted calls are in the summary",
    },
    Model {
        name: "nonblocking_poll-pause",
        binary: "nonblocking_poll",
        args: &["--pause", "1ms"],
        entry: echo::main::<nonblocking_poll::Server>,
        summary: "asks every client, sleeps a millisecond, asks again",
        sleeps_in: "clock_nanosleep",
        limits: Limits { idle_wakes: true, ..NO_LIMITS },
        try_it: "nc, silent, and top beside it",
        see: "little CPU; every answer is up to a millisecond late",
    },
    Model {
        name: "select_server",
        binary: "select_server",
        args: &[],
        entry: echo::main::<select_server::Server>,
        summary: "one call sleeps for all; its sets are overwritten each time",
        sleeps_in: "select",
        limits: Limits { descriptors_below: Some(1024), ..NO_LIMITS },
        try_it: "a few times nc, with --watch text",
        see: "each wait scans every descriptor up to the highest",
    },
    Model {
        name: "poll_server",
        binary: "poll_server",
        args: &[],
        entry: echo::main::<poll_server::Server>,
        summary: "one call sleeps for all; its list is handed over each time",
        sleeps_in: "poll",
        limits: NO_LIMITS,
        try_it: "a few times nc, with --watch text",
        see: "each wait scans the whole list, and there is no limit of 1,024",
    },
    Model {
        name: "epoll_lt",
        binary: "epoll_lt",
        args: &[],
        entry: echo::main::<epoll_lt::Server>,
        summary: "the kernel keeps the list and returns only who is ready",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "a few times nc, with --watch text",
        see: "each wait scans as many entries as came out ready",
    },
    Model {
        name: "epoll_et",
        binary: "epoll_et",
        args: &[],
        entry: echo::main::<epoll_et::Server>,
        summary: "the kernel reports each change to ready once",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "a few times nc, with --watch text",
        see: "after each message one more recv meets EAGAIN: the drain",
    },
    Model {
        name: "signal_driven",
        binary: "signal_driven",
        args: &[],
        entry: echo::main::<signal_driven::Server>,
        summary: "the kernel queues a signal for each event; it says whose",
        sleeps_in: "sigtimedwait",
        limits: NO_LIMITS,
        try_it: "a few times nc, with --watch text",
        see: "each signal names its descriptor; no wait is about all of them",
    },
    Model {
        name: "signal_driven-handler",
        binary: "signal_driven",
        args: &["--delivery", "handler"],
        entry: echo::main::<signal_driven::Server>,
        summary: "the same, by a handler that interrupts the wait",
        sleeps_in: "ppoll",
        limits: NO_LIMITS,
        try_it: "a few times nc, with --watch text",
        see: "EINTR is how each wait ends: a handler ran",
    },
    Model {
        name: "signal_driven-sigio",
        binary: "signal_driven",
        args: &["--signal", "sigio"],
        entry: echo::main::<signal_driven::Server>,
        summary: "plain SIGIO: someone is ready, and poll must find out who",
        sleeps_in: "sigtimedwait",
        limits: NO_LIMITS,
        try_it: "a few times nc, with --watch text",
        see: "after each SIGIO a poll of everyone",
    },
    Model {
        name: "aio_file",
        binary: "aio_file",
        args: &[],
        entry: echo::main::<aio_file::Server>,
        summary: "glibc's threads copy to a file and back; a signal says when",
        sleeps_in: "poll",
        limits: NO_LIMITS,
        try_it: "nc, with --watch text",
        see: "which thread did each write and read, while the server waited",
    },
    Model {
        name: "aio_file-thread",
        binary: "aio_file",
        args: &["--notify", "thread"],
        entry: echo::main::<aio_file::Server>,
        summary: "the same; one more thread is started to say so",
        sleeps_in: "poll",
        limits: NO_LIMITS,
        try_it: "nc, with --watch text",
        see: "for each operation a thread that writes one number to a pipe",
    },
    Model {
        name: "aio_file-suspend",
        binary: "aio_file",
        args: &["--notify", "suspend"],
        entry: echo::main::<aio_file::Server>,
        summary: "the same; the server sleeps until one is over",
        sleeps_in: "poll",
        limits: NO_LIMITS,
        try_it: "nc, with --watch text",
        see: "while it sleeps in aio_suspend it hears of no client",
    },
    Model {
        name: "reactor",
        binary: "reactor",
        args: &[],
        entry: echo::main::<reactor::Server>,
        summary: "one loop waits for all, and calls who is ready's handler",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "nc in two terminals, with --sleep 5s; type ! in one",
        see: "the other waits the five seconds too: one thread calls both",
    },
    Model {
        name: "reactor-pool",
        binary: "reactor",
        args: &["--form", "pool", "--workers", "2"],
        entry: echo::main::<reactor::Server>,
        summary: "the same loop; two workers do what takes long",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "nc in two terminals, with --sleep 5s; type ! in one",
        see: "the other is answered meanwhile, by the second worker",
    },
    Model {
        name: "reactor-threads",
        binary: "reactor",
        args: &["--form", "threads", "--reactors", "2"],
        entry: echo::main::<reactor::Server>,
        summary: "one reactor accepts; two others, in threads, serve",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "nc in two terminals, then ps -L",
        see: "three threads; each client stays with one of the last two",
    },
    Model {
        name: "reactor-futures",
        binary: "reactor",
        args: &["--form", "futures"],
        entry: echo::main::<reactor::Server>,
        summary: "each client an async fn; the reactor wakes its task",
        sleeps_in: "epoll_wait",
        limits: Limits { per_client: PerClient::Task, ..NO_LIMITS },
        try_it: "a few times nc, with --watch text",
        see: "the same calls as of the single reactor: tasks make none",
    },
    Model {
        name: "reactor-processes",
        binary: "reactor",
        args: &["--form", "processes", "--workers", "2"],
        entry: echo::main::<reactor::Server>,
        summary: "a master and two workers with a reactor each; one is woken",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "nc in two terminals; kill -9 one of the two workers",
        see: "one nc ends, the other goes on; a new worker takes the place",
    },
    Model {
        name: "reactor-shared",
        binary: "reactor",
        args: &["--form", "processes", "--workers", "2", "--accept", "shared"],
        entry: echo::main::<reactor::Server>,
        summary: "the same; each client wakes all workers, and one gets it",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "a few times nc, with --watch text",
        see: "both workers wake; who comes too late finds nobody in the queue",
    },
    Model {
        name: "reactor-mutex",
        binary: "reactor",
        args: &["--form", "processes", "--workers", "2", "--accept", "mutex"],
        entry: echo::main::<reactor::Server>,
        summary: "the same; only who has the accept mutex waits for clients",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "a few times nc, with --watch text",
        see: "one worker gets nearly all clients; the other asks now and then",
    },
    Model {
        name: "reactor-reuseport",
        binary: "reactor",
        args: &[
            "--form",
            "processes",
            "--workers",
            "2",
            "--accept",
            "reuseport",
        ],
        entry: echo::main::<reactor::Server>,
        summary: "the same; each worker has an accept queue of its own",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "kill -STOP one worker, then a few times nc",
        see: "about half of them wait: the kernel had dealt them to that one",
    },
    Model {
        name: "reactor-passed",
        binary: "reactor",
        args: &["--form", "processes", "--workers", "2", "--accept", "passed"],
        entry: echo::main::<reactor::Server>,
        summary: "the same; the master accepts, and passes each client on",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "a few times nc, with --watch text",
        see: "sendmsg takes the descriptor to a worker, to each in turn",
    },
    Model {
        name: "proactor",
        binary: "proactor",
        args: &[],
        entry: echo::main::<proactor::Server>,
        summary: "the kernel itself accepts, receives and sends, by io_uring",
        sleeps_in: "io_uring_enter",
        limits: Limits {
            no_calls: true,
            per_client: PerClient::Buffer,
            ..NO_LIMITS
        },
        try_it: "a few times nc, with --watch text",
        see: "no recv and no send is called: they are submitted, and complete",
    },
    Model {
        name: "proactor-multishot",
        binary: "proactor",
        args: &["--recv", "multishot"],
        entry: echo::main::<proactor::Server>,
        summary: "the same; one order for all that a client will ever say",
        sleeps_in: "io_uring_enter",
        // One recv brings so many, whether they are wanted yet or not.
        limits: Limits { no_calls: true, owed_buffers: 4, ..NO_LIMITS },
        try_it: "a few times nc, with --watch text",
        see: "one recv is submitted, and completes with each message",
    },
    Model {
        name: "proactor-sqpoll",
        binary: "proactor",
        args: &["--sqpoll"],
        entry: echo::main::<proactor::Server>,
        summary: "the same as proactor; a kernel thread polls for submissions",
        sleeps_in: "io_uring_enter",
        limits: Limits {
            no_calls: true,
            per_client: PerClient::Buffer,
            ..NO_LIMITS
        },
        try_it: "nc, then ps -L",
        see: "a second thread, iou-sqp, which no line of the source starts",
    },
    Model {
        name: "proactor-zero-copy",
        binary: "proactor",
        args: &["--zero-copy"],
        entry: echo::main::<proactor::Server>,
        summary: "the same as proactor; sends take the bytes where they lie",
        sleeps_in: "io_uring_enter",
        limits: Limits {
            no_calls: true,
            lends_sent: true,
            per_client: PerClient::Buffer,
            ..NO_LIMITS
        },
        try_it: "nc, then Ctrl-C for the server",
        see: "the last line says how often the kernel copied after all",
    },
    Model {
        name: "proactor-emulated",
        binary: "proactor",
        args: &["--engine", "emulated"],
        entry: echo::main::<proactor::Server>,
        summary: "the same completions, out of epoll: a reactor beneath them",
        sleeps_in: "epoll_wait",
        limits: Limits { per_client: PerClient::Buffer, ..NO_LIMITS },
        try_it: "a few times nc, with --watch text",
        see: "a recv meets EAGAIN, stays submitted, and completes when ready",
    },
    Model {
        name: "proactor-aio",
        binary: "proactor",
        args: &["--engine", "aio"],
        entry: echo::main::<proactor::Server>,
        summary: "the same; 20 threads of glibc's sleep in read and write",
        sleeps_in: "poll",
        // A buffer each, too.
        limits: Limits {
            clients: Some(20),
            per_client: PerClient::Thread,
            ..NO_LIMITS
        },
        try_it: "21 times nc, then ps -L",
        see: "20 threads asleep in read; the 21st client waits for one of them",
    },
];

/// What is measured against, and no model of this workspace: servers that are
/// written with what real programs use, and a floor beneath all of them. The
/// suite holds them to what `tests/peers.rs` lists, and to no more.
pub static PEERS: &[Model] = &[
    Model {
        name: "peer-tokio",
        binary: "peers",
        args: &["tokio"],
        entry: peers::main,
        summary: "tokio on one thread; each client is a task that awaits",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "a few times nc, with strace beside it",
        see: "epoll_wait, and no recv that finds nothing after a short one",
    },
    Model {
        name: "peer-tokio-multi",
        binary: "peers",
        args: &["tokio-multi"],
        entry: peers::main,
        summary: "the same tasks on a worker thread for each core",
        sleeps_in: "epoll_wait and futex",
        limits: NO_LIMITS,
        try_it: "a few times nc, then ps -L",
        see: "as many workers as cores; one sleeps in epoll_wait for all",
    },
    Model {
        name: "peer-mio",
        binary: "peers",
        args: &["mio"],
        entry: peers::main,
        summary: "mio, edge-triggered: what tokio stands on, without tasks",
        sleeps_in: "epoll_wait",
        limits: NO_LIMITS,
        try_it: "a few times nc, with strace beside it",
        see: "after each message one more recv meets EAGAIN, as in epoll_et",
    },
    Model {
        name: "floor",
        binary: "peers",
        args: &["floor"],
        entry: peers::main,
        summary: "no server: N clients in fixed order, recv and send",
        sleeps_in: "recv",
        // As many as `--connections` says; it begins when it has them.
        limits: Limits { clients: Some(1), ..NO_LIMITS },
        try_it: "nc, then a second nc",
        see: "the first is answered, the second refused",
    },
];

/// The row of this name; peers are none.
pub fn find(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// The row of this name, or the peer.
pub fn find_with_peers(name: &str) -> Option<&'static Model> {
    find(name).or_else(|| PEERS.iter().find(|peer| peer.name == name))
}

/// Whether the row is one of [`PEERS`].
pub fn is_peer(model: &Model) -> bool {
    PEERS.iter().any(|peer| peer.name == model.name)
}

/// The names of all rows, peers last.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().chain(PEERS).map(|model| model.name)
}

/// Becomes the server that `serve MODEL ARGS…` names, when the command line
/// asks for one; otherwise returns. A harness starts its servers by executing
/// itself, so that what it tests is what it was built with.
pub fn serve_if_asked() {
    echo::render_if_asked();
    crate::load::generate_if_asked();
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|word| word == "serve") {
        let name = args.get(2).and_then(|name| name.to_str()).unwrap_or("");
        if name == "broken" {
            exit(crate::broken::main(args[2..].to_vec()));
        }
        let Some(model) = find_with_peers(name) else {
            eprintln!("serve: no model is called '{name}'");
            std::process::exit(2);
        };
        let mut line = vec![OsString::from(model.binary)];
        line.extend(model.args.iter().map(OsString::from));
        line.extend_from_slice(&args[3..]);
        exit((model.entry)(line));
    }
}

fn exit(code: ExitCode) -> ! {
    // An ExitCode does not tell its number; these are the ones in use.
    let same = |n: &u8| ExitCode::from(*n) == code;
    std::process::exit((0..=2).find(same).map_or(1, i32::from));
}

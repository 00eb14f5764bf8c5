//! The live view as its reader meets it: the built program in a terminal, which
//! is tmux.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(10);

/// A window of a tmux server of its own, with a shell in it.
struct Window {
    name: String,
}

impl Window {
    /// `None` where there is no tmux.
    fn open(width: u16, height: u16) -> Option<Window> {
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("SKIPPED: no tmux: the live view is not tested in one");
            return None;
        }
        let window = Window { name: format!("live{}", std::process::id()) };
        let (width, height) = (width.to_string(), height.to_string());
        // The shell is told by its prompt.
        let shell = "env PS1='ready> ' ENV= sh";
        window.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            shell,
        ]);
        Some(window)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-u", "-L", &self.name]).args(args);
        // As if it were not run from within another.
        let output = command.env_remove("TMUX").output().expect("tmux");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {args:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn line(&self, text: &str) {
        self.keys(&["-l", text]);
        self.keys(&["Enter"]);
    }

    fn seen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn format(&self, format: &str) -> String {
        self.tmux(&["display-message", "-p", format]).trim().to_owned()
    }

    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen();
            if is_so(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "never {what}; seen:\n{seen}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        self.until(text, |seen| seen.contains(text));
    }

    /// The terminal is as it was: the shell reads lines and echoes them.
    #[track_caller]
    fn is_given_back(&self, code: i32) {
        self.until("a prompt", |seen| {
            seen.trim_end().lines().next_back() == Some("ready>")
        });
        let modes = "stty -a | tr ' ' '\\n' | grep -E '^-?(icanon|echo)$'";
        self.line(&format!("echo code=$? $({modes})"));
        let said = format!("code={code}");
        let seen = self.until("an exit code", |seen| {
            seen.lines().any(|line| line.starts_with(&said))
        });
        let said = seen.lines().find(|line| line.starts_with(&said)).unwrap();
        assert!(said.contains("icanon") && said.contains("echo"), "{said}");
        assert!(!said.contains("-icanon") && !said.contains("-echo"), "{said}");
        // What was typed is seen, and no more of the view is.
        assert!(seen.contains("stty -a") && !seen.contains("calls"), "{seen}");
        let flags = self.format("#{alternate_on} #{cursor_flag}");
        assert_eq!(flags, "0 1", "alternate screen, cursor");
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut tmux = Command::new("tmux");
        let _ended = tmux.args(["-L", &self.name, "kill-server"]).status();
    }
}

/// The processes that have this in their environment.
fn marked(mark: &str) -> Vec<Pid> {
    let has_it = |path: std::path::PathBuf| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|it| it == mark.as_bytes())
    };
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let found = all.filter(|entry| has_it(entry.path()));
    let number = |name: std::ffi::OsString| name.to_str()?.parse().ok();
    found.filter_map(|it| number(it.file_name()).map(Pid::from_raw)).collect()
}

fn nobody_is_left(mark: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !marked(mark).is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", marked(mark));
        thread::sleep(Duration::from_millis(5));
    }
}

/// What stands in the columns of each of two servers.
fn halves(seen: &str) -> [String; 2] {
    let mut halves = [String::new(), String::new()];
    for (left, right) in seen.lines().filter_map(|line| line.split_once('│'))
    {
        halves[0] += &format!("{left}\n");
        halves[1] += &format!("{right}\n");
    }
    halves
}

#[test]
fn a_reader_is_the_clients_of_two_servers() {
    let Some(window) = Window::open(100, 30) else { return };
    let program = env!("CARGO_BIN_EXE_watch");
    let mark = format!("WATCH_LIVE_MARK={}", std::process::id());
    let live =
        |args: &str| window.line(&format!("{mark} {program} live {args}"));
    let both = |what: &str, parts: [&[&str]; 2]| {
        window.until(what, |seen| {
            let halves = halves(seen);
            let has = |(half, parts): (&String, &[&str])| {
                parts.iter().all(|part| half.contains(part))
            };
            halves.iter().zip(parts).all(has)
        })
    };
    window.shows("ready>");

    live("blocking epoll_et");
    both("two sleepers", [&["blocking", "in accept4(3"], &["in epoll_wait("]]);
    window.shows("No client yet");
    window.keys(&["o"]);
    both("a client", [&["in recv(4 client 1)"], &["= 7 client 1"]]);
    window.keys(&["s"]);
    let echoed: [&[&str]; 2] = [
        &["recv(4 client 1) = 64 bytes", "send(4 client 1) = 64 bytes"],
        &["send(7 client 1) = 64 bytes", "recv(7 client 1) = EAGAIN"],
    ];
    let seen = both("an echo", echoed);
    assert!(!halves(&seen)[0].contains("EAGAIN"), "{seen}");
    // The second is served by one of them only.
    window.keys(&["o", "h"]);
    both("a queue", [&["accept queue 1 of"], &["send(8 client 2) = 32 bytes"]]);
    window.keys(&["v"]);
    both("a table", [&["- client 2"], &["8 client 2"]]);
    window.keys(&["v", "v", "v"]);

    window.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    let seen = window.until("80 columns", |seen| {
        let widest = seen.lines().map(|line| line.chars().count()).max();
        widest == Some(80) && seen.contains("q quit")
    });
    assert!(halves(&seen)[1].contains("epoll_et"), "{seen}");

    // A scene, as fast as it is written, with new servers.
    window.keys(&["p", "Enter", "+", "+"]);
    window.shows("over, as fast as written");
    both("the scene", [&["close(4 talker) = ok"], &["close(9 talker) = ok"]]);

    window.keys(&["q"]);
    window.is_given_back(0);
    nobody_is_left(&mark);

    // The front door itself, without a word.
    window.keys(&["clear", "Enter"]);
    window.line(&format!("{mark} {program}"));
    both("the usual", [&["blocking", "in accept4(3"], &["in epoll_wait("]]);
    window.keys(&["o", "s"]);
    let echoed: [&[&str]; 2] = [
        &["send(4 client 1) = 64 bytes"],
        &["recv(7 client 1) = 64 bytes", "send(7 client 1) = 64 bytes"],
    ];
    both("an echo", echoed);
    window.keys(&["q"]);
    window.is_given_back(0);
    nobody_is_left(&mark);

    window.keys(&["clear", "Enter"]);
    live("blocking-process select_server --scene three-clients");
    both("children", [&["child 1 in recv("], &["in select()"]]);
    window.keys(&["Space"]);
    window.shows("ms, paused, 10 times slower");
    let watch = *marked(&mark).iter().min().expect("it runs");
    kill(watch, Signal::SIGTERM).unwrap();
    window.is_given_back(143);
    nobody_is_left(&mark);
}

#[test]
fn without_a_terminal_it_says_so() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watch"));
    let output = command.arg("live").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("needs a terminal"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

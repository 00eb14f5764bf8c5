//! A headless Chromium, told what to do over the DevTools protocol.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How long one answer, or one condition, may take.
const PATIENCE: Duration = Duration::from_secs(20);

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const FLAGS: [&str; 12] = [
    "--headless",
    // It refuses to run as root otherwise, as CI does.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// The browser with one open page; dropping it ends it with all that it has
/// started.
pub struct Browser {
    child: Child,
    folder: tempfile::TempDir,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Value,
    last: u64,
    /// What the page threw or logged as an error.
    errors: VecDeque<String>,
}

impl Browser {
    /// Where Chromium is, if it is installed.
    pub fn installed() -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let places = NAMES
            .iter()
            .flat_map(|name| folders.iter().map(move |it| it.join(name)));
        places.into_iter().find(|place| place.is_file())
    }

    /// Starts it with an empty page.
    pub fn start(program: &Path) -> Result<Browser> {
        let folder = tempfile::tempdir()?;
        let mut child = spawn(program, folder.path())?;
        let to = child.stdin.take().context("its stdin")?;
        let from = messages(child.stdout.take().context("its stdout")?);
        let session = Value::Null;
        let errors = VecDeque::new();
        let mut browser =
            Browser { child, folder, to, from, session, last: 0, errors };
        let about = json!({ "url": "about:blank" });
        let target = browser.tell("Target.createTarget", about)?;
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.tell("Target.attachToTarget", target)?;
        browser.session = attached["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            browser.tell(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Where it keeps what it writes; its processes name it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Opens a text as a page.
    pub fn open(&mut self, html: &str) -> Result<()> {
        let path = self.folder.path().join("page.html");
        fs::write(&path, html)?;
        self.visit(&format!("file://{}", path.display()))
    }

    /// Goes to an address.
    pub fn visit(&mut self, url: &str) -> Result<()> {
        self.tell("Page.navigate", json!({ "url": url }))?;
        self.until("document.readyState === 'complete'")
    }

    /// The window's size, in pixels.
    pub fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let size = json!({
            "width": width,
            "height": height,
            "deviceScaleFactor": 1,
            "mobile": false,
        });
        self.tell("Emulation.setDeviceMetricsOverride", size).map(drop)
    }

    /// What a reader prefers, as `prefers-color-scheme: dark`.
    pub fn prefer(&mut self, features: &[(&str, &str)]) -> Result<()> {
        let features = features
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value }));
        let features = json!({ "features": features.collect::<Vec<_>>() });
        self.tell("Emulation.setEmulatedMedia", features).map(drop)
    }

    /// What an expression of the page is.
    pub fn eval(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({ "expression": expression, "returnByValue": true });
        let found = self.tell("Runtime.evaluate", asked)?;
        if let Some(thrown) = found.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(found["result"]["value"].clone())
    }

    /// The same, as text.
    pub fn text(&mut self, expression: &str) -> Result<String> {
        let found = self.eval(expression)?;
        let text = found
            .as_str()
            .with_context(|| format!("{expression} is no text: {found}"))?;
        Ok(text.to_owned())
    }

    /// Waits until an expression of the page is true.
    pub fn until(&mut self, expression: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.eval(expression)? != json!(true) {
            ensure!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} for: {expression}"
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The mouse: `mouseMoved`, `mousePressed`, `mouseReleased`.
    pub fn mouse(&mut self, what: &str, (x, y): (f64, f64)) -> Result<()> {
        let is_down = what != "mouseMoved";
        let event = json!({
            "type": what,
            "x": x,
            "y": y,
            "button": if is_down { "left" } else { "none" },
            "clickCount": u8::from(is_down),
        });
        self.tell("Input.dispatchMouseEvent", event).map(drop)
    }

    /// A key is struck; letters and signs by themselves, others by name.
    pub fn key(&mut self, key: &str) -> Result<()> {
        let (text, number) = match key {
            "Enter" => ("\r", 13),
            "Tab" => ("", 9),
            _ if key.chars().count() == 1 => (key, 0),
            _ => ("", 0),
        };
        // With text it is a keyDown: one that writes.
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        for (what, text) in [(down, text), ("keyUp", "")] {
            let event = json!({
                "type": what,
                "key": key,
                "text": text,
                "windowsVirtualKeyCode": number,
            });
            self.tell("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// A picture of what is seen, as base64 of a PNG.
    #[allow(dead_code)]
    pub fn picture(&mut self) -> Result<String> {
        let found = self.tell("Page.captureScreenshot", json!({}))?;
        Ok(found["data"].as_str().unwrap_or_default().to_owned())
    }

    /// Fails with what the page threw or logged as an error.
    pub fn no_errors(&mut self) -> Result<()> {
        // An answer comes behind whatever was logged before.
        self.eval("0")?;
        ensure!(self.errors.is_empty(), "on the console: {:?}", self.errors);
        Ok(())
    }

    /// Sends a command and waits for its answer.
    pub fn tell(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last += 1;
        let mut command =
            json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        let mut bytes = serde_json::to_vec(&command)?;
        bytes.push(0);
        self.to.write_all(&bytes).context("Chromium has gone")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.from.recv_timeout(left);
            let message =
                message.with_context(|| format!("no answer to {method}"))?;
            if message["id"] != json!(self.last) {
                self.note(&message);
            } else if let Some(error) = message.get("error") {
                bail!("{method}: {error}");
            } else {
                return Ok(message["result"].clone());
            }
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let is_error = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => params["type"] == "error",
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            _ => false,
        };
        if is_error {
            self.errors.push_back(params.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id() as i32);
        // Whoever has gone by itself is not missed.
        let _gone = killpg(group, Signal::SIGKILL);
        let _gone = self.child.wait();
        // Some of its processes leave the group; all name the folder.
        for pid in naming(self.folder.path()) {
            let _gone = kill(pid, Signal::SIGKILL);
        }
    }
}

/// In a group of its own, with the protocol on its descriptors 3 and 4.
fn spawn(program: &Path, folder: &Path) -> Result<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.args([
        "-c",
        "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
        "sh",
    ]);
    shell.arg(program).args(FLAGS);
    shell.arg(format!("--user-data-dir={}", folder.display()));
    shell.arg("about:blank").process_group(0);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped());
    shell.spawn().context("Chromium cannot be started")
}

/// What it says, from a thread of its own: each message ends with a zero.
fn messages(mut from: impl Read + Send + 'static) -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (mut kept, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            kept.extend_from_slice(&chunk[..count]);
            while let Some(end) = kept.iter().position(|&byte| byte == 0) {
                let message: Vec<u8> = kept.drain(..=end).collect();
                let message = serde_json::from_slice(&message[..end]);
                if sender.send(message.unwrap_or_default()).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// The processes whose command line names a folder.
pub fn naming(folder: &Path) -> Vec<Pid> {
    let folder = folder.to_string_lossy().into_owned();
    let names_it = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&folder)
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| names_it(pid))
        .map(Pid::from_raw)
        .collect()
}

//! The frame of a pitfall: a famous mistake in two small twins. The broken one
//! must show its symptom, the mended one must not; else the program fails, so
//! that `cargo test`, which runs it, proves that the symptom is real.
#![forbid(unsafe_code)]

use std::env;
use std::io::{self, Write};
use std::process::{Command, ExitCode, exit};
use std::thread;
use std::time::Duration;

use anyhow::{Error, Result, ensure};
use skipped::Skipped;

mod about;
mod skipped;

pub use about::About;

/// The longest that both twins together may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells a child of a pitfall what it is.
const ROLE: &str = "PITFALL_ROLE";

/// What a twin has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The symptom that the head of the file describes.
    Symptom,
    /// The same steps, and no symptom.
    Health,
}

impl Shown {
    /// The symptom, if this holds.
    pub fn symptom_if(holds: bool) -> Shown {
        if holds { Shown::Symptom } else { Shown::Health }
    }
}

/// Turns the error of a call into what skips the pitfall where the system has
/// no such call or does not allow it. `what` names the call's family.
///
/// ```ignore
/// let ring = IoUring::new(8).map_err(or_skipped("io_uring"))?;
/// ```
pub fn or_skipped(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| match Skipped::of(what, &error) {
        Some(skipped) => skipped.into(),
        None => Error::new(error).context(what),
    }
}

/// One of the two servers, or whatever takes their place, and its client.
pub type Twin = fn() -> Result<Shown>;

/// Makes `main` of an example out of its two twins, and of what its children
/// do when [`child`] starts one. The head of the file says what it is about.
///
/// ```ignore
/// //! A title, as one sentence that names the mistake.
/// //!
/// //! Symptom: what is seen.
/// //!
/// //! Cause: why, with the manual page.
/// //!
/// //! Fix: what to do instead, and which server here does it.
/// pitfall::pitfall!(broken, mended);
/// pitfall::pitfall!(broken, mended, child: become_a_child);
/// ```
#[macro_export]
macro_rules! pitfall {
    ($broken:expr, $mended:expr) => {
        $crate::pitfall!($broken, $mended, child: |_| Ok(()));
    };
    ($broken:expr, $mended:expr, child: $child:expr) => {
        fn main() -> std::process::ExitCode {
            const NAME: &str = env!("CARGO_CRATE_NAME");
            const SOURCE: &str =
                include_str!(concat!(env!("CARGO_CRATE_NAME"), ".rs"));
            $crate::main(NAME, SOURCE, $broken, $mended, $child)
        }
    };
}

/// Prints a line of the story, as `println!` would, but goes on when nobody
/// reads it.
#[macro_export]
macro_rules! say {
    ($($word:tt)*) => { $crate::print(&format!($($word)*)) };
}

/// What [`say!`] does.
pub fn print(line: &str) {
    tell(&format!("  {line}"));
}

fn tell(text: &str) {
    // A reader may go away; the pitfall is to end all the same.
    let _lost = writeln!(io::stdout(), "{text}");
}

/// This program again, with another role: its `child` function is called with
/// the role's name instead of the twins.
pub fn child(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(ROLE, role);
    command
}

/// What [`pitfall!`] makes `main` do.
pub fn main(
    name: &str,
    source: &str,
    broken: Twin,
    mended: Twin,
    child: fn(&str) -> Result<()>,
) -> ExitCode {
    if let Ok(role) = env::var(ROLE) {
        return match child(&role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(name, &format!("{role}: {error:#}")),
        };
    }
    if filtered_out(name) {
        return ExitCode::SUCCESS;
    }
    let name = name.to_owned();
    thread::spawn({
        let name = name.clone();
        move || {
            thread::sleep(PATIENCE);
            failed(&name, "it does not end");
            exit(1)
        }
    });
    match shown(&name, source, broken, mended) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Skipped>() => {
            tell(&format!("SKIPPED: {error}"));
            ExitCode::SUCCESS
        }
        Err(error) => failed(&name, &format!("{error:#}")),
    }
}

fn shown(name: &str, source: &str, broken: Twin, mended: Twin) -> Result<()> {
    let about = About::of(source)?;
    tell(&format!("{name}: {}\n\nThe broken twin", about.title));
    let first = broken()?;
    ensure!(first == Shown::Symptom, "the symptom did not appear");
    tell(&format!("\n{}\n\nThe mended twin", about.broken()));
    let second = mended()?;
    ensure!(second == Shown::Health, "mended, the symptom is there");
    tell(&format!("\n{}", about.mended()));
    Ok(())
}

fn failed(name: &str, why: &str) -> ExitCode {
    // Nothing is left to tell when this cannot be written either.
    let _lost = writeln!(io::stderr(), "{name}: {why}");
    ExitCode::FAILURE
}

/// As a test among others, asked by `cargo test NAME` for some of them, or
/// only for the list.
fn filtered_out(name: &str) -> bool {
    let mut words = env::args().skip(1).peekable();
    let mut filters = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => return true,
            // These take a value; the others stand alone.
            "--test-threads" | "--skip" | "--format" | "--color" => {
                words.next();
            }
            word if word.starts_with('-') => {}
            word => filters.push(word.to_owned()),
        }
    }
    !filters.is_empty() && !filters.iter().any(|it| name.contains(&**it))
}

//! The suite is tested as well: every case fails on a server that makes the
//! mistake it is there for, and passes on one that makes none.

use std::process::ExitCode;

use bench::broken::Fault;
use bench::check::{self, Case, Context, Outcome, Tier};
use bench::harness::{self, Target};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    bench::serve_if_asked();
    harness::raise_descriptor_limit();
    let mut args = Arguments::from_args();
    // A case that fails mostly waits in vain, so that there is room for more
    // at a time than there are cores.
    args.test_threads = Some(args.test_threads.unwrap_or(8).min(8));
    let mut trials = vec![Trial::test("every_case_can_fail", all_can_fail)];
    for &fault in Fault::all() {
        for name in fault.catches() {
            let trial = format!("{}::{name}", fault.name());
            trials.push(Trial::test(trial, move || must_catch(fault, name)));
        }
    }
    for case in check::cases() {
        for sound in sound_ones(case) {
            let trial = format!("{}::{}", sound.name(), case.name);
            trials.push(Trial::test(trial, move || must_pass(case, sound)));
        }
    }
    // Last, because before each of them all others pause.
    trials.sort_by_cached_key(|trial| {
        let name = trial.name().rsplit("::").next();
        check::cases().any(|case| case.alone && Some(case.name) == name)
    });
    libtest_mimic::run(&args, trials).exit_code()
}

/// A case that no mistake is listed for may be unable to fail at all.
fn all_can_fail() -> Result<(), Failed> {
    let unproven: Vec<&str> = check::cases()
        .map(|case| case.name)
        .filter(|name| {
            !Fault::all().iter().any(|fault| fault.catches().contains(name))
        })
        .collect();
    if unproven.is_empty() {
        return Ok(());
    }
    Err(format!("no broken server is caught by {unproven:?}").into())
}

/// The servers without a mistake that a case must pass on: the twins of those
/// that it must fail on.
fn sound_ones(case: &Case) -> Vec<Fault> {
    let catches = |fault: &&Fault| fault.catches().contains(&case.name);
    let caught = Fault::all().iter().filter(catches);
    let mut sound: Vec<Fault> = caught.map(|fault| fault.twin()).collect();
    sound.sort_by_key(|fault| fault.name());
    sound.dedup();
    sound
}

fn run(case: &Case, fault: Fault) -> anyhow::Result<Outcome> {
    let target = Target::Broken(fault.name());
    let context = Context::new(target, Tier::Quick, fastrand::u64(..));
    check::run(case, &context).0
}

fn must_catch(fault: Fault, name: &str) -> Result<(), Failed> {
    let Some(case) = check::cases().find(|case| case.name == name) else {
        return Err(format!("no case is called {name}").into());
    };
    match run(case, fault) {
        Err(_caught) => Ok(()),
        Ok(Outcome::Skipped(reason)) => {
            println!("{}::{name} SKIPPED: {reason}", fault.name());
            Ok(())
        }
        Ok(Outcome::Passed(seen) | Outcome::Excluded(seen)) => {
            let does = fault.does();
            Err(format!("not caught ({does}): {seen}").into())
        }
    }
}

fn must_pass(case: &Case, sound: Fault) -> Result<(), Failed> {
    match run(case, sound) {
        Ok(Outcome::Passed(_)) => Ok(()),
        Ok(Outcome::Skipped(reason)) => {
            println!("{}::{} SKIPPED: {reason}", sound.name(), case.name);
            Ok(())
        }
        Ok(Outcome::Excluded(why)) => {
            Err(format!("excluded from a server without limits: {why}").into())
        }
        Err(error) => Err(format!("{error:#}").into()),
    }
}

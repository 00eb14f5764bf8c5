//! Every case of the suite against every row of the table, at the sizes that
//! fit into `cargo test`.

use std::process::ExitCode;

use bench::check::{self, Context, Outcome, Tier};
use bench::harness::{self, Target};
use bench::models::MODELS;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    bench::serve_if_asked();
    harness::raise_descriptor_limit();
    let mut args = Arguments::from_args();
    // Most cases mostly wait, so that there is room for more at a time than
    // there are cores; those that measure run alone.
    args.test_threads = Some(args.test_threads.unwrap_or(8).min(8));
    libtest_mimic::run(&args, trials()).exit_code()
}

/// Those that run alone come last: before each of them all others pause.
///
/// Neighbours differ in model and case, lest all that run at a time spin, or
/// all fill the queue of signals.
fn trials() -> Vec<Trial> {
    let (alone, beside): (Vec<_>, Vec<_>) =
        check::cases().partition(|case| case.alone);
    let mut trials = Vec::new();
    for cases in [beside, alone] {
        for first in 0..cases.len() {
            let cases = cases.iter().copied().cycle().skip(first);
            for (model, case) in MODELS.iter().zip(cases) {
                let name = format!("{}::{}", model.name, case.name);
                let target = Target::Model(model);
                trials.push(Trial::test(name, move || try_one(case, target)));
            }
        }
    }
    trials
}

fn try_one(case: &check::Case, target: Target) -> Result<(), Failed> {
    let context = Context::new(target, Tier::Quick, fastrand::u64(..));
    let name = context.target.name();
    match check::run(case, &context).0 {
        Ok(Outcome::Passed(_) | Outcome::Excluded(_)) => Ok(()),
        Ok(Outcome::Skipped(reason)) => {
            println!("{name}::{} SKIPPED: {reason}", case.name);
            Ok(())
        }
        Err(error) => Err(format!("{error:#} (seed {})", context.seed).into()),
    }
}

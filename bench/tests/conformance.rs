//! Every case of the suite against every row of the table, at the sizes that
//! fit into `cargo test`.

use std::process::ExitCode;

use bench::check::{self, Context, Outcome, Tier};
use bench::harness::{self, Target};
use bench::models::{Limits, MODELS, NO_LIMITS};
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

/// The one that looks for TIME_WAIT comes first: the kernel keeps only so many
/// sockets in that state (tcp(7), tcp_max_tw_buckets), and the others fill its
/// table. Those that run alone come last: before each of them all others pause.
///
/// Neighbours differ in model and case, lest all that run at a time spin, or
/// all fill the queue of signals.
fn trials() -> Vec<Trial> {
    let (alone, beside): (Vec<_>, Vec<_>) =
        check::cases().partition(|case| case.alone);
    let (first, beside): (Vec<_>, Vec<_>) = beside
        .into_iter()
        .partition(|case| case.name == "restart_in_time_wait");
    let mut trials = Vec::new();
    for cases in [first, beside, alone] {
        for first in 0..cases.len() {
            let cases = cases.iter().copied().cycle().skip(first);
            for (model, case) in MODELS.iter().zip(cases) {
                let target = Target::Model(model);
                let limits = target.limits();
                trials.push(trial(model.name, case, target, limits));
            }
        }
        for (call, limits) in CALLS {
            let line = format!(
                "exec /proc/{}/exe serve reactor --watch off --demultiplexer \
                 {call} --addr {{addr}}",
                std::process::id()
            );
            let name = format!("reactor, {call}");
            for case in &cases {
                let target = Target::Command(line.clone());
                trials.push(trial(&name, case, target, limits));
            }
        }
    }
    trials
}

/// The ways to wait besides its best in which the reactor's one handler must
/// serve as well.
const CALLS: [(&str, &Limits); 3] = [
    ("select", &Limits { descriptors_below: Some(1024), ..NO_LIMITS }),
    ("poll", &NO_LIMITS),
    ("epoll-et", &NO_LIMITS),
];

fn trial(
    name: &str,
    case: &'static check::Case,
    target: Target,
    limits: &'static Limits,
) -> Trial {
    let name = format!("{name}::{}", case.name);
    let shown = name.clone();
    Trial::test(name, move || {
        let context = Context::new(target, Tier::Quick, fastrand::u64(..));
        try_one(&shown, case, &context.with_limits(limits))
    })
}

fn try_one(
    name: &str,
    case: &check::Case,
    context: &Context,
) -> Result<(), Failed> {
    match check::run(case, context).0 {
        Ok(Outcome::Passed(_) | Outcome::Excluded(_)) => Ok(()),
        Ok(Outcome::Skipped(reason)) => {
            println!("{name} SKIPPED: {reason}");
            Ok(())
        }
        Err(error) => Err(format!("{error:#} (seed {})", context.seed).into()),
    }
}

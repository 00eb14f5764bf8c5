//! Figures of every model in one scene, held against what is known of the run
//! from elsewhere; and that those in docs/book/figures are of the same kind.

#[path = "figure/data.rs"]
mod data;
#[path = "figure/drawn.rs"]
mod drawn;

use std::process::ExitCode;
use std::sync::{LazyLock, Mutex};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use bench::models::{self, MODELS, Model};
use libtest_mimic::{Arguments, Trial};
use watch::figure::data::{Figure, Page, Phase, What};
use watch::figure::{figure, page};
use watch::scene::Scene;

fn main() -> ExitCode {
    bench::serve_if_asked();
    let arguments = Arguments::from_args();
    let of_page = |name: &str, test: fn(&Page) -> Result<()>| {
        Trial::test(name, move || {
            Ok(test(made()?).map_err(|error| format!("{error:#}"))?)
        })
    };
    let trials = vec![
        of_page("no_two_bars_of_a_lane_overlap", data::no_overlap),
        of_page("sleep_is_as_long_as_the_kernel_says", data::sleep),
        of_page("every_byte_is_found_once_in_each_copy", data::bytes),
        of_page("a_look_holds_a_whole_message", data::looks),
        of_page("each_model_has_its_file", drawn::each),
        of_page("the_page_has_every_model", drawn::all),
        of_page("no_text_covers_another", drawn::texts),
        of_page("the_documents_show_the_same", drawn::documents),
        Trial::test("who_waits_for_a_slow_client_is_seen", || {
            Ok(slow_client()?)
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The figures of all models; made once, for all tests.
fn made() -> Result<&'static Page> {
    static PAGE: LazyLock<Result<Page>> = LazyLock::new(make);
    PAGE.as_ref().map_err(|error| anyhow!("{error:#}"))
}

fn make() -> Result<Page> {
    let scene = Scene::find("three-clients")?;
    // Who is never at rest has the machine to itself.
    let restless =
        |model: &&Model| model.limits.burns_core || model.limits.idle_wakes;
    let (alone, others): (Vec<&Model>, Vec<&Model>) =
        MODELS.iter().partition(restless);
    let mut figures = several(&alone, 1, &scene)?;
    figures.extend(several(&others, 2, &scene)?);
    let row = |figure: &Figure| {
        MODELS.iter().position(|model| model.name == figure.model)
    };
    figures.sort_by_key(row);
    Ok(page(&scene, figures))
}

/// So many at a time.
fn several(
    models: &[&'static Model],
    at_a_time: usize,
    scene: &Scene,
) -> Result<Vec<Figure>> {
    let left = Mutex::new(models.iter());
    let next = || left.lock().ok()?.next();
    let work = || -> Result<Vec<Figure>> {
        std::iter::from_fn(next).map(|model| figure(model, scene)).collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..at_a_time).map(|_| scope.spawn(work)).collect();
        let mut figures = Vec::new();
        for thread in threads {
            let done = thread.join().ok().context("a thread panicked")?;
            figures.extend(done?);
        }
        Ok(figures)
    })
}

/// In the lane of the quick client: with the sequential server it is not
/// answered until the slow one has gone, which the lane shows.
fn slow_client() -> Result<()> {
    let scene = Scene::find("one-slow")?;
    for (name, waits) in [("blocking", true), ("epoll_lt", false)] {
        let model = models::find(name).context("no such model")?;
        let figure = figure(model, &scene)?;
        let lane = |name: &str| {
            let lane = figure.lanes.iter().find(|lane| lane.name == name);
            lane.with_context(|| format!("no lane of {name}"))
        };
        let mut marks = lane("slow")?.marks.iter();
        let left = marks.find(|mark| mark.what == What::Fin);
        let left = left.context("the slow client never left")?.at;
        let unanswered = lane("quick")?.bars.iter().find(|bar| {
            bar.phase == Phase::Unanswered && bar.from < left && bar.to >= left
        });
        ensure!(unanswered.is_some() == waits, "{name}: {unanswered:?}");
    }
    Ok(())
}

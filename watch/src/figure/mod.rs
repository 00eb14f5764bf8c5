//! The figure: what a server and its clients did in a scene, on one time axis.

mod build;
pub mod data;
pub mod page;
mod run;
pub mod slowdown;
pub mod svg;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use bench::measure::this_machine;
use bench::models::Model;

use crate::scene::Scene;
use data::{Figure, Page};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One file.
    Svg,
    /// A page to zoom into.
    Html,
    /// A file for each model, and one for all, in a folder.
    Folder,
}

impl Form {
    /// By the name of the file or folder.
    pub fn of(out: &Path) -> Result<Form, String> {
        let name = out.to_string_lossy();
        let ending = out.extension().map(|ending| ending.to_string_lossy());
        // Else it would be found out after all the runs.
        let folder = out.parent().filter(|it| !it.as_os_str().is_empty());
        if !name.ends_with('/') && folder.is_some_and(|it| !it.is_dir()) {
            return Err(format!("'{name}' lies in a folder that is not there"));
        }
        match ending.as_deref() {
            _ if name.ends_with('/') || out.is_dir() => Ok(Form::Folder),
            Some("svg") => Ok(Form::Svg),
            Some("html") => Ok(Form::Html),
            _ => Err(format!(
                "'{name}' ends in neither .svg nor .html, and is no folder (a \
                 slash at the end makes it one)"
            )),
        }
    }
}

/// Plays the scene with each of the models, and draws what they did. Each is
/// told to `progress` as it begins.
pub fn run(
    models: &[&'static Model],
    scene: &Scene,
    form: Form,
    out: &Path,
    progress: impl Fn(&str),
) -> Result<()> {
    let figures = models.iter().map(|model| {
        progress(model.name);
        let mut figure = figure(model, scene)?;
        // The page has room to say it.
        if form == Form::Html {
            let slowdown = slowdown::measure(model);
            figure.slowdown = Some(slowdown.with_context(|| model.name)?);
        }
        Ok(figure)
    });
    let page = page(scene, figures.collect::<Result<_>>()?);
    draw(&page, form, out)
}

/// Plays the scene with one model.
pub fn figure(model: &'static Model, scene: &Scene) -> Result<Figure> {
    let run = run::record(model, scene).with_context(|| model.name)?;
    Ok(build::figure(&run, scene))
}

/// Figures of one scene, together.
pub fn page(scene: &Scene, figures: Vec<Figure>) -> Page {
    let machine = this_machine();
    let cores = match machine.cores {
        1 => "1 core".to_owned(),
        cores => format!("{cores} cores"),
    };
    Page {
        scene: scene.name.clone(),
        title: scene.title.clone(),
        machine: format!("{}, {cores}: {}", machine.kernel, machine.cpu),
        date: machine.date.chars().take(10).collect(),
        span: figures.iter().map(|it| it.span).max().unwrap_or(0),
        figures,
    }
}

/// Writes what a form is made of.
pub fn draw(page: &Page, form: Form, out: &Path) -> Result<()> {
    let write = |path: &Path, text: &str| {
        fs::write(path, text).with_context(|| path.display().to_string())
    };
    match (form, &page.figures[..]) {
        (Form::Svg, [figure]) => write(out, &svg::one(page, figure)),
        (Form::Svg, _) => write(out, &svg::all(page)),
        (Form::Html, _) => write(out, &page::html(page)),
        (Form::Folder, figures) => {
            fs::create_dir_all(out)
                .with_context(|| out.display().to_string())?;
            for figure in figures {
                let path = out.join(format!("{}.svg", figure.model));
                write(&path, &svg::one(page, figure))?;
            }
            write(&out.join("models.svg"), &svg::all(page))
        }
    }
}

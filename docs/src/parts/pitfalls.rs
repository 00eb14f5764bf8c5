//! Pitfalls: found in the servers' `examples/`, told by the heads of their
//! files.

use std::fs;

use anyhow::{Context, Result};
use bench::models::MODELS;
use pitfall::About;

use crate::source;

/// A pitfall: an example of a server's crate.
pub struct Example {
    /// The crate.
    pub package: &'static str,
    /// Its file's name without the ending.
    pub name: String,
    /// What the head of its file says.
    pub about: About,
}

impl Example {
    /// By crate and name.
    ///
    /// Fails when it is not there, or its head lacks a part.
    fn read(package: &'static str, name: &str) -> Result<Example> {
        let path = format!("{package}/examples/{name}.rs");
        let about = About::of(&source::text(&path)?).context(path)?;
        Ok(Example { package, name: name.to_owned(), about })
    }

    /// Its file, by its path in the workspace.
    pub fn path(&self) -> String {
        format!("{}/examples/{}.rs", self.package, self.name)
    }

    /// What a reader types.
    pub fn command(&self) -> String {
        let Example { package, name, .. } = self;
        format!("cargo run --release -p {package} --example {name}")
    }
}

/// Every pitfall, in the order of the models.
pub fn all() -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    let mut last = "";
    for model in MODELS {
        if std::mem::replace(&mut last, model.binary) == model.binary {
            continue;
        }
        let folder = source::root().join(model.binary).join("examples");
        let Ok(files) = fs::read_dir(folder) else { continue };
        let mut names = Vec::new();
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|it| it == "rs") {
                let name = path.file_stem().unwrap_or_default();
                let name = name.to_string_lossy().into_owned();
                // The stages of the reactor are no pitfalls.
                if !name.starts_with("step") {
                    names.push(name);
                }
            }
        }
        names.sort();
        for name in names {
            examples.push(Example::read(model.binary, &name)?);
        }
    }
    Ok(examples)
}

/// `CRATE NAME`: a pitfall as a chapter tells it.
pub fn one(words: &str, up: &str) -> Result<String> {
    let (package, name) = words.split_once(' ').context("say: CRATE NAME")?;
    let model = MODELS.iter().find(|model| model.binary == package);
    let package = model.with_context(|| format!("no server '{package}'"))?;
    let example = Example::read(package.binary, name)?;
    let About { title, symptom, cause, fix } = &example.about;
    let (path, command) = (example.path(), example.command());
    Ok(format!(
        "> **{title}**\n>\n> *Symptom.* {symptom}\n>\n> *Cause.* {cause}\n>\n\
         > *Fix.* {fix}\n>\n> <sub>[{path}]({up}{path})</sub>\n\n\
         ```console\n$ {command}\n```"
    ))
}

/// All of them.
pub fn table(up: &str) -> Result<String> {
    let mut lines = vec![
        "| Pitfall | Symptom | `cargo run --release` |".to_owned(),
        "|---|---|---|".to_owned(),
    ];
    for example in all()? {
        let About { title, symptom, .. } = &example.about;
        let Example { package, name, .. } = &example;
        let path = example.path();
        lines.push(format!(
            "| [{title}]({up}{path}) | {symptom} | \
             `-p {package} --example {name}` |"
        ));
    }
    Ok(lines.join("\n"))
}

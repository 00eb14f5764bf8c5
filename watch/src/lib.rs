//! The front door: plays one scene of three scripted clients against every
//! server of the table, and shows what each model made of it.
#![forbid(unsafe_code)]

mod cli;
mod compare;
mod lesson;
mod measure;
mod page;
mod record;
mod scene;

pub use cli::main;

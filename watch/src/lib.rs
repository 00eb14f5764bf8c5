//! The front door: plays scenes of scripted clients with the servers of the
//! table, live, as a comparison and as figures.
#![forbid(unsafe_code)]

mod cli;
pub mod clients;
mod clock;
mod compare;
pub mod figure;
pub mod live;
pub mod narrate;
pub mod player;
mod progress;
pub mod record;
pub mod scene;
mod words;

pub use cli::main;

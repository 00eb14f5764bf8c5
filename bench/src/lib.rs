//! The table of models; what holds every server to its promises, loads it and
//! compares it, all through real processes.

pub mod broken;
pub mod check;
pub mod command;
pub mod compare;
pub mod harness;
pub mod load;
pub mod measure;
pub mod models;
pub mod report;
pub mod results;
mod sys;

pub use models::serve_if_asked;

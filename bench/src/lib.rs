//! The table of models, and the conformance suite that holds every server
//! against it through real processes.

pub mod broken;
pub mod check;
pub mod harness;
pub mod load;
pub mod measure;
pub mod models;
pub mod readme;
pub mod report;
pub mod results;
mod sys;

pub use models::serve_if_asked;

//! The table of models, and the conformance suite that holds every server
//! against it through real processes.

#[cfg(not(target_os = "linux"))]
compile_error!("Linux only: use a container, a virtual machine or WSL2");

pub mod broken;
pub mod check;
pub mod harness;
pub mod models;
pub mod readme;
mod sys;

pub use models::serve_if_asked;

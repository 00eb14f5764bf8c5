//! The front door: plays one scene of three scripted clients against every
//! server of the table, and shows what each model made of it.
#![forbid(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("Linux only: use a container, a virtual machine or WSL2");

mod cli;
mod compare;
mod lesson;
mod measure;
mod page;
mod record;
mod scene;

pub use cli::main;

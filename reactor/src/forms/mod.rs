//! The forms in which programs use reactors; all echo through one handler.

pub mod futures;
pub mod pool;
pub mod processes;
pub mod single;
pub mod threads;

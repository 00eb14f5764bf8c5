//! The book: what is generated in it and held fresh, how it is built, and
//! what its tests look at.

pub mod basics;
pub mod book;
pub mod check;
mod cli;
pub mod commands;
pub mod events;
pub mod markdown;
pub mod parts;
pub mod serve;
pub mod source;

pub use cli::{main, serve_if_asked};

//! Builds the book, serves it, and refreshes what is generated in it.

use std::process::ExitCode;

fn main() -> ExitCode {
    docs::serve_if_asked();
    docs::main()
}

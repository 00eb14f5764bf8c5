//! What `bench --help` tells of: holds servers against the conformance suite,
//! loads them, and compares them.

use std::process::ExitCode;

fn main() -> ExitCode {
    bench::serve_if_asked();
    bench::command::main()
}

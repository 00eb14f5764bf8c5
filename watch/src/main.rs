//! The front door: shows the I/O models at work, side by side.
use std::process::ExitCode;

fn main() -> ExitCode {
    bench::serve_if_asked();
    watch::main()
}

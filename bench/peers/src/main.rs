//! `peers --help` tells of them; each has a file of its own.
fn main() -> std::process::ExitCode {
    peers::main(std::env::args_os())
}

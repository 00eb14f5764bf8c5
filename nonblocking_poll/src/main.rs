//! `nonblocking_poll --help` explains the model; `lib.rs` is the model.
fn main() -> std::process::ExitCode {
    echo::main::<nonblocking_poll::Server>(std::env::args_os())
}

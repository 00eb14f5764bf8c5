//! `poll_server --help` explains the model; `lib.rs` is the model.
fn main() -> std::process::ExitCode {
    echo::main::<poll_server::Server>(std::env::args_os())
}

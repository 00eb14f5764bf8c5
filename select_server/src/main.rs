//! `select_server --help` explains the model; `lib.rs` is the model.
fn main() -> std::process::ExitCode {
    echo::main::<select_server::Server>(std::env::args_os())
}

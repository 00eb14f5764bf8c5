//! `proactor --help` explains the model; `lib.rs` is the model.
fn main() -> std::process::ExitCode {
    echo::main::<proactor::Server>(std::env::args_os())
}

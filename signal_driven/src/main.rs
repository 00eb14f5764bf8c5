//! `signal_driven --help` explains the model; `lib.rs` is the model.
fn main() -> std::process::ExitCode {
    echo::main::<signal_driven::Server>(std::env::args_os())
}

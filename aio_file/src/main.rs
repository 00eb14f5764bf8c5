//! `aio_file --help` explains the model; `lib.rs` is the model.
fn main() -> std::process::ExitCode {
    echo::main::<aio_file::Server>(std::env::args_os())
}

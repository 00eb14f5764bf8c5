//! `epoll_et --help` explains the model; `lib.rs` is the model.
fn main() -> std::process::ExitCode {
    echo::main::<epoll_et::Server>(std::env::args_os())
}

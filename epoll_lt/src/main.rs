//! `epoll_lt --help` explains the model; `lib.rs` is the model.
fn main() -> std::process::ExitCode {
    echo::main::<epoll_lt::Server>(std::env::args_os())
}

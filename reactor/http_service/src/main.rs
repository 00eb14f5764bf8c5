//! `http_service --help` explains it; `lib.rs` and its modules are the service.
fn main() -> std::process::ExitCode {
    http_service::main()
}

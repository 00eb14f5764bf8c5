//! `reactor --help` explains the model; `lib.rs` is the model.
fn main() -> std::process::ExitCode {
    echo::main::<reactor::Server>(std::env::args_os())
}

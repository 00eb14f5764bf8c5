use clap::{Args, ValueEnum};

/// What this model adds to the common command line.
#[derive(Args)]
pub struct Flags {
    /// Start a process or a thread for each client
    #[arg(long, conflicts_with = "pool")]
    pub per: Option<Per>,
    /// Start N threads, which serve N clients at a time
    #[arg(long, value_name = "N", value_parser = threads)]
    pub pool: Option<usize>,
}

/// Who serves a client.
#[derive(Clone, Copy, ValueEnum)]
pub enum Per {
    Process,
    Thread,
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=10_000) => Ok(n),
        _ => Err("expected a number of threads, 1 to 10000".to_owned()),
    }
}

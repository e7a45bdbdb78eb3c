//! `migrator bench`: measures migrations by starting `vmm` processes as a user would.
#![forbid(unsafe_code)]

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "migrator",
    version,
    about = "Measures live migrations of partitions",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Moves a partition on this machine again and again, beside QEMU if asked, and says what it cost
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let Arguments { command: Command::Bench(options) } = Arguments::parse();
    match bench::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("migrator bench: {}", migrator::report::one_line(&error));
            ExitCode::from(error.status())
        }
    }
}

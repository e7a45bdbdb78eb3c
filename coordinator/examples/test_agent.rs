//! The agent's program again, so that this crate's tests have it without building another package.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::main(std::env::args_os())
}

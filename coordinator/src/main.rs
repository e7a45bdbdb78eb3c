//! The coordinator's program: the server of the head node and its command-line client.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    coordinator::main(std::env::args_os())
}

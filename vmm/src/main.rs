//! `vmm`: one process, one partition. The command line, the control API, and the adapter between partition and migrator.

mod api;
mod arriving;
mod cli;
mod client;
mod hold;
mod host;
mod launch;
mod leaving;
mod receive;
mod report;
mod run;

use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let started_ns = vmm::clock::monotonic_ns();
    // Who was not let in is worth a line.
    let refusals = "error,migrator::destination=warn,vmm::fabric=warn";
    let filter = EnvFilter::try_from_env("PARTITA_LOG").unwrap_or_else(|_| EnvFilter::new(refusals));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let cli = cli::Cli::parse();
    take_all_descriptors();
    let result = match cli.command {
        cli::Command::Run(arguments) if arguments.rank.is_none() && arguments.np > 1 => {
            launch::launch(&arguments)
        }
        cli::Command::Run(arguments) => run::run(&arguments, started_ns),
        cli::Command::Receive(arguments) => receive::receive(&arguments),
        cli::Command::Ctl(arguments) => client::run(&arguments),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            vmm::console::say(format_args!("vmm: {failure}"));
            ExitCode::from(failure.status)
        }
    }
}

/// A partition needs some descriptors for every peer, and the usual soft limit is for programs that use `select`: the hard limit
/// is the administrator's word. If that is not to be had, the fabric says when descriptors run out.
fn take_all_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

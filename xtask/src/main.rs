//! Checks of the source tree: `cargo xtask tidy` and `cargo xtask licences`.
#![forbid(unsafe_code)]

mod arrows;
mod cycles;
mod finding;
mod hashes;
mod leftovers;
mod licences;
mod links;
mod references;
mod rust;
mod sizes;
mod tidy;
mod tokens;
mod tree;
mod unsafety;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use finding::Finding;
use rust::Rust;
use tree::Tree;

/// Checks of the source tree.
#[derive(Parser)]
struct Arguments {
    /// Root of the workspace.
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints everything that breaks a rule of the source tree, as `path:line: what; what to do`.
    Tidy {
        /// First writes the present sizes of what is too large to xtask/ratchet.toml.
        #[arg(long)]
        update_ratchet: bool,
        /// First renews the hashes of docs/hashes.toml: you have read the documents.
        #[arg(long)]
        update_hashes: bool,
    },
    /// Prints every package whose licence or origin deny.toml does not allow.
    Licences,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            findings.iter().for_each(|finding| println!("{finding}"));
            eprintln!("xtask: {} findings", findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            let causes = std::iter::successors(error.source(), |cause: &&dyn Error| (*cause).source());
            let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            eprintln!("xtask: {}", text.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Vec<Finding>, Box<dyn Error>> {
    let mut tree = Tree::load(&arguments.root)?;
    match arguments.command {
        Command::Licences => Ok(licences::check(&arguments.root, &tree)?),
        Command::Tidy { update_ratchet, update_hashes } => {
            if update_ratchet {
                for grown in sizes::update(&tree, &Rust::parse(&tree))? {
                    eprintln!("xtask: new or larger in {}: {grown}", sizes::RATCHET);
                }
            }
            if update_hashes {
                for document in hashes::update(&tree)? {
                    eprintln!("xtask: renewed the hash of {document}");
                }
            }
            if update_ratchet || update_hashes {
                tree = Tree::load(&arguments.root)?;
            }
            Ok(tidy::check(&tree)?)
        }
    }
}

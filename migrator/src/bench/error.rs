//! Why nothing was measured.

use std::io;
use std::path::PathBuf;

use partita_http::HttpError;
use thiserror::Error;

use super::qmp::QmpError;

/// Why a bench ended early.
#[derive(Debug, Error)]
pub enum BenchError {
    /// Options that contradict each other, or something that has to be there and is not.
    #[error("{0}")]
    Usage(String),
    /// A program that is needed is missing.
    #[error("cannot read {path}: {remedy}")]
    Missing {
        /// Its path.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A program cannot be started.
    #[error("cannot start {program}: {remedy}")]
    Start {
        /// Its name.
        program: String,
        /// What to do.
        remedy: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A program that prepares something failed.
    #[error("{command} failed: {said}")]
    Tool {
        /// What was run.
        command: String,
        /// Its last line on stderr.
        said: String,
    },
    /// A suite cannot be understood.
    #[error("{path}: not a suite")]
    Suite {
        /// Its path.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A picture cannot be drawn.
    #[error("cannot draw {path}: {said}")]
    Draw {
        /// Where it was to be.
        path: PathBuf,
        /// The drawing library's reason.
        said: String,
    },
    /// A process ended or did not answer.
    #[error("{who} did not become {wanted}: {said}")]
    NotReady {
        /// The process.
        who: String,
        /// What was waited for.
        wanted: &'static str,
        /// The last it said, or that it said nothing.
        said: String,
    },
    /// The observer does not observe.
    #[error("the observer of {who} saw nothing in {waited_s} s: {said}")]
    Blind {
        /// Of whom.
        who: &'static str,
        /// How long it was waited for.
        waited_s: u64,
        /// The last that the processes said.
        said: String,
    },
    /// A migration of a partition failed.
    #[error("run {run}: the migration failed")]
    Migrate {
        /// From 1.
        run: u32,
        /// What the API said.
        #[source]
        source: HttpError,
    },
    /// A command to QEMU failed.
    #[error("QEMU: {doing} failed ({said})")]
    Qemu {
        /// What was wanted.
        doing: &'static str,
        /// The last that it said on stderr.
        said: String,
        /// Why.
        #[source]
        source: QmpError,
    },
    /// SIGINT or SIGTERM.
    #[error("interrupted; everything that was started has been ended")]
    Interrupted,
}

impl BenchError {
    /// Exit status: 2 for wrong use, 130 after a signal, 1 for a failure.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Missing { .. } | Self::Start { .. } | Self::Suite { .. } => 2,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}

//! Why a command of the command line failed, and whether the user can mend it.

use std::path::PathBuf;

use control::TcpAddress;
use thiserror::Error;

use crate::certificates::CertificatesError;
use crate::client::ClientError;
use crate::journal::JournalError;
use crate::lbaf::LbafError;
use crate::net::ServeError;
use crate::policy::{ImageError, PolicyError};
use planner::checker::Finding;

/// A command that failed.
#[derive(Debug, Error)]
pub(super) enum CliError {
    #[error(
        "{0}: plain TCP to other machines is not protected; write tls:, or add --insecure if the network is"
    )]
    Insecure(TcpAddress),
    #[error(
        "--store: plain HTTP to etcd on other machines is not protected; add --insecure if the network is"
    )]
    InsecureStore,
    #[error("--standby needs a store that several coordinators share; add --store etcd:URL")]
    Standby,
    #[error("--{0} must be a number that is not negative")]
    Number(&'static str),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Lbaf(#[from] LbafError),
    #[error("the plan is refused, please report this: {0}")]
    Checked(#[source] Finding),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{}: there is no such journal", .0.display())]
    NoJournal(PathBuf),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    #[error("the output cannot be written")]
    Output(#[source] std::io::Error),
    #[error("top")]
    Terminal(#[source] std::io::Error),
    #[error("the runtime cannot be started")]
    Runtime(#[source] std::io::Error),
}

impl CliError {
    /// Whether it was asked for in a way that cannot work.
    pub(super) fn is_wrong_use(&self) -> bool {
        matches!(
            self,
            Self::Insecure(_)
                | Self::InsecureStore
                | Self::Standby
                | Self::Number(_)
                | Self::Policy(_)
                | Self::Image(_)
                | Self::Lbaf(_)
                | Self::Certificates(_)
                | Self::Serve(ServeError::Identity(_) | ServeError::Tokens(_))
                | Self::Client(ClientError::Identity(_) | ClientError::Token { .. })
        )
    }
}

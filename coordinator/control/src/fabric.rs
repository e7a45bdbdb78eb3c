//! Where a partition keeps its sockets, so that its peers can be told before it has started.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::{ApplicationId, Epoch, Rank};

/// The directory of one process of a partition under its agent's state directory. Short: socket paths end at 107 bytes.
pub fn partition_directory(state: &Path, application: &ApplicationId, rank: Rank, epoch: Epoch) -> PathBuf {
    directory(state, application, &rank, &epoch)
}

/// Where the fabric of that process listens, or its socket for neighbours.
pub fn fabric_address(state: &Path, application: &ApplicationId, rank: Rank, epoch: Epoch) -> String {
    format!("unix:{}", fabric_path(state, application, &rank, &epoch).display())
}

/// Such sockets of all partitions of an application, as `vmm --neighbours` wants them.
pub fn neighbours(state: &Path, application: &ApplicationId) -> PathBuf {
    fabric_path(state, application, &"{rank}", &"{epoch}")
}

fn directory(state: &Path, application: &ApplicationId, rank: &dyn Display, epoch: &dyn Display) -> PathBuf {
    state.join(format!("{application}.{rank}.{epoch}"))
}

fn fabric_path(
    state: &Path,
    application: &ApplicationId,
    rank: &dyn Display,
    epoch: &dyn Display,
) -> PathBuf {
    directory(state, application, rank, epoch).join(format!("rank-{rank}.fabric"))
}

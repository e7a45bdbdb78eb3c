//! Where a partition keeps its sockets, so that its peers can be told before it has started.

use std::path::{Path, PathBuf};

use crate::{ApplicationId, Epoch, Rank};

/// The directory of one process of a partition under its agent's state directory. Short: socket paths end at 107 bytes.
pub fn partition_directory(state: &Path, application: &ApplicationId, rank: Rank, epoch: Epoch) -> PathBuf {
    state.join(format!("{application}.{rank}.{epoch}"))
}

/// Where the fabric of that process listens.
pub fn fabric_address(state: &Path, application: &ApplicationId, rank: Rank, epoch: Epoch) -> String {
    let directory = partition_directory(state, application, rank, epoch);
    format!("unix:{}", directory.join(format!("rank-{rank}.fabric")).display())
}

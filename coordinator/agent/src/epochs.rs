//! The highest epoch seen per partition, in a file: what makes an agent refuse a stale command after a restart.
//!
//! The file belongs to one cluster; joining another one starts it afresh, since application names are unique only within one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use control::{ApplicationId, ClusterId, Epoch, Rank};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Ended applications are kept to refuse late commands for them; a command is never as late as this many applications.
const ENDED_MAX: usize = 1000;
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why an epoch may not run here.
#[derive(Debug, Error)]
pub(crate) enum EpochError {
    #[error("epoch {epoch} is not above {highest}, the highest seen here")]
    Stale { epoch: Epoch, highest: Epoch },
    #[error("the application has ended")]
    Ended,
    #[error(
        "this coordinator (token {fence}) was replaced by another (token {newest}); stop it, or start it as --standby"
    )]
    Fenced { fence: u64, newest: u64 },
    #[error("the file of epochs {} cannot be written; make room or repair its directory", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("the file of epochs {} cannot be read; restore it, or remove it when no application runs", path.display())]
    Read { path: PathBuf, source: std::io::Error },
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    cluster: Option<ClusterId>,
    /// The highest fencing token of a coordinator of this cluster.
    #[serde(default)]
    fence: u64,
    epochs: BTreeMap<ApplicationId, BTreeMap<Rank, Epoch>>,
    /// In order of their end.
    ended: Vec<ApplicationId>,
}

/// The epochs of this host.
#[derive(Debug)]
pub(crate) struct Epochs {
    path: PathBuf,
    contents: Contents,
    ended: BTreeSet<ApplicationId>,
}

impl Epochs {
    /// Reads the file, if there is one.
    pub(crate) fn open(path: PathBuf) -> Result<Self, EpochError> {
        let contents = match read(&path) {
            Ok(contents) => contents,
            Err(source) if source.kind() == ErrorKind::NotFound => Contents::default(),
            Err(source) => return Err(EpochError::Read { path, source }),
        };
        let ended = contents.ended.iter().cloned().collect();
        Ok(Self { path, contents, ended })
    }

    /// The cluster whose epochs these are.
    pub(crate) fn cluster(&self) -> Option<&ClusterId> {
        self.contents.cluster.as_ref()
    }

    /// The highest fencing token seen.
    pub(crate) fn fence(&self) -> u64 {
        self.contents.fence
    }

    /// Takes the word of a coordinator only if none that came after it has been heard; returns whether it is a new one.
    pub(crate) fn admit(&mut self, cluster: &ClusterId, fence: u64) -> Result<bool, EpochError> {
        self.join(cluster)?;
        let newest = self.contents.fence;
        if fence < newest {
            return Err(EpochError::Fenced { fence, newest });
        }
        if fence > newest {
            self.contents.fence = fence;
            self.write()?;
        }
        Ok(fence > newest)
    }

    /// From now on these are the epochs of `cluster`.
    pub(crate) fn join(&mut self, cluster: &ClusterId) -> Result<(), EpochError> {
        if self.contents.cluster.as_ref() == Some(cluster) {
            return Ok(());
        }
        self.contents = Contents { cluster: Some(cluster.clone()), ..Contents::default() };
        self.ended.clear();
        self.write()
    }

    /// The highest epoch seen of a partition, 0 if none.
    pub(crate) fn highest(&self, application: &ApplicationId, rank: Rank) -> Epoch {
        let ranks = self.contents.epochs.get(application);
        ranks.and_then(|ranks| ranks.get(&rank)).copied().unwrap_or(0)
    }

    /// Takes `epoch` for a process that is about to start; on disk before it returns.
    pub(crate) fn claim(
        &mut self,
        application: &ApplicationId,
        rank: Rank,
        epoch: Epoch,
    ) -> Result<(), EpochError> {
        if self.ended.contains(application) {
            return Err(EpochError::Ended);
        }
        let highest = self.highest(application, rank);
        if epoch <= highest {
            return Err(EpochError::Stale { epoch, highest });
        }
        self.observe(application, rank, epoch)
    }

    /// Notes an epoch that must not start here any more; on disk before it returns.
    pub(crate) fn observe(
        &mut self,
        application: &ApplicationId,
        rank: Rank,
        epoch: Epoch,
    ) -> Result<(), EpochError> {
        if self.ended.contains(application) || epoch <= self.highest(application, rank) {
            return Ok(());
        }
        self.contents.epochs.entry(application.clone()).or_default().insert(rank, epoch);
        self.write()
    }

    /// Refuses everything of an application from now on.
    pub(crate) fn end(&mut self, application: &ApplicationId) -> Result<(), EpochError> {
        if !self.ended.insert(application.clone()) {
            return Ok(());
        }
        self.contents.epochs.remove(application);
        self.contents.ended.push(application.clone());
        if self.contents.ended.len() > ENDED_MAX {
            let oldest = self.contents.ended.remove(0);
            self.ended.remove(&oldest);
        }
        self.write()
    }

    fn write(&self) -> Result<(), EpochError> {
        write(&self.path, &self.contents)
            .map_err(|source| EpochError::Write { path: self.path.clone(), source })
    }
}

fn read(path: &Path) -> std::io::Result<Contents> {
    let file = File::open(path)?;
    if file.metadata()?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::new(ErrorKind::InvalidData, "the file is too long"));
    }
    Ok(serde_json::from_reader(std::io::BufReader::new(file))?)
}

fn write(path: &Path, contents: &Contents) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(contents)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_never_given_twice_also_after_a_restart() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("epochs.json");
        let (application, cluster) = ("heat-1".parse()?, "c1".parse()?);
        let mut epochs = Epochs::open(path.clone())?;
        epochs.join(&cluster)?;
        epochs.claim(&application, 0, 3)?;
        let mut epochs = Epochs::open(path.clone())?;
        assert!(matches!(epochs.claim(&application, 0, 3), Err(EpochError::Stale { epoch: 3, highest: 3 })));
        assert!(epochs.claim(&application, 0, 2).is_err());
        epochs.observe(&application, 1, 9)?;
        assert!(epochs.claim(&application, 1, 9).is_err());
        epochs.end(&application)?;
        let mut epochs = Epochs::open(path)?;
        assert!(matches!(epochs.claim(&application, 0, 99), Err(EpochError::Ended)));
        assert!(epochs.admit(&"c2".parse()?, 1)?, "another cluster counts from the start");
        assert!(epochs.claim(&application, 0, 1).is_ok());
        Ok(())
    }

    #[test]
    fn a_coordinator_that_was_replaced_is_refused_also_after_a_restart()
    -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("epochs.json");
        let cluster = "c1".parse()?;
        let mut epochs = Epochs::open(path.clone())?;
        assert!(epochs.admit(&cluster, 7)?);
        assert!(!epochs.admit(&cluster, 7)?, "the same one");
        assert!(epochs.admit(&cluster, 9)?);
        let mut epochs = Epochs::open(path)?;
        let refused = epochs.admit(&cluster, 8);
        assert!(matches!(refused, Err(EpochError::Fenced { fence: 8, newest: 9 })), "{refused:?}");
        assert_eq!(epochs.fence(), 9);
        Ok(())
    }
}

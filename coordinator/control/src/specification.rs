//! What a user asks for: an application, after the client has read its manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::message::{Message, MessageError};
use crate::{HostName, RANKS_MAX, Rank};

/// How ranks are placed when the application starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// One after the other on the host with the lowest load.
    #[default]
    Spread,
    /// Fill one host's cores, then the next.
    Pack,
    /// Where the manifest says; ranks it does not name are spread.
    Pinned,
}

/// A host file that a partition sees read-only under another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileMapping {
    /// Absolute path on the host.
    #[schema(value_type = String)]
    pub host: PathBuf,
    /// Path in the partition.
    pub guest: String,
}

/// One executable of the application and the consecutive ranks that run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Static ELF file, an absolute path that every host sees.
    #[schema(value_type = String)]
    pub executable: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// How many ranks run it.
    pub ranks: u32,
    /// Memory of each of its partitions; whole MiB.
    pub memory_bytes: u64,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Files.
    pub files: Vec<FileMapping>,
}

/// An application to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Specification {
    /// Its name; the cluster adds a number.
    pub name: String,
    /// In rank order.
    pub components: Vec<Component>,
    /// Initial placement.
    pub strategy: Strategy,
    /// Rank to host, for [`Strategy::Pinned`].
    pub pinned: BTreeMap<Rank, HostName>,
    /// May its partitions move?
    pub migrate: bool,
    /// Directory for the partitions' `--report` files (`rank-K-epoch-E.json`), if they are wanted.
    #[schema(value_type = Option<String>)]
    pub report: Option<PathBuf>,
}

/// A specification that cannot be run anywhere.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SpecificationError {
    /// The name is not usable.
    #[error("`name` must be 1 to 32 of a-z A-Z 0-9 . _ - and begin with a letter or a digit")]
    Name,
    /// No or too many ranks.
    #[error("`ranks` must be 1 to {RANKS_MAX} in total")]
    Ranks,
    /// A path is relative.
    #[error("`{0}` must be an absolute path here")]
    Relative(PathBuf),
    /// Memory out of range.
    #[error("`memory` must be 1M to 1024G and whole MiB")]
    Memory,
    /// Pinned rank that does not exist.
    #[error("`pinned` names rank {0}, which does not exist")]
    Pinned(Rank),
    /// A variable that cannot be passed.
    #[error("`env` has the unusable name `{0}`")]
    Environment(String),
    /// Too many arguments, variables or files.
    #[error("too many or too long `args`, `env` or `files`")]
    TooMuch,
}

const MIB: u64 = 1 << 20;
const TEXTS_MAX: usize = 4096;
const TEXT_BYTES_MAX: usize = 128 << 10;

impl Specification {
    /// Ranks of all components together.
    pub fn ranks(&self) -> u32 {
        self.components.iter().fold(0, |sum, component| sum.saturating_add(component.ranks))
    }

    /// The component that `rank` runs.
    pub fn component(&self, rank: Rank) -> Option<&Component> {
        let mut first = 0_u32;
        for component in &self.components {
            let end = first.saturating_add(component.ranks);
            if rank < end {
                return Some(component);
            }
            first = end;
        }
        None
    }

    /// Is this an application that could run?
    pub fn check(&self) -> Result<(), SpecificationError> {
        let name_fits = self.name.len() <= 32 && self.name.parse::<crate::ApplicationId>().is_ok();
        if !name_fits {
            return Err(SpecificationError::Name);
        }
        if self.components.iter().any(|component| component.ranks == 0)
            || !(1..=RANKS_MAX).contains(&self.ranks())
        {
            return Err(SpecificationError::Ranks);
        }
        if let Some(rank) = self.pinned.keys().find(|rank| **rank >= self.ranks()) {
            return Err(SpecificationError::Pinned(*rank));
        }
        if let Some(path) = self.report.iter().find(|path| path.is_relative()) {
            return Err(SpecificationError::Relative(path.clone()));
        }
        self.components.iter().try_for_each(check_component)
    }
}

fn check_component(component: &Component) -> Result<(), SpecificationError> {
    let paths = component.files.iter().map(|file| &file.host).chain([&component.executable]);
    if let Some(path) = paths.into_iter().find(|path| path.is_relative()) {
        return Err(SpecificationError::Relative(path.clone()));
    }
    let memory = component.memory_bytes;
    if !(MIB..=MIB << 20).contains(&memory) || !memory.is_multiple_of(MIB) {
        return Err(SpecificationError::Memory);
    }
    let unusable = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = component.env.keys().find(unusable) {
        return Err(SpecificationError::Environment(name.clone()));
    }
    let texts = component.args.iter().chain(component.env.values()).chain(component.env.keys());
    let fits = |text: &String| text.len() <= TEXT_BYTES_MAX && !text.contains('\0');
    let count = component.args.len() + component.env.len() + component.files.len();
    if count > TEXTS_MAX || !texts.into_iter().all(fits) {
        return Err(SpecificationError::TooMuch);
    }
    Ok(())
}

impl Message for Specification {
    fn validate(&self) -> Result<(), MessageError> {
        crate::message::require(self.components.len() <= RANKS_MAX as usize, "too many components")
    }
}

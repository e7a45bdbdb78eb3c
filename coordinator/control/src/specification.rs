//! What a user asks for: an application, after the client has read its manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::message::{Message, MessageError};
use crate::{HostName, RANKS_MAX, Rank, RankSet};

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
    /// Hosts' loads as measured and expected are kept equal.
    Balance,
    /// Ranks that talk to each other (by the hints, or else neighbours) on the same host, as far as processors reach.
    Locality,
}

/// Ranks that belong together: the boundary at which the application may be cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The ranks.
    pub ranks: RankSet,
    /// May they be on several hosts? They begin on one host in any case, if they fit.
    pub split: bool,
}

/// Traffic that the application expects; taken until it is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Communication {
    /// Senders.
    pub from: RankSet,
    /// Receivers; every sender sends to every one of them.
    pub to: RankSet,
    /// From one to one, in bytes per second.
    pub bytes_per_s: u64,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// Expected busy share of a processor of each rank.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub load: f64,
}

fn one() -> f64 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_one(value: &f64) -> bool {
    *value == 1.0
}

/// An application to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// Ranks that belong together.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Who will talk to whom.
    #[serde(default)]
    pub communication: Vec<Communication>,
    /// In the queue higher ones go first; equal ones by weight, then in the order in which they came.
    #[serde(default)]
    pub priority: i32,
    /// What a second of it is worth, against the others'.
    #[serde(default = "one")]
    pub weight: f64,
    /// Hosts that it begins on at least, and keeps.
    #[serde(default)]
    pub hosts_min: Option<u32>,
    /// Hosts that it may use at most.
    #[serde(default)]
    pub hosts_max: Option<u32>,
    /// SHA-256 (hexadecimal) of executables and files that must not have changed, by path; an image has them all.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub digests: BTreeMap<PathBuf, String>,
}

impl Default for Specification {
    fn default() -> Self {
        Self {
            name: String::new(),
            components: Vec::new(),
            strategy: Strategy::Spread,
            pinned: BTreeMap::new(),
            migrate: true,
            report: None,
            groups: Vec::new(),
            communication: Vec::new(),
            priority: 0,
            weight: 1.0,
            hosts_min: None,
            hosts_max: None,
            digests: BTreeMap::new(),
        }
    }
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
    /// A group or a hint about a rank that does not exist, or a rank in two groups.
    #[error("`{0}` names a rank that does not exist, or one of another group as well")]
    Group(&'static str),
    /// Weight or load out of range.
    #[error("`{0}` must be a number above 0 and at most {1}")]
    Number(&'static str, u32),
    /// Hosts that cannot be.
    #[error("`hosts_min` must be 1 to the number of ranks, and `hosts_max` not less")]
    Hosts,
    /// Too many arguments, variables or files.
    #[error("too many or too long `args`, `env` or `files`")]
    TooMuch,
}

const MIB: u64 = 1 << 20;
const WEIGHT_MAX: u32 = 1_000_000;
/// Pairs of ranks that hints may speak of.
const PAIRS_MAX: usize = 1 << 18;
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
        self.check_wishes()?;
        self.components.iter().try_for_each(check_component)
    }

    fn check_wishes(&self) -> Result<(), SpecificationError> {
        let mut taken = std::collections::BTreeSet::new();
        for group in &self.groups {
            let fits = group.ranks.last() < self.ranks() && group.ranks.iter().all(|rank| taken.insert(rank));
            if !fits {
                return Err(SpecificationError::Group("group"));
            }
        }
        let known = |it: &Communication| it.from.last().max(it.to.last()) < self.ranks();
        if !self.communication.iter().all(known) {
            return Err(SpecificationError::Group("communication"));
        }
        let number = |value: f64, most: u32| value.is_finite() && value > 0.0 && value <= f64::from(most);
        if !number(self.weight, WEIGHT_MAX) {
            return Err(SpecificationError::Number("weight", WEIGHT_MAX));
        }
        if !self.components.iter().all(|it| number(it.load, 1)) {
            return Err(SpecificationError::Number("load", 1));
        }
        let least = self.hosts_min.unwrap_or(1);
        if !(1..=self.ranks()).contains(&least) || self.hosts_max.is_some_and(|most| most < least) {
            return Err(SpecificationError::Hosts);
        }
        let texts = self.groups.len() + self.communication.len() + self.digests.len();
        if texts > TEXTS_MAX { Err(SpecificationError::TooMuch) } else { Ok(()) }
    }

    /// Pairs of ranks with the bytes per second that the hints say.
    pub fn expected_traffic(&self) -> impl Iterator<Item = (Rank, Rank, f64)> + '_ {
        let pairs = self.communication.iter().flat_map(|it| {
            let to = move |from| it.to.iter().map(move |to| (from, to, it.bytes_per_s as f64));
            it.from.iter().flat_map(to)
        });
        pairs.filter(|(from, to, _)| from != to).take(PAIRS_MAX)
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

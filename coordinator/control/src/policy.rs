//! What the administrator asks of every placement and every move, after the client has read `policy.toml`.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::message::{Message, MessageError, require};
use crate::{HostName, HostSelector, Selector};

/// Entries of one list.
const ENTRIES_MAX: usize = 10_000;
/// Bytes of a name or a command.
const TEXT_BYTES_MAX: usize = 4096;

/// What a rule asks of the partitions that it selects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Demand {
    /// Affinity: all on one host.
    Together,
    /// Anti-affinity: no two on one host.
    Apart,
    /// A pin: only on these hosts.
    On(Vec<HostSelector>),
    /// Never on these hosts.
    NotOn(Vec<HostSelector>),
    /// Licences: only on these hosts, and so many on each at most.
    Licence {
        /// Hosts that have it; none: all have.
        hosts: Vec<HostSelector>,
        /// Partitions that may use it at once on one host.
        per_host: Option<u32>,
    },
}

/// A rule about partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// What it is called in explanations.
    pub name: String,
    /// Whom it is about.
    pub partitions: Vec<Selector>,
    /// What it asks for.
    pub demand: Demand,
    /// Application-seconds per second that breaking it once costs; `None`: it must not be broken.
    pub price: Option<f64>,
}

/// A time in which hosts are worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// What it is called.
    pub name: String,
    /// Which hosts.
    pub hosts: Vec<HostSelector>,
    /// From then on they take nothing, Unix milliseconds.
    pub from_ms: u64,
    /// Until then, Unix milliseconds.
    pub until_ms: u64,
    /// Partitions leave at its beginning; otherwise they may stay.
    pub evacuate: bool,
}

/// What moves and placements have to leave free on hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// Which hosts.
    pub hosts: Vec<HostSelector>,
    /// Processors.
    pub processors: f64,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// What an application may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Which applications.
    pub applications: Selector,
    /// Moves of one plan.
    pub moves: Option<u32>,
    /// Hosts at once.
    pub hosts: Option<u32>,
    /// Ranks of one application.
    pub ranks: Option<u32>,
    /// Memory of all its partitions together, in bytes.
    pub memory_bytes: Option<u64>,
}

/// Limits of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Moves under way at once.
    pub moves_at_once: Option<u32>,
    /// Out of one host, and into one host, at once.
    pub moves_at_once_per_host: Option<u32>,
    /// Share of the partitions that one plan moves at most.
    pub moves_share: Option<f64>,
    /// But so many in any case.
    pub moves_least: Option<u32>,
    /// Partitions for each processor at the start of an application; `None`: no limit.
    pub partitions_per_processor: Option<f64>,
}

/// Thresholds of the planner; `None`: as on the coordinator's command line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// Imbalance above which a plan is made, as a share.
    pub imbalance: Option<f64>,
    /// How long it has to last, in seconds.
    pub sustain_s: Option<f64>,
    /// Least gain of one move, as a share of an average host's part.
    pub delta: Option<f64>,
    /// Standard errors that a gain has to be above that.
    pub z: Option<f64>,
    /// How often a move has to pay for itself within the horizon.
    pub kappa: Option<f64>,
    /// In seconds.
    pub horizon_s: Option<f64>,
    /// Rest of a partition after a move, in seconds.
    pub cooldown_s: Option<f64>,
    /// What a byte between two hosts costs, in seconds.
    pub beta_s_per_byte: Option<f64>,
    /// What a message between two hosts costs beside its bytes, in seconds; `None`: as measured, unless said on the command line.
    pub latency_s: Option<f64>,
}

/// Whom hosts belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PoolMode {
    /// Every application may use every active host.
    #[default]
    Shared,
    /// A host is leased to one application at a time.
    Leased,
}

/// How the pool of hosts grows, shrinks, and passes hosts on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolPolicy {
    /// Whom hosts belong to.
    pub mode: PoolMode,
    /// Utilisation of every active host above which one more is wanted.
    pub overload: f64,
    /// Utilisation that the hosts left may have at most for one to be freed; 0: none is ever freed.
    pub underload: f64,
    /// How long either has to last, in seconds.
    pub sustain_s: f64,
    /// A host that was passed on stays at least this long, in seconds.
    pub lease_min_s: f64,
    /// Speed (0 to 1, by weight) that an application may lose when it gives a host away.
    pub idle: f64,
    /// How much more another has to gain, or its first owner has to miss, before a host goes on.
    pub hysteresis: f64,
    /// Hosts that are never freed.
    pub hosts_min: u32,
    /// Script called with HOST and `activate` or `release` before a host changes; none: nothing has to be done.
    pub hook: Option<String>,
    /// In seconds.
    pub hook_timeout_s: f64,
    /// A draining host that is not empty by then is given back, in seconds.
    pub drain_timeout_s: f64,
}

impl Default for PoolPolicy {
    fn default() -> Self {
        Self {
            mode: PoolMode::Shared,
            overload: 0.9,
            underload: 0.0,
            sustain_s: 5.0,
            lease_min_s: 600.0,
            idle: 0.05,
            hysteresis: 0.15,
            hosts_min: 1,
            hook: None,
            hook_timeout_s: 60.0,
            drain_timeout_s: 600.0,
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Rules about partitions.
    pub rules: Vec<PolicyRule>,
    /// Maintenance windows.
    pub maintenance: Vec<Maintenance>,
    /// Reserves.
    pub reserves: Vec<Reserve>,
    /// Quotas; of several for one application the first counts.
    pub quotas: Vec<Quota>,
    /// Limits.
    pub limits: Limits,
    /// Thresholds.
    pub gates: Gates,
    /// The pool.
    pub pool: PoolPolicy,
}

/// A policy with its number: it rises with every one that is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyView {
    /// 0: none was ever set.
    pub version: u64,
    /// What it says.
    pub policy: Policy,
}

/// A policy that cannot be followed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PolicyValueError {
    /// A number out of range.
    #[error("`{0}` must be a number from {1} to {2}")]
    Range(&'static str, &'static str, &'static str),
    /// Too much.
    #[error("`{0}` has too many entries or too long a text")]
    TooMuch(&'static str),
    /// Nothing selected.
    #[error("rule `{0}` selects no partitions")]
    Nobody(String),
    /// A window that ends before it begins.
    #[error("maintenance `{0}` ends before it begins")]
    Window(String),
}

fn range(
    name: &'static str,
    value: f64,
    (low, high): (f64, f64),
    text: (&'static str, &'static str),
) -> Result<(), PolicyValueError> {
    let fits = value.is_finite() && (low..=high).contains(&value);
    if fits { Ok(()) } else { Err(PolicyValueError::Range(name, text.0, text.1)) }
}

const FINITE: (f64, f64) = (0.0, 1e18);
const FINITE_TEXT: (&str, &str) = ("0", "1e18");
const SHARE: (f64, f64) = (0.0, 1.0);
const SHARE_TEXT: (&str, &str) = ("0", "1");

impl Policy {
    /// Can it be followed?
    pub fn check(&self) -> Result<(), PolicyValueError> {
        let lists = [
            ("rules", self.rules.len()),
            ("maintenance", self.maintenance.len()),
            ("reserve", self.reserves.len()),
            ("quota", self.quotas.len()),
        ];
        if let Some((name, _)) = lists.into_iter().find(|(_, count)| *count > ENTRIES_MAX) {
            return Err(PolicyValueError::TooMuch(name));
        }
        self.rules.iter().try_for_each(PolicyRule::check)?;
        for it in &self.maintenance {
            if it.name.len() > TEXT_BYTES_MAX {
                return Err(PolicyValueError::TooMuch("maintenance"));
            }
            if it.until_ms <= it.from_ms {
                return Err(PolicyValueError::Window(it.name.clone()));
            }
        }
        for it in &self.reserves {
            range("processors", it.processors, FINITE, FINITE_TEXT)?;
        }
        self.limits.check()?;
        self.gates.check()?;
        self.pool.check()
    }
}

impl PolicyRule {
    fn check(&self) -> Result<(), PolicyValueError> {
        if self.name.len() > TEXT_BYTES_MAX || self.partitions.len() > ENTRIES_MAX {
            return Err(PolicyValueError::TooMuch("partitions"));
        }
        if self.partitions.is_empty() {
            return Err(PolicyValueError::Nobody(self.name.clone()));
        }
        if let Demand::Licence { per_host: Some(0), .. } = self.demand {
            return Err(PolicyValueError::Range("per_host", "1", "4294967295"));
        }
        self.price.map_or(Ok(()), |price| range("price", price, FINITE, FINITE_TEXT))
    }
}

impl Limits {
    fn check(&self) -> Result<(), PolicyValueError> {
        for (name, value) in
            [("moves_at_once", self.moves_at_once), ("moves_at_once_per_host", self.moves_at_once_per_host)]
        {
            if value == Some(0) {
                return Err(PolicyValueError::Range(name, "1", "4294967295"));
            }
        }
        if let Some(share) = self.moves_share {
            range("moves_share", share, SHARE, SHARE_TEXT)?;
        }
        let most = self.partitions_per_processor.unwrap_or(1.0);
        range("partitions_per_processor", most, (0.01, 1e6), ("0.01", "1e6"))
    }
}

impl Gates {
    fn check(&self) -> Result<(), PolicyValueError> {
        let numbers = [
            ("imbalance", self.imbalance),
            ("sustain_s", self.sustain_s),
            ("delta", self.delta),
            ("z", self.z),
            ("horizon_s", self.horizon_s),
            ("cooldown_s", self.cooldown_s),
            ("beta_s_per_byte", self.beta_s_per_byte),
            ("latency_s", self.latency_s),
        ];
        for (name, value) in numbers {
            range(name, value.unwrap_or(0.0), FINITE, FINITE_TEXT)?;
        }
        range("kappa", self.kappa.unwrap_or(1.0), (0.01, 1e6), ("0.01", "1e6"))
    }
}

impl PoolPolicy {
    fn check(&self) -> Result<(), PolicyValueError> {
        let shares = [
            ("overload", self.overload),
            ("underload", self.underload),
            ("idle", self.idle),
            ("hysteresis", self.hysteresis),
        ];
        for (name, value) in shares {
            range(name, value, SHARE, SHARE_TEXT)?;
        }
        if self.underload >= self.overload {
            return Err(PolicyValueError::Range("underload", "0", "less than `overload`"));
        }
        let seconds = [
            ("sustain_s", self.sustain_s),
            ("lease_min_s", self.lease_min_s),
            ("drain_timeout_s", self.drain_timeout_s),
        ];
        for (name, value) in seconds {
            range(name, value, FINITE, FINITE_TEXT)?;
        }
        range("hook_timeout_s", self.hook_timeout_s, (0.1, 86_400.0), ("0.1", "86400"))?;
        let hook = self.hook.as_deref().unwrap_or("/");
        if hook.len() > TEXT_BYTES_MAX || !hook.starts_with('/') || hook.contains('\0') {
            return Err(PolicyValueError::TooMuch("hook"));
        }
        Ok(())
    }
}

impl Message for Policy {
    fn validate(&self) -> Result<(), MessageError> {
        require(self.check().is_ok(), "the policy cannot be followed; `coordinator policy check` says why")
    }
}

/// Role of a host in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    /// In reserve.
    Standby,
    /// Takes partitions.
    Active,
    /// Keeps what it has and takes nothing.
    Cordoned,
    /// Everything leaves it.
    Draining,
    /// Nothing is left on it, and it takes nothing.
    Empty,
    /// Takes partitions of one application.
    Leased,
}

impl HostState {
    /// As users see it.
    pub fn name(self) -> &'static str {
        match self {
            HostState::Standby => "standby",
            HostState::Active => "active",
            HostState::Cordoned => "cordoned",
            HostState::Draining => "draining",
            HostState::Empty => "empty",
            HostState::Leased => "leased",
        }
    }
}

/// What a host's hook is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HookAction {
    /// Make it ready to take partitions.
    Activate,
    /// It is not needed any more.
    Release,
}

impl HookAction {
    /// The hook's second argument.
    pub fn name(self) -> &'static str {
        match self {
            HookAction::Activate => "activate",
            HookAction::Release => "release",
        }
    }
}

/// What an operator does with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostAction {
    /// It takes nothing new.
    Cordon,
    /// Undoes that, or a drain.
    Uncordon,
    /// Everything leaves it.
    Drain,
    /// It takes partitions: from reserve, empty, or leased.
    Activate,
    /// An empty host goes into reserve; a leased one back to the pool.
    Release,
}

/// An order about a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostOrder {
    /// Which.
    pub host: HostName,
    /// What.
    pub action: HostAction,
}

impl Message for HostOrder {
    fn validate(&self) -> Result<(), MessageError> {
        Ok(())
    }
}

//! Where an application's ranks begin: pure functions of the manifest, the rules and the hosts.

use std::collections::{BTreeMap, BTreeSet};

use control::{HostName, Rank, Specification, Strategy};
use thiserror::Error;

use planner::RuleKind;

/// A host that takes partitions.
#[derive(Clone, Debug)]
pub struct PlaceHost {
    /// Its name.
    pub name: HostName,
    /// Processors.
    pub cpus: u32,
    /// Partitions placed there.
    pub partitions: u32,
    /// Busy processors there, as measured or else expected.
    pub load: f64,
    /// Processors that placements leave free.
    pub reserve: f64,
    /// Memory that is not taken, in bytes.
    pub memory_free: u64,
    /// Takes only partitions pinned to it: it is in reserve.
    pub standby: bool,
    /// Why it takes nothing at all, if so.
    pub closed: Option<String>,
}

/// A hard rule about ranks of the new application, and perhaps partitions that are there already.
#[derive(Clone, Debug)]
pub struct PlaceRule {
    /// What it is called.
    pub name: String,
    /// What it asks for; hosts by their index.
    pub kind: RuleKind,
    /// The ranks that it is about.
    pub ranks: BTreeSet<Rank>,
    /// Partitions that it is about and that are there, by index of the host.
    pub there: BTreeMap<usize, u32>,
}

/// An application that cannot be placed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlacementError {
    /// There is nowhere to go.
    #[error("no host is active; start an agent")]
    NoHost,
    /// A pinned host is not there.
    #[error(
        "rank {rank} is pinned to host {host}, which is not in the cluster; `coordinator hosts` lists them"
    )]
    NoSuchHost {
        /// The rank.
        rank: u32,
        /// Its host.
        host: HostName,
    },
    /// A pinned host takes nothing.
    #[error("rank {rank} is pinned to host {host}, which takes nothing: {reason}")]
    Closed {
        /// The rank.
        rank: u32,
        /// Its host.
        host: HostName,
        /// Why.
        reason: String,
    },
    /// Not enough memory.
    #[error("rank {rank} needs {} MiB, more than any suitable host has left; use less `memory` or add a host", bytes >> 20)]
    Memory {
        /// The rank.
        rank: u32,
        /// What it needs.
        bytes: u64,
    },
    /// Not enough processors.
    #[error(
        "rank {rank} finds no host with a free processor (`partitions_per_processor` and reserves of the policy)"
    )]
    Processors {
        /// The rank.
        rank: u32,
    },
    /// A rule is in the way everywhere.
    #[error("rank {rank} may go to no host that has room: rule {rule}")]
    Rule {
        /// The rank.
        rank: u32,
        /// The rule.
        rule: String,
    },
}

impl PlacementError {
    /// Can only a change of the manifest help, not time?
    pub fn is_final(&self) -> bool {
        matches!(self, PlacementError::NoSuchHost { .. })
    }
}

/// A host for every rank. `per_processor`: partitions for each processor at most.
pub fn place(
    specification: &Specification,
    hosts: Vec<PlaceHost>,
    rules: &[PlaceRule],
    per_processor: Option<f64>,
) -> Result<Vec<HostName>, PlacementError> {
    if hosts.is_empty() {
        return Err(PlacementError::NoHost);
    }
    let ranks = specification.ranks() as usize;
    let counts = rules.iter().map(|rule| rule.there.clone()).collect();
    let traffic = traffic(specification);
    let mut placing =
        Placing { specification, hosts, rules, per_processor, counts, traffic, placed: vec![None; ranks] };
    let mut left = units(specification);
    while !left.is_empty() {
        let next = placing.next(&left);
        let unit = left.remove(next);
        match placing.put(&unit, left.len()) {
            Ok(()) => {}
            // Ranks that may be split begin apart if they do not fit together.
            Err(_) if unit.may_split => {
                let single = |rank| Unit { ranks: vec![rank], may_split: false };
                left.splice(0..0, unit.ranks.into_iter().map(single));
            }
            Err(error) => return Err(error),
        }
    }
    let name = |index: Option<usize>| index.map(|index| placing.hosts[index].name.clone());
    placing.placed.iter().map(|index| name(*index).ok_or(PlacementError::NoHost)).collect()
}

/// Ranks that are placed together.
struct Unit {
    ranks: Vec<Rank>,
    may_split: bool,
}

fn units(specification: &Specification) -> Vec<Unit> {
    let mut units = Vec::new();
    let pinned =
        |rank: &Rank| specification.strategy == Strategy::Pinned && specification.pinned.contains_key(rank);
    for rank in 0..specification.ranks() {
        let group = specification.groups.iter().find(|group| group.ranks.contains(rank));
        match group.filter(|group| !group.ranks.iter().any(|rank| pinned(&rank))) {
            Some(group) if group.ranks.iter().next() == Some(rank) => {
                units.push(Unit { ranks: group.ranks.iter().collect(), may_split: group.split });
            }
            Some(_) => {}
            None => units.push(Unit { ranks: vec![rank], may_split: false }),
        }
    }
    units
}

/// What ranks exchange, by the hints; neighbours talk to each other if there are none.
fn traffic(specification: &Specification) -> BTreeMap<Rank, Vec<(Rank, f64)>> {
    let mut all: BTreeMap<Rank, Vec<(Rank, f64)>> = BTreeMap::new();
    if specification.strategy != Strategy::Locality {
        return all;
    }
    let mut add = |from: Rank, to: Rank, bytes: f64| {
        all.entry(from).or_default().push((to, bytes));
        all.entry(to).or_default().push((from, bytes));
    };
    if specification.communication.is_empty() {
        (1..specification.ranks()).for_each(|rank| add(rank - 1, rank, 1.0));
    } else {
        specification.expected_traffic().for_each(|(from, to, bytes)| add(from, to, bytes));
    }
    all
}

struct Placing<'a> {
    specification: &'a Specification,
    hosts: Vec<PlaceHost>,
    rules: &'a [PlaceRule],
    per_processor: Option<f64>,
    /// By rule and host.
    counts: Vec<BTreeMap<usize, u32>>,
    traffic: BTreeMap<Rank, Vec<(Rank, f64)>>,
    placed: Vec<Option<usize>>,
}

impl Placing<'_> {
    /// The unit that talks most to what is placed; without traffic the first.
    fn next(&self, left: &[Unit]) -> usize {
        let near = |unit: &Unit| (0..self.hosts.len()).map(|host| self.talks(unit, host)).sum::<f64>();
        let best = left.iter().enumerate().map(|(index, unit)| (near(unit), index));
        let best = best.fold((0.0, 0), |best, it| if it.0 > best.0 { it } else { best });
        if self.traffic.is_empty() { 0 } else { best.1 }
    }

    fn talks(&self, unit: &Unit, host: usize) -> f64 {
        let peers = unit.ranks.iter().filter_map(|rank| self.traffic.get(rank)).flatten();
        let here = peers.filter(|(peer, _)| self.placed.get(*peer as usize) == Some(&Some(host)));
        here.map(|(_, bytes)| bytes).sum()
    }

    fn bytes(&self, unit: &Unit) -> u64 {
        let of = |rank: &Rank| self.specification.component(*rank).map_or(0, |it| it.memory_bytes);
        unit.ranks.iter().map(of).fold(0, u64::saturating_add)
    }

    fn load(&self, unit: &Unit) -> f64 {
        unit.ranks.iter().map(|rank| self.specification.component(*rank).map_or(0.0, |it| it.load)).sum()
    }

    fn put(&mut self, unit: &Unit, left: usize) -> Result<(), PlacementError> {
        let rank = unit.ranks.first().copied().unwrap_or(0);
        let (bytes, load) = (self.bytes(unit), self.load(unit));
        let pinned = self.specification.pinned.get(&rank);
        let index = match pinned.filter(|_| self.specification.strategy == Strategy::Pinned) {
            Some(host) => self.pinned(unit, host, bytes)?,
            None => self.choose(unit, bytes, left)?,
        };
        let host = &mut self.hosts[index];
        host.memory_free = host.memory_free.saturating_sub(bytes);
        host.partitions += unit.ranks.len() as u32;
        host.load += load;
        for rank in &unit.ranks {
            self.placed[*rank as usize] = Some(index);
            for (rule, counts) in self.rules.iter().zip(&mut self.counts) {
                if rule.ranks.contains(rank) {
                    *counts.entry(index).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    fn pinned(&self, unit: &Unit, host: &HostName, bytes: u64) -> Result<usize, PlacementError> {
        let rank = unit.ranks.first().copied().unwrap_or(0);
        let found = self.hosts.iter().position(|it| it.name == *host);
        let index = found.ok_or_else(|| PlacementError::NoSuchHost { rank, host: host.clone() })?;
        if let Some(reason) = self.hosts[index].closed.clone() {
            return Err(PlacementError::Closed { rank, host: host.clone(), reason });
        }
        if self.hosts[index].memory_free < bytes {
            return Err(PlacementError::Memory { rank, bytes });
        }
        match self.broken(unit, index, 0) {
            Some(rule) => Err(PlacementError::Rule { rank, rule }),
            None => Ok(index),
        }
    }

    fn choose(&self, unit: &Unit, bytes: u64, left: usize) -> Result<usize, PlacementError> {
        let rank = unit.ranks.first().copied().unwrap_or(0);
        let open: Vec<usize> = (0..self.hosts.len())
            .filter(|index| !self.hosts[*index].standby && self.hosts[*index].closed.is_none())
            .collect();
        if open.is_empty() {
            return Err(PlacementError::NoHost);
        }
        let with_memory: Vec<usize> =
            open.into_iter().filter(|index| self.hosts[*index].memory_free >= bytes).collect();
        if with_memory.is_empty() {
            return Err(PlacementError::Memory { rank, bytes });
        }
        let with_processors: Vec<usize> =
            with_memory.into_iter().filter(|index| self.has_processors(unit, *index)).collect();
        if with_processors.is_empty() {
            return Err(PlacementError::Processors { rank });
        }
        let allowed: Vec<usize> = with_processors
            .iter()
            .copied()
            .filter(|index| self.broken(unit, *index, left).is_none())
            .collect();
        self.best(unit, &allowed).ok_or_else(|| {
            let rule = with_processors.iter().find_map(|index| self.broken(unit, *index, left));
            PlacementError::Rule { rank, rule: rule.unwrap_or_default() }
        })
    }

    fn has_processors(&self, unit: &Unit, index: usize) -> bool {
        let host = &self.hosts[index];
        let count = f64::from(host.partitions) + unit.ranks.len() as f64;
        let within = self.per_processor.is_none_or(|most| count <= most * f64::from(host.cpus) + 1e-9);
        let spared =
            host.reserve <= 0.0 || host.load + self.load(unit) <= f64::from(host.cpus) - host.reserve;
        within && spared
    }

    /// The rule that the unit would break on a host. `left`: units that are placed after it.
    fn broken(&self, unit: &Unit, host: usize, left: usize) -> Option<String> {
        for (rule, counts) in self.rules.iter().zip(&self.counts) {
            let more = unit.ranks.iter().filter(|rank| rule.ranks.contains(rank)).count() as u32;
            if more == 0 {
                continue;
            }
            let (here, used) = (counts.get(&host).copied().unwrap_or(0), counts.len() as u32);
            let after = used + u32::from(here == 0);
            let fine = match &rule.kind {
                RuleKind::Together => after <= 1,
                RuleKind::AtMost(most) => here + more <= *most,
                RuleKind::On(hosts) => hosts.contains(&host),
                RuleKind::NotOn(hosts) => !hosts.contains(&host),
                // Enough units have to be left to reach the least number of hosts.
                RuleKind::Hosts { least, most } => after <= *most && after + left as u32 >= *least,
            };
            if !fine {
                return Some(rule.name.clone());
            }
        }
        None
    }

    fn best(&self, unit: &Unit, allowed: &[usize]) -> Option<usize> {
        // partitions / cpus, compared without division.
        let emptiest = || {
            let fuller = |a: &PlaceHost, b: &PlaceHost| {
                let (of_a, of_b) = (u64::from(a.partitions), u64::from(b.partitions));
                (of_a * u64::from(b.cpus)).cmp(&(of_b * u64::from(a.cpus)))
            };
            allowed.iter().copied().min_by(|a, b| fuller(&self.hosts[*a], &self.hosts[*b]))
        };
        let has_free = |index: &usize| {
            let host = &self.hosts[*index];
            u64::from(host.partitions) + unit.ranks.len() as u64 <= u64::from(host.cpus)
        };
        let free = || allowed.iter().copied().filter(has_free);
        match self.specification.strategy {
            Strategy::Spread | Strategy::Pinned => emptiest(),
            Strategy::Pack => free().next().or_else(emptiest),
            Strategy::Balance => {
                let load = self.load(unit);
                let busy = |index: usize| (self.hosts[index].load + load) / f64::from(self.hosts[index].cpus);
                allowed.iter().copied().min_by(|a, b| busy(*a).total_cmp(&busy(*b)))
            }
            Strategy::Locality => {
                let near = free().map(|index| (self.talks(unit, index), index));
                let near = near.filter(|(bytes, _)| *bytes > 0.0);
                // Of equal ones the first.
                let best = near.fold(None, |best: Option<(f64, usize)>, it| match best {
                    Some(known) if known.0 >= it.0 => Some(known),
                    _ => Some(it),
                });
                best.map(|(_, index)| index).or_else(emptiest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use control::{Component, Group};

    use super::*;

    type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

    fn hosts() -> Result<Vec<PlaceHost>> {
        let host = |name: &str, standby| -> Result<PlaceHost> {
            Ok(PlaceHost {
                name: name.parse()?,
                cpus: 2,
                partitions: 0,
                load: if name == "a" { 0.5 } else { 0.0 },
                reserve: 0.0,
                memory_free: 256 << 20,
                standby,
                closed: None,
            })
        };
        Ok(vec![host("a", false)?, host("b", false)?, host("c", true)?])
    }

    fn application(strategy: Strategy, ranks: u32) -> Specification {
        let component = Component {
            executable: "/x".into(),
            args: vec![],
            ranks,
            memory_bytes: 64 << 20,
            env: BTreeMap::new(),
            files: vec![],
            load: 1.0,
        };
        Specification { name: "x".into(), components: vec![component], strategy, ..Specification::default() }
    }

    fn placed(strategy: Strategy, ranks: u32, pinned: &[(u32, &str)]) -> Result<String> {
        let pinned = pinned.iter().map(|(rank, host)| Ok((*rank, host.parse()?))).collect::<Result<_>>()?;
        shown(&Specification { pinned, ..application(strategy, ranks) }, &[])
    }

    fn shown(specification: &Specification, rules: &[PlaceRule]) -> Result<String> {
        Ok(place(specification, hosts()?, rules, None)?.iter().map(HostName::as_str).collect())
    }

    #[test]
    fn strategies_place_as_they_say() -> Result {
        assert_eq!(placed(Strategy::Spread, 4, &[])?, "abab");
        assert_eq!(placed(Strategy::Pack, 5, &[])?, "aabba");
        assert_eq!(placed(Strategy::Pinned, 4, &[(0, "b"), (1, "b"), (2, "c")])?, "bbca");
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() -> Result {
        assert!(placed(Strategy::Spread, 8, &[]).is_ok());
        let text = placed(Strategy::Spread, 9, &[]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.starts_with("rank 8 needs 64 MiB"), "{text}");
        assert!(placed(Strategy::Pinned, 1, &[(0, "z")]).is_err());
        Ok(())
    }

    #[test]
    fn groups_stay_together_and_locality_and_balance_do_as_they_say() -> Result {
        assert_eq!(placed(Strategy::Locality, 4, &[])?, "aabb");
        assert_eq!(placed(Strategy::Balance, 3, &[])?, "bab");
        let group = |ranks: &str, split| -> Result<Group> { Ok(Group { ranks: ranks.parse()?, split }) };
        let mut grouped = application(Strategy::Spread, 5);
        grouped.groups = vec![group("0,3", false)?, group("1-2", false)?];
        assert_eq!(shown(&grouped, &[])?, "abbaa");
        let hint = |from: &str, to: &str| -> Result<control::Communication> {
            Ok(control::Communication { from: from.parse()?, to: to.parse()?, bytes_per_s: 1 })
        };
        let mut far = application(Strategy::Locality, 4);
        far.communication = vec![hint("0", "2")?, hint("1", "3")?];
        assert_eq!(shown(&far, &[])?, "abab");
        // Five of 64 MiB do not fit on one host of 256 MiB.
        let mut large = application(Strategy::Spread, 5);
        large.groups = vec![group("0-4", true)?];
        assert_eq!(shown(&large, &[])?, "ababa");
        large.groups = vec![group("0-4", false)?];
        assert!(shown(&large, &[]).is_err());
        Ok(())
    }

    #[test]
    fn rules_and_limits_are_kept_and_named() -> Result {
        let rule = |kind, there: &[(usize, u32)]| PlaceRule {
            name: "r".into(),
            kind,
            ranks: (0..2).collect(),
            there: there.iter().copied().collect(),
        };
        let two = application(Strategy::Pack, 2);
        assert_eq!(shown(&two, &[])?, "aa");
        for (kind, there, expected) in [
            (RuleKind::AtMost(1), vec![], "ab"),
            (RuleKind::NotOn(vec![0]), vec![], "bb"),
            (RuleKind::Together, vec![(1, 1)], "bb"),
            (RuleKind::Hosts { least: 2, most: 2 }, vec![], "ab"),
        ] {
            assert_eq!(shown(&two, &[rule(kind, &there)])?, expected);
        }
        let refused = place(&two, hosts()?, &[rule(RuleKind::AtMost(1), &[(0, 1), (1, 1)])], None);
        assert_eq!(refused, Err(PlacementError::Rule { rank: 0, rule: "r".into() }));
        let four = application(Strategy::Spread, 5);
        assert_eq!(place(&four, hosts()?, &[], Some(1.0)), Err(PlacementError::Processors { rank: 4 }));
        Ok(())
    }
}

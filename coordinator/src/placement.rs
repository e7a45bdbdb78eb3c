//! Where an application's ranks begin: pure functions of the manifest's strategy and the hosts.

use control::{HostName, Specification, Strategy};
use thiserror::Error;

/// A host that takes partitions.
#[derive(Clone, Debug)]
pub struct PlaceHost {
    /// Its name.
    pub name: HostName,
    /// Processors.
    pub cpus: u32,
    /// Partitions placed there.
    pub partitions: u32,
    /// Memory that is not taken, in bytes.
    pub memory_free: u64,
    /// In reserve: takes only partitions pinned to it.
    pub standby: bool,
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
    /// Not enough memory.
    #[error("rank {rank} needs {} MiB, more than any suitable host has left; use less `memory` or add a host", bytes >> 20)]
    Memory {
        /// The rank.
        rank: u32,
        /// What it needs.
        bytes: u64,
    },
}

/// A host for every rank.
pub fn place(
    specification: &Specification,
    mut hosts: Vec<PlaceHost>,
) -> Result<Vec<HostName>, PlacementError> {
    if hosts.is_empty() {
        return Err(PlacementError::NoHost);
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let mut placed = Vec::new();
    for rank in 0..specification.ranks() {
        let bytes = specification.component(rank).map_or(0, |component| component.memory_bytes);
        let index = match specification.pinned.get(&rank) {
            Some(host) if specification.strategy == Strategy::Pinned => {
                let found = hosts.iter().position(|it| it.name == *host);
                found.ok_or_else(|| PlacementError::NoSuchHost { rank, host: host.clone() })?
            }
            _ => {
                let suits = |it: &PlaceHost| !it.standby && it.memory_free >= bytes;
                if !hosts.iter().any(|it| !it.standby) {
                    return Err(PlacementError::NoHost);
                }
                choose(specification.strategy, &hosts, suits).ok_or(PlacementError::Memory { rank, bytes })?
            }
        };
        let host = &mut hosts[index];
        host.memory_free =
            host.memory_free.checked_sub(bytes).ok_or(PlacementError::Memory { rank, bytes })?;
        host.partitions += 1;
        placed.push(host.name.clone());
    }
    Ok(placed)
}

fn choose(strategy: Strategy, hosts: &[PlaceHost], suits: impl Fn(&PlaceHost) -> bool) -> Option<usize> {
    let suitable = || hosts.iter().enumerate().filter(|(_, host)| suits(host));
    let emptiest = || {
        // partitions / cpus, compared without division.
        let fuller = |a: &PlaceHost, b: &PlaceHost| {
            (u64::from(a.partitions) * u64::from(b.cpus)).cmp(&(u64::from(b.partitions) * u64::from(a.cpus)))
        };
        suitable().min_by(|(_, a), (_, b)| fuller(a, b)).map(|(index, _)| index)
    };
    match strategy {
        Strategy::Spread | Strategy::Pinned => emptiest(),
        Strategy::Pack => {
            suitable().find(|(_, host)| host.partitions < host.cpus).map(|(index, _)| index).or_else(emptiest)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use control::Component;

    use super::*;

    type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

    fn hosts() -> Result<Vec<PlaceHost>> {
        let host = |name: &str, standby| -> Result<PlaceHost> {
            Ok(PlaceHost { name: name.parse()?, cpus: 2, partitions: 0, memory_free: 256 << 20, standby })
        };
        Ok(vec![host("c", true)?, host("b", false)?, host("a", false)?])
    }

    fn placed(strategy: Strategy, ranks: u32, pinned: &[(u32, &str)]) -> Result<String> {
        let component = Component {
            executable: "/x".into(),
            args: vec![],
            ranks,
            memory_bytes: 64 << 20,
            env: BTreeMap::new(),
            files: vec![],
        };
        let pinned = pinned.iter().map(|(rank, host)| Ok((*rank, host.parse()?))).collect::<Result<_>>()?;
        let specification = Specification {
            name: "x".into(),
            components: vec![component],
            strategy,
            pinned,
            migrate: true,
            report: None,
        };
        Ok(place(&specification, hosts()?)?.iter().map(HostName::as_str).collect())
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
}

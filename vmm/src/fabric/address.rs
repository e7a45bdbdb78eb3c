//! Addresses of the fabric, as text and back; and how partitions of one host find each other.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Where a partition's fabric listens.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// A Unix socket on this machine.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
    /// TLS 1.3 over TCP, both sides with a certificate.
    Tls(SocketAddr),
}

impl Address {
    /// Whether messages to it would cross a network unprotected.
    pub fn is_exposed(&self) -> bool {
        matches!(self, Self::Tcp(socket) if !socket.ip().is_loopback())
    }
}

/// A text that is no address.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not an address of the fabric; write unix:/PATH, tcp:ADDRESS:PORT or tls:ADDRESS:PORT")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.chars().take(200).collect());
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() && path.len() < 108 => Ok(Self::Unix(path.into())),
            Some(("tcp", socket)) => socket.parse().map(Self::Tcp).map_err(|_| wrong()),
            Some(("tls", socket)) => socket.parse().map(Self::Tls).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(socket) => write!(f, "tcp:{socket}"),
            Self::Tls(socket) => write!(f, "tls:{socket}"),
        }
    }
}

/// Where the partitions of an application that are on this host listen on Unix sockets, whatever the fabric's addresses: a
/// path with `{rank}` and `{epoch}`. Whoever is found there is on this machine, so rings can be shared with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbours(String);

impl Neighbours {
    /// Where this owner of a rank listens, if it is on this host.
    pub fn address(&self, rank: u32, epoch: u64) -> Address {
        let path = self.0.replace("{rank}", &rank.to_string()).replace("{epoch}", &epoch.to_string());
        Address::Unix(path.into())
    }
}

/// A text that is no pattern of paths.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} names no sockets; write an absolute path with {{rank}} and {{epoch}} in it")]
pub struct NeighboursError(String);

impl FromStr for Neighbours {
    type Err = NeighboursError;

    fn from_str(text: &str) -> Result<Self, NeighboursError> {
        match text.starts_with('/') && text.contains("{rank}") && text.contains("{epoch}") {
            true => Ok(Self(text.to_owned())),
            false => Err(NeighboursError(text.chars().take(200).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_named_by_rank_and_epoch() {
        let neighbours: Neighbours = "/p/heat.{rank}.{epoch}/rank-{rank}.fabric".parse().unwrap();
        assert_eq!(neighbours.address(3, 7).to_string(), "unix:/p/heat.3.7/rank-3.fabric");
        for text in ["", "p/{rank}.{epoch}", "/p/{rank}", "/p/{epoch}"] {
            assert!(text.parse::<Neighbours>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["unix:/run/rank-1.fabric", "tcp:127.0.0.1:4000", "tcp:[::1]:4000", "tls:10.0.0.1:4000"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "tcp:localhost", "tcp:1.2.3.4", "tls:host:1", "http://x", "unix"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}

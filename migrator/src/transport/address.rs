//! Addresses of migrations, as text and back.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What protects a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Nothing: plain TCP.
    Tcp,
    /// TLS 1.3, in which both sides show a certificate.
    Tls,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// Where a destination listens: `tcp:HOST:PORT` or `tls:HOST:PORT`, with an IPv6 HOST in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Another form than the one we know.
    #[error(
        "migration address {0:?} is not of the form tcp:HOST:PORT or tls:HOST:PORT: write for example tcp:127.0.0.1:4000"
    )]
    Form(String),
    /// A scheme that migration does not have.
    #[error("migration address {0:?}: {1} is not supported: use tcp:HOST:PORT or tls:HOST:PORT")]
    Unsupported(String, &'static str),
    /// A port that is no number of 16 bits.
    #[error("migration address {0:?} has no port number at its end: use 0 (any, when listening) to 65535")]
    Port(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let shown = || text.chars().take(200).collect::<String>();
        for (scheme, name) in [("ofi:", "RDMA"), ("unix:", "a Unix socket")] {
            if text.starts_with(scheme) {
                return Err(AddressError::Unsupported(shown(), name));
            }
        }
        let (scheme, rest) = match text.split_once(':') {
            Some(("tcp", rest)) => (Scheme::Tcp, rest),
            Some(("tls", rest)) => (Scheme::Tls, rest),
            _ => return Err(AddressError::Form(shown())),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| AddressError::Form(shown()))?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let foreign = |c: char| c.is_whitespace() || c.is_control() || "[]/".contains(c);
        if host.is_empty() || host.len() > 255 || host.contains(foreign) {
            return Err(AddressError::Form(shown()));
        }
        if bracketed.is_none() && host.contains(':') {
            return Err(AddressError::Form(shown()));
        }
        let port = port.parse().map_err(|_| AddressError::Port(shown()))?;
        Ok(Self { scheme, host: host.to_owned(), port })
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

impl Address {
    /// What protects its connections.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, a name or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where one listens who was asked to listen here and got `bound`. A host that TLS checks certificates for stays.
    pub(super) fn bound(&self, bound: SocketAddr) -> Self {
        let unspecified = self.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        let host = match self.scheme {
            Scheme::Tls if !unspecified => self.host.clone(),
            _ => bound.ip().to_string(),
        };
        Self { scheme: self.scheme, host, port: bound.port() }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { scheme: Scheme::Tcp, host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = (self.scheme.name(), &self.host, self.port);
        if host.contains(':') {
            write!(formatter, "{scheme}:[{host}]:{port}")
        } else {
            write!(formatter, "{scheme}:{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_bad_ones_say_what_to_write() {
        for good in
            ["tcp:127.0.0.1:0", "tcp:localhost:4000", "tcp:[::1]:65535", "tls:node-1:4000", "tls:[::1]:1"]
        {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "tcp:",
            "tcp:host",
            "127.0.0.1:1",
            "tcp::1",
            "tcp:a b:1",
            "tcp:::1:4",
            "tcp:[::1:4",
            "tcp:h:x",
            "tls:h",
            "ssl:h:1",
        ] {
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("tcp:HOST:PORT") || error.contains("65535"), "{bad}: {error}");
        }
        for later in ["ofi:h:1", "unix:/x"] {
            assert!(matches!(later.parse::<Address>(), Err(AddressError::Unsupported(..))));
        }
        assert!(matches!("tcp:h:70000".parse::<Address>(), Err(AddressError::Port(_))));
    }
}

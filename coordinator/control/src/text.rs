//! What people write on command lines and in manifests: sizes, processor lists, addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// A text that could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TextError {
    /// Not a size.
    #[error("`{0}` is not a size; write a number of bytes or one with K, M or G, such as 256M")]
    Size(String),
    /// Not a processor list.
    #[error("`{0}` is not a list of processors; write one such as 0,2-3")]
    Cpus(String),
    /// Not an address.
    #[error("`{0}` is not an address; write tls:HOST:PORT or tcp:HOST:PORT")]
    Address(String),
    /// An address whose protocol is not built in.
    #[error("`{0}`: only tcp: and tls: are supported here")]
    Protocol(String),
}

/// An error with its sources in one line. A source that ends what was said already is not said again.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        next = source.source();
    }
    text
}

/// Reads a size in bytes: `1048576`, `64K`, `256M`, `2G`.
pub fn parse_size(text: &str) -> Result<u64, TextError> {
    let error = || TextError::Size(text.to_owned());
    let (digits, shift) = match text.trim_end_matches("iB").char_indices().last() {
        Some((end, 'K' | 'k')) => (&text[..end], 10),
        Some((end, 'M' | 'm')) => (&text[..end], 20),
        Some((end, 'G' | 'g')) => (&text[..end], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| error())?;
    number.checked_mul(1 << shift).ok_or_else(error)
}

/// Reads a processor list such as `0,2-3`.
pub fn parse_cpus(text: &str) -> Result<Vec<u32>, TextError> {
    let error = || TextError::Cpus(text.to_owned());
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) =
            (first.parse().map_err(|_| error())?, last.parse().map_err(|_| error())?);
        if first > last || last > 65_535 {
            return Err(error());
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// `tcp:HOST:PORT` or `tls:HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpAddress {
    tls: bool,
    host: String,
    port: u16,
}

impl TcpAddress {
    /// The host, a name or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Do both sides show certificates, and is everything encrypted?
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Can nobody on a network listen or pretend to be it?
    pub fn is_protected(&self) -> bool {
        self.tls || self.is_loopback()
    }

    /// The same with another port.
    pub fn with_port(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// Does it stay on this machine? Names other than `localhost` are taken to leave it.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Is `host` this machine itself?
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl FromStr for TcpAddress {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        let error = || TextError::Address(text.to_owned());
        let (tls, rest) = match text.split_once(':').ok_or_else(error)? {
            ("tcp", rest) => (false, rest),
            ("tls", rest) => (true, rest),
            ("ofi" | "unix", _) => return Err(TextError::Protocol(text.to_owned())),
            _ => return Err(error()),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(error)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(error());
        }
        Ok(Self { tls, host: host.to_owned(), port: port.parse().map_err(|_| error())? })
    }
}

impl fmt::Display for TcpAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "tls" } else { "tcp" };
        if self.host.contains(':') {
            write!(formatter, "{scheme}:[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{scheme}:{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_lists_and_addresses_are_read_as_people_write_them() {
        assert_eq!(parse_size("256M"), Ok(256 << 20));
        assert_eq!(parse_size("12"), Ok(12));
        assert!(parse_size("M").is_err() && parse_size("-1").is_err() && parse_size("99999999999G").is_err());
        assert_eq!(parse_cpus("0,2-3"), Ok(vec![0, 2, 3]));
        assert!(parse_cpus("3-1").is_err() && parse_cpus("").is_err() && parse_cpus("0-99999999").is_err());
        let address: Result<TcpAddress, _> = "tcp:[::1]:7".parse();
        assert!(
            address
                .as_ref()
                .is_ok_and(|address| address.is_loopback() && address.to_string() == "tcp:[::1]:7")
        );
        assert!("tcp:0.0.0.0:7".parse::<TcpAddress>().is_ok_and(|address| !address.is_loopback()));
        assert!("127.0.0.1:7".parse::<TcpAddress>().is_err());
        assert!(matches!("ofi:h:7".parse::<TcpAddress>(), Err(TextError::Protocol(_))));
        let secure: Result<TcpAddress, _> = "tls:head:7".parse();
        assert!(secure.is_ok_and(|address| address.is_protected() && address.to_string() == "tls:head:7"));
        assert!("tcp:head:7".parse::<TcpAddress>().is_ok_and(|address| !address.is_protected()));
    }
}

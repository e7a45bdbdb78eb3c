//! Addresses of the fabric and the only place of this crate that opens its sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Where a partition's fabric listens.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// A Unix socket on this machine.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

/// A text that is no address.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not an address of the fabric; write unix:/PATH or tcp:ADDRESS:PORT")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.chars().take(200).collect());
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() && path.len() < 108 => Ok(Self::Unix(path.into())),
            Some(("tcp", socket)) => socket.parse().map(Self::Tcp).map_err(|_| wrong()),
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
        }
    }
}

/// A connection of either kind.
pub enum Stream {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP, without delay.
    Tcp(TcpStream),
}

impl Stream {
    /// Connects.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Unix(path) => Self::Unix(UnixStream::connect(path).await?),
            Address::Tcp(socket) => {
                let stream = TcpStream::connect(socket).await?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
        })
    }

    /// Whether open files can be sent over it: the far end is on this machine.
    pub fn carries_files(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Calls `operation` with the descriptor until it does not answer `WouldBlock`.
    pub async fn perform<T>(
        &self,
        interest: Interest,
        mut operation: impl FnMut(std::os::fd::RawFd) -> io::Result<T>,
    ) -> io::Result<T> {
        use std::os::fd::AsRawFd;
        match self {
            Self::Unix(stream) => stream.async_io(interest, || operation(stream.as_raw_fd())).await,
            Self::Tcp(stream) => stream.async_io(interest, || operation(stream.as_raw_fd())).await,
        }
    }
}

/// A listening socket; a Unix one removes its path when it is dropped.
pub enum Listener {
    /// On a path.
    Unix(UnixListener, PathBuf),
    /// On a port.
    Tcp(TcpListener),
}

impl Listener {
    /// Listens; a stale socket file of a dead process is replaced.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Unix(path) => {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                Self::Unix(UnixListener::bind(path)?, path.clone())
            }
            Address::Tcp(socket) => Self::Tcp(TcpListener::bind(socket).await?),
        })
    }

    /// Where it listens, with the port that was given.
    pub fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Unix(_, path) => Address::Unix(path.clone()),
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?),
        })
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Unix(listener, _) => Stream::Unix(listener.accept().await?.0),
            Self::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["unix:/run/rank-1.fabric", "tcp:127.0.0.1:4000", "tcp:[::1]:4000"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "tcp:localhost", "tcp:1.2.3.4", "http://x", "unix"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}

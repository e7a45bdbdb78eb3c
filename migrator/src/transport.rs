//! The one file with sockets: addresses, connections, listeners, and how long to wait for the other side.

use std::fmt;
use std::io::{self, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock;

/// How often a blocked read, write or accept looks whether it should stop.
const TICK: Duration = Duration::from_millis(100);
/// Bytes buffered by a reader: one full page frame.
const READ_BUFFER_BYTES: usize = 256 * 1024 + 64;

/// How long to wait for the other side, step by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting one socket.
    pub connect: Duration,
    /// The first frame of a connection that the destination accepted.
    pub hello: Duration,
    /// The destination's build, until ACCEPT or REFUSE.
    pub build: Duration,
    /// Silence after which the other side counts as lost.
    pub silence: Duration,
    /// One frame from its header to its end.
    pub frame: Duration,
    /// From COMMIT until RUNNING; after it the source is in doubt.
    pub running: Duration,
    /// How often an idle source says that it is there.
    pub keep_alive: Duration,
    /// How long either side keeps what it has of a pre-copy whose connections broke; zero: it does not.
    pub resume: Duration,
    /// The longest migration a destination sits through.
    pub session: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            hello: Duration::from_secs(2),
            build: Duration::from_secs(30),
            silence: Duration::from_secs(10),
            frame: Duration::from_secs(30),
            running: Duration::from_secs(5),
            keep_alive: Duration::from_secs(1),
            resume: Duration::from_secs(5),
            session: Duration::from_secs(24 * 3600),
        }
    }
}

/// Where a destination listens: `tcp:HOST:PORT`, with an IPv6 HOST in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    host: String,
    port: u16,
}

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Another form than the one we know.
    #[error("migration address {0:?} is not of the form tcp:HOST:PORT: write for example tcp:127.0.0.1:4000")]
    Form(String),
    /// A scheme that is planned.
    #[error("migration address {0:?}: {1} is not supported yet: use tcp:HOST:PORT")]
    Unsupported(String, &'static str),
    /// A port that is no number of 16 bits.
    #[error("migration address {0:?} has no port number at its end: use 0 (any, when listening) to 65535")]
    Port(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let shown = || text.chars().take(200).collect::<String>();
        for (scheme, name) in [("tls:", "TLS"), ("ofi:", "RDMA"), ("unix:", "a Unix socket")] {
            if text.starts_with(scheme) {
                return Err(AddressError::Unsupported(shown(), name));
            }
        }
        let rest = text.strip_prefix("tcp:").ok_or_else(|| AddressError::Form(shown()))?;
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
        Ok(Self { host: host.to_owned(), port })
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

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "tcp:[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "tcp:{}:{}", self.host, self.port)
        }
    }
}

/// Why a transfer failed.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The name has no address.
    #[error("cannot resolve {address}: check the host name")]
    Resolve {
        /// What was asked for.
        address: Address,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The connection would leave this machine unprotected.
    #[error(
        "{address} is not on this machine and plain TCP is not protected: use --insecure if its network is trusted"
    )]
    Insecure {
        /// What was asked for.
        address: Address,
    },
    /// Nobody answers there.
    #[error("cannot connect to {address}: check that `vmm receive` listens there")]
    Connect {
        /// What was asked for.
        address: Address,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: choose another port, or 0 for any")]
    Listen {
        /// What was asked for.
        address: Address,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The other side closed the connection.
    #[error("the other side closed the connection")]
    Closed,
    /// Nothing arrived, or nothing was taken, for too long.
    #[error("the other side was silent for {limit_ms} ms")]
    Silent {
        /// How long was waited.
        limit_ms: u128,
    },
    /// This side wanted to stop.
    #[error("stopped from this side")]
    Stopped,
    /// The system's error.
    #[error("connection failed")]
    Io(#[from] io::Error),
}

impl Address {
    /// The socket addresses it stands for; refuses any that is not loopback unless `insecure`.
    fn resolve(&self, insecure: bool) -> Result<Vec<SocketAddr>, TransportError> {
        let failed = |source| TransportError::Resolve { address: self.clone(), source };
        let found: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs().map_err(failed)?.collect();
        if found.is_empty() {
            return Err(failed(io::Error::new(ErrorKind::NotFound, "no address")));
        }
        if !insecure && found.iter().any(|address| !address.ip().is_loopback()) {
            return Err(TransportError::Insecure { address: self.clone() });
        }
        Ok(found)
    }
}

/// Looks whether a blocked operation should end.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// A connected socket with buffered reads and deadlines on everything.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to `address`, trying each of its socket addresses for up to `limit`.
    ///
    /// # Errors
    /// Unresolvable, refused as insecure, or not answering.
    pub fn connect(address: &Address, insecure: bool, limit: Duration) -> Result<Self, TransportError> {
        let mut last = io::Error::new(ErrorKind::NotFound, "no address");
        for socket_address in address.resolve(insecure)? {
            match TcpStream::connect_timeout(&socket_address, limit) {
                Ok(socket) => return Self::new(socket),
                Err(error) => last = error,
            }
        }
        Err(TransportError::Connect { address: address.clone(), source: last })
    }

    fn new(socket: TcpStream) -> Result<Self, TransportError> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TICK))?;
        socket.set_write_timeout(Some(TICK))?;
        // A dead host is noticed by our own silence limits; these only free the socket of a peer nobody waits for.
        // Not every sandbox knows all of them, and nothing depends on them.
        let _ = setsockopt(&socket, sockopt::KeepAlive, &true);
        let _ = setsockopt(&socket, sockopt::TcpKeepIdle, &5);
        let _ = setsockopt(&socket, sockopt::TcpKeepInterval, &2);
        let _ = setsockopt(&socket, sockopt::TcpKeepCount, &3);
        let _ = setsockopt(&socket, sockopt::TcpUserTimeout, &15_000);
        Ok(Self { reader: BufReader::with_capacity(READ_BUFFER_BYTES, socket) })
    }

    /// Fills `buffer` within `limit`.
    ///
    /// # Errors
    /// `Closed`, `Silent` after `limit`, `Stopped` soon after `stop` says so, or the system's.
    pub fn read_exact(
        &mut self,
        buffer: &mut [u8],
        limit: Duration,
        stop: Stop,
    ) -> Result<(), TransportError> {
        let start = clock::now();
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => return Err(TransportError::Closed),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_tick(&error) => {
                    if stop() {
                        return Err(TransportError::Stopped);
                    }
                }
                Err(error) if is_closed(&error) => return Err(TransportError::Closed),
                Err(error) => return Err(error.into()),
            }
            if filled < buffer.len() && start.elapsed() >= limit {
                return Err(TransportError::Silent { limit_ms: limit.as_millis() });
            }
        }
        Ok(())
    }

    /// Writes all of `first` and then all of `second`; the other side must take some of it every `stall`.
    ///
    /// # Errors
    /// `Closed`, `Silent` after `stall`, `Stopped` soon after `stop` says so, or the system's.
    pub fn write_all(
        &mut self,
        first: &[u8],
        second: &[u8],
        stall: Duration,
        stop: Stop,
    ) -> Result<(), TransportError> {
        let mut socket = self.reader.get_ref();
        let total = first.len() + second.len();
        let (mut written, mut progress) = (0, clock::now());
        while written < total {
            let head = IoSlice::new(&first[written.min(first.len())..]);
            let tail = IoSlice::new(&second[written.saturating_sub(first.len())..]);
            match socket.write_vectored(&[head, tail]) {
                Ok(0) => return Err(TransportError::Closed),
                Ok(bytes) => {
                    written += bytes;
                    progress = clock::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_tick(&error) => {
                    if stop() {
                        return Err(TransportError::Stopped);
                    }
                    if progress.elapsed() >= stall {
                        return Err(TransportError::Silent { limit_ms: stall.as_millis() });
                    }
                }
                Err(error) if is_closed(&error) => return Err(TransportError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Closes so that what was written last still arrives: a socket closed with unread bytes would reset the connection.
    pub fn linger(mut self) {
        const BYTES_MAX: usize = 4 << 20;
        let start = clock::now();
        let mut read = 0;
        let mut sink = [0; 4096];
        let _ = self.reader.get_ref().shutdown(Shutdown::Write);
        while read < BYTES_MAX && start.elapsed() < 5 * TICK {
            match self.reader.read(&mut sink) {
                Ok(0) => return,
                Ok(bytes) => read += bytes,
                Err(error) if is_tick(&error) => {}
                Err(_) => return,
            }
        }
    }
}

fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
    )
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: Address,
}

impl Listener {
    /// Listens on `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// Unresolvable, refused as insecure, or taken.
    pub fn bind(address: &Address, insecure: bool) -> Result<Self, TransportError> {
        let failed = |source| TransportError::Listen { address: address.clone(), source };
        let socket = TcpListener::bind(address.resolve(insecure)?.as_slice()).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?.into();
        Ok(Self { socket, address })
    }

    /// Where it listens, with the port it got.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection, waited for until `limit` (without one, for ever).
    ///
    /// # Errors
    /// `Silent` after `limit`, `Stopped` soon after `stop` says so, or the system's.
    pub fn accept(&self, limit: Option<Duration>, stop: Stop) -> Result<Connection, TransportError> {
        let start = clock::now();
        loop {
            match self.socket.accept() {
                Ok((socket, _)) => return Connection::new(socket),
                Err(error)
                    if is_tick(&error) || error.kind() == ErrorKind::Interrupted || is_closed(&error) => {}
                Err(error) => return Err(error.into()),
            }
            if stop() {
                return Err(TransportError::Stopped);
            }
            if let Some(limit) = limit.filter(|limit| start.elapsed() >= *limit) {
                return Err(TransportError::Silent { limit_ms: limit.as_millis() });
            }
            let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

/// A number that no other migration has, for telling which page streams belong to which control connection.
///
/// # Errors
/// The system has no random source.
pub fn session_id() -> Result<[u8; 16], TransportError> {
    let mut id = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut id)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_bad_ones_say_what_to_write() {
        for good in ["tcp:127.0.0.1:0", "tcp:localhost:4000", "tcp:[::1]:65535"] {
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
        ] {
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("tcp:HOST:PORT") || error.contains("65535"), "{bad}: {error}");
        }
        for later in ["tls:h:1", "ofi:h:1", "unix:/x"] {
            assert!(matches!(later.parse::<Address>(), Err(AddressError::Unsupported(..))));
        }
        assert!(matches!("tcp:h:70000".parse::<Address>(), Err(AddressError::Port(_))));
    }

    #[test]
    fn plain_tcp_to_another_machine_needs_insecure() {
        let address: Address = "tcp:192.0.2.1:9".parse().unwrap();
        let refused = Connection::connect(&address, false, TICK).unwrap_err();
        assert!(
            matches!(refused, TransportError::Insecure { .. }) && refused.to_string().contains("--insecure")
        );
        let anywhere: Address = "tcp:0.0.0.0:0".parse().unwrap();
        assert!(matches!(Listener::bind(&anywhere, false), Err(TransportError::Insecure { .. })));
        assert!(Listener::bind(&anywhere, true).is_ok());
    }

    #[test]
    fn silence_and_stop_end_every_wait() {
        let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap(), false).unwrap();
        assert!(matches!(listener.accept(Some(TICK), &|| false), Err(TransportError::Silent { .. })));
        assert!(matches!(listener.accept(None, &|| true), Err(TransportError::Stopped)));
        let mut near = Connection::connect(listener.address(), false, TICK).unwrap();
        let far = listener.accept(None, &|| false).unwrap();
        let mut buffer = [0; 4];
        assert!(matches!(near.read_exact(&mut buffer, TICK, &|| false), Err(TransportError::Silent { .. })));
        let long = Duration::from_secs(60);
        assert!(matches!(near.read_exact(&mut buffer, long, &|| true), Err(TransportError::Stopped)));
        let flood = vec![0; 64 << 20];
        assert!(matches!(
            near.write_all(&flood, &[], 2 * TICK, &|| false),
            Err(TransportError::Silent { .. })
        ));
        drop(far);
        assert!(matches!(near.read_exact(&mut buffer, long, &|| false), Err(TransportError::Closed)));
    }
}

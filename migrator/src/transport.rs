//! The one module with sockets: connections, listeners, and how long to wait for the other side.
//!
//! A connection is plain TCP, or TLS 1.3 over it (`secure`); frames, time limits and errors are the same.

mod address;
mod secure;

use std::io::{self, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use partita_tls::{Identity, IdentityError, Peer, Role, Wanted, explain};
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock;
use secure::Session;

pub use address::{Address, AddressError, Scheme};

/// How often a blocked read, write or accept looks whether it should stop.
const TICK: Duration = Duration::from_millis(100);
/// Bytes buffered by a reader: one full page frame.
const READ_BUFFER_BYTES: usize = 256 * 1024 + 64;

/// How pages get into the destination's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// In frames over the page streams' connections: TCP, or TLS over it.
    #[default]
    Tcp,
    /// By one-sided writes over libfabric; the connections carry everything else.
    Rdma,
}

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

/// What connections may do without, and who this side is.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// Allow plain TCP to other machines.
    pub insecure: bool,
    /// Certificate, key and CA for `tls:` addresses.
    pub identity: Option<Identity>,
}

impl Security {
    fn identity(&self, address: &Address) -> Result<&Identity, IdentityError> {
        self.identity.as_ref().ok_or_else(|| IdentityError::Missing(address.to_string()))
    }
}

impl From<IdentityError> for TransportError {
    fn from(error: IdentityError) -> Self {
        Self::Identity(Box::new(error))
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
        "{address} is not on this machine and plain TCP is not protected: write tls:, or use --insecure if its network is trusted"
    )]
    Insecure {
        /// What was asked for.
        address: Address,
    },
    /// Pages would leave this machine unprotected.
    #[error(
        "{ip} is not on this machine, and RDMA writes are neither encrypted nor authenticated: use --transport tcp, or \
         --insecure on both sides if the network is trusted"
    )]
    RdmaInsecure {
        /// The other side.
        ip: IpAddr,
    },
    /// RDMA carries nothing.
    #[error(
        "nothing came back by RDMA ({provider}) for {limit_ms} ms, although the connections work: check that its network connects \
         both hosts (firewall, FI_PROVIDER), or use --transport tcp"
    )]
    RdmaSilent {
        /// The provider.
        provider: String,
        /// How long was waited.
        limit_ms: u128,
    },
    /// RDMA failed.
    #[error(transparent)]
    Rdma(#[from] partita_rdma::Error),
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
    /// This side cannot be a side of TLS.
    #[error(transparent)]
    Identity(Box<IdentityError>),
    /// The address has no name that a certificate could have.
    #[error("{address}: a certificate cannot name such a host; write a DNS name or an IP address")]
    ServerName {
        /// What was asked for.
        address: Address,
    },
    /// The two sides do not trust each other, or somebody is between them.
    #[error("{}", explain(.0))]
    Tls(Box<rustls::Error>),
    /// The other side went away before it had proved who it is.
    #[error(
        "the other side closed the connection while TLS was set up: write tls: in the address on both sides, or on neither"
    )]
    NoTls,
    /// The other side answered a plain connection in TLS.
    #[error("the other side speaks TLS and this side does not: write tls: in the address")]
    SpeaksTls,
    /// A further connection leads to somebody else than the first one.
    #[error("the other side of this connection has another certificate than that of the control connection")]
    OtherPeer,
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

impl TransportError {
    /// Whether this side knows all about it, so that the other one need not be asked.
    pub fn explains_itself(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::RdmaSilent { .. } | Self::RdmaInsecure { .. } => true,
            Self::Rdma(error) => !error.is_break(),
            _ => false,
        }
    }
}

/// The socket addresses that `address` stands for; refuses plain ones that are not loopback unless `insecure`.
fn resolve(address: &Address, insecure: bool) -> Result<Vec<SocketAddr>, TransportError> {
    let failed = |source| TransportError::Resolve { address: address.clone(), source };
    let found: Vec<_> = (address.host(), address.port()).to_socket_addrs().map_err(failed)?.collect();
    if found.is_empty() {
        return Err(failed(io::Error::new(ErrorKind::NotFound, "no address")));
    }
    let plain = address.scheme() == Scheme::Tcp && !insecure;
    if plain && found.iter().any(|address| !address.ip().is_loopback()) {
        return Err(TransportError::Insecure { address: address.clone() });
    }
    Ok(found)
}

/// Looks whether a blocked operation should end.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// A connected socket with buffered reads and deadlines on everything.
#[derive(Debug)]
pub struct Connection {
    socket: BufReader<TcpStream>,
    secure: Option<Session>,
}

impl Connection {
    /// Connects to `address`, trying each of its socket addresses for up to `limit`; over TLS, both sides have then
    /// shown who they are, as far as this side can know: a server may still refuse, which the first read says.
    ///
    /// # Errors
    /// Unresolvable, refused as insecure, not answering, or not who the certificate should name.
    pub fn connect(address: &Address, security: &Security, limit: Duration) -> Result<Self, TransportError> {
        let session = match address.scheme() {
            Scheme::Tcp => None,
            Scheme::Tls => {
                let config = security.identity(address)?.client(Wanted::Only(Role::Host))?;
                let nameless = |_| TransportError::ServerName { address: address.clone() };
                let name = ServerName::try_from(address.host().to_owned()).map_err(nameless)?;
                Some(Session::client(config, name).map_err(|error| TransportError::Tls(Box::new(error)))?)
            }
        };
        let mut last = io::Error::new(ErrorKind::NotFound, "no address");
        for socket_address in resolve(address, security.insecure)? {
            match TcpStream::connect_timeout(&socket_address, limit) {
                Ok(socket) => {
                    let mut connection = Self::new(socket, session)?;
                    connection.handshake(limit)?;
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(TransportError::Connect { address: address.clone(), source: last })
    }

    fn new(socket: TcpStream, secure: Option<Session>) -> Result<Self, TransportError> {
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
        Ok(Self { socket: BufReader::with_capacity(READ_BUFFER_BYTES, socket), secure })
    }

    fn handshake(&mut self, limit: Duration) -> Result<(), TransportError> {
        let start = clock::now();
        while let Some(session) = &mut self.secure {
            match session.handshake(&mut self.socket) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted || is_tick(&error) => {}
                Err(error) => return Err(self.broken(error)),
            }
            if start.elapsed() >= limit {
                return Err(TransportError::Silent { limit_ms: limit.as_millis() });
            }
        }
        Ok(())
    }

    /// Who the other side has proved to be; nobody on a plain connection, or before the first bytes were read.
    pub fn peer(&self) -> Option<Peer> {
        self.secure.as_ref()?.peer()
    }

    /// The address of this side, for RDMA over the same interface; refused where pages would leave this machine, unless `insecure`.
    ///
    /// # Errors
    /// `RdmaInsecure`, or the system's.
    pub fn rdma_address(&self, insecure: bool) -> Result<IpAddr, TransportError> {
        let socket = self.socket.get_ref();
        let (near, far) = (socket.local_addr()?.ip().to_canonical(), socket.peer_addr()?.ip().to_canonical());
        if far.is_loopback() || insecure { Ok(near) } else { Err(TransportError::RdmaInsecure { ip: far }) }
    }

    /// What an error of the socket, or of TLS over it, comes to.
    fn broken(&mut self, error: io::Error) -> TransportError {
        let kind = error.kind();
        match error.downcast::<rustls::Error>() {
            Ok(error) => {
                // The alert that says why is lost if the socket is closed with unread bytes.
                self.wait_for_end();
                TransportError::Tls(Box::new(error))
            }
            Err(_) if is_closed(kind) => self.closed(),
            Err(error) => error.into(),
        }
    }

    fn closed(&self) -> TransportError {
        let handshaking = self.secure.as_ref().is_some_and(Session::is_handshaking);
        if handshaking { TransportError::NoTls } else { TransportError::Closed }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.secure {
            None => self.socket.read(buffer),
            Some(session) => session.read(&mut self.socket, buffer),
        }
    }

    /// Fills `buffer` within `limit`. The first one on an accepted TLS connection includes the handshake.
    ///
    /// # Errors
    /// `Closed`, `Silent` after `limit`, `Stopped` soon after `stop` says so, what TLS finds, or the system's.
    pub fn read_exact(
        &mut self,
        buffer: &mut [u8],
        limit: Duration,
        stop: Stop,
    ) -> Result<(), TransportError> {
        let start = clock::now();
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) if self.secure.is_none() && is_alert(&buffer[..filled]) => {
                    return Err(TransportError::SpeaksTls);
                }
                Ok(0) => return Err(self.closed()),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_tick(&error) => {
                    if stop() {
                        return Err(TransportError::Stopped);
                    }
                }
                Err(error) => return Err(self.broken(error)),
            }
            if filled < buffer.len() && start.elapsed() >= limit {
                return Err(TransportError::Silent { limit_ms: limit.as_millis() });
            }
        }
        Ok(())
    }

    /// Takes bytes to be sent; says how many, and whether the other side took any.
    fn write(&mut self, parts: &[IoSlice]) -> io::Result<(usize, bool)> {
        match &mut self.secure {
            Some(session) => session.write(self.socket.get_mut(), parts),
            None => match self.socket.get_mut().write_vectored(parts)? {
                0 => Err(ErrorKind::WriteZero.into()),
                bytes => Ok((bytes, true)),
            },
        }
    }

    fn wants_write(&self) -> bool {
        self.secure.as_ref().is_some_and(Session::wants_write)
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
        let total = first.len() + second.len();
        let (mut written, mut progress) = (0, clock::now());
        while written < total || self.wants_write() {
            let head = IoSlice::new(&first[written.min(first.len())..]);
            let tail = IoSlice::new(&second[written.saturating_sub(first.len())..]);
            match self.write(&[head, tail]) {
                Ok((bytes, progressed)) => {
                    written += bytes;
                    if progressed {
                        progress = clock::now();
                    }
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
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    /// Closes so that what was written last still arrives: a socket closed with unread bytes would reset the connection.
    pub fn linger(mut self) {
        if let Some(session) = &mut self.secure {
            session.farewell(self.socket.get_mut());
        }
        self.wait_for_end();
    }

    /// Ends this direction and waits, not long, until the other side has ended its own.
    fn wait_for_end(&mut self) {
        const BYTES_MAX: usize = 4 << 20;
        let start = clock::now();
        let mut read = 0;
        let mut sink = [0; 4096];
        let _ = self.socket.get_ref().shutdown(Shutdown::Write);
        while read < BYTES_MAX && start.elapsed() < 5 * TICK {
            match self.socket.read(&mut sink) {
                Ok(0) => return,
                Ok(bytes) => read += bytes,
                Err(error) if is_tick(&error) => {}
                Err(_) => return,
            }
        }
    }
}

/// Whether the first bytes are an alert of TLS: a plain frame that begins like one has a zero behind the kind.
fn is_alert(bytes: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const MAJOR_VERSION: u8 = 3;
    bytes.starts_with(&[ALERT, MAJOR_VERSION])
}

fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WriteZero
            | ErrorKind::UnexpectedEof
            | ErrorKind::BrokenPipe
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
    secure: Option<Arc<ServerConfig>>,
    insecure: bool,
}

impl Listener {
    /// Listens on `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// Unresolvable, refused as insecure, without the identity that TLS needs, or taken.
    pub fn bind(address: &Address, security: &Security) -> Result<Self, TransportError> {
        let failed = |source| TransportError::Listen { address: address.clone(), source };
        let secure = match address.scheme() {
            Scheme::Tcp => None,
            Scheme::Tls => Some(security.identity(address)?.server(Wanted::Only(Role::Host))?),
        };
        let addresses = resolve(address, security.insecure)?;
        let socket = TcpListener::bind(addresses.as_slice()).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let address = address.bound(socket.local_addr().map_err(failed)?);
        Ok(Self { socket, address, secure, insecure: security.insecure })
    }

    /// Where it listens, with the port it got.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether it takes what is not protected from other machines.
    pub fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// The next connection, waited for until `limit` (without one, for ever). Over TLS nobody has proved anything yet:
    /// the first read does the handshake, within its own limit.
    ///
    /// # Errors
    /// `Silent` after `limit`, `Stopped` soon after `stop` says so, or the system's.
    pub fn accept(&self, limit: Option<Duration>, stop: Stop) -> Result<Connection, TransportError> {
        let start = clock::now();
        loop {
            match self.socket.accept() {
                Ok((socket, _)) => {
                    let session = self.secure.clone().map(Session::server).transpose();
                    return Connection::new(
                        socket,
                        session.map_err(|error| TransportError::Tls(Box::new(error)))?,
                    );
                }
                Err(error)
                    if is_tick(&error)
                        || error.kind() == ErrorKind::Interrupted
                        || is_closed(error.kind()) => {}
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
    fn plain_tcp_to_another_machine_needs_insecure() {
        let address: Address = "tcp:192.0.2.1:9".parse().unwrap();
        let refused = Connection::connect(&address, &Security::default(), TICK).unwrap_err();
        assert!(
            matches!(refused, TransportError::Insecure { .. }) && refused.to_string().contains("--insecure")
        );
        let anywhere: Address = "tcp:0.0.0.0:0".parse().unwrap();
        assert!(matches!(
            Listener::bind(&anywhere, &Security::default()),
            Err(TransportError::Insecure { .. })
        ));
        assert!(Listener::bind(&anywhere, &Security { insecure: true, identity: None }).is_ok());
    }

    #[test]
    fn silence_and_stop_end_every_wait() {
        let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap(), &Security::default()).unwrap();
        assert!(matches!(listener.accept(Some(TICK), &|| false), Err(TransportError::Silent { .. })));
        assert!(matches!(listener.accept(None, &|| true), Err(TransportError::Stopped)));
        let long = Duration::from_secs(60);
        let mut near = Connection::connect(listener.address(), &Security::default(), long).unwrap();
        let far = listener.accept(None, &|| false).unwrap();
        let mut buffer = [0; 4];
        assert!(matches!(near.read_exact(&mut buffer, TICK, &|| false), Err(TransportError::Silent { .. })));
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

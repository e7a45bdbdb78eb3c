//! The sockets of the fabric, and the only place of this crate that opens them: Unix, TCP, and TLS over TCP.
//!
//! Plain sockets take bytes straight from guest memory and put them there; TLS copies them, because it has to change them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use partita_tls::{Identity, IdentityError, Role, Wanted, streams};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsStream;

use super::address::Address;
use super::ring::Ring;

/// How long the two sides may take to prove who they are.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Ring bytes that are copied at once for TLS.
const COPY_BYTES: u64 = 32 << 10;

/// Who this side is, for `tls:` addresses; only hosts are let in.
#[derive(Debug, Clone)]
pub struct Credentials {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Credentials {
    /// Made from files that were read.
    ///
    /// # Errors
    /// They do not fit together.
    pub fn new(identity: &Identity) -> Result<Self, IdentityError> {
        let wanted = Wanted::Only(Role::Host);
        Ok(Self { client: identity.client(wanted)?, server: identity.server(wanted)? })
    }
}

fn unnamed(address: &Address) -> io::Error {
    io::Error::other(IdentityError::Missing(address.to_string()))
}

/// A connection of any kind.
pub enum Stream {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP, without delay.
    Tcp(TcpStream),
    /// Over TLS. The two tasks of a connection borrow it for the time of a poll only.
    Tls(Box<RefCell<TlsStream<TcpStream>>>),
}

impl Stream {
    /// Connects.
    pub async fn connect(address: &Address, credentials: Option<&Credentials>) -> io::Result<Self> {
        Ok(match address {
            Address::Unix(path) => Self::Unix(UnixStream::connect(path).await?),
            Address::Tcp(socket) => {
                let stream = TcpStream::connect(socket).await?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
            Address::Tls(socket) => {
                let config = credentials.ok_or_else(|| unnamed(address))?.client.clone();
                let stream = TcpStream::connect(socket).await?;
                stream.set_nodelay(true)?;
                let host = socket.ip().to_string();
                Self::secured(streams::connect(config, &host, stream, HANDSHAKE).await?)
            }
        })
    }

    fn secured(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(RefCell::new(stream)))
    }

    /// Whether open files can be sent over it: the far end is on this machine.
    pub fn carries_files(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Calls `operation` with the descriptor of a plain socket until it does not answer `WouldBlock`.
    pub async fn perform<T>(
        &self,
        interest: Interest,
        mut operation: impl FnMut(RawFd) -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            Self::Unix(stream) => stream.async_io(interest, || operation(stream.as_raw_fd())).await,
            Self::Tcp(stream) => stream.async_io(interest, || operation(stream.as_raw_fd())).await,
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Receives some bytes; none at the end.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Self::Tls(stream) = self {
            return receive_secured(stream, buffer).await;
        }
        self.perform(Interest::READABLE, |socket| {
            // SAFETY: `buffer` is valid for its length.
            let got = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            usize::try_from(got).map_err(|_| io::Error::last_os_error())
        })
        .await
    }

    /// Sends some of `bytes`.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        if let Self::Tls(stream) = self {
            return send_secured(stream, bytes).await;
        }
        self.perform(Interest::WRITABLE, |socket| {
            // SAFETY: `bytes` is valid for its length.
            let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
            usize::try_from(sent).map_err(|_| io::Error::last_os_error())
        })
        .await
    }

    /// Sends some of `header`, followed by `length` stream bytes of `ring` from `offset` on.
    pub async fn send_from(&self, ring: &Ring, header: &[u8], offset: u64, length: u64) -> io::Result<u64> {
        let Self::Tls(stream) = self else {
            return self
                .perform(Interest::WRITABLE, |socket| ring.send(socket, header, offset, length))
                .await;
        };
        let mut bytes = header.to_vec();
        bytes.resize(header.len() + length.min(COPY_BYTES) as usize, 0);
        ring.copy_out(offset, &mut bytes[header.len()..]).map_err(io::Error::other)?;
        Ok(send_secured(stream, &bytes).await? as u64)
    }

    /// Receives up to `length` stream bytes into `ring` from `offset` on, unless `is_current` says that the connection
    /// was replaced: an older one would write over what came since. Nothing at the end.
    pub async fn receive_into(
        &self,
        ring: &Ring,
        offset: u64,
        length: u64,
        is_current: impl Fn() -> bool,
    ) -> io::Result<u64> {
        let replaced = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let Self::Tls(stream) = self else {
            return self
                .perform(Interest::READABLE, |socket| match is_current() {
                    true => ring.receive(socket, offset, length),
                    false => Err(replaced()),
                })
                .await;
        };
        let mut bytes = vec![0; length.min(COPY_BYTES) as usize];
        let got = receive_secured(stream, &mut bytes).await?;
        if !is_current() {
            return Err(replaced());
        }
        ring.copy_in(offset, &mut bytes[..got]).map_err(io::Error::other)?;
        Ok(got as u64)
    }
}

async fn receive_secured(stream: &RefCell<TlsStream<TcpStream>>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut buffer = ReadBuf::new(buffer);
    match poll_fn(|context| Pin::new(&mut *stream.borrow_mut()).poll_read(context, &mut buffer)).await {
        // Without a farewell: the frames say by themselves whether one is whole.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        other => other.map(|()| buffer.filled().len()),
    }
}

async fn send_secured(stream: &RefCell<TlsStream<TcpStream>>, bytes: &[u8]) -> io::Result<usize> {
    let sent = poll_fn(|context| Pin::new(&mut *stream.borrow_mut()).poll_write(context, bytes)).await?;
    poll_fn(|context| Pin::new(&mut *stream.borrow_mut()).poll_flush(context)).await?;
    Ok(sent)
}

/// Somebody who has connected and, over TLS, has not proved yet who he is.
pub enum Accepted {
    /// Nothing is to be proved.
    Ready(Stream),
    /// A handshake is.
    Unproved(Arc<ServerConfig>, TcpStream),
}

impl Accepted {
    /// Has him prove it, within some seconds.
    pub async fn prove(self) -> io::Result<Stream> {
        match self {
            Self::Ready(stream) => Ok(stream),
            Self::Unproved(config, socket) => {
                streams::accept(config, socket, HANDSHAKE).await.map(Stream::secured)
            }
        }
    }
}

/// A bound socket before anybody is let in: made early, so that its port is known and peers can be told of it.
#[derive(Debug, Clone)]
pub struct Bound {
    socket: Arc<BoundSocket>,
    server: Option<Arc<ServerConfig>>,
}

#[derive(Debug)]
enum BoundSocket {
    Unix(std::os::unix::net::UnixListener, PathBuf),
    Tcp(std::net::TcpListener),
}

/// A Unix socket goes with its path.
impl Drop for BoundSocket {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Bound {
    /// Binds and listens; a stale socket file of a dead process is replaced.
    pub fn new(address: &Address, credentials: Option<&Credentials>) -> io::Result<Self> {
        let bind = |socket: &std::net::SocketAddr| {
            let listener = std::net::TcpListener::bind(socket)?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(BoundSocket::Tcp(listener))
        };
        let (socket, server) = match address {
            Address::Unix(path) => {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                (BoundSocket::Unix(listener, path.clone()), None)
            }
            Address::Tcp(socket) => (bind(socket)?, None),
            Address::Tls(socket) => {
                let config = credentials.ok_or_else(|| unnamed(address))?.server.clone();
                (bind(socket)?, Some(config))
            }
        };
        Ok(Self { socket: Arc::new(socket), server })
    }

    /// Where it listens, with the port that it was given.
    pub fn address(&self) -> io::Result<Address> {
        Ok(match (&*self.socket, &self.server) {
            (BoundSocket::Unix(_, path), _) => Address::Unix(path.clone()),
            (BoundSocket::Tcp(listener), None) => Address::Tcp(listener.local_addr()?),
            (BoundSocket::Tcp(listener), Some(_)) => Address::Tls(listener.local_addr()?),
        })
    }
}

/// A listening socket of the fabric's thread.
pub enum Listener {
    /// On a path.
    Unix(UnixListener),
    /// On a port.
    Tcp(TcpListener),
    /// On a port, over TLS.
    Tls(TcpListener, Arc<ServerConfig>),
}

impl Listener {
    /// Lets peers in. To be called on the thread whose runtime accepts.
    pub fn open(bound: &Bound) -> io::Result<Self> {
        Ok(match (&*bound.socket, &bound.server) {
            (BoundSocket::Unix(listener, _), _) => Self::Unix(UnixListener::from_std(listener.try_clone()?)?),
            (BoundSocket::Tcp(listener), None) => Self::Tcp(TcpListener::from_std(listener.try_clone()?)?),
            (BoundSocket::Tcp(listener), Some(config)) => {
                Self::Tls(TcpListener::from_std(listener.try_clone()?)?, config.clone())
            }
        })
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Accepted> {
        let without_delay = |(stream, _): (TcpStream, _)| stream.set_nodelay(true).map(|()| stream);
        Ok(match self {
            Self::Unix(listener) => Accepted::Ready(Stream::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => Accepted::Ready(Stream::Tcp(without_delay(listener.accept().await?)?)),
            Self::Tls(listener, config) => {
                Accepted::Unproved(config.clone(), without_delay(listener.accept().await?)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Layout, Memory, RINGS};
    use partita_tls::authority::{Authority, Subject};
    use std::path::Path;

    fn credentials(authority: &Authority, directory: &Path, name: &str, role: Role) -> Credentials {
        let subject =
            Subject { name: name.into(), hosts: vec!["127.0.0.1".into()], role: Some(role), days: 1 };
        let options = authority.enrol(directory, name, &subject).unwrap();
        Credentials::new(&options.identity().unwrap().unwrap()).unwrap()
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    /// Both ends of a connection, or why there is none.
    async fn connect(server: &Credentials, client: &Credentials) -> (io::Result<Stream>, io::Result<Stream>) {
        let bound = Bound::new(&"tls:127.0.0.1:0".parse().unwrap(), Some(server)).unwrap();
        let address = bound.address().unwrap();
        let listener = Listener::open(&bound).unwrap();
        let near = async {
            let stream = Stream::connect(&address, Some(client)).await?;
            stream.send(b"hello").await?;
            stream.receive(&mut [0; 1]).await?;
            Ok(stream)
        };
        let far = async {
            let stream = listener.accept().await?.prove().await?;
            stream.receive(&mut [0; 5]).await?;
            stream.send(b"h").await?;
            Ok(stream)
        };
        tokio::join!(near, far)
    }

    #[test]
    fn ring_bytes_cross_tls_in_both_directions_at_once_and_make_their_pages_dirty() {
        let directory = tempfile::TempDir::new().unwrap();
        let authority = Authority::new("ca", 1).unwrap();
        authority.write(directory.path()).unwrap();
        let [a, b] = ["a", "b"].map(|name| credentials(&authority, directory.path(), name, Role::Host));
        let layout = Layout { program_bytes: 4 << 20, ranks: 2, ring_bytes: 256 << 10 };
        let memories = [(); 2].map(|()| Arc::new(Memory::new(layout).unwrap()));
        let rings = [0, 1].map(|side| Ring::sending_to(memories[side].clone(), 1));
        let into = [0, 1].map(|side| Ring::receiving_from(memories[side].clone(), 1));
        // More than a socket buffer and across the end of the ring.
        let (start, length) = (200 << 10, 250 << 10);
        for (side, ring) in rings.iter().enumerate() {
            let mut data: Vec<u8> = (0..length).map(|i: u32| (i * 7 + side as u32) as u8).collect();
            ring.copy_in(start, &mut data).unwrap();
        }
        memories[1].take_written(RINGS);
        let send = async |stream: &Stream, ring: &Ring| {
            let mut sent = 0;
            while sent < u64::from(length) + 4 {
                let head = &b"head"[(sent as usize).min(4)..];
                let done = sent.saturating_sub(4);
                sent += stream.send_from(ring, head, start + done, u64::from(length) - done).await.unwrap();
            }
        };
        let receive = async |stream: &Stream, ring: &Ring| {
            let (mut head, mut done) = ([0; 4], 0);
            assert_eq!(stream.receive(&mut head).await.unwrap(), 4);
            while done < u64::from(length) {
                done +=
                    stream.receive_into(ring, start + done, u64::from(length) - done, || true).await.unwrap();
            }
        };
        run(async {
            let (near, far) = connect(&a, &b).await;
            let (near, far) = (near.unwrap(), far.unwrap());
            tokio::join!(
                send(&near, &rings[0]),
                receive(&near, &into[0]),
                send(&far, &rings[1]),
                receive(&far, &into[1])
            );
            let replaced = tokio::join!(near.send(b"x"), far.receive_into(&into[1], start, 1, || false)).1;
            assert_eq!(replaced.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        });
        for side in [0, 1] {
            let [mut got, mut expected] = [(); 2].map(|()| vec![0; length as usize]);
            into[side].copy_out(start, &mut got).unwrap();
            rings[1 - side].copy_out(start, &mut expected).unwrap();
            assert!(got == expected, "side {side}");
        }
        let dirty: u32 = memories[1].take_written(RINGS).iter().map(|word| word.count_ones()).sum();
        assert!(dirty >= length.div_ceil(4096), "{dirty} pages");
    }

    #[test]
    fn only_hosts_of_the_same_ca_are_let_into_a_fabric() {
        let directories = [(); 2].map(|()| tempfile::TempDir::new().unwrap());
        let authorities = [(); 2].map(|()| Authority::new("ca", 1).unwrap());
        for (authority, directory) in authorities.iter().zip(&directories) {
            authority.write(directory.path()).unwrap();
        }
        let make = |ca: usize, name, role| credentials(&authorities[ca], directories[ca].path(), name, role);
        let host = make(0, "host", Role::Host);
        let refused = |(near, far): (io::Result<Stream>, io::Result<Stream>)| {
            let near = near.err().map(|e| partita_tls::explain_io(&e).unwrap_or_else(|| e.to_string()));
            (near.unwrap_or_default(), far.err().map(|e| e.to_string()).unwrap_or_default())
        };
        run(async {
            let (near, far) = refused(connect(&host, &make(1, "stranger", Role::Host)).await);
            assert!(near.contains("not signed by the CA"), "{near}");
            assert!(far.contains("does not know the CA"), "{far}");
            let (near, far) = refused(connect(&host, &make(0, "viewer", Role::Viewer)).await);
            assert!(near.contains("has not the role"), "{near}");
            assert!(far.contains("not the one that is wanted here"), "{far}");
        });
        let nobody = Bound::new(&"tls:127.0.0.1:0".parse().unwrap(), None).err().unwrap();
        assert!(nobody.to_string().contains("needs --tls-cert"), "{nobody}");
    }
}

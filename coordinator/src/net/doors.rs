//! The listening socket: plain, or TLS with handshakes beside each other, so that who is slow keeps nobody else out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use partita_tls::{Peer, streams};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// How long a client may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes beside each other; who comes then has to wait.
const HANDSHAKES_MAX: usize = 256;
/// Pause after the system could not give a connection.
const PAUSE: Duration = Duration::from_millis(10);

/// A connection of either kind.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Who is at the other end, as far as it has proved that.
#[derive(Debug, Clone)]
pub(super) struct Visitor(pub Option<Arc<Peer>>);

impl Connected<IncomingStream<'_, Doors>> for Visitor {
    fn connect_info(stream: IncomingStream<'_, Doors>) -> Self {
        stream.remote_addr().clone()
    }
}

type Arrival = (Box<dyn Duplex>, Visitor);

/// Where the server listens.
pub(super) struct Doors {
    arrivals: mpsc::Receiver<Arrival>,
    taking: JoinHandle<()>,
}

impl Drop for Doors {
    fn drop(&mut self) {
        // Another one may be opened on the same socket.
        self.taking.abort();
    }
}

impl Doors {
    /// Takes connections from `listener` from now on, with a handshake if there is a `config`.
    pub fn open(listener: TcpListener, config: Option<Arc<ServerConfig>>) -> Self {
        let (sender, arrivals) = mpsc::channel(1);
        Self { arrivals, taking: tokio::spawn(take(listener, config, sender)) }
    }
}

async fn take(listener: TcpListener, config: Option<Arc<ServerConfig>>, arrivals: mpsc::Sender<Arrival>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok((socket, from)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Without it answers are only later.
        let _ = socket.set_nodelay(true);
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (config, arrivals) = (config.clone(), arrivals.clone());
        tokio::spawn(async move {
            let arrived = greet(socket, config).await;
            drop(place);
            match arrived {
                // The server has ended if nobody takes it.
                Ok(arrival) => _ = arrivals.send(arrival).await,
                Err(error) => tracing::warn!(%from, %error, "a connection is refused"),
            }
        });
    }
}

async fn greet(socket: TcpStream, config: Option<Arc<ServerConfig>>) -> std::io::Result<Arrival> {
    let Some(config) = config else { return Ok((Box::new(socket), Visitor(None))) };
    let stream = streams::accept(config, socket, HANDSHAKE).await?;
    let peer = Peer::of(stream.get_ref().1.peer_certificates()).map(Arc::new);
    Ok((Box::new(stream), Visitor(peer)))
}

impl Listener for Doors {
    type Io = Box<dyn Duplex>;
    type Addr = Visitor;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.arrivals.recv().await {
            Some(arrival) => arrival,
            // The task that takes connections never ends by itself.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(Visitor(None))
    }
}

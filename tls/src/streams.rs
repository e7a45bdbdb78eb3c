//! Handshakes over tokio's sockets, bounded in time, whose errors are one line for people.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::explain::explain_io;

/// How long the other side gets to read why it was refused.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Proves to the server at `host` (a DNS name or an IP address) who we are, and has it prove that it is that host.
///
/// # Errors
/// It cannot, or not within `limit`; the text says why.
pub async fn connect(
    config: Arc<ClientConfig>,
    host: &str,
    socket: TcpStream,
    limit: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "a certificate cannot name such a host"))?;
    match timeout(limit, TlsConnector::from(config).connect(name, socket)).await {
        Ok(Ok(stream)) => Ok(stream.into()),
        Ok(Err(error)) => Err(explained(error)),
        Err(_) => Err(late(limit)),
    }
}

/// Has who connected prove who he is. Who fails is told why before the connection is closed.
///
/// # Errors
/// It does not, or not within `limit`; the text says why.
pub async fn accept(
    config: Arc<ServerConfig>,
    socket: TcpStream,
    limit: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    match timeout(limit, TlsAcceptor::from(config).accept(socket).into_fallible()).await {
        Ok(Ok(stream)) => Ok(stream.into()),
        Ok(Err((error, socket))) => {
            // A socket closed with unread bytes would take the alert with it.
            let _ = timeout(LAST_WORDS, read_to_end(socket)).await;
            Err(explained(error))
        }
        Err(_) => Err(late(limit)),
    }
}

async fn read_to_end(mut socket: TcpStream) -> io::Result<()> {
    socket.shutdown().await?;
    let mut sink = [0; 4096];
    while socket.read(&mut sink).await? > 0 {}
    Ok(())
}

fn explained(error: io::Error) -> io::Error {
    let kind = error.kind();
    if let Some(text) = explain_io(&error) {
        return io::Error::new(kind, text);
    }
    match kind {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            let text = "the other side closed the connection while TLS was set up: write tls: in the address on both sides, or on neither";
            io::Error::new(kind, text)
        }
        _ => error,
    }
}

fn late(limit: Duration) -> io::Error {
    let text = format!("the other side did not finish setting up TLS within {limit:?}");
    io::Error::new(ErrorKind::TimedOut, text)
}

//! One HTTP request over a Unix socket, TCP or TLS, with bounds on time and size; the only file of the agent that connects.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use partita_tls::{explain_cause, streams};
use rustls::ClientConfig;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

const ANSWER_BYTES_MAX: usize = control::MESSAGE_BYTES_MAX;

/// Who is asked.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A VMM.
    Unix(PathBuf),
    /// A coordinator.
    Tcp(String, u16),
    /// A coordinator that shows a certificate and wants to see one.
    Tls(String, u16, Arc<ClientConfig>),
}

/// A request that got no answer.
#[derive(Debug, Error)]
pub(crate) enum HttpError {
    #[error("it cannot be reached")]
    Connect(#[source] std::io::Error),
    #[error("no TLS with it")]
    Secure(#[source] std::io::Error),
    #[error("the connection broke")]
    Exchange(#[source] hyper::Error),
    #[error("the answer is not usable")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("there was no answer within {0:?}")]
    Timeout(Duration),
}

/// Sends one request and reads the whole answer.
pub(crate) async fn request(
    target: &Target,
    method: Method,
    path: &str,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<(StatusCode, Vec<u8>), HttpError> {
    let exchange = async {
        match target {
            Target::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(HttpError::Connect)?;
                exchange(stream, method, path, body).await
            }
            Target::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(HttpError::Connect)?;
                stream.set_nodelay(true).map_err(HttpError::Connect)?;
                exchange(stream, method, path, body).await
            }
            Target::Tls(host, port, config) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(HttpError::Connect)?;
                stream.set_nodelay(true).map_err(HttpError::Connect)?;
                let stream = streams::connect(config.clone(), host, stream, timeout)
                    .await
                    .map_err(HttpError::Secure)?;
                // What the coordinator thinks of our certificate comes with the first answer.
                let answer = exchange(stream, method, path, body).await;
                answer.map_err(|error| match explain_cause(&error) {
                    Some(text) => HttpError::Secure(std::io::Error::other(text)),
                    None => error,
                })
            }
        }
    };
    tokio::time::timeout(timeout, exchange).await.map_err(|_| HttpError::Timeout(timeout))?
}

async fn exchange<S>(
    stream: S,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Vec<u8>), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(HttpError::Exchange)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "partita")
        .header("content-type", "application/json")
        .header("connection", "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| HttpError::Answer(error.into()))?;
    let driver = async {
        // Its error comes out of the exchange as well.
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(HttpError::Exchange)?;
        let status = answer.status();
        let body =
            Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(HttpError::Answer)?;
        Ok((status, body.to_bytes().to_vec()))
    };
    tokio::select! {
        never = driver => match never {},
        answer = exchange => answer,
    }
}

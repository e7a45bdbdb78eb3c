//! The command-line client's side of HTTP: one request over TCP or TLS, with bounds on time and size.

use std::convert::Infallible;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::{ErrorBody, MESSAGE_BYTES_MAX, TcpAddress};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use partita_tls::{IdentityError, Options, Role, Wanted, explain_cause, streams};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Longer than the server keeps anybody waiting.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Base64 of a full answer and what is around it.
const ANSWER_BYTES_MAX: usize = 8 * MESSAGE_BYTES_MAX;
/// No token is longer.
const TOKEN_BYTES_MAX: u64 = 4096;

/// A request that was not answered as it should be.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The coordinator is not there.
    #[error(
        "coordinator {address} cannot be reached; start it with `coordinator serve`, or name it with --coordinator or PARTITA_COORDINATOR"
    )]
    Connect {
        /// Its address.
        address: TcpAddress,
        /// Why.
        source: std::io::Error,
    },
    /// One of the two does not trust the other.
    #[error("coordinator {address}: {text}")]
    Distrust {
        /// Its address.
        address: TcpAddress,
        /// Why.
        text: String,
    },
    /// Certificate, key and CA.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token.
    #[error("--token-file {}: there is no token in it that can be read", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        source: std::io::Error,
    },
    /// It went away.
    #[error("the connection to the coordinator broke")]
    Exchange(#[source] hyper::Error),
    /// It answered something else.
    #[error("the coordinator's answer is not usable")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It did not answer.
    #[error("the coordinator did not answer within {TIMEOUT:?}")]
    Timeout,
    /// It does not lead.
    #[error("{0}")]
    Standby(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

impl ClientError {
    /// May the same request work a little later?
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Distrust { .. } | Self::Identity(_) | Self::Token { .. })
    }
}

/// Which coordinators, and who asks.
#[derive(Clone, Debug)]
pub struct Target {
    addresses: Vec<TcpAddress>,
    config: Option<Arc<ClientConfig>>,
    token: Option<String>,
}

impl Target {
    /// Reads the files that are named.
    ///
    /// # Errors
    /// A file is missing or cannot be used.
    pub fn new(addresses: Vec<TcpAddress>, tls: &Options, token: Option<&Path>) -> Result<Self, ClientError> {
        let config = match addresses.iter().find(|address| address.is_tls()) {
            Some(address) => {
                let identity = tls.identity_for(format!("--coordinator {address}"))?;
                Some(identity.client(Wanted::Only(Role::Coordinator))?)
            }
            None => None,
        };
        let token = token.map(read_token).transpose()?;
        Ok(Self { addresses, config, token })
    }
}

fn read_token(path: &Path) -> Result<String, ClientError> {
    let failed = |source| ClientError::Token { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(failed)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    match text.trim() {
        token if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(token.to_owned())
        }
        _ => Err(failed(ErrorKind::InvalidData.into())),
    }
}

/// Asks the coordinator: of several addresses the first one that leads.
pub async fn call<T: DeserializeOwned>(
    target: &Target,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T, ClientError> {
    let mut last = ClientError::Timeout;
    for address in &target.addresses {
        match call_one(target, address, method.clone(), path, body.clone()).await {
            // It has not been asked, so another one may be.
            Err(error @ (ClientError::Connect { .. } | ClientError::Standby(_))) => last = error,
            result => return result,
        }
    }
    Err(last)
}

async fn call_one<T: DeserializeOwned>(
    target: &Target,
    address: &TcpAddress,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T, ClientError> {
    let (status, body) = tokio::time::timeout(TIMEOUT, exchange(target, address, method, path, body))
        .await
        .map_err(|_| ClientError::Timeout)??;
    if !status.is_success() {
        let text = serde_json::from_slice::<ErrorBody>(&body).map(|body| body.error);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(ClientError::Standby(text.unwrap_or_default()));
        }
        return Err(ClientError::Refused(
            text.unwrap_or_else(|_| format!("the coordinator answered {status}")),
        ));
    }
    serde_json::from_slice(&body).map_err(|error| ClientError::Answer(error.into()))
}

async fn exchange(
    target: &Target,
    address: &TcpAddress,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Vec<u8>), ClientError> {
    let error = |source| ClientError::Connect { address: address.clone(), source };
    let stream = TcpStream::connect((address.host(), address.port())).await.map_err(error)?;
    stream.set_nodelay(true).map_err(error)?;
    match target.config.as_ref().filter(|_| address.is_tls()) {
        None => converse(target, stream, method, path, body).await,
        Some(config) => {
            let distrust = |text: String| ClientError::Distrust { address: address.clone(), text };
            let stream = streams::connect(config.clone(), address.host(), stream, TIMEOUT)
                .await
                .map_err(|error| distrust(error.to_string()))?;
            // What a server thinks of our certificate comes with the first answer.
            let answer = converse(target, stream, method, path, body).await;
            answer.map_err(|error| explain_cause(&error).map_or(error, distrust))
        }
    }
}

async fn converse<S>(
    target: &Target,
    stream: S,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Vec<u8>), ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Exchange)?;
    let mut request = Request::builder();
    if let Some(token) = &target.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request
        .method(method)
        .uri(path)
        .header("host", "partita")
        .header("content-type", "application/json")
        .header("connection", "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| ClientError::Answer(error.into()))?;
    let driver = async {
        // Its error comes out of the exchange as well.
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(ClientError::Exchange)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(ClientError::Answer)?.to_bytes().to_vec()))
    };
    tokio::select! {
        never = driver => match never {},
        answer = exchange => answer,
    }
}

//! The command-line client's side of HTTP: one request over TCP, with bounds on time and size.

use std::convert::Infallible;
use std::time::Duration;

use control::{ErrorBody, MESSAGE_BYTES_MAX, TcpAddress};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::TcpStream;

/// Longer than the server keeps anybody waiting.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Base64 of a full answer and what is around it.
const ANSWER_BYTES_MAX: usize = 8 * MESSAGE_BYTES_MAX;

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
        !matches!(self, ClientError::Refused(_))
    }
}

/// An error with its sources in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
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

/// Asks the coordinator: of several addresses the first one that leads.
pub async fn call<T: DeserializeOwned>(
    addresses: &[TcpAddress],
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T, ClientError> {
    let mut last = ClientError::Timeout;
    for address in addresses {
        match call_one(address, method.clone(), path, body.clone()).await {
            // It has not been asked, so another one may be.
            Err(error @ (ClientError::Connect { .. } | ClientError::Standby(_))) => last = error,
            result => return result,
        }
    }
    Err(last)
}

async fn call_one<T: DeserializeOwned>(
    address: &TcpAddress,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T, ClientError> {
    let (status, body) = tokio::time::timeout(TIMEOUT, exchange(address, method, path, body))
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
    address: &TcpAddress,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Vec<u8>), ClientError> {
    let error = |source| ClientError::Connect { address: address.clone(), source };
    let stream = TcpStream::connect((address.host(), address.port())).await.map_err(error)?;
    stream.set_nodelay(true).map_err(error)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Exchange)?;
    let request = Request::builder()
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

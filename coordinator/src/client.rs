//! How the command-line client asks coordinators: which one, who asks, and what to say when there is no answer.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::{MESSAGE_BYTES_MAX, TcpAddress};
use partita_http::{HttpError, Method, Request, Server, StatusCode, ask};
use partita_tls::{IdentityError, Options, Role, Wanted};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use thiserror::Error;

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
    /// It went away, did not answer, or answered something else.
    #[error("coordinator {address}")]
    Unanswered {
        /// Its address.
        address: TcpAddress,
        /// Which of them.
        source: HttpError,
    },
    /// It does not lead.
    #[error("{0}")]
    Standby(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

impl ClientError {
    fn of(address: &TcpAddress, error: HttpError) -> Self {
        let address = address.clone();
        match error {
            HttpError::Connect(source) => Self::Connect { address, source },
            HttpError::Secure(source) => Self::Distrust { address, text: source.to_string() },
            HttpError::Refused(text) => Self::Refused(text),
            source => Self::Unanswered { address, source },
        }
    }

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
    let mut last = ClientError::Standby("no coordinator leads".to_owned());
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
    let (host, port) = (address.host().to_owned(), address.port());
    let server = match target.config.as_ref().filter(|_| address.is_tls()) {
        Some(config) => Server::Tls(host, port, config.clone()),
        None => Server::Tcp(host, port),
    };
    let request = Request {
        body,
        token: target.token.as_deref(),
        within: Some(TIMEOUT),
        answer_bytes_max: ANSWER_BYTES_MAX,
        ..Request::new(method, path)
    };
    let failed = |error| ClientError::of(address, error);
    let answer = ask(&server, request).await.map_err(failed)?;
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(ClientError::Standby(answer.refusal().unwrap_or_default()));
    }
    answer.json().map_err(failed)
}

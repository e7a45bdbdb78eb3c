//! One HTTP request over a Unix socket, TCP or TLS, and its whole answer, with bounds on time and size.
//!
//! Every client of our own servers asks in this way: a connection for each request, a body of JSON, and an answer whose field
//! `error` says why it is a refusal. Whom it has asked and what to do about an error is the caller's to say.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
pub use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use partita_tls::{explain_cause, streams};
use rustls::ClientConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Bytes of an answer, where a request does not say otherwise.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// For the TLS handshake of a request without a limit.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Who is asked.
#[derive(Clone, Debug)]
pub enum Server {
    /// Who listens at this socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String, u16),
    /// Host and port of one that proves that it is that host, and what proves who we are.
    Tls(String, u16, Arc<ClientConfig>),
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// GET, POST, PUT.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// JSON, or nothing.
    pub body: Vec<u8>,
    /// Who asks, if not a certificate says so.
    pub token: Option<&'a str>,
    /// For everything from connecting to the last byte; none: as long as it takes.
    pub within: Option<Duration>,
    /// A longer answer is an error.
    pub answer_bytes_max: usize,
}

impl<'a> Request<'a> {
    /// Of a method and a path, without a body, a token or a limit of time.
    pub fn new(method: Method, path: &'a str) -> Self {
        let answer_bytes_max = ANSWER_BYTES_MAX;
        Self { method, path, body: Vec::new(), token: None, within: None, answer_bytes_max }
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// What a good answer holds.
    ///
    /// # Errors
    /// It is a refusal, or something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        if !self.status.is_success() {
            let text = self.refusal().unwrap_or_else(|| format!("status {} without a reason", self.status));
            return Err(HttpError::Refused(text));
        }
        serde_json::from_slice(&self.body).map_err(|error| HttpError::Answer(error.into()))
    }

    /// Why it is a refusal, if it says so.
    pub fn refusal(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Body {
            error: String,
        }
        serde_json::from_slice::<Body>(&self.body).ok().map(|body| body.error)
    }
}

/// A request without a good answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// Nobody is there.
    #[error("it cannot be reached")]
    Connect(#[source] io::Error),
    /// One of the two does not trust the other.
    #[error("no TLS with it")]
    Secure(#[source] io::Error),
    /// It went away.
    #[error("the connection broke")]
    Exchange(#[source] hyper::Error),
    /// It is too long, or not what was expected.
    #[error("the answer is not usable")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("there was no answer within {0:?}")]
    Timeout(Duration),
    /// It said no, for this reason.
    #[error("{0}")]
    Refused(String),
}

/// Asks, and reads the whole answer, whatever its status.
///
/// # Errors
/// All but [`HttpError::Refused`], which is of [`Answer::json`].
pub async fn ask(server: &Server, request: Request<'_>) -> Result<Answer, HttpError> {
    let handshake = request.within.unwrap_or(HANDSHAKE);
    // What a server thinks of our certificate comes with the first answer.
    converse(connect(server, handshake), request).await.map_err(|error| match explain_cause(&error) {
        Some(text) => HttpError::Secure(io::Error::other(text)),
        None => error,
    })
}

/// The same of who listens at a Unix socket. Who asks nobody else has nothing of TLS and of names of hosts in his program.
///
/// # Errors
/// Those of [`ask`].
pub async fn ask_socket(socket: &Path, request: Request<'_>) -> Result<Answer, HttpError> {
    converse(connect_socket(socket), request).await
}

/// Waits for an answer, for who has nothing else to do meanwhile, and no runtime.
///
/// # Errors
/// Those of what is waited for, or there can be no runtime.
pub fn wait(asking: impl Future<Output = Result<Answer, HttpError>>) -> Result<Answer, HttpError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.map_err(HttpError::Connect)?.block_on(asking)
}

/// What is below HTTP. Behind a pointer, so that there is one exchange in a program and not one for each kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn converse(
    connecting: impl Future<Output = Result<Box<dyn Stream>, HttpError>>,
    request: Request<'_>,
) -> Result<Answer, HttpError> {
    let within = request.within;
    let conversation = async { exchange(connecting.await?, request).await };
    match within {
        None => conversation.await,
        Some(within) => {
            tokio::time::timeout(within, conversation).await.map_err(|_| HttpError::Timeout(within))?
        }
    }
}

async fn connect_socket(socket: &Path) -> Result<Box<dyn Stream>, HttpError> {
    Ok(Box::new(UnixStream::connect(socket).await.map_err(HttpError::Connect)?))
}

async fn connect(server: &Server, handshake: Duration) -> Result<Box<dyn Stream>, HttpError> {
    let (host, port) = match server {
        Server::Unix(socket) => return connect_socket(socket).await,
        Server::Tcp(host, port) | Server::Tls(host, port, _) => (host.as_str(), *port),
    };
    let stream = TcpStream::connect((host, port)).await.map_err(HttpError::Connect)?;
    stream.set_nodelay(true).map_err(HttpError::Connect)?;
    let Server::Tls(_, _, config) = server else { return Ok(Box::new(stream)) };
    let secure = streams::connect(config.clone(), host, stream, handshake).await;
    Ok(Box::new(secure.map_err(HttpError::Secure)?))
}

async fn exchange(stream: Box<dyn Stream>, request: Request<'_>) -> Result<Answer, HttpError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(HttpError::Exchange)?;
    let mut head = hyper::Request::builder().method(request.method).uri(request.path);
    if let Some(token) = request.token {
        head = head.header("authorization", format!("Bearer {token}"));
    }
    let asked = head
        .header("host", "partita")
        .header("content-type", "application/json")
        .header("connection", "close")
        .body(Full::new(Bytes::from(request.body)))
        .map_err(|error| HttpError::Answer(error.into()))?;
    let driver = async {
        // Its error comes out of the exchange as well.
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    let exchange = async {
        let answer = sender.send_request(asked).await.map_err(HttpError::Exchange)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), request.answer_bytes_max).collect().await;
        Ok(Answer { status, body: body.map_err(HttpError::Answer)?.to_bytes().to_vec() })
    };
    tokio::select! {
        never = driver => match never {},
        answer = exchange => answer,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Whoever connects once is given `answer` when his request is over, and then the connection is closed; or never, if there is none.
    fn server(answer: Option<&'static str>) -> (Server, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n{}") && stream.read(&mut byte).unwrap() == 1 {
                asked.push(byte[0]);
            }
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                // Until the client has gone.
                None => _ = stream.read(&mut byte),
            }
            String::from_utf8(asked).unwrap()
        });
        (Server::Tcp("127.0.0.1".to_owned(), port), serving)
    }

    fn asked(server: &Server, request: Request<'_>) -> Result<Answer, HttpError> {
        wait(ask(server, request))
    }

    fn post() -> Request<'static> {
        Request { body: b"{}".to_vec(), ..Request::new(Method::POST, "/v1/it") }
    }

    #[test]
    fn a_good_answer_is_told_from_a_refusal() {
        let (to, serving) = server(Some("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}"));
        let answer = asked(&to, Request { token: Some("t0"), ..post() }).unwrap();
        assert_eq!(answer.json::<serde_json::Value>().unwrap()["a"], 1);
        let heard = serving.join().unwrap();
        assert!(heard.starts_with("POST /v1/it HTTP/1.1\r\nauthorization: Bearer t0\r\n"), "{heard}");
        let refusals = [
            ("HTTP/1.1 502 Bad\r\n\r\n{\"error\":\"why\"}", "why"),
            ("HTTP/1.1 404 Not Found\r\n\r\nno JSON", "status 404 Not Found without a reason"),
        ];
        for (answer, text) in refusals {
            let answer = asked(&server(Some(answer)).0, post()).unwrap();
            assert_eq!(answer.json::<serde_json::Value>().unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for answer in ["", "HTTP/1.1 200 OK", "SMTP\r\n\r\n", "HTTP/1.1 2\r\n\r\n{}"] {
            let answer = asked(&server(Some(answer)).0, post());
            assert!(matches!(answer, Err(HttpError::Exchange(_))), "{answer:?}");
        }
        let json = Answer { status: StatusCode::OK, body: b"no JSON".to_vec() }.json::<serde_json::Value>();
        assert!(matches!(json, Err(HttpError::Answer(_))), "{json:?}");
        let nobody = wait(ask_socket(Path::new("/nowhere/socket"), post()));
        assert!(matches!(nobody, Err(HttpError::Connect(_))), "{nobody:?}");
    }

    #[test]
    fn time_and_size_are_bounded() {
        let within = Duration::from_millis(100);
        let late = asked(&server(None).0, Request { within: Some(within), ..post() });
        assert!(matches!(late, Err(HttpError::Timeout(it)) if it == within), "{late:?}");
        let (to, _serving) = server(Some("HTTP/1.1 200 OK\r\n\r\n12345678"));
        let long = asked(&to, Request { answer_bytes_max: 7, ..post() });
        assert!(matches!(long, Err(HttpError::Answer(_))), "{long:?}");
    }
}

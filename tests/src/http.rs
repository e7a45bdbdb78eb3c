//! `GET` on the control sockets of partitions and on the coordinator, for what tests ask again and again: to start `vmm ctl` or
//! `coordinator` for every question costs the emulated machine more than the answer.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::{Result, limit};

const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Who is asked.
#[derive(Debug, Clone)]
pub enum Server {
    /// A `vmm`, by its control socket.
    Socket(PathBuf),
    /// A coordinator on this machine, by its port.
    Port(u16),
}

impl Server {
    /// What it answers. An error if nobody does within [`limit`]`(10)`, or a refusal.
    pub fn get(&self, path: &str) -> Result<Value> {
        let exchange = async {
            match self {
                Self::Socket(socket) => exchange(UnixStream::connect(socket).await?, path).await,
                Self::Port(port) => exchange(TcpStream::connect(("127.0.0.1", *port)).await?, path).await,
            }
        };
        let within: Duration = limit(10);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async { tokio::time::timeout(within, exchange).await });
        answer
            .map_err(|_| format!("no answer within {within:?}").into())
            .flatten()
            .map_err(|e| format!("GET {path} of {self:?}: {e}").into())
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, path: &str) -> Result<Value> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the exchange, or the exchange with it.
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "partita").body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
    if status.is_success() {
        return Ok(serde_json::from_slice(&body)?);
    }
    Err(format!("status {status}: {}", String::from_utf8_lossy(&body)).into())
}

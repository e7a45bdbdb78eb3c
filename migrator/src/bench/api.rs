//! The smallest client of a partition's control API: one request a connection, HTTP/1.1 over a Unix socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Why a call gave nothing.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The socket failed.
    #[error("the API socket failed")]
    Io(#[from] io::Error),
    /// The answer is no HTTP.
    #[error("the API's answer is not HTTP/1.1 with a body")]
    Malformed,
    /// The body is something else.
    #[error("the API's answer is not what was expected")]
    Json(#[from] serde_json::Error),
    /// The API refused.
    #[error("status {status}: {message}")]
    Status {
        /// HTTP status.
        status: u16,
        /// Its `error` field.
        message: String,
    },
}

/// `GET path`.
pub fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, ApiError> {
    call(socket, "GET", path, "")
}

/// `POST path` with a JSON body; waits as long as the answer takes.
pub fn post<T: DeserializeOwned>(socket: &Path, path: &str, body: &Value) -> Result<T, ApiError> {
    call(socket, "POST", path, &body.to_string())
}

fn call<T: DeserializeOwned>(socket: &Path, method: &str, path: &str, body: &str) -> Result<T, ApiError> {
    let mut stream = UnixStream::connect(socket)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: vmm\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&answer)
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, ApiError> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or(ApiError::Malformed)?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok());
    let status = status.ok_or(ApiError::Malformed)?;
    if status >= 400 {
        let text = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let message = text["error"].as_str().unwrap_or("no reason given").to_owned();
        return Err(ApiError::Status { status, message });
    }
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_errors_are_told_apart() {
        let good: Value = parse(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}").unwrap();
        assert_eq!(good["a"], 1);
        let error = parse::<Value>(b"HTTP/1.1 502 Bad\r\n\r\n{\"error\":\"why\"}").unwrap_err();
        assert_eq!(error.to_string(), "status 502: why");
        for bad in [&b""[..], b"HTTP/1.1 200 OK", b"SMTP\r\n\r\n", b"HTTP/1.1 2\r\n\r\n{}"] {
            assert!(parse::<Value>(bad).is_err());
        }
    }
}

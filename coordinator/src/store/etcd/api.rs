//! The requests to etcd's JSON gateway that are needed, and the parts of its answers that are.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::EtcdError;

/// Longest answer, in bytes: a page of the longest records.
const ANSWER_BYTES_MAX: u64 = 512 << 20;
/// Longest line that confirms a lease, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Base64, as the gateway wants keys and values.
pub fn coded(bytes: &(impl AsRef<[u8]> + ?Sized)) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a key or value.
pub fn bytes(coded: &str) -> Result<Vec<u8>, EtcdError> {
    STANDARD.decode(coded).map_err(|_| EtcdError::Answer { what: "a read".into() })
}

/// The same as text, for people.
pub fn text(coded: &str) -> String {
    STANDARD.decode(coded).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// A key with its value; numbers are text, as the gateway writes them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pair {
    pub key: String,
    pub value: String,
    pub create_revision: String,
}

/// Answer to a read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Range {
    pub kvs: Vec<Pair>,
}

/// What every answer has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Header {
    pub revision: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    response_range: Option<Range>,
}

/// Answer to a transaction.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Transaction {
    pub header: Header,
    pub succeeded: bool,
    responses: Vec<Response>,
}

impl Transaction {
    /// What its reads found.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.responses.iter().filter_map(|it| it.response_range.as_ref())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(clippy::upper_case_acronyms, reason = "etcd's names")]
struct Granted {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "TTL")]
    ttl: String,
}

/// The members of an etcd cluster; any of them answers for all.
#[derive(Clone, Debug)]
pub struct Api {
    agent: ureq::Agent,
    endpoints: Vec<String>,
}

impl Api {
    /// `timeout` of a request to all members together.
    pub fn new(endpoints: &[String], timeout: Duration) -> Self {
        let each = timeout / u32::try_from(endpoints.len().max(1)).unwrap_or(1);
        let config =
            ureq::Agent::config_builder().timeout_global(Some(each)).http_status_as_error(false).build();
        Self { agent: config.into(), endpoints: endpoints.to_vec() }
    }

    /// Asks one member after the other until one answers.
    fn ask(&self, what: &str, question: &Value) -> Result<ureq::http::Response<ureq::Body>, EtcdError> {
        let mut last = ureq::Error::HostNotFound;
        for endpoint in &self.endpoints {
            match self.agent.post(format!("{endpoint}/v3/{what}")).send_json(question) {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let status = answer.status();
                    let mut reason = String::new();
                    let _ = answer.into_body().into_reader().take(1000).read_to_string(&mut reason);
                    // A member without a majority, or that is starting, is as good as none.
                    if status.is_server_error() {
                        last = ureq::Error::StatusCode(status.as_u16());
                        continue;
                    }
                    return Err(EtcdError::Refused { what: what.to_owned(), reason });
                }
                Err(error) => last = error,
            }
        }
        let endpoints = self.endpoints.join(",");
        Err(EtcdError::Unreachable { endpoints, source: Box::new(last) })
    }

    fn call<T: DeserializeOwned>(&self, what: &str, question: &Value) -> Result<T, EtcdError> {
        let mut answer = self.ask(what, question)?;
        let read = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let bytes = read.map_err(|source| EtcdError::Unreachable {
            endpoints: self.endpoints.join(","),
            source: Box::new(source),
        })?;
        serde_json::from_slice(&bytes).map_err(|_| EtcdError::Answer { what: what.to_owned() })
    }

    /// Reads keys.
    pub fn range(&self, question: &Value) -> Result<Range, EtcdError> {
        self.call("kv/range", question)
    }

    /// Compares, then writes or reads.
    pub fn transact(&self, question: &Value) -> Result<Transaction, EtcdError> {
        self.call("kv/txn", question)
    }

    /// Makes a lease of so many seconds; its id.
    pub fn grant(&self, seconds: u64) -> Result<String, EtcdError> {
        let granted: Granted = self.call("lease/grant", &json!({"TTL": seconds.to_string()}))?;
        if granted.id.is_empty() {
            return Err(EtcdError::Answer { what: "lease/grant".into() });
        }
        Ok(granted.id)
    }

    /// Renews a lease; false if there is none any more.
    pub fn keep_alive(&self, id: &str) -> Result<bool, EtcdError> {
        #[derive(Deserialize)]
        struct Kept {
            result: Granted,
        }
        let what = "lease/keepalive";
        let answer = self.ask(what, &json!({"ID": id}))?;
        // The answer is a stream that need not end; its first line is what counts.
        let mut line = String::new();
        let mut reader = BufReader::new(answer.into_body().into_reader().take(LINE_BYTES_MAX));
        let unknown = || EtcdError::Answer { what: what.to_owned() };
        reader.read_line(&mut line).map_err(|error| EtcdError::Unreachable {
            endpoints: self.endpoints.join(","),
            source: Box::new(error.into()),
        })?;
        let kept: Kept = serde_json::from_str(&line).map_err(|_| unknown())?;
        Ok(kept.result.ttl.parse::<i64>().unwrap_or(0) > 0)
    }

    /// Ends a lease.
    pub fn revoke(&self, id: &str) -> Result<(), EtcdError> {
        self.call::<Value>("lease/revoke", &json!({"ID": id})).map(drop)
    }
}

//! `GET` on the control sockets of partitions and on the coordinator, for what tests ask again and again: to start `vmm ctl` or
//! `coordinator` for every question costs the emulated machine more than the answer.

use partita_http::{Method, Request, Server};
use serde_json::Value;

use crate::{Result, patience};

/// What a server answers. An error if it does not within [`patience`]`(10)`, or refuses.
pub fn get(server: &Server, path: &str) -> Result<Value> {
    let request = Request { within: Some(patience(10)), ..Request::new(Method::GET, path) };
    let answer = partita_http::wait(partita_http::ask(server, request)).and_then(|answer| answer.json());
    answer.map_err(|e| format!("GET {path} of {server:?}: {e:?}").into())
}

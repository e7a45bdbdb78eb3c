//! `vmm ctl`: one request to the control socket of a partition, and its answer for people or as JSON.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::cli::{Action, CtlArgs, Failure, MigrateArgs, Outcome};

const ANSWER_BYTES_MAX: usize = 16 << 20;

pub fn run(arguments: &CtlArgs) -> Outcome {
    let (method, path, body) = match &arguments.action {
        Action::Status => ("GET", "/v1/status", Value::Null),
        Action::Counters => ("GET", "/v1/counters", Value::Null),
        Action::Pause => ("POST", "/v1/pause", Value::Null),
        Action::Resume { in_doubt } => ("POST", "/v1/resume", json!({ "in_doubt": in_doubt })),
        Action::Stop => ("POST", "/v1/stop", Value::Null),
        Action::Migrate(migrate) => ("POST", "/v1/migrate", migration(migrate)),
        Action::Cancel => ("POST", "/v1/migrate/cancel", Value::Null),
        Action::Switch => ("POST", "/v1/migrate/switch", Value::Null),
        Action::Bandwidth { cap } => {
            ("POST", "/v1/migrate/bandwidth", json!({ "bandwidth_bytes_per_s": cap.0 }))
        }
        Action::Share { generation, units } => {
            ("PUT", "/v1/units", json!({ "generation": generation, "target": units }))
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|e| Failure::failed(format!("cannot start: {e}")))?;
    let answer = runtime.block_on(request(&arguments.socket, method, path, &body))?;
    if arguments.json {
        println!("{answer}");
    } else {
        print(&arguments.action, &answer);
    }
    Ok(0)
}

fn migration(arguments: &MigrateArgs) -> Value {
    let absolute = |path: &Option<PathBuf>| path.as_ref().and_then(|path| std::path::absolute(path).ok());
    let tls = partita_tls::Options {
        certificate: absolute(&arguments.tls.certificate),
        key: absolute(&arguments.tls.key),
        ca: absolute(&arguments.tls.ca),
    };
    json!({
        "tls": (!tls.is_empty()).then_some(tls),
        "to": arguments.to.to_string(),
        "streams": arguments.streams,
        "bandwidth_bytes_per_s": arguments.bandwidth,
        "downtime_limit_ms": arguments.downtime_limit_ms,
        "timeout_s": arguments.timeout_s,
        "on_timeout": arguments.on_timeout,
        "await_switch": arguments.await_switch,
        "patience_ms": arguments.patience_ms,
        "compression": arguments.compression,
        "transport": arguments.transport,
        "insecure": arguments.insecure,
    })
}

async fn request(socket: &Path, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::failed(format!("{}: {e}", socket.display()));
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|e| {
        Failure::failed(format!(
            "{}: cannot connect: {e}; is there a vmm with this control socket?",
            socket.display()
        ))
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| fail(&e))?;
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "partition")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(text)))
        .map_err(|e| fail(&e))?;
    // It ends with the exchange, or the exchange with it.
    tokio::spawn(connection);
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| fail(&format_args!("the vmm closed the connection: {e}")))?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| fail(&e))?;
        let value: Value = serde_json::from_slice(&body.to_bytes()).map_err(|e| fail(&e))?;
        if status.is_success() {
            return Ok(value);
        }
        let text = value.get("error").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
        Err(fail(&text))
    };
    exchange.await
}

fn print(action: &Action, answer: &Value) {
    if let Action::Migrate(_) = action {
        let number = |key: &str| answer.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        let rounds = answer.get("rounds").and_then(Value::as_array).map_or(0, Vec::len);
        println!(
            "moved in {:.3} s, blackout {:.2} ms, {rounds} rounds, {:.1} MiB",
            number("total_s"),
            number("blackout_ms"),
            number("bytes") / 1_048_576.0
        );
        return;
    }
    let Some(fields) = answer.as_object() else { return println!("{answer}") };
    for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        match value {
            Value::String(text) => println!("{key:20} {text}"),
            other => println!("{key:20} {other}"),
        }
    }
}

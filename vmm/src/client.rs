//! `vmm ctl`: one request to the control socket of a partition, and its answer for people or as JSON.

use std::path::{Path, PathBuf};

use migrator::report::one_line;
use partita_http::{HttpError, Method, Request, ask_socket};
use serde_json::{Value, json};

use crate::cli::{Action, CtlArgs, Failure, MigrateArgs, Outcome};

pub fn run(arguments: &CtlArgs) -> Outcome {
    let (method, path, body) = match &arguments.action {
        Action::Status => (Method::GET, "/v1/status", Value::Null),
        Action::Counters => (Method::GET, "/v1/counters", Value::Null),
        Action::Pause => (Method::POST, "/v1/pause", Value::Null),
        Action::Resume { in_doubt } => (Method::POST, "/v1/resume", json!({ "in_doubt": in_doubt })),
        Action::Stop => (Method::POST, "/v1/stop", Value::Null),
        Action::Migrate(migrate) => (Method::POST, "/v1/migrate", migration(migrate)),
        Action::Cancel => (Method::POST, "/v1/migrate/cancel", Value::Null),
        Action::Switch => (Method::POST, "/v1/migrate/switch", Value::Null),
        Action::Bandwidth { cap } => {
            (Method::POST, "/v1/migrate/bandwidth", json!({ "bandwidth_bytes_per_s": cap.0 }))
        }
        Action::Share { generation, units } => {
            (Method::PUT, "/v1/units", json!({ "generation": generation, "target": units }))
        }
    };
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request { body, ..Request::new(method, path) };
    let answer = partita_http::wait(ask_socket(&arguments.socket, request));
    let answer: Value =
        answer.and_then(|answer| answer.json()).map_err(|error| failure(&arguments.socket, &error))?;
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

/// Where, why, and what to do about it.
fn failure(socket: &Path, error: &HttpError) -> Failure {
    let why = match error {
        HttpError::Connect(error) => {
            format!("cannot connect: {error}; is there a vmm with this control socket?")
        }
        HttpError::Exchange(error) => format!("the vmm closed the connection: {error}"),
        error => one_line(error),
    };
    Failure::failed(format!("{}: {why}", socket.display()))
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

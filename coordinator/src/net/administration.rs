//! Routes of administrators and operators (policy, roles of hosts, calibration), and the processes of hooks.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State as Shared};
use axum::response::Response;
use axum::routing::{get, post};
use control::{HostName, HostOrder, IdError, Policy};
use tokio::io::AsyncReadExt;

use super::{Server, StatusCode, bad, good, now_ms, read, refused};
use crate::cluster::HookOrder;

/// Bytes of a hook's standard error that are kept for the event.
const HOOK_WORDS_BYTES: u64 = 4096;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/v1/policy", get(policy).put(set_policy))
        .route("/v1/hosts/order", post(order_host))
        .route("/v1/hosts/{host}/explanation", get(explain_host))
        .route("/v1/calibration", get(calibration))
}

async fn policy(Shared(server): Shared<Arc<Server>>) -> Response {
    good(server.core().cluster.policy())
}

async fn set_policy(Shared(server): Shared<Arc<Server>>, body: Bytes) -> Response {
    let policy: Policy = match read(&body) {
        Ok(policy) => policy,
        Err(response) => return *response,
    };
    match server.act(|cluster, now| cluster.set_policy(now, policy)) {
        Ok(_) => good(server.core().cluster.policy()),
        Err(error) => refused(&error),
    }
}

async fn order_host(Shared(server): Shared<Arc<Server>>, body: Bytes) -> Response {
    let order: HostOrder = match read(&body) {
        Ok(order) => order,
        Err(response) => return *response,
    };
    let done = server.act(|cluster, now| cluster.order_host(now, &order));
    match done {
        Ok(()) => {
            let hosts = server.core().cluster.hosts(now_ms());
            good(&hosts.into_iter().find(|host| host.name == order.host))
        }
        Err(error) => refused(&error),
    }
}

async fn explain_host(Shared(server): Shared<Arc<Server>>, UrlPath(host): UrlPath<String>) -> Response {
    let host: HostName = match host.parse() {
        Ok(host) => host,
        Err(error) => return bad(StatusCode::BAD_REQUEST, &error as &IdError),
    };
    let explanation = server.core().cluster.explain_host(now_ms(), &host);
    match explanation {
        Ok(explanation) => good(&explanation),
        Err(error) => refused(&error),
    }
}

async fn calibration(Shared(server): Shared<Arc<Server>>) -> Response {
    good(&server.core().cluster.calibration())
}

/// Runs hooks beside everything else; the cluster is told how each ended.
pub(super) fn run_hooks(server: &Arc<Server>, hooks: Vec<HookOrder>) {
    for hook in hooks {
        let server = server.clone();
        tokio::spawn(async move {
            let result = run_hook(&hook).await;
            server.act(|cluster, now| cluster.hook_ended(now, &hook.host, hook.action, result));
        });
    }
}

async fn run_hook(hook: &HookOrder) -> Result<(), String> {
    let HookOrder { command, timeout_ms, .. } = hook;
    let mut child = tokio::process::Command::new(command)
        .args([hook.host.as_str(), hook.action.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{command} cannot be started: {error}"))?;
    let words = child.stderr.take();
    let ended = async {
        let mut text = Vec::new();
        if let Some(words) = words {
            // Only the beginning is kept, and the rest thrown away: a talkative hook does not block.
            let mut words = words.take(HOOK_WORDS_BYTES);
            let _ = words.read_to_end(&mut text).await;
            let _ = tokio::io::copy(words.get_mut(), &mut tokio::io::sink()).await;
        }
        (child.wait().await, text)
    };
    match tokio::time::timeout(Duration::from_millis(*timeout_ms), ended).await {
        Err(_) => Err(format!("{command} did not end within {timeout_ms} ms and was killed")),
        Ok((Err(error), _)) => Err(format!("{command} was lost: {error}")),
        Ok((Ok(status), _)) if status.success() => Ok(()),
        Ok((Ok(status), text)) => {
            let text = String::from_utf8_lossy(&text).trim().replace('\n', "; ");
            Err(format!("{command}: {status}: {text}"))
        }
    }
}

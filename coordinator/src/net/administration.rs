//! Routes of administrators and operators (policy, roles of hosts, calibration), and the processes of hooks.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use control::{
    CalibrationView, ErrorBody, HostExplanation, HostName, HostOrder, HostView, IdError, Policy, PolicyView,
};
use tokio::io::AsyncReadExt;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes as describe;

use super::routes::{bad, good, read, refused};
use super::server::{Server, now_ms};
use crate::cluster::HookOrder;

/// Bytes of a hook's standard error that are kept for the event.
const HOOK_WORDS_BYTES: u64 = 4096;

pub(super) fn described() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::new()
        .routes(describe!(policy, set_policy))
        .routes(describe!(order_host))
        .routes(describe!(explain_host))
        .routes(describe!(calibration))
}

/// The policy that holds, with its version.
#[utoipa::path(get, path = "/v1/policy", tag = "policy", responses((status = 200, description = "Done", body = PolicyView)))]
async fn policy(Shared(server): Shared<Arc<Server>>) -> Response {
    good(server.core().cluster.policy())
}

/// Makes a policy hold instead of the one before it.
#[utoipa::path(put, path = "/v1/policy", tag = "policy", request_body = Policy, responses((status = 200, description = "Done", body = PolicyView), (status = 400, description = "Not understood", body = ErrorBody)))]
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

/// Changes the role of a host, or begins to.
#[utoipa::path(post, path = "/v1/hosts/order", tag = "hosts", request_body = HostOrder, responses((status = 200, description = "Done", body = HostView), (status = 400, description = "Not understood", body = ErrorBody), (status = 409, description = "Refused now", body = ErrorBody)))]
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

/// Why a host has its role, and what holds it there.
#[utoipa::path(get, path = "/v1/hosts/{host}/explanation", tag = "hosts", params(("host" = String, Path, description = "Name of the host")), responses((status = 200, description = "Done", body = HostExplanation), (status = 404, description = "There is none", body = ErrorBody)))]
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

/// Predicted and measured durations and blackouts of moves.
#[utoipa::path(get, path = "/v1/calibration", tag = "moves", responses((status = 200, description = "Done", body = CalibrationView)))]
async fn calibration(Shared(server): Shared<Arc<Server>>) -> Response {
    good(&server.core().cluster.calibration())
}

/// Runs hooks beside everything else; the cluster is told how each ended.
pub(super) fn run_hooks(server: &Arc<Server>) {
    for hook in server.core().cluster.take_hooks() {
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

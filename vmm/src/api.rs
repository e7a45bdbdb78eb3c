//! The control API: HTTP and JSON over a Unix socket, on a thread of its own (`docs/vmm-api.md`).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::State as Extract;
use axum::extract::{DefaultBodyLimit, Path as UrlPath};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use migrator::report::{MigrateRequest, one_line};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use vmm::fabric::Place;

use crate::cli::Failure;
use crate::host::{Host, Refusal};
use crate::report;

const BODY_BYTES_MAX: usize = 64 << 10;
/// How long an ended process stays for an answer that nobody reads.
const LAST_ANSWER: Duration = Duration::from_secs(2);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeRequest {
    #[serde(default)]
    in_doubt: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BandwidthRequest {
    bandwidth_bytes_per_s: Option<u64>,
}

/// Body of `GET /v1/counters`.
#[derive(Debug, Serialize)]
struct Counters {
    application: String,
    rank: u32,
    epoch: u64,
    run_ns: u64,
    wait_ns: u64,
    poll_ns: u64,
    elapsed_ns: u64,
    exits: Exits,
    syscalls: u64,
    dirty_pages_per_s: Option<f64>,
    memory_bytes: u64,
    resident_kib: u64,
    progress: u64,
    units: Option<vmm::units::Units>,
    peers: Vec<vmm::partition::Traffic>,
    migrations: u64,
    blackout_ns: u64,
}

#[derive(Debug, Serialize)]
struct Exits {
    mmio: u64,
    io: u64,
    interrupted: u64,
    other: u64,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({ "error": self.text }))).into_response()
    }
}

type Answer = Result<Json<Value>, Refusal>;

fn to_json(value: &impl Serialize) -> Answer {
    serde_json::to_value(value).map(Json).map_err(|e| Refusal { status: 500, text: one_line(&e) })
}

/// A served control socket. Dropping it lets answers that are under way go out, for a bounded time.
pub struct Server {
    closing: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn is_closing(mut closing: watch::Receiver<bool>) {
    // An error says that the server is gone, which comes to the same.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Starts serving on `socket`. Returns when it listens.
pub fn serve(host: Arc<Host>, socket: &Path) -> Result<Server, Failure> {
    let fail = |e: io::Error| Failure::failed(format!("control socket {}: {e}", socket.display()));
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(socket).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    let (closing, closed) = watch::channel(false);
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let result = runtime.and_then(|runtime| {
            let result = runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                let answers =
                    axum::serve(listener, router(host)).with_graceful_shutdown(is_closing(closed.clone()));
                let late = async {
                    is_closing(closed).await;
                    tokio::time::sleep(LAST_ANSWER).await;
                };
                tokio::select! {
                    result = answers => result,
                    () = late => Ok(()),
                }
            });
            // A migration may still be under way; the process does not wait for it.
            runtime.shutdown_background();
            result
        });
        if let Err(error) = result {
            tracing::error!(%error, "the control API has ended");
        }
    };
    let thread = std::thread::Builder::new().name("api".into()).spawn(serve).map_err(fail)?;
    Ok(Server { closing, thread: Some(thread) })
}

fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/counters", get(counters))
        .route("/v1/pause", post(pause))
        .route("/v1/resume", post(resume))
        .route("/v1/stop", post(stop))
        .route("/v1/migrate", post(migrate))
        .route("/v1/migrate/cancel", post(cancel))
        .route("/v1/migrate/switch", post(switch))
        .route("/v1/migrate/bandwidth", post(bandwidth))
        .route("/v1/peers/{rank}", put(learn))
        .route("/v1/units", put(give_share))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(host)
}

async fn status(Extract(host): Extract<Arc<Host>>) -> Answer {
    to_json(&host.status())
}

/// Runs something that blocks (the vCPU answers between two instructions) off the API's thread.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |e| Refusal { status: 500, text: format!("the request broke off: {e}") };
    tokio::task::spawn_blocking(act).await.map_err(failed)?
}

async fn counters(Extract(host): Extract<Arc<Host>>) -> Answer {
    let partition = host.partition()?;
    let name = partition.name().clone();
    let saved = partition.saved_counters()?;
    let [mmio, io, interrupted, other] = saved.exits;
    to_json(&Counters {
        application: name.application,
        rank: name.rank,
        epoch: name.epoch,
        run_ns: saved.run_ns,
        wait_ns: saved.wait_ns,
        poll_ns: partition.poll_ns().min(saved.run_ns),
        elapsed_ns: partition.elapsed_ns()?,
        exits: Exits { mmio, io, interrupted, other },
        syscalls: saved.syscalls,
        dirty_pages_per_s: host.last_dirty_pages_per_s(),
        memory_bytes: partition.memory().layout().program_bytes,
        resident_kib: report::resident_kib(),
        progress: partition.progress(),
        units: partition.units()?,
        peers: partition.traffic()?,
        migrations: saved.migrations,
        blackout_ns: saved.blackout_ns,
    })
}

async fn pause(Extract(host): Extract<Arc<Host>>) -> Answer {
    let pausing = host.clone();
    blocking(move || pausing.pause()).await?;
    to_json(&host.status())
}

async fn resume(Extract(host): Extract<Arc<Host>>, body: axum::body::Bytes) -> Answer {
    let request: ResumeRequest = match body.is_empty() {
        true => ResumeRequest::default(),
        false => parse(&body)?,
    };
    let resuming = host.clone();
    blocking(move || resuming.resume(request.in_doubt)).await?;
    to_json(&host.status())
}

async fn stop(Extract(host): Extract<Arc<Host>>) -> Answer {
    host.stop();
    Ok(Json(json!({})))
}

async fn migrate(Extract(host): Extract<Arc<Host>>, body: axum::body::Bytes) -> Answer {
    let request: MigrateRequest = parse(&body)?;
    let report = blocking(move || host.migrate(&request)).await?;
    to_json(&report)
}

async fn cancel(Extract(host): Extract<Arc<Host>>) -> Answer {
    host.cancel()?;
    Ok(Json(json!({})))
}

async fn switch(Extract(host): Extract<Arc<Host>>) -> Answer {
    host.switch()?;
    Ok(Json(json!({})))
}

async fn bandwidth(Extract(host): Extract<Arc<Host>>, body: axum::body::Bytes) -> Answer {
    let request: BandwidthRequest = parse(&body)?;
    host.set_bandwidth(request.bandwidth_bytes_per_s)?;
    Ok(Json(json!({})))
}

async fn learn(
    Extract(host): Extract<Arc<Host>>,
    UrlPath(rank): UrlPath<u32>,
    body: axum::body::Bytes,
) -> Answer {
    let place: Place = parse(&body)?;
    let partition = host.partition()?;
    partition.with_fabric(|fabric| {
        fabric.learn(rank, place);
        Ok(())
    })?;
    Ok(Json(json!({})))
}

async fn give_share(Extract(host): Extract<Arc<Host>>, body: axum::body::Bytes) -> Answer {
    let share: vmm::units::Share = parse(&body)?;
    match host.partition()?.give_share(&share)? {
        true => Ok(Json(json!({}))),
        false => Err(Refusal {
            status: 409,
            text: format!("generation {} is not above the one that the program has", share.generation),
        }),
    }
}

fn parse<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|e| Refusal { status: 400, text: format!("the request's body: {e}") })
}

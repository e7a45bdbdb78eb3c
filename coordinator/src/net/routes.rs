//! What can be asked, and the answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use control::{
    ApplicationId, Commands, CommandsRequest, ErrorBody, HostName, IdError, MESSAGE_BYTES_MAX, Message,
    MigrateOrder, MoveId, Rank, Report, Specification, Submitted, decode, encode,
};
use serde::{Deserialize, Serialize};

use super::server::{Server, now_ms};
use crate::cluster::ClusterError;
use crate::series::Selection;

/// An agent that asks for commands is answered after this long at the latest.
const COMMANDS_WAIT: Duration = Duration::from_secs(5);
/// A user who waits for something new is answered after this long at the latest.
const USER_WAIT_S_MAX: u64 = 20;

/// Everything that is served.
pub(super) fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route("/v1/agent/report", post(take_report))
        .route("/v1/agent/commands", post(give_commands))
        .route("/v1/applications", get(applications).post(submit))
        .route("/v1/applications/{id}/output", get(output))
        .route("/v1/applications/{id}/stop", post(stop))
        .route("/v1/applications/{id}/explanation", get(explain_application))
        .route("/v1/applications/{id}/traffic", get(traffic))
        .route("/v1/series", get(series))
        .route("/v1/hosts", get(hosts))
        .route("/v1/partitions", get(partitions))
        .route("/v1/events", get(events))
        .route("/v1/plan", get(plan))
        .route("/v1/moves", post(migrate))
        .route("/v1/moves/{id}", get(one_move))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .with_state(server)
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], encode(value)).into_response()
}

fn good<T: Serialize>(value: &T) -> Response {
    json(StatusCode::OK, value)
}

fn bad(status: StatusCode, error: &dyn std::error::Error) -> Response {
    json(status, &ErrorBody { error: error.to_string() })
}

fn refused(error: &ClusterError) -> Response {
    let status = match error {
        ClusterError::NoApplication(_) | ClusterError::NotLive(_) => StatusCode::NOT_FOUND,
        ClusterError::Specification(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::CONFLICT,
    };
    bad(status, error)
}

/// Decodes a body or answers why not.
fn read<T: Message>(body: &[u8]) -> Result<T, Box<Response>> {
    decode(body).map_err(|error| Box::new(bad(StatusCode::BAD_REQUEST, &error)))
}

fn read_id(id: &str) -> Result<ApplicationId, Box<Response>> {
    id.parse().map_err(|error: IdError| Box::new(bad(StatusCode::BAD_REQUEST, &error)))
}

async fn take_report(Shared(server): Shared<Arc<Server>>, body: Bytes) -> Response {
    let report: Report = match read(&body) {
        Ok(report) => report,
        Err(response) => return *response,
    };
    let answer = server.act(|cluster, now| cluster.report(now, &report));
    if answer.is_ok() {
        server.remember(&report);
    }
    if !report.output.is_empty() || !report.partitions.is_empty() {
        server.changed();
    }
    match answer {
        Ok(answer) => good(&answer),
        Err(error) => refused(&error),
    }
}

async fn give_commands(Shared(server): Shared<Arc<Server>>, body: Bytes) -> Response {
    let request: CommandsRequest = match read(&body) {
        Ok(request) => request,
        Err(response) => return *response,
    };
    let found = server
        .wait_for(COMMANDS_WAIT, |server| {
            let found = server.core().cluster.commands(&request);
            let enough = found.as_ref().is_ok_and(|commands| !commands.is_empty());
            (found, enough)
        })
        .await;
    match found {
        Ok(commands) => {
            let cluster = server.core().cluster.name().clone();
            good(&Commands { cluster, commands })
        }
        Err(error) => refused(&error),
    }
}

#[derive(Deserialize)]
struct Waiting {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_s: u64,
    waiter: Option<String>,
}

impl Waiting {
    fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_s.min(USER_WAIT_S_MAX))
    }

    /// A name for a waiting client, if it is a sensible one.
    fn waiter(&self) -> Option<&str> {
        self.waiter.as_deref().filter(|name| name.len() <= 64)
    }
}

async fn submit(Shared(server): Shared<Arc<Server>>, Query(query): Query<Waiting>, body: Bytes) -> Response {
    let specification: Specification = match read(&body) {
        Ok(specification) => specification,
        Err(response) => return *response,
    };
    match server.act(|cluster, now| cluster.submit(now, specification, query.waiter())) {
        Ok(application) => good(&Submitted { application }),
        Err(error) => refused(&error),
    }
}

async fn output(
    Shared(server): Shared<Arc<Server>>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<Waiting>,
) -> Response {
    let id = match read_id(&id) {
        Ok(id) => id,
        Err(response) => return *response,
    };
    let found = server
        .wait_for(query.wait(), |server| {
            let found = server.act(|cluster, now| cluster.output(now, &id, query.after, query.waiter()));
            let enough = found.as_ref().map_or(true, |answer| answer.complete || !answer.entries.is_empty());
            (found, enough)
        })
        .await;
    match found {
        Ok(answer) => good(&answer),
        Err(error) => refused(&error),
    }
}

async fn stop(Shared(server): Shared<Arc<Server>>, UrlPath(id): UrlPath<String>) -> Response {
    let id = match read_id(&id) {
        Ok(id) => id,
        Err(response) => return *response,
    };
    match server.act(|cluster, now| cluster.stop(now, &id)) {
        Ok(()) => good(&serde_json::json!({})),
        Err(error) => refused(&error),
    }
}

async fn explain_application(Shared(server): Shared<Arc<Server>>, UrlPath(id): UrlPath<String>) -> Response {
    let id = match read_id(&id) {
        Ok(id) => id,
        Err(response) => return *response,
    };
    let explanation = server.core().cluster.explain_application(now_ms(), &id);
    match explanation {
        Ok(explanation) => good(&explanation),
        Err(error) => refused(&error),
    }
}

async fn migrate(Shared(server): Shared<Arc<Server>>, body: Bytes) -> Response {
    let order: MigrateOrder = match read(&body) {
        Ok(order) => order,
        Err(response) => return *response,
    };
    let started = server.act(|cluster, now| {
        let id = cluster.migrate(now, &order)?;
        Ok(cluster.one_move(id))
    });
    match started {
        Ok(view) => good(&view),
        Err(error) => refused(&error),
    }
}

async fn one_move(
    Shared(server): Shared<Arc<Server>>,
    UrlPath(id): UrlPath<MoveId>,
    Query(query): Query<Waiting>,
) -> Response {
    let look = |server: &Server| {
        let view = server.core().cluster.one_move(id);
        let over = view.as_ref().is_none_or(|view| view.state == "done" || view.state == "failed");
        (view, over)
    };
    match server.wait_for(query.wait(), look).await {
        Some(view) => good(&view),
        None => {
            let error = format!("there is no move {id}; `coordinator events` lists them");
            json(StatusCode::NOT_FOUND, &ErrorBody { error })
        }
    }
}

async fn events(Shared(server): Shared<Arc<Server>>, Query(query): Query<Waiting>) -> Response {
    let look = |server: &Server| {
        let answer = server.core().cluster.events(query.after);
        let enough = !answer.events.is_empty();
        (answer, enough)
    };
    good(&server.wait_for(query.wait(), look).await)
}

async fn applications(Shared(server): Shared<Arc<Server>>) -> Response {
    good(&server.core().cluster.applications(now_ms()))
}

async fn hosts(Shared(server): Shared<Arc<Server>>) -> Response {
    good(&server.core().cluster.hosts(now_ms()))
}

async fn partitions(Shared(server): Shared<Arc<Server>>) -> Response {
    good(&server.core().cluster.partitions())
}

async fn plan(Shared(server): Shared<Arc<Server>>) -> Response {
    good(&server.core().cluster.plan_view(now_ms()))
}

async fn traffic(Shared(server): Shared<Arc<Server>>, UrlPath(id): UrlPath<String>) -> Response {
    let id = match read_id(&id) {
        Ok(id) => id,
        Err(response) => return *response,
    };
    let found = server.core().cluster.traffic(&id);
    match found {
        Ok(view) => good(&view),
        Err(error) => refused(&error),
    }
}

#[derive(Deserialize)]
struct SeriesQuery {
    host: Option<HostName>,
    application: Option<ApplicationId>,
    rank: Option<Rank>,
    /// Comma-separated.
    #[serde(default)]
    names: String,
    #[serde(default)]
    since_ms: u64,
}

async fn series(Shared(server): Shared<Arc<Server>>, Query(query): Query<SeriesQuery>) -> Response {
    let names = query.names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let selection = Selection {
        host: query.host,
        application: query.application,
        rank: query.rank,
        names,
        since_ms: query.since_ms,
    };
    match server.core().history.select(&selection) {
        Ok(answer) => good(&answer),
        Err(error) => bad(StatusCode::BAD_REQUEST, &error),
    }
}

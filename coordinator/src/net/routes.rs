//! What can be asked, and the answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as SentEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use control::{
    Answer, ApplicationExplanation, ApplicationId, ApplicationView, Commands, CommandsRequest,
    EXPOSITION_TYPE, ErrorBody, EventView, EventsAnswer, HostName, HostView, IdError, MESSAGE_BYTES_MAX,
    Message, MigrateOrder, MoveId, MoveView, OutputAnswer, PartitionView, PlanView, Rank, Report,
    SeriesAnswer, Specification, Submitted, TrafficView, decode, encode,
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes as describe;

use super::server::{Server, now_ms};
use crate::cluster::ClusterError;
use crate::openapi;
use crate::series::Selection;

/// An agent that asks for commands is answered after this long at the latest.
const COMMANDS_WAIT: Duration = Duration::from_secs(5);
/// A user who waits for something new is answered after this long at the latest.
const USER_WAIT_S_MAX: u64 = 20;
/// A stream of events looks again at least this often.
const STREAM_WAIT: Duration = Duration::from_secs(20);

/// Every route with its description, so that neither is without the other.
pub(super) fn described() -> OpenApiRouter<Arc<Server>> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(describe!(take_report))
        .routes(describe!(give_commands))
        .routes(describe!(applications, submit))
        .routes(describe!(output))
        .routes(describe!(stop))
        .routes(describe!(explain_application))
        .routes(describe!(traffic))
        .routes(describe!(series))
        .routes(describe!(hosts))
        .routes(describe!(partitions))
        .routes(describe!(events))
        .routes(describe!(stream))
        .routes(describe!(plan))
        .routes(describe!(migrate))
        .routes(describe!(one_move))
        .routes(describe!(metrics))
        .merge(super::administration::described())
}

/// Everything that is served.
pub(super) fn routes(server: Arc<Server>) -> Router {
    let (router, api) = described().split_for_parts();
    let text = openapi::text(&api);
    let api = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
    router.route("/openapi.json", get(api)).layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX)).with_state(server)
}

pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], encode(value)).into_response()
}

pub(super) fn good<T: Serialize>(value: &T) -> Response {
    json(StatusCode::OK, value)
}

pub(super) fn bad(status: StatusCode, error: &dyn std::error::Error) -> Response {
    json(status, &ErrorBody { error: error.to_string() })
}

pub(super) fn refused(error: &ClusterError) -> Response {
    let status = match error {
        ClusterError::NoApplication(_) | ClusterError::NotLive(_) | ClusterError::NoHost(_) => {
            StatusCode::NOT_FOUND
        }
        ClusterError::Specification(_) | ClusterError::Policy(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::CONFLICT,
    };
    bad(status, error)
}

/// Decodes a body or answers why not.
pub(super) fn read<T: Message>(body: &[u8]) -> Result<T, Box<Response>> {
    decode(body).map_err(|error| Box::new(bad(StatusCode::BAD_REQUEST, &error)))
}

fn read_id(id: &str) -> Result<ApplicationId, Box<Response>> {
    id.parse().map_err(|error: IdError| Box::new(bad(StatusCode::BAD_REQUEST, &error)))
}

/// An agent says everything it knows.
#[utoipa::path(post, path = "/v1/agent/report", tag = "agent", request_body = Report, responses((status = 200, description = "Done", body = Answer), (status = 400, description = "Not understood", body = ErrorBody), (status = 409, description = "Refused now", body = ErrorBody)))]
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

/// An agent asks for commands; answered when there are some, or after five seconds with none.
#[utoipa::path(post, path = "/v1/agent/commands", tag = "agent", request_body = CommandsRequest, responses((status = 200, description = "Done", body = Commands), (status = 400, description = "Not understood", body = ErrorBody), (status = 409, description = "Refused now", body = ErrorBody)))]
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
            let core = server.core();
            let (cluster, fence) = (core.cluster.name().clone(), core.cluster.state().incarnation);
            good(&Commands { cluster, fence, commands })
        }
        Err(error) => refused(&error),
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Waiting {
    /// What follows this position.
    #[serde(default)]
    after: u64,
    /// Wait this long for something new, in seconds.
    #[serde(default)]
    wait_s: u64,
    /// Keep output for the client of this name.
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

/// Run an application.
#[utoipa::path(post, path = "/v1/applications", tag = "applications", params(Waiting), request_body = Specification, responses((status = 200, description = "Done", body = Submitted), (status = 400, description = "Not understood", body = ErrorBody), (status = 409, description = "Refused now", body = ErrorBody)))]
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

/// Output of an application after a position.
#[utoipa::path(get, path = "/v1/applications/{id}/output", tag = "applications", params(("id" = String, Path, description = "The application"), Waiting), responses((status = 200, description = "Done", body = OutputAnswer), (status = 400, description = "Not understood", body = ErrorBody), (status = 404, description = "There is no such thing", body = ErrorBody)))]
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

/// End an application with status 143.
#[utoipa::path(post, path = "/v1/applications/{id}/stop", tag = "applications", params(("id" = String, Path, description = "The application")), responses((status = 200, description = "Done", body = serde_json::Value), (status = 400, description = "Not understood", body = ErrorBody), (status = 404, description = "There is no such thing", body = ErrorBody)))]
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

/// Why an application runs where it does.
#[utoipa::path(get, path = "/v1/applications/{id}/explanation", tag = "applications", params(("id" = String, Path, description = "The application")), responses((status = 200, description = "Done", body = ApplicationExplanation), (status = 400, description = "Not understood", body = ErrorBody), (status = 404, description = "There is no such thing", body = ErrorBody)))]
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

/// Move a partition.
#[utoipa::path(post, path = "/v1/moves", tag = "planning", request_body = MigrateOrder, responses((status = 200, description = "Done", body = MoveView), (status = 400, description = "Not understood", body = ErrorBody), (status = 404, description = "There is no such thing", body = ErrorBody), (status = 409, description = "Refused now", body = ErrorBody)))]
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

/// A move; waits until it is over if asked to.
#[utoipa::path(get, path = "/v1/moves/{id}", tag = "planning", params(("id" = u64, Path, description = "Its number"), Waiting), responses((status = 200, description = "Done", body = MoveView), (status = 404, description = "There is no such thing", body = ErrorBody)))]
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

/// What happened after a position; waits for something new if asked to.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(Waiting), responses((status = 200, description = "Done", body = EventsAnswer)))]
async fn events(Shared(server): Shared<Arc<Server>>, Query(query): Query<Waiting>) -> Response {
    good(&next_events(&server, query.after, query.wait()).await)
}

/// All applications, oldest first.
#[utoipa::path(get, path = "/v1/applications", tag = "applications", responses((status = 200, description = "Done", body = Vec<ApplicationView>)))]
async fn applications(Shared(server): Shared<Arc<Server>>) -> Response {
    good(&server.core().cluster.applications(now_ms()))
}

/// All hosts.
#[utoipa::path(get, path = "/v1/hosts", tag = "monitoring", responses((status = 200, description = "Done", body = Vec<HostView>)))]
async fn hosts(Shared(server): Shared<Arc<Server>>) -> Response {
    good(&server.core().cluster.hosts(now_ms()))
}

/// Partitions of applications that have not ended.
#[utoipa::path(get, path = "/v1/partitions", tag = "monitoring", responses((status = 200, description = "Done", body = Vec<PartitionView>)))]
async fn partitions(Shared(server): Shared<Arc<Server>>) -> Response {
    good(&server.core().cluster.partitions())
}

/// What the planner decides now, and why.
#[utoipa::path(get, path = "/v1/plan", tag = "planning", responses((status = 200, description = "Done", body = PlanView)))]
async fn plan(Shared(server): Shared<Arc<Server>>) -> Response {
    good(&server.core().cluster.plan_view(now_ms()))
}

/// Communication matrix of an application.
#[utoipa::path(get, path = "/v1/applications/{id}/traffic", tag = "monitoring", params(("id" = String, Path, description = "The application")), responses((status = 200, description = "Done", body = TrafficView), (status = 400, description = "Not understood", body = ErrorBody), (status = 404, description = "There is no such thing", body = ErrorBody)))]
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

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SeriesQuery {
    /// Of this host.
    host: Option<HostName>,
    /// Of partitions of this application.
    application: Option<ApplicationId>,
    /// Only of this rank.
    rank: Option<Rank>,
    /// Only these; comma-separated.
    #[serde(default)]
    names: String,
    /// Only intervals that begin then or later, Unix milliseconds.
    #[serde(default)]
    since_ms: u64,
}

/// What was measured over time, of a host or of partitions.
#[utoipa::path(get, path = "/v1/series", tag = "monitoring", params(SeriesQuery), responses((status = 200, description = "Done", body = SeriesAnswer), (status = 400, description = "Not understood", body = ErrorBody)))]
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

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "monitoring", responses((status = 200, description = "Done", content_type = "application/openmetrics-text", body = String)))]
async fn metrics(Shared(server): Shared<Arc<Server>>) -> Response {
    match server.metrics().text() {
        Ok(text) => ([(header::CONTENT_TYPE, EXPOSITION_TYPE)], text).into_response(),
        Err(error) => bad(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    /// Go on behind this event; the header `Last-Event-ID` is stronger.
    #[serde(default)]
    after: u64,
}

/// What happens, as it happens: server-sent events whose data are `EventView`.
#[utoipa::path(get, path = "/v1/events/stream", tag = "events", params(StreamQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Go on behind this event")), responses((status = 200, description = "Done", content_type = "text/event-stream", body = String), (status = 400, description = "Not understood", body = ErrorBody)))]
async fn stream(
    Shared(server): Shared<Arc<Server>>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Response {
    let last = headers.get("last-event-id").map(|it| it.to_str().ok().and_then(|it| it.parse().ok()));
    let after = match last {
        None => query.after,
        Some(Some(last)) => last,
        Some(None) => {
            let error = "Last-Event-ID is not the number of an event".to_owned();
            return json(StatusCode::BAD_REQUEST, &ErrorBody { error });
        }
    };
    let server = Arc::downgrade(&server);
    let parts = futures_util::stream::unfold(after, move |after| {
        let server = server.clone();
        async move {
            // Ends with the server.
            let answer = next_events(&*server.upgrade()?, after, STREAM_WAIT).await;
            let parts: Vec<_> = answer.events.iter().map(sent).collect();
            Some((futures_util::stream::iter(parts), answer.next))
        }
    });
    Sse::new(parts.flatten()).keep_alive(KeepAlive::default()).into_response()
}

fn sent(event: &EventView) -> Result<SentEvent, std::convert::Infallible> {
    let text = String::from_utf8(encode(event)).unwrap_or_default();
    Ok(SentEvent::default().id(event.sequence.to_string()).event(&event.kind).data(text))
}

/// Events behind `after`, as soon as there are any.
async fn next_events(server: &Server, after: u64, wait: Duration) -> EventsAnswer {
    let look = |server: &Server| {
        let answer = server.core().cluster.events(after);
        let enough = !answer.events.is_empty();
        (answer, enough)
    };
    server.wait_for(wait, look).await
}

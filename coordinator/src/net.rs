//! The server: HTTP/1.1 + JSON for agents and users; the one file with the server's sockets, its clock and its journal writes.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use control::{
    ApplicationId, ClusterId, Commands, CommandsRequest, ErrorBody, IdError, MESSAGE_BYTES_MAX, Message,
    MigrateOrder, MoveId, Policy, Report, Specification, Submitted, TcpAddress, decode, encode,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cluster::{Cluster, ClusterError, Settings};
use crate::journal::{Journal, JournalError};

mod administration;

/// How often time passes for the cluster.
const TICK: Duration = Duration::from_millis(100);
/// An agent that asks for commands is answered after this long at the latest.
const COMMANDS_WAIT: Duration = Duration::from_secs(5);
/// A user who waits for something new is answered after this long at the latest.
const USER_WAIT_S_MAX: u64 = 20;

/// A server that could not start or go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The state file.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: TcpAddress,
        /// Why.
        source: std::io::Error,
    },
    /// No random numbers for the name of a new cluster.
    #[error("/dev/urandom cannot be read")]
    Random(#[source] std::io::Error),
    /// Never happens: the name is made here.
    #[error("no name for the cluster")]
    Name(#[from] IdError),
    /// The policy.
    #[error(transparent)]
    Policy(#[from] ClusterError),
    /// The runtime or the server failed.
    #[error("the server failed")]
    Server(#[source] std::io::Error),
}

struct Core {
    cluster: Cluster,
    journal: Journal,
}

struct Server {
    core: Mutex<Core>,
    /// Counts changes; who waits for something looks again at each.
    changes: watch::Sender<u64>,
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Server {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets something happen: decisions are in the journal before anybody is told of them.
    fn act<T>(&self, act: impl FnOnce(&mut Cluster, u64) -> T) -> T {
        let mut core = self.core();
        let result = act(&mut core.cluster, now_ms());
        let outbox = core.cluster.take_outbox();
        let news = !outbox.entries.is_empty() || !outbox.commands.is_empty();
        if let Err(error) = core.journal.append(&outbox.entries) {
            // What was decided cannot be made durable: nobody may act on it. The next start goes on from the journal.
            eprintln!("coordinator: {error}");
            std::process::exit(1);
        }
        core.cluster.release(outbox.commands);
        drop(core);
        if news {
            self.changed();
        }
        result
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Calls `look` until it finds something or `wait` is over, at every change.
    async fn wait_for<T>(&self, wait: Duration, mut look: impl FnMut(&Self) -> (T, bool)) -> T {
        let mut changes = self.changes.subscribe();
        let deadline = Instant::now() + wait;
        loop {
            changes.mark_unchanged();
            let (found, enough) = look(self);
            if enough || tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                return found;
            }
        }
    }
}

/// Serves until SIGTERM or SIGINT. Prints one line with its address when it is ready.
pub fn serve(
    listen: &TcpAddress,
    state: &Path,
    settings: Settings,
    policy: Option<Policy>,
) -> Result<(), ServeError> {
    let name = random_cluster()?;
    let (journal, entries) = Journal::open(state, &name, now_ms())?;
    let cluster = Cluster::resume(settings, name, &entries, now_ms());
    let server = Server { core: Mutex::new(Core { cluster, journal }), changes: watch::Sender::new(0) };
    // The journal has the new start before anything else happens.
    server.act(|cluster, now| policy.map_or(Ok(0), |policy| cluster.set_policy(now, policy)))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Server)?;
    runtime.block_on(run(Arc::new(server), listen))
}

fn random_cluster() -> Result<ClusterId, ServeError> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(ServeError::Random)?;
    Ok(format!("c{:016x}", u64::from_le_bytes(bytes)).parse()?)
}

async fn run(server: Arc<Server>, listen: &TcpAddress) -> Result<(), ServeError> {
    let error = |source| ServeError::Listen { address: listen.clone(), source };
    let listener = TcpListener::bind((listen.host(), listen.port())).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    println!("coordinator: listening on tcp:{address}");
    let ticking = server.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let hooks = ticking.act(|cluster, now| {
                cluster.tick(now);
                cluster.take_hooks()
            });
            administration::run_hooks(&ticking, hooks);
        }
    });
    let routes = Router::new()
        .route("/v1/agent/report", post(take_report))
        .route("/v1/agent/commands", post(give_commands))
        .route("/v1/applications", get(applications).post(submit))
        .route("/v1/applications/{id}/output", get(output))
        .route("/v1/applications/{id}/stop", post(stop))
        .route("/v1/applications/{id}/explanation", get(explain_application))
        .route("/v1/hosts", get(hosts))
        .route("/v1/partitions", get(partitions))
        .route("/v1/events", get(events))
        .route("/v1/plan", get(plan))
        .route("/v1/moves", post(migrate))
        .route("/v1/moves/{id}", get(one_move))
        .merge(administration::routes())
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .with_state(server);
    tokio::select! {
        result = axum::serve(listener, routes) => result.map_err(ServeError::Server),
        result = told_to_end() => result.map_err(ServeError::Server),
    }
}

/// Partitions go on without a coordinator: ending it ends nothing else.
async fn told_to_end() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
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
        ClusterError::NoApplication(_) | ClusterError::NotLive(_) | ClusterError::NoHost(_) => {
            StatusCode::NOT_FOUND
        }
        ClusterError::Specification(_) | ClusterError::Policy(_) => StatusCode::BAD_REQUEST,
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

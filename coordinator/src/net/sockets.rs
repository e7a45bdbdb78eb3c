//! The server's socket and the loops that keep it going.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;

use super::doors::{Doors, Visitor};
use super::routes::{bad, routes};
use super::server::Server;
use super::{Entrance, ServeError};
use crate::access::{Access, Refusal};

/// How often time passes for the cluster.
const TICK: Duration = Duration::from_millis(100);

/// How often series of what is over are dropped.
const FORGET_TICKS: u64 = 100;

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(server: Arc<Server>, entrance: Entrance) -> Result<(), ServeError> {
    let Entrance { listen, config, access } = entrance;
    let error = |source| ServeError::Listen { address: listen.clone(), source };
    let listener = TcpListener::bind((listen.host(), listen.port())).await.map_err(error)?;
    let doors = Doors::open(listener, config).map_err(error)?;
    let address = doors.address();
    println!("coordinator: listening on {}:{address}", if listen.is_tls() { "tls" } else { "tcp" });
    let ticking = server.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for count in 0_u64.. {
            ticks.tick().await;
            ticking.tick();
            if count.is_multiple_of(FORGET_TICKS) {
                ticking.forget();
            }
        }
    });
    let guarded = routes(server).layer(from_fn_with_state(Arc::new(access), guard));
    let service = guarded.into_make_service_with_connect_info::<Visitor>();
    tokio::select! {
        result = axum::serve(doors, service) => result.map_err(ServeError::Server),
        result = told_to_end() => result.map_err(ServeError::Server),
    }
}

/// Lets through who may ask this; the handlers find out who that is.
async fn guard(
    Shared(access): Shared<Arc<Access>>,
    ConnectInfo(Visitor(peer)): ConnectInfo<Visitor>,
    mut request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer "));
    match access.authorise(request.method(), request.uri().path(), peer.as_deref(), token) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => {
            let status = match refusal {
                Refusal::Unknown | Refusal::Token => StatusCode::UNAUTHORIZED,
                Refusal::Role { .. } => StatusCode::FORBIDDEN,
            };
            bad(status, &refusal)
        }
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

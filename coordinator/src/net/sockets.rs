//! The server's socket and the loops that keep it going.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use control::{ErrorBody, encode};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;

use super::doors::{Doors, Visitor};
use super::routes::{bad, routes};
use super::server::Server;
use super::{Entrance, ServeError, administration};
use crate::access::{Access, Refusal};
use crate::store::etcd::{Etcd, Options};

/// How often time passes for the cluster.
const TICK: Duration = Duration::from_millis(100);

/// How often series of what is over are dropped.
const FORGET_TICKS: u64 = 100;

/// Takes the address. Prints one line with it.
pub(super) fn listen(entrance: &Entrance) -> Result<std::net::TcpListener, ServeError> {
    let listen = &entrance.listen;
    let error = |source| ServeError::Listen { address: listen.clone(), source };
    let listener = std::net::TcpListener::bind((listen.host(), listen.port())).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    let scheme = if listen.is_tls() { "tls" } else { "tcp" };
    println!("coordinator: listening on {scheme}:{}", listener.local_addr().map_err(error)?);
    Ok(listener)
}

/// Waits for leadership; until then everybody is sent away. `None` if it was told to end.
pub(super) async fn stand_by(
    socket: &std::net::TcpListener,
    entrance: &Entrance,
    options: Options,
) -> Result<Option<Etcd>, ServeError> {
    // A second hold on the same socket: nobody is refused while it goes from the standby to the leader.
    let listener = socket.try_clone().and_then(TcpListener::from_std).map_err(ServeError::Server)?;
    let doors = Doors::open(listener, entrance.config.clone());
    let (tell, mut elected) = tokio::sync::oneshot::channel();
    // It blocks; if this process is to end it ends with it.
    std::thread::spawn(move || drop(tell.send(Etcd::campaign(options))));
    let away = || async {
        let error = "this coordinator is a standby; ask the one that leads".to_owned();
        (StatusCode::SERVICE_UNAVAILABLE, encode(&ErrorBody { error }))
    };
    let serving = axum::serve(doors, axum::Router::new().fallback(away)).into_future();
    tokio::select! {
        result = serving => result.map(|()| None).map_err(ServeError::Server),
        result = told_to_end() => result.map(|()| None).map_err(ServeError::Server),
        result = &mut elected => match result {
            Ok(store) => Ok(Some(store?)),
            Err(_) => Err(ServeError::Server(std::io::Error::other("the campaign ended"))),
        },
    }
}

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(
    server: Arc<Server>,
    socket: std::net::TcpListener,
    entrance: &Entrance,
) -> Result<(), ServeError> {
    let listener = TcpListener::from_std(socket).map_err(ServeError::Server)?;
    let doors = Doors::open(listener, entrance.config.clone());
    let ticking = server.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for count in 0_u64.. {
            ticks.tick().await;
            ticking.tick();
            administration::run_hooks(&ticking);
            if count.is_multiple_of(FORGET_TICKS) {
                ticking.forget();
            }
        }
    });
    let guarded = routes(server).layer(from_fn_with_state(entrance.access.clone(), guard));
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

//! The server's socket and the loops that keep it going.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use control::{ErrorBody, TcpAddress, encode};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;

use super::routes::routes;
use super::server::Server;
use super::{ServeError, administration};
use crate::store::etcd::{Etcd, Options};

/// How often time passes for the cluster.
const TICK: Duration = Duration::from_millis(100);

/// How often series of what is over are dropped.
const FORGET_TICKS: u64 = 100;

/// Takes the address. Prints one line with it.
pub(super) fn listen(listen: &TcpAddress) -> Result<std::net::TcpListener, ServeError> {
    let error = |source| ServeError::Listen { address: listen.clone(), source };
    let listener = std::net::TcpListener::bind((listen.host(), listen.port())).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    println!("coordinator: listening on tcp:{}", listener.local_addr().map_err(error)?);
    Ok(listener)
}

/// Waits for leadership; until then everybody is sent away. `None` if it was told to end.
pub(super) async fn stand_by(
    socket: &std::net::TcpListener,
    options: Options,
) -> Result<Option<Etcd>, ServeError> {
    // A second hold on the same socket: nobody is refused while it goes from the standby to the leader.
    let listener = socket.try_clone().and_then(TcpListener::from_std).map_err(ServeError::Server)?;
    let (tell, mut elected) = tokio::sync::oneshot::channel();
    // It blocks; if this process is to end it ends with it.
    std::thread::spawn(move || drop(tell.send(Etcd::campaign(options))));
    let away = || async {
        let error = "this coordinator is a standby; ask the one that leads".to_owned();
        (StatusCode::SERVICE_UNAVAILABLE, encode(&ErrorBody { error }))
    };
    let serving = axum::serve(listener, axum::Router::new().fallback(away)).into_future();
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
pub(super) async fn run(server: Arc<Server>, socket: std::net::TcpListener) -> Result<(), ServeError> {
    let listener = TcpListener::from_std(socket).map_err(ServeError::Server)?;
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
    tokio::select! {
        result = axum::serve(listener, routes(server)) => result.map_err(ServeError::Server),
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

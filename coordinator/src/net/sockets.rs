//! The server's socket and the loops that keep it going.

use std::sync::Arc;
use std::time::Duration;

use control::TcpAddress;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;

use super::ServeError;
use super::routes::routes;
use super::server::Server;

/// How often time passes for the cluster.
const TICK: Duration = Duration::from_millis(100);

/// How often series of what is over are dropped.
const FORGET_TICKS: u64 = 100;

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(server: Arc<Server>, listen: &TcpAddress) -> Result<(), ServeError> {
    let error = |source| ServeError::Listen { address: listen.clone(), source };
    let listener = TcpListener::bind((listen.host(), listen.port())).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    println!("coordinator: listening on tcp:{address}");
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

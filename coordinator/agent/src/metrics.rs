//! The host's metrics for Prometheus, if they are asked for with `--metrics`: the counters of its partitions as they are now.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use control::{Counters, EXPOSITION_TYPE, Labels, Sheet, TcpAddress};
use tokio::net::TcpListener;

use crate::host::Host;
use crate::partition::Partition;

/// Serves `/metrics` for ever. Prints one line with the address.
pub(crate) async fn serve(host: Arc<Host>, address: TcpAddress) -> std::io::Result<()> {
    let listener = TcpListener::bind((address.host(), address.port())).await?;
    eprintln!("agent: metrics at http://{}/metrics", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/metrics", get(answer)).with_state(host)).await
}

async fn answer(State(host): State<Arc<Host>>) -> Response {
    match sheet(&host).text() {
        Ok(text) => ([(header::CONTENT_TYPE, EXPOSITION_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn labels(it: &Partition) -> Labels {
    vec![("application", it.key.application.to_string()), ("rank", it.key.rank.to_string())]
}

fn sheet(host: &Host) -> Sheet {
    let mut sheet = Sheet::new("partita_agent");
    let own = |value: f64| [(Labels::new(), value)];
    let facts = &host.config.facts;
    sheet.gauge("cpus", "Processors given to partitions", own(facts.cpus.len() as f64));
    sheet.gauge("memory_bytes", "Memory given to partitions", own(facts.memory_bytes as f64));
    let state = host.state();
    sheet.gauge("fencing_token", "Highest fencing token seen", own(state.epochs.fence() as f64));
    sheet.gauge(
        "results_waiting",
        "Outcomes that the coordinator does not have yet",
        own(state.results.len() as f64),
    );
    let partitions: Vec<Arc<Partition>> = state.partitions.values().cloned().collect();
    drop(state);
    let running = |it: &&Arc<Partition>| it.known().end.is_none();
    sheet.gauge("partitions", "Partition processes", own(partitions.iter().filter(running).count() as f64));
    let mut counter = |name: &str, help: &str, value: fn(&Counters) -> f64| {
        let sample = |it: &Arc<Partition>| Some((labels(it), value(it.known().counters.as_ref()?)));
        sheet.counter(name, help, partitions.iter().filter(running).filter_map(sample));
    };
    counter("partition_run_seconds", "vCPU on a processor", |it| it.run_ns as f64 / 1e9);
    counter("partition_wait_seconds", "vCPU asleep, waiting for data", |it| it.wait_ns as f64 / 1e9);
    counter("partition_poll_seconds", "Waiting for messages without being asleep, part of run", |it| {
        it.poll_ns as f64 / 1e9
    });
    counter("partition_progress", "Units of work that the program reported", |it| it.progress as f64);
    counter("partition_sent_bytes", "Bytes sent to peers", |it| {
        it.peers.iter().map(|it| it.bytes_sent as f64).sum()
    });
    counter("partition_received_bytes", "Bytes received from peers", |it| {
        it.peers.iter().map(|it| it.bytes_received as f64).sum()
    });
    let resident =
        |it: &Arc<Partition>| Some((labels(it), (it.known().counters.as_ref()?.resident_kib << 10) as f64));
    let help = "Resident memory of the partition's process";
    sheet.gauge("partition_resident_bytes", help, partitions.iter().filter(running).filter_map(resident));
    sheet
}

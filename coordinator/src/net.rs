//! The server: HTTP/1.1 + JSON for agents and users. Here is how it starts; below, what it owns, its sockets and its routes.

mod administration;
mod routes;
mod server;
mod sockets;

use std::path::PathBuf;
use std::sync::Arc;

use control::{ClusterId, IdError, Policy, TcpAddress};
use thiserror::Error;

use crate::cluster::{Cluster, ClusterError, Settings};
use crate::journal::{Journal, JournalError};
use crate::store::embedded::Embedded;
use crate::store::etcd::{EtcdError, Options};
use crate::store::{Store, StoreError};
use server::{Server, now_ms};

/// A server that could not start or go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Where it is kept.
    #[error("--state or --store")]
    Store(#[from] StoreError),
    /// It cannot lead.
    #[error("--store")]
    Etcd(#[from] EtcdError),
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

/// The description of the API as JSON text.
pub fn openapi() -> String {
    crate::openapi::text(&routes::described().into_openapi())
}

/// Where the journal is.
#[derive(Debug)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// In etcd, shared with others.
    Etcd(Options),
}

/// Serves until SIGTERM or SIGINT. Prints one line with its address when it is ready, and one more when it leads.
///
/// `policy`: to be set at the start, if it is not the one that holds.
pub fn serve(
    listen: &TcpAddress,
    place: Place,
    settings: Settings,
    policy: Option<Policy>,
) -> Result<(), ServeError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Server)?;
    runtime.block_on(async {
        match place {
            Place::File(path) => {
                let server = open(Box::new(Embedded::open(&path)?), settings, policy)?;
                let socket = sockets::listen(listen)?;
                sockets::run(server, socket).await
            }
            Place::Etcd(options) => {
                let socket = sockets::listen(listen)?;
                let Some(store) = sockets::stand_by(&socket, options).await? else { return Ok(()) };
                let server = open(Box::new(store), settings, policy)?;
                println!("coordinator: leading");
                sockets::run(server, socket).await
            }
        }
    })
}

fn open(
    store: Box<dyn Store>,
    settings: Settings,
    policy: Option<Policy>,
) -> Result<Arc<Server>, ServeError> {
    let name = random_cluster()?;
    let (journal, entries) = Journal::open_in(store, &name, now_ms())?;
    let cluster = Cluster::resume(settings, name, &entries, now_ms());
    let server = Server::new(cluster, journal);
    server.act(|cluster, now| policy.map_or(Ok(0), |policy| cluster.set_policy(now, policy)))?;
    Ok(Arc::new(server))
}

fn random_cluster() -> Result<ClusterId, ServeError> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(ServeError::Random)?;
    Ok(format!("c{:016x}", u64::from_le_bytes(bytes)).parse()?)
}

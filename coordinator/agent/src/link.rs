//! The line to the coordinator: reports go out, commands come in, both for ever and over its restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use control::{
    Answer, ClusterId, Commands, CommandsRequest, MESSAGE_BYTES_MAX, MessageError, PROTOCOL, TcpAddress,
    decode, encode, one_line,
};
use partita_http::{HttpError, Method, Request, Server, StatusCode, ask};
use rustls::ClientConfig;
use thiserror::Error;

use crate::command;
use crate::epochs::EpochError;
use crate::host::Host;

/// A report at least this often.
const REPORT_PERIOD: Duration = Duration::from_millis(500);
/// Things that happen within this time share a report.
const GATHER: Duration = Duration::from_millis(10);
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the coordinator keeps a request for commands waiting.
const COMMANDS_TIMEOUT: Duration = Duration::from_secs(15);
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// A talk with the coordinator that failed.
#[derive(Debug, Error)]
enum LinkError {
    #[error("coordinator")]
    Http(#[from] HttpError),
    #[error("the coordinator refuses: {0}")]
    Refused(String),
    #[error("coordinator")]
    Message(#[from] MessageError),
    #[error(
        "the coordinator is of another cluster than the partitions here; end them by restarting the agent, or start the coordinator with its own --state"
    )]
    OtherCluster,
    #[error(transparent)]
    Epochs(#[from] EpochError),
}

/// One end of the line.
pub(crate) struct Link {
    host: Arc<Host>,
    addresses: Vec<TcpAddress>,
    /// For those with TLS.
    config: Option<Arc<ClientConfig>>,
    /// Number of failures so far: which address is asked next.
    turn: AtomicUsize,
}

impl Link {
    /// `addresses` of leader and standby; there is at least one, and a `config` if one of them has TLS.
    pub(crate) fn new(
        host: Arc<Host>,
        addresses: Vec<TcpAddress>,
        config: Option<Arc<ClientConfig>>,
    ) -> Self {
        Self { host, addresses, config, turn: AtomicUsize::new(0) }
    }

    fn address(&self, turn: usize) -> &TcpAddress {
        &self.addresses[turn % self.addresses.len()]
    }

    /// The coordinator that was asked in this turn is not there or not the leader: the next one is asked from now on.
    fn turn_away_from(&self, turn: usize) {
        // Somebody else may have turned away from it already.
        let _ = self.turn.compare_exchange(turn, turn.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Reports for ever. Says once when the coordinator goes away and once when it is back.
    pub(crate) async fn report_for_ever(&self) {
        let mut back_off = BACK_OFF_MIN;
        let mut silent = false;
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            match self.report_once(turn).await {
                Ok(()) => {
                    if silent {
                        eprintln!("agent: coordinator {} answers again", self.address(turn));
                    }
                    (silent, back_off) = (false, BACK_OFF_MIN);
                    let _ = tokio::time::timeout(REPORT_PERIOD, self.host.urgent.notified()).await;
                    tokio::time::sleep(GATHER).await;
                }
                Err(error) => {
                    if !silent {
                        eprintln!(
                            "agent: coordinator {}: {}; trying again",
                            self.address(turn),
                            one_line(&error)
                        );
                    }
                    self.turn_away_from(turn);
                    silent = true;
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }

    /// Sends one report and takes note of the answer.
    async fn report_once(&self, turn: usize) -> Result<(), LinkError> {
        let report = self.host.report();
        let body = self.post(turn, "/v1/agent/report", encode(&report), REPORT_TIMEOUT).await?;
        let answer: Answer = decode(&body)?;
        if !self.host.accepts(&answer.cluster) {
            return Err(LinkError::OtherCluster);
        }
        self.admit(&answer.cluster, answer.fence)?;
        self.host.acknowledge(&report, &answer);
        Ok(())
    }

    /// A last report, before the agent ends.
    pub(crate) async fn report_last(&self) {
        // The coordinator finds out by itself if this does not reach it.
        let _ =
            tokio::time::timeout(Duration::from_secs(1), self.report_once(self.turn.load(Ordering::Relaxed)))
                .await;
    }

    /// Asks for commands for ever and has them carried out.
    pub(crate) async fn take_commands_for_ever(&self) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            match self.take_commands_once(turn).await {
                Ok(()) => back_off = BACK_OFF_MIN,
                // The reports say what is wrong.
                Err(_) => {
                    self.turn_away_from(turn);
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }

    async fn take_commands_once(&self, turn: usize) -> Result<(), LinkError> {
        let received = self.host.state().received;
        let question = CommandsRequest {
            protocol: PROTOCOL,
            host: self.host.config.name.clone(),
            session: self.host.config.session,
            received,
        };
        let body = self.post(turn, "/v1/agent/commands", encode(&question), COMMANDS_TIMEOUT).await?;
        let answer: Commands = decode(&body)?;
        if !self.host.accepts(&answer.cluster) {
            return Err(LinkError::OtherCluster);
        }
        self.admit(&answer.cluster, answer.fence)?;
        for command in answer.commands {
            // One that another leader queued before it was replaced.
            if command.fence < answer.fence {
                continue;
            }
            command::accept(&self.host, command);
        }
        Ok(())
    }

    /// Refuses a coordinator that was replaced. A new one counts its commands anew.
    fn admit(&self, cluster: &ClusterId, fence: u64) -> Result<(), LinkError> {
        let mut state = self.host.state();
        if state.epochs.cluster() != Some(cluster) || fence > state.epochs.fence() {
            state.received = 0;
        }
        state.epochs.admit(cluster, fence)?;
        Ok(())
    }

    async fn post(
        &self,
        turn: usize,
        path: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, LinkError> {
        let address = self.address(turn);
        let (name, port) = (address.host().to_owned(), address.port());
        let server = match self.config.as_ref().filter(|_| address.is_tls()) {
            Some(config) => Server::Tls(name, port, config.clone()),
            None => Server::Tcp(name, port),
        };
        let request = Request {
            body,
            within: Some(timeout),
            answer_bytes_max: MESSAGE_BYTES_MAX,
            ..Request::new(Method::POST, path)
        };
        let answer = ask(&server, request).await?;
        if answer.status == StatusCode::OK {
            return Ok(answer.body);
        }
        let text = answer.refusal().unwrap_or_else(|| format!("HTTP status {}", answer.status));
        Err(LinkError::Refused(text))
    }
}

//! The line to the coordinator: reports go out, commands come in, both for ever and over its restarts.

use std::sync::Arc;
use std::time::Duration;

use control::{Answer, Commands, CommandsRequest, MessageError, PROTOCOL, TcpAddress, decode, encode};
use hyper::{Method, StatusCode};
use thiserror::Error;

use crate::command;
use crate::epochs::EpochError;
use crate::host::Host;
use crate::http::{HttpError, Target, request};
use crate::vmm_api::chain;

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
    address: TcpAddress,
    target: Target,
}

impl Link {
    pub(crate) fn new(host: Arc<Host>, address: TcpAddress) -> Self {
        let target = Target::Tcp(address.host().to_owned(), address.port());
        Self { host, address, target }
    }

    /// Reports for ever. Says once when the coordinator goes away and once when it is back.
    pub(crate) async fn report_for_ever(&self) {
        let mut back_off = BACK_OFF_MIN;
        let mut silent = false;
        loop {
            match self.report_once().await {
                Ok(()) => {
                    if silent {
                        eprintln!("agent: coordinator {} answers again", self.address);
                    }
                    (silent, back_off) = (false, BACK_OFF_MIN);
                    let _ = tokio::time::timeout(REPORT_PERIOD, self.host.urgent.notified()).await;
                    tokio::time::sleep(GATHER).await;
                }
                Err(error) => {
                    if !silent {
                        eprintln!("agent: coordinator {}: {}; trying again", self.address, chain(&error));
                    }
                    silent = true;
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }

    /// Sends one report and takes note of the answer.
    async fn report_once(&self) -> Result<(), LinkError> {
        let report = self.host.report();
        let body = self.post("/v1/agent/report", encode(&report), REPORT_TIMEOUT).await?;
        let answer: Answer = decode(&body)?;
        if !self.host.accepts(&answer.cluster) {
            return Err(LinkError::OtherCluster);
        }
        self.host.acknowledge(&report, &answer);
        Ok(())
    }

    /// A last report, before the agent ends.
    pub(crate) async fn report_last(&self) {
        // The coordinator finds out by itself if this does not reach it.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.report_once()).await;
    }

    /// Asks for commands for ever and has them carried out.
    pub(crate) async fn take_commands_for_ever(&self) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            match self.take_commands_once().await {
                Ok(()) => back_off = BACK_OFF_MIN,
                // The reports say what is wrong.
                Err(_) => {
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }

    async fn take_commands_once(&self) -> Result<(), LinkError> {
        let received = self.host.state().received;
        let question = CommandsRequest {
            protocol: PROTOCOL,
            host: self.host.config.name.clone(),
            session: self.host.config.session,
            received,
        };
        let body = self.post("/v1/agent/commands", encode(&question), COMMANDS_TIMEOUT).await?;
        let answer: Commands = decode(&body)?;
        if !self.host.accepts(&answer.cluster) {
            return Err(LinkError::OtherCluster);
        }
        {
            let mut state = self.host.state();
            if state.epochs.cluster() != Some(&answer.cluster) {
                state.received = 0;
                state.epochs.join(&answer.cluster)?;
            }
        }
        for command in answer.commands {
            command::accept(&self.host, command);
        }
        Ok(())
    }

    async fn post(&self, path: &str, body: Vec<u8>, timeout: Duration) -> Result<Vec<u8>, LinkError> {
        let (status, body) = request(&self.target, Method::POST, path, body, timeout).await?;
        if status == StatusCode::OK {
            return Ok(body);
        }
        let text = serde_json::from_slice::<control::ErrorBody>(&body).map(|body| body.error);
        Err(LinkError::Refused(text.unwrap_or_else(|_| format!("HTTP status {status}"))))
    }
}

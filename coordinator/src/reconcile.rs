//! Compares what was decided with what is observed, application by application, and says what to do about it.

use control::{ApplicationId, End, Epoch, Rank};

use crate::state::{Application, Phase, State};
use crate::view::{View, is_executing};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The partition has not been started: start it.
    Start(Rank),
    /// Every partition runs or has ended well.
    AllRunning,
    /// It is over.
    Over {
        /// Its exit status.
        status: u8,
        /// Why, unless all ended with 0.
        reason: Option<String>,
    },
    /// Nothing of it is left.
    Gone,
}

/// Status of an application that ended without one of its own.
const STATUS_LOST: u8 = 1;

/// Examines one application. `starting` says whether a start command for a rank has no outcome yet, `confirmed` whether every
/// host concerned has confirmed the end of the application.
pub fn examine(
    state: &State,
    view: &View,
    id: &ApplicationId,
    application: &Application,
    starting: impl Fn(Rank, Epoch) -> bool,
    confirmed: bool,
) -> Vec<Finding> {
    match application.phase {
        Phase::Ended | Phase::Queued => Vec::new(),
        Phase::Ending => {
            let left = view.hosts_of(id).any(|host| state.hosts.get(host).is_some_and(|host| !host.lost));
            if confirmed && !left { vec![Finding::Gone] } else { Vec::new() }
        }
        Phase::Placed | Phase::Running => examine_live(state, view, id, application, starting),
    }
}

fn examine_live(
    state: &State,
    view: &View,
    id: &ApplicationId,
    application: &Application,
    starting: impl Fn(Rank, Epoch) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut ended, mut running) = (0, 0);
    for (rank, owner) in (0..).zip(&application.partitions) {
        if owner.moving.is_some() {
            // The executor decides what becomes of it.
            running += 1;
            continue;
        }
        match owner.end() {
            Some(End::Exited(0)) => {
                ended += 1;
                continue;
            }
            Some(end) => {
                return vec![over(
                    end.status().max(1),
                    format!("rank {rank} {} on host {}", how(end), owner.host),
                )];
            }
            None => {}
        }
        if state.hosts.get(&owner.host).is_none_or(|host| host.lost) {
            return vec![over(STATUS_LOST, format!("host {} with rank {rank} was lost", owner.host))];
        }
        let Some(seen) = view.hosts.get(&owner.host) else { continue };
        match seen.processes.get(&(id.clone(), rank, owner.epoch)) {
            Some(process) => running += u32::from(is_executing(process.state)),
            None if starting(rank, owner.epoch) => {}
            None if application.phase == Phase::Placed && owner.epoch == 1 => {
                findings.push(Finding::Start(rank))
            }
            None => {
                let reason =
                    format!("rank {rank} is gone from host {}: its agent was started again", owner.host);
                return vec![over(STATUS_LOST, reason)];
            }
        }
    }
    let ranks = application.partitions.len();
    if ended == ranks {
        return vec![Finding::Over { status: 0, reason: None }];
    }
    if application.phase == Phase::Placed && findings.is_empty() && ended + running as usize == ranks {
        findings.push(Finding::AllRunning);
    }
    findings
}

fn over(status: u8, reason: String) -> Finding {
    Finding::Over { status, reason: Some(reason) }
}

fn how(end: End) -> String {
    match end {
        End::Exited(status) => format!("ended with status {status}"),
        End::Killed(signal) => format!("was killed (signal {signal})"),
        End::Moved => "moved away and was lost".to_owned(),
    }
}

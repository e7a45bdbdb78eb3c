//! Carries out one move: `step(facts, outcomes) -> effects`, without clock or sockets.
//!
//! ```text
//!  Preparing --listening--> Sending --moved--------------------------------------> done
//!      |                      | not moved          .--running-------------------->  done
//!      |                      | in doubt           |
//!      `---- refused ---------+-----------> Settling --held, source dead--> Waking -> done
//!                             ^                    |
//!  Recovering ----------------'                    `--discarded--> (Resuming) ----> failed: the source has it
//! ```
//! The grant (epoch e+1 for the destination) is in the journal before the first command. **The source resumes only after the
//! destination's agent has said that e+1 cannot run there any more; the destination is woken only after the source's agent
//! has said that its process has ended.** After a restart of the coordinator every open move begins in Recovering.

use control::{
    Action, CommandResult, End, Epoch, HostName, MoveReport, Outcome, PartitionReport, PartitionState,
};

use crate::state::Move;

/// A destination that does not get ready in this time never will.
const PREPARE_MS_MAX: u64 = 30_000;
/// How soon a command that was refused for an unclear reason is tried again.
const RETRY_MS: u64 = 500;

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The host it leaves.
    Source,
    /// The host it goes to.
    Destination,
}

impl Side {
    /// Its host, and the epoch that is the partition's there.
    pub fn of(self, order: &Move) -> (&HostName, Epoch) {
        match self {
            Self::Source => (&order.from, order.from_epoch),
            Self::Destination => (&order.to, order.epoch),
        }
    }
}

/// What one side's agent has said.
#[derive(Clone, Copy, Debug)]
pub struct SideFacts<'a> {
    /// The agent has reported since the coordinator was started.
    pub heard: bool,
    /// The host is lost.
    pub lost: bool,
    /// The process with this side's epoch.
    pub process: Option<&'a PartitionReport>,
    /// How that process ended.
    pub end: Option<End>,
}

impl SideFacts<'_> {
    /// Its agent says that the process is not there: ended, or died with an earlier run of the agent.
    fn is_gone(&self) -> bool {
        self.heard && (self.end.is_some() || self.process.is_none_or(|process| process.end.is_some()))
    }

    /// Its process has ended, as far as is known.
    pub fn has_ended(&self) -> bool {
        self.end.is_some() || self.process.is_some_and(|process| process.end.is_some())
    }

    fn awaits_switch(&self) -> bool {
        self.process.is_some_and(|process| process.awaits_switch)
    }

    fn is(&self, state: PartitionState) -> bool {
        self.process.is_some_and(|process| process.state == state)
    }
}

/// What a step may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// The move.
    pub order: &'a Move,
    /// The source.
    pub source: SideFacts<'a>,
    /// The destination.
    pub destination: SideFacts<'a>,
    /// Other partitions of its application move as well, and all switch over at the same time.
    pub together: bool,
    /// All of them have come as far.
    pub may_switch: bool,
}

/// What is to be done after a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a command about this side's epoch.
    Command(Side, Action),
    /// Send `Switch` to the source, whose outcome says nothing.
    Switch,
    /// Note that nobody knows which side has it.
    InDoubt(String),
    /// The destination has it.
    Done(Option<MoveReport>),
    /// The source has it, or nobody has it and the application will be found dead.
    Failed(String),
    /// It cannot be proven that only one side has it: the application has to end.
    Abandon(String),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// The destination builds the process that will take it in.
    Preparing,
    /// The source sends.
    Sending,
    /// The destination is asked to give it up unless it runs there.
    Settling {
        /// Why the move is not simply done.
        reason: String,
        /// The source certainly runs it: nothing depends on the destination's word.
        source_runs: bool,
        /// When to ask again; `None` while an answer is awaited.
        retry_ms: Option<u64>,
    },
    /// The destination has it, complete, and is told to run it since the source is dead.
    Waking,
    /// The destination cannot run it; the source has not said yet how it stands.
    Returning(String),
    /// The source has it in doubt and is told to go on.
    Resuming(String),
    /// The coordinator was started again: find out.
    Recovering,
}

/// A move under way.
#[derive(Clone, Debug)]
pub struct Flight {
    step: Step,
    since_ms: u64,
    /// The command whose outcome is awaited, set by whoever sends it.
    pub awaited: Option<(u64, Side)>,
    /// It was allowed to switch over.
    switched: bool,
}

impl Flight {
    /// Begins a move whose grant is in the journal.
    pub fn begin(now_ms: u64, report: Option<std::path::PathBuf>) -> (Self, Vec<Effect>) {
        let flight = Self { step: Step::Preparing, since_ms: now_ms, awaited: None, switched: false };
        (flight, vec![Effect::Command(Side::Destination, Action::PrepareReceive { report })])
    }

    /// Takes up a move that an earlier run of the coordinator began.
    pub fn recover(now_ms: u64) -> Self {
        Self { step: Step::Recovering, since_ms: now_ms, awaited: None, switched: false }
    }

    /// For users.
    pub fn state(&self) -> &'static str {
        match self.step {
            Step::Preparing => "preparing",
            Step::Sending => "sending",
            Step::Settling { source_runs: true, .. } => "cleaning-up",
            Step::Settling { .. } | Step::Waking | Step::Returning(_) | Step::Resuming(_) => "in-doubt",
            Step::Recovering => "recovering",
        }
    }

    /// Nobody has to wait for it any longer: it can switch over, was allowed to, or will not.
    pub fn is_ready(&self, source: &SideFacts<'_>) -> bool {
        self.switched || source.awaits_switch() || !matches!(self.step, Step::Preparing | Step::Sending)
    }

    /// Goes on with what is known now and, if there is one, the outcome of a command of this move.
    pub fn step(&mut self, facts: &Facts<'_>, result: Option<&CommandResult>) -> Vec<Effect> {
        let awaited = result.filter(|result| self.awaited.is_some_and(|(id, _)| id == result.id));
        if awaited.is_some() {
            self.awaited = None;
        }
        let outcome = awaited.map(|result| &result.outcome);
        if result.is_none() && facts.may_switch && facts.source.awaits_switch() && !self.switched {
            self.switched = true;
            return vec![Effect::Switch];
        }
        match self.step.clone() {
            Step::Preparing => self.preparing(facts, outcome),
            Step::Sending => self.sending(facts, outcome),
            Step::Settling { reason, source_runs, retry_ms } => {
                self.settling(facts, outcome, reason, source_runs, retry_ms)
            }
            Step::Waking => self.waking(facts, outcome),
            Step::Returning(reason) => self.give_back(facts, reason),
            Step::Resuming(reason) => self.resuming(facts, outcome, reason),
            // The outcome of the earlier run's command counts as well.
            Step::Recovering => self.recovering(facts, result),
        }
    }

    fn preparing(&mut self, facts: &Facts<'_>, outcome: Option<&Outcome>) -> Vec<Effect> {
        match outcome {
            Some(Outcome::Listening { address }) => {
                self.step = Step::Sending;
                let (to, epoch) = (address.clone(), facts.order.epoch);
                let action = Action::Migrate { to, epoch, await_switch: facts.together };
                return vec![Effect::Command(Side::Source, action)];
            }
            Some(Outcome::StaleEpoch { highest }) => {
                let reason = format!("the destination has seen epoch {highest} already");
                return self.settle(facts, reason, true);
            }
            Some(Outcome::Failed { reason }) => {
                let reason = format!("the destination could not prepare: {reason}");
                return self.settle(facts, reason, true);
            }
            _ => {}
        }
        let late = facts.now_ms.saturating_sub(self.since_ms) > PREPARE_MS_MAX;
        if facts.destination.lost {
            return vec![Effect::Failed("the destination host was lost".into())];
        }
        if facts.source.end.is_some() || facts.source.lost {
            return self.settle(facts, "the partition ended before it moved".into(), true);
        }
        if late {
            return self.settle(facts, "the destination did not get ready".into(), true);
        }
        Vec::new()
    }

    fn sending(&mut self, facts: &Facts<'_>, outcome: Option<&Outcome>) -> Vec<Effect> {
        match outcome {
            Some(Outcome::Moved(measured)) => vec![Effect::Done(Some(measured.clone()))],
            Some(Outcome::NotMoved { reason }) => self.settle(facts, reason.clone(), true),
            Some(Outcome::InDoubt { reason } | Outcome::Failed { reason }) => {
                let mut effects = vec![Effect::InDoubt(reason.clone())];
                effects.extend(self.settle(facts, reason.clone(), false));
                effects
            }
            // An agent that is there delivers the outcome; one that is not takes it with it.
            None if facts.source.lost || (facts.source.is_gone() && facts.source.process.is_none()) => {
                let reason = "the source host was lost during the move".to_owned();
                let mut effects = vec![Effect::InDoubt(reason.clone())];
                effects.extend(self.settle(facts, reason, false));
                effects
            }
            _ => Vec::new(),
        }
    }

    fn settle(&mut self, facts: &Facts<'_>, reason: String, source_runs: bool) -> Vec<Effect> {
        self.step = Step::Settling { reason, source_runs, retry_ms: None };
        let keep_in_doubt = facts.source.is_gone();
        vec![Effect::Command(Side::Destination, Action::Discard { keep_in_doubt })]
    }

    fn settling(
        &mut self,
        facts: &Facts<'_>,
        outcome: Option<&Outcome>,
        reason: String,
        source_runs: bool,
        retry_ms: Option<u64>,
    ) -> Vec<Effect> {
        match outcome {
            Some(Outcome::Running) => return vec![Effect::Done(None)],
            Some(Outcome::HeldInDoubt) => {
                self.step = Step::Waking;
                return vec![Effect::Command(Side::Destination, Action::Resume)];
            }
            Some(Outcome::Discarded) => return self.give_back(facts, reason),
            Some(_) => {
                let retry_ms = Some(facts.now_ms + RETRY_MS);
                self.step = Step::Settling { reason, source_runs, retry_ms };
                return Vec::new();
            }
            None => {}
        }
        if facts.destination.lost {
            if source_runs {
                return vec![Effect::Failed(reason)];
            }
            let why =
                format!("{reason}; the destination host was lost, so nobody can say whether it runs there");
            return vec![Effect::Abandon(why)];
        }
        if retry_ms.is_some_and(|retry_ms| facts.now_ms >= retry_ms) {
            return self.settle(facts, reason, source_runs);
        }
        Vec::new()
    }

    /// The destination cannot run it any more.
    fn give_back(&mut self, facts: &Facts<'_>, reason: String) -> Vec<Effect> {
        if facts.source.is(PartitionState::InDoubt) {
            self.step = Step::Resuming(reason);
            return vec![Effect::Command(Side::Source, Action::Resume)];
        }
        if facts.source.end == Some(End::Moved) {
            return vec![Effect::Abandon(format!(
                "{reason}; the source has given it up and the destination has lost it"
            ))];
        }
        let settled = facts.source.is(PartitionState::Running) || facts.source.is(PartitionState::Paused);
        if settled || facts.source.is_gone() || facts.source.lost {
            return vec![Effect::Failed(reason)];
        }
        // Its last report is from the middle of the move.
        self.step = Step::Returning(reason);
        Vec::new()
    }

    fn waking(&mut self, facts: &Facts<'_>, outcome: Option<&Outcome>) -> Vec<Effect> {
        match outcome {
            Some(Outcome::Done) => vec![Effect::Done(None)],
            Some(_) => self.settle(facts, "the destination could not go on".into(), false),
            None if facts.destination.lost => vec![Effect::Abandon("the destination host was lost".into())],
            None => Vec::new(),
        }
    }

    fn resuming(&mut self, facts: &Facts<'_>, outcome: Option<&Outcome>, reason: String) -> Vec<Effect> {
        match outcome {
            Some(Outcome::Done) => vec![Effect::Failed(reason)],
            // It may have resumed at an earlier command of ours.
            Some(_) if facts.source.is(PartitionState::InDoubt) => {
                vec![Effect::Abandon(format!("{reason}; the source could not go on"))]
            }
            Some(_) => vec![Effect::Failed(reason)],
            None if facts.source.lost || facts.source.end.is_some() => vec![Effect::Failed(reason)],
            None => Vec::new(),
        }
    }

    fn recovering(&mut self, facts: &Facts<'_>, result: Option<&CommandResult>) -> Vec<Effect> {
        let reason = "the coordinator was started again during the move".to_owned();
        if let Some(result) = result.filter(|result| result.epoch == facts.order.from_epoch) {
            let effects = self.sending(facts, Some(&result.outcome));
            if !effects.is_empty() {
                return effects;
            }
        }
        let (source, destination) = (&facts.source, &facts.destination);
        let known = (source.heard || source.lost) && (destination.heard || destination.lost);
        let sending = source.process.is_some_and(|process| process.sending);
        if !known || sending {
            return Vec::new();
        }
        let runs = source.is(PartitionState::Running) || source.is(PartitionState::Paused);
        self.settle(facts, reason, runs)
    }
}

#[cfg(test)]
mod tests;

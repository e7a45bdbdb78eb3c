//! Slowing the partition down, and remembering for how long and how much.

use std::time::{Duration, Instant};

use crate::clock;
use crate::partition::{MachineError, Share, SourceMachine};
use crate::report::Brownout;

/// The share that the partition runs at.
#[derive(Debug, Default)]
pub(super) struct Brake {
    on: Option<(Share, Instant)>,
    least: Option<Share>,
    time: Duration,
}

impl Brake {
    /// The share, if it is not all.
    pub fn share(&self) -> Option<Share> {
        self.on.map(|(share, _)| share)
    }

    /// Has the partition run at `share`.
    pub fn set(&mut self, machine: &dyn SourceMachine, share: Share) -> Result<(), MachineError> {
        machine.throttle(share)?;
        let since = self.on.map_or_else(clock::now, |(_, since)| since);
        self.on = Some((share, since));
        self.least = Some(self.least.map_or(share, |least| least.min(share)));
        Ok(())
    }

    /// Lets it run at full speed again; without effect if it does.
    pub fn release(&mut self, machine: &dyn SourceMachine) -> Result<(), MachineError> {
        let Some((_, since)) = self.on.take() else { return Ok(()) };
        self.time += since.elapsed();
        machine.throttle(Share::FULL)
    }

    /// What the partition went through.
    pub fn brownout(&self) -> Option<Brownout> {
        self.least.map(|least_share| Brownout { least_share, seconds: self.time.as_secs_f64() })
    }
}

//! A partition that leaves: the migrator's source verbs in terms of [`Partition`].

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use migrator::partition::{
    Description, MachineError, Moment, PAGE_SIZE, Region, SWITCH_COST_ASSUMED, Share, SourceMachine,
};
use vmm::partition::{Blueprint, Partition};

use crate::hold::hold;

/// Time between two looks for a good moment: short beside a blackout.
const MOMENT_LOOK: Duration = Duration::from_micros(50);

/// The partition that leaves.
pub struct Source {
    partition: Arc<Partition>,
    /// What it was when it was described.
    described: OnceLock<Blueprint>,
    /// What it took to interrupt the vCPU and to read its state when that was tried, in ascending order.
    rehearsed: Mutex<Vec<Duration>>,
}

impl Source {
    pub fn new(partition: Arc<Partition>) -> Self {
        Self { partition, described: OnceLock::new(), rehearsed: Mutex::default() }
    }

    fn described(&self) -> Result<&Blueprint, MachineError> {
        self.described.get().ok_or_else(|| "it was not described".into())
    }
}

impl SourceMachine for Source {
    fn describe(&self, epoch: u64) -> Result<Description, MachineError> {
        let name = self.partition.name();
        let blueprint = self.partition.blueprint()?;
        let blueprint = self.described.get_or_init(|| blueprint);
        Ok(Description {
            application: name.application.clone(),
            rank: name.rank,
            epoch,
            regions: blueprint.regions().map(|(address, bytes)| Region { address, bytes }).collect(),
            machine: blueprint.encode()?,
        })
    }

    fn start_tracking(&self) -> Result<(), MachineError> {
        Ok(self.partition.start_tracking()?)
    }

    fn stop_tracking(&self) -> Result<(), MachineError> {
        Ok(self.partition.stop_tracking()?)
    }

    fn dirty(&self, index: usize, bitmap: &mut [u64]) -> Result<(), MachineError> {
        Ok(self.partition.dirty(index, bitmap)?)
    }

    fn clear_dirty(&self, index: usize, first_page: u64, bitmap: &[u64]) -> Result<(), MachineError> {
        Ok(self.partition.clear_dirty(index, first_page, bitmap)?)
    }

    fn keep_touched(&self, index: usize, first_page: u64, bitmap: &mut [u64]) -> Result<(), MachineError> {
        Ok(self.partition.memory().keep_touched(index, first_page, bitmap)?)
    }

    fn read_pages(&self, index: usize, first_page: u64, buffer: &mut [u8]) -> Result<(), MachineError> {
        let (start, _) = self.described()?.regions().nth(index).ok_or("there is no such region")?;
        let address = start + first_page * PAGE_SIZE as u64;
        Ok(self.partition.memory().read(address, buffer)?)
    }

    fn throttle(&self, share: Share) -> Result<(), MachineError> {
        Ok(self.partition.throttle(share.part())?)
    }

    /// Twice what it takes to interrupt the vCPU and to read its state, as tried once for every question (the median): there the
    /// same state is set. It does not see the fabric stop, nor the state being encoded.
    fn switch_cost(&self) -> Duration {
        let mut rehearsed = self.rehearsed.lock().unwrap_or_else(PoisonError::into_inner);
        // An error ends the move where it matters, not here.
        if let Ok(Some(time)) = self.partition.rehearse_save() {
            let at = rehearsed.partition_point(|it| *it < time);
            rehearsed.insert(at, time);
        }
        rehearsed.get(rehearsed.len() / 2).map_or(SWITCH_COST_ASSUMED, |median| 2 * *median)
    }

    fn await_moment(&self, limit: Duration) -> Option<Moment> {
        let safe_points = self.partition.safe_points();
        let start = Instant::now();
        loop {
            if self.partition.is_asleep() {
                return Some(Moment::Asleep);
            }
            if self.partition.safe_points() != safe_points {
                return Some(Moment::SafePoint);
            }
            if start.elapsed() >= limit {
                return None;
            }
            std::thread::sleep(MOMENT_LOOK);
        }
    }

    fn pause(&self) -> Result<(), MachineError> {
        Ok(self.partition.pause()?)
    }

    fn resume(&self) -> Result<(), MachineError> {
        Ok(self.partition.resume(false)?)
    }

    fn save(&self) -> Result<Vec<u8>, MachineError> {
        Ok(self.partition.save(self.described()?)?)
    }
}

/// What the migrator calls on entering a phase.
pub fn hook() -> migrator::control::PhaseHook<migrator::source::Phase> {
    Box::new(|phase| hold("source", phase))
}

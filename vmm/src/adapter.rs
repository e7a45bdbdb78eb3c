//! Joins a partition to the migrator: the verbs of its traits in terms of [`Partition`], and holds for fault injection.

use std::sync::Arc;
use std::time::Duration;

use migrator::partition::{Description, DestinationMachine, MachineError, PAGE_SIZE, Region, SourceMachine};
use vmm::fabric;
use vmm::fabric::address::Address;
use vmm::partition::{Blueprint, Name, Partition};

use crate::host::{Host, State};

/// The partition that leaves.
pub struct Source {
    partition: Arc<Partition>,
    regions: [(u64, u64); 3],
}

impl Source {
    pub fn new(partition: Arc<Partition>) -> Self {
        let regions = partition.memory().layout().regions();
        Self { partition, regions }
    }
}

impl SourceMachine for Source {
    fn describe(&self, epoch: u64) -> Result<Description, MachineError> {
        let name = self.partition.name();
        Ok(Description {
            application: name.application.clone(),
            rank: name.rank,
            epoch,
            regions: self.regions.iter().map(|(address, bytes)| Region { address: *address, bytes: *bytes }).collect(),
            machine: self.partition.blueprint()?,
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

    fn read_pages(&self, index: usize, first_page: u64, buffer: &mut [u8]) -> Result<(), MachineError> {
        let address = self.regions[index].0 + first_page * PAGE_SIZE as u64;
        Ok(self.partition.memory().read(address, buffer)?)
    }

    fn pause(&self) -> Result<(), MachineError> {
        Ok(self.partition.pause()?)
    }

    fn resume(&self) -> Result<(), MachineError> {
        Ok(self.partition.resume(false)?)
    }

    fn save(&self) -> Result<Vec<u8>, MachineError> {
        Ok(self.partition.save()?)
    }
}

/// The partition that arrives.
pub struct Destination {
    host: Arc<Host>,
    fabric: Address,
    partition: Option<Arc<Partition>>,
    regions: [(u64, u64); 3],
}

impl Destination {
    pub fn new(host: Arc<Host>, fabric: Address) -> Self {
        Self { host, fabric, partition: None, regions: [(0, 0); 3] }
    }

    fn partition(&self) -> Result<&Arc<Partition>, MachineError> {
        self.partition.as_ref().ok_or_else(|| "nothing has been built".into())
    }

    fn address(&self, index: usize, first_page: u64) -> Result<u64, MachineError> {
        let (start, _) = self.regions.get(index).ok_or("there is no such region")?;
        Ok(start + first_page * PAGE_SIZE as u64)
    }
}

impl DestinationMachine for Destination {
    fn build(&mut self, description: &Description) -> Result<(), MachineError> {
        self.host.set_state(State::Receiving, None);
        let blueprint: Blueprint = postcard::from_bytes(&description.machine)?;
        let expected = blueprint.layout.regions().map(|(address, bytes)| Region { address, bytes });
        if description.regions != expected {
            return Err("its memory regions are not those of its own layout".into());
        }
        if description.rank >= blueprint.layout.ranks {
            return Err("its rank is not below its number of ranks".into());
        }
        self.regions = blueprint.layout.regions();
        let name = Name {
            application: description.application.clone(),
            rank: description.rank,
            epoch: description.epoch,
        };
        let fabric = fabric::Config {
            application: name.application.clone(),
            rank: name.rank,
            epoch: name.epoch,
            listen: self.fabric.clone(),
            directory: fabric::Directory::new(),
        };
        self.partition = Some(Arc::new(Partition::prepare(name, blueprint, fabric)?));
        Ok(())
    }

    fn is_zeroed(&self) -> bool {
        true
    }

    fn populate(&self, index: usize, offset: u64, bytes: u64) -> Result<(), MachineError> {
        let address = self.address(index, 0)? + offset;
        Ok(self.partition()?.memory().populate(address, bytes)?)
    }

    fn write_pages(&self, index: usize, first_page: u64, data: &[u8]) -> Result<(), MachineError> {
        Ok(self.partition()?.memory().write(self.address(index, first_page)?, data)?)
    }

    fn zero_pages(&self, index: usize, first_page: u64, pages: u64) -> Result<(), MachineError> {
        let zeros = [0; PAGE_SIZE];
        for page in first_page..first_page + pages {
            self.partition()?.memory().write(self.address(index, page)?, &zeros)?;
        }
        Ok(())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), MachineError> {
        let partition = self.partition()?.clone();
        let output_base = partition.restore(state, self.host.on_end())?;
        self.host.set_partition(partition, output_base);
        Ok(())
    }

    fn run(&mut self) -> Result<(), MachineError> {
        self.partition()?.arrive()?;
        self.host.set_state(State::Running, None);
        Ok(())
    }
}

/// Holds a migration at the phase named by `PARTITA_HOLD_AT` (as `Debug` prints it, like `Round(0)` or `Ready`) until the
/// file named by `PARTITA_HOLD_FILE`, which is made on entering, is removed: fault-injection tests kill or cut there.
fn hold<P: std::fmt::Debug>(side: &str, phase: P) {
    tracing::info!(side, ?phase, "migration");
    let wanted = std::env::var("PARTITA_HOLD_AT").unwrap_or_default();
    let Ok(file) = std::env::var("PARTITA_HOLD_FILE") else { return };
    if wanted != format!("{side}:{phase:?}") || std::fs::write(&file, b"held\n").is_err() {
        return;
    }
    let path = std::path::Path::new(&file);
    // Ten minutes at most: a forgotten hold must not keep a partition for ever.
    for _ in 0..60_000 {
        if !path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn source_hook() -> migrator::control::PhaseHook<migrator::source::Phase> {
    Box::new(|phase| hold("source", phase))
}

pub fn destination_hook() -> migrator::control::PhaseHook<migrator::destination::Phase> {
    Box::new(|phase| hold("destination", phase))
}

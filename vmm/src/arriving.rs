//! A partition that arrives: the migrator's destination verbs in terms of [`Partition`].

use std::sync::Arc;

use migrator::partition::{Description, DestinationMachine, MachineError, PAGE_SIZE, Region};
use partita_rdma::HostMemory;
use vmm::fabric;
use vmm::fabric::address::{Address, Neighbours};
use vmm::fabric::socket::{Bound, Credentials};
use vmm::partition::{Blueprint, Name, Partition};

use crate::hold::hold;
use crate::host::{Host, State};

/// Where and how its fabric listens.
pub struct Endpoint {
    pub address: Address,
    pub socket: Bound,
    /// The socket for partitions of this host, if the fabric is on a network, and where theirs are.
    pub beside: Option<(Bound, Neighbours)>,
    /// Rings may be shared with partitions of this machine.
    pub shares: bool,
    /// For `tls:` addresses.
    pub credentials: Option<Credentials>,
}

/// The partition that arrives.
pub struct Destination {
    host: Arc<Host>,
    fabric: Endpoint,
    partition: Option<Arc<Partition>>,
    regions: Vec<(u64, u64)>,
}

impl Destination {
    pub fn new(host: Arc<Host>, fabric: Endpoint) -> Self {
        Self { host, fabric, partition: None, regions: Vec::new() }
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
        let blueprint = Blueprint::decode(&description.machine)?;
        let expected = blueprint.regions().map(|(address, bytes)| Region { address, bytes });
        if !expected.eq(description.regions.iter().copied()) {
            return Err("its memory regions are not those of its own layout".into());
        }
        if description.rank >= blueprint.layout.ranks {
            return Err("its rank is not below its number of ranks".into());
        }
        self.regions = blueprint.regions().collect();
        let name = Name {
            application: description.application.clone(),
            rank: description.rank,
            epoch: description.epoch,
        };
        let fabric = fabric::Config {
            application: name.application.clone(),
            rank: name.rank,
            epoch: name.epoch,
            socket: self.fabric.socket.clone(),
            beside: self.fabric.beside.clone(),
            directory: fabric::Directory::new(),
            shares: self.fabric.shares,
            credentials: self.fabric.credentials.clone(),
        };
        self.partition = Some(Arc::new(Partition::prepare(name, blueprint, fabric)?));
        Ok(())
    }

    fn memory(&self, index: usize) -> Option<HostMemory> {
        self.partition.as_ref()?.open_memory(index)
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

/// What the migrator calls on entering a phase.
pub fn hook() -> migrator::control::PhaseHook<migrator::destination::Phase> {
    Box::new(|phase| hold("destination", phase))
}

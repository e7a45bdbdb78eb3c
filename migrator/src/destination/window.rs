//! The memory opened to one-sided writes: registered, offered to the source, checked, and closed before anything relies on it.

use std::net::IpAddr;
use std::time::Duration;

use partita_rdma::{HostMemory, Target};

use super::DestinationError;
use crate::clock;
use crate::partition::{DestinationMachine, PAGE_SIZE, Region};
use crate::wire::{DATA_PAGES_MAX, Frame};

/// The machine's memory, which the source may write while there is a target.
pub(super) struct OpenMemory {
    ip: IpAddr,
    memory: Vec<HostMemory>,
    target: Option<Target>,
    registered: Duration,
}

impl OpenMemory {
    /// Registers all regions of a machine that was built, for a source that reaches this host by `ip`.
    pub fn open(
        ip: IpAddr,
        machine: &dyn DestinationMachine,
        regions: &[Region],
    ) -> Result<Self, DestinationError> {
        let of = |(index, region): (usize, &Region)| {
            machine.memory(index).filter(|memory| memory.bytes() as u64 == region.bytes)
        };
        let memory = regions.iter().enumerate().map(of).collect::<Option<Vec<_>>>();
        let memory = memory.ok_or(DestinationError::NoHostMemory)?;
        let mut open = Self { ip, memory, target: None, registered: Duration::ZERO };
        open.open_again()?;
        Ok(open)
    }

    /// Opens it under a new address, with new keys.
    pub fn open_again(&mut self) -> Result<(), DestinationError> {
        self.target = None;
        let start = clock::now();
        let write_bytes = DATA_PAGES_MAX as usize * PAGE_SIZE;
        let target = Target::open(self.ip, &self.memory, write_bytes).map_err(DestinationError::Rdma)?;
        self.target = Some(target);
        self.registered = start.elapsed();
        Ok(())
    }

    /// Ends all access: nothing that was under way comes any more. The registrations stay for now, since giving them up takes time.
    pub fn close(&mut self) {
        if let Some(target) = &mut self.target {
            target.close();
        }
    }

    /// What the source has to know.
    pub fn offer(&self) -> Option<Frame> {
        let window = self.target.as_ref()?.window().clone();
        Some(Frame::Window { registered_us: self.registered.as_micros() as u64, window })
    }

    /// The regions.
    pub fn memory(&self) -> &[HostMemory] {
        &self.memory
    }
}

//! A destination in plain memory, and a move to it over loopback.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use migrator::partition::{Description, DestinationMachine, MachineError, PAGE_SIZE, SourceMachine};
use migrator::report::{MigrateReport, MigrateRequest, Request};
use migrator::transport::{Listener, Security};
use migrator::{destination, source};
use partita_rdma::HostMemory;

/// Memory that streams write at the same time, and how many bytes came in frames.
#[derive(Default)]
struct Arrived {
    memory: OnceLock<HostMemory>,
    bytes: AtomicU64,
}

impl DestinationMachine for &Arrived {
    fn build(&mut self, description: &Description) -> Result<(), MachineError> {
        let memory = HostMemory::zeroed(description.regions[0].bytes as usize);
        self.memory.set(memory).map_err(|_| "built twice".into())
    }

    fn memory(&self, _: usize) -> Option<HostMemory> {
        self.memory.get().cloned()
    }

    fn populate(&self, _: usize, offset: u64, bytes: u64) -> Result<(), MachineError> {
        let memory = self.memory.get().ok_or("not built")?;
        let (mut byte, end) = ([0], offset + bytes);
        // Reading does not disturb what streams write meanwhile.
        for page in (offset..end).step_by(PAGE_SIZE) {
            memory.read(page as usize, &mut byte);
        }
        Ok(())
    }

    fn write_pages(&self, _: usize, first_page: u64, data: &[u8]) -> Result<(), MachineError> {
        self.bytes.fetch_add(data.len() as u64, Relaxed);
        self.memory.get().ok_or("not built")?.write(first_page as usize * PAGE_SIZE, data);
        Ok(())
    }

    fn zero_pages(&self, _: usize, _: u64, _: u64) -> Result<(), MachineError> {
        Ok(())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), MachineError> {
        Ok(())
    }

    fn run(&mut self) -> Result<(), MachineError> {
        Ok(())
    }
}

/// One move of `machine` over loopback; `beside` gets what arrives.
pub fn migrate(
    machine: &dyn SourceMachine,
    change: impl Fn(&mut Request),
    beside: impl FnOnce(&AtomicU64) + Send,
) -> MigrateReport {
    let loopback = "tcp:127.0.0.1:0".parse().expect("an address");
    let listener = Listener::bind(&loopback, &Security::default()).expect("a free port");
    let arrived = Arrived::default();
    let mut request = MigrateRequest::new(listener.address().clone()).check(1).expect("a request");
    change(&mut request);
    let outcome = thread::scope(|scope| {
        let mut machine_there = &arrived;
        let options = destination::Options::default();
        let control = destination::Control::new();
        let listener = &listener;
        scope.spawn(move || destination::receive(listener, &mut machine_there, &options, &control));
        scope.spawn(|| beside(&arrived.bytes));
        source::migrate(machine, &request, &source::Control::new())
    });
    match outcome {
        source::Outcome::Moved { report, .. } => report,
        other => panic!("{other:?}"),
    }
}

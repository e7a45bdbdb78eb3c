//! Who is written to: registered memory, and a thread that drives the provider.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::fabric::{Fabric, Registered, Waker, Wish};
use crate::memory::HostMemory;
use crate::{Error, Key, Window};

/// How long the thread sleeps or waits at a time, so that it is through soon when the target is closed.
const TICK: Duration = Duration::from_millis(1);

/// Memory that the one who knows its [`Window`] may write, until it is closed.
pub struct Target {
    window: Window,
    stop: Arc<AtomicBool>,
    driver: Option<(JoinHandle<Open>, Waker)>,
    closed: Option<Open>,
}

/// What the thread has; fields are dropped in this order.
struct Open {
    registered: Vec<Registered>,
    fabric: Fabric,
}

impl Target {
    /// Registers `memory` for a writer that reaches this host by `ip`; registering pins the memory on real adapters and takes time.
    /// Writes are at most `message_bytes` long.
    ///
    /// # Errors
    /// No libfabric, no provider, or one that cannot register the memory.
    pub fn open(ip: IpAddr, memory: &[HostMemory], message_bytes: usize) -> Result<Self, Error> {
        let mut fabric = Fabric::open(&Wish { ip, like: None, ordered_read: false, message_bytes })?;
        // Where keys are chosen by us, nobody can guess them.
        let mut random = vec![0; 8 * memory.len()];
        if fabric.facts.key_mask != 0 {
            File::open("/dev/urandom")?.read_exact(&mut random)?;
        }
        let keys = random.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let register = |(memory, key)| fabric.register(memory, true, key);
        let registered = memory.iter().zip(keys).map(register).collect::<Result<Vec<_>, _>>()?;
        let facts = fabric.facts.clone();
        let base = |memory: &HostMemory| if facts.virtual_addresses { memory.start() as u64 } else { 0 };
        let regions = registered.iter().map(|it| Key { key: it.key, base: base(&it.memory) }).collect();
        let window =
            Window { provider: facts.provider, format: facts.format, address: facts.address, regions };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let waker = fabric.waker();
        let mut open = Open { registered, fabric };
        let drive = move || {
            open.drive(&stopped);
            open
        };
        let driver = thread::Builder::new().name("rdma".to_owned()).spawn(drive)?;
        Ok(Self { window, stop, driver: Some((driver, waker)), closed: None })
    }

    /// What the writer has to know.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Ends all access: when this returns, nothing is written to the memory any more. Quick; giving the memory back to the
    /// system takes longer and is done when the target is dropped.
    pub fn close(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some((driver, waker)) = self.driver.take() {
            waker.wake();
            self.closed = driver.join().ok();
        }
        if let Some(open) = &mut self.closed {
            if open.fabric.facts.bound_memory {
                open.registered.clear();
            }
            if let Err(error) = open.fabric.close_endpoint() {
                // Without its keys nobody can write either.
                tracing::warn!(%error, "taking the keys back instead");
                open.registered.clear();
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.close();
    }
}

impl Open {
    fn drive(&mut self, stop: &AtomicBool) {
        let waits = self.fabric.waits();
        while !stop.load(Ordering::Acquire) {
            match self.fabric.poll(&mut [0; 16], TICK.as_millis() as i32) {
                Ok(_) if waits => {}
                Ok(_) => thread::sleep(TICK / 20),
                // A writer that goes away is an error here, and no concern of the memory: the caller misses its word that it is done.
                Err(error) => {
                    tracing::debug!(%error, "the fabric says");
                    thread::sleep(TICK);
                }
            }
        }
    }
}

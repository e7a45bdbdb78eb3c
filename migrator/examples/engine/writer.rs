//! A memory that a program rewrites while it moves, as the writer of `migrator bench` does (`tests/bench/load.h`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use migrator::bitmap;
use migrator::partition::{Description, MachineError, PAGE_SIZE, Region, SourceMachine};
use partita_rdma::HostMemory;

/// Distance of the words that are rewritten in a page.
const LINE_BYTES: usize = 64;
/// How often a program with a rate writes.
const BATCH: Duration = Duration::from_millis(1);

/// What the program does.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Pages that it rewrites; 0: it is idle.
    pub pages: u64,
    /// Pages per second; `None`: as fast as it can.
    pub rate: Option<u64>,
    /// In any order, else one after the other.
    pub random: bool,
    /// Of its pages.
    pub seed: u64,
}

/// A partition in plain memory: noise in the first `noise` pages, in which the program writes, and zeros.
pub struct Writer {
    memory: HostMemory,
    dirty: Vec<AtomicU64>,
    running: RwLock<bool>,
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Writer {
    /// Memory of `pages`, `noise` of them with something in them.
    pub fn new(pages: u64, noise: u64) -> Self {
        let memory = HostMemory::zeroed(pages as usize * PAGE_SIZE);
        let dirty = (0..bitmap::words(pages)).map(|_| AtomicU64::new(0)).collect();
        for word in 0..noise as usize * PAGE_SIZE / 8 {
            memory.write(word * 8, &mix(word as u64 + 1).to_le_bytes());
        }
        Self { memory, dirty, running: RwLock::new(true) }
    }

    /// Runs the program until `stop`; for another move of the same memory as well.
    pub fn run(&self, load: Load, stop: &AtomicBool) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = true;
        let (start, mut number) = (Instant::now(), load.seed);
        while !stop.load(Acquire) && load.pages > 0 {
            let due = load
                .rate
                .map_or(number + 64, |rate| load.seed + (start.elapsed().as_secs_f64() * rate as f64) as u64);
            for number in number..due {
                if !self.rewrite(&load, number) {
                    break;
                }
            }
            // What was missed in a pause is not made up for.
            number = due;
            if load.rate.is_some() {
                thread::sleep(BATCH);
            }
        }
    }

    /// What the vCPU does: writes, then the page counts as dirty. Tells whether it may.
    pub fn rewrite(&self, load: &Load, number: u64) -> bool {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        if !*running {
            thread::yield_now();
            return false;
        }
        let order = if load.random { mix(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) } else { number };
        let page = order % load.pages;
        let mut value = mix(number + 1) | 1;
        for offset in (0..PAGE_SIZE).step_by(LINE_BYTES) {
            self.memory.write(page as usize * PAGE_SIZE + offset, &value.to_le_bytes());
            value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        self.dirty[page as usize / 64].fetch_or(1 << (page % 64), AcqRel);
        true
    }

    fn set_running(&self, running: bool) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

impl SourceMachine for Writer {
    fn describe(&self, epoch: u64) -> Result<Description, MachineError> {
        let regions = vec![Region { address: 0, bytes: self.memory.bytes() as u64 }];
        Ok(Description { application: "engine".into(), rank: 0, epoch, regions, machine: Vec::new() })
    }

    fn start_tracking(&self) -> Result<(), MachineError> {
        self.dirty.iter().for_each(|word| word.store(u64::MAX, Release));
        Ok(())
    }

    fn stop_tracking(&self) -> Result<(), MachineError> {
        Ok(())
    }

    fn dirty(&self, _: usize, bitmap: &mut [u64]) -> Result<(), MachineError> {
        bitmap.iter_mut().zip(&self.dirty).for_each(|(word, dirty)| *word |= dirty.load(Acquire));
        Ok(())
    }

    fn clear_dirty(&self, _: usize, first_page: u64, bitmap: &[u64]) -> Result<(), MachineError> {
        let dirty = &self.dirty[first_page as usize / 64..];
        bitmap.iter().zip(dirty).for_each(|(word, dirty)| _ = dirty.fetch_and(!word, AcqRel));
        Ok(())
    }

    fn read_pages(&self, _: usize, first_page: u64, buffer: &mut [u8]) -> Result<(), MachineError> {
        self.memory.read(first_page as usize * PAGE_SIZE, buffer);
        Ok(())
    }

    fn await_moment(&self, limit: Duration) -> Option<migrator::partition::Moment> {
        // The program never sleeps and has no safe points.
        thread::sleep(limit);
        None
    }

    fn switch_cost(&self) -> Duration {
        // It has no processor to stop, and nothing to restore.
        Duration::ZERO
    }

    fn pause(&self) -> Result<(), MachineError> {
        self.set_running(false);
        Ok(())
    }

    fn resume(&self) -> Result<(), MachineError> {
        self.set_running(true);
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, MachineError> {
        Ok(vec![0; 1024])
    }
}

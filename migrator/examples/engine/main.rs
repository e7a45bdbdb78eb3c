//! What the engine costs and does on this machine, without a VM: `cargo run --release -p migrator --example engine`.
//!
//! `costs`: one core's speed of everything that is done to a page. `throughput`: a quiet memory of random bytes over
//! loopback, by both transports, turn by turn. `cap`: the mean over any second of what arrives under a cap, for 1, 4 and 8 streams.
//! `predictions`: how far the predicted total time and blackout were off, for memories that are written in several ways.
//! `deltas`: what pages that were sent before take as they are, packed, and as a difference from what was sent.

mod deltas;
mod moving;
mod predictions;
mod writer;

use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use migrator::bitmap;
use migrator::partition::{Description, MachineError, PAGE_SIZE, Region, SourceMachine};
use migrator::report::Request;
use migrator::transport::Transport;

use moving::migrate;

const MIB: usize = 1 << 20;

/// A quiet partition: one region that nobody writes.
struct Quiet {
    memory: Vec<u8>,
}

impl Quiet {
    /// Memory of `bytes` (whole pages) that does not compress.
    fn random(bytes: usize) -> Self {
        let mut state = 88_172_645_463_325_252u64;
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        Self { memory: (0..bytes / 8).flat_map(|_| word()).collect() }
    }
}

impl SourceMachine for Quiet {
    fn describe(&self, epoch: u64) -> Result<Description, MachineError> {
        let regions = vec![Region { address: 0, bytes: self.memory.len() as u64 }];
        Ok(Description { application: "engine".into(), rank: 0, epoch, regions, machine: Vec::new() })
    }

    fn start_tracking(&self) -> Result<(), MachineError> {
        Ok(())
    }

    fn stop_tracking(&self) -> Result<(), MachineError> {
        Ok(())
    }

    fn dirty(&self, _: usize, _: &mut [u64]) -> Result<(), MachineError> {
        Ok(())
    }

    fn clear_dirty(&self, _: usize, _: u64, _: &[u64]) -> Result<(), MachineError> {
        Ok(())
    }

    fn read_pages(&self, _: usize, first_page: u64, buffer: &mut [u8]) -> Result<(), MachineError> {
        buffer.copy_from_slice(&self.memory[first_page as usize * PAGE_SIZE..][..buffer.len()]);
        Ok(())
    }

    fn switch_cost(&self) -> Duration {
        Duration::ZERO
    }

    fn pause(&self) -> Result<(), MachineError> {
        Ok(())
    }

    fn resume(&self) -> Result<(), MachineError> {
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, MachineError> {
        Ok(vec![0; 1024])
    }
}

/// GB/s of `act` over `bytes`, the best of a few.
fn speed(bytes: usize, mut act: impl FnMut()) -> f64 {
    let mut time = || {
        let start = Instant::now();
        act();
        start.elapsed().as_secs_f64()
    };
    bytes as f64 / (0..5).map(|_| time()).fold(f64::INFINITY, f64::min) / 1e9
}

fn costs() {
    let data = Quiet::random(256 * MIB).memory;
    // Written once, so that it is not one and the same page of the kernel.
    let mut zeros = vec![1u8; 256 * MIB];
    zeros.fill(0);
    let mut buffer = vec![0u8; 64 * PAGE_SIZE];
    let pages = |memory: &[u8]| memory.chunks(PAGE_SIZE).filter(|page| bitmap::is_zero(page)).count();
    println!("one core, GB/s over 256 MiB, best of 5:");
    let row = |name: &str, speed: f64| println!("  {name:52} {speed:6.2}");
    row(
        "read (sum of words)",
        speed(data.len(), || {
            black_box(data.as_chunks::<8>().0.iter().fold(0u64, |sum, word| sum ^ u64::from_le_bytes(*word)));
        }),
    );
    row("zero test of zeros", speed(zeros.len(), || _ = black_box(pages(&zeros))));
    row(
        "zero test of random pages (ends at the first bytes)",
        speed(data.len(), || _ = black_box(pages(&data))),
    );
    row(
        "copy to a buffer of 256 KiB",
        speed(data.len(), || {
            for part in data.chunks(buffer.len()) {
                buffer[..part.len()].copy_from_slice(part);
                black_box(&buffer);
            }
        }),
    );
    row(
        "XXH3-64",
        speed(data.len(), || {
            data.chunks(64 * PAGE_SIZE).for_each(|part| _ = black_box(migrator::wire::state_checksum(part)));
        }),
    );
    row(
        "copy, zero test and XXH3-64 of the buffer",
        speed(data.len(), || {
            for part in data.chunks(buffer.len()) {
                buffer[..part.len()].copy_from_slice(part);
                black_box(pages(&buffer));
                black_box(migrator::wire::state_checksum(&buffer));
            }
        }),
    );
}

fn throughput() {
    let machine = Quiet::random(1024 * MIB);
    println!("1 GiB of random bytes over loopback, round 0:");
    for streams in [1, 2, 4, 8] {
        let mut speeds = Vec::new();
        for transport in [Transport::Tcp, Transport::Rdma].repeat(3) {
            let change = |request: &mut Request| {
                request.streams = streams;
                request.transport = transport;
            };
            let report = migrate(&machine, change, |_| ());
            let round = report.rounds[0];
            let speed = round.bytes as f64 / round.seconds / 1e9;
            speeds.push(speed);
            print!(
                "  {streams} streams, {transport:?}: {speed:.2} GB/s, blackout {:.2} ms",
                report.blackout_ms
            );
            match report.rdma {
                None => println!(),
                Some(it) => println!(
                    "; {}: registered in {:.1} ms, connected in {:.1} ms",
                    it.provider, it.registered_ms, it.connected_ms
                ),
            }
        }
        let best =
            |first: usize| speeds.iter().skip(first).step_by(2).fold(0.0, |best: f64, it| best.max(*it));
        println!("  {streams} streams, best of 3: RDMA / TCP = {:.2}", best(1) / best(0));
    }
}

fn cap() {
    const CAP: u64 = 100_000_000;
    const STEP: Duration = Duration::from_millis(50);
    let machine = Quiet::random(512 * MIB);
    println!(
        "cap of {} MB/s, memory of 512 MiB over loopback; means over every second (a new one every 50 ms):",
        CAP / 1_000_000
    );
    for streams in [1, 4, 8] {
        let mut samples = vec![(Instant::now(), 0)];
        let change = |request: &mut Request| {
            request.streams = streams;
            request.bandwidth_bytes_per_s = Some(CAP);
        };
        migrate(&machine, change, |bytes| {
            while bytes.load(Relaxed) < 500 * MIB as u64 {
                thread::sleep(STEP);
                samples.push((Instant::now(), bytes.load(Relaxed)));
            }
        });
        samples.retain(|(_, bytes)| *bytes > 0);
        let means: Vec<f64> = (0..samples.len())
            .filter_map(|first| {
                let (start, before) = samples[first];
                let later =
                    samples[first..].iter().find(|(time, _)| *time - start >= Duration::from_secs(1))?;
                Some((later.1 - before) as f64 / (later.0 - start).as_secs_f64() / CAP as f64)
            })
            .collect();
        let (least, most) =
            means.iter().fold((f64::MAX, 0f64), |(least, most), mean| (least.min(*mean), most.max(*mean)));
        println!(
            "  {streams} streams: {:.1} % to {:.1} % of the cap, {} windows",
            least * 100.0,
            most * 100.0,
            means.len()
        );
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let all: [(&str, fn()); 5] = [
        ("costs", costs),
        ("throughput", throughput),
        ("cap", cap),
        ("predictions", predictions::measure),
        ("deltas", deltas::measure),
    ];
    for (name, act) in all {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            act();
        }
    }
}

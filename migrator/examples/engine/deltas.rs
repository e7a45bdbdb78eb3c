//! What a difference from the version that was sent last would take, beside what the codecs make of the page itself.

use std::time::Instant;

use migrator::codec::Codec;
use migrator::partition::{PAGE_SIZE, SourceMachine};

use super::writer::{Load, Writer};

/// Pages packed together, as a stream does.
const TOGETHER: usize = 64;
const CELLS: usize = 512;

/// Prints bytes a byte of pages, and the speed of one core.
pub fn measure() {
    println!("bytes sent for a byte of dirty pages, one core; in brackets GB/s of pages");
    let writer = Writer::new(4096, 4096);
    let load = Load { pages: 4096, rate: None, random: false, seed: 0 };
    let (before, ()) = (writer.memory(), (0..4096).for_each(|number| _ = writer.rewrite(&load, number)));
    row("writer: one word of every cache line", &before, &writer.memory());
    for sweeps in [1, 10, 100] {
        for (start, field) in [("noise", noise as fn(usize) -> f64), ("one hot edge", hot_edge)] {
            let (before, after) = heat(field, sweeps);
            row(
                &format!("heat from {start}, {sweeps} sweeps between two rounds, after 200"),
                &before,
                &after,
            );
        }
    }
    let mut sorted: Vec<u64> =
        (0..2_000_000u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).collect();
    let before = bytes(&sorted);
    sorted[..1_000_000].sort_unstable();
    row("sort: half of the keys sorted between two rounds", &before, &bytes(&sorted));
}

impl Writer {
    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4096 * PAGE_SIZE];
        self.read_pages(0, 0, &mut bytes).expect("plain memory");
        bytes
    }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    let whole = words.len() / 512 * 512;
    words[..whole].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn noise(at: usize) -> f64 {
    ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 53) as f64
}

fn hot_edge(at: usize) -> f64 {
    if at < CELLS { 1.0 } else { 0.0 }
}

/// The field of explicit Euler for the heat equation, as tests/apps/heat computes it, before and after `sweeps`.
fn heat(field: fn(usize) -> f64, sweeps: usize) -> (Vec<u8>, Vec<u8>) {
    let mut cells: Vec<f64> = (0..CELLS * CELLS).map(field).collect();
    let mut sweep = || {
        let old = cells.clone();
        for at in (CELLS + 1..CELLS * (CELLS - 1) - 1).filter(|at| !matches!(at % CELLS, 0 | 511)) {
            let around = old[at - 1] + old[at + 1] + old[at - CELLS] + old[at + CELLS];
            cells[at] = old[at] + 0.2 * (around - 4.0 * old[at]);
        }
        cells.iter().flat_map(|cell| cell.to_le_bytes()).collect::<Vec<u8>>()
    };
    let before = (0..200).map(|_| sweep()).last().unwrap_or_default();
    let after = (0..sweeps).map(|_| sweep()).last().unwrap_or_default();
    (before, after)
}

fn row(name: &str, before: &[u8], after: &[u8]) {
    let dirty: Vec<_> =
        before.chunks(PAGE_SIZE).zip(after.chunks(PAGE_SIZE)).filter(|(old, new)| old != new).collect();
    let pages: Vec<u8> = dirty.iter().flat_map(|(_, new)| new.iter().copied()).collect();
    let differences: Vec<u8> =
        dirty.iter().flat_map(|(old, new)| old.iter().zip(*new).map(|(old, new)| old ^ new)).collect();
    let packed = |codec: Codec, bytes: &[u8]| {
        let (start, mut room) = (Instant::now(), Vec::new());
        let piece = |piece: &[u8]| codec.pack(piece, &mut room).unwrap_or(piece.len());
        let total: usize = bytes.chunks(TOGETHER * PAGE_SIZE).map(piece).sum();
        format!("{:.2} ({:.1})", part(total, bytes), speed(bytes, start))
    };
    let start = Instant::now();
    let runs: usize = differences.chunks(PAGE_SIZE).map(run_length).sum();
    println!(
        "  {name:60} {:5} pages: lz4 {}, zstd {}; difference: runs {:.2} ({:.1}), lz4 {}, zstd {}",
        dirty.len(),
        packed(Codec::Lz4, &pages),
        packed(Codec::Zstd, &pages),
        part(runs, &differences),
        speed(&differences, start),
        packed(Codec::Lz4, &differences),
        packed(Codec::Zstd, &differences)
    );
}

fn part(bytes: usize, of: &[u8]) -> f64 {
    bytes as f64 / of.len().max(1) as f64
}

fn speed(bytes: &[u8], start: Instant) -> f64 {
    bytes.len() as f64 / start.elapsed().as_secs_f64().max(1e-9) / 1e9
}

/// Bytes of a difference as runs of zeros and of other bytes, two bytes of length before each; at most the page itself.
fn run_length(difference: &[u8]) -> usize {
    let runs = difference.chunk_by(|left, right| (*left == 0) == (*right == 0));
    let bytes: usize = runs.map(|run| 2 + if run[0] == 0 { 0 } else { run.len() }).sum();
    bytes.min(PAGE_SIZE)
}

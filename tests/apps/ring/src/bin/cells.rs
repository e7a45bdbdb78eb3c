//! Cells that are dealt to the ranks, computed step by step, and shared out anew as the coordinator says.
//!
//! What it proves in a partition: a Rust program counts units of work with the crate `partita`, beside rsmpi, and takes up shares. A
//! cell keeps its extra work (`--work`, by the rank that has it first) when it changes hands, so that the imbalance is in the data.
//! A step needs a sum over all cells, modulo 2^64, so that a cell that is lost or computed twice changes everything after it.
//! Nothing on standard output depends on who has which cells, nor on the number of ranks.

use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use partita::Partita;

const USAGE: &str =
    "usage: cells [--size CELLS] [--steps S] [--seed X] [--work W0,W1,...] [--balance K] [--progress]";

/// A line on standard error in one piece: `eprintln` writes its parts one by one, and ranks would mix theirs.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = std::io::stderr().write_all(format!("cells: {}\n", format_args!($($text)*)).as_bytes());
    }};
}

struct Options {
    /// Number of cells.
    size: usize,
    steps: u64,
    seed: u64,
    /// Extra passes over each cell in a step, by the rank that has it first.
    work: Vec<u32>,
    /// Steps between two sharings-out; 0: never.
    balance: u64,
    progress: bool,
}

fn parse() -> Option<Options> {
    let mut options = Options { size: 1000, steps: 100, seed: 1, work: vec![], balance: 0, progress: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--progress" {
            options.progress = true;
            continue;
        }
        let value = arguments.next()?;
        match name.as_str() {
            "--size" => options.size = value.parse().ok().filter(|n| (1..1 << 27).contains(n))?,
            "--steps" => options.steps = value.parse().ok()?,
            "--seed" => options.seed = value.parse().ok()?,
            "--work" => options.work = value.split(',').map(|w| w.parse().ok()).collect::<Option<_>>()?,
            "--balance" => options.balance = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(options)
}

/// A cell after a step in which all of them added up to `sum`.
fn advance(cell: u64, sum: u64) -> u64 {
    (cell ^ sum.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_add(sum)
}

/// One step of the cells `mine`; extra work that changes nothing with it.
fn compute(cells: &mut [u64], weights: &[u32], sum: u64) {
    for (cell, &weight) in cells.iter_mut().zip(weights) {
        let mut burnt = *cell;
        for _ in 0..weight {
            burnt = std::hint::black_box(advance(burnt, sum));
        }
        *cell = advance(*cell, sum);
    }
}

/// Every rank's cells behind each other, on every rank.
fn gather(world: &SimpleCommunicator, mine: &[u64], size: usize) -> Vec<u64> {
    let count = mine.len() as i32;
    let mut counts = vec![0; world.size() as usize];
    world.all_gather_into(&count, &mut counts[..]);
    let starts: Vec<i32> =
        counts.iter().scan(0, |end, count| Some(std::mem::replace(end, *end + count))).collect();
    let mut all = vec![0; size];
    world.all_gather_varcount_into(mine, &mut PartitionMut::new(&mut all[..], counts, &starts[..]));
    all
}

fn at(range: &Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// All steps; the cells at the end, all of them, on every rank.
fn run(world: &SimpleCommunicator, options: &Options) -> Result<Vec<u64>, partita::Error> {
    let (rank, ranks, size) = (world.rank() as u64, world.size() as u64, options.size as u64);
    let dealt = |rank: u64| size * rank / ranks..size * (rank + 1) / ranks;
    let weight = |rank: u64| options.work.get(rank as usize).copied().unwrap_or(0);
    let weights: Vec<u32> = (0..ranks).flat_map(|rank| dealt(rank).map(move |_| rank)).map(weight).collect();
    let partita = Partita::new()?;
    let mut units = partita.define(size, dealt(rank))?;
    let mut cells: Vec<u64> = units.mine().map(|index| advance(index, options.seed)).collect();
    for step in 1..=options.steps {
        let (mine, mut sum) = (cells.iter().fold(0u64, |sum, cell| sum.wrapping_add(*cell)), 0);
        world.all_reduce_into(&mine, &mut sum, SystemOperation::sum());
        let start = Instant::now();
        compute(&mut cells, &weights[at(&units.mine())], sum);
        units.report(units.count(), start.elapsed())?;
        partita.report_progress(units.count())?;
        if options.balance > 0 && step % options.balance == 0 {
            partita.safe_point()?;
            let wanted = units.share()?;
            let (changed, mut any) = (u64::from(wanted != units.mine()), 0);
            world.all_reduce_into(&changed, &mut any, SystemOperation::max());
            if any != 0 {
                cells = gather(world, &cells, options.size)[at(&wanted)].to_vec();
                say!("step {step}: rank {rank} has {} to {}", wanted.start, wanted.end);
                units.take(wanted)?;
            }
        }
        if rank == 0 && options.progress && step % (options.steps / 20).max(1) == 0 {
            println!("cells: step {step}/{} sum 0x{sum:016x}", options.steps);
        }
    }
    Ok(gather(world, &cells, options.size))
}

fn main() -> ExitCode {
    let Some(universe) = mpi::initialize() else {
        say!("MPI is initialised already");
        return ExitCode::FAILURE;
    };
    let world = universe.world();
    let Some(options) = parse() else {
        if world.rank() == 0 {
            say!("{USAGE}");
        }
        world.abort(2);
    };
    let start = Instant::now();
    let cells = run(&world, &options).unwrap_or_else(|error| {
        say!("{error}");
        world.abort(1)
    });
    if world.rank() == 0 {
        let checksum = cells.iter().fold(0, |sum, &cell| advance(cell, sum));
        let Options { size, steps, seed, .. } = options;
        println!("cells: size {size} steps {steps} seed {seed} checksum 0x{checksum:016x}");
        say!("{:.3} s", start.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}

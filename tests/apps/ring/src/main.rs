//! A token with a payload travels round the ranks; everyone transforms it.
//!
//! What it proves in a partition: a Rust program through the `mpi` crate (rsmpi) gives the result of a native run.
//! Only one rank works at a time, except for `--work`, which every rank does while it waits for nobody; the
//! transformation is in integers and not commutative, so a lost, repeated or reordered lap changes the checksum.
//! Only the last value, `allreduce`, a sum in floating point, depends on the order in which `MPI_Allreduce` adds.

use std::process::ExitCode;

use mpi::collective::SystemOperation;
use mpi::traits::*;

const USAGE: &str = "usage: ring [--size WORDS] [--laps L] [--seed X] [--work W0,W1,...] [--progress]";

struct Options {
    /// 64-bit words in the token.
    size: usize,
    laps: u64,
    seed: u64,
    /// Extra passes over a private copy, per lap of this rank.
    work: u32,
    progress: bool,
}

fn parse(rank: usize) -> Option<Options> {
    let mut options = Options { size: 1024, laps: 20, seed: 1, work: 0, progress: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--progress" {
            options.progress = true;
            continue;
        }
        let value = arguments.next()?;
        match name.as_str() {
            "--size" => options.size = value.parse().ok().filter(|&n| (1..1 << 27).contains(&n))?,
            "--laps" | "--steps" => options.laps = value.parse().ok()?,
            "--seed" => options.seed = value.parse().ok()?,
            "--work" => {
                options.work = value.split(',').nth(rank).map_or(Some(0), |w| w.parse().ok())?;
            }
            _ => return None,
        }
    }
    Some(options)
}

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What `rank` does to the token in `lap`: each word depends on the one before it, on the rank and on the lap.
fn transform(token: &mut [u64], rank: u64, lap: u64) {
    let mut carry = mix(rank ^ (lap << 32));
    for word in token {
        carry = mix(*word ^ carry);
        *word = carry;
    }
}

/// Extra work that changes nothing.
fn burn(token: &[u64], times: u32) {
    let mut copy = token.to_vec();
    for pass in 0..times {
        transform(&mut copy, 0, u64::from(pass));
        std::hint::black_box(&copy);
    }
}

fn main() -> ExitCode {
    let Some(universe) = mpi::initialize() else {
        eprintln!("ring: MPI is initialised already");
        return ExitCode::FAILURE;
    };
    let world = universe.world();
    let (rank, ranks) = (world.rank(), world.size());
    let Some(options) = parse(rank as usize) else {
        if rank == 0 {
            eprintln!("ring: {USAGE}");
        }
        world.abort(2);
    };
    let next = world.process_at_rank((rank + 1) % ranks);
    let previous = world.process_at_rank((rank + ranks - 1) % ranks);
    let mut token: Vec<u64> = (0..options.size as u64).map(|i| mix(mix(options.seed) ^ i)).collect();

    world.barrier();
    let start = mpi::time();
    for lap in 0..options.laps {
        burn(&token, options.work);
        if rank > 0 {
            previous.receive_into(&mut token[..]);
        }
        transform(&mut token, rank as u64, lap);
        if ranks > 1 {
            next.send(&token[..]);
            if rank == 0 {
                previous.receive_into(&mut token[..]);
            }
        }
        if rank == 0 && options.progress && lap % (options.laps / 20).max(1) == 0 {
            println!("ring: lap {}/{}", lap + 1, options.laps);
        }
    }
    let seconds = mpi::time() - start;

    let checksum = token.iter().fold(0u64, |sum, &word| mix(sum ^ word));
    // The last rank's token is the one that rank 0 has received; the others hold older ones.
    let mut checksums = vec![0u64; ranks as usize];
    world.all_gather_into(&checksum, &mut checksums[..]);
    let share = token.iter().map(|&word| word as f64 / u64::MAX as f64).sum::<f64>();
    let mut allreduce = 0f64;
    world.all_reduce_into(&share, &mut allreduce, SystemOperation::sum());
    if rank == 0 {
        if checksums[0] != checksums[ranks as usize - 1] {
            eprintln!("ring: rank 0 did not get the token that the last rank sent");
            world.abort(1);
        }
        let all = checksums.iter().fold(0u64, |sum, &c| mix(sum ^ c));
        println!(
            "ring: size {} laps {} seed {} ranks {ranks} token 0x{checksum:016x} checksum 0x{all:016x} allreduce {allreduce:?}",
            options.size, options.laps, options.seed
        );
        eprintln!("ring: {seconds:.3} s");
    }
    ExitCode::SUCCESS
}

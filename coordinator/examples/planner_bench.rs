//! Measures the planner and prints tables: `cargo run --release -p coordinator --example planner_bench [scale|stability|properties]`.

#[path = "../tests/simulation/mod.rs"]
mod simulation;

use std::process::Command;
use std::time::Instant;

use planner::checker;
use simulation::{Result, Simulation, Size, large_cluster, random_cluster};

const SIZES: [Size; 4] = [
    Size { hosts: 1_000, partitions: 10_000 },
    Size { hosts: 2_000, partitions: 20_000 },
    Size { hosts: 5_000, partitions: 50_000 },
    Size { hosts: 10_000, partitions: 100_000 },
];
const RUNS: usize = 7;
const SEED: u64 = 1;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["one", index] => one(SIZES[index.parse::<usize>()?]),
        ["scale"] => scale(),
        ["stability"] => stability(),
        ["properties"] => properties(10_000),
        [] => scale().and_then(|()| stability()).and_then(|()| properties(10_000)),
        _ => Err("use one of: scale, stability, properties".into()),
    }
}

/// Each size in a process of its own, so that its peak memory is its own.
fn scale() -> Result<()> {
    println!(
        "| hosts x partitions | edges | plan and explanation, median of {RUNS} | slowest | moves | busiest host | check | peak memory |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for index in 0..SIZES.len() {
        let status = Command::new(std::env::current_exe()?).args(["one", &index.to_string()]).status()?;
        if !status.success() {
            return Err(format!("size {index} failed").into());
        }
    }
    Ok(())
}

fn one(size: Size) -> Result<()> {
    let snapshot = large_cluster(size, SEED)?;
    let before_kib = memory_kib()?;
    let mut times_ms = Vec::new();
    let mut plan = planner::plan(&snapshot);
    for _ in 0..RUNS {
        let begin = Instant::now();
        plan = planner::plan(&snapshot);
        times_ms.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times_ms.sort_by(f64::total_cmp);
    let begin = Instant::now();
    let findings = checker::check(&snapshot, &plan);
    let check_ms = begin.elapsed().as_secs_f64() * 1e3;
    if let Some(finding) = findings.first() {
        return Err(format!("{size:?}: {finding}").into());
    }
    println!(
        "| {} x {} | {} | {:.0} ms | {:.0} ms | {} ({}) | {:.3} -> {:.3} | {check_ms:.0} ms | {} MiB, of which {} the snapshot |",
        size.hosts,
        size.partitions,
        snapshot.edges.len(),
        times_ms[RUNS / 2],
        times_ms[RUNS - 1],
        plan.moves.len(),
        plan.algorithm,
        plan.work_max,
        plan.work_max_after,
        memory_kib()? >> 10,
        before_kib >> 10,
    );
    Ok(())
}

/// Peak resident memory so far.
fn memory_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn stability() -> Result<()> {
    println!(
        "\n| noise | epochs | moves per epoch after epoch 20 (of 10,000) | returns | true imbalance: start, epoch 20, end, mean after 20 |"
    );
    println!("|---|---|---|---|---|");
    for noise in [0.2, 0.1] {
        let mut simulation = Simulation::new(SIZES[0], noise, SEED)?;
        let start = simulation.imbalance();
        let (mut late, mut at_20, mut sum) = (0, 0.0, 0.0);
        for epoch in 0..200 {
            let plan = simulation.epoch();
            if epoch == 19 {
                at_20 = simulation.imbalance();
            }
            if epoch >= 20 {
                late += plan.moves.len();
                sum += simulation.imbalance();
            }
        }
        println!(
            "| {:.0} % | 200 | {:.2} | {} | {start:.3}, {at_20:.3}, {:.3}, {:.3} |",
            100.0 * noise,
            late as f64 / 180.0,
            simulation.returns,
            simulation.imbalance(),
            sum / 180.0,
        );
    }
    println!(
        "\n| load step | before | at the step | after 1, 2, 3, 4, 5 epochs | part of the jump left after 3 |"
    );
    println!("|---|---|---|---|---|");
    for noise in [0.2, 0.1] {
        let mut simulation = Simulation::new(SIZES[0], noise, SEED)?;
        (0..100).for_each(|_| drop(simulation.epoch()));
        let before = simulation.imbalance();
        simulation.step_loads(0.1, 1.8);
        let jump = simulation.imbalance();
        let after: Vec<f64> = (0..5)
            .map(|_| {
                simulation.epoch();
                simulation.imbalance()
            })
            .collect();
        let shown: Vec<String> = after.iter().map(|it| format!("{it:.3}")).collect();
        let left = (after[2] - before) / (jump - before);
        println!(
            "| x1.8 on 10 % of hosts, noise {:.0} % | {before:.3} | {jump:.3} | {} | {:.0} % |",
            100.0 * noise,
            shown.join(", "),
            100.0 * left
        );
    }
    Ok(())
}

fn properties(count: u64) -> Result<()> {
    let begin = Instant::now();
    let (mut moves, mut plans, mut repairs) = (0, 0, 0);
    for seed in 0..count {
        let snapshot = random_cluster(seed)?;
        let plan = planner::plan(&snapshot);
        if let Some(finding) = checker::check(&snapshot, &plan).first() {
            return Err(format!("seed {seed}: {finding}").into());
        }
        moves += plan.moves.len();
        plans += usize::from(!plan.moves.is_empty());
        repairs += usize::from(plan.mandatory > 0);
    }
    println!(
        "\n{count} random clusters: {plans} plans with {moves} moves, {repairs} of them with mandatory moves; no finding; {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

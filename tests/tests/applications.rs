//! The MPI programs against MPICH: byte for byte, where nothing moves and where partitions move all the time.

use partita_tests::random::Random;
use partita_tests::roaming::Roaming;
use partita_tests::{Bench, Failures, Result, amount, binaries, with_longer_programs};

/// Moves that every application has to make in its test here.
const MOVES: u32 = 10;
/// Moves after which no more are made, once all ranks share rings again.
const MOVES_MAX: u32 = 12;

fn strings(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Output of a run in which nothing moves.
fn still(bench: &Bench, ranks: u32, program: &str, arguments: &[String]) -> Result<Vec<u8>> {
    let mut command = bench.vmm(["run", "--np", &ranks.to_string(), "--memory", "64M"])?;
    command.arg(binaries::app(program)?).args(arguments);
    let done = bench.run(command, program, None, 30)?;
    if done.status != 0 {
        return Err(
            format!("{program} {arguments:?} --np {ranks}: status {}\n{}", done.status, done.stderr).into()
        );
    }
    println!("{program} {} --np {ranks}: {:.1} s", arguments.join(" "), done.seconds);
    Ok(done.stdout)
}

/// Two ranks of a large application, of which nobody else is there: what they pay for the others is seen in their times.
#[test]
fn ranks_talk_whatever_their_number() -> Result {
    for (ranks, pair) in [(2, [0, 1]), (1024, [3, 1000])] {
        for rings in ["direct", "proxied"] {
            let bench = Bench::new()?;
            let place = |rank: &u32| {
                let address = format!("unix:{}/rank-{rank}.fabric", bench.state().display());
                (rank.to_string(), serde_json::json!({ "epoch": 1, "address": address }))
            };
            let peers = bench.path().join("peers.json");
            let directory: serde_json::Map<_, _> = pair.iter().map(place).collect();
            std::fs::write(&peers, serde_json::to_string(&directory)?)?;
            let start = |rank: u32| {
                let mut command =
                    bench.vmm(["run", "--application", "far", "--memory", "32M", "--rings", rings])?;
                command
                    .args(["--rank", &rank.to_string(), "--np", &ranks.to_string(), "--peers"])
                    .arg(&peers);
                command.arg("--state-dir").arg(bench.state()).arg(binaries::bench_programs()?.join("far"));
                command.args(pair.map(|rank| rank.to_string())).arg(amount(2000, 60).to_string());
                bench.start(command, &format!("rank-{rank}"))
            };
            let mut processes = [start(pair[0])?, start(pair[1])?];
            for process in &mut processes {
                assert_eq!(process.wait(60)?, 0, "{ranks} ranks, {rings}: {}", process.describe());
            }
            assert_eq!(processes[0].stdout(), b"far: ok\n");
            print!("{ranks} ranks, {rings}: {}", processes[0].stderr());
        }
    }
    Ok(())
}

#[test]
fn equal_mpich_without_moves() -> Result {
    let bench = Bench::new()?;
    let mut failures = Failures::default();
    for case in [
        "heat-tiny",
        "cg-tiny",
        "sort-tiny",
        "ring-tiny",
        "cells-tiny",
        "sort-few",
        "ring",
        "cg-converged",
        "storm-tiny",
    ] {
        let (program, arguments) = binaries::case(case)?;
        for ranks in [2, 4] {
            let expected = binaries::oracle(case, ranks)?;
            match still(&bench, ranks, &program, &arguments) {
                Ok(output) => failures.check(output == expected, || {
                    let (ours, theirs) =
                        (String::from_utf8_lossy(&output), String::from_utf8_lossy(&expected));
                    format!("{case} --np {ranks}: {ours:?}, MPICH {theirs:?}")
                }),
                Err(error) => failures.add(format!("{case} --np {ranks}: {error}")),
            }
        }
    }
    failures.check(bench.assert_nothing_left().is_ok(), || {
        format!("left: {:?} {:?}", bench.files(), bench.processes())
    });
    failures.finish()
}

/// Moves partitions in turn until the program ends, or enough has been moved; compares with a still run. A program that ends
/// too early is run again, longer: how fast it is depends on the machine.
fn moved(program: &str, ranks: u32, arguments: impl Fn(u64) -> String) -> Result {
    let mut random = Random::from_environment(program);
    let mut factor = 1;
    for _ in 0..4 {
        let bench = Bench::new()?;
        let words = strings(&arguments(factor));
        let first = random.below(u64::from(ranks)) as u32;
        let mut roaming = Roaming::start(&bench, ranks, "64M", program, &words)?;
        let all: Vec<u32> = (0..ranks).collect();
        loop {
            // In turn, and now and then all of them: with one switch-over, or each as it gets there.
            let one = [(first + roaming.moves) % ranks];
            let go_on = match roaming.moves % 4 {
                _ if roaming.moves >= MOVES_MAX && roaming.shares_rings() => break,
                1 => roaming.step_at_once(&all)?,
                3 => roaming.step(&all)?,
                _ => roaming.step(&one)?,
            };
            if !go_on {
                break;
            }
        }
        let output = roaming.finish(60)?;
        let (moves, moments) = (roaming.moves, &roaming.moments);
        let blackouts_ms = &roaming.blackouts_ms;
        println!("{program}, length {factor}: {moves} moves at {moments:?}, blackouts {blackouts_ms:?} ms");
        drop(roaming);
        if moves < MOVES {
            factor *= u64::from(MOVES_MAX.div_ceil(moves.max(2)) + 1).min(4);
            continue;
        }
        bench.assert_nothing_left()?;
        let expected = still(&bench, ranks, program, &words)?;
        if output == expected {
            return Ok(());
        }
        let (ours, theirs) = (String::from_utf8_lossy(&output), String::from_utf8_lossy(&expected));
        return Err(format!("{program}: after {moves} moves {ours:?}, still {theirs:?}").into());
    }
    Err(format!("{program}: always ended before {MOVES} moves: make it longer (PARTITA_TEST_SCALE)").into())
}

#[test]
fn heat_moves_ten_times() -> Result {
    let steps = amount(1_000_000, 20_000);
    moved("heat", 2, |factor| format!("--size 32 --steps {} --seed 1 --every 100", steps * factor))
}

#[test]
#[ignore = "libfabric needs half a minute for a move in the emulated machine: tests/system.sh applications:--ignored,rdma"]
fn heat_moves_over_rdma() -> Result {
    moved_otherwise(false, amount(1_000_000, 120_000), &["--transport", "rdma", "--streams", "2"])
}

#[test]
fn heat_moves_over_tls() -> Result {
    moved_otherwise(true, amount(1_000_000, 20_000), &["--streams", "2"])
}

/// Heat, moved once by each rank in a way that differs from the others; only once if it ends too soon.
fn moved_otherwise(secure: bool, steps: u64, options: &[&'static str]) -> Result {
    with_longer_programs(|factor| {
        let mut bench = Bench::new()?;
        if secure {
            bench.secure()?;
        }
        let words = strings(&format!("--size 32 --steps {} --seed 1 --every 100", steps * factor));
        let mut roaming = Roaming::start(&bench, 2, "32M", "heat", &words)?;
        roaming.options = options.to_vec();
        while roaming.moves < 2 && roaming.step(&[roaming.moves])? {}
        let (moves, output, scheme) = (roaming.moves, roaming.finish(60)?, bench.scheme());
        println!("{moves} moves with {options:?} over {scheme}, blackouts {:?} ms", roaming.blackouts_ms);
        drop(roaming);
        bench.assert_nothing_left()?;
        if output != still(&bench, 2, "heat", &words)? {
            return Err("not the output of a still run".into());
        }
        Ok(moves > 0)
    })
}

#[test]
fn a_pause_waits_for_a_safe_point() -> Result {
    with_longer_programs(|factor| {
        // One rank, which never sleeps; it says that a move would suit it after every step.
        let bench = Bench::new()?;
        let steps = amount(2_000_000, 30_000) * factor;
        let words = strings(&format!("--size 32 --steps {steps} --seed 1 --balance 1"));
        let mut roaming = Roaming::start(&bench, 1, "64M", "heat", &words)?;
        while !roaming.moments.iter().any(|moment| moment == "safe-point") {
            if roaming.moves >= MOVES {
                return Err(format!("{:?}\n{}", roaming.moments, roaming.describe()).into());
            }
            if !roaming.step(&[0])? {
                return Ok(false);
            }
        }
        let output = roaming.finish(60)?;
        println!("paused at {:?}", roaming.moments);
        drop(roaming);
        bench.assert_nothing_left()?;
        if output != still(&bench, 1, "heat", &words)? {
            return Err("not the output of a still run".into());
        }
        Ok(true)
    })
}

#[test]
fn cg_moves_ten_times() -> Result {
    // It converges soon; the extra products are what takes time.
    let products = amount(40_000, 4_000);
    moved("cg", 2, |factor| {
        let work = products * factor;
        format!("--size 32 --iterations 60 --seed 1 --tolerance 0 --work {work},{work}")
    })
}

#[test]
fn sort_moves_ten_times() -> Result {
    let rounds = amount(100_000, 6_000);
    moved("sort", 2, |factor| format!("--size 1000 --rounds {} --seed 1", rounds * factor))
}

#[test]
fn ring_moves_ten_times() -> Result {
    let laps = amount(500_000, 30_000);
    moved("ring", 2, |factor| format!("--size 256 --laps {} --seed 1", laps * factor))
}

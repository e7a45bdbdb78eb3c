//! `migrator bench` measures real moves, observed by a partition that stays; `messages` measures real partitions beside MPICH.

use std::path::Path;

use nix::sys::signal::Signal;
use partita_tests::{Bench, Result, binaries, is_emulated, limit, wait_for};
use serde_json::Value;

/// Migrations.
const RUNS: usize = 3;

fn number(value: &Value, what: &str) -> Result<f64> {
    value.as_f64().ok_or_else(|| format!("{what} is {value}, not a number").into())
}

#[test]
fn a_short_bench_measures_what_the_partner_of_a_writer_sees() -> Result {
    let bench = Bench::new()?;
    let file = |name: &str| bench.path().join(name);
    let mut command = bench.command(&binaries::program("migrator")?);
    command.args(["bench", "--workload", "writer", "--pages", "512", "--memory", "64M"]);
    command.args(["--runs", &RUNS.to_string(), "--timeout-s", &limit(10).as_secs().to_string()]);
    // The emulated machine has no speed: beats, pages and limits that it can keep up with.
    let pace = if is_emulated() { ["2000", "2000"] } else { ["40", "100000"] };
    command.args([
        "--beat-us",
        pace[0],
        "--rate",
        pace[1],
        "--on-timeout",
        "force",
        "--downtime-limit-ms",
        "2000",
    ]);
    command.arg("--vmm").arg(binaries::program("vmm")?);
    command.arg("--programs").arg(binaries::bench_programs()?);
    command.arg("--json").arg(file("b.json")).arg("--csv").arg(file("b.csv")).arg("--svg").arg(file("svg"));
    let done = bench.run(command, "migrator-bench", None, 60)?;
    let table = String::from_utf8_lossy(&done.stdout).into_owned();
    println!("{table}");
    if done.status != 0 {
        return Err(format!("status {}: {}", done.status, done.stderr).into());
    }
    assert_eq!(table.contains("EMULATED MACHINE"), is_emulated(), "{table}");
    assert_eq!(done.stderr, "", "no progress where there is no terminal");

    let json: Value = serde_json::from_slice(&std::fs::read(file("b.json"))?)?;
    let ours = &json["cases"][0]["systems"]["partita"];
    let runs = ours["runs"].as_array().ok_or("no runs in the JSON")?;
    assert_eq!(runs.len(), RUNS);
    let (mut as_long_as_said, mut within_the_move) = (0, 0);
    for run in runs {
        let observed = number(&run["observed_ms"], "the observed blackout")?;
        let source = number(&run["reported"]["blackout_ms"], "the source's blackout")?;
        // The source counts from asking for the pause to hearing that it runs, the partner from the last beat to the next one. On
        // a busy machine a source may hear late, and a partner may be late itself, but not every time.
        println!("observed {observed} ms, the source says {source} ms");
        as_long_as_said += usize::from(observed > source / 2.0);
        let total = number(&run["total_ms"], "the total time")?;
        within_the_move += usize::from(observed <= total + 2000.0 * limit(1).as_secs_f64());
        assert!(number(&run["beats_per_s"], "beats")? > 0.0);
        assert!(number(&run["work"]["before"], "pages before")? > 0.0);
        assert!(run["reported"]["rounds"].as_array().is_some_and(|rounds| !rounds.is_empty()));
    }
    assert!(as_long_as_said > 0, "the partner sees far less than the source says");
    assert!(within_the_move > 0, "the partner sees more than the move");
    assert_eq!(std::fs::read_to_string(file("b.csv"))?.lines().count(), 1 + RUNS);
    for name in ["blackout.svg", "throughput.svg", "rounds.svg"] {
        assert!(std::fs::read_to_string(file("svg").join(name))?.ends_with("</svg>\n"), "{name}");
    }
    bench.assert_nothing_left()
}

fn array<'a>(value: &'a Value, what: &str) -> Result<&'a Vec<Value>> {
    value.as_array().ok_or_else(|| format!("there are no {what} in the JSON").into())
}

/// Whether a run has the figures of its system, and whether they can be: not how good they are.
fn check_figures(run: &Value) -> Result {
    let system = run["system"].as_str().unwrap_or_default();
    let figure = |name: &str| number(&run["figures"][name], &format!("{name} of {system}"));
    let round_trip = figure("round_trip_us")?;
    assert!(round_trip > 0.05 && round_trip <= figure("round_trip_p99_us")?, "{run}");
    let bandwidth = figure("bandwidth_gb_per_s")?;
    assert!(bandwidth > 0.0 && bandwidth < 1000.0, "{run}");
    assert!(figure("allreduce_us")? > 0.05, "{run}");
    if matches!(system, "partitions" | "mpich-shm") {
        assert!(figure("halo_s")? > 0.0, "{run}");
    }
    if system == "hosts" {
        let of = |thread: &str| {
            let parts = run["parts"].as_array().into_iter().flatten();
            let all = parts.filter(|part| part["phase"] == "round-trip" && part["thread"] == thread);
            all.filter_map(|part| part["us_per_round"].as_f64()).collect::<Vec<_>>()
        };
        for thread in ["vcpu", "fabric"] {
            let spent = of(thread);
            assert!(spent.len() == 2 && spent.iter().sum::<f64>() > 0.0, "{thread}: {spent:?}");
        }
    }
    Ok(())
}

#[test]
fn messages_of_partitions_hosts_and_mpich_are_measured_side_by_side() -> Result {
    let bench = Bench::new()?;
    let file = |name: &str| bench.path().join(name);
    let systems = ["mpich-shm", "partitions", "mpich-tcp", "hosts"];
    let mut command = bench.command(Path::new(env!("CARGO_BIN_EXE_messages")));
    // Enough that threads are seen to spend processor time where there is speed, and not more where there is none.
    let [round_trips, allreduces] = if is_emulated() { ["40", "20"] } else { ["20000", "200"] };
    command.args([
        "--systems",
        &systems.join(","),
        "--turns",
        "1",
        "--round-trips",
        round_trips,
        "--warm-up",
        "4",
    ]);
    command.args(["--transfers", "3", "--allreduces", allreduces, "--halo-size", "32", "--halo-steps", "4"]);
    // Less than this test waits, so that it says which system does not come to an end.
    command.args(["--timeout-s", "12"]);
    command.arg("--json").arg(file("m.json")).arg("--svg").arg(file("m.svg"));
    let done = bench.run(command, "messages", None, 60)?;
    let table = String::from_utf8_lossy(&done.stdout).into_owned();
    println!("{table}");
    if done.status != 0 {
        return Err(format!("status {}: {}", done.status, done.stderr).into());
    }
    assert_eq!(done.stderr, "", "no progress where there is no terminal");
    assert_eq!(table.contains("EMULATED MACHINE"), is_emulated(), "{table}");

    let json: Value = serde_json::from_slice(&std::fs::read(file("m.json"))?)?;
    let runs = array(&json["runs"], "runs")?;
    let names: Vec<_> = runs.iter().filter_map(|run| run["system"].as_str()).collect();
    assert_eq!(names, systems);
    runs.iter().try_for_each(check_figures)?;
    let bars = array(&json["bars"], "bars")?;
    assert_eq!(bars.len(), 7);
    for bar in bars {
        assert!(number(&bar["ratio"], "a bar's ratio")? > 0.0, "{bar}");
        assert_eq!(
            bar["missed_by"].is_number(),
            !is_emulated(),
            "speeds are judged only where there are any"
        );
    }
    assert!(number(&json["hosts_round_trip_with_a_processor_each_us"], "the estimate")? > 0.0);
    assert_eq!(json["machine"]["kvm"], if is_emulated() { "emulated" } else { "hardware" });
    assert!(std::fs::read_to_string(file("m.svg"))?.ends_with("</svg>\n"));
    bench.assert_nothing_left()
}

/// Partitions whose command line names a file below `directory`.
fn partitions(directory: &Path) -> usize {
    let directory = directory.display().to_string();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = all.map(|entry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(" --rank ") && line.contains(&directory))
        .count()
}

#[test]
fn an_interrupted_comparison_of_messages_leaves_nothing() -> Result {
    let bench = Bench::new()?;
    let mut command = bench.command(Path::new(env!("CARGO_BIN_EXE_messages")));
    command.args(["--systems", "hosts", "--turns", "1", "--round-trips", "100000000"]);
    let mut messages = bench.start(command, "messages")?;
    let ours = format!("partita-messages-{}", messages.pid());
    let namespaces = || {
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        names.filter(|name| name.file_name().to_string_lossy().starts_with(&ours)).count()
    };
    wait_for("both partitions", 20, || {
        if messages.status()?.is_some() {
            return Err(format!("it ended: {}", messages.describe()).into());
        }
        Ok((partitions(bench.path()) == 2).then_some(()))
    })?;
    assert_eq!(namespaces(), 2);
    messages.signal(Signal::SIGINT)?;
    assert_eq!(messages.wait(20)?, 130, "{}", messages.describe());
    assert_eq!((namespaces(), partitions(bench.path())), (0, 0));
    assert_eq!(messages.stderr(), "");
    bench.assert_nothing_left()
}

//! `migrator bench` measures real moves, observed by a partition that stays.

use partita_tests::{Bench, Result, binaries, is_emulated, limit};
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
    let mut as_long_as_said = 0;
    for run in runs {
        let observed = number(&run["observed_ms"], "the observed blackout")?;
        let source = number(&run["reported"]["blackout_ms"], "the source's blackout")?;
        // The source counts from asking for the pause to hearing that it runs, the partner from the last beat to the next one. On
        // a busy machine a source may hear late, and a partner may be late itself, but not every time.
        println!("observed {observed} ms, the source says {source} ms");
        as_long_as_said += usize::from(observed > source / 2.0);
        assert!(observed <= number(&run["total_ms"], "the total time")? + 2000.0 * limit(1).as_secs_f64());
        assert!(number(&run["beats_per_s"], "beats")? > 0.0);
        assert!(number(&run["work"]["before"], "pages before")? > 0.0);
        assert!(run["reported"]["rounds"].as_array().is_some_and(|rounds| !rounds.is_empty()));
    }
    assert!(as_long_as_said > 0, "the partner sees far less than the source says");
    assert_eq!(std::fs::read_to_string(file("b.csv"))?.lines().count(), 1 + RUNS);
    for name in ["blackout.svg", "throughput.svg", "rounds.svg"] {
        assert!(std::fs::read_to_string(file("svg").join(name))?.ends_with("</svg>\n"), "{name}");
    }
    bench.assert_nothing_left()
}

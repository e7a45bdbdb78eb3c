//! Coordinator, agents and partitions together: moves for a reason, and deaths.

use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use partita_tests::cluster::Cluster;
use partita_tests::{Bench, Error, Process, Result, amount, binaries, is_emulated, wait_for};

const RANKS: u32 = 2;
const AGENTS: [(&str, &str, bool); 3] = [("a", "0", false), ("b", "1", false), ("c", "0", true)];

/// Arguments of heat that keep its ranks busy, unevenly.
fn arguments(steps: u64) -> Vec<String> {
    let text = format!("--size 48 --steps {steps} --seed 5 --every 50 --work 8,5");
    text.split(' ').map(str::to_owned).collect()
}

/// All ranks on host a.
fn manifest(bench: &Bench, steps: u64, migrate: bool) -> Result<PathBuf> {
    let list: Vec<_> = arguments(steps).iter().map(|argument| format!("{argument:?}")).collect();
    let pins: String = (0..RANKS).map(|rank| format!("{rank} = \"a\"\n")).collect();
    let text = format!(
        "name = \"heat\"\nranks = {RANKS}\nexecutable = {:?}\nargs = [{}]\nmemory = \"64M\"\nstrategy = \"pinned\"\nmigrate = {migrate}\n[pinned]\n{pins}",
        binaries::app("heat")?,
        list.join(", "),
    );
    let path = bench.path().join("app.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Output of the same program without a coordinator and without moves.
fn still(bench: &Bench, steps: u64) -> Result<Vec<u8>> {
    let mut command = bench.vmm(["run", "--np", &RANKS.to_string(), "--memory", "64M"])?;
    command.arg(binaries::app("heat")?).args(arguments(steps));
    let done = bench.run(command, "still", None, 60)?;
    println!("still: {:.1} s", done.seconds);
    if done.status == 0 { Ok(done.stdout) } else { Err(done.stderr.into()) }
}

fn expect_output(client: &Process, status: i32, expected: &[u8], cluster: &Cluster<'_>) -> Result {
    if status == 0 && client.stdout() == expected {
        return Ok(());
    }
    let expected = String::from_utf8_lossy(expected);
    Err(format!("status {status}, wanted 0 and {expected:?}\n{}\n{}", client.describe(), cluster.describe())
        .into())
}

#[test]
fn badly_placed_partitions_are_spread_by_the_coordinator() -> Result {
    let bench = Bench::new()?;
    let steps = amount(200_000, 8_000);
    let expected = still(&bench, steps)?;
    let period = if is_emulated() { "--period-ms=2000" } else { "--period-ms=200" };
    let sustain = if is_emulated() { "--sustain-s=6" } else { "--sustain-s=2" };
    let cluster = Cluster::start(&bench, &[period, sustain, "--cooldown-s=5"], &AGENTS)?;
    let mut client = cluster.submit(&manifest(&bench, steps, true)?)?;
    let status = cluster.watch(&mut client, 60)?;
    expect_output(&client, status, &expected, &cluster)?;
    let application = cluster.application()?.ok_or("no application")?;
    let moves = application["moves"].as_array().cloned().unwrap_or_default();
    let reasoned =
        moves.iter().filter(|it| it["reason"].as_str().is_some_and(|reason| !reason.is_empty())).count();
    for made in &moves {
        println!("{} -> {}: {} ({} ms)", made["from"], made["to"], made["reason"], made["blackout_ms"]);
    }
    if moves.is_empty() || reasoned != moves.len() {
        return Err(format!("{} moves, {reasoned} with a reason\n{}", moves.len(), cluster.describe()).into());
    }
    cluster.end()
}

#[test]
fn a_killed_partition_ends_its_application() -> Result {
    let bench = Bench::new()?;
    let cluster = Cluster::start(&bench, &["--imbalance-threshold=1000000"], &AGENTS)?;
    let mut client = cluster.submit(&manifest(&bench, 100_000_000, false)?)?;
    let pids = cluster.wait_running(RANKS as usize)?;
    kill(Pid::from_raw(pids[1]), Signal::SIGKILL)?;
    let status = client.wait(10)?;
    if status != 137 {
        return Err(format!("status {status}, not 137\n{}\n{}", client.describe(), cluster.describe()).into());
    }
    let events = cluster.events()?;
    let failed =
        events.iter().find(|event| event["kind"] == "failed").ok_or("no event tells of the failure")?;
    if failed["reason"].as_str().is_none_or(str::is_empty) {
        return Err(format!("no reason: {failed}").into());
    }
    wait_for("all partitions to be gone", 5, || {
        let left = bench.processes().into_iter().filter(|(_, line)| line.contains("vmm run")).count();
        Ok((left == 0).then_some(()))
    })?;
    cluster.end()
}

#[test]
fn a_killed_coordinator_goes_on_where_it_was() -> Result {
    let bench = Bench::new()?;
    let steps = amount(200_000, 6_000);
    let expected = still(&bench, steps)?;
    let mut cluster = Cluster::start(&bench, &["--imbalance-threshold=1000000"], &AGENTS)?;
    let mut client = cluster.submit(&manifest(&bench, steps, true)?)?;
    let mut before = cluster.wait_running(RANKS as usize)?;
    cluster.kill_coordinator()?;
    cluster.start_coordinator()?;
    let mut after = cluster.wait_running(RANKS as usize)?;
    before.sort_unstable();
    after.sort_unstable();
    if before != after {
        return Err(Error::from(format!("other processes: {before:?}, now {after:?}")));
    }
    let status = cluster.watch(&mut client, 60)?;
    expect_output(&client, status, &expected, &cluster)?;
    cluster.end()
}

//! Coordinator, agents and partitions together: moves for a reason, and deaths.

use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use partita_tests::cluster::Cluster;
use partita_tests::{
    Bench, Error, Process, Result, amount, binaries, is_emulated, promised, with_longer_programs,
};

const RANKS: u32 = 2;
const AGENTS: [(&str, &str, bool); 3] = [("a", "0", false), ("b", "1", false), ("c", "0", true)];

/// Arguments of heat that keep its ranks busy, unevenly.
fn arguments(steps: u64) -> Vec<String> {
    let text = format!("--size 48 --steps {steps} --seed 5 --every 50 --work 8,5");
    text.split(' ').map(str::to_owned).collect()
}

/// Arguments of heat whose first half of the rows costs nine times as much as the other, and may change hands.
fn shared_arguments(steps: u64) -> Vec<String> {
    let text = format!("--size 48 --steps {steps} --seed 5 --every 50 --work 8,0 --balance 50");
    text.split(' ').map(str::to_owned).collect()
}

/// All ranks on host a.
fn manifest(bench: &Bench, steps: u64, migrate: bool) -> Result<PathBuf> {
    write_manifest(bench, &arguments(steps), ["a", "a"], migrate)
}

fn write_manifest(
    bench: &Bench,
    arguments: &[String],
    hosts: [&str; RANKS as usize],
    migrate: bool,
) -> Result<PathBuf> {
    let list: Vec<_> = arguments.iter().map(|argument| format!("{argument:?}")).collect();
    let pins: String = hosts.iter().enumerate().map(|(rank, host)| format!("{rank} = {host:?}\n")).collect();
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
fn still(bench: &Bench, arguments: &[String]) -> Result<Vec<u8>> {
    let mut command = bench.vmm(["run", "--np", &RANKS.to_string(), "--memory", "64M"])?;
    command.arg(binaries::app("heat")?).args(arguments);
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
    let period = if is_emulated() { "--period-ms=2000" } else { "--period-ms=200" };
    let sustain = if is_emulated() { "--sustain-s=6" } else { "--sustain-s=2" };
    with_longer_programs(|factor| {
        let bench = Bench::new()?;
        let steps = amount(200_000, 8_000) * factor;
        let expected = still(&bench, &arguments(steps))?;
        let cluster = Cluster::start(&bench, &[period, sustain, "--cooldown-s=5"], &AGENTS)?;
        let mut client = cluster.submit(&manifest(&bench, steps, true)?)?;
        let status = cluster.watch(&mut client, 60)?;
        expect_output(&client, status, &expected, &cluster)?;
        let application = cluster.application()?.ok_or("no application")?;
        let moves = application["moves"].as_array().cloned().unwrap_or_default();
        for made in &moves {
            println!("{} -> {}: {} ({} ms)", made["from"], made["to"], made["reason"], made["blackout_ms"]);
        }
        if moves.is_empty() {
            println!("{}", cluster.describe());
            return Ok(false);
        }
        if moves.iter().any(|it| it["reason"].as_str().is_none_or(str::is_empty)) {
            return Err(format!("a move without a reason\n{}", cluster.describe()).into());
        }
        cluster.end()?;
        Ok(true)
    })
}

#[test]
fn a_killed_partition_ends_its_application() -> Result {
    let bench = Bench::new()?;
    let cluster = Cluster::start(&bench, &["--imbalance-threshold=1000000"], &AGENTS)?;
    let mut client = cluster.submit(&manifest(&bench, 100_000_000, false)?)?;
    let pids = cluster.wait_running(RANKS as usize, &mut [&mut client])?.ok_or("it ended")?;
    kill(Pid::from_raw(pids[1]), Signal::SIGKILL)?;
    let status = promised("the end of the application", 10, || client.status())
        .map_err(|e| format!("{e}\n{}\n{}", client.describe(), cluster.describe()))?;
    if status != 137 {
        return Err(format!("status {status}, not 137\n{}\n{}", client.describe(), cluster.describe()).into());
    }
    let events = cluster.events()?;
    let failed =
        events.iter().find(|event| event["kind"] == "failed").ok_or("no event tells of the failure")?;
    if failed["reason"].as_str().is_none_or(str::is_empty) {
        return Err(format!("no reason: {failed}").into());
    }
    promised("all partitions to be gone", 5, || {
        let left = bench.processes().into_iter().filter(|(_, line)| line.contains("vmm run")).count();
        Ok((left == 0).then_some(()))
    })?;
    cluster.end()
}

#[test]
fn a_killed_coordinator_goes_on_where_it_was() -> Result {
    with_longer_programs(|factor| {
        let bench = Bench::new()?;
        let steps = amount(200_000, 6_000) * factor;
        let expected = still(&bench, &arguments(steps))?;
        let mut cluster = Cluster::start(&bench, &["--imbalance-threshold=1000000"], &AGENTS)?;
        let mut client = cluster.submit(&manifest(&bench, steps, true)?)?;
        let before = cluster.wait_running(RANKS as usize, &mut [&mut client])?;
        cluster.kill_coordinator()?;
        cluster.start_coordinator()?;
        let after = cluster.wait_running(RANKS as usize, &mut [&mut client])?;
        let (Some(mut before), Some(mut after)) = (before, after) else { return Ok(false) };
        before.sort_unstable();
        after.sort_unstable();
        if before != after {
            return Err(Error::from(format!("other processes: {before:?}, now {after:?}")));
        }
        let status = cluster.watch(&mut client, 60)?;
        expect_output(&client, status, &expected, &cluster)?;
        cluster.end()?;
        Ok(true)
    })
}

/// The data are uneven, not the hosts: work changes hands inside the program, no partition moves, and the result is the same.
#[test]
fn a_program_with_uneven_data_shares_its_rows_out_as_the_coordinator_says() -> Result {
    let period = if is_emulated() { "--period-ms=1000" } else { "--period-ms=300" };
    // As if the hosts were on several machines: messages over TCP.
    let network = ["--fabric-address=127.0.0.1"];
    with_longer_programs(|factor| {
        let bench = Bench::new()?;
        let arguments = shared_arguments(amount(600_000, 12_000) * factor);
        let expected = still(&bench, &arguments)?;
        let options = [period, "--imbalance-threshold=1000000"];
        let cluster = Cluster::start_with(&bench, &options, &AGENTS, &network)?;
        let mut client = cluster.submit(&write_manifest(&bench, &arguments, ["a", "b"], false)?)?;
        let status = cluster.watch(&mut client, 90)?;
        expect_output(&client, status, &expected, &cluster)?;
        let events = cluster.events()?;
        let shared: Vec<_> = events.iter().filter(|event| event["kind"] == "units-shared").collect();
        for event in &shared {
            println!("{}: {}", event["text"], event["reason"]);
        }
        let taken_up = client.stderr().matches("rows shared out anew").count();
        println!("shared out {} times, taken up {taken_up} times", shared.len());
        if shared.is_empty() || taken_up == 0 {
            println!("{}", cluster.describe());
            return Ok(false);
        }
        cluster.end()?;
        Ok(true)
    })
}

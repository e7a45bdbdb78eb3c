//! More than one coordinator: a real etcd, real agents, and stand-ins for `vmm`.

mod common;

use std::time::Duration;

use common::{Cluster, Result};
use nix::sys::signal::Signal;

/// A coordinator that never moves anything by itself, and bears that others are slow.
const CALM: &[&str] = &["--imbalance-threshold=1000000", "--host-timeout-s=10"];

fn is_running(cluster: &Cluster) -> Result<bool> {
    Ok(cluster.partition(0)?["state"] == "running" && cluster.partition(1)?["state"] == "running")
}

fn migrate(cluster: &Cluster, id: &str, host: &str) -> Result {
    let order = cluster.client(&["migrate", id, "0", host])?;
    if order.status.success() { Ok(()) } else { Err(format!("{order:?}").into()) }
}

#[test]
fn a_standby_takes_over_from_a_killed_leader_and_applications_go_on() -> Result {
    let mut cluster = Cluster::start_two(CALM, &["a", "b"])?;
    let id = cluster.submit(&cluster.held_manifest(2, 200, 10, "")?)?;
    cluster.wait_running(&id)?;
    migrate(&cluster, &id, "b")?;
    let pids = [cluster.partition(0)?["pid"].clone(), cluster.partition(1)?["pid"].clone()];
    cluster.kill_one(0)?;
    cluster.wait("the standby leads", 30, |it| Ok(it.leader()? == Some(1)))?;
    cluster.wait("all run", 20, is_running)?;
    assert_eq!([cluster.partition(0)?["pid"].clone(), cluster.partition(1)?["pid"].clone()], pids);
    assert_eq!((cluster.placement()?.as_str(), &cluster.partition(0)?["epoch"]), ("bb", &2.into()));
    // The one that was killed comes back as standby, and sends everybody away.
    cluster.launch(0)?;
    cluster.wait("a standby", 10, |it| {
        let answer = it.client_of(0, &["hosts"])?;
        Ok(String::from_utf8_lossy(&answer.stderr).contains("this coordinator is a standby"))
    })?;
    // Nothing runs on the other host, so nobody has waited for its agent to find the new leader.
    cluster.wait("both hosts", 20, |it| {
        let hosts = it.json(&["hosts"])?;
        Ok(hosts.as_array().is_some_and(|all| all.iter().all(|host| !host["silent_s"].is_null())))
    })?;
    migrate(&cluster, &id, "a")?;
    assert_eq!(cluster.partition(0)?["epoch"], 3);
    let starts = cluster.kinds()?.iter().filter(|kind| *kind == "coordinator-started").count();
    assert_eq!(starts, 2);
    cluster.let_end()?;
    let app = cluster.wait_state(&id, "done", 20)?;
    assert_eq!(app["exit_status"], 0);
    cluster.wait_nothing_left()
}

#[test]
fn applications_go_on_while_etcd_is_started_again() -> Result {
    let mut cluster = Cluster::start_two(CALM, &["a", "b"])?;
    let id = cluster.submit(&cluster.held_manifest(2, 200, 10, "")?)?;
    cluster.wait_running(&id)?;
    // Shorter and longer than the lease.
    for (pause_s, host) in [(0, "b"), (5, "a")] {
        cluster.restart_etcd(Duration::from_secs(pause_s))?;
        cluster.wait("a leader", 40, |it| Ok(it.leader()?.is_some()))?;
        cluster.wait("all run", 20, is_running)?;
        cluster.wait("a move", 30, |it| migrate(it, &id, host).map(|()| true))?;
    }
    let lost = cluster.kinds()?.contains(&"host-lost".to_owned());
    assert!(!lost, "no host is lost because the coordinator could not listen to it");
    cluster.let_end()?;
    cluster.wait_state(&id, "done", 20)?;
    cluster.wait_nothing_left()
}

#[test]
fn a_leader_that_was_replaced_is_refused() -> Result {
    let cluster = Cluster::start_two(CALM, &["a", "b"])?;
    let id = cluster.submit(&cluster.held_manifest(2, 200, 10, "")?)?;
    cluster.wait_running(&id)?;
    cluster.signal_one(0, Signal::SIGSTOP)?;
    let leads = |it: &Cluster| Ok(it.client_of(1, &["hosts"])?.status.success());
    cluster.wait("the standby leads", 30, leads)?;
    cluster.signal_one(0, Signal::SIGCONT)?;
    // It does not know yet that it was replaced; its first decision tells it.
    let manifest = cluster.manifest(1, 1, 1, "")?.display().to_string();
    let refused = cluster.client_of(0, &["submit", &manifest])?;
    assert!(!refused.status.success(), "{refused:?}");
    cluster.wait("it stands by", 20, |it| {
        let answer = it.client_of(0, &["hosts"])?;
        Ok(String::from_utf8_lossy(&answer.stderr).contains("this coordinator is a standby"))
    })?;
    let apps = cluster.client_of(1, &["apps", "--json"])?;
    let apps: serde_json::Value = serde_json::from_slice(&apps.stdout)?;
    assert_eq!(apps.as_array().map(Vec::len), Some(1), "{apps}");
    cluster.wait("all run", 30, is_running)?;
    cluster.let_end()?;
    cluster.wait_state(&id, "done", 20)?;
    cluster.wait_nothing_left()
}

#[test]
fn agents_refuse_a_coordinator_with_an_older_token() -> Result {
    let mut cluster = Cluster::start(&["--host-timeout-s=60"], &["a"])?;
    let (state, copy) = (cluster.path().join("state.redb"), cluster.path().join("old.redb"));
    let heard = |it: &Cluster| Ok(it.json(&["hosts"])?[0]["silent_s"].is_number());
    cluster.kill_coordinator()?;
    std::fs::copy(&state, &copy)?;
    for _ in 0..2 {
        cluster.start_coordinator()?;
        cluster.wait("a is back", 10, heard)?;
        cluster.kill_coordinator()?;
    }
    std::fs::rename(&copy, &state)?;
    cluster.start_coordinator()?;
    let id = cluster.submit(&cluster.manifest(1, 1, 1, "")?);
    assert!(id.is_err() || cluster.wait_state(&id?, "running", 3).is_err(), "it was obeyed");
    assert!(cluster.vmms()?.is_empty());
    let epochs = std::fs::read_to_string(cluster.path().join("a/epochs.json"))?;
    assert!(epochs.contains("\"fence\":3"), "{epochs}");
    Ok(())
}

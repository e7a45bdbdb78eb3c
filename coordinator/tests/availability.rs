//! More than one coordinator: a real etcd, real agents, and stand-ins for `vmm`.

mod common;

use std::time::Duration;

use common::{Cluster, Result, STILL};
use nix::sys::signal::Signal;

fn is_running(cluster: &Cluster) -> Result<bool> {
    Ok(cluster.partition(0)?["state"] == "running" && cluster.partition(1)?["state"] == "running")
}

/// Waits until one leads and the other sends everybody away; which one leads. A machine that stands still for longer than the
/// lease changes that, and no test counts on it not doing so.
fn one_leads(cluster: &Cluster) -> Result<usize> {
    cluster.soon("one leader and one standby", |it| {
        let answers = [it.client_of(0, &["hosts"])?, it.client_of(1, &["hosts"])?];
        let leads = |which: usize| answers[which].status.success();
        let stands_by = |which: usize| {
            let said = String::from_utf8_lossy(&answers[which].stderr);
            said.contains("this coordinator is a standby")
        };
        let leader = (0..2).find(|which| leads(*which) && stands_by(1 - *which));
        leader.ok_or_else(|| format!("{answers:?}").into())
    })
}

/// Nobody led who was not the next: as often as one started to lead, by the journal, so many tokens were given. How often.
fn starts(cluster: &Cluster) -> Result<usize> {
    let events = cluster.soon("the events", |it| it.json(&["events"]))?;
    let events = events.as_array().ok_or("no list")?;
    let starts: Vec<_> = events.iter().filter(|event| event["kind"] == "coordinator-started").collect();
    for (index, event) in starts.iter().enumerate() {
        let text = event["text"].as_str().unwrap_or_default();
        assert!(text.contains(&format!("for the {}. time", index + 1)), "{starts:?}");
    }
    Ok(starts.len())
}

/// Moves rank 0. A leader may go during that, and then its outcome is what another one says.
fn migrate(cluster: &Cluster, id: &str, host: &str) -> Result {
    cluster.soon("a move", |it| {
        if it.partition(0)?["host"] == host {
            return Ok(());
        }
        let order = it.client(&["migrate", id, "0", host])?;
        if order.status.success() { Ok(()) } else { Err(format!("{order:?}").into()) }
    })
}

/// What does not change while nothing moves: host and epoch of rank 0, hosts, and processes.
fn whereabouts(cluster: &Cluster) -> Result<(String, u64, String, [u64; 2])> {
    cluster.soon("where everything is", |it| {
        let (first, second) = (it.partition(0)?, it.partition(1)?);
        let pid = |of: &serde_json::Value| of["pid"].as_u64().ok_or("no pid");
        let host = first["host"].as_str().ok_or("no host")?.to_owned();
        Ok((host, first["epoch"].as_u64().ok_or("no epoch")?, it.placement()?, [pid(&first)?, pid(&second)?]))
    })
}

#[test]
fn a_standby_takes_over_from_a_killed_leader_and_applications_go_on() -> Result {
    let mut cluster = Cluster::start_two(STILL, &["a", "b"])?;
    let id = cluster.submit(&cluster.held_manifest(2, 200, 10, "")?)?;
    cluster.wait_running(&id)?;
    migrate(&cluster, &id, "b")?;
    cluster.wait("all run", is_running)?;
    let before = whereabouts(&cluster)?;
    // A move that a leader left behind is made again, with the next epoch.
    assert!(before.1 >= 2 && before.2 == "bb", "{before:?}");
    let starts_before = starts(&cluster)?;
    let leader = one_leads(&cluster)?;
    cluster.kill_one(leader)?;
    cluster.wait("the other leads", |it| Ok(it.leader()? == Some(1 - leader)))?;
    assert!(starts(&cluster)? > starts_before);
    cluster.wait("all run", is_running)?;
    assert_eq!(whereabouts(&cluster)?, before);
    // The one that was killed comes back as standby, and sends everybody away.
    cluster.launch(leader)?;
    one_leads(&cluster)?;
    // Nothing runs on the other host, so nobody has waited for its agent to find the new leader.
    cluster.wait("both hosts", Cluster::all_heard)?;
    migrate(&cluster, &id, "a")?;
    cluster.wait("all run", is_running)?;
    let after = whereabouts(&cluster)?;
    assert!(after.1 > before.1 && after.2 == "ab" && after.3[1] == before.3[1], "{before:?}, then {after:?}");
    starts(&cluster)?;
    cluster.let_end()?;
    let app = cluster.wait_state(&id, "done")?;
    assert_eq!(app["exit_status"], 0);
    cluster.wait_nothing_left()
}

#[test]
fn applications_go_on_while_etcd_is_started_again() -> Result {
    let mut cluster = Cluster::start_two(STILL, &["a", "b"])?;
    let id = cluster.submit(&cluster.held_manifest(2, 200, 10, "")?)?;
    cluster.wait_running(&id)?;
    // Shorter and longer than the lease.
    for (pause_s, host) in [(0, "b"), (7, "a")] {
        cluster.restart_etcd(Duration::from_secs(pause_s))?;
        cluster.wait("a leader", |it| Ok(it.leader()?.is_some()))?;
        cluster.wait("all run", is_running)?;
        migrate(&cluster, &id, host)?;
    }
    let lost = cluster.soon("the events", Cluster::kinds)?.contains(&"host-lost".to_owned());
    assert!(!lost, "no host is lost because the coordinator could not listen to it");
    cluster.let_end()?;
    cluster.wait_state(&id, "done")?;
    cluster.wait_nothing_left()
}

#[test]
fn a_leader_that_was_replaced_is_refused() -> Result {
    let cluster = Cluster::start_two(STILL, &["a", "b"])?;
    let id = cluster.submit(&cluster.held_manifest(2, 200, 10, "")?)?;
    cluster.wait_running(&id)?;
    let leader = one_leads(&cluster)?;
    cluster.signal_one(leader, Signal::SIGSTOP)?;
    let leads = |it: &Cluster| Ok(it.client_of(1 - leader, &["hosts"])?.status.success());
    cluster.wait("the standby leads", leads)?;
    cluster.signal_one(leader, Signal::SIGCONT)?;
    // It does not know yet that it was replaced; its first decision tells it.
    let manifest = cluster.manifest(1, 1, 1, "")?.display().to_string();
    let refused = cluster.client_of(leader, &["submit", &manifest])?;
    assert!(!refused.status.success(), "{refused:?}");
    one_leads(&cluster)?;
    starts(&cluster)?;
    let apps = cluster.soon("the applications", |it| it.json(&["apps"]))?;
    assert_eq!(apps.as_array().map(Vec::len), Some(1), "{apps}");
    cluster.wait("all run", is_running)?;
    cluster.let_end()?;
    cluster.wait_state(&id, "done")?;
    cluster.wait_nothing_left()
}

/// The highest token that the agent of host a has seen.
fn fence(cluster: &Cluster) -> Result<u64> {
    let epochs: serde_json::Value =
        serde_json::from_slice(&std::fs::read(cluster.path().join("a/epochs.json"))?)?;
    Ok(epochs["fence"].as_u64().ok_or("no token")?)
}

#[test]
fn agents_refuse_a_coordinator_with_an_older_token() -> Result {
    let mut cluster = Cluster::start(STILL, &["a"])?;
    let (state, copy) = (cluster.path().join("state.redb"), cluster.path().join("old.redb"));
    cluster.kill_coordinator()?;
    std::fs::copy(&state, &copy)?;
    for number in 2..4 {
        cluster.start_coordinator()?;
        cluster.wait("a is back", Cluster::all_heard)?;
        // Its agent keeps what it has heard before it reports again.
        cluster.wait("it knows the token", |it| Ok(fence(it)? == number))?;
        cluster.kill_coordinator()?;
    }
    std::fs::rename(&copy, &state)?;
    cluster.start_coordinator()?;
    cluster.wait("it has reported to the one with the older token", Cluster::all_heard)?;
    let id = cluster.submit(&cluster.manifest(1, 1, 1, "")?)?;
    // It asks for commands about once a second, and gets this one every time.
    let runs = |it: &Cluster| {
        let state = it.app(&id)?["state"].clone();
        if ["running", "done"].iter().any(|it| state == *it) { Ok(()) } else { Err("it does not run".into()) }
    };
    assert!(cluster.within(Duration::from_secs(3), "it runs", runs).is_err(), "it was obeyed");
    assert!(cluster.vmms()?.is_empty());
    assert_eq!(fence(&cluster)?, 3);
    Ok(())
}

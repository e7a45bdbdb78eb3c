//! Latency, with the real coordinator and agents that are maps: two partitions that only talk to each other, one at a time.

// Not all of it is needed here.
#[allow(dead_code)]
mod world;

use control::{ApplicationId, PeerTraffic, Rank, Strategy};
use world::{Result, STEP_MS, World};

/// Seconds that a message takes between two hosts.
const APART_S: f64 = 1e-3;
/// And on one, with what is computed between two messages.
const TOGETHER_S: f64 = 1e-4;

/// Two ranks that pass a token to and fro, placed on two hosts.
fn chatty(world: &mut World) -> Result<ApplicationId> {
    let mut specification = World::application("a", 2);
    specification.strategy = Strategy::Pinned;
    specification.pinned = [(0, "h1".parse()?), (1, "h2".parse()?)].into();
    Ok(world.cluster.submit(world.now_ms, specification, None)?)
}

fn is_together(world: &World, id: &ApplicationId) -> bool {
    let placement = world.placement(id);
    placement.len() == 4 && placement[..2] == placement[2..]
}

/// One step, in which they exchange as many messages as their hosts let them, and compute for the rest of the time.
fn step(world: &mut World, id: &ApplicationId) -> Result {
    let together = is_together(world, id);
    let lap_s = 2.0 * if together { TOGETHER_S } else { APART_S };
    let laps = STEP_MS as f64 / 1000.0 / lap_s;
    // Half of a lap is the other's.
    let busy = TOGETHER_S / lap_s;
    world.demand.insert("a".into(), busy);
    for rank in 0..2_u32 {
        let counters = world.counters.entry((id.clone(), rank as Rank)).or_default();
        let peer = 1 - rank;
        if counters.peers.is_empty() {
            counters.peers.push(PeerTraffic {
                rank: peer,
                bytes_sent: 0,
                bytes_received: 0,
                messages_sent: 0,
                messages_received: 0,
                wait_ns: 0,
                round_trip_ns: None,
                round_trip_p99_ns: None,
            });
        }
        let traffic = &mut counters.peers[0];
        traffic.messages_sent += laps as u64;
        traffic.bytes_sent += 64 * laps as u64;
        traffic.round_trip_ns = (!together).then_some((2e9 * APART_S) as u64);
    }
    world.step()
}

#[test]
fn chatty_partitions_that_were_placed_apart_come_together_and_stay() -> Result {
    let mut world = World::new(&["h1", "h2"], 11)?;
    world.noise = 0.05;
    let id = chatty(&mut world)?;
    let mut steps = 0;
    while !is_together(&world, &id) {
        step(&mut world, &id)?;
        steps += 1;
        assert!(steps < 100, "{}", world.cluster.plan(world.now_ms).explanation);
    }
    let moves = |world: &World| {
        let events = world.cluster.events(0).events;
        events.iter().filter(|it| it.kind == "move-started").count()
    };
    assert_eq!(moves(&world), 1);
    // Together they are busier by far; apart each of them would wait for the other again.
    for _ in 0..1000 {
        step(&mut world, &id)?;
    }
    assert!(is_together(&world, &id));
    assert_eq!(moves(&world), 1);
    Ok(())
}

#[test]
fn latency_that_counts_for_nothing_brings_nobody_together() -> Result {
    let mut world = World::new(&["h1", "h2"], 11)?;
    let mut policy = control::Policy::default();
    policy.gates.latency_s = Some(0.0);
    world.cluster.set_policy(world.now_ms, policy)?;
    let id = chatty(&mut world)?;
    for _ in 0..200 {
        step(&mut world, &id)?;
    }
    assert!(!is_together(&world, &id));
    Ok(())
}

//! The elastic pool, with the real coordinator and agents that are a few maps: growing, shrinking, passing hosts on, crashes; and
//! how soon the coordinator acts, in a time that the tests make.

mod world;

use control::{ApplicationId, HostAction, HostOrder, MigrateOrder, Policy, PoolMode, PoolPolicy};
use world::{Result, STEP_MS, World};

fn leased() -> Policy {
    let pool =
        PoolPolicy { mode: PoolMode::Leased, sustain_s: 5.0, lease_min_s: 60.0, ..PoolPolicy::default() };
    Policy { pool, ..Policy::default() }
}

/// `a` on two hosts and `b` on one, all of them busy.
fn two_applications(seed: u64) -> Result<(World, ApplicationId, ApplicationId)> {
    let mut world = World::new(&["h1", "h2", "h3"], seed)?;
    world.noise = 0.1;
    world.cluster.set_policy(world.now_ms, leased())?;
    world.demand = [("a".to_owned(), 0.9), ("b".to_owned(), 0.9)].into();
    let a = world.cluster.submit(world.now_ms, World::application("a", 2), None)?;
    world.step()?;
    let b = world.cluster.submit(world.now_ms, World::application("b", 2), None)?;
    world.run(40)?;
    assert_eq!((world.placement(&a).as_str(), world.placement(&b).as_str()), ("h1h2", "h3h3"));
    Ok((world, a, b))
}

/// Hand-overs so far.
fn handovers(world: &World) -> usize {
    let events = world.cluster.events(0).events;
    events.iter().filter(|it| it.kind == "host-changed" && it.text.contains("draining")).count()
}

#[test]
fn the_host_of_an_idle_application_goes_to_the_other_and_comes_back_without_oscillation() -> Result {
    let (mut world, a, b) = two_applications(7)?;
    world.run(400)?;
    assert_eq!(handovers(&world), 0, "both are busy");
    world.demand.insert("a".into(), 0.05);
    world.until("b has a second host", 200, |it| {
        let placement = it.placement(&b);
        placement.contains("h3") && placement != "h3h3"
    })?;
    assert_eq!(world.placement(&a).len(), 4, "a runs on");
    world.run(1000)?;
    assert_eq!(handovers(&world), 1, "a is idle, and stays so");
    world.demand.insert("a".into(), 0.9);
    world.until("a has it back", 600, |it| {
        let placement = it.placement(&a);
        placement.contains("h1") && placement.contains("h2")
    })?;
    assert_eq!(world.placement(&b), "h3h3");
    // 1000 epochs of noise around constant demands: nothing is handed over any more.
    world.run(2000)?;
    assert_eq!(handovers(&world), 2);
    let held = world.cluster.explain_host(world.now_ms, &"h1".parse()?)?;
    let decision = held.decisions.iter().find(|it| it.what.contains("b-2")).ok_or("no decision")?;
    assert!(decision.verdict.contains(" is not "), "{decision:?}");
    Ok(())
}

/// Of two ranks on one processor one may wait for the other instead of for the processor: it needs one of its own all the same.
#[test]
fn a_rank_that_waits_for_a_starved_one_counts_as_starved() -> Result {
    let (mut world, _, b) = two_applications(5)?;
    for _ in 0..40 {
        // Both have half of the processor; 0.1 of the time they wait for other reasons.
        world.counters.entry((b.clone(), 0)).or_default().wait_ns += 4 * STEP_MS * 100_000;
        world.step()?;
    }
    let held = world.cluster.explain_host(world.now_ms, &"h1".parse()?)?;
    let decision = held.decisions.iter().find(|it| it.what.contains("b-2")).ok_or("no decision")?;
    let gain = decision.gates.iter().find(|it| it.name == "gain less loss").ok_or("no gate")?;
    // Two processors for a demand of 1 / 0.6; a's loss is 1 - 1 / 1.8.
    assert!((gain.value - (0.4 - 0.44)).abs() < 0.08, "{gain:?}");
    Ok(())
}

#[test]
fn a_crash_after_any_record_of_a_hand_over_is_recovered() -> Result {
    let (mut world, a, b) = two_applications(3)?;
    let first = world.journal.len();
    world.demand.insert("a".into(), 0.05);
    let done = |world: &World, b: &ApplicationId| {
        let placement = world.placement(b);
        placement.contains("h3") && placement != "h3h3"
    };
    world.until("b has a second host", 200, |it| done(it, &b))?;
    let records = world.journal.len() - first;
    assert!(records >= 5, "{records} records are no hand-over");
    for record in 0..records {
        let (mut world, a_again, b) = two_applications(3)?;
        assert_eq!(a, a_again);
        world.demand.insert("a".into(), 0.05);
        // The journal is written record by record: the crash comes as soon as this one is there.
        world.until("the record", 400, |it| it.journal.len() > first + record)?;
        world.restart()?;
        world
            .until("b has a second host", 400, |it| done(it, &b))
            .map_err(|error| format!("after record {record}: {error}"))?;
        assert_eq!(world.placement(&a).len(), 4, "a runs, once each");
        world.run(20)?;
        assert!(world.cluster.state().open_moves().next().is_none());
    }
    Ok(())
}

#[test]
fn overload_activates_a_standby_host_and_underload_empties_and_frees_one() -> Result {
    let mut world = World::new(&["h1", "h2+"], 1)?;
    let pool = PoolPolicy {
        underload: 0.4,
        sustain_s: 5.0,
        hook: Some("/bin/true".into()),
        ..PoolPolicy::default()
    };
    world.cluster.set_policy(world.now_ms, Policy { pool, ..Policy::default() })?;
    world.demand.insert("a".into(), 0.6);
    let a = world.cluster.submit(world.now_ms, World::application("a", 2), None)?;
    world.until("a on two hosts", 200, |it| {
        it.placement(&a).contains("h1") && it.placement(&a).contains("h2")
    })?;
    assert_eq!(world.hooks, ["h2 activate"]);
    world.run(100)?;
    assert_eq!(world.host("h2"), "active");
    world.demand.insert("a".into(), 0.1);
    world.until("one is freed", 400, |it| it.host("h1") == "standby" || it.host("h2") == "standby")?;
    assert_eq!((world.hooks.len(), world.placement(&a).len()), (2, 4));
    assert!(world.hooks[1].ends_with("release"));
    let before = world.journal.len();
    world.run(500)?;
    let changes = world.cluster.events(before as u64).events;
    assert!(!changes.iter().any(|it| it.kind.starts_with("ho")), "{changes:?}");
    Ok(())
}

#[test]
fn a_queued_application_gets_what_another_leaves_and_a_drain_that_cannot_end_is_given_back() -> Result {
    let mut world = World::new(&["h1", "h2"], 1)?;
    let mut policy = leased();
    policy.pool.drain_timeout_s = 20.0;
    world.cluster.set_policy(world.now_ms, policy)?;
    let mut wide = World::application("a", 2);
    wide.migrate = false;
    let a = world.cluster.submit(world.now_ms, wide, None)?;
    world.run(10)?;
    let b = world.cluster.submit(world.now_ms, World::application("b", 1), None)?;
    world.run(20)?;
    assert!(world.placement(&b).is_empty(), "it waits");
    let order = |action| -> Result<HostOrder> { Ok(HostOrder { host: "h1".parse()?, action }) };
    world.cluster.order_host(world.now_ms, &order(HostAction::Drain)?)?;
    world.run(100)?;
    assert_eq!(world.host("h1"), "draining a-1", "an operator's drain lasts until an operator ends it");
    let refused = world.cluster.order_host(world.now_ms, &order(HostAction::Release)?);
    assert!(refused.is_err_and(|error| error.to_string().contains("drain it first")));
    world.cluster.order_host(world.now_ms, &order(HostAction::Uncordon)?)?;
    assert_eq!(world.host("h1"), "leased a-1");
    world.finish(&a);
    world.until("b runs", 50, |it| !it.placement(&b).is_empty())?;
    Ok(())
}

#[test]
fn partitions_of_one_application_that_move_in_one_wave_switch_over_together() -> Result {
    let mut world = World::new(&["h1", "h2", "h3"], 5)?;
    world.demand = [("a".to_owned(), 0.1)].into();
    let a = world.cluster.submit(world.now_ms, World::application("a", 6), None)?;
    world.run(6)?;
    assert_eq!(world.placement(&a), "h1h2h3h1h2h3");
    let drain = HostOrder { host: "h1".parse()?, action: HostAction::Drain };
    world.cluster.order_host(world.now_ms, &drain)?;
    world.until("h1 is empty", 200, |it| !it.placement(&a).contains("h1"))?;
    let [(first_ms, 0 | 3), (second_ms, 0 | 3)] = world.switches[..] else {
        return Err(format!("{:?}", world.switches).into());
    };
    assert_eq!(first_ms, second_ms);
    // A single move waits for nobody.
    let order = MigrateOrder { application: a.clone(), rank: 1, to: "h3".parse()? };
    world.cluster.migrate(world.now_ms, &order)?;
    world.until("rank 1 is at h3", 50, |it| it.placement(&a).matches("h3").count() >= 3)?;
    assert_eq!(world.switches.len(), 2);
    Ok(())
}

#[test]
fn a_journal_is_replayed_to_the_same_plans_and_to_others_under_another_policy() -> Result {
    let mut world = World::new(&["h1", "h2"], 5)?;
    let mut specification = World::application("a", 3);
    specification.strategy = control::Strategy::Pinned;
    specification.pinned = (0..3).map(|rank| Ok((rank, "h1".parse()?))).collect::<Result<_>>()?;
    world.demand.insert("a".into(), 0.5);
    world.noise = 0.05;
    let a = world.cluster.submit(world.now_ms, specification, None)?;
    world.until("a move", 100, |it| it.placement(&a).contains("h2"))?;
    let plans = coordinator::history::replay(&world.journal, None);
    assert!(!plans.is_empty() && plans.iter().all(|it| it.same_inputs && !it.differs), "{plans:?}");
    let mut never = Policy::default();
    never.gates.imbalance = Some(1000.0);
    let plans = coordinator::history::replay(&world.journal, Some(&never));
    assert!(plans.iter().all(|it| it.differs && it.would.is_empty() && !it.same_inputs), "{plans:?}");
    let rule = control::PolicyRule {
        name: "together".into(),
        partitions: vec!["a".parse()?],
        demand: control::Demand::Together,
        price: None,
    };
    let plans = coordinator::history::replay(
        &world.journal,
        Some(&Policy { rules: vec![rule], ..Policy::default() }),
    );
    assert!(plans.iter().any(|it| it.would_explanation.contains("rule together")), "{plans:?}");
    Ok(())
}

#[test]
fn a_rule_that_is_broken_when_it_is_added_is_cured_within_two_epochs() -> Result {
    let mut world = World::new(&["h1", "h2"], 9)?;
    let mut specification = World::application("a", 2);
    specification.strategy = control::Strategy::Pinned;
    specification.pinned = [(0, "h1".parse()?), (1, "h1".parse()?)].into();
    let a = world.cluster.submit(world.now_ms, specification, None)?;
    world.run(20)?;
    assert_eq!(world.placement(&a), "h1h1");
    let rule = control::PolicyRule {
        name: "apart".into(),
        partitions: vec!["a".parse()?],
        demand: control::Demand::Apart,
        price: None,
    };
    let set_ms = world.now_ms;
    world.cluster.set_policy(set_ms, Policy { rules: vec![rule], ..Policy::default() })?;
    world.until("apart", 20, |it| it.placement(&a) != "h1h1")?;
    let events = world.cluster.events(0).events;
    let started = events.iter().find(|it| it.kind == "move-started").ok_or("no move")?;
    let took_ms = started.time_ms - set_ms;
    assert!(took_ms <= 2 * world::settings().period_ms, "{took_ms} ms");
    Ok(())
}

/// While a coordinator is stopped, or waits for its store, nobody can report to it.
#[test]
fn a_coordinator_that_was_held_up_blames_no_host_for_it() -> Result {
    let mut world = World::new(&["h1", "h2"], 2)?;
    world.run(10)?;
    let lost = |world: &World| {
        let events = world.cluster.events(0).events;
        events.iter().filter(|it| it.kind == "host-lost").count()
    };
    let timeout_ms = world::settings().host_timeout_ms;
    // It goes on before anybody has reported.
    world.now_ms += 10 * timeout_ms;
    world.cluster.tick(world.now_ms);
    world.run(10)?;
    assert_eq!(lost(&world), 0);
    // Time that passes for it as well counts.
    let silent_since_ms = world.now_ms;
    while lost(&world) < 2 {
        world.now_ms += STEP_MS;
        world.cluster.tick(world.now_ms);
        assert!(world.now_ms - silent_since_ms < 2 * timeout_ms, "nobody is lost");
    }
    assert!(world.now_ms - silent_since_ms > timeout_ms);
    Ok(())
}

//! What the planner promises, on snapshots made by hand.

use super::*;
use crate::checker;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn partition(rank: u32, host: usize, load: f64) -> PlanPartition {
    PlanPartition {
        application: 0,
        rank,
        host,
        load,
        variance: 1e-6,
        samples: 10,
        memory: 64 << 20,
        working: 0,
        block: None,
        fixed: None,
        cooling_s: 0.0,
        copy_s: 0.2,
        blackout_s: 0.05,
    }
}

fn snapshot(loads: &[&[f64]]) -> Result<Snapshot> {
    let mut snapshot = Snapshot {
        hosts: Vec::new(),
        applications: vec![PlanApplication { id: "heat-1".parse()?, weight: 1.0, quota: usize::MAX }],
        partitions: Vec::new(),
        edges: Vec::new(),
        blocks: Vec::new(),
        rules: Vec::new(),
        sustained_s: 60.0,
        suffered_s: 60.0,
        policy: 0,
        settings: Settings::default(),
    };
    for (index, loads) in loads.iter().enumerate() {
        snapshot.hosts.push(PlanHost {
            name: format!("h{index}").parse()?,
            capacity: 1.0,
            alpha: 1.0,
            memory: 1 << 30,
            memory_base: 0,
            reserve: 0.0,
            closed: None,
            evacuate: false,
        });
        for load in *loads {
            let rank = u32::try_from(snapshot.partitions.len())?;
            snapshot.partitions.push(partition(rank, index, *load));
        }
    }
    Ok(snapshot)
}

/// Plans, and lints the plan.
fn checked(snapshot: &Snapshot) -> Plan {
    let plan = plan(snapshot);
    assert_eq!(checker::check(snapshot, &plan), Vec::new(), "{}", plan.explanation);
    plan
}

fn hosts_after(snapshot: &Snapshot, plan: &Plan) -> Vec<usize> {
    let mut at: Vec<usize> = snapshot.partitions.iter().map(|it| it.host).collect();
    plan.steps.iter().for_each(|step| at[step.partition as usize] = step.to as usize);
    at
}

#[test]
fn the_same_snapshot_gives_the_same_plan() -> Result {
    let snapshot = snapshot(&[&[0.3, 0.3, 0.3], &[0.3], &[0.3]])?;
    let first = checked(&snapshot);
    assert_eq!(first.moves.len(), 1);
    assert_eq!((first.moves[0].rank, first.moves[0].to.as_str()), (0, "h1"), "ties go by index");
    assert_eq!(plan(&snapshot), first);
    let mut other = snapshot.clone();
    other.partitions[0].load += 1e-12;
    assert_ne!(plan(&other).inputs_hash, first.inputs_hash);
    Ok(())
}

#[test]
fn nothing_moves_when_balanced_and_that_is_explained() -> Result {
    for loads in [&[&[0.5, 0.2][..], &[0.7]][..], &[&[], &[]], &[&[1.0], &[]], &[&[0.01], &[]]] {
        let plan = checked(&snapshot(loads)?);
        assert!(plan.moves.is_empty(), "{}", plan.explanation);
        assert!(plan.explanation.len() > 10);
    }
    Ok(())
}

#[test]
fn each_gate_stops_a_move_that_would_otherwise_be_made_and_is_named() -> Result {
    let good = snapshot(&[&[0.4, 0.4], &[0.1]])?;
    assert_eq!(checked(&good).moves.len(), 1);
    type Spoil = fn(&mut Snapshot);
    let spoils: [(&str, Spoil); 11] = [
        ("sustained", |it| it.sustained_s = 1.0),
        ("loss suffered", |it| it.suffered_s = 0.0),
        ("cooling", |it| it.partitions.iter_mut().for_each(|p| p.cooling_s = 3.0)),
        ("memory", |it| {
            // Too much for the destination even if everything there left.
            it.partitions[..2].iter_mut().for_each(|p| p.memory = 2 << 30);
            it.hosts[0].memory = 8 << 30;
        }),
        ("migrate = false", |it| it.partitions.iter_mut().for_each(|p| p.fixed = Some("migrate = false"))),
        ("gain", |it| it.partitions.iter_mut().for_each(|p| p.variance = 0.1)),
        ("payback", |it| it.partitions.iter_mut().for_each(|p| p.copy_s = 1e5)),
        ("samples", |it| it.partitions.iter_mut().for_each(|p| p.samples = 1)),
        ("maintenance", |it| it.hosts[1].closed = Some("maintenance".into())),
        ("reserves", |it| it.hosts[1].reserve = 0.7),
        ("rule one", |it| {
            let kind = RuleKind::On(vec![0]);
            it.rules.push(Rule { name: "one".into(), kind, partitions: vec![0, 1, 2], price: None });
            it.partitions[2].host = 0;
            it.partitions[2].load = 0.0;
        }),
    ];
    for (word, spoil) in spoils {
        let mut bad = good.clone();
        spoil(&mut bad);
        let plan = checked(&bad);
        assert!(plan.moves.is_empty(), "{word}");
        let named = plan.explanation.contains(word)
            || plan.gates.iter().any(|gate| !gate.pass && gate.name.contains(word))
            || plan.candidates.iter().all(|it| it.verdict.contains(word));
        assert!(named && !plan.explanation.is_empty(), "{word}: {}", plan.explanation);
    }
    Ok(())
}

#[test]
fn a_swap_is_found_where_no_single_move_helps() -> Result {
    let plan = checked(&snapshot(&[&[0.5, 0.45], &[0.3, 0.25]])?);
    assert_eq!(plan.moves.len(), 2, "{}", plan.explanation);
    assert!(plan.moves[0].explanation.gain > 0.0 && plan.moves[0].explanation.together == 2);
    Ok(())
}

#[test]
fn partitions_that_talk_come_together_and_beta_decides() -> Result {
    let mut chatty = snapshot(&[&[0.1], &[0.1]])?;
    for (from, to) in [(0, 1), (1, 0)] {
        chatty.edges.push(Edge { from, to, bytes: 3e8, messages: 0.0 });
    }
    chatty.settings.beta_s_per_byte = 0.0;
    assert!(checked(&chatty).moves.is_empty(), "traffic costs nothing");
    chatty.settings.beta_s_per_byte = 1e-9;
    let plan = checked(&chatty);
    assert_eq!(plan.moves.len(), 1, "{}", plan.explanation);
    assert!((plan.work_max - 0.4).abs() < 1e-9 && (plan.work_max_after - 0.2).abs() < 1e-9);
    let peers = &plan.moves[0].explanation.terms.traffic_by_peer;
    assert!((peers[0].2 - 0.3).abs() < 1e-9, "{peers:?}");
    let reason = &plan.moves[0].reason;
    assert!(reason.starts_with("messages with rank 0 of heat-1 cost 0.30 s a second: rank 1"), "{reason}");
    // Few bytes, many messages.
    chatty.edges.iter_mut().for_each(|it| (it.bytes, it.messages) = (0.0, 1e4));
    assert!(checked(&chatty).moves.is_empty(), "latency costs nothing");
    chatty.settings.latency_s = 3e-5;
    assert_eq!(checked(&chatty).moves.len(), 1);
    Ok(())
}

#[test]
fn a_broken_rule_and_a_host_to_be_emptied_are_cured_at_once_whatever_it_costs() -> Result {
    let mut broken = snapshot(&[&[0.3, 0.3], &[0.3], &[0.3]])?;
    (broken.suffered_s, broken.sustained_s) = (0.0, 0.0);
    broken.partitions.iter_mut().for_each(|it| it.cooling_s = 100.0);
    let apart = Rule { name: "apart".into(), kind: RuleKind::AtMost(1), partitions: vec![0, 1], price: None };
    broken.rules.push(apart);
    let plan = checked(&broken);
    assert_eq!((plan.moves.len(), plan.mandatory), (1, 1));
    assert!(plan.moves[0].reason.contains("rule apart"), "{}", plan.moves[0].reason);
    let mut drained = snapshot(&[&[0.3, 0.3], &[0.3], &[0.3]])?;
    drained.hosts[0].evacuate = true;
    let plan = checked(&drained);
    assert!(!hosts_after(&drained, &plan).contains(&0), "{}", plan.explanation);
    drained.partitions[1].fixed = Some("it is not running");
    let plan = checked(&drained);
    assert!(
        plan.explanation.contains("h0 is to be emptied), but: it is not running"),
        "{}",
        plan.explanation
    );
    Ok(())
}

#[test]
fn memory_that_is_over_committed_is_freed_and_a_full_circle_goes_by_a_third_host() -> Result {
    let mut full = snapshot(&[&[0.1, 0.1], &[0.1]])?;
    full.hosts[0].memory = 100 << 20;
    let plan = checked(&full);
    assert_eq!(plan.mandatory, 1, "{}", plan.explanation);
    let mut circle = snapshot(&[&[0.1], &[0.1], &[]])?;
    circle.hosts.iter_mut().for_each(|host| host.memory = 100 << 20);
    for (partition, host) in [(0, 1), (1, 0)] {
        let kind = RuleKind::On(vec![host, 2]);
        circle.rules.push(Rule { name: "pin".into(), kind, partitions: vec![partition], price: None });
    }
    circle.rules.push(Rule {
        name: "never".into(),
        kind: RuleKind::NotOn(vec![2]),
        partitions: vec![],
        price: None,
    });
    let plan = checked(&circle);
    assert!(hosts_after(&circle, &plan).iter().all(|host| *host != usize::MAX));
    assert!(!plan.steps.is_empty(), "{}", plan.explanation);
    Ok(())
}

#[test]
fn the_checker_finds_what_a_plan_must_not_do() -> Result {
    let good = snapshot(&[&[0.4, 0.4], &[0.1]])?;
    let made = checked(&good);
    type Spoil = fn(&mut Snapshot);
    let spoils: [(&str, Spoil); 6] = [
        ("memory", |it| it.hosts[1].memory = 65 << 20),
        ("may not move", |it| it.partitions.iter_mut().for_each(|p| p.fixed = Some("x"))),
        ("takes nothing", |it| it.hosts[1].evacuate = true),
        ("still rests", |it| it.partitions.iter_mut().for_each(|p| p.cooling_s = 1.0)),
        ("get worse", |it| it.partitions[2].load = 5.0),
        ("rule r would be broken", |it| {
            let kind = RuleKind::NotOn(vec![1]);
            it.rules.push(Rule { name: "r".into(), kind, partitions: vec![0, 1], price: None });
        }),
    ];
    for (word, spoil) in spoils {
        let mut bad = good.clone();
        spoil(&mut bad);
        let findings = checker::check(&bad, &made);
        assert!(findings.iter().any(|it| it.to_string().contains(word)), "{word}: {findings:?}");
    }
    let mut twisted = made.clone();
    twisted.moves[0].to = "h0".parse()?;
    assert!(!checker::check(&good, &twisted).is_empty());
    twisted = made;
    twisted.steps[0].partition = 99;
    assert!(!checker::check(&good, &twisted).is_empty());
    Ok(())
}

#[test]
fn a_snapshot_with_numbers_that_are_none_is_refused() -> Result {
    let mut bad = snapshot(&[&[0.4, 0.4], &[0.1]])?;
    bad.partitions[0].load = f64::NAN;
    assert!(plan(&bad).moves.is_empty() && plan(&bad).explanation.contains("number"));
    bad.partitions[0].load = 0.4;
    bad.partitions[0].host = 7;
    assert!(plan(&bad).moves.is_empty() && loss(&bad) == 0.0 && !is_imbalanced(&bad));
    Ok(())
}

#[test]
fn an_application_s_explanation_names_the_gate_that_holds() -> Result {
    let mut quiet = snapshot(&[&[0.4, 0.4], &[0.1]])?;
    quiet.partitions.iter_mut().for_each(|it| it.cooling_s = 7.0);
    let explanation = explain_application(&quiet, 0).ok_or("no explanation")?;
    assert!(
        explanation.explanation.contains("cooling seconds 7.000 is above 0.000"),
        "{}",
        explanation.explanation
    );
    assert!(explanation.loss > 0.4 && explanation.candidates[0].gates.iter().any(|gate| !gate.pass));
    Ok(())
}

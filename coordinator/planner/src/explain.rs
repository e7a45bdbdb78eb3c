//! Why a plan is as it is: every move with its terms, gates and alternatives; every refusal with the gate that holds.

use std::collections::BTreeMap;

use control::{AlternativeView, ApplicationExplanation, CandidateView, GainTerms, PlannedMove};

use super::decide::Decision;
use super::gates::{Gate, gates, payback_s, verdict};
use super::layout::{Layout, Step, Trial};
use super::order::{Ordered, is_complete, order};
use super::plan::Plan;
use super::snapshot::Snapshot;

/// Candidates that are shown.
const SHOWN: usize = 5;
/// Hosts whose partitions are candidates, and partitions of each.
const CANDIDATE_HOSTS: usize = 3;
const CANDIDATE_PARTITIONS: usize = 48;
/// Destinations for each.
const CANDIDATE_TARGETS: usize = 8;
/// Other destinations that are shown for a move.
const ALTERNATIVES: usize = 3;
/// Peers whose part of the gain is shown.
const PEERS: usize = 3;

/// A share as a percentage.
pub fn percent(share: f64) -> f64 {
    100.0 * share
}

/// The answer to a snapshot that is not one.
pub fn unsound(snapshot: &Snapshot) -> Plan {
    Plan {
        imbalance: 0.0,
        imbalance_after: 0.0,
        potential: 0.0,
        work_max: 0.0,
        work_max_after: 0.0,
        loss: 0.0,
        cost_s: 0.0,
        gates: Vec::new(),
        steps: Vec::new(),
        mandatory: 0,
        moves: Vec::new(),
        algorithm: "",
        explanation: "no move: the snapshot has a number that is none, or an index that is not there"
            .to_owned(),
        candidates: Vec::new(),
        inputs_hash: snapshot.hash(),
    }
}

/// max(load / capacity) / mean - 1.
fn imbalance(layout: &Layout<'_>) -> f64 {
    let hosts = &layout.problem.snapshot.hosts;
    let capacity: f64 = hosts.iter().map(|host| host.capacity).sum();
    let load: f64 = (0..hosts.len()).map(|host| layout.load(host)).sum();
    let utilisations = hosts.iter().enumerate().map(|(host, it)| layout.load(host) / it.capacity);
    let hottest = utilisations.fold(0.0, f64::max);
    if load > 0.0 { hottest / (load / capacity) - 1.0 } else { 0.0 }
}

/// A decision with its reasons.
pub fn explained(start: &Layout<'_>, decision: Decision) -> Plan {
    let snapshot = start.problem.snapshot;
    let mut layout = start.clone();
    let mut views: Vec<(u32, CandidateView)> = Vec::new();
    let times = end_times(start, &decision);
    let mut mandatory = 0;
    for (action, reason) in &decision.actions {
        views.extend(explain_action(&mut layout, action, reason.as_deref(), &times));
        mandatory += if reason.is_some() { action.len() } else { 0 };
    }
    let moved = in_order_of(&views, &layout);
    let mut steps = order(start.problem, &moved);
    if !is_complete(&moved, &steps) {
        // The order that was found when the plan was chosen.
        steps = order(start.problem, &layout.moved());
    }
    let mut after = start.clone();
    steps.iter().for_each(|step| after.apply((step.partition, step.to)));
    let now = imbalance(start);
    // Of a partition that was moved twice on paper the last view is shown.
    let shown: BTreeMap<u32, &CandidateView> =
        views.iter().map(|(partition, view)| (*partition, view)).collect();
    let moves = steps.iter().filter_map(|step| planned(snapshot, step, &shown, now)).collect();
    let candidates = if decision.actions.is_empty() { candidates(start, &times, None) } else { Vec::new() };
    Plan {
        imbalance: now,
        imbalance_after: imbalance(&after),
        potential: start.potential(),
        work_max: start.work_max(),
        work_max_after: after.work_max(),
        loss: start.loss(),
        cost_s: decision.cost_s,
        gates: decision.gates.iter().map(Gate::view).collect(),
        mandatory: mandatory.min(steps.len()),
        explanation: summary(start, &decision, &steps, &after, &candidates),
        steps,
        moves,
        algorithm: decision.algorithm,
        candidates,
        inputs_hash: snapshot.hash(),
    }
}

/// Where everything that was explained ends, in the order in which it was decided first.
fn in_order_of(views: &[(u32, CandidateView)], end: &Layout<'_>) -> Vec<Step> {
    let mut moved: Vec<Step> = end.moved();
    let mut first = BTreeMap::new();
    for (position, (partition, _)) in views.iter().enumerate() {
        first.entry(*partition).or_insert(position);
    }
    moved.sort_by_key(|(partition, _)| first.get(partition).copied());
    moved
}

fn end_times(start: &Layout<'_>, decision: &Decision) -> Vec<(f64, f64)> {
    let mut end = start.clone();
    decision.actions.iter().flat_map(|(action, _)| action).for_each(|step| end.apply(*step));
    start.times().into_iter().zip(end.times()).collect()
}

fn summary(
    start: &Layout<'_>,
    decision: &Decision,
    steps: &[Ordered],
    after: &Layout<'_>,
    candidates: &[CandidateView],
) -> String {
    let stuck = decision.stuck.iter().map(|it| format!("; {it}")).collect::<String>();
    let failed = decision.failed().map(Gate::failure);
    if steps.is_empty() {
        let why = match (failed, candidates.first()) {
            _ if start.problem.snapshot.partitions.is_empty() => "no partition runs".to_owned(),
            (Some(failed), Some(best)) if failed.starts_with("plans worth") => no_candidate(best),
            (Some(failed), None) if failed.starts_with("plans worth") => {
                "no move: no partition of a host above the mean could go to one below".to_owned()
            }
            (Some(failed), _) => format!("no move: {failed}"),
            (None, _) => "no move: what was planned finds no room on the way".to_owned(),
        };
        return why + &stuck;
    }
    let held = failed.map(|failed| format!("; no more than that: {failed}")).unwrap_or_default();
    format!(
        "{} moves in {} waves ({}): busiest host {:.3} -> {:.3}, cost {:.2} s, excess over the lowest possible {:.0} % -> {:.0} %{held}{stuck}",
        steps.len(),
        steps.last().map_or(0, |step| step.wave + 1),
        decision.algorithm,
        start.work_max(),
        after.work_max(),
        decision.cost_s,
        percent(start.excess()),
        percent(after.excess()),
    )
}

fn no_candidate(best: &CandidateView) -> String {
    if best.verdict == "accepted" {
        return format!(
            "no move: moves pass their gates, but no plan of them makes an application faster; the best was rank {} of {} from {} to {}",
            best.rank, best.application, best.from, best.to
        );
    }
    format!(
        "no move: no candidate passes; the best, rank {} of {} from {} to {}, fails: {}",
        best.rank, best.application, best.from, best.to, best.verdict
    )
}

/// Views of the moves of one action, which is made.
fn explain_action(
    layout: &mut Layout<'_>,
    action: &[Step],
    reason: Option<&str>,
    times: &[(f64, f64)],
) -> Vec<(u32, CandidateView)> {
    let trial = layout.trial(action);
    let mut views = Vec::new();
    for step in action {
        let mut view = view(layout, action, *step, &trial, times);
        if let Some(reason) = reason {
            view.verdict = format!("mandatory: {reason}");
        } else if action.len() == 1 {
            view.alternatives = alternatives(layout, *step);
        }
        views.push((step.0, view));
    }
    action.iter().for_each(|step| layout.apply(*step));
    views
}

fn view(
    layout: &Layout<'_>,
    action: &[Step],
    step: Step,
    trial: &Trial,
    times: &[(f64, f64)],
) -> CandidateView {
    let snapshot = layout.problem.snapshot;
    let (partition, target) = (step.0 as usize, step.1 as usize);
    let it = &snapshot.partitions[partition];
    let source = layout.host(partition);
    // Load that comes the other way in the same action.
    let back = |from: usize, to: usize| {
        let same = action.iter().filter(move |(_, it)| *it as usize == to);
        same.filter(move |(item, _)| layout.host(*item as usize) == from)
    };
    let load =
        |from, to| back(from, to).map(|(item, _)| snapshot.partitions[*item as usize].load).sum::<f64>();
    let net = load(source, target) - load(target, source);
    let change = |host: usize, more: f64| {
        let capacity = snapshot.hosts[host].capacity;
        (layout.load(host) / capacity, (layout.load(host) + more) / capacity)
    };
    let swapped = back(target, source).next().map(|(item, _)| {
        let other = &snapshot.partitions[*item as usize];
        (snapshot.applications[other.application].id.clone(), other.rank)
    });
    let payback = payback_s(layout, action, trial);
    CandidateView {
        application: snapshot.applications[it.application].id.clone(),
        rank: it.rank,
        from: snapshot.hosts[source].name.clone(),
        to: snapshot.hosts[target].name.clone(),
        swap_with: swapped,
        load: it.load,
        source_utilisation: change(source, -net),
        destination_utilisation: change(target, net),
        gain: trial.gain,
        gain_error: trial.error,
        cost_s: action.iter().map(|(item, _)| layout.problem.cost_s(*item as usize)).sum(),
        payback_s: payback.is_finite().then_some(payback),
        gates: gates(layout, action, trial).iter().map(Gate::view).collect(),
        verdict: verdict(layout, action, trial).unwrap_or_else(|| "accepted".to_owned()),
        together: action.len(),
        application_time: times.get(it.application).copied().unwrap_or_default(),
        terms: terms(layout, step),
        alternatives: Vec::new(),
        policy: snapshot.policy,
    }
}

/// What a single step changes, by cause.
fn terms(layout: &Layout<'_>, step: Step) -> GainTerms {
    let snapshot = layout.problem.snapshot;
    let (partition, target) = (step.0 as usize, step.1 as usize);
    let source = layout.host(partition);
    let load = snapshot.partitions[partition].load;
    let square = |host: usize, more: f64| {
        let it = &snapshot.hosts[host];
        let work = |load: f64| it.alpha * load / it.capacity;
        it.capacity * (work(layout.load(host)).powi(2) - work(layout.load(host) + more).powi(2))
    };
    let mut peers = Vec::new();
    for link in layout.problem.links(partition) {
        let at = layout.host(link.peer as usize);
        let cost = link.sent.max(link.received);
        if at == target || at == source {
            let peer = &snapshot.partitions[link.peer as usize];
            let id = snapshot.applications[peer.application].id.clone();
            peers.push((id, peer.rank, if at == target { cost } else { -cost }));
        }
        if peers.len() == PEERS {
            break;
        }
    }
    let (load_source, load_destination) = (square(source, -load), square(target, load));
    let total = layout.single(step).gain;
    GainTerms {
        load_source,
        load_destination,
        traffic_and_rules: total - load_source - load_destination,
        traffic_by_peer: peers,
    }
}

fn alternatives(layout: &Layout<'_>, step: Step) -> Vec<AlternativeView> {
    let partition = step.0 as usize;
    let source = layout.host(partition);
    let chosen = layout.single(step).gain;
    let mut hosts: Vec<usize> = layout.coldest().take(ALTERNATIVES + 2).collect();
    hosts.extend(layout.peer_hosts(partition, ALTERNATIVES));
    hosts.retain(|host| *host != source && *host != step.1 as usize);
    let mut seen = Vec::new();
    hosts.retain(|host| {
        !seen.contains(host) && {
            seen.push(*host);
            true
        }
    });
    let mut all: Vec<AlternativeView> = Vec::new();
    for host in hosts.into_iter().take(ALTERNATIVES) {
        let other = (step.0, host as u32);
        let trial = layout.single(other);
        let reason = verdict(layout, &[other], &trial)
            .unwrap_or_else(|| format!("gains {:.4} instead of {chosen:.4}", trial.gain));
        all.push(AlternativeView {
            host: layout.problem.snapshot.hosts[host].name.clone(),
            gain: trial.gain,
            reason,
        });
    }
    all
}

fn planned(
    snapshot: &Snapshot,
    step: &Ordered,
    views: &BTreeMap<u32, &CandidateView>,
    imbalance: f64,
) -> Option<PlannedMove> {
    let it = &snapshot.partitions[step.partition as usize];
    let view = *views.get(&step.partition)?;
    Some(PlannedMove {
        application: snapshot.applications[it.application].id.clone(),
        rank: it.rank,
        from: snapshot.hosts[step.from as usize].name.clone(),
        to: snapshot.hosts[step.to as usize].name.clone(),
        wave: step.wave,
        reason: reason(view, imbalance),
        explanation: view.clone(),
    })
}

fn reason(view: &CandidateView, imbalance: f64) -> String {
    let what = match &view.swap_with {
        None => format!("rank {} (load {:.2})", view.rank, view.load),
        Some((application, rank)) => {
            format!("rank {} (load {:.2}) for rank {rank} of {application}", view.rank, view.load)
        }
    };
    let begin = match view.verdict.strip_prefix("mandatory: ") {
        Some(cause) => cause.to_owned(),
        None => traffic(view).unwrap_or_else(|| format!("imbalance {:.0} %", percent(imbalance))),
    };
    format!(
        "{begin}: {what} from {} ({:.0} % -> {:.0} %) to {} ({:.0} % -> {:.0} %), pays back in {:.1} s",
        view.from,
        percent(view.source_utilisation.0),
        percent(view.source_utilisation.1),
        view.to,
        percent(view.destination_utilisation.0),
        percent(view.destination_utilisation.1),
        view.payback_s.unwrap_or(0.0),
    )
}

/// What a move saves that is not made for load, if that is why it is made.
fn traffic(view: &CandidateView) -> Option<String> {
    let terms = &view.terms;
    let (application, rank, saved) = terms.traffic_by_peer.first().filter(|(_, _, saved)| *saved > 0.0)?;
    let counts = terms.traffic_and_rules > terms.load_source + terms.load_destination;
    counts.then(|| format!("messages with rank {rank} of {application} cost {saved:.2} s a second"))
}

/// The best moves from the hottest hosts (of one application, if asked for), whether they pass or not.
fn candidates(layout: &Layout<'_>, times: &[(f64, f64)], only: Option<usize>) -> Vec<CandidateView> {
    let snapshot = layout.problem.snapshot;
    let of = |item: &u32| only.is_none_or(|only| snapshot.partitions[*item as usize].application == only);
    let busy = |host: &usize| layout.items(*host).iter().any(of) && layout.work(*host) > 0.0;
    let mut found: Vec<(f64, Step)> = Vec::new();
    for source in layout.hottest().filter(busy).take(CANDIDATE_HOSTS) {
        let mut items: Vec<u32> = layout.items(source).iter().filter(|item| of(item)).copied().collect();
        items.sort_by(|a, b| {
            let load = |item: &u32| snapshot.partitions[*item as usize].load;
            load(b).total_cmp(&load(a)).then(a.cmp(b))
        });
        for item in items.into_iter().take(CANDIDATE_PARTITIONS) {
            let mut targets: Vec<usize> =
                layout.coldest().filter(|host| *host != source).take(CANDIDATE_TARGETS).collect();
            targets.extend(layout.peer_hosts(item as usize, 2).filter(|host| *host != source));
            targets.sort_unstable();
            targets.dedup();
            let steps = targets.into_iter().map(|target| (item, target as u32));
            found.extend(steps.map(|step| (layout.single(step).gain, step)));
        }
    }
    found.sort_by(|(a, step_a), (b, step_b)| b.total_cmp(a).then(step_a.cmp(step_b)));
    let shown = found.into_iter().take(SHOWN);
    shown.map(|(_, step)| view(layout, &[step], step, &layout.single(step), times)).collect()
}

/// Why an application runs where it does, beside what the plan of now does.
pub fn application(layout: &Layout<'_>, plan: Plan, application: usize) -> ApplicationExplanation {
    let snapshot = layout.problem.snapshot;
    let it = &snapshot.applications[application];
    let times: Vec<(f64, f64)> = layout.times().into_iter().map(|time| (time, time)).collect();
    let time = times[application].0;
    let bound = layout.problem.bounds[application];
    let moves: Vec<PlannedMove> =
        plan.moves.into_iter().filter(|planned| planned.application == it.id).collect();
    let candidates = candidates(layout, &times, Some(application));
    let own = match candidates.first() {
        _ if !moves.is_empty() => format!("{} of its partitions would move", moves.len()),
        Some(best) if best.verdict != "accepted" => format!(
            "its best move, rank {} from {} to {}, fails: {}",
            best.rank, best.from, best.to, best.verdict
        ),
        Some(_) => "moves of its partitions pass their own gates".to_owned(),
        None => "none of its partitions runs".to_owned(),
    };
    ApplicationExplanation {
        application: it.id.clone(),
        time,
        lowest_time: bound,
        loss: if time > bound { it.weight * (1.0 - bound / time) } else { 0.0 },
        gates: plan.gates,
        moves,
        candidates,
        explanation: format!("{}; {own}", plan.explanation),
        policy: snapshot.policy,
    }
}

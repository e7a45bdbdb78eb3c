//! The portfolio: several ways to a plan, scored by what they gain and cost; of the best one, the best prefix.

use super::gates::pass;
use super::greedy::{greedy_refine, locality, perturb, prune, thin};
use super::layout::Layout;
use super::order::{is_complete, order};
use super::search::{Action, Effort, refine};

/// Prefixes of a long plan that are scored.
const PREFIXES: usize = 24;
/// Prefixes whose order is looked for, the best first.
const ORDERS: usize = 4;
/// Tolerances of GreedyRefine.
const TOLERANCES: [f64; 7] = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.15];

/// A way to a plan, cut to its best prefix.
#[derive(Clone, Debug)]
pub struct Way {
    /// Its name.
    pub name: &'static str,
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// Predicted gain in application-seconds within the horizon, less the cost.
    pub value: f64,
    /// Predicted cost, in application-seconds.
    pub cost_s: f64,
}

/// What a placement is worth against the one before it.
#[derive(Clone, Debug)]
struct Scale {
    times: Vec<f64>,
    mean_works: Vec<f64>,
    work_max: f64,
    soft: f64,
}

impl Scale {
    fn new(base: &Layout<'_>) -> Self {
        Self {
            times: base.times(),
            mean_works: base.mean_works(),
            work_max: base.work_max(),
            soft: soft_rules(base),
        }
    }

    /// The value of a placement, or nothing if it makes anything worse: the busiest host, or the applications together.
    fn value(&self, layout: &Layout<'_>, cost_s: f64) -> Option<f64> {
        let problem = layout.problem;
        let slack = 1e-12 * self.work_max;
        if layout.work_max() > self.work_max + slack {
            return None;
        }
        let (mut exact, mut worth) = (0.0, 0.0);
        let mean_works = layout.mean_works();
        for (index, (before, after)) in self.times.iter().zip(layout.times()).enumerate() {
            if *before > 0.0 {
                let weight = problem.snapshot.applications[index].weight / before;
                let floor = problem.floor(index);
                exact += weight * (before - after);
                // What is good enough is not worth a move.
                worth += weight * (before.max(floor) - after.max(floor));
                let (mean_before, mean_after) = (self.mean_works[index], mean_works[index]);
                let relief = mean_before.max(problem.mean_floor()) - mean_after.max(problem.mean_floor());
                worth += weight * problem.snapshot.settings.mean_share * relief;
            }
        }
        let soft = soft_rules(layout) - self.soft;
        (exact + soft >= -1e-12).then_some(problem.snapshot.settings.horizon_s * (worth + soft) - cost_s)
    }
}

/// What broken soft rules cost, as a negative worth (seconds per second).
fn soft_rules(layout: &Layout<'_>) -> f64 {
    let rules = layout.problem.snapshot.rules.iter().enumerate();
    let prices = rules.filter_map(|(index, rule)| Some((index, rule.price?)));
    -prices.map(|(index, price)| price * f64::from(layout.broken(index))).sum::<f64>()
}

/// The best way from `base`, if any is worth its cost.
pub fn choose(base: &Layout<'_>, quota: usize) -> Option<Way> {
    let scale = Scale::new(base);
    let mut best: Option<Way> = None;
    for (name, actions) in ways(base, quota) {
        let Some(way) = cut(base, &scale, name, actions, quota) else { continue };
        if best.as_ref().is_none_or(|known| way.value > known.value) {
            best = Some(way);
        }
    }
    best
}

fn ways<'a>(base: &Layout<'a>, quota: usize) -> Vec<(&'static str, Vec<Action>)> {
    let problem = base.problem;
    let small = problem.is_small();
    let mut all = Vec::new();
    let mut layout = base.clone();
    let mut refined = refine(&mut layout, Effort { quota, thorough: false });
    if problem.has_links() {
        all.push(("refine", refined.clone()));
        let left = quota.saturating_sub(refined.iter().map(Vec::len).sum());
        refined.extend(locality(&mut layout, left));
        // As long as there is load enough to move, traffic can wait.
        if left > 0 {
            all.push(("refine and locality", refined));
            let mut layout = base.clone();
            let mut near = locality(&mut layout, quota);
            let left = quota.saturating_sub(near.len());
            near.extend(refine(&mut layout, Effort { quota: left, thorough: false }));
            all.push(("locality and refine", near));
        }
    } else {
        all.push(("refine", refined));
    }
    if small {
        let mut layout = base.clone();
        all.push(("thorough refine", refine(&mut layout, Effort { quota, thorough: true })));
    }
    // These redistribute everything: only where a plan may move much, and nothing had to be moved before.
    if (small || quota >= problem.snapshot.partitions.len()) && base.moved().is_empty() {
        // Their steps have not passed any gate yet; those of the other ways have.
        all.extend(whole(base, &layout).into_iter().filter(|(_, actions)| is_gated(base, actions)));
    }
    all
}

/// Ways that end in a placement rather than go there step by step: each is one action.
fn whole<'a>(base: &Layout<'a>, refined: &Layout<'a>) -> Vec<(&'static str, Vec<Action>)> {
    let problem = base.problem;
    let floor = problem.floor_max();
    let mut all = Vec::new();
    let mut best = refined.clone();
    for tolerance in TOLERANCES {
        let mut layout = greedy_refine(problem, tolerance);
        refine(&mut layout, Effort { quota: usize::MAX, thorough: problem.is_small() });
        prune(&mut layout, floor);
        if layout.work_max() < best.work_max() {
            best = layout.clone();
        }
        all.push(("greedy refine", vec![layout.moved()]));
    }
    if problem.is_small() && problem.snapshot.settings.effort > 0 {
        let rounds = problem.snapshot.settings.effort;
        let mut layout = perturb(best, floor, rounds);
        prune(&mut layout, floor);
        layout = thin(layout, floor, rounds / 3);
        all.push(("perturbation", vec![layout.moved()]));
    }
    all
}

/// Cuts a way to the prefix of greatest value; nothing if no prefix is worth anything.
fn cut(
    base: &Layout<'_>,
    scale: &Scale,
    name: &'static str,
    mut actions: Vec<Action>,
    quota: usize,
) -> Option<Way> {
    let problem = base.problem;
    let mut layout = base.clone();
    let every = actions.len().div_ceil(PREFIXES).max(1);
    let (mut prefixes, mut moves) = (Vec::new(), 0);
    for (index, action) in actions.iter().enumerate() {
        moves += action.len();
        if moves > quota {
            break;
        }
        action.iter().for_each(|step| layout.apply(*step));
        let last = index + 1;
        if !last.is_multiple_of(every) && last != actions.len() {
            continue;
        }
        let moved = layout.moved();
        let cost_s = moved.iter().map(|(it, _)| problem.cost_s(*it as usize)).sum();
        let Some(value) = scale.value(&layout, cost_s) else { continue };
        if value > 0.0 && within_quotas(&layout, &moved) {
            prefixes.push((value, last, cost_s));
        }
    }
    prefixes.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    // Only what can be carried out: swaps of partitions that find no room while they move cannot.
    let feasible = |end: usize| {
        let mut layout = base.clone();
        actions[..end].iter().flatten().for_each(|step| layout.apply(*step));
        is_complete(&layout.moved(), &order(problem, &layout.moved()))
    };
    let (value, end, cost_s) = prefixes.into_iter().take(ORDERS).find(|(_, end, _)| feasible(*end))?;
    actions.truncate(end);
    Some(Way { name, actions, value, cost_s })
}

fn is_gated(base: &Layout<'_>, actions: &[Action]) -> bool {
    let action = actions.concat();
    !action.is_empty() && pass(base, &action, &base.clone().trial(&action))
}

fn within_quotas(layout: &Layout<'_>, moved: &[super::layout::Step]) -> bool {
    let snapshot = layout.problem.snapshot;
    let mut counts = vec![0_usize; snapshot.applications.len()];
    moved.iter().for_each(|(it, _)| counts[snapshot.partitions[*it as usize].application] += 1);
    counts.iter().zip(&snapshot.applications).all(|(count, it)| *count <= it.quota)
}

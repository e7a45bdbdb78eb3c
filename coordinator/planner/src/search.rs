//! Refinement: relieves the hottest host with the best move, swap, or move of a group, until nothing passes the gates.
//!
//! Every action lowers the potential by at least the least gain, so the search ends, and no placement comes back.

use std::collections::BTreeSet;

use super::gates::pass;
use super::layout::{Flows, Layout, Step, Trial};
use super::snapshot::RuleKind;

/// Cold hosts that are tried as destinations.
const COLD: usize = 8;
/// Hosts of peers that are tried as destinations.
const PEERS: usize = 12;
/// Partitions of a host that are tried in swaps and groups, the heaviest.
const HEAVIEST: usize = 48;

/// Swaps that are tried with a host, those that would make the two hosts most equal, and targets of groups.
const SWAPS: usize = 3;

/// Steps that are made together, or not at all.
pub type Action = Vec<Step>;

/// What to search.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Partitions that may still move.
    pub quota: usize,
    /// Compare moves, swaps and groups, instead of taking the simplest that passes.
    pub thorough: bool,
}

/// Relieves hosts, hottest first. The layout is left as the actions make it.
pub fn refine(layout: &mut Layout<'_>, effort: Effort) -> Vec<Action> {
    let floor = layout.problem.mean_floor();
    let key = |layout: &Layout<'_>, host: usize| (layout.work(host).to_bits(), host);
    let hot = |layout: &Layout<'_>, host: usize| layout.work(host) > floor;
    let mut waiting: BTreeSet<(u64, usize)> =
        layout.hottest().take_while(|host| hot(layout, *host)).map(|host| key(layout, host)).collect();
    let (mut actions, mut left) = (Vec::new(), effort.quota);
    while let Some((_, source)) = waiting.pop_last() {
        let action =
            if effort.thorough { thorough(layout, source, left) } else { quick(layout, source, left) };
        let Some((action, _)) = action else { continue };
        let touched: BTreeSet<usize> = action
            .iter()
            .flat_map(|(partition, target)| [layout.host(*partition as usize), *target as usize])
            .collect();
        for host in &touched {
            waiting.remove(&key(layout, *host));
        }
        action.iter().for_each(|step| layout.apply(*step));
        waiting.extend(touched.into_iter().filter(|host| hot(layout, *host)).map(|host| key(layout, host)));
        left -= action.len();
        actions.push(action);
        if left == 0 {
            break;
        }
    }
    actions
}

type Found = Option<(Action, Trial)>;

/// The better of two: more gain for each partition that moves counts, in that a bigger action has to be worth it.
fn better(best: Found, next: Found) -> Found {
    let worth = |found: &(Action, Trial)| found.1.gain / (1.0 + 0.5 * (found.0.len() - 1) as f64);
    match (best, next) {
        (Some(best), Some(next)) => Some(if worth(&next) > worth(&best) { next } else { best }),
        (best, next) => best.or(next),
    }
}

fn quick(layout: &mut Layout<'_>, source: usize, quota: usize) -> Found {
    let targets = targets(layout, source, COLD);
    best_move(layout, source, &targets)
        .or_else(|| if quota >= 2 { best_swap(layout, source, &targets, SWAPS) } else { None })
        .or_else(|| best_group(layout, source, &targets[..targets.len().min(SWAPS)], quota, false))
}

fn thorough(layout: &mut Layout<'_>, source: usize, quota: usize) -> Found {
    let targets = targets(layout, source, usize::MAX);
    let single = best_move(layout, source, &targets);
    let swap = if quota >= 2 { best_swap(layout, source, &targets, usize::MAX) } else { None };
    let group = best_group(layout, source, &targets, quota, true);
    better(better(single, swap), group)
}

/// Open hosts with room for anything at all, those with the least work first.
fn targets(layout: &Layout<'_>, source: usize, count: usize) -> Vec<usize> {
    let snapshot = layout.problem.snapshot;
    let hosts = &snapshot.hosts;
    let sizes = layout.items(source).iter().map(|item| snapshot.partitions[*item as usize].memory);
    let least = sizes.min().unwrap_or(0);
    let open = |host: &usize| {
        let it = &hosts[*host];
        let room = it.memory.saturating_sub(layout.memory(*host)) >= least;
        // A host that is full may still take part in a swap of a thorough search.
        *host != source && it.closed.is_none() && !it.evacuate && (room || count == usize::MAX)
    };
    layout.coldest().filter(open).take(count).collect()
}

fn keep_best(layout: &Layout<'_>, best: &mut Found, steps: &[Step], trial: Trial) {
    let is_better = best.as_ref().is_none_or(|(_, known)| trial.gain > known.gain);
    if is_better && pass(layout, steps, &trial) {
        *best = Some((steps.to_vec(), trial));
    }
}

/// Partitions of a host that may move, heaviest first.
fn movable(layout: &Layout<'_>, host: usize) -> Vec<u32> {
    let partitions = &layout.problem.snapshot.partitions;
    let may = |it: &&u32| layout.problem.fixed(**it as usize).is_none();
    let mut items: Vec<u32> = layout.items(host).iter().filter(may).copied().collect();
    items
        .sort_by(|a, b| partitions[*b as usize].load.total_cmp(&partitions[*a as usize].load).then(a.cmp(b)));
    items
}

fn best_move(layout: &Layout<'_>, source: usize, targets: &[usize]) -> Found {
    let mut best = None;
    let mut flows = Flows::default();
    for item in movable(layout, source) {
        layout.flows(item, &mut flows);
        for target in targets {
            keep_best(
                layout,
                &mut best,
                &[(item, *target as u32)],
                layout.single_with(&flows, *target as u32),
            );
        }
        // The links are sorted: the first hosts are those of the peers that matter most.
        for target in flows.hosts().take(PEERS).filter(|it| *it != source && !targets.contains(it)) {
            keep_best(layout, &mut best, &[(item, target as u32)], layout.single_with(&flows, target as u32));
        }
    }
    best
}

/// For every partition and target the partner whose load differs by what would make the two hosts equal; of these `count`.
fn best_swap(layout: &mut Layout<'_>, source: usize, targets: &[usize], count: usize) -> Found {
    let snapshot = layout.problem.snapshot;
    let load = |item: u32| snapshot.partitions[item as usize].load;
    let mut best = None;
    let items = movable(layout, source);
    let mut pairs: Vec<(f64, u32, u32)> = Vec::new();
    for target in targets {
        let (from, to) = (&snapshot.hosts[source], &snapshot.hosts[*target]);
        let weight = from.alpha / from.capacity + to.alpha / to.capacity;
        if weight <= 0.0 {
            continue;
        }
        let wanted = (layout.work(source) - layout.work(*target)) / weight;
        let partners = movable(layout, *target);
        pairs.clear();
        for item in items.iter().take(HEAVIEST) {
            let off = |partner: &u32| (load(*item) - load(*partner) - wanted).abs();
            let lighter = partners.iter().filter(|partner| load(**partner) < load(*item));
            let partner = lighter.min_by(|a, b| off(a).total_cmp(&off(b)));
            pairs.extend(partner.map(|partner| (off(partner), *item, *partner)));
        }
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        for (_, item, partner) in pairs.iter().take(count) {
            let steps = [(*item, *target as u32), (*partner, source as u32)];
            let trial = layout.trial(&steps);
            keep_best(layout, &mut best, &steps, trial);
        }
    }
    best
}

/// Partitions of a host that belong together: sharing a block of memory, bound by a rule, or talking to each other most.
fn groups(layout: &Layout<'_>, host: usize) -> Vec<Vec<u32>> {
    let problem = layout.problem;
    let items = movable(layout, host);
    let mut groups: Vec<Vec<u32>> = Vec::new();
    let mut of_block: Vec<(usize, u32)> = items
        .iter()
        .filter_map(|item| problem.snapshot.partitions[*item as usize].block.map(|block| (block, *item)))
        .collect();
    of_block.sort_unstable();
    groups.extend(
        of_block.chunk_by(|a, b| a.0 == b.0).map(|group| group.iter().map(|(_, item)| *item).collect()),
    );
    for (index, rule) in problem.snapshot.rules.iter().enumerate() {
        if rule.kind == RuleKind::Together && rule.partitions.iter().any(|it| layout.host(*it) == host) {
            let is_of = |item: &&u32| problem.rules(**item as usize).contains(&(index as u32));
            groups.push(items.iter().filter(is_of).copied().collect());
        }
    }
    for item in items.iter().take(HEAVIEST) {
        let here = |link: &&super::problem::Link| items.contains(&link.peer);
        if let Some(link) = problem.links(*item as usize).iter().take(PEERS).find(here) {
            groups.push(vec![*item.min(&link.peer), *item.max(&link.peer)]);
        }
    }
    groups.retain(|group| group.len() > 1);
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn best_group(
    layout: &mut Layout<'_>,
    source: usize,
    targets: &[usize],
    quota: usize,
    exchange: bool,
) -> Found {
    let mut best = None;
    let own = groups(layout, source);
    if own.is_empty() {
        return None;
    }
    for target in targets {
        let theirs: Vec<Vec<u32>> = if exchange { exchanged(layout, *target) } else { Vec::new() };
        for group in own.iter().filter(|group| group.len() <= quota) {
            let there: Action = group.iter().map(|item| (*item, *target as u32)).collect();
            let trial = layout.trial(&there);
            keep_best(layout, &mut best, &there, trial);
            for back in theirs.iter().filter(|back| group.len() + back.len() <= quota) {
                let mut both = there.clone();
                both.extend(back.iter().map(|item| (*item, source as u32)));
                let trial = layout.trial(&both);
                keep_best(layout, &mut best, &both, trial);
            }
        }
    }
    best
}

/// What may come back for a group: groups, and single partitions with a block of their own.
fn exchanged(layout: &Layout<'_>, host: usize) -> Vec<Vec<u32>> {
    let mut all = groups(layout, host);
    let items = movable(layout, host);
    all.extend(items.into_iter().take(HEAVIEST).map(|item| vec![item]));
    all
}

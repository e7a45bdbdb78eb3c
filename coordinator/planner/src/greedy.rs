//! Methods that see the whole at once: GreedyRefine, locality, perturbation; each ends in a placement.
//!
//! GreedyRefine is Charm++'s idea: partitions from the heaviest to the lightest, each stays if its host stays below the
//! tolerated work, and goes to the emptiest host otherwise. It finds what refinement cannot (one partition as heavy as the
//! average host), but moves many; [`prune`] takes back what is not needed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::gates::pass;
use super::layout::{Flows, Layout, Step};
use super::problem::Problem;
use super::search::{Action, Effort, refine};

/// Distributes everything anew. `tolerance`: work that a host may have before its partitions leave, against the best.
pub fn greedy_refine<'a>(problem: &'a Problem<'a>, tolerance: f64) -> Layout<'a> {
    let snapshot = problem.snapshot;
    let mut layout = Layout::new(problem);
    let bound = problem.bounds.iter().copied().fold(problem.mean, f64::max);
    let limit = tolerance * bound;
    let mut order: Vec<usize> =
        (0..snapshot.partitions.len()).filter(|it| problem.fixed(*it).is_none()).collect();
    let load = |it: usize| snapshot.partitions[it].load;
    order.sort_by(|a, b| load(*b).total_cmp(&load(*a)).then(a.cmp(b)));
    // Work of what has a place already; what has none yet weighs nothing.
    let mut works = vec![0.0_f64; snapshot.hosts.len()];
    for it in snapshot.partitions.iter().filter(|it| it.fixed.is_some()) {
        works[it.host] += share(problem, it.load, it.host);
    }
    let open = |host: &usize| snapshot.hosts[*host].closed.is_none() && !snapshot.hosts[*host].evacuate;
    let mut emptiest: BinaryHeap<Reverse<(u64, usize)>> =
        (0..snapshot.hosts.len()).filter(open).map(|host| Reverse((works[host].to_bits(), host))).collect();
    for partition in order {
        let home = snapshot.partitions[partition].host;
        let stays = works[home] + share(problem, load(partition), home);
        if stays <= limit {
            works[home] = stays;
            continue;
        }
        let mut tried = Vec::new();
        let mut place = home;
        while let Some(Reverse((bits, host))) = emptiest.pop() {
            if bits != works[host].to_bits() {
                // It has grown since; its place in the heap is renewed.
                emptiest.push(Reverse((works[host].to_bits(), host)));
                continue;
            }
            tried.push(Reverse((bits, host)));
            let step = (partition as u32, host as u32);
            let trial = layout.single(step);
            if host == home || (trial.fits && trial.broken.is_none()) {
                place = host;
                break;
            }
        }
        emptiest.extend(tried);
        works[place] += share(problem, load(partition), place);
        if place != home {
            layout.apply((partition as u32, place as u32));
        }
    }
    layout
}

fn share(problem: &Problem<'_>, load: f64, host: usize) -> f64 {
    let host = &problem.snapshot.hosts[host];
    host.alpha * load / host.capacity
}

/// Brings partitions to those they talk to most, wherever that lowers the potential; the best first.
pub fn locality(layout: &mut Layout<'_>, quota: usize) -> Vec<Action> {
    let count = layout.problem.snapshot.partitions.len();
    let mut found: Vec<(f64, Step)> = Vec::new();
    let mut flows = Flows::default();
    for partition in (0..count).filter(|it| layout.problem.fixed(*it).is_none()) {
        found.extend(toward_peers(layout, &mut flows, partition));
    }
    found.sort_by(|(a, step_a), (b, step_b)| b.total_cmp(a).then(step_a.cmp(step_b)));
    let mut actions = Vec::new();
    for (_, (partition, _)) in found {
        if actions.len() >= quota {
            break;
        }
        // What was best may have changed with the moves before.
        if let Some((_, step)) = toward_peers(layout, &mut flows, partition as usize) {
            layout.apply(step);
            actions.push(vec![step]);
        }
    }
    actions
}

fn toward_peers(layout: &Layout<'_>, flows: &mut Flows, partition: usize) -> Option<(f64, Step)> {
    let home = layout.host(partition);
    layout.flows(partition as u32, flows);
    let mut best: Option<(f64, Step)> = None;
    for host in flows.hosts().take(4).filter(|host| *host != home) {
        let step = (partition as u32, host as u32);
        let trial = layout.single_with(flows, step.1);
        if best.is_none_or(|(gain, _)| trial.gain > gain) && pass(layout, &[step], &trial) {
            best = Some((trial.gain, step));
        }
    }
    best
}

/// Takes moves back, singly or two together, whose absence leaves the greatest work below `floor`, or where it is.
pub fn prune(layout: &mut Layout<'_>, floor: f64) {
    let partitions = &layout.problem.snapshot.partitions;
    let load = |it: u32| partitions[it as usize].load;
    let pairs = layout.problem.is_small();
    loop {
        let home = |it: u32| (it, partitions[it as usize].host as u32);
        let mut moved: Vec<u32> = layout.moved().into_iter().map(|(it, _)| it).collect();
        moved.sort_by(|a, b| load(*a).total_cmp(&load(*b)).then(a.cmp(b)));
        let before = moved.len();
        moved.retain(|it| !take_back(layout, &[home(*it)], floor));
        if moved.len() < before {
            continue;
        }
        // Two that stand in each other's way: one comes home to where the other leaves.
        let crossing = moved.iter().filter(|_| pairs).any(|a| {
            let others = moved.iter().filter(|b| a != *b && layout.host(**b as usize) == home(*a).1 as usize);
            let others: Vec<u32> = others.copied().collect();
            others.into_iter().any(|b| take_back(layout, &[home(*a), home(b)], floor))
        });
        if !crossing {
            return;
        }
    }
}

fn take_back(layout: &mut Layout<'_>, steps: &[Step], floor: f64) -> bool {
    let trial = layout.trial(steps);
    let fine = trial.fits && trial.broken.is_none() && trial.after <= layout.work_max().max(floor);
    if fine {
        steps.iter().for_each(|step| layout.apply(*step));
    }
    fine
}

/// A small generator of pseudo-random numbers (xorshift64*, Vigna 2016) with a seed that never changes.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((number * limit as u64) >> 32) as usize
    }
}

/// Iterated local search: disturbs the best placement, refines it, keeps what is better. For small problems only.
pub fn perturb<'a>(best: Layout<'a>, floor: f64, rounds: u32) -> Layout<'a> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut best = best;
    let score = |layout: &Layout<'_>| (layout.work_max().max(floor), layout.potential());
    let mut known = score(&best);
    for round in 0..rounds {
        if known.0 <= floor {
            break;
        }
        let mut next = best.clone();
        for _ in 0..1 + round % 4 {
            disturb(&mut next, &mut random);
        }
        refine(&mut next, Effort { quota: usize::MAX, thorough: true });
        let found = score(&next);
        let equal = 1e-12 * known.0;
        if found.0 < known.0 - equal || (found.0 < known.0 + equal && found.1 < known.1) {
            (best, known) = (next, found);
        }
    }
    best
}

/// Looks for as good a placement with fewer moves: takes some back at random, refines, prunes, keeps what moves less.
pub fn thin<'a>(best: Layout<'a>, floor: f64, rounds: u32) -> Layout<'a> {
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    let mut best = best;
    let limit = best.work_max().max(floor);
    let mut count = best.moved().len();
    for round in 0..rounds {
        let mut next = best.clone();
        for _ in 0..2 + round % 5 {
            let moved = next.moved();
            let Some((partition, _)) = moved.get(random.below(moved.len())) else { return best };
            let home = layout_home(&next, *partition);
            let trial = next.single((*partition, home));
            if trial.fits && trial.broken.is_none() && trial.leaves_reserve {
                next.apply((*partition, home));
            }
        }
        refine(&mut next, Effort { quota: usize::MAX, thorough: true });
        prune(&mut next, limit);
        let moves = next.moved().len();
        if moves < count && next.work_max() <= limit {
            (best, count) = (next, moves);
        }
    }
    best
}

fn layout_home(layout: &Layout<'_>, partition: u32) -> u32 {
    layout.problem.snapshot.partitions[partition as usize].host as u32
}

/// A random partition of a random host (every second time the hottest) goes to a random host that can take it, or
/// everything of its block does.
fn disturb(layout: &mut Layout<'_>, random: &mut Random) {
    let snapshot = layout.problem.snapshot;
    let hosts = snapshot.hosts.len();
    let source = match random.below(2) {
        0 => layout.hottest().next().unwrap_or(0),
        _ => random.below(hosts),
    };
    let items = layout.items(source);
    if items.is_empty() {
        return;
    }
    let item = items[random.below(items.len())];
    let block = snapshot.partitions[item as usize].block.filter(|_| random.below(2) == 0);
    let target = random.below(hosts) as u32;
    let same =
        |it: &&u32| **it == item || (block.is_some() && snapshot.partitions[**it as usize].block == block);
    let steps: Action = items.iter().filter(same).map(|it| (*it, target)).collect();
    let movable = steps.iter().all(|(it, _)| layout.problem.fixed(*it as usize).is_none());
    let open = snapshot.hosts[target as usize].closed.is_none() && !snapshot.hosts[target as usize].evacuate;
    if target as usize == source || !movable || !open {
        return;
    }
    let trial = layout.trial(&steps);
    if trial.fits && trial.broken.is_none() && trial.leaves_reserve {
        steps.iter().for_each(|step| layout.apply(*step));
    }
}

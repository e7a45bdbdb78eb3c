//! The order of moves: waves in which they may overlap, each with room for both copies of every partition.

use std::collections::BTreeMap;

use super::layout::{Layout, Step};
use super::problem::Problem;

/// Moves that are looked at for one wave.
const WINDOW: usize = 64;

/// A move in its wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// Index of the partition.
    pub partition: u32,
    /// Index of its host before.
    pub from: u32,
    /// And after.
    pub to: u32,
    /// Moves of the same wave may overlap; a wave begins when the one before it is over.
    pub wave: u32,
}

/// Orders moves of the snapshot's placement. What finds no room, not even by way of a third host, is left out.
pub fn order(problem: &Problem<'_>, moves: &[Step]) -> Vec<Ordered> {
    let snapshot = problem.snapshot;
    let mut layout = Layout::new(problem);
    let mut left: Vec<Step> = moves.to_vec();
    if !snapshot.settings.transient {
        return at_once(&layout, moves);
    }
    let mut ordered: Vec<Ordered> = Vec::new();
    let mut detoured: Vec<u32> = Vec::new();
    let (mut wave, mut turns) = (0, 0);
    while !left.is_empty() {
        let mut crowd = Crowd::default();
        let mut now: Vec<Step> = Vec::new();
        // A wave is filled from the front, and only from there, so that long plans are ordered in little time.
        let window = left.len().min(WINDOW);
        let mut rest: Vec<Step> = Vec::new();
        for step in left.drain(..window) {
            if crowd.admits(&layout, step) { now.push(step) } else { rest.push(step) }
        }
        left.splice(..0, rest);
        if now.is_empty() && left.len() > window {
            // Nothing in the window can go; what is behind it may make room.
            left.rotate_left(window);
            turns += 1;
            if turns <= left.len().div_ceil(window) {
                continue;
            }
        }
        if now.is_empty() {
            // A circle: somebody waits elsewhere meanwhile.
            let detour = left.iter().find_map(|(partition, _)| {
                let spare = layout.coldest().find(|host| {
                    let open = snapshot.hosts[*host].closed.is_none() && !snapshot.hosts[*host].evacuate;
                    let step = (*partition, *host as u32);
                    let other = layout.host(*partition as usize) != *host;
                    other && open && Crowd::default().admits(&layout, step)
                });
                spare.filter(|_| !detoured.contains(partition)).map(|host| (*partition, host as u32))
            });
            let Some(detour) = detour else { break };
            detoured.push(detour.0);
            now.push(detour);
        }
        for (partition, to) in now {
            let from = layout.host(partition as usize) as u32;
            ordered.push(Ordered { partition, from, to, wave });
            layout.apply((partition, to));
        }
        (wave, turns) = (wave + 1, 0);
    }
    ordered
}

fn at_once(layout: &Layout<'_>, moves: &[Step]) -> Vec<Ordered> {
    let from = |partition: u32| layout.host(partition as usize) as u32;
    moves
        .iter()
        .map(|(partition, to)| Ordered { partition: *partition, from: from(*partition), to: *to, wave: 0 })
        .collect()
}

/// Does the order bring everything where it is to go?
pub fn is_complete(moves: &[Step], ordered: &[Ordered]) -> bool {
    let ends: BTreeMap<u32, u32> = ordered.iter().map(|it| (it.partition, it.to)).collect();
    ends.len() == moves.len() && moves.iter().all(|(partition, to)| ends.get(partition) == Some(to))
}

/// What the moves of one wave take.
#[derive(Debug, Default)]
struct Crowd {
    moves: usize,
    out: BTreeMap<usize, usize>,
    into: BTreeMap<usize, (usize, u64)>,
}

impl Crowd {
    fn admits(&mut self, layout: &Layout<'_>, step: Step) -> bool {
        let snapshot = layout.problem.snapshot;
        let settings = &snapshot.settings;
        let (partition, to) = (step.0 as usize, step.1 as usize);
        let from = layout.host(partition);
        if settings.transient {
            let out = self.out.get(&from).copied().unwrap_or(0);
            let (into, more) = self.into.get(&to).copied().unwrap_or((0, 0));
            if self.moves >= settings.at_once || out.max(into) >= settings.at_once_per_host {
                return false;
            }
            let needed = layout.memory_with(partition, to).saturating_add(more);
            if needed > snapshot.hosts[to].memory {
                return false;
            }
            // An affinity is broken while its partitions are on their way; nothing else is.
            let is_affinity = |rule: u32| snapshot.rules[rule as usize].kind.is_of_all();
            if layout.broken_by(step).is_some_and(|rule| !is_affinity(rule)) {
                return false;
            }
            let grows = needed - more - layout.memory(to);
            self.into.insert(to, (into + 1, more + grows));
            self.out.insert(from, out + 1);
        }
        self.moves += 1;
        true
    }
}

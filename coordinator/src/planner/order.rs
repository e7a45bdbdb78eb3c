//! The order of moves: waves in which they may overlap, each with room for both copies of every partition.

use std::collections::BTreeMap;

use super::layout::{Layout, Step};
use super::problem::Problem;
use super::snapshot::RuleKind;

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
    let mut ordered: Vec<Ordered> = Vec::new();
    let mut detoured: Vec<u32> = Vec::new();
    let mut wave = 0;
    while !left.is_empty() {
        let mut crowd = Crowd::default();
        let mut now: Vec<Step> = Vec::new();
        left.retain(|step| {
            let goes = crowd.admits(&layout, *step);
            if goes {
                now.push(*step);
            }
            !goes
        });
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
        wave += 1;
    }
    ordered
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
            let needed = layout.memory_with(partition, to).saturating_add(more);
            let trial = layout.single(step);
            // An affinity is broken while its partitions are on their way; nothing else is.
            let broken =
                trial.broken.is_some_and(|rule| snapshot.rules[rule as usize].kind != RuleKind::Together);
            if self.moves >= settings.at_once
                || out.max(into) >= settings.at_once_per_host
                || needed > snapshot.hosts[to].memory
                || broken
            {
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

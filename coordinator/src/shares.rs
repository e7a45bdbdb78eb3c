//! Application-level balancing: what makes a program's ranks uneven, which lever cures it, and how many units each rank should have.
//!
//! A program that counts its work in units (`partita.h`) says how many a rank has and what they cost. The processor time of a unit
//! belongs to the *data*, wherever it is computed; how much longer it took than that (`stretch`: stolen time, a slower or crowded host)
//! belongs to the *host*. Units are one line, cut into one piece a rank (chains-on-chains partitioning, Pinar and Aykanat 2004, here with
//! a density that is constant over what one rank has now), so that expensive units weigh what they cost after they have changed hands.

use control::Rank;
use serde::Serialize;

/// A step must become shorter by this part of it before units are shifted or a host is blamed.
pub const GAIN_PART_MIN: f64 = 0.08;
/// Hosts are blamed when they cause at least this part of what could be gained.
pub const HOST_PART_MIN: f64 = 0.5;
/// So many epochs after one lever was used the other one rests, and so does this one: what it did has to be measured first.
pub const REST_EPOCHS: u64 = 3;

/// What one rank did since its units last changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// The rank.
    pub rank: Rank,
    /// First unit that it has.
    pub first: u64,
    /// How many it has.
    pub count: u64,
    /// Processor time of one unit, in seconds.
    pub unit_s: f64,
    /// Elapsed time of a unit through its processor time, 1 or more.
    pub stretch: f64,
}

impl Work {
    /// Elapsed time of all its units, in seconds.
    fn step_s(&self) -> f64 {
        self.count as f64 * self.unit_s * self.stretch
    }
}

/// What is to be done about uneven ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lever {
    /// Nothing: there is too little to gain.
    None,
    /// Shift units between ranks.
    Units,
    /// Move a partition: hosts make the difference.
    Partitions,
}

/// The judgement with its reasons.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// What to do.
    pub lever: Lever,
    /// Elapsed time of the slowest rank's units now, in seconds.
    pub step_before_s: f64,
    /// The same after the shift of units, as predicted.
    pub step_after_s: f64,
    /// The same if every host were as fast as the fastest, without a shift.
    pub step_equal_hosts_s: f64,
    /// Units of every rank after the shift, in the order of the ranks.
    pub targets: Vec<u64>,
}

impl Judgement {
    /// Part of the step that a shift of units would save.
    pub fn gain_part(&self) -> f64 {
        part(self.step_before_s - self.step_after_s, self.step_before_s)
    }

    /// One line for people.
    pub fn text(&self) -> String {
        let gain = 100.0 * self.gain_part();
        let hosts = 100.0 * part(self.step_before_s - self.step_equal_hosts_s, self.step_before_s);
        let what = match self.lever {
            Lever::None => format!("too little to gain (threshold {:.0} %)", 100.0 * GAIN_PART_MIN),
            Lever::Units => "the data make the ranks uneven: units are shifted".into(),
            Lever::Partitions => "the hosts make the ranks uneven: that is for moves of partitions".into(),
        };
        format!("{what}; a shift of units would shorten the step by {gain:.0} %, equal hosts by {hosts:.0} %")
    }
}

fn part(of: f64, whole: f64) -> f64 {
    if whole > 0.0 { of / whole } else { 0.0 }
}

/// Whether the pieces are one line without gaps, in the order of the ranks.
fn is_one_line(total: u64, works: &[Work]) -> bool {
    let mut end = 0u64;
    works.iter().all(|work| {
        let follows = work.first == end;
        end = end.saturating_add(work.count);
        follows
    }) && end == total
}

/// Judges one application. Nothing when a rank has not said enough, or what they say does not fit together.
///
/// `movable`: a move of a partition could help, which is for the planner to know.
pub fn judge(total: u64, works: &[Work], movable: bool) -> Option<Judgement> {
    let usable = |work: &Work| {
        work.count > 0
            && work.unit_s.is_finite()
            && work.unit_s > 0.0
            && work.stretch.is_finite()
            && work.stretch >= 1.0
    };
    if works.len() < 2
        || total < works.len() as u64
        || !works.iter().all(usable)
        || !is_one_line(total, works)
    {
        return None;
    }
    let targets = cut(total, works);
    let slowest = |step_s: &dyn Fn(&Work) -> f64| works.iter().map(step_s).fold(0.0, f64::max);
    let least = works.iter().map(|work| work.stretch).fold(f64::INFINITY, f64::min);
    let step_before_s = slowest(&|work| work.step_s());
    let step_equal_hosts_s = slowest(&|work| work.step_s() / work.stretch * least);
    let step_after_s = predict(works, &targets);
    let mut judgement =
        Judgement { lever: Lever::None, step_before_s, step_after_s, step_equal_hosts_s, targets };
    let gain_s = step_before_s - step_after_s;
    let by_hosts_s = step_before_s - step_equal_hosts_s;
    let by_hosts = by_hosts_s >= HOST_PART_MIN * gain_s && by_hosts_s >= GAIN_PART_MIN * step_before_s;
    judgement.lever = if movable && by_hosts {
        Lever::Partitions
    } else if judgement.gain_part() >= GAIN_PART_MIN {
        Lever::Units
    } else {
        Lever::None
    };
    Some(judgement)
}

/// Processor time of the units before number `unit`, in seconds.
fn cost_before(works: &[Work], unit: u64) -> f64 {
    works.iter().map(|work| unit.saturating_sub(work.first).min(work.count) as f64 * work.unit_s).sum()
}

/// Cuts the line so that every rank's piece takes the same elapsed time on its host; every rank has one unit at least.
fn cut(total: u64, works: &[Work]) -> Vec<u64> {
    let whole_s = cost_before(works, total);
    let speeds: f64 = works.iter().map(|work| 1.0 / work.stretch).sum();
    let (mut start, mut share) = (0u64, 0.0);
    let mut targets = Vec::with_capacity(works.len());
    for (index, work) in works.iter().enumerate() {
        share += 1.0 / work.stretch / speeds;
        let left = (works.len() - 1 - index) as u64;
        let end = match left {
            0 => total,
            _ => unit_at(works, share * whole_s).clamp(start + 1, total - left),
        };
        targets.push(end - start);
        start = end;
    }
    targets
}

/// The unit before which the line costs `cost_s`, to the nearest.
fn unit_at(works: &[Work], cost_s: f64) -> u64 {
    let mut before = 0.0;
    for work in works {
        let own = work.count as f64 * work.unit_s;
        if before + own >= cost_s {
            return work.first + ((cost_s - before) / work.unit_s).round() as u64;
        }
        before += own;
    }
    works.last().map_or(0, |work| work.first + work.count)
}

/// Elapsed time of the slowest rank with these pieces, if units cost what they do now and hosts are as they are now.
fn predict(works: &[Work], targets: &[u64]) -> f64 {
    let mut start = 0;
    let step_s = works.iter().zip(targets).map(|(work, target)| {
        let end = start + target;
        let cost_s = cost_before(works, end) - cost_before(works, start);
        start = end;
        cost_s * work.stretch
    });
    step_s.fold(0.0, f64::max)
}

/// Speed of each rank's host relative to their mean, in parts per million.
pub fn speeds_ppm(works: &[Work]) -> Vec<u64> {
    let mean = works.iter().map(|work| 1.0 / work.stretch).sum::<f64>() / works.len().max(1) as f64;
    works.iter().map(|work| (1e6 / work.stretch / mean).round() as u64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pieces: &[(u64, f64, f64)]) -> (u64, Vec<Work>) {
        let mut first = 0;
        let work = |(rank, (count, unit_s, stretch)): (usize, &(u64, f64, f64))| {
            let work = Work { rank: rank as Rank, first, count: *count, unit_s: *unit_s, stretch: *stretch };
            first += count;
            work
        };
        let works = pieces.iter().enumerate().map(work).collect();
        (first, works)
    }

    #[test]
    fn expensive_units_keep_their_price_when_they_change_hands() {
        // A plain "units in proportion to speed" would give rank 1 most of the expensive ones.
        let (total, works) = line(&[(64, 10.0, 1.0), (64, 1.0, 1.0), (64, 1.0, 1.0), (64, 1.0, 1.0)]);
        let judgement = judge(total, &works, true).unwrap();
        assert_eq!(judgement.lever, Lever::Units);
        assert_eq!(judgement.targets, [21, 21, 20, 194]);
        assert_eq!((judgement.step_before_s, judgement.step_after_s), (640.0, 212.0));
    }

    #[test]
    fn a_crowded_host_is_for_moves_unless_nothing_can_move() {
        let (total, works) = line(&[(100, 1.0, 2.0), (100, 1.0, 2.0), (100, 1.0, 1.0)]);
        assert_eq!(judge(total, &works, true).unwrap().lever, Lever::Partitions);
        let judgement = judge(total, &works, false).unwrap();
        assert_eq!((judgement.lever, judgement.targets), (Lever::Units, vec![75, 75, 150]));
        assert_eq!(speeds_ppm(&works), [750_000, 750_000, 1_500_000]);
    }

    #[test]
    fn little_to_gain_is_left_alone_and_nonsense_is_not_judged() {
        let (total, works) = line(&[(100, 1.0, 1.0), (100, 1.05, 1.0)]);
        assert_eq!(judge(total, &works, true).unwrap().lever, Lever::None);
        assert_eq!(judge(total + 1, &works, true), None);
        assert_eq!(judge(total, &works[..1], true), None);
        for (unit_s, stretch) in [(0.0, 1.0), (f64::NAN, 1.0), (1.0, 0.5), (1.0, f64::INFINITY)] {
            let (total, works) = line(&[(100, 1.0, 1.0), (100, unit_s, stretch)]);
            assert_eq!(judge(total, &works, true), None);
        }
    }

    #[test]
    fn every_rank_keeps_a_unit_and_all_units_are_given_away() {
        let mut random = 7u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        for _ in 0..2000 {
            let pieces: Vec<_> = (0..2 + next(20))
                .map(|_| (1 + next(50), 0.001 + next(1000) as f64, 1.0 + next(300) as f64 / 100.0))
                .collect();
            let (total, works) = line(&pieces);
            let judgement = judge(total, &works, next(2) == 0).unwrap();
            assert_eq!(judgement.targets.iter().sum::<u64>(), total);
            assert!(judgement.targets.iter().all(|target| *target > 0));
            // Cut at whole units: no worse than the even cut by one of the most expensive ones.
            let speeds: f64 = works.iter().map(|work| 1.0 / work.stretch).sum();
            let dearest = works.iter().map(|work| work.unit_s).fold(0.0, f64::max);
            let slowest = works.iter().map(|work| work.stretch).fold(0.0, f64::max);
            let ideal = cost_before(&works, total) / speeds;
            let bound = ideal + slowest * dearest * works.len() as f64;
            assert!(judgement.step_after_s <= bound, "{judgement:?} {ideal}");
        }
    }
}

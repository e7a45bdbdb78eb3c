//! Placements of a few ranks on two hosts, what was measured of them, and how a balanced run compares.

use serde::Serialize;

/// Names of the two hosts.
pub const HOSTS: [&str; 2] = ["a", "b"];

/// Which host each rank is on, by its index in [`HOSTS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Placement(pub Vec<usize>);

impl Placement {
    /// Every one that is not another with the hosts exchanged: rank 0 is always on the first. 2^(ranks - 1) of them.
    pub fn all(ranks: usize) -> Vec<Self> {
        let place = |bits: usize, rank: usize| if rank == 0 { 0 } else { bits >> (rank - 1) & 1 };
        (0..1 << (ranks - 1)).map(|bits| Self((0..ranks).map(|rank| place(bits, rank)).collect())).collect()
    }

    /// The one whose busiest host has least to do, by the extra work of every rank; a rank without extra work does 1.
    pub fn evenest(ranks: usize, work: &[u32]) -> Self {
        let busiest = |placement: &Self| {
            let mut sums = [0; HOSTS.len()];
            for (rank, host) in placement.0.iter().enumerate() {
                sums[*host] += 1 + u64::from(work.get(rank).copied().unwrap_or(0));
            }
            sums.into_iter().max()
        };
        Self::all(ranks).into_iter().min_by_key(busiest).unwrap_or(Self(vec![0; ranks]))
    }
}

impl std::fmt::Display for Placement {
    /// As `0 3 | 1 2`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let on = |host: usize| {
            let ranks = self.0.iter().enumerate().filter(move |(_, at)| **at == host);
            ranks.map(|(rank, _)| rank.to_string()).collect::<Vec<_>>().join(" ")
        };
        f.pad(&format!("{} | {}", on(0), on(1)))
    }
}

/// A placement in which nothing moved.
#[derive(Debug, Clone, Serialize)]
pub struct Static {
    /// Which.
    pub placement: Placement,
    /// Of every run.
    pub steps_per_s: Vec<f64>,
}

impl Static {
    /// The middle one of its runs (the lower one of two), steps per second.
    pub fn speed(&self) -> f64 {
        let mut speeds = self.steps_per_s.clone();
        speeds.sort_by(f64::total_cmp);
        speeds.get(speeds.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
    }
}

/// A move that was done.
#[derive(Debug, Clone, Serialize)]
pub struct MoveSeen {
    /// Which rank.
    pub rank: u64,
    /// From where.
    pub from: String,
    /// To where.
    pub to: String,
    /// When it was over, seconds since the program was submitted.
    pub done_s: f64,
    /// In which no vCPU ran, milliseconds; unknown after a move that was in doubt.
    pub blackout_ms: Option<f64>,
    /// Why.
    pub reason: String,
}

/// A run that was balanced.
#[derive(Debug, Clone, Serialize)]
pub struct Balanced {
    /// Where it began.
    pub from: Placement,
    /// Of the whole run.
    pub steps_per_s: f64,
    /// As its lines of progress arrived after the last move (or from the first one on), if at least a quarter of the steps came after it.
    pub settled_steps_per_s: Option<f64>,
    /// What moved.
    pub moves: Vec<MoveSeen>,
    /// How moves ended that did not succeed, as the coordinator says.
    pub failed: Vec<String>,
}

/// Whether the load stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// It does.
    Fixed,
    /// It moves on by one rank again and again.
    Shifting,
}

/// Everything about one load.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Which.
    pub load: Load,
    /// Extra work per step, by rank.
    pub work: Vec<u32>,
    /// Steps of a run.
    pub steps: u64,
    /// Steps after which the load moves on, if it does.
    pub shift_steps: Option<u64>,
    /// Every placement.
    pub statics: Vec<Static>,
    /// The balanced run.
    pub balanced: Balanced,
    /// Whether this machine is emulated, so that speeds mean little.
    pub emulated: bool,
    /// Load averages of this machine (one minute) before and after.
    pub load_average: [f64; 2],
}

/// The one with the greatest speed.
pub fn best(statics: &[Static]) -> Option<&Static> {
    statics.iter().max_by(|a, b| a.speed().total_cmp(&b.speed()))
}

/// The one with the least speed.
pub fn worst(statics: &[Static]) -> Option<&Static> {
    statics.iter().min_by(|a, b| a.speed().total_cmp(&b.speed()))
}

impl Measured {
    /// The speed that is promised, by that of the best static placement: where the load stays, what it settles at; where it
    /// shifts, that of the whole run.
    pub fn ratio(&self) -> Option<f64> {
        let speed = match self.load {
            Load::Fixed => self.balanced.settled_steps_per_s?,
            Load::Shifting => self.balanced.steps_per_s,
        };
        Some(speed / best(&self.statics)?.speed())
    }

    /// What the ratio has to be.
    pub fn bar(&self) -> f64 {
        match self.load {
            Load::Fixed => 0.92,
            Load::Shifting => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placement_is_there_once_whatever_the_hosts_are_called() {
        let all: Vec<_> = Placement::all(3).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["0 1 2 | ", "0 2 | 1", "0 1 | 2", "0 | 1 2"]);
        assert_eq!(Placement::all(4).len(), 8);
    }

    #[test]
    fn the_evenest_is_the_one_with_the_least_on_its_busiest_host() {
        assert_eq!(Placement::evenest(4, &[6, 4, 2, 0]).to_string(), "0 3 | 1 2");
        assert_eq!(Placement::evenest(3, &[1]).to_string(), "0 | 1 2");
    }

    #[test]
    fn a_ratio_is_by_the_median_of_the_best() {
        let of = |steps_per_s: &[f64]| Static {
            placement: Placement(vec![0, 0]),
            steps_per_s: steps_per_s.to_vec(),
        };
        let balanced = Balanced {
            from: Placement(vec![0, 0]),
            steps_per_s: 9.0,
            settled_steps_per_s: Some(12.0),
            moves: vec![],
            failed: Vec::new(),
        };
        let mut measured = Measured {
            load: Load::Fixed,
            work: vec![],
            steps: 1,
            shift_steps: None,
            statics: vec![of(&[10.0, 99.0, 8.0]), of(&[5.0, 6.0])],
            balanced,
            emulated: false,
            load_average: [0.0; 2],
        };
        assert_eq!(worst(&measured.statics).map(Static::speed), Some(5.0));
        assert_eq!(measured.ratio(), Some(1.2));
        measured.load = Load::Shifting;
        assert_eq!(measured.ratio(), Some(0.9));
        measured.load = Load::Fixed;
        measured.balanced.settled_steps_per_s = None;
        assert_eq!(measured.ratio(), None);
    }
}

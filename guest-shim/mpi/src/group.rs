//! Ordered sets of ranks of the application: what groups and communicators are made of.

use alloc::vec::Vec;

/// Ranks of the application in the order of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranks(Vec<u32>);

/// How two groups compare, with the values of the MPI ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Comparison {
    /// The same.
    Identical = 201,
    /// The same group, another context (communicators only).
    Congruent = 202,
    /// The same members in another order.
    Similar = 203,
    /// Different members.
    Unequal = 204,
}

impl Ranks {
    /// A group of these ranks of the application.
    pub fn new(world_ranks: Vec<u32>) -> Ranks {
        Ranks(world_ranks)
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rank in the application of member `rank`.
    pub fn world(&self, rank: usize) -> Option<u32> {
        self.0.get(rank).copied()
    }

    /// The member with this rank in the application.
    pub fn rank_of(&self, world: u32) -> Option<usize> {
        if self.0.get(world as usize) == Some(&world) {
            return Some(world as usize);
        }
        self.0.iter().position(|&member| member == world)
    }

    /// How this group compares with another.
    pub fn compare(&self, other: &Ranks) -> Comparison {
        if self == other {
            Comparison::Identical
        } else if self.len() == other.len() && self.0.iter().all(|&member| other.rank_of(member).is_some()) {
            Comparison::Similar
        } else {
            Comparison::Unequal
        }
    }

    /// The members for which `keep` holds.
    pub fn filter(&self, keep: impl Fn(usize, u32) -> bool) -> Ranks {
        Ranks(
            self.0
                .iter()
                .enumerate()
                .filter(|(rank, world)| keep(*rank, **world))
                .map(|(_, world)| *world)
                .collect(),
        )
    }

    /// The members of both, in this order; then the others of `other`.
    pub fn union(&self, other: &Ranks) -> Ranks {
        let mut all = self.0.clone();
        all.extend(other.0.iter().filter(|&&member| self.rank_of(member).is_none()));
        Ranks(all)
    }

    /// The members named, in the order named; `None` if one does not exist.
    pub fn pick(&self, ranks: &[usize]) -> Option<Ranks> {
        ranks.iter().map(|&rank| self.world(rank)).collect::<Option<Vec<_>>>().map(Ranks)
    }
}

/// The ranks of triplets (first, last, stride) one after the other; `None` for a stride of zero or a negative rank.
pub fn expand_ranges(ranges: &[[i32; 3]]) -> Option<Vec<usize>> {
    let mut ranks = Vec::new();
    for &[first, last, stride] in ranges {
        if stride == 0 {
            return None;
        }
        let mut rank = i64::from(first);
        while if stride > 0 { rank <= i64::from(last) } else { rank >= i64::from(last) } {
            ranks.push(usize::try_from(rank).ok()?);
            rank += i64::from(stride);
        }
    }
    Some(ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_their_order() {
        let all = Ranks::new(alloc::vec![0, 1, 2, 3]);
        let odd = all.pick(&[3, 1]).unwrap();
        assert_eq!(odd.rank_of(3), Some(0));
        assert_eq!(odd.rank_of(0), None);
        assert_eq!(odd.compare(&all.pick(&[1, 3]).unwrap()), Comparison::Similar);
        assert_eq!(odd.union(&all).0, [3, 1, 0, 2]);
        assert_eq!(all.filter(|_, world| odd.rank_of(world).is_none()).0, [0, 2]);
        assert!(all.pick(&[4]).is_none());
        assert_eq!(expand_ranges(&[[0, 4, 2], [3, 1, -1]]), Some(alloc::vec![0, 2, 4, 3, 2, 1]));
        assert_eq!(expand_ranges(&[[0, 4, 0]]), None);
    }
}

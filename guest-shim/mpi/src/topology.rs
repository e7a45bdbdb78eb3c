//! Virtual topologies of communicators: grids, graphs, distributed graphs.

use alloc::vec::Vec;
use core::ffi::c_int;

/// A topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// A grid.
    Cart(Cart),
    /// A graph that everyone knows.
    Graph {
        /// For every node, how many edges it and the nodes before it have.
        index: Vec<c_int>,
        /// The neighbours, node after node.
        edges: Vec<c_int>,
    },
    /// A graph of which everyone knows only its own edges.
    Dist(Neighbours),
}

/// Edges of one rank of a distributed graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Neighbours {
    /// Edges that come from these ranks.
    pub sources: Vec<c_int>,
    /// Their weights, empty if there are none.
    pub source_weights: Vec<c_int>,
    /// Edges that go to these ranks.
    pub destinations: Vec<c_int>,
    /// Their weights, empty if there are none.
    pub destination_weights: Vec<c_int>,
    /// Whether edges have weights.
    pub weighted: bool,
}

/// A grid; ranks are in row-major order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cart {
    /// Length of each dimension.
    pub dims: Vec<c_int>,
    /// Whether a dimension is a ring.
    pub periods: Vec<bool>,
}

impl Cart {
    /// Number of places.
    pub fn size(&self) -> usize {
        self.dims.iter().map(|&length| length as usize).product()
    }

    /// The coordinates of a rank.
    pub fn coordinates(&self, rank: usize) -> Vec<c_int> {
        let mut rest = rank;
        let mut coordinates: Vec<c_int> = self
            .dims
            .iter()
            .rev()
            .map(|&length| {
                let at = rest % length as usize;
                rest /= length as usize;
                at as c_int
            })
            .collect();
        coordinates.reverse();
        coordinates
    }

    /// The rank at coordinates; none outside of a dimension that is no ring.
    pub fn rank(&self, coordinates: &[c_int]) -> Option<usize> {
        let mut rank = 0;
        for ((&at, &length), &ring) in coordinates.iter().zip(&self.dims).zip(&self.periods) {
            if !ring && !(0..length).contains(&at) {
                return None;
            }
            rank = rank * length as usize + at.rem_euclid(length) as usize;
        }
        Some(rank)
    }

    /// The ranks `-distance` and `+distance` away from `rank` in a dimension.
    pub fn shift(&self, rank: usize, dimension: usize, distance: c_int) -> (Option<usize>, Option<usize>) {
        let at = self.coordinates(rank);
        let moved = |by: c_int| {
            let mut to = at.clone();
            to[dimension] = to[dimension].wrapping_add(by);
            self.rank(&to)
        };
        (moved(distance.wrapping_neg()), moved(distance))
    }

    /// The grid of the dimensions that remain, and who is in the same one as `rank`, by their number and place.
    pub fn sub(&self, remain: &[bool], rank: usize) -> (Cart, usize, usize) {
        let keep = |wanted: bool| {
            let chosen = |i: &usize| remain[*i] == wanted;
            let dims = (0..self.dims.len()).filter(chosen).map(|i| self.dims[i]).collect();
            Cart { dims, periods: (0..self.dims.len()).filter(chosen).map(|i| self.periods[i]).collect() }
        };
        let at = self.coordinates(rank);
        let part = |wanted: bool| -> Vec<c_int> {
            at.iter().zip(remain).filter(|(_, remains)| **remains == wanted).map(|(&at, _)| at).collect()
        };
        let (grid, others) = (keep(true), keep(false));
        let (place, number) = (grid.rank(&part(true)), others.rank(&part(false)));
        (grid, number.unwrap_or(0), place.unwrap_or(0))
    }
}

/// Fills the zeros of `dims` so that the product is `nodes` and the lengths are as equal as they can be, the longest
/// first; none when that is impossible.
pub fn balance(nodes: usize, dims: &mut [c_int]) -> Option<()> {
    let mut rest = nodes;
    for &length in dims.iter().filter(|length| **length != 0) {
        let length = usize::try_from(length).ok()?;
        if !rest.is_multiple_of(length) {
            return None;
        }
        rest /= length;
    }
    let free = dims.iter().filter(|length| **length == 0).count();
    if free == 0 {
        return (rest == 1).then_some(());
    }
    let mut search = Search { divisors: divisors(rest), chosen: Vec::new(), best: Vec::new() };
    search.split(rest, free, usize::MAX);
    for (length, found) in dims.iter_mut().filter(|length| **length == 0).zip(search.best) {
        *length = c_int::try_from(found).ok()?;
    }
    Some(())
}

/// All divisors of a number, in rising order.
fn divisors(number: usize) -> Vec<usize> {
    let small = (1..).take_while(|divisor| divisor * divisor <= number);
    let low: Vec<usize> = small.filter(|divisor| number.is_multiple_of(*divisor)).collect();
    let high = low.iter().rev().map(|divisor| number / divisor).filter(|high| high * high > number);
    low.iter().copied().chain(high).collect()
}

/// Looks for falling factors with the smallest distance between the first and the last, in the order of [`Search::rank`].
struct Search {
    divisors: Vec<usize>,
    chosen: Vec<usize>,
    best: Vec<usize>,
}

impl Search {
    fn spread(factors: &[usize]) -> usize {
        factors.first().zip(factors.last()).map_or(0, |(first, last)| first - last)
    }

    /// Smaller is better: the distance, then the sum, then (as MPICH has it) the greater first lengths.
    fn rank(factors: &[usize]) -> (usize, usize, core::cmp::Reverse<&[usize]>) {
        (Self::spread(factors), factors.iter().sum(), core::cmp::Reverse(factors))
    }

    fn split(&mut self, rest: usize, count: usize, most: usize) {
        let first = self.chosen.first().copied();
        let can_win = |last: usize, best: &[usize]| {
            best.is_empty() || first.is_none_or(|first| first.saturating_sub(last) <= Self::spread(best))
        };
        if count == 1 {
            if rest <= most && can_win(rest, &self.best) {
                self.chosen.push(rest);
                if self.best.is_empty() || Self::rank(&self.chosen) < Self::rank(&self.best) {
                    self.best.clone_from(&self.chosen);
                }
                self.chosen.pop();
            }
            return;
        }
        for at in 0..self.divisors.len() {
            let factor = self.divisors[at];
            if factor > most {
                return;
            }
            // The later factors are not larger, so this one must be large enough; and none is above this one's root.
            let enough = factor.checked_pow(count as u32).is_none_or(|reach| reach >= rest);
            if !enough || !rest.is_multiple_of(factor) {
                continue;
            }
            let beaten = first.is_none() && !self.best.is_empty() && {
                let last = self
                    .divisors
                    .iter()
                    .rev()
                    .find(|d| d.checked_pow(count as u32).is_some_and(|p| p <= rest));
                factor - last.copied().unwrap_or(1) > Self::spread(&self.best)
            };
            if beaten {
                return;
            }
            self.chosen.push(factor);
            self.split(rest / factor, count - 1, factor);
            self.chosen.pop();
        }
    }
}

impl Topology {
    /// The neighbours of `rank`: edges in and out. No rank: a missing neighbour of a grid.
    pub fn neighbours(&self, rank: usize) -> (Vec<Option<usize>>, Vec<Option<usize>>) {
        let known =
            |ranks: &[c_int]| ranks.iter().map(|&rank| usize::try_from(rank).ok()).collect::<Vec<_>>();
        match self {
            Topology::Cart(cart) => {
                let pair = |dimension| {
                    let (before, after) = cart.shift(rank, dimension, 1);
                    [before, after]
                };
                let all: Vec<_> = (0..cart.dims.len()).flat_map(pair).collect();
                (all.clone(), all)
            }
            Topology::Graph { index, edges } => {
                let all = known(&edges[edge_range(index, rank)]);
                (all.clone(), all)
            }
            Topology::Dist(of) => (known(&of.sources), known(&of.destinations)),
        }
    }
}

/// Where the edges of a node are in the list of all edges.
pub fn edge_range(index: &[c_int], node: usize) -> core::ops::Range<usize> {
    let start = if node == 0 { 0 } else { index[node - 1] as usize };
    start..index[node] as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_knows_its_ranks_and_neighbours() {
        let grid = Cart { dims: alloc::vec![2, 3], periods: alloc::vec![false, true] };
        assert_eq!((grid.coordinates(4), grid.rank(&[1, 1])), (alloc::vec![1, 1], Some(4)));
        assert_eq!((grid.rank(&[1, -1]), grid.rank(&[2, 0])), (Some(5), None));
        assert_eq!(grid.shift(0, 0, 1), (None, Some(3)));
        assert_eq!(grid.shift(0, 1, 1), (Some(2), Some(1)));
        let (column, number, place) = grid.sub(&[true, false], 4);
        assert_eq!((column.dims, number, place), (alloc::vec![2], 1, 1));
    }

    #[test]
    fn dimensions_are_balanced() {
        let balanced = |nodes, dims: &[c_int]| {
            let mut dims = dims.to_vec();
            balance(nodes, &mut dims).map(|()| dims)
        };
        assert_eq!(balanced(6, &[0, 0]), Some(alloc::vec![3, 2]));
        assert_eq!(balanced(16, &[0, 0, 0]), Some(alloc::vec![4, 2, 2]));
        assert_eq!(balanced(7, &[0, 3]), None);
        assert_eq!(balanced(12, &[0, 3, 0]), Some(alloc::vec![2, 3, 2]));
        assert_eq!(balanced(5040, &[0, 0, 0]), Some(alloc::vec![21, 16, 15]));
        assert_eq!(balanced(5616, &[0; 4]), Some(alloc::vec![13, 9, 8, 6]));
        assert_eq!(balanced(98784, &[0; 5]), Some(alloc::vec![14, 14, 9, 8, 7]));
        assert_eq!(balanced(5, &[5]), Some(alloc::vec![5]));
        assert_eq!(balanced(4, &[2]), None);
        assert_eq!(balanced(65536, &[0, 0, 0]).unwrap().iter().product::<c_int>(), 65536);
    }
}

//! Gather and scatter of short, equal blocks along a binomial tree: a subtree's blocks travel together.
//!
//! Ranks are counted from the root on. Rank r of the tree speaks for the blocks r .. r + n, where n is the lowest bit of r
//! (everything for the root), cut at the number of ranks.

use crate::memory::Region;
use crate::runtime::schedule::Builder;

struct Place {
    /// My rank, counted from the root.
    relative: usize,
    /// Blocks I speak for.
    blocks: usize,
    root: usize,
    size: usize,
}

impl Place {
    fn new(b: &Builder, root: usize) -> Place {
        let relative = (b.rank + b.size - root) % b.size;
        let reach = if relative == 0 { b.size } else { 1 << relative.trailing_zeros() };
        Place { relative, blocks: reach.min(b.size - relative), root, size: b.size }
    }

    fn rank(&self, relative: usize) -> usize {
        (relative + self.root) % self.size
    }

    fn parent(&self) -> usize {
        self.rank(self.relative & (self.relative - 1))
    }

    /// Children, nearest first: the first of their blocks among mine, and how many.
    fn children(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> + use<> {
        let blocks = self.blocks;
        let bits = blocks.next_power_of_two().ilog2();
        (0..bits).map(move |bit| (1 << bit, (1 << bit).min(blocks - (1 << bit))))
    }
}

/// `mine` goes to the root, where it is put into `blocks` (empty elsewhere; no `mine` at the root: it is in place).
pub fn gather(b: &mut Builder, blocks: &[Region], mine: Option<Region>, bytes: usize, root: usize) {
    let place = Place::new(b, root);
    let own = mine.unwrap_or(Region::EMPTY);
    if place.blocks == 1 && place.relative != 0 {
        return b.send(place.parent(), own);
    }
    let all = b.scratch(place.blocks * bytes);
    b.copy(own, all);
    for (first, number) in place.children() {
        b.receive(place.rank(place.relative + first), all.part(first * bytes, number * bytes));
    }
    b.next_round();
    if place.relative != 0 {
        return b.send(place.parent(), all);
    }
    for index in usize::from(mine.is_none())..place.blocks {
        b.copy(all.part(index * bytes, bytes), blocks[place.rank(index)]);
    }
}

/// The root's `blocks` (empty elsewhere) go to their ranks' `mine` (at the root: none if it is in place).
pub fn scatter(b: &mut Builder, blocks: &[Region], mine: Option<Region>, bytes: usize, root: usize) {
    let place = Place::new(b, root);
    let own = mine.unwrap_or(Region::EMPTY);
    if place.blocks == 1 && place.relative != 0 {
        return b.receive(place.parent(), own);
    }
    let all = b.scratch(place.blocks * bytes);
    if place.relative == 0 {
        for index in 0..place.blocks {
            b.copy(blocks[place.rank(index)], all.part(index * bytes, bytes));
        }
    } else {
        b.receive(place.parent(), all);
        b.next_round();
    }
    for (first, number) in place.children().rev() {
        b.send(place.rank(place.relative + first), all.part(first * bytes, number * bytes));
    }
    b.copy(all.part(0, bytes), own);
}

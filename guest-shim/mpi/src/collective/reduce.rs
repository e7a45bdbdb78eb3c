//! Collectives that compute. The module above says in what order.

use alloc::rc::Rc;
use core::ops::Range;

use crate::datatype::Type;
use crate::memory::Region;
use crate::runtime::schedule::{Builder, Operation};

/// Up to this size a Reduce is a tree with the root at its top. In bytes.
pub const SHORT_BYTES: usize = 2048;
/// From this size on an Allreduce is a reduce-scatter and an allgather. In bytes.
const LONG_BYTES: usize = 16 << 10;

/// Elements that are combined.
#[derive(Clone)]
pub struct Work {
    /// The operation.
    pub operation: Operation,
    /// Type of the elements.
    pub of: Rc<Type>,
    /// Elements.
    pub count: usize,
}

/// Memory laid out as a buffer of elements, gaps and all.
#[derive(Clone, Copy)]
pub struct Elements {
    /// The address that MPI would be given for the buffer.
    pub buffer: *mut u8,
}

impl Work {
    /// The memory of elements.
    pub fn span(&self, elements: Elements) -> Region {
        self.part(elements, 0..self.count)
    }

    /// The memory of some of the elements.
    pub fn part(&self, elements: Elements, range: Range<usize>) -> Region {
        let (low, bytes) = self.of.span(range.len());
        let start = self.of.extent * range.start.cast_signed() + low;
        // SAFETY: inside the memory of the elements.
        unsafe { Region::new(elements.buffer.wrapping_offset(start), bytes) }
    }

    /// Room for the elements.
    pub fn scratch(&self, b: &mut Builder) -> Elements {
        let (low, bytes) = self.of.span(self.count);
        Elements { buffer: b.scratch(bytes).pointer().wrapping_offset(-low) }
    }

    /// `right = left op right`.
    pub fn reduce(&self, b: &mut Builder, left: Elements, right: Elements) {
        b.reduce(self.operation, left.buffer, right.buffer, self.count);
    }

    /// Puts what another rank has into the accumulator, on the side where it belongs.
    fn absorb(&self, b: &mut Builder, other: Elements, accumulator: Elements, other_is_lower: bool) {
        if other_is_lower || self.operation.commutes() {
            self.reduce(b, other, accumulator);
        } else {
            self.reduce(b, accumulator, other);
            b.copy(self.span(other), self.span(accumulator));
        }
    }
}

/// The ranks after the surplus over a power of two was folded in: their number, and my place among them.
struct Folded {
    size: usize,
    surplus: usize,
    place: Option<usize>,
}

impl Folded {
    fn real(&self, place: usize) -> usize {
        if place < self.surplus { 2 * place + 1 } else { place + self.surplus }
    }
}

/// The first ranks fold in pairs, even into odd, until a power of two is left.
fn fold(b: &mut Builder, work: &Work, accumulator: Elements, other: Elements) -> Folded {
    let size = 1 << b.size.ilog2();
    let surplus = b.size - size;
    if b.rank >= 2 * surplus {
        return Folded { size, surplus, place: Some(b.rank - surplus) };
    }
    if b.rank.is_multiple_of(2) {
        b.send(b.rank + 1, work.span(accumulator));
        b.next_round();
        return Folded { size, surplus, place: None };
    }
    b.receive(b.rank - 1, work.span(other));
    work.absorb(b, other, accumulator, true);
    Folded { size, surplus, place: Some(b.rank / 2) }
}

fn unfold(b: &mut Builder, work: &Work, accumulator: Elements, folded: &Folded) {
    b.next_round();
    if b.rank >= 2 * folded.surplus {
        return;
    }
    if b.rank.is_multiple_of(2) {
        b.receive(b.rank + 1, work.span(accumulator));
    } else {
        b.send(b.rank - 1, work.span(accumulator));
    }
}

fn exchange(b: &mut Builder, work: &Work, accumulator: Elements, other: Elements, with: usize) {
    b.next_round();
    b.send(with, work.span(accumulator));
    b.receive(with, work.span(other));
    work.absorb(b, other, accumulator, with < b.rank);
}

/// All ranks get the result in `accumulator`, which holds their contribution.
pub fn allreduce(b: &mut Builder, work: &Work, accumulator: Elements) {
    let other = work.scratch(b);
    let folded = fold(b, work, accumulator, other);
    let long = work.of.bytes * work.count >= LONG_BYTES && work.count >= folded.size;
    if let Some(place) = folded.place {
        if long && work.operation.commutes() && work.of.is_one_run() {
            halve_and_collect(b, work, accumulator, other, &folded, place);
        } else {
            let mut mask = 1;
            while mask < folded.size {
                exchange(b, work, accumulator, other, folded.real(place ^ mask));
                mask *= 2;
            }
        }
    }
    unfold(b, work, accumulator, &folded);
}

/// Rabenseifner: halves are exchanged and combined, nearest ranks first, then collected the same way back.
fn halve_and_collect(
    b: &mut Builder,
    work: &Work,
    accumulator: Elements,
    other: Elements,
    folded: &Folded,
    place: usize,
) {
    let mut range = 0..work.count;
    let mut mask = 1;
    let mut steps = alloc::vec::Vec::new();
    while mask < folded.size {
        let with = folded.real(place ^ mask);
        let middle = range.start + range.len() / 2;
        let (low, high) = (range.start..middle, middle..range.end);
        let (keep, give) = if place & mask == 0 { (low, high) } else { (high, low) };
        b.next_round();
        b.send(with, work.part(accumulator, give.clone()));
        b.receive(with, work.part(other, keep.clone()));
        let start = keep.start.cast_signed() * work.of.extent;
        let at = |elements: Elements| elements.buffer.wrapping_offset(start);
        b.reduce(work.operation, at(other), at(accumulator), keep.len());
        steps.push((with, keep.clone(), give));
        range = keep;
        mask *= 2;
    }
    for (with, mine, theirs) in steps.into_iter().rev() {
        b.next_round();
        b.send(with, work.part(accumulator, mine));
        b.receive(with, work.part(accumulator, theirs));
    }
}

/// The root gets the result in `accumulator`; elsewhere the accumulator is used up.
pub fn reduce(b: &mut Builder, work: &Work, accumulator: Elements, root: usize) {
    let long = work.of.bytes * work.count > SHORT_BYTES;
    let predefined = matches!(work.operation, Operation::Builtin(..));
    if long && predefined && work.count >= 1 << b.size.ilog2() {
        return reduce_long(b, work, accumulator, root);
    }
    let top = if work.operation.commutes() && !long { root } else { 0 };
    let other = work.scratch(b);
    let (rank, size) = (b.rank, b.size);
    let relative = (rank + size - top) % size;
    binomial(
        b,
        work,
        accumulator,
        other,
        Tree { place: relative, size, real: &|place| (place + top) % size },
    );
    hand_over(b, work, accumulator, top, root);
}

fn reduce_long(b: &mut Builder, work: &Work, accumulator: Elements, root: usize) {
    let other = work.scratch(b);
    let folded = fold(b, work, accumulator, other);
    if let Some(place) = folded.place {
        let tree = Tree { place, size: folded.size, real: &|place| folded.real(place) };
        binomial(b, work, accumulator, other, tree);
    }
    hand_over(b, work, accumulator, folded.real(0), root);
}

/// Places in a binomial tree and the ranks that have them.
struct Tree<'a> {
    place: usize,
    size: usize,
    real: &'a dyn Fn(usize) -> usize,
}

fn binomial(b: &mut Builder, work: &Work, accumulator: Elements, other: Elements, tree: Tree<'_>) {
    let mut mask = 1;
    while mask < tree.size {
        b.next_round();
        if tree.place & mask != 0 {
            b.send((tree.real)(tree.place - mask), work.span(accumulator));
            return;
        }
        let from = tree.place | mask;
        if from < tree.size {
            b.receive((tree.real)(from), work.span(other));
            work.absorb(b, other, accumulator, false);
        }
        mask *= 2;
    }
}

fn hand_over(b: &mut Builder, work: &Work, accumulator: Elements, from: usize, to: usize) {
    if from == to {
        return;
    }
    b.next_round();
    if b.rank == from {
        b.send(to, work.span(accumulator));
    } else if b.rank == to {
        b.receive(from, work.span(accumulator));
    }
}

/// All ranks get the whole result in `accumulator`, in the order of a reduce-scatter.
pub fn allreduce_far_first(b: &mut Builder, work: &Work, accumulator: Elements) {
    if !work.operation.commutes() {
        return allreduce(b, work, accumulator);
    }
    let other = work.scratch(b);
    let folded = fold(b, work, accumulator, other);
    if let Some(place) = folded.place {
        let mut mask = folded.size / 2;
        while mask > 0 {
            exchange(b, work, accumulator, other, folded.real(place ^ mask));
            mask /= 2;
        }
    }
    unfold(b, work, accumulator, &folded);
}

/// Prefix reduction. `partial` holds my contribution and is used up. Inclusive: `result` holds my contribution, too.
/// Exclusive: `result` is written on every rank but 0.
pub fn scan(b: &mut Builder, work: &Work, partial: Elements, result: Elements, inclusive: bool) {
    let other = work.scratch(b);
    let mut mask = 1;
    let mut first = !inclusive;
    while mask < b.size {
        let with = b.rank ^ mask;
        mask *= 2;
        if with >= b.size {
            continue;
        }
        b.next_round();
        b.send(with, work.span(partial));
        b.receive(with, work.span(other));
        if with < b.rank {
            if first {
                b.copy_elements(&work.of, other.buffer, result.buffer, work.count);
                first = false;
            } else {
                work.reduce(b, other, result);
            }
        }
        work.absorb(b, other, partial, with < b.rank);
    }
}

//! Collectives that compute. The module above says in what order.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;

use crate::collective::select::{Algorithm, Collective, algorithm};
use crate::datatype::Type;
use crate::memory::Region;
use crate::runtime::schedule::{Builder, Operation};

/// Up to this size a Reduce is a tree with the root at its top. In bytes.
pub const SHORT_BYTES: usize = 2048;

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

    /// Whether a reduction may exchange halves: the table says so, and elements can be taken apart.
    fn can_be_halved(&self, of: Collective, ranks: usize, places: usize) -> bool {
        let bytes = self.of.bytes * self.count;
        algorithm(of, bytes, ranks) == Algorithm::Rabenseifner
            && self.count >= places
            && self.operation.commutes()
            && self.of.is_one_run()
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
    if let Some(place) = folded.place {
        if work.can_be_halved(Collective::Allreduce, b.size, folded.size) {
            let steps = halve(b, work, accumulator, other, &folded, place);
            for Halving { with, mine, theirs } in steps.into_iter().rev() {
                b.next_round();
                b.send(with, work.part(accumulator, mine));
                b.receive(with, work.part(accumulator, theirs));
            }
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

/// A step of the halving: what I went on with, and what the other did.
struct Halving {
    with: usize,
    mine: Range<usize>,
    theirs: Range<usize>,
}

/// Rabenseifner: halves are exchanged and combined, nearest ranks first, until everybody has the result of one part.
fn halve(
    b: &mut Builder,
    work: &Work,
    accumulator: Elements,
    other: Elements,
    folded: &Folded,
    place: usize,
) -> Vec<Halving> {
    let mut range = 0..work.count;
    let mut mask = 1;
    let mut steps = Vec::new();
    while mask < folded.size {
        let with = folded.real(place ^ mask);
        let middle = range.start + range.len() / 2;
        let (low, high) = (range.start..middle, middle..range.end);
        let (mine, theirs) = if place & mask == 0 { (low, high) } else { (high, low) };
        exchange_parts(b, work, accumulator, other, with, &mine, theirs.clone());
        range = mine.clone();
        steps.push(Halving { with, mine, theirs });
        mask *= 2;
    }
    steps
}

/// Gives the other its part and combines mine. The operation commutes.
fn exchange_parts(
    b: &mut Builder,
    work: &Work,
    accumulator: Elements,
    other: Elements,
    with: usize,
    mine: &Range<usize>,
    theirs: Range<usize>,
) {
    b.next_round();
    b.send(with, work.part(accumulator, theirs));
    b.receive(with, work.part(other, mine.clone()));
    let start = mine.start.cast_signed() * work.of.extent;
    let at = |elements: Elements| elements.buffer.wrapping_offset(start);
    b.reduce(work.operation, at(other), at(accumulator), mine.len());
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

/// In the order of Allreduce.
fn reduce_long(b: &mut Builder, work: &Work, accumulator: Elements, root: usize) {
    let other = work.scratch(b);
    let folded = fold(b, work, accumulator, other);
    // A root that was folded into another rank gets the result from place 0.
    let top = (0..folded.size).find(|&place| folded.real(place) == root).unwrap_or(0);
    let halved = work.can_be_halved(Collective::Reduce, b.size, folded.size);
    match folded.place {
        Some(place) if halved => {
            let steps = halve(b, work, accumulator, other, &folded, place);
            collect(b, work, accumulator, steps, place, top);
        }
        Some(place) => {
            // From the root up, in terms of places: x ^ top has the same neighbours as x.
            let tree =
                Tree { place: place ^ top, size: folded.size, real: &|place| folded.real(place ^ top) };
            binomial(b, work, accumulator, other, tree);
        }
        None => {}
    }
    hand_over(b, work, accumulator, folded.real(top), root);
}

/// The parts that [`halve`] left go to place `top`, the last halving first.
fn collect(
    b: &mut Builder,
    work: &Work,
    accumulator: Elements,
    steps: Vec<Halving>,
    place: usize,
    top: usize,
) {
    for (bit, Halving { with, mine, theirs }) in steps.into_iter().enumerate().rev() {
        b.next_round();
        if (place ^ top) >> bit & 1 == 1 {
            return b.send(with, work.part(accumulator, mine));
        }
        b.receive(with, work.part(accumulator, theirs));
    }
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

/// Recursive halving, farthest ranks first: afterwards the elements `part(rank)` of my `accumulator` are the result.
pub fn reduce_scatter(
    b: &mut Builder,
    work: &Work,
    accumulator: Elements,
    part: impl Fn(usize) -> Range<usize>,
) {
    if !work.operation.commutes() {
        return allreduce(b, work, accumulator);
    }
    let other = work.scratch(b);
    let folded = fold(b, work, accumulator, other);
    // A place answers for the parts of the ranks that were folded into it, so for all from the one before it on.
    let first = |place: usize| match place {
        0 => 0,
        _ => part(folded.real(place - 1)).end,
    };
    let elements = |places: Range<usize>| first(places.start)..part(folded.real(places.end - 1)).end;
    if let Some(place) = folded.place {
        let mut places = 0..folded.size;
        let mut mask = folded.size / 2;
        while mask > 0 {
            let middle = places.start + mask;
            let (low, high) = (places.start..middle, middle..places.end);
            let (mine, theirs) = if place & mask == 0 { (low, high) } else { (high, low) };
            let with = folded.real(place ^ mask);
            exchange_parts(b, work, accumulator, other, with, &elements(mine.clone()), elements(theirs));
            places = mine;
            mask /= 2;
        }
    }
    b.next_round();
    if b.rank >= 2 * folded.surplus {
        return;
    }
    if b.rank.is_multiple_of(2) {
        b.receive(b.rank + 1, work.part(accumulator, part(b.rank)));
    } else {
        b.send(b.rank - 1, work.part(accumulator, part(b.rank - 1)));
    }
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

//! Collectives of intercommunicators: everybody deals directly with the other group, whose members the builder knows.
//!
//! Reductions combine the contributions of the other group in the order of its ranks: ((0 1) 2) 3 and so on.

use crate::collective::reduce::{Elements, Work};
use crate::memory::Region;
use crate::runtime::schedule::Builder;

/// Everybody waits for everybody of the other group.
pub fn barrier(b: &mut Builder) {
    exchange(b, Region::EMPTY, &alloc::vec![Region::EMPTY; b.size]);
}

/// Everybody of the other group gets the same data from me, and I get a block from each.
pub fn exchange(b: &mut Builder, mine: Region, blocks: &[Region]) {
    for (rank, &block) in blocks.iter().enumerate() {
        b.send(rank, mine);
        b.receive(rank, block);
    }
}

/// Sends the same data to the whole other group.
pub fn send_to_all(b: &mut Builder, data: Region) {
    for rank in 0..b.size {
        b.send(rank, data);
    }
}

/// Sends each member of the other group its block, or receives one from each.
pub fn send_blocks(b: &mut Builder, blocks: &[Region]) {
    for (rank, &block) in blocks.iter().enumerate() {
        b.send(rank, block);
    }
}

/// Receives a block from each member of the other group.
pub fn receive_blocks(b: &mut Builder, blocks: &[Region]) {
    for (rank, &block) in blocks.iter().enumerate() {
        b.receive(rank, block);
    }
}

/// A number that rank 0 of the `low` group has becomes known to both groups.
pub fn spread(b: &mut Builder, data: Region, low: bool) {
    if low {
        if b.rank == 0 {
            send_to_all(b, data);
        }
        b.next_round();
        b.receive(0, data);
    } else {
        b.receive(0, data);
        b.next_round();
        if b.rank == 0 {
            send_to_all(b, data);
        }
    }
}

/// Combines what all members of the other group send into `result`, in the order of their ranks.
pub fn combine(b: &mut Builder, work: &Work, result: Elements) {
    let parts: alloc::vec::Vec<Elements> = (0..b.size).map(|_| work.scratch(b)).collect();
    for (rank, part) in parts.iter().enumerate() {
        b.receive(rank, work.span(*part));
    }
    for pair in parts.windows(2) {
        work.reduce(b, pair[0], pair[1]);
    }
    if let Some(last) = parts.last() {
        b.copy_elements(&work.of, last.buffer, result.buffer, work.count);
    }
}

//! Collectives that only move data.

use alloc::vec::Vec;

use crate::collective::select::{Algorithm, Collective, algorithm};
use crate::collective::{bruck, tree};
use crate::memory::Region;
use crate::runtime::schedule::Builder;

/// Blocks of different lengths are exchanged all at once up to this size, pair by pair from there on. In bytes.
const EXCHANGE_AT_ONCE_BYTES: usize = 2048;

/// Dissemination: in round k every rank signals the one 2^k further.
pub fn barrier(b: &mut Builder) {
    let (rank, size) = (b.rank, b.size);
    let mut distance = 1;
    while distance < size {
        b.next_round();
        b.send((rank + distance) % size, Region::EMPTY);
        b.receive((rank + size - distance) % size, Region::EMPTY);
        distance *= 2;
    }
}

/// Binomial tree; long messages are scattered along the tree's ranks and collected in a ring.
pub fn broadcast(b: &mut Builder, data: Region, root: usize) {
    if algorithm(Collective::Broadcast, data.len(), b.size) == Algorithm::ScatterRing {
        return broadcast_long(b, data, root);
    }
    let (rank, size) = (b.rank, b.size);
    let relative = (rank + size - root) % size;
    let mut mask = 1;
    while mask < size && relative & mask == 0 {
        mask *= 2;
    }
    if relative != 0 {
        b.receive((relative - mask + root) % size, data);
        b.next_round();
    }
    mask /= 2;
    while mask > 0 {
        if relative + mask < size {
            b.send((relative + mask + root) % size, data);
        }
        mask /= 2;
    }
}

fn broadcast_long(b: &mut Builder, data: Region, root: usize) {
    let (rank, size) = (b.rank, b.size);
    let piece = data.len().div_ceil(size).next_multiple_of(64);
    let part = |index: usize| data.part(index * piece, piece);
    if rank == root {
        for other in (0..size).filter(|&other| other != root) {
            b.send(other, part(other));
        }
    } else {
        b.receive(root, part(rank));
    }
    ring(b, &(0..size).map(part).collect::<Vec<_>>(), root);
}

/// Every rank has its own block; afterwards every rank has all. `full` names a rank that needs none (it only sends).
fn ring(b: &mut Builder, blocks: &[Region], full: usize) {
    let (rank, size) = (b.rank, b.size);
    let (right, left) = ((rank + 1) % size, (rank + size - 1) % size);
    for step in 0..size - 1 {
        b.next_round();
        if right != full {
            b.send(right, blocks[(rank + size - step) % size]);
        }
        if rank != full {
            b.receive(left, blocks[(left + size - step) % size]);
        }
    }
}

/// The root's blocks go to their ranks; `mine` is none if the root's is in place. `equal` is the length of each block, if
/// they are known to be equally long.
pub fn scatter(b: &mut Builder, blocks: &[Region], mine: Option<Region>, equal: Option<usize>, root: usize) {
    if let Some(bytes) = equal
        && algorithm(Collective::Scatter, bytes, b.size) == Algorithm::Binomial
    {
        return tree::scatter(b, blocks, mine, bytes, root);
    }
    if b.rank != root {
        return b.receive(root, mine.unwrap_or(Region::EMPTY));
    }
    for (to, &block) in blocks.iter().enumerate().filter(|(to, _)| *to != root) {
        b.send(to, block);
    }
    if let Some(mine) = mine {
        b.copy(blocks[root], mine);
    }
}

/// The ranks' blocks go to the root; the rest as with [`scatter`].
pub fn gather(b: &mut Builder, blocks: &[Region], mine: Option<Region>, equal: Option<usize>, root: usize) {
    if let Some(bytes) = equal
        && algorithm(Collective::Gather, bytes, b.size) == Algorithm::Binomial
    {
        return tree::gather(b, blocks, mine, bytes, root);
    }
    if b.rank != root {
        return b.send(root, mine.unwrap_or(Region::EMPTY));
    }
    for (from, &block) in blocks.iter().enumerate().filter(|(from, _)| *from != root) {
        b.receive(from, block);
    }
    if let Some(mine) = mine {
        b.copy(mine, blocks[root]);
    }
}

/// Everybody gets everybody's block. `mine` is copied into place first, unless it is there.
pub fn allgather(b: &mut Builder, blocks: &[Region], mine: Option<Region>) {
    let (rank, size) = (b.rank, b.size);
    let longest = blocks.iter().map(|block| block.len()).max().unwrap_or(0);
    let equal = blocks.iter().all(|block| block.len() == longest);
    let chosen = algorithm(Collective::Allgather, longest, size);
    if chosen == Algorithm::Bruck && equal {
        return bruck::allgather(b, blocks, mine);
    }
    if let Some(mine) = mine {
        b.copy(mine, blocks[rank]);
        b.next_round();
    }
    if chosen == Algorithm::Ring {
        return ring(b, blocks, size);
    }
    for step in 1..size {
        b.send((rank + step) % size, blocks[rank]);
        b.receive((rank + size - step) % size, blocks[(rank + size - step) % size]);
    }
}

/// Everybody has a block for everybody. `equal`: all blocks of all ranks are equally long.
pub fn alltoall(b: &mut Builder, send: &[Region], receive: &[Region], equal: bool) {
    let (rank, size) = (b.rank, b.size);
    let longest = send.iter().chain(receive).map(|block| block.len()).max().unwrap_or(0);
    let one_by_one = if equal {
        let chosen = algorithm(Collective::Alltoall, longest, size);
        if chosen == Algorithm::Bruck {
            return bruck::alltoall(b, send, receive);
        }
        chosen == Algorithm::Pairwise
    } else {
        // Rounds are local: ranks may differ in what is long without harm.
        longest > EXCHANGE_AT_ONCE_BYTES
    };
    b.copy(send[rank], receive[rank]);
    b.next_round();
    for step in 1..size {
        let (to, from) = ((rank + step) % size, (rank + size - step) % size);
        b.send(to, send[to]);
        b.receive(from, receive[from]);
        if one_by_one {
            b.next_round();
        }
    }
}

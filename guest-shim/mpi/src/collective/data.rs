//! Collectives that only move data.

use alloc::vec::Vec;

use crate::memory::Region;
use crate::runtime::schedule::Builder;

/// Blocks up to this size are all exchanged at once, larger ones pair by pair. In bytes.
const EXCHANGE_AT_ONCE_BYTES: usize = 2048;
/// Messages from this size on are broadcast in pieces along a chain of scatter and ring. In bytes.
const BROADCAST_LONG_BYTES: usize = 128 << 10;

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
    if data.len() >= BROADCAST_LONG_BYTES && b.size > 2 {
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

/// The root's blocks go to their ranks.
pub fn scatter(b: &mut Builder, blocks: &[Region], mine: Region, own: Option<Region>, root: usize) {
    if b.rank != root {
        return b.receive(root, mine);
    }
    for (to, &block) in blocks.iter().enumerate().filter(|(to, _)| *to != root) {
        b.send(to, block);
    }
    if let Some(own) = own {
        b.copy(own, mine);
    }
}

/// The ranks' blocks go to the root.
pub fn gather(b: &mut Builder, blocks: &[Region], mine: Option<Region>, root: usize) {
    if b.rank != root {
        if let Some(mine) = mine {
            b.send(root, mine);
        }
        return;
    }
    for (from, &block) in blocks.iter().enumerate().filter(|(from, _)| *from != root) {
        b.receive(from, block);
    }
    if let Some(mine) = mine {
        b.copy(mine, blocks[root]);
    }
}

/// Ring for long blocks, everybody to everybody for short ones. `mine` is copied into place first.
pub fn allgather(b: &mut Builder, blocks: &[Region], mine: Option<Region>) {
    let (rank, size) = (b.rank, b.size);
    if let Some(mine) = mine {
        b.copy(mine, blocks[rank]);
        b.next_round();
    }
    let longest = blocks.iter().map(|block| block.len()).max().unwrap_or(0);
    if longest > EXCHANGE_AT_ONCE_BYTES {
        return ring(b, blocks, size);
    }
    for step in 1..size {
        b.send((rank + step) % size, blocks[rank]);
        b.receive((rank + size - step) % size, blocks[(rank + size - step) % size]);
    }
}

/// Pairwise exchange; short blocks all at once.
pub fn alltoall(b: &mut Builder, send: &[Region], receive: &[Region]) {
    let (rank, size) = (b.rank, b.size);
    b.copy(send[rank], receive[rank]);
    b.next_round();
    let longest = send.iter().chain(receive).map(|block| block.len()).max().unwrap_or(0);
    for step in 1..size {
        let (to, from) = ((rank + step) % size, (rank + size - step) % size);
        b.send(to, send[to]);
        b.receive(from, receive[from]);
        // Rounds are local: ranks may differ in what is long without harm.
        if longest > EXCHANGE_AT_ONCE_BYTES {
            b.next_round();
        }
    }
}

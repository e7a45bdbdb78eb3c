//! Bruck's algorithms: short, equal blocks between all ranks in as many rounds as the number of ranks has bits.

use alloc::vec::Vec;

use crate::memory::Region;
use crate::runtime::schedule::Builder;

/// Everybody gets everybody's block. In round k a rank has 2^k blocks, from its own on, and gets as many more.
pub fn allgather(b: &mut Builder, blocks: &[Region], mine: Option<Region>) {
    let (rank, size, bytes) = (b.rank, b.size, blocks[0].len());
    let all = b.scratch(size * bytes);
    b.copy(mine.unwrap_or(blocks[rank]), all);
    let mut distance = 1;
    while distance < size {
        let number = distance.min(size - distance);
        b.next_round();
        b.send((rank + size - distance) % size, all.part(0, number * bytes));
        b.receive((rank + distance) % size, all.part(distance * bytes, number * bytes));
        distance *= 2;
    }
    b.next_round();
    for index in usize::from(mine.is_none())..size {
        b.copy(all.part(index * bytes, bytes), blocks[(rank + index) % size]);
    }
}

/// Block i of `send` goes to rank i. A block travels the distance to its rank bit by bit, together with all that have to
/// travel this bit.
pub fn alltoall(b: &mut Builder, send: &[Region], receive: &[Region]) {
    let (rank, size, bytes) = (b.rank, b.size, send[0].len());
    let all = b.scratch(size * bytes);
    let block = |index: usize| all.part(index * bytes, bytes);
    for index in 0..size {
        b.copy(send[(rank + index) % size], block(index));
    }
    let half = size.div_ceil(2) * bytes;
    let (out, back) = (b.scratch(half), b.scratch(half));
    let mut distance = 1;
    while distance < size {
        let moving: Vec<usize> = (0..size).filter(|index| index & distance != 0).collect();
        for (place, &index) in moving.iter().enumerate() {
            b.copy(block(index), out.part(place * bytes, bytes));
        }
        b.send((rank + distance) % size, out.part(0, moving.len() * bytes));
        b.receive((rank + size - distance) % size, back.part(0, moving.len() * bytes));
        for (place, &index) in moving.iter().enumerate() {
            b.copy(back.part(place * bytes, bytes), block(index));
        }
        distance *= 2;
    }
    for index in 0..size {
        b.copy(block(index), receive[(rank + size - index) % size]);
    }
}

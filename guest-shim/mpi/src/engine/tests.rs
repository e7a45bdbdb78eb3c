//! Several engines in one process over rings in ordinary memory, driven in random order.

mod order;

use alloc::vec::Vec;

use super::*;
use crate::memory::Scratch;
use crate::ring::testing::RingMemory;
use crate::ring::{Consumer, Producer, RingError};

struct TestLinks {
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
}

impl Links for TestLinks {
    type Error = RingError;
    fn room(&mut self, peer: u32) -> Result<usize, RingError> {
        self.producers[peer as usize].room()
    }
    fn write(&mut self, peer: u32, parts: [Region; 2]) {
        self.producers[peer as usize].write(parts);
    }
    fn look(&mut self) {}
    fn next_ready(&self, from: u32) -> Option<u32> {
        (from as usize..self.consumers.len()).next().map(|peer| peer as u32)
    }
    fn readable(&mut self, peer: u32) -> Result<usize, RingError> {
        self.consumers[peer as usize].readable()
    }
    fn copy(&self, peer: u32, offset: usize, target: Region) {
        self.consumers[peer as usize].copy(offset, target);
    }
    fn consume(&mut self, peer: u32, bytes: usize) {
        self.consumers[peer as usize].consume(bytes);
    }
    fn flush(&mut self) {}
}

struct World {
    engines: Vec<Engine>,
    links: Vec<TestLinks>,
    rings: Vec<RingMemory>,
}

impl World {
    fn new(ranks: usize) -> World {
        const RING: u32 = 16 << 10;
        let mut rings: Vec<_> = (0..ranks * ranks).map(|_| RingMemory::new(RING)).collect();
        let mut links: Vec<_> =
            (0..ranks).map(|_| TestLinks { producers: Vec::new(), consumers: Vec::new() }).collect();
        for from in 0..ranks {
            for to in 0..ranks {
                let (producer, consumer) = rings[from * ranks + to].ends();
                links[from].producers.push(producer);
                links[to].consumers.push(consumer);
            }
        }
        let limits = Limits::for_ring(RING as usize);
        let engines = (0..ranks).map(|me| Engine::new(me as u32, ranks as u32, limits)).collect();
        World { engines, links, rings }
    }

    fn step(&mut self, rank: usize) -> bool {
        self.engines[rank].progress(&mut self.links[rank]).expect("peers are correct")
    }

    fn settle(&mut self) {
        while (0..self.engines.len()).fold(false, |moved, rank| self.step(rank) | moved) {}
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

const ENVELOPE: Envelope = Envelope { context: 2, tag: 7 };

fn any(context: u32) -> Pattern {
    Pattern { context, source: None, tag: None }
}

fn filled(bytes: usize, seed: u8) -> Scratch {
    let mut scratch = Scratch::new(bytes);
    let pattern: Vec<u8> = (0..bytes).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    // SAFETY: only read while the vector lives.
    unsafe { Region::new(pattern.as_ptr().cast_mut(), bytes) }.copy_to(scratch.region());
    scratch
}

/// Every message of a storm arrives whole, in order for each pair and tag, whatever the order of progress.
#[test]
fn a_storm_of_messages_arrives_whole_and_in_order() {
    for seed in 1..=20u64 {
        let mut random = Random(seed * 0x9e37_79b9);
        let ranks = 2 + (seed % 3) as usize;
        let mut world = World::new(ranks);
        let mut sent: Vec<(usize, usize, usize, Scratch, RequestId)> = Vec::new();
        let mut received: Vec<(usize, Scratch, RequestId)> = Vec::new();
        let count = 60;
        for _ in 0..count {
            let (from, to) = (random.below(ranks as u64) as usize, random.below(ranks as u64) as usize);
            let bytes = [0, 1, 100, 2048, 2049, 9000, 100_000][random.below(7) as usize];
            let mut data = filled(bytes, sent.len() as u8);
            let mode = if random.below(4) == 0 { Mode::Synchronous } else { Mode::Standard };
            let id = world.engines[from].send(to as u32, ENVELOPE, data.region(), mode);
            sent.push((from, to, bytes, data, id));
            for _ in 0..random.below(3) {
                let rank = random.below(ranks as u64) as usize;
                world.step(rank);
            }
        }
        let mut wanted: Vec<usize> = (0..count).collect();
        while !wanted.is_empty() {
            let (_, to, ..) = sent[wanted.swap_remove(random.below(wanted.len() as u64) as usize)];
            let mut data = Scratch::new(100_000);
            let id = world.engines[to].receive(any(2), data.region());
            received.push((to, data, id));
            world.step(random.below(ranks as u64) as usize);
        }
        world.settle();
        check_storm(&mut world, &sent, &mut received, seed);
    }
}

fn check_storm(
    world: &mut World,
    sent: &[(usize, usize, usize, Scratch, RequestId)],
    received: &mut [(usize, Scratch, RequestId)],
    seed: u64,
) {
    for (from, _, _, _, id) in sent {
        assert!(world.engines[*from].completion(*id).is_some(), "seed {seed}: a send hangs");
        world.engines[*from].release(*id);
    }
    let mut next: Vec<usize> = alloc::vec![0; world.engines.len() * world.engines.len()];
    for (to, data, id) in received {
        let done =
            world.engines[*to].completion(*id).unwrap_or_else(|| panic!("seed {seed}: a receive hangs"));
        world.engines[*to].release(*id);
        let pair = done.source as usize * world.engines.len() + *to;
        let at = (next[pair]..sent.len())
            .find(|i| sent[*i].0 == done.source as usize && sent[*i].1 == *to)
            .unwrap_or_else(|| panic!("seed {seed}: a message nobody sent"));
        next[pair] = at + 1;
        assert_eq!(done.bytes as usize, sent[at].2, "seed {seed}: out of order");
        let expected = filled(sent[at].2, at as u8).region().to_vec();
        assert_eq!(data.region().part(0, sent[at].2).to_vec(), expected, "seed {seed}: damaged");
    }
    assert!(world.engines.iter().all(|engine| engine.requests_alive() == 0));
    let _ = &world.rings;
}

#[test]
fn wildcards_and_exact_receives_match_in_the_order_of_posting() {
    let mut world = World::new(2);
    let (mut first, mut second, mut third) = (Scratch::new(8), Scratch::new(8), Scratch::new(8));
    let tagged = Pattern { tag: Some(7), ..any(2) };
    let one = world.engines[1].receive(Pattern { tag: Some(8), ..any(2) }, first.region());
    let two = world.engines[1].receive(any(2), second.region());
    let three = world.engines[1].receive(tagged, third.region());
    for tag in [7, 7, 8] {
        let id = world.engines[0].send(
            1,
            Envelope { context: 2, tag },
            filled(8, tag as u8).region(),
            Mode::Standard,
        );
        world.settle();
        world.engines[0].release(id);
    }
    let tag = |id| world.engines[1].completion(id).map(|done| done.tag);
    assert_eq!((tag(one), tag(two), tag(three)), (Some(8), Some(7), Some(7)));
}

#[test]
fn another_context_is_another_world() {
    let mut world = World::new(2);
    let mut data = Scratch::new(8);
    let id = world.engines[1].receive(any(3), data.region());
    world.engines[0].send(1, ENVELOPE, filled(8, 1).region(), Mode::Standard);
    world.settle();
    assert!(world.engines[1].completion(id).is_none());
    assert!(world.engines[1].probe(&any(3)).is_none());
    assert_eq!(world.engines[1].probe(&any(2)).map(|found| found.bytes), Some(8));
}

#[test]
fn a_message_longer_than_its_buffer_is_cut_and_says_so() {
    for bytes in [100, 50_000] {
        let mut world = World::new(2);
        let mut data = Scratch::new(10);
        let id = world.engines[1].receive(any(2), data.region());
        let mut message = filled(bytes, 3);
        let send = world.engines[0].send(1, ENVELOPE, message.region(), Mode::Standard);
        world.settle();
        let done = world.engines[1].completion(id).unwrap();
        assert!(done.is_truncated() && done.bytes == 10 && done.message_bytes == bytes as u64);
        assert!(world.engines[0].completion(send).is_some());
    }
}

#[test]
fn requests_can_be_cancelled_until_they_are_matched() {
    let mut world = World::new(2);
    let mut data = Scratch::new(50_000);
    let receive = world.engines[1].receive(any(2), data.region());
    world.engines[1].cancel(receive);
    assert!(world.engines[1].completion(receive).unwrap().cancelled);
    let send = world.engines[0].send(1, ENVELOPE, data.region(), Mode::Standard);
    world.settle();
    world.engines[0].cancel(send);
    world.settle();
    assert!(world.engines[0].completion(send).unwrap().cancelled);
    assert!(world.engines[1].probe(&any(2)).is_none());
}

#[test]
fn frames_for_requests_that_do_not_wait_for_them_are_refused() {
    for kind in [Kind::Cts, Kind::Data, Kind::Cancelled] {
        for id in [0, 1, 1 << 32, u64::MAX] {
            let mut world = World::new(2);
            let mut data = Scratch::new(64);
            world.engines[1].receive(any(2), data.region());
            let header = Header { sender: id, receiver: id, ..Header::new(kind) };
            write_frame(&mut world.links[0], 1, &header, Region::EMPTY);
            let result = world.engines[1].progress(&mut world.links[1]);
            assert_eq!(result, Err(ProtocolError::Request(0, kind)));
        }
    }
}

/// Random bytes in a ring end in an error or in waiting for more, never in a panic.
#[test]
fn garbage_in_a_ring_is_an_error_at_most() {
    let mut random = Random(99);
    for _ in 0..2000 {
        let mut world = World::new(2);
        let mut data = Scratch::new(64);
        world.engines[1].receive(any(2), data.region());
        let mut bytes: Vec<u8> = (0..400).map(|_| random.below(256) as u8).collect();
        bytes[0] = 1 + random.below(6) as u8;
        bytes[1] = 1;
        bytes[6..8].fill(0);
        // SAFETY: only read while the vector lives.
        let garbage = unsafe { Region::new(bytes.as_mut_ptr(), bytes.len()) };
        world.links[0].write(1, [garbage, Region::EMPTY]);
        let _ = world.engines[1].progress(&mut world.links[1]);
    }
}

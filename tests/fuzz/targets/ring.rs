//! The VMM's end of a ring whose header the guest, or the peer that shares it, fills with lies.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use nix::sys::memfd::{MFdFlags, memfd_create};
use partita_abi::{RINGS_BASE, receive_ring_offset, ring_stride, send_ring_offset};
use vmm::fabric::{Direction, Ring};
use vmm::memory::{Layout, Memory};

const RING_BYTES: u32 = 16 << 10;

fn memory() -> Arc<Memory> {
    static MEMORY: OnceLock<Arc<Memory>> = OnceLock::new();
    let layout = Layout { program_bytes: 4 << 20, ranks: 2, ring_bytes: RING_BYTES };
    MEMORY.get_or_init(|| Arc::new(Memory::new(layout).expect("memory"))).clone()
}

/// What the other side writes into a header.
fn lie(address: u64, words: &[u8]) {
    for (index, word) in words.chunks_exact(8).take(18).enumerate() {
        let value = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        memory().write_u64(address + 8 * index as u64, value).expect("the header is memory");
    }
}

fn check(ring: &Ring) {
    let (read, written) = (ring.read().expect("memory"), ring.written().expect("memory"));
    assert!(read <= written && written - read <= ring.bytes(), "{read} {written}");
}

fuzz_target!(|data: &[u8]| {
    let (before, during) = data.split_at(data.len() / 2);
    let (sending, receiving) = (Ring::sending_to(memory(), 1), Ring::receiving_from(memory(), 1));
    let sending_at = RINGS_BASE + send_ring_offset(1, RING_BYTES);
    let receiving_at = RINGS_BASE + receive_ring_offset(1, RING_BYTES);
    let acknowledged = before.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes) >> 1);
    lie(sending_at, before);
    lie(receiving_at, before);
    let file = memfd_create(c"fuzz", MFdFlags::empty()).expect("a file in memory");
    nix::unistd::ftruncate(&file, ring_stride(RING_BYTES) as i64).expect("room for it");
    let copy = file.try_clone().expect("a descriptor");
    sending.share_as_producer(acknowledged, file).expect("it can be mapped");
    lie(sending_at, during);
    sending.take_back(Direction::Sending).expect("it can be mapped");
    check(&sending);
    if receiving.share_as_consumer(copy).expect("it can be mapped") {
        lie(receiving_at, during);
        receiving.take_back(Direction::Receiving).expect("it can be mapped");
        check(&receiving);
    }
});

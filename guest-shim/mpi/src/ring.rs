//! The two ends of a byte ring, over memory shared with another trust domain.
//!
//! Each end keeps its own offset in private memory and believes the other end's offset only as far as it can be
//! true: between the last value seen and what the ring can hold. A [`RingError`] means the other end lied.

use core::sync::atomic::Ordering;

use partita_abi::{RING_HEADER_BYTES, RingHeader};

use crate::memory::Region;

/// An offset in a ring header that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingError {
    /// The offset this end knows to be right.
    pub mine: u64,
    /// What the other end claims.
    pub theirs: u64,
}

/// Header and data of one ring.
#[derive(Debug, Clone, Copy)]
struct Memory {
    header: *const RingHeader,
    data: *mut u8,
    bytes: u64,
}

impl Memory {
    fn header(&self) -> &RingHeader {
        // SAFETY: `new` was promised a header that lives as long as the library; it has only atomic fields.
        unsafe { &*self.header }
    }

    fn is_shared(&self) -> bool {
        self.header().shared.load(Ordering::Relaxed) != 0
    }

    /// The one or two pieces that `bytes` bytes from stream offset `offset` occupy.
    fn pieces(&self, offset: u64, bytes: usize) -> (Region, Region) {
        debug_assert!(bytes as u64 <= self.bytes);
        let start = (offset & (self.bytes - 1)) as usize;
        let first = bytes.min(self.bytes as usize - start);
        // SAFETY: both ranges are inside the data part of the ring, which lives as long as the library.
        unsafe { (Region::new(self.data.add(start), first), Region::new(self.data, bytes - first)) }
    }
}

/// The end that writes.
#[derive(Debug)]
pub struct Producer {
    ring: Memory,
    written: u64,
    read: u64,
    messages: u64,
}

/// The end that reads.
#[derive(Debug)]
pub struct Consumer {
    ring: Memory,
    written: u64,
    read: u64,
    crowded: bool,
    freed: u64,
}

/// # Safety
/// `base` must be a ring header followed at [`RING_HEADER_BYTES`] by `bytes` bytes, valid until the process ends.
unsafe fn memory(base: *mut u8, bytes: u32) -> Memory {
    debug_assert!(bytes.is_power_of_two());
    // SAFETY: as promised by the caller.
    Memory { header: base.cast(), data: unsafe { base.add(RING_HEADER_BYTES as usize) }, bytes: bytes.into() }
}

impl Producer {
    /// The writing end of the ring at `base`.
    ///
    /// # Safety
    /// `base` must be a ring header followed at [`RING_HEADER_BYTES`] by `bytes` (a power of two) bytes, valid
    /// until the process ends, and there must be no other producer.
    pub unsafe fn new(base: *mut u8, bytes: u32) -> Producer {
        // SAFETY: as promised by the caller.
        let ring = unsafe { memory(base, bytes) };
        let written = ring.header().written.load(Ordering::Acquire);
        let read = ring.header().read.load(Ordering::Acquire).min(written);
        Producer { ring, written, read, messages: 0 }
    }

    /// Bytes that can be written now.
    ///
    /// # Errors
    /// When the consumer claims to have read what was not written.
    pub fn room(&mut self) -> Result<usize, RingError> {
        let read = self.ring.header().read.load(Ordering::Acquire);
        if read < self.read || read > self.written {
            return Err(RingError { mine: self.written, theirs: read });
        }
        self.read = read;
        Ok((self.ring.bytes - (self.written - read)) as usize)
    }

    /// Appends a message made of parts, each padded to eight bytes, and publishes it. The caller has asked for room.
    pub fn write(&mut self, parts: [Region; 2]) {
        let mut offset = self.written;
        for part in parts {
            let (first, second) = self.ring.pieces(offset, part.len());
            part.copy_to(first);
            part.part(first.len(), second.len()).copy_to(second);
            offset += part.len().next_multiple_of(8) as u64;
        }
        self.written = offset;
        self.messages += 1;
        self.ring.header().messages.store(self.messages, Ordering::Relaxed);
        self.ring.header().written.store(offset, Ordering::Release);
    }

    /// Whether the consumer has to be woken; to be asked after a full fence.
    pub fn consumer_sleeps(&self) -> bool {
        self.ring.header().consumer_asleep.load(Ordering::Relaxed) != 0
    }

    /// Whether the consumer is the peer itself.
    pub fn is_shared(&self) -> bool {
        self.ring.is_shared()
    }

    /// Says whether this end sleeps; a full fence has to follow before it does.
    pub fn set_asleep(&self, asleep: bool) {
        self.ring.header().producer_asleep.store(asleep.into(), Ordering::Relaxed);
    }
}

impl Consumer {
    /// The reading end of the ring at `base`.
    ///
    /// # Safety
    /// As for [`Producer::new`], and there must be no other consumer.
    pub unsafe fn new(base: *mut u8, bytes: u32) -> Consumer {
        // SAFETY: as promised by the caller.
        let ring = unsafe { memory(base, bytes) };
        let read = ring.header().read.load(Ordering::Acquire);
        Consumer { ring, written: read, read, crowded: false, freed: 0 }
    }

    /// Bytes that can be read now.
    ///
    /// # Errors
    /// When the producer claims to have written more than fits, or less than before.
    pub fn readable(&mut self) -> Result<usize, RingError> {
        let written = self.ring.header().written.load(Ordering::Acquire);
        if written < self.written || written - self.read > self.ring.bytes {
            return Err(RingError { mine: self.read, theirs: written });
        }
        self.written = written;
        Ok((written - self.read) as usize)
    }

    /// Copies from `offset` bytes after the read offset on as many bytes as `target` has. The caller has seen
    /// with [`Consumer::readable`] that they are there.
    pub fn copy(&self, offset: usize, target: Region) {
        let (first, second) = self.ring.pieces(self.read + offset as u64, target.len());
        first.copy_to(target);
        second.copy_to(target.part(first.len(), second.len()));
    }

    /// Takes `bytes` bytes, which [`Consumer::readable`] has shown, out of the ring.
    pub fn consume(&mut self, bytes: usize) {
        let unread = self.written - self.read;
        debug_assert!(bytes as u64 <= unread);
        // A producer can only be short of room while the ring is more than half full: a frame is at most a quarter.
        self.crowded |= unread > self.ring.bytes / 2;
        self.read += bytes as u64;
        self.freed += bytes as u64;
        self.ring.header().read.store(self.read, Ordering::Release);
    }

    /// Whether the producer may be waiting for the room that was made since this last said yes.
    pub fn producer_may_wait(&mut self) -> bool {
        let useful = self.crowded && (self.freed >= self.ring.bytes / 2 || self.read == self.written);
        if useful {
            self.crowded = false;
            self.freed = 0;
        }
        useful
    }

    /// Adds time stamp counts that were spent waiting for this producer.
    pub fn add_waited(&self, counts: u64) {
        let waited = &self.ring.header().waited_tsc;
        waited.store(waited.load(Ordering::Relaxed).wrapping_add(counts), Ordering::Relaxed);
    }

    /// Whether the producer has to be woken; to be asked after a full fence.
    pub fn producer_sleeps(&self) -> bool {
        self.ring.header().producer_asleep.load(Ordering::Relaxed) != 0
    }

    /// Whether the producer is the peer itself.
    pub fn is_shared(&self) -> bool {
        self.ring.is_shared()
    }

    /// Says whether this end sleeps; a full fence has to follow before it does.
    pub fn set_asleep(&self, asleep: bool) {
        self.ring.header().consumer_asleep.store(asleep.into(), Ordering::Relaxed);
    }
}

/// Rings in ordinary memory.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// Memory for one ring.
    pub struct RingMemory {
        scratch: crate::memory::Scratch,
        bytes: u32,
    }

    impl RingMemory {
        /// An empty ring.
        pub fn new(bytes: u32) -> RingMemory {
            RingMemory { scratch: crate::memory::Scratch::new(4096 + bytes as usize), bytes }
        }

        /// Both ends; the value must outlive them.
        pub fn ends(&mut self) -> (Producer, Consumer) {
            let base = self.scratch.region().pointer();
            // SAFETY: the scratch memory has the size of a ring and starts as zeros, an empty ring.
            unsafe { (Producer::new(base, self.bytes), Consumer::new(base, self.bytes)) }
        }

        /// The header, to lie in it.
        pub fn header(&mut self) -> &RingHeader {
            // SAFETY: the memory begins with a header.
            unsafe { &*self.scratch.region().pointer().cast::<RingHeader>() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::RingMemory;
    use super::*;
    use crate::memory::Scratch;

    fn region(bytes: &[u8]) -> Region {
        // SAFETY: only read, and the slice outlives the call that uses it.
        unsafe { Region::new(bytes.as_ptr().cast_mut(), bytes.len()) }
    }

    #[test]
    fn bytes_come_out_as_they_went_in_across_the_end_of_the_ring() {
        let mut memory = RingMemory::new(16 << 10);
        let (mut producer, mut consumer) = memory.ends();
        let mut target = Scratch::new(5000);
        for round in 0..50u8 {
            let message = [round; 4999];
            assert!(producer.room().unwrap() >= 5008);
            producer.write([region(&message[..8]), region(&message[8..])]);
            assert_eq!(consumer.readable().unwrap(), 5000);
            consumer.copy(0, target.region());
            assert_eq!(target.region().to_vec()[..4999], message);
            consumer.consume(5000);
            assert_eq!(producer.room(), Ok(16 << 10));
        }
    }

    #[test]
    fn offsets_that_cannot_be_are_refused() {
        let mut memory = RingMemory::new(16 << 10);
        let (mut producer, mut consumer) = memory.ends();
        producer.write([region(&[1; 64]), Region::EMPTY]);
        assert_eq!(consumer.readable(), Ok(64));
        memory.header().written.store(32, Ordering::Relaxed);
        assert!(consumer.readable().is_err());
        memory.header().written.store(1 << 20, Ordering::Relaxed);
        assert!(consumer.readable().is_err());
        memory.header().read.store(65, Ordering::Relaxed);
        assert!(producer.room().is_err());
        memory.header().read.store(u64::MAX, Ordering::Relaxed);
        assert!(producer.room().is_err());
    }

    #[test]
    fn a_producer_short_of_room_is_told_and_nobody_else() {
        let mut memory = RingMemory::new(16 << 10);
        let (mut producer, mut consumer) = memory.ends();
        producer.write([region(&[1; 4096]), Region::EMPTY]);
        consumer.readable().unwrap();
        consumer.consume(4096);
        assert!(!consumer.producer_may_wait());
        for _ in 0..4 {
            producer.write([region(&[1; 4096]), Region::EMPTY]);
        }
        consumer.readable().unwrap();
        consumer.consume(4096);
        assert!(consumer.producer_may_wait() || consumer.freed < 8192);
        consumer.consume(4096);
        consumer.consume(4096);
        consumer.consume(4096);
        assert!(consumer.producer_may_wait());
        assert!(!consumer.producer_may_wait());
    }
}

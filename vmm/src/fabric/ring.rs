//! The VMM's end of a ring in guest memory.
//!
//! The guest owns half of every ring and can write all of it: offsets are compared with our own copies and clamped, and
//! data is moved by system calls straight between the ring and a socket, never through Rust references.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use partita_abi::{
    RING_HEADER_BYTES, RINGS_BASE, RingHeader, receive_ring_offset, ring_stride, send_ring_offset,
};

use crate::memory::{Memory, MemoryError};

const WRITTEN: u64 = std::mem::offset_of!(RingHeader, written) as u64;
const MESSAGES: u64 = std::mem::offset_of!(RingHeader, messages) as u64;
const WAITED: u64 = std::mem::offset_of!(RingHeader, waited_tsc) as u64;
const READ: u64 = std::mem::offset_of!(RingHeader, read) as u64;
const SHARED: u64 = std::mem::offset_of!(RingHeader, shared) as u64;

/// Which end of a ring is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Our guest writes it.
    Sending,
    /// Our guest reads it.
    Receiving,
}

/// One ring. Clones are the same ring.
#[derive(Clone)]
pub struct Ring {
    memory: Arc<Memory>,
    address: u64,
    bytes: u32,
    /// The memory behind it while the peer maps that too. Locked while the mapping changes.
    shared: Arc<Mutex<Option<OwnedFd>>>,
}

impl Ring {
    /// The ring in which the partition sends to `peer`.
    pub fn sending_to(memory: Arc<Memory>, peer: u32) -> Self {
        let bytes = memory.layout().ring_bytes;
        Self { memory, address: RINGS_BASE + send_ring_offset(peer, bytes), bytes, shared: Arc::default() }
    }

    /// The ring in which the partition receives from `peer`.
    pub fn receiving_from(memory: Arc<Memory>, peer: u32) -> Self {
        let bytes = memory.layout().ring_bytes;
        Self { memory, address: RINGS_BASE + receive_ring_offset(peer, bytes), bytes, shared: Arc::default() }
    }

    /// Bytes of its data part.
    pub fn bytes(&self) -> u64 {
        u64::from(self.bytes)
    }

    fn word(&self, offset: u64) -> Result<&AtomicU64, MemoryError> {
        self.memory.atomic_u64(self.address + offset)
    }

    /// Stream offset up to which the producer has written.
    pub fn written(&self) -> Result<u64, MemoryError> {
        Ok(self.word(WRITTEN)?.load(Ordering::Acquire))
    }

    /// Stream offset up to which the consumer has read.
    pub fn read(&self) -> Result<u64, MemoryError> {
        Ok(self.word(READ)?.load(Ordering::Acquire))
    }

    /// Messages ever written.
    pub fn messages(&self) -> Result<u64, MemoryError> {
        Ok(self.word(MESSAGES)?.load(Ordering::Relaxed))
    }

    /// Time stamp counts the consumer waited for this producer.
    pub fn waited_tsc(&self) -> Result<u64, MemoryError> {
        Ok(self.word(WAITED)?.load(Ordering::Relaxed))
    }

    /// As producer: bytes up to `offset` are there.
    pub fn set_written(&self, offset: u64) -> Result<(), MemoryError> {
        self.word(WRITTEN)?.store(offset, Ordering::Release);
        self.memory.mark_dirty(self.address, RING_HEADER_BYTES);
        Ok(())
    }

    /// As consumer: bytes up to `offset` are acknowledged by the far end.
    pub fn set_read(&self, offset: u64) -> Result<(), MemoryError> {
        self.word(READ)?.store(offset, Ordering::Release);
        self.memory.mark_dirty(self.address, RING_HEADER_BYTES);
        Ok(())
    }

    /// As producer of a far stream: adds to the message counter.
    pub fn set_messages(&self, messages: u64) -> Result<(), MemoryError> {
        self.word(MESSAGES)?.store(messages, Ordering::Relaxed);
        Ok(())
    }

    /// The one or two pieces of memory that hold stream bytes `offset..offset + length` (`length` at most the ring).
    fn pieces(&self, offset: u64, length: u64) -> Result<[libc::iovec; 2], MemoryError> {
        assert!(length <= self.bytes(), "callers clamp to the ring");
        let start = offset % self.bytes();
        let first = length.min(self.bytes() - start);
        let data = self.address + RING_HEADER_BYTES;
        let piece = |at: u64, bytes: u64| {
            let pointer = self.memory.host_pointer(data + at, bytes.max(1))?;
            Ok::<_, MemoryError>(libc::iovec { iov_base: pointer.cast(), iov_len: bytes as usize })
        };
        Ok([piece(start, first)?, piece(0, length - first)?])
    }

    /// Sends `header` (the part of it that is left) and then stream bytes from the ring. Returns what one call sent.
    pub fn send(&self, socket: RawFd, header: &[u8], offset: u64, length: u64) -> io::Result<u64> {
        let [first, second] = self.pieces(offset, length).map_err(io::Error::other)?;
        let head = libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: header.len() };
        let vectors = [head, first, second];
        // SAFETY: all three pieces are valid memory of the stated lengths for the whole call; the kernel only reads them.
        let sent = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = vectors.as_ptr().cast_mut();
            message.msg_iovlen = vectors.len() as _;
            libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL)
        };
        u64::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Receives up to `length` stream bytes into the ring from `offset` on. Returns how many came; 0 is the end.
    pub fn receive(&self, socket: RawFd, offset: u64, length: u64) -> io::Result<u64> {
        let vectors = self.pieces(offset, length).map_err(io::Error::other)?;
        // SAFETY: both pieces are guest memory of the stated lengths; the guest is another processor and no Rust
        // reference to this memory exists.
        let got = unsafe { libc::readv(socket, vectors.as_ptr(), vectors.len() as i32) };
        let got = u64::try_from(got).map_err(|_| io::Error::last_os_error())?;
        self.mark_data_dirty(offset, got);
        Ok(got)
    }

    /// Copies stream bytes out of the ring.
    pub fn copy_out(&self, offset: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        self.for_pieces(offset, buffer, |at, piece| self.memory.read(at, piece))
    }

    /// Copies stream bytes into the ring, as [`receive`](Self::receive) does.
    pub fn copy_in(&self, offset: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        self.for_pieces(offset, bytes, |at, piece| self.memory.write(at, piece))?;
        self.mark_data_dirty(offset, bytes.len() as u64);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the peer maps it too.
    pub fn is_shared(&self) -> bool {
        self.lock().is_some()
    }

    fn set_shared_flag(&self, shared: bool) -> Result<(), MemoryError> {
        self.memory.atomic_u32(self.address + SHARED)?.store(shared.into(), Ordering::Release);
        Ok(())
    }

    /// Copies stream bytes from or to the ring, in at most two pieces.
    fn for_pieces(
        &self,
        offset: u64,
        buffer: &mut [u8],
        mut copy: impl FnMut(u64, &mut [u8]) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        let start = offset % self.bytes();
        let first = (buffer.len() as u64).min(self.bytes() - start) as usize;
        let (head, tail) = buffer.split_at_mut(first);
        let data = self.address + RING_HEADER_BYTES;
        copy(data + start, head)?;
        copy(data, tail)
    }

    /// As producer: puts `file`, which the consumer maps already with everything read up to `acknowledged`, behind the ring.
    /// The guest must not be running; it may be in the middle of a frame that it has not published.
    pub fn share_as_producer(&self, acknowledged: u64, file: OwnedFd) -> Result<(), MemoryError> {
        let mut shared = self.lock();
        let limit = acknowledged + self.bytes();
        let written = self.written()?.clamp(acknowledged, limit);
        let messages = self.messages()?;
        let end = (written + self.bytes() / 4).min(limit);
        let mut data = vec![0; (end - acknowledged) as usize];
        self.copy_out(acknowledged, &mut data)?;
        self.memory.map_shared(self.address, ring_stride(self.bytes), &file)?;
        *shared = Some(file);
        self.for_pieces(acknowledged, &mut data, |at, piece| self.memory.write(at, piece))?;
        self.set_messages(messages)?;
        self.set_written(written)
    }

    /// As consumer: puts the fresh memory of `file` behind the ring. False, and nothing is done, when the ring is not empty.
    /// The guest must not be running.
    pub fn share_as_consumer(&self, file: OwnedFd) -> Result<bool, MemoryError> {
        let mut shared = self.lock();
        let (read, written, messages) = (self.read()?, self.written()?, self.messages()?);
        let waited = self.waited_tsc()?;
        if read != written {
            return Ok(false);
        }
        self.memory.map_shared(self.address, ring_stride(self.bytes), &file)?;
        *shared = Some(file);
        self.set_messages(messages)?;
        self.word(WAITED)?.store(waited, Ordering::Relaxed);
        self.set_read(read)?;
        self.set_written(written)?;
        self.set_shared_flag(true)?;
        Ok(true)
    }

    /// Has the ring for this side alone again, with what the consumer has not read; nothing when it is not shared. The guest must
    /// not be running.
    ///
    /// Of the two offsets the side's own one is believed, the other is clamped to it.
    pub fn take_back(&self, direction: Direction) -> Result<(), MemoryError> {
        let mut shared = self.lock();
        let Some(file) = shared.as_ref() else { return Ok(()) };
        let (mut read, mut written) = (self.read()?, self.written()?);
        match direction {
            Direction::Sending => read = read.clamp(written.saturating_sub(self.bytes()), written),
            Direction::Receiving => written = written.clamp(read, read.saturating_add(self.bytes())),
        }
        self.memory.map_private(self.address, ring_stride(self.bytes), file)?;
        *shared = None;
        self.set_shared_flag(false)?;
        self.set_read(read)?;
        self.set_written(written)?;
        if matches!(direction, Direction::Receiving) {
            // The producer wrote it, through its own mapping. What we sent is dirty already: our guest wrote it here.
            self.mark_data_dirty(read, written - read);
        }
        Ok(())
    }

    fn mark_data_dirty(&self, offset: u64, length: u64) {
        let start = offset % self.bytes();
        let first = length.min(self.bytes() - start);
        let data = self.address + RING_HEADER_BYTES;
        for (at, bytes) in [(start, first), (0, length - first)] {
            if bytes > 0 {
                self.memory.mark_dirty(data + at, bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Layout, RINGS};
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_cross_the_end_of_a_ring_and_make_their_pages_dirty() {
        let layout = Layout { program_bytes: 4 << 20, ranks: 2, ring_bytes: 16 << 10 };
        let memory = Arc::new(Memory::new(layout).unwrap());
        let ring = Ring::receiving_from(memory.clone(), 1);
        let (mut near, far) = UnixStream::pair().unwrap();
        let data: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        near.write_all(&data).unwrap();
        memory.take_written(RINGS);
        assert_eq!(ring.receive(far.as_raw_fd(), 12_000, 10_000).unwrap(), 10_000);
        let dirty: u32 = memory.take_written(RINGS).iter().map(|w| w.count_ones()).sum();
        // 12000..16384 is on pages 2 and 3 of the data, 0..5616 on pages 0 and 1.
        assert_eq!(dirty, 4);
        assert_eq!(ring.send(far.as_raw_fd(), b"head", 12_000, 10_000).unwrap(), 10_004);
        let mut back = vec![0; 10_004];
        near.read_exact(&mut back).unwrap();
        assert_eq!(&back[..4], b"head");
        assert_eq!(&back[4..], data);
    }

    fn partition() -> Arc<Memory> {
        Arc::new(Memory::new(Layout { program_bytes: 4 << 20, ranks: 2, ring_bytes: 16 << 10 }).unwrap())
    }

    fn memfd() -> OwnedFd {
        let file = nix::sys::memfd::memfd_create(c"ring", nix::sys::memfd::MFdFlags::empty()).unwrap();
        nix::unistd::ftruncate(&file, ring_stride(16 << 10) as i64).unwrap();
        file
    }

    /// What the guest of a ring does.
    impl Ring {
        fn put(&self, bytes: &[u8]) {
            let offset = self.written().unwrap();
            let mut bytes = bytes.to_vec();
            self.for_pieces(offset, &mut bytes, |at, piece| self.memory.write(at, piece)).unwrap();
            self.word(WRITTEN).unwrap().store(offset + bytes.len() as u64, Ordering::Release);
        }

        fn get(&self, length: usize) -> Vec<u8> {
            let offset = self.read().unwrap();
            let mut bytes = vec![0; length];
            self.for_pieces(offset, &mut bytes, |at, piece| self.memory.read(at, piece)).unwrap();
            self.word(READ).unwrap().store(offset + length as u64, Ordering::Release);
            bytes
        }
    }

    /// A producer with `unread` acknowledged bytes behind it and its consumer, sharing.
    fn shared_pair(start: u64, unsent: &[u8], unpublished: &[u8]) -> (Ring, Ring) {
        let (producer, consumer) = (Ring::sending_to(partition(), 1), Ring::receiving_from(partition(), 0));
        for ring in [&producer, &consumer] {
            ring.set_written(start).unwrap();
            ring.set_read(start).unwrap();
        }
        producer.put(unsent);
        producer.put(unpublished);
        producer.set_written(start + unsent.len() as u64).unwrap();
        let file = memfd();
        assert!(consumer.share_as_consumer(file.try_clone().unwrap()).unwrap());
        producer.share_as_producer(start, file).unwrap();
        (producer, consumer)
    }

    #[test]
    fn a_shared_ring_carries_bytes_from_memory_to_memory() {
        // 12,000 bytes of unsent data, across the end of the ring, and a frame that is not published yet.
        let (producer, consumer) = shared_pair(9_000, &[1; 12_000], &[2; 3_000]);
        assert!(producer.is_shared() && consumer.is_shared());
        assert_eq!(consumer.written().unwrap(), 21_000);
        assert_eq!(consumer.get(12_000), [1; 12_000]);
        assert_eq!(producer.read().unwrap(), 21_000);
        producer.set_written(24_000).unwrap();
        assert_eq!(consumer.get(3_000), [2; 3_000]);
        producer.put(&[3; 16_000]);
        assert_eq!(consumer.get(16_000), [3; 16_000]);
    }

    #[test]
    fn a_ring_with_something_to_read_is_not_shared() {
        let ring = Ring::receiving_from(partition(), 0);
        ring.set_written(1).unwrap();
        assert!(!ring.share_as_consumer(memfd()).unwrap() && !ring.is_shared());
    }

    #[test]
    fn both_ends_taken_back_at_different_moments_lose_nothing() {
        let (producer, consumer) = shared_pair(0, &[], &[]);
        producer.put(&[1; 5_000]);
        assert_eq!(consumer.get(1_000), [1; 1_000]);
        consumer.memory.take_written(RINGS);
        consumer.take_back(Direction::Receiving).unwrap();
        let dirty: u32 = consumer.memory.take_written(RINGS).iter().map(|w| w.count_ones()).sum();
        assert_eq!(dirty, 3, "the header, and two pages with unread bytes");
        // The producer does not know yet and goes on.
        producer.put(&[2; 4_000]);
        assert_eq!((consumer.read().unwrap(), consumer.written().unwrap()), (1_000, 5_000));
        producer.take_back(Direction::Sending).unwrap();
        assert_eq!((producer.read().unwrap(), producer.written().unwrap()), (1_000, 9_000));
        // What the consumer has not seen is in the producer's ring, and neither sees the other any more.
        let mut later = vec![0; 4_000];
        producer.for_pieces(5_000, &mut later, |at, piece| producer.memory.read(at, piece)).unwrap();
        assert_eq!(later, [2; 4_000]);
        producer.put(&[3; 100]);
        assert_eq!(consumer.get(4_000), [1; 4_000]);
        assert_eq!(producer.read().unwrap(), 1_000);
    }

    #[test]
    fn lies_in_a_shared_header_are_clamped_when_it_is_taken_back() {
        for (read, written) in [(0, u64::MAX), (u64::MAX, 0), (50_000, 1), (u64::MAX, u64::MAX)] {
            let (producer, consumer) = shared_pair(100, &[7; 10], &[]);
            producer.word(READ).unwrap().store(read, Ordering::Release);
            producer.word(WRITTEN).unwrap().store(written, Ordering::Release);
            consumer.take_back(Direction::Receiving).unwrap();
            producer.take_back(Direction::Sending).unwrap();
            for ring in [&producer, &consumer] {
                let (read, written) = (ring.read().unwrap(), ring.written().unwrap());
                assert!(read <= written && written - read <= ring.bytes(), "{read} {written}");
            }
        }
    }
}

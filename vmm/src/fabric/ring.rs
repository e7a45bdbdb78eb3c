//! The VMM's end of a ring in guest memory.
//!
//! The guest owns half of every ring and can write all of it: offsets are compared with our own copies and clamped, and
//! data is moved by system calls straight between the ring and a socket, never through Rust references.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use partita_abi::{RING_HEADER_BYTES, RINGS_BASE, RingHeader, receive_ring_offset, send_ring_offset};

use crate::memory::{Memory, MemoryError};

const WRITTEN: u64 = std::mem::offset_of!(RingHeader, written) as u64;
const MESSAGES: u64 = std::mem::offset_of!(RingHeader, messages) as u64;
const READ: u64 = std::mem::offset_of!(RingHeader, read) as u64;

/// One ring.
pub struct Ring {
    memory: Arc<Memory>,
    address: u64,
    bytes: u32,
}

impl Ring {
    /// The ring in which the partition sends to `peer`.
    pub fn sending_to(memory: Arc<Memory>, peer: u32) -> Self {
        let bytes = memory.layout().ring_bytes;
        Self { memory, address: RINGS_BASE + send_ring_offset(peer, bytes), bytes }
    }

    /// The ring in which the partition receives from `peer`.
    pub fn receiving_from(memory: Arc<Memory>, peer: u32) -> Self {
        let bytes = memory.layout().ring_bytes;
        Self { memory, address: RINGS_BASE + receive_ring_offset(peer, bytes), bytes }
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
}

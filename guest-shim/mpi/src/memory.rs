//! Memory of the program that a transfer reads or fills while the program holds on to it.
//!
//! MPI lets a program give a buffer to a request and promise not to touch it until the request is complete. Rust
//! references cannot say that, so buffers are pointer and length here, and every access is a copy.

use alloc::vec::Vec;
use core::ptr;

/// A range of bytes that stays valid until the request that holds it is complete.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    pointer: *mut u8,
    bytes: usize,
}

impl Region {
    /// Nothing.
    pub const EMPTY: Region = Region { pointer: ptr::null_mut(), bytes: 0 };

    /// The range `pointer .. pointer + bytes`.
    ///
    /// # Safety
    /// The range must be readable (a send) or writable (a receive) until the request or the schedule that
    /// gets this region is complete.
    pub unsafe fn new(pointer: *mut u8, bytes: usize) -> Region {
        Region { pointer, bytes }
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.bytes
    }

    /// The address of the first byte.
    pub fn pointer(self) -> *mut u8 {
        self.pointer
    }

    /// The part from `offset` on, `bytes` long, cut to what there is.
    pub fn part(self, offset: usize, bytes: usize) -> Region {
        let offset = offset.min(self.bytes);
        // SAFETY: offset is inside the range or at its end.
        Region { pointer: unsafe { self.pointer.add(offset) }, bytes: bytes.min(self.bytes - offset) }
    }

    /// Copies the whole region into `target` as far as there is room; returns the bytes copied.
    pub fn copy_to(self, target: Region) -> usize {
        let bytes = self.bytes.min(target.bytes);
        if bytes > 0 {
            // SAFETY: both ranges are valid by the contract of `new`; `copy` allows overlap.
            unsafe { ptr::copy(self.pointer, target.pointer, bytes) };
        }
        bytes
    }

    /// A copy of the bytes.
    pub fn to_vec(self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(self.bytes);
        if self.bytes > 0 {
            // SAFETY: the range is readable by the contract of `new`, the vector has room for it.
            unsafe {
                ptr::copy_nonoverlapping(self.pointer, copy.as_mut_ptr(), self.bytes);
                copy.set_len(self.bytes);
            }
        }
        copy
    }
}

/// Bytes owned by the library, aligned for every datatype.
#[derive(Debug)]
pub struct Scratch {
    words: Vec<u128>,
    bytes: usize,
}

impl Scratch {
    /// `bytes` bytes of zeros.
    pub fn new(bytes: usize) -> Scratch {
        Scratch { words: alloc::vec![0; bytes.div_ceil(16)], bytes }
    }

    /// All of it, valid as long as this value lives (moving it does not move the bytes).
    pub fn region(&mut self) -> Region {
        Region { pointer: self.words.as_mut_ptr().cast(), bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_never_leave_the_region() {
        let mut scratch = Scratch::new(10);
        let region = scratch.region();
        assert_eq!(region.part(4, 100).len(), 6);
        assert_eq!(region.part(40, 1).len(), 0);
        assert_eq!(region.part(3, 2).len(), 2);
        assert_eq!(Region::EMPTY.copy_to(region), 0);
    }
}

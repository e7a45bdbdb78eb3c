//! Memory that others may write at any time: a guest's, or a buffer of our own.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

/// Mapped memory of this process that others may write at any time, so it is only copied from and to.
#[derive(Clone)]
pub struct HostMemory {
    start: NonNull<u8>,
    bytes: usize,
    _keeper: Arc<dyn Any + Send + Sync>,
}

// SAFETY: it is an address with what keeps it valid; nothing is borrowed from the memory.
unsafe impl Send for HostMemory {}
// SAFETY: as for `Send`; concurrent copies may see torn bytes, as they may when a device writes.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// The memory at `start`.
    ///
    /// # Safety
    /// `bytes` from `start` on are mapped, readable and writable as long as `keeper` lives, and no Rust reference to any of it exists
    /// that is not to an atomic.
    pub unsafe fn new(start: NonNull<u8>, bytes: usize, keeper: Arc<dyn Any + Send + Sync>) -> Self {
        Self { start, bytes, _keeper: keeper }
    }

    /// New memory of zeros, at a page's start.
    pub fn zeroed(bytes: usize) -> Self {
        let pages = Arc::new(Pages::zeroed(bytes));
        Self { start: pages.start, bytes, _keeper: pages }
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes), "inside the memory");
        // SAFETY: the offset is inside the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Copies from `offset` on.
    ///
    /// # Panics
    /// Outside of the memory.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) {
        let from = self.at(offset, buffer.len());
        // SAFETY: mapped (see `new`), and `buffer` is somewhere else.
        unsafe { ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), buffer.len()) }
    }

    /// Copies to `offset`.
    ///
    /// # Panics
    /// Outside of the memory.
    pub fn write(&self, offset: usize, data: &[u8]) {
        let to = self.at(offset, data.len());
        // SAFETY: mapped (see `new`), and `data` is somewhere else.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) }
    }

    /// Sets `bytes` from `offset` on to `value`.
    ///
    /// # Panics
    /// Outside of the memory.
    pub fn fill(&self, offset: usize, bytes: usize, value: u8) {
        let to = self.at(offset, bytes);
        // SAFETY: mapped (see `new`).
        unsafe { ptr::write_bytes(to, value, bytes) }
    }

    /// The bytes of a range, for whoever fills them.
    ///
    /// # Safety
    /// Nobody else reads or writes that range as long as the result lives.
    pub(crate) unsafe fn slice_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        let start = self.at(range.start, range.len());
        // SAFETY: mapped (see `new`), initialised (zeroed or by whoever mapped it), and exclusive (see above).
        unsafe { std::slice::from_raw_parts_mut(start, range.len()) }
    }
}

impl std::fmt::Debug for HostMemory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HostMemory").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// An allocation of whole pages.
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: an owned allocation.
unsafe impl Send for Pages {}
// SAFETY: nothing of it is borrowed through a shared reference.
unsafe impl Sync for Pages {}

impl Pages {
    fn zeroed(bytes: usize) -> Self {
        let rounded = bytes.max(1).next_multiple_of(PAGE_BYTES);
        let layout =
            Layout::from_size_align(rounded, PAGE_BYTES).expect("less than half of the address space");
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        Self { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

//! Pages by one-sided writes: read into registered buffers, hashed there, written from there, and told of when they are visible.
//!
//! A page is copied once, into a buffer that nobody changes: what is hashed is what is written, although the program goes
//! on writing its memory. So the guest's memory is neither pinned nor registered here (`docs/decisions/0011-rdma.md`).

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use partita_rdma::{Error, Event, Proof, Window, Writer};

use super::{PageStream, parts};
use crate::channel::ChannelError;
use crate::clock;
use crate::partition::PAGE_SIZE;
use crate::source::{SourceError, machine_failed};
use crate::transport::{Stop, TransportError};
use crate::wire::{self, Extent, Header, Kind};

/// Pages read, and at most written, at a time.
pub const SLOT_PAGES: u64 = 16;
/// Buffers of a stream: of single pages, so many are under way.
const SLOTS: usize = 64;
/// How long the fabric is waited for until somebody looks whether it should stop.
const WAIT_MS: i32 = 10;

/// Pages that are written and not told of yet.
#[derive(Debug, Clone, Copy)]
struct Written {
    /// Where they are in their slot.
    first_byte: usize,
    extent: Extent,
    checksum: u64,
}

/// The fabric's end of a page stream.
pub struct OneSided {
    writer: Writer,
    /// What each slot holds.
    written: Vec<Vec<Written>>,
    under_way: usize,
    silence: Duration,
}

impl OneSided {
    /// Registers buffers, and makes sure that the destination can be reached before anything depends on it.
    pub fn connect(
        ip: IpAddr,
        window: &Window,
        silence: Duration,
        stop: Stop,
    ) -> Result<Self, TransportError> {
        let slot_bytes = SLOT_PAGES as usize * PAGE_SIZE;
        let writer = Writer::open(ip, window.clone(), Proof::Best, SLOTS, slot_bytes)?;
        let mut one_sided = Self { writer, written: vec![Vec::new(); SLOTS], under_way: 0, silence };
        match one_sided.greet(stop) {
            Ok(()) => Ok(one_sided),
            Err(TransportError::Silent { limit_ms }) => {
                Err(TransportError::RdmaSilent { provider: one_sided.provider().0.to_owned(), limit_ms })
            }
            Err(error) => Err(error),
        }
    }

    fn greet(&mut self, stop: Stop) -> Result<(), TransportError> {
        self.until(stop, |writer| Ok(writer.greet()?.then_some(())))?;
        self.until(stop, |writer| Ok(writer.event())).map(|_| ())
    }

    /// The provider, and whether it proves by delivery-complete.
    pub fn provider(&self) -> (&str, bool) {
        self.writer.provider()
    }

    /// Tries until it works, and drives forward what was begun.
    fn until<T>(
        &mut self,
        stop: Stop,
        mut attempt: impl FnMut(&mut Writer) -> Result<Option<T>, Error>,
    ) -> Result<T, TransportError> {
        let start = clock::now();
        loop {
            if let Some(done) = attempt(&mut self.writer)? {
                return Ok(done);
            }
            if stop() {
                return Err(TransportError::Stopped);
            }
            if start.elapsed() >= self.silence {
                return Err(TransportError::Silent { limit_ms: self.silence.as_millis() });
            }
            self.writer.drive(WAIT_MS)?;
        }
    }
}

impl PageStream<'_> {
    /// Reads a run of at most [`SLOT_PAGES`], has what is data written, and collects its zeros.
    pub(super) fn write_run(
        &mut self,
        one_sided: &mut OneSided,
        region: usize,
        pages: Range<u64>,
    ) -> Result<(), SourceError> {
        let slot = self.free_slot(one_sided).map_err(|error| self.failed(error))?;
        let count = (pages.end - pages.start) as usize;
        let buffer = &mut one_sided.writer.slot(slot)[..count * PAGE_SIZE];
        let read = self.machine.read_pages(region, pages.start, buffer);
        read.map_err(machine_failed("read its memory"))?;
        self.sent.pages += count as u64;
        let piece_pages = (self.shared.piece_bytes() / PAGE_SIZE) as u64;
        let (mut zeros, mut written) = (Vec::new(), Vec::new());
        for (zero, extent) in parts(region, pages.start, buffer) {
            if zero {
                zeros.push(extent);
                continue;
            }
            let end = extent.first_page + u64::from(extent.pages);
            for first_page in (extent.first_page..end).step_by(piece_pages as usize) {
                let extent = Extent { first_page, pages: piece_pages.min(end - first_page) as u32, ..extent };
                let first_byte = (first_page - pages.start) as usize * PAGE_SIZE;
                let data = &buffer[first_byte..first_byte + extent.pages as usize * PAGE_SIZE];
                written.push(Written { first_byte, extent, checksum: wire::pages_checksum(data) });
            }
        }
        let send = || {
            zeros.into_iter().try_for_each(|extent| self.send_zeros(extent))?;
            self.write_slot(one_sided, slot, written)
        };
        send().map_err(|error| self.failed(error))
    }

    /// Writes what is in a slot.
    fn write_slot(
        &mut self,
        one_sided: &mut OneSided,
        slot: usize,
        written: Vec<Written>,
    ) -> Result<(), ChannelError> {
        let shared = self.shared;
        for Written { first_byte, extent, .. } in &written {
            let bytes = extent.pages as usize * PAGE_SIZE;
            self.book(bytes);
            let part = *first_byte..first_byte + bytes;
            let (region, offset) = (extent.region as usize, extent.first_page * PAGE_SIZE as u64);
            let post =
                |writer: &mut Writer| Ok(writer.post(slot, part.clone(), region, offset)?.then_some(()));
            one_sided.until(&|| shared.stopped(), post)?;
        }
        one_sided.under_way += usize::from(!written.is_empty());
        one_sided.writer.seal(slot, !written.is_empty());
        one_sided.written[slot] = written;
        one_sided.writer.drive(0).map_err(TransportError::from)?;
        self.tell_visible(one_sided)
    }

    /// A slot to read into; waits until one is free.
    fn free_slot(&mut self, one_sided: &mut OneSided) -> Result<usize, ChannelError> {
        loop {
            if let Some(slot) = one_sided.writer.take() {
                return Ok(slot);
            }
            self.await_visible(one_sided)?;
        }
    }

    /// Waits until something is visible, and tells of it.
    fn await_visible(&mut self, one_sided: &mut OneSided) -> Result<(), ChannelError> {
        let shared = self.shared;
        one_sided.until(&|| shared.stopped(), |writer| Ok(writer.has_event().then_some(())))?;
        self.tell_visible(one_sided)
    }

    /// Tells the destination of all that is visible in its memory by now.
    fn tell_visible(&mut self, one_sided: &mut OneSided) -> Result<(), ChannelError> {
        while let Some(Event::Visible(slot)) = one_sided.writer.event() {
            one_sided.under_way -= 1;
            for Written { extent, checksum, .. } in one_sided.written[slot].drain(..) {
                let body = [&extent.encode()[..], &checksum.to_le_bytes()].concat();
                self.pending.extend(Header::seal(Kind::Written, &body, &[])?);
                self.pending.extend(body);
            }
        }
        self.flush(0)
    }

    /// Waits until all that was written is visible, and tells of it.
    pub(super) fn drain(&mut self, one_sided: &mut OneSided) -> Result<(), ChannelError> {
        while one_sided.under_way > 0 {
            self.await_visible(one_sided)?;
        }
        Ok(())
    }
}

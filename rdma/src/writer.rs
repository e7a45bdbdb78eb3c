//! Who writes: slots of a registered buffer, filled by the caller and written from there.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;

use crate::fabric::{Fabric, Registered, Wish};
use crate::memory::HostMemory;
use crate::{Error, Window};

/// Bytes of the read that is ordered behind writes, or greets.
const READ_BYTES: usize = 8;
/// Context of the greeting; slots have their number, and this bit in the read behind their writes.
const GREETING: u64 = u64::MAX;
const BEHIND: u64 = 1 << 32;

/// How a writer knows that what it wrote is visible to the target's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// FI_DELIVERY_COMPLETE where the provider has it, else a read.
    Best,
    /// A read behind the writes (FI_ORDER_RAW), wherever they were written.
    OrderedRead,
}

/// What came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The target answered [`Writer::greet`].
    Greeted,
    /// All of a sealed slot is visible in the target's memory; the slot is free.
    Visible(usize),
}

/// The life of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    /// The caller fills it and posts writes from it, of which some are under way.
    Open {
        writes: usize,
    },
    /// No more writes will come.
    Sealed {
        writes: usize,
    },
    /// The writes are done; the read behind them is under way or waits for room in the queue.
    Proving,
}

/// One writer into the memory of one target. Used by one thread at a time.
pub struct Writer {
    fabric: Fabric,
    registered: Registered,
    /// The slots, and behind them room for what is read.
    buffer: HostMemory,
    window: Window,
    slot_bytes: usize,
    slots: Vec<Slot>,
    /// Where a slot's last write went: the read behind it goes there too.
    last: Vec<(u64, u64)>,
    to_prove: VecDeque<usize>,
    events: VecDeque<Event>,
}

impl Writer {
    /// A writer on this host, which the target reaches by `ip`, with `slots` slots of `slot_bytes` each, from which it writes.
    ///
    /// # Errors
    /// A window that cannot be one, no libfabric, or not the target's provider.
    pub fn open(
        ip: IpAddr,
        window: Window,
        proof: Proof,
        slots: usize,
        slot_bytes: usize,
    ) -> Result<Self, Error> {
        window.check()?;
        let like = Some((window.provider.as_str(), window.format));
        let ordered_read = proof == Proof::OrderedRead;
        let mut fabric = Fabric::open(&Wish { ip, like, ordered_read, message_bytes: slot_bytes })?;
        fabric.connect(&window.address)?;
        let buffer = HostMemory::zeroed(slots * slot_bytes + READ_BYTES);
        let registered = fabric.register(&buffer, false, 0)?;
        let (slots, last) = (vec![Slot::Free; slots], vec![(0, 0); slots]);
        let (to_prove, events) = (VecDeque::new(), VecDeque::new());
        Ok(Self { fabric, registered, buffer, window, slot_bytes, slots, last, to_prove, events })
    }

    /// The provider, and whether it proves by delivery-complete.
    pub fn provider(&self) -> (&str, bool) {
        (&self.fabric.facts.provider, self.fabric.facts.delivery_complete)
    }

    /// Where `offset` of a region is for the target, with its key.
    fn remote(&self, region: usize, offset: u64) -> Result<(u64, u64), Error> {
        let key = self.window.regions.get(region).ok_or(Error::Window("it lacks a region"))?;
        let address = key.base.checked_add(offset).ok_or(Error::Window("a region wraps around"))?;
        Ok((address, key.key))
    }

    /// Asks the target for its first bytes, to find out whether it can be reached; [`Event::Greeted`] is its answer. `false`: drive first.
    ///
    /// # Errors
    /// The fabric's.
    pub fn greet(&mut self) -> Result<bool, Error> {
        let remote = self.remote(0, 0)?;
        self.read(remote, GREETING)
    }

    fn read(&mut self, remote: (u64, u64), context: u64) -> Result<bool, Error> {
        let room = (self.slots.len() * self.slot_bytes, READ_BYTES);
        self.fabric.post(true, &self.registered, room, remote, context)
    }

    /// A slot that nothing is under way from, which is the caller's until it is sealed; none: drive first.
    pub fn take(&mut self) -> Option<usize> {
        let free = self.slots.iter().position(|slot| *slot == Slot::Free)?;
        self.slots[free] = Slot::Open { writes: 0 };
        Some(free)
    }

    /// What is in a slot from which nothing was posted yet.
    ///
    /// # Panics
    /// A slot from which something is under way: a mistake of the caller.
    pub fn slot(&mut self, slot: usize) -> &mut [u8] {
        assert_eq!(self.slots[slot], Slot::Open { writes: 0 }, "nothing is under way from it");
        let start = slot * self.slot_bytes;
        // SAFETY: the buffer is this writer's own, nothing is under way from this part of it, and the result borrows the writer.
        unsafe { self.buffer.slice_mut(start..start + self.slot_bytes) }
    }

    /// Writes a part of a taken slot to `offset` of a region; `false`: no room, drive first.
    ///
    /// # Errors
    /// Outside of what the window can be, or the fabric's.
    ///
    /// # Panics
    /// A slot that was not taken, or not all of the part in it: a mistake of the caller.
    pub fn post(
        &mut self,
        slot: usize,
        part: Range<usize>,
        region: usize,
        offset: u64,
    ) -> Result<bool, Error> {
        let Slot::Open { writes } = self.slots[slot] else { panic!("slot {slot} was not taken") };
        assert!(part.end <= self.slot_bytes, "inside the slot");
        let remote = self.remote(region, offset)?;
        let from = (slot * self.slot_bytes + part.start, part.len());
        let posted = self.fabric.post(false, &self.registered, from, remote, slot as u64)?;
        if posted {
            self.slots[slot] = Slot::Open { writes: writes + 1 };
            self.last[slot] = remote;
        }
        Ok(posted)
    }

    /// No more comes from this slot: [`Event::Visible`] follows. A slot from which nothing was posted is free at once, without.
    pub fn seal(&mut self, slot: usize, posted: bool) {
        match self.slots[slot] {
            Slot::Open { .. } if !posted => self.slots[slot] = Slot::Free,
            Slot::Open { writes: 0 } => self.written(slot),
            Slot::Open { writes } => self.slots[slot] = Slot::Sealed { writes },
            _ => {}
        }
    }

    /// All writes of a sealed slot are done.
    fn written(&mut self, slot: usize) {
        if self.fabric.facts.delivery_complete {
            self.visible(slot);
        } else {
            self.slots[slot] = Slot::Proving;
            self.to_prove.push_back(slot);
        }
    }

    fn visible(&mut self, slot: usize) {
        self.slots[slot] = Slot::Free;
        self.events.push_back(Event::Visible(slot));
    }

    /// What came to an end, one at a time.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether something came to an end.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// Drives everything forward; waits up to about `wait_ms` for something to come to an end.
    ///
    /// # Errors
    /// What was begun failed: nothing more comes of this writer.
    pub fn drive(&mut self, wait_ms: i32) -> Result<(), Error> {
        let mut contexts = [0; 16];
        let count = self.fabric.poll(&mut contexts, wait_ms)?;
        for context in &contexts[..count] {
            self.complete(*context);
        }
        while let Some(slot) = self.to_prove.front().copied() {
            let remote = self.last[slot];
            if !self.read(remote, BEHIND | slot as u64)? {
                break;
            }
            self.to_prove.pop_front();
        }
        if count == 0 && wait_ms > 0 && !self.fabric.waits() {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
        Ok(())
    }

    fn complete(&mut self, context: u64) {
        if context == GREETING {
            return self.events.push_back(Event::Greeted);
        }
        let slot = (context & !BEHIND) as usize;
        match self.slots.get(slot).copied() {
            Some(Slot::Open { writes }) => self.slots[slot] = Slot::Open { writes: writes.saturating_sub(1) },
            Some(Slot::Sealed { writes: 0..=1 }) => self.written(slot),
            Some(Slot::Sealed { writes }) => self.slots[slot] = Slot::Sealed { writes: writes - 1 },
            Some(Slot::Proving) if context & BEHIND != 0 => self.visible(slot),
            _ => {}
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What is under way ends before its buffer is given back: fields are dropped afterwards.
        if let Err(error) = self.fabric.close_endpoint() {
            // Something may still read the buffer, so it is never given back.
            tracing::warn!(%error, "a buffer is lost");
            std::mem::forget(self.buffer.clone());
        }
    }
}

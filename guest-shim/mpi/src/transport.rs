//! The rings, doorbell and sleep of this rank.
//!
//! In a partition the boot page says where everything is. In native mode (`libmpi_native.a`, for tests without a VM)
//! the environment variable `PARTITA_NATIVE=<file>:<rank>:<ranks>:<ring bytes>` names a file of zeros with a ring for
//! every ordered pair of ranks; there the other end of a ring is the peer itself and sleeping is yielding.
//! `PARTITA_NATIVE_SHARES=<units of rank 0>,<of rank 1>,…` stands in for a coordinator that shares out units of work once.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use partita_abi as abi;

use crate::engine::Links;
use crate::memory::Region;
use crate::peer_set::PeerSet;
use crate::ring::{Consumer, Producer, RingError};
use crate::sys;

/// Rings and signals of one rank.
pub struct Transport {
    boot: *const abi::BootPage,
    fabric: *const abi::FabricPage,
    units: *const abi::UnitsPage,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    written_to: Vec<u32>,
    freed_from: Vec<u32>,
    /// Who was read from last.
    heard_from: Option<u32>,
    /// Peers with whom a ring is shared, as of the fabric page's `sharing` when it was this number.
    sharers: PeerSet,
    sharing: u32,
    /// Peers whose bytes the VMM said have arrived and that have not all been consumed, as of when `events` was this number.
    arrived: PeerSet,
    events: u32,
    /// Share of the allowed spin time that is used, in 1/16: polls that end in a long sleep make it smaller.
    spin_share: u64,
}

/// Who this rank is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Rank in the application.
    pub rank: u32,
    /// Ranks of the application.
    pub ranks: u32,
    /// Bytes of every ring.
    pub ring_bytes: u32,
}

/// What stands in for the boot page and the fabric page in native mode.
static NATIVE_FABRIC: abi::FabricPage = {
    // SAFETY: the page has only atomic integers and padding, for which zeros are right.
    unsafe { core::mem::zeroed() }
};

static NATIVE_UNITS: abi::UnitsPage = {
    // SAFETY: as above.
    unsafe { core::mem::zeroed() }
};

/// The pages besides the rings.
struct Pages {
    boot: *const abi::BootPage,
    fabric: *const abi::FabricPage,
    units: *const abi::UnitsPage,
}

impl Transport {
    /// Finds the rings.
    ///
    /// # Errors
    /// A line that says why there are none.
    pub fn open() -> Result<(Transport, Place), String> {
        if cfg!(feature = "native") { Transport::open_native() } else { Transport::open_partition() }
    }

    fn open_partition() -> Result<(Transport, Place), String> {
        let boot = sys::auxiliary(abi::AT_PARTITA) as *const abi::BootPage;
        if boot.is_null() {
            return Err("this program was built for Partita: start it with `vmm run [--np N] PROGRAM`".into());
        }
        // SAFETY: the VMM put the address of the boot page into the auxiliary vector.
        let facts = unsafe { ptr::read_volatile(boot) };
        if facts.magic != abi::BOOT_MAGIC || facts.abi_version != abi::ABI_VERSION {
            return Err(format!(
                "the VMM speaks guest ABI {}, this program {}: build both from one Partita",
                facts.abi_version,
                abi::ABI_VERSION
            ));
        }
        let place = Place { rank: facts.rank, ranks: facts.ranks, ring_bytes: facts.ring_bytes };
        check(&place)?;
        let address = |offset: u64| (facts.rings + offset) as *mut u8;
        let send = |peer| address(abi::send_ring_offset(peer, facts.ring_bytes));
        let receive = |peer| address(abi::receive_ring_offset(peer, facts.ring_bytes));
        let fabric = facts.fabric_page as *const abi::FabricPage;
        let pages = Pages { boot, fabric, units: facts.units_page as *const abi::UnitsPage };
        Ok((Transport::new(&pages, &place, send, receive), place))
    }

    fn open_native() -> Result<(Transport, Place), String> {
        let wrong = "native mode: start the program with mpirun-native (it sets PARTITA_NATIVE)";
        let value = sys::environment(c"PARTITA_NATIVE").ok_or(wrong)?.to_str().map_err(|_| wrong)?;
        let mut fields = value.rsplitn(4, ':');
        let mut number = || fields.next().and_then(|field| field.parse::<u32>().ok()).ok_or(wrong);
        let (ring_bytes, ranks, rank) = (number()?, number()?, number()?);
        let mut path = fields.next().ok_or(wrong)?.as_bytes().to_vec();
        path.push(0);
        let place = Place { rank, ranks, ring_bytes };
        check(&place)?;
        let stride = abi::ring_stride(ring_bytes);
        let total = u64::from(ranks) * u64::from(ranks) * stride;
        let base =
            sys::map_file(path.as_ptr().cast(), total).ok_or("native mode: cannot map the ring file")?;
        let at = |from: u32, to: u32| {
            // SAFETY: inside the mapping of `total` bytes.
            unsafe { base.add(((u64::from(from) * u64::from(ranks) + u64::from(to)) * stride) as usize) }
        };
        take_native_share(rank);
        let pages =
            Pages { boot: ptr::null(), fabric: &raw const NATIVE_FABRIC, units: &raw const NATIVE_UNITS };
        let transport = Transport::new(&pages, &place, |peer| at(rank, peer), |peer| at(peer, rank));
        Ok((transport, place))
    }

    fn new(
        pages: &Pages,
        place: &Place,
        send: impl Fn(u32) -> *mut u8,
        receive: impl Fn(u32) -> *mut u8,
    ) -> Transport {
        // The ring to oneself exists for regularity and is never used.
        // SAFETY: the addresses are those of the ring area, which lives as long as the process.
        let (producers, consumers) = unsafe {
            (
                (0..place.ranks).map(|peer| Producer::new(send(peer), place.ring_bytes)).collect(),
                (0..place.ranks).map(|peer| Consumer::new(receive(peer), place.ring_bytes)).collect(),
            )
        };
        // In native mode every ring is a shared one, and nobody ever raises `sharing`.
        let mut sharers = PeerSet::new(place.ranks);
        if pages.boot.is_null() {
            sharers.fill();
            sharers.remove(place.rank);
        }
        Transport {
            boot: pages.boot,
            fabric: pages.fabric,
            units: pages.units,
            producers,
            consumers,
            written_to: Vec::new(),
            freed_from: Vec::new(),
            heard_from: None,
            sharers,
            sharing: 0,
            arrived: PeerSet::new(place.ranks),
            events: 0,
            spin_share: 16,
        }
    }

    fn fabric(&self) -> &abi::FabricPage {
        // SAFETY: set by `open` to a page that lives as long as the process and has only atomic fields.
        unsafe { &*self.fabric }
    }

    /// The page on which program and coordinator share out units of work.
    pub fn units(&self) -> &'static abi::UnitsPage {
        // SAFETY: set by `open` to a page that lives as long as the process and has only atomic fields.
        unsafe { &*self.units }
    }

    /// The boot page as it is now; after a move it may say something else.
    fn boot(&self) -> Option<abi::BootPage> {
        // SAFETY: set by `open` to the boot page or null.
        (!self.boot.is_null()).then(|| unsafe { ptr::read_volatile(self.boot) })
    }

    /// Where to sleep, how long to poll before, and the speed of the clock, as they are now.
    fn sleep_facts(&self) -> Option<(u64, u64, u64)> {
        if self.boot.is_null() {
            return None;
        }
        // SAFETY: set by `open` to the boot page.
        unsafe {
            let read = |field: *const u64| ptr::read_volatile(field);
            let boot = self.boot;
            Some((
                read(&raw const (*boot).wait),
                read(&raw const (*boot).spin_ns),
                read(&raw const (*boot).tsc_khz),
            ))
        }
    }

    /// The name the boot page gives this rank.
    pub fn name(&self) -> Option<[u8; 64]> {
        self.boot().map(|boot| boot.name)
    }

    /// Says to all sharers that this rank is about to sleep, and gives the number whose change ends the sleep. To be
    /// called before the last look at the rings; [`Transport::wake`] has to follow, with or without a sleep.
    pub fn prepare_sleep(&mut self) -> u32 {
        let events = self.fabric().events.load(Ordering::Acquire);
        self.find_sharers();
        self.set_asleep(true);
        fence(Ordering::SeqCst);
        events
    }

    /// Sleeps until the number of events is not `events` any more, or a sharer rings. Returns for how many counts the processor was given up.
    pub fn sleep(&mut self, events: u32) -> u64 {
        let before = self.fabric().slept_tsc.load(Ordering::Relaxed);
        match self.boot() {
            // SAFETY: the VMM gave the address for this store.
            Some(boot) if boot.wait != 0 => unsafe { ptr::write_volatile(boot.wait as *mut u32, events) },
            _ => sys::sched_yield(),
        }
        self.fabric().slept_tsc.load(Ordering::Relaxed).wrapping_sub(before)
    }

    /// Takes back what [`Transport::prepare_sleep`] said.
    pub fn wake(&mut self) {
        self.set_asleep(false);
    }

    /// A ring that is shared from now on ends the sleep that begins: the VMM raises `sharing` before `events`.
    fn find_sharers(&mut self) {
        let sharing = self.fabric().sharing.load(Ordering::Acquire);
        if sharing == self.sharing {
            return;
        }
        self.sharing = sharing;
        self.sharers.clear();
        for (peer, (producer, consumer)) in self.producers.iter().zip(&self.consumers).enumerate() {
            if producer.is_shared() || consumer.is_shared() {
                self.sharers.insert(peer as u32);
            }
        }
        // What came through a ring that is not shared any more was announced by nobody.
        self.arrived.fill();
    }

    /// Has the fabric thread look at the rings of a peer.
    fn name_to_fabric(&self, peer: u32) {
        // Nobody carries rings in native mode.
        if !self.boot.is_null() {
            let (index, bit) = abi::peer_bit(peer);
            self.fabric().to_fabric[index].fetch_or(bit, Ordering::SeqCst);
        }
    }

    fn set_asleep(&self, asleep: bool) {
        for peer in self.sharers.iter() {
            self.producers[peer as usize].set_asleep(asleep);
            self.consumers[peer as usize].set_asleep(asleep);
        }
    }

    fn ring(&self, doorbell: u64) {
        if self.boot().is_some_and(|boot| boot.doorbell != 0) {
            // SAFETY: the VMM takes stores to its doorbells.
            unsafe { ptr::write_volatile(doorbell as *mut u32, 1) };
        }
    }

    /// How long a call may poll before it sleeps, in counts of the time stamp counter.
    pub fn spin_tsc(&self) -> u64 {
        self.spin_max_tsc().map_or(20_000, |max| max / 16 * self.spin_share)
    }

    /// How long it may at most, where there is a VMM to sleep in.
    fn spin_max_tsc(&self) -> Option<u64> {
        let (_, spin_ns, tsc_khz) = self.sleep_facts().filter(|(wait, _, _)| *wait != 0)?;
        Some(spin_ns.saturating_mul(tsc_khz) / 1_000_000)
    }

    /// A poll ended with something arriving: polling is worth while.
    pub fn spin_was_useful(&mut self) {
        self.spin_share = (self.spin_share * 2).min(16);
    }

    /// A poll ended in a sleep; from its begin to the end of the sleep it took `waited_tsc`. Where all of the allowed spin time would have been
    /// enough, more of it is used from now on: sleeping costs more than polling so long. Else less.
    pub fn slept(&mut self, waited_tsc: u64) {
        if self.spin_max_tsc().is_some_and(|max| waited_tsc < max) {
            self.spin_was_useful();
        } else {
            self.spin_share = (self.spin_share / 2).max(1);
        }
    }

    /// Adds counts that were spent in a blocking call, but not asleep. A count that a move made absurd is left out.
    pub fn add_poll_tsc(&self, counts: u64) {
        if counts < 1 << 40 {
            let poll: &AtomicU64 = &self.fabric().poll_tsc;
            poll.store(poll.load(Ordering::Relaxed).wrapping_add(counts), Ordering::Relaxed);
        }
    }

    /// Adds counts that were spent waiting, asleep or not, until something came: they are put down to whoever sent it.
    pub fn add_waited_tsc(&mut self, counts: u64) {
        if let Some(peer) = self.heard_from.take()
            && counts < 1 << 40
        {
            self.consumers[peer as usize].add_waited(counts);
        }
    }

    /// Adds units of work that the program reports.
    pub fn add_progress(&self, units: u64) {
        let progress = &self.fabric().progress;
        progress.store(progress.load(Ordering::Relaxed).wrapping_add(units), Ordering::Relaxed);
    }
}

fn take_native_share(rank: u32) {
    let shares = sys::environment(c"PARTITA_NATIVE_SHARES").and_then(|shares| shares.to_str().ok());
    let share = shares.and_then(|shares| shares.split(',').nth(rank as usize)?.parse().ok());
    if let Some(share) = share {
        NATIVE_UNITS.target.store(share, Ordering::Relaxed);
        NATIVE_UNITS.generation.store(1, Ordering::Release);
    }
}

fn check(place: &Place) -> Result<(), String> {
    let sizes = abi::RING_BYTES_MIN..=abi::RING_BYTES_MAX;
    let right = place.ranks <= abi::RANKS_MAX
        && place.rank < place.ranks
        && sizes.contains(&place.ring_bytes)
        && place.ring_bytes.is_power_of_two();
    if right { Ok(()) } else { Err(format!("boot facts make no sense: {place:?}")) }
}

impl Links for Transport {
    type Error = RingError;

    fn room(&mut self, peer: u32) -> Result<usize, RingError> {
        self.producers[peer as usize].room()
    }

    fn write(&mut self, peer: u32, parts: [Region; 2]) {
        self.producers[peer as usize].write(parts);
        if self.written_to.last() != Some(&peer) {
            self.written_to.push(peer);
        }
    }

    /// Takes what the VMM has said since the last time.
    fn look(&mut self) {
        let events = self.fabric().events.load(Ordering::Acquire);
        if events == self.events {
            return;
        }
        self.events = events;
        self.find_sharers();
        for index in 0..self.arrived.words() {
            let word = &self.fabric().to_guest[index];
            if word.load(Ordering::Relaxed) != 0 {
                let bits = word.swap(0, Ordering::Acquire);
                self.arrived.add_word(index, bits);
            }
        }
    }

    fn next_ready(&self, from: u32) -> Option<u32> {
        self.arrived.next_with(&self.sharers, from)
    }

    fn readable(&mut self, peer: u32) -> Result<usize, RingError> {
        let bytes = self.consumers[peer as usize].readable()?;
        if bytes == 0 {
            self.arrived.remove(peer);
        }
        Ok(bytes)
    }

    fn copy(&self, peer: u32, offset: usize, target: Region) {
        self.consumers[peer as usize].copy(offset, target);
    }

    fn consume(&mut self, peer: u32, bytes: usize) {
        self.consumers[peer as usize].consume(bytes);
        self.heard_from = Some(peer);
        if self.freed_from.last() != Some(&peer) {
            self.freed_from.push(peer);
        }
    }

    fn flush(&mut self) {
        if self.written_to.is_empty() && self.freed_from.is_empty() {
            return;
        }
        // What was stored in the rings has to be visible before the flags of the sleepers are read.
        fence(Ordering::SeqCst);
        let mut named = false;
        while let Some(peer) = self.written_to.pop() {
            let producer = &self.producers[peer as usize];
            match producer.is_shared() {
                true if producer.consumer_sleeps() => self.ring(abi::peer_doorbell(peer)),
                true => {}
                false => {
                    self.name_to_fabric(peer);
                    named = true;
                }
            }
        }
        while let Some(peer) = self.freed_from.pop() {
            let consumer = &mut self.consumers[peer as usize];
            if !consumer.producer_may_wait() {
                continue;
            }
            match consumer.is_shared() {
                true if consumer.producer_sleeps() => self.ring(abi::peer_doorbell(peer)),
                true => {}
                false => {
                    self.name_to_fabric(peer);
                    named = true;
                }
            }
        }
        if named && self.fabric().fabric_asleep.load(Ordering::SeqCst) != 0 {
            self.ring(abi::DOORBELL_ADDRESS);
        }
    }
}

// The native page is shared by nobody but this process; the type has only atomics.
const _: () = assert!(size_of::<AtomicU32>() == 4);

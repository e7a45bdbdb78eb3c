//! What the tasks of the fabric thread share: rings, directory, and whether they may touch guest memory at all.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use partita_abi::{FABRIC_PAGE, FabricPage, PAGE_SIZE, peer_bit};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Guest;
use super::address::{Address, Neighbours};
use super::ring::Ring;
use super::round_trips::RoundTrips;
use super::sharing::Wakers;
use super::socket::{Credentials, Stream};
use crate::memory::{Memory, MemoryError};

/// First pause before an offer that was put off is made again; it doubles up to [`OFFER_AGAIN_MAX`].
pub(super) const OFFER_AGAIN_MIN: Duration = Duration::from_millis(50);
/// Longest such pause.
pub(super) const OFFER_AGAIN_MAX: Duration = Duration::from_secs(5);

/// Where a peer is, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Epoch of its owner there.
    pub epoch: u64,
    /// Where its fabric listens.
    pub address: Address,
}

/// Rank → place.
pub type Directory = BTreeMap<u32, Place>;

/// State of one peer.
pub struct Peer {
    /// Ring in which our partition sends to it.
    pub sending: Ring,
    /// Ring in which our partition receives from it.
    pub receiving: Ring,
    /// There may be something to send to it.
    pub to_send: Notify,
    /// The receiving ring has news that the far end wants to hear now: bytes arrived or were read.
    pub to_acknowledge: Notify,
    /// Bytes arrived after all earlier ones were acknowledged.
    pub arrived: Notify,
    /// Our copy of the sending ring's read offset.
    pub acknowledged: Cell<u64>,
    /// Our copy of the receiving ring's written offset.
    pub received: Cell<u64>,
    /// Up to where the far end was told that it may send.
    pub announced: Cell<u64>,
    /// Connect even when there is nothing to send, to say where we are.
    pub announce: Cell<bool>,
    /// Its process is gone (only looked at while draining).
    pub gone: Cell<bool>,
    /// It has answered the greeting of the connection by which we send to it.
    pub welcomed: Cell<bool>,
    /// What the far end was told that we have. Nobody is to be told of bytes whose connection is gone: the next greeting does.
    pub told: Cell<u64>,
    /// Number of the newest incoming connection: an older one ends.
    pub incoming: Cell<u64>,
    /// Times of what went over connections.
    pub round_trips: RefCell<RoundTrips>,
    /// The user was told that one side does not trust the other.
    pub distrusted: Cell<bool>,
    /// How long to go on without sharing before the next offer.
    pub offer_again: Cell<Duration>,
}

/// Shared by all tasks of one fabric thread; nothing of it leaves the thread.
pub struct Links {
    pub(super) guest: Guest,
    pub(super) application: String,
    pub(super) rank: u32,
    pub(super) epoch: Cell<u64>,
    pub(super) address: Address,
    pub(super) directory: RefCell<Directory>,
    pub(super) peers: Vec<Peer>,
    /// While set, no task touches guest memory and greetings are not answered.
    pub(super) frozen: Cell<bool>,
    /// Set for good when the partition has gone.
    pub(super) moved: RefCell<Option<Place>>,
    /// Raised when `frozen` or `moved` changes.
    pub(super) verdict: Notify,
    pub(super) draining: Cell<bool>,
    /// Bytes have arrived of which the guest may not know yet.
    arrivals: Notify,
    /// Rings may be shared with partitions on this machine.
    pub(super) shares: bool,
    /// The user was told that there are too few descriptors.
    short: Cell<bool>,
    neighbours: Option<Neighbours>,
    credentials: Option<Credentials>,
    pub(super) wakers: Arc<Wakers>,
}

impl Peer {
    fn new(memory: &Arc<Memory>, rank: u32) -> Result<Self, MemoryError> {
        let sending = Ring::sending_to(memory.clone(), rank);
        let receiving = Ring::receiving_from(memory.clone(), rank);
        Ok(Self {
            sending,
            receiving,
            to_send: Notify::new(),
            to_acknowledge: Notify::new(),
            arrived: Notify::new(),
            acknowledged: Cell::new(0),
            received: Cell::new(0),
            announced: Cell::new(0),
            announce: Cell::new(false),
            gone: Cell::new(false),
            welcomed: Cell::new(false),
            told: Cell::new(0),
            incoming: Cell::new(0),
            round_trips: RefCell::default(),
            distrusted: Cell::new(false),
            offer_again: Cell::new(OFFER_AGAIN_MIN),
        })
    }

    /// Takes the offsets from guest memory: at the start and after a move, when memory holds what the last owner left.
    fn load(&self) -> Result<(), MemoryError> {
        self.acknowledged.set(self.sending.read()?);
        self.received.set(self.receiving.written()?);
        self.announced.set(0);
        self.offer_again.set(OFFER_AGAIN_MIN);
        // There are no connections yet.
        self.welcomed.set(false);
        self.told.set(self.received.get());
        Ok(())
    }

    /// Stream offset up to which there is something to send: what the guest says, as far as it can be true.
    pub fn written(&self) -> Result<u64, MemoryError> {
        let acknowledged = self.acknowledged.get();
        Ok(self.sending.written()?.clamp(acknowledged, acknowledged + self.sending.bytes()))
    }

    /// Whether bytes are left that a living far end has not acknowledged.
    fn has_unsent(&self) -> bool {
        // What is in a shared ring has the peer already.
        !self.gone.get()
            && !self.sending.is_shared()
            && self.written().is_ok_and(|written| written != self.acknowledged.get())
    }

    /// Bytes that came over a connection that still stands, and that it has not been told of.
    pub fn unacknowledged(&self) -> u64 {
        self.received.get() - self.told.get()
    }

    /// Stream offset up to which the far end may send: what the guest has read and one ring more.
    pub fn limit(&self) -> Result<u64, MemoryError> {
        let received = self.received.get();
        let read = self.receiving.read()?.clamp(received.saturating_sub(self.receiving.bytes()), received);
        Ok(read + self.receiving.bytes())
    }

    /// Whether the far end should hear how much room there is now.
    fn has_room_to_announce(&self) -> Result<bool, MemoryError> {
        let (limit, announced) = (self.limit()?, self.announced.get());
        let part = self.receiving.bytes() / 4;
        Ok(limit > announced
            && (limit - announced >= part || announced.saturating_sub(self.received.get()) < part))
    }
}

impl Links {
    pub(super) fn new(guest: Guest, config: &super::Config, address: Address) -> Result<Self, MemoryError> {
        let ranks = guest.memory.layout().ranks;
        let peers = (0..ranks).map(|rank| Peer::new(&guest.memory, rank)).collect::<Result<_, _>>()?;
        let wakers = Wakers::new(guest.doorbells.clone());
        Ok(Self {
            guest,
            application: config.application.clone(),
            rank: config.rank,
            epoch: Cell::new(config.epoch),
            address,
            directory: RefCell::new(config.directory.clone()),
            peers,
            frozen: Cell::new(true),
            moved: RefCell::new(None),
            verdict: Notify::new(),
            draining: Cell::new(false),
            arrivals: Notify::new(),
            shares: config.shares,
            short: Cell::new(false),
            neighbours: config.beside.as_ref().map(|(_, neighbours)| neighbours.clone()),
            credentials: config.credentials.clone(),
            wakers,
        })
    }

    /// Reads every ring's offsets anew.
    pub(super) fn load(&self) -> Result<(), MemoryError> {
        self.peers.iter().try_for_each(Peer::load)
    }

    /// Ranks of all others.
    pub(super) fn others(&self) -> impl Iterator<Item = u32> + use<> {
        let me = self.rank;
        (0..self.peers.len() as u32).filter(move |rank| *rank != me)
    }

    pub(super) fn peer(&self, rank: u32) -> &Peer {
        &self.peers[rank as usize]
    }

    pub(super) fn place(&self, rank: u32) -> Option<Place> {
        self.directory.borrow().get(&rank).cloned()
    }

    /// Learns where a peer is; older news is ignored.
    pub(super) fn learn(&self, rank: u32, place: Place) {
        let mut directory = self.directory.borrow_mut();
        let newer = directory.get(&rank).is_none_or(|known| place.epoch >= known.epoch);
        if rank != self.rank && (rank as usize) < self.peers.len() && newer {
            directory.insert(rank, place);
        }
    }

    /// Connects to where a peer is: on this host if it is here and rings may be shared, else by its address.
    pub(super) async fn connect(&self, rank: u32, place: &Place) -> std::io::Result<Stream> {
        if let Some(neighbours) = self.neighbours.as_ref().filter(|_| self.shares)
            && let Ok(stream) = Stream::connect(&neighbours.address(rank, place.epoch), None).await
        {
            return Ok(stream);
        }
        Stream::connect(&place.address, self.credentials.as_ref()).await
    }

    fn flag(&self, offset: usize) -> Result<&AtomicU32, MemoryError> {
        self.guest.memory.atomic_u32(FABRIC_PAGE + offset as u64)
    }

    /// Tells the guest that something happened that it may be waiting for.
    pub(super) fn raise_event(&self) -> Result<(), MemoryError> {
        self.count_event()?;
        self.guest.sleeper.wake();
        Ok(())
    }

    fn count_event(&self) -> Result<(), MemoryError> {
        self.flag(std::mem::offset_of!(FabricPage, events))?.fetch_add(1, Ordering::SeqCst);
        self.guest.memory.mark_dirty(FABRIC_PAGE, PAGE_SIZE);
        Ok(())
    }

    fn word(&self, bitmap: usize, index: usize) -> Result<&AtomicU64, MemoryError> {
        self.guest.memory.atomic_u64(FABRIC_PAGE + (bitmap + 8 * index) as u64)
    }

    /// Tells the guest that bytes of a peer are in its ring. If it sleeps it is woken when this thread has taken in what is there: one that is woken
    /// for every piece takes the processor away from who brings the next one.
    pub(super) fn raise_arrival(&self, rank: u32) -> Result<(), MemoryError> {
        let (index, bit) = peer_bit(rank);
        self.word(std::mem::offset_of!(FabricPage, to_guest), index)?.fetch_or(bit, Ordering::SeqCst);
        self.count_event()?;
        self.arrivals.notify_one();
        Ok(())
    }

    /// Wakes the guest after arrivals, whenever the tasks before this one have come to wait.
    pub(super) async fn wake_after_arrivals(&self) {
        loop {
            self.arrivals.notified().await;
            self.guest.sleeper.wake();
        }
    }

    /// Has both sides look at all rings: what was named before a freeze is not known any more.
    pub(super) fn name_everybody(&self) -> Result<(), MemoryError> {
        for bitmap in
            [std::mem::offset_of!(FabricPage, to_guest), std::mem::offset_of!(FabricPage, to_fabric)]
        {
            for index in 0..self.peers.len().div_ceil(64) {
                self.word(bitmap, index)?.store(u64::MAX, Ordering::SeqCst);
            }
        }
        self.raise_event()
    }

    /// Tells the guest that a ring became shared or private.
    pub(super) fn raise_sharing(&self) -> Result<(), MemoryError> {
        self.flag(std::mem::offset_of!(FabricPage, sharing))?.fetch_add(1, Ordering::SeqCst);
        self.raise_event()
    }

    /// Whether the guest has to ring the doorbell.
    pub(super) fn set_asleep(&self, asleep: bool) -> Result<(), MemoryError> {
        self.flag(std::mem::offset_of!(FabricPage, fabric_asleep))?
            .store(u32::from(asleep), Ordering::SeqCst);
        self.guest.memory.mark_dirty(FABRIC_PAGE, PAGE_SIZE);
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Looks at the rings that the guest has named since the last time and notifies the tasks that have work. Returns whether
    /// there was any.
    pub(super) fn scan(&self, sent: &[Cell<u64>]) -> Result<bool, MemoryError> {
        let mut found = false;
        for index in 0..self.peers.len().div_ceil(64) {
            let word = self.word(std::mem::offset_of!(FabricPage, to_fabric), index)?;
            if word.load(Ordering::SeqCst) == 0 {
                continue;
            }
            let mut named = word.swap(0, Ordering::SeqCst);
            while named != 0 {
                let rank = 64 * index + named.trailing_zeros() as usize;
                named &= named - 1;
                // The guest can name whom it likes.
                if rank < self.peers.len() && rank != self.rank as usize {
                    found |= self.look_at(rank, &sent[rank])?;
                }
            }
        }
        Ok(found)
    }

    fn look_at(&self, rank: usize, sent: &Cell<u64>) -> Result<bool, MemoryError> {
        let (peer, mut found) = (&self.peers[rank], false);
        if !peer.sending.is_shared() {
            let written = peer.written()?;
            if written != sent.replace(written) {
                peer.to_send.notify_one();
                found = true;
            }
        }
        if !peer.receiving.is_shared() && peer.has_room_to_announce()? {
            peer.to_acknowledge.notify_one();
        }
        Ok(found)
    }

    /// Takes an acknowledgement. False when it cannot be true.
    pub(super) fn acknowledge(&self, rank: u32, offset: u64) -> Result<bool, MemoryError> {
        let peer = self.peer(rank);
        if offset < peer.acknowledged.get() || offset > peer.written()? {
            return Ok(false);
        }
        let before = peer.acknowledged.replace(offset);
        if offset > before {
            peer.sending.set_read(offset)?;
            // A guest that finds no room sleeps, and none of its frames needs more than a quarter of the ring. The fence is the
            // other half of the one between its last look for room and its sleep.
            fence(Ordering::SeqCst);
            if peer.sending.written()?.saturating_sub(before) > peer.sending.bytes() / 2 {
                self.raise_event()?;
            }
        }
        Ok(true)
    }

    /// Says, once, if there are no more descriptors: a peer that cannot be reached for that reason looks like one that is slow.
    pub(super) fn say_shortage(&self, error: &std::io::Error) {
        let allowed = match error.raw_os_error() {
            Some(libc::EMFILE) => getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
            _ => return,
        };
        if !self.short.replace(true) {
            crate::console::say(format_args!(
                "vmm: rank {}: no more than {allowed} open files are allowed, too few for its connections to {} ranks: it goes on with \
                 those that it has, and waits for the others; raise the hard limit (ulimit -Hn, LimitNOFILE=)",
                self.rank,
                self.peers.len() - 1
            ));
        }
    }

    /// Waits until greetings may be answered.
    pub(super) async fn until_thawed(&self) {
        while self.frozen.get() && self.moved.borrow().is_none() {
            self.verdict.notified().await;
        }
    }

    /// Whether everything the partition ever sent has arrived (or its receiver is gone), and everybody whose bytes came
    /// has been told so: a sender that has to ask a process that is gone cannot know.
    pub(super) fn drained(&self) -> bool {
        self.others().all(|rank| {
            let peer = self.peer(rank);
            peer.unacknowledged() == 0 && !peer.has_unsent()
        })
    }

    /// Whether somebody keeps the partition's last bytes waiting who may yet take them: one who moves at this moment, say.
    pub(super) fn is_waited_for(&self) -> bool {
        self.others().any(|rank| {
            let peer = self.peer(rank);
            peer.has_unsent() && !peer.welcomed.get()
        })
    }

    /// How every peer is reached.
    pub(super) fn routes(&self) -> Vec<super::Route> {
        let route = |rank| {
            let peer = self.peer(rank);
            let round_trip = peer.round_trips.borrow().summary();
            super::Route { rank, shared: peer.sending.is_shared(), round_trip }
        };
        self.others().map(route).collect()
    }

    /// Bytes of all streams that have arrived.
    pub(super) fn acknowledged_bytes(&self) -> u64 {
        self.peers.iter().map(|peer| peer.acknowledged.get()).sum()
    }
}

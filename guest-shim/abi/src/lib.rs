//! Layouts and numbers shared by the guest and the VMM (guest ABI version [`ABI_VERSION`]).
//!
//! A partition has one flat address space in which virtual address = physical address. This crate fixes where
//! things are in it and what the shared pages look like; `docs/abi.md` is the same in prose. Nothing here does
//! anything: no functions but address arithmetic, no dependencies, no `std`.
//!
//! ```text
//! 0x0000_0000_0000   page 0: never mapped
//! 0x0000_0000_1000   CPL 0 stub, descriptor tables, its stack (supervisor only)
//! 0x0000_0001_0000   the program: ELF segments, brk heap, mmap area, stack at the top of memory
//! 0x0050_0000_0000   rings: for every peer a send ring and a receive ring
//! 0x0060_0000_0000   system area: boot page, time page, fabric page, units page, vDSO, the stub's system call
//!                    entry and its stack, then page tables (not mapped)
//! 0x0070_0000_0000   doorbell page: no memory behind it, a store exits or signals an eventfd
//! ```
#![no_std]
#![forbid(unsafe_code)]

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// Version of everything in this crate. A VMM refuses a saved partition or a program of another version.
pub const ABI_VERSION: u32 = 5;

/// Bytes of a page, here and in the dirty log.
pub const PAGE_SIZE: u64 = 4096;

/// First address a program may use; below are page 0 (unmapped) and the stub (supervisor only).
pub const PROGRAM_BASE: u64 = 0x1_0000;

/// Largest memory of a partition, in bytes. The rings begin here.
pub const MEMORY_BYTES_MAX: u64 = RINGS_BASE;

/// Start of the ring area.
pub const RINGS_BASE: u64 = 0x50_0000_0000;

/// Start of the system area; the boot page is its first page.
pub const SYSTEM_BASE: u64 = 0x60_0000_0000;
/// The page with the facts that do not change while a partition lives on one host: [`BootPage`].
pub const BOOT_PAGE: u64 = SYSTEM_BASE;
/// The page that turns time stamp counts into nanoseconds: [`TimePage`].
pub const TIME_PAGE: u64 = SYSTEM_BASE + PAGE_SIZE;
/// The page of flags between the guest and the VMM's fabric thread: [`FabricPage`].
pub const FABRIC_PAGE: u64 = SYSTEM_BASE + 2 * PAGE_SIZE;
/// The page on which program and coordinator share out units of work: [`UnitsPage`].
pub const UNITS_PAGE: u64 = SYSTEM_BASE + 3 * PAGE_SIZE;
/// The vDSO image (at most [`VDSO_BYTES_MAX`]).
pub const VDSO_BASE: u64 = SYSTEM_BASE + 4 * PAGE_SIZE;
/// Room for the vDSO image, in bytes.
pub const VDSO_BYTES_MAX: u64 = 2 * PAGE_SIZE;
/// The page of the CPL 0 stub to which SYSCALL leads. The program may read and run it, which gives it nothing.
pub const CALL_ENTRY: u64 = SYSTEM_BASE + 6 * PAGE_SIZE;
/// The stub's page behind it, with its stack during a system call. The program may write it, which changes nothing: every call
/// writes anew what it reads.
pub const CALL_STACK: u64 = CALL_ENTRY + PAGE_SIZE;
/// First page table page. The tables are edited by the VMM and not mapped in the guest.
pub const PAGE_TABLES_BASE: u64 = SYSTEM_BASE + 16 * PAGE_SIZE;

/// The doorbell page: guest-physical space without memory.
pub const DOORBELL_PAGE: u64 = 0x70_0000_0000;
/// A 32-bit store of the last seen [`FabricPage::events`] here puts the partition to sleep until the two differ.
pub const WAIT_ADDRESS: u64 = DOORBELL_PAGE;
/// A 32-bit store here wakes the fabric thread (an ioeventfd takes it; the value does not matter).
pub const DOORBELL_ADDRESS: u64 = DOORBELL_PAGE + 64;

/// First of the doorbells of single peers, one 32-bit word each; see [`peer_doorbell`].
pub const PEER_DOORBELLS: u64 = DOORBELL_PAGE + PAGE_SIZE;
/// Bytes of guest-physical space that hold doorbells.
pub const DOORBELL_BYTES: u64 = PAGE_SIZE + 4 * RANKS_MAX as u64;

/// Where a 32-bit store wakes the sleeping partition of `peer`, with which a ring is shared. Without a shared ring the store
/// has no effect.
pub const fn peer_doorbell(peer: u32) -> u64 {
    PEER_DOORBELLS + 4 * peer as u64
}

/// Key in the auxiliary vector whose value is the address of the boot page. A program that does not find it is
/// not running in a partition.
pub const AT_PARTITA: u64 = 0x5041_5254;

/// `BootPage::magic`.
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"PARTITA\0");

/// Most partitions of one application that this ABI version can address.
pub const RANKS_MAX: u32 = 4096;
/// Smallest data part of a ring, in bytes. All ring sizes are powers of two.
pub const RING_BYTES_MIN: u32 = 16 << 10;
/// Largest data part of a ring, in bytes.
pub const RING_BYTES_MAX: u32 = 1 << 20;
/// Bytes before a ring's data: one page, so that header and data can be mapped into two partitions.
pub const RING_HEADER_BYTES: u64 = PAGE_SIZE;

/// Facts a partition is born with. Written by the VMM before the first instruction and again after a move
/// (`tsc_khz`, `spin_ns` may change then); read-only for the guest.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootPage {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`] of the VMM.
    pub abi_version: u32,
    /// Rank of this partition in the application, from 0.
    pub rank: u32,
    /// Number of partitions of the application.
    pub ranks: u32,
    /// Bytes of the data part of every ring; a power of two.
    pub ring_bytes: u32,
    /// Address of the ring area ([`RINGS_BASE`] in a partition).
    pub rings: u64,
    /// Address of the [`TimePage`].
    pub time_page: u64,
    /// Address of the [`FabricPage`].
    pub fabric_page: u64,
    /// Address of the [`UnitsPage`].
    pub units_page: u64,
    /// Address for the WAIT store, 0 where there is no VMM to wait in (then: spin and yield).
    pub wait: u64,
    /// Address for the doorbell store, 0 where nobody needs one.
    pub doorbell: u64,
    /// Time stamp counter frequency in kHz.
    pub tsc_khz: u64,
    /// How long a blocking call may poll before it WAITs, in nanoseconds.
    pub spin_ns: u64,
    /// Application id, UTF-8, padded with NUL.
    pub application: [u8; 64],
    /// Name of this partition as `MPI_Get_processor_name` reports it, UTF-8, padded with NUL.
    pub name: [u8; 64],
}

/// Turns the time stamp counter into time: `ns = base + ((tsc - tsc_base) * multiplier) >> 32`.
///
/// `sequence` is odd while the VMM rewrites the page (after a move); readers retry when it is odd or changed.
#[repr(C)]
#[derive(Debug)]
pub struct TimePage {
    /// Sequence counter of the writer.
    pub sequence: AtomicU64,
    /// Time stamp count at which the bases below were true.
    pub tsc_base: AtomicU64,
    /// Nanoseconds per count, as a fixed-point number with 32 fractional bits.
    pub multiplier: AtomicU64,
    /// `CLOCK_MONOTONIC` at `tsc_base`, in nanoseconds since the partition was started.
    pub monotonic_ns: AtomicU64,
    /// `CLOCK_REALTIME` at `tsc_base`, in nanoseconds since 1970.
    pub realtime_ns: AtomicU64,
}

/// Flags between the guest and the VMM. Each field has a cache line of its own.
#[repr(C)]
#[derive(Debug)]
pub struct FabricPage {
    /// Raised by the VMM after every change a sleeper may wait for (bytes arrived, room in a send ring).
    /// The guest reads it, looks at its rings, then WAITs with the value it read.
    pub events: AtomicU32,
    _pad0: [u8; 60],
    /// Set by the fabric thread before it sleeps; while it is set, whoever writes to a send ring or frees room
    /// in a receive ring rings the doorbell.
    pub fabric_asleep: AtomicU32,
    _pad1: [u8; 60],
    /// Time stamp counts the guest spent in blocking calls until something came, but for those asleep ([`FabricPage::slept_tsc`]):
    /// polling, and going to sleep and waking up (written by the guest).
    pub poll_tsc: AtomicU64,
    /// Units of work done as the program reports them (written by the guest).
    pub progress: AtomicU64,
    _pad2: [u8; 48],
    /// Raised by the VMM, before `events`, whenever a ring becomes shared with its peer or private again.
    pub sharing: AtomicU32,
    _pad3: [u8; 4],
    /// Time stamp counts for which the processor was given up in WAIT (written by the VMM before WAIT returns).
    pub slept_tsc: AtomicU64,
    _pad4: [u8; 48],
    /// A bit for every peer, set by the guest when it has written to the send ring or freed room in the receive ring of a peer
    /// with whom the ring is not shared, and taken by the fabric thread, which looks at no other rings.
    pub to_fabric: [AtomicU64; PEER_WORDS],
    /// A bit for every peer, set by the VMM, before `events`, when bytes of that peer arrived; taken by the guest, which looks at
    /// no other rings but the shared ones.
    pub to_guest: [AtomicU64; PEER_WORDS],
}

/// Words of a bitmap with a bit for every peer, 64 peers a word.
pub const PEER_WORDS: usize = RANKS_MAX as usize / 64;

/// Where the bit of a peer is in such a bitmap: the index of its word, and the bit in that.
pub const fn peer_bit(peer: u32) -> (usize, u64) {
    (peer as usize / 64, 1 << (peer % 64))
}

/// How a program that can shift work between its ranks and the coordinator talk: the program counts in *units* of its own
/// choice (rows, cells, particles), says how many it has and what they cost, and takes up how many it should have.
///
/// A target belongs to a `generation`; ranks take one up only when all of them have the same generation, because only
/// then their targets add up to `total`. The VMM writes `target`, then `generation`.
#[repr(C)]
#[derive(Debug)]
pub struct UnitsPage {
    /// Units of the whole application; 0 while the program has defined none (guest).
    pub total: AtomicU64,
    /// First unit that this rank has (guest).
    pub first: AtomicU64,
    /// Number of units that it has (guest).
    pub count: AtomicU64,
    /// Units it has computed since the start: a unit that is computed in every step counts every time (guest).
    pub done: AtomicU64,
    /// What they cost in elapsed time, without waiting for others, in nanoseconds (guest).
    pub cost_ns: AtomicU64,
    /// How often the program said that now is a good moment for a move (guest).
    pub safe_points: AtomicU64,
    /// `CLOCK_MONOTONIC` of the partition before which a move is unwelcome, in nanoseconds (guest).
    pub not_before_ns: AtomicU64,
    _pad0: [u8; 8],
    /// Number of the newest sharing-out, 0 before the first (VMM, release).
    pub generation: AtomicU64,
    /// Units that this rank should have in it (VMM).
    pub target: AtomicU64,
    /// Speed of the host relative to the mean of the application's hosts, in parts per million; 0 while unknown (VMM).
    pub speed_ppm: AtomicU64,
}

/// Header of a single-producer single-consumer ring. `written` and `read` are stream offsets: they count bytes
/// since the application started and never wrap (64 bits); the data of offset `o` is at `o % ring_bytes`.
///
/// The consumer's `read` is the acknowledgement: bytes in `read..written` may have to be sent again after a move.
///
/// A producer publishes what it has written after at most a quarter of the ring.
#[repr(C)]
#[derive(Debug)]
pub struct RingHeader {
    /// Bytes ever written (producer, release).
    pub written: AtomicU64,
    /// Messages ever written (producer); a counter for people, nothing depends on it.
    pub messages: AtomicU64,
    _pad0: [u8; 48],
    /// Bytes ever taken out (consumer, release).
    pub read: AtomicU64,
    /// Time stamp counts the consumer has waited until something of this producer's ended the wait (consumer); for people
    /// and the coordinator, nothing depends on it.
    pub waited_tsc: AtomicU64,
    _pad1: [u8; 48],
    /// Set by a consumer that sleeps until `written` grows (used by rings shared by two partitions).
    pub consumer_asleep: AtomicU32,
    /// Set by a producer that sleeps until `read` grows (used by rings shared by two partitions).
    pub producer_asleep: AtomicU32,
    /// Not 0 while the peer itself has the other end; written by the VMM. Then sleepers are woken by [`peer_doorbell`].
    pub shared: AtomicU32,
    _pad2: [u8; 52],
}

/// Bytes from the start of one ring to the start of the next.
pub const fn ring_stride(ring_bytes: u32) -> u64 {
    RING_HEADER_BYTES + ring_bytes as u64
}

/// Offset in the ring area of the ring in which this partition sends to `peer`.
pub const fn send_ring_offset(peer: u32, ring_bytes: u32) -> u64 {
    2 * peer as u64 * ring_stride(ring_bytes)
}

/// Offset in the ring area of the ring in which this partition receives from `peer`.
pub const fn receive_ring_offset(peer: u32, ring_bytes: u32) -> u64 {
    send_ring_offset(peer, ring_bytes) + ring_stride(ring_bytes)
}

/// Bytes of the whole ring area of a partition.
pub const fn ring_area_bytes(ranks: u32, ring_bytes: u32) -> u64 {
    2 * ranks as u64 * ring_stride(ring_bytes)
}

/// Data bytes per ring for an application of `ranks` partitions: 256 KiB up to 16, then less, so that the ring
/// area stays at 32 MiB or below until the ring size reaches its minimum.
pub const fn default_ring_bytes(ranks: u32) -> u32 {
    let mut bytes = 256 << 10;
    while bytes > RING_BYTES_MIN && ring_area_bytes(ranks, bytes) > 32 << 20 {
        bytes /= 2;
    }
    bytes
}

// Tripwires: a layout changes only together with ABI_VERSION.
const _: () = assert!(size_of::<BootPage>() == 216);
const _: () = assert!(offset_of!(BootPage, rings) == 24);
const _: () = assert!(offset_of!(BootPage, units_page) == 48);
const _: () = assert!(offset_of!(BootPage, application) == 88);
const _: () = assert!(size_of::<TimePage>() == 40);
const _: () = assert!(offset_of!(FabricPage, fabric_asleep) == 64);
const _: () = assert!(offset_of!(FabricPage, poll_tsc) == 128);
const _: () = assert!(offset_of!(FabricPage, progress) == 136);
const _: () = assert!(offset_of!(FabricPage, sharing) == 192);
const _: () = assert!(offset_of!(FabricPage, slept_tsc) == 200);
const _: () = assert!(offset_of!(FabricPage, to_fabric) == 256);
const _: () = assert!(offset_of!(FabricPage, to_guest) == 768);
const _: () = assert!(size_of::<FabricPage>() as u64 <= PAGE_SIZE);
const _: () = assert!(size_of::<RingHeader>() == 192);
const _: () = assert!(offset_of!(RingHeader, read) == 64);
const _: () = assert!(offset_of!(RingHeader, waited_tsc) == 72);
const _: () = assert!(offset_of!(RingHeader, consumer_asleep) == 128);
const _: () = assert!(size_of::<UnitsPage>() == 88);
const _: () = assert!(offset_of!(UnitsPage, generation) == 64);
const _: () = assert!(offset_of!(RingHeader, shared) == 136);
const _: () = assert!(size_of::<RingHeader>() as u64 <= RING_HEADER_BYTES);

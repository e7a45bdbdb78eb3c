//! One partition: memory, machine, vCPU thread and fabric, with the verbs that others use.
//!
//! A partition is always built paused, from a program ([`Partition::start`]) or from a saved state
//! ([`Partition::prepare`], then [`Partition::restore`]). It does not know who asks or why.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use partita_abi::{ABI_VERSION, DOORBELL_ADDRESS, FabricPage, PAGE_SIZE};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmm_sys_util::eventfd::EventFd;

use crate::clock::{self, GuestTime};
use crate::counters::{CpuCounters, SavedCounters};
use crate::elf::Executable;
use crate::fabric::{self, Directory, Fabric, FabricError, Guest};
use crate::fault::Program;
use crate::kvm::cpu::{Cpu, Features};
use crate::kvm::{KvmError, Machine};
use crate::linux::{Errno, Files, Linux};
use crate::loader::{self, Arguments, Identity, LoadError};
use crate::memory::{FILE_AREA_BYTES, FILES_BASE, Layout, Memory, MemoryError};
use crate::throttle::Throttle;
use crate::units::{self, Share, Units};
use crate::vcpu::{self, Ending, Engine, EngineState, Vcpu, VcpuError, Waiting};

/// Version of [`Saved`] and [`Blueprint`].
pub const STATE_VERSION: u32 = 2;
/// By how much, and an eighth of them, files can grow while a partition moves before what is new goes with the state.
const FILE_ROOM_BYTES: u64 = 256 << 10;

/// Why a partition could not be built or did not do as told.
#[derive(Debug, Error)]
pub enum PartitionError {
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The program could not be placed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The vCPU thread.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The fabric.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// An eventfd could not be made.
    #[error("cannot make an event descriptor")]
    Event(#[source] std::io::Error),
    /// A saved state of another version.
    #[error(
        "the saved partition has {what} version {theirs}, this vmm has {ours}; use the same vmm on both hosts"
    )]
    Version {
        /// Which version differs.
        what: &'static str,
        /// Theirs.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The processor here lacks something.
    #[error(
        "this host's processor lacks what the program may use: {0}; move it to a host with the same features"
    )]
    Processor(String),
    /// It cannot be read.
    #[error("the saved partition cannot be read")]
    State(#[source] postcard::Error),
    /// It can be read, but there is no such partition.
    #[error("the saved partition contradicts itself: {0}")]
    Contradiction(&'static str),
    /// A file that it is to start with has no place.
    #[error("there is no room for its file {path}; give fewer or smaller ones")]
    File {
        /// Its path in the partition.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Called out of order.
    #[error("the partition is not in a state for this: {0}")]
    Order(&'static str),
}

/// What a destination needs before the first page arrives; nothing in it changes while a partition lives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Blueprint {
    version: u32,
    abi_version: u32,
    /// Memory sizes.
    pub layout: Layout,
    /// Bytes of the file area that move as memory.
    file_area_bytes: u64,
    features: Features,
    program: Program,
    /// Time the partition was started, on the guest's own clock it is 0.
    spin_ns: u64,
}

/// Everything of a paused partition that is neither in its memory nor in its [`Blueprint`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    engine: EngineState,
    time: GuestTime,
    counters: SavedCounters,
    directory: Directory,
    /// What is in the file area behind that which moved as memory.
    late_files: Vec<u8>,
}

/// Looks at the version before the rest: another version may have another shape.
fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, PartitionError> {
    let (version, _) = postcard::take_from_bytes(bytes).map_err(PartitionError::State)?;
    require("state", version, STATE_VERSION)?;
    postcard::from_bytes(bytes).map_err(PartitionError::State)
}

fn require(what: &'static str, theirs: u32, ours: u32) -> Result<(), PartitionError> {
    if theirs == ours { Ok(()) } else { Err(PartitionError::Version { what, theirs, ours }) }
}

impl Blueprint {
    /// As a source sends it.
    pub fn encode(&self) -> Result<Vec<u8>, PartitionError> {
        postcard::to_stdvec(self).map_err(PartitionError::State)
    }

    /// Reads what a source sent; memory sizes that cannot be are refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, PartitionError> {
        let blueprint: Self = decode(bytes)?;
        require("guest ABI", blueprint.abi_version, ABI_VERSION)?;
        blueprint.layout.check()?;
        let bytes = blueprint.file_area_bytes;
        if bytes > FILE_AREA_BYTES || !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(PartitionError::Contradiction("its file area has a size that no file area has"));
        }
        Ok(blueprint)
    }

    /// Address and length of what moves as memory, by the indices of [`crate::memory`]: the guest's regions and, if there are
    /// files, the beginning of the file area.
    pub fn regions(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let files = (FILES_BASE, self.file_area_bytes);
        self.layout.regions().into_iter().chain((files.1 > 0).then_some(files))
    }
}

impl Saved {
    /// Reads what a source sent.
    pub fn decode(bytes: &[u8]) -> Result<Self, PartitionError> {
        let saved: Self = decode(bytes)?;
        if !saved.engine.linux.files.is_consistent() {
            return Err(PartitionError::Contradiction(
                "its files do not have the pages that they need, each its own",
            ));
        }
        Ok(saved)
    }
}

/// Who a partition is.
#[derive(Debug, Clone)]
pub struct Name {
    /// Application id.
    pub application: String,
    /// Rank.
    pub rank: u32,
    /// Epoch of the owner that this process is.
    pub epoch: u64,
}

/// A partition of this process.
pub struct Partition {
    // Field order is drop order: throttle and fabric, which interrupt the vCPU, end before it, the vCPU before the machine, the
    // machine before its memory.
    throttle: Mutex<Option<Throttle>>,
    fabric: Mutex<Option<Fabric>>,
    vcpu: Mutex<Option<Vcpu>>,
    machine: Machine,
    memory: Arc<Memory>,
    name: Name,
    blueprint: Mutex<Blueprint>,
    counters: Mutex<Arc<CpuCounters>>,
    moves: Mutex<SavedCounters>,
    /// Pages the VMM wrote, taken from memory and not yet cleared by the migration.
    written: Mutex<Vec<Vec<u64>>>,
    spare: Mutex<Option<Spare>>,
    /// Time of day when it was saved elsewhere.
    left_ns: Mutex<u64>,
}

/// What went between a partition and one peer; as the guests say, who write these counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// The peer.
    pub rank: u32,
    /// Bytes written to it.
    pub bytes_sent: u64,
    /// Bytes that came from it.
    pub bytes_received: u64,
    /// Messages written to it.
    pub messages_sent: u64,
    /// Messages that came from it.
    pub messages_received: u64,
    /// Time the guest waited until something came from it.
    pub wait_ns: u64,
    /// What is sent to it goes through memory that both map.
    pub shared: bool,
    /// Latency of what goes over a connection.
    pub round_trip: Option<fabric::RoundTrip>,
}

/// What a prepared partition keeps until its state arrives.
struct Spare {
    cpu: Cpu,
    vcpu: Waiting,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to run.
pub struct Recipe<'a> {
    /// The checked executable.
    pub executable: &'a Executable,
    /// Memory sizes.
    pub layout: Layout,
    /// Arguments and environment.
    pub arguments: Arguments,
    /// Files it starts with, which it cannot change: path in the partition and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// How long a blocking call may poll, in nanoseconds.
    pub spin_ns: u64,
}

/// Called once, on the vCPU thread, when a partition ends.
pub type OnEnd = Box<dyn FnOnce(Ending) + Send>;

impl Partition {
    /// Builds a partition from a program. It is paused at the program's first instruction.
    pub fn start(
        name: Name,
        recipe: Recipe<'_>,
        fabric: fabric::Config,
        on_end: OnEnd,
    ) -> Result<Self, PartitionError> {
        let memory = Arc::new(Memory::new(recipe.layout)?);
        let mut parts = Machine::create(&memory)?;
        let tsc_khz = parts.cpu.tsc_khz().unwrap_or_else(clock::measure_tsc_khz);
        let identity = Identity {
            application: name.application.clone(),
            rank: name.rank,
            spin_ns: recipe.spin_ns,
            tsc_khz,
        };
        let loaded = loader::load(&memory, recipe.executable, &identity, &recipe.arguments)?;
        parts.cpu.start(loaded.entry, loaded.stack, loaded.paging.root())?;
        let program = Program {
            symbols: recipe.executable.symbols(),
            bias: loaded.bias,
            stack_base: loaded.stack_base,
        };
        let blueprint = Blueprint {
            version: STATE_VERSION,
            abi_version: ABI_VERSION,
            layout: recipe.layout,
            file_area_bytes: 0,
            features: parts.cpu.features(),
            program: program.clone(),
            spin_ns: recipe.spin_ns,
        };
        let mut files = Files::new();
        for (path, data) in recipe.files {
            let refused = |errno: Errno| std::io::Error::from_raw_os_error(errno);
            let added = files.add_read_only(&memory, &path, &data);
            added.map_err(|errno| PartitionError::File { path, source: refused(errno) })?;
        }
        let engine = Engine {
            cpu: parts.cpu,
            memory: memory.clone(),
            linux: Linux::new(files, loaded.space, loaded.paging),
            pending_call: false,
            program,
            rank: name.rank,
        };
        let partition = Self::assemble(name, parts.machine, memory, blueprint);
        let vcpu = partition.start_threads(fabric)?;
        partition.begin(vcpu, engine, SavedCounters::default(), on_end);
        Ok(partition)
    }

    /// Builds everything of a partition that will arrive: machine, memory, vCPU, threads. Refuses what cannot run here.
    pub fn prepare(name: Name, blueprint: Blueprint, fabric: fabric::Config) -> Result<Self, PartitionError> {
        let memory = Arc::new(Memory::new(blueprint.layout)?);
        let parts = Machine::create(&memory)?;
        if let Some(missing) = blueprint.features.missing_on(&parts.cpu.features()) {
            return Err(PartitionError::Processor(missing));
        }
        let partition = Self::assemble(name, parts.machine, memory, blueprint);
        let vcpu = partition.start_threads(fabric)?;
        *lock(&partition.spare) = Some(Spare { cpu: parts.cpu, vcpu });
        Ok(partition)
    }

    fn assemble(name: Name, machine: Machine, memory: Arc<Memory>, blueprint: Blueprint) -> Self {
        let words = |(_, bytes, _)| vec![0; crate::memory::bitmap_words(bytes)];
        let words = memory.regions().into_iter().map(words).collect();
        Self {
            throttle: Mutex::new(None),
            fabric: Mutex::new(None),
            vcpu: Mutex::new(None),
            machine,
            memory,
            name,
            blueprint: Mutex::new(blueprint),
            counters: Mutex::default(),
            moves: Mutex::default(),
            written: Mutex::new(words),
            spare: Mutex::new(None),
            left_ns: Mutex::default(),
        }
    }

    fn make_doorbell(&self) -> Result<EventFd, PartitionError> {
        let doorbell = EventFd::new(libc::EFD_NONBLOCK).map_err(PartitionError::Event)?;
        self.machine.doorbells().register(&doorbell, DOORBELL_ADDRESS)?;
        Ok(doorbell)
    }

    /// Starts the threads, that of the fabric frozen.
    fn start_threads(&self, fabric: fabric::Config) -> Result<Waiting, PartitionError> {
        let vcpu = Waiting::start()?;
        let doorbell = self.make_doorbell()?;
        let guest = Guest {
            memory: self.memory.clone(),
            sleeper: vcpu.sleeper(),
            interrupter: vcpu.interrupter(),
            doorbell,
            doorbells: self.machine.doorbells(),
        };
        *lock(&self.fabric) = Some(Fabric::start(guest, fabric)?);
        Ok(vcpu)
    }

    /// Gives the vCPU's thread its processor, paused.
    fn begin(&self, vcpu: Waiting, engine: Engine, saved: SavedCounters, on_end: OnEnd) {
        let counters = Arc::new(CpuCounters::resume(&saved));
        *lock(&self.counters) = counters.clone();
        *lock(&self.moves) = saved;
        *lock(&self.vcpu) = Some(vcpu.begin(engine, counters, on_end));
    }

    /// Sets a saved state in a prepared partition whose memory has arrived. It stays paused.
    ///
    /// Returns how many bytes it had written to standard output and standard error before it came.
    pub fn restore(&self, saved: &[u8], on_end: OnEnd) -> Result<[u64; 2], PartitionError> {
        let saved = Saved::decode(saved)?;
        let Spare { mut cpu, vcpu } =
            lock(&self.spare).take().ok_or(PartitionError::Order("it has been restored before"))?;
        let blueprint = lock(&self.blueprint).clone();
        let tsc_khz = cpu.tsc_khz().unwrap_or_else(clock::measure_tsc_khz);
        cpu.restore(&saved.engine.cpu)?;
        saved.time.arrive().write(&self.memory, tsc_khz)?;
        let identity = Identity {
            application: self.name.application.clone(),
            rank: self.name.rank,
            spin_ns: blueprint.spin_ns,
            tsc_khz,
        };
        loader::write_boot_page(&self.memory, &identity)?;
        if blueprint.file_area_bytes + saved.late_files.len() as u64 > FILE_AREA_BYTES {
            return Err(PartitionError::Contradiction("its files have more bytes than a file area"));
        }
        self.memory.write(FILES_BASE + blueprint.file_area_bytes, &saved.late_files)?;
        self.with_fabric(|fabric| {
            fabric.replace_directory(saved.directory);
            Ok(())
        })?;
        let engine = Engine {
            cpu,
            memory: self.memory.clone(),
            linux: saved.engine.linux,
            pending_call: saved.engine.pending_call,
            program: blueprint.program,
            rank: self.name.rank,
        };
        let output_bytes = engine.linux.output_bytes;
        self.begin(vcpu, engine, saved.counters, on_end);
        *lock(&self.left_ns) = saved.time.realtime_ns;
        Ok(output_bytes)
    }

    /// Runs a restored partition for the first time here, counts the move and tells every peer where it is.
    pub fn arrive(&self) -> Result<(), PartitionError> {
        {
            let mut moves = lock(&self.moves);
            moves.migrations += 1;
            moves.blackout_ns += clock::realtime_ns().saturating_sub(*lock(&self.left_ns));
        }
        self.resume(true)
    }

    /// Who it is.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Region `index` of its blueprint, to be written by one-sided writes.
    pub fn open_memory(&self, index: usize) -> Option<partita_rdma::HostMemory> {
        let (_, bytes) = lock(&self.blueprint).regions().nth(index)?;
        self.memory.clone().open(index, bytes)
    }

    fn with_vcpu<T>(&self, act: impl FnOnce(&Vcpu) -> Result<T, VcpuError>) -> Result<T, PartitionError> {
        let guard = lock(&self.vcpu);
        Ok(act(guard.as_ref().ok_or(PartitionError::Order("no state has arrived yet"))?)?)
    }

    /// Calls `act` with the fabric.
    pub fn with_fabric<T>(
        &self,
        act: impl FnOnce(&Fabric) -> Result<T, FabricError>,
    ) -> Result<T, PartitionError> {
        let guard = lock(&self.fabric);
        Ok(act(guard.as_ref().ok_or(PartitionError::Order("no state has arrived yet"))?)?)
    }

    /// Runs. `announce`: tell every peer where the partition is now.
    pub fn resume(&self, announce: bool) -> Result<(), PartitionError> {
        self.with_fabric(|fabric| fabric.thaw(self.name.epoch, announce))?;
        self.with_vcpu(Vcpu::resume)
    }

    /// Whether the program sleeps, for messages as a rule.
    pub fn is_asleep(&self) -> bool {
        self.with_vcpu(|vcpu| Ok(vcpu.sleeper())).is_ok_and(|sleeper| sleeper.is_asleep())
    }

    /// How often the program has said that a move would suit it just then.
    pub fn safe_points(&self) -> u64 {
        units::safe_points(&self.memory).unwrap_or(0)
    }

    /// Stops the vCPU and the fabric; afterwards nothing writes guest memory.
    pub fn pause(&self) -> Result<(), PartitionError> {
        // A vCPU that is held cannot answer.
        drop(lock(&self.throttle).take());
        self.with_vcpu(Vcpu::pause)?;
        self.with_fabric(Fabric::freeze)
    }

    /// Has the vCPU run only `share` (between 0 and 1) of the time from now on, until the next call or the next pause; 1 lets it
    /// run freely.
    pub fn throttle(&self, share: f64) -> Result<(), PartitionError> {
        let mut throttle = lock(&self.throttle);
        // The earlier one ends first: two would hold the vCPU twice.
        drop(throttle.take());
        if share < 1.0 {
            let interrupter = self.with_vcpu(|vcpu| Ok(vcpu.interrupter()))?;
            *throttle = Some(Throttle::start(interrupter, share)?);
        }
        Ok(())
    }

    /// Ends it. `on_end` is called with `ending` unless it has ended before.
    pub fn stop(&self, ending: Ending) -> Result<(), PartitionError> {
        self.with_vcpu(|vcpu| vcpu.stop(ending))
    }

    /// What a destination needs first, now. The partition may be running.
    pub fn blueprint(&self) -> Result<Blueprint, PartitionError> {
        let used = self.with_vcpu(Vcpu::file_area_bytes)?;
        // Room for files to grow while the partition moves; a page of zeros costs next to nothing.
        let room = if used > 0 { used / 8 + FILE_ROOM_BYTES } else { 0 };
        let file_area_bytes = (used + room).next_multiple_of(PAGE_SIZE).min(FILE_AREA_BYTES);
        Ok(Blueprint { file_area_bytes, ..lock(&self.blueprint).clone() })
    }

    /// The state of a paused partition of which everything that `blueprint` says has moved.
    pub fn save(&self, blueprint: &Blueprint) -> Result<Vec<u8>, PartitionError> {
        let engine = self.with_vcpu(Vcpu::save)?;
        let moved = blueprint.file_area_bytes;
        let mut late_files = vec![0; engine.linux.files.area_bytes().saturating_sub(moved) as usize];
        self.memory.read(FILES_BASE + moved, &mut late_files)?;
        let saved = Saved {
            version: STATE_VERSION,
            engine,
            time: GuestTime::read(&self.memory)?,
            counters: self.saved_counters()?,
            directory: self.with_fabric(Fabric::directory)?,
            late_files,
        };
        postcard::to_stdvec(&saved).map_err(PartitionError::State)
    }

    /// How long it takes to interrupt the vCPU of a partition that goes on and to read its processor's state. Nothing while it
    /// is throttled: that would be the time for which it is held.
    pub fn rehearse_save(&self) -> Result<Option<Duration>, PartitionError> {
        if lock(&self.throttle).is_some() {
            return Ok(None);
        }
        let start = Instant::now();
        self.with_vcpu(Vcpu::rehearse_save)?;
        Ok(Some(start.elapsed()))
    }

    /// Counters so far.
    pub fn saved_counters(&self) -> Result<SavedCounters, PartitionError> {
        let counters = lock(&self.counters).clone();
        let moves = *lock(&self.moves);
        Ok(SavedCounters {
            run_ns: self.with_vcpu(|vcpu| Ok(vcpu.run_ns()))?,
            wait_ns: counters.wait_ns.load(Ordering::Relaxed),
            exits: counters.exits(),
            syscalls: counters.syscalls.load(Ordering::Relaxed),
            ..moves
        })
    }

    /// What went to and from every peer since the application started, and how it goes now.
    pub fn traffic(&self) -> Result<Vec<Traffic>, PartitionError> {
        let traffic = |route: fabric::Route| {
            let (sending, receiving) = (
                fabric::Ring::sending_to(self.memory.clone(), route.rank),
                fabric::Ring::receiving_from(self.memory.clone(), route.rank),
            );
            Ok(Traffic {
                rank: route.rank,
                bytes_sent: sending.written()?,
                bytes_received: receiving.written()?,
                messages_sent: sending.messages()?,
                messages_received: receiving.messages()?,
                wait_ns: self.guest_ns(receiving.waited_tsc()?),
                shared: route.shared,
                round_trip: route.round_trip,
            })
        };
        self.with_fabric(Fabric::routes)?.into_iter().map(traffic).collect()
    }

    /// Time since the partition was started, on its own clock, in nanoseconds.
    pub fn elapsed_ns(&self) -> Result<u64, PartitionError> {
        Ok(GuestTime::read(&self.memory)?.monotonic_ns)
    }

    /// Counts of the guest's time stamp counter in nanoseconds, at the speed it has now.
    fn guest_ns(&self, counts: u64) -> u64 {
        crate::clock::guest_ns(&self.memory, counts).unwrap_or(0)
    }

    /// Time the guest spent in blocking calls of MPI, but for being asleep, in nanoseconds, as it says itself.
    pub fn poll_ns(&self) -> u64 {
        self.guest_ns(vcpu::guest_counter(&self.memory, std::mem::offset_of!(FabricPage, poll_tsc)))
    }

    /// Units of work the program reported.
    pub fn progress(&self) -> u64 {
        vcpu::guest_counter(&self.memory, std::mem::offset_of!(FabricPage, progress))
    }

    /// What the program says of its units of work, if it has any.
    pub fn units(&self) -> Result<Option<Units>, PartitionError> {
        Ok(units::read(&self.memory)?)
    }

    /// Gives the program a share of its units. False when it has a newer one.
    pub fn give_share(&self, share: &Share) -> Result<bool, PartitionError> {
        Ok(units::give(&self.memory, share)?)
    }

    /// Begins dirty tracking: every page counts as dirty.
    pub fn start_tracking(&self) -> Result<(), PartitionError> {
        self.machine.set_tracking(true)?;
        self.forget_written();
        Ok(())
    }

    /// Ends dirty tracking.
    pub fn stop_tracking(&self) -> Result<(), PartitionError> {
        self.machine.set_tracking(false)?;
        self.forget_written();
        Ok(())
    }

    fn forget_written(&self) {
        for (index, words) in lock(&self.written).iter_mut().enumerate() {
            self.memory.take_written(index);
            words.fill(0);
        }
    }

    /// Adds to `bitmap` the pages of region `index` written since they were last cleared.
    pub fn dirty(&self, index: usize, bitmap: &mut [u64]) -> Result<(), PartitionError> {
        let log = self.machine.dirty(index)?;
        let by_vmm = self.memory.take_written(index);
        let mut written = lock(&self.written);
        for (word, new) in written[index].iter_mut().zip(by_vmm) {
            *word |= new;
        }
        if !self.machine.clears_by_hand() {
            // Asking has cleared the log: remember it until it is cleared on purpose.
            written[index].iter_mut().zip(&log).for_each(|(word, new)| *word |= new);
        }
        for words in [&log, &written[index]] {
            bitmap.iter_mut().zip(words).for_each(|(out, word)| *out |= word);
        }
        Ok(())
    }

    /// Clears pages just before they are read.
    pub fn clear_dirty(&self, index: usize, first_page: u64, bitmap: &[u64]) -> Result<(), PartitionError> {
        let first_word = (first_page / crate::memory::PAGES_PER_WORD) as usize;
        let mut written = lock(&self.written);
        for (word, clear) in written[index].iter_mut().skip(first_word).zip(bitmap) {
            *word &= !clear;
        }
        drop(written);
        Ok(self.machine.clear_dirty(index, first_page, bitmap)?)
    }
}

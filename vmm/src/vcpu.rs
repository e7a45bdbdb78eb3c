//! The vCPU thread: runs the program, serves its exits, sleeps for it, and does what it is told between two entries.
//!
//! ```text
//!             Resume                    Exit, fault, Stop
//!  paused ───────────────▶ running ───────────────────────▶ ended
//!     ▲ ◀──────────────────────┘
//!     └ Save                 Pause (kick)
//! ```

use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvm_bindings::kvm_regs;
use kvm_ioctls::VcpuExit;
use partita_abi as abi;
use partita_kernel as stub;
use thiserror::Error;
use vmm_sys_util::eventfd::EventFd;

use crate::clock::{self, GuestTime};
use crate::counters::{CpuCounters, add};
use crate::fault::{self, Fault, FaultError, Scene};
use crate::kvm::KvmError;
use crate::kvm::cpu::{Cpu, CpuState};
use crate::linux::{Answer, Context, Linux};
use crate::memory::{Memory, MemoryError};

/// How long a partition in WAIT does not let its processor fall idle, where it may poll at all: others get it at once, and what they
/// bring needs nobody to be woken. Waking an idle processor takes longer than most messages (SPECIFICATION.md, between hosts).
const POLL: Duration = Duration::from_micros(200);

/// How a partition ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The program ended by itself.
    Exit(i32),
    /// A fault; the text is the one line for people.
    Fault(Fault),
    /// It was told to stop.
    Stopped,
    /// It was let go of: it runs elsewhere.
    Released,
}

impl Ending {
    /// Exit status of the process that hosted it.
    pub fn status(&self) -> i32 {
        match self {
            Self::Exit(status) => *status,
            Self::Fault(fault) => fault.status,
            Self::Stopped => 143,
            Self::Released => 0,
        }
    }
}

/// The vCPU thread did not do as told.
#[derive(Debug, Error)]
pub enum VcpuError {
    /// It has ended.
    #[error("the partition has ended")]
    Ended,
    /// A command that needs a paused partition.
    #[error("the partition is not paused")]
    NotPaused,
    /// KVM failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Guest memory could not be reached.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A fault could not be described.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// The thread could not be made.
    #[error("cannot start the vCPU thread")]
    Thread(#[source] std::io::Error),
}

/// What the thread owns besides memory and counters, as a value that moves.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct EngineState {
    /// Processor.
    pub cpu: CpuState,
    /// System call state.
    pub linux: Linux,
    /// A system call was begun and has to be asked again.
    pub pending_call: bool,
}

enum Command {
    Pause(Sender<()>),
    Resume(Sender<()>),
    Save(Sender<Result<EngineState, VcpuError>>),
    RehearseSave(Sender<Result<(), VcpuError>>),
    FileAreaBytes(Sender<u64>),
    Run(Once),
    Stop(Ending),
}

/// Something to be done once while the guest does not run. Whoever takes it out of the cell does it, with the cell locked; so
/// after it was taken out by somebody else it has been done or never will be.
type Errand = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// One of the two who hold an errand: who asked for it and the vCPU's thread. Whoever drops it first withdraws it if it has not
/// been done: nobody waits any more, or nobody will do it because the vCPU has ended.
struct Once(Errand);

impl Drop for Once {
    fn drop(&mut self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Lets others do things while the guest does not run, without pausing it.
#[derive(Clone)]
pub struct Interrupter {
    commands: Sender<Command>,
    sleeper: Arc<Sleeper>,
    thread: Arc<OnceLock<libc::pthread_t>>,
    ended: Arc<AtomicBool>,
}

impl Interrupter {
    fn tell(&self, command: Command) -> Result<(), VcpuError> {
        self.commands.send(command).map_err(|_| VcpuError::Ended)?;
        if let Some(thread) = self.thread.get()
            && !self.ended.load(Ordering::SeqCst)
        {
            // SAFETY: the thread is joined only when its `Vcpu` is dropped, after everybody who has an interrupter; the
            // signal has a handler.
            unsafe { libc::pthread_kill(*thread, kick_signal()) };
        }
        self.sleeper.poke();
        Ok(())
    }

    /// Does `errand` on the vCPU's thread between two entries of the guest. When the returned future is dropped, it has been
    /// done or never will be.
    ///
    /// # Errors
    /// The vCPU has ended.
    pub async fn between_entries<T: Send + 'static>(
        &self,
        errand: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, VcpuError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let errand: Errand = Arc::new(Mutex::new(Some(Box::new(move || {
            let _ = reply.send(errand());
        }))));
        let _asked = Once(errand.clone());
        self.tell(Command::Run(Once(errand)))?;
        answer.await.map_err(|_| VcpuError::Ended)
    }

    /// As [`between_entries`](Self::between_entries), for a thread that may block.
    ///
    /// # Errors
    /// The vCPU has ended.
    pub fn run_between_entries<T: Send + 'static>(
        &self,
        errand: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, VcpuError> {
        let (reply, answer) = channel();
        let errand: Errand = Arc::new(Mutex::new(Some(Box::new(move || {
            let _ = reply.send(errand());
        }))));
        let _asked = Once(errand.clone());
        self.tell(Command::Run(Once(errand)))?;
        answer.recv().map_err(|_| VcpuError::Ended)
    }
}

/// Lets a thread sleep until somebody else has something for it.
pub struct Sleeper {
    asleep: AtomicBool,
    event: EventFd,
}

impl Sleeper {
    fn new() -> std::io::Result<Self> {
        Ok(Self { asleep: AtomicBool::new(false), event: EventFd::new(libc::EFD_NONBLOCK)? })
    }

    /// Wakes the vCPU if it is asleep. Call it after the change it may be waiting for.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            // Full means awake already.
            let _ = self.event.write(1);
        }
    }

    /// Ends a sleep in any case, the next one if there is none.
    fn poke(&self) {
        let _ = self.event.write(1);
    }

    /// Whether the vCPU sleeps, or is about to.
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// A descriptor by which another process can end a sleep.
    pub fn event(&self) -> std::io::Result<EventFd> {
        self.event.try_clone()
    }

    /// Gives the processor to whoever wants it, again and again for as long as `poll`, and is there when it is given back.
    /// Whether there is a reason not to sleep.
    fn poll(&self, ready: impl Fn() -> bool, poll: Duration) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < poll {
            std::thread::yield_now();
            let mut polled = readable(self.event.as_raw_fd());
            // SAFETY: one live entry; it does not wait.
            if ready() || unsafe { libc::poll(&raw mut polled, 1, 0) } != 0 {
                return true;
            }
        }
        false
    }

    /// Sleeps unless `ready` says that there is no reason to, or comes to say so within `poll`, until a wake, `until_ns` (host
    /// monotonic) or input.
    fn sleep(&self, ready: impl Fn() -> bool, poll: Duration, until_ns: Option<u64>, input: bool) {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !ready() && !self.poll(&ready, poll) {
            let left_ns = until_ns.map(|until| until.saturating_sub(clock::monotonic_ns()));
            let timeout = left_ns.map(|ns| libc::timespec {
                tv_sec: (ns / 1_000_000_000) as i64,
                tv_nsec: (ns % 1_000_000_000) as i64,
            });
            let mut polled = [readable(self.event.as_raw_fd()), readable(0)];
            let count = if input { 2 } else { 1 };
            let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: `count` entries of a live array, a live or null time-out, no signal mask. An interruption by a
            // signal is a wake like any other.
            unsafe { libc::ppoll(polled.as_mut_ptr(), count, timeout, ptr::null()) };
        }
        self.asleep.store(false, Ordering::SeqCst);
        let _ = self.event.read();
    }
}

fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// The handle by which others command the vCPU thread.
pub struct Vcpu {
    interrupter: Interrupter,
    handle: Option<JoinHandle<()>>,
    counters: Arc<CpuCounters>,
}

/// Everything the thread works with.
pub struct Engine {
    /// The processor.
    pub cpu: Cpu,
    /// Guest memory.
    pub memory: Arc<Memory>,
    /// System call state.
    pub linux: Linux,
    /// A system call was begun and has to be asked again.
    pub pending_call: bool,
    /// What is known about the program, for messages.
    pub program: fault::Program,
    /// Rank of the partition.
    pub rank: u32,
}

struct Worker {
    engine: Engine,
    commands: Receiver<Command>,
    sleeper: Arc<Sleeper>,
    counters: Arc<CpuCounters>,
    /// The last exit was an access whose instruction KVM finishes on the next entry.
    incomplete: bool,
    paused: bool,
}

thread_local! {
    static IMMEDIATE_EXIT: Cell<*const AtomicBool> = const { Cell::new(ptr::null()) };
}

fn kick_signal() -> i32 {
    libc::SIGRTMIN()
}

extern "C" fn on_kick(_signal: i32) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: set by this thread to its own processor's mapped flag and cleared before that is unmapped.
        unsafe { (*flag).store(true, Ordering::SeqCst) };
    }
}

/// Installs the handler that makes a running vCPU come back. Once per process, before the first vCPU.
fn install_kick_handler() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // SAFETY: the handler only touches a thread-local pointer and an atomic, which is safe in a signal handler;
        // without SA_RESTART, so that blocking calls of the vCPU thread return.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_kick as *const () as usize;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(kick_signal(), &raw const action, ptr::null_mut());
        }
    });
}

/// A thread that waits for a processor to run.
///
/// Making a thread takes longer than all of an arrival that has one, so a partition that arrives has it beforehand.
pub struct Waiting {
    interrupter: Interrupter,
    work: Option<Sender<Work>>,
    handle: Option<JoinHandle<()>>,
}

/// What such a thread waits for.
struct Work {
    engine: Engine,
    counters: Arc<CpuCounters>,
    on_end: Box<dyn FnOnce(Ending) + Send>,
}

impl Waiting {
    /// Starts the thread.
    pub fn start() -> Result<Self, VcpuError> {
        install_kick_handler();
        let (commands, receiver) = channel();
        let (work, given) = channel();
        let sleeper = Arc::new(Sleeper::new().map_err(VcpuError::Thread)?);
        let interrupter = Interrupter { commands, sleeper, thread: Arc::default(), ended: Arc::default() };
        let (sleeper, thread) = (interrupter.sleeper.clone(), interrupter.thread.clone());
        let ended = interrupter.ended.clone();
        let handle = std::thread::Builder::new()
            .name("vcpu".into())
            .stack_size(256 << 10)
            .spawn(move || {
                // SAFETY: always succeeds.
                thread.get_or_init(|| unsafe { libc::pthread_self() });
                let Ok(Work { engine, counters, on_end }) = given.recv() else {
                    ended.store(true, Ordering::SeqCst);
                    return;
                };
                let commands = receiver;
                let mut worker =
                    Worker { engine, commands, sleeper, counters, incomplete: false, paused: true };
                IMMEDIATE_EXIT.set(worker.engine.cpu.immediate_exit());
                let ending = worker.run();
                IMMEDIATE_EXIT.set(ptr::null());
                worker.counters.final_run_ns.store(clock::thread_cpu_ns(), Ordering::SeqCst);
                ended.store(true, Ordering::SeqCst);
                on_end(ending);
            })
            .map_err(VcpuError::Thread)?;
        Ok(Self { interrupter, work: Some(work), handle: Some(handle) })
    }

    /// Gives it its processor, paused. `on_end` is called on the thread, once.
    pub fn begin(
        mut self,
        engine: Engine,
        counters: Arc<CpuCounters>,
        on_end: impl FnOnce(Ending) + Send + 'static,
    ) -> Vcpu {
        if let Some(work) = self.work.take() {
            // It waits for nothing else, so it is there.
            let _ = work.send(Work { engine, counters: counters.clone(), on_end: Box::new(on_end) });
        }
        Vcpu { interrupter: self.interrupter.clone(), handle: self.handle.take(), counters }
    }

    /// Lets the fabric wake it.
    pub fn sleeper(&self) -> Arc<Sleeper> {
        self.interrupter.sleeper.clone()
    }

    /// Lets others do things between two entries of the guest. Everybody who has one must be gone before the vCPU is dropped.
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.work = None;
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

impl Vcpu {
    /// Lets the fabric wake it.
    pub fn sleeper(&self) -> Arc<Sleeper> {
        self.interrupter.sleeper.clone()
    }

    /// As [`Waiting::interrupter`].
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, VcpuError> {
        let (reply, answer) = channel();
        self.interrupter.tell(command(reply))?;
        answer.recv().map_err(|_| VcpuError::Ended)
    }

    /// Stops at the next instruction; when it returns, the vCPU does not run.
    pub fn pause(&self) -> Result<(), VcpuError> {
        self.ask(Command::Pause)
    }

    /// Runs on.
    pub fn resume(&self) -> Result<(), VcpuError> {
        self.ask(Command::Resume)
    }

    /// The state of a paused vCPU.
    pub fn save(&self) -> Result<EngineState, VcpuError> {
        self.ask(Command::Save)?
    }

    /// Reads the processor's state between two entries of a vCPU that goes on, for the time that it takes.
    pub fn rehearse_save(&self) -> Result<(), VcpuError> {
        self.ask(Command::RehearseSave)?
    }

    /// How much of the file area is in use, in bytes from its beginning.
    pub fn file_area_bytes(&self) -> Result<u64, VcpuError> {
        self.ask(Command::FileAreaBytes)
    }

    /// Ends the partition.
    pub fn stop(&self, ending: Ending) -> Result<(), VcpuError> {
        self.interrupter.tell(Command::Stop(ending))
    }

    /// Processor time of the partition so far, in nanoseconds.
    pub fn run_ns(&self) -> u64 {
        let earlier = self.counters.earlier_run_ns.load(Ordering::Relaxed);
        if self.interrupter.ended.load(Ordering::SeqCst) {
            return earlier + self.counters.final_run_ns.load(Ordering::SeqCst);
        }
        let Some(thread) = self.interrupter.thread.get() else { return earlier };
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the thread is not joined yet, so its id is valid; both results are checked.
        let known = unsafe {
            libc::pthread_getcpuclockid(*thread, &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
        earlier + if known { time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 } else { 0 }
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        let _ = self.stop(Ending::Stopped);
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

impl Worker {
    fn run(&mut self) -> Ending {
        match self.run_until_the_end() {
            Ok(ending) => ending,
            Err(error) => {
                let message =
                    format!("vmm: rank {}: {}", self.engine.rank, migrator::report::one_line(&error));
                Ending::Fault(Fault { status: 1, message })
            }
        }
    }

    fn run_until_the_end(&mut self) -> Result<Ending, VcpuError> {
        let flag = self.engine.cpu.immediate_exit();
        loop {
            // SAFETY: the flag is in the run structure of our own processor.
            unsafe { (*flag).store(false, Ordering::SeqCst) };
            if let Some(ending) = self.obey()? {
                return Ok(ending);
            }
            if self.engine.pending_call {
                if let Some(ending) = self.serve_call()? {
                    return Ok(ending);
                }
                continue;
            }
            if let Some(ending) = self.enter()? {
                return Ok(ending);
            }
        }
    }

    /// Does what others asked for; returns when the vCPU may run or is to end.
    fn obey(&mut self) -> Result<Option<Ending>, VcpuError> {
        loop {
            let command = if self.paused {
                match self.commands.recv() {
                    Ok(command) => command,
                    Err(_) => return Ok(Some(Ending::Stopped)),
                }
            } else {
                match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => return Ok(None),
                    Err(TryRecvError::Disconnected) => return Ok(Some(Ending::Stopped)),
                }
            };
            match command {
                Command::Pause(done) => {
                    if self.incomplete {
                        self.engine.cpu.complete()?;
                        self.incomplete = false;
                    }
                    self.paused = true;
                    let _ = done.send(());
                }
                Command::Resume(done) => {
                    self.paused = false;
                    let _ = done.send(());
                }
                Command::Save(reply) => {
                    let _ = reply.send(self.save());
                }
                Command::RehearseSave(reply) => {
                    let _ = reply.send(self.engine.cpu.save().map(drop).map_err(VcpuError::from));
                }
                Command::FileAreaBytes(reply) => {
                    let _ = reply.send(self.engine.linux.files.area_bytes());
                }
                Command::Run(errand) => {
                    let mut cell = errand.0.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(act) = cell.take() {
                        act();
                    }
                }
                Command::Stop(ending) => return Ok(Some(ending)),
            }
        }
    }

    fn save(&self) -> Result<EngineState, VcpuError> {
        if !self.paused {
            return Err(VcpuError::NotPaused);
        }
        let Engine { cpu, linux, pending_call, .. } = &self.engine;
        Ok(EngineState { cpu: cpu.save()?, linux: linux.clone(), pending_call: *pending_call })
    }

    fn scene(&self) -> Scene<'_> {
        let Engine { cpu, memory, program, rank, .. } = &self.engine;
        Scene { cpu, memory, program, rank: *rank }
    }

    fn enter(&mut self) -> Result<Option<Ending>, VcpuError> {
        let exit = self.engine.cpu.run();
        self.incomplete = false;
        match exit {
            Ok(VcpuExit::IoOut(stub::SYSCALL_PORT, _)) => {
                self.incomplete = true;
                add(&self.counters.io, 1);
                add(&self.counters.syscalls, 1);
                self.serve_call()
            }
            Ok(VcpuExit::IoOut(stub::FAULT_PORT, data)) => {
                let vector = data.first().copied().unwrap_or(0);
                add(&self.counters.io, 1);
                Ok(Some(Ending::Fault(fault::describe(&self.scene(), vector)?)))
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                let seen = data.first_chunk::<4>().copied().map(u32::from_le_bytes);
                self.incomplete = true;
                add(&self.counters.mmio, 1);
                match (address, seen) {
                    (abi::WAIT_ADDRESS, Some(seen)) => self.wait(seen)?,
                    // An eventfd takes it everywhere; a host that exits for it all the same only costs time.
                    (abi::DOORBELL_ADDRESS, _) => {}
                    // The ring was shared a moment ago and is not any more.
                    (abi::PEER_DOORBELLS.., _) => {}
                    _ => {
                        let fault = fault::doorbell_page(&self.scene(), address, "write")?;
                        return Ok(Some(Ending::Fault(fault)));
                    }
                }
                Ok(None)
            }
            Ok(VcpuExit::MmioRead(address, _)) => {
                add(&self.counters.mmio, 1);
                Ok(Some(Ending::Fault(fault::doorbell_page(&self.scene(), address, "read")?)))
            }
            Ok(VcpuExit::Intr) => {
                add(&self.counters.interrupted, 1);
                Ok(None)
            }
            Ok(other) => {
                let text = format!("{other:?}");
                add(&self.counters.other, 1);
                Ok(Some(Ending::Fault(fault::unexpected_exit(&self.scene(), &text)?)))
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                add(&self.counters.interrupted, 1);
                Ok(None)
            }
            Err(error) => Err(crate::kvm::failed("KVM_RUN")(error).into()),
        }
    }

    /// WAIT: sleeps until the fabric has raised the event count past what the guest saw.
    fn wait(&mut self, seen: u32) -> Result<(), VcpuError> {
        let address = abi::FABRIC_PAGE + std::mem::offset_of!(abi::FabricPage, events) as u64;
        let events = self.engine.memory.atomic_u32(address)?;
        if events.load(Ordering::SeqCst) == seen {
            let memory = &self.engine.memory;
            let spin_ns = abi::BOOT_PAGE + std::mem::offset_of!(abi::BootPage, spin_ns) as u64;
            let poll = if memory.read_u64(spin_ns)? == 0 { Duration::ZERO } else { POLL };
            let asleep_ns = self.sleep(|| events.load(Ordering::SeqCst) != seen, poll, None, false);
            let address = abi::FABRIC_PAGE + std::mem::offset_of!(abi::FabricPage, slept_tsc) as u64;
            let counts = clock::guest_counts(memory, asleep_ns)?;
            memory.write_u64(address, memory.read_u64(address)?.wrapping_add(counts))?;
        }
        Ok(())
    }

    /// Sleeps; returns for how long the processor was given up, in nanoseconds. What sleeping costs the processor itself is not that.
    fn sleep(&self, ready: impl Fn() -> bool, poll: Duration, until_ns: Option<u64>, input: bool) -> u64 {
        let (start, start_cpu) = (clock::monotonic_ns(), clock::thread_cpu_ns());
        self.sleeper.sleep(ready, poll, until_ns, input);
        let elapsed = clock::monotonic_ns() - start;
        let asleep_ns = elapsed.saturating_sub(clock::thread_cpu_ns().saturating_sub(start_cpu));
        add(&self.counters.wait_ns, asleep_ns);
        asleep_ns
    }

    fn serve_call(&mut self) -> Result<Option<Ending>, VcpuError> {
        let mut regs = self.engine.cpu.regs()?;
        let arguments = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
        let Engine { cpu, memory, linux, rank, .. } = &mut self.engine;
        let context = Context { memory, cpu, rank: *rank };
        let answer = linux.call(&context, regs.rax, arguments)?;
        self.engine.pending_call = false;
        match answer {
            Answer::Return(value) => self.finish_call(&mut regs, value)?,
            Answer::Sleep { until_ns } => {
                self.engine.pending_call = true;
                let now = GuestTime::read(&self.engine.memory)?.monotonic_ns;
                let until_ns = clock::monotonic_ns() + until_ns.saturating_sub(now);
                self.sleep(|| false, Duration::ZERO, Some(until_ns), false);
            }
            Answer::Input => {
                self.engine.pending_call = true;
                self.sleep(|| false, Duration::ZERO, None, true);
            }
            Answer::Exit(status) => return Ok(Some(Ending::Exit(status))),
            Answer::Signal(signal) => {
                return Ok(Some(Ending::Fault(fault::killed(self.engine.rank, signal))));
            }
        }
        Ok(None)
    }

    fn finish_call(&mut self, regs: &mut kvm_regs, value: u64) -> Result<(), VcpuError> {
        if self.engine.linux.space.take_stale() {
            self.engine.linux.paging.flip();
            self.engine.cpu.set_root(self.engine.linux.paging.root())?;
        }
        regs.rax = value;
        self.engine.cpu.set_regs(regs)?;
        Ok(())
    }
}

/// Reads a counter the guest keeps (it may say anything; it is only ever shown).
pub fn guest_counter(memory: &Memory, offset: usize) -> u64 {
    memory.atomic_u64(abi::FABRIC_PAGE + offset as u64).map_or(0, |c: &AtomicU64| c.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupter() -> (Interrupter, std::sync::mpsc::Receiver<Command>) {
        let (commands, receiver) = std::sync::mpsc::channel();
        let sleeper = Arc::new(Sleeper::new().unwrap());
        (Interrupter { commands, sleeper, thread: Arc::default(), ended: Arc::default() }, receiver)
    }

    /// It waited for ever, and with it a message that the last owner of a ring had still to deliver.
    #[tokio::test(flavor = "current_thread")]
    async fn an_errand_that_the_vcpu_did_not_do_before_it_ended_is_answered() {
        let (interrupter, receiver) = interrupter();
        let end = std::thread::spawn(move || {
            let command = receiver.recv().unwrap();
            drop(receiver);
            drop(command);
        });
        let answer = interrupter.between_entries(|| ()).await;
        assert!(matches!(answer, Err(VcpuError::Ended)));
        end.join().unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_errand_that_nobody_waits_for_is_withdrawn() {
        let (interrupter, receiver) = interrupter();
        let asked = interrupter.between_entries(|| panic!("nobody waits for it"));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), asked).await.is_err());
        let Ok(Command::Run(errand)) = receiver.recv() else { panic!("no errand") };
        assert!(errand.0.lock().unwrap().is_none());
    }
}

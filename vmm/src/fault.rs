//! Saying in one line what killed a partition: which fault, which address, where in the program.

use partita_kernel::has_error_code;

use crate::elf::Symbols;
use crate::kvm::KvmError;
use crate::kvm::cpu::Cpu;
use crate::memory::{Memory, MemoryError};

/// What is known about the program, for messages.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Program {
    /// Function symbols.
    pub symbols: Symbols,
    /// What was added to the addresses of its file.
    pub bias: u64,
    /// Lowest address of the stack.
    pub stack_base: u64,
}

/// What is looked at to describe a fault.
pub struct Scene<'a> {
    /// The processor.
    pub cpu: &'a Cpu,
    /// Guest memory.
    pub memory: &'a Memory,
    /// The program.
    pub program: &'a Program,
    /// Rank of the partition.
    pub rank: u32,
}

/// Why and with which status a partition ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Exit status: 128 + the signal Linux would have sent.
    pub status: i32,
    /// The one line for people.
    pub message: String,
}

/// The fault cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The processor's state could not be read.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The frame on the stub's stack could not be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// How far below the stack a fault still counts as its overflow.
const OVERFLOW_BYTES: u64 = 1 << 20;
const NULL_BYTES: u64 = 64 << 10;

fn place(scene: &Scene<'_>, address: u64) -> String {
    match scene.program.symbols.nearest(address.wrapping_sub(scene.program.bias)) {
        Some((name, distance)) if distance < 1 << 24 => format!("{address:#x} ({name}+{distance:#x})"),
        _ => format!("{address:#x} (no symbol)"),
    }
}

/// Reads the frame that the processor pushed for `vector` and describes it.
pub fn describe(scene: &Scene<'_>, vector: u8) -> Result<Fault, FaultError> {
    let regs = scene.cpu.regs()?;
    let mut frame = regs.rsp;
    let mut code = 0;
    if has_error_code(vector) {
        code = scene.memory.read_u64(frame)?;
        frame += 8;
    }
    let at = place(scene, scene.memory.read_u64(frame)?);
    let rank = scene.rank;
    let (status, what) = match vector {
        0 => (136, "integer division by zero or overflow".to_owned()),
        1 | 3 => (133, "breakpoint or single step".to_owned()),
        6 => (132, "invalid instruction".to_owned()),
        13 => (139, "general protection fault (a wild pointer or a privileged instruction)".to_owned()),
        14 => (139, page_fault(scene, scene.cpu.fault_address()?, code)),
        16 | 19 => (136, "floating-point exception".to_owned()),
        17 => (135, "misaligned access".to_owned()),
        other => (139, format!("processor exception {other}")),
    };
    Ok(Fault {
        status,
        message: format!("vmm: rank {rank}: {what}, at {at}; the partition ended with status {status}"),
    })
}

fn page_fault(scene: &Scene<'_>, address: u64, code: u64) -> String {
    let kind = match (code & 16 != 0, code & 2 != 0) {
        (true, _) => "execution",
        (_, true) => "write",
        _ => "read",
    };
    let stack = scene.program.stack_base;
    let why = if address < NULL_BYTES {
        "null pointer"
    } else if (stack.saturating_sub(OVERFLOW_BYTES)..stack).contains(&address) {
        "stack overflow"
    } else if code & 1 != 0 {
        "forbidden there"
    } else {
        "nothing is mapped there"
    };
    format!("page fault: {kind} at address {address:#x} ({why})")
}

/// The program touched the doorbell page elsewhere than at its two words. KVM has stepped over a store by now, so the place
/// is the instruction after it.
pub fn doorbell_page(scene: &Scene<'_>, address: u64, kind: &str) -> Result<Fault, FaultError> {
    let at = place(scene, scene.cpu.regs()?.rip);
    let message = format!(
        "vmm: rank {}: page fault: {kind} at address {address:#x} (the doorbell page is not memory), at {at}; the partition \
         ended with status 139",
        scene.rank
    );
    Ok(Fault { status: 139, message })
}

/// KVM came back with something no program can cause on purpose.
pub fn unexpected_exit(scene: &Scene<'_>, exit: &str) -> Result<Fault, FaultError> {
    let regs = scene.cpu.regs()?;
    let message = format!(
        "vmm: rank {}: KVM cannot go on ({exit}) at {}; the partition ended with status 139",
        scene.rank,
        place(scene, regs.rip)
    );
    Ok(Fault { status: 139, message })
}

/// The program sent itself a signal.
pub fn killed(rank: u32, signal: i32) -> Fault {
    let status = 128 + signal;
    let name = match signal {
        libc::SIGABRT => "SIGABRT (abort)",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        libc::SIGFPE => "SIGFPE",
        _ => "a signal",
    };
    let message = format!(
        "vmm: rank {rank}: the program ended itself with {name} ({signal}); the partition ended with status {status}"
    );
    Fault { status, message }
}

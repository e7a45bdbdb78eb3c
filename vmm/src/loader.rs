//! Placing a program in fresh memory: stub, shared pages, segments, stack with arguments and auxiliary vector.

use partita_abi as abi;
use partita_abi::{BootPage, PAGE_SIZE, PROGRAM_BASE};
use thiserror::Error;

use crate::clock::GuestTime;
use crate::elf::{ElfError, Executable};
use crate::memory::{Memory, MemoryError};
use crate::paging::{Access, Paging, PagingError};
use crate::space::{Space, SpaceError};

const STACK_BYTES_MAX: u64 = 64 << 20;
const GUARD_BYTES: u64 = 1 << 20;
const PIE_BASE: u64 = 0x40_0000;
const COPY_BYTES: usize = 256 << 10;

/// Why a program could not be placed.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The program does not fit.
    #[error(
        "too little memory: the program, its stack and a first heap need {needed} bytes, the partition has {given}; give --memory {suggestion}M or more"
    )]
    TooLittleMemory {
        /// Least that would do.
        needed: u64,
        /// What there is.
        given: u64,
        /// In MiB, rounded up.
        suggestion: u64,
    },
    /// Arguments and environment are too long.
    #[error("arguments and environment take {bytes} bytes; at most {max} fit on the stack of this partition")]
    Arguments {
        /// What they take.
        bytes: u64,
        /// What there is.
        max: u64,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// Memory could not be reached.
    #[error("cannot fill the partition's memory")]
    Memory(#[from] MemoryError),
    /// Page tables could not be made.
    #[error("cannot map the program")]
    Paging(#[from] PagingError),
    /// The address space could not be laid out.
    #[error("cannot lay out the program")]
    Space(#[from] SpaceError),
    /// The kernel gave no random numbers.
    #[error("the host gives no random numbers")]
    Random(#[source] std::io::Error),
}

/// What a program is started with.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// `argv`, the program's name first.
    pub arguments: Vec<String>,
    /// `K=V`, all of the environment.
    pub environment: Vec<String>,
}

/// Facts for the boot page.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Application id.
    pub application: String,
    /// Rank of this partition.
    pub rank: u32,
    /// How long a blocking call may poll, in nanoseconds.
    pub spin_ns: u64,
    /// Frequency of the time stamp counter.
    pub tsc_khz: u64,
}

/// A program in memory, ready to run.
#[derive(Debug)]
pub struct Loaded {
    /// First instruction.
    pub entry: u64,
    /// Initial stack pointer.
    pub stack: u64,
    /// What was added to every address of the file.
    pub bias: u64,
    /// Lowest address of the stack.
    pub stack_base: u64,
    /// Page tables.
    pub paging: Paging,
    /// Address space bookkeeping.
    pub space: Space,
}

/// Fills fresh memory.
pub fn load(
    memory: &Memory,
    executable: &Executable,
    identity: &Identity,
    arguments: &Arguments,
) -> Result<Loaded, LoadError> {
    let program_bytes = memory.layout().program_bytes;
    let stack_bytes = (program_bytes / 4).min(STACK_BYTES_MAX) & !(PAGE_SIZE - 1);
    let (start, end) = executable.span();
    let bias = if executable.relocatable && start < PIE_BASE { PIE_BASE } else { 0 };
    let brk = bias.saturating_add(end);
    let needed = brk.saturating_add(stack_bytes + GUARD_BYTES + (1 << 20));
    if needed > program_bytes {
        // The stack takes a quarter, so four thirds of the rest have to be there.
        let whole = (brk.saturating_add(GUARD_BYTES + (1 << 20))).saturating_mul(4) / 3;
        let suggestion = whole.min(needed).div_ceil(1 << 20) + 1;
        return Err(LoadError::TooLittleMemory {
            needed: suggestion << 20,
            given: program_bytes,
            suggestion,
        });
    }
    let mut paging = Paging::new(memory)?;
    place_stub(memory, &mut paging)?;
    place_shared_pages(memory, &mut paging, identity)?;
    let stack_base = program_bytes - stack_bytes;
    let mut space = Space::new(brk, stack_base - GUARD_BYTES);
    for segment in &executable.segments {
        place_segment(memory, executable, segment, bias)?;
        let first = (bias + segment.address) & !(PAGE_SIZE - 1);
        let last = (bias + segment.address + segment.memory_bytes).next_multiple_of(PAGE_SIZE);
        space.add(memory, &mut paging, first, last - first, segment.access)?;
    }
    space.add(memory, &mut paging, stack_base, stack_bytes, Access::READ_WRITE)?;
    let stack = place_stack(memory, executable, bias, program_bytes, stack_bytes, arguments)?;
    Ok(Loaded { entry: bias + executable.entry, stack, bias, stack_base, paging, space })
}

fn place_stub(memory: &Memory, paging: &mut Paging) -> Result<(), LoadError> {
    let image = partita_kernel::stub_image();
    memory.write(partita_kernel::STUB_BASE, &image)?;
    paging.map(memory, partita_kernel::STUB_BASE, image.len() as u64, Access::STUB)?;
    memory.write(abi::CALL_ENTRY, partita_kernel::call_entry())?;
    paging.map(memory, abi::CALL_ENTRY, PAGE_SIZE, Access::READ_EXECUTE)?;
    paging.map(memory, abi::CALL_STACK, PAGE_SIZE, Access::READ_WRITE)?;
    Ok(())
}

fn place_shared_pages(memory: &Memory, paging: &mut Paging, identity: &Identity) -> Result<(), LoadError> {
    write_boot_page(memory, identity)?;
    GuestTime::start().write(memory, identity.tsc_khz)?;
    memory.write(abi::VDSO_BASE, &partita_kernel::vdso_image())?;
    let (rings, rings_bytes) = memory.layout().regions()[crate::memory::RINGS];
    for (address, bytes, access) in [
        (abi::BOOT_PAGE, PAGE_SIZE, Access::READ),
        (abi::TIME_PAGE, PAGE_SIZE, Access::READ),
        (abi::FABRIC_PAGE, PAGE_SIZE, Access::READ_WRITE),
        (abi::UNITS_PAGE, PAGE_SIZE, Access::READ_WRITE),
        (abi::VDSO_BASE, abi::VDSO_BYTES_MAX, Access::READ_EXECUTE),
        (abi::DOORBELL_PAGE, abi::DOORBELL_BYTES, Access::READ_WRITE),
        (rings, rings_bytes, Access::READ_WRITE),
    ] {
        paging.map(memory, address, bytes, access)?;
    }
    Ok(())
}

/// Writes the boot page: at the start, and again on another host, where some facts differ.
pub fn write_boot_page(memory: &Memory, identity: &Identity) -> Result<(), MemoryError> {
    let layout = memory.layout();
    let padded = |text: &str| {
        let mut bytes = [0; 64];
        let length = text.len().min(63);
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        bytes
    };
    let page = BootPage {
        magic: abi::BOOT_MAGIC,
        abi_version: abi::ABI_VERSION,
        rank: identity.rank,
        ranks: layout.ranks,
        ring_bytes: layout.ring_bytes,
        rings: abi::RINGS_BASE,
        time_page: abi::TIME_PAGE,
        fabric_page: abi::FABRIC_PAGE,
        units_page: abi::UNITS_PAGE,
        wait: abi::WAIT_ADDRESS,
        doorbell: abi::DOORBELL_ADDRESS,
        tsc_khz: identity.tsc_khz,
        spin_ns: identity.spin_ns,
        application: padded(&identity.application),
        name: padded(&format!("partition-{}", identity.rank)),
    };
    // SAFETY: `BootPage` is `repr(C)`, has no padding (its size is asserted in the ABI crate) and is plain data.
    let bytes = unsafe { std::slice::from_raw_parts((&raw const page).cast::<u8>(), size_of::<BootPage>()) };
    memory.write(abi::BOOT_PAGE, bytes)
}

fn place_segment(
    memory: &Memory,
    executable: &Executable,
    segment: &crate::elf::Segment,
    bias: u64,
) -> Result<(), LoadError> {
    let mut buffer = vec![0; COPY_BYTES.min(segment.file_bytes as usize)];
    let mut done = 0;
    while done < segment.file_bytes {
        let part = (segment.file_bytes - done).min(COPY_BYTES as u64) as usize;
        executable.read_at(segment.file_offset + done, &mut buffer[..part])?;
        memory.write(bias + segment.address + done, &buffer[..part])?;
        done += part as u64;
    }
    Ok(())
}

/// Builds the initial stack (System V ABI, x86-64 supplement, figure 3.9) and returns the stack pointer.
fn place_stack(
    memory: &Memory,
    executable: &Executable,
    bias: u64,
    top: u64,
    stack_bytes: u64,
    arguments: &Arguments,
) -> Result<u64, LoadError> {
    let mut random = [0u8; 16];
    fill_random(&mut random).map_err(LoadError::Random)?;
    let strings: Vec<&String> = arguments.arguments.iter().chain(&arguments.environment).collect();
    let text_bytes: u64 = strings.iter().map(|s| s.len() as u64 + 1).sum();
    let bytes = text_bytes + 8 * strings.len() as u64 + 1024;
    if bytes > stack_bytes / 4 {
        return Err(LoadError::Arguments { bytes, max: stack_bytes / 4 });
    }
    let random_at = top - 64;
    memory.write(random_at, &random)?;
    let mut at = random_at - text_bytes;
    let mut pointers = Vec::with_capacity(strings.len());
    for string in &strings {
        pointers.push(at);
        memory.write(at, string.as_bytes())?;
        at += string.len() as u64 + 1;
    }
    let (argv, envp) = pointers.split_at(arguments.arguments.len());
    let mut words = vec![argv.len() as u64];
    words.extend_from_slice(argv);
    words.push(0);
    words.extend_from_slice(envp);
    words.push(0);
    words.extend(auxiliary_vector(executable, bias, random_at, argv.first().copied().unwrap_or(random_at)));
    let stack = (random_at - text_bytes - 8 * words.len() as u64) & !15;
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    memory.write(stack, &bytes)?;
    Ok(stack)
}

fn auxiliary_vector(executable: &Executable, bias: u64, random_at: u64, name: u64) -> Vec<u64> {
    let headers = if executable.headers_address == 0 { 0 } else { bias + executable.headers_address };
    // SAFETY: CPUID exists on every x86-64 processor.
    #[allow(unused_unsafe)]
    let hwcap = u64::from(unsafe { std::arch::x86_64::__cpuid(1) }.edx);
    let mut vector = Vec::new();
    for (key, value) in [
        (libc::AT_PHDR, headers),
        (libc::AT_PHENT, 56),
        (libc::AT_PHNUM, u64::from(executable.headers)),
        (libc::AT_PAGESZ, PAGE_SIZE),
        (libc::AT_BASE, 0),
        (libc::AT_FLAGS, 0),
        (libc::AT_ENTRY, bias + executable.entry),
        (libc::AT_UID, 0),
        (libc::AT_EUID, 0),
        (libc::AT_GID, 0),
        (libc::AT_EGID, 0),
        (libc::AT_SECURE, 0),
        (libc::AT_HWCAP, hwcap),
        (libc::AT_CLKTCK, 100),
        (libc::AT_RANDOM, random_at),
        (libc::AT_EXECFN, name),
        (libc::AT_SYSINFO_EHDR, abi::VDSO_BASE),
        (abi::AT_PARTITA, abi::BOOT_PAGE),
        (libc::AT_NULL, 0),
    ] {
        vector.extend_from_slice(&[key, value]);
    }
    vector
}

/// Random bytes from the host's kernel.
pub fn fill_random(buffer: &mut [u8]) -> std::io::Result<()> {
    use std::io::Read;
    std::fs::File::open("/dev/urandom")?.read_exact(buffer)
}

const _: () = assert!(PIE_BASE > PROGRAM_BASE);

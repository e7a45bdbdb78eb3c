//! What the library needs from its surroundings: the program's libc, a few raw system calls, the time stamp counter.

#![allow(unsafe_code)]

use core::arch::{asm, x86_64::_rdtsc};
use core::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    fn getauxval(kind: u64) -> u64;
    fn getenv(name: *const c_char) -> *const c_char;
    fn malloc(bytes: usize) -> *mut c_void;
    fn free(memory: *mut c_void);
    fn clock_gettime(clock: c_int, time: *mut [i64; 2]) -> c_int;
    fn exit(status: c_int) -> !;
}

const SYS_WRITE: u64 = 1;
const SYS_OPEN: u64 = 2;
const SYS_MMAP: u64 = 9;
const SYS_SCHED_YIELD: u64 = 24;
const SYS_EXIT_GROUP: u64 = 231;
const CLOCK_MONOTONIC: c_int = 1;

/// A Linux system call.
///
/// # Safety
/// The arguments must be what the call expects.
unsafe fn syscall(number: u64, arguments: [u64; 6]) -> i64 {
    let mut result = number;
    // SAFETY: the Linux calling convention of x86-64; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") arguments[0], in("rsi") arguments[1],
            in("rdx") arguments[2], in("r10") arguments[3], in("r8") arguments[4], in("r9") arguments[5],
            lateout("rcx") _, lateout("r11") _);
    }
    result.cast_signed()
}

/// Writes a line to standard error in one call, without any buffer of the program's.
pub fn print_error(line: &str) {
    // SAFETY: the string is readable.
    unsafe { syscall(SYS_WRITE, [2, line.as_ptr() as u64, line.len() as u64, 0, 0, 0]) };
}

/// Ends the process at once.
pub fn exit_group(status: i32) -> ! {
    loop {
        // SAFETY: takes a number.
        unsafe { syscall(SYS_EXIT_GROUP, [status as u64, 0, 0, 0, 0, 0]) };
    }
}

/// Ends the process as a return from `main` would.
pub fn exit_normally(status: i32) -> ! {
    // SAFETY: any number will do.
    unsafe { exit(status) }
}

/// Lets others run.
pub fn sched_yield() {
    // SAFETY: no arguments.
    unsafe { syscall(SYS_SCHED_YIELD, [0; 6]) };
}

/// Maps `bytes` bytes of a file, shared and writable.
pub fn map_file(path: *const c_char, bytes: u64) -> Option<*mut u8> {
    const READ_WRITE: u64 = 2;
    const PROTECTION: u64 = 3;
    const SHARED: u64 = 1;
    // SAFETY: the path is a C string from the environment.
    let fd = unsafe { syscall(SYS_OPEN, [path as u64, READ_WRITE, 0, 0, 0, 0]) };
    if fd < 0 {
        return None;
    }
    // SAFETY: a new mapping at an address of the kernel's choice.
    let address = unsafe { syscall(SYS_MMAP, [0, bytes, PROTECTION, SHARED, fd as u64, 0]) };
    if (-4095..0).contains(&address) { None } else { Some(address as *mut u8) }
}

/// A value of the auxiliary vector, 0 if there is none.
pub fn auxiliary(kind: u64) -> u64 {
    // SAFETY: takes a number.
    unsafe { getauxval(kind) }
}

/// A variable of the environment.
pub fn environment(name: &core::ffi::CStr) -> Option<&'static core::ffi::CStr> {
    // SAFETY: a C string goes in; what comes out is one, too, and the library copies it before it returns.
    unsafe {
        let value = getenv(name.as_ptr());
        (!value.is_null()).then(|| core::ffi::CStr::from_ptr(value))
    }
}

/// The time stamp counter.
pub fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { _rdtsc() }
}

/// `CLOCK_MONOTONIC` in nanoseconds (no exit in a partition: the libc uses the vDSO).
pub fn monotonic_ns() -> u64 {
    let mut time = [0; 2];
    // SAFETY: the array has the layout of a timespec on x86-64.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &mut time) };
    time[0].cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(time[1].cast_unsigned())
}

/// The program's malloc as Rust's allocator, and the end of a panic.
#[cfg(all(any(feature = "guest", feature = "native"), not(test)))]
mod runtime {
    use core::alloc::{GlobalAlloc, Layout};
    use core::ffi::c_void;
    use core::fmt::Write;

    unsafe extern "C" {
        fn calloc(count: usize, bytes: usize) -> *mut c_void;
        fn realloc(memory: *mut c_void, bytes: usize) -> *mut c_void;
    }

    struct Libc;

    #[global_allocator]
    static ALLOCATOR: Libc = Libc;

    // SAFETY: malloc of both libcs aligns to 16; the library never asks for more, which is asserted.
    unsafe impl GlobalAlloc for Libc {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if layout.align() > 16 {
                return core::ptr::null_mut();
            }
            // SAFETY: a size goes in.
            unsafe { super::malloc(layout.size()).cast() }
        }
        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            if layout.align() > 16 {
                return core::ptr::null_mut();
            }
            // SAFETY: sizes go in.
            unsafe { calloc(1, layout.size()).cast() }
        }
        unsafe fn dealloc(&self, memory: *mut u8, _layout: Layout) {
            // SAFETY: comes from `alloc`.
            unsafe { super::free(memory.cast()) };
        }
        unsafe fn realloc(&self, memory: *mut u8, _layout: Layout, bytes: usize) -> *mut u8 {
            // SAFETY: comes from `alloc`.
            unsafe { realloc(memory.cast(), bytes).cast() }
        }
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo) -> ! {
        let mut line = Line { bytes: [0; 512], used: 0 };
        let _ = writeln!(line, "MPI: error in the library: {info}");
        super::print_error(
            core::str::from_utf8(&line.bytes[..line.used]).unwrap_or("MPI: error in the library\n"),
        );
        super::exit_group(134)
    }

    struct Line {
        bytes: [u8; 512],
        used: usize,
    }

    impl Write for Line {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            for byte in text.bytes().filter(u8::is_ascii).take(self.bytes.len() - self.used) {
                self.bytes[self.used] = byte;
                self.used += 1;
            }
            Ok(())
        }
    }
}

/// Memory for the program, aligned to 16 bytes; freed with [`free_memory`].
pub fn allocate_memory(bytes: usize) -> *mut c_void {
    // SAFETY: a size goes in.
    unsafe { malloc(bytes.max(1)) }
}

/// Frees what [`allocate_memory`] gave.
///
/// # Safety
/// The pointer must come from there.
pub unsafe fn free_memory(memory: *mut c_void) {
    // SAFETY: as promised by the caller.
    unsafe { free(memory) }
}

/// Where the other ranks share our processors, a poll that found nothing lets them run.
pub fn sched_yield_if_native() {
    if cfg!(feature = "native") {
        sched_yield();
    }
}

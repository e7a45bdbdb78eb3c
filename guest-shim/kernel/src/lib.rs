//! What runs in a partition below the program: the CPL 0 stub and the vDSO, as bytes with their entry points.
//!
//! The stub lives in the first 64 KiB, which the program cannot touch, and in two pages of the system area. It does two
//! things: a system call leaves the program, shows its registers to the VMM by an OUT, and goes back; a fault says which vector it was and stops.
//! Nothing else may run at CPL 0: some hosts emulate it instruction by instruction and know only plain ones
//! (`docs/decisions/0001-stub.md`).
#![no_std]

extern crate alloc;

mod stub;
mod vdso;

pub use stub::{
    FAULT_PORT, GDT_ADDRESS, GDT_LIMIT, IDT_ADDRESS, IDT_LIMIT, KERNEL_CODE_SELECTOR, STAR, STUB_BASE,
    STUB_END, SYSCALL_PORT, TSS_ADDRESS, TSS_LIMIT, TSS_SELECTOR, USER_CODE_SELECTOR, USER_DATA_SELECTOR,
    call_entry, has_error_code, stub_image,
};
pub use vdso::vdso_image;

//! The CPL 0 stub: descriptor tables, one entry for system calls, one for each vector.
//!
//! ```text
//! 0x1000 GDT    0x1100 TSS    0x2000 IDT    0x3000 vector entries (16 bytes each)    0x4000..0x5000 stack of faults
//!
//! CALL_ENTRY system call entry    CALL_STACK the program's RSP during a call, then the stack of calls, to its page's end
//! ```
//!
//! The two pages of a system call, and its port, are open to the program too: under `kvm_pvm` `syscall` goes to its entry
//! and stays at CPL 3 (`docs/decisions/0018-calls-at-cpl-3.md`). The program gains nothing by that: an OUT of its own is
//! one more system call, and everything on the stack is written anew by every call.

use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;

/// First byte of the stub.
pub const STUB_BASE: u64 = 0x1000;
/// First byte after the stub.
pub const STUB_END: u64 = 0x5000;
/// Where the GDT is.
pub const GDT_ADDRESS: u64 = 0x1000;
/// Limit of the GDT (last byte).
pub const GDT_LIMIT: u16 = 10 * 8 - 1;
/// Where the task state segment is.
pub const TSS_ADDRESS: u64 = 0x1100;
/// Limit of the TSS (last byte), whose I/O bitmap opens [`SYSCALL_PORT`] to CPL 3 and no other port.
pub const TSS_LIMIT: u32 = (IO_BITMAP + IO_BITMAP_BYTES - 1) as u32;
/// Where the I/O bitmap is in the TSS: behind its fixed part.
const IO_BITMAP: u64 = 0x68;
/// Ports up to 0x7f, and the byte of ones behind the last that the processor wants (Intel SDM volume 1, 19.5.2).
const IO_BITMAP_BYTES: u64 = 0x80 / 8 + 1;
/// Where the IDT is.
pub const IDT_ADDRESS: u64 = 0x2000;
/// Limit of the IDT (256 gates).
pub const IDT_LIMIT: u16 = 4095;
const VECTOR_ENTRIES: u64 = 0x3000;
/// End of the stack on which the processor pushes the frame of a fault.
const FAULT_STACK_TOP: u64 = 0x5000;

/// The OUT port of a system call; its registers are the program's, except RSP, RIP and RFLAGS, which are on the stub's stack.
pub const SYSCALL_PORT: u16 = 0x77;
/// The OUT port of a fault; AL is the vector, the processor's frame is on the stub's stack.
pub const FAULT_PORT: u16 = 0xe9;

/// CS at CPL 0.
pub const KERNEL_CODE_SELECTOR: u16 = 0x10;
/// CS of the program.
pub const USER_CODE_SELECTOR: u16 = 0x33;
/// SS and data segments of the program.
pub const USER_DATA_SELECTOR: u16 = 0x2b;
/// Task register.
pub const TSS_SELECTOR: u16 = 0x40;
/// The STAR register: kernel selectors from 0x10, user selectors from 0x23.
pub const STAR: u64 = (0x23 << 48) | (0x10 << 32);

/// Whether the processor pushes an error code for this vector (Intel SDM volume 3, table 6-1).
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

// The distances below lead from the end of their instruction to the page behind the entry, and to the end of that page;
// `a_call_uses_the_page_behind_its_entry` checks them.
global_asm!(
    ".pushsection .rodata.partita_stub, \"a\", @progbits",
    ".global partita_syscall_entry",
    ".global partita_syscall_entry_end",
    "partita_syscall_entry:",
    "    mov qword ptr [rip + 0xff9], rsp",
    "    lea rsp, [rip + 0x1ff2]",
    "    push 0x2b",
    "    push qword ptr [rip + 0xfea]",
    "    push r11",
    "    push 0x33",
    "    push rcx",
    "    out 0x77, al",
    "    iretq",
    "partita_syscall_entry_end:",
    ".popsection",
);

unsafe extern "C" {
    static partita_syscall_entry: u8;
    static partita_syscall_entry_end: u8;
}

/// What SYSCALL leads to, to be placed at `CALL_ENTRY`; `CALL_STACK` is the page behind it.
pub fn call_entry() -> &'static [u8] {
    // SAFETY: both symbols bound one contiguous piece of read-only data made by the assembly above.
    unsafe {
        let start = &raw const partita_syscall_entry;
        let end = &raw const partita_syscall_entry_end;
        core::slice::from_raw_parts(start, end.offset_from(start) as usize)
    }
}

fn put(image: &mut [u8], address: u64, bytes: &[u8]) {
    let at = (address - STUB_BASE) as usize;
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

const _: () = assert!(STUB_END <= partita_abi::PROGRAM_BASE, "the stub ends where programs may begin");

/// The bytes of `STUB_BASE..STUB_END`.
pub fn stub_image() -> Vec<u8> {
    let mut image = vec![0u8; (STUB_END - STUB_BASE) as usize];
    let tss_low = 0x0000_8900_0000_0000 | u64::from(TSS_LIMIT) | ((TSS_ADDRESS & 0xff_ffff) << 16);
    let gdt: [u64; 10] = [
        0,
        0,
        0x00af_9b00_0000_ffff, // 0x10 code, CPL 0, 64 bit
        0x00cf_9300_0000_ffff, // 0x18 data, CPL 0
        0x00cf_fb00_0000_ffff, // 0x20 code, CPL 3, 32 bit (SYSRET's layout wants it here)
        0x00cf_f300_0000_ffff, // 0x28 data, CPL 3
        0x00af_fb00_0000_ffff, // 0x30 code, CPL 3, 64 bit
        0,
        tss_low, // 0x40 TSS, low half
        0,       //      high half: the base is below 4 GiB
    ];
    for (index, entry) in gdt.iter().enumerate() {
        put(&mut image, GDT_ADDRESS + 8 * index as u64, &entry.to_le_bytes());
    }
    put(&mut image, TSS_ADDRESS + 4, &FAULT_STACK_TOP.to_le_bytes()); // RSP0
    put(&mut image, TSS_ADDRESS + 0x66, &(IO_BITMAP as u16).to_le_bytes());
    let mut closed = [0xff; IO_BITMAP_BYTES as usize];
    closed[usize::from(SYSCALL_PORT / 8)] &= !(1 << (SYSCALL_PORT % 8));
    put(&mut image, TSS_ADDRESS + IO_BITMAP, &closed);
    for vector in 0..=255u8 {
        let entry = VECTOR_ENTRIES + 16 * u64::from(vector);
        // mov al, vector; out FAULT_PORT, al; hlt
        put(&mut image, entry, &[0xb0, vector, 0xe6, FAULT_PORT as u8, 0xf4]);
        let gate_low = (entry & 0xffff)
            | (u64::from(KERNEL_CODE_SELECTOR) << 16)
            | (0xee00 << 32)
            | ((entry >> 16 & 0xffff) << 48);
        put(&mut image, IDT_ADDRESS + 16 * u64::from(vector), &gate_low.to_le_bytes());
        put(&mut image, IDT_ADDRESS + 16 * u64::from(vector) + 8, &(entry >> 32).to_le_bytes());
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_uses_the_page_behind_its_entry() {
        let code = call_entry();
        assert_eq!(
            code,
            [
                0x48, 0x89, 0x25, 0xf9, 0x0f, 0x00, 0x00, // mov [CALL_STACK], rsp
                0x48, 0x8d, 0x25, 0xf2, 0x1f, 0x00, 0x00, // lea rsp, [CALL_STACK + PAGE_SIZE]
                0x6a, 0x2b, // push 0x2b
                0xff, 0x35, 0xea, 0x0f, 0x00, 0x00, // push [CALL_STACK]
                0x41, 0x53, 0x6a, 0x33, 0x51, // push r11, 0x33, rcx
                0xe6, 0x77, // out 0x77, al
                0x48, 0xcf, // iretq
            ]
        );
        let (entry, stack) = (partita_abi::CALL_ENTRY, partita_abi::CALL_STACK);
        assert_eq!(entry + 7 + 0xff9, stack);
        assert_eq!(entry + 14 + 0x1ff2, stack + partita_abi::PAGE_SIZE);
        assert_eq!(entry + 22 + 0xfea, stack);
        assert_eq!(SYSCALL_PORT, 0x77);
    }

    #[test]
    fn every_vector_has_a_gate_that_names_it() {
        let image = stub_image();
        for vector in 0..256usize {
            let gate = (IDT_ADDRESS - STUB_BASE) as usize + 16 * vector;
            let low = u64::from_le_bytes(image[gate..gate + 8].try_into().unwrap());
            let target = (low & 0xffff) | (low >> 48 << 16);
            let code = (target - STUB_BASE) as usize;
            assert_eq!(image[code..code + 2], [0xb0, vector as u8]);
        }
    }
}

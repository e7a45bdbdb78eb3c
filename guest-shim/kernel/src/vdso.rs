//! The vDSO: a small shared object that static libcs find by `AT_SYSINFO_EHDR` and use to read the time without an exit.
//!
//! Both glibc and musl accept it if it has one `PT_LOAD` whose offset equals its address, a `DT_HASH` and the symbol
//! version `LINUX_2.6` (System V ABI, chapters 4 and 5; Linux `vdso(7)`).

use alloc::vec::Vec;
use core::arch::global_asm;
use partita_abi::VDSO_BYTES_MAX;

// Time from the time page (0x60_0000_1000 = TIME_PAGE): ns = base + ((tsc - tsc_base) * multiplier >> 32), under a
// sequence counter. Clocks other than real time and monotonic ones are asked of the VMM by a system call.
global_asm!(
    ".pushsection .rodata.partita_vdso, \"a\", @progbits",
    ".balign 16",
    ".global partita_vdso_code",
    "partita_vdso_code:",
    // r8: page, r10: offset of the base to add -> rax = nanoseconds. Clobbers rcx, rdx, r9, r11.
    "10:",
    "    mov r8, 0x6000001000",
    "11:",
    "    mov r11, [r8]",
    "    test r11, 1",
    "    jnz 12f",
    "    rdtsc",
    "    shl rdx, 32",
    "    or rax, rdx",
    "    sub rax, [r8 + 8]",
    "    jae 13f",
    "    xor eax, eax",
    "13:",
    "    mul qword ptr [r8 + 16]",
    "    shrd rax, rdx, 32",
    "    add rax, [r8 + r10]",
    "    cmp r11, [r8]",
    "    je 14f",
    "12:",
    "    pause",
    "    jmp 11b",
    "14:",
    "    ret",
    // int clock_gettime(clockid_t edi, struct timespec *rsi)
    ".balign 16",
    ".global partita_vdso_clock_gettime",
    "partita_vdso_clock_gettime:",
    "    mov r10d, 32", // real time
    "    test edi, edi",
    "    jz 20f",
    "    cmp edi, 5",
    "    je 20f",
    "    mov r10d, 24", // monotonic, raw, coarse, boot time
    "    cmp edi, 1",
    "    je 20f",
    "    cmp edi, 4",
    "    je 20f",
    "    cmp edi, 6",
    "    je 20f",
    "    cmp edi, 7",
    "    je 20f",
    "    mov eax, 228",
    "    syscall",
    "    ret",
    "20:",
    "    call 10b",
    "    xor edx, edx",
    "    mov r9d, 1000000000",
    "    div r9",
    "    mov [rsi], rax",
    "    mov [rsi + 8], rdx",
    "    xor eax, eax",
    "    ret",
    // int gettimeofday(struct timeval *rdi, struct timezone *rsi)
    ".balign 16",
    ".global partita_vdso_gettimeofday",
    "partita_vdso_gettimeofday:",
    "    test rdi, rdi",
    "    jz 30f",
    "    mov r10d, 32",
    "    call 10b",
    "    xor edx, edx",
    "    mov r9d, 1000000000",
    "    div r9",
    "    mov [rdi], rax",
    "    mov rax, rdx",
    "    xor edx, edx",
    "    mov r9d, 1000",
    "    div r9",
    "    mov [rdi + 8], rax",
    "30:",
    "    test rsi, rsi",
    "    jz 31f",
    "    mov qword ptr [rsi], 0",
    "31:",
    "    xor eax, eax",
    "    ret",
    // time_t time(time_t *rdi)
    ".balign 16",
    ".global partita_vdso_time",
    "partita_vdso_time:",
    "    mov r10d, 32",
    "    call 10b",
    "    xor edx, edx",
    "    mov r9d, 1000000000",
    "    div r9",
    "    test rdi, rdi",
    "    jz 40f",
    "    mov [rdi], rax",
    "40:",
    "    ret",
    // int getcpu(unsigned *rdi, unsigned *rsi, void *)
    ".balign 16",
    ".global partita_vdso_getcpu",
    "partita_vdso_getcpu:",
    "    test rdi, rdi",
    "    jz 50f",
    "    mov dword ptr [rdi], 0",
    "50:",
    "    test rsi, rsi",
    "    jz 51f",
    "    mov dword ptr [rsi], 0",
    "51:",
    "    xor eax, eax",
    "    ret",
    ".global partita_vdso_code_end",
    "partita_vdso_code_end:",
    ".popsection",
);

unsafe extern "C" {
    static partita_vdso_code: u8;
    static partita_vdso_clock_gettime: u8;
    static partita_vdso_gettimeofday: u8;
    static partita_vdso_time: u8;
    static partita_vdso_getcpu: u8;
    static partita_vdso_code_end: u8;
}

const SONAME: &[u8] = b"linux-vdso.so.1\0";
const VERSION: &[u8] = b"LINUX_2.6\0";

/// The code and, for each exported function, its name and its offset in the code.
fn code() -> (&'static [u8], [(&'static str, usize); 4]) {
    let start = &raw const partita_vdso_code;
    let offset = |symbol: *const u8| {
        // SAFETY: all symbols lie in the one piece of read-only data made by the assembly above.
        unsafe { symbol.offset_from(start) as usize }
    };
    let length = offset(&raw const partita_vdso_code_end);
    // SAFETY: as above; `length` bytes follow `start`.
    let bytes = unsafe { core::slice::from_raw_parts(start, length) };
    let symbols = [
        ("__vdso_clock_gettime\0", offset(&raw const partita_vdso_clock_gettime)),
        ("__vdso_gettimeofday\0", offset(&raw const partita_vdso_gettimeofday)),
        ("__vdso_time\0", offset(&raw const partita_vdso_time)),
        ("__vdso_getcpu\0", offset(&raw const partita_vdso_getcpu)),
    ];
    (bytes, symbols)
}

/// The System V hash of a symbol name (System V ABI, chapter 5, "Hash Table").
fn elf_hash(name: &[u8]) -> u32 {
    name.iter().take_while(|b| **b != 0).fold(0u32, |hash, byte| {
        let sum = (hash << 4).wrapping_add(u32::from(*byte));
        let high = sum & 0xf000_0000;
        (sum ^ (high >> 24)) & !high
    })
}

struct Image(Vec<u8>);

impl Image {
    fn align(&mut self, to: usize) -> u64 {
        while !self.0.len().is_multiple_of(to) {
            self.0.push(0);
        }
        self.0.len() as u64
    }
    fn u16(&mut self, values: &[u16]) {
        values.iter().for_each(|v| self.0.extend_from_slice(&v.to_le_bytes()));
    }
    fn u32(&mut self, values: &[u32]) {
        values.iter().for_each(|v| self.0.extend_from_slice(&v.to_le_bytes()));
    }
    fn u64(&mut self, values: &[u64]) {
        values.iter().for_each(|v| self.0.extend_from_slice(&v.to_le_bytes()));
    }
    fn set_u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// The ELF image to be placed at `VDSO_BASE` and announced by `AT_SYSINFO_EHDR`.
pub fn vdso_image() -> Vec<u8> {
    let (code, symbols) = code();
    let mut image = Image(Vec::with_capacity(2048));
    file_header(&mut image);
    let program_headers = image.0.len();
    image.0.resize(program_headers + 2 * 56, 0);

    let code_at = image.align(16);
    image.0.extend_from_slice(code);

    let strings_at = image.align(8);
    image.0.push(0);
    let mut names = [0u32; 4];
    for (slot, (name, _)) in names.iter_mut().zip(&symbols) {
        *slot = (image.0.len() as u64 - strings_at) as u32;
        image.0.extend_from_slice(name.as_bytes());
    }
    let soname = (image.0.len() as u64 - strings_at) as u32;
    image.0.extend_from_slice(SONAME);
    let version = (image.0.len() as u64 - strings_at) as u32;
    image.0.extend_from_slice(VERSION);
    let strings_bytes = image.0.len() as u64 - strings_at;

    let symbols_at = image.align(8);
    image.0.resize(image.0.len() + 24, 0);
    for (name, (_, offset)) in names.iter().zip(&symbols) {
        image.u32(&[*name]);
        image.0.extend_from_slice(&[0x12, 0]); // STB_GLOBAL | STT_FUNC, STV_DEFAULT
        image.u16(&[1]); // any defined section
        image.u64(&[code_at + *offset as u64, 16]);
    }
    let hash_at = image.align(8);
    image.u32(&[1, 5, 1, 0, 2, 3, 4, 0]); // one bucket; chain 1 -> 2 -> 3 -> 4 -> end
    let versym_at = image.align(2);
    image.u16(&[0, 2, 2, 2, 2]);
    let verdef_at = image.align(8);
    for (flags, index, name, bytes, next) in
        [(1u16, 1u16, soname, SONAME, 28u32), (0, 2, version, VERSION, 0)]
    {
        image.u16(&[1, flags, index, 1]);
        image.u32(&[elf_hash(bytes), 20, next]);
        image.u32(&[name, 0]);
    }
    let dynamic_at = image.align(8);
    for (tag, value) in [
        (4, hash_at),             // DT_HASH
        (5, strings_at),          // DT_STRTAB
        (10, strings_bytes),      // DT_STRSZ
        (6, symbols_at),          // DT_SYMTAB
        (11, 24),                 // DT_SYMENT
        (14, u64::from(soname)),  // DT_SONAME
        (0x6fff_fff0, versym_at), // DT_VERSYM
        (0x6fff_fffc, verdef_at), // DT_VERDEF
        (0x6fff_fffd, 2),         // DT_VERDEFNUM
        (0, 0),
    ] {
        image.u64(&[tag, value]);
    }
    let total = image.0.len() as u64;
    assert!(total <= VDSO_BYTES_MAX, "the vDSO outgrew its room");
    program_header(&mut image, program_headers, 1, 0, total, 4096);
    program_header(&mut image, program_headers + 56, 2, dynamic_at, total - dynamic_at, 8);
    image.0
}

fn file_header(image: &mut Image) {
    image.0.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    image.u16(&[3, 62]); // ET_DYN, x86-64
    image.u32(&[1]);
    image.u64(&[0, 64, 0]); // entry, program headers, section headers
    image.u32(&[0]);
    image.u16(&[64, 56, 2, 64, 0, 0]);
}

fn program_header(image: &mut Image, at: usize, kind: u64, offset: u64, bytes: u64, alignment: u64) {
    let readable_executable = 5u64 << 32;
    for (index, value) in
        [kind | readable_executable, offset, offset, offset, bytes, bytes, alignment].into_iter().enumerate()
    {
        image.set_u64(at + 8 * index, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_in_its_room_and_is_an_elf_shared_object() {
        let image = vdso_image();
        assert!(image.len() as u64 <= VDSO_BYTES_MAX);
        assert_eq!(&image[..4], b"\x7fELF");
        assert_eq!(u16::from_le_bytes([image[16], image[17]]), 3);
    }

    #[test]
    fn hash_function_gives_the_published_value() {
        assert_eq!(elf_hash(b"LINUX_2.6"), 0x03ae_75f6);
    }

    #[test]
    fn the_code_reads_the_time_page_where_the_abi_puts_it() {
        let (code, _) = code();
        let immediate = &code[2..10];
        assert_eq!(immediate, partita_abi::TIME_PAGE.to_le_bytes());
    }
}

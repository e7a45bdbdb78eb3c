//! Reading an ELF executable: what is to be loaded, and the symbols for messages about faults.
//!
//! The file comes from a user: every offset and length is checked against the file before it is used
//! (System V ABI, chapters 4 and 5; gABI).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use partita_abi::{PAGE_SIZE, PROGRAM_BASE};
use thiserror::Error;

use crate::paging::Access;

/// Why a file cannot run in a partition.
#[derive(Debug, Error)]
pub enum ElfError {
    /// The file could not be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// Not an ELF file.
    #[error("not an ELF executable; give a program linked with mpicc -static or gcc -static")]
    NotElf,
    /// For another machine.
    #[error("built for another machine (class {class}, machine {machine}); Partita runs x86-64 programs")]
    Machine {
        /// 1 is 32-bit, 2 is 64-bit.
        class: u8,
        /// `e_machine`.
        machine: u16,
    },
    /// Neither an executable nor static-PIE.
    #[error("ELF type {0} is not a program (an object file or a core dump?)")]
    Kind(u16),
    /// Needs a dynamic loader.
    #[error("dynamically linked; a partition has no shared libraries, link it with -static (mpicc does)")]
    Dynamic,
    /// The file ends before something it promises.
    #[error("truncated: {what} lies beyond the end of the file ({bytes} bytes)")]
    Truncated {
        /// What is missing.
        what: &'static str,
        /// Length of the file.
        bytes: u64,
    },
    /// A header contradicts itself or the rules.
    #[error("damaged: {0}")]
    Malformed(&'static str),
}

/// A piece of the file to be placed in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Address before any load bias.
    pub address: u64,
    /// Bytes in memory; what the file does not have is zero.
    pub memory_bytes: u64,
    /// Where in the file.
    pub file_offset: u64,
    /// Bytes in the file.
    pub file_bytes: u64,
    /// What the program may do with it.
    pub access: Access,
}

/// A checked executable.
#[derive(Debug)]
pub struct Executable {
    file: File,
    file_bytes: u64,
    /// Segments in rising order of address; they do not overlap.
    pub segments: Vec<Segment>,
    /// Entry point before any load bias.
    pub entry: u64,
    /// Address of the program headers in memory, before any load bias; 0 if they are not loaded.
    pub headers_address: u64,
    /// Number of program headers.
    pub headers: u16,
    /// Whether it may be loaded anywhere (static-PIE).
    pub relocatable: bool,
}

const HEADERS_MAX: u16 = 128;
const HEADER_BYTES: u64 = 56;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const SYMBOL_BYTES_MAX: u64 = 64 << 20;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Executable {
    /// Checks the headers of `file`.
    pub fn parse(file: File) -> Result<Self, ElfError> {
        let file_bytes = file.metadata().map_err(ElfError::Read)?.len();
        let mut header = [0; 64];
        if file_bytes < 64 {
            return Err(ElfError::NotElf);
        }
        file.read_exact_at(&mut header, 0).map_err(ElfError::Read)?;
        if header[..4] != *b"\x7fELF" {
            return Err(ElfError::NotElf);
        }
        let machine = u16_at(&header, 18);
        if header[4] != 2 || header[5] != 1 || machine != 62 {
            return Err(ElfError::Machine { class: header[4], machine });
        }
        let kind = u16_at(&header, 16);
        if kind != 2 && kind != 3 {
            return Err(ElfError::Kind(kind));
        }
        let headers = u16_at(&header, 56);
        if u16_at(&header, 54) != HEADER_BYTES as u16 || headers == 0 || headers > HEADERS_MAX {
            return Err(ElfError::Malformed("its number or size of program headers is impossible"));
        }
        let headers_offset = u64_at(&header, 32);
        let table_bytes = HEADER_BYTES * u64::from(headers);
        if headers_offset.checked_add(table_bytes).is_none_or(|end| end > file_bytes) {
            return Err(ElfError::Truncated { what: "the program header table", bytes: file_bytes });
        }
        let mut table = vec![0; table_bytes as usize];
        file.read_exact_at(&mut table, headers_offset).map_err(ElfError::Read)?;
        let mut executable = Self {
            file,
            file_bytes,
            segments: Vec::new(),
            entry: u64_at(&header, 24),
            headers_address: 0,
            headers,
            relocatable: kind == 3,
        };
        for entry in table.chunks_exact(HEADER_BYTES as usize) {
            match u32_at(entry, 0) {
                PT_INTERP => return Err(ElfError::Dynamic),
                PT_LOAD => executable.add_segment(entry)?,
                _ => {}
            }
        }
        executable.check(headers_offset)?;
        Ok(executable)
    }

    fn add_segment(&mut self, entry: &[u8]) -> Result<(), ElfError> {
        let flags = u32_at(entry, 4);
        let segment = Segment {
            address: u64_at(entry, 16),
            memory_bytes: u64_at(entry, 40),
            file_offset: u64_at(entry, 8),
            file_bytes: u64_at(entry, 32),
            access: Access { read: true, write: flags & 2 != 0, execute: flags & 1 != 0, supervisor: false },
        };
        if segment.memory_bytes == 0 {
            return Ok(());
        }
        if segment.file_bytes > segment.memory_bytes {
            return Err(ElfError::Malformed("a segment is larger in the file than in memory"));
        }
        if segment.file_offset.checked_add(segment.file_bytes).is_none_or(|end| end > self.file_bytes) {
            return Err(ElfError::Truncated { what: "a segment", bytes: self.file_bytes });
        }
        let Some(end) = segment.address.checked_add(segment.memory_bytes).filter(|end| *end < 1 << 46) else {
            return Err(ElfError::Malformed("a segment's address is impossible"));
        };
        if segment.file_bytes > 0 && !(segment.address ^ segment.file_offset).is_multiple_of(PAGE_SIZE) {
            return Err(ElfError::Malformed("a segment's address and file offset differ within a page"));
        }
        if let Some(last) = self.segments.last()
            && last.address + last.memory_bytes > segment.address
        {
            return Err(ElfError::Malformed("segments overlap or are out of order"));
        }
        debug_assert!(end > segment.address);
        self.segments.push(segment);
        Ok(())
    }

    fn check(&mut self, headers_offset: u64) -> Result<(), ElfError> {
        let Some(first) = self.segments.first() else {
            return Err(ElfError::Malformed("it has nothing to load"));
        };
        if !self.relocatable && first.address < PROGRAM_BASE {
            return Err(ElfError::Malformed("it is linked below 0x10000, which is not the program's"));
        }
        let contains =
            |s: &&Segment| s.access.execute && (s.address..s.address + s.memory_bytes).contains(&self.entry);
        if !self.segments.iter().any(|s| contains(&s)) {
            return Err(ElfError::Malformed("its entry point is in no executable segment"));
        }
        self.headers_address = self
            .segments
            .iter()
            .find(|s| (s.file_offset..s.file_offset + s.file_bytes).contains(&headers_offset))
            .map_or(0, |s| s.address + (headers_offset - s.file_offset));
        Ok(())
    }

    /// First and last address (page-aligned) before any load bias.
    pub fn span(&self) -> (u64, u64) {
        let start = self.segments.first().map_or(0, |s| s.address) & !(PAGE_SIZE - 1);
        let end = self.segments.last().map_or(0, |s| s.address + s.memory_bytes).next_multiple_of(PAGE_SIZE);
        (start, end)
    }

    /// Reads part of the file.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ElfError> {
        self.file.read_exact_at(buffer, offset).map_err(ElfError::Read)
    }

    /// Length of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The function symbols, sorted by address; empty when the file is stripped or its tables make no sense.
    pub fn symbols(&self) -> Symbols {
        self.read_symbols().unwrap_or_default()
    }

    fn read_symbols(&self) -> Option<Symbols> {
        let mut header = [0; 64];
        self.read_at(0, &mut header).ok()?;
        let (table_offset, sections) = (u64_at(&header, 40), u64::from(u16_at(&header, 60)));
        let table = self.read_part(table_offset, 64 * sections)?;
        let section = |index: usize| table.get(64 * index..64 * index + 64);
        let symbols = table.chunks_exact(64).find(|s| u32_at(s, 4) == 2)?; // SHT_SYMTAB
        let strings = section(u32_at(symbols, 40) as usize)?;
        let entries = self.read_part(u64_at(symbols, 24), u64_at(symbols, 32))?;
        let names = self.read_part(u64_at(strings, 24), u64_at(strings, 32))?;
        let mut found = Vec::new();
        for entry in entries.chunks_exact(24) {
            let is_function = matches!(entry[4] & 15, 2 | 10); // STT_FUNC, STT_GNU_IFUNC
            let name_at = u32_at(entry, 0) as usize;
            if is_function && u16_at(entry, 6) != 0 && name_at < names.len() {
                let name = names[name_at..].split(|b| *b == 0).next().unwrap_or_default();
                found.push((u64_at(entry, 8), String::from_utf8_lossy(name).into_owned()));
            }
        }
        found.sort();
        Some(Symbols { functions: found })
    }

    fn read_part(&self, offset: u64, bytes: u64) -> Option<Vec<u8>> {
        let fits =
            bytes <= SYMBOL_BYTES_MAX && offset.checked_add(bytes).is_some_and(|end| end <= self.file_bytes);
        let mut part = vec![0; if fits { bytes as usize } else { return None }];
        self.read_at(offset, &mut part).ok()?;
        Some(part)
    }
}

/// Function symbols of a program, for messages about faults.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Symbols {
    functions: Vec<(u64, String)>,
}

impl Symbols {
    /// The function before `address` (without load bias) and the distance from its start.
    pub fn nearest(&self, address: u64) -> Option<(&str, u64)> {
        let after = self.functions.partition_point(|(start, _)| *start <= address);
        let (start, name) = self.functions.get(after.checked_sub(1)?)?;
        Some((name, address - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn parse(bytes: &[u8]) -> Result<Executable, ElfError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Executable::parse(file)
    }

    /// A minimal executable: one segment with 16 bytes of code at 0x400000.
    fn minimal() -> Vec<u8> {
        let mut bytes = vec![0; 0x1010];
        bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        bytes[16] = 2;
        bytes[18] = 62;
        bytes[24..32].copy_from_slice(&0x40_0000u64.to_le_bytes());
        bytes[32] = 64;
        (bytes[54], bytes[56]) = (56, 1);
        bytes[64] = 1;
        bytes[68] = 5;
        bytes[72..80].copy_from_slice(&0x1000u64.to_le_bytes());
        bytes[80..88].copy_from_slice(&0x40_0000u64.to_le_bytes());
        (bytes[96], bytes[104]) = (16, 16);
        bytes
    }

    #[test]
    fn a_minimal_program_is_understood() {
        let executable = parse(&minimal()).unwrap();
        assert_eq!(executable.span(), (0x40_0000, 0x40_1000));
        assert_eq!(executable.segments[0].access, Access::READ_EXECUTE);
    }

    #[test]
    fn no_byte_of_the_headers_can_make_it_panic() {
        let good = minimal();
        for at in 0..120 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                if let Ok(executable) = parse(&bytes) {
                    executable.symbols();
                    assert!(executable.segments.iter().all(|s| s.file_offset + s.file_bytes <= 0x1010));
                }
            }
        }
        for length in 0..200 {
            assert!(parse(&good[..length]).is_err());
        }
    }
}

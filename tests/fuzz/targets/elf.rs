//! Executables: headers, segments and symbols that lie.
#![no_main]

use std::fs::File;
use std::io::Write;

use libfuzzer_sys::fuzz_target;
use nix::sys::memfd::{MFdFlags, memfd_create};
use vmm::elf::Executable;

fuzz_target!(|data: &[u8]| {
    let mut file = File::from(memfd_create(c"fuzz", MFdFlags::empty()).expect("a file in memory"));
    file.write_all(data).expect("room for it");
    let Ok(executable) = Executable::parse(file) else { return };
    let (start, end) = executable.span();
    assert!(start <= end);
    let symbols = executable.symbols();
    for address in [0, start, end, u64::MAX] {
        let _ = symbols.nearest(address);
    }
});

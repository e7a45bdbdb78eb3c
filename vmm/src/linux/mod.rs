//! The Linux system calls of a partition, served by the VMM (function shipping).
//!
//! Everything hot is in the guest; what is left here is start-up, memory, files, output and time. A call is atomic: it
//! has happened or it has not when the partition is paused. Calls that wait ([`Answer::Sleep`], [`Answer::Input`]) are
//! asked again after a pause and find their deadline in the saved state.

mod content;
mod files;
mod io;
mod names;
mod process;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use files::{Errno, Files};

use crate::kvm::KvmError;
use crate::kvm::cpu::Cpu;
use crate::memory::Memory;
use crate::paging::Paging;
use crate::space::Space;

/// Longest transfer of one call; Linux has such a limit too (a program has to expect less than it asked for).
const TRANSFER_BYTES_MAX: u64 = 16 << 20;

/// What the vCPU thread has to do after a call.
#[derive(Debug)]
pub enum Answer {
    /// Go on with this value in RAX.
    Return(u64),
    /// Sleep until this point of the guest's monotonic clock, then go on with 0.
    Sleep {
        /// Nanoseconds on the guest's clock.
        until_ns: u64,
    },
    /// Wait until standard input has something, then ask again.
    Input,
    /// The program ended.
    Exit(i32),
    /// The program killed itself with a signal.
    Signal(i32),
}

/// What a call may use besides the state of [`Linux`].
pub struct Context<'a> {
    /// Guest memory.
    pub memory: &'a Memory,
    /// The processor (segment bases).
    pub cpu: &'a Cpu,
    /// Rank, for messages.
    pub rank: u32,
}

/// The part of a partition that Linux would keep in its kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Linux {
    /// Files and descriptors.
    pub files: Files,
    /// Address space.
    pub space: Space,
    /// Page tables.
    pub paging: Paging,
    /// Bytes written to standard output and standard error since the program started.
    pub output_bytes: [u64; 2],
    /// Deadline of a sleep that was begun and not finished, on the guest's monotonic clock.
    pub sleep_until_ns: Option<u64>,
    warned: BTreeSet<u64>,
}

/// A call's value or error number.
type Value = Result<u64, Errno>;

fn answer(value: Value) -> Answer {
    Answer::Return(match value {
        Ok(value) => value,
        Err(errno) => (-i64::from(errno)) as u64,
    })
}

impl Linux {
    /// The state of a program about to start.
    pub fn new(files: Files, space: Space, paging: Paging) -> Self {
        Self { files, space, paging, output_bytes: [0; 2], sleep_until_ns: None, warned: BTreeSet::new() }
    }

    /// Serves one call. Arguments are in the order of the x86-64 calling convention of Linux.
    pub fn call(
        &mut self,
        context: &Context<'_>,
        number: u64,
        arguments: [u64; 6],
    ) -> Result<Answer, KvmError> {
        let [a, b, c, d, e, f] = arguments;
        let m = context.memory;
        let number_c = number as libc::c_long;
        Ok(match number_c {
            libc::SYS_read => self.read(m, a, b, c, None),
            libc::SYS_pread64 => self.read(m, a, b, c, Some(d)),
            libc::SYS_readv => self.vectored(m, a, b, c, false),
            libc::SYS_write => answer(self.write(m, a, b, c, None)),
            libc::SYS_pwrite64 => answer(self.write(m, a, b, c, Some(d))),
            libc::SYS_writev => self.vectored(m, a, b, c, true),
            libc::SYS_exit | libc::SYS_exit_group => Answer::Exit(a as i32 & 0xff),
            libc::SYS_kill | libc::SYS_tkill => signal(b),
            libc::SYS_tgkill => signal(c),
            libc::SYS_nanosleep => self.nanosleep(m, a, false),
            libc::SYS_clock_nanosleep => self.nanosleep(m, c, b & 1 != 0),
            libc::SYS_arch_prctl => return self.arch_prctl(context, a, b),
            _ => match self.file_call(m, number_c, arguments) {
                Some(value) => answer(value),
                None => match self.process_call(m, number_c, [a, b, c, d, e, f]) {
                    Some(value) => answer(value),
                    None => {
                        self.warn(context.rank, number);
                        answer(Err(libc::ENOSYS))
                    }
                },
            },
        })
    }

    fn warn(&mut self, rank: u32, number: u64) {
        // A program can ask for any number; remember a bounded set of them.
        if self.warned.len() < 1024 && self.warned.insert(number) {
            crate::console::say(format_args!(
                "vmm: rank {rank}: system call {number} ({}) is not supported: the program gets ENOSYS",
                names::name(number)
            ));
        }
    }

    fn arch_prctl(&mut self, context: &Context<'_>, code: u64, address: u64) -> Result<Answer, KvmError> {
        const SET_GS: u64 = 0x1001;
        const SET_FS: u64 = 0x1002;
        const GET_FS: u64 = 0x1003;
        const GET_GS: u64 = 0x1004;
        Ok(answer(match code {
            SET_FS | SET_GS if address < 1 << 47 => {
                context.cpu.set_segment_base(code == SET_GS, address)?;
                Ok(0)
            }
            SET_FS | SET_GS => Err(libc::EPERM),
            GET_FS | GET_GS => {
                let base = context.cpu.segment_base(code == GET_GS)?;
                self.put(context.memory, address, &base.to_le_bytes())
            }
            _ => Err(libc::EINVAL),
        }))
    }

    /// Copies to the program, which must be allowed to write there.
    fn put(&self, memory: &Memory, address: u64, bytes: &[u8]) -> Value {
        if !self.space.allows(address, bytes.len() as u64, true) {
            return Err(libc::EFAULT);
        }
        memory.write(address, bytes).map(|()| 0).map_err(|_| libc::EFAULT)
    }

    /// Copies from the program, which must be allowed to read there. `bytes` is bounded by the caller.
    fn fetch(&self, memory: &Memory, address: u64, bytes: u64) -> Result<Vec<u8>, Errno> {
        if !self.space.allows(address, bytes, false) {
            return Err(libc::EFAULT);
        }
        let mut buffer = vec![0; bytes as usize];
        memory.read(address, &mut buffer).map_err(|_| libc::EFAULT)?;
        Ok(buffer)
    }

    fn fetch_u64(&self, memory: &Memory, address: u64) -> Result<u64, Errno> {
        let bytes = self.fetch(memory, address, 8)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| libc::EFAULT)?))
    }

    /// A NUL-terminated path of at most 4096 bytes.
    fn fetch_path(&self, memory: &Memory, address: u64) -> Result<String, Errno> {
        let mut path = Vec::new();
        let mut at = address;
        while path.len() < 4096 {
            let part = 256 - at % 256;
            let bytes = self.fetch(memory, at, part)?;
            if let Some(end) = bytes.iter().position(|b| *b == 0) {
                path.extend_from_slice(&bytes[..end]);
                return String::from_utf8(path).map_err(|_| libc::ENOENT);
            }
            path.extend_from_slice(&bytes);
            at += part;
        }
        Err(libc::ENAMETOOLONG)
    }
}

/// Signal 0 only asks whether the process exists; there are no handlers, so anything else ends the program.
fn signal(number: u64) -> Answer {
    match number as i32 {
        0 | libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT => Answer::Return(0),
        number @ 1..=64 => Answer::Signal(number),
        _ => answer(Err(libc::EINVAL)),
    }
}

//! System calls on descriptors and paths.

use std::io::Write;

use libc::{EBADF, EFAULT, EINVAL, ENOENT, ENOTTY, c_long};

use super::files::{Stat, Target};
use super::{Answer, Errno, Linux, TRANSFER_BYTES_MAX, Value, answer};
use crate::memory::Memory;

const VECTORS_MAX: u64 = 1024;

fn descriptor(value: u64) -> Result<u32, Errno> {
    // Linux takes the low 32 bits as a signed number.
    u32::try_from(value as u32 as i32).map_err(|_| EBADF)
}

impl Linux {
    pub(super) fn read(
        &mut self,
        memory: &Memory,
        fd: u64,
        address: u64,
        bytes: u64,
        at: Option<u64>,
    ) -> Answer {
        let is_input =
            descriptor(fd).and_then(|fd| self.files.get(fd)).is_ok_and(|o| o.target == Target::Input);
        if is_input {
            return self.read_input(memory, address, bytes);
        }
        answer(self.read_file(memory, fd, address, bytes, at))
    }

    fn read_file(&mut self, memory: &Memory, fd: u64, address: u64, bytes: u64, at: Option<u64>) -> Value {
        let bytes = bytes.min(TRANSFER_BYTES_MAX);
        if !self.space.allows(address, bytes, true) {
            return Err(EFAULT);
        }
        let data = self.files.read(memory, descriptor(fd)?, at, bytes as usize)?;
        self.put(memory, address, &data)?;
        Ok(data.len() as u64)
    }

    /// Standard input, if it has something; else the vCPU thread waits and asks again.
    fn read_input(&mut self, memory: &Memory, address: u64, bytes: u64) -> Answer {
        let bytes = bytes.min(64 << 10);
        if !self.space.allows(address, bytes, true) {
            return answer(Err(EFAULT));
        }
        let mut poll = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd, no time-out.
        if unsafe { libc::poll(&raw mut poll, 1, 0) } == 0 {
            return Answer::Input;
        }
        let mut buffer = vec![0; bytes as usize];
        // SAFETY: the buffer is ours and as long as said.
        let got = unsafe { libc::read(0, buffer.as_mut_ptr().cast(), buffer.len()) };
        if got < 0 {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            // Closed standard input is an empty one.
            return if errno == libc::EINTR { Answer::Input } else { Answer::Return(0) };
        }
        match self.put(memory, address, &buffer[..got as usize]) {
            Ok(_) => Answer::Return(got as u64),
            Err(errno) => answer(Err(errno)),
        }
    }

    pub(super) fn write(
        &mut self,
        memory: &Memory,
        fd: u64,
        address: u64,
        bytes: u64,
        at: Option<u64>,
    ) -> Value {
        let fd = descriptor(fd)?;
        let data = self.fetch(memory, address, bytes.min(TRANSFER_BYTES_MAX))?;
        match self.files.get(fd)?.target {
            Target::Input => Err(EBADF),
            Target::Output => self.print(0, &mut std::io::stdout().lock(), &data),
            Target::Error => self.print(1, &mut std::io::stderr().lock(), &data),
            _ => Ok(self.files.write(memory, fd, at, &data)? as u64),
        }
    }

    fn print(&mut self, stream: usize, to: &mut dyn Write, data: &[u8]) -> Value {
        match to.write_all(data).and_then(|()| to.flush()) {
            Ok(()) => {
                self.output_bytes[stream] += data.len() as u64;
                Ok(data.len() as u64)
            }
            Err(error) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// `readv` and `writev`: piece by piece, ending at the first short one.
    pub(super) fn vectored(
        &mut self,
        memory: &Memory,
        fd: u64,
        vectors: u64,
        count: u64,
        write: bool,
    ) -> Answer {
        if count > VECTORS_MAX {
            return answer(Err(EINVAL));
        }
        let mut total = 0;
        for index in 0..count {
            let piece = self
                .fetch_u64(memory, vectors + 16 * index)
                .and_then(|address| Ok((address, self.fetch_u64(memory, vectors + 16 * index + 8)?)));
            let (address, bytes) = match piece {
                Ok(piece) => piece,
                Err(errno) => return answer(if total > 0 { Ok(total) } else { Err(errno) }),
            };
            if bytes == 0 {
                continue;
            }
            let result = match write {
                true => answer(self.write(memory, fd, address, bytes, None)),
                false => self.read(memory, fd, address, bytes, None),
            };
            match result {
                Answer::Return(value) if (value as i64) < 0 => {
                    return Answer::Return(if total > 0 { total } else { value });
                }
                Answer::Return(value) => {
                    total += value;
                    if value < bytes {
                        break;
                    }
                }
                Answer::Input if total > 0 => break,
                other => return other,
            }
        }
        Answer::Return(total)
    }

    /// Everything else on files; `None` for calls that are not about files.
    pub(super) fn file_call(&mut self, m: &Memory, number: c_long, arguments: [u64; 6]) -> Option<Value> {
        let [a, b, c, d, _, _] = arguments;
        Some(match number {
            libc::SYS_open => self.open(m, a, b),
            libc::SYS_creat => self.open(m, a, (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64),
            libc::SYS_openat => self.open(m, b, c),
            libc::SYS_close => descriptor(a).and_then(|fd| self.files.close(m, fd)).map(|()| 0),
            libc::SYS_lseek => descriptor(a).and_then(|fd| self.files.seek(fd, b as i64, c as i32)),
            libc::SYS_ftruncate => descriptor(a).and_then(|fd| self.files.truncate(m, fd, b)).map(|()| 0),
            libc::SYS_fstat => self.fstat(m, a, b),
            libc::SYS_stat | libc::SYS_lstat => self.stat_path(m, a, b),
            libc::SYS_newfstatat => self.fstatat(m, a, b, c, d),
            libc::SYS_statx => self.statx(m, [a, b, c, d, arguments[4]]),
            libc::SYS_access => self.access(m, a, b),
            libc::SYS_faccessat | libc::SYS_faccessat2 => self.access(m, b, c),
            libc::SYS_unlink => self.fetch_path(m, a).and_then(|p| self.files.unlink(m, &p)).map(|()| 0),
            libc::SYS_unlinkat => self.fetch_path(m, b).and_then(|p| self.files.unlink(m, &p)).map(|()| 0),
            libc::SYS_rename => self.rename(m, a, b),
            libc::SYS_renameat | libc::SYS_renameat2 => self.rename(m, b, d),
            libc::SYS_mkdir | libc::SYS_mkdirat | libc::SYS_fsync | libc::SYS_fdatasync | libc::SYS_chmod => {
                Ok(0)
            }
            libc::SYS_readlink | libc::SYS_readlinkat => Err(ENOENT),
            libc::SYS_getcwd => self.getcwd(m, a, b),
            libc::SYS_chdir => Ok(0),
            libc::SYS_ioctl => descriptor(a).and_then(|fd| self.files.get(fd).map(|_| ())).and(Err(ENOTTY)),
            libc::SYS_dup => {
                descriptor(a).and_then(|fd| self.files.duplicate(m, fd, 0, false)).map(u64::from)
            }
            libc::SYS_dup2 | libc::SYS_dup3 => {
                descriptor(a).and_then(|fd| self.files.duplicate(m, fd, descriptor(b)?, true)).map(u64::from)
            }
            libc::SYS_fcntl => self.fcntl(m, a, b as i32, c),
            libc::SYS_poll => self.poll(m, a, b),
            _ => return None,
        })
    }

    fn open(&mut self, memory: &Memory, path: u64, flags: u64) -> Value {
        let path = self.fetch_path(memory, path)?;
        self.files.open(memory, &path, flags as i32).map(u64::from)
    }

    fn rename(&mut self, memory: &Memory, from: u64, to: u64) -> Value {
        let (from, to) = (self.fetch_path(memory, from)?, self.fetch_path(memory, to)?);
        self.files.rename(memory, &from, &to).map(|()| 0)
    }

    fn access(&mut self, memory: &Memory, path: u64, mode: u64) -> Value {
        let stat = self.files.stat_path(&self.fetch_path(memory, path)?)?;
        let refused = mode as i32 & libc::W_OK != 0 && stat.mode & 0o222 == 0;
        if refused { Err(libc::EACCES) } else { Ok(0) }
    }

    fn fstat(&mut self, memory: &Memory, fd: u64, buffer: u64) -> Value {
        let stat = self.files.stat_descriptor(descriptor(fd)?)?;
        self.put(memory, buffer, &stat_bytes(stat))
    }

    fn stat_path(&mut self, memory: &Memory, path: u64, buffer: u64) -> Value {
        let stat = self.files.stat_path(&self.fetch_path(memory, path)?)?;
        self.put(memory, buffer, &stat_bytes(stat))
    }

    fn fstatat(&mut self, memory: &Memory, fd: u64, path: u64, buffer: u64, flags: u64) -> Value {
        if flags as i32 & libc::AT_EMPTY_PATH != 0 && self.fetch_path(memory, path)?.is_empty() {
            return self.fstat(memory, fd, buffer);
        }
        self.stat_path(memory, path, buffer)
    }

    fn statx(&mut self, memory: &Memory, arguments: [u64; 5]) -> Value {
        let [fd, path, flags, _, buffer] = arguments;
        let path = self.fetch_path(memory, path)?;
        let stat = match path.is_empty() && flags as i32 & libc::AT_EMPTY_PATH != 0 {
            true => self.files.stat_descriptor(descriptor(fd)?)?,
            false => self.files.stat_path(&path)?,
        };
        // struct statx, statx(2): mask, block size, links, mode at 28, inode at 32, size at 40, blocks at 48.
        let mut bytes = [0; 256];
        bytes[0..4].copy_from_slice(&0x7ffu32.to_le_bytes());
        bytes[4..8].copy_from_slice(&4096u32.to_le_bytes());
        bytes[16..20].copy_from_slice(&1u32.to_le_bytes());
        bytes[28..30].copy_from_slice(&(stat.mode as u16).to_le_bytes());
        bytes[32..40].copy_from_slice(&stat.inode.to_le_bytes());
        bytes[40..48].copy_from_slice(&stat.bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&stat.bytes.div_ceil(512).to_le_bytes());
        self.put(memory, buffer, &bytes)
    }

    fn getcwd(&mut self, memory: &Memory, buffer: u64, bytes: u64) -> Value {
        if bytes < 2 {
            return Err(libc::ERANGE);
        }
        self.put(memory, buffer, b"/\0")?;
        Ok(2)
    }

    fn fcntl(&mut self, memory: &Memory, fd: u64, command: i32, argument: u64) -> Value {
        let fd = descriptor(fd)?;
        self.files.get(fd)?;
        match command {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
                let from = u32::try_from(argument).map_err(|_| EINVAL)?;
                self.files.duplicate(memory, fd, from, false).map(u64::from)
            }
            libc::F_GETFL => Ok(libc::O_RDWR as u64),
            libc::F_GETFD | libc::F_SETFD | libc::F_SETFL => Ok(0),
            _ => Err(EINVAL),
        }
    }

    /// `poll(2)` as start-up code uses it: which descriptors are valid. Never waits.
    fn poll(&mut self, memory: &Memory, array: u64, count: u64) -> Value {
        if count > 1024 {
            return Err(EINVAL);
        }
        let mut ready = 0;
        for index in 0..count {
            let entry = self.fetch(memory, array + 8 * index, 8)?;
            let fd = i32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let wanted = i16::from_le_bytes([entry[4], entry[5]]);
            let events = match u32::try_from(fd) {
                Err(_) => 0,
                Ok(fd) if self.files.get(fd).is_err() => libc::POLLNVAL,
                Ok(_) => wanted & (libc::POLLIN | libc::POLLOUT),
            };
            ready += u64::from(events != 0);
            self.put(memory, array + 8 * index + 6, &events.to_le_bytes())?;
        }
        Ok(ready)
    }
}

/// `struct stat` of x86-64.
fn stat_bytes(stat: Stat) -> [u8; 144] {
    let mut bytes = [0; 144];
    bytes[0..8].copy_from_slice(&1u64.to_le_bytes());
    bytes[8..16].copy_from_slice(&stat.inode.to_le_bytes());
    bytes[16..24].copy_from_slice(&1u64.to_le_bytes());
    bytes[24..28].copy_from_slice(&stat.mode.to_le_bytes());
    bytes[48..56].copy_from_slice(&stat.bytes.to_le_bytes());
    bytes[56..64].copy_from_slice(&4096u64.to_le_bytes());
    bytes[64..72].copy_from_slice(&stat.bytes.div_ceil(512).to_le_bytes());
    bytes
}

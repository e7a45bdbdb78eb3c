//! System calls on memory, time and the process itself.

use libc::{EINVAL, EPERM, c_long};

use super::{Answer, Errno, Linux, Value, answer};
use crate::clock::{self, GuestTime};
use crate::memory::Memory;
use crate::paging::Access;
use crate::space::SpaceError;

const NS_PER_S: u64 = 1_000_000_000;

fn errno(error: SpaceError) -> Errno {
    match error {
        SpaceError::Invalid => EINVAL,
        SpaceError::NoMemory | SpaceError::Paging(_) | SpaceError::Memory(_) => libc::ENOMEM,
    }
}

fn access(protection: u64) -> Access {
    let protection = protection as i32;
    let write = protection & libc::PROT_WRITE != 0;
    let execute = protection & libc::PROT_EXEC != 0;
    // On x86 whatever is mapped for writing or executing can be read as well.
    Access { read: protection != 0, write, execute, supervisor: false }
}

impl Linux {
    pub(super) fn process_call(&mut self, m: &Memory, number: c_long, arguments: [u64; 6]) -> Option<Value> {
        let [a, b, c, d, _, _] = arguments;
        Some(match number {
            libc::SYS_mmap => self.mmap(m, arguments),
            libc::SYS_munmap => self.space.unmap(m, &mut self.paging, a, b).map(|()| 0).map_err(errno),
            libc::SYS_mprotect => {
                self.space.protect(m, &mut self.paging, a, b, access(c)).map(|()| 0).map_err(errno)
            }
            libc::SYS_mremap => self.mremap(m, [a, b, c, d]),
            libc::SYS_brk => self.space.set_brk(m, &mut self.paging, a).map_err(errno),
            libc::SYS_madvise => self.madvise(m, a, b, c),
            libc::SYS_mincore => self.mincore(m, a, b, c),
            libc::SYS_clock_gettime => self.clock_gettime(m, a, b),
            libc::SYS_clock_getres => self.put_if(m, b, &[0, 1]),
            libc::SYS_gettimeofday => self.gettimeofday(m, a),
            libc::SYS_time => self.time(m, a),
            libc::SYS_times => self.times(m, a),
            libc::SYS_getrusage => self.getrusage(m, b),
            libc::SYS_futex => futex(b),
            libc::SYS_sched_getaffinity => self.affinity(m, b, c),
            libc::SYS_getrandom => self.getrandom(m, a, b),
            libc::SYS_uname => self.uname(m, a),
            libc::SYS_sysinfo => self.sysinfo(m, a),
            libc::SYS_prlimit64 => self.limits(m, d),
            libc::SYS_getrlimit => self.limits(m, b),
            libc::SYS_getpid | libc::SYS_gettid | libc::SYS_set_tid_address | libc::SYS_getpgrp => Ok(1),
            libc::SYS_getppid
            | libc::SYS_getuid
            | libc::SYS_geteuid
            | libc::SYS_getgid
            | libc::SYS_getegid => Ok(0),
            // Accepted without effect: there is one thread, and signals end the program.
            libc::SYS_rt_sigaction
            | libc::SYS_rt_sigprocmask
            | libc::SYS_sigaltstack
            | libc::SYS_set_robust_list
            | libc::SYS_sched_yield
            | libc::SYS_sched_setaffinity
            | libc::SYS_umask
            | libc::SYS_alarm
            | libc::SYS_setitimer
            | libc::SYS_prctl => Ok(0),
            // Programs try these and go on without; no warning.
            libc::SYS_rseq | libc::SYS_clone | libc::SYS_clone3 | libc::SYS_membarrier => Err(libc::ENOSYS),
            _ => return None,
        })
    }

    fn mmap(&mut self, memory: &Memory, arguments: [u64; 6]) -> Value {
        let [address, bytes, protection, flags, fd, offset] = arguments;
        let flags = flags as i32;
        let fixed = flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0;
        let shared = flags & libc::MAP_TYPE == libc::MAP_SHARED;
        let access = access(protection);
        let content = match flags & libc::MAP_ANONYMOUS != 0 {
            true => Vec::new(),
            false => {
                if shared && access.write {
                    return Err(libc::ENODEV); // writing a file through memory is not supported
                }
                let fd = u32::try_from(fd).map_err(|_| libc::EBADF)?;
                self.files.read(memory, fd, Some(offset), usize::try_from(bytes).map_err(|_| EINVAL)?)?
            }
        };
        if flags & libc::MAP_FIXED_NOREPLACE != 0 && self.space.allows(address, 1, false) {
            return Err(libc::EEXIST);
        }
        let at = self
            .space
            .map(memory, &mut self.paging, fixed.then_some(address), bytes, access)
            .map_err(errno)?;
        memory.write(at, &content).map_err(|_| libc::ENOMEM)?;
        Ok(at)
    }

    fn mremap(&mut self, memory: &Memory, arguments: [u64; 4]) -> Value {
        let [start, old, new, flags] = arguments;
        if flags & !1 != 0 {
            return Err(EINVAL); // MREMAP_FIXED and friends
        }
        self.space.remap(memory, &mut self.paging, start, old, new, flags & 1 != 0).map_err(errno)
    }

    fn madvise(&mut self, memory: &Memory, start: u64, bytes: u64, advice: u64) -> Value {
        let zeroes = advice as i32 == libc::MADV_DONTNEED;
        let bytes = bytes.checked_next_multiple_of(4096).ok_or(EINVAL)?;
        if zeroes && bytes > 0 {
            if !start.is_multiple_of(4096) || !self.space.allows(start, bytes, false) {
                return Err(libc::ENOMEM);
            }
            memory.release(start, bytes).map_err(|_| libc::ENOMEM)?;
        }
        Ok(0)
    }

    fn mincore(&mut self, memory: &Memory, start: u64, bytes: u64, vector: u64) -> Value {
        if bytes > 1 << 30 || !self.space.allows(start, bytes, false) {
            return Err(libc::ENOMEM);
        }
        self.put(memory, vector, &vec![1; bytes.div_ceil(4096) as usize])
    }

    fn put_if(&self, memory: &Memory, address: u64, words: &[u64]) -> Value {
        if address == 0 {
            return Ok(0);
        }
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.put(memory, address, &bytes)
    }

    fn clock_gettime(&self, memory: &Memory, clock: u64, address: u64) -> Value {
        let now = GuestTime::read(memory).map_err(|_| libc::EFAULT)?;
        let ns = match clock as i32 {
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => now.realtime_ns,
            libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID => clock::thread_cpu_ns(),
            libc::CLOCK_MONOTONIC
            | libc::CLOCK_MONOTONIC_RAW
            | libc::CLOCK_MONOTONIC_COARSE
            | libc::CLOCK_BOOTTIME => now.monotonic_ns,
            _ => return Err(EINVAL),
        };
        self.put_if(memory, address, &[ns / NS_PER_S, ns % NS_PER_S])
    }

    fn gettimeofday(&self, memory: &Memory, address: u64) -> Value {
        let ns = GuestTime::read(memory).map_err(|_| libc::EFAULT)?.realtime_ns;
        self.put_if(memory, address, &[ns / NS_PER_S, ns % NS_PER_S / 1000])
    }

    fn time(&self, memory: &Memory, address: u64) -> Value {
        let seconds = GuestTime::read(memory).map_err(|_| libc::EFAULT)?.realtime_ns / NS_PER_S;
        self.put_if(memory, address, &[seconds])?;
        Ok(seconds)
    }

    fn times(&self, memory: &Memory, address: u64) -> Value {
        let ticks = clock::thread_cpu_ns() / (NS_PER_S / 100);
        self.put_if(memory, address, &[ticks, 0, 0, 0])?;
        Ok(clock::monotonic_ns() / (NS_PER_S / 100))
    }

    fn getrusage(&self, memory: &Memory, address: u64) -> Value {
        let ns = clock::thread_cpu_ns();
        let mut words = [0; 18];
        (words[0], words[1]) = (ns / NS_PER_S, ns % NS_PER_S / 1000);
        self.put_if(memory, address, &words)
    }

    fn affinity(&self, memory: &Memory, bytes: u64, mask: u64) -> Value {
        if bytes < 8 {
            return Err(EINVAL);
        }
        self.put(memory, mask, &1u64.to_le_bytes())?;
        Ok(8)
    }

    fn getrandom(&self, memory: &Memory, address: u64, bytes: u64) -> Value {
        let mut data = vec![0; bytes.min(1 << 20) as usize];
        crate::loader::fill_random(&mut data).map_err(|_| libc::EIO)?;
        self.put(memory, address, &data)?;
        Ok(data.len() as u64)
    }

    fn uname(&self, memory: &Memory, address: u64) -> Value {
        let mut bytes = [0u8; 6 * 65];
        for (index, field) in
            ["Linux", "partition", "5.10.0-partita", "Partita", "x86_64", "(none)"].iter().enumerate()
        {
            bytes[65 * index..65 * index + field.len()].copy_from_slice(field.as_bytes());
        }
        self.put(memory, address, &bytes)
    }

    fn sysinfo(&self, memory: &Memory, address: u64) -> Value {
        let total = memory.layout().program_bytes;
        let uptime = GuestTime::read(memory).map_err(|_| libc::EFAULT)?.monotonic_ns / NS_PER_S;
        let mut words = [0; 14];
        (words[0], words[4], words[5]) = (uptime, total, total / 2);
        words[10] = 1; // processes
        words[13] = 1; // bytes per memory unit
        self.put_if(memory, address, &words)
    }

    fn limits(&self, memory: &Memory, address: u64) -> Value {
        self.put_if(memory, address, &[8 << 20, u64::MAX])
    }

    /// Sleeps relative to now, or (absolute) until a point of the guest's monotonic clock.
    pub(super) fn nanosleep(&mut self, memory: &Memory, request: u64, absolute: bool) -> Answer {
        let Ok(now) = GuestTime::read(memory) else { return answer(Err(libc::EFAULT)) };
        let until_ns = match self.sleep_until_ns {
            Some(until_ns) => until_ns,
            None => {
                let time = self
                    .fetch_u64(memory, request)
                    .and_then(|s| Ok((s, self.fetch_u64(memory, request + 8)?)));
                match time {
                    Err(errno) => return answer(Err(errno)),
                    Ok((_, ns)) if ns >= NS_PER_S => return answer(Err(EINVAL)),
                    Ok((s, ns)) => {
                        let span = s.saturating_mul(NS_PER_S).saturating_add(ns);
                        if absolute { span } else { now.monotonic_ns.saturating_add(span) }
                    }
                }
            }
        };
        if until_ns <= now.monotonic_ns {
            self.sleep_until_ns = None;
            return Answer::Return(0);
        }
        self.sleep_until_ns = Some(until_ns);
        Answer::Sleep { until_ns }
    }
}

/// With one thread nobody waits and nobody is woken; a wait that could never end is refused.
fn futex(operation: u64) -> Value {
    match operation as i32 & 0x7f {
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET | libc::FUTEX_REQUEUE => Ok(0),
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => Err(libc::EAGAIN),
        _ => Err(EPERM),
    }
}

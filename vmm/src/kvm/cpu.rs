//! The one virtual processor: how it starts at CPL 3, and its state as a plain value.

use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, Xsave, kvm_debugregs,
    kvm_device_attr, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs, kvm_xsave, kvm_xsave2,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuExit, VcpuFd, VmFd};
use partita_kernel as stub;
use serde::{Deserialize, Serialize};
use vmm_sys_util::ioctl::ioctl_with_ref;

use super::calls::{KVM_HAS_DEVICE_ATTR, KVM_SET_DEVICE_ATTR};
use super::{KvmError, failed};

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_SYSCALL_MASK: u32 = 0xc000_0084;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;
const MSR_TSC: u32 = 0x10;
/// Registers that are part of a partition; FS and GS base are in the segment registers.
const SAVED_MSRS: [u32; 4] = [MSR_STAR, MSR_LSTAR, MSR_SYSCALL_MASK, MSR_KERNEL_GS_BASE];

const RFLAGS_START: u64 = 0x202;
/// Interrupts, trap flag, direction, alignment check off at CPL 0.
const SYSCALL_MASK: u64 = 0x4_0700;
const CR0: u64 = 0x8005_0033;
/// PAE, SSE, SSE exceptions; FSGSBASE and XSAVE are added when offered.
const CR4: u64 = 0x620;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_OSXSAVE: u64 = 1 << 18;
/// SYSCALL, long mode enabled and active, no-execute.
const EFER: u64 = 0xd01;
/// x87, SSE, AVX, MPX, AVX-512, PKRU: everything but AMX, whose state needs a permission of its own.
const XCR0_WANTED: u64 = 0x2ff & !0x18;

/// A virtual processor.
pub struct Cpu {
    fd: VcpuFd,
    cpuid: CpuId,
    xcr0: u64,
    xsave_bytes: usize,
    /// KVM hands the general registers out and in with every run, which saves two calls for every system call.
    mirrors: bool,
    /// It has: the run structure, and no longer KVM, says what they are.
    mirrored: bool,
}

/// Everything of the processor that moves with the partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CpuState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xcrs: kvm_xcrs,
    xsave: Vec<u32>,
    msrs: Vec<(u32, u64)>,
    events: kvm_vcpu_events,
    debug: kvm_debugregs,
    mp_state: u32,
}

/// Bits of the processor a program may depend on; a host that lacks one of them cannot take the partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    vendor: [u32; 3],
    /// (leaf, subleaf, ecx, edx, ebx)
    leaves: Vec<(u32, u32, u32, u32, u32)>,
    xcr0: u64,
}

impl Features {
    /// Says what `host` lacks of what `self` needs.
    pub fn missing_on(&self, host: &Self) -> Option<String> {
        if self.vendor != host.vendor {
            return Some("the processor is of another vendor".into());
        }
        if self.xcr0 & !host.xcr0 != 0 {
            return Some(format!("extended state {:#x} is missing", self.xcr0 & !host.xcr0));
        }
        self.leaves.iter().find_map(|(leaf, sub, ecx, edx, ebx)| {
            let here = host.leaves.iter().find(|l| l.0 == *leaf && l.1 == *sub).copied().unwrap_or_default();
            let lost = (ecx & !here.2, edx & !here.3, ebx & !here.4);
            (lost != (0, 0, 0)).then(|| {
                format!(
                    "CPUID leaf {leaf:#x}.{sub}: ecx {:#x}, edx {:#x}, ebx {:#x} are missing",
                    lost.0, lost.1, lost.2
                )
            })
        })
    }
}

/// Feature leaves and which registers of them are feature bits (ecx, edx, ebx).
const FEATURE_LEAVES: [(u32, u32, u32, u32, u32); 4] = [
    // Not OSXSAVE (bit 27), which mirrors CR4, nor the hypervisor bit; ebx of leaf 1 holds the APIC id.
    (1, 0, !(1 << 27 | 1 << 31), !0, 0),
    (7, 0, !(1 << 4), !0, !0),
    (7, 1, 0, 0, 0),
    (0x8000_0001, 0, !0, !0, 0),
];

impl Cpu {
    pub(super) fn create(kvm: &Kvm, vm: &VmFd) -> Result<Self, KvmError> {
        let mut fd = vm.create_vcpu(0).map_err(failed("KVM_CREATE_VCPU"))?;
        let cpuid =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("KVM_GET_SUPPORTED_CPUID"))?;
        fd.set_cpuid2(&cpuid).map_err(failed("KVM_SET_CPUID2"))?;
        let offered = cpuid.as_slice().iter().find(|e| e.function == 0xd && e.index == 0);
        let xcr0 = offered.map_or(3, |e| (u64::from(e.edx) << 32 | u64::from(e.eax)) & XCR0_WANTED);
        let xsave_bytes = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0).max(4096);
        let mirrors = kvm.check_extension_int(Cap::SyncRegs) & SyncReg::Register as i32 != 0;
        if mirrors {
            fd.set_sync_valid_reg(SyncReg::Register);
        }
        let cpu = Self { fd, cpuid, xcr0, xsave_bytes, mirrors, mirrored: false };
        cpu.use_host_tsc()?;
        Ok(cpu)
    }

    /// Makes the guest's time stamp counter the host's, so that the time page is right whether or not this kind of KVM
    /// can offset it (`docs/decisions/0003-time.md`).
    fn use_host_tsc(&self) -> Result<(), KvmError> {
        let offset = 0u64;
        let attribute = kvm_device_attr {
            group: KVM_VCPU_TSC_CTRL,
            attr: u64::from(KVM_VCPU_TSC_OFFSET),
            addr: &raw const offset as u64,
            flags: 0,
        };
        // SAFETY: the attribute points to `offset`, which outlives both calls.
        let result = unsafe {
            match ioctl_with_ref(&self.fd, KVM_HAS_DEVICE_ATTR(), &attribute) {
                0 => ioctl_with_ref(&self.fd, KVM_SET_DEVICE_ATTR(), &attribute),
                _ => return self.set_msrs(&[(MSR_TSC, crate::clock::time_stamp())]),
            }
        };
        match result {
            0 => Ok(()),
            _ => Err(failed("KVM_SET_DEVICE_ATTR(TSC_OFFSET)")(kvm_ioctls::Error::last())),
        }
    }

    /// Puts the processor at the first instruction of a program, at CPL 3.
    pub fn start(&mut self, entry: u64, stack: u64, root: u64) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        let segment = |selector: u16, type_: u8, long: u8, big: u8| kvm_segment {
            limit: 0xffff_ffff,
            selector,
            type_,
            present: 1,
            dpl: 3,
            s: 1,
            l: long,
            db: big,
            g: 1,
            ..Default::default()
        };
        sregs.cs = segment(stub::USER_CODE_SELECTOR, 11, 1, 0);
        let data = segment(stub::USER_DATA_SELECTOR, 3, 0, 1);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.tr = kvm_segment {
            base: stub::TSS_ADDRESS,
            limit: stub::TSS_LIMIT,
            selector: stub::TSS_SELECTOR,
            type_: 11,
            present: 1,
            ..Default::default()
        };
        (sregs.gdt.base, sregs.gdt.limit) = (stub::GDT_ADDRESS, stub::GDT_LIMIT);
        (sregs.idt.base, sregs.idt.limit) = (stub::IDT_ADDRESS, stub::IDT_LIMIT);
        sregs.cr0 = CR0;
        sregs.cr3 = root;
        sregs.cr4 = CR4 | CR4_OSXSAVE | if self.has_fsgsbase() { CR4_FSGSBASE } else { 0 };
        sregs.efer = EFER;
        self.fd.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))?;
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        xcrs.xcrs[0].value = self.xcr0;
        self.fd.set_xcrs(&xcrs).map_err(failed("KVM_SET_XCRS"))?;
        self.set_msrs(&[
            (MSR_STAR, stub::STAR),
            (MSR_LSTAR, partita_abi::CALL_ENTRY),
            (MSR_SYSCALL_MASK, SYSCALL_MASK),
        ])?;
        let regs = kvm_regs { rip: entry, rsp: stack, rflags: RFLAGS_START, ..Default::default() };
        self.set_regs(&regs)
    }

    fn has_fsgsbase(&self) -> bool {
        self.cpuid.as_slice().iter().any(|e| e.function == 7 && e.index == 0 && e.ebx & 1 != 0)
    }

    /// What a program may have found out about this processor.
    pub fn features(&self) -> Features {
        let find =
            |leaf, sub| self.cpuid.as_slice().iter().find(move |e| e.function == leaf && e.index == sub);
        Features {
            vendor: find(0, 0).map_or([0; 3], |e| [e.ebx, e.ecx, e.edx]),
            leaves: FEATURE_LEAVES
                .iter()
                .filter_map(|(leaf, sub, ecx, edx, ebx)| {
                    find(*leaf, *sub).map(|e| (*leaf, *sub, e.ecx & ecx, e.edx & edx, e.ebx & ebx))
                })
                .collect(),
            xcr0: self.xcr0,
        }
    }

    /// Frequency of the time stamp counter in kHz, if KVM knows it.
    pub fn tsc_khz(&self) -> Option<u64> {
        self.fd.get_tsc_khz().ok().filter(|khz| *khz > 0).map(u64::from)
    }

    /// Runs until the next exit.
    pub fn run(&mut self) -> Result<VcpuExit<'_>, kvm_ioctls::Error> {
        self.mirrored = self.mirrors;
        self.fd.run()
    }

    /// The flag that makes the next (or the current) entry return at once. The pointer is for a signal handler on the
    /// thread that owns this processor; it is valid as long as the processor.
    pub fn immediate_exit(&mut self) -> *const AtomicBool {
        let run = self.fd.get_kvm_run();
        (&raw const run.immediate_exit).cast()
    }

    /// Finishes an instruction whose exit was served: one entry that comes back before anything else is executed.
    pub fn complete(&mut self) -> Result<(), KvmError> {
        let flag = self.immediate_exit();
        // SAFETY: the flag lives in the mapped run structure of this very processor.
        unsafe { (*flag).store(true, Ordering::SeqCst) };
        let result = self.run().map(|_| ());
        // SAFETY: as above.
        unsafe { (*flag).store(false, Ordering::SeqCst) };
        match result {
            Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => Ok(()),
            Ok(()) => Ok(()),
            Err(error) => Err(failed("KVM_RUN")(error)),
        }
    }

    /// General registers.
    pub fn regs(&self) -> Result<kvm_regs, KvmError> {
        if self.mirrored {
            return Ok(self.fd.sync_regs().regs);
        }
        self.fd.get_regs().map_err(failed("KVM_GET_REGS"))
    }

    /// Sets the general registers, with the next run at the latest.
    pub fn set_regs(&mut self, regs: &kvm_regs) -> Result<(), KvmError> {
        if self.mirrored {
            self.fd.sync_regs_mut().regs = *regs;
            self.fd.set_sync_dirty_reg(SyncReg::Register);
            return Ok(());
        }
        self.fd.set_regs(regs).map_err(failed("KVM_SET_REGS"))
    }

    /// The address of the last page fault.
    pub fn fault_address(&self) -> Result<u64, KvmError> {
        Ok(self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?.cr2)
    }

    /// Sets the FS or GS base (`arch_prctl`).
    pub fn set_segment_base(&self, gs: bool, base: u64) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        if gs {
            sregs.gs.base = base
        } else {
            sregs.fs.base = base
        }
        self.fd.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))
    }

    /// The FS or GS base.
    pub fn segment_base(&self, gs: bool) -> Result<u64, KvmError> {
        let sregs = self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        Ok(if gs { sregs.gs.base } else { sregs.fs.base })
    }

    /// Loads another top-level page table, which flushes every translation.
    pub fn set_root(&self, root: u64) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        sregs.cr3 = root;
        self.fd.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))
    }

    fn set_msrs(&self, values: &[(u32, u64)]) -> Result<(), KvmError> {
        let entries: Vec<kvm_msr_entry> = values
            .iter()
            .map(|(index, data)| kvm_msr_entry { index: *index, data: *data, ..Default::default() })
            .collect();
        let msrs = Msrs::from_entries(&entries).map_err(|_| KvmError::Missing("room for four registers"))?;
        let done = self.fd.set_msrs(&msrs).map_err(failed("KVM_SET_MSRS"))?;
        if done == values.len() {
            Ok(())
        } else {
            Err(KvmError::Msrs { what: "set", done, wanted: values.len() })
        }
    }

    fn get_msrs(&self) -> Result<Vec<(u32, u64)>, KvmError> {
        let entries = SAVED_MSRS.map(|index| kvm_msr_entry { index, ..Default::default() });
        let mut msrs =
            Msrs::from_entries(&entries).map_err(|_| KvmError::Missing("room for four registers"))?;
        let done = self.fd.get_msrs(&mut msrs).map_err(failed("KVM_GET_MSRS"))?;
        if done != entries.len() {
            return Err(KvmError::Msrs { what: "read", done, wanted: entries.len() });
        }
        Ok(msrs.as_slice().iter().map(|e| (e.index, e.data)).collect())
    }

    fn get_xsave(&self) -> Result<Vec<u32>, KvmError> {
        let extra = (self.xsave_bytes - 4096).div_ceil(4);
        let mut xsave = Xsave::new(extra).map_err(|_| KvmError::Missing("room for the XSAVE area"))?;
        if extra == 0 {
            return Ok(self.fd.get_xsave().map_err(failed("KVM_GET_XSAVE"))?.region.to_vec());
        }
        // SAFETY: the structure has room for KVM_CAP_XSAVE2 bytes, as asked of this VM.
        unsafe { self.fd.get_xsave2(&mut xsave) }.map_err(failed("KVM_GET_XSAVE2"))?;
        let mut words = xsave.as_fam_struct_ref().xsave.region.to_vec();
        words.extend_from_slice(xsave.as_slice());
        Ok(words)
    }

    fn set_xsave(&self, words: &[u32]) -> Result<(), KvmError> {
        let too_short = KvmError::Missing("extended state of this size");
        let (fixed, extra) = words.split_at_checked(1024).ok_or(too_short)?;
        let region: [u32; 1024] =
            fixed.try_into().map_err(|_| KvmError::Missing("extended state of this size"))?;
        let base = kvm_xsave { region, ..Default::default() };
        if extra.is_empty() {
            // SAFETY: `base` is a whole `kvm_xsave`; without enabled dynamic features KVM reads no more than that.
            return unsafe { self.fd.set_xsave(&base) }.map_err(failed("KVM_SET_XSAVE"));
        }
        if 4096 + 4 * extra.len() > self.xsave_bytes {
            return Err(KvmError::Missing("extended state of this size"));
        }
        let mut xsave = Xsave::new(self.xsave_bytes.div_ceil(4) - 1024)
            .map_err(|_| KvmError::Missing("room for the XSAVE area"))?;
        xsave.as_mut_slice()[..extra.len()].copy_from_slice(extra);
        // SAFETY: only the plain-data head is replaced; the flexible array keeps its length field.
        unsafe {
            *xsave.as_mut_fam_struct() = kvm_xsave2 { len: xsave.as_fam_struct_ref().len, xsave: base }
        };
        // SAFETY: the structure has room for KVM_CAP_XSAVE2 bytes, as asked of this VM.
        unsafe { self.fd.set_xsave2(&xsave) }.map_err(failed("KVM_SET_XSAVE"))
    }

    /// Everything that moves. The processor must be stopped and its last exit completed.
    pub fn save(&self) -> Result<CpuState, KvmError> {
        Ok(CpuState {
            regs: self.regs()?,
            sregs: self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?,
            xcrs: self.fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))?,
            xsave: self.get_xsave()?,
            msrs: self.get_msrs()?,
            events: self.fd.get_vcpu_events().map_err(failed("KVM_GET_VCPU_EVENTS"))?,
            debug: self.fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?,
            mp_state: self.fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?.mp_state,
        })
    }

    /// Sets a saved state. XSAVE comes after XCR0, which decides what it may hold.
    pub fn restore(&mut self, state: &CpuState) -> Result<(), KvmError> {
        self.fd.set_sregs(&state.sregs).map_err(failed("KVM_SET_SREGS"))?;
        self.fd.set_xcrs(&state.xcrs).map_err(failed("KVM_SET_XCRS"))?;
        self.set_xsave(&state.xsave)?;
        let known: Vec<(u32, u64)> =
            state.msrs.iter().copied().filter(|m| SAVED_MSRS.contains(&m.0)).collect();
        self.set_msrs(&known)?;
        self.fd.set_vcpu_events(&state.events).map_err(failed("KVM_SET_VCPU_EVENTS"))?;
        self.fd.set_debug_regs(&state.debug).map_err(failed("KVM_SET_DEBUGREGS"))?;
        // Without an in-kernel interrupt controller some hosts take only "runnable", which it is anyway.
        let _ = self.fd.set_mp_state(kvm_mp_state { mp_state: state.mp_state });
        self.set_regs(&state.regs)
    }
}

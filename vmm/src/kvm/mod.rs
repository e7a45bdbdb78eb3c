//! KVM: the virtual machine, its memory slots and its dirty log. Processor state is in [`cpu`].
//!
//! Capabilities are asked for, never assumed: nothing here needs VT-x, SVM or nested state, and a host without manual
//! dirty-log protection is served too, only less precisely.

mod calls;
pub mod cpu;

use std::io;
use std::sync::Arc;

use kvm_bindings::{
    KVM_API_VERSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_INITIALLY_SET, KVM_MEM_LOG_DIRTY_PAGES,
    kvm_clear_dirty_log, kvm_clear_dirty_log__bindgen_ty_1, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VmFd};
use thiserror::Error;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;

use crate::memory::{FILES, Memory, PAGES_PER_WORD};
use calls::KVM_CLEAR_DIRTY_LOG;
use cpu::Cpu;

/// What KVM refused.
#[derive(Debug, Error)]
pub enum KvmError {
    /// There is no KVM here, or no right to use it.
    #[error("cannot open /dev/kvm: {hint}")]
    Open {
        /// What to do.
        hint: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The kernel's KVM is too old or lacks something essential.
    #[error("this kernel's KVM has no {0}; Partita needs Linux 5.10 or newer")]
    Missing(&'static str),
    /// A call failed.
    #[error("KVM: {call} failed")]
    Call {
        /// Name of the ioctl.
        call: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Model-specific registers could not all be read or set.
    #[error("KVM: only {done} of {wanted} model-specific registers were {what}")]
    Msrs {
        /// "read" or "set".
        what: &'static str,
        /// How many were done.
        done: usize,
        /// How many were meant.
        wanted: usize,
    },
}

pub(crate) fn failed(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Call { call, source: io::Error::from_raw_os_error(error.errno()) }
}

/// One virtual machine with its memory slots; the processor is [`Cpu`].
pub struct Machine {
    vm: Arc<VmFd>,
    slots: Vec<kvm_userspace_memory_region>,
    manual_protect: bool,
}

/// A machine and its one processor, both new.
pub struct Parts {
    /// Memory slots and dirty log; shared between threads.
    pub machine: Machine,
    /// The processor; belongs to one thread.
    pub cpu: Cpu,
}

fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| {
        let source = io::Error::from_raw_os_error(error.errno());
        let hint = match source.kind() {
            io::ErrorKind::NotFound => {
                "this machine has no KVM; load the kernel module of your processor (kvm_intel, kvm_amd), or enable \
                 virtualisation in its firmware"
            }
            io::ErrorKind::PermissionDenied => {
                "permission denied; add yourself to the group that owns it: usermod -aG kvm USER"
            }
            _ => "see the cause",
        };
        KvmError::Open { hint, source }
    })?;
    if kvm.get_api_version() != KVM_API_VERSION as i32 {
        return Err(KvmError::Missing("API version 12"));
    }
    for (cap, name) in [
        (Cap::UserMemory, "user memory"),
        (Cap::ImmediateExit, "immediate exit"),
        (Cap::Ioeventfd, "ioeventfd"),
        (Cap::Xsave, "XSAVE state"),
        (Cap::Xcrs, "extended control registers"),
        (Cap::VcpuEvents, "vCPU events"),
    ] {
        if !kvm.check_extension(cap) {
            return Err(KvmError::Missing(name));
        }
    }
    Ok(kvm)
}

/// Whether machines can be made here; an error says what is wrong.
pub fn check() -> Result<(), KvmError> {
    open().map(drop)
}

impl Machine {
    /// Makes a machine over `memory`, which must outlive it (the caller keeps both in one place).
    pub fn create(memory: &Memory) -> Result<Parts, KvmError> {
        let kvm = open()?;
        let vm = create_vm(&kvm)?;
        let manual = vm.check_extension_raw(u64::from(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2));
        let manual_protect = manual > 0;
        if manual_protect {
            // Bit 0 enables manual protection, bit 1 starts with every page dirty (no pass over the tables).
            let wanted = (manual as u64) & u64::from(1 | KVM_DIRTY_LOG_INITIALLY_SET);
            let cap = kvm_enable_cap {
                cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                args: [wanted, 0, 0, 0],
                ..Default::default()
            };
            vm.enable_cap(&cap).map_err(failed("KVM_ENABLE_CAP(MANUAL_DIRTY_LOG_PROTECT2)"))?;
        }
        let mut slots = Vec::new();
        for (slot, (address, bytes, host)) in memory.regions().into_iter().take(FILES).enumerate() {
            slots.push(kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: address,
                memory_size: bytes,
                userspace_addr: host,
            });
        }
        let machine = Self { vm: Arc::new(vm), slots, manual_protect };
        for slot in &machine.slots {
            machine.set_slot(*slot)?;
        }
        let cpu = Cpu::create(&kvm, &machine.vm)?;
        Ok(Parts { machine, cpu })
    }

    fn set_slot(&self, slot: kvm_userspace_memory_region) -> Result<(), KvmError> {
        // SAFETY: the slot describes a mapping owned by `Memory`, which lives at least as long as this machine
        // (`Partition` owns both and drops the machine first).
        unsafe { self.vm.set_user_memory_region(slot) }.map_err(failed("KVM_SET_USER_MEMORY_REGION"))
    }

    /// Its doorbells.
    pub fn doorbells(&self) -> Doorbells {
        Doorbells(self.vm.clone())
    }

    /// Switches dirty tracking of all slots on or off. When it goes on, every page counts as dirty.
    pub fn set_tracking(&self, on: bool) -> Result<(), KvmError> {
        for slot in &self.slots {
            let flags = if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
            self.set_slot(kvm_userspace_memory_region { flags, ..*slot })?;
        }
        Ok(())
    }

    /// Whether [`Machine::clear_dirty`] is needed after [`Machine::dirty`] (otherwise `dirty` clears).
    pub fn clears_by_hand(&self) -> bool {
        self.manual_protect
    }

    /// The pages of slot `index` that the processor wrote, 64 a word.
    pub fn dirty(&self, index: usize) -> Result<Vec<u64>, KvmError> {
        // The guest does not write the file area.
        let Some(slot) = self.slots.get(index) else { return Ok(Vec::new()) };
        loop {
            match self.vm.get_dirty_log(slot.slot, slot.memory_size as usize) {
                Err(error) if retry(&error) => {}
                result => return result.map_err(failed("KVM_GET_DIRTY_LOG")),
            }
        }
    }

    /// Makes the pages set in `bitmap` clean and write-protected again; `first_page` is a multiple of 64.
    pub fn clear_dirty(&self, index: usize, first_page: u64, bitmap: &[u64]) -> Result<(), KvmError> {
        let Some(slot) = self.slots.get(index) else { return Ok(()) };
        if !self.manual_protect || bitmap.is_empty() {
            return Ok(());
        }
        let pages = slot.memory_size / 4096;
        assert!(
            first_page.is_multiple_of(PAGES_PER_WORD) && first_page < pages,
            "our own chunks are aligned"
        );
        let mut bits = bitmap.to_vec();
        let mut request = kvm_clear_dirty_log {
            slot: slot.slot,
            num_pages: (pages - first_page).min(PAGES_PER_WORD * bits.len() as u64) as u32,
            first_page,
            __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 { dirty_bitmap: bits.as_mut_ptr().cast() },
        };
        loop {
            // SAFETY: the request points to `bits`, which covers `num_pages` bits and outlives the call.
            let result = unsafe { ioctl_with_mut_ref(&self.vm, KVM_CLEAR_DIRTY_LOG(), &mut request) };
            if result == 0 {
                return Ok(());
            }
            let error = kvm_ioctls::Error::last();
            if !retry(&error) {
                return Err(failed("KVM_CLEAR_DIRTY_LOG")(error));
            }
        }
    }
}

/// Guest-physical addresses whose stores become events; may outlive the [`Machine`].
#[derive(Clone)]
pub struct Doorbells(Arc<VmFd>);

impl Doorbells {
    /// Signals `event` on every store to guest-physical `address`.
    pub fn register(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
        // Any length, any value: the cheapest kind of ioeventfd where the kernel offers it.
        self.0
            .register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(failed("KVM_IOEVENTFD"))
    }

    /// Ends what [`Doorbells::register`] began with the same event and address.
    pub fn unregister(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
        self.0
            .unregister_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(failed("KVM_IOEVENTFD"))
    }
}

fn retry(error: &kvm_ioctls::Error) -> bool {
    matches!(error.errno(), libc::EINTR | libc::EAGAIN)
}

/// `KVM_CREATE_VM` may be interrupted by a signal.
fn create_vm(kvm: &Kvm) -> Result<VmFd, KvmError> {
    loop {
        match kvm.create_vm() {
            Err(error) if retry(&error) => {}
            result => return result.map_err(failed("KVM_CREATE_VM")),
        }
    }
}

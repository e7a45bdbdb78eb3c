//! KVM calls that `kvm-ioctls` does not wrap for x86-64 (numbers from the kernel's `linux/kvm.h`).
#![allow(missing_docs)] // the macros make functions that cannot carry a comment

use kvm_bindings::{kvm_clear_dirty_log, kvm_device_attr};
use vmm_sys_util::{ioctl_iow_nr, ioctl_iowr_nr};

const KVM_IO: u32 = 0xAE;

ioctl_iowr_nr!(KVM_CLEAR_DIRTY_LOG, KVM_IO, 0xc0, kvm_clear_dirty_log);
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVM_IO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_HAS_DEVICE_ATTR, KVM_IO, 0xe3, kvm_device_attr);

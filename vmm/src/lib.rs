//! The virtual machine monitor of one partition.

pub mod clock;
pub mod console;
pub mod counters;
pub mod elf;
pub mod fabric;
pub mod fault;
pub mod kvm;
pub mod linux;
pub mod loader;
pub mod memory;
pub mod paging;
pub mod partition;
pub mod space;
pub mod throttle;
pub mod units;
pub mod vcpu;

//! What a measurement depends on besides the programs: this machine and what it does meanwhile.

use std::fs::{self, OpenOptions};

use serde::Serialize;

use crate::{Result, is_emulated};

/// Where partitions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kvm {
    /// `/dev/kvm` of this machine.
    Hardware,
    /// That of the emulated machine: times mean nothing.
    Emulated,
    /// Nowhere.
    None,
}

impl Kvm {
    /// That of this machine.
    pub fn here() -> Self {
        match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            Err(_) => Self::None,
            Ok(_) if is_emulated() => Self::Emulated,
            Ok(_) => Self::Hardware,
        }
    }
}

/// This machine.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub processors: usize,
    /// Of the first processor, as the kernel says.
    pub model: String,
    /// Version.
    pub kernel: String,
    /// Where partitions run.
    pub kvm: Kvm,
    /// Which of the flags vmx, svm (it can have VMs) and hypervisor (it is one itself) its processors have.
    pub flags: Vec<&'static str>,
}

impl Machine {
    /// As it is.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let information = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = information.lines().find(|line| line.starts_with(name));
            line.and_then(|line| Some(line.split_once(':')?.1.trim())).unwrap_or_default()
        };
        let has = |flag: &&str| field("flags").split_whitespace().any(|it| it == *flag);
        Self {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            model: field("model name").to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            kvm: Kvm::here(),
            flags: ["vmx", "svm", "hypervisor"].into_iter().filter(has).collect(),
        }
    }
}

/// Load average of the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// The two of `--processors A,B`.
pub fn two_processors(given: &[u16]) -> Result<[u16; 2]> {
    given.try_into().map_err(|_| "--processors wants two numbers, for example 0,1".into())
}

//! `--report`: what one rank did, as JSON.

use std::path::Path;

use serde::Serialize;
use vmm::partition::Partition;

use crate::cli::Failure;

#[derive(Serialize)]
struct Report {
    rank: u32,
    /// From the entry of the vmm's main function to the first instruction of the program.
    boot_us: u64,
    run_s: f64,
    wait_s: f64,
    exits: u64,
    syscalls: u64,
    bytes_sent: u64,
    bytes_received: u64,
    vmm_rss_kib: u64,
    migrations: u64,
    blackout_ms: f64,
}

/// Writes the report of a partition that has ended (or left) to `path`.
pub fn write(path: &Path, partition: &Partition, boot_ns: u64) -> Result<(), Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::failed(format!("--report {}: {e}", path.display()));
    let counters = partition.saved_counters().map_err(|e| fail(&e))?;
    let traffic = partition.traffic().map_err(|e| fail(&e))?;
    let report = Report {
        rank: partition.name().rank,
        boot_us: boot_ns / 1000,
        run_s: counters.run_ns as f64 / 1e9,
        wait_s: counters.wait_ns as f64 / 1e9,
        exits: counters.exits.iter().sum(),
        syscalls: counters.syscalls,
        bytes_sent: traffic.iter().map(|t| t.bytes_sent).sum(),
        bytes_received: traffic.iter().map(|t| t.bytes_received).sum(),
        vmm_rss_kib: overhead_kib(partition),
        migrations: counters.migrations,
        blackout_ms: counters.blackout_ns as f64 / 1e6,
    };
    let text = serde_json::to_string_pretty(&report).map_err(|e| fail(&e))?;
    std::fs::write(path, text + "\n").map_err(|e| fail(&e))
}

/// Resident memory of this process that is not the guest's, in KiB, from `/proc/self/smaps`; 0 where that is missing.
pub fn overhead_kib(partition: &Partition) -> u64 {
    let guest: Vec<(u64, u64)> =
        partition.memory().regions().into_iter().map(|(_, bytes, host)| (host, host + bytes)).collect();
    let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else { return 0 };
    let mut kib = 0;
    let mut is_guest = false;
    for line in maps.lines() {
        if let Some(rss) = line.strip_prefix("Rss:") {
            let value: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            kib += if is_guest { 0 } else { value };
        } else if let Some((start, _)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
            let start = u64::from_str_radix(start, 16).unwrap_or(0);
            is_guest = guest.iter().any(|(from, to)| (*from..*to).contains(&start));
        }
    }
    kib
}

/// Resident memory of this process, guest included, in KiB.
pub fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4
}

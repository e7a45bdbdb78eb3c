//! Two hosts on this machine: network namespaces joined by a veth pair.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;

/// Names begin so; the process id follows, then `a` or `b`.
const PREFIX: &str = "partita-messages-";
/// The interface of either side.
const DEVICE: &str = "link0";
const ADDRESSES: [&str; 2] = ["10.213.78.1", "10.213.78.2"];

/// The namespaces. They are removed when this is dropped; those of a process that was killed, when the next one makes some.
#[derive(Debug)]
pub struct Namespaces {
    names: [String; 2],
}

/// Runs `ip`; an error has its last line.
fn ip(arguments: &[&str]) -> Result {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("cannot start ip: {e}; install iproute2 (make deps does)"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(format!("ip {}: {}", arguments.join(" "), said.trim()).into())
}

impl Namespaces {
    /// Both, with a link between them.
    pub fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err("only root may make network namespaces: run it as root, or without hosts".into());
        }
        remove_stale();
        let names = ["a", "b"].map(|side| format!("{PREFIX}{}{side}", std::process::id()));
        // From here on whatever exists is removed when `made` is dropped.
        let made = Self { names };
        let [a, b] = &made.names;
        for name in [a, b] {
            ip(&["netns", "add", name]).map_err(|e| format!("no network namespaces here: {e}"))?;
        }
        ip(&["-n", a, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", b])?;
        for (name, address) in [a, b].into_iter().zip(ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/30"), "dev", DEVICE])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", DEVICE, "up"])?;
        }
        Ok(made)
    }

    /// Makes `command`, which starts `ip` and has no arguments yet, run `program` on host 0 or 1. It becomes that program's process.
    pub fn enter(&self, host: usize, mut command: Command, program: &Path) -> Command {
        command.args(["netns", "exec", &self.names[host.min(1)]]).arg(program);
        command
    }

    /// Address of host 0 or 1.
    pub fn address(&self, host: usize) -> &'static str {
        ADDRESSES[host.min(1)]
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // The link goes with either of them.
            if Path::new("/run/netns").join(name).exists() {
                let _ = ip(&["netns", "delete", name]);
            }
        }
    }
}

/// Those of a process that is gone; what has our id is of one that had it before us.
fn remove_stale() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.get(..rest.len().saturating_sub(1)));
        if let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok())
            && (pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists())
        {
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_joined_and_removed_also_those_of_a_process_that_is_gone() {
        // No process has this id.
        let stale = format!("{PREFIX}4194999a");
        if !nix::unistd::geteuid().is_root() || ip(&["netns", "add", &stale]).is_err() {
            eprintln!("not run: no right to make network namespaces");
            return;
        }
        let exists = |name: &str| Path::new("/run/netns").join(name).exists();
        let made = Namespaces::new().unwrap();
        assert!(!exists(&stale));
        let names = made.names.clone();
        let mut command = made.enter(0, Command::new("ip"), Path::new("ip"));
        let output = command.args(["-o", "address"]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains(made.address(0)));
        drop(made);
        assert!(!names.iter().any(|name| exists(name)));
    }
}

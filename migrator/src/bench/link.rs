//! Two hosts on this machine: network namespaces joined by a link of a given rate, or none and the loopback.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::BenchError;
use super::processes::{self, Process};

/// Names of our namespaces begin so; the process id follows, then `a` or `b`.
const PREFIX: &str = "partita-bench-";
/// The interface of either side, in its own namespace.
const DEVICE: &str = "link0";
const ADDRESSES: [&str; 2] = ["10.213.77.1", "10.213.77.2"];
const IPERF_SECONDS: u32 = 3;

/// Rate of a link, as `tc` writes it: `10gbit`, `500mbit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    bits_per_s: u64,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000)];
        let read = |(unit, factor): &(&str, u64)| {
            let number: u64 = text.to_ascii_lowercase().strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(*factor).filter(|bits| (100_000..=1_000_000_000_000).contains(bits))
        };
        let bits_per_s = units.iter().find_map(read);
        let bits_per_s = bits_per_s.ok_or("write a rate like 10gbit or 500mbit, from 100kbit to 1000gbit")?;
        Ok(Self { bits_per_s })
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits_per_s {
            bits if bits % 1_000_000_000 == 0 => write!(f, "{}gbit", bits / 1_000_000_000),
            bits if bits % 1_000_000 == 0 => write!(f, "{}mbit", bits / 1_000_000),
            bits => write!(f, "{}kbit", bits / 1_000),
        }
    }
}

/// The two hosts between which things move.
#[derive(Debug)]
pub struct Hosts {
    namespaces: Option<[String; 2]>,
}

/// Runs a tool to its end; an error has its last line.
fn tool(program: &str, arguments: &[&str]) -> Result<String, BenchError> {
    let remedy = "install it: iproute2 has ip and tc, iperf3 has iperf3 (tests/deps.sh names what is needed)";
    let failed = |source| BenchError::Start { program: program.to_owned(), remedy, source };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(BenchError::Tool {
        command: format!("{program} {}", arguments.join(" ")),
        said: said.trim().to_owned(),
    })
}

impl Hosts {
    /// Both are this machine.
    pub fn loopback() -> Self {
        Self { namespaces: None }
    }

    /// Two namespaces and a link of `rate` between them, each way.
    ///
    /// # Errors
    /// Not root, or `ip` or `tc` is missing or fails.
    pub fn linked(rate: Rate) -> Result<Self, BenchError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(BenchError::Usage(
                "--link makes network namespaces, which only root may: run it as root, or without --link"
                    .into(),
            ));
        }
        remove_stale();
        let names = ["a", "b"].map(|side| format!("{PREFIX}{}{side}", std::process::id()));
        // From here on whatever exists is removed when `hosts` is dropped.
        let hosts = Self { namespaces: Some(names.clone()) };
        let [a, b] = [&names[0], &names[1]];
        tool("ip", &["netns", "add", a])?;
        tool("ip", &["netns", "add", b])?;
        tool("ip", &["-n", a, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", b])?;
        // A bucket of 5 ms, so that coarse kernel timers do not lower the rate.
        let burst = (rate.bits_per_s / 8 / 200).max(128 << 10).to_string();
        let bits = format!("{}bit", rate.bits_per_s);
        for (name, address) in [a, b].into_iter().zip(ADDRESSES) {
            tool("ip", &["-n", name, "address", "add", &format!("{address}/30"), "dev", DEVICE])?;
            tool("ip", &["-n", name, "link", "set", "lo", "up"])?;
            tool("ip", &["-n", name, "link", "set", DEVICE, "up"])?;
            let shape = ["root", "tbf", "rate", &bits, "burst", &burst, "latency", "20ms"];
            tool("tc", &[&["-n", name, "qdisc", "add", "dev", DEVICE], &shape[..]].concat())?;
        }
        Ok(hosts)
    }

    /// A command that runs on host 0 or 1.
    pub fn command(&self, host: usize, program: &Path) -> Command {
        match self.namespaces.as_ref().and_then(|names| names.get(host)) {
            None => Command::new(program),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
        }
    }

    /// Whether there is a network between them.
    pub fn are_linked(&self) -> bool {
        self.namespaces.is_some()
    }

    /// Address of host 0 or 1.
    pub fn address(&self, host: usize) -> &'static str {
        if self.are_linked() { ADDRESSES[host.min(1)] } else { "127.0.0.1" }
    }

    /// What iperf3 gets through one connection from host 0 to 1, bits per second; `None` without a link.
    ///
    /// # Errors
    /// iperf3 is missing or fails.
    pub fn iperf3(&self, log: &Path) -> Result<Option<f64>, BenchError> {
        let Some([a, _]) = &self.namespaces else { return Ok(None) };
        let mut command = self.command(1, Path::new("iperf3"));
        command.args(["-s", "-1", "-B", ADDRESSES[1]]).stdout(Stdio::null());
        let _server = Process::start(command, log, "install iperf3")?;
        let seconds = IPERF_SECONDS.to_string();
        let client = ["netns", "exec", a, "iperf3", "-c", ADDRESSES[1], "-t", &seconds, "-J"];
        // While the server is not there yet its answer is an error, whatever its status.
        let mut last = String::new();
        let bits = processes::wait_for(Duration::from_secs(10), || match tool("ip", &client) {
            Ok(answer) => {
                let bits = parse_iperf3(&answer);
                last = answer;
                bits
            }
            Err(error) => {
                last = error.to_string();
                None
            }
        })?;
        bits.map(Some).ok_or_else(|| BenchError::Tool {
            command: "iperf3".to_owned(),
            said: last.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect(),
        })
    }
}

fn parse_iperf3(answer: &str) -> Option<f64> {
    let answer: serde_json::Value = serde_json::from_str(answer).ok()?;
    answer["end"]["sum_received"]["bits_per_second"].as_f64()
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.namespaces.iter().flatten() {
            // The link goes with either of them.
            let _ = tool("ip", &["netns", "delete", name]);
        }
    }
}

/// Namespaces of a bench that was killed; what has our id is of one that had it before us.
fn remove_stale() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.get(..rest.len().saturating_sub(1)));
        if let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok())
            && (pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists())
        {
            let _ = tool("ip", &["netns", "delete", &name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_or_refused() {
        for (text, bits) in [("10gbit", 10_000_000_000), ("500Mbit", 500_000_000), ("100kbit", 100_000)] {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.bits_per_s), Ok(bits));
        }
        assert_eq!("2500mbit".parse::<Rate>().unwrap().to_string(), "2500mbit");
        for text in ["", "10", "gbit", "-1gbit", "1bit", "10 gbit", "99999999999gbit", "1001gbit"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_answer_of_iperf3_is_understood() {
        let answer = r#"{"end": {"sum_received": {"bits_per_second": 9.05e9}}}"#;
        assert_eq!(parse_iperf3(answer), Some(9.05e9));
        assert_eq!(parse_iperf3("{}"), None);
        assert_eq!(parse_iperf3("iperf3: error"), None);
    }

    fn exists(name: &str) -> bool {
        Path::new("/run/netns").join(name).exists()
    }

    #[test]
    fn namespaces_are_made_and_removed_and_only_root_may() {
        let rate: Rate = "1gbit".parse().unwrap();
        if !nix::unistd::geteuid().is_root() {
            assert_eq!(Hosts::linked(rate).unwrap_err().status(), 2);
            return;
        }
        // Namespaces of a process that is gone are removed, also if it had our id; not those of one that lives.
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let [stale, ours, others] = [gone.id(), std::process::id(), std::os::unix::process::parent_id()]
            .map(|pid| format!("{PREFIX}{pid}b"));
        if tool("ip", &["netns", "add", &stale]).is_err() {
            eprintln!("not run: this root may not make network namespaces");
            return;
        }
        tool("ip", &["netns", "add", &ours]).unwrap();
        tool("ip", &["netns", "add", &others]).unwrap();
        let hosts = match Hosts::linked(rate) {
            Ok(hosts) => hosts,
            Err(error) => {
                // No tbf in this kernel: still nothing may be left.
                eprintln!("no link: {error}");
                tool("ip", &["netns", "delete", &others]).unwrap();
                assert!(!exists(&ours));
                return;
            }
        };
        let others_stay = exists(&others);
        tool("ip", &["netns", "delete", &others]).unwrap();
        assert!(!exists(&stale) && others_stay);
        let names = hosts.namespaces.clone().unwrap();
        assert!(names.iter().all(|name| exists(name)));
        let output = hosts.command(0, Path::new("ip")).args(["-o", "address"]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains(hosts.address(0)));
        drop(hosts);
        assert!(!names.iter().any(|name| exists(name)));
    }
}

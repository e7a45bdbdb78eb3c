//! The same writer as a guest of QEMU (`tests/bench/pvh.c`), moved between two QEMU processes by QMP.

use std::io::PipeWriter;
use std::path::PathBuf;
use std::time::Duration;

use migrator::clock;
use serde_json::{Value, json};

use super::error::BenchError;
use super::observe::{self, Observation, Observer};
use super::processes::{self, Process};
use super::qmp::{Qmp, QmpError};
use super::record::{Moved, Reported};
use super::session::{START, Session, Setup};

const REMEDY: &str = "install Debian's qemu-system-x86, or give its path with --qemu";
/// No cap, as bytes per second: QEMU's own default of 128 MiB/s would be one.
const NO_CAP: u64 = 1 << 40;

/// One QEMU process.
struct Machine {
    qmp: Qmp,
    _process: Process,
}

/// A guest.
pub struct Qemu<'a> {
    setup: &'a Setup<'a>,
    number: u32,
    host: usize,
    machine: Machine,
    output: PipeWriter,
    observation: Observation,
    /// Its version, as it says.
    pub version: String,
}

fn failed(setup: &Setup, doing: &'static str) -> impl Fn(QmpError) -> BenchError {
    let log = setup.log();
    move |source| BenchError::Qemu { doing, said: processes::last_words(&log), source }
}

fn start(
    setup: &Setup,
    host: usize,
    socket: PathBuf,
    output: &PipeWriter,
    incoming: bool,
) -> Result<Machine, BenchError> {
    let case = setup.case;
    // `-arch-capabilities`: setting that register fails on some hosts, and the guest does not look at it.
    let cpu = if setup.accelerator == "kvm" { "host,-arch-capabilities" } else { "max" };
    let memory = format!("{}M", case.memory.bytes() >> 20);
    let mut command = setup.hosts.command(host, setup.qemu);
    command.args([
        "-accel",
        setup.accelerator,
        "-M",
        "microvm,rtc=on",
        "-cpu",
        cpu,
        "-smp",
        "1",
        "-m",
        &memory,
    ]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
    command.arg("-kernel").arg(setup.programs.join("pvh.elf")).arg("-append").arg(command_line(setup));
    if incoming {
        command.args(["-incoming", "defer"]);
    }
    let copy = output.try_clone().map_err(|source| BenchError::Write { path: socket.clone(), source })?;
    command.stdout(copy);
    let mut process = Process::start(command, &setup.log(), REMEDY)?;
    let connected = processes::wait_for(START, || match Qmp::connect(&socket) {
        Err(_) if !process.has_ended() => None,
        result => Some(result),
    })?;
    match connected {
        Some(Ok(qmp)) => Ok(Machine { qmp, _process: process }),
        _ => Err(BenchError::NotReady {
            who: format!("{} -accel {}", setup.qemu.display(), setup.accelerator),
            wanted: "ready",
            said: processes::last_words(&setup.log()),
        }),
    }
}

fn command_line(setup: &Setup) -> String {
    let case = setup.case;
    let (pages, rate, random) =
        (case.written_pages(), case.rate.pages_per_s(), u8::from(case.order.is_random()));
    format!("pages={pages} rate={rate} random={random} beat_us={}", case.beat_us)
}

impl<'a> Qemu<'a> {
    /// Starts the guest.
    ///
    /// # Errors
    /// QEMU does not start or does not answer.
    pub fn start(setup: &'a Setup<'a>, number: u32) -> Result<Self, BenchError> {
        let socket = setup.directory.join(format!("q{number}.sock"));
        let unusable = |source| BenchError::Write { path: socket.clone(), source };
        let (reader, output) = std::io::pipe().map_err(unusable)?;
        let (observation, _thread) = observe::start(Observer::Host, reader);
        let mut machine = start(setup, 0, socket, &output, false)?;
        let version =
            machine.qmp.execute("query-version", &Value::Null).map_err(failed(setup, "query-version"))?;
        let part = |name: &str| version["qemu"][name].as_u64().unwrap_or_default();
        let version = format!("{}.{}.{}", part("major"), part("minor"), part("micro"));
        Ok(Self { setup, number, host: 0, machine, output, observation, version })
    }
}

fn parameters(setup: &Setup) -> Value {
    json!({
        "downtime-limit": setup.case.downtime_limit_ms,
        "max-bandwidth": setup.case.bandwidth.map_or(NO_CAP, super::case::Size::bytes),
    })
}

/// Reads what `query-migrate` says about a migration that is complete.
fn reported(info: &Value) -> Reported {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let ram = &info["ram"];
    Reported {
        total_s: number(&info["total-time"]) * 1e-3,
        blackout_ms: number(&info["downtime"]),
        bytes: ram["transferred"].as_u64().unwrap_or_default(),
        round_count: ram["dirty-sync-count"].as_u64(),
        ..Reported::default()
    }
}

impl Session for Qemu<'_> {
    fn migrate(&mut self, run: u32) -> Result<Moved, BenchError> {
        let setup = self.setup;
        let limit = Duration::from_secs(setup.case.timeout_s);
        let to = if setup.hosts.are_linked() { 1 - self.host } else { 0 };
        let socket = setup.directory.join(format!("q{}-{run}.sock", self.number));
        let mut next = start(setup, to, socket, &self.output, true)?;
        let error = |doing| failed(setup, doing);
        let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        let parameters = parameters(setup);
        for qmp in [&mut next.qmp, &mut self.machine.qmp] {
            qmp.execute("migrate-set-capabilities", &events).map_err(error("migrate-set-capabilities"))?;
            qmp.execute("migrate-set-parameters", &parameters).map_err(error("migrate-set-parameters"))?;
        }
        let listen = json!({ "uri": format!("tcp:{}:0", setup.hosts.address(to)) });
        next.qmp.execute("migrate-incoming", &listen).map_err(error("migrate-incoming"))?;
        let info = next.qmp.execute("query-migrate", &Value::Null).map_err(error("query-migrate"))?;
        let port = info["socket-address"][0]["port"].as_str().unwrap_or_default().to_owned();
        let uri = json!({ "uri": format!("tcp:{}:{port}", setup.hosts.address(to)) });

        let begin_us = clock::realtime_us();
        self.machine.qmp.execute("migrate", &uri).map_err(error("migrate"))?;
        let left = self.machine.qmp.migrated(limit);
        processes::go_on()?;
        left.map_err(error("the migration"))?;
        // Complete for the source means that everything was sent.
        let runs = |event: &Value| (event["event"] == "RESUME").then_some(());
        next.qmp.event(limit, runs).map_err(error("the destination's resume"))?;
        let end_us = clock::realtime_us();

        let info = self.machine.qmp.execute("query-migrate", &Value::Null).map_err(error("query-migrate"))?;
        let _ = self.machine.qmp.execute("quit", &Value::Null);
        self.machine = next;
        self.host = to;
        Ok(Moved { begin_us, end_us, reported: reported(&info) })
    }

    fn observation(&self) -> &Observation {
        &self.observation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_reports_is_read() {
        let info = json!({
            "status": "completed", "total-time": 306, "downtime": 25, "setup-time": 2,
            "ram": { "transferred": 12345678, "dirty-sync-count": 4, "mbps": 1.5, "duplicate": 3 }
        });
        let report = reported(&info);
        assert_eq!((report.total_s, report.blackout_ms, report.bytes), (0.306, 25.0, 12_345_678));
        assert_eq!(report.round_count, Some(4));
        assert_eq!(reported(&Value::Null), Reported::default());
    }
}

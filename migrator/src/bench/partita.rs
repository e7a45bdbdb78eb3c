//! A partition that is moved between `vmm` processes, started as a user would.

use std::io::PipeWriter;
use std::path::{Path, PathBuf};

use migrator::clock;
use partita_http::{HttpError, Method, Request, ask_socket};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::case::Workload;
use super::error::BenchError;
use super::observe::{self, Observation, Observer};
use super::processes::{self, Process};
use super::record::{Moved, Reported};
use super::session::{START, Session, Setup};

const REMEDY: &str = "build it with `make build` and give its path with --vmm";
/// Ports from here on are for fabrics in the namespaces of a link.
const FABRIC_PORT: u16 = 20_000;
/// So many steps, that the stencil does not end by itself.
const STEPS: &str = "1000000000";
/// Steps between two reductions of the stencil.
const STEPS_BETWEEN_REDUCTIONS: &str = "1000";

/// An application of which one rank moves.
pub struct Partita<'a> {
    setup: &'a Setup<'a>,
    /// API of the moved rank's process.
    socket: PathBuf,
    /// The host it is on.
    host: usize,
    /// Processes of the application; the last one has the moved rank.
    processes: Vec<Process>,
    output: PipeWriter,
    observation: Observation,
}

impl<'a> Partita<'a> {
    /// Starts the application and waits until it runs.
    ///
    /// # Errors
    /// It cannot be started or does not answer.
    pub fn start(setup: &'a Setup<'a>, number: u32) -> Result<Self, BenchError> {
        let case = setup.case;
        let state = setup.directory.join(format!("p{number}"));
        let created = std::fs::create_dir(&state);
        created.map_err(|source| BenchError::Write { path: state.clone(), source })?;
        let mut command = setup.hosts.command(0, setup.vmm);
        command.args(["run", "--np", &case.ranks().to_string(), "--memory", &case.memory.to_string()]);
        command.arg("--state-dir").arg(&state).args(rings(setup));
        command.arg("--").arg(program(setup)).args(arguments(setup));
        let (reader, output) =
            std::io::pipe().map_err(|source| BenchError::Write { path: state.clone(), source })?;
        let copy = output.try_clone().map_err(|source| BenchError::Write { path: state.clone(), source })?;
        command.stdout(copy);
        let launcher = Process::start(command, &setup.log(), REMEDY)?;
        // The thread ends with the last process that has the other end.
        let (observation, _thread) = observe::start(case.observer(), reader);
        let mut partita = Self {
            setup,
            socket: state.join(format!("rank-{}.sock", case.rank)),
            host: 0,
            processes: vec![launcher],
            output,
            observation,
        };
        partita.await_state(&partita.socket.clone(), "running")?;
        Ok(partita)
    }

    /// Waits until the newest process is in state `wanted`; gives where it listens, if it does.
    fn await_state(&mut self, socket: &Path, wanted: &'static str) -> Result<String, BenchError> {
        let process = self.processes.last_mut();
        let mut ended = process.map(|process| move || process.has_ended());
        let found = processes::wait_for(START, || {
            let status = ask::<Value>(socket, Request::new(Method::GET, "/v1/status")).ok();
            let status = status.filter(|status| status["state"] == wanted);
            let listen = status.map(|status| status["listen"].as_str().unwrap_or_default().to_owned());
            match listen {
                None if ended.as_mut().is_some_and(|ended| ended()) => Some(None),
                None => None,
                listen => Some(listen),
            }
        })?;
        found.flatten().ok_or_else(|| BenchError::NotReady {
            who: socket.display().to_string(),
            wanted,
            said: processes::last_words(&self.setup.log()),
        })
    }
}

/// Asks a partition by its control socket, and waits as long as the answer takes.
fn ask<T: DeserializeOwned>(socket: &Path, request: Request) -> Result<T, HttpError> {
    partita_http::wait(ask_socket(socket, request))?.json()
}

/// Rings that two hosts would have.
fn rings(setup: &Setup) -> &'static [&'static str] {
    if setup.hosts.are_linked() { &["--rings", "proxied"] } else { &[] }
}

fn program(setup: &Setup) -> PathBuf {
    match (setup.case.workload(), &setup.case.elf) {
        (Workload::Elf, Some(path)) => path.clone(),
        (Workload::Stencil, _) => setup.programs.join("stencil"),
        _ => setup.programs.join("beat"),
    }
}

fn arguments(setup: &Setup) -> Vec<String> {
    let case = setup.case;
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match case.workload() {
        Workload::Elf => case.arguments.clone(),
        Workload::Stencil => {
            let size = case.size.to_string();
            text(&["--size", &size, "--steps", STEPS, "--every", STEPS_BETWEEN_REDUCTIONS])
        }
        Workload::Idle | Workload::Writer => {
            let (pages, rate) = (case.written_pages().to_string(), case.rate.pages_per_s().to_string());
            text(&[&pages, &rate, case.order.name(), &case.beat_us.to_string()])
        }
    }
}

impl Session for Partita<'_> {
    fn migrate(&mut self, run: u32) -> Result<Moved, BenchError> {
        let Setup { case, hosts, .. } = *self.setup;
        let to = if hosts.are_linked() { 1 - self.host } else { 0 };
        let next = self.setup.directory.join(format!("r{}-{run}.sock", self.processes.len()));
        let address = hosts.address(to);
        let mut command = hosts.command(to, self.setup.vmm);
        command.arg("receive").args(["--listen", &format!("tcp:{address}:0"), "--api-socket"]).arg(&next);
        command.args(rings(self.setup));
        if hosts.are_linked() {
            // Nobody else has ports in the namespace; a number that grows, because old connections linger.
            let port = FABRIC_PORT + run.min(10_000) as u16;
            command.args(["--fabric", &format!("tcp:{address}:{port}"), "--insecure"]);
        }
        let copy = self.output.try_clone();
        command.stdout(copy.map_err(|source| BenchError::Write { path: next.clone(), source })?);
        self.processes.push(Process::start(command, &self.setup.log(), REMEDY)?);
        let listen = self.await_state(&next, "waiting")?;
        let body = json!({
            "to": listen,
            "streams": case.streams,
            "bandwidth_bytes_per_s": case.bandwidth.map(super::case::Size::bytes),
            "downtime_limit_ms": case.downtime_limit_ms,
            "timeout_s": case.timeout_s,
            "on_timeout": case.on_timeout,
            "compression": case.compression,
            "transport": case.transport,
            "insecure": hosts.are_linked(),
        });
        let begin_us = clock::realtime_us();
        let body = body.to_string().into_bytes();
        let request = Request { body, ..Request::new(Method::POST, "/v1/migrate") };
        let answer = ask::<Reported>(&self.socket, request);
        let end_us = clock::realtime_us();
        processes::go_on()?;
        let reported = answer.map_err(|source| BenchError::Migrate { run, source })?;
        self.socket = next;
        self.host = to;
        Ok(Moved { begin_us, end_us, reported })
    }

    fn observation(&self) -> &Observation {
        &self.observation
    }
}

impl Drop for Partita<'_> {
    fn drop(&mut self) {
        let _ = ask::<Value>(&self.socket, Request::new(Method::POST, "/v1/stop"));
        // The newest first: it has the moved rank.
        while self.processes.pop().is_some() {}
    }
}

/// Whether `observer` can be had from this workload.
pub fn can_observe(workload: Workload, observer: Observer) -> bool {
    match observer {
        Observer::None => true,
        Observer::Partner => workload != Workload::Elf,
        Observer::Host => matches!(workload, Workload::Idle | Workload::Writer),
    }
}

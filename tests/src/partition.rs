//! One partition through its control socket, as `vmm ctl` sees it.

use std::path::{Path, PathBuf};

use partita_http::Server;
use serde::Deserialize;
use serde_json::Value;

use crate::http;
use crate::process::Finished;
use crate::{Bench, Process, Result, wait_for};

/// `state` of a partition, see `docs/vmm-api.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum State {
    Waiting,
    Receiving,
    Running,
    Paused,
    Migrating,
    InDoubt,
    Moved,
    Exited,
}

/// The part of `GET /v1/status` that tests look at.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// What it does.
    pub state: State,
    /// Epoch of this owner.
    pub epoch: u64,
    /// Process id of its `vmm`.
    pub pid: i32,
    /// Why, for some states.
    pub detail: Option<String>,
    /// Where `vmm receive` listens.
    pub listen: Option<String>,
}

/// A control socket.
#[derive(Debug, Clone)]
pub struct Control {
    socket: PathBuf,
}

impl Control {
    /// That of `vmm run --state-dir`.
    pub fn of_rank(bench: &Bench, rank: u32) -> Self {
        Self { socket: bench.state().join(format!("rank-{rank}.sock")) }
    }

    /// One at `socket`.
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    fn get(&self, path: &str) -> Result<Value> {
        http::get(&Server::Unix(self.socket.clone()), path)
    }

    /// What it does now. An error if nobody answers.
    pub fn status(&self) -> Result<Status> {
        Ok(serde_json::from_value(self.raw_status()?)?)
    }

    /// All of `GET /v1/status`.
    pub fn raw_status(&self) -> Result<Value> {
        self.get("/v1/status")
    }

    /// Waits until it answers and is in one of `states`.
    pub fn wait_until(&self, states: &[State], seconds: u64) -> Result<Status> {
        let mut last = String::new();
        let what = format!("{} to be {states:?}", self.socket.display());
        wait_for(&what, seconds, || {
            let status = if self.socket.exists() { self.status() } else { Err("no socket".into()) };
            last = format!("{status:?}");
            Ok(status.ok().filter(|status| states.contains(&status.state)))
        })
        .map_err(|e| format!("{e}; last: {last}").into())
    }

    /// Counters.
    pub fn counters(&self) -> Result<Value> {
        self.get("/v1/counters")
    }

    /// Starts `migrate` and returns its process.
    pub fn start_migrate(&self, bench: &Bench, to: &str, options: &[&str]) -> Result<Process> {
        let mut command = bench.vmm(["ctl"])?;
        command.arg(&self.socket).args(["migrate", "--to", to, "--json"]).args(options);
        bench.start(command, "migrate")
    }

    /// Anything else by `vmm ctl`, to its end.
    pub fn order(&self, bench: &Bench, arguments: &[&str]) -> Result<Finished> {
        let mut command = bench.vmm(["ctl"])?;
        command.arg(&self.socket).args(arguments).arg("--json");
        bench.run(command, "ctl", None, 10)
    }
}

/// A `vmm receive` that waits for a partition.
#[derive(Debug)]
pub struct Receiver {
    /// Its process.
    pub process: Process,
    /// Its control socket.
    pub control: Control,
    /// Where it listens.
    pub listen: String,
}

impl Receiver {
    /// Starts one with further arguments; `hold` is a phase with the file that holds it there, see [`Hold`].
    pub fn start(bench: &Bench, number: u32, arguments: &[&str], hold: Option<&Hold>) -> Result<Self> {
        let socket = bench.state().join(format!("receive-{number}.sock"));
        let listen = format!("{}:127.0.0.1:0", bench.scheme());
        let mut command = bench.vmm(["receive", "--listen", &listen, "--api-socket"])?;
        command.arg(&socket).args(arguments);
        if let Some(hold) = hold {
            hold.apply(&mut command);
        }
        let process = bench.start(command, &format!("receive-{number}"))?;
        let control = Control::at(&socket);
        let status =
            control.wait_until(&[State::Waiting], 10).map_err(|e| format!("{e}\n{}", process.describe()))?;
        Ok(Self { process, control, listen: status.listen.ok_or("it listens nowhere")? })
    }
}

/// Holds a migration at a phase, until [`Hold::release`].
#[derive(Debug, Clone)]
pub struct Hold {
    phase: String,
    file: PathBuf,
}

impl Hold {
    /// At `phase`, like `source:Ready` or `destination:Rounds`.
    pub fn new(bench: &Bench, phase: &str) -> Self {
        Self { phase: phase.to_owned(), file: bench.path().join("hold") }
    }

    /// Makes a process that is about to start hold there.
    pub fn apply(&self, command: &mut std::process::Command) {
        command.env("PARTITA_HOLD_AT", &self.phase).env("PARTITA_HOLD_FILE", &self.file);
    }

    /// Waits until the migration ordered by `migrate` is held.
    pub fn wait(&self, migrate: &mut Process) -> Result {
        wait_for(&format!("a migration at {}", self.phase), 10, || {
            if migrate.status()?.is_some() {
                return Err(format!("it was over before {}: {}", self.phase, migrate.describe()).into());
            }
            Ok(self.file.exists().then_some(()))
        })
    }

    /// Lets it go on.
    pub fn release(&self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

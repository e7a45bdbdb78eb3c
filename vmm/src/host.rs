//! The partition of this process and what may be done with it now: the state that the API shows and changes.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use migrator::report::{MigrateReport, MigrateRequest, one_line};
use migrator::source;
use migrator::transport::Scheme;
use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;
use vmm::fabric::address::Address;
use vmm::fabric::{FabricError, Place};
use vmm::partition::{OnEnd, Partition, PartitionError};
use vmm::vcpu::Ending;

use crate::cli::{Failure, Outcome};
use crate::leaving::{self, Source};
use crate::report;

/// What the partition of this process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// `vmm receive`: nothing has arrived.
    Waiting,
    /// A migration is coming in.
    Receiving,
    Running,
    Paused,
    Migrating,
    /// Paused, because the other side of an unanswered commit may run it.
    InDoubt,
    /// It runs elsewhere.
    Moved,
    Exited,
}

/// Body of `GET /v1/status`.
#[derive(Debug, Serialize)]
pub struct Status {
    pub application: String,
    pub rank: u32,
    pub ranks: u32,
    pub epoch: u64,
    pub state: State,
    pub detail: Option<String>,
    pub awaits_switch: bool,
    pub pid: u32,
    pub listen: Option<String>,
    pub fabric: Option<String>,
    pub stdout_base: u64,
    pub stderr_base: u64,
    pub exit_status: Option<i32>,
    pub abi_version: u32,
    pub version: &'static str,
}

/// Why something cannot be done, with the HTTP status that says so.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub text: String,
}

impl Refusal {
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl From<PartitionError> for Refusal {
    fn from(error: PartitionError) -> Self {
        Self::new(500, one_line(&error))
    }
}

struct Inner {
    state: State,
    detail: Option<String>,
    partition: Option<Arc<Partition>>,
    output_base: [u64; 2],
    listen: Option<String>,
    migration: Option<Arc<source::Control>>,
    last_dirty_pages_per_s: Option<f64>,
    exit_status: Option<i32>,
}

/// Shared by the API, the main thread and the migrations.
pub struct Host {
    inner: Mutex<Inner>,
    fabric: Option<String>,
    tls: partita_tls::Options,
    ended: Sender<Ending>,
}

impl Host {
    /// A host without a partition, with the files for `tls:` addresses; the receiver gets how it ended.
    pub fn new(fabric: Option<String>, tls: partita_tls::Options) -> (Arc<Self>, Receiver<Ending>) {
        let (ended, receiver) = channel();
        let inner = Inner {
            state: State::Waiting,
            detail: None,
            partition: None,
            output_base: [0; 2],
            listen: None,
            migration: None,
            last_dirty_pages_per_s: None,
            exit_status: None,
        };
        (Arc::new(Self { inner: Mutex::new(inner), fabric, tls, ended }), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a partition calls when it ends.
    pub fn on_end(self: &Arc<Self>) -> OnEnd {
        let host = self.clone();
        Box::new(move |ending| {
            host.note_end(&ending);
            let _ = host.ended.send(ending);
        })
    }

    /// It has ended: a move that is under way has nothing left to move, and whoever ordered it is answered while there is time.
    fn note_end(&self, ending: &Ending) {
        if *ending == Ending::Released {
            return;
        }
        let mut inner = self.lock();
        inner.state = State::Exited;
        inner.exit_status = Some(ending.status());
        if let Some(migration) = &inner.migration {
            migration.cancel();
        }
    }

    /// Ends the process without a partition having ended.
    pub fn end(&self, ending: Ending) {
        let _ = self.ended.send(ending);
    }

    pub fn set_listen(&self, listen: String) {
        self.lock().listen = Some(listen);
    }

    pub fn set_state(&self, state: State, detail: Option<String>) {
        let mut inner = self.lock();
        inner.state = state;
        inner.detail = detail;
    }

    pub fn state(&self) -> State {
        self.lock().state
    }

    pub fn set_partition(&self, partition: Arc<Partition>, output_base: [u64; 2]) {
        let mut inner = self.lock();
        inner.partition = Some(partition);
        inner.output_base = output_base;
    }

    pub fn partition(&self) -> Result<Arc<Partition>, Refusal> {
        self.lock().partition.clone().ok_or_else(|| Refusal::new(409, "no partition has arrived here yet"))
    }

    pub fn last_dirty_pages_per_s(&self) -> Option<f64> {
        self.lock().last_dirty_pages_per_s
    }

    pub fn status(&self) -> Status {
        let inner = self.lock();
        let name = inner.partition.as_ref().map(|p| p.name().clone());
        Status {
            application: name.as_ref().map(|n| n.application.clone()).unwrap_or_default(),
            rank: name.as_ref().map_or(0, |n| n.rank),
            ranks: inner.partition.as_ref().map_or(0, |p| p.memory().layout().ranks),
            epoch: name.as_ref().map_or(0, |n| n.epoch),
            state: inner.state,
            detail: inner.detail.clone(),
            awaits_switch: inner.migration.as_ref().is_some_and(|control| control.awaits_switch()),
            pid: std::process::id(),
            listen: inner.listen.clone(),
            fabric: self.fabric.clone(),
            stdout_base: inner.output_base[0],
            stderr_base: inner.output_base[1],
            exit_status: inner.exit_status,
            abi_version: partita_abi::ABI_VERSION,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Goes from one of `from` to `to`, or says why not.
    fn step(&self, from: &[State], to: State, verb: &str) -> Result<(), Refusal> {
        let mut inner = self.lock();
        if !from.contains(&inner.state) {
            let detail = inner.detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default();
            return Err(Refusal::new(409, format!("it is {:?} and cannot {verb} now{detail}", inner.state)));
        }
        inner.state = to;
        Ok(())
    }

    pub fn pause(&self) -> Result<(), Refusal> {
        let partition = self.partition()?;
        self.step(&[State::Running], State::Paused, "be paused")?;
        Ok(partition.pause()?)
    }

    /// `in_doubt`: the operator has decided that the one copy that runs is this one.
    pub fn resume(&self, in_doubt: bool) -> Result<(), Refusal> {
        let partition = self.partition()?;
        let from = if in_doubt { &[State::Paused, State::InDoubt][..] } else { &[State::Paused][..] };
        self.step(from, State::Running, "resume")?;
        self.lock().detail = None;
        // After a migration that ended in doubt the log is still on; an error only means that it was off.
        let _ = partition.stop_tracking();
        Ok(partition.resume(true)?)
    }

    pub fn stop(&self) {
        match self.partition() {
            Ok(partition) if partition.stop(Ending::Stopped).is_ok() => {}
            _ => self.end(Ending::Stopped),
        }
    }

    /// The migration that is under way.
    fn migration(&self) -> Result<Arc<source::Control>, Refusal> {
        self.lock().migration.clone().ok_or_else(|| Refusal::new(409, "no migration is under way"))
    }

    pub fn cancel(&self) -> Result<(), Refusal> {
        self.migration().map(|control| control.cancel())
    }

    /// Lets the migration that is under way switch over, if it was asked to await that.
    pub fn switch(&self) -> Result<(), Refusal> {
        self.migration().map(|control| control.switch())
    }

    /// Caps the migration that is under way, in bytes per second; `None` lifts the cap.
    pub fn set_bandwidth(&self, bytes_per_s: Option<u64>) -> Result<(), Refusal> {
        if bytes_per_s == Some(0) {
            return Err(Refusal::new(400, "bandwidth_bytes_per_s is 0: use null for no cap"));
        }
        self.migration().map(|control| control.set_bandwidth(bytes_per_s))
    }

    /// Moves the partition away; blocks until that is over.
    pub fn migrate(&self, request: &MigrateRequest) -> Result<MigrateReport, Refusal> {
        let partition = self.partition()?;
        let files = request.tls.as_ref().unwrap_or(&self.tls);
        let mut request =
            request.check(partition.name().epoch).map_err(|e| Refusal::new(400, one_line(&e)))?;
        if request.to.scheme() == Scheme::Tls {
            // Read anew each time, so that renewed certificates are used.
            request.security.identity = files.identity().map_err(|e| Refusal::new(400, one_line(&e)))?;
        }
        self.step(&[State::Running], State::Migrating, "migrate")?;
        let control = Arc::new(source::Control::new().with_hook(leaving::hook()));
        self.lock().migration = Some(control.clone());
        let machine = Source::new(partition.clone());
        let outcome = source::migrate(&machine, &request, &control);
        let exit_status = {
            let mut inner = self.lock();
            inner.migration = None;
            inner.exit_status
        };
        match (outcome, exit_status) {
            (source::Outcome::Moved { report, annotation }, _) => {
                self.note_dirty(&report);
                self.set_state(State::Moved, None);
                self.leave(&partition, report.epoch, &annotation, &request.to.to_string());
                Ok(report)
            }
            (source::Outcome::Failed { report, .. }, Some(status)) => {
                self.note_dirty(&report);
                Err(Refusal::new(410, format!("the program ended during the move, with status {status}")))
            }
            (source::Outcome::Failed { error: error @ source::SourceError::Resume { .. }, .. }, None) => {
                let text =
                    format!("the migration failed and the partition could not go on: {}", one_line(&error));
                vmm::console::say(format_args!("vmm: rank {}: paused: {text}", partition.name().rank));
                self.set_state(State::Paused, Some(text.clone()));
                Err(Refusal::new(500, text))
            }
            (source::Outcome::Failed { error, report }, None) => {
                self.note_dirty(&report);
                // It may have ended meanwhile; then it stays ended.
                let _ = self.step(&[State::Migrating], State::Running, "go on");
                Err(Refusal::new(
                    502,
                    format!("the migration failed and the partition goes on here: {}", one_line(&error)),
                ))
            }
            (source::Outcome::InDoubt { error, .. }, _) => {
                let text = format!(
                    "the destination did not answer the commit: {}; find out whether it runs at {}, then stop this copy, or resume it with --in-doubt if it does not",
                    one_line(&error),
                    request.to
                );
                vmm::console::say(format_args!("vmm: rank {}: in doubt: {text}", partition.name().rank));
                self.set_state(State::InDoubt, Some(text.clone()));
                Err(Refusal::new(504, text))
            }
        }
    }

    fn note_dirty(&self, report: &MigrateReport) {
        if let Some(round) = report.rounds.iter().rev().find(|r| r.seconds > 0.0) {
            self.lock().last_dirty_pages_per_s = Some(round.dirty_pages_per_s());
        }
    }

    /// Tells the peers and ends this process's part.
    fn leave(&self, partition: &Partition, epoch: u64, annotation: &[u8], to: &str) {
        let rank = partition.name().rank;
        let address = String::from_utf8_lossy(annotation).parse::<Address>();
        match address {
            Ok(address) => match tell_peers(partition, Place { epoch, address }) {
                Ok(untold) if untold.is_empty() => {}
                Ok(untold) => vmm::console::say(format_args!(
                    "vmm: rank {rank}: could not tell ranks {untold:?} where it went"
                )),
                Err(error) => vmm::console::say(format_args!("vmm: rank {rank}: {}", one_line(&error))),
            },
            Err(error) => vmm::console::say(format_args!(
                "vmm: rank {rank}: the destination gave no fabric address: {error}"
            )),
        }
        vmm::console::say(format_args!("vmm: rank {rank} moved to {to} (epoch {epoch})"));
        let _ = partition.stop(Ending::Released);
    }

    /// Waits for the end, says what there is to say, and gives the process's exit status.
    pub fn finish(&self, ended: &Receiver<Ending>, report_to: Option<(&PathBuf, u64)>) -> Outcome {
        let ending = ended.recv().unwrap_or(Ending::Stopped);
        let status = ending.status();
        if let Ending::Fault(fault) = &ending {
            vmm::console::say(format_args!("{}", fault.message));
        }
        let partition = self.partition().ok();
        self.note_end(&ending);
        if let Some(partition) = &partition {
            if let Ending::Exit(_) = ending {
                // What the program sent last may still be in its rings.
                if let Ok(false) = partition.with_fabric(|fabric| fabric.drain()) {
                    vmm::console::say(format_args!(
                        "vmm: rank {}: it ended with messages that no other rank took",
                        partition.name().rank
                    ));
                }
            }
            if let Some((path, boot_ns)) = report_to {
                report::write(path, partition, boot_ns)?;
            }
        }
        Ok(u8::try_from(status & 0xff).unwrap_or(1))
    }
}

/// Tells everybody where the partition went; gives the ranks that could not be told. Others can ask the fabric meanwhile.
fn tell_peers(partition: &Partition, place: Place) -> Result<Vec<u32>, PartitionError> {
    let told = partition.with_fabric(|fabric| fabric.moved(place))?;
    Ok(told.recv().map_err(|_| FabricError::Ended)?)
}

/// Ends the partition when the process is asked to end. Call it before any other thread is made: the signals are blocked
/// in all of them and taken by one of their own.
pub fn stop_on_signals(host: &Arc<Host>) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::failed(format!("cannot take signals: {e}"));
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().map_err(|e| failed(&e))?;
    let host = host.clone();
    let wait = move || {
        while signals.wait().is_ok() {
            host.stop();
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .stack_size(64 << 10)
        .spawn(wait)
        .map_err(|e| failed(&e))?;
    Ok(())
}

/// Removes the process's sockets when the command ends in whatever way it can notice.
pub struct RemoveOnDrop(pub Vec<PathBuf>);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

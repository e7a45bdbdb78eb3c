//! One `vmm` process: its state, its output, and the tasks that watch it until it has ended.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control::{ApplicationId, Counters, End, Epoch, PartitionReport, PartitionState, Rank};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::Notify;

use crate::output::{OutputBuffer, Splitter};
use crate::vmm_api;

/// How often a partition that runs is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often a process is looked at from which a change is expected.
const LOOK_CLOSELY: Duration = Duration::from_millis(40);
/// The last look at a dead process's pipes takes no longer.
const DRAIN: Duration = Duration::from_secs(2);
const DETAIL_BYTES_MAX: usize = 500;

/// Which process of which partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub application: ApplicationId,
    pub rank: Rank,
    pub epoch: Epoch,
}

/// What is known of the process.
#[derive(Debug)]
pub(crate) struct Known {
    pub state: PartitionState,
    pub detail: Option<String>,
    pub fabric: Option<String>,
    pub listen: Option<String>,
    pub counters: Option<Counters>,
    /// A migrate request is on its way.
    pub sending: bool,
    /// It waits for leave to switch over.
    pub awaits_switch: bool,
    /// This process has run the partition.
    pub has_run: bool,
    pub end: Option<End>,
    /// A report with the end was answered.
    pub end_acknowledged: bool,
    /// The VMM's last line.
    last_line: String,
}

/// A process and what belongs to it.
#[derive(Debug)]
pub(crate) struct Partition {
    pub key: Key,
    pub directory: PathBuf,
    pub socket: PathBuf,
    pub pid: Option<u32>,
    pub stdout: OutputBuffer,
    pub stderr: OutputBuffer,
    pub vmm: OutputBuffer,
    known: Mutex<Known>,
    kill: Notify,
    /// Wakes whoever waits for a change.
    changed: Notify,
}

impl Partition {
    /// A process just started. `base` is the output position it starts from, if that is known.
    pub(crate) fn new(
        key: Key,
        directory: PathBuf,
        socket: PathBuf,
        pid: Option<u32>,
        base: Option<u64>,
    ) -> Self {
        let known = Known {
            state: PartitionState::Starting,
            detail: None,
            fabric: None,
            listen: None,
            counters: None,
            sending: false,
            awaits_switch: false,
            has_run: false,
            end: None,
            end_acknowledged: false,
            last_line: String::new(),
        };
        Self {
            key,
            directory,
            socket,
            pid,
            stdout: OutputBuffer::new(base),
            stderr: OutputBuffer::new(base),
            vmm: OutputBuffer::new(Some(0)),
            known: Mutex::new(known),
            kill: Notify::new(),
            changed: Notify::new(),
        }
    }

    /// What is known now.
    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something about it may have changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends the process at once.
    pub(crate) fn kill(&self) {
        self.kill.notify_one();
    }

    /// Ends the process and waits until it is gone.
    pub(crate) async fn kill_and_wait(&self) {
        while self.known().end.is_none() {
            self.kill();
            let _ = tokio::time::timeout(LOOK, self.changed()).await;
        }
    }

    /// Waits until its process has ended, for at most `longest`.
    pub(crate) async fn wait_end(&self, longest: Duration) {
        let end = async {
            while self.known().end.is_none() {
                let _ = tokio::time::timeout(LOOK, self.changed()).await;
            }
        };
        let _ = tokio::time::timeout(longest, end).await;
    }

    /// Nothing is left to be said about it.
    pub(crate) fn is_over(&self) -> bool {
        self.known().end_acknowledged && self.stdout.is_done() && self.stderr.is_done() && self.vmm.is_done()
    }

    /// For the coordinator.
    pub(crate) fn report(&self) -> PartitionReport {
        let known = self.known();
        PartitionReport {
            application: self.key.application.clone(),
            rank: self.key.rank,
            epoch: self.key.epoch,
            state: known.state,
            sending: known.sending,
            awaits_switch: known.awaits_switch,
            detail: known.detail.clone(),
            pid: self.pid.filter(|_| known.end.is_none()),
            fabric: known.fabric.clone(),
            end: known.end,
            counters: known.counters.clone(),
        }
    }

    /// Asks the VMM for its state. Returns whether it has changed.
    pub(crate) async fn look(&self) -> Result<bool, vmm_api::VmmError> {
        let status = vmm_api::status(&self.socket).await?;
        if status.state.has_arrived() {
            self.stdout.set_base(status.stdout_base);
            self.stderr.set_base(status.stderr_base);
        }
        let counters = if status.state.has_run() { vmm_api::counters(&self.socket).await.ok() } else { None };
        let mut known = self.known();
        let news = known.state != status.state.reported()
            || known.fabric != status.fabric
            || known.awaits_switch != status.awaits_switch;
        known.awaits_switch = status.awaits_switch;
        if known.end.is_none() {
            known.state = status.state.reported();
        }
        known.has_run |= status.state.has_run();
        known.detail = status.detail.map(|detail| detail.chars().take(DETAIL_BYTES_MAX).collect());
        known.fabric = status.fabric.or(known.fabric.take());
        known.listen = status.listen.or(known.listen.take());
        known.counters = counters.or(known.counters.take());
        drop(known);
        if news {
            self.changed.notify_waiters();
        }
        Ok(news)
    }
}

/// Watches the process until it has ended and everything it wrote is in its buffers; `urgent` is woken at every change.
pub(crate) async fn supervise(partition: Arc<Partition>, mut child: Child, urgent: Arc<Notify>) {
    let stdout =
        child.stdout.take().map(|pipe| tokio::spawn(read_stdout(partition.clone(), pipe, urgent.clone())));
    let stderr =
        child.stderr.take().map(|pipe| tokio::spawn(read_stderr(partition.clone(), pipe, urgent.clone())));
    let looking = tokio::spawn(keep_looking(partition.clone(), urgent.clone()));
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            // Failure means that it has just ended by itself.
            () = partition.kill.notified() => { let _ = child.start_kill(); }
        }
    };
    looking.abort();
    // A last word on standard error says why; it is there already unless the buffers are full.
    if let Some(mut task) = stderr {
        let _ = tokio::time::timeout(Duration::from_millis(100), &mut task).await;
        settle(&partition, status);
        urgent.notify_one();
        finish(task, &partition).await;
    } else {
        settle(&partition, status);
        urgent.notify_one();
    }
    if let Some(task) = stdout {
        finish(task, &partition).await;
    }
    keep_output_without_position(&partition).await;
    partition.stdout.close();
    partition.stderr.close();
    partition.vmm.close();
    urgent.notify_one();
}

/// Waits for a reader, unless a stray descendant keeps the pipe open without writing to it.
async fn finish(mut task: tokio::task::JoinHandle<()>, partition: &Partition) {
    while !task.is_finished() && tokio::time::timeout(DRAIN, &mut task).await.is_err() {
        let waits_for_room = partition.stdout.chunk().is_some() || partition.stderr.chunk().is_some();
        if !waits_for_room {
            task.abort();
            return;
        }
    }
}

/// Records how it ended and removes its sockets.
fn settle(partition: &Partition, status: std::io::Result<std::process::ExitStatus>) {
    use std::os::unix::process::ExitStatusExt;
    let mut known = partition.known();
    let end = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(0), _) if known.state == PartitionState::Moved => End::Moved,
            (Some(code), _) => End::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            (None, signal) => End::Killed(signal.unwrap_or(9)),
        },
        Err(_) => End::Killed(9),
    };
    if end != End::Exited(0) && end != End::Moved && !known.last_line.is_empty() {
        known.detail = Some(known.last_line.clone());
    }
    known.end = Some(end);
    known.state = PartitionState::Ended;
    drop(known);
    // What cannot be removed now is removed when the agent starts again.
    let _ = std::fs::remove_dir_all(&partition.directory);
    partition.changed.notify_waiters();
}

/// A process that ended before anybody could ask for its positions: its output is passed on rather than lost.
async fn keep_output_without_position(partition: &Partition) {
    for buffer in [&partition.stdout, &partition.stderr] {
        if buffer.has_no_base() {
            partition.vmm.push(&buffer.drain()).await;
        }
    }
}

async fn keep_looking(partition: Arc<Partition>, urgent: Arc<Notify>) {
    loop {
        if matches!(partition.look().await, Ok(true)) {
            urgent.notify_one();
        }
        let state = partition.known().state;
        let pause = match state {
            PartitionState::Starting | PartitionState::Waiting | PartitionState::Receiving => LOOK_CLOSELY,
            _ => LOOK,
        };
        tokio::time::sleep(pause).await;
    }
}

async fn read_stdout(partition: Arc<Partition>, mut pipe: impl AsyncRead + Unpin, urgent: Arc<Notify>) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut bytes).await {
        if partition.stdout.has_no_base() {
            // It runs, then: its position can be asked for.
            let _ = partition.look().await;
        }
        partition.stdout.push(&bytes[..count]).await;
        urgent.notify_one();
    }
}

async fn read_stderr(partition: Arc<Partition>, mut pipe: impl AsyncRead + Unpin, urgent: Arc<Notify>) {
    let mut bytes = vec![0; 16 << 10];
    let mut splitter = Splitter::default();
    while let Ok(count @ 1..) = pipe.read(&mut bytes).await {
        let (program, vmm) = splitter.split(&bytes[..count]);
        if !program.is_empty() && partition.stderr.has_no_base() {
            let _ = partition.look().await;
        }
        if let Some(line) = String::from_utf8_lossy(&vmm).lines().last() {
            let line: String = line.chars().take(DETAIL_BYTES_MAX).collect();
            partition.known().last_line = line;
        }
        partition.stderr.push(&program).await;
        partition.vmm.push(&vmm).await;
        urgent.notify_one();
    }
    partition.stderr.push(&splitter.finish()).await;
}

//! What the server owns: cluster, journal, and the clock; decisions are written before anybody is told of them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::{ApplicationId, Report, Sheet};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::journal::Journal;
use crate::metrics::{self, Kept};
use crate::series::History;

/// What changes, under one lock.
pub(super) struct Core {
    pub cluster: Cluster,
    journal: Journal,
    pub history: History,
    pub kept: Kept,
}

/// The server's state.
pub(super) struct Server {
    core: Mutex<Core>,
    /// Counts changes; who waits for something looks again at each.
    changes: watch::Sender<u64>,
}

/// Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Server {
    /// The journal has the new start before anything else happens.
    pub fn new(cluster: Cluster, journal: Journal) -> Self {
        let server = Self {
            core: Mutex::new(Core { cluster, journal, history: History::default(), kept: Kept::default() }),
            changes: watch::Sender::new(0),
        };
        server.act(|_, _| ());
        server
    }

    /// What it owns, to look at.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets something happen: decisions are in the journal before anybody is told of them.
    pub fn act<T>(&self, act: impl FnOnce(&mut Cluster, u64) -> T) -> T {
        let mut core = self.core();
        let result = act(&mut core.cluster, now_ms());
        let outbox = core.cluster.take_outbox();
        let news = !outbox.entries.is_empty() || !outbox.commands.is_empty();
        if let Err(error) = core.journal.append(&outbox.entries) {
            eprintln!("coordinator: {}", control::one_line(&error));
            core.journal.give_up();
        }
        core.cluster.release(outbox.commands);
        drop(core);
        if news {
            self.changed();
        }
        result
    }

    /// Keeps what a report measured.
    pub fn remember(&self, report: &Report) {
        let mut core = self.core();
        let Core { cluster, history, .. } = &mut *core;
        history.observe(now_ms(), report, |id, rank, epoch| cluster.load_of(id, rank, epoch));
    }

    /// Time passes for the cluster; how planning went, and for how long, is noted.
    pub fn tick(&self) {
        let planned = self.act(|cluster, now| {
            let begin = Instant::now();
            cluster.tick(now);
            cluster.take_plan_note().map(|note| (note, begin.elapsed()))
        });
        if let Some((note, took)) = planned {
            self.core().kept.planned(note, took);
        }
    }

    /// The metrics.
    pub fn metrics(&self) -> Sheet {
        let core = self.core();
        let observed =
            metrics::Observed { series_bytes: core.history.bytes(), ..core.cluster.observed(now_ms()) };
        metrics::sheet(&core.kept, &observed)
    }

    /// Drops what is no longer of use.
    pub fn forget(&self) {
        let mut core = self.core();
        let Core { cluster, history, .. } = &mut *core;
        let live = |id: &ApplicationId| cluster.state().applications.get(id).is_some_and(|it| it.is_live());
        history.retain(live);
    }

    /// Wakes whoever waits for something new.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Calls `look` until it finds something or `wait` is over, at every change.
    pub async fn wait_for<T>(&self, wait: Duration, mut look: impl FnMut(&Self) -> (T, bool)) -> T {
        let mut changes = self.changes.subscribe();
        let deadline = Instant::now() + wait;
        loop {
            changes.mark_unchanged();
            let (found, enough) = look(self);
            if enough || tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                return found;
            }
        }
    }
}

//! Who may run a partition that moves: the two sides' transition functions, without I/O.
//!
//! ```text
//!  source                                                destination
//!  Runs ──Pause──▶ Paused ──Ready──▶ Ready               Filling ──Complete──▶ Ready ──Commit──▶ Committed ──Started──▶ Runs
//!   ▲ ◀───────────Lost─┘ ◀──Lost──────┘ │                   │ Lost, Abort       │ │ Abort           │ Lost
//!   │                                Commit                 ▼                   │ ▼                 │
//!   │                                   ▼                Discarded ◀────────────┼─┘                 │
//!   │ Revoked                        Committed              ▲                   │ Lost              │
//!   └──────────── InDoubt ◀──Lost───────┘ │                 └──Revoked── InDoubt ◀──────────────────┘
//!                    └──Superseded──▶ Moved ◀─Running           SourceGone ──▶ Runs
//! ```
//!
//! `source` and `destination` ask these functions what an event makes of them and do nothing else to ownership;
//! `tests/ownership.rs` explores them together with a coordinator, every message lost, doubled, late or overtaken and every
//! process killed. *Revoked*, *Superseded* and *SourceGone* are the proofs that resolve doubt: they come from the coordinator
//! or the operator, never from here.

/// What the process is that the partition leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The partition runs here.
    Runs,
    /// It is paused; its last pages and its state are on their way.
    Paused,
    /// It is paused; the destination has everything.
    Ready,
    /// A byte of COMMIT may have left: the destination may run.
    Committed,
    /// As `Committed`, and no answer is awaited any longer.
    InDoubt,
    /// It runs there and never again here.
    Moved,
}

/// What happens to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceEvent {
    /// The vCPU and the fabric stopped.
    Pause,
    /// READY with the right counts came.
    Ready,
    /// COMMIT is about to be sent.
    Commit,
    /// RUNNING of the granted epoch came.
    Running,
    /// ABORT, a wrong frame, silence, a broken connection, a failing verb, a cancel.
    Lost,
    /// Proof: the destination's epoch can never run.
    Revoked,
    /// Proof: the destination runs.
    Superseded,
}

impl Source {
    /// What `event` makes of it; `None` if it must not happen now.
    pub fn next(self, event: SourceEvent) -> Option<Self> {
        use SourceEvent as Event;
        Some(match (self, event) {
            (Self::Runs, Event::Pause) => Self::Paused,
            (Self::Paused, Event::Ready) => Self::Ready,
            (Self::Ready, Event::Commit) => Self::Committed,
            (Self::Committed, Event::Running) => Self::Moved,
            (Self::Runs | Self::Paused | Self::Ready, Event::Lost) => Self::Runs,
            (Self::Committed, Event::Lost) => Self::InDoubt,
            (Self::InDoubt, Event::Revoked) => Self::Runs,
            (Self::InDoubt, Event::Superseded) => Self::Moved,
            _ => return None,
        })
    }

    /// Whether the partition may run here.
    pub fn owns(self) -> bool {
        self == Self::Runs
    }
}

/// What the process is that the partition comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// The machine is being built and filled.
    Filling,
    /// Everything is here, checked and restored; a byte of READY may have left: the source may commit.
    Ready,
    /// COMMIT came; the machine is being started.
    Committed,
    /// It runs here.
    Runs,
    /// Complete and paused; the source may run, be gone, or have committed.
    InDoubt,
    /// It will never run here.
    Discarded,
}

/// What happens to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DestinationEvent {
    /// All pages and the state are here, checked and restored.
    Complete,
    /// COMMIT of the described epoch came.
    Commit,
    /// The machine runs.
    Started,
    /// ABORT came.
    Abort,
    /// A wrong frame, silence, a broken connection, a failing verb, a cancel.
    Lost,
    /// It is told to give up an epoch that does not run.
    Revoked,
    /// Proof: the source's process is gone.
    SourceGone,
}

impl Destination {
    /// What `event` makes of it; `None` if it must not happen now.
    pub fn next(self, event: DestinationEvent) -> Option<Self> {
        use DestinationEvent as Event;
        Some(match (self, event) {
            (Self::Filling, Event::Complete) => Self::Ready,
            (Self::Ready, Event::Commit) => Self::Committed,
            (Self::Committed, Event::Started) => Self::Runs,
            (Self::Filling, Event::Lost) | (Self::Filling | Self::Ready, Event::Abort) => Self::Discarded,
            (Self::Ready | Self::Committed, Event::Lost) => Self::InDoubt,
            (Self::Filling | Self::Ready | Self::Committed | Self::InDoubt, Event::Revoked) => {
                Self::Discarded
            }
            (Self::InDoubt, Event::SourceGone) => Self::Runs,
            _ => return None,
        })
    }

    /// Whether the partition may run here.
    pub fn owns(self) -> bool {
        matches!(self, Self::Committed | Self::Runs)
    }
}

//! The side a partition comes to: builds it paused, fills and checks it, and runs it only after COMMIT.

mod admit;
mod pages;
mod window;

use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::channel::{Channel, ChannelError, Expect};
use crate::clock;
use crate::control;
use crate::ownership::{Destination as Ownership, DestinationEvent};
use crate::partition::{Description, DestinationMachine, MachineError};
use crate::report::one_line;
use crate::transport::{Listener, Timeouts, TransportError};
use crate::wire::{self, Frame, Hello, Kind, Totals, WireError};

use admit::Arrived;
use pages::Rounds;
use window::OpenMemory;

/// Time between two looks at whether the memory is open.
const OPEN_LOOK: Duration = Duration::from_millis(1);

/// Where the destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nobody has come yet.
    Listen,
    /// A source described its partition; the machine is being built.
    Build,
    /// Pages come in.
    Rounds,
    /// The last page is here; counts and state are checked, the state is restored.
    Verify,
    /// READY was sent. From here only COMMIT or ABORT resolves what happens.
    Ready,
    /// COMMIT came.
    Commit,
    /// It runs.
    Running,
}

/// The handle on a migration from this side.
pub type Control = control::Control<Phase>;

impl Control {
    /// A handle for one migration.
    pub fn new() -> Self {
        Self::starting_at(Phase::Listen)
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

/// What a destination is told besides its machine.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Given to the source in ACCEPT, at most [`wire::ANNOTATION_BYTES_MAX`] bytes; opaque here.
    pub annotation: Vec<u8>,
    /// How long to wait for the other side.
    pub timeouts: Timeouts,
}

/// Why no partition runs here.
#[derive(Debug, Error)]
pub enum DestinationError {
    /// Waiting for a source failed.
    #[error("cannot take connections")]
    Accept(#[source] TransportError),
    /// The machine cannot be built from the description.
    #[error("the partition cannot be built here")]
    Build(#[source] MachineError),
    /// The source asked for RDMA, and this machine's memory is not in this process.
    #[error("this machine's memory cannot be written by RDMA: use --transport tcp")]
    NoHostMemory,
    /// The source asked for RDMA over a network that is not known to be trusted.
    #[error("the memory is not opened to RDMA")]
    NotOpened(#[source] TransportError),
    /// The source asked for RDMA, and there is none.
    #[error("the destination cannot open its memory to RDMA")]
    Rdma(#[source] partita_rdma::Error),
    /// One of our verbs failed in the machine.
    #[error("the destination cannot {verb}")]
    Machine {
        /// The verb.
        verb: &'static str,
        /// Its error.
        #[source]
        source: MachineError,
    },
    /// The control connection failed.
    #[error("control connection to the source failed while {doing}")]
    Channel {
        /// What was going on.
        doing: &'static str,
        /// Its error.
        #[source]
        source: ChannelError,
    },
    /// A page stream failed.
    #[error("page stream {stream} failed")]
    Stream {
        /// Its number.
        stream: u8,
        /// Its error.
        #[source]
        source: ChannelError,
    },
    /// A page stream did not come, or did not come to its end.
    #[error("{missing} of {streams} page streams did not {doing} in time")]
    StreamsMissing {
        /// How many.
        missing: usize,
        /// Of how many.
        streams: u8,
        /// What they did not do.
        doing: &'static str,
    },
    /// A page stream's thread ended unexpectedly.
    #[error("a page stream's thread ended unexpectedly")]
    ThreadLost,
    /// The source gave up.
    #[error("the source gave up: {0}")]
    Aborted(String),
    /// `cancel` was called.
    #[error("cancelled at the destination")]
    Cancelled,
    /// Round end marks out of order, or a count that is not ours.
    #[error(
        "page stream {stream} says round {round} ended after {sent} pages; {received} arrived in round {expected}"
    )]
    Miscounted {
        /// The stream.
        stream: u8,
        /// The round that it says it ended.
        round: u32,
        /// The round it is in.
        expected: u32,
        /// Pages it says it sent.
        sent: u64,
        /// Pages that came.
        received: u64,
    },
    /// FINAL names other totals than arrived.
    #[error("the source sent {sent:?} pages by stream, {received:?} arrived")]
    Totals {
        /// Pages the source says it sent.
        sent: Vec<u64>,
        /// Pages that came.
        received: Vec<u64>,
    },
    /// Pages never came at all.
    #[error("{0} pages of the memory were never sent")]
    PagesMissing(u64),
    /// The state's pieces do not add up.
    #[error("the saved state is damaged: its length or checksum is wrong")]
    State,
    /// COMMIT came for another epoch.
    #[error("COMMIT names epoch {committed}, the description {described}")]
    WrongEpoch {
        /// Of COMMIT.
        committed: u64,
        /// Of the description.
        described: u64,
    },
    /// It took longer than a migration may.
    #[error("not over after {limit_s} s")]
    TooLong {
        /// The limit, seconds.
        limit_s: u64,
    },
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// The partition runs here.
    Running {
        /// What it is.
        description: Description,
        /// Whether the source was told. When not, the source is in doubt, and this copy is the one that runs.
        told: Result<(), DestinationError>,
    },
    /// The machine could not be built; the source was told why and goes on. Nothing of the machine is left to use.
    Refused {
        /// Why.
        error: DestinationError,
    },
    /// It failed before READY, or the source gave up; nothing runs here and nothing will. Discard the machine.
    Failed {
        /// Why.
        error: DestinationError,
    },
    /// READY was sent and no verdict came (or `run` failed after COMMIT): the machine is restored and paused, and the
    /// source may think it runs here.
    InDoubt {
        /// What it is.
        description: Description,
        /// Why.
        error: DestinationError,
    },
}

/// Waits at `listener` for a source, receives its partition into `machine` and runs it. Blocks until it is over.
///
/// Connections that do not begin like a migration are dropped, and the wait goes on.
pub fn receive(
    listener: &Listener,
    machine: &mut dyn DestinationMachine,
    options: &Options,
    control: &Control,
) -> Outcome {
    control.enter(Phase::Listen);
    let (mut session, description) = match admit::source(listener, options, control) {
        Ok(admitted) => admitted,
        Err(error) => return Outcome::Failed { error },
    };
    control.enter(Phase::Build);
    let built = session.build(listener, machine, &description);
    let mut open = match built {
        Ok(open) => open,
        Err(error) => {
            session.channel.close_with(&Frame::Refuse { reason: one_line(&error) });
            return Outcome::Refused { error };
        }
    };
    // `open` outlives everything below, so that giving up its registrations delays nobody; it was closed when the last page was here.
    match session.fill(listener, machine, &description, open.as_mut()) {
        Ok(pages) => session.finish(machine, description, pages),
        Err(error) => {
            let error = session.explain(error);
            session.channel.close_with(&Frame::Abort { reason: one_line(&error) });
            Outcome::Failed { error }
        }
    }
}

/// The connection to an admitted source.
struct Session<'a> {
    channel: Channel,
    id: [u8; 16],
    minor: u8,
    streams: u8,
    /// Pages come by one-sided writes.
    rdma: bool,
    options: &'a Options,
    control: &'a Control,
    started: Instant,
}

impl Session<'_> {
    /// The machine, and its memory open to the source where that asked for it.
    fn build(
        &self,
        listener: &Listener,
        machine: &mut dyn DestinationMachine,
        description: &Description,
    ) -> Result<Option<OpenMemory>, DestinationError> {
        let ip = self.rdma.then(|| self.channel.rdma_address(listener.is_insecure())).transpose();
        let ip = ip.map_err(DestinationError::NotOpened)?;
        machine.build(description).map_err(DestinationError::Build)?;
        ip.map(|ip| OpenMemory::open(ip, machine, &description.regions)).transpose()
    }

    /// From ACCEPT until everything is here, checked and restored; gives the pages received.
    fn fill(
        &mut self,
        listener: &Listener,
        machine: &mut dyn DestinationMachine,
        description: &Description,
        mut open: Option<&mut OpenMemory>,
    ) -> Result<u64, DestinationError> {
        self.send(&Frame::Accept { annotation: self.options.annotation.clone() }, "accepting")?;
        self.offer(open.as_deref())?;
        let mut streams = match admit::streams(listener, self)? {
            Arrived::Streams(streams) => streams,
            Arrived::Source(_) => {
                return Err(channel_failed("waiting for page streams")(TransportError::Closed.into()));
            }
        };
        self.control.enter(Phase::Rounds);
        let memory = open.as_ref().map(|open| open.memory().to_vec());
        let rounds =
            Rounds::new(&*machine, &description.regions, memory, self.control, self.options.timeouts);
        let mut round = 0;
        let (totals, state, received) = loop {
            let error = match self.take_in(&rounds, streams, round) {
                Ok(all) => break all,
                Err(error) => self.explain(error),
            };
            if !self.may_resume(&error) {
                return Err(error);
            }
            tracing::warn!(%error, "the connections broke: waiting for the source to resume");
            (round, streams) = self.resume(listener, &rounds, description, open.as_deref_mut(), error)?;
            rounds.go_on();
        };
        if totals.stream_pages != received {
            return Err(DestinationError::Totals { sent: totals.stream_pages, received });
        }
        match rounds.missing() {
            0 => {}
            missing => return Err(DestinationError::PagesMissing(missing)),
        }
        drop(rounds);
        thread::scope(|scope| {
            // When READY is sent, nothing writes the memory any more. That takes a millisecond, beside what has to be done anyway.
            if let Some(open) = open {
                scope.spawn(|| open.close());
            }
            if wire::state_checksum(&state) != totals.state_checksum {
                return Err(DestinationError::State);
            }
            machine.restore(&state).map_err(machine_failed("restore the saved state"))?;
            Ok(received.iter().sum())
        })
    }

    /// Waits for the source to come back and for its page streams; gives the round it goes on with and those. What came is kept
    /// for a bounded time, in which the new connections may break as well; then the first error, `broken`, is the reason.
    fn resume(
        &mut self,
        listener: &Listener,
        rounds: &Rounds,
        description: &Description,
        mut open: Option<&mut OpenMemory>,
        broken: DestinationError,
    ) -> Result<(u32, Vec<Channel>), DestinationError> {
        let until = clock::now() + self.options.timeouts.resume;
        let mut greeted = None;
        loop {
            let again = admit::again(listener, self, description.epoch, greeted.take(), until);
            let Ok((channel, round)) = again else { return Err(broken) };
            self.channel = channel;
            match self.welcome(listener, rounds, open.as_deref_mut()) {
                Ok(Arrived::Streams(streams)) => return Ok((round, streams)),
                Ok(Arrived::Source(channel)) => greeted = Some(channel),
                Err(error) if self.may_resume(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells a source that came back what it need not send again, and where to; waits for its page streams.
    fn welcome(
        &mut self,
        listener: &Listener,
        rounds: &Rounds,
        mut open: Option<&mut OpenMemory>,
    ) -> Result<Arrived, DestinationError> {
        if let Some(open) = &mut open {
            // What is still under way must not overtake what comes next.
            open.close();
            rounds.distrust();
        }
        for piece in rounds.held().chunks(wire::HELD_PIECE_BYTES) {
            self.send(&Frame::Held(piece.to_vec()), "telling what came")?;
        }
        if let Some(open) = &mut open {
            self.open_again(open)?;
        }
        self.offer(open.as_deref())?;
        admit::streams(listener, self)
    }

    /// Whether a connection that said `hello` belongs to this migration.
    fn is_of(&self, hello: &Hello, channel: &Channel) -> bool {
        hello.session == self.id && hello.streams == self.streams && channel.peer() == self.channel.peer()
    }

    /// Registers the memory anew; a source that waits for this hears that somebody is here.
    fn open_again(&mut self, open: &mut OpenMemory) -> Result<(), DestinationError> {
        thread::scope(|scope| {
            let opening = scope.spawn(|| open.open_again());
            let mut spoken = clock::now();
            while !opening.is_finished() {
                if spoken.elapsed() >= self.options.timeouts.keep_alive {
                    spoken = clock::now();
                    self.send(&Frame::KeepAlive, "opening the memory")?;
                }
                clock::sleep(OPEN_LOOK);
            }
            opening.join().unwrap_or(Err(DestinationError::ThreadLost))
        })
    }

    /// Tells where pages are written, if they are written one-sided.
    fn offer(&mut self, open: Option<&OpenMemory>) -> Result<(), DestinationError> {
        match open.and_then(OpenMemory::offer) {
            Some(window) => self.send(&window, "opening the memory"),
            None => Ok(()),
        }
    }

    /// Everything from the first page, or the first after a break, to the end of the state.
    fn take_in(
        &mut self,
        rounds: &Rounds,
        streams: Vec<Channel>,
        round: u32,
    ) -> Result<(Totals, Vec<u8>, Vec<u64>), DestinationError> {
        thread::scope(|scope| {
            let running = rounds.start(scope, streams, round);
            let last = self.last_message(rounds);
            if last.is_err() {
                rounds.stop();
            }
            let received = running.finish(rounds, self.options.timeouts.silence);
            // What a stream found is the cause when the control connection was only stopped because of it.
            match (last, received) {
                (Err(DestinationError::Cancelled), Err(error)) if !self.control.is_cancelled() => Err(error),
                (Err(error), _) | (Ok(_), Err(error)) => Err(error),
                (Ok((totals, state)), Ok(received)) => Ok((totals, state, received)),
            }
        })
    }

    /// Whether the source may come back after `error`: the connections broke, in a round, and nothing was wrong with what came.
    fn may_resume(&self, error: &DestinationError) -> bool {
        let (DestinationError::Channel { source, .. } | DestinationError::Stream { source, .. }) = error
        else {
            return false;
        };
        source.is_break()
            && self.minor >= 1
            && self.options.timeouts.resume > Duration::ZERO
            && self.control.progress().phase == Phase::Rounds
            && !self.control.is_cancelled()
    }

    /// When a stream was closed because the source gave up, its reason is the better error.
    fn explain(&mut self, error: DestinationError) -> DestinationError {
        let DestinationError::Stream { source: ChannelError::Transport(_), .. } = error else { return error };
        let expect = Expect {
            kinds: &[Kind::Abort],
            phase: "after a failure",
            silence: Duration::from_millis(100),
            stop: &|| false,
        };
        match self.channel.receive(expect) {
            Ok(Frame::Abort { reason }) => DestinationError::Aborted(reason),
            _ => error,
        }
    }

    /// FINAL and the state behind it, while the streams fill the memory.
    fn last_message(&mut self, rounds: &Rounds) -> Result<(Totals, Vec<u8>), DestinationError> {
        let totals = loop {
            match self
                .receive(&[Kind::KeepAlive, Kind::Final], "waiting for FINAL", &|| rounds.is_stopped())?
            {
                Frame::Final(totals) if totals.stream_pages.len() == usize::from(self.streams) => {
                    break totals;
                }
                Frame::Final(totals) => {
                    return Err(DestinationError::Totals { sent: totals.stream_pages, received: Vec::new() });
                }
                _ => {}
            }
            let limit = self.options.timeouts.session;
            if self.started.elapsed() >= limit {
                return Err(DestinationError::TooLong { limit_s: limit.as_secs() });
            }
        };
        self.control.enter(Phase::Verify);
        // Grows with what really comes, not with what was announced.
        let mut state = Vec::new();
        while (state.len() as u64) < totals.state_bytes {
            match self.receive(&[Kind::State], "receiving the state", &|| rounds.is_stopped())? {
                Frame::State(piece) => state.extend(piece),
                other => return Err(unexpected(other.kind(), "receiving the state")),
            }
        }
        if state.len() as u64 != totals.state_bytes {
            Err(DestinationError::State)
        } else {
            Ok((totals, state))
        }
    }

    /// From READY on: waits for the verdict and runs on COMMIT only.
    fn finish(
        mut self,
        machine: &mut dyn DestinationMachine,
        description: Description,
        pages: u64,
    ) -> Outcome {
        // Once a byte of READY may have left, the source may commit: only its word resolves what happens.
        let verdict = match self.channel.send(&Frame::Ready { pages }, &|| false) {
            Ok(_) => {
                self.control.enter(Phase::Ready);
                self.verdict(description.epoch)
            }
            Err(error) => Err(channel_failed("sending READY")(error)),
        };
        let event = match &verdict {
            Ok(()) => DestinationEvent::Commit,
            Err(DestinationError::Aborted(_)) => DestinationEvent::Abort,
            Err(_) => DestinationEvent::Lost,
        };
        match (Ownership::Ready.next(event), verdict) {
            (Some(Ownership::Committed), _) => {}
            (Some(Ownership::Discarded), Err(error)) => return Outcome::Failed { error },
            (_, verdict) => {
                let error = verdict.err().unwrap_or(DestinationError::Cancelled);
                return Outcome::InDoubt { description, error };
            }
        }
        self.control.enter(Phase::Commit);
        if let Err(error) = machine.run() {
            let error = machine_failed("run the partition")(error);
            self.channel.close_with(&Frame::Abort { reason: one_line(&error) });
            return Outcome::InDoubt { description, error };
        }
        let told = self.channel.send(&Frame::Running { epoch: description.epoch }, &|| false);
        self.control.enter(Phase::Running);
        Outcome::Running { description, told: told.map(|_| ()).map_err(channel_failed("sending RUNNING")) }
    }

    /// COMMIT of the right epoch, or why not.
    fn verdict(&mut self, described: u64) -> Result<(), DestinationError> {
        let doing = "waiting for COMMIT";
        let silence = self.options.timeouts.silence;
        let kinds = &[Kind::Commit, Kind::Abort];
        // A cancel has no say here: the source may have committed already.
        match self.channel.receive(Expect { kinds, phase: doing, silence, stop: &|| false }) {
            Ok(Frame::Commit { epoch }) if epoch == described => Ok(()),
            Ok(Frame::Commit { epoch: committed }) => {
                Err(DestinationError::WrongEpoch { committed, described })
            }
            Ok(Frame::Abort { reason }) => Err(DestinationError::Aborted(reason)),
            Ok(other) => Err(unexpected(other.kind(), doing)),
            Err(error) => Err(channel_failed(doing)(error)),
        }
    }

    fn send(&mut self, frame: &Frame, doing: &'static str) -> Result<(), DestinationError> {
        let control = self.control;
        self.channel.send(frame, &|| control.is_cancelled()).map_err(cancelled_or(doing))?;
        Ok(())
    }

    /// One frame of `kinds`; ABORT is understood everywhere.
    fn receive(
        &mut self,
        kinds: &[Kind],
        doing: &'static str,
        stop: &dyn Fn() -> bool,
    ) -> Result<Frame, DestinationError> {
        let control = self.control;
        let silence: Duration = self.options.timeouts.silence;
        let kinds = [kinds, &[Kind::Abort]].concat();
        let stop = || control.is_cancelled() || stop();
        match self.channel.receive(Expect { kinds: &kinds, phase: doing, silence, stop: &stop }) {
            Ok(Frame::Abort { reason }) => Err(DestinationError::Aborted(reason)),
            Ok(frame) => Ok(frame),
            Err(error) => Err(cancelled_or(doing)(error)),
        }
    }
}

fn machine_failed(verb: &'static str) -> impl FnOnce(MachineError) -> DestinationError {
    move |source| DestinationError::Machine { verb, source }
}

fn channel_failed(doing: &'static str) -> impl FnOnce(ChannelError) -> DestinationError {
    move |source| DestinationError::Channel { doing, source }
}

fn cancelled_or(doing: &'static str) -> impl FnOnce(ChannelError) -> DestinationError {
    move |error| match error {
        ChannelError::Transport(TransportError::Stopped) => DestinationError::Cancelled,
        source => DestinationError::Channel { doing, source },
    }
}

fn unexpected(kind: Kind, doing: &'static str) -> DestinationError {
    channel_failed(doing)(WireError::Unexpected { kind, wanted: doing }.into())
}

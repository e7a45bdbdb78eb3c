//! The side a partition leaves: drives the phases, and resumes the partition whenever the commit point was not reached.

mod brake;
mod growth;
mod observe;
mod packing;
mod pool;
mod rdma;
mod resume;
mod stream;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use partita_rdma::Window;
use thiserror::Error;

use crate::bitmap;
use crate::channel::{Channel, ChannelError, Expect};
use crate::clock::{self, milliseconds};
use crate::control;
use crate::ownership::{Source as Ownership, SourceEvent};
use crate::partition::{Description, MachineError, PAGE_SIZE, SourceMachine};
use crate::policy::{self, Decision, GoOn, OnTimeout, StopReason};
use crate::report::{self, MigrateReport, Prediction, Request, RoundReport, one_line};
use crate::transport::{self, Connection, Transport, TransportError};
use crate::wire::{self, Frame, Header, Kind, Role, Totals, WireError};

use brake::Brake;
use growth::{First, Growth};
use packing::Packing;
use pool::Pool;
use resume::Work;
use stream::{PageStream, Round, Shared};

/// How long the destination has to say why it closed the streams.
const EXPLANATION: Duration = Duration::from_secs(2);
/// How long pages become dirty before they are sent while the switch-over waits for others.
const AWAIT_SWITCH_ROUND: Duration = Duration::from_millis(100);
/// Time between two looks at whether the wait is over: short beside a blackout.
const AWAIT_SWITCH_LOOK: Duration = Duration::from_micros(200);

/// Where the source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Connecting the control connection.
    Connect,
    /// The destination builds the machine.
    Prepare,
    /// Round of this number, from 0, with the partition running.
    Round(u32),
    /// It could switch over and waits for others.
    AwaitSwitch,
    /// The partition is paused; the last pages and the state follow.
    Blackout,
    /// The state was sent.
    Saved,
    /// The destination has checked and restored everything. COMMIT follows.
    Ready,
    /// COMMIT was sent.
    Commit,
    /// The destination runs.
    Done,
}

/// The handle on a migration from this side.
pub type Control = control::Control<Phase>;

impl Control {
    /// A handle for one migration.
    pub fn new() -> Self {
        Self::starting_at(Phase::Connect)
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a migration did not end in [`Outcome::Moved`].
#[derive(Debug, Error)]
pub enum SourceError {
    /// The partition's VMM failed at one of our verbs.
    #[error("the source cannot {verb}")]
    Machine {
        /// The verb.
        verb: &'static str,
        /// Its error.
        #[source]
        source: MachineError,
    },
    /// The control connection failed.
    #[error("control connection to the destination failed while {doing}")]
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
    /// The partition cannot be described in this protocol.
    #[error("the partition cannot be described to a destination")]
    Describe(#[source] WireError),
    /// The destination will not build it.
    #[error("the destination refused: {0}")]
    Refused(String),
    /// The destination gave up.
    #[error("the destination gave up: {0}")]
    Aborted(String),
    /// `cancel` was called.
    #[error("cancelled")]
    Cancelled,
    /// The predicted blackout stayed above the limit.
    #[error(
        "did not converge in {timeout_s} s: predicted blackout {predicted_ms:.0} ms, limit {limit_ms} ms; \
         raise the downtime limit, use more streams or bandwidth, or force it"
    )]
    NotConverging {
        /// Predicted blackout, milliseconds.
        predicted_ms: f64,
        /// The limit, milliseconds.
        limit_ms: u128,
        /// The time-out, seconds.
        timeout_s: u64,
    },
    /// A round was not over at the time-out.
    #[error(
        "round {round} was not over after {timeout_s} s: raise the time-out or the bandwidth, or force it"
    )]
    TimedOut {
        /// The round, from 0.
        round: u32,
        /// The time-out, seconds.
        timeout_s: u64,
    },
    /// The state is larger than the protocol allows.
    #[error("the saved state has {bytes} bytes, more than {} can be sent", wire::STATE_BYTES_MAX)]
    StateTooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// The destination counted other pages than were sent.
    #[error("sent {sent} pages, but the destination has {received}")]
    Miscounted {
        /// Pages sent.
        sent: u64,
        /// Pages the destination says it has.
        received: u64,
    },
    /// RUNNING came for another epoch.
    #[error("the destination says that it runs epoch {0}, which was not granted")]
    WrongEpoch(u64),
    /// A transition that must not happen: a mistake of this program.
    #[error("{event:?} must not happen to a source that is {state:?}")]
    Order {
        /// What happened.
        event: SourceEvent,
        /// In which state.
        state: Ownership,
    },
    /// A thread of ours died.
    #[error("a page stream's thread ended unexpectedly")]
    ThreadLost,
    /// After a failure the partition did not go on here.
    #[error("the partition cannot be resumed after: {cause}")]
    Resume {
        /// The failure before.
        cause: Box<SourceError>,
        /// Why it did not resume.
        #[source]
        source: MachineError,
    },
}

/// How a migration ended.
#[derive(Debug)]
pub enum Outcome {
    /// It runs at the destination; this copy is paused and must never run again.
    Moved {
        /// How it went.
        report: MigrateReport,
        /// What the destination had its source told in ACCEPT.
        annotation: Vec<u8>,
    },
    /// It runs here (unless the error is [`SourceError::Resume`]) and can be migrated again.
    Failed {
        /// Why.
        error: SourceError,
        /// How far it came.
        report: MigrateReport,
    },
    /// COMMIT was sent and not answered: this copy is paused, the destination may run.
    InDoubt {
        /// Why.
        error: SourceError,
        /// How it went.
        report: MigrateReport,
        /// What the destination had its source told in ACCEPT.
        annotation: Vec<u8>,
    },
}

/// Moves the partition behind `machine` as `request` says. Blocks until it is over.
///
/// Before the commit point every failure resumes the partition here and ends dirty tracking; after it the partition
/// stays paused whatever happens.
pub fn migrate(machine: &dyn SourceMachine, request: &Request, control: &Control) -> Outcome {
    let mut attempt = Attempt {
        machine,
        request,
        control,
        started: clock::now(),
        channel: None,
        spoken: clock::now(),
        annotation: Vec::new(),
        window: None,
        tracking: false,
        ownership: Ownership::Runs,
        brake: Brake::default(),
        prediction: Prediction::default(),
        first: None,
        patience: Duration::ZERO,
        paused_at: None,
        was_paused: false,
        report: MigrateReport { epoch: request.epoch, ..MigrateReport::default() },
    };
    let result = attempt.run();
    let result = match result {
        Err(error) if attempt.ownership.owns() => Err(attempt.roll_back(error)),
        other => other,
    };
    let Attempt { mut report, annotation, started, ownership, brake, prediction, .. } = attempt;
    report.total_s = started.elapsed().as_secs_f64();
    report.brownout = brake.brownout();
    match result {
        Ok(()) => {
            let actual_total_s = report.total_s - report.awaited_s;
            let actual_blackout_ms = report.blackout_ms;
            report.prediction = Some(Prediction { actual_total_s, actual_blackout_ms, ..prediction });
            Outcome::Moved { report, annotation }
        }
        Err(error) if ownership.owns() => Outcome::Failed { error, report },
        Err(error) => Outcome::InDoubt { error, report, annotation },
    }
}

/// One migration under way.
struct Attempt<'a> {
    machine: &'a dyn SourceMachine,
    request: &'a Request,
    control: &'a Control,
    started: Instant,
    channel: Option<Channel>,
    /// When the destination last heard of us on the control connection, over all rounds.
    spoken: Instant,
    annotation: Vec<u8>,
    /// Where pages are written, if they are written one-sided.
    window: Option<Window>,
    tracking: bool,
    ownership: Ownership,
    brake: Brake,
    prediction: Prediction,
    /// What round 0 told besides its sums.
    first: Option<First>,
    /// How long the pause may wait for a good moment.
    patience: Duration,
    paused_at: Option<Instant>,
    was_paused: bool,
    report: MigrateReport,
}

impl Attempt<'_> {
    /// All phases. After an error `ownership` says on which side of the commit point it came.
    fn run(&mut self) -> Result<(), SourceError> {
        let session = self.connect()?;
        let description = self.prepare().map_err(|error| self.explain(error))?;
        let shared = Shared::new(self.control, self.request.bandwidth_bytes_per_s);
        self.machine.start_tracking().map_err(machine_failed("track dirty pages"))?;
        self.tracking = true;
        let bitmaps = pages_of(&description).map(bitmap::full).collect();
        let mut work = Work { number: 0, bitmaps, round_trip: Duration::MAX };
        loop {
            shared.stop.store(false, Ordering::Release);
            let streams = match self.open_streams(session, &shared) {
                Ok((streams, round_trip)) => {
                    work.round_trip = work.round_trip.min(round_trip);
                    streams
                }
                Err(error) => {
                    let error = self.explain(error);
                    // A destination keeps nothing for who never sent a page; made anew, connections may break here as well.
                    if self.report.resumed == 0 {
                        return Err(error);
                    }
                    self.try_again(session, &description, &mut work, error)?;
                    continue;
                }
            };
            let result = thread::scope(|scope| {
                let mut pool = Pool::start(scope, streams);
                let result = self.rounds(&mut pool, &shared, &description, &mut work);
                let result =
                    result.and_then(|()| self.blackout(&mut pool, &shared, &description, work.number + 1));
                shared.stop.store(true, Ordering::Release);
                // The partition goes on at once; the other threads end within a tick.
                result.map_err(|error| self.lose(&shared, error))
            });
            let Err(error) = result else { return Ok(()) };
            let error = if self.ownership.owns() { self.explain(error) } else { error };
            self.try_again(session, &description, &mut work, error)?;
        }
    }

    /// Takes note of what happened to the ownership.
    fn note(&mut self, event: SourceEvent) -> Result<(), SourceError> {
        let next = self.ownership.next(event);
        self.ownership = next.ok_or(SourceError::Order { event, state: self.ownership })?;
        Ok(())
    }

    /// After `cause`: the partition goes on here, unless the commit point is behind us.
    fn lose(&mut self, shared: &Shared, cause: SourceError) -> SourceError {
        match self.note(SourceEvent::Lost) {
            Ok(()) if self.ownership.owns() => self.resume(shared, cause),
            Ok(()) => cause,
            Err(order) => order,
        }
    }

    /// Connects and says hello; gives the session's id.
    fn connect(&mut self) -> Result<[u8; 16], SourceError> {
        self.control.enter(Phase::Connect);
        let failed = |source: TransportError| channel_failed("connecting")(source.into());
        let session = transport::session_id().map_err(failed)?;
        let connection = self.open_connection().map_err(failed)?;
        let mut channel = Channel::new(connection, self.request.timeouts);
        self.check_rdma(&channel).map_err(failed)?;
        let hello = self.hello(Role::Control, session);
        channel.send_hello(&hello, &|| self.control.is_cancelled()).map_err(channel_failed("connecting"))?;
        self.channel = Some(channel);
        Ok(session)
    }

    fn open_connection(&self) -> Result<Connection, TransportError> {
        Connection::connect(&self.request.to, &self.request.security, self.request.timeouts.connect)
    }

    /// Has the machine built at the destination.
    fn prepare(&mut self) -> Result<Description, SourceError> {
        self.control.enter(Phase::Prepare);
        let mut description =
            self.machine.describe(self.request.epoch).map_err(machine_failed("describe itself"))?;
        wire::check_description(&description).map_err(SourceError::Describe)?;
        let doing = "describing the partition";
        // What there is no room for in DESCRIBE goes ahead of it.
        let facts = std::mem::take(&mut description.machine);
        if facts.len() as u64 > wire::MACHINE_BYTES_MAX {
            return Err(SourceError::Describe(WireError::Invalid("it has too many machine facts")));
        }
        if self.request.transport == Transport::Rdma {
            self.send(&Frame::Rdma, doing)?;
        }
        let (pieces, last) = facts.as_chunks::<{ wire::MACHINE_PIECE_BYTES }>();
        for piece in pieces {
            self.send(&Frame::Machine(piece.to_vec()), doing)?;
        }
        self.send(&Frame::Describe(Description { machine: last.to_vec(), ..description.clone() }), doing)?;
        match self.receive(
            &[Kind::Accept, Kind::Refuse],
            "waiting for ACCEPT",
            self.request.timeouts.build,
        )? {
            Frame::Accept { annotation } => self.annotation = annotation,
            Frame::Refuse { reason } => return Err(SourceError::Refused(reason)),
            other => return Err(unexpected(other.kind(), "waiting for ACCEPT")),
        }
        self.receive_window(&description)?;
        Ok(description)
    }

    /// The page streams, and the shortest time from a hello to its answer: a round trip between the two programs.
    fn open_streams<'s>(
        &mut self,
        session: [u8; 16],
        shared: &'s Shared<'s>,
    ) -> Result<(Vec<PageStream<'s>>, Duration), SourceError>
    where
        Self: 's,
    {
        let machine = self.machine;
        let stop = || self.control.is_cancelled();
        let mut round_trip = Duration::MAX;
        let mut open = |number: u8| -> Result<PageStream<'s>, ChannelError> {
            let mut channel = Channel::new(self.open_connection()?, self.request.timeouts);
            channel.send_hello(&self.hello(Role::Pages(number), session), &stop)?;
            let silence = self.request.timeouts.silence;
            let joined = Expect { kinds: &[Kind::Joined], phase: "joining a stream", silence, stop: &stop };
            let asked = clock::now();
            channel.receive(joined)?;
            round_trip = round_trip.min(asked.elapsed());
            if self.channel.as_ref().is_some_and(|control| control.peer() != channel.peer()) {
                return Err(TransportError::OtherPeer.into());
            }
            Ok(PageStream::new(number, channel, machine, shared, silence))
        };
        let mut streams = (0..self.request.streams)
            .map(|number| open(number).map_err(|source| self.stream_failed(number, source)))
            .collect::<Result<Vec<_>, _>>()?;
        self.connect_writers(&mut streams)?;
        Ok((streams, round_trip))
    }

    fn stream_failed(&self, stream: u8, source: ChannelError) -> SourceError {
        if self.control.is_cancelled() {
            SourceError::Cancelled
        } else {
            SourceError::Stream { stream, source }
        }
    }

    /// Rounds with the partition running, until the policy says stop.
    fn rounds(
        &mut self,
        pool: &mut Pool,
        shared: &Shared,
        description: &Description,
        work: &mut Work,
    ) -> Result<(), SourceError> {
        for number in work.number.. {
            work.number = number;
            self.control.enter(Phase::Round(number));
            let start = clock::now();
            let pages = pool.begin(Round::new(number, false, work.bitmaps.clone(), self.request.streams));
            let mut packing = Packing::new(self.machine, self.request, shared, &pages);
            packing.at_the_beginning(&self.report.rounds);
            let mut growth = Growth::new(self.machine, shared, description, &pages);
            let mut round = self.collect(pool, Some(number), || {
                packing.look(start.elapsed());
                if number == 0 { growth.look(start.elapsed()) } else { Ok(()) }
            })?;
            let took = start.elapsed();
            round.codec = shared.codec();
            round.seconds = took.as_secs_f64();
            // An acknowledgement may wait for what came before it, so the shortest one counts.
            work.round_trip = work.round_trip.min(pool.round_trip());
            let harvest_start = clock::now();
            work.bitmaps = observe::harvest(self.machine, description)?;
            let harvest = harvest_start.elapsed();
            if number == 0 {
                self.first = Some(growth.of(&round, &work.bitmaps));
            }
            drop(pages);
            round.dirty_pages_after = work.bitmaps.iter().map(|bitmap| bitmap::count(bitmap)).sum();
            round.share = self.brake.share();
            let observation = self.observe(number + 1, round, harvest, work.round_trip);
            let decision = policy::decide(&self.limits(), &observation);
            let predicted_blackout_ms = milliseconds(policy::predicted_blackout(&observation));
            round.next = Some(decision.into());
            round.predicted_blackout_ms = Some(predicted_blackout_ms);
            self.finish_round(round);
            if number == 0 {
                self.prediction.predicted_total_s =
                    policy::forecast(&self.limits(), &observation).as_secs_f64();
            }
            self.prediction.predicted_blackout_ms = predicted_blackout_ms;
            self.patience = policy::patience(self.request.patience, &observation);
            match decision {
                Decision::Continue(GoOn::Throttled(share)) => {
                    self.brake.set(self.machine, share).map_err(machine_failed("slow it down"))?;
                }
                Decision::Continue(GoOn::AwaitSwitch) => {
                    self.await_switch()?;
                    work.bitmaps = observe::harvest(self.machine, description)?;
                }
                Decision::Continue(GoOn::Falling | GoOn::AboveLimit) => {}
                Decision::Stop(reason) => {
                    self.report.stop_reason = Some(reason);
                    return Ok(());
                }
                Decision::Abort => {
                    return Err(SourceError::NotConverging {
                        predicted_ms: milliseconds(policy::predicted_blackout(&observation)),
                        limit_ms: self.request.downtime_limit.as_millis(),
                        timeout_s: self.request.timeout.as_secs(),
                    });
                }
            }
        }
        self.report.stop_reason = Some(StopReason::RoundsMax);
        Ok(())
    }

    fn limits(&self) -> policy::Limits {
        let Request { downtime_limit, timeout, on_timeout, .. } = *self.request;
        let await_switch = self.request.await_switch && !self.control.may_switch();
        policy::Limits { downtime: downtime_limit, timeout, on_timeout, await_switch }
    }

    /// Waits until the switch-over is allowed, but only so long that little becomes dirty.
    fn await_switch(&mut self) -> Result<(), SourceError> {
        self.control.enter(Phase::AwaitSwitch);
        let start = clock::now();
        while !self.control.may_switch() && start.elapsed() < AWAIT_SWITCH_ROUND {
            if self.control.is_cancelled() {
                return Err(SourceError::Cancelled);
            }
            clock::sleep(AWAIT_SWITCH_LOOK);
        }
        self.report.awaited_s += start.elapsed().as_secs_f64();
        Ok(())
    }

    fn finish_round(&mut self, round: RoundReport) {
        self.report.bytes += round.bytes;
        report::note_round(&mut self.report.rounds, round);
        self.control.finish_round(&round);
    }

    /// Waits until every stream is through the round; meanwhile looks for a cancel and the time-out, and keeps the
    /// control connection alive. `number` is `None` in the blackout, where the time-out no longer counts.
    fn collect(
        &mut self,
        pool: &mut Pool,
        number: Option<u32>,
        mut look: impl FnMut() -> Result<(), SourceError>,
    ) -> Result<RoundReport, SourceError> {
        pool.collect(|| {
            look()?;
            if self.control.is_cancelled() {
                return Err(SourceError::Cancelled);
            }
            let waited = self.report.rounds.last().is_some_and(RoundReport::awaits_switch);
            let limit = match self.request.on_timeout {
                // It only waited for others: this round is a small one.
                _ if waited => None,
                OnTimeout::Abort => Some(self.request.timeout),
                OnTimeout::Throttle => Some(2 * self.request.timeout),
                OnTimeout::Force => None,
            };
            if let (Some(round), Some(limit)) = (number, limit)
                && self.started.elapsed() >= limit
            {
                return Err(SourceError::TimedOut { round, timeout_s: limit.as_secs() });
            }
            self.keep_alive()
        })
    }

    /// Says that this side is there, if it has been silent for long on the control connection.
    fn keep_alive(&mut self) -> Result<(), SourceError> {
        if self.spoken.elapsed() < self.request.timeouts.keep_alive {
            return Ok(());
        }
        self.send(&Frame::KeepAlive, "keeping it alive")
    }

    /// Pauses, sends the rest, and hands over.
    fn blackout(
        &mut self,
        pool: &mut Pool,
        shared: &Shared,
        description: &Description,
        number: u32,
    ) -> Result<(), SourceError> {
        // A partition that sleeps under the brake cannot be paused at once; what it writes meanwhile is found by the harvest.
        self.brake.release(self.machine).map_err(machine_failed("let it run"))?;
        let patience_start = clock::now();
        self.report.moment = self.machine.await_moment(self.patience);
        self.report.patience_ms = since_ms(patience_start);
        let pause_start = clock::now();
        self.machine.pause().map_err(machine_failed("pause"))?;
        (self.paused_at, self.was_paused) = (Some(pause_start), true);
        self.note(SourceEvent::Pause)?;
        self.report.breakdown.pause_ms = since_ms(pause_start);
        self.control.enter(Phase::Blackout);
        shared.lifted.store(true, Ordering::Release);

        let harvest_start = clock::now();
        let bitmaps = observe::harvest(self.machine, description)?;
        self.report.breakdown.harvest_ms = since_ms(harvest_start);
        let pages_start = clock::now();
        pool.begin(Round::new(number, true, bitmaps, self.request.streams));
        let state = self.machine.save().map_err(machine_failed("save its state"))?;
        self.report.breakdown.save_ms = since_ms(pages_start);
        let mut round = self.collect(pool, None, || Ok(()))?;
        round.codec = shared.codec();
        round.seconds = pages_start.elapsed().as_secs_f64();
        self.report.breakdown.pages_ms = since_ms(pages_start);
        self.finish_round(round);

        let saved_start = clock::now();
        self.send_state(&state, pool.stream_pages())?;
        self.control.enter(Phase::Saved);
        self.await_ready(pool.stream_pages().iter().sum())?;
        self.report.breakdown.ready_ms = since_ms(saved_start);
        self.note(SourceEvent::Ready)?;
        self.control.enter(Phase::Ready);
        if self.control.is_cancelled() {
            return Err(SourceError::Cancelled);
        }
        self.commit(pause_start)
    }

    fn send_state(&mut self, state: &[u8], stream_pages: Vec<u64>) -> Result<(), SourceError> {
        if state.len() as u64 > wire::STATE_BYTES_MAX {
            return Err(SourceError::StateTooLarge { bytes: state.len() });
        }
        let state_checksum = wire::state_checksum(state);
        let totals = Totals { state_bytes: state.len() as u64, state_checksum, stream_pages };
        let doing = "sending the state";
        self.send(&Frame::Final(totals), doing)?;
        for piece in state.chunks(wire::STATE_PIECE_BYTES) {
            let sealed =
                Header::seal(Kind::State, piece, &[]).map_err(|error| channel_failed(doing)(error.into()))?;
            let control = self.control;
            let stop = || control.is_cancelled();
            self.channel()?.send_encoded(&sealed, piece, &stop).map_err(channel_failed(doing))?;
            self.report.bytes += (sealed.len() + piece.len()) as u64;
        }
        Ok(())
    }

    fn await_ready(&mut self, sent: u64) -> Result<(), SourceError> {
        let doing = "waiting for READY";
        match self.receive(&[Kind::Ready], doing, self.request.timeouts.silence)? {
            Frame::Ready { pages } if pages == sent => Ok(()),
            Frame::Ready { pages } => Err(SourceError::Miscounted { sent, received: pages }),
            other => Err(unexpected(other.kind(), doing)),
        }
    }

    /// Crosses the commit point and waits for the answer.
    fn commit(&mut self, pause_start: Instant) -> Result<(), SourceError> {
        let epoch = self.request.epoch;
        let doing = "waiting for RUNNING";
        let commit_start = clock::now();
        self.channel()?;
        // THE COMMIT POINT: from the first byte of this frame on the destination may run, so nothing below resumes the source.
        self.note(SourceEvent::Commit)?;
        let silence = self.request.timeouts.running;
        let channel = self.channel()?;
        channel.send(&Frame::Commit { epoch }, &|| false).map_err(channel_failed("committing"))?;
        self.control.enter(Phase::Commit);
        let kinds = &[Kind::Running, Kind::Abort];
        let channel = self.channel()?;
        let answer = channel.receive(Expect { kinds, phase: doing, silence, stop: &|| false });
        match answer.map_err(channel_failed(doing))? {
            Frame::Running { epoch: running } if running == epoch => self.note(SourceEvent::Running)?,
            Frame::Running { epoch: running } => return Err(SourceError::WrongEpoch(running)),
            Frame::Abort { reason } => return Err(SourceError::Aborted(reason)),
            other => return Err(unexpected(other.kind(), doing)),
        }
        self.report.blackout_ms = since_ms(pause_start);
        self.report.breakdown.commit_ms = since_ms(commit_start);
        self.control.enter(Phase::Done);
        Ok(())
    }

    /// When a stream or the connection broke because the destination gave up, its reason is the better error.
    fn explain(&mut self, error: SourceError) -> SourceError {
        let (SourceError::Stream { source, .. } | SourceError::Channel { source, .. }) = &error else {
            return error;
        };
        // Who was silent explains nothing, and a wrong frame or our own fabric explains itself; none may delay our ABORT.
        if !matches!(source, ChannelError::Transport(cause) if !cause.explains_itself()) {
            return error;
        }
        let expect = Expect {
            kinds: &[Kind::Abort],
            phase: "after a failure",
            // The partition goes on already; only the reason is waited for, which a closed connection ends.
            silence: self.request.timeouts.silence.min(EXPLANATION),
            stop: &|| false,
        };
        match self.channel.as_mut().map(|channel| channel.receive(expect)) {
            Some(Ok(Frame::Abort { reason })) => SourceError::Aborted(reason),
            _ => error,
        }
    }

    /// Lets the partition go on if it is paused; `cause` or, if even that fails, both errors come back.
    fn resume(&mut self, shared: &Shared, cause: SourceError) -> SourceError {
        let Some(paused_at) = self.paused_at.take() else { return cause };
        let resumed = shared.exclusively(|| self.machine.resume());
        self.report.blackout_ms = since_ms(paused_at);
        match resumed {
            Ok(()) => cause,
            Err(source) => SourceError::Resume { cause: Box::new(cause), source },
        }
    }

    /// Undoes what is left of a failed attempt: tells the destination, ends tracking.
    fn roll_back(&mut self, error: SourceError) -> SourceError {
        if let Some(channel) = self.channel.take() {
            channel.close_with(&Frame::Abort { reason: one_line(&error) });
        }
        if let Err(failure) = self.brake.release(self.machine) {
            tracing::warn!(%failure, "the partition cannot be let run at full speed after a failed migration");
        }
        if self.tracking
            && let Err(failure) = self.machine.stop_tracking()
        {
            // The next start_tracking begins anew in any case; the partition is only slower until then.
            tracing::warn!(%failure, "dirty tracking cannot be ended after a failed migration");
        }
        self.tracking = false;
        error
    }

    fn channel(&mut self) -> Result<&mut Channel, SourceError> {
        self.channel.as_mut().ok_or_else(|| channel_failed("using it")(TransportError::Closed.into()))
    }

    fn send(&mut self, frame: &Frame, doing: &'static str) -> Result<(), SourceError> {
        let control = self.control;
        let sent = self.channel()?.send(frame, &|| control.is_cancelled());
        self.report.bytes += sent.map_err(|error| self.cancelled_or(doing, error))?;
        self.spoken = clock::now();
        Ok(())
    }

    /// One frame of `kinds`; ABORT is understood everywhere.
    fn receive(
        &mut self,
        kinds: &[Kind],
        doing: &'static str,
        silence: Duration,
    ) -> Result<Frame, SourceError> {
        let control = self.control;
        let kinds = [kinds, &[Kind::Abort]].concat();
        let expect = Expect { kinds: &kinds, phase: doing, silence, stop: &|| control.is_cancelled() };
        match self.channel()?.receive(expect) {
            Ok(Frame::Abort { reason }) => Err(SourceError::Aborted(reason)),
            Ok(frame) => Ok(frame),
            Err(error) => Err(self.cancelled_or(doing, error)),
        }
    }

    fn cancelled_or(&self, doing: &'static str, error: ChannelError) -> SourceError {
        match error {
            ChannelError::Transport(TransportError::Stopped) => SourceError::Cancelled,
            error => channel_failed(doing)(error),
        }
    }
}

/// Pages of every region of a checked description.
fn pages_of(description: &Description) -> impl Iterator<Item = u64> + '_ {
    description.regions.iter().map(|region| region.bytes / PAGE_SIZE as u64)
}

fn since_ms(start: Instant) -> f64 {
    milliseconds(start.elapsed())
}

fn machine_failed(verb: &'static str) -> impl FnOnce(MachineError) -> SourceError {
    move |source| SourceError::Machine { verb, source }
}

fn channel_failed(doing: &'static str) -> impl FnOnce(ChannelError) -> SourceError {
    move |source| SourceError::Channel { doing, source }
}

fn unexpected(kind: Kind, doing: &'static str) -> SourceError {
    channel_failed(doing)(WireError::Unexpected { kind, wanted: doing }.into())
}
